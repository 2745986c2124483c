//! Trials of one experiment with the same settings, taken together.

use crate::counts::Counts;
use crate::digest::Digest;
use crate::fate::Fate;
use crate::span::{self, Digits};
use crate::trial::{Machine, Status, Trial};
use crate::words;
use model::Window;
use spec::{Experiment, Outcome, settings};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use verdict::EndedBy;

/// Stands where there is nothing to say.
pub(crate) const NOTHING_KNOWN: &str = "–";

/// How many reasons of one group are listed one by one.
const REASONS_MOST: usize = 10;

/// The groups of a run, in the order in which their first trials were added, or
/// [`Groups::in_order`].
#[derive(Debug, Clone, Default)]
pub struct Groups {
    all: Vec<Group>,
    /// Where each experiment with its settings is.
    places: BTreeMap<String, usize>,
    /// For each name: the settings of its first group, and those that another has otherwise.
    names: BTreeMap<String, (Settings, BTreeSet<String>)>,
}

/// Settings by key.
type Settings = BTreeMap<String, String>;

/// More settings than these that vary are named with each group, and have no column.
const COLUMNS_MOST: usize = 4;

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
        let known = format!("{} {settings:?}", experiment.name);
        let place = *self.places.entry(known).or_insert(self.all.len());
        if place == self.all.len() {
            let (first, apart) = self
                .names
                .entry(experiment.name.clone())
                .or_insert_with(|| (settings.clone(), BTreeSet::new()));
            let keys = first.keys().chain(settings.keys());
            apart.extend(keys.filter(|key| first.get(*key) != settings.get(*key)).cloned());
            self.all.push(Group { place, ..Group::new(experiment, settings) });
        }
        self.all[place].add(trial);
        place
    }

    /// In the order of their trials' positions: to be shown, and added to no more.
    #[must_use]
    pub fn in_order(mut self) -> Self {
        self.all.sort_by_key(|group| group.first);
        self
    }

    /// What the trials ran on: each that differs, once.
    pub(crate) fn machines(&self) -> Vec<&Machine> {
        let mut machines = Vec::new();
        for machine in self.all.iter().flat_map(|group| &group.machines) {
            if !machines.contains(&machine) {
                machines.push(machine);
            }
        }
        machines
    }

    /// Each group.
    pub fn all(&self) -> &[Group] {
        &self.all
    }

    /// How many trials there are.
    pub fn trials(&self) -> usize {
        self.all.iter().map(Group::trials).sum()
    }

    /// `28 agree, 2 disagree`, the most severe last.
    pub(crate) fn counted(&self) -> String {
        let mut all = Counts::default();
        for group in &self.all {
            for (sum, count) in all.0.iter_mut().zip(group.counts.0) {
                *sum += count;
            }
        }
        all.to_string()
    }

    /// The settings that vary, where they are few enough for a column each.
    pub(crate) fn columns(&self) -> Vec<String> {
        Some(self.varying()).filter(|keys| keys.len() <= COLUMNS_MOST).unwrap_or_default()
    }

    /// The settings in which groups of one name differ.
    pub(crate) fn varying(&self) -> Vec<String> {
        let apart = self.names.iter().flat_map(|(name, (_, apart))| {
            apart.iter().filter(|key| self.is_chosen(name, key)).cloned()
        });
        apart.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Whether a setting varies by itself: what some have as it comes and others have not at all follows
    /// from another, as `fault.duration` from `fault.kind`.
    fn is_chosen(&self, name: &str, key: &str) -> bool {
        let members = self.all.iter().filter(|group| group.experiment.name == name);
        let values: Vec<_> = members.map(|group| group.settings.get(key)).collect();
        let there: BTreeSet<_> = values.iter().flatten().collect();
        there.len() > 1 || !values.contains(&None) || values.len() == 2
    }

    /// Whether any program is a command.
    pub(crate) fn have_commands(&self) -> bool {
        self.all.iter().any(|group| !group.programs.is_empty())
    }

    /// What a group has for these settings; `none` where it has nothing.
    pub(crate) fn values(group: &Group, keys: &[String], none: &str) -> Vec<String> {
        let value = |key: &String| group.settings.get(key).map_or(none, String::as_str);
        keys.iter().map(|key| value(key).to_owned()).collect()
    }

    /// For each group: its experiment and how many trials if there are several; with what sets it
    /// apart from others of the same name, unless that has columns of its own.
    pub(crate) fn labels(&self) -> Vec<String> {
        let has_columns = !self.columns().is_empty();
        self.all
            .iter()
            .map(|group| {
                let label =
                    if has_columns { group.experiment.name.clone() } else { self.name(group) };
                match group.trials() {
                    1 => label,
                    count => format!("{label} ×{count}"),
                }
            })
            .collect()
    }

    /// A group's experiment, with the settings that set it apart from others of the same name.
    pub(crate) fn name(&self, group: &Group) -> String {
        let name = &group.experiment.name;
        let mut apart = self.apart(group);
        apart.retain(|key, _| self.is_chosen(name, key));
        let apart: Vec<_> =
            apart.into_iter().map(|(key, value)| format!(" {key}={value}")).collect();
        format!("{}{}", group.experiment.name, apart.concat())
    }

    /// The settings of a group that others of the same name have not, or have otherwise.
    pub(crate) fn apart(&self, group: &Group) -> BTreeMap<String, String> {
        let apart = self.names.get(&group.experiment.name).map(|(_, apart)| apart);
        let own = |key: &String| group.settings.get(key).map_or("unset", String::as_str).to_owned();
        apart.into_iter().flatten().map(|key| (key.clone(), own(key))).collect()
    }
}

