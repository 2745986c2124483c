//! What a report is about: a run, and its trials.

use model::Prediction;
use serde::{Deserialize, Serialize};
use spec::{Experiment, Facts};
use std::fmt;
use timeline::Timeline;
use verdict::Verdict;

/// One trial, with everything that was written down about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Its number within the run, from 0.
    pub number: usize,
    /// What was done.
    pub experiment: Experiment,
    /// What was measured before the fault; `None` if the trial did not come so far.
    pub facts: Option<Facts>,
    /// What was predicted before the fault; `None` if the trial did not come so far.
    pub prediction: Option<Prediction>,
    /// What became of it.
    pub verdict: Verdict,
    /// What happened.
    pub timeline: Timeline,
    /// The directory of its files, as a person would type it.
    pub artifacts: Option<String>,
}

impl Trial {
    /// The number that people know it by: that of its directory, where the first bears none, so
    /// that what is said about a trial leads to its files; without one, its place in the run.
    pub fn shown_number(&self) -> usize {
        let directory = self.artifacts.as_deref().and_then(|path| path.rsplit('/').next());
        let number = directory.and_then(|name| match name.strip_prefix(&self.experiment.name)? {
            "" => Some(1),
            rest => rest.strip_prefix('-')?.parse().ok(),
        });
        number.unwrap_or(self.number + 1)
    }
}

/// Every trial of one call, in the order of their numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The kernel's release, as `uname -r` gives it.
    pub kernel: String,
    /// Timer interrupts a second.
    pub hz: u32,
    /// Whose time.
    pub clock: Clock,
    /// How long the whole run took, seconds of a wall clock.
    pub wall_s: f64,
    /// The trials.
    pub trials: Vec<Trial>,
}

/// Whose time a run's times are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clock {
    /// That of the machine.
    Real,
    /// That of a kernel whose time jumps to the next timer.
    Virtual,
}

impl fmt::Display for Clock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Real => "real",
            Self::Virtual => "virtual",
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::samples;

    #[test]
    fn a_trial_has_the_number_of_its_directory() {
        let mut trial = samples::keepalive();
        trial.number = 6;
        for (directory, expected) in [
            ("results/runs/host-crash-idle-keepalive", 1),
            ("results/runs/host-crash-idle-keepalive-12", 12),
            ("host-crash-idle-keepalive-3", 3),
            ("results/moved", 7),
            ("results/runs/host-crash-idle-keepalive-5-3-3", 7),
        ] {
            trial.artifacts = Some(directory.into());
            assert_eq!(trial.shown_number(), expected, "{directory}");
        }
        trial.artifacts = None;
        assert_eq!(trial.shown_number(), 7);
    }
}
