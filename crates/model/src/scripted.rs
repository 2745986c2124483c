//! A program that makes any sequence of calls: as its script says, or as they were observed. The
//! socket begins with its last exchange, or with its closed window, and goes through everything: what
//! keepalive does before a write, what a write does to keepalive, a closed window, the end.

use crate::conclude::unknown;
use crate::dead_path;
use crate::explore::{End, Explorer};
use crate::kernel::{Kernel, tcp_rmem};
use crate::laboratory::{SLOP, SLOP_NS, nanos};
use crate::prediction::{Prediction, StepKind};
use crate::program::{Call, Calls, Program};
use crate::run::{Called, Live, Past};
use crate::sock::{Armed, Stamps, Timer};
use crate::tick::{EPOCH, Hz, JiffyPhase};
use crate::wheel::Context;
use crate::width::{self, Cause};
use crate::windows::{Counted, windows};
use crate::world::{Moment, Room, Sequence};
use crate::{closed_window, idle, orphan, purpose, scene, sending, start, way, window};
use spec::effect::{HostFate, Processes};
use spec::{Facts, FaultKind, Outcome, Parameters, Reference, Traffic};
use std::collections::BTreeSet;
use std::time::Duration;

/// A system call that was seen, nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObservedCall {
    /// When.
    pub at_ns: u64,
    /// Which, as the step of a script; how long one waits is told by the next one's time.
    pub step: spec::script::Step,
}

/// From the time stamp of a call, the program's or the tap's, to the arming of its timer.
const CALL_NS: u64 = 100_000;
/// By how much a sleep may be longer than it was asked to be: at least, and at most.
const LAGS_NS: [u64; 2] = [60_000, 1_000_000];
/// A step of a run whose phase of the clock is not known yet stands for those of so many.
const STANDS_FOR: usize = 16;
/// What a fault's end may be late by where time is virtual.
const GOES_ON_NS: u64 = 2_000_000;

/// What the kernel will report, and when.
pub(crate) fn predict(
    parameters: &Parameters,
    facts: &Facts,
    observed: Option<&[ObservedCall]>,
) -> Prediction {
    predict_through(parameters, facts, observed, &[])
}

/// The same where faults follow one another, in one of these ways.
pub(crate) fn predict_through(
    parameters: &Parameters,
    facts: &Facts,
    observed: Option<&[ObservedCall]>,
    sequences: &[Sequence],
) -> Prediction {
    let cfg = Kernel::new(parameters, facts);
    if let Some(reason) = dead_path::unsettled(&cfg, parameters, facts) {
        return unknown(parameters, reason);
    }
    match ends(&cfg, parameters, facts, observed, sequences) {
        Ok(ends) => {
            let prediction = conclude(&cfg, parameters, facts, &ends, observed.is_some());
            let mended = parameters.fault_duration().unwrap_or_default();
            let outlasts = prediction.hull().is_none_or(|(_, latest)| latest > mended);
            if outlasts && sending::is_unfinished(&cfg, parameters, facts) {
                return unknown(parameters, sending::UNFINISHED.into());
            }
            prediction
        }
        Err(reason) => unknown(parameters, reason),
    }
}

/// The same of a program that makes one call, where that was observed.
pub(crate) fn predict_once(
    parameters: &Parameters,
    facts: &Facts,
    first_write_ns: Option<u64>,
) -> Prediction {
    let client = &parameters.client;
    let once = client.traffic == Traffic::OneWrite && client.second_write.is_none();
    let step = spec::script::Step::Write(spec::experiment::BLOCK);
    let write = first_write_ns.filter(|_| once).map(|at_ns| [ObservedCall { at_ns, step }]);
    predict(parameters, facts, write.as_ref().map(|calls| &calls[..]))
}

