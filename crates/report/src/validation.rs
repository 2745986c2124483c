//! A validation: the model held against a kernel on many settings, several times each.

use crate::counts::Counts;
use crate::json;
use crate::markdown::cell;
use crate::span;
use crate::tally::Run;
use crate::trial::{Status, Trial};
use crate::words;
use model::Window;
use model::width::Cause;
use serde::Serialize;
use spec::Outcome;
use std::collections::BTreeMap;
use std::fmt::Write;
use verdict::Word;
use verdict::timers::{Comparison, Uncompared, compare, compare_flow};

/// Settings, and the run that tried them.
#[derive(Debug, Clone, PartialEq)]
pub struct Validation {
    /// The command that made it, as a person would type it.
    pub command: String,
    /// When it was made.
    pub date: String,
    /// The trials.
    pub run: Run,
    /// What was tried, in order.
    pub settings: Vec<Case>,
}

/// One experiment with settings of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The part of the model that it is about.
    pub part: String,
    /// The experiment.
    pub experiment: String,
    /// What was set beside the experiment's own settings.
    pub set: String,
    /// The places of its trials in the run, from 0.
    pub trials: Vec<usize>,
}

/// What one trial came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Row {
    verdict: Word,
    reason: String,
    outcome: Option<Outcome>,
    detected_s: Option<f64>,
    /// The window that it lies in, or the first.
    earliest_s: Option<f64>,
    latest_s: Option<f64>,
    /// What makes that as wide as it is, seconds by cause.
    width_s: BTreeMap<String, f64>,
    retransmits: Option<u32>,
    keepalive_probes: Option<u32>,
    window_probes: Option<u32>,
    timers_armed: u32,
    timers_fired: u32,
    timers_unknown: u32,
    /// Why those were not compared.
    timers_uncompared: BTreeMap<Uncompared, u32>,
    timer_differences: Vec<String>,
    timer_differences_gross: u32,
}

impl Validation {
    fn trials<'a>(&'a self, setting: &'a Case) -> impl Iterator<Item = &'a Trial> {
        setting.trials.iter().filter_map(|place| self.run.trials.get(*place))
    }

    fn rows(&self, setting: &Case) -> Vec<Row> {
        self.trials(setting).map(row).collect()
    }
}

/// Whether a timer fired far from where the model has it, or did not.
pub fn is_gross(validation: &Validation) -> bool {
    totals(&table(validation)).timer_differences_gross > 0
}

fn row(trial: &Trial) -> Row {
    let measured = trial.verdict.measured.as_ref();
    let prediction = trial.prediction.as_ref();
    let window = prediction.zip(measured).and_then(|(prediction, measured)| {
        let fits = |window: &&Window| {
            window.outcome == measured.outcome
                && window.span.zip(measured.detected_s).is_none_or(|((_, latest), detected)| {
                    detected - measured.resolution_s <= latest.as_secs_f64()
                })
        };
        prediction.windows.iter().find(fits).or(prediction.windows.first())
    });
    let parameters = &trial.experiment.parameters;
    let compared = match (trial.facts.as_ref(), prediction, measured, trial.verdict.deciding()) {
        (.., Some(flow)) => compare_flow(parameters, flow, &trial.timeline),
        (Some(facts), Some(prediction), Some(measured), None) => {
            compare(parameters, facts, prediction, measured, &trial.timeline)
        }
        _ => Comparison::default(),
    };
    let span = window.and_then(|window| window.span);
    Row {
        verdict: trial.verdict.word,
        reason: trial.verdict.reason.clone(),
        outcome: measured.map(|m| m.outcome),
        detected_s: measured.and_then(|m| m.detected_s),
        earliest_s: span.map(|(earliest, _)| earliest.as_secs_f64()),
        latest_s: span.map(|(_, latest)| latest.as_secs_f64()),
        width_s: window
            .map(|window| json::width(window, |by| by.as_secs_f64()))
            .unwrap_or_default(),
        retransmits: measured.and_then(|m| m.retransmits_on_wire),
        keepalive_probes: measured.and_then(|m| m.keepalive_probes_on_wire),
        window_probes: measured.and_then(|m| m.window_probes_on_wire),
        timers_armed: compared.armed,
        timers_fired: compared.fired,
        timers_unknown: compared.unknown(),
        timers_uncompared: compared.uncompared,
        timer_differences: compared.differences,
        timer_differences_gross: compared.gross,
    }
}

/// What all rows come to.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Totals {
    settings: usize,
    trials: usize,
    agree: usize,
    disagree: usize,
    inconclusive: usize,
    skipped: usize,
    timers_armed: u32,
    timers_fired: u32,
    timers_unknown: u32,
    timers_uncompared: BTreeMap<Uncompared, u32>,
    timer_differences: usize,
    timer_differences_gross: u32,
}

