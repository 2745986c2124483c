//! The windows of a prediction, from the ends that runs have come to.

use crate::allowance;
use crate::explore::End;
use crate::prediction::{COUNTED_MOST, Step, StepKind, Window};
use crate::run::Expiry;
use crate::tick::Hz;
use crate::wheel::Wheel;
use crate::width::{self, Cause};
use spec::Outcome;
use std::collections::BTreeMap;
use std::time::Duration;

/// So many windows of one outcome are told apart.
const WINDOWS_MOST: usize = 4;
/// How many probes of a living peer a schedule shows: more than the doublings.
const LIVING_SHOWN: usize = 14;

/// Which counts apply.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counted {
    /// Where the connection goes on, whether retransmissions are counted.
    pub(crate) while_it_lives: bool,
    pub(crate) keepalive_probes: bool,
    pub(crate) window_probes: bool,
    /// Whether a timer's step of a living peer is shown.
    pub(crate) early_ns: u64,
}

/// Outcome, retransmissions, both kinds of probes.
type Key = (String, [Option<u32>; 3]);

/// Earliest and latest, nanoseconds.
type Span = (u64, u64);

/// When runs end, and what is in that, nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Ends {
    span: Span,
    /// The same without what an answer may be sooner or later by.
    timers: Span,
    /// The same where no timer runs late.
    on_time: Option<Span>,
    /// The timeout of the timer that made the end.
    timeout_ns: u64,
    /// The slots of all timers on the way.
    slots_ns: u64,
}

fn hull(a: Span, b: Span) -> Span {
    (a.0.min(b.0), a.1.max(b.1))
}

impl Ends {
    fn of(end: &End, counted: &Counted, hz: Hz) -> Self {
        let past = &end.past;
        let timers = (end.at_ns.saturating_sub(end.start.1), end.at_ns.saturating_sub(end.start.0));
        let early_ns = if past.reference_by_timer { counted.early_ns } else { 0 };
        let (sooner_ns, later_ns) = end.open_ns;
        let not_before_ns = end.not_before_ns.saturating_sub(end.start.1);
        let timers = (timers.0.max(not_before_ns).min(timers.1), timers.1);
        Self {
            span: (
                timers.0.saturating_sub(early_ns.saturating_add(sooner_ns)),
                timers.1.saturating_add(later_ns),
            ),
            timers,
            on_time: (!past.late).then_some(timers),
            timeout_ns: end.timeout_ns.or_else(|| past.last().map(|e| e.timeout_ns)).unwrap_or(0),
            slots_ns: past.slots * hz.tick_ns(),
        }
    }

    fn with(self, other: Self) -> Self {
        Self {
            span: hull(self.span, other.span),
            timers: hull(self.timers, other.timers),
            on_time: match (self.on_time, other.on_time) {
                (Some(a), Some(b)) => Some(hull(a, b)),
                (a, b) => a.or(b),
            },
            timeout_ns: self.timeout_ns.max(other.timeout_ns),
            slots_ns: self.slots_ns.max(other.slots_ns),
        }
    }

