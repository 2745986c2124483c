//! From an experiment and facts to a prediction: which timer decides, and what it leads to.

use crate::conclude::{self, lives_on, unknown};
use crate::kernel::{Kernel, newer_than_read};
use crate::prediction::Prediction;
use crate::{
    black_hole, closing, connecting, crash, dead_path, idle, scripted, sending, sequence, sieved,
    web_server, window,
};
use spec::{Answer, Facts, FaultKind, Outcome, Parameters, Program, Traffic};
use std::time::Duration;

/// What the client's kernel will report, and when: from the experiment, and from what was measured
/// before the fault. Of faults that follow one another: what they all lead to, where that is known.
pub fn predict(parameters: &Parameters, facts: &Facts) -> Prediction {
    let first = with_first_write(parameters, facts, None);
    let prediction = match parameters.further[..] {
        [] => first,
        _ => sequence::predict(parameters, facts, first),
    };
    named(parameters, facts, prediction)
}

/// The same, of one fault alone.
pub(crate) fn predict_alone(parameters: &Parameters, facts: &Facts) -> Prediction {
    named(parameters, facts, with_first_write(parameters, facts, None))
}

/// The same once the first write after the fault has been observed, at `first_write_ns` of
/// `CLOCK_MONOTONIC`: where the jiffy clock is known ([`Facts::jiffies`]), the timers that this
/// write arms are predicted to their jiffy.
pub fn predict_after(parameters: &Parameters, facts: &Facts, first_write_ns: u64) -> Prediction {
    named(parameters, facts, with_first_write(parameters, facts, Some(first_write_ns)))
}

/// The same once these calls have been observed since the fault: what is predicted if the program
/// makes no other.
pub fn predict_with(
    parameters: &Parameters,
    facts: &Facts,
    calls: &[scripted::ObservedCall],
) -> Prediction {
    let programs = [parameters.client.program, parameters.server.program];
    if programs.contains(&Program::Nginx) || parameters.fault.kind == FaultKind::ProcessCrash {
        return predict_alone(parameters, facts);
    }
    let announced = dead_path::announced_to_who_asks(parameters);
    let predicted = || scripted::predict(parameters, facts, Some(calls));
    let prediction = announced
        .or_else(|| sieved::not_known(parameters))
        .map(|reason| unknown(parameters, reason.into()))
        .or_else(|| black_hole::predict(parameters, facts, predicted))
        .unwrap_or_else(predicted);
    named(parameters, facts, prediction)
}

/// The model's client is the survivor: what is said of it has its name. Of a kernel that nobody has read it is
/// said as which one it is taken.
fn named(parameters: &Parameters, facts: &Facts, mut prediction: Prediction) -> Prediction {
    prediction.why = parameters.named(&prediction.why);
    if let Some(taken) = newer_than_read(facts.version()) {
        prediction.why = format!("{}; {taken}", prediction.why);
    }
    prediction.unknown = prediction.unknown.map(|unknown| parameters.named(&unknown));
    prediction
}

fn with_first_write(
    parameters: &Parameters,
    facts: &Facts,
    first_write_ns: Option<u64>,
) -> Prediction {
    if parameters.client.program == Program::Nginx {
        return web_server::predict_left_behind(parameters, facts);
    }
    if let Some(prediction) = web_server::predict_client(parameters, facts) {
        return prediction;
    }
    if let Some(reason) = dead_path::announced_to_who_asks(parameters) {
        return unknown(parameters, reason.into());
    }
    if let Some(prediction) = sieved::predict(parameters, facts, first_write_ns) {
        return prediction;
    }
    if parameters.fault.kind == FaultKind::Mtu {
        // Nothing is too long.
        let mut alive = parameters.clone();
        alive.fault.kind = FaultKind::None;
        return with_first_write(&alive, facts, first_write_ns);
    }
    match (parameters.fault.kind, parameters.client.traffic) {
        (FaultKind::Forget, _) => forgotten(parameters, facts, first_write_ns),
        (FaultKind::ProcessCrash, Traffic::Script) => crashed(parameters, facts),
        (_, Traffic::Script) => scripted::predict(parameters, facts, None),
        (_, Traffic::Connect) => connecting::predict(parameters, facts, first_write_ns),
        (_, Traffic::Close) => closing::predict(parameters, facts, first_write_ns),
        (FaultKind::ProcessCrash, _) => crash::predict(parameters, facts),
        _ if parameters.client.fills_window => window::predict(parameters, facts),
        (FaultKind::None | FaultKind::ProcessFreeze, Traffic::Idle)
            if parameters.client.keepalive.enabled =>
        {
            // The timer does not ask whether an answer is on its way.
            let probed = idle::predict(&Kernel::new(parameters, facts), parameters, facts);
            let lives = probed.windows.iter().all(|window| window.outcome == Outcome::None);
            if lives && probed.unknown.is_none() { living(parameters) } else { probed }
        }
        (FaultKind::None | FaultKind::ProcessFreeze, _) => living(parameters),
        (
            FaultKind::PowerOff
            | FaultKind::Reboot
            | FaultKind::Takeover
            | FaultKind::Blackhole
            | FaultKind::Mtu
            | FaultKind::Reject
            | FaultKind::Unplug
            | FaultKind::Flap,
            _,
        ) => lost(parameters, facts, first_write_ns),
    }
}