fn totals(table: &[(&Case, Vec<Row>)]) -> Totals {
    let mut totals = Totals { settings: table.len(), ..Totals::default() };
    for row in table.iter().flat_map(|(_, rows)| rows) {
        totals.trials += 1;
        match row.verdict {
            Word::Agrees => totals.agree += 1,
            Word::Disagrees => totals.disagree += 1,
            Word::Inconclusive => totals.inconclusive += 1,
            Word::Skipped => totals.skipped += 1,
        }
        totals.timers_armed += row.timers_armed;
        totals.timers_fired += row.timers_fired;
        totals.timers_unknown += row.timers_unknown;
        for (why, count) in &row.timers_uncompared {
            *totals.timers_uncompared.entry(*why).or_default() += count;
        }
        totals.timer_differences += row.timer_differences.len();
        totals.timer_differences_gross += row.timer_differences_gross;
    }
    totals
}

fn table(validation: &Validation) -> Vec<(&Case, Vec<Row>)> {
    validation.settings.iter().map(|setting| (setting, validation.rows(setting))).collect()
}

/// The conclusion, in a few sentences; each line is one.
fn conclusion(validation: &Validation) -> Vec<String> {
    let table = table(validation);
    let totals = totals(&table);
    let words = table.iter().flat_map(|(_, rows)| rows).map(|row| Status::new(row.verdict, false));
    let mut lines = vec![
        format!(
            "{} settings, {} trials: {}.",
            totals.settings,
            totals.trials,
            words.collect::<Counts>()
        ),
        format!(
            "{} timers that the kernel armed, held against the model's wheel, and {} that fired, \
             held against the predicted jiffy: {} differ, {} of them grossly.",
            totals.timers_armed,
            totals.timers_fired,
            totals.timer_differences,
            totals.timer_differences_gross
        ),
    ];
    if totals.timers_unknown > 0 {
        let reasons: Vec<_> = totals
            .timers_uncompared
            .iter()
            .map(|(why, count)| format!("{count} {}", why.why()))
            .collect();
        let unknown = totals.timers_unknown;
        lines.push(format!("{unknown} were not compared: {}.", reasons.join(", ")));
    }
    let open = Cause::Undetermined.name();
    let followed = |row: &Row| !row.width_s.contains_key(open);
    let spans = || {
        let rows = table.iter().flat_map(|(setting, rows)| rows.iter().map(move |r| (setting, r)));
        rows.filter(|(_, row)| !row.width_s.is_empty())
    };
    let slots = |row: &Row| {
        let slot = |cause: Cause| row.width_s.get(cause.name()).copied().unwrap_or(0.0);
        slot(Cause::WheelSlot) + slot(Cause::EarlierSlots)
    };
    let beyond = |row: &Row| row.width_s.values().sum::<f64>() - slots(row);
    let within = spans().filter(|(_, row)| followed(row)).count();
    if let Some((setting, row)) = spans()
        .filter(|(_, row)| followed(row))
        .max_by(|(_, a), (_, b)| beyond(a).total_cmp(&beyond(b)))
    {
        lines.push(format!(
            "{within} of {} windows are no wider than the slots of their timers and the allowances \
             stated for each; the largest of those is {}: {} {}.",
            spans().count(),
            span::measured(beyond(row)),
            setting.experiment,
            setting.set
        ));
    }
    if let Some((setting, row)) = spans()
        .filter(|(_, row)| !followed(row))
        .max_by(|(_, a), (_, b)| a.width_s[open].total_cmp(&b.width_s[open]))
    {
        lines.push(format!(
            "{} are wider by steps that are not modelled to the jiffy, {} at most: {} {}.",
            spans().count() - within,
            span::measured(row.width_s[open]),
            setting.experiment,
            setting.set
        ));
    }
    lines
}

/// The table as Markdown: to be kept.
pub fn markdown(validation: &Validation) -> String {
    let run = &validation.run;
    let mut text = String::from("# The model against a kernel\n\n");
    writeln!(
        text,
        "Linux {} · HZ {} · {} clock · {} · `{}`\n",
        cell(&run.machine.kernel),
        run.machine.hz,
        run.machine.clock,
        validation.date,
        validation.command
    )
    .expect("a String takes all");
    for line in conclusion(validation) {
        writeln!(text, "{}\n", cell(&line)).expect("a String takes all");
    }
    let mut part = "";
    for (setting, rows) in table(validation) {
        if part != setting.part {
            part = &setting.part;
            writeln!(text, "\n## {}\n", cell(part)).expect("a String takes all");
            text += "| experiment, settings | outcome | predicted | measured | causes of its width | counts | timers | verdict |\n";
            text += "|---|---|---|---|---|---|---|---|\n";
        }
        let cells = [
            format!("{} {}", setting.experiment, setting.set),
            each(&rows, |row| row.outcome.map(|outcome| outcome.to_string())),
            hull(&rows),
            rows.iter()
                .map(|row| row.detected_s.map_or_else(|| "–".into(), |at| format!("{at:.3}")))
                .collect::<Vec<_>>()
                .join(", "),
            widest(&rows),
            each(&rows, |row| {
                let text = words::counts(row.retransmits, row.keepalive_probes, row.window_probes);
                (!text.is_empty()).then_some(text)
            }),
            format!(
                "{} armed, {} fired, {} differ",
                rows.iter().map(|row| row.timers_armed).sum::<u32>(),
                rows.iter().map(|row| row.timers_fired).sum::<u32>(),
                rows.iter().map(|row| row.timer_differences.len()).sum::<usize>()
            ),
            rows.iter().map(|row| Status::new(row.verdict, false)).collect::<Counts>().to_string(),
        ];
        let cells = cells.map(|text| cell(text.trim())).join(" | ");
        writeln!(text, "| {cells} |").expect("a String takes all");
    }
    let odd = troubles(validation);
    if !odd.is_empty() {
        text += "\n## What did not agree\n\n";
        for line in odd {
            writeln!(text, "- {}", cell(&line)).expect("a String takes all");
        }
    }
    text
}

