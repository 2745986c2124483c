//! Programs of a run whose experiments say what mends them: how long each hangs, and how long with that
//! setting.

use crate::fate::Fate;
use crate::span::{self, Digits};
use crate::summary::{Group, Groups, NOTHING_KNOWN, ends_and_median, spread};
use crate::trial::Status;
use serde::Serialize;
use spec::mend::mended_name;
use spec::{Mend, Outcome};
use std::time::Duration;

/// The table's columns.
pub(crate) const HEADS: [&str; 8] =
    ["program", "hangs", "ended by", "told", "says", "does", "mend", "hangs then"];

/// An experiment and, where another has its mend, that.
pub(crate) struct Row<'a> {
    name: String,
    plain: &'a Group,
    mend: &'a Mend,
    mended: Option<&'a Group>,
}

/// A row for each experiment that says what mends it, in order.
pub(crate) fn rows(groups: &Groups) -> Vec<Row<'_>> {
    let mut rows: Vec<Row> = Vec::new();
    for group in groups.all() {
        match &group.experiment.mend {
            None => {}
            Some(Mend::Applied(_)) => {
                let is_its = |row: &&mut Row| {
                    mended_name(&row.plain.experiment.name) == group.experiment.name
                };
                let mut open = rows.iter_mut().filter(|row| row.mended.is_none());
                if let Some(row) = open.find(is_its) {
                    row.mended = Some(group);
                }
            }
            Some(mend) => {
                rows.push(Row { name: groups.name(group), plain: group, mend, mended: None });
            }
        }
    }
    rows
}

impl Row<'_> {
    /// What stands below [`HEADS`].
    pub(crate) fn cells(&self) -> [String; 8] {
        let Found { ended_by, outcome, says, does, .. } = Found::of(self.plain);
        let or_nothing = |text: Option<String>| text.unwrap_or_else(|| NOTHING_KNOWN.into());
        let mend = match self.mend {
            Mend::Nothing(why) => format!("none: {why}"),
            mend => mend.text().to_owned(),
        };
        [
            self.name.clone(),
            hangs(self.plain),
            or_nothing(ended_by.map(str::to_owned)),
            or_nothing(outcome),
            or_nothing(says),
            or_nothing(does),
            mend,
            self.mended.map_or_else(|| NOTHING_KNOWN.into(), hangs),
        ]
    }

    pub(crate) fn document(&self) -> RowDocument<'_> {
        let is_nothing = matches!(self.mend, Mend::Nothing(_));
        RowDocument {
            experiment: &self.name,
            question: &self.plain.experiment.question,
            found: Found::of(self.plain),
            mend: (!is_nothing).then(|| self.mend.text()),
            why_none: is_nothing.then(|| self.mend.text()),
            mended: self.mended.map(Found::of),
        }
    }
}

/// A row in JSON.
#[derive(Serialize)]
pub(crate) struct RowDocument<'a> {
    experiment: &'a str,
    question: &'a str,
    found: Found,
    mend: Option<&'a str>,
    why_none: Option<&'a str>,
    mended: Option<Found>,
}

/// What trials with the same settings came to for their program.
#[derive(Serialize)]
struct Found {
    verdict: Status,
    /// From the fault to what the program did about it, the median.
    hangs_s: Option<f64>,
    /// Whether it never finds out.
    for_ever: bool,
    watched_s: Option<f64>,
    outcome: Option<String>,
    ended_by: Option<&'static str>,
    says: Option<String>,
    does: Option<String>,
}

impl Found {
    fn of(group: &Group) -> Self {
        let fates = group.fates();
        let first = fates.first();
        let acted: Vec<_> = acted(fates).collect();
        let rounded = |s: f64| (s * 1e6).round() / 1e6;
        let told = |outcome: Outcome| match outcome {
            Outcome::None => "nothing".to_owned(),
            outcome => outcome.to_string(),
        };
        let does: Vec<_> = group.programs().iter().map(String::as_str).collect();
        Self {
            verdict: group.most_severe(),
            for_ever: acted.is_empty() && first.is_some_and(for_ever),
            hangs_s: ends_and_median(acted).map(|[_, median, _]| rounded(median)),
            watched_s: first.and_then(|fate| fate.watched_s).map(rounded),
            outcome: first.map(|fate| told(fate.told)),
            ended_by: first.and_then(|fate| fate.ended_by).map(verdict::EndedBy::name),
            says: first.and_then(|fate| fate.said.clone()),
            does: (!does.is_empty() && first.is_some()).then(|| does.join(", ")),
        }
    }
}

fn acted(fates: &[Fate]) -> impl Iterator<Item = f64> {
    fates.iter().filter_map(|fate| fate.acted_s)
}

/// Whether a program that has not acted never will: nothing is to come, and a timer of its own would have
/// come while it was watched.
fn for_ever(fate: &Fate) -> bool {
    fate.hopeless && fate.watched_s.is_some_and(|watched| watched >= OWN_TIMERS_S)
}

/// Longer than the timers that programs have for an answer, seconds.
const OWN_TIMERS_S: f64 = 3600.0;

/// How long a program hangs; why it is not known.
fn hangs(group: &Group) -> String {
    let Some(first) = group.fates().first() else {
        let why = group.reasons().next().unwrap_or_default();
        return why
            .split_once(": ")
            .map_or(why.clone(), |(_, why)| format!("{}: {why}", group.most_severe()));
    };
    let acted: Vec<_> = acted(group.fates()).collect();
    let count = acted.len();
    let text = match ends_and_median(acted) {
        Some(times) => spread("", Some(times), count, Digits::default()),
        None if for_ever(first) => "for ever".into(),
        None => first.watched_s.map_or_else(
            || NOTHING_KNOWN.into(),
            |watched| format!("over {}", span::exact(Duration::from_secs(watched as u64))),
        ),
    };
    match group.most_severe() {
        Status::Agrees => text,
        status => format!("{text} ({status})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn a_row_has_its_mend_beside_it() {
        let mend = |mut trial: crate::Trial, name: &str, mend| {
            trial.experiment.name = name.into();
            trial.experiment.mend = Some(mend);
            trial
        };
        let why = "it has a timer of its own".to_owned();
        let trials = [
            mend(samples::keepalive(), "psql", Mend::With("keepalives_idle=10".into())),
            mend(samples::sending(), "psql-mended", Mend::Applied("keepalives_idle=10".into())),
            mend(samples::crash(), "mosquitto", Mend::Nothing(why.clone())),
            samples::crash(),
        ];
        let groups = Groups::of(&trials);
        let rows = rows(&groups);
        assert_eq!(rows.len(), 2, "what has no mend is in no row");
        let documents: Vec<_> =
            rows.iter().map(|row| serde_json::to_value(row.document()).unwrap()).collect();
        assert_eq!(documents[0]["mend"], "keepalives_idle=10");
        assert!(documents[0]["mended"].is_object());
        assert_eq!((&documents[1]["mend"], &documents[1]["mended"]), (&().into(), &().into()));
        assert_eq!(documents[1]["why_none"], why.as_str());
        assert_eq!(rows[1].cells()[6], "none: it has a timer of its own");
    }
}
