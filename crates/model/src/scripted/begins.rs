//! When a program may begin, and in which parts of a jiffy its calls come.

use super::Start;
use crate::explore::Explorer;
use crate::kernel::Kernel;
use crate::laboratory::SLOP_NS;
use crate::program::{Call, Calls, Program};
use spec::experiment::BLOCK;
use std::collections::BTreeSet;

/// From the time stamp of a call, the program's or the tap's, to the arming of its timer.
const CALL_NS: u64 = 100_000;
/// By how much a sleep may be longer than it was asked to be: at least, and at most.
const LAGS_NS: [u64; 2] = [60_000, 1_000_000];
/// Of calls that repeat, so many are told apart by the part of the jiffy that they come in.
const REPEATS_APART: usize = 3;

/// Starts a run with each moment at which its program may begin.
pub(super) fn begin(
    explorer: &mut Explorer<'_>,
    cfg: &Kernel,
    calls: &Calls,
    (first_ns, phase_known): (Option<u64>, bool),
    (run, past, fault_ns): Start,
) {
    let lags: &[u64] = match () {
        () if first_ns.is_some() || !calls.go_on() => &[0],
        () if cfg.virtual_time => &[0, LAGS_NS[0]],
        () => &LAGS_NS,
    };
    for lag_ns in lags {
        let parts = parts(calls, *lag_ns, run.world.round_trip_ns(), cfg.hz.tick_ns());
        for (begins_ns, spread_ns) in begins(cfg, first_ns, fault_ns, &parts, phase_known) {
            let mut run = run.clone();
            run.program = Program::new(calls, begins_ns, *lag_ns);
            let mut past = past.clone();
            past.call_spread_ns = Some(spread_ns);
            explorer.start(run, past);
        }
    }
}

/// The parts of a jiffy that its first call may come in, each by its end and its length: in each of
/// them all calls come in the same jiffies, and what they send and its answers arrive in the same.
fn parts(calls: &Calls, lag_ns: u64, rtt_ns: Option<u64>, tick_ns: u64) -> Vec<(u64, u64)> {
    let mut ends = BTreeSet::new();
    let mut at_ns = 0_u64;
    // A jiffy need not be whole nanoseconds: what comes a whole number of them later shares its part, of which
    // what is too much for that is left out.
    let mut last_ns = tick_ns;
    let again = calls.repeats_after.map(|every_ns| (every_ns, Call::Write(BLOCK)));
    let again = again.iter().cycle().take(REPEATS_APART);
    for (index, (after_ns, call)) in calls.all.iter().chain(again).enumerate() {
        at_ns = at_ns.saturating_add(*after_ns).saturating_add(if index == 1 { lag_ns } else { 0 });
        let due_ns = match call {
            Call::Request(_, deadline_ns) => at_ns.saturating_add(*deadline_ns),
            _ => at_ns,
        };
        let arrives = rtt_ns.into_iter().flat_map(|rtt_ns| [at_ns + rtt_ns / 2, at_ns + rtt_ns]);
        for moment_ns in [at_ns, due_ns].into_iter().chain(arrives) {
            let end_ns = tick_ns - moment_ns % tick_ns;
            if moment_ns % tick_ns > moment_ns / tick_ns {
                ends.insert(end_ns);
            } else {
                last_ns = last_ns.min(end_ns);
            }
        }
    }
    ends.retain(|end_ns| *end_ns < last_ns);
    ends.insert(last_ns);
    let mut from_ns = 0;
    let part = |end_ns| (end_ns, end_ns - std::mem::replace(&mut from_ns, end_ns));
    ends.into_iter().map(part).collect()
}

/// When the program may begin: when it was seen to, or within 100 ms of the fault, at the end of each
/// part of each jiffy; and by how much sooner.
fn begins(
    cfg: &Kernel,
    first_ns: Option<u64>,
    fault_ns: u64,
    parts: &[(u64, u64)],
    phase_known: bool,
) -> Vec<(u64, u64)> {
    if let Some(at_ns) = first_ns {
        return vec![(at_ns, 0), (at_ns + CALL_NS, 0)];
    }
    let tick_ns = cfg.hz.tick_ns();
    let first = fault_ns / tick_ns;
    let last = (fault_ns + SLOP_NS) / tick_ns;
    let stride = if phase_known { 1 } else { ((last - first) / 2).max(1) };
    let jiffies = (first..=last).step_by(stride as usize);
    let all = jiffies.flat_map(|jiffy| {
        parts.iter().map(move |(end_ns, length_ns)| (jiffy * tick_ns + end_ns - 1, length_ns - 1))
    });
    // What ends before the fault is not looked at.
    all.filter(|(at_ns, _)| *at_ns >= fault_ns).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At HZ 300 a jiffy is 3,333,333 ns, and 510 of them are 170 ns short of 1.7 s.
    #[test]
    fn what_comes_whole_jiffies_later_comes_in_the_same_jiffy_in_each_part() {
        let script: spec::Script = "write 1; wait 1700ms; write 100".parse().unwrap();
        let tick_ns = 3_333_333;
        for (end_ns, length_ns) in parts(&Calls::of(&script), 0, None, tick_ns) {
            for at_ns in [end_ns - length_ns, end_ns - 1] {
                assert_eq!((at_ns + 1_700_000_000) / tick_ns, 510, "{at_ns}");
            }
        }
    }
}
