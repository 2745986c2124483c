//! What documents say of a prediction.

use model::{Prediction, Step, StepKind, Window};
use serde::Serialize;
use spec::{Outcome, Reference};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Serialize)]
pub(super) struct Forecast<'a> {
    earliest_s: Option<f64>,
    latest_s: Option<f64>,
    windows: Vec<WindowDocument>,
    reference: Option<Reference>,
    why: Option<&'a str>,
    unknown: Option<&'a str>,
}

#[derive(Serialize)]
struct WindowDocument {
    outcome: Outcome,
    earliest_s: Option<f64>,
    latest_s: Option<f64>,
    retransmits: Option<u32>,
    keepalive_probes: Option<u32>,
    window_probes: Option<u32>,
    /// What makes it as wide as it is, seconds by cause.
    width_s: BTreeMap<&'static str, f64>,
}

#[derive(Serialize)]
pub(super) struct StepDocument {
    n: u32,
    kind: StepKind,
    earliest_s: f64,
    latest_s: f64,
    nominal_s: f64,
    timeout_s: f64,
    held: bool,
}

pub(super) fn forecast(prediction: Option<&Prediction>) -> Forecast<'_> {
    let hull = prediction.and_then(Prediction::hull);
    Forecast {
        earliest_s: hull.map(|(earliest, _)| seconds(earliest)),
        latest_s: hull.map(|(_, latest)| seconds(latest)),
        windows: prediction.iter().flat_map(|p| &p.windows).map(window).collect(),
        reference: prediction.map(|p| p.reference),
        why: prediction.map(|p| p.why.as_str()),
        unknown: prediction.and_then(|p| p.unknown.as_deref()),
    }
}

fn window(window: &Window) -> WindowDocument {
    WindowDocument {
        outcome: window.outcome,
        earliest_s: window.span.map(|(earliest, _)| seconds(earliest)),
        latest_s: window.span.map(|(_, latest)| seconds(latest)),
        retransmits: window.retransmits,
        keepalive_probes: window.keepalive_probes,
        window_probes: window.window_probes,
        width_s: width(window, |by| seconds(*by)),
    }
}

/// What makes a window as wide as it is, seconds by cause.
pub(crate) fn width(
    window: &Window,
    seconds: impl Fn(&Duration) -> f64,
) -> BTreeMap<&'static str, f64> {
    window
        .width
        .iter()
        .map(|share| (share.cause.name(), seconds(&window.share(share.cause))))
        .collect()
}

pub(super) fn step(step: &Step) -> StepDocument {
    StepDocument {
        n: step.n,
        kind: step.kind,
        earliest_s: seconds(step.earliest),
        latest_s: seconds(step.latest),
        nominal_s: seconds(step.nominal),
        timeout_s: seconds(step.timeout),
        held: step.held,
    }
}

pub(super) fn seconds(duration: Duration) -> f64 {
    micros(duration.as_secs_f64())
}

pub(super) fn micros(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}