/// The conclusion, and what did not agree, for a terminal.
pub fn terminal(validation: &Validation) -> String {
    let mut lines = troubles(validation);
    lines.extend(conclusion(validation));
    lines.join("\n") + "\n"
}

fn troubles(validation: &Validation) -> Vec<String> {
    let mut lines = Vec::new();
    for (setting, rows) in table(validation) {
        let name = format!("{} {}", setting.experiment, setting.set);
        for row in rows {
            if row.verdict != Word::Agrees {
                lines.push(format!("{} {}: {}", name.trim(), row.verdict, row.reason));
            }
            let differences = row.timer_differences;
            lines.extend(differences.iter().map(|text| format!("{}: {text}", name.trim())));
        }
    }
    lines
}

/// The hull of the windows of all trials, seconds.
fn hull(rows: &[Row]) -> String {
    let spans = rows.iter().filter_map(|row| row.earliest_s.zip(row.latest_s));
    match spans.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) {
        Some((earliest, latest)) => format!("{earliest:.3}–{latest:.3}"),
        None => "nothing".into(),
    }
}

/// What makes the widest window as wide as it is, without what all have.
fn widest(rows: &[Row]) -> String {
    let width = |row: &&Row| row.width_s.values().sum::<f64>();
    let widest = rows.iter().max_by(|a, b| width(a).total_cmp(&width(b)));
    let shares = widest.into_iter().flat_map(|row| &row.width_s);
    let common = [Cause::Tick, Cause::Slice, Cause::Clocks].map(Cause::name);
    shares
        .filter(|(name, _)| !common.contains(&name.as_str()))
        .map(|(name, by)| format!("{name} {}", span::measured(*by)))
        .collect::<Vec<_>>()
        .join(", ")
}

/// What the trials have in common, or each of it.
fn each(rows: &[Row], what: impl Fn(&Row) -> Option<String>) -> String {
    let mut all: Vec<_> = rows.iter().map(|row| what(row).unwrap_or_else(|| "–".into())).collect();
    all.dedup();
    all.join(" / ")
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    kernel: &'a str,
    hz: u32,
    clock: crate::trial::Clock,
    wall_s: f64,
    date: &'a str,
    command: &'a str,
    totals: Totals,
    settings: Vec<CaseDocument<'a>>,
}

#[derive(Serialize)]
struct CaseDocument<'a> {
    part: &'a str,
    experiment: &'a str,
    set: &'a str,
    trials: Vec<Row>,
}

/// The same for programs: `halfopen/validation/1`.
pub fn document(validation: &Validation) -> Vec<u8> {
    let table = table(validation);
    json::pretty(&Document {
        schema: "halfopen/validation/1",
        kernel: &validation.run.machine.kernel,
        hz: validation.run.machine.hz,
        clock: validation.run.machine.clock,
        wall_s: validation.run.wall_s,
        date: &validation.date,
        command: &validation.command,
        totals: totals(&table),
        settings: table
            .into_iter()
            .map(|(setting, trials)| CaseDocument {
                part: &setting.part,
                experiment: &setting.experiment,
                set: &setting.set,
                trials,
            })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn a_validation_is_a_table_with_its_troubles() {
        let run = Run { trials: vec![samples::keepalive(), samples::sending()], ..samples::run() };
        let setting = |part: &str, place: usize, set: &str| Case {
            part: part.into(),
            experiment: run.trials[place].experiment.name.clone(),
            set: set.into(),
            trials: vec![place],
        };
        let settings = vec![
            setting("keepalive", 0, ""),
            setting("retransmission", 1, "sysctl.tcp_retries2=5"),
        ];
        let mut validation = Validation {
            command: "halfopen validate".into(),
            date: "2026-01-02 03:04 UTC".into(),
            run,
            settings,
        };
        validation.run.trials[1].verdict.word = Word::Disagrees;
        validation.run.trials[1].verdict.reason = "expected something else".into();
        insta::assert_snapshot!(markdown(&validation));
    }
}
