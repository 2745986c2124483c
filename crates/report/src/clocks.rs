//! The same experiments with the same settings on several kernels, side by side: this machine's on the
//! real clock, and virtual ones; what was the same, and what the differences come from.

use crate::article::{Brief, about};
use crate::human::table;
use crate::json;
use crate::markdown::cell;
use crate::span;
use crate::tally::Run;
use crate::trial::{Clock, Trial};
use crate::words;
use serde::Serialize;
use spec::Facts;
use spec::sysctl::Sysctls;
use std::collections::BTreeSet;
use std::fmt::Write;
use verdict::{Measured, Word};

/// One run on each kernel, of the same experiments in the same order. The others are held against the
/// first.
#[derive(Debug, Clone, PartialEq)]
pub struct Clocks {
    /// The runs; there is at least one.
    pub runs: Vec<Run>,
}

/// How an experiment's trials compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Likeness {
    /// All agree with their predictions, with the same outcome and the same packet counts.
    Same,
    /// All agree with their predictions, which allow what is not the same.
    Explained,
    /// One of them does not agree, or could not be had.
    Open,
}

/// Of more runs, what was predicted has no place in the table.
const PREDICTED_MOST: usize = 2;

/// An experiment's trials, one of each run.
struct Row<'a> {
    /// The experiment, with the settings that set it apart from others of its name.
    name: String,
    trials: Vec<&'a Trial>,
}

impl Clocks {
    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let trials = |at| self.runs.iter().filter_map(|run| run.trials.get(at)).collect();
        let row = move |(at, name)| Row { name, trials: trials(at) };
        self.names().into_iter().enumerate().map(row)
    }

    /// What each trial of a run is called.
    fn names(&self) -> Vec<String> {
        let Some(first) = self.runs.first() else { return Vec::new() };
        let groups = first.tally().groups;
        if groups.all().len() == first.trials.len() {
            return groups.all().iter().map(|group| groups.name(group)).collect();
        }
        // The same one, several times.
        first.trials.iter().map(|trial| trial.experiment.name.clone()).collect()
    }

    /// What each run is called: its clock, or of several virtual kernels their versions and HZ.
    fn labels(&self) -> Vec<String> {
        let virtual_ones =
            self.runs.iter().filter(|run| run.machine.clock == Clock::Virtual).count();
        let label = |run: &Run| match run.machine.clock {
            Clock::Virtual if virtual_ones > 1 => {
                let version = run.machine.kernel.split('.').take(2).collect::<Vec<_>>().join(".");
                format!("{version}, HZ {}", run.machine.hz)
            }
            clock => format!("{clock} clock"),
        };
        self.runs.iter().map(label).collect()
    }

    fn heads(&self) -> Vec<String> {
        let predicted = self.runs.len() <= PREDICTED_MOST;
        let columns = self.labels().into_iter().flat_map(|label| {
            [Some(label), predicted.then(|| "predicted".into())].into_iter().flatten()
        });
        std::iter::once("experiment".into()).chain(columns).chain(["compared".into()]).collect()
    }
}

