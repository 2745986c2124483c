//! What was measured.

use crate::untraced;
use serde::{Deserialize, Serialize};
use spec::{CallName, Errno, Facts, FaultAct, Outcome, Parameters, Reference, Traffic};
use timeline::classify::{Class, classified};
use timeline::event::{Call, FaultStep, Phase, Side, Trace};
use timeline::{Event, Source, Timeline, What};

/// What the client was told, when, and what was on the wire. Times are seconds after `reference`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// What the client was told.
    pub outcome: Outcome,
    /// When the client's kernel reported it.
    pub detected_s: Option<f64>,
    /// How much earlier that may really have been: the resolution of the source.
    pub resolution_s: f64,
    /// When the client program saw it, or gave the server up by a timer of its own.
    pub noticed_s: Option<f64>,
    /// What times count from.
    pub reference: Reference,
    /// Which source told `detected_s`.
    pub detected_by: Option<DetectedBy>,
    /// Data segments sent again after the fault, as captured at the client; SYNs or FINs where the
    /// traffic is `connect`, `close` or `shutdown`; data segments and FINs of a script,
    /// from `reference` on.
    pub retransmits_on_wire: Option<u32>,
    /// Keepalive probes after `reference`, as captured at the client; `None`: keepalive is off.
    pub keepalive_probes_on_wire: Option<u32>,
    /// Zero-window probes after `reference`, as captured at the client; `None`: the server has not
    /// closed its window.
    #[serde(default)]
    pub window_probes_on_wire: Option<u32>,
    /// Whether a FIN from the server reached the client after the fault, before the client closed.
    pub fin_from_server: bool,
    /// Whether a RST from the server's address did.
    pub rst_from_server: bool,
    /// The client socket's last state before the client closed it.
    pub client_state: String,
    /// The server socket's last state; `gone` with its namespace.
    pub server_state: String,
    /// `tcpi_rto` before the fault, milliseconds.
    pub rto_ms_at_fault: Option<u32>,
}

/// A source that can tell when the client's kernel reported the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DetectedBy {
    /// The kernel's tracepoints: exact.
    Tracepoint,
    /// Socket diagnostics: within their polling interval.
    SockDiag,
    /// The client program.
    Peer,
}

