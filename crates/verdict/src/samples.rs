//! Predictions from single samples of the client's socket, held against what happened: the sample,
//! the socket's options and the sysctls are all that is known.

use crate::measure::{Measured, reference_at};
use model::{Prediction, Window};
use serde::Serialize;
use spec::facts::TcpFacts;
use spec::{CallName, Errno, Facts, Neighbour, Outcome, Parameters, SocketOptions, Traffic};
use std::time::Duration;
use timeline::event::{Frame, FrameKind, Phase};
use timeline::{Event, Source, Timeline, What};

/// From the kernel's report of an error to the capture of the segment that made it, at most.
const ARRIVES_NS: u64 = 1_000_000;

/// One sample, and how the socket ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// When it was taken, nanoseconds after the fault.
    pub after_fault_ns: u64,
    /// What can be known from it.
    pub facts: Facts,
    /// How the connection ended.
    pub outcome: Outcome,
    /// When it ended, or was last watched, seconds after the sample.
    pub ended_s: f64,
    /// How much sooner that may have been.
    pub resolution_s: f64,
    /// Whether an ICMP error had come since the fault: which one is not in a look at a socket.
    pub icmp: bool,
}

/// How a prediction from a sample came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Came {
    /// It happened within a window.
    Inside,
    /// It did not.
    Outside,
    /// The model says that it cannot say.
    Unknown,
}

impl Sample {
    /// What the socket was doing.
    pub fn doing(&self) -> &'static str {
        let Some(tcp) = &self.facts.tcp else { return "nothing" };
        match (tcp.timer, tcp.probes) {
            (TcpFacts::TIMER_PROBE0, 0) => "closed window",
            (TcpFacts::TIMER_PROBE0, _) => "closed window, probes out",
            (TcpFacts::TIMER_KEEPALIVE, 0) => "idle, keepalive",
            (TcpFacts::TIMER_KEEPALIVE, _) => "keepalive probes out",
            (0, _) => "no timer",
            _ if tcp.retransmits > 0 => "retransmitting",
            _ => "unacknowledged",
        }
    }

    /// Holds a prediction, whose times count from the sample, against what happened.
    pub fn compare(&self, prediction: &Prediction) -> Came {
        if prediction.unknown.is_some() {
            return Came::Unknown;
        }
        let ended = |span: (Duration, Duration)| {
            self.ended_s >= span.0.as_secs_f64()
                && self.ended_s - self.resolution_s <= span.1.as_secs_f64()
        };
        let is_told = |predicted: Outcome, outcome: Outcome| {
            let errors = [predicted, outcome].iter().all(|o| matches!(o, Outcome::Errno(_)));
            predicted == outcome || (self.icmp && errors)
        };
        let holds = |window: &Window| match (window.span, self.outcome) {
            (None, outcome) => outcome == Outcome::None,
            // It was watched no longer.
            (Some(span), Outcome::None) => span.1.as_secs_f64() >= self.ended_s,
            (Some(span), outcome) => is_told(window.outcome, outcome) && ended(span),
        };
        if prediction.windows.iter().any(holds) { Came::Inside } else { Came::Outside }
    }
}

