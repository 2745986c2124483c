//! Looks at a network namespace without changing it: packets, sockets, tracepoints.
//!
//! Everything here is synchronous and knows no runtime: an instrument has descriptors to poll
//! ([`std::os::fd::AsFd`]) and a `drain` that never blocks. Whoever owns the runtime wraps the one
//! and calls the other. Every time is `CLOCK_MONOTONIC`, in nanoseconds.

pub mod clock;
pub mod diag;
pub mod error;
pub mod options;
pub mod sockets;
pub mod tap;
pub mod tracer;

pub use diag::SocketDiag;
pub use error::Error;
pub use tap::{Captured, Tap};
pub use tracer::Tracer;
