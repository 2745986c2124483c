//! The files of one trial: all that `halfopen judge` needs, the capture, and the page.

use crate::channel::{Capture, Ending};
use anyhow::{Context, Result, anyhow};
use report::html::{File, trial_page};
use report::pcapng::{Packet, capture};
use report::{Clock, Identity, Machine, Trial, record};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use spec::{Facts, Parameters};
use std::path::Path;
use timeline::Timeline;
use verdict::Verdict;

/// `trial.json`: which trial it is, on what it ran, and how it ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Circumstances {
    #[serde(default)]
    number: usize,
    #[serde(default)]
    turn: usize,
    #[serde(default)]
    phase: Option<u32>,
    #[serde(default)]
    key: String,
    #[serde(default)]
    kernel: Option<String>,
    #[serde(default)]
    hz: Option<u32>,
    clock: Clock,
    pub(crate) ending: Ending,
}

impl Circumstances {
    pub(crate) fn new(trial: &Trial, ending: &Ending) -> Self {
        let Identity { number, turn, phase, key } = trial.identity.clone();
        let Machine { kernel, hz, clock } = trial.machine.clone();
        let (kernel, hz) = (Some(kernel), Some(hz));
        Self { number, turn, phase, key, kernel, hz, clock, ending: ending.clone() }
    }

    fn identity(&self) -> Identity {
        let Self { number, turn, phase, key, .. } = self;
        Identity { number: *number, turn: *turn, phase: *phase, key: key.clone() }
    }

    /// What the trial ran on. Older files leave it to the facts.
    fn machine(&self, facts: Option<&Facts>) -> Machine {
        let kernel = self.kernel.clone().or_else(|| facts.map(|facts| facts.kernel.clone()));
        let hz = self.hz.or_else(|| facts.map(|facts| facts.hz));
        let (kernel, hz) = (kernel.unwrap_or_default(), hz.unwrap_or_default());
        Machine { kernel, hz, clock: self.clock }
    }
}

/// Every file of a trial, by name.
pub(crate) fn of(
    trial: &Trial,
    captures: &[Capture],
    circumstances: &Circumstances,
) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let mut files = vec![("experiment.json", record::experiment(&trial.experiment))];
    if let Some(facts) = &trial.facts {
        files.push(("facts.json", record::marked("facts", facts)));
    }
    if let Some(prediction) = &trial.prediction {
        files.push(("prediction.json", record::prediction(prediction)));
    }
    let timeline = record::timeline(&trial.timeline, &trial.experiment.parameters)
        .context("writing the timeline")?;
    files.push(("timeline.jsonl", timeline.into_bytes()));
    files.push(("verdict.json", record::marked("verdict", &trial.verdict)));
    files.push(("capture.pcapng", packets(trial, captures)));
    files.push(("report.html", trial_page(trial, &beside(&files))));
    // Last: a trial that has it is whole.
    files.push(("trial.json", record::marked("trial", circumstances)));
    Ok(files)
}

