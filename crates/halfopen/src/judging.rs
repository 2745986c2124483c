//! From what was recorded about a trial, and how it ended, to its verdict.

use crate::channel::Ending;
use crate::output::Exit;
use model::Prediction;
use report::{Status, Trial};
use spec::{Facts, Parameters};
use timeline::Timeline;
use verdict::{Verdict, Word};

/// The verdict on a trial that ended like this.
pub(crate) fn verdict(
    ending: &Ending,
    parameters: &Parameters,
    facts: Option<&Facts>,
    prediction: Option<&Prediction>,
    timeline: &Timeline,
) -> Verdict {
    let without = Verdict::without_measurement;
    match (ending, facts, prediction) {
        (Ending::Skipped(why), ..) => without(Word::Skipped, why.clone()),
        (Ending::Failed(why) | Ending::Refused(why), ..) => {
            without(Word::Inconclusive, format!("the trial failed: {why}"))
        }
        (Ending::Disturbed(why), ..) => without(Word::Inconclusive, why.clone()),
        (Ending::Complete | Ending::Interrupted, Some(facts), Some(prediction)) => {
            let mut verdict = verdict::judge(parameters, facts, prediction, timeline);
            let ended = verdict.measured.as_ref().is_some_and(|m| m.detected_s.is_some());
            // What had ended before the interruption stands; what had not may have yet.
            if *ending == Ending::Interrupted && !(ended && verdict.word == Word::Agrees) {
                verdict.word = Word::Inconclusive;
                verdict.reason = INTERRUPTED.into();
            }
            verdict
        }
        (Ending::Interrupted, ..) => without(Word::Inconclusive, INTERRUPTED.into()),
        (Ending::Complete, ..) => {
            without(Word::Inconclusive, "the trial left no facts or prediction".into())
        }
    }
}

const INTERRUPTED: &str = "interrupted (Ctrl-C)";

/// What went wrong in halfopen, if a trial ended for that.
pub(crate) fn failure(ending: &Ending) -> Option<String> {
    match ending {
        Ending::Failed(why) => Some(format!("the trial failed: {why}")),
        _ => None,
    }
}

/// The exit code of a trial.
pub(crate) fn exit(ending: &Ending, trial: &Trial) -> Exit {
    match (ending, trial.status()) {
        (Ending::Refused(_), _) => Exit::USAGE,
        (_, Status::Failed) => Exit::INTERNAL,
        _ => Exit::of(trial.verdict.word),
    }
}
