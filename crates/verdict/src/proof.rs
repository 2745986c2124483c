//! Whether the fault did what its name says.

use serde::{Deserialize, Serialize};

/// The evidence for the fault, and what is missing from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Everything that was looked at.
    pub evidence: Vec<Evidence>,
}

/// One thing that must be so if the fault did what its name says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// What was found, a sentence with times and counts.
    pub finding: String,
    /// Whether it is as it must be.
    pub holds: bool,
}

impl Proof {
    /// Whether every piece of evidence holds.
    pub fn holds(&self) -> bool {
        self.evidence.iter().all(|evidence| evidence.holds)
    }
}

/// Looks for the evidence of the fault.
pub fn prove(_parameters: &spec::Parameters, _timeline: &timeline::Timeline) -> Proof {
    Proof { evidence: Vec::new() }
}
