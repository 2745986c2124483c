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
    let mut verdict = if parameters.predicts_anew() {
        of_connections(ending, parameters, timeline)
    } else {
        of_own(ending, parameters, facts, prediction, timeline)
    };
    let has_run = matches!(ending, Ending::Complete | Ending::Interrupted | Ending::Disturbed(_));
    // What was never put to the test is neither met nor not met.
    if has_run && timeline.fault_at().is_some() {
        verdict.requirements = verdict::require(parameters, &verdict, timeline);
    }
    verdict
}

/// Where each connection is judged by itself.
fn of_connections(ending: &Ending, parameters: &Parameters, timeline: &Timeline) -> Verdict {
    let mut verdict = verdict::judge_programs(parameters, timeline);
    let interrupted =
        || (*ending == Ending::Interrupted).then(|| (Word::Inconclusive, INTERRUPTED.to_owned()));
    if let Some((word, reason)) = cut_short(ending).or_else(interrupted) {
        (verdict.word, verdict.reason) = (word, reason);
    }
    verdict
}

/// Where the programs are known.
fn of_own(
    ending: &Ending,
    parameters: &Parameters,
    facts: Option<&Facts>,
    prediction: Option<&Prediction>,
    timeline: &Timeline,
) -> Verdict {
    if let Some((word, reason)) = cut_short(ending) {
        return Verdict::without_measurement(word, reason);
    }
    let interrupted = *ending == Ending::Interrupted;
    let (Some(facts), Some(prediction)) = (facts, prediction) else {
        let why = "the trial left no facts or prediction";
        let why = if interrupted { INTERRUPTED } else { why };
        return Verdict::without_measurement(Word::Inconclusive, why);
    };
    let mut verdict = verdict::judge(parameters, facts, prediction, timeline);
    let ended = verdict.measured.as_ref().is_some_and(|m| m.detected_s.is_some());
    // What had ended before the interruption stands; what had not may have yet.
    if interrupted && !(ended && verdict.word == Word::Agrees) {
        (verdict.word, verdict.reason) = (Word::Inconclusive, INTERRUPTED.into());
    }
    verdict
}

/// The verdict on a trial that has not come to its end, whatever was measured.
fn cut_short(ending: &Ending) -> Option<(Word, String)> {
    match ending {
        Ending::Complete | Ending::Interrupted => None,
        Ending::Skipped(why) => Some((Word::Skipped, why.clone())),
        Ending::Failed(why) | Ending::Refused(why) => {
            Some((Word::Inconclusive, format!("the trial failed: {why}")))
        }
        Ending::Disturbed(why) => Some((Word::Inconclusive, why.clone())),
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
        (_, Status::Unmet) => Exit::UNMET,
        _ => Exit::of(trial.verdict.word),
    }
}
