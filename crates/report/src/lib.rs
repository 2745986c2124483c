//! Renders trials for people and programs; returns bytes. Pure.
