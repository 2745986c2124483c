//! What a person sees on a terminal.
//!
//! Every text ends with a newline. Colour is an argument; the escape codes are those of ANSI.

mod live;
pub(crate) mod paint;
mod row;
mod tables;

use crate::span::{self, Digits};
use crate::trial::Trial;
use crate::words;
use model::Prediction;
use paint::Paint;
use spec::{Experiment, Outcome, Parameters};
use std::fmt::Write;
use timeline::event::Phase;
use timeline::{Source, What};
use verdict::findings::Standing;
use verdict::{FlowVerdict, Measured, Requirement, Word};

pub use live::Live;
pub use tables::{Check, CheckState, doctor, list, missing, predict, predictions, summary};
pub(crate) use tables::{OF_COMMANDS, table, trimmed};

/// Before a trial: its question, and what is about to happen.
pub fn announce(experiment: &Experiment, colour: bool) -> String {
    let paint = Paint(colour);
    let mut text = paint.strong(&experiment.name) + "\n";
    line(&mut text, paint, "", &experiment.question);
    line(&mut text, paint, "setting", &words::setting(&experiment.parameters));
    line(&mut text, paint, "then", &words::stimulus(&experiment.parameters));
    text
}

/// As soon as the prediction is written down, still before the fault.
pub fn predicted(parameters: &Parameters, prediction: &Prediction, colour: bool) -> String {
    let paint = Paint(colour);
    let mut text = String::new();
    let reference = words::after_reference(prediction.reference, parameters);
    if let Some(unknown) = &prediction.unknown {
        line(&mut text, paint, "predicted", &format!("no outcome: {unknown}"));
    }
    for (index, window) in prediction.windows.iter().enumerate() {
        let label = if index == 0 { "predicted" } else { "or" };
        let after = if window.span.is_some() { format!(" {reference}") } else { String::new() };
        let counts =
            words::counts(window.retransmits, window.keepalive_probes, window.window_probes);
        let counts = if counts.is_empty() { counts } else { format!(", {counts}") };
        // Nothing ends such a trial but its deadline.
        let until = parameters.deadline.filter(|_| window.outcome == Outcome::None);
        let until = until.map_or_else(String::new, |deadline| {
            format!(" (the trial ends {} after the fault)", span::exact(deadline))
        });
        let what = parameters.named(&words::window(window));
        line(&mut text, paint, label, &format!("{what}{after}{counts}{until}"));
    }
    if let Some(deadline) = words::deadline_before(parameters, prediction) {
        line(&mut text, paint, "deadline", &deadline);
    }
    let choice = words::choice(parameters, prediction);
    if prediction.unknown.as_ref() != Some(&prediction.why) {
        let first = if choice.is_some() { "the first: " } else { "" };
        line(&mut text, paint, "because", &format!("{first}{}", prediction.why));
    }
    if let Some(choice) = choice {
        line(&mut text, paint, "open", &choice);
    }
    if let Some(width) = words::width(prediction) {
        line(&mut text, paint, "width", &width);
    }
    text
}

/// After a trial: the verdict in one line, the reason if there must be one, the proof of the
/// fault, and where the evidence lies.
pub fn verdict(trial: &Trial, colour: bool) -> String {
    let paint = Paint(colour);
    let (verdict, status) = (&trial.verdict, trial.status());
    let word = paint.status(status, &format!("{:<12}", status.to_string()));
    let mut text = match &trial.failure {
        // Something was measured all the same.
        Some(failure) if verdict.measured.is_some() => {
            let mut text = format!("{word}  {failure}\n");
            line(&mut text, paint, "verdict", &format!("{}: {}", verdict.word, compared(trial)));
            text
        }
        Some(failure) => format!("{word}  {failure}\n"),
        None => format!("{word}  {}\n", compared(trial)),
    };
    if verdict.word != Word::Agrees && !verdict.reason.is_empty() && verdict.measured.is_some() {
        let reason = words::by_name(&trial.experiment.parameters, &verdict.reason);
        line(&mut text, paint, "reason", &reason);
    }
    commands(&mut text, paint, trial);
    for requirement in &verdict.requirements {
        let mark = if requirement.met { paint.good("✓") } else { paint.bad("✗") };
        let Requirement { key, wanted, found, .. } = requirement;
        line(&mut text, paint, "required", &format!("{mark} {key} = {wanted}: {found}"));
    }
    for evidence in &verdict.proof.evidence {
        let mark = if evidence.holds { paint.good("✓") } else { paint.bad("✗") };
        let label = paint.quiet(&format!("{:>10}", "proof"));
        let finding = words::by_name(&trial.experiment.parameters, &evidence.finding);
        writeln!(text, "{label}  {mark} {finding}").expect("a String takes all");
    }
    if let Some(artifacts) = &trial.artifacts {
        line(&mut text, paint, "evidence", artifacts);
    }
    text
}

