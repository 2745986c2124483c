//! The server's host or the path to it is gone: only the client's own timers can tell, or whatever
//! answers in the server's place.

use crate::course::Courses;
use crate::keepalive;
use crate::kernel::Kernel;
use crate::predict::{conclude, lives_on, reference, unknown};
use crate::prediction::{Prediction, StepKind, Window};
use crate::retransmit::{self, Answer};
use crate::rto;
use spec::facts::TcpFacts;
use spec::{Errno, Facts, FaultKind, Neighbour, Outcome, Parameters, Reject, Topology, Traffic};
use std::time::Duration;

/// Every fault of the path or of the server's host.
pub(crate) fn predict(parameters: &Parameters, facts: &Facts) -> Prediction {
    let kernel = Kernel::new(parameters, facts);
    if let Some(tcp) = &facts.tcp
        && tcp.rto_us >= FRESH_RTO_US
        && parameters.path.rtt < Duration::from_millis(300)
        && kernel.rto_min < kernel.hz.from_msecs(900)
    {
        return unknown(
            parameters,
            format!(
                "the RTO before the fault is {} ms: the connection has not settled",
                tcp.rto_us / 1000
            ),
        );
    }
    match parameters.client.traffic {
        Traffic::Idle => idle(&kernel, parameters, facts),
        _ => sending(&kernel, parameters, facts),
    }
}

/// An RTO from this on, on a short path, is the initial one: `TCP_TIMEOUT_INIT`.
const FRESH_RTO_US: u32 = 990_000;

/// Nothing is written: keepalive probes, if anything.
fn idle(kernel: &Kernel, parameters: &Parameters, facts: &Facts) -> Prediction {
    if !parameters.client.keepalive.enabled {
        return lives_on(
            parameters,
            "an idle connection without keepalive sends nothing, so nothing can be missed".into(),
        );
    }
    let fault = &parameters.fault;
    let healed_ns = |reset| {
        let after = fault.after.saturating_add(parameters.fault_duration().unwrap_or_default());
        Some(keepalive::Healed { at_ns: nanos(after), reset })
    };
    let healed = match fault.kind {
        FaultKind::Flap => healed_ns(false),
        FaultKind::Reboot if !fault.new_mac => healed_ns(true),
        FaultKind::Reboot if parameters.neighbour == Neighbour::Learned => {
            return unknown(parameters, NEW_MAC.into());
        }
        FaultKind::Reject if fault.reject == Reject::TcpReset => {
            Some(keepalive::Healed { at_ns: nanos(fault.after), reset: true })
        }
        _ => None,
    };
    let rtt_ns = round_trip_ns(parameters, facts);
    let mut courses = Courses::default();
    // The fault comes some time after the facts are taken; the network some time after its
    // restoration.
    for slop_ns in [0, SLOP_NS] {
        let scene = keepalive::Scene {
            armed_before_ns: (rtt_ns, rtt_ns + EXCHANGE_NS),
            fault_after_ns: Some(nanos(fault.after).saturating_add(slop_ns)),
            healed: healed.map(|healed| keepalive::Healed {
                at_ns: healed.at_ns.saturating_add(slop_ns),
                ..healed
            }),
            rtt_ns,
        };
        keepalive::courses(kernel, &scene, &mut courses);
    }
    conclude(parameters, facts, courses, |prediction| {
        why_keepalive(kernel, prediction, &prediction.windows[0])
    })
}

const NEW_MAC: &str = "when the client's neighbour entry gives up the old MAC address is random";

/// From the setting of SO_KEEPALIVE to the end of the last exchange, beside the round trip.
const EXCHANGE_NS: u64 = 3_000_000;
/// From a moment that an experiment sets to the moment the laboratory acts.
const SLOP_NS: u64 = 100_000_000;

