//! From what runs come to to a prediction, and what is said where there is none.

use crate::allowance;
use crate::laboratory::SLOP_NS;
use crate::prediction::{Prediction, Step, Window};
use crate::width::{self, Cause};
use spec::{FaultKind, Outcome, Parameters, Reference, Traffic};
use std::time::Duration;

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
/// process is gone, within 100 ms of that, and `after` other calls.
pub(crate) fn called_after_crash(
    parameters: &Parameters,
    mut prediction: Prediction,
    after: Duration,
) -> Prediction {
    if parameters.fault.kind != FaultKind::ProcessCrash {
        return prediction;
    }
    prediction.reference = Reference::Fault;
    let call = Duration::from_nanos(SLOP_NS);
    let latest = allowance::EXIT + call;
    let causes = [(Cause::ProcessExit, allowance::EXIT), (Cause::Call, call)];
    for window in &mut prediction.windows {
        window.span = window
            .span
            .map(|span| (span.0.saturating_add(after), span.1.saturating_add(after + latest)));
        window.width.extend(width::shares(causes));
    }
    for step in &mut prediction.schedule {
        step.earliest = step.earliest.saturating_add(after);
        step.latest = step.latest.saturating_add(after + latest);
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
