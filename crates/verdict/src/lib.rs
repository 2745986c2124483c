//! Holds what happened against what was predicted.
//!
//! Three steps, each a pure function of the timeline: [`measure`] says what the client was told and
//! when, [`prove`] whether the fault did what its name says, [`judge`] whether the prediction holds.
//!
//! Then what judged trials say about what others wrote: [`claims`] names the sentences and their
//! evidence, [`findings`] derives from the evidence whether they hold.

pub mod claims;
pub mod findings;
mod judge;
mod living;
mod measure;
mod noticed;
mod orders;
mod pairs;
pub mod programs;
mod proof;
mod requirements;
pub mod samples;
pub mod timers;
mod untraced;
mod verdict;
mod waited;

pub use judge::judge;
pub use measure::{DetectedBy, Measured, measure, reference_at, since_reference};
pub use programs::judge_programs;
pub use proof::{Evidence, Proof, prove};
pub use requirements::require;
pub use verdict::{EndedBy, FlowVerdict, Requirement, Verdict, Word};