/// Reads the measurement off a timeline; `None` if the fault was never injected.
pub fn measure(parameters: &Parameters, facts: &Facts, timeline: &Timeline) -> Option<Measured> {
    let fault_at = timeline.fault_at()?;
    let traffic = parameters.client.traffic;
    let lets_go = match traffic {
        // It may close, and has done so before the end if it has before it was told to.
        Traffic::Script => has_closed(timeline, fault_at),
        _ => parameters.client_lets_go(),
    };
    let reference = reference(parameters, timeline, fault_at, lets_go);
    let reference_at = reference_at(timeline, reference);
    let closed_at = if lets_go {
        // Here the close is what the trial is about.
        timeline.phase_at(Phase::Aftermath)
    } else {
        calls(timeline)
            .find(|(_, call)| call.name == CallName::Close)
            .map(|(_, call)| call.began_ns)
    };
    let closed_at = closed_at.or(timeline.phase_at(Phase::Interrupted)).unwrap_or(u64::MAX);
    let reports = parameters.client.program.description().reports;
    let noticed = if reports {
        noticed(timeline, fault_at, closed_at)
    } else {
        farewell(timeline, fault_at, closed_at)
    };
    // A program that gives the server up by a timer of its own wants to know nothing more.
    let closed_at = match noticed {
        // Where time stands still, what a program answers by closing has the same time.
        Some(Notice { at_ns, outcome: None }) if !lets_go => {
            closed_at.min(at_ns + u64::from(!reports))
        }
        _ => closed_at,
    };
    let (traced, polled) = if lets_go {
        released(timeline, fault_at, closed_at)
    } else {
        // A program that answers its peer's FIN at once closes between two looks.
        let answered = || {
            let left_at = noticed.filter(|_| !reports)?.at_ns;
            Some((cause_on_wire(timeline, fault_at, left_at)?, left_at))
        };
        let polled = polled(timeline, fault_at, closed_at).or_else(answered);
        (traced(timeline, fault_at, closed_at), polled)
    };

    let outcome = noticed
        .and_then(|notice| notice.outcome)
        .or(traced.map(|(_, outcome)| outcome))
        .or((lets_go && polled.is_some()).then_some(Outcome::Released))
        .or_else(|| untraced::outcome(timeline, facts, polled.filter(|_| !reports)?))
        .unwrap_or(Outcome::None);
    let noticed_at = noticed.map(|notice| notice.at_ns);
    // Before Linux 5.14 no tracepoint tells the error: the change of state tells the moment, and the
    // program the errno.
    let closed = || closed_by_kernel(timeline, fault_at, closed_at).filter(|_| !lets_go);
    let detection = match (traced.map(|(at, _)| at).or_else(closed), polled) {
        _ if outcome == Outcome::None => None,
        (Some(at), _) => Some((at, 0, DetectedBy::Tracepoint)),
        (None, Some((alive, gone))) => {
            // The program cannot know before the kernel does, nor the kernel before the wire.
            let told = noticed_at.filter(|_| !lets_go);
            let at = told.map_or(gone, |noticed| noticed.min(gone));
            let cause = cause_on_wire(timeline, fault_at, at).unwrap_or(0);
            Some((at, at.saturating_sub(alive.max(cause)), DetectedBy::SockDiag))
        }
        (None, None) => noticed_at.map(|at| (at, 0, DetectedBy::Peer)),
    };
    let end = detection.map_or(closed_at, |(at, ..)| at);
    let count = |from: u64, wanted: fn(Class) -> bool| {
        since_reference(timeline, reference)
            .filter(|(at, segment, class)| {
                segment.sent && (from..=end).contains(at) && wanted(*class)
            })
            .count() as u32
    };
    let from_server = |flag: fn(&timeline::Segment) -> bool| {
        timeline.segments(Source::ClientWire).any(|(at, segment)| {
            (fault_at..closed_at).contains(&at) && !segment.sent && flag(segment)
        })
    };
    let seconds = |at: u64| (at as f64 - reference_at as f64) / 1e9;
    Some(Measured {
        outcome,
        detected_s: detection.map(|(at, ..)| seconds(at)),
        resolution_s: detection.map_or(0.0, |(_, resolution, _)| resolution as f64 / 1e9),
        noticed_s: noticed_at.map(seconds),
        reference,
        detected_by: detection.map(|(.., by)| by),
        retransmits_on_wire: Some(count(
            reference_at.max(fault_at),
            match traffic {
                Traffic::Connect => Class::is_syn_again,
                Traffic::Script => |class| class.is_data_again() || class.is_fin_again(),
                _ if lets_go => Class::is_fin_again,
                Traffic::Shutdown => Class::is_fin_again,
                _ => Class::is_data_again,
            },
        )),
        keepalive_probes_on_wire: parameters
            .client
            .keepalive
            .enabled
            .then(|| count(reference_at, Class::is_keepalive_probe)),
        window_probes_on_wire: parameters
            .client
            .fills_window
            .then(|| count(reference_at, Class::is_window_probe)),
        fin_from_server: from_server(|segment| segment.flags.fin),
        rst_from_server: from_server(|segment| segment.flags.rst),
        client_state: last_state(timeline, Source::ClientSocket, closed_at),
        server_state: if server_is_gone(timeline) {
            "gone".into()
        } else {
            last_state(timeline, Source::ServerSocket, closed_at)
        },
        rto_ms_at_fault: facts.tcp.as_ref().map(|tcp| tcp.rto_us / 1000),
    })
}

/// Whether the client's program closed its socket by itself, and had not been told the end by then.
fn has_closed(timeline: &Timeline, fault_at: u64) -> bool {
    let ordered = timeline.phase_at(Phase::Aftermath).or(timeline.phase_at(Phase::Interrupted));
    let by_itself = |at: &u64| ordered.is_none_or(|ordered| *at < ordered);
    let Some(closed_at) = first_called_at(timeline, fault_at, &[CallName::Close]).filter(by_itself)
    else {
        return false;
    };
    let told = noticed(timeline, fault_at, closed_at).and_then(|notice| notice.outcome);
    told.is_none()
}

/// What times count from.
fn reference(
    parameters: &Parameters,
    timeline: &Timeline,
    fault_at: u64,
    lets_go: bool,
) -> Reference {
    // What is written after a FIN or a RST has come does not lead to the end.
    let ended = cause_on_wire(timeline, fault_at, u64::MAX).unwrap_or(u64::MAX);
    let is_before = |at: u64| at <= ended;
    if parameters.fault.effect().kills() && parameters.fault.still.is_none() {
        Reference::Fault
    } else if parameters.client.program.description().is_web_server {
        Reference::LastRequest
    } else {
        match parameters.client.traffic {
            Traffic::Connect => Reference::Connect,
            Traffic::Close | Traffic::Shutdown => Reference::Close,
            Traffic::Script if lets_go => Reference::Close,
            _ if first_write_at(timeline, fault_at).is_some_and(is_before) => Reference::FirstWrite,
            // A FIN is all that it has sent.
            Traffic::Script
                if first_called_at(timeline, fault_at, &[CallName::Shutdown]).is_some() =>
            {
                Reference::Close
            }
            _ => Reference::LastActivity,
        }
    }
}

