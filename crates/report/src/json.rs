//! Documents for programs: `halfopen/run/1` and `halfopen/predict/1`, and the data files of a trial.
//!
//! A document's keys are a contract: they are always there, whatever the trial came to; what is
//! unknown is null. Times are seconds, rounded to microseconds.

mod programs;

use crate::digest::Digest;
use crate::parameters::in_force;
use crate::summary::{Group, Groups};
use crate::trial::{Clock, Machine, Run, Status, Tally, Trial};
use model::{Prediction, Step, StepKind, Window};
use serde::Serialize;
use serde_json::value::{RawValue, Value, to_raw_value};
use spec::{Experiment, Outcome, Reference};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;
use verdict::{DetectedBy, Evidence, Measured, Requirement, Word};

/// The document of a run, `halfopen run --format json`, a trial a line.
///
/// # Errors
/// Those of `output` and of `trials`, which are read one by one.
pub fn run(
    output: &mut dyn Write,
    tally: &Tally,
    trials: impl IntoIterator<Item = io::Result<Digest>>,
) -> io::Result<()> {
    write!(output, "{},\n\"trials\": [", head(&tally.machine).trim_end_matches('}'))?;
    for (index, digest) in trials.into_iter().enumerate() {
        let before = if index == 0 { "\n" } else { ",\n" };
        write!(output, "{before}{}", digest?.document)?;
    }
    write!(output, "\n],\n\"groups\": [")?;
    for (index, group) in groups(&tally.groups).iter().enumerate() {
        let before = if index == 0 { "\n" } else { ",\n" };
        write!(output, "{before}{}", serde_json::to_string(group)?)?;
    }
    writeln!(
        output,
        "\n],\n\"wall_s\": {},\n\"not_started\": {},\n\"lost\": {}}}",
        micros(tally.wall_s),
        tally.not_started,
        serde_json::to_string(&tally.lost)?
    )
}

/// What says on what trials ran: an object with what every document of trials begins with.
pub(crate) fn head(machine: &Machine) -> String {
    #[derive(Serialize)]
    struct Head<'a> {
        schema: &'static str,
        kernel: &'a str,
        hz: u32,
        clock: Clock,
    }
    let Machine { kernel, hz, clock } = machine;
    let head = Head { schema: SCHEMA, kernel, hz: *hz, clock: *clock };
    serde_json::to_string(&head).expect("our own types are JSON values")
}

/// A run in memory as part of another document.
pub(crate) fn document(run: &Run) -> RunDocument<'_> {
    RunDocument {
        schema: SCHEMA,
        kernel: &run.machine.kernel,
        hz: run.machine.hz,
        clock: run.machine.clock,
        wall_s: micros(run.wall_s),
        trials: run.trials.iter().map(trial_document).collect(),
    }
}

/// A trial's object.
pub(crate) fn trial(trial: &Trial) -> Box<RawValue> {
    to_raw_value(&trial_document(trial)).expect("our own types are JSON values")
}

const SCHEMA: &str = "halfopen/run/1";

/// The experiments and their questions: `halfopen list --format json`.
pub fn list<'a>(experiments: impl IntoIterator<Item = &'a Experiment>) -> Vec<u8> {
    #[derive(Serialize)]
    struct List<'a> {
        schema: &'static str,
        experiments: Vec<Listed<'a>>,
    }
    #[derive(Serialize)]
    struct Listed<'a> {
        name: &'a str,
        question: &'a str,
        claims: &'a [String],
        parameters: BTreeMap<String, Value>,
    }
    let listed = |experiment: &'a Experiment| Listed {
        name: &experiment.name,
        question: &experiment.question,
        claims: &experiment.claims,
        parameters: in_force(&experiment.parameters, None),
    };
    let experiments = experiments.into_iter().map(listed).collect();
    pretty(&List { schema: "halfopen/list/1", experiments })
}

/// The document of a prediction: `halfopen predict --format json`.
pub fn predict(experiment: &Experiment, hz: u32, prediction: &Prediction) -> Vec<u8> {
    pretty(&PredictDocument {
        schema: "halfopen/predict/1",
        hz,
        prediction: forecast(Some(prediction)),
        schedule: prediction.schedule.iter().map(step).collect(),
        experiment: &experiment.name,
        parameters: in_force(&experiment.parameters, None),
    })
}

