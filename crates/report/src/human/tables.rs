//! Tables: experiments, a summary of trials, a predicted schedule, and what the doctor found.

use crate::catalogue::by_fault;
use crate::human::paint::Paint;
use crate::mends;
use crate::summary::{Group, Groups, NOTHING_KNOWN};
use crate::tally::Tally;
use crate::trial::Status;
use crate::{span, words};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Row, Table};
use model::{Prediction, StepKind};
use serde::Serialize;
use spec::{Experiment, Outcome, Traffic, counted};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

/// The experiments and their questions: `halfopen list`.
pub fn list<'a>(experiments: impl IntoIterator<Item = &'a Experiment>, colour: bool) -> String {
    let groups = by_fault(experiments);
    let members = groups.iter().flat_map(|(_, members)| members);
    let widest = members.map(|experiment| experiment.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (index, (kind, members)) in groups.iter().enumerate() {
        let space = if index > 0 { "\n" } else { "" };
        let kind = Paint(colour).quiet(&format!("{kind} – {}", kind.about().replace('`', "")));
        writeln!(text, "{space}{kind}").expect("a String takes all");
        for experiment in members {
            let name = Paint(colour).strong(&format!("{:<widest$}", experiment.name));
            writeln!(text, "  {name}  {}", experiment.question).expect("a String takes all");
        }
    }
    text
}

/// What several trials came to, one line an experiment with the same settings.
pub fn summary(tally: &Tally, colour: bool) -> String {
    let columns = tally.groups.columns();
    let rest = ["verdict", "outcome", "predicted", "measured", "noticed"];
    let of_commands: &[_] = if tally.groups.have_commands() { &OF_COMMANDS } else { &[] };
    let heads = columns.iter().map(String::as_str).chain(rest).chain(of_commands.iter().copied());
    let mut table = table(std::iter::once("experiment").chain(heads));
    for (label, group) in tally.groups.labels().into_iter().zip(tally.groups.all()) {
        let mut row = vec![label];
        row.extend(Groups::values(group, &columns, NOTHING_KNOWN));
        row.extend(of_group(group));
        row.extend(group.of_commands().into_iter().take(of_commands.len()));
        table.add_row(row);
    }
    let paint = Paint(colour);
    let mut text = String::new();
    let mends = mends(&tally.groups);
    for line in table.lines().chain(mends.lines().map(str::to_owned)) {
        let line =
            Status::ALL.iter().rev().fold(line, |line, status| coloured(&line, *status, paint));
        text += line.trim_end();
        text.push('\n');
    }
    for group in tally.groups.all() {
        let name = tally.groups.name(group);
        for reason in group.reasons() {
            writeln!(text, "  {name} {reason}").expect("a String takes all");
        }
    }
    writeln!(
        text,
        "{} · {} · {}",
        tally.groups.counted(),
        tally.ran_on(),
        span::measured(tally.wall_s),
    )
    .expect("a String takes all");
    text
}

/// How long programs hang, and what mends them; empty where no experiment says so.
fn mends(groups: &Groups) -> String {
    let rows = mends::rows(groups);
    // What a terminal's lines have room for.
    let brief = |[program, hangs, ended_by, _, _, _, mend, then]: [String; 8]| {
        [program, hangs, ended_by, mend, then]
    };
    let mut shown = table(brief(mends::HEADS.map(str::to_owned)).iter().map(String::as_str));
    shown.add_rows(rows.iter().map(|row| brief(row.cells())));
    if rows.is_empty() { String::new() } else { shown.to_string() }
}

/// Further columns where programs are commands.
pub(crate) const OF_COMMANDS: [&str; 2] = ["ended by", "program"];

/// What a group's trials came to.
fn of_group(group: &Group) -> [String; 5] {
    let times = [group.predicted(), group.measured(), group.noticed()];
    let [predicted, measured, noticed] = times;
    [group.verdicts(), group.outcomes(), predicted, measured, noticed]
}

/// What several settings are predicted to come to with a kernel's HZ, one line each: `halfopen predict` of
/// a sweep.
pub fn predictions(points: &[(Experiment, u32, Prediction)], colour: bool) -> String {
    let settings = |(experiment, ..): &(Experiment, u32, Prediction)| {
        spec::settings::all(&experiment.parameters)
    };
    let all: Vec<_> = points.iter().map(settings).collect();
    let keys: BTreeSet<_> = all.iter().flat_map(|settings| settings.keys()).collect();
    let differs = |key: &&&String| all.iter().any(|other| other.get(**key) != all[0].get(**key));
    let varying: Vec<_> = keys.iter().filter(differs).collect();
    let heads = varying.iter().map(|key| key.as_str());
    let mut table = table(heads.chain(["outcome", "predicted"]));
    for ((.., prediction), settings) in points.iter().zip(&all) {
        let mut row: Vec<_> = varying
            .iter()
            .map(|key| settings.get(**key).map_or(NOTHING_KNOWN, String::as_str).to_owned())
            .collect();
        let outcomes = prediction.windows.iter().map(|window| window.outcome.to_string());
        let outcomes: BTreeSet<_> = outcomes.collect();
        row.push(outcomes.into_iter().collect::<Vec<_>>().join(", "));
        row.push(match (&prediction.unknown, prediction.hull()) {
            (Some(why), _) => format!("unknown: {why}"),
            (None, Some((earliest, latest))) => {
                format!("{}–{} s", seconds(earliest), seconds(latest))
            }
            (None, None) => "nothing".to_owned(),
        });
        table.add_row(row);
    }
    let name = points.first().map_or("", |(experiment, ..)| &experiment.name);
    let hz: BTreeSet<_> = points.iter().map(|(_, hz, _)| *hz).collect();
    let hz = hz.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let foot = format!("{name}, {}, HZ {hz}", counted(points.len(), "point"));
    trimmed(&table) + &Paint(colour).quiet(&foot) + "\n"
}

/// Which trials are missing, and why.
pub fn missing(tally: &Tally) -> Option<String> {
    let trials = |count: usize| match count {
        0 => "no trial".to_owned(),
        _ => counted(count, "trial"),
    };
    let idle = tally.not_started;
    match &tally.lost {
        Some(lost) if idle == 0 => Some(format!("{} lost: {}", trials(lost.trials), lost.why)),
        Some(lost) => {
            Some(format!("{} lost, {idle} not started: {}", trials(lost.trials), lost.why))
        }
        None => (idle > 0).then(|| format!("{} not started", trials(idle))),
    }
}

/// The schedule of a prediction: `halfopen predict`. The model's `table` has the threshold that
/// ends unacknowledged data.
pub fn predict(
    experiment: &Experiment,
    hz: u32,
    prediction: &Prediction,
    table: &model::table::Table,
    colour: bool,
) -> String {
    let paint = Paint(colour);
    let mut text = super::announce(experiment, colour);
    text += &super::predicted(&experiment.parameters, prediction, colour);
    if !prediction.schedule.is_empty() {
        let mut table = self::table(["n", "what", "timeout", "nominal", "earliest", "latest"]);
        for step in &prediction.schedule {
            let n = if step.kind == StepKind::GiveUp { String::new() } else { step.n.to_string() };
            let [timeout, earliest, latest] =
                [step.timeout, step.earliest, step.latest].map(seconds);
            // The sum of the timeouts says nothing once ICMP errors have armed timers anew.
            let nominal =
                if step.nominal > step.latest { "–".into() } else { seconds(step.nominal) };
            let held = if step.held { ", held" } else { "" };
            let mut row = Row::from([n, format!("{}{held}", words::step(step.kind))]);
            for time in [timeout, nominal, earliest, latest] {
                row.add_cell(time.into());
            }
            table.add_row(row);
        }
        for column in [0, 2, 3, 4, 5] {
            let column = table.column_mut(column).expect("there are six");
            column.set_cell_alignment(CellAlignment::Right);
        }
        text.push('\n');
        text += &trimmed(&table);
    }
    let after = words::after_reference(prediction.reference, &experiment.parameters);
    let mut foot = format!("HZ {hz}, times {after}");
    if prediction.windows.len() > 1 && !prediction.schedule.is_empty() {
        foot += ", steps of the first window";
    }
    if prediction.schedule.iter().any(|step| step.held) {
        foot += "\nheld: the timer fires, and the segment does not leave its host";
    }
    // Connecting, and what is closed, have thresholds of their own, which the sentence above names.
    let traffic = experiment.parameters.client.traffic;
    let own = match traffic {
        Traffic::Idle | Traffic::Connect | Traffic::Close => true,
        Traffic::Script => experiment.parameters.script().is_none_or(|script| !script.writes()),
        Traffic::OneWrite | Traffic::Stream | Traffic::Heartbeat | Traffic::Shutdown => false,
    };
    if !own && gives_up(prediction) {
        let of = if table.by_user_timeout { "the user timeout" } else { "tcp_retries2" };
        let threshold = seconds(table.threshold);
        write!(foot, "\nthreshold {threshold} s after the first retransmission, by {of}")
            .expect("a String takes all");
    }
    text + &paint.quiet(&foot) + "\n"
}

/// Whether the kernel may come to the end of its patience.
fn gives_up(prediction: &Prediction) -> bool {
    prediction.schedule.iter().any(|step| step.kind == StepKind::GiveUp)
        || prediction.windows.iter().any(|window| window.outcome == Outcome::TIMED_OUT)
}

/// One thing that the doctor looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What: `user namespaces`.
    pub name: String,
    /// Its state.
    pub state: CheckState,
    /// What was found.
    pub detail: String,
    /// What to do about it, if something is to be done.
    pub remedy: Option<String>,
}

