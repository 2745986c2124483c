//! The requirements that a connection must meet.

use std::time::Duration;

/// When a dead peer must be found out, and what must be survived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// The longest that the kernel may take to tell the program that its peer is gone: from the last
    /// segment received where the connection is idle, from the first write that is not acknowledged
    /// where it is not.
    pub detect: Duration,
    /// An outage of the path that must not end the connection, wherever it falls; zero: none.
    pub survive: Duration,
    /// What the connection does meanwhile.
    pub busy: Busy,
    /// The connection's path.
    pub path: Path,
}

/// What a connection does while its peer is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    /// It waits.
    Idle,
    /// It has written, and waits for the acknowledgement.
    Sending,
    /// Either.
    Any,
}

impl Busy {
    /// Whether it may be idle.
    pub fn may_idle(self) -> bool {
        self != Self::Sending
    }

    /// Whether it may send.
    pub fn may_send(self) -> bool {
        self != Self::Idle
    }

    /// The written name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Sending => "sending",
            Self::Any => "any",
        }
    }
}

/// What is known of the path and of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// Round-trip time.
    pub rtt: Duration,
    /// A middlebox on the way forgets a flow that was idle for so long.
    pub forgets_after: Option<Duration>,
    /// The kernel's timer frequency.
    pub hz: u32,
    /// The kernel's version, major and minor.
    pub kernel: (u32, u32),
}

impl Path {
    /// Whether the kernel has `TCP_RTO_MAX_MS`.
    pub fn has_rto_max(&self) -> bool {
        self.kernel >= (6, 15)
    }
}
