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
