//! Courses: what happens to one connection from one phase of the clock. Many courses, one for each
//! phase that cannot be known, make the windows of a prediction.

use super::slip::Slip;
use crate::allowance;
use crate::prediction::{Step, StepKind, Window};
use crate::tick::Hz;
use crate::wheel::Wheel;
use crate::width::{self, Cause};
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
    pub(crate) window_probes: Option<u32>,
    /// By how much the timers before the last may have put it off.
    pub(crate) slip: Slip,
    /// By how much sooner, and later, an answer may end it, nanoseconds.
    pub(crate) open_ns: (u64, u64),
    /// By how much the reference itself may be later than computed, where a timer made it.
    pub(crate) reference_late_ns: u64,
    /// The timeout of the timer that ended it, where that is not the last beat's, nanoseconds.
    pub(crate) timeout_ns: Option<u64>,
    /// The slots of all timers on the way, and of what else the phase of the clock moves,
    /// nanoseconds.
    pub(crate) slots_ns: u64,
}

/// One timer that fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Beat {
    pub(crate) kind: StepKind,
    pub(crate) at_ns: u64,
    /// Nanoseconds by the textbook: without ticks and slots.
    pub(crate) nominal_ns: u64,
    pub(crate) timeout_ns: u64,
    /// By how much the timers before it may have put it off, nanoseconds.
    pub(crate) slip_ns: u64,
    /// Whether what it sends stays in its host.
    pub(crate) held: bool,
}

/// Beyond this many, retransmissions are not counted beforehand. Only answers by ICMP make so many,
/// and each timer that runs late may make one less of them.
const COUNTED_MOST: u32 = 64;

/// All courses of a prediction, by what they end in.
#[derive(Debug, Clone)]
pub(crate) struct Courses {
    hz: Hz,
    groups: BTreeMap<Key, Group>,
}

/// What tells courses apart: outcome, retransmissions, both kinds of probes, and the number of
/// timers fired.
type Key = (String, [Option<u32>; 3], usize);

#[derive(Debug, Clone)]
struct Group {
    outcome: Outcome,
    ends: Vec<End>,
    /// Each timer, with the latest times it fires in any course: where those before it run on their
    /// jiffies, and where they run late.
    beats: Vec<(Beat, u64, u64)>,
}

/// Earliest and latest, nanoseconds.
type Span = (u64, u64);

/// When courses end, and what is in that, nanoseconds.
#[derive(Debug, Clone, Copy)]
struct End {
    span: Span,
    /// As the wheel alone has it, where no timer runs late.
    wheel: Span,
    /// By how much late timers put that off, at least and at most.
    shift: Span,
    /// The timeout of the timer that made the end.
    timeout_ns: u64,
    /// The slots of all timers on the way.
    slots_ns: u64,
    /// What late ones among them may add.
    slip_ns: u64,
}

impl End {
    fn with(self, other: Self) -> Self {
        let hull = |a: Span, b: Span| (a.0.min(b.0), a.1.max(b.1));
        Self {
            span: hull(self.span, other.span),
            wheel: hull(self.wheel, other.wheel),
            shift: hull(self.shift, other.shift),
            timeout_ns: self.timeout_ns.max(other.timeout_ns),
            slots_ns: self.slots_ns.max(other.slots_ns),
            slip_ns: self.slip_ns.max(other.slip_ns),
        }
    }

    /// The window, with the allowance for what follows a timer's jiffy.
    fn window(self, outcome: Outcome, hz: Hz) -> Window {
        let time = Duration::from_nanos;
        let wheel_ns = self.wheel.1 - self.wheel.0;
        let slot_ns = slot_ns(self.timeout_ns, hz).min(wheel_ns);
        let earlier_ns = (wheel_ns - slot_ns).min(self.slots_ns);
        let before_ns = (self.wheel.0 + self.shift.0).saturating_sub(self.span.0);
        let after_ns = self.span.1.saturating_sub(self.wheel.1 + self.shift.0);
        let late_ns = (self.slip_ns + self.shift.1 - self.shift.0).min(after_ns);
        let causes = [
            (Cause::WheelSlot, time(slot_ns)),
            (Cause::EarlierSlots, time(earlier_ns)),
            (Cause::LateTimers, time(late_ns)),
            (Cause::RoundTrip, time(before_ns + after_ns - late_ns)),
            (Cause::Undetermined, time(wheel_ns - slot_ns - earlier_ns)),
        ];
        Window::new(outcome, Some(allow(self.span, hz)))
            .because(causes.into_iter().chain(width::allowed(hz)))
    }
}

/// The slot of the wheel that a timer of this time falls into.
fn slot_ns(timeout_ns: u64, hz: Hz) -> u64 {
    Wheel::new(hz).slot(timeout_ns / hz.tick_ns()) * hz.tick_ns()
}

impl Courses {
    /// None yet, of a kernel with this tick.
    pub(crate) fn new(hz: Hz) -> Self {
        Self { hz, groups: BTreeMap::new() }
    }

