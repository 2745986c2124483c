//! What makes a window as wide as it is. Nothing is tuned: each share has its source, and together
//! they are no less than the width.

use crate::allowance;
use crate::tick::Hz;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One share of a window's width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Where it comes from.
    pub cause: Cause,
    /// How much it is.
    pub by: Duration,
}

/// Where a share of a window's width comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The slot of the timer wheel that the last timer falls into, by a phase that is not known
    /// ([`crate::wheel::Wheel::slot`]).
    WheelSlot,
    /// The slots of the timers before it, and the jiffy in which an answer comes, by the same phase.
    EarlierSlots,
    /// Timers before the last that run a jiffy late: that jiffy where no slot takes it up, and the
    /// slots that it makes the next ones miss.
    LateTimers,
    /// The RTO, where it was not sampled: the range it may have.
    Rto,
    /// What a round trip varies by, or the timer that made the reference.
    RoundTrip,
    /// How long a killed process takes until its sockets are closed ([`allowance::EXIT`]).
    ProcessExit,
    /// A program's own timer: the steps of its clock, and the kernel's slack for its sleep.
    ProgramTimer,
    /// The program's call, or the laboratory's next act, comes within 100 ms of the fault.
    Call,
    /// The tick that notices a timer ([`allowance::late`]).
    Tick,
    /// The scheduling slice until it runs ([`allowance::late`]).
    Slice,
    /// The conversion between the clocks of two instruments, at both ends ([`allowance::EARLY`]).
    Clocks,
    /// What happens on the way cannot be followed to the jiffy.
    Undetermined,
}

impl Cause {
    /// The written name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WheelSlot => "wheel-slot",
            Self::EarlierSlots => "earlier-slots",
            Self::LateTimers => "late-timers",
            Self::Rto => "rto",
            Self::RoundTrip => "round-trip",
            Self::ProcessExit => "process-exit",
            Self::ProgramTimer => "program-timer",
            Self::Call => "call",
            Self::Tick => "tick",
            Self::Slice => "slice",
            Self::Clocks => "clocks",
            Self::Undetermined => "undetermined",
        }
    }
}

/// The shares that there are: those of no time are left out.
pub(crate) fn shares(all: impl IntoIterator<Item = (Cause, Duration)>) -> Vec<Share> {
    all.into_iter().filter(|(_, by)| !by.is_zero()).map(|(cause, by)| Share { cause, by }).collect()
}

/// What has no other cause is this one's, up to so much: of `Cause::Undetermined`.
pub(crate) fn determine(shares_of: &mut Vec<Share>, cause: Cause, most: Duration) {
    let Some(open) = shares_of.iter_mut().find(|share| share.cause == Cause::Undetermined) else {
        return;
    };
    let by = open.by.min(most);
    open.by -= by;
    shares_of.retain(|share| !share.by.is_zero());
    shares_of.extend(shares([(cause, by)]));
}

/// What every moment that a timer makes may be late by, and be measured early by.
pub(crate) fn allowed(hz: Hz) -> [(Cause, Duration); 3] {
    let tick = hz.duration(1);
    [
        (Cause::Tick, tick),
        (Cause::Slice, allowance::late(hz).saturating_sub(tick)),
        (Cause::Clocks, allowance::EARLY),
    ]
}