/// A value as a text file: indented JSON with a newline at its end.
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
    parameters: BTreeMap<String, Value>,
    prediction: Forecast<'a>,
    measured: Measurement<'a>,
    verdict: Word,
    reason: &'a str,
    artifacts: Option<&'a str>,
    /// From 1, among the trials of this name; the same as of its directory.
    number: usize,
    /// From 1, among the trials of this experiment with these settings.
    turn: usize,
    /// With `--phases`, from 1.
    phase: Option<u32>,
    key: &'a str,
    /// What went wrong in halfopen itself.
    failure: Option<&'a str>,
    proof: &'a [Evidence],
    requirements: Vec<RequirementDocument<'a>>,
    /// Where the client is a command.
    #[serde(skip_serializing_if = "Option::is_none")]
    programs: Option<programs::Programs<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flows: Option<Vec<programs::FlowDocument<'a>>>,
}

#[derive(Serialize)]
struct RequirementDocument<'a> {
    key: &'a str,
    wanted: &'a str,
    measured_s: Option<f64>,
    met: bool,
    found: &'a str,
}

/// Trials that differ in nothing but their turn.
#[derive(Serialize)]
pub(crate) struct GroupDocument<'a> {
    experiment: &'a str,
    /// What sets it apart from other groups of the same experiment.
    settings: BTreeMap<String, String>,
    trials: usize,
    agree: usize,
    disagree: usize,
    inconclusive: usize,
    skipped: usize,
    failed: usize,
    outcomes: &'a BTreeMap<String, usize>,
    least_s: Option<f64>,
    median_s: Option<f64>,
    most_s: Option<f64>,
}

#[derive(Serialize)]
struct PredictDocument<'a> {
    schema: &'static str,
    hz: u32,
    prediction: Forecast<'a>,
    schedule: Vec<StepDocument>,
    experiment: &'a str,
    parameters: BTreeMap<String, Value>,
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

fn groups(groups: &Groups) -> Vec<GroupDocument<'_>> {
    groups.all().iter().map(|group| group_document(groups, group)).collect()
}

fn group_document<'a>(groups: &Groups, group: &'a Group) -> GroupDocument<'a> {
    let [least_s, median_s, most_s] =
        group.times_s().map_or([None; 3], |times| times.map(|time| Some(micros(time))));
    GroupDocument {
        experiment: &group.experiment.name,
        settings: groups.apart(group),
        trials: group.trials(),
        agree: group.count(Status::Agrees),
        disagree: group.count(Status::Disagrees),
        inconclusive: group.count(Status::Inconclusive),
        skipped: group.count(Status::Skipped),
        failed: group.count(Status::Failed),
        outcomes: group.outcome_counts(),
        least_s,
        median_s,
        most_s,
    }
}

fn trial_document(trial: &Trial) -> TrialDocument<'_> {
    TrialDocument {
        experiment: &trial.experiment.name,
        parameters: in_force(&trial.experiment.parameters, trial.facts.as_ref()),
        prediction: forecast(trial.prediction.as_ref()),
        measured: measurement(trial.verdict.measured.as_ref()),
        verdict: trial.verdict.word,
        reason: &trial.verdict.reason,
        artifacts: trial.artifacts.as_deref(),
        number: trial.identity.number,
        turn: trial.identity.turn,
        phase: trial.identity.phase,
        key: &trial.identity.key,
        failure: trial.failure.as_deref(),
        proof: &trial.verdict.proof.evidence,
        requirements: trial.verdict.requirements.iter().map(requirement).collect(),
        programs: programs::programs(trial),
        flows: programs::flows(trial),
    }
}

fn requirement(requirement: &Requirement) -> RequirementDocument<'_> {
    let Requirement { key, wanted, measured_s, found, met } = requirement;
    RequirementDocument { key, wanted, measured_s: measured_s.map(micros), met: *met, found }
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
    use crate::trial::Lost;

    fn text(tally: &Tally, of: &Run) -> Vec<u8> {
        let mut text = Vec::new();
        let digests = of.trials.iter().enumerate().map(|(at, trial)| Ok(Digest::new(at, trial)));
        run(&mut text, tally, digests).unwrap();
        text
    }

    #[test]
    fn a_run_is_the_contract_s_document() {
        let run = samples::run();
        let lost = Some(Lost { trials: 1, why: "the sandbox ended early".into() });
        let tally = Tally { lost, not_started: 2, ..run.tally() };
        let document: serde_json::Value = serde_json::from_slice(&text(&tally, &run)).unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&document).unwrap());
        // The same trials as in a document of which the run is a part.
        let part = serde_json::to_value(super::document(&run)).unwrap();
        assert_eq!(document["trials"], part["trials"]);
    }

    #[test]
    fn a_trial_that_came_to_nothing_has_every_key() {
        let run_of = |trial| Run { trials: vec![trial], ..samples::run() };
        let keys = |trial| {
            let run = run_of(trial);
            let document: serde_json::Value =
                serde_json::from_slice(&text(&run.tally(), &run)).unwrap();
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
}
