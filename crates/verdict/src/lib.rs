//! Holds what happened against what was predicted. Pure.
