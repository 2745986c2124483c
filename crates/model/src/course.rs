//! Courses: what happens to one connection from one phase of the clock. Many courses, one for each
//! phase that cannot be known, make the windows of a prediction.

use crate::allowance;
use crate::prediction::{Step, StepKind, Window};
use crate::tick::Hz;
use spec::Outcome;
use std::collections::BTreeMap;
use std::time::Duration;

/// One course. Times are nanoseconds after the reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Course {
    pub(crate) beats: Vec<Beat>,
    pub(crate) outcome: Outcome,
    /// When the outcome is reported; not used for [`Outcome::None`].
    pub(crate) end_ns: u64,
    pub(crate) retransmits: Option<u32>,
    pub(crate) keepalive_probes: Option<u32>,
}

/// One timer that fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Beat {
    pub(crate) kind: StepKind,
    pub(crate) at_ns: u64,
    /// Nanoseconds by the textbook: without ticks and slots.
    pub(crate) nominal_ns: u64,
    pub(crate) timeout_ns: u64,
}

/// All courses of a prediction, by what they end in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Courses {
    groups: BTreeMap<Key, Group>,
}

/// What tells windows apart.
type Key = (String, Option<u32>, Option<u32>);

#[derive(Debug, Clone)]
struct Group {
    outcome: Outcome,
    earliest_ns: u64,
    latest_ns: u64,
    steps: Vec<(Beat, u64)>,
}

impl Courses {
    /// Adds a course, and the same course begun up to `earlier_ns` sooner within its phase.
    pub(crate) fn add(&mut self, course: &Course, earlier_ns: u64) {
        let key = (course.outcome.to_string(), course.retransmits, course.keepalive_probes);
        let group = self.groups.entry(key).or_insert_with(|| Group {
            outcome: course.outcome,
            earliest_ns: u64::MAX,
            latest_ns: 0,
            steps: course.beats.iter().map(|beat| (*beat, beat.at_ns)).collect(),
        });
        group.earliest_ns = group.earliest_ns.min(course.end_ns);
        group.latest_ns = group.latest_ns.max(course.end_ns.saturating_add(earlier_ns));
        group.steps.truncate(course.beats.len());
        for ((first, latest), beat) in group.steps.iter_mut().zip(&course.beats) {
            first.at_ns = first.at_ns.min(beat.at_ns);
            *latest = (*latest).max(beat.at_ns.saturating_add(earlier_ns));
        }
    }

    /// The windows in the order of time, each with the allowance for what follows a timer's jiffy,
    /// and the schedule of the first.
    pub(crate) fn into_windows(self, hz: Hz) -> (Vec<Window>, Vec<Step>) {
        let mut groups: Vec<_> = self.groups.into_iter().collect();
        groups.sort_by_key(|(_, group)| (group.outcome == Outcome::None, group.earliest_ns));
        let span = |earliest: u64, latest: u64| {
            (
                Duration::from_nanos(earliest).saturating_sub(allowance::EARLY),
                Duration::from_nanos(latest).saturating_add(allowance::late(hz)),
            )
        };
        let schedule = groups.first().map_or_else(Vec::new, |(_, group)| {
            let mut numbers = BTreeMap::new();
            group
                .steps
                .iter()
                .map(|(beat, latest)| {
                    let n = numbers.entry(beat.kind.name()).and_modify(|n| *n += 1).or_insert(1);
                    let (earliest, latest) = span(beat.at_ns, *latest);
                    Step {
                        n: *n,
                        kind: beat.kind,
                        earliest,
                        latest,
                        nominal: Duration::from_nanos(beat.nominal_ns),
                        timeout: Duration::from_nanos(beat.timeout_ns),
                    }
                })
                .collect()
        });
        let windows = groups
            .into_iter()
            .map(|((_, retransmits, keepalive_probes), group)| Window {
                outcome: group.outcome,
                span: (group.outcome != Outcome::None)
                    .then(|| span(group.earliest_ns, group.latest_ns)),
                retransmits,
                keepalive_probes,
            })
            .collect();
        (windows, schedule)
    }
}
