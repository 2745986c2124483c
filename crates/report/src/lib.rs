//! Renders trials for people and programs.
//!
//! This room is pure: it is handed trials and events, and returns texts and bytes. Who calls it
//! writes the files, and knows whether a terminal takes colours.

pub mod advice;
pub mod article;
pub mod audit;
mod catalogue;
pub mod clocks;
mod counts;
mod course;
pub mod csv;
mod digest;
mod fate;
pub mod html;
pub mod human;
pub mod json;
pub mod junit;
mod key;
pub mod keys;
pub mod ktap;
mod legal;
pub mod markdown;
mod mends;
pub mod narrate;
mod parameters;
pub mod passage;
pub mod pcapng;
pub mod perfetto;
pub mod record;
pub mod reference;
pub mod sampled;
pub mod span;
mod story;
mod summary;
mod tally;
mod through;
mod trial;
pub mod validation;
mod words;

pub use article::Article;
pub use digest::Digest;
pub use human::Live;
pub use key::key;
pub use narrate::{Narrator, Note};
pub use summary::{Group, Groups};
pub use tally::{Lost, Run, Tally};
pub use trial::{Clock, Identity, Machine, Status, Trial};

#[cfg(test)]
mod samples;
