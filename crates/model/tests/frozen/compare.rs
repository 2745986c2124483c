//! What the model says now, held against what it said.

use crate::case::{Case, Frozen, show_window};
use model::Window;
use std::fmt;
use std::time::Duration;

/// One thing that is not as it was.
#[derive(Debug, Clone)]
pub(crate) struct Difference {
    pub(crate) clock: &'static str,
    pub(crate) what: String,
}

/// How many predictions are as they were.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    equal: usize,
    narrower: usize,
    fewer: usize,
    now_known: usize,
    unknown: usize,
    pub(crate) differences: Vec<Difference>,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.equal += other.equal;
        self.narrower += other.narrower;
        self.fewer += other.fewer;
        self.now_known += other.now_known;
        self.unknown += other.unknown;
        self.differences.extend(other.differences.iter().cloned());
    }

    fn differs(&mut self, clock: &'static str, what: impl Into<String>) {
        self.differences.push(Difference { clock, what: what.into() });
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "predictions: {} equal, {} narrower, {} with fewer windows, {} unknown as before, {} no \
             longer unknown, {} differences",
            self.equal,
            self.narrower,
            self.fewer,
            self.unknown,
            self.now_known,
            self.differences.len()
        )
    }
}

/// One case.
pub(crate) fn compare(case: &Case) -> Tally {
    let now = case.predict();
    let mut tally = Tally::default();
    let [first, twin @ ..] = &case.frozen[..] else { panic!("nothing frozen: {}", case.input()) };
    let phases = case.facts.jiffies.is_none();
    if case.facts.virtual_time {
        exact(first, &now[0], phases, &mut tally);
    } else {
        let [twin] = twin else { panic!("no prediction in virtual time: {}", case.input()) };
        exact(twin, &now[1], phases, &mut tally);
        inside(first, &now[0], twin, LATE * tick(case), &mut tally);
    }
    tally
}

/// Where time is virtual: the same. Where the phase of the clock is not known, the old model looked at
/// many phases in steps and widened windows by those: they may be narrower.
fn exact(before: &Frozen, now: &Frozen, phases: bool, tally: &mut Tally) {
    const CLOCK: &str = "virtual time";
    if phases && before != now {
        return inside(before, now, before, Duration::from_nanos(1), tally);
    }
    match (before, now) {
        (Frozen::Unknown, Frozen::Unknown) => tally.unknown += 1,
        (Frozen::Unknown, Frozen::Known { .. }) => tally.now_known += 1,
        _ if before == now => tally.equal += 1,
        _ => tally.differs(CLOCK, format!("was {before}\n  now {now}")),
    }
}

/// How many jiffies a window may be wider by on a real clock. The old model put a first retransmission
/// off by one late timer where two may run late before it, and the late end of a user timeout by none:
/// `brute_force` has the ends that it missed, and that no window is there for nothing.
const LATE: u32 = 2;

fn tick(case: &Case) -> Duration {
    Duration::from_secs(1) / case.facts.hz + Duration::from_nanos(1)
}

/// On a real clock: nowhere wider than by `late`, and nothing gone but what a late timer could do.
fn inside(before: &Frozen, now: &Frozen, twin: &Frozen, late: Duration, tally: &mut Tally) {
    const CLOCK: &str = "real clock";
    let whole = format!("was {before}\n  now {now}");
    let (old, new) = match (before, now) {
        (Frozen::Unknown, Frozen::Unknown) => return tally.unknown += 1,
        (Frozen::Unknown, Frozen::Known { .. }) => return tally.now_known += 1,
        _ if before == now => return tally.equal += 1,
        (Frozen::Known { .. }, Frozen::Unknown) => return tally.differs(CLOCK, whole),
        (
            Frozen::Known { reference, windows, steps },
            Frozen::Known { reference: now_from, windows: now_windows, steps: now_steps },
        ) => {
            if reference != now_from {
                tally.differs(CLOCK, format!("times counted from {reference}\n  {whole}"));
            }
            if steps != now_steps {
                tally.differs(CLOCK, format!("the schedule had {steps} steps\n  {whole}"));
            }
            (windows, now_windows)
        }
    };
    let differences = tally.differences.len();
    for window in new {
        if !is_covered(window, old, late) {
            let window = show_window(window);
            tally.differs(CLOCK, format!("outside of what it was: {window}\n  {whole}"));
        }
    }
    let mut fewer = false;
    for window in old.iter().filter(|window| !new.iter().any(|new| meets(window, new))) {
        fewer = true;
        let Frozen::Known { windows, .. } = twin else { continue };
        if windows.iter().any(|certain| meets(window, certain)) {
            tally.differs(CLOCK, format!("gone: {}\n  {whole}", show_window(window)));
        }
    }
    match tally.differences.len() > differences {
        true => {}
        false if fewer => tally.fewer += 1,
        false => tally.narrower += 1,
    }
}

/// Whether two windows tell the same and have a moment in common.
fn meets(one: &Window, other: &Window) -> bool {
    let overlap = match (one.span, other.span) {
        (Some(one), Some(other)) => one.0 <= other.1 && other.0 <= one.1,
        (None, None) => true,
        _ => false,
    };
    one.differs_in_time_only(other) && overlap
}

/// Whether old windows that tell the same hold all of this one, but for so much at either end.
fn is_covered(window: &Window, old: &[Window], late: Duration) -> bool {
    let same = old.iter().filter(|old| old.differs_in_time_only(window));
    let Some((earliest, latest)) = window.span else {
        return same.into_iter().any(|old| old.span.is_none());
    };
    let mut spans: Vec<_> = same.filter_map(|old| old.span).collect();
    spans.sort_unstable();
    let mut reached = None;
    for span in spans {
        match reached {
            None if span.0 <= earliest + late && earliest <= span.1 => reached = Some(span.1),
            Some(end) if span.0 <= end + late => reached = Some(span.1.max(end)),
            _ => {}
        }
    }
    reached.is_some_and(|end| latest <= end + late)
}