/// What ended each connection of commands, and how the client's program ended.
fn commands(text: &mut String, paint: Paint, trial: &Trial) {
    let flows = &trial.verdict.flows;
    for flow in flows {
        let number = if flows.len() > 1 { format!("flow {}, ", flow.id.0) } else { String::new() };
        let owner = flow.owner.as_ref().map_or("a process", |owner| owner.process.as_str());
        let ended = match (flow.ended_by, flow.ended_s) {
            (Some(by), Some(at)) => {
                format!("ended by {}, {} after the fault", by.name(), span::measured(at))
            }
            _ if flow.facts.is_none() => flow.reason.clone(),
            _ => "lives".into(),
        };
        let hosts = between(trial, flow, ", ");
        let what = format!("{number}{hosts}{} to {} ({owner}): {ended}", flow.local, flow.remote);
        line(text, paint, "connection", &what);
    }
    for told in trial.told_through_proxy() {
        line(text, paint, "told", &told);
    }
    let exited = exited(trial);
    let survivor = trial.experiment.parameters.asked();
    if let Some(((at_ns, code, signal), fault_at)) = exited.zip(trial.timeline.fault_at()) {
        let how = match (code, signal) {
            (None, Some(signal)) => format!("was ended by {}", spec::command::signal_name(signal)),
            (code, _) => format!("ended with exit code {}", code.unwrap_or_default()),
        };
        let seconds = (at_ns as f64 - fault_at as f64) / 1e9;
        let when = if seconds < 0.0 {
            "before the fault".into()
        } else {
            format!("{} after the fault", span::measured(seconds))
        };
        line(text, paint, survivor, &format!("{how}, {when}"));
    }
}

/// When the client's program ended, and with what exit code or signal.
fn exited(trial: &Trial) -> Option<(u64, Option<i32>, Option<i32>)> {
    let parameters = &trial.experiment.parameters;
    let program = Source::program(parameters.part(parameters.asked()));
    trial.timeline.events().iter().find_map(|event| match event.what {
        What::Exited { code, signal } if event.source == program => {
            Some((event.at_ns, code, signal))
        }
        _ => None,
    })
}

/// What the client's program did in the end, where it is a command: `exit 1`.
pub(crate) fn program_end(trial: &Trial) -> Option<String> {
    if !trial.experiment.parameters.runs_command() {
        return None;
    }
    Some(match exited(trial) {
        None => "goes on".into(),
        Some((_, None, Some(signal))) => spec::command::signal_name(signal),
        Some((_, code, _)) => format!("exit {}", code.unwrap_or_default()),
    })
}

/// A claim and its finding: who says what, how that stands, and what happens.
pub(crate) fn claim(id: &str, standing: Standing, says: &str, found: &str, colour: bool) -> String {
    let paint = Paint(colour);
    let word = format!("{:<22}", standing.to_string());
    let word = match standing {
        Standing::Holds => paint.good(&word),
        Standing::HoldsWithACondition => paint.warning(&word),
        Standing::DoesNotHold => paint.bad(&word),
        Standing::NotTested => paint.quiet(&word),
    };
    let mut text = format!("{}  {word}  {says}\n", paint.strong(id));
    for line in wrapped(found, WIDTH) {
        writeln!(text, "    {line}").expect("a String takes all");
    }
    text
}

