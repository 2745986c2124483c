//! The keepalive timer of an idle connection: `tcp_keepalive_timer` (net/ipv4/tcp_timer.c).
//!
//! The timer is armed for the idle time when `SO_KEEPALIVE` is set (`tcp_set_keepalive`), and not
//! again when segments arrive: it fires, sees how long ago the last one came
//! (`keepalive_time_elapsed`), and waits for the rest. From the first probe on it is armed for the
//! interval at each firing, each time rounded to a slot of the wheel.

use crate::kernel::Kernel;
use crate::way::Meets;
use crate::wheel::Context;
use spec::Errno;

/// How an idle connection meets its fault.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    /// How long the timer was armed before the last exchange ended, nanoseconds: one round trip
    /// and what the programs need.
    pub(crate) armed_before_ns: (u64, u64),
    pub(crate) meets: Meets,
    /// How long the last exchange's acknowledgement is delayed, jiffies; `None`: it is not.
    pub(crate) delayed_ack: Option<u64>,
    /// The error that this acknowledgement may draw if it goes after the fault.
    pub(crate) delayed_ack_error: Option<Errno>,
    /// Whether keepalive is on.
    pub(crate) enabled: bool,
}

/// A timer that runs: what is known of it. Jiffies of one clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    /// When it was armed, for how long, and by whom.
    pub(crate) armed: u64,
    pub(crate) delay: u64,
    pub(crate) context: Context,
    /// When the last segment was received, whether a probe drew it, and how many were sent since.
    pub(crate) received: u64,
    pub(crate) answered: bool,
    pub(crate) probes: u32,
    /// When all this was looked at, nanoseconds of the same clock.
    pub(crate) sampled_ns: u64,
}

impl Known {
    /// The jiffy at which it fires.
    pub(crate) fn fires(&self, kernel: &Kernel) -> u64 {
        kernel.wheel.fires_at(self.armed, self.delay, self.context)
    }
}
