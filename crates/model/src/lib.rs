//! What the kernel should do: predictions from an experiment and from facts measured before the
//! fault. This room is pure and cannot see what happened.

pub mod allowance;
mod course;
mod crash;
mod dead_path;
mod facts;
mod keepalive;
mod kernel;
mod predict;
pub mod prediction;
mod retransmit;
mod rto;
pub mod tick;
pub mod wheel;

pub use facts::nominal_facts;
pub use predict::predict;
pub use prediction::{Prediction, Step, StepKind, Window};
