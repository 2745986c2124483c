//! A trial's key: the same for the same trial on the same kind of kernel, in any run.

use crate::trial::Machine;
use spec::{Experiment, Parameters, settings};

/// Hashes what identifies a trial: its experiment's name and settings, clock, kernel
/// and HZ, and its turn among its repeats.
///
/// Settings at their built-in values are left out, so that a new setting changes no key.
pub fn key(experiment: &Experiment, machine: &Machine, turn: usize, phase: Option<u32>) -> String {
    let built_in = settings::all(&Parameters::default());
    let Machine { kernel, hz, clock } = machine;
    let mut hash = Fnv::new();
    for part in [&experiment.name, &clock.to_string(), kernel, &hz.to_string(), &turn.to_string()] {
        hash.add(part);
    }
    hash.add(&phase.map_or_else(String::new, |phase| phase.to_string()));
    for (key, value) in settings::all(&experiment.parameters) {
        if built_in.get(&key) != Some(&value) {
            hash.add(&key);
            hash.add(&value);
        }
    }
    format!("{:016x}", hash.0)
}

/// FNV-1a, 64 bits: it must never change, and std's hasher may.
struct Fnv(u64);

impl Fnv {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// A text, and an end that no text has.
    fn add(&mut self, text: &str) {
        for byte in text.bytes().chain([0xff]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use std::collections::BTreeSet;
    use std::time::Duration;

    #[test]
    fn a_key_depends_on_all_that_makes_a_trial_and_on_nothing_else() {
        let experiment = samples::keepalive().experiment;
        let machine = samples::run().machine;
        let first = key(&experiment, &machine, 1, None);
        assert_eq!(first, "22fdbbaa8e495019", "a key is the same in every version");
        let asked_otherwise = Experiment { question: "?".into(), ..experiment.clone() };
        assert_eq!(key(&asked_otherwise, &machine, 1, None), first);

        let mut other = experiment.clone();
        other.parameters.fault.after = Duration::from_secs(3);
        let named = Experiment { name: "another".into(), ..experiment.clone() };
        let mut machines = vec![machine.clone(); 3];
        machines[0].hz = 1000;
        machines[1].kernel = "6.12".into();
        machines[2].clock = crate::Clock::Virtual;
        let mut keys: BTreeSet<_> =
            machines.iter().map(|machine| key(&experiment, machine, 1, None)).collect();
        keys.insert(first);
        keys.insert(key(&other, &machine, 1, None));
        keys.insert(key(&named, &machine, 1, None));
        keys.insert(key(&experiment, &machine, 2, None));
        keys.insert(key(&experiment, &machine, 2, Some(2)));
        assert_eq!(keys.len(), 8);
    }
}
