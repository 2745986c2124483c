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
        let machines: Vec<_> = self.machines().into_iter().map(Machine::to_string).collect();
        machines.join(", ")
    }

    /// The same in a report.
    pub(crate) fn kernels(&self) -> String {
        self.ran_on().replace("kernel ", "Linux ")
    }

    /// What the trials ran on: each that differs, once.
    pub(crate) fn machines(&self) -> Vec<&Machine> {
        let machines = self.groups.machines();
        if machines.is_empty() { vec![&self.machine] } else { machines }
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

#[cfg(test)]
mod tests {
    use crate::trial::{Clock, Machine};
    use crate::{html, junit, markdown, samples};

    /// Trials on several kernels: reports name each, and each suite its own.
    #[test]
    fn every_kernel_is_named() {
        let mut run = samples::run();
        run.trials[1].machine =
            Machine { kernel: "6.1.192-halfopen".into(), hz: 100, clock: Clock::Virtual };
        let tally = run.tally();
        let page = html::run_page(&tally, |name, _| name.into());
        let text = |bytes| String::from_utf8(bytes).unwrap();
        for (report, first, second) in [
            (
                markdown::summary(&tally, |_, _| None),
                "Linux 6.18.44 · HZ 250",
                "Linux 6.1.192-halfopen · HZ 100",
            ),
            (text(page.clone()), "Linux 6.18.44 · HZ 250", "Linux 6.1.192-halfopen · HZ 100"),
            (
                text(page),
                "on Linux 6.18.44, HZ 250, real",
                "; Linux 6.1.192-halfopen, HZ 100, virtual",
            ),
            (text(junit::reports(&[run])), "value=\"6.18.44\"", "value=\"6.1.192-halfopen\""),
        ] {
            assert!(report.contains(first) && report.contains(second), "{report}");
        }
    }
}