/// A router on the way forgets the flow, unless enough passes.
fn forgotten(parameters: &Parameters, facts: &Facts, first_write_ns: Option<u64>) -> Prediction {
    let client = &parameters.client;
    if is_reset_before_fault(parameters) {
        let reason = "before the fault a keepalive probe meets the router, which has forgotten the flow and \
                      ends the connection";
        return unknown(parameters, reason.into());
    }
    let mut prediction = match client.traffic {
        Traffic::Idle if !client.fills_window => {
            idle::predict(&Kernel::new(parameters, facts), parameters, facts)
        }
        _ => scripted::predict_once(parameters, facts, first_write_ns),
    };
    let ends = prediction.windows.iter().any(|w| matches!(w.outcome, Outcome::Errno(_)));
    if let Some(idle) = parameters.forgets_after().filter(|_| ends) {
        let (idle, why) = (idle.as_secs(), &prediction.why);
        prediction.why =
            format!("the flow was idle for {idle} s, and the router has forgotten it: {why}");
    }
    prediction
}

/// Whether a keepalive probe comes before the fault when the flow has been idle for too long. From a
/// living peer's answer the next is as far as the longer of the idle time and the interval.
fn is_reset_before_fault(parameters: &Parameters) -> bool {
    let Parameters { client, fault, .. } = parameters;
    let (first, interval, _) = parameters.keepalive_in_force();
    let forgets = |idle: Duration| {
        let meets = |probe: Duration, gap: Duration| idle <= gap && probe < fault.after;
        meets(first, first) || meets(first + interval.max(first), interval)
    };
    let resets = client.keepalive.enabled && fault.answer == Answer::TcpReset;
    resets && parameters.forgets_after().is_some_and(forgets)
}

/// The server's process ends while the client makes the calls of its script.
fn crashed(parameters: &Parameters, facts: &Facts) -> Prediction {
    if parameters.server.inherited {
        // The kernel closes nothing, and nobody reads: as if the process were stopped.
        let mut stopped = parameters.clone();
        (stopped.fault.kind, stopped.fault.duration) = (FaultKind::ProcessFreeze, None);
        let after = closing::closes_after(parameters).unwrap_or_default();
        let prediction = scripted::predict(&stopped, facts, None);
        return conclude::called_after_crash(parameters, prediction, after);
    }
    let at_once = parameters.path.rtt.is_zero();
    // The client's FIN is as fast as the server's if its script has it close before that arrives.
    match closing::closes_after(parameters) {
        // Without a way to go, the FIN has come before the client's second call.
        Some(_) if at_once && !closing::begins_with_close(parameters) => {
            crash::predict(parameters, facts)
        }
        Some(after) if after <= crash::round_trip(parameters, facts) / 2 => {
            closing::predict(parameters, facts, None)
        }
        _ => crash::predict(parameters, facts),
    }
}

/// The server's kernel lives on, whatever its process does, and answers in time.
fn living(parameters: &Parameters) -> Prediction {
    if parameters.fault.kind == FaultKind::ProcessFreeze {
        return crash::predict_freeze(parameters);
    }
    lives_on(parameters, "the server is alive and acknowledges whatever arrives".into())
}

/// The server's host or the path to it is gone: only the client's own timers can tell, or whatever
/// answers in the server's place.
fn lost(parameters: &Parameters, facts: &Facts, first_write_ns: Option<u64>) -> Prediction {
    let kernel = Kernel::new(parameters, facts);
    if let Some(reason) = dead_path::unsettled(&kernel, parameters, facts) {
        return unknown(parameters, reason);
    }
    match parameters.client.traffic {
        Traffic::Idle => idle::predict(&kernel, parameters, facts),
        Traffic::OneWrite
        | Traffic::Stream
        | Traffic::Heartbeat
        | Traffic::Shutdown
        | Traffic::Connect
        | Traffic::Close
        | Traffic::Script => sending::predict(&kernel, parameters, facts, first_write_ns),
    }
}
