//! Documents for programs: `halfopen/run/1` and `halfopen/predict/1`, and the data files of a trial.
//!
//! A document's keys are a contract: they are always there, whatever the trial came to; what is
//! unknown is null. Times are seconds, rounded to microseconds.

use crate::trial::{Clock, Run, Trial};
use model::{Prediction, Step, StepKind, Window};
use serde::Serialize;
use spec::{Outcome, Reference, settings};
use std::collections::BTreeMap;
use std::time::Duration;
use verdict::{DetectedBy, Evidence, Measured, Word};

/// The document of a run: `halfopen run --format json`.
pub fn run(run: &Run) -> Vec<u8> {
    pretty(&document(run))
}

/// The same, as part of another document.
pub(crate) fn document(run: &Run) -> RunDocument<'_> {
    RunDocument {
        schema: "halfopen/run/1",
        kernel: &run.kernel,
        hz: run.hz,
        clock: run.clock,
        wall_s: micros(run.wall_s),
        trials: run.trials.iter().map(trial).collect(),
    }
}

/// The document of a prediction: `halfopen predict --format json`.
pub fn predict(experiment: &spec::Experiment, hz: u32, prediction: &Prediction) -> Vec<u8> {
    pretty(&PredictDocument {
        schema: "halfopen/predict/1",
        hz,
        prediction: forecast(Some(prediction)),
        schedule: prediction.schedule.iter().map(step).collect(),
        experiment: &experiment.name,
        parameters: settings::all(&experiment.parameters),
    })
}

/// A value as a text file: indented JSON with a newline at its end. `facts.json`,
/// `prediction.json` and `verdict.json` are the values themselves, and can be read back.
///
/// # Panics
/// For a value that JSON cannot hold, such as a map whose keys are no texts. This project's types
/// are not of that kind.
pub fn pretty(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("our own types are JSON values");
    text.push(b'\n');
    text
}

/// `halfopen/run/1`.
#[derive(Serialize)]
pub(crate) struct RunDocument<'a> {
    schema: &'static str,
    kernel: &'a str,
    hz: u32,
    clock: Clock,
    wall_s: f64,
    trials: Vec<TrialDocument<'a>>,
}

#[derive(Serialize)]
struct TrialDocument<'a> {
    experiment: &'a str,
    parameters: BTreeMap<String, String>,
    prediction: Forecast<'a>,
    measured: Measurement<'a>,
    verdict: Word,
    reason: &'a str,
    artifacts: Option<&'a str>,
    number: usize,
    proof: &'a [Evidence],
}

#[derive(Serialize)]
struct PredictDocument<'a> {
    schema: &'static str,
    hz: u32,
    prediction: Forecast<'a>,
    schedule: Vec<StepDocument>,
    experiment: &'a str,
    parameters: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Forecast<'a> {
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
struct Measurement<'a> {
    outcome: Option<Outcome>,
    detected_s: Option<f64>,
    noticed_s: Option<f64>,
    reference: Option<Reference>,
    detected_by: Option<DetectedBy>,
    retransmits_on_wire: Option<u32>,
    keepalive_probes_on_wire: Option<u32>,
    window_probes_on_wire: Option<u32>,
    fin_from_server: Option<bool>,
    rst_from_server: Option<bool>,
    client_state: Option<&'a str>,
    server_state: Option<&'a str>,
    rto_ms_at_fault: Option<u32>,
    resolution_s: Option<f64>,
}

#[derive(Serialize)]
struct StepDocument {
    n: u32,
    kind: StepKind,
    earliest_s: f64,
    latest_s: f64,
    nominal_s: f64,
    timeout_s: f64,
    held: bool,
}

fn trial(trial: &Trial) -> TrialDocument<'_> {
    TrialDocument {
        experiment: &trial.experiment.name,
        parameters: settings::all(&trial.experiment.parameters),
        prediction: forecast(trial.prediction.as_ref()),
        measured: measurement(trial.verdict.measured.as_ref()),
        verdict: trial.verdict.word,
        reason: &trial.verdict.reason,
        artifacts: trial.artifacts.as_deref(),
        number: trial.number,
        proof: &trial.verdict.proof.evidence,
    }
}

fn forecast(prediction: Option<&Prediction>) -> Forecast<'_> {
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
        width_s: width(window),
    }
}

/// What makes a window as wide as it is, seconds by cause.
pub(crate) fn width(window: &Window) -> BTreeMap<&'static str, f64> {
    window.width.iter().map(|share| (share.cause.name(), seconds(share.by))).collect()
}

fn measurement(measured: Option<&Measured>) -> Measurement<'_> {
    Measurement {
        outcome: measured.map(|m| m.outcome),
        detected_s: measured.and_then(|m| m.detected_s).map(micros),
        noticed_s: measured.and_then(|m| m.noticed_s).map(micros),
        reference: measured.map(|m| m.reference),
        detected_by: measured.and_then(|m| m.detected_by),
        retransmits_on_wire: measured.and_then(|m| m.retransmits_on_wire),
        keepalive_probes_on_wire: measured.and_then(|m| m.keepalive_probes_on_wire),
        window_probes_on_wire: measured.and_then(|m| m.window_probes_on_wire),
        fin_from_server: measured.map(|m| m.fin_from_server),
        rst_from_server: measured.map(|m| m.rst_from_server),
        client_state: measured.map(|m| m.client_state.as_str()),
        server_state: measured.map(|m| m.server_state.as_str()),
        rto_ms_at_fault: measured.and_then(|m| m.rto_ms_at_fault),
        resolution_s: measured.map(|m| micros(m.resolution_s)),
    }
}

fn step(step: &Step) -> StepDocument {
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

fn seconds(duration: Duration) -> f64 {
    micros(duration.as_secs_f64())
}

fn micros(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn a_run_is_the_contract_s_document() {
        let document = run(&samples::run());
        insta::assert_snapshot!(String::from_utf8(document).unwrap());
    }

    #[test]
    fn a_trial_that_came_to_nothing_has_every_key() {
        let run_of = |trial| Run { trials: vec![trial], ..samples::run() };
        let keys = |trial| {
            let document: serde_json::Value = serde_json::from_slice(&run(&run_of(trial))).unwrap();
            let trial = &document["trials"][0];
            ["prediction", "measured"]
                .map(|part| trial[part].as_object().unwrap().keys().cloned().collect::<Vec<_>>())
        };
        assert_eq!(keys(samples::keepalive()), keys(samples::skipped()));
    }

    #[test]
    fn a_prediction_is_the_contract_s_document() {
        let trial = samples::sending();
        let document = predict(&trial.experiment, 250, &trial.prediction.unwrap());
        insta::assert_snapshot!(String::from_utf8(document).unwrap());
    }

    #[test]
    fn data_files_are_read_back() {
        let trial = samples::keepalive();
        let read = |bytes: Vec<u8>| serde_json::from_slice::<Prediction>(&bytes).unwrap();
        assert_eq!(read(pretty(trial.prediction.as_ref().unwrap())), trial.prediction.unwrap());
        let verdict: verdict::Verdict = serde_json::from_slice(&pretty(&trial.verdict)).unwrap();
        assert_eq!(verdict, trial.verdict);
        let facts: spec::Facts = serde_json::from_slice(&pretty(&trial.facts)).unwrap();
        assert_eq!(Some(facts), trial.facts);
    }
}
