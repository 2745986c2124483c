//! Documents for programs: `halfopen/run/1` and `halfopen/predict/1`, and the data files of a trial.
//!
//! A document's keys are a contract: they are always there, whatever the trial came to; what is
//! unknown is null. Times are seconds, rounded to microseconds.

mod measurement;
mod prediction;
mod programs;
pub(crate) mod trial;

use crate::catalogue::by_fault;
use crate::digest::Digest;
use crate::human::Check;
use crate::mends::{self, RowDocument};
use crate::parameters::in_force;
use crate::summary::{Group, Groups};
use crate::tally::{Run, Tally};
use crate::trial::{Clock, Machine, Status};
use model::Prediction;
use prediction::{Forecast, forecast, micros, seconds};
use serde::Serialize;
use serde_json::value::Value;
use spec::{Experiment, FaultKind};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use trial::{SCHEMA, TrialDocument, head, trial_document};

pub(crate) use prediction::{StepDocument, WindowDocument, width};
pub(crate) use programs::OptionsDocument;

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
    let rows = mends::rows(&tally.groups);
    let rows: Vec<_> = rows.iter().map(mends::Row::document).collect();
    write!(output, "\n],\n\"mends\": {}", serde_json::to_string(&rows)?)?;
    writeln!(
        output,
        ",\n\"wall_s\": {},\n\"not_started\": {},\n\"lost\": {}}}",
        micros(tally.wall_s),
        tally.not_started,
        serde_json::to_string(&tally.lost)?
    )
}

/// How long programs hang, and what mends them, to be kept; `None`: no experiment says so.
pub fn mends(tally: &Tally) -> Option<Vec<u8>> {
    #[derive(Serialize)]
    struct Document<'a> {
        schema: &'static str,
        kernel: &'a str,
        hz: u32,
        clock: Clock,
        mends: Vec<RowDocument<'a>>,
    }
    let Machine { kernel, hz, clock } = &tally.machine;
    let (rows, schema) = (mends::rows(&tally.groups), "halfopen/mends/1");
    let mends = rows.iter().map(mends::Row::document).collect();
    let document = Document { schema, kernel, hz: *hz, clock: *clock, mends };
    (!rows.is_empty()).then(|| pretty(&document))
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

/// The experiments and their questions, by fault: `halfopen list --format json`.
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
        fault: FaultKind,
        claims: &'a [String],
        parameters: BTreeMap<String, Value>,
    }
    let listed = |experiment: &'a Experiment| Listed {
        name: &experiment.name,
        question: &experiment.question,
        fault: experiment.parameters.fault.kind,
        claims: &experiment.claims,
        parameters: in_force(&experiment.parameters, None),
    };
    let groups = by_fault(experiments);
    let experiments = groups.into_iter().flat_map(|(_, members)| members).map(listed).collect();
    pretty(&List { schema: "halfopen/list/1", experiments })
}

/// What this machine can do: `halfopen doctor --format json`.
pub fn doctor(checks: &[Check]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Document<'a> {
        schema: &'static str,
        checks: &'a [Check],
    }
    pretty(&Document { schema: "halfopen/doctor/1", checks })
}

/// The document of a prediction: `halfopen predict --format json`.
pub fn predict(experiment: &Experiment, hz: u32, prediction: &Prediction) -> Vec<u8> {
    pretty(&point(experiment, hz, prediction))
}

fn point<'a>(
    experiment: &'a Experiment,
    hz: u32,
    prediction: &'a Prediction,
) -> PredictDocument<'a> {
    PredictDocument {
        schema: "halfopen/predict/1",
        hz,
        prediction: forecast(Some(prediction)),
        schedule: prediction.schedule.iter().map(|step| StepDocument::new(step, seconds)).collect(),
        experiment: &experiment.name,
        parameters: in_force(&experiment.parameters, None),
    }
}

/// The document of a sweep: `halfopen predict --format json` with several values of a setting. Each
/// point, for a kernel of its HZ, is as the document of one prediction.
pub fn predictions(points: &[(Experiment, u32, Prediction)]) -> Vec<u8> {
    pretty(&SweepDocument {
        schema: "halfopen/predict/1",
        hz: points.first().map_or(0, |(_, hz, _)| *hz),
        points: points
            .iter()
            .map(|(experiment, hz, prediction)| point(experiment, *hz, prediction))
            .collect(),
    })
}

/// A prediction by itself, as it stands in a trial's document.
pub fn predicted(prediction: &Prediction) -> Value {
    serde_json::to_value(forecast(Some(prediction))).unwrap_or_default()
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

/// `halfopen/predict/1`, of a sweep.
#[derive(Serialize)]
struct SweepDocument<'a> {
    schema: &'static str,
    hz: u32,
    points: Vec<PredictDocument<'a>>,
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
    /// How many do not meet what is required.
    unmet: usize,
    /// What ended connections, and what programs did, where these are commands.
    ended_by: &'a BTreeSet<&'static str>,
    programs: &'a BTreeSet<String>,
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
        unmet: group.count(Status::Unmet),
        ended_by: group.ended_by(),
        programs: group.programs(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use crate::tally::Lost;

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