fn ends(
    cfg: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
    observed: Option<&[ObservedCall]>,
    sequences: &[Sequence],
) -> Result<Vec<End>, String> {
    let later = Kernel::later(parameters, facts)?;
    let mut calls = match observed {
        Some(observed) => observed_calls(observed),
        None if parameters.client.traffic == Traffic::Heartbeat => {
            Calls::heartbeats(&parameters.client.heartbeat)
        }
        None => Calls::of(&parameters.script().unwrap_or_default()),
    };
    calls.lingers = parameters.client.linger.map(|linger| cfg.hz.from_secs(linger.as_secs()));
    let clock = facts.jiffies.map(|clock| JiffyPhase::new(cfg.hz, clock));
    let first = observed.and_then(|observed| observed.first()).map(|call| call.at_ns);
    let first_ns = clock.zip(first).and_then(|(clock, at_ns)| clock.of(at_ns));
    let begins = (first_ns, facts.jiffies.is_some());
    let explore = |runs: Vec<Start>| {
        let mut explorer = Explorer::new(cfg, later.as_ref(), &calls).one_of(STANDS_FOR);
        for run in going_on_late(cfg, runs) {
            begin(&mut explorer, cfg, &calls, begins, run);
        }
        explorer.go().map(|()| explorer.ends)
    };
    if parameters.client.fills_window {
        return explore(closed_window_runs(cfg, parameters, facts)?);
    }
    let scenes = idle::scenes(cfg, parameters, facts, true)?.unwrap_or_default();
    let mut runs = runs(cfg, parameters, facts, &scenes, calls.writes_after_ns())?;
    if !sequences.is_empty() {
        runs = sequences.iter().flat_map(|sequence| befallen(sequence, &runs)).collect();
    }
    explore(runs)
}

/// The same runs with what befalls them.
fn befallen(sequence: &Sequence, runs: &[Start]) -> Vec<Start> {
    // Of two timers that fire at the same jiffy, either may be the first.
    let orders: &[bool] = if sequence.has_timer() { &[false, true] } else { &[false] };
    let befallen = runs.iter().flat_map(|(run, past, fault_ns)| {
        let worlds = sequence.each_befalls(&run.world, *fault_ns);
        worlds.into_iter().flat_map(move |world| {
            orders.iter().map(move |first| {
                let mut run = Live { world: world.clone(), ..run.clone() };
                run.world.hop_first = *first;
                (run, past.clone(), *fault_ns)
            })
        })
    });
    befallen.collect()
}

/// Where a process goes on, or a path lets everything pass again, it may do so some time after it
/// should.
fn going_on_late(cfg: &Kernel, mut runs: Vec<Start>) -> Vec<Start> {
    let late_ns = if cfg.virtual_time { GOES_ON_NS } else { SLOP_NS };
    let late = runs.iter().filter_map(|(run, past, fault_ns)| {
        let mut run = run.clone();
        let goes_on = run.world.peer.reads_from_ns.as_mut().filter(|from_ns| **from_ns > 0);
        match goes_on {
            Some(from_ns) => *from_ns += late_ns,
            None if run.world.losses.as_mut().is_some_and(|losses| losses.end_later(late_ns)) => {}
            None => return None,
        }
        Some((run, past.clone(), *fault_ns))
    });
    let late: Vec<_> = late.collect();
    runs.extend(late);
    runs
}

