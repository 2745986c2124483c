//! A prediction: windows in which the client's kernel will report the end of the connection.

use crate::width::{self, Cause, Share};
use serde::{Deserialize, Serialize};
use spec::{Outcome, Reference};
use std::time::Duration;

/// What the model expects, written down before the fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prediction {
    /// What the windows' times count from.
    pub reference: Reference,
    /// One window an outcome; more where the outcome is open. Never empty, unless `unknown`.
    pub windows: Vec<Window>,
    /// Each retransmission or probe on the way, for the (first) outcome.
    pub schedule: Vec<Step>,
    /// Why, in one plain sentence.
    pub why: String,
    /// What the model cannot predict here, and the reason. The verdict is then `inconclusive`.
    pub unknown: Option<String>,
}

/// One possible outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// What the client is told.
    pub outcome: Outcome,
    /// The earliest and the latest time of detection; `None` for [`Outcome::None`].
    pub span: Option<(Duration, Duration)>,
    /// How often data segments are sent again, tail loss probe included; `None`: does not apply.
    pub retransmits: Option<u32>,
    /// Keepalive probes sent after the reference; `None`: does not apply.
    pub keepalive_probes: Option<u32>,
    /// Zero-window probes sent after the reference; `None`: does not apply.
    #[serde(default)]
    pub window_probes: Option<u32>,
    /// What makes it as wide as it is; empty where it has no span.
    #[serde(default)]
    pub width: Vec<Share>,
}

impl Window {
    /// A window without counts.
    pub fn new(outcome: Outcome, span: Option<(Duration, Duration)>) -> Self {
        Self {
            outcome,
            span,
            retransmits: None,
            keepalive_probes: None,
            window_probes: None,
            width: Vec::new(),
        }
    }

    /// The same, as wide as it is for these causes.
    pub(crate) fn because(self, causes: impl IntoIterator<Item = (Cause, Duration)>) -> Self {
        Self { width: width::shares(causes), ..self }
    }

    /// Whether another tells of the same outcome and the same counts, at another time.
    pub fn differs_in_time_only(&self, other: &Self) -> bool {
        let tells = |window: &Self| {
            (window.outcome, window.retransmits, window.keepalive_probes, window.window_probes)
        };
        tells(self) == tells(other)
    }

    /// The whole of the window as far as one cause goes.
    pub fn share(&self, cause: Cause) -> Duration {
        self.width.iter().filter(|share| share.cause == cause).map(|share| share.by).sum()
    }
}

/// Beyond this many, retransmissions that ICMP answers are neither counted nor shown beforehand: each
/// timer that runs late may make one less of them.
pub(crate) const COUNTED_MOST: u32 = 64;

/// One line of the schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its number among those of its kind, from 1.
    pub n: u32,
    /// What happens.
    pub kind: StepKind,
    /// Earliest time after the reference.
    pub earliest: Duration,
    /// Latest time after the reference.
    pub latest: Duration,
    /// The time by the textbook, without ticks and wheel slots.
    pub nominal: Duration,
    /// The timeout (RTO, probe interval) that was waited for.
    pub timeout: Duration,
    /// What of the time between is for timers before it that run late.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub late: Duration,
    /// Whether what is sent then stays in its host, for want of a link-layer address or a carrier:
    /// the timer fires, and the wire shows nothing of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
}

/// What a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepKind {
    /// The tail loss probe.
    TailLossProbe,
    /// A retransmission on timeout.
    Retransmission,
    /// A keepalive probe.
    KeepaliveProbe,
    /// A zero-window probe.
    WindowProbe,
    /// A SYN sent again.
    SynRetransmission,
    /// A FIN sent again.
    FinRetransmission,
    /// The timer that gives up.
    GiveUp,
}

impl StepKind {
    /// The written name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TailLossProbe => "tail-loss-probe",
            Self::Retransmission => "retransmission",
            Self::KeepaliveProbe => "keepalive-probe",
            Self::WindowProbe => "window-probe",
            Self::SynRetransmission => "syn-retransmission",
            Self::FinRetransmission => "fin-retransmission",
            Self::GiveUp => "give-up",
        }
    }
}

impl Prediction {
    /// These windows, without a schedule.
    pub fn of(reference: Reference, windows: Vec<Window>, why: impl Into<String>) -> Self {
        Self { reference, windows, schedule: Vec::new(), why: why.into(), unknown: None }
    }

    /// Has times that count from a sample of the socket count from another moment: `moved` takes
    /// each to the new one.
    pub fn recount(&mut self, moved: impl Fn(Duration) -> Duration) {
        for window in &mut self.windows {
            window.span = window.span.map(|(earliest, latest)| (moved(earliest), moved(latest)));
        }
        for step in &mut self.schedule {
            for time in [&mut step.earliest, &mut step.latest, &mut step.nominal] {
                *time = moved(*time);
            }
        }
        if self.why.contains(|c: char| c.is_ascii_digit()) {
            self.why += " (times in this sentence count from the sample of the socket)";
        }
    }

    /// The earliest and the latest time of all windows; `None` if no window has a time.
    pub fn hull(&self) -> Option<(Duration, Duration)> {
        let spans = self.windows.iter().filter_map(|window| window.span);
        spans.reduce(|(earliest, latest), span| (earliest.min(span.0), latest.max(span.1)))
    }
}
