//! Verdicts as `JUnit` knows them, for continuous integration.
//!
//! A trial that agrees is a success, one that disagrees or does not meet a requirement a failure. An inconclusive one is an error:
//! it must be seen, and is no statement about the kernel. What this machine cannot do is skipped.
//!
//! All times are in the trials' own clock: a case's is that of its trial, a suite's the sum of its
//! cases', and the report's the sum of its suites'.

use crate::digest::Digest;
use crate::human::missing;
use crate::legal::legal;
use crate::summary::Group;
use crate::tally::{Run, Tally};
use crate::trial::{Machine, Status};
use maud::{Markup, html};
use std::io::{self, Write};
use std::time::Duration;

/// The report of one run or several: a suite for each experiment with its settings, a case for each
/// trial. `trials` gives those of a run's group, by their places.
///
/// # Errors
/// Those of `output` and of `trials`, which are read one by one.
pub fn report<T>(
    output: &mut dyn Write,
    runs: &[&Tally],
    mut trials: impl FnMut(usize, usize) -> T,
) -> io::Result<()>
where
    T: IntoIterator<Item = io::Result<Digest>>,
{
    let groups: Vec<_> = runs.iter().flat_map(|run| run.groups.all()).collect();
    write!(output, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"halfopen\"")?;
    let lost: Vec<_> =
        runs.iter().filter(|run| run.lost.is_some()).filter_map(|run| missing(run)).collect();
    writeln!(output, "{}>", counts(&groups, lost.len()))?;
    for (run, tally) in runs.iter().enumerate() {
        for (place, group) in tally.groups.all().iter().enumerate() {
            let name = html! { (legal(&tally.groups.name(group))) };
            writeln!(output, "<testsuite name=\"{}\"{}>", name.0, counts(&[group], 0))?;
            writeln!(output, "{}", properties(group).0)?;
            for digest in trials(run, place) {
                writeln!(output, "{}", case(&group.experiment.name, &digest?).0)?;
            }
            writeln!(output, "</testsuite>")?;
        }
    }
    for why in &lost {
        writeln!(output, "<testsuite name=\"lost trials\"{}>", counts(&[], 1))?;
        writeln!(output, "{}\n</testsuite>", lost_case(why).0)?;
    }
    writeln!(output, "</testsuites>")
}

/// The report of runs in memory.
pub fn reports(runs: &[Run]) -> Vec<u8> {
    let tallies: Vec<_> = runs.iter().map(Run::tally).collect();
    let groups: Vec<Vec<Vec<Digest>>> = runs.iter().map(digests).collect();
    let mut bytes = Vec::new();
    report(&mut bytes, &tallies.iter().collect::<Vec<_>>(), |run, group| {
        groups[run][group].iter().cloned().map(Ok).collect::<Vec<_>>()
    })
    .expect("a Vec takes all");
    bytes
}

/// The trials of each group.
fn digests(run: &Run) -> Vec<Vec<Digest>> {
    let mut groups = crate::Groups::default();
    let mut all = Vec::new();
    for (position, trial) in run.trials.iter().enumerate() {
        let digest = Digest::new(position, trial);
        let place = groups.add(&trial.experiment, &digest);
        all.resize_with(all.len().max(place + 1), Vec::new);
        all[place].push(digest);
    }
    all
}

/// How many cases there are, how they went, and how long they took.
/// `lost` is how many cases stand for trials that were lost.
fn counts(groups: &[&Group], lost: usize) -> String {
    let count = |of: &[Status]| -> usize {
        groups.iter().flat_map(|group| of.iter().map(|status| group.count(*status))).sum()
    };
    let took: Duration = groups.iter().map(|group| group.took()).sum();
    format!(
        " tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{}\"",
        count(&Status::ALL) + lost,
        count(&[Status::Disagrees, Status::Unmet]),
        count(&[Status::Inconclusive, Status::Failed]) + lost,
        count(&[Status::Skipped]),
        seconds(took)
    )
}

fn properties(group: &Group) -> Markup {
    let of_machines = |value: fn(&Machine) -> String| {
        let mut values: Vec<_> = group.machines().iter().map(value).collect();
        values.dedup();
        values.join(", ")
    };
    let of_the_run = [
        ("kernel", of_machines(|machine| machine.kernel.clone())),
        ("hz", of_machines(|machine| machine.hz.to_string())),
        ("clock", of_machines(|machine| machine.clock.to_string())),
        ("time", "seconds of the trials' clock, the sum of all trials".to_owned()),
    ];
    let of_the_run = of_the_run.map(|(name, value)| (name.to_owned(), value));
    html! {
        properties {
            @for (name, value) in
                of_the_run.into_iter().chain(spec::settings::all(&group.experiment.parameters)) {
                property name=(legal(&name)) value=(legal(&value)) {}
            }
        }
    }
}

fn case(experiment: &str, trial: &Digest) -> Markup {
    let reason = legal(&trial.reason);
    html! {
        testcase name={ "trial " (trial.number) } classname=(legal(experiment))
            time=(seconds(trial.took)) {
            @match trial.status {
                Status::Agrees => {}
                Status::Disagrees | Status::Unmet => {
                    failure type=(trial.status) message=(reason) {}
                }
                Status::Inconclusive | Status::Failed => {
                    error type=(trial.status) message=(reason) {}
                }
                Status::Skipped => skipped type=(trial.status) message=(reason) {},
            }
            system-out { (legal(&trial.told)) }
        }
    }
}

fn lost_case(why: &str) -> Markup {
    html! {
        testcase name="lost trials" classname="halfopen" time=(seconds(Duration::ZERO)) {
            error type="lost" message=(legal(why)) {}
        }
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use verdict::Word;

    #[test]
    fn each_status_has_its_place() {
        let mut run = samples::run();
        run.trials[1].verdict.word = Word::Inconclusive;
        run.trials[1].verdict.reason = "the machine was busy: 300 ms late & more".into();
        run.trials[2].failure = Some("writing \u{1b}[1mit\": no space".into());
        let text = String::from_utf8(reports(&[run])).unwrap();
        insta::assert_snapshot!(text.replace("><", ">\n<"));
    }

    #[test]
    fn lost_trials_are_an_error() {
        let lost = Some(crate::Lost { trials: 2, why: "the worker died".into() });
        let tally = Tally { lost, ..samples::run().tally() };
        let mut bytes = Vec::new();
        report(&mut bytes, &[&tally], |_, _| Vec::new()).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("message=\"2 trials lost: the worker died\""), "{text}");
        assert_eq!(text.matches("<error ").count(), 1);
    }

    /// In virtual time a trial takes longer than its run.
    #[test]
    fn no_case_takes_longer_than_its_suite() {
        let run = Run { wall_s: 0.1, ..samples::repeated() };
        let text = String::from_utf8(reports(&[run])).unwrap();
        let time = |line: &str| -> f64 {
            line.split("time=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
        };
        let of = |element: &str| -> Vec<f64> {
            text.lines().filter(|line| line.trim_start().starts_with(element)).map(time).collect()
        };
        let (whole, suites, cases) = (of("<testsuites "), of("<testsuite "), of("<testcase "));
        assert_eq!((suites.len(), cases.len()), (2, 6));
        assert!((suites.iter().sum::<f64>() - whole[0]).abs() < 0.01, "{text}");
        assert!((cases.iter().sum::<f64>() - whole[0]).abs() < 0.01, "{text}");
    }
}
