//! What the kernel should do: predictions from an experiment and from facts measured before the
//! fault. This room is pure and cannot see what happened.
//!
//! [`predict()`] puts a socket (`sock`) into a world (`world`) with a program (`program`), lets all
//! three run from every phase of the clock that cannot be known (`start`, `explore`), each timer
//! exactly as the kernel has it ([`wheel`]), and gathers the ends into windows (`windows`). A phase that
//! is known leaves one run ([`predict_after`]), and those that part from it where a timer runs late.

pub mod allowance;
mod black_hole;
mod choices;
mod closed_window;
mod closing;
pub mod command;
mod conclude;
mod connecting;
mod crash;
mod dead_path;
mod entry;
mod explore;
mod facts;
mod hop;
mod idle;
mod keepalive;
mod kernel;
mod laboratory;
mod orphan;
mod outlook;
mod predict;
pub mod prediction;
mod program;
mod purpose;
mod rto;
mod run;
mod sampled;
mod scene;
mod scripted;
mod sending;
mod sequence;
mod sieved;
mod sock;
mod start;
mod step;
pub mod table;
pub mod tick;
mod way;
mod web_server;
pub mod wheel;
pub mod width;
mod window;
mod windows;
mod world;

pub use facts::nominal_facts;
pub use kernel::{NEWEST_READ, keepalive_times, newer_than_read, smallest_rto};
pub use laboratory::FAULT_WITHIN;
pub use outlook::{Doing, Found, Outlook, outlook};
pub use predict::{predict, predict_after, predict_with};
pub use prediction::{Prediction, Step, StepKind, Window};
pub use sampled::{IfIt, predict_socket};
pub use scripted::ObservedCall;
pub use table::table;
