//! Trials of one experiment with the same settings, taken together.

use crate::digest::Digest;
use crate::span::{self, Digits};
use crate::trial::{Status, Trial};
use crate::words;
use model::Window;
use spec::{Experiment, Outcome, settings};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Stands where there is nothing to say.
pub(crate) const NOTHING_KNOWN: &str = "–";

/// How many reasons of one group are listed one by one.
const REASONS_MOST: usize = 10;

/// The groups of a run, in the order in which their first trials were added.
#[derive(Debug, Clone, Default)]
pub struct Groups {
    groups: Vec<Group>,
    /// Where each experiment with its settings is.
    places: BTreeMap<String, usize>,
}

impl Groups {
    /// The groups of these trials.
    pub(crate) fn of(trials: &[Trial]) -> Self {
        let mut groups = Self::default();
        for (position, trial) in trials.iter().enumerate() {
            groups.add(&trial.experiment, &Digest::new(position, trial));
        }
        groups
    }

    /// Adds a trial of this experiment, and says in which group it is, from 0.
    pub fn add(&mut self, experiment: &Experiment, trial: &Digest) -> usize {
        let settings = settings::all(&experiment.parameters);
        let place =
            *self.places.entry(format!("{} {settings:?}", experiment.name)).or_insert_with(|| {
                self.groups.push(Group::new(experiment));
                self.groups.len() - 1
            });
        self.groups[place].add(trial);
        place
    }

    /// Each group.
    pub fn all(&self) -> &[Group] {
        &self.groups
    }

    /// How many trials there are.
    pub fn trials(&self) -> usize {
        self.groups.iter().map(Group::trials).sum()
    }

    /// `28 agree, 2 disagree`, the most severe last.
    pub(crate) fn counted(&self) -> String {
        let mut all = Counts::default();
        for group in &self.groups {
            for (sum, count) in all.0.iter_mut().zip(group.counts.0) {
                *sum += count;
            }
        }
        all.to_string()
    }

    /// For each group: its experiment and how many trials if there are several; with what sets it
    /// apart from others of the same name.
    pub(crate) fn labels(&self) -> Vec<String> {
        self.groups
            .iter()
            .map(|group| {
                let label = self.name(group);
                match group.trials() {
                    1 => label,
                    count => format!("{label} ×{count}"),
                }
            })
            .collect()
    }

    /// A group's experiment, with the settings that set it apart from others of the same name.
    pub(crate) fn name(&self, group: &Group) -> String {
        let apart: Vec<_> =
            self.apart(group).into_iter().map(|(key, value)| format!(" {key}={value}")).collect();
        format!("{}{}", group.experiment.name, apart.concat())
    }

    /// The settings of a group that others of the same name have not, or have otherwise.
    pub(crate) fn apart(&self, group: &Group) -> BTreeMap<String, String> {
        let named = |other: &&Group| other.experiment.name == group.experiment.name;
        let others: Vec<_> = self.groups.iter().filter(named).collect();
        if others.len() == 1 {
            return BTreeMap::new();
        }
        let of = |group: &Group| settings::all(&group.experiment.parameters);
        let all: Vec<_> = others.into_iter().map(of).collect();
        let keys: BTreeSet<_> = all.iter().flat_map(|settings| settings.keys()).collect();
        let own = of(group);
        keys.into_iter()
            .filter(|key| all.iter().any(|settings| settings.get(*key) != own.get(*key)))
            .map(|key| (key.clone(), own.get(key).map_or_else(|| "unset".into(), Clone::clone)))
            .collect()
    }
}

/// Trials that differ in nothing but their turn.
#[derive(Debug, Clone)]
pub struct Group {
    /// What was done.
    pub experiment: Experiment,
    counts: Counts,
    outcomes: BTreeMap<String, usize>,
    /// The first trial's windows, each as wide as that of all trials: each trial's prediction
    /// starts from its own facts.
    windows: Vec<Window>,
    digits: Digits,
    /// When the kernel told it, seconds, and each trial's status.
    told: Vec<(f64, Status)>,
    /// How much later programs noticed.
    later: Vec<f64>,
    /// When programs gave up by a timer of their own, the kernel having told them nothing.
    gave_up: Vec<f64>,
    /// Why not, for the first of those that do not agree, by their numbers.
    reasons: Vec<(usize, String)>,
    /// The number of each trial, and whether it has a directory.
    numbers: Vec<(usize, bool)>,
    /// The windows of all trials, seconds.
    spans: Vec<(f64, f64)>,
    took: Duration,
}