fn why_keepalive(kernel: &Kernel, prediction: &Prediction, window: &Window) -> String {
    let probes = window.keepalive_probes.unwrap_or(0);
    match window.outcome {
        Outcome::None => "a keepalive probe is answered before their number is used up".into(),
        Outcome::Errno(Errno::ECONNRESET) => {
            format!(
                "keepalive probe {probes} meets a host that does not know the connection: a RST"
            )
        }
        _ => {
            let end = prediction.schedule.last().map_or(0.0, |step| step.earliest.as_secs_f64());
            let (idle, interval) = (
                kernel.hz.duration(kernel.keepalive_time).as_secs_f64(),
                kernel.hz.duration(kernel.keepalive_interval).as_secs_f64(),
            );
            match kernel.user_timeout_ms {
                Some(ms) => format!(
                    "the first keepalive timer at or past the user timeout of {} s, after at least \
                     one probe, ends it at {end:.1} s: {probes} probes fit",
                    ms as f64 / 1000.0
                ),
                None => format!(
                    "{idle} s idle, then {probes} probes, {interval} s apart and each rounded up to a \
                     slot of the timer wheel: nobody has answered by {end:.1} s"
                ),
            }
        }
    }
}

/// Data is outstanding: the write timer decides, and keepalive is silent.
fn sending(kernel: &Kernel, parameters: &Parameters, facts: &Facts) -> Prediction {
    let fault = &parameters.fault;
    if fault.kind == FaultKind::Unplug {
        return unknown(
            parameters,
            "what a client without carrier does to its segments is not modelled yet".into(),
        );
    }
    if parameters.topology == Topology::Router
        && matches!(fault.kind, FaultKind::PowerOff | FaultKind::Reboot | FaultKind::Flap)
    {
        return unknown(
            parameters,
            "what the router answers for a server that is gone is not modelled yet".into(),
        );
    }
    let mut error = Errno::ETIMEDOUT;
    let mut healed = None;
    let rtt_ns = round_trip_ns(parameters, facts);
    match fault.kind {
        FaultKind::Reject => match (parameters.family, fault.reject) {
            (_, Reject::TcpReset) => return reset_at_once(parameters, facts),
            (_, Reject::PortUnreachable) => error = Errno::ECONNREFUSED,
            (spec::Family::Ipv4, Reject::AdminProhibited)
            | (spec::Family::Ipv6, Reject::HostUnreachable) => error = Errno::EHOSTUNREACH,
            (spec::Family::Ipv6, Reject::AdminProhibited) => error = Errno::EACCES,
            _ => {
                return unknown(
                    parameters,
                    "what rate-limited ICMP does to the backoff is not modelled yet".into(),
                );
            }
        },
        FaultKind::Flap | FaultKind::Reboot => {
            let reset = fault.kind == FaultKind::Reboot;
            if reset && fault.new_mac && parameters.neighbour == Neighbour::Learned {
                return unknown(parameters, NEW_MAC.into());
            }
            if !(reset && fault.new_mac) {
                healed = parameters.fault_duration().map(|after| retransmit::Healed {
                    at_ns: nanos(after),
                    with: if reset { Answer::Reset } else { Answer::Ack },
                    after_ns: rtt_ns,
                });
            }
        }
        _ => {}
    }
    let fallback = TcpFacts::default();
    let tcp = facts.tcp.as_ref().unwrap_or(&fallback);
    let client = &parameters.client;
    let mut courses = Courses::default();
    for rto in possible_rtos(kernel, parameters, facts) {
        // The first write comes within 100 ms of the fault, and so the path heals that much
        // earlier, seen from there; and the restoration takes its time.
        for early_ns in if healed.is_some() { &[SLOP_NS, 0, 0][..] } else { &[0] } {
            let scene = retransmit::Scene {
                rto,
                srtt_us: u64::from(tcp.srtt_us.max(1)),
                cwnd: if tcp.snd_cwnd == 0 { 10 } else { tcp.snd_cwnd as usize },
                write_interval_ns: match client.traffic {
                    Traffic::Stream => Some(50_000_000),
                    Traffic::Heartbeat => Some(nanos(client.heartbeat.interval)),
                    _ => None,
                },
                error: Outcome::Errno(error),
                healed: healed.map(|healed| retransmit::Healed {
                    at_ns: healed.at_ns.saturating_sub(*early_ns),
                    ..healed
                }),
            };
            retransmit::courses(kernel, &scene, &mut courses);
        }
    }
    let prediction =
        conclude(parameters, facts, courses, |prediction| why_sending(kernel, prediction));
    let prediction = until_neighbour_dies(parameters, prediction);
    until_program_gives_up(parameters, prediction)
}

