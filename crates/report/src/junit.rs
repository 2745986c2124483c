//! Verdicts as `JUnit` knows them, for continuous integration.
//!
//! A trial that agrees is a success, one that disagrees or does not meet a requirement a failure. An inconclusive one is an error:
//! it must be seen, and is no statement about the kernel. What this machine cannot do is skipped.
//!
//! All times are in the trials' own clock: a case's is that of its trial, a suite's the sum of its
//! cases', and the report's the sum of its suites'.

use crate::digest::Digest;
use crate::escape::escaped;
use crate::summary::Group;
use crate::tally::{Run, Tally};
use crate::trial::Status;
use std::fmt::Write as _;
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
    writeln!(output, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
    writeln!(output, "<testsuites name=\"halfopen\"{}>", counts(&groups))?;
    for (run, tally) in runs.iter().enumerate() {
        for (place, group) in tally.groups.all().iter().enumerate() {
            begin_suite(output, tally, group)?;
            for digest in trials(run, place) {
                output.write_all(case(&group.experiment.name, &digest?).as_bytes())?;
            }
            writeln!(output, "  </testsuite>")?;
        }
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
fn counts(groups: &[&Group]) -> String {
    let count = |of: &[Status]| -> usize {
        groups.iter().flat_map(|group| of.iter().map(|status| group.count(*status))).sum()
    };
    let took: Duration = groups.iter().map(|group| group.took()).sum();
    format!(
        " tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{}\"",
        count(&Status::ALL),
        count(&[Status::Disagrees, Status::Unmet]),
        count(&[Status::Inconclusive, Status::Failed]),
        count(&[Status::Skipped]),
        seconds(took)
    )
}

fn begin_suite(output: &mut dyn Write, tally: &Tally, group: &Group) -> io::Result<()> {
    let name = escaped(&tally.groups.name(group));
    writeln!(output, "  <testsuite name=\"{name}\"{}>", counts(&[group]))?;
    writeln!(output, "    <properties>")?;
    let mut property = |name: &str, value: &str| {
        let (name, value) = (escaped(name), escaped(value));
        writeln!(output, "      <property name=\"{name}\" value=\"{value}\"/>")
    };
    property("kernel", &tally.machine.kernel)?;
    property("hz", &tally.machine.hz.to_string())?;
    property("clock", &tally.machine.clock.to_string())?;
    property("time", "seconds of the trials' clock, the sum of all trials")?;
    for (key, value) in spec::settings::all(&group.experiment.parameters) {
        property(&key, &value)?;
    }
    writeln!(output, "    </properties>")
}

fn case(experiment: &str, trial: &Digest) -> String {
    let mut case = format!(
        "    <testcase name=\"trial {}\" classname=\"{}\" time=\"{}\">\n",
        trial.number,
        escaped(experiment),
        seconds(trial.took)
    );
    let element = match trial.status {
        Status::Agrees => None,
        Status::Disagrees | Status::Unmet => Some("failure"),
        Status::Inconclusive | Status::Failed => Some("error"),
        Status::Skipped => Some("skipped"),
    };
    if let Some(element) = element {
        let (status, reason) = (trial.status, escaped(&trial.reason));
        writeln!(case, "      <{element} type=\"{status}\" message=\"{reason}\"/>")
            .expect("a String takes all");
    }
    let told = escaped(&trial.told);
    write!(case, "      <system-out>{told}</system-out>\n    </testcase>\n")
        .expect("a String takes all");
    case
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
        insta::assert_snapshot!(String::from_utf8(reports(&[run])).unwrap());
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