/// Trials that differ in nothing but their turn.
#[derive(Debug, Clone)]
pub struct Group {
    /// What was done.
    pub experiment: Experiment,
    settings: Settings,
    /// What [`Groups::add`] has said, and the least of its trials' positions.
    place: usize,
    first: usize,
    counts: Counts,
    outcomes: BTreeMap<String, usize>,
    /// See [`Self::machines`].
    machines: Vec<Machine>,
    /// What ended connections, and what programs did.
    ended_by: BTreeSet<&'static str>,
    programs: BTreeSet<String>,
    /// The first trial's windows, each as wide as that of all trials: each trial's prediction
    /// starts from its own facts.
    windows: Vec<Window>,
    digits: Digits,
    /// What became of the programs that had to find out.
    fates: Vec<Fate>,
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
    fn new(experiment: &Experiment, settings: Settings) -> Self {
        Self {
            experiment: experiment.clone(),
            settings,
            place: 0,
            first: usize::MAX,
            machines: Vec::new(),
            counts: Counts::default(),
            outcomes: BTreeMap::new(),
            ended_by: BTreeSet::new(),
            programs: BTreeSet::new(),
            windows: Vec::new(),
            digits: Digits::default(),
            fates: Vec::new(),
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
        let settings = settings::all(&trial.experiment.parameters);
        let mut group = Self::new(&trial.experiment, settings);
        group.add(&Digest::new(0, trial));
        group
    }

    fn add(&mut self, trial: &Digest) {
        if !self.machines.contains(&trial.machine) {
            self.machines.push(trial.machine.clone());
        }
        self.counts.0[trial.status as usize] += 1;
        self.first = self.first.min(trial.position);
        self.numbers.push((trial.number, trial.artifacts.is_some()));
        self.took += trial.took;
        if trial.status != Status::Agrees && self.reasons.len() < REASONS_MOST {
            self.reasons.push((trial.number, trial.reason.clone()));
        }
        if let Some(outcome) = trial.outcome {
            *self.outcomes.entry(outcome.to_string()).or_default() += 1;
        }
        self.ended_by.extend(trial.ended_by.map(EndedBy::name));
        self.programs.extend(trial.program.clone());
        if self.experiment.mend.is_some() {
            self.fates.extend(trial.fate.clone());
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

    /// Which group it is, as [`Groups::add`] says.
    pub fn place(&self) -> usize {
        self.place
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

    /// What ended the connections of commands.
    pub(crate) fn ended_by(&self) -> &BTreeSet<&'static str> {
        &self.ended_by
    }

    /// What its trials ran on: each that differs, once.
    pub(crate) fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// What the programs did in the end, where they are commands.
    pub(crate) fn programs(&self) -> &BTreeSet<String> {
        &self.programs
    }

    /// What ended the connections of commands, and what their programs did then.
    pub(crate) fn of_commands(&self) -> [String; 2] {
        let ended: Vec<_> = self.ended_by.iter().copied().collect();
        let programs: Vec<_> = self.programs.iter().map(String::as_str).collect();
        let or_nothing = |words: Vec<&str>| {
            if words.is_empty() { NOTHING_KNOWN.into() } else { words.join(", ") }
        };
        [ended, programs].map(or_nothing)
    }

    /// What became of the programs that had to find out, where their experiment has a mend.
    pub(crate) fn fates(&self) -> &[Fate] {
        &self.fates
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
        listed.chain((more > 0).then(|| format!("(and {more} more that do not agree)")))
    }
}

/// The least, the median and the most; of an even number the median lies between the middle two.
pub(crate) fn ends_and_median(mut times: Vec<f64>) -> Option<[f64; 3]> {
    times.sort_by(f64::total_cmp);
    let (least, most) = (*times.first()?, *times.last()?);
    let middle = times.len() / 2;
    let median = match times.len() % 2 {
        0 => f64::midpoint(times[middle - 1], times[middle]),
        _ => times[middle],
    };
    Some([least, median, most])
}

pub(crate) fn spread(sign: &str, times: Option<[f64; 3]>, count: usize, digits: Digits) -> String {
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
        let name = |at: usize| groups.name(&groups.all()[at]);
        assert!(name(0).starts_with("host-crash-sending sysctl.tcp_retries2="), "{}", name(0));
        assert_eq!(name(1), "host-crash-sending sysctl.tcp_retries2=3");
        assert!(!name(2).contains('='), "{}", name(2));
        // What varies has a column.
        assert_eq!(groups.labels()[1], "host-crash-sending ×2");
        let columns = groups.columns();
        assert_eq!(columns, ["sysctl.tcp_retries2"]);
        let values = groups.all().iter().flat_map(|group| Groups::values(group, &columns, "–"));
        assert_eq!(values.collect::<Vec<_>>(), ["5", "3", "–"]);
    }

    #[test]
    fn of_thousands_that_fail_only_the_first_are_told_one_by_one() {
        let trials = vec![samples::late(); 300];
        let groups = Groups::of(&trials);
        let reasons: Vec<_> = groups.all()[0].reasons().collect();
        assert_eq!(reasons.len(), REASONS_MOST + 1);
        assert_eq!(reasons[REASONS_MOST], "(and 290 more that do not agree)");
    }
}