/// The RTO as it was measured; without that, what a settled connection may have.
fn possible_rtos(kernel: &Kernel, parameters: &Parameters, facts: &Facts) -> Vec<u64> {
    match &facts.tcp {
        Some(tcp) => vec![kernel.hz.from_usecs(u64::from(tcp.rto_us)).clamp(1, kernel.rto_max)],
        None => {
            let rtt_us = parameters.path.rtt.as_micros() as u64;
            let least = rto::from_estimate(kernel, rtt_us + 1, kernel.hz.to_usecs(kernel.rto_min));
            (least..=least + 1).collect()
        }
    }
}

fn reset_at_once(parameters: &Parameters, facts: &Facts) -> Prediction {
    let rtt = Duration::from_nanos(round_trip_ns(parameters, facts));
    let hz = crate::tick::Hz::new(facts.hz);
    Prediction {
        reference: reference(parameters),
        windows: vec![Window {
            outcome: Outcome::Errno(Errno::ECONNRESET),
            span: Some((Duration::ZERO, rtt + crate::allowance::late(hz))),
            retransmits: Some(0),
            keepalive_probes: None,
        }],
        schedule: Vec::new(),
        why: "the router answers the first segment with a RST".into(),
        unknown: None,
    }
}

fn why_sending(kernel: &Kernel, prediction: &Prediction) -> String {
    let Some(window) = prediction.windows.first() else { return String::new() };
    if window.outcome == Outcome::None {
        return "a retransmission gets through before the kernel gives up".into();
    }
    if window.outcome == Outcome::Errno(Errno::ECONNRESET) {
        return "a retransmission meets a host that does not know the connection: a RST".into();
    }
    let timeouts =
        prediction.schedule.iter().filter(|step| step.kind != StepKind::TailLossProbe).count();
    let end = window.span.map_or(0.0, |(earliest, _)| earliest.as_secs_f64());
    let (patience_ms, name) = match kernel.user_timeout_ms {
        Some(ms) => (ms, "user timeout"),
        None => (rto::model_timeout_ms(kernel, kernel.retries2), "threshold of tcp_retries2"),
    };
    format!(
        "timeout {timeouts}, at {end:.1} s, is the first that comes {} s (the {name}) or more after \
         the first retransmission on timeout",
        patience_ms as f64 / 1000.0
    )
}

/// A learned neighbour entry dies by itself; until then nothing differs.
fn until_neighbour_dies(parameters: &Parameters, prediction: Prediction) -> Prediction {
    let latest = prediction.hull().map_or(Duration::MAX, |(_, latest)| latest);
    if parameters.neighbour == Neighbour::Learned && latest > NEIGHBOUR_LIVES {
        return unknown(
            parameters,
            "the neighbour entry dies at a random time before the connection does".into(),
        );
    }
    prediction
}

/// A neighbour entry is believed for half of `base_reachable_time` (30 s) at least, doubted for
/// `delay_first_probe_time` (5 s) and asked three times, a second apart (net/core/neighbour.c).
const NEIGHBOUR_LIVES: Duration = Duration::from_secs(15 + 3);

/// A heartbeat's program closes the connection by itself when its deadline passes.
fn until_program_gives_up(parameters: &Parameters, mut prediction: Prediction) -> Prediction {
    if parameters.client.traffic != Traffic::Heartbeat || prediction.unknown.is_some() {
        return prediction;
    }
    let deadline = parameters.client.heartbeat.deadline;
    prediction
        .windows
        .retain(|window| window.span.is_some_and(|(earliest, _)| earliest <= deadline));
    let certain = prediction
        .windows
        .iter()
        .any(|window| window.span.is_some_and(|(_, latest)| latest < deadline));
    if !certain {
        if prediction.windows.is_empty() {
            prediction.schedule.retain(|step| step.earliest <= deadline);
            prediction.why = format!(
                "the client program gives the server up {} after its request, before its kernel does",
                spec::duration::show(deadline)
            );
        }
        prediction.windows.push(Window {
            outcome: Outcome::None,
            span: None,
            retransmits: None,
            keepalive_probes: None,
        });
    }
    prediction
}

fn round_trip_ns(parameters: &Parameters, facts: &Facts) -> u64 {
    let measured = facts.tcp.as_ref().map_or(0, |tcp| u64::from(tcp.srtt_us) * 1_000);
    measured.max(nanos(parameters.path.rtt))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}
