//! `close`: the program lets go, and its kernel goes on alone, until it has forgotten the
//! connection.
//!
//! While the FIN is unacknowledged, its retransmissions are bounded by `tcp_orphan_retries` in the
//! place of `tcp_retries2` ([`crate::purpose`]); once it is, the server's own FIN is waited for
//! (`tcp_fin_timeout`). `SO_LINGER` has `close` itself wait first, or send a RST.

use crate::allowance;
use crate::conclude::{called_after_crash, conclude, reference, unknown};
use crate::dead_path;
use crate::hop::Hop;
use crate::kernel::Kernel;
use crate::laboratory::SLOP;
use crate::prediction::{Prediction, StepKind, Window};
use crate::purpose::{self, Purpose};
use crate::scene::{HopKind, ICMP_NS, Scene};
use crate::sending;
use crate::sock::TIMEWAIT_SECS;
use crate::tick::Hz;
use crate::width::{self, Cause};
use crate::world::{Answer, Healed, WayBack};
use spec::script::Step;
use spec::{Facts, FaultKind, Outcome, Parameters, Reject, Script};
use std::time::Duration;

pub(crate) fn predict(
    parameters: &Parameters,
    facts: &Facts,
    called_ns: Option<u64>,
) -> Prediction {
    let kernel = Kernel::new(parameters, facts);
    if let Some(reason) = dead_path::unsettled(&kernel, parameters, facts) {
        return unknown(parameters, reason);
    }
    let closed = closes_after(parameters).unwrap_or_default();
    if parameters.client.linger == Some(Duration::ZERO) {
        let why = "SO_LINGER with 0 seconds: `close` sends a RST and forgets the connection";
        let prediction = at_once(parameters, facts, Duration::ZERO, why);
        return called_after_crash(parameters, prediction, closed);
    }
    if parameters.fault.kind == FaultKind::ProcessCrash && !parameters.server.inherited {
        let prediction = after_crash(&kernel, parameters, facts);
        return called_after_crash(parameters, prediction, closed);
    }
    if parameters.fault.kind == FaultKind::Reject && parameters.fault.reject == Reject::TcpReset {
        let why = "the router answers the FIN with a RST";
        return at_once(parameters, facts, Duration::ZERO, why);
    }
    let scenes = if is_alive(parameters) {
        live_scenes(&kernel, parameters, facts)
    } else {
        sending::scenes(&kernel, parameters, facts)
    };
    let ends = scenes.and_then(|scenes| sending::found(&kernel, facts, &scenes, called_ns));
    let found = match ends {
        Ok(found) => found,
        Err(reason) => return unknown(parameters, reason),
    };
    let prediction = conclude(parameters, found, |prediction| why(&kernel, parameters, prediction));
    match sending::router_forgets_at_random(&kernel, parameters, facts, &prediction) {
        Some(reason) if !is_alive(parameters) => unknown(parameters, reason),
        _ => called_after_crash(parameters, prediction, closed),
    }
}

/// Whether the server's kernel acknowledges the FIN.
fn is_alive(parameters: &Parameters) -> bool {
    matches!(
        parameters.fault.kind,
        FaultKind::None | FaultKind::ProcessFreeze | FaultKind::ProcessCrash
    )
}

fn live_scenes(
    kernel: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
) -> Result<Vec<Scene>, String> {
    let tcp = facts.tcp.as_ref();
    let later = Kernel::later(parameters, facts)?;
    // The call comes within 100 ms of the fault, and the change that much earlier, seen from there.
    let earlier = sending::earlier(later.is_some());
    let scene = |earlier_ns: &u64| Scene {
        purpose: Purpose::Fin(purpose::farewell(kernel, parameters, facts)),
        rto: sending::possible_rtos(kernel, parameters, facts)[0],
        srtt_us: tcp.map_or(1, |tcp| u64::from(tcp.srtt_us.max(1))),
        cwnd: 10,
        write_interval_ns: None,
        writes_most: 1,
        later: sending::later_from(parameters, later.as_ref(), *earlier_ns),
        hop: HopKind::Fixed(Hop::Silent),
        healed: Some(Healed {
            at_ns: 0,
            with: Answer::Ack,
            round_trip_ns: dead_path::round_trip_within_ns(parameters, facts),
            moved: false,
            back: WayBack::Known,
        }),
        losses: None,
        icmp_ns: ICMP_NS,
        unseen: false,
    };
    Ok(earlier.iter().map(scene).collect())
}

fn at_once(parameters: &Parameters, facts: &Facts, after: Duration, why: &str) -> Prediction {
    let hz = Hz::new(facts.hz);
    let window =
        Window::new(Outcome::Released, Some((Duration::ZERO, after + allowance::late(hz))));
    let causes = [(Cause::RoundTrip, after)].into_iter().chain(width::allowed(hz));
    let window = Window { retransmits: Some(0), ..window.because(causes) };
    Prediction::of(reference(parameters), vec![window], why)
}

