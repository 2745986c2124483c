//! From an experiment and facts to a prediction: which timer decides, and what it leads to.

use crate::allowance;
use crate::crash;
use crate::dead_path;
use crate::kernel::Kernel;
use crate::prediction::{Prediction, Step, Window};
use crate::width::{self, Cause};
use crate::{closing, connecting, idle, scripted, web_server, window};
use spec::{Facts, FaultKind, Outcome, Parameters, Program, Reference, Traffic};
use std::time::Duration;

/// What the client's kernel will report, and when: from the experiment, and from what was measured
/// before the fault.
pub fn predict(parameters: &Parameters, facts: &Facts) -> Prediction {
    with_first_write(parameters, facts, None)
}

/// The same once the first write after the fault has been observed, at `first_write_ns` of
/// `CLOCK_MONOTONIC`: where the jiffy clock is known ([`Facts::jiffies`]), the timers that this
/// write arms are predicted to their jiffy.
pub fn predict_after(parameters: &Parameters, facts: &Facts, first_write_ns: u64) -> Prediction {
    with_first_write(parameters, facts, Some(first_write_ns))
}

/// The same once these calls have been observed since the fault: what is predicted if the program
/// makes no other.
pub fn predict_with(
    parameters: &Parameters,
    facts: &Facts,
    calls: &[scripted::ObservedCall],
) -> Prediction {
    if parameters.has_nginx() || parameters.fault.kind == FaultKind::ProcessCrash {
        return predict(parameters, facts);
    }
    scripted::predict(parameters, facts, Some(calls))
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
    match (parameters.fault.kind, parameters.client.traffic) {
        (FaultKind::ProcessCrash, Traffic::Script) => crash::predict(parameters, facts),
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
        _ => dead_path::predict(parameters, facts, first_write_ns),
    }
}

/// The server's kernel lives on, whatever its process does, and answers in time.
fn living(parameters: &Parameters) -> Prediction {
    if parameters.fault.kind == FaultKind::ProcessFreeze {
        return crash::predict_freeze(parameters);
    }
    lives_on(parameters, "the server is alive and acknowledges whatever arrives".into())
}

/// What times count from where the fault is not a process crash.
pub(crate) fn reference(parameters: &Parameters) -> Reference {
    match parameters.client.traffic {
        Traffic::Idle => Reference::LastActivity,
        Traffic::OneWrite | Traffic::Stream | Traffic::Heartbeat => Reference::FirstWrite,
        Traffic::Connect => Reference::Connect,
        Traffic::Close | Traffic::Shutdown => Reference::Close,
        Traffic::Script => match parameters.script() {
            Some(script) if script.writes() => Reference::FirstWrite,
            _ => Reference::LastActivity,
        },
    }
}

/// The client's system call comes after the process crash that times count from: once the server's
/// process is gone, and within 100 ms of that.
pub(crate) fn called_after_crash(
    parameters: &Parameters,
    mut prediction: Prediction,
) -> Prediction {
    if parameters.fault.kind != FaultKind::ProcessCrash {
        return prediction;
    }
    prediction.reference = Reference::Fault;
    let call = Duration::from_nanos(crate::dead_path::SLOP_NS);
    let latest = allowance::EXIT + call;
    let causes = [(Cause::ProcessExit, allowance::EXIT), (Cause::Call, call)];
    for window in &mut prediction.windows {
        window.span = window.span.map(|span| (span.0, span.1.saturating_add(latest)));
        window.width.extend(width::shares(causes));
    }
    for step in &mut prediction.schedule {
        step.latest = step.latest.saturating_add(latest);
    }
    prediction
}

/// The connection does not end.
pub(crate) fn lives_on(parameters: &Parameters, why: String) -> Prediction {
    Prediction {
        reference: reference(parameters),
        windows: vec![Window::new(Outcome::None, None)],
        schedule: Vec::new(),
        why,
        unknown: None,
    }
}

/// What the model cannot say, and why.
pub(crate) fn unknown(parameters: &Parameters, reason: String) -> Prediction {
    Prediction {
        reference: reference(parameters),
        windows: Vec::new(),
        schedule: Vec::new(),
        why: reason.clone(),
        unknown: Some(reason),
    }
}

/// The prediction that these windows and this schedule make.
pub(crate) fn conclude(
    parameters: &Parameters,
    (windows, schedule): (Vec<Window>, Vec<Step>),
    why: impl FnOnce(&Prediction) -> String,
) -> Prediction {
    let mut prediction = Prediction {
        reference: reference(parameters),
        windows,
        schedule,
        why: String::new(),
        unknown: None,
    };
    prediction.why = why(&prediction);
    prediction
}