impl Group {
    fn new(experiment: &Experiment) -> Self {
        Self {
            experiment: experiment.clone(),
            counts: Counts::default(),
            outcomes: BTreeMap::new(),
            windows: Vec::new(),
            digits: Digits::default(),
            told: Vec::new(),
            later: Vec::new(),
            gave_up: Vec::new(),
            reasons: Vec::new(),
            numbers: Vec::new(),
            spans: Vec::new(),
            took: Duration::ZERO,
        }
    }

    /// Of one trial.
    pub(crate) fn of(trial: &Trial) -> Self {
        let mut group = Self::new(&trial.experiment);
        group.add(&Digest::new(0, trial));
        group
    }

    fn add(&mut self, trial: &Digest) {
        self.counts.0[trial.status as usize] += 1;
        self.numbers.push((trial.number, trial.artifacts.is_some()));
        self.took += trial.took;
        if trial.status != Status::Agrees && self.reasons.len() < REASONS_MOST {
            self.reasons.push((trial.number, trial.reason.clone()));
        }
        if let Some(outcome) = trial.outcome {
            *self.outcomes.entry(outcome.to_string()).or_default() += 1;
        }
        match (trial.detected_s, trial.noticed_s) {
            (Some(detected), noticed) => {
                self.told.push((detected, trial.status));
                self.later.extend(noticed.map(|at| at - detected).filter(|later| *later > 0.0));
            }
            (None, gave_up) => self.gave_up.extend(gave_up),
        }
        self.digits = self.digits.max(words::digits(&trial.windows, trial.detected_s.as_slice()));
        if self.windows.is_empty() {
            self.windows.clone_from(&trial.windows);
        }
        for (hull, window) in self.windows.iter_mut().zip(&trial.windows) {
            hull.span = match (hull.span, window.span) {
                (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
                (a, b) => a.or(b),
            };
        }
        for (earliest, latest) in trial.windows.iter().filter_map(|window| window.span) {
            let span = (earliest.as_secs_f64(), latest.as_secs_f64());
            if !self.spans.ends_with(&[span]) {
                self.spans.push(span);
            }
        }
    }

    /// How many trials it has; there is at least one.
    pub fn trials(&self) -> usize {
        self.numbers.len()
    }

    /// How many have this status.
    pub fn count(&self, status: Status) -> usize {
        self.counts.0[status as usize]
    }

    /// How long its trials took, one after the other, in their own clock.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// The number of each trial, and whether it has a directory.
    pub(crate) fn numbers(&self) -> &[(usize, bool)] {
        &self.numbers
    }

    /// The most severe status.
    pub(crate) fn most_severe(&self) -> Status {
        let there = |status: &Status| self.count(*status) > 0;
        Status::ALL.into_iter().rev().find(there).unwrap_or(Status::Agrees)
    }

    /// `agrees`, or how many of each.
    pub(crate) fn verdicts(&self) -> String {
        match self.trials() {
            1 => self.most_severe().to_string(),
            _ => self.counts.to_string(),
        }
    }

    /// How often each outcome was measured.
    pub(crate) fn outcome_counts(&self) -> &BTreeMap<String, usize> {
        &self.outcomes
    }

    /// The outcomes, with counts where they differ.
    pub(crate) fn outcomes(&self) -> String {
        let shown: Vec<_> = self
            .outcomes
            .iter()
            .map(|(outcome, count)| match self.outcomes.len() {
                1 => outcome.clone(),
                _ => format!("{count} {outcome}"),
            })
            .collect();
        if shown.is_empty() { NOTHING_KNOWN.into() } else { shown.join(", ") }
    }

    /// The hull of the predicted windows.
    pub(crate) fn predicted(&self) -> String {
        let shown: Vec<String> = self
            .windows
            .iter()
            .map(|window| match (window.outcome, window.span) {
                (Outcome::None, _) => "nothing".into(),
                (_, Some((earliest, latest))) if self.windows.len() == 1 => {
                    span::range_to(earliest, latest, self.digits)
                }
                _ => words::window_to(window, self.digits),
            })
            .collect();
        if shown.is_empty() { NOTHING_KNOWN.into() } else { shown.join(" or ") }
    }

    /// The windows of all trials, seconds.
    pub(crate) fn spans(&self) -> &[(f64, f64)] {
        &self.spans
    }

    /// When the kernel told it, seconds, and each trial's status.
    pub(crate) fn told(&self) -> &[(f64, Status)] {
        &self.told
    }

    /// The least, the median and the most of the measured times, seconds.
    pub(crate) fn times_s(&self) -> Option<[f64; 3]> {
        ends_and_median(self.told.iter().map(|(at, _)| *at).collect())
    }

    /// The measured time; of several, the median, the least and the most.
    pub(crate) fn measured(&self) -> String {
        spread("", self.times_s(), self.told.len(), self.digits)
    }

    /// How much later the program noticed; where it did not wait to be told, when it gave up.
    pub(crate) fn noticed(&self) -> String {
        if self.later.is_empty() {
            return self
                .gave_up()
                .map_or_else(|| NOTHING_KNOWN.into(), |at| format!("gave up {at}"));
        }
        let times = ends_and_median(self.later.clone());
        spread("+", times, self.later.len(), Digits::default())
    }

    /// When the program gave up by its own timer, the kernel having told it nothing.
    pub(crate) fn gave_up(&self) -> Option<String> {
        let times = ends_and_median(self.gave_up.clone())?;
        Some(spread("", Some(times), self.gave_up.len(), Digits::default()))
    }

    /// Why not, for those that do not agree: by number for the first of them, then how many more.
    pub(crate) fn reasons(&self) -> impl Iterator<Item = String> {
        let listed = self.reasons.iter().map(|(number, reason)| format!("#{number}: {reason}"));
        let more = self.trials() - self.count(Status::Agrees) - self.reasons.len();
        listed.chain((more > 0).then(|| format!("and {more} more that do not agree")))
    }
}

/// How many trials have each [`Status`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts([usize; Status::ALL.len()]);

impl FromIterator<Status> for Counts {
    fn from_iter<T: IntoIterator<Item = Status>>(statuses: T) -> Self {
        let mut counts = Self::default();
        statuses.into_iter().for_each(|status| counts.0[status as usize] += 1);
        counts
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown: Vec<_> = Status::ALL
            .into_iter()
            .zip(self.0)
            .filter(|(_, count)| *count > 0)
            .map(|(status, count)| match status {
                Status::Agrees if count > 1 => format!("{count} agree"),
                Status::Disagrees if count > 1 => format!("{count} disagree"),
                status => format!("{count} {status}"),
            })
            .collect();
        formatter.pad(&if shown.is_empty() { "no trials".into() } else { shown.join(", ") })
    }
}

/// The least, the median and the most; of an even number the median lies between the middle two.
fn ends_and_median(mut times: Vec<f64>) -> Option<[f64; 3]> {
    times.sort_by(f64::total_cmp);
    let (least, most) = (*times.first()?, *times.last()?);
    let middle = times.len() / 2;
    let median = match times.len() % 2 {
        0 => f64::midpoint(times[middle - 1], times[middle]),
        _ => times[middle],
    };
    Some([least, median, most])
}

fn spread(sign: &str, times: Option<[f64; 3]>, count: usize, digits: Digits) -> String {
    match (times, count) {
        (None, _) => NOTHING_KNOWN.into(),
        (Some([time, ..]), 1) => format!("{sign}{}", span::measured_to(time, digits)),
        (Some([least, median, most]), _) => {
            let digits = digits.max(Digits::between(least, most));
            let [least, most] = [least, most].map(Duration::from_secs_f64);
            let ends = span::range_to(least, most, digits);
            format!("median {sign}{} ({ends})", span::measured_to(median, digits))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(ends_and_median(vec![3.0, 1.0]), Some([1.0, 2.0, 3.0]));
        assert_eq!(ends_and_median(vec![3.0, 1.0, 10.0]), Some([1.0, 3.0, 10.0]));
        assert_eq!(ends_and_median(vec![8.0]), Some([8.0; 3]));
        assert_eq!(ends_and_median(vec![]), None);
    }

    #[test]
    fn groups_of_one_name_are_told_apart_by_what_differs() {
        let mut other = samples::sending();
        other.experiment.parameters.sysctl.insert("tcp_retries2".into(), "3".into());
        let groups = Groups::of(&[samples::sending(), other.clone(), other, samples::crash()]);
        let labels = groups.labels();
        let (first, second) = (&labels[0], &labels[1]);
        assert!(first.starts_with("host-crash-sending sysctl.tcp_retries2="), "{first}");
        assert_eq!(second, "host-crash-sending sysctl.tcp_retries2=3 ×2");
        assert!(!labels[2].contains('='), "{labels:?}");
    }

    #[test]
    fn of_thousands_that_fail_only_the_first_are_told_one_by_one() {
        let trials = vec![samples::late(); 300];
        let groups = Groups::of(&trials);
        let reasons: Vec<_> = groups.all()[0].reasons().collect();
        assert_eq!(reasons.len(), REASONS_MOST + 1);
        assert_eq!(reasons[REASONS_MOST], "and 290 more that do not agree");
    }
}