/// The samples of a trial after which nothing reached the client and its program did nothing: what a
/// prediction of what stays as it is can be held against.
pub fn samples(
    parameters: &Parameters,
    facts: &Facts,
    measured: &Measured,
    timeline: &Timeline,
) -> Vec<Sample> {
    let Some(fault_at) = timeline.fault_at() else { return Vec::new() };
    // What the neighbour entry does is not in a sample of a socket.
    if parameters.neighbour == Neighbour::Learned {
        return Vec::new();
    }
    // Only what arrives makes such an end.
    if matches!(measured.outcome, Outcome::Eof | Outcome::Errno(Errno::ECONNRESET)) {
        return Vec::new();
    }
    let watched = [Phase::Aftermath, Phase::Interrupted].map(|phase| timeline.phase_at(phase));
    let watched = watched.into_iter().flatten().min().unwrap_or(u64::MAX);
    let reference_ns = reference_at(timeline, measured.reference);
    let ended_ns = measured
        .detected_s
        .map_or(watched, |after_s| reference_ns.saturating_add((after_s * 1e9) as u64));
    // What arrives at the end has made it.
    let disturbs = |event: &&Event| {
        // An attempt to connect also ends with what arrives, which is captured a little later.
        let ends_it =
            parameters.client.traffic == Traffic::Connect && event.source == Source::ClientWire;
        let until_ns = ended_ns.saturating_add(if ends_it { ARRIVES_NS } else { 0 });
        (fault_at..=until_ns).contains(&event.at_ns) && disturbs(event)
    };
    let settled_ns = timeline.events().iter().filter(disturbs).map(|event| event.at_ns).max();
    let settled_ns = settled_ns.unwrap_or(fault_at);
    let options = options(parameters);
    let sysctls = timeline.events().iter().filter(|event| event.at_ns <= settled_ns);
    let changed = sysctls.filter_map(|event| match &event.what {
        What::Sysctl { name, value } => Some((name.clone(), value.clone())),
        _ => None,
    });
    let mut facts = facts.clone();
    facts.sysctl.extend(changed);
    let looks = timeline.events().iter().filter(|event| {
        event.source == Source::ClientSocket && (settled_ns..ended_ns).contains(&event.at_ns)
    });
    looks
        .filter_map(|event| {
            let What::Socket(sample) = &event.what else { return None };
            let tcp = sample.facts(event.at_ns, None)?;
            let icmp = timeline.events().iter().any(|other| {
                (fault_at..event.at_ns).contains(&other.at_ns) && is_icmp_error(other)
            });
            let tcp = TcpFacts { options_set: Some(options.clone()), ..tcp };
            Some(Sample {
                after_fault_ns: event.at_ns - fault_at,
                facts: Facts { tcp: Some(tcp), neighbour: None, ..facts.clone() },
                outcome: measured.outcome,
                ended_s: (ended_ns - event.at_ns) as f64 / 1e9,
                resolution_s: measured.resolution_s,
                icmp,
            })
        })
        .collect()
}

/// Whether an event makes a difference to the client's socket that no timer of its own makes.
fn disturbs(event: &Event) -> bool {
    match &event.what {
        What::Segment(segment) => event.source == Source::ClientWire && !segment.sent,
        What::Frame(_) => is_icmp_error(event),
        What::Call(call) => {
            event.source == Source::ClientProgram
                && match call.name {
                    CallName::Write
                    | CallName::Connect
                    | CallName::Close
                    | CallName::Shutdown
                    | CallName::SetSockOpt => true,
                    CallName::Read
                    | CallName::Recv
                    | CallName::Accept
                    | CallName::Check
                    | CallName::Heartbeat => false,
                }
        }
        What::Sysctl { .. } => true,
        _ => false,
    }
}

/// Whether an ICMP error about the connection has come to the client.
fn is_icmp_error(event: &Event) -> bool {
    let icmp = matches!(
        event.what,
        What::Frame(Frame { sent: false, kind: FrameKind::Icmp { about_connection: true, .. } })
    );
    icmp && event.source == Source::ClientWire
}

/// The options that the client's program has set.
fn options(parameters: &Parameters) -> SocketOptions {
    let client = &parameters.client;
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs() as u32);
    SocketOptions {
        keepalive: Some(client.keepalive.enabled),
        keepidle_s: seconds(client.keepalive.idle),
        keepintvl_s: seconds(client.keepalive.interval),
        keepcnt: client.keepalive.probes,
        user_timeout_ms: Some(client.user_timeout.map_or(0, |time| time.as_millis() as u32)),
        rto_max_ms: client.rto_max.map(|time| time.as_millis() as u32),
        thin_linear_timeouts: Some(client.thin_linear_timeouts),
        ..SocketOptions::default()
    }
}
