//! All trials of a run together.

use crate::summary::Groups;
use crate::trial::{Machine, Trial};
use serde::Serialize;

/// Every trial of one call, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// What they ran on.
    pub machine: Machine,
    /// How long the whole run took, seconds of a wall clock.
    pub wall_s: f64,
    /// The trials.
    pub trials: Vec<Trial>,
}

impl Run {
    /// What its trials came to.
    pub fn tally(&self) -> Tally {
        Tally {
            machine: self.machine.clone(),
            wall_s: self.wall_s,
            groups: Groups::of(&self.trials),
            not_started: 0,
            lost: None,
        }
    }
}

/// What the trials of a run came to together, without the trials.
#[derive(Debug, Clone)]
pub struct Tally {
    /// What they ran on; recorded trials of several machines: what the first did.
    pub machine: Machine,
    /// How long the whole run took, seconds of a wall clock.
    pub wall_s: f64,
    /// The trials, by experiment and settings.
    pub groups: Groups,
    /// How many trials never started.
    pub not_started: usize,
    /// Trials that started and whose end is unknown.
    pub lost: Option<Lost>,
}

impl Tally {
    /// What the trials ran on, in a few words.
    pub(crate) fn ran_on(&self) -> String {
        let machines: Vec<_> = self.groups.machines().iter().map(Machine::to_string).collect();
        if machines.is_empty() { self.machine.to_string() } else { machines.join(", ") }
    }
}

/// Trials that started and whose end is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// How many.
    pub trials: usize,
    /// Why, in a sentence.
    pub why: String,
}
