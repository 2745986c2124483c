//! From what runs come to to a prediction, and what is said where there is none.

use crate::allowance;
use crate::laboratory::SLOP;
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
    let latest = allowance::EXIT + SLOP;
    let causes = [(Cause::ProcessExit, allowance::EXIT), (Cause::Call, SLOP)];
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
    Prediction::of(reference(parameters), vec![Window::new(Outcome::None, None)], why)
}

/// What the model cannot say, and why.
pub(crate) fn unknown(parameters: &Parameters, reason: String) -> Prediction {
    let prediction = Prediction::of(reference(parameters), Vec::new(), reason.clone());
    Prediction { unknown: Some(reason), ..prediction }
}

/// The prediction that these windows and this schedule make.
pub(crate) fn conclude(
    parameters: &Parameters,
    (windows, schedule): (Vec<Window>, Vec<Step>),
    why: impl FnOnce(&Prediction) -> String,
) -> Prediction {
    let prediction = Prediction::of(reference(parameters), windows, "");
    let mut prediction = Prediction { schedule, ..prediction };
    prediction.why = why(&prediction);
    prediction
}
