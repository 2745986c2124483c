//! Verdicts as `JUnit` knows them, for continuous integration.
//!
//! A trial that agrees is a success, one that disagrees a failure. An inconclusive one is an error:
//! it must be seen, and is no statement about the kernel. What this machine cannot do is skipped.

use crate::human;
use crate::summary::groups;
use crate::trial::{Run, Trial};
use quick_junit::{NonSuccessKind, Report, SerializeError, TestCase, TestCaseStatus, TestSuite};
use std::time::Duration;
use verdict::Word;

/// The report of a run: a suite for each experiment with its settings, a case for each trial.
///
/// # Errors
/// Never for what this crate writes; the serializer's error otherwise.
pub fn report(run: &Run) -> Result<Vec<u8>, SerializeError> {
    reports(std::slice::from_ref(run))
}

/// The same for several runs in one report.
///
/// # Errors
/// Never for what this crate writes; the serializer's error otherwise.
pub fn reports(runs: &[Run]) -> Result<Vec<u8>, SerializeError> {
    let mut report = Report::new("halfopen");
    let wall_s = runs.iter().map(|run| run.wall_s).sum();
    report.set_time(Duration::try_from_secs_f64(wall_s).unwrap_or_default());
    for (run, group) in
        runs.iter().flat_map(|run| groups(&run.trials).into_iter().map(move |group| (run, group)))
    {
        let mut suite = TestSuite::new(group.name());
        suite.add_property(("kernel", run.kernel.as_str()));
        suite.add_property(("hz", run.hz.to_string().as_str()));
        suite.add_property(("clock", run.clock.to_string().as_str()));
        for (key, value) in spec::settings::all(&group.trials()[0].experiment.parameters) {
            suite.add_property((key.as_str(), value.as_str()));
        }
        suite.add_test_cases(group.trials().iter().map(|trial| case(trial)));
        report.add_test_suite(suite);
    }
    let mut bytes = Vec::new();
    report.serialize(&mut bytes)?;
    Ok(bytes)
}

fn case(trial: &Trial) -> TestCase {
    let name = format!("trial {}", trial.shown_number());
    let mut case = TestCase::new(name, status(trial));
    case.set_classname(trial.experiment.name.as_str());
    if let [first, .., last] = trial.timeline.events() {
        case.set_time(Duration::from_nanos(last.at_ns - first.at_ns));
    }
    case.set_system_out(human::verdict(trial, false));
    case
}

fn status(trial: &Trial) -> TestCaseStatus {
    let mut status = match trial.verdict.word {
        Word::Agrees => return TestCaseStatus::success(),
        Word::Disagrees => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Word::Inconclusive => TestCaseStatus::non_success(NonSuccessKind::Error),
        Word::Skipped => TestCaseStatus::skipped(),
    };
    status.set_type(trial.verdict.word.to_string());
    status.set_message(trial.verdict.reason.as_str());
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn each_word_has_its_place() {
        let mut run = samples::run();
        run.trials[1].verdict.word = Word::Inconclusive;
        run.trials[1].verdict.reason = "the machine was busy: 300 ms late & more".into();
        insta::assert_snapshot!(String::from_utf8(report(&run).unwrap()).unwrap());
    }
}