/// Starts a run with each moment at which its program may begin.
fn begin(
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
    for (index, (after_ns, call)) in calls.all.iter().enumerate() {
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

fn observed_calls(observed: &[ObservedCall]) -> Calls {
    let mut steps = Vec::new();
    let mut last_ns = observed.first().map_or(0, |call| call.at_ns);
    for call in observed {
        let wait = Duration::from_nanos(call.at_ns.saturating_sub(last_ns));
        steps.push(spec::script::Step::Wait(wait));
        steps.push(call.step);
        last_ns = call.at_ns;
    }
    Calls::of(&spec::Script { steps, repeats: false })
}

/// A socket that there may be before the program begins, with what led to it and when the fault comes,
/// nanoseconds.
type Start = (Live, Past, u64);

/// The sockets whose window is closed.
fn closed_window_runs(
    cfg: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
) -> Result<Vec<Start>, String> {
    let scenes = closed_window::scenes(cfg, parameters, facts)?;
    let runs = scenes.into_iter().flat_map(|(meets, start)| {
        let fault_ns = start.sampled_ns + meets.reference_until_ns;
        let (run, past) = start::window_run(cfg, &meets, &start);
        let run = equip(cfg, parameters, facts, run, Some(start.base), fault_ns);
        scene::icmp_times(cfg, run.world.hop.reverts_by_timer()).map(move |icmp_ns| {
            let mut run = run.clone();
            run.world.icmp_ns = icmp_ns;
            (run, past.clone(), fault_ns)
        })
    });
    Ok(runs.collect())
}

/// The sockets after their last exchange: where the keepalive timer is not known, of any phase of the clock.
fn runs(
    cfg: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
    scenes: &[idle::Idle],
    writes_after_ns: u64,
) -> Result<Vec<Start>, String> {
    let tick_ns = cfg.hz.tick_ns();
    let mut all = Vec::new();
    let mut seen = Vec::new();
    for (scene, known) in scenes {
        // Where data goes is asked for below.
        let what = (scene.meets.reference_until_ns, *known, scene.meets.rtt_ns);
        if seen.contains(&what) {
            continue;
        }
        seen.push(what);
        let mut starts = Vec::new();
        if let Some(known) = known {
            let (run, received_ns) = start::known_keepalive(cfg, scene, known);
            starts.push((run, (received_ns - (tick_ns - 1), received_ns), received_ns));
        } else {
            let timeout = cfg.keepalive_time;
            let fires = cfg.wheel.fires_from(EPOCH, timeout, Context::Call, 1);
            let received_ns = EPOCH * tick_ns + scene.armed_before_ns.0;
            let mut run = start::idle(cfg, scene, received_ns, Armed { fires, timeout }, true);
            run.world.phase = 1;
            let start = (received_ns - (tick_ns - 1), received_ns + tick_ns);
            starts.push((run, start, received_ns));
        }
        let errors = [None].into_iter().chain(scene.delayed_ack_error.map(Some));
        let starts = starts
            .into_iter()
            .flat_map(|start| errors.clone().map(move |error| (start.clone(), error)));
        for ((mut run, start, received_ns), error) in starts {
            run.sock.delack_draws = error.filter(|_| run.sock.delack_timer.is_some());
            // Nothing but keepalive asks for it.
            let rcv_tstamp = if run.sock.keepopen { run.sock.stamps.rcv_tstamp } else { 0 };
            let mut past = Past::new(start, received_ns, Stamps { rcv_tstamp, ..run.sock.stamps });
            past.due(Timer::Keepalive, received_ns + cfg.keepalive_time * tick_ns);
            past.counts.probes = run.sock.probes_out;
            let fault_ns = received_ns.saturating_add(scene.meets.reference_until_ns);
            let run = equip(cfg, parameters, facts, run, None, fault_ns);
            let probed = may_have_probed(facts).then(|| {
                let mut run = run.clone();
                run.sock.tlp_out = Some(run.sock.next_number());
                run
            });
            let hops = hops(cfg, parameters, facts, fault_ns + writes_after_ns)?;
            for (run, hop) in std::iter::once(&run)
                .chain(&probed)
                .flat_map(|run| hops.iter().map(move |hop| (run, hop)))
            {
                // Of two timers that fire at the same jiffy, either may be the first.
                let orders: &[bool] = if hop.has_timer() { &[false, true] } else { &[false] };
                for icmp_ns in scene::icmp_times(cfg, hop.reverts_by_timer()) {
                    for first in orders {
                        let mut run = run.clone();
                        (run.world.hop, run.world.hop_first) = (hop.clone(), *first);
                        run.world.icmp_ns = icmp_ns;
                        all.push((run, past.clone(), fault_ns));
                    }
                }
            }
        }
    }
    Ok(all)
}

/// Whether a tail loss probe may have been what was acknowledged last, after which there is no other before
/// something new is acknowledged (`tcp_process_tlp_ack`): nothing shows `tlp_high_seq`.
fn may_have_probed(facts: &Facts) -> bool {
    let again = facts.tcp.as_ref().and_then(|tcp| tcp.total_retrans);
    again.is_some_and(|count| count > 0)
}

/// Where packets go once the fault is there, if the first write comes at `at_ns`.
fn hops(
    cfg: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
    at_ns: u64,
) -> Result<Vec<crate::hop::Hop>, String> {
    let effect = parameters.fault.effect();
    let reset = parameters.fault.kind == FaultKind::Reject
        && parameters.fault.reject == spec::Reject::TcpReset;
    if effect.reachable_at_fault() || reset {
        return Ok(vec![crate::hop::Hop::Silent]);
    }
    let kinds = dead_path::hops(cfg, parameters, facts)?;
    let jiffy = at_ns / cfg.hz.tick_ns();
    Ok(kinds.iter().flat_map(|kind| kind.hops(cfg, jiffy)).collect())
}

/// What data needs beside what probes do.
fn equip(
    cfg: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
    mut run: Live,
    rto: Option<u64>,
    fault_ns: u64,
) -> Live {
    let rto = rto.unwrap_or_else(|| sending::possible_rtos(cfg, parameters, facts)[0]);
    (run.sock.rto, run.sock.rto_base) = (rto, rto);
    if let Some(tcp) = &facts.tcp {
        run.sock.srtt_us = u64::from(tcp.srtt_us.max(1));
        run.sock.cwnd = if tcp.snd_cwnd == 0 { 10 } else { tcp.snd_cwnd };
    }
    let farewell = purpose::farewell(cfg, parameters, facts);
    run.sock.rtt = Some(farewell.rtt);
    run.world.peer.delayed_ack = farewell.acknowledged_after;
    let effect = parameters.fault.effect();
    run.world.peer.pingpong = parameters.server.reads;
    let traffic = parameters.client.traffic;
    run.world.peer.answers_data =
        matches!(traffic, Traffic::OneWrite | Traffic::Stream | Traffic::Heartbeat);
    run.world.peer.reads_from_ns = match effect.processes {
        _ if effect.host != HostFate::Stays || !parameters.server.reads => None,
        Processes::Run => Some(0),
        Processes::Stopped => parameters.fault_duration().map(|lasts| fault_ns + nanos(lasts)),
        Processes::Killed | Processes::Gone => None,
    };
    if run.world.peer.reads_from_ns != Some(0) {
        let rcv_wnd = facts.tcp.as_ref().map_or(0, |tcp| tcp.snd_wnd);
        run.world.peer.room = Room::new(cfg, tcp_rmem(parameters, facts), rcv_wnd);
    }
    // A router may have forgotten it already.
    if run.world.memory.is_none() && run.world.lost != Moment::Past {
        run.world.memory = way::memory(cfg, parameters, run.sock.stamps.rcv_tstamp);
    }
    run.world.losses = way::losses(cfg, parameters, fault_ns);
    run
}

fn conclude(
    cfg: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
    ends: &[End],
    observed: bool,
) -> Prediction {
    let by_call = |end: &End| match end.past.called {
        Some(Called::Write) => Reference::FirstWrite,
        Some(Called::Shutdown | Called::Close) => Reference::Close,
        None => Reference::LastActivity,
    };
    let told: Vec<_> =
        ends.iter().filter(|end| end.outcome != Outcome::None).map(by_call).collect();
    let mut references = told.clone();
    references.dedup();
    let reference = match &references[..] {
        [] => ends.first().map_or(Reference::LastActivity, by_call),
        [one] => *one,
        _ if told.iter().all(|reference| *reference == told[0]) => told[0],
        _ => {
            let reason = "whether the connection ends before the program's next call or after it \
                          is not known: times would count from different moments";
            return unknown(parameters, reason.into());
        }
    };
    let traffic = parameters.client.traffic;
    let goes_on = matches!(traffic, Traffic::Stream | Traffic::Heartbeat)
        || parameters.script().is_some_and(|script| script.repeats);
    let counted = Counted {
        // Once the path is back and everything is acknowledged, nothing more is sent again.
        while_it_lives: parameters.fault.kind == FaultKind::Flap && !goes_on,
        keepalive_probes: parameters.client.keepalive.enabled,
        window_probes: parameters.client.fills_window,
        early_ns: cfg.reference_late_ns(),
    };
    let (mut windows, schedule) = windows(ends, &counted, Hz::new(facts.hz));
    if reference != Reference::LastActivity && !observed {
        // Timers that ran before the call have come as far as the fault: the call comes some time after.
        for window in &mut windows {
            width::determine(&mut window.width, Cause::Call, SLOP);
        }
    }
    let mut prediction = Prediction { schedule, ..Prediction::of(reference, windows, "") };
    let lives = prediction.windows.iter().all(|window| window.outcome == Outcome::None);
    let sends_again = !prediction.schedule.is_empty();
    let heartbeats = parameters.client.traffic == Traffic::Heartbeat && sends_again;
    prediction.why = if lives && heartbeats {
        sending::why_program_gives_up(parameters.client.heartbeat.deadline)
    } else {
        why(cfg, &prediction)
    };
    if parameters.client.fills_window {
        window::open_by_rto(cfg, parameters, facts, &mut prediction);
    }
    prediction
}

/// Why, from the run that decided: what its last timers did.
pub(crate) fn why(cfg: &Kernel, prediction: &Prediction) -> String {
    let Some(window) = prediction.windows.first() else { return String::new() };
    let mut steps = prediction.schedule.iter();
    let last = steps.rfind(|step| step.kind != StepKind::GiveUp);
    match (window.outcome, last.map(|step| step.kind)) {
        (Outcome::None, None) => {
            "everything the program sends is answered, or it sends nothing".into()
        }
        (Outcome::Released, None) => {
            "the program has closed, and the kernel lets the connection go".into()
        }
        (Outcome::Eof, _) => orphan::WHY_EOF.into(),
        (_, Some(StepKind::KeepaliveProbe)) => idle::why_keepalive(cfg, prediction, window),
        (_, Some(StepKind::WindowProbe)) => window::why(cfg, prediction),
        (Outcome::Released, Some(_)) => {
            "the program has closed and nothing is acknowledged: the timeouts of an orphaned \
             socket end it"
                .into()
        }
        _ => sending::why_sending(cfg, prediction),
    }
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