impl Row<'_> {
    fn likeness(&self) -> Likeness {
        let shown = |trial: &Trial| trial.verdict.measured.as_ref().map(|m| (m.outcome, counts(m)));
        if self.trials.iter().any(|trial| trial.verdict.word != Word::Agrees) {
            Likeness::Open
        } else if self.trials.windows(2).all(|pair| shown(pair[0]) == shown(pair[1])) {
            Likeness::Same
        } else {
            Likeness::Explained
        }
    }

    fn cells(&self) -> Vec<String> {
        let predicted = self.trials.len() <= PREDICTED_MOST;
        let shown = self.trials.iter().flat_map(|trial| {
            let Brief { mut measured, predicted: expected } = Brief::new(trial);
            let sent = trial.verdict.measured.as_ref().map(sent).filter(|sent| !sent.is_empty());
            measured.extend(sent.map(|sent| format!(", {sent}")));
            [Some(measured), predicted.then_some(expected)].into_iter().flatten()
        });
        let compared = match self.likeness() {
            Likeness::Same => self.apart(),
            Likeness::Explained => "as predicted".into(),
            Likeness::Open => "see below".into(),
        };
        std::iter::once(self.name.clone()).chain(shown).chain([compared]).collect()
    }

    /// How far the others were from the first.
    fn apart(&self) -> String {
        let detected = |trial: &&Trial| trial.verdict.measured.as_ref().and_then(|m| m.detected_s);
        let times: Option<Vec<f64>> = self.trials.iter().map(detected).collect();
        match times.as_deref() {
            Some([first, others @ ..]) if !others.is_empty() => {
                let apart: Vec<_> =
                    others.iter().map(|other| span::signed(other - first)).collect();
                format!("same, {}", apart.join(", "))
            }
            _ => "same".into(),
        }
    }

    /// What is not the same, and where it comes from.
    fn note(&self, labels: &[String]) -> Option<String> {
        let told = |of: &dyn Fn(&Trial) -> String, between: &str| {
            let told = labels
                .iter()
                .zip(&self.trials)
                .map(|(label, trial)| format!("{label} {}", of(trial)));
            told.collect::<Vec<_>>().join(between)
        };
        let name = &self.name;
        match self.likeness() {
            Likeness::Same => None,
            Likeness::Open => {
                let verdict = |trial: &Trial| match trial.verdict.reason.as_str() {
                    "" => trial.verdict.word.to_string(),
                    reason => format!("{}: {reason}", trial.verdict.word),
                };
                Some(format!("{name}: {}", told(&verdict, "; ")))
            }
            Likeness::Explained => {
                let sent = |trial: &Trial| match &trial.verdict.measured {
                    Some(m) => format!("{} after {}", m.outcome, sent(m)),
                    None => "nothing measured".into(),
                };
                let told = told(&sent, ", ");
                Some(format!("{name}: {told}, each within its prediction; {}", self.cause()))
            }
        }
    }

    /// What was different before the fault.
    fn cause(&self) -> String {
        let facts: Option<Vec<&Facts>> =
            self.trials.iter().map(|trial| trial.facts.as_ref()).collect();
        let Some(facts) = facts else {
            return "nothing is known of the time before the fault".into();
        };
        let seconds = |us: u32| span::measured(f64::from(us) / 1e6);
        let of_tcp = |of: fn(&spec::facts::TcpFacts) -> u32| {
            facts
                .iter()
                .map(|facts| Some(seconds(of(facts.tcp.as_ref()?))))
                .collect::<Option<Vec<_>>>()
        };
        let versions =
            facts.iter().map(|facts| format!("{}.{}", facts.version().0, facts.version().1));
        let causes: Vec<_> = [
            ("Linux", Some(versions.collect())),
            ("HZ", Some(facts.iter().map(|facts| facts.hz.to_string()).collect())),
            ("a timeout of", of_tcp(|tcp| tcp.rto_us)),
            ("a round-trip time of", of_tcp(|tcp| tcp.srtt_us)),
        ]
        .into_iter()
        .filter_map(|(what, of)| Some((what, of?)))
        .filter(|(_, of)| of.iter().any(|value| *value != of[0]))
        .map(|(what, of)| format!("{what} {}", of.join(" and ")))
        .collect();
        if causes.is_empty() {
            return "the phase of the timer wheel decides".into();
        }
        format!("before the fault they differed in {}, and in the wheel's phase", causes.join(", "))
    }
}

fn counts(measured: &Measured) -> [Option<u32>; 3] {
    [
        measured.retransmits_on_wire,
        measured.keepalive_probes_on_wire,
        measured.window_probes_on_wire,
    ]
}

/// What was sent and not answered.
fn sent(measured: &Measured) -> String {
    let [retransmits, probes, window_probes] = counts(measured);
    words::counts(retransmits, probes, window_probes)
}

/// For a terminal.
pub fn terminal(clocks: &Clocks) -> String {
    let mut table = table(clocks.heads().iter().map(String::as_str));
    for row in clocks.rows() {
        table.add_row(row.cells());
    }
    let mut text = String::new();
    for line in table.lines().map(|line| line.trim_end().to_owned()).chain(foot(clocks)) {
        writeln!(text, "{line}").expect("a String takes all");
    }
    text
}

/// For a repository, or a step summary.
pub fn markdown(clocks: &Clocks) -> String {
    let heads = clocks.heads();
    let mut text = format!("| {} |\n|{}\n", heads.join(" | "), "---|".repeat(heads.len()));
    for row in clocks.rows() {
        let cells: Vec<_> = row.cells().iter().map(|text| cell(text)).collect();
        writeln!(text, "| {} |", cells.join(" | ")).expect("a String takes all");
    }
    text.push('\n');
    for line in foot(clocks) {
        writeln!(text, "- {}", cell(&line)).expect("a String takes all");
    }
    text
}

