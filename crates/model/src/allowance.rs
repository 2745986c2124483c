//! How much later than its jiffy a timer may be seen to fire. One place, derived, never tuned.
//!
//! A timer's slot is due when `jiffies` reaches it. What comes after that:
//!
//! - the tick that notices it: with the tick stopped on an idle CPU (`NO_HZ`), `jiffies` itself is
//!   brought up to date by the CPU that wakes, and a timer of an idle CPU may be run by another at
//!   its next tick (kernel/time/timer_migration.c): one jiffy;
//! - the softirq that runs it: at once, unless a softirq is being held back, and then `ksoftirqd`
//!   waits for its turn like any task: one scheduling slice (`sysctl_sched_base_slice`,
//!   kernel/sched/fair.c: 0.7 ms, times 1 + log2 of the number of CPUs, 8 at most): 2.8 ms.
//!
//! A timer that runs a jiffy late arms the next one a jiffy late. Where that falls into slots of
//! eight jiffies or more, the slot takes the jiffy up, or, where it was the last jiffy before the
//! next slot, makes eight or more of it: the courses carry that along themselves
//! (`slip`). On a machine with a load of 9 on two CPUs, 1,236 of 1,403 TCP timers ran on their
//! jiffy, 167 one jiffy late, none later.
//!
//! In the other direction there is next to nothing: the reference (a captured segment) is stamped
//! within microseconds before the timer is armed, and a timer never fires early. What is left is
//! the conversion between the clocks of capture and tracepoints, which is done at both ends of a
//! run: half a millisecond.

use crate::tick::Hz;
use std::time::Duration;

/// One scheduling slice.
pub const SLICE: Duration = Duration::from_micros(2800);

/// How much earlier than computed a time may be measured.
pub const EARLY: Duration = Duration::from_micros(500);

/// How long a killed process may take until its sockets are closed: it must be scheduled (a slice
/// of each of two others before it), and leaves its memory before its files (`do_exit`,
/// kernel/exit.c: `exit_mm`, then `exit_files`), some milliseconds for a small program.
pub const EXIT: Duration = Duration::from_millis(20);

/// How much later than computed a timer may be measured.
pub fn late(hz: Hz) -> Duration {
    hz.duration(1) + SLICE
}
