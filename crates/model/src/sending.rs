//! Data is outstanding, or a FIN: the write timer decides, and keepalive is silent.

use crate::allowance;
use crate::conclude::{conclude, reference, unknown};
use crate::dead_path::{
    NEIGHBOUR_LIVES, healed, hops, is_cut, round_trip_ns, round_trip_within_ns, way_back,
};
use crate::entry::Looked;
use crate::kernel::Kernel;
use crate::laboratory::{SLOP, SLOP_NS, nanos};
use crate::prediction::{COUNTED_MOST, Prediction, Step, StepKind, Window};
use crate::purpose::{self, Purpose};
use crate::rto;
use crate::scene;
use crate::start;
use crate::tick::{Hz, JiffyPhase};
use crate::width::{self, Cause};
use crate::windows::{Counted, windows};
use crate::world::{Healed, WayBack};
use spec::facts::TcpFacts;
use spec::{Errno, Facts, FaultKind, Neighbour, Outcome, Parameters, Reject, Topology, Traffic};
use std::time::Duration;

pub(crate) fn predict(
    kernel: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
    first_write_ns: Option<u64>,
) -> Prediction {
    if parameters.fault.kind == FaultKind::Reject && parameters.fault.reject == Reject::TcpReset {
        return reset_at_once(parameters, facts);
    }
    let ends = scenes(kernel, parameters, facts)
        .and_then(|scenes| found(kernel, facts, &scenes, first_write_ns));
    let found = match ends {
        Ok(found) => found,
        Err(reason) => return unknown(parameters, reason),
    };
    let prediction = conclude(parameters, found, |prediction| {
        let why = why_sending(kernel, prediction);
        if parameters.later.sysctl.is_empty() {
            return why;
        }
        let after = spec::duration::show(parameters.later.after);
        format!("each timer uses the sysctls in force when it fires, and they change after {after}")
    });
    let prediction = until_server_sends_again(kernel, parameters, facts, prediction);
    let prediction = until_program_gives_up(parameters, prediction);
    match router_forgets_at_random(kernel, parameters, facts, &prediction) {
        Some(reason) => unknown(parameters, reason),
        None => prediction,
    }
}

/// How these scenes end: the windows, and the schedule of the first; from every phase of the clock,
/// or from the one that is known.
pub(crate) fn found(
    kernel: &Kernel,
    facts: &Facts,
    scenes: &[scene::Scene],
    first_write_ns: Option<u64>,
) -> Result<(Vec<Window>, Vec<Step>), String> {
    let starts: Vec<u64> = facts
        .jiffies
        .zip(first_write_ns)
        .into_iter()
        .flat_map(|(clock, at_ns)| {
            [at_ns, at_ns.saturating_add(WRITE_NS)].map(|at_ns| (clock, at_ns))
        })
        .filter_map(|(clock, at_ns)| JiffyPhase::new(kernel.hz, clock).of(at_ns))
        .collect();
    let goes_on = scenes.iter().any(|scene| scene.write_interval_ns.is_some());
    let counted = Counted { while_it_lives: !goes_on, ..Counted::default() };
    Ok(windows(&start::ends(kernel, scenes, &starts)?, &counted, kernel.hz))
}

/// Why a router's own neighbour discovery makes the end uncertain, if it does.
pub(crate) fn router_forgets_at_random(
    kernel: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
    prediction: &Prediction,
) -> Option<String> {
    if Looked::at(kernel, facts).is_some() {
        return None;
    }
    let latest = prediction.hull().map_or(Duration::ZERO, |(_, latest)| latest);
    let cut = is_cut(parameters);
    let router_learned =
        parameters.topology == Topology::Router && parameters.neighbour == Neighbour::Learned;
    let believed = NEIGHBOUR_LIVES.saturating_sub(parameters.fault.after) + ASKS_BOTH_WAYS;
    if router_learned && cut && latest > believed {
        return Some(
            "when the router's entry for the server gives up is random, and with it when its ICMP \
             comes"
                .into(),
        );
    }
    None
}

/// From the doubt about an entry to the first packet that is given up: `delay_first_probe_time`,
/// three direct questions, and three to all.
const ASKS_BOTH_WAYS: Duration = Duration::from_secs(11);
/// From the time stamp of a write, the program's or the tap's, to the arming of its timer.
const WRITE_NS: u64 = 100_000;

