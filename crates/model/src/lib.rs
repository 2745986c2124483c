//! What the kernel should do: predictions from an experiment and from facts measured before the
//! fault. This room is pure and cannot see what happened.

pub mod prediction;

pub use prediction::{Prediction, Step, StepKind, Window};
