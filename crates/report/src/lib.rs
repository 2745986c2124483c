//! Renders trials for people and programs.
//!
//! This room is pure: it is handed trials and events, and returns texts and bytes. Who calls it
//! writes the files, and knows whether a terminal takes colours.

pub mod article;
pub mod clocks;
mod course;
pub mod html;
pub mod human;
pub mod json;
pub mod junit;
pub mod markdown;
pub mod narrate;
pub mod passage;
pub mod pcapng;
pub mod span;
mod story;
mod summary;
mod trial;
pub mod validation;
mod words;

pub use article::Article;
pub use human::Live;
pub use narrate::{Narrator, Note};
pub use trial::{Clock, Run, Trial};

#[cfg(test)]
mod samples;
