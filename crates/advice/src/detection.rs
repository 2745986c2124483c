//! What given options do: when a dead peer is found out, and which outages are survived.

use crate::case::{AT_ONCE, SOON_IDLE};
use crate::{Case, Moment, Options, Path};
use model::Found;
use std::time::Duration;

/// When options find a dead peer out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detection {
    /// Where the connection is idle, from the last segment received.
    pub idle: Found,
    /// Where it writes, from the first write that is not acknowledged.
    pub sending: Found,
}

impl Detection {
    /// Asks the model.
    pub fn by(options: &Options, path: &Path) -> Self {
        Self { idle: idle(options, path), sending: sending(options, path) }
    }
}

/// Which outages options survive, wherever they fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survived {
    /// The longest that an idle connection survives, and when the worst one begins, from the last
    /// segment received; `None`: every outage.
    pub idle: Option<(Duration, Duration)>,
    /// The longest that a connection survives which writes at its beginning; `None`: every one.
    pub sending: Option<Duration>,
}

/// Outages are told to this, longer ones to a 64th.
const GRAIN: Duration = Duration::from_millis(50);
/// Longer outages are not asked about.
const LONGEST: Duration = Duration::from_secs(4 * 3600);

impl Survived {
    /// Asks the model.
    pub fn with(options: &Options, detection: &Detection, path: &Path) -> Self {
        let idle = options.keepalive.and_then(|keepalive| {
            let longest = |begins: &Duration| {
                let moment = Moment::Idle(*begins);
                Some((longest_outage(moment, detection.idle, options, path)?, *begins))
            };
            worst_beginnings(keepalive.idle(), Duration::ZERO).iter().filter_map(longest).min()
        });
        Self { idle, sending: longest_outage(AT_ONCE, detection.sending, options, path) }
    }
}

/// When a dead peer of an idle connection is found out.
pub(crate) fn idle(options: &Options, path: &Path) -> Found {
    found(SOON_IDLE, options, path)
}

/// When a dead peer of a connection that writes is found out.
pub(crate) fn sending(options: &Options, path: &Path) -> Found {
    found(AT_ONCE, options, path)
}

fn found(moment: Moment, options: &Options, path: &Path) -> Found {
    let prediction = Case::Lost(moment).predict(options, path);
    prediction.as_ref().map_or(Found::Unknown, Found::of)
}

/// When outages begin that take the most keepalive probes: just before the first is sent so long after the
/// last segment received, and, since
/// the phase of the kernel's timers decides about the last, at some moments before.
pub(crate) fn worst_beginnings(first: Duration, lasts: Duration) -> Vec<Duration> {
    let before = [Duration::from_millis(20), lasts / 4, lasts / 2, lasts];
    let mut begin: Vec<_> = before.iter().filter_map(|before| first.checked_sub(*before)).collect();
    begin.dedup();
    begin
}

/// The longest outage that is survived, by halving; `None`: as long as one asks.
fn longest_outage(
    moment: Moment,
    found: Found,
    options: &Options,
    path: &Path,
) -> Option<Duration> {
    let latest = found.latest()?.min(LONGEST);
    let survived = |grains: u32| Case::Outage(moment, GRAIN * grains).is_survived(options, path);
    let (mut good, mut bad) = (0, u32::try_from(latest.as_millis() / GRAIN.as_millis()).ok()? + 1);
    while bad - good > 1.max(good / 64) {
        let middle = good + (bad - good) / 2;
        if survived(middle) { good = middle } else { bad = middle }
    }
    Some(GRAIN * good)
}
