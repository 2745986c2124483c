//! What given options do: when a dead peer is found out, and which outages are survived.

use crate::case::{AT_ONCE, SOON_IDLE};
use crate::{Case, Keepalive, Moment, Options, Path};
use model::Prediction;
use spec::Outcome;
use std::time::Duration;

/// When the program is told that its peer is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Between these two.
    Within(Duration, Duration),
    /// Never.
    Never,
    /// The model cannot say.
    Unknown,
}

impl Found {
    fn from(prediction: Option<&Prediction>) -> Self {
        let Some(prediction) = prediction else { return Self::Unknown };
        if prediction.windows.iter().any(|window| window.outcome == Outcome::None) {
            return Self::Never;
        }
        prediction.hull().map_or(Self::Unknown, |(earliest, latest)| Self::Within(earliest, latest))
    }

    /// Whether it is no later than this.
    pub fn by(self, most: Duration) -> bool {
        matches!(self, Self::Within(_, latest) if latest <= most)
    }

    /// At worst.
    pub fn latest(self) -> Option<Duration> {
        match self {
            Self::Within(_, latest) => Some(latest),
            Self::Never | Self::Unknown => None,
        }
    }
}

/// When options find a dead peer out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    /// Where the connection is idle, from the last segment received.
    pub idle: Found,
    /// Where it writes, from the first write that is not acknowledged.
    pub sending: Found,
}

impl Outlook {
    /// Asks the model.
    pub fn of(options: &Options, path: &Path) -> Self {
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
    pub fn with(options: &Options, outlook: &Outlook, path: &Path) -> Self {
        let idle = options.keepalive.and_then(|keepalive| {
            let longest = |begins: &Duration| {
                let moment = Moment::Idle(*begins);
                Some((longest_outage(moment, outlook.idle, options, path)?, *begins))
            };
            worst_beginnings(&keepalive, Duration::ZERO).iter().filter_map(longest).min()
        });
        Self { idle, sending: longest_outage(AT_ONCE, outlook.sending, options, path) }
    }
}

/// When a dead peer of an idle connection is found out.
pub(crate) fn idle(options: &Options, path: &Path) -> Found {
    Found::from(Case::Lost(SOON_IDLE).predict(options, path).as_ref())
}

/// When a dead peer of a connection that writes is found out.
pub(crate) fn sending(options: &Options, path: &Path) -> Found {
    Found::from(Case::Lost(AT_ONCE).predict(options, path).as_ref())
}

/// When outages begin that take the most keepalive probes: just before the first is sent, and, since
/// the phase of the kernel's timers decides about the last, at some moments before.
pub(crate) fn worst_beginnings(keepalive: &Keepalive, lasts: Duration) -> Vec<Duration> {
    let first = Duration::from_secs(u64::from(keepalive.idle_s));
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