/// When the reference was, nanoseconds. The fault's own time where there is no other.
pub fn reference_at(timeline: &Timeline, reference: Reference) -> u64 {
    let fault_at = timeline.fault_at().unwrap_or(0);
    let at = match reference {
        Reference::Fault => None,
        Reference::FirstWrite => first_write_at(timeline, fault_at),
        Reference::Connect => first_called_at(timeline, fault_at, &[CallName::Connect]),
        // Not the laboratory's order to close, after a shutdown.
        Reference::Close if has_closed(timeline, fault_at) => {
            first_called_at(timeline, fault_at, &[CallName::Close])
        }
        Reference::Close => first_called_at(timeline, fault_at, &[CallName::Shutdown]),
        Reference::LastActivity => last_activity(timeline).map(|(_, at)| at),
        Reference::LastRequest => timeline
            .segments(Source::ClientWire)
            .rfind(|(at, segment)| *at < fault_at && !segment.sent && segment.len > 0)
            .map(|(at, _)| at),
    };
    at.unwrap_or(fault_at)
}

/// Every segment at the client's tap since the reference, with its time and what it is. Where time
/// is virtual, a segment and what it answers can have the same time: their order tells.
pub fn since_reference(
    timeline: &Timeline,
    reference: Reference,
) -> impl Iterator<Item = (u64, &timeline::Segment, Class)> {
    let from = reference_at(timeline, reference);
    let before = match reference {
        Reference::LastActivity => last_activity(timeline).map_or(0, |(index, _)| index + 1),
        _ => 0,
    };
    classified(timeline, Source::ClientWire).skip(before).filter(move |(at, ..)| *at >= from)
}

/// The last segment that the client received before the fault was in force: which one at its tap, and when.
fn last_activity(timeline: &Timeline) -> Option<(usize, u64)> {
    let fault_at = timeline.fault_at().unwrap_or(0);
    let done = timeline.events().iter().find(|event| {
        event.at_ns >= fault_at && matches!(event.what, What::Fault(FaultStep::Done(_)))
    });
    let fault_at = done.map_or(fault_at, |event| event.at_ns);
    timeline
        .segments(Source::ClientWire)
        .enumerate()
        .filter(|(_, (at, segment))| *at < fault_at && !segment.sent)
        .map(|(index, (at, _))| (index, at))
        .last()
}

/// When the client wrote for the first time after the fault, nanoseconds.
fn first_write_at(timeline: &Timeline, fault_at: u64) -> Option<u64> {
    first_called_at(timeline, fault_at, &[CallName::Write])
}

/// The first of these calls: of those that the program reports, after the fault; or one that the wire
/// shows, which is among them only where times count from it.
pub(crate) fn first_called_at(
    timeline: &Timeline,
    fault_at: u64,
    names: &[CallName],
) -> Option<u64> {
    timeline.events().iter().find_map(|event| match &event.what {
        What::Call(call) if names.contains(&call.name) => {
            let reported = event.source == Source::ClientProgram && call.began_ns >= fault_at;
            (reported || event.source == Source::ClientWire).then_some(call.began_ns)
        }
        _ => None,
    })
}

/// When the client program knew.
#[derive(Clone, Copy)]
struct Notice {
    at_ns: u64,
    /// What a system call told it; `None`: a timer of its own did.
    outcome: Option<Outcome>,
}

fn noticed(timeline: &Timeline, fault_at: u64, closed_at: u64) -> Option<Notice> {
    calls(timeline).filter(|(at, _)| (fault_at..closed_at).contains(at)).find_map(
        |(at_ns, call)| {
            let outcome = match (call.name, call.result) {
                (CallName::Read, Ok(0)) => Some(Outcome::Eof),
                (CallName::Read | CallName::Write, Err(errno)) if errno != Errno::EAGAIN => {
                    Some(Outcome::Errno(errno))
                }
                (CallName::Connect, Err(errno))
                    if errno != Errno::EINPROGRESS && errno != Errno::EALREADY =>
                {
                    Some(Outcome::Errno(errno))
                }
                // The program lets go by itself: with one, or with a timer of its own.
                (CallName::Heartbeat | CallName::Close, _) => None,
                _ => return None,
            };
            Some(Notice { at_ns, outcome })
        },
    )
}

/// When a program that does not report its calls closed its socket: its kernel sends the FIN then. One
/// that has shut down its direction has it still.
fn farewell(timeline: &Timeline, fault_at: u64, closed_at: u64) -> Option<Notice> {
    if first_called_at(timeline, fault_at, &[CallName::Shutdown]).is_some() {
        return None;
    }
    timeline
        .segments(Source::ClientWire)
        .find(|(at, segment)| {
            (fault_at..closed_at).contains(at) && segment.sent && segment.flags.fin
        })
        .map(|(at_ns, _)| Notice { at_ns, outcome: None })
}

