//! What is known of the moments at which the laboratory acts and looks.

use std::time::Duration;

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}

/// From the time stamp of a sample of socket diagnostics to the kernel's look at the socket.
pub(crate) const SAMPLE_NS: u64 = 200_000;
/// From a moment that an experiment sets to the moment the laboratory acts.
pub(crate) const SLOP_NS: u64 = 100_000_000;
/// How long after the last look at the socket a prediction takes the fault to come, at most.
pub const FAULT_WITHIN: Duration = Duration::from_nanos(SLOP_NS);
