//! The same experiments with the same settings on both clocks, side by side: what was the same, and
//! what the differences come from.

use crate::article::{Brief, about};
use crate::human::table;
use crate::json;
use crate::markdown::cell;
use crate::span;
use crate::tally::Run;
use crate::trial::Trial;
use crate::words;
use serde::Serialize;
use spec::sysctl::Sysctls;
use std::collections::BTreeSet;
use std::fmt::Write;
use verdict::{Measured, Word};

/// One run on each clock, of the same experiments in the same order.
#[derive(Debug, Clone, PartialEq)]
pub struct Clocks {
    /// On this machine's kernel.
    pub real: Run,
    /// On the virtual one.
    pub simulated: Run,
}

/// How an experiment's two trials compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Likeness {
    /// Both agree with their predictions, with the same outcome and the same packet counts.
    Same,
    /// Both agree with their predictions, which allow what is not the same.
    Explained,
    /// One of them does not agree, or could not be had.
    Open,
}

const HEADS: [&str; 6] =
    ["experiment", "real clock", "predicted", "virtual clock", "predicted", "compared"];

/// An experiment's two trials.
struct Pair<'a> {
    real: &'a Trial,
    simulated: &'a Trial,
}

impl Clocks {
    fn pairs(&self) -> impl Iterator<Item = Pair<'_>> {
        let pairs = self.real.trials.iter().zip(&self.simulated.trials);
        pairs.map(|(real, simulated)| Pair { real, simulated })
    }
}

impl Pair<'_> {
    fn both<T>(&self, of: impl Fn(&Trial) -> T) -> [T; 2] {
        [of(self.real), of(self.simulated)]
    }

    fn likeness(&self) -> Likeness {
        let shown = |trial: &Trial| trial.verdict.measured.as_ref().map(|m| (m.outcome, counts(m)));
        match self.both(|trial| trial.verdict.word) {
            [Word::Agrees, Word::Agrees] if shown(self.real) == shown(self.simulated) => {
                Likeness::Same
            }
            [Word::Agrees, Word::Agrees] => Likeness::Explained,
            _ => Likeness::Open,
        }
    }

    fn row(&self) -> [String; 6] {
        let [real, simulated] = self.both(Brief::new);
        let compared = match self.likeness() {
            Likeness::Same => {
                let apart = self.both(|t| t.verdict.measured.as_ref().and_then(|m| m.detected_s));
                match apart {
                    [Some(real), Some(simulated)] => {
                        format!("same, {}", span::signed(simulated - real))
                    }
                    _ => "same".into(),
                }
            }
            Likeness::Explained => "as predicted".into(),
            Likeness::Open => "see below".into(),
        };
        let name = self.real.experiment.name.clone();
        let [real_predicted, simulated_predicted] = [real.predicted, simulated.predicted];
        [name, real.measured, real_predicted, simulated.measured, simulated_predicted, compared]
    }

    /// What is not the same, and where it comes from.
    fn note(&self) -> Option<String> {
        let name = &self.real.experiment.name;
        match self.likeness() {
            Likeness::Same => None,
            Likeness::Open => {
                let told = self.both(|trial| match trial.verdict.reason.as_str() {
                    "" => trial.verdict.word.to_string(),
                    reason => format!("{}: {reason}", trial.verdict.word),
                });
                Some(format!("{name}: real clock {}; virtual clock {}", told[0], told[1]))
            }
            Likeness::Explained => {
                let sent = self.both(|trial| match &trial.verdict.measured {
                    Some(m) => {
                        format!(
                            "{} after {}",
                            m.outcome,
                            words::counts(counts(m)[0], counts(m)[1], counts(m)[2])
                        )
                    }
                    None => "nothing measured".into(),
                });
                Some(format!(
                    "{name}: {} and {}, each within its prediction; {}",
                    sent[0],
                    sent[1],
                    self.cause()
                ))
            }
        }
    }

    /// What was different before the fault.
    fn cause(&self) -> String {
        let [Some(real), Some(simulated)] = [&self.real.facts, &self.simulated.facts] else {
            return "nothing is known of the time before the fault".into();
        };
        let mut causes = Vec::new();
        if real.hz != simulated.hz {
            causes.push(format!("HZ {} and {}", real.hz, simulated.hz));
        }
        let tcp = [&real.tcp, &simulated.tcp].map(|tcp| tcp.as_ref());
        if let [Some(real), Some(simulated)] = tcp {
            let ms = |us: u32| span::measured(f64::from(us) / 1e6);
            if real.rto_us != simulated.rto_us {
                let [real, simulated] = [real.rto_us, simulated.rto_us].map(ms);
                causes.push(format!("a timeout of {real} and {simulated}"));
            }
            if real.srtt_us != simulated.srtt_us {
                let [real, simulated] = [real.srtt_us, simulated.srtt_us].map(ms);
                causes.push(format!("a round-trip time of {real} and {simulated}"));
            }
        }
        if causes.is_empty() {
            "the phase of the timer wheel decides".into()
        } else {
            format!(
                "before the fault they differed in {}, and in the wheel's phase",
                causes.join(", ")
            )
        }
    }
}

fn counts(measured: &Measured) -> [Option<u32>; 3] {
    [
        measured.retransmits_on_wire,
        measured.keepalive_probes_on_wire,
        measured.window_probes_on_wire,
    ]
}

/// For a terminal.
pub fn terminal(clocks: &Clocks) -> String {
    let mut table = table(HEADS);
    for pair in clocks.pairs() {
        table.add_row(pair.row());
    }
    let mut text = String::new();
    for line in table.lines().map(|line| line.trim_end().to_owned()).chain(foot(clocks)) {
        writeln!(text, "{line}").expect("a String takes all");
    }
    text
}

