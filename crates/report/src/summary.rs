//! Trials of one experiment with the same settings, taken together.

use crate::span::{self, Digits};
use crate::trial::Trial;
use crate::words;
use spec::Outcome;
use std::collections::BTreeMap;
use std::time::Duration;
use verdict::{Measured, Word};

/// Stands where there is nothing to say.
pub(crate) const NOTHING_KNOWN: &str = "–";

/// Trials that differ in nothing but their number.
#[derive(Debug, Clone)]
pub(crate) struct Group<'a> {
    trials: Vec<&'a Trial>,
}

/// The groups, in the order of their first trials.
pub(crate) fn groups(trials: &[Trial]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for trial in trials {
        match groups.iter_mut().find(|group| group.trials[0].experiment == trial.experiment) {
            Some(group) => group.trials.push(trial),
            None => groups.push(Group { trials: vec![trial] }),
        }
    }
    groups
}

impl<'a> Group<'a> {
    /// The experiment.
    pub(crate) fn name(&self) -> &'a str {
        &self.trials[0].experiment.name
    }

    /// Its trials; there is at least one.
    pub(crate) fn trials(&self) -> &[&'a Trial] {
        &self.trials
    }

    /// The word of the gravest verdict.
    pub(crate) fn gravest(&self) -> Word {
        let gravity = |word: &Word| match word {
            Word::Agrees => 0,
            Word::Skipped => 1,
            Word::Inconclusive => 2,
            Word::Disagrees => 3,
        };
        let words = self.trials.iter().map(|trial| trial.verdict.word);
        words.max_by_key(gravity).unwrap_or(Word::Agrees)
    }

    /// The experiment, and how many trials if there are several.
    pub(crate) fn label(&self) -> String {
        match self.trials.len() {
            1 => self.name().into(),
            count => format!("{} ×{count}", self.name()),
        }
    }

    /// `agrees`, or how many of each.
    pub(crate) fn verdicts(&self) -> String {
        match self.trials[..] {
            [trial] => trial.verdict.word.to_string(),
            _ => Self::counted(self.trials.iter().map(|trial| trial.verdict.word)),
        }
    }

    /// `28 agree, 2 disagree`, gravest last.
    pub(crate) fn counted(words: impl IntoIterator<Item = Word>) -> String {
        let mut counts =
            [(Word::Agrees, 0), (Word::Skipped, 0), (Word::Inconclusive, 0), (Word::Disagrees, 0)];
        for word in words {
            for (known, count) in &mut counts {
                *count += u32::from(*known == word);
            }
        }
        let shown: Vec<_> = counts
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(word, count)| match word {
                Word::Agrees if count > 1 => format!("{count} agree"),
                Word::Disagrees if count > 1 => format!("{count} disagree"),
                word => format!("{count} {word}"),
            })
            .collect();
        if shown.is_empty() { "no trials".into() } else { shown.join(", ") }
    }

    /// The outcomes, with counts where they differ.
    pub(crate) fn outcomes(&self) -> String {
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for measured in self.measurements() {
            *counts.entry(measured.outcome.to_string()).or_default() += 1;
        }
        match counts.len() {
            0 => NOTHING_KNOWN.into(),
            1 => counts.into_keys().collect(),
            _ => {
                let shown: Vec<_> =
                    counts.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
                shown.join(", ")
            }
        }
    }

    /// The hull of the predicted windows: each trial's own prediction starts from its own facts.
    pub(crate) fn predicted(&self) -> String {
        let Some(first) = self.trials.iter().find_map(|trial| trial.prediction.as_ref()) else {
            return NOTHING_KNOWN.into();
        };
        let digits = self.digits();
        let windows = first.windows.iter().enumerate().map(|(index, window)| {
            let spans = self
                .trials
                .iter()
                .filter_map(|trial| trial.prediction.as_ref()?.windows.get(index)?.span);
            let hull = spans.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
            match (window.outcome, hull) {
                (Outcome::None, _) => "nothing".into(),
                (_, Some((earliest, latest))) if first.windows.len() == 1 => {
                    span::range_to(earliest, latest, digits)
                }
                (_, span) => words::window_to(&model::Window { span, ..window.clone() }, digits),
            }
        });
        let shown: Vec<String> = windows.collect();
        if shown.is_empty() { NOTHING_KNOWN.into() } else { shown.join(" or ") }
    }

    /// The measured time; of several, the least, the median and the most.
    pub(crate) fn measured(&self) -> String {
        spread(self.detected_s(), self.digits())
    }

    /// How much later the program noticed; where it did not wait to be told, when it gave up.
    pub(crate) fn noticed(&self) -> String {
        let later = |m: &Measured| Some(m.noticed_s? - m.detected_s?).filter(|later| *later > 0.0);
        let times: Vec<f64> = self.measurements().filter_map(later).collect();
        if !times.is_empty() {
            return format!("+{}", spread(times, Digits::default()));
        }
        self.gave_up().map_or_else(|| NOTHING_KNOWN.into(), |at| format!("gave up {at}"))
    }

    /// When the program gave up by its own timer, the kernel having told it nothing.
    pub(crate) fn gave_up(&self) -> Option<String> {
        let untold = self.measurements().filter(|measured| measured.detected_s.is_none());
        let times: Vec<f64> = untold.filter_map(|measured| measured.noticed_s).collect();
        (!times.is_empty()).then(|| spread(times, Digits::default()))
    }

    /// Why not, for those that do not agree, by their numbers.
    pub(crate) fn reasons(&self) -> impl Iterator<Item = (usize, &'a str)> {
        self.trials
            .iter()
            .filter(|trial| trial.verdict.word != Word::Agrees)
            .map(|trial| (trial.shown_number(), trial.verdict.reason.as_str()))
    }

    fn detected_s(&self) -> Vec<f64> {
        self.measurements().filter_map(|measured| measured.detected_s).collect()
    }

    /// With these the measured times can be compared with the predicted ones.
    fn digits(&self) -> Digits {
        let predictions = self.trials.iter().filter_map(|trial| trial.prediction.as_ref());
        words::digits(predictions, &self.detected_s())
    }

    fn measurements(&self) -> impl Iterator<Item = &'a Measured> {
        self.trials.iter().filter_map(|trial| trial.verdict.measured.as_ref())
    }
}

fn spread(mut times: Vec<f64>, digits: Digits) -> String {
    times.sort_by(f64::total_cmp);
    match times[..] {
        [] => NOTHING_KNOWN.into(),
        [time] => span::measured_to(time, digits),
        [least, .., most] => {
            let middle = times[times.len() / 2];
            let digits = digits.max(Digits::between(least, most));
            let [least, most] = [least, most].map(Duration::from_secs_f64);
            let ends = span::range_to(least, most, digits);
            format!("{} ({ends})", span::measured_to(middle, digits))
        }
    }
}
