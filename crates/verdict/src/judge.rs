//! The verdict.

use crate::measure::Measured;
use crate::proof::Proof;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One trial's verdict, with everything it rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The word.
    pub word: Word,
    /// Why, if it does not agree; empty otherwise.
    pub reason: String,
    /// What was measured; `None` if the trial never came to its fault.
    pub measured: Option<Measured>,
    /// The evidence for the fault.
    pub proof: Proof,
}

/// The four words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Word {
    /// Measured as predicted.
    Agrees,
    /// Not as predicted.
    Disagrees,
    /// Scheduling delay or lost evidence could have changed the verdict.
    Inconclusive,
    /// This machine or kernel cannot.
    Skipped,
}

impl fmt::Display for Word {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Agrees => "agrees",
            Self::Disagrees => "disagrees",
            Self::Inconclusive => "inconclusive",
            Self::Skipped => "skipped",
        })
    }
}

/// Holds the measurement against the prediction.
pub fn judge(
    _parameters: &spec::Parameters,
    _facts: &spec::Facts,
    _prediction: &model::Prediction,
    _timeline: &timeline::Timeline,
) -> Verdict {
    Verdict { word: Word::Inconclusive, reason: String::new(), measured: None::<Measured>, proof: Proof { evidence: vec![] } }
}
