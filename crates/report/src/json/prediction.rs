//! What documents say of a prediction.

use model::width::Share;
use model::{Prediction, Step, StepKind, Window};
use serde::{Deserialize, Serialize};
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

/// A window; times are seconds.
#[derive(Serialize, Deserialize)]
pub(crate) struct WindowDocument {
    pub(crate) outcome: Outcome,
    pub(crate) earliest_s: Option<f64>,
    pub(crate) latest_s: Option<f64>,
    pub(crate) retransmits: Option<u32>,
    pub(crate) keepalive_probes: Option<u32>,
    pub(crate) window_probes: Option<u32>,
    /// What makes it as wide as it is, by cause.
    pub(crate) width_s: BTreeMap<String, f64>,
}

impl WindowDocument {
    /// `seconds` says how exact the times are.
    pub(crate) fn new(window: &Window, seconds: fn(Duration) -> f64) -> Self {
        Self {
            outcome: window.outcome,
            earliest_s: window.span.map(|(earliest, _)| seconds(earliest)),
            latest_s: window.span.map(|(_, latest)| seconds(latest)),
            retransmits: window.retransmits,
            keepalive_probes: window.keepalive_probes,
            window_probes: window.window_probes,
            width_s: width(window, seconds),
        }
    }
}

/// What makes a window as wide as it is, seconds by cause.
pub(crate) fn width(window: &Window, seconds: fn(Duration) -> f64) -> BTreeMap<String, f64> {
    let share = |share: &Share| (share.cause.name().to_owned(), seconds(window.share(share.cause)));
    window.width.iter().map(share).collect()
}

/// A step of the schedule; times are seconds.
#[derive(Serialize, Deserialize)]
pub(crate) struct StepDocument {
    pub(crate) n: u32,
    pub(crate) kind: StepKind,
    pub(crate) earliest_s: f64,
    pub(crate) latest_s: f64,
    pub(crate) nominal_s: f64,
    pub(crate) timeout_s: f64,
    /// What of the time between earliest and latest is for timers before it that run late.
    pub(crate) late_s: f64,
    pub(crate) held: bool,
}

impl StepDocument {
    /// `seconds` says how exact the times are.
    pub(crate) fn new(step: &Step, seconds: fn(Duration) -> f64) -> Self {
        Self {
            n: step.n,
            kind: step.kind,
            earliest_s: seconds(step.earliest),
            latest_s: seconds(step.latest),
            nominal_s: seconds(step.nominal),
            timeout_s: seconds(step.timeout),
            late_s: seconds(step.late),
            held: step.held,
        }
    }
}

pub(super) fn forecast(prediction: Option<&Prediction>) -> Forecast<'_> {
    let hull = prediction.and_then(Prediction::hull);
    Forecast {
        earliest_s: hull.map(|(earliest, _)| seconds(earliest)),
        latest_s: hull.map(|(_, latest)| seconds(latest)),
        windows: prediction
            .iter()
            .flat_map(|p| &p.windows)
            .map(|window| WindowDocument::new(window, seconds))
            .collect(),
        reference: prediction.map(|p| p.reference),
        why: prediction.map(|p| p.why.as_str()),
        unknown: prediction.and_then(|p| p.unknown.as_deref()),
    }
}

pub(super) fn seconds(duration: Duration) -> f64 {
    micros(duration.as_secs_f64())
}

pub(super) fn micros(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}
