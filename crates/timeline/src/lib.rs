//! What happened: one merged, source-tagged, monotonic event log.
//!
//! One event type stands between the runner and every reporter, the verdict included. This room is
//! pure: events are handed in with their times, and never looked up.

pub mod classify;
pub mod event;
pub mod flow;
pub mod log;
pub mod segment;
pub mod table;
mod turned;

pub use classify::{Class, Classifier, classified};
pub use event::{Event, Source, What};
pub use flow::{Ends, Flow, FlowId, Side};
pub use log::Timeline;
pub use segment::{Flags, Segment};
pub use table::FlowTable;