/// All possible results of one experiment for the write timer, apart from the clock's phase.
pub(crate) fn scenes(
    kernel: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
) -> Result<Vec<scene::Scene>, String> {
    let client = &parameters.client;
    let closes = matches!(client.traffic, Traffic::Close | Traffic::Shutdown);
    let unfinished = is_unfinished(kernel, parameters, facts);
    let asks_back = way_back(parameters) != WayBack::Known;
    if closes && unfinished && (asks_back || !parameters.path.rtt.is_zero()) {
        return Err(UNFINISHED.into());
    }
    let fallback = TcpFacts::default();
    let tcp = facts.tcp.as_ref().unwrap_or(&fallback);
    // What the server's kernel sends again by itself has asked for the way back: with success, or in
    // vain, or not yet.
    let lasts_ns = parameters.fault_duration().map(nanos);
    let healed = lasts_ns
        .and_then(|ns| healed(parameters, facts, ns))
        .map(|healed| Healed { round_trip_ns: round_trip_within_ns(parameters, facts), ..healed });
    let healed: Vec<Option<Healed>> = match healed {
        Some(healed) if unfinished && healed.back != WayBack::Known => {
            let backs = [healed.back, WayBack::Known, WayBack::AskedInVain];
            backs.map(|back| Some(Healed { back, ..healed })).to_vec()
        }
        healed => vec![healed],
    };
    // The first write comes within 100 ms of the fault, and so the path heals that much earlier,
    // seen from there; and the restoration takes its time.
    let later = Kernel::later(parameters, facts)?;
    let moves = healed[0].is_some() || later.is_some();
    let earlier = earlier(moves);
    let mut scenes = Vec::new();
    for hop in hops(kernel, parameters, facts)? {
        for rto in possible_rtos(kernel, parameters, facts) {
            let moments = earlier.iter().flat_map(|earlier_ns| {
                scene::icmp_times(kernel, hop.reverts_by_timer())
                    .map(move |icmp_ns| (earlier_ns, icmp_ns))
            });
            for ((earlier_ns, icmp_ns), healed) in
                moments.flat_map(|moment| healed.iter().map(move |healed| (moment, healed)))
            {
                scenes.push(scene::Scene {
                    purpose: match client.traffic {
                        Traffic::Close => {
                            Purpose::Fin(purpose::farewell(kernel, parameters, facts))
                        }
                        Traffic::Shutdown => Purpose::HalfClose {
                            acknowledged_after: purpose::held_back(kernel, parameters, facts),
                        },
                        _ => Purpose::Data,
                    },
                    rto,
                    srtt_us: u64::from(tcp.srtt_us.max(1)),
                    cwnd: if tcp.snd_cwnd == 0 { 10 } else { tcp.snd_cwnd as usize },
                    write_interval_ns: match client.traffic {
                        Traffic::Stream => Some(50_000_000),
                        Traffic::Heartbeat => Some(nanos(client.heartbeat.interval)),
                        Traffic::OneWrite => client.second_write.map(nanos),
                        _ => None,
                    },
                    writes_most: match client.traffic {
                        Traffic::OneWrite => 1 + usize::from(client.second_write.is_some()),
                        _ => usize::MAX,
                    },
                    later: later_from(parameters, later.as_ref(), *earlier_ns),
                    hop: hop.clone(),
                    healed: healed.map(|healed| healed.earlier(*earlier_ns)),
                    losses: None,
                    icmp_ns,
                    unseen: parameters.fault.kind == FaultKind::Unplug,
                });
            }
        }
    }
    Ok(scenes)
}

/// By how much what the laboratory does after the fault may come earlier, seen from the client's
/// first call, which comes within 100 ms of the fault; nothing if it does nothing.
pub(crate) fn earlier(moves: bool) -> &'static [u64] {
    if moves { &[SLOP_NS, SLOP_NS / 2, 0] } else { &[0] }
}

/// The settings that change while the client waits, seen from such a call.
pub(crate) fn later_from(
    parameters: &Parameters,
    later: Option<&Kernel>,
    earlier_ns: u64,
) -> Option<(u64, Kernel)> {
    let at_ns = nanos(parameters.later.after).saturating_sub(earlier_ns);
    later.map(|kernel| (at_ns, kernel.clone()))
}

/// Whether the link goes away before the server's kernel knows that its last answer has come, so
/// that it sends that again at a time that is not known, and with consequences: it asks for the way
/// back, or makes the client forget an ICMP error.
pub(crate) fn is_unfinished(kernel: &Kernel, parameters: &Parameters, facts: &Facts) -> bool {
    let held_back = kernel.hz.duration(purpose::held_back(kernel, parameters, facts));
    let matters =
        parameters.neighbour == Neighbour::Learned || parameters.topology == Topology::Router;
    matters
        && parameters.fault.kind == FaultKind::Flap
        && parameters.fault.after < parameters.path.rtt + held_back + SETTLES
}

/// What an acknowledgement may be late by, beside its delay.
const SETTLES: Duration = Duration::from_millis(100);
pub(crate) const UNFINISHED: &str = "the link goes away before the last answer is acknowledged: the server's \
                          kernel sends it again, and when that comes through changes what follows";

