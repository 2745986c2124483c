//! The data files of a trial, and how they are read back: each names its schema, has times in
//! seconds, and settings by their keys. Files of before there were schemas are read too.

use crate::json::{StepDocument, WindowDocument, pretty};
use crate::parameters::typed;
use model::width::{Cause, Share};
use model::{Prediction, Step, Window};
use serde::de::{DeserializeOwned, Error as _, IntoDeserializer};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use spec::{Experiment, Mend, Parameters, Reference, settings};
use std::collections::BTreeMap;
use std::time::Duration;
use timeline::Timeline;

/// What files are.
const EXPERIMENT: &str = "halfopen/experiment/1";
const PREDICTION: &str = "halfopen/prediction/1";
const TIMELINE: &str = "halfopen/timeline/1";

/// A value as a text file that names its schema first, `halfopen/NAME/1`.
///
/// # Panics
/// For a value that is no JSON object, or that JSON cannot hold.
pub fn marked(name: &str, value: &impl Serialize) -> Vec<u8> {
    let text = pretty(value);
    let rest = text.strip_prefix(b"{\n").expect("a record is an object with a field at least");
    [format!("{{\n  \"schema\": \"halfopen/{name}/1\",\n").as_bytes(), rest].concat()
}

/// Reads a file of this name, `facts` or `verdict`, with its schema or without.
///
/// # Errors
/// serde's error, or another schema than the name's.
pub fn read<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> serde_json::Result<T> {
    has_schema(bytes, &format!("halfopen/{name}/1"))?;
    serde_json::from_slice(bytes)
}

/// Whether the file names this schema; it may name none.
fn has_schema(bytes: &[u8], wanted: &str) -> serde_json::Result<bool> {
    #[derive(Deserialize)]
    struct Mark {
        #[serde(default)]
        schema: Option<String>,
    }
    match serde_json::from_slice::<Mark>(bytes)?.schema {
        Some(schema) if schema == wanted => Ok(true),
        Some(other) => {
            Err(serde_json::Error::custom(format!("its schema is {other}, not {wanted}")))
        }
        None => Ok(false),
    }
}

#[derive(Serialize, Deserialize)]
struct ExperimentFile {
    schema: String,
    name: String,
    question: String,
    claims: Vec<String>,
    parameters: BTreeMap<String, Value>,
    #[serde(default)]
    deadline_extends: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mend: Option<Mend>,
}

/// `experiment.json`.
pub fn experiment(experiment: &Experiment) -> Vec<u8> {
    let Experiment { name, question, claims, parameters, mend } = experiment.clone();
    pretty(&ExperimentFile {
        schema: EXPERIMENT.into(),
        name,
        question,
        claims,
        parameters: settings::all(&parameters).into_iter().map(|(k, v)| (k, typed(v))).collect(),
        deadline_extends: parameters.deadline_extends,
        mend,
    })
}

/// Reads [`experiment`] back.
///
/// # Errors
/// serde's error, or a setting that is not one.
pub fn read_experiment(bytes: &[u8]) -> serde_json::Result<Experiment> {
    if !has_schema(bytes, EXPERIMENT)? {
        return serde_json::from_slice(bytes);
    }
    let file: ExperimentFile = serde_json::from_slice(bytes)?;
    let ExperimentFile {
        name, question, claims, parameters: shown, deadline_extends, mend, ..
    } = file;
    let mut parameters = Parameters { deadline_extends, ..Parameters::default() };
    for (key, value) in &shown {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        settings::apply(&mut parameters, key, &text)
            .map_err(|why| serde_json::Error::custom(format!("`{key}`: {why}")))?;
    }
    Ok(Experiment { name, question, claims, parameters, mend })
}

#[derive(Serialize, Deserialize)]
struct PredictionFile {
    schema: String,
    earliest_s: Option<f64>,
    latest_s: Option<f64>,
    reference: Reference,
    why: String,
    unknown: Option<String>,
    windows: Vec<WindowDocument>,
    schedule: Vec<StepDocument>,
}

/// `prediction.json`.
pub fn prediction(prediction: &Prediction) -> Vec<u8> {
    let exact = |duration: Duration| duration.as_secs_f64();
    let hull = prediction.hull();
    pretty(&PredictionFile {
        schema: PREDICTION.into(),
        earliest_s: hull.map(|(earliest, _)| exact(earliest)),
        latest_s: hull.map(|(_, latest)| exact(latest)),
        reference: prediction.reference,
        why: prediction.why.clone(),
        unknown: prediction.unknown.clone(),
        windows: prediction.windows.iter().map(|w| WindowDocument::new(w, exact)).collect(),
        schedule: prediction.schedule.iter().map(|step| StepDocument::new(step, exact)).collect(),
    })
}

/// Reads [`prediction`] back: to the nanosecond, since seconds are not rounded there.
///
/// # Errors
/// serde's error, or a time that is none.
pub fn read_prediction(bytes: &[u8]) -> serde_json::Result<Prediction> {
    if !has_schema(bytes, PREDICTION)? {
        return serde_json::from_slice(bytes);
    }
    let file: PredictionFile = serde_json::from_slice(bytes)?;
    Ok(Prediction {
        reference: file.reference,
        why: file.why,
        unknown: file.unknown,
        windows: file.windows.into_iter().map(read_window).collect::<Result<_, _>>()?,
        schedule: file.schedule.iter().map(read_step).collect::<Result<_, _>>()?,
    })
}