    /// The window, with the allowance for what follows a timer's jiffy.
    fn window(self, outcome: Outcome, hz: Hz) -> Window {
        let time = Duration::from_nanos;
        let width = |span: Span| span.1 - span.0;
        let wheel = self.on_time.unwrap_or(self.timers);
        let wheel_ns = width(wheel);
        let slot_ns = slot_ns(self.timeout_ns, hz).min(wheel_ns);
        let earlier_ns = (wheel_ns - slot_ns).min(self.slots_ns);
        let late_ns = width(self.timers) - wheel_ns;
        let causes = [
            (Cause::WheelSlot, time(slot_ns)),
            (Cause::EarlierSlots, time(earlier_ns)),
            (Cause::LateTimers, time(late_ns)),
            (Cause::RoundTrip, time(width(self.span).saturating_sub(width(self.timers)))),
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

/// The windows in the order of time, each with the allowance for what follows a timer's jiffy,
/// and the schedule of the first.
pub(crate) fn windows(ends: &[End], counted: &Counted, hz: Hz) -> (Vec<Window>, Vec<Step>) {
    let mut groups = BTreeMap::<Key, (Outcome, Vec<Ends>)>::new();
    let mut first: Option<((bool, u64), Key, u32)> = None;
    for end in ends {
        let key = key(end, counted);
        let group = groups.entry(key.clone()).or_insert_with(|| (end.outcome, Vec::new()));
        let ends = Ends::of(end, counted, hz);
        let rank = (end.outcome == Outcome::None, ends.span.0);
        if first.as_ref().is_none_or(|(least, ..)| rank < *least) {
            first = Some((rank, key, end.past.steps));
        }
        group.1.push(ends);
    }
    let schedule = first.map_or_else(Vec::new, |(_, first, steps)| {
        let same = ends.iter().filter(|end| end.past.steps == steps && key(end, counted) == first);
        schedule(same, counted, hz)
    });
    let mut windows = Vec::new();
    for ((_, [retransmits, keepalive_probes, window_probes]), (outcome, ends)) in groups {
        let found = if outcome == Outcome::None {
            vec![Window::new(outcome, None)]
        } else {
            join(ends, hz).into_iter().map(|end| end.window(outcome, hz)).collect()
        };
        let counted = |window| Window { retransmits, keepalive_probes, window_probes, ..window };
        windows.extend(found.into_iter().map(counted));
    }
    windows.sort_by_key(|window| window.span.map_or(Duration::MAX, |(earliest, _)| earliest));
    (windows, schedule)
}

fn key(end: &End, counted: &Counted) -> Key {
    let ends = end.outcome != Outcome::None;
    let counts = end.past.counts;
    // How many pass the tap before the client's neighbour entry dies is up to that entry.
    let by_entry = end.local && !counted.keepalive_probes && !counted.window_probes;
    let retransmits = ((ends || counted.while_it_lives) && !by_entry)
        .then_some(counts.retransmits)
        .filter(|count| *count <= COUNTED_MOST);
    let keepalive = (counted.keepalive_probes && ends).then_some(counts.probes);
    let window = (counted.window_probes && ends).then_some(counts.window_probes);
    (end.outcome.to_string(), [retransmits, keepalive, window])
}

fn schedule<'a>(ends: impl Iterator<Item = &'a End>, counted: &Counted, hz: Hz) -> Vec<Step> {
    let mut rows: Vec<(Expiry, Span, u64)> = Vec::new();
    for end in ends {
        let past = &end.past;
        let early_ns = if past.reference_by_timer { counted.early_ns } else { 0 };
        for (index, expiry) in past.expiries().into_iter().enumerate() {
            let from_ns = expiry.after_ns.0.saturating_sub(early_ns);
            let (_, on_time_ns, to_ns) = expiry.after_ns;
            match rows.get_mut(index) {
                Some((first, span, on_time)) => {
                    *span = hull(*span, (from_ns, to_ns));
                    *on_time = (*on_time).max(on_time_ns);
                    first.nominal_ns = first.nominal_ns.min(expiry.nominal_ns);
                    first.held &= expiry.held;
                }
                None => rows.push((expiry, (from_ns, to_ns), on_time_ns)),
            }
        }
        if end.outcome == Outcome::None && counted.window_probes {
            rows.truncate(LIVING_SHOWN);
        }
    }
    let mut numbers = BTreeMap::new();
    let step = |(expiry, span, on_time_ns): (Expiry, Span, u64)| {
        let n = numbers.entry(expiry.kind.name()).and_modify(|n| *n += 1).or_insert(1);
        let (earliest, latest) = allow(span, hz);
        let late_ns = span.1 - on_time_ns.max(span.0);
        Step {
            n: *n,
            kind: expiry.kind,
            earliest,
            latest,
            nominal: Duration::from_nanos(expiry.nominal_ns),
            timeout: Duration::from_nanos(expiry.timeout_ns),
            late: Duration::from_nanos(late_ns),
            held: expiry.held && expiry.kind != StepKind::GiveUp,
        }
    };
    rows.into_iter().map(step).collect()
}

/// Joins those that overlap or follow each other within the allowance. Where more than a handful are
/// left, those as well that lie within one slot of the timer that ends them.
fn join(mut ends: Vec<Ends>, hz: Hz) -> Vec<Ends> {
    let gap_ns = allowance::late(hz).as_nanos() as u64;
    ends.sort_unstable_by_key(|end| end.span);
    let follows = |last: &Ends, end: &Ends| end.span.0 <= last.span.1.saturating_add(gap_ns);
    let joined = join_if(ends, follows);
    if joined.len() <= WINDOWS_MOST {
        return joined;
    }
    join_if(joined, |last, end| end.span.1 - last.span.0 < slot_ns(last.timeout_ns, hz))
}

fn join_if(ends: Vec<Ends>, are_one: impl Fn(&Ends, &Ends) -> bool) -> Vec<Ends> {
    let mut joined: Vec<Ends> = Vec::new();
    for end in ends {
        match joined.last_mut() {
            Some(last) if are_one(last, &end) => *last = last.with(end),
            _ => joined.push(end),
        }
    }
    joined
}

fn allow((earliest_ns, latest_ns): Span, hz: Hz) -> (Duration, Duration) {
    (
        Duration::from_nanos(earliest_ns).saturating_sub(allowance::EARLY),
        Duration::from_nanos(latest_ns).saturating_add(allowance::late(hz)),
    )
}