/// The RTO as it was measured; without that, what a settled connection may have.
pub(crate) fn possible_rtos(kernel: &Kernel, parameters: &Parameters, facts: &Facts) -> Vec<u64> {
    if let Some(tcp) = &facts.tcp {
        return vec![kernel.hz.from_usecs(u64::from(tcp.rto_us)).clamp(1, kernel.rto_max)];
    }
    let rtt_us = parameters.path.rtt.as_micros() as u64;
    let least = rto::from_estimate(kernel, rtt_us + 1, kernel.hz.to_usecs(kernel.rto_min));
    vec![least, least + 1]
}

fn reset_at_once(parameters: &Parameters, facts: &Facts) -> Prediction {
    // The router is next door: what delays the path lies behind it.
    let whole = Duration::from_nanos(round_trip_ns(parameters, facts));
    let rtt = whole.saturating_sub(parameters.path.rtt);
    let hz = Hz::new(facts.hz);
    let span = (Duration::ZERO, rtt + allowance::late(hz));
    let causes = [(Cause::RoundTrip, rtt)].into_iter().chain(width::allowed(hz));
    let window = Window::new(Outcome::Errno(Errno::ECONNRESET), Some(span)).because(causes);
    let why = "the router answers the first segment with a RST";
    Prediction::of(reference(parameters), vec![Window { retransmits: Some(0), ..window }], why)
}

pub(crate) fn why_sending(kernel: &Kernel, prediction: &Prediction) -> String {
    let Some(window) = prediction.windows.first() else { return String::new() };
    if window.outcome == Outcome::None {
        return "a retransmission gets through before the kernel gives up".into();
    }
    if window.outcome == Outcome::Errno(Errno::ECONNRESET) {
        return "a retransmission meets a host that does not know the connection: a RST".into();
    }
    let timeouts =
        prediction.schedule.iter().filter(|step| step.kind != StepKind::TailLossProbe).count();
    let timeout = match timeouts {
        counted if counted <= COUNTED_MOST as usize => format!("timeout {counted}"),
        _ => format!("a timeout past the {COUNTED_MOST}th"),
    };
    let end = window.span.map_or(0.0, |(earliest, _)| earliest.as_secs_f64());
    let (patience_ms, name) = match kernel.user_timeout_ms {
        Some(ms) => (ms, "TCP_USER_TIMEOUT"),
        None => (rto::model_timeout_ms(kernel, kernel.retries2), "tcp_retries2"),
    };
    format!(
        "the kernel gives up at the first timeout at least {} s (from {name}) after the first \
         retransmission on timeout: {timeout}, at {end:.1} s",
        patience_ms as f64 / 1000.0
    )
}

/// Once the link is back, the server's kernel sends its last answer again. The acknowledgement in it
/// takes back the error that ICMP had left (`tcp_ack`, net/ipv4/tcp_input.c).
fn until_server_sends_again(
    kernel: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
    mut prediction: Prediction,
) -> Prediction {
    if !is_unfinished(kernel, parameters, facts) {
        return prediction;
    }
    let back = parameters.fault_duration().unwrap_or(Duration::MAX);
    let after = |window: &&Window| {
        window.outcome != Outcome::None
            && window.outcome != Outcome::TIMED_OUT
            && window.span.is_some_and(|(_, latest)| latest > back.saturating_sub(SLOP))
    };
    let forgotten: Vec<_> = prediction.windows.iter().filter(after).cloned().collect();
    let timed_out = |window| Window { outcome: Outcome::TIMED_OUT, ..window };
    prediction.windows.extend(forgotten.into_iter().map(timed_out));
    prediction
}

pub(crate) fn why_program_gives_up(deadline: Duration) -> String {
    format!(
        "the client program gives the server up {} after its request, before its kernel does",
        spec::duration::show(deadline)
    )
}

/// A heartbeat's program closes the connection by itself when its deadline passes.
fn until_program_gives_up(parameters: &Parameters, mut prediction: Prediction) -> Prediction {
    if parameters.client.traffic != Traffic::Heartbeat || prediction.unknown.is_some() {
        return prediction;
    }
    let deadline = parameters.client.heartbeat.deadline;
    let ends = |window: &Window| window.span.is_some_and(|(_, latest)| latest < deadline);
    let certain = prediction.windows.iter().all(ends);
    prediction
        .windows
        .retain(|window| window.span.is_some_and(|(earliest, _)| earliest <= deadline));
    if !certain {
        if prediction.windows.is_empty() {
            prediction.schedule.retain(|step| step.earliest <= deadline);
            prediction.why = why_program_gives_up(deadline);
        }
        prediction.windows.push(Window::new(Outcome::None, None));
    }
    prediction
}
