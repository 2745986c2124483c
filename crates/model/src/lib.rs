//! What the kernel should do: predictions from an experiment and from facts measured before the
//! fault. This room is pure and cannot see what happened.
//!
//! [`predict()`] finds which timer decides (`keepalive`, `retransmit`), lets it run from every
//! phase of the clock that cannot be known, each one exactly as the kernel would ([`wheel`]), and
//! gathers the courses into windows. A phase that is known leaves one course ([`predict_after`]), and
//! those that part from it where a timer runs late (`slip`).

pub mod allowance;
mod closing;
mod connecting;
mod course;
mod crash;
mod dead_path;
mod entry;
mod facts;
mod hop;
mod idle;
mod keepalive;
mod kernel;
mod predict;
pub mod prediction;
mod purpose;
mod retransmit;
mod rto;
mod scene;
mod sender;
mod sending;
mod slip;
pub mod table;
pub mod tick;
mod way;
mod web_server;
pub mod wheel;
pub mod width;
mod window;

pub use facts::nominal_facts;
pub use kernel::smallest_rto;
pub use predict::{predict, predict_after};
pub use prediction::{Prediction, Step, StepKind, Window};
pub use table::table;
