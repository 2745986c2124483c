//! What the kernel should do: predictions from an experiment and from facts measured before the
//! fault. This room is pure and cannot see what happened.
//!
//! [`predict()`] finds which timer decides (`keepalive`, `retransmit`), lets it run from every
//! phase of the clock that cannot be known, each one exactly as the kernel would ([`wheel`]), and
//! gathers the courses into windows. A phase that is known leaves one course ([`predict_after`]), and
//! those that part from it where a timer runs late (`slip`).

pub mod allowance;
#[cfg(test)]
mod difference;
mod entry;
mod explore;
mod facts;
mod hop;
mod kernel;
mod old;
pub mod prediction;
mod program;
mod rto;
mod run;
mod sock;
mod start;
mod step;
pub mod table;
pub mod tick;
pub mod wheel;
pub mod width;
mod windows;
mod world;

pub use facts::nominal_facts;
pub use kernel::smallest_rto;
pub use old::predict::{predict, predict_after};
pub use prediction::{Prediction, Step, StepKind, Window};
pub use table::table;
