//! A program that makes any sequence of calls: as its script says, or as they were observed. The
//! socket begins with its last exchange, or with its closed window, and goes through everything: what
//! keepalive does before a write, what a write does to keepalive, a closed window, the end.

mod begins;

use crate::conclude::unknown;
use crate::dead_path;
use crate::explore::{End, Explorer};
use crate::kernel::{Kernel, tcp_rmem};
use crate::laboratory::{SLOP, SLOP_NS, nanos};
use crate::prediction::{Prediction, StepKind};
use crate::program::Calls;
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
use std::time::Duration;

/// A system call that was seen, nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObservedCall {
    /// When.
    pub at_ns: u64,
    /// Which, as the step of a script; how long one waits is told by the next one's time.
    pub step: spec::script::Step,
}

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
            begins::begin(&mut explorer, cfg, &calls, begins, run);
        }
        explorer.go().map(|()| explorer.ends)
    };
    if parameters.client.fills_window {
        return explore(closed_window_runs(cfg, parameters, facts)?);
    }
    let scenes = idle::scenes(cfg, parameters, facts, true)?.unwrap_or_default();
    let mut runs = runs(cfg, parameters, facts, &scenes, calls.writes_after_ns())?;
    if !sequences.is_empty() {
        if let Some(every_ns) = calls.repeats_after {
            for (run, ..) in &mut runs {
                writes_on(cfg, run, every_ns);
            }
        }
        runs = sequences.iter().flat_map(|sequence| befallen(sequence, &runs)).collect();
    }
    explore(runs)
}

/// What it means between faults that the program writes once in such a time.
fn writes_on(cfg: &Kernel, run: &mut Live, every_ns: u64) {
    let Live { sock, world, .. } = run;
    let tick_ns = cfg.hz.tick_ns();
    world.writes_on = !sock.keepopen || every_ns < cfg.keepalive_time * tick_ns;
    world.congested = world.peer.rtt_ns >= tick_ns && every_ns < sock.rto * tick_ns;
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
    let gives_up = traffic == Traffic::Heartbeat && ends.iter().any(|end| end.by_program);
    prediction.why = if lives && gives_up {
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
