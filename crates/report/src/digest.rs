//! What reports about many trials need of each: small enough to be written down when the trial
//! ends, and read back for the reports.

use crate::fate::Fate;
use crate::human;
use crate::json::trial as json;
use crate::trial::{Machine, Status, Trial};
use model::Window;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use spec::Outcome;
use std::time::Duration;
use verdict::EndedBy;

/// A trial in brief.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Digest {
    /// Its place among all trials of its run, from 0.
    pub position: usize,
    /// Its number; see [`crate::trial::Identity`].
    pub number: usize,
    /// What it ran on.
    pub(crate) machine: Machine,
    /// Its verdict, or that it failed.
    pub status: Status,
    /// Why, if it does not agree.
    pub reason: String,
    /// What was measured, if anything was; and when it was told and noticed, seconds.
    pub(crate) outcome: Option<Outcome>,
    pub(crate) detected_s: Option<f64>,
    pub(crate) noticed_s: Option<f64>,
    /// What ended the connection that decides, and what the client's program did, where it is a command.
    #[serde(default)]
    pub(crate) ended_by: Option<EndedBy>,
    #[serde(default)]
    pub(crate) program: Option<String>,
    /// What became of that program.
    #[serde(default)]
    pub(crate) fate: Option<Fate>,
    /// What was predicted.
    pub(crate) windows: Vec<Window>,
    /// How long it took in its own clock.
    pub(crate) took: Duration,
    /// The directory of its files.
    pub artifacts: Option<String>,
    /// What a person is told about it.
    pub(crate) told: String,
    /// Its object in `halfopen/run/1`.
    pub(crate) document: Box<RawValue>,
}

impl Digest {
    /// Of a trial at this place of its run.
    pub fn new(position: usize, trial: &Trial) -> Self {
        let measured = trial.verdict.measured.as_ref();
        Self {
            position,
            number: trial.identity.number,
            machine: trial.machine.clone(),
            status: trial.status(),
            reason: trial.reason(),
            outcome: measured.map(|measured| measured.outcome),
            detected_s: measured.and_then(|measured| measured.detected_s),
            noticed_s: measured.and_then(|measured| measured.noticed_s),
            ended_by: trial.verdict.deciding().and_then(|flow| flow.ended_by),
            program: human::program_end(trial),
            fate: Fate::of(trial),
            windows: trial.prediction.iter().flat_map(|p| p.windows.clone()).collect(),
            took: trial.took(),
            artifacts: trial.artifacts.clone(),
            told: human::verdict(trial, false),
            document: json::trial(trial),
        }
    }

    /// One line of `--format jsonl`, without its end: the trial as a document of its own.
    pub fn line(&self) -> String {
        let schema = json::SCHEMA;
        format!("{{\"schema\":\"{schema}\",{}", self.document.get().trim_start_matches('{'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn a_digest_is_read_back_and_its_line_says_what_it_ran_on() {
        let digest = Digest::new(3, &samples::keepalive());
        let text = serde_json::to_string(&digest).unwrap();
        let again: Digest = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), text);

        let line = again.line();
        assert!(!line.contains('\n'));
        let trial: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(trial["schema"], "halfopen/run/1");
        assert_eq!(trial["kernel"], "6.18.44");
        assert_eq!(trial["hz"], 250);
        assert_eq!(trial["clock"], "real");
        assert_eq!(trial["experiment"], "host-crash-idle-keepalive");
        assert_eq!(trial["verdict"], "agrees");
    }
}
