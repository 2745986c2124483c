//! A trial as one of a sweep: its key, which part it is in, and what is left of one that has ended.

use crate::output::Exit;
use report::{Clock, Digest, Machine, key};
use spec::Experiment;

/// One part of a sweep, of so many: `--partition 2/5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Partition {
    part: u64,
    parts: u64,
}

impl std::str::FromStr for Partition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').map(|(part, parts)| (part.parse(), parts.parse()));
        match numbers {
            Some((Ok(part), Ok(parts))) if (1..=parts).contains(&part) => Ok(Self { part, parts }),
            _ => Err(format!("`{text}` is not I/N with I from 1 to N, such as 2/5")),
        }
    }
}

impl Partition {
    /// Whether the trial with this key is in this part.
    pub(crate) fn has(self, key: &str) -> bool {
        u64::from_str_radix(key, 16).unwrap_or(0) % self.parts == self.part - 1
    }
}

/// A trial's key in its sweep: the same whatever kernel it runs on, but for the HZ of a virtual one.
pub(crate) fn key_of(
    experiment: &Experiment,
    clock: Clock,
    hz: u32,
    turn: usize,
    phase: Option<u32>,
) -> String {
    let hz = if clock == Clock::Virtual { hz } else { 0 };
    key(experiment, &Machine { kernel: String::new(), hz, clock }, turn, phase)
}

/// A trial that had ended before this run.
#[derive(Debug)]
pub(crate) struct Earlier {
    pub(crate) experiment: Experiment,
    pub(crate) machine: Machine,
    pub(crate) digest: Digest,
    pub(crate) exit: Exit,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trial_is_in_one_part() {
        let parts = ["1/3", "2/3", "3/3"].map(|text| text.parse::<Partition>().unwrap());
        for number in 0..100_u64 {
            let key = format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            assert_eq!(parts.iter().filter(|part| part.has(&key)).count(), 1, "{key}");
        }
        for wrong in ["0/3", "4/3", "1", "1/0", "a/b", "-1/2"] {
            assert!(wrong.parse::<Partition>().unwrap_err().contains("such as 2/5"), "{wrong}");
        }
    }
}