fn read_window(file: WindowDocument) -> serde_json::Result<Window> {
    let span = match (file.earliest_s, file.latest_s) {
        (Some(earliest), Some(latest)) => Some((seconds(earliest)?, seconds(latest)?)),
        _ => None,
    };
    let share = |(name, by): (String, f64)| {
        let cause = Cause::deserialize(name.into_deserializer())?;
        Ok(Share { cause, by: seconds(by)? })
    };
    let width = file.width_s.into_iter().map(share).collect::<serde_json::Result<Vec<_>>>();
    let mut width = width?;
    width.sort_by_key(|share| share.cause);
    Ok(Window {
        retransmits: file.retransmits,
        keepalive_probes: file.keepalive_probes,
        window_probes: file.window_probes,
        width,
        ..Window::new(file.outcome, span)
    })
}

fn read_step(file: &StepDocument) -> serde_json::Result<Step> {
    Ok(Step {
        n: file.n,
        kind: file.kind,
        earliest: seconds(file.earliest_s)?,
        latest: seconds(file.latest_s)?,
        nominal: seconds(file.nominal_s)?,
        timeout: seconds(file.timeout_s)?,
        late: seconds(file.late_s)?,
        held: file.held,
    })
}

fn seconds(seconds: f64) -> serde_json::Result<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(serde_json::Error::custom)
}

/// `timeline.jsonl`: its schema, then an event a line, with the hosts by their names.
///
/// # Errors
/// Never for events made by this workspace; serde's error otherwise.
pub fn timeline(timeline: &Timeline, parameters: &Parameters) -> serde_json::Result<String> {
    let events = timeline.by_name(parameters).to_jsonl()?;
    Ok(format!("{{\"schema\":\"{TIMELINE}\"}}\n{events}"))
}

/// Reads [`timeline`] back.
///
/// # Errors
/// The line's number and what is wrong with it.
pub fn read_timeline(text: &str, parameters: &Parameters) -> Result<Timeline, String> {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let named = match has_schema(first.as_bytes(), TIMELINE) {
        // An empty line, so that others keep their numbers.
        Ok(true) => Timeline::from_jsonl(&format!("\n{rest}")),
        Ok(false) => Timeline::from_jsonl(text),
        Err(error) => Err(format!("line 1: {error}")),
    };
    Ok(named?.by_part(parameters))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use spec::LostHost;

    #[test]
    fn files_are_read_back_and_name_their_schema() {
        for trial in samples::run().trials {
            let read_again = read_experiment(&experiment(&trial.experiment)).unwrap();
            assert_eq!(
                settings::all(&read_again.parameters),
                settings::all(&trial.experiment.parameters)
            );
            assert_eq!(read_again.question, trial.experiment.question);
            let mut other = Parameters::default();
            other.fault.host = LostHost::Client;
            let turned = timeline(&trial.timeline, &other).unwrap();
            assert_eq!(read_timeline(&turned, &other).unwrap(), trial.timeline);
            let parameters = &Parameters::default();
            let text = timeline(&trial.timeline, parameters).unwrap();
            assert!(text.starts_with("{\"schema\":\"halfopen/timeline/1\"}\n"));
            assert_eq!(read_timeline(&text, &Parameters::default()).unwrap(), trial.timeline);
            let verdict: verdict::Verdict =
                read("verdict", &marked("verdict", &trial.verdict)).unwrap();
            assert_eq!(verdict, trial.verdict);
            let (Some(facts), Some(predicted)) = (trial.facts, trial.prediction) else { continue };
            assert_eq!(read::<spec::Facts>("facts", &marked("facts", &facts)).unwrap(), facts);
            assert_eq!(read_prediction(&prediction(&predicted)).unwrap(), predicted);
        }
    }

    /// Thirty days, to the nanosecond.
    #[test]
    fn no_time_is_rounded() {
        let mut predicted = samples::keepalive().prediction.unwrap();
        let span = (Duration::new(7_881, 123_456_789), Duration::new(2_591_999, 999_999_999));
        predicted.windows[0].span = Some(span);
        let again = read_prediction(&prediction(&predicted)).unwrap();
        assert_eq!(again.windows[0].span, Some(span));
    }

    #[test]
    fn files_of_before_there_were_schemas_are_read() {
        let trial = samples::keepalive();
        let predicted = trial.prediction.unwrap();
        assert_eq!(read_prediction(&pretty(&predicted)).unwrap(), predicted);
        let old = read_experiment(&pretty(&trial.experiment)).unwrap();
        assert_eq!(old, trial.experiment);
        let text = trial.timeline.to_jsonl().unwrap();
        assert_eq!(read_timeline(&text, &Parameters::default()).unwrap(), trial.timeline);
    }

    #[test]
    fn another_schema_is_refused_and_a_bad_line_has_its_number() {
        let trial = samples::keepalive();
        let bytes = marked("facts", &trial.facts.unwrap());
        let error = read::<verdict::Verdict>("verdict", &bytes).unwrap_err().to_string();
        assert!(error.contains("halfopen/facts/1"), "{error}");
        let text = timeline(&Timeline::default(), &Parameters::default()).unwrap() + "{}\n";
        assert!(read_timeline(&text, &Parameters::default()).unwrap_err().starts_with("line 2"));
        assert!(read_timeline("{}\n", &Parameters::default()).unwrap_err().starts_with("line 1"));
    }
}