/// For a repository, or a step summary.
pub fn markdown(clocks: &Clocks) -> String {
    let mut text = format!("| {} |\n|{}\n", HEADS.join(" | "), "---|".repeat(HEADS.len()));
    for pair in clocks.pairs() {
        let cells = pair.row().map(|text| cell(&text)).join(" | ");
        writeln!(text, "| {cells} |").expect("a String takes all");
    }
    text.push('\n');
    for line in foot(clocks) {
        writeln!(text, "- {}", cell(&line)).expect("a String takes all");
    }
    text
}

/// What stands below the table.
fn foot(clocks: &Clocks) -> impl Iterator<Item = String> {
    let count = |wanted| clocks.pairs().filter(|pair| pair.likeness() == wanted).count();
    let counted = format!(
        "{} of {} the same in outcome and packet counts, {} different as predicted, {} open",
        count(Likeness::Same),
        clocks.pairs().count(),
        count(Likeness::Explained),
        count(Likeness::Open)
    );
    let times = "a time differs by the phase at which its timer was armed: the timer wheel fires up \
                 to a slot late, and that is how wide a window is";
    let runs = [&clocks.real, &clocks.simulated].map(about);
    let notes: Vec<_> = clocks.pairs().filter_map(|pair| pair.note()).collect();
    notes.into_iter().chain([counted]).chain(runs).chain([times.into()]).chain(sysctls(clocks))
}

/// The sysctls that the two kernels do not have in common, or not with the same value.
fn sysctls(clocks: &Clocks) -> Option<String> {
    let of = |run: &Run| run.trials.iter().find_map(|trial| trial.facts.clone());
    let (real, simulated) = (of(&clocks.real)?, of(&clocks.simulated)?);
    let shared = |name: &&String| set_by_trials(clocks, name);
    let names: BTreeSet<&String> = real.sysctl.keys().chain(simulated.sysctl.keys()).collect();
    let value = |of: &Sysctls, name: &String| {
        of.get(name).map_or_else(|| "missing".to_owned(), Clone::clone)
    };
    let apart: Vec<String> = names
        .into_iter()
        .filter(|name| !shared(name))
        .map(|name| (name, value(&real.sysctl, name), value(&simulated.sysctl, name)))
        .filter(|(_, real, simulated)| real != simulated)
        .map(|(name, real, simulated)| format!("{name} {real} / {simulated}"))
        .collect();
    (!apart.is_empty()).then(|| format!("sysctls apart (real / virtual): {}", apart.join(", ")))
}

/// Whether an experiment sets it: then it says nothing about the kernels.
fn set_by_trials(clocks: &Clocks, name: &str) -> bool {
    let mut trials = clocks.real.trials.iter();
    trials.any(|trial| trial.experiment.parameters.sysctl.contains_key(name))
}

/// For programs: `halfopen/clocks/1`, both runs, and what came of each pair.
pub fn document(clocks: &Clocks) -> Vec<u8> {
    json::pretty(&Document {
        schema: "halfopen/clocks/1",
        runs: [&clocks.real, &clocks.simulated].map(json::document),
        compared: clocks
            .pairs()
            .map(|pair| Compared {
                experiment: &pair.real.experiment.name,
                likeness: pair.likeness(),
                note: pair.note(),
            })
            .collect(),
    })
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    runs: [json::RunDocument<'a>; 2],
    compared: Vec<Compared<'a>>,
}

#[derive(Serialize)]
struct Compared<'a> {
    experiment: &'a str,
    likeness: Likeness,
    note: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use crate::trial::{Clock, Machine};

    fn clocks() -> Clocks {
        let real = Run { trials: vec![samples::keepalive(), samples::sending()], ..samples::run() };
        let machine =
            Machine { kernel: "6.12.117-halfopen".into(), hz: 1000, clock: Clock::Virtual };
        let mut simulated = Run { machine, ..real.clone() };
        let measured = simulated.trials[0].verdict.measured.as_mut().unwrap();
        measured.detected_s = measured.detected_s.map(|s| s - 0.013);
        simulated.trials.iter_mut().for_each(|trial| {
            trial.facts.as_mut().unwrap().hz = 1000;
        });
        Clocks { real, simulated }
    }

    #[test]
    fn what_is_the_same_has_only_its_distance() {
        let clocks = clocks();
        let pair = clocks.pairs().next().unwrap();
        assert_eq!(pair.likeness(), Likeness::Same);
        assert_eq!(pair.row()[5], "same, −13 ms");
        assert_eq!(pair.note(), None);
    }

    #[test]
    fn other_counts_have_their_cause() {
        let mut clocks = clocks();
        let trial = &mut clocks.simulated.trials[1];
        trial.verdict.measured.as_mut().unwrap().retransmits_on_wire = Some(63);
        let pair = clocks.pairs().nth(1).unwrap();
        assert_eq!(pair.likeness(), Likeness::Explained);
        let note = pair.note().unwrap();
        assert!(note.contains("63 retransmissions") && note.contains("HZ 250 and 1000"), "{note}");
    }

    #[test]
    fn a_trial_that_does_not_agree_leaves_it_open() {
        let mut clocks = clocks();
        clocks.simulated.trials[0] = samples::skipped();
        let pair = clocks.pairs().next().unwrap();
        assert_eq!(pair.likeness(), Likeness::Open);
        assert!(pair.note().unwrap().contains("skipped"));
        assert!(terminal(&clocks).contains("1 of 2 the same"), "{}", terminal(&clocks));
    }
}
