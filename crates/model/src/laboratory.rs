//! What is known of the moments at which the laboratory acts and looks.

use spec::facts::TcpFacts;
use std::time::Duration;

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}

/// From the time stamp of a sample of socket diagnostics to the kernel's look at the socket, at least.
const SAMPLE_NS: u64 = 200_000;

/// The moments at which the kernel may have looked at the socket, by `CLOCK_MONOTONIC`, nanoseconds: one
/// in each jiffy.
pub(crate) fn looked_at_ns(tcp: &TcpFacts, tick_ns: u64) -> impl Iterator<Item = u64> + use<> {
    let (from_ns, within_ns) = (tcp.sampled_at_ns, tcp.sampled_within_ns.max(SAMPLE_NS));
    let after_ns = (0..within_ns).step_by(tick_ns as usize).chain([within_ns]);
    after_ns.map(move |after_ns| from_ns.saturating_add(after_ns))
}

/// From a moment that an experiment sets to the moment the laboratory acts.
pub(crate) const SLOP_NS: u64 = 100_000_000;
pub(crate) const SLOP: Duration = Duration::from_nanos(SLOP_NS);
/// How long after the last look at the socket a prediction takes the fault to come, at most.
pub const FAULT_WITHIN: Duration = SLOP;
