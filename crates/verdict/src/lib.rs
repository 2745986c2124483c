//! Holds what happened against what was predicted.
//!
//! Three steps, each a pure function of the timeline: [`measure`] says what the client was told and
//! when, [`prove`] whether the fault did what its name says, [`judge`] whether the prediction holds.

mod judge;
mod measure;
mod proof;

pub use judge::{Verdict, Word, judge};
pub use measure::{DetectedBy, Measured, measure};
pub use proof::{Evidence, Proof, prove};
