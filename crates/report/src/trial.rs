//! What a report is about: a trial, and the machine that it ran on.

use model::Prediction;
use serde::{Deserialize, Serialize};
use spec::{Experiment, Facts};
use std::fmt;
use std::time::Duration;
use timeline::Timeline;
use verdict::{Requirement, Verdict, Word};

/// One trial, with everything that was written down about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Which one it is.
    pub identity: Identity,
    /// What it ran on.
    pub machine: Machine,
    /// What was done.
    pub experiment: Experiment,
    /// What was measured before the fault; `None` if the trial did not come so far.
    pub facts: Option<Facts>,
    /// What was predicted before the fault; `None` if the trial did not come so far.
    pub prediction: Option<Prediction>,
    /// Its verdict.
    pub verdict: Verdict,
    /// What went wrong in halfopen itself, or in writing the trial's files.
    pub failure: Option<String>,
    /// What happened.
    pub timeline: Timeline,
    /// The directory of its files, as a person would type it.
    pub artifacts: Option<String>,
    /// The same from the root: where the files with the output of commands are.
    pub directory: Option<String>,
}

/// Which trial it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// From 1, among the trials of its experiment's name; its directory has the same.
    pub number: usize,
    /// From 1, among the trials of a run with the same experiment and settings.
    pub turn: usize,
    /// With `--phases`: which start phase of the timer wheel it has, from 1.
    pub phase: Option<u32>,
    /// The hash of what makes it the trial that it is; see [`crate::key`].
    pub key: String,
}

impl Trial {
    /// Its status, in a word.
    pub fn status(&self) -> Status {
        match Status::new(self.verdict.word, self.failure.is_some()) {
            status if status < Status::Unmet && self.unmet().is_some() => Status::Unmet,
            status => status,
        }
    }

    /// The first requirement that is not met.
    pub fn unmet(&self) -> Option<&Requirement> {
        self.verdict.requirements.iter().find(|requirement| !requirement.met)
    }

    /// Why it does not agree, if it does not: what failed, which requirement is not met, or the
    /// verdict's reason.
    pub fn reason(&self) -> String {
        match (&self.failure, self.unmet()) {
            (Some(failure), _) => failure.clone(),
            (None, Some(Requirement { key, wanted, found, .. }))
                if self.status() == Status::Unmet =>
            {
                format!("{key} = {wanted}: {found}")
            }
            _ => self.verdict.reason.clone(),
        }
    }

    /// From its first event to its last, in its own clock.
    pub fn took(&self) -> Duration {
        match self.timeline.events() {
            [first, .., last] => Duration::from_nanos(last.at_ns - first.at_ns),
            _ => Duration::ZERO,
        }
    }
}

/// A trial's verdict, or that halfopen failed. Ordered by severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The trial agrees with its prediction.
    Agrees,
    /// This machine or kernel cannot.
    Skipped,
    /// The evidence could not decide.
    Inconclusive,
    /// It does not disagree with its prediction, and a requirement is not met.
    Unmet,
    /// The trial disagrees with its prediction.
    Disagrees,
    /// Something went wrong in halfopen, or its results could not be written.
    Failed,
}

impl Status {
    /// Every one, in the order of severity.
    pub const ALL: [Self; 6] = [
        Self::Agrees,
        Self::Skipped,
        Self::Inconclusive,
        Self::Unmet,
        Self::Disagrees,
        Self::Failed,
    ];

    /// That of a verdict, unless halfopen failed.
    pub fn new(word: Word, failed: bool) -> Self {
        match word {
            _ if failed => Self::Failed,
            Word::Agrees => Self::Agrees,
            Word::Disagrees => Self::Disagrees,
            Word::Inconclusive => Self::Inconclusive,
            Word::Skipped => Self::Skipped,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Agrees => "agrees",
            Self::Skipped => "skipped",
            Self::Inconclusive => "inconclusive",
            Self::Unmet => "requirement not met",
            Self::Disagrees => "disagrees",
            Self::Failed => "failed",
        })
    }
}

/// What trials run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The kernel's release, as `uname -r` gives it.
    pub kernel: String,
    /// Timer interrupts a second.
    pub hz: u32,
    /// The clock of its times.
    pub clock: Clock,
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, hz, clock } = self;
        write!(formatter, "kernel {kernel} · HZ {hz} · {clock} clock")
    }
}

/// The clock of a run's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clock {
    /// The machine's.
    Real,
    /// A kernel whose time jumps to the next timer.
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