/// What lies beside a trial's page: some of `written`, and what is written last.
fn beside(written: &[(&'static str, Vec<u8>)]) -> Vec<File> {
    const LAST: &str = "trial.json";
    let is_there = |name: &str| name == LAST || written.iter().any(|(known, _)| *known == name);
    [
        ("capture.pcapng", "the packets at both hosts, with comments, for Wireshark"),
        ("timeline.jsonl", "every event"),
        ("facts.json", "what was measured before the fault"),
        ("prediction.json", "what was predicted before the fault"),
        ("verdict.json", "the measurement, the proof of the fault, the verdict"),
        ("experiment.json", "what was done"),
        (LAST, "the trial's number and key, the clock, and how the trial ended"),
    ]
    .into_iter()
    .filter(|(name, _)| is_there(name))
    .map(|(name, what)| File { name: name.into(), what: what.into() })
    .collect()
}

fn packets(trial: &Trial, captures: &[Capture]) -> Vec<u8> {
    let packets: Vec<_> = captures
        .iter()
        .map(|Capture { event, wall_ns, wire_len, frame }| Packet {
            event,
            wall_ns: *wall_ns,
            frame,
            wire_len: *wire_len,
        })
        .collect();
    capture(trial, &packets)
}

/// A trial as its files have it.
pub(crate) struct Recorded {
    /// With the verdict of its time.
    pub(crate) trial: Trial,
    pub(crate) circumstances: Circumstances,
}

/// Reads a trial's directory.
///
/// # Errors
/// Which file cannot be read or understood. A trial that came to its end has facts and prediction;
/// others may have ended before.
pub(crate) fn read(directory: &Path) -> Result<Recorded> {
    let circumstances: Circumstances = read_json(directory, "trial.json", marked("trial"))?;
    let experiment = read_json(directory, "experiment.json", record::read_experiment)?;
    let complete =
        circumstances.ending == Ending::Complete && !experiment.parameters.predicts_anew();
    let verdict: Verdict = read_json(directory, "verdict.json", marked("verdict"))?;
    let timeline = read_timeline(directory, &experiment.parameters)?;
    let facts: Option<Facts> = read_if_there(directory, "facts.json", complete, marked("facts"))?;
    let trial = Trial {
        identity: circumstances.identity(),
        machine: circumstances.machine(facts.as_ref()),
        experiment,
        facts,
        prediction: read_if_there(directory, "prediction.json", complete, record::read_prediction)?,
        verdict,
        failure: crate::judging::failure(&circumstances.ending),
        timeline,
        artifacts: Some(directory.display().to_string()),
        directory: std::path::absolute(directory).ok().map(|path| path.display().to_string()),
    };
    Ok(Recorded { trial, circumstances })
}

fn read_timeline(directory: &Path, parameters: &Parameters) -> Result<Timeline> {
    let path = directory.join("timeline.jsonl");
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    record::read_timeline(&harmless(&text), parameters)
        .map_err(|error| anyhow!("{}: {error}", path.display()))
}

/// Reads a file that names its schema and is otherwise the value itself.
fn marked<T: DeserializeOwned>(name: &'static str) -> impl Fn(&[u8]) -> serde_json::Result<T> {
    move |bytes| record::read(name, bytes)
}

fn read_if_there<T>(
    directory: &Path,
    name: &str,
    needed: bool,
    understand: impl Fn(&[u8]) -> serde_json::Result<T>,
) -> Result<Option<T>> {
    if needed || directory.join(name).is_file() {
        read_json(directory, name, understand).map(Some)
    } else {
        Ok(None)
    }
}

fn read_json<T>(
    directory: &Path,
    name: &str,
    understand: impl Fn(&[u8]) -> serde_json::Result<T>,
) -> Result<T> {
    let path = directory.join(name);
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    understand(harmless(&text).as_bytes())
        .with_context(|| format!("understanding {}", path.display()))
}

/// JSON from files that may come from elsewhere, without what a terminal would obey: a control
/// character in a string, but for line breaks and tabs, becomes the text of its escape sequence.
fn harmless(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    let mut rest = json.chars();
    while let Some(character) = rest.next() {
        if character.is_control() && !matches!(character, '\n' | '\t' | '\r') {
            // DEL and C1: those below U+0020 cannot stand in JSON as they are.
            safe.push_str(&format!("\\\\u{:04x}", u32::from(character)));
            continue;
        }
        safe.push(character);
        if character != '\\' {
            continue;
        }
        let ahead = rest.as_str();
        let number = ahead.get(1..5).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let escaped = match ahead.chars().next() {
            Some('b' | 'f' | 'r') => true,
            Some('u') => number
                .and_then(char::from_u32)
                .is_some_and(|named| named.is_control() && !matches!(named, '\n' | '\t')),
            _ => false,
        };
        if escaped {
            safe.push('\\');
        } else if let Some(next) = rest.next() {
            safe.push(next);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_foreign_files_do_nothing_to_a_terminal() {
        let read = |json: &str| serde_json::from_str::<String>(&harmless(json)).unwrap();
        assert_eq!(read(r#""plain \\ \" \n \u00e9""#), "plain \\ \" \n é");
        assert_eq!(read(r#""\u001b[2J \u009b1m \r \b""#), r"\u001b[2J \u009b1m \r \b");
        assert_eq!(read("\"\u{7f}\u{9b}31m\""), r"\u007f\u009b31m");
        // An escaped backslash is none of an escape sequence.
        assert_eq!(read(r#""\\u001b""#), r"\u001b");
    }
    use crate::catalogue;

    /// Whatever an experiment sets, a trial judged again has it.
    #[test]
    fn every_experiment_is_read_back_whole() {
        for (name, _) in catalogue::BUILT_IN {
            for defaults in [false, true] {
                let experiment = catalogue::find(name, defaults, &[], false).unwrap();
                let bytes = record::experiment(&experiment);
                let again = record::read_experiment(&bytes).unwrap();
                let mut parameters = experiment.parameters.clone();
                // Shown, and so written, where it is the built-in one too.
                parameters.fault.duration = parameters.fault_duration();
                if parameters.has_web_server() {
                    parameters.nginx.keepalive_timeout = Some(parameters.nginx.keeps_for());
                }
                assert_eq!(again.parameters, parameters, "{name}");
                assert_eq!((&again.name, &again.claims), (&experiment.name, &experiment.claims));
            }
        }
    }
}