    /// Adds a course that stands for others: they may end up to `longer_ns` later and up to
    /// `shorter_ns` earlier.
    pub(crate) fn add(&mut self, course: &Course, (longer_ns, shorter_ns): (u64, u64)) {
        let hz = self.hz;
        let key = (
            course.outcome.to_string(),
            [
                course.retransmits.filter(|count| *count <= COUNTED_MOST),
                course.keepalive_probes,
                course.window_probes,
            ],
            course.beats.len(),
        );
        let group = self.groups.entry(key).or_insert_with(|| Group {
            outcome: course.outcome,
            ends: Vec::new(),
            beats: course.beats.iter().map(|beat| (*beat, beat.at_ns, beat.at_ns)).collect(),
        });
        let timeout_ns = course.beats.last().map_or(0, |beat| beat.timeout_ns);
        let early_ns = course.reference_late_ns.saturating_add(course.open_ns.0);
        let wheel =
            (course.end_ns.saturating_sub(shorter_ns), course.end_ns.saturating_add(longer_ns));
        for (least, most) in course.slip.ranges() {
            let slip_ns = (most - least) * hz.tick_ns();
            let shift_ns = least * hz.tick_ns();
            let earliest_ns = wheel.0.saturating_add(shift_ns).saturating_sub(early_ns);
            let latest_ns = wheel.1.saturating_add(shift_ns + slip_ns);
            group.ends.push(End {
                span: (earliest_ns, latest_ns.saturating_add(course.open_ns.1)),
                wheel,
                shift: (shift_ns, shift_ns),
                timeout_ns: course.timeout_ns.unwrap_or(timeout_ns),
                slots_ns: course.slots_ns,
                slip_ns,
            });
        }
        let shorter_ns = shorter_ns.saturating_add(course.reference_late_ns);
        for ((first, on_time, latest), beat) in group.beats.iter_mut().zip(&course.beats) {
            first.at_ns = first.at_ns.min(beat.at_ns.saturating_sub(shorter_ns));
            let at_ns = beat.at_ns.saturating_add(longer_ns);
            *on_time = (*on_time).max(at_ns);
            *latest = (*latest).max(at_ns.saturating_add(beat.slip_ns));
            first.held &= beat.held;
        }
    }

    /// The windows in the order of time, each with the allowance for what follows a timer's jiffy,
    /// and the schedule of the first.
    pub(crate) fn into_windows(self) -> (Vec<Window>, Vec<Step>) {
        let hz = self.hz;
        let first = self
            .groups
            .values()
            .min_by_key(|group| (group.outcome == Outcome::None, group.earliest_ns()));
        let schedule = first.map_or_else(Vec::new, |group| group.schedule(hz));
        let mut ends = BTreeMap::<_, (Outcome, Vec<End>)>::new();
        for ((name, counts, _), group) in self.groups {
            let entry = ends.entry((name, counts));
            entry.or_insert((group.outcome, Vec::new())).1.extend(group.ends);
        }
        let mut windows = Vec::new();
        for ((_, [retransmits, keepalive_probes, window_probes]), (outcome, ends)) in ends {
            let found = if outcome == Outcome::None {
                vec![Window::new(outcome, None)]
            } else {
                join(ends, hz).into_iter().map(|end| end.window(outcome, hz)).collect()
            };
            let counted =
                |window| Window { retransmits, keepalive_probes, window_probes, ..window };
            windows.extend(found.into_iter().map(counted));
        }
        windows.sort_by_key(|window| window.span.map_or(Duration::MAX, |(earliest, _)| earliest));
        (windows, schedule)
    }
}

impl Group {
    fn earliest_ns(&self) -> u64 {
        self.ends.iter().map(|end| end.span.0).min().unwrap_or(0)
    }

    fn schedule(&self, hz: Hz) -> Vec<Step> {
        let mut numbers = BTreeMap::new();
        let step = |(beat, on_time_ns, latest_ns): &(Beat, u64, u64)| {
            let n = numbers.entry(beat.kind.name()).and_modify(|n| *n += 1).or_insert(1);
            let (earliest, latest) = allow((beat.at_ns, *latest_ns), hz);
            Step {
                n: *n,
                kind: beat.kind,
                earliest,
                latest,
                nominal: Duration::from_nanos(beat.nominal_ns),
                timeout: Duration::from_nanos(beat.timeout_ns),
                late: Duration::from_nanos(latest_ns - on_time_ns),
                held: beat.held,
            }
        };
        self.beats.iter().map(step).collect()
    }
}

/// Joins those that overlap or follow each other within the allowance. Where more than a handful are
/// left, those as well that lie within one slot of the timer that ends them.
fn join(mut ends: Vec<End>, hz: Hz) -> Vec<End> {
    let gap_ns = allowance::late(hz).as_nanos() as u64;
    ends.sort_unstable_by_key(|end| end.span);
    let follows = |last: &End, end: &End| end.span.0 <= last.span.1.saturating_add(gap_ns);
    let joined = join_if(ends, follows);
    if joined.len() <= WINDOWS_MOST {
        return joined;
    }
    join_if(joined, |last, end| end.span.1 - last.span.0 < slot_ns(last.timeout_ns, hz))
}

fn join_if(ends: Vec<End>, are_one: impl Fn(&End, &End) -> bool) -> Vec<End> {
    let mut joined: Vec<End> = Vec::new();
    for end in ends {
        match joined.last_mut() {
            Some(last) if are_one(last, &end) => *last = last.with(end),
            _ => joined.push(end),
        }
    }
    joined
}

/// So many windows of one outcome are told apart.
const WINDOWS_MOST: usize = 4;

fn allow((earliest_ns, latest_ns): Span, hz: Hz) -> (Duration, Duration) {
    (
        Duration::from_nanos(earliest_ns).saturating_sub(allowance::EARLY),
        Duration::from_nanos(latest_ns).saturating_add(allowance::late(hz)),
    )
}