/// The state of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckState {
    /// As it must be.
    Ok,
    /// Trials run, but with less evidence or fewer kinds.
    Warn,
    /// No trial runs without it.
    Missing,
}

/// What this machine can do: `halfopen doctor`.
pub fn doctor(checks: &[Check], colour: bool) -> String {
    let paint = Paint(colour);
    let widest = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for Check { name, state, detail, remedy } in checks {
        let word = match state {
            CheckState::Ok => paint.good("ok     "),
            CheckState::Warn => paint.warning("warn   "),
            CheckState::Missing => paint.bad("missing"),
        };
        writeln!(text, "{word}  {name:<widest$}  {detail}").expect("a String takes all");
        if let Some(remedy) = remedy {
            let indent = " ".repeat(9 + widest + 2);
            writeln!(text, "{indent}→ {remedy}").expect("a String takes all");
        }
    }
    text
}

pub(crate) fn table<'a>(heads: impl IntoIterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY.row_separator(comfy_table::LineStyle::none()));
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.force_no_tty();
    table.set_header(heads.into_iter().map(Cell::new));
    table
}

/// A table's lines, without the blanks at their ends.
pub(crate) fn trimmed(table: &Table) -> String {
    table.lines().fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

/// A status in its colour, where it stands as a word of its own.
fn coloured(line: &str, status: Status, paint: Paint) -> String {
    let text = status.to_string();
    let padded = |word: &str| format!(" {word}");
    line.replace(&padded(&text), &padded(&paint.status(status, &text)))
}

fn seconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use crate::tally::{Lost, Run};

    #[test]
    fn trials_of_the_same_settings_are_one_line() {
        insta::assert_snapshot!(summary(&samples::repeated().tally(), false));
    }

    #[test]
    fn what_is_missing_is_one_sentence() {
        let lost = Some(Lost { trials: 1, why: "the sandbox ended early".into() });
        let tally = Tally { lost, not_started: 20, ..samples::run().tally() };
        let said = missing(&tally).unwrap();
        assert_eq!(said, "1 trial lost, 20 not started: the sandbox ended early");
        assert_eq!(missing(&samples::run().tally()), None);
    }

    #[test]
    fn a_program_that_gave_up_by_itself_is_not_lost_in_the_summary() {
        let run = Run { trials: vec![samples::heartbeat()], ..samples::run() };
        assert!(summary(&run.tally(), false).contains("gave up 1.001 s"));
    }

    #[test]
    fn a_word_within_a_word_keeps_its_colour_to_itself() {
        let text = summary(&samples::run().tally(), true);
        assert!(text.contains("\u{1b}[1m\u{1b}[31mdisagrees"), "{text:?}");
        assert!(!text.contains("dis\u{1b}"), "{text:?}");
    }

    #[test]
    fn experiments_are_listed_with_their_questions() {
        let run = samples::run();
        insta::assert_snapshot!(list(run.trials.iter().map(|trial| &trial.experiment), false));
    }

    #[test]
    fn a_schedule_is_a_table() {
        let trial = samples::sending();
        let prediction = trial.prediction.unwrap();
        let table = model::table(&prediction, &trial.experiment.parameters, &trial.facts.unwrap());
        insta::assert_snapshot!(predict(&trial.experiment, 250, &prediction, &table, false));
    }

    #[test]
    fn the_doctor_has_a_remedy_for_each_lack() {
        let check = |name: &str, state, detail: &str, remedy: Option<&str>| Check {
            name: name.into(),
            state,
            detail: detail.into(),
            remedy: remedy.map(Into::into),
        };
        let checks = [
            check("kernel", CheckState::Ok, "6.18.44, HZ 250", None),
            check("user namespaces", CheckState::Ok, "allowed", None),
            check(
                "tracepoints",
                CheckState::Warn,
                "perf_event_paranoid is 2: socket diagnostics tell instead, to 1 ms",
                Some("run as root"),
            ),
            check("veth", CheckState::Missing, "the kernel has no veth", Some("modprobe veth")),
        ];
        insta::assert_snapshot!(doctor(&checks, false));
    }
}