/// The server's process was killed, and its kernel has closed too.
fn after_crash(kernel: &Kernel, parameters: &Parameters, facts: &Facts) -> Prediction {
    let server = &parameters.server;
    let rtt = Duration::from_nanos(dead_path::round_trip_ns(parameters, facts));
    if !server.reads || server.linger == Some(Duration::ZERO) {
        let why = "the killed process's kernel sends a RST, which ends the connection";
        return at_once(parameters, facts, rtt, why);
    }
    let why = "the server's FIN is there already: the client's own is acknowledged at once, and \
               nothing is left to wait for";
    let last = at_once(parameters, facts, rtt, why);
    let one_way = parameters.path.rtt / 2;
    let crossing = one_way.saturating_sub(closes_after(parameters).unwrap_or_default());
    if let Some(after) = writes_after(parameters).filter(|_| !one_way.is_zero()) {
        let why = "what the client writes meets a socket that the killed process's kernel has closed: \
                   a RST";
        // Seen from where it closes.
        let closes = closes_after(parameters).unwrap_or_default();
        let after = rtt.saturating_sub(closes.saturating_sub(after));
        let mut reset = at_once(parameters, facts, after, why);
        let open = rtt.saturating_sub(parameters.path.rtt);
        let earliest = after.saturating_sub(open + allowance::EARLY);
        reset.windows[0].span = reset.windows[0].span.map(|(_, latest)| (earliest, latest));
        return reset;
    }
    if crossing.is_zero() {
        return last;
    }
    // The FINs cross (RFC 9293 3.6, figure 13): CLOSING, and then TIME_WAIT in full.
    let time = u64::from(kernel.hz.get()) * TIMEWAIT_SECS;
    let late = allowance::late(kernel.hz);
    let slot = kernel.hz.duration(kernel.wheel.slot(time));
    let earliest = kernel.hz.duration(time) + parameters.path.rtt;
    let latest = kernel.hz.duration(time) + slot + rtt * 2 + late;
    let causes = [
        (Cause::WheelSlot, slot),
        (Cause::RoundTrip, (rtt * 2).saturating_sub(parameters.path.rtt)),
    ];
    let window = Window::new(Outcome::Released, Some((earliest, latest)))
        .because(causes.into_iter().chain(width::allowed(kernel.hz)));
    let waits = Window { retransmits: Some(0), ..window };
    if crossing < SLOP + allowance::EXIT {
        let mut either = last;
        either.windows.push(waits);
        return either;
    }
    Prediction {
        windows: vec![waits],
        why: "the two FINs cross: both ends have closed first, and each waits in TIME_WAIT".into(),
        ..last
    }
}

/// When the client closes, counted from its first call, if it does not wait for an answer before;
/// `None`: it does not close.
pub(crate) fn closes_after(parameters: &Parameters) -> Option<Duration> {
    called_after(parameters, |step| *step == Step::Close)
}

/// Whether it closes before it makes any other call.
pub(crate) fn begins_with_close(parameters: &Parameters) -> bool {
    let is_wait = |step: &&Step| matches!(step, Step::Wait(_));
    let script = parameters.script().unwrap_or_default();
    script.steps.iter().find(|step| !is_wait(step)) == Some(&Step::Close)
}

/// The same for its first write.
fn writes_after(parameters: &Parameters) -> Option<Duration> {
    called_after(parameters, |step| matches!(step, Step::Write(_)))
}

fn called_after(parameters: &Parameters, is_it: impl Fn(&Step) -> bool) -> Option<Duration> {
    let steps = parameters.script()?.steps;
    let at = steps.iter().position(is_it)?;
    let before = Script { steps: steps[..at].to_vec(), repeats: false };
    (!before.requests()).then(|| before.takes())
}

fn why(kernel: &Kernel, parameters: &Parameters, prediction: &Prediction) -> String {
    let Some(window) = prediction.windows.first() else { return String::new() };
    let end = window.span.map_or(0.0, |(earliest, _)| earliest.as_secs_f64());
    let acknowledged = is_alive(parameters);
    if acknowledged {
        let time = kernel.hz.duration(kernel.fin_timeout).as_secs();
        return if time > TIMEWAIT_SECS {
            format!(
                "the FIN is acknowledged and the server's own never comes: the socket waits for \
                 the {0} s that tcp_fin_timeout is beyond {TIMEWAIT_SECS} s, and what is left of \
                 it for {0} s more",
                time - TIMEWAIT_SECS
            )
        } else {
            format!(
                "the FIN is acknowledged and the server's own never comes: the kernel forgets \
                 the connection after tcp_fin_timeout, {time} s, and no sooner than 3.5 RTO"
            )
        };
    }
    match parameters.fault.kind {
        FaultKind::Flap => {
            return "a FIN sent again may get through, and the kernel then waits in FIN_WAIT2, \
                    or it gives up before"
                .into();
        }
        FaultKind::Reboot | FaultKind::Takeover
            if prediction.schedule.last().is_none_or(|s| s.kind != StepKind::GiveUp) =>
        {
            return "a FIN sent again meets a host that does not know the connection: a RST".into();
        }
        _ => {}
    }
    let timeouts =
        prediction.schedule.iter().filter(|step| step.kind != StepKind::TailLossProbe).count();
    let name = match kernel.user_timeout_ms {
        Some(_) => "the user timeout",
        None if parameters.client.linger.is_some() => {
            "tcp_retries2 while `close` lingers, tcp_orphan_retries after that"
        }
        None if kernel.orphan_retries == 0 => "tcp_orphan_retries = 0, which means 8",
        None => "tcp_orphan_retries",
    };
    format!(
        "the FIN is not acknowledged and no program waits for it: timeout {timeouts}, at {end:.1} \
         s, is the first past the threshold ({name})"
    )
}