/// A finding's table, below its text.
pub(crate) fn figures(table: &verdict::findings::Table) -> String {
    let mut shown = tables::table(table.head.iter().map(String::as_str));
    shown.add_rows(&table.rows);
    let mut text = String::new();
    for line in shown.lines() {
        writeln!(text, "    {}", line.trim_end()).expect("a String takes all");
    }
    text
}

/// How wide running text is.
const WIDTH: usize = 96;

/// `text` in lines, broken between words.
fn wrapped(text: &str, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= most => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// With a proxy, the two hosts that a connection joins.
fn between(trial: &Trial, flow: &FlowVerdict, end: &str) -> String {
    if trial.experiment.parameters.third_there() {
        flow.leg.hosts().join("–") + end
    } else {
        String::new()
    }
}

/// Measured, predicted, and the difference; with a proxy, of which connection.
pub(crate) fn compared(trial: &Trial) -> String {
    let Some(measured) = &trial.verdict.measured else { return trial.verdict.reason.clone() };
    let windows = trial.prediction.iter().flat_map(|prediction| &prediction.windows);
    let digits = words::digits(windows, measured.detected_s.as_slice());
    let deciding = trial.verdict.deciding();
    let mut text = deciding.map_or_else(String::new, |flow| between(trial, flow, ": "));
    text.push_str(&told(trial, measured, digits));
    if let Some(prediction) = &trial.prediction {
        let windows: Vec<_> = words::windows(prediction, measured.outcome, digits);
        write!(text, "; predicted {}", windows.join(" or ")).expect("a String takes all");
        if let Some(difference) = difference(prediction, measured) {
            write!(text, " ({difference})").expect("a String takes all");
        }
    }
    if let (Some(detected), Some(noticed)) = (measured.detected_s, measured.noticed_s) {
        let later = noticed - detected;
        if later > 0.0 {
            let later = span::measured(later);
            write!(text, "; the program saw it {later} later").expect("a String takes all");
        }
    }
    text
}

/// What the client was told. A program that did not wait to be told gave up by its own timer.
fn told(trial: &Trial, measured: &Measured, digits: Digits) -> String {
    let parameters = trial.seen_parameters();
    let after = words::after_reference(measured.reference, &parameters);
    let Some(detected) = measured.detected_s else {
        let watched = watched_s(trial).map_or_else(String::new, |seconds| {
            format!(" within {} of the fault", span::measured(seconds))
        });
        let state = &measured.client_state;
        return match measured.noticed_s {
            Some(noticed) => format!(
                "the program gave up {} {after}; the kernel told nothing{watched}, still {state}",
                span::measured(noticed)
            ),
            None => format!("nothing told{watched}, still {state}"),
        };
    };
    let outcome = match measured.outcome {
        Outcome::None => "nothing".to_owned(),
        outcome => outcome.to_string(),
    };
    format!("{outcome} {} {after}", span::measured_to(detected, digits))
}

/// How long the trial waited after the fault.
fn watched_s(trial: &Trial) -> Option<f64> {
    let fault = trial.timeline.fault_at()?;
    let end = trial.timeline.phase_at(Phase::Aftermath)?;
    Some(end.checked_sub(fault)? as f64 / 1e9)
}

/// Where the measured time lies in the window of the same outcome that it is nearest to.
fn difference(prediction: &Prediction, measured: &Measured) -> Option<String> {
    let detected = measured.detected_s?;
    let beside =
        |(earliest, latest): (f64, f64)| (earliest - detected).max(detected - latest).max(0.0);
    let (earliest, latest) = prediction
        .windows
        .iter()
        .filter(|window| window.outcome == measured.outcome)
        .filter_map(|window| window.span)
        .map(|(earliest, latest)| (earliest.as_secs_f64(), latest.as_secs_f64()))
        .min_by(|a, b| beside(*a).total_cmp(&beside(*b)))?;
    Some(if detected > latest {
        offset(detected - latest, "latest")
    } else {
        offset(detected - earliest, "earliest")
    })
}

/// How far from a predicted time, seconds.
fn offset(seconds: f64, which: &str) -> String {
    let way = if seconds < 0.0 { "before" } else { "after" };
    format!("{} {way} the {which} predicted time", span::measured(seconds.abs()))
}

/// One labelled line.
fn line(text: &mut String, paint: Paint, label: &str, what: &str) {
    writeln!(text, "{}  {what}", self::label(label, paint.0)).expect("a String takes all");
}

/// What stands before a line and says what it is.
pub(crate) fn label(label: &str, colour: bool) -> String {
    Paint(colour).quiet(&format!("{label:>10}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use std::time::Duration;
    use verdict::Evidence;

    fn whole(trial: &Trial) -> String {
        let parameters = &trial.experiment.parameters;
        let prediction =
            trial.prediction.as_ref().map_or_else(String::new, |p| predicted(parameters, p, false));
        format!("{}{prediction}\n{}", announce(&trial.experiment, false), verdict(trial, false))
    }

    #[test]
    fn a_trial_is_told_before_and_after() {
        let trials = samples::run().trials;
        let texts: Vec<_> = trials.iter().map(whole).collect();
        insta::assert_snapshot!(texts.join("\n"));
    }

    #[test]
    fn what_decides_between_windows_is_said() {
        let trial = samples::sending();
        let mut parameters = trial.experiment.parameters;
        let mut prediction = trial.prediction.unwrap();
        let mut said = |change: fn(&mut Parameters, &mut Prediction)| {
            change(&mut parameters, &mut prediction);
            predicted(&parameters, &prediction, false)
        };
        let texts = [
            said(|_, prediction| {
                let mut other = prediction.windows[0].clone();
                other.span = Some([26_000, 26_300].map(Duration::from_millis).into());
                other.retransmits = Some(7);
                prediction.windows.push(other);
            }),
            said(|parameters, prediction| {
                parameters.neighbour = spec::Neighbour::Learned;
                prediction.windows[1].outcome = Outcome::Errno(spec::Errno::EHOSTUNREACH);
            }),
        ];
        insta::assert_snapshot!(texts.join("\n"));
    }

    #[test]
    fn a_client_that_was_told_nothing() {
        let mut trial = samples::keepalive();
        let measured = trial.verdict.measured.as_mut().unwrap();
        (measured.outcome, measured.detected_s, measured.noticed_s) = (Outcome::None, None, None);
        measured.client_state = "ESTABLISHED".into();
        let window = &mut trial.prediction.as_mut().unwrap().windows[0];
        (window.outcome, window.span) = (Outcome::None, None);
        trial.verdict.proof.evidence =
            vec![Evidence { finding: "a FIN came from the server".into(), holds: false }];
        insta::assert_snapshot!(whole(&trial));
    }

    #[test]
    fn a_program_that_did_not_wait_to_be_told() {
        let trial = samples::heartbeat();
        insta::assert_snapshot!(verdict(&trial, false));
    }

    #[test]
    fn what_could_not_be_written_failed_and_was_judged() {
        let mut trial = samples::keepalive();
        trial.failure = Some("writing timeline.jsonl: no space left".into());
        let text = verdict(&trial, false);
        assert!(text.starts_with("failed        writing timeline.jsonl"), "{text}");
        assert!(text.contains("verdict  agrees: ETIMEDOUT 8.111 s"), "{text}");
    }

    #[test]
    fn a_measured_time_can_be_compared_with_its_window_after_hours_too() {
        let mut trial = samples::keepalive();
        let window = &mut trial.prediction.as_mut().unwrap().windows[0];
        window.span = Some([7_928_796, 7_928_807].map(Duration::from_millis).into());
        trial.verdict.measured.as_mut().unwrap().detected_s = Some(7_928.798);
        let text = compared(&trial);
        let expected = "ETIMEDOUT 2 h 12 min 8.798 s after the last segment received; \
             predicted 2 h 12 min 8.796 s – 2 h 12 min 8.807 s (2.0 ms after the earliest predicted time)";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn colour_is_an_argument() {
        let trial = samples::keepalive();
        assert!(!verdict(&trial, false).contains('\u{1b}'));
        assert!(verdict(&trial, true).contains("\u{1b}["));
    }
}