/// What the kernel's tracepoints say: an error reported to the socket, or the peer's FIN.
fn traced(timeline: &Timeline, fault_at: u64, closed_at: u64) -> Option<(u64, Outcome)> {
    within(timeline, fault_at, closed_at).find_map(|event| match &event.what {
        What::Trace(Trace::ErrorReport { side: Side::Client, error }) => {
            Some((event.at_ns, Outcome::Errno(*error)))
        }
        // After a FIN of its own, the peer's does not lead to CLOSE_WAIT.
        What::Trace(Trace::SetState { side: Side::Client, new, .. })
            if new == "CLOSE_WAIT" || new == "CLOSING" =>
        {
            Some((event.at_ns, Outcome::Eof))
        }
        _ => None,
    })
}

/// When the tracepoints show that the client's kernel closed a socket that its program had not.
fn closed_by_kernel(timeline: &Timeline, fault_at: u64, closed_at: u64) -> Option<u64> {
    let is_end = |event: &&Event| {
        matches!(&event.what,
            What::Trace(Trace::SetState { side: Side::Client, new, .. }) if new == "CLOSE")
    };
    within(timeline, fault_at, closed_at).find(is_end).map(|event| event.at_ns)
}

/// What socket diagnostics say: when the socket was last seen alive, and first seen ended.
fn polled(timeline: &Timeline, fault_at: u64, closed_at: u64) -> Option<(u64, u64)> {
    let mut alive = fault_at;
    within(timeline, fault_at, closed_at)
        .filter(|event| event.source == Source::ClientSocket)
        .find_map(|event| match &event.what {
            What::SocketGone => Some((alive, event.at_ns)),
            What::Socket(sample) if ENDED.contains(&sample.state.as_str()) => {
                Some((alive, event.at_ns))
            }
            _ => {
                alive = event.at_ns;
                None
            }
        })
}

/// When the kernel let go of a connection that its program had closed: at the tracepoint, or,
/// where a mini-socket lives on (`tcp_time_wait`, net/ipv4/tcp_minisocks.c), when socket
/// diagnostics no longer showed that.
#[expect(clippy::type_complexity, reason = "the answers of `traced` and `polled`")]
fn released(
    timeline: &Timeline,
    fault_at: u64,
    closed_at: u64,
) -> (Option<(u64, Outcome)>, Option<(u64, u64)>) {
    let looks = || {
        within(timeline, fault_at, closed_at).filter(|event| event.source == Source::ClientSocket)
    };
    let Some(gone) = looks().find(|look| look.what == What::SocketGone) else {
        return (None, None);
    };
    let gone = gone.at_ns;
    let before = looks().take_while(|look| look.at_ns < gone).last();
    let alive = before.map_or(fault_at, |look| look.at_ns);
    let traced = within(timeline, alive, gone + 1).find_map(|event| match &event.what {
        What::Trace(Trace::SetState { side: Side::Client, new, .. }) if new == "CLOSE" => {
            Some((event.at_ns, Outcome::Released))
        }
        _ => None,
    });
    (traced, Some((alive, gone)))
}

/// States in which the client has been told, or will be by its next call.
const ENDED: &[&str] = &["CLOSE_WAIT", "CLOSE", "CLOSING", "LAST_ACK", "TIME_WAIT"];

/// When the segment that ended the connection came in, if one did.
fn cause_on_wire(timeline: &Timeline, fault_at: u64, before: u64) -> Option<u64> {
    timeline
        .segments(Source::ClientWire)
        .filter(|(at, segment)| {
            (fault_at..=before).contains(at)
                && !segment.sent
                && (segment.flags.fin || segment.flags.rst)
        })
        .map(|(at, _)| at)
        .next()
}

/// The last state that socket diagnostics showed before the client closed its socket.
fn last_state(timeline: &Timeline, source: Source, closed_at: u64) -> String {
    within(timeline, 0, closed_at)
        .filter(|event| event.source == source)
        .filter_map(|event| match &event.what {
            What::Socket(sample) => Some(sample.state.clone()),
            What::SocketGone => Some("CLOSE".into()),
            _ => None,
        })
        .last()
        .unwrap_or_else(|| "unknown".into())
}

/// Whether the server's host was destroyed.
pub(crate) fn server_is_gone(timeline: &Timeline) -> bool {
    timeline
        .events()
        .iter()
        .any(|event| event.what == What::Fault(FaultStep::Done(FaultAct::HostDestroyed)))
}

fn calls(timeline: &Timeline) -> impl Iterator<Item = (u64, &Call)> {
    timeline.events().iter().filter(|event| event.source == Source::ClientProgram).filter_map(
        |event| match &event.what {
            What::Call(call) => Some((event.at_ns, call)),
            _ => None,
        },
    )
}

fn within(timeline: &Timeline, from: u64, to: u64) -> impl Iterator<Item = &Event> {
    timeline.events().iter().filter(move |event| (from..to).contains(&event.at_ns))
}