/// What stands below the table.
fn foot(clocks: &Clocks) -> Vec<String> {
    let count = |wanted| clocks.rows().filter(|row| row.likeness() == wanted).count();
    let counted = format!(
        "{} of {} the same in outcome and packet counts, {} different as predicted, {} open",
        count(Likeness::Same),
        clocks.rows().count(),
        count(Likeness::Explained),
        count(Likeness::Open)
    );
    let times = "a time differs by the phase at which its timer was armed: the timer wheel fires up \
                 to a slot late, and that is how wide a window is";
    let labels = clocks.labels();
    let notes = clocks.rows().filter_map(|row| row.note(&labels));
    let runs = clocks.runs.iter().map(about);
    notes.chain([counted]).chain(runs).chain([times.into()]).chain(sysctls(clocks)).collect()
}

/// The sysctls that the kernels do not have in common, or not with the same value.
fn sysctls(clocks: &Clocks) -> Option<String> {
    let of =
        |run: &Run| run.trials.iter().find_map(|trial| Some(trial.facts.as_ref()?.sysctl.clone()));
    let all: Vec<Sysctls> = clocks.runs.iter().map(of).collect::<Option<_>>()?;
    let names: BTreeSet<&String> = all.iter().flat_map(Sysctls::keys).collect();
    let values = |name: &String| -> Vec<&str> {
        all.iter().map(|of| of.get(name).map_or("missing", String::as_str)).collect()
    };
    let apart: Vec<String> = names
        .into_iter()
        .filter(|name| !set_by_trials(clocks, name))
        .map(|name| (name, values(name)))
        .filter(|(_, values)| values.iter().any(|value| *value != values[0]))
        .map(|(name, values)| format!("{name} {}", values.join(" / ")))
        .collect();
    let labels = clocks.labels().join(" / ");
    (!apart.is_empty()).then(|| format!("sysctls apart ({labels}): {}", apart.join(", ")))
}

/// Whether an experiment sets it: then it says nothing about the kernels.
fn set_by_trials(clocks: &Clocks, name: &str) -> bool {
    let mut trials = clocks.runs.iter().flat_map(|run| &run.trials);
    trials.any(|trial| trial.experiment.parameters.sysctl.contains_key(name))
}

/// For programs: `halfopen/clocks/1`, the runs, and what came of each experiment.
pub fn document(clocks: &Clocks) -> Vec<u8> {
    let labels = clocks.labels();
    let rows: Vec<_> = clocks.rows().collect();
    json::pretty(&Document {
        schema: "halfopen/clocks/1",
        runs: clocks.runs.iter().map(json::document).collect(),
        compared: rows
            .iter()
            .map(|row| Compared {
                experiment: &row.name,
                likeness: row.likeness(),
                note: row.note(&labels),
            })
            .collect(),
    })
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    runs: Vec<json::RunDocument<'a>>,
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
    use crate::trial::Machine;

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
        Clocks { runs: vec![real, simulated] }
    }

    #[test]
    fn what_is_the_same_has_only_its_distance() {
        let clocks = clocks();
        let row = clocks.rows().next().unwrap();
        assert_eq!(row.likeness(), Likeness::Same);
        assert_eq!(row.cells()[5], "same, −13 ms");
        assert!(row.cells()[1].ends_with(", 3 keepalive probes"), "{:?}", row.cells());
        assert_eq!(row.note(&clocks.labels()), None);
    }

    #[test]
    fn other_counts_have_their_cause() {
        let mut clocks = clocks();
        let trial = &mut clocks.runs[1].trials[1];
        trial.verdict.measured.as_mut().unwrap().retransmits_on_wire = Some(63);
        let row = clocks.rows().nth(1).unwrap();
        assert_eq!(row.likeness(), Likeness::Explained);
        let note = row.note(&clocks.labels()).unwrap();
        assert!(note.contains("63 retransmissions") && note.contains("HZ 250 and 1000"), "{note}");
    }

    #[test]
    fn of_several_virtual_kernels_each_is_named() {
        let mut clocks = clocks();
        let mut older = clocks.runs[1].clone();
        older.machine.kernel = "6.1.200-halfopen".into();
        older.trials[0].verdict.measured.as_mut().unwrap().keepalive_probes_on_wire = Some(9);
        clocks.runs.push(older);
        let text = terminal(&clocks);
        assert!(text.contains("6.12, HZ 1000") && text.contains("6.1, HZ 1000"), "{text}");
        assert!(text.contains("6.1, HZ 1000 ETIMEDOUT after 9 keepalive probes"), "{text}");
    }

    #[test]
    fn a_trial_that_does_not_agree_leaves_it_open() {
        let mut clocks = clocks();
        clocks.runs[1].trials[0] = samples::skipped();
        let row = clocks.rows().next().unwrap();
        assert_eq!(row.likeness(), Likeness::Open);
        assert!(row.note(&clocks.labels()).unwrap().contains("skipped"));
        assert!(terminal(&clocks).contains("1 of 2 the same"), "{}", terminal(&clocks));
    }
}
