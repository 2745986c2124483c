//! What a kernel has told a program that reports nothing, where no tracepoint says it: by the states of
//! the socket, and by what the wire showed before it was gone.

use spec::{Errno, Facts, Outcome};
use std::net::IpAddr;
use timeline::classify::{Class, classified};
use timeline::event::{Frame, FrameKind};
use timeline::{Event, Source, Timeline, What};

/// How a connection ended that socket diagnostics saw `alive` at the one moment and `gone` at the other;
/// `None`: its program closed it, or tracepoints tell.
pub(crate) fn outcome(
    timeline: &Timeline,
    facts: &Facts,
    (alive, gone): (u64, u64),
) -> Option<Outcome> {
    if timeline.events().iter().any(|event| matches!(event.what, What::Trace(_))) {
        return None;
    }
    let mut wire = Wire::default();
    let segments = classified(timeline, Source::ClientWire);
    for (at_ns, segment, class) in segments.filter(|(at_ns, ..)| *at_ns <= gone) {
        match (segment.sent, segment.flags.rst) {
            // `tcp_reset` (net/ipv4/tcp_input.c).
            (false, true) if wire.heard_at.is_none() => {
                return Some(Outcome::Errno(Errno::ECONNREFUSED));
            }
            (false, true) => return Some(Outcome::Errno(Errno::ECONNRESET)),
            (true, true) => wire.has_reset = at_ns > alive,
            (true, false) => {
                wire.has_probed |= matches!(class, Class::KeepaliveProbe { .. });
                wire.has_stale |=
                    matches!(class, Class::KeepaliveProbe { .. } | Class::WindowProbe { .. });
            }
            (false, false) if segment.flags.fin => return Some(Outcome::Eof),
            (false, false) => wire = Wire { heard_at: Some(at_ns), ..Wire::default() },
        }
    }
    // `tcp_keepalive_timer` sends a RST, too; no other timer of an established connection does.
    if wire.has_reset && !wire.has_probed {
        return None;
    }
    let since = wire.heard_at.unwrap_or(0);
    let events = timeline.events().iter().filter(|event| (since..=gone).contains(&event.at_ns));
    // `tcp_v4_err` takes no error about what was acknowledged long ago, as a probe's number is.
    let error = soft_error(events).filter(|_| !wire.has_stale);
    if error.is_none() && is_given_up(timeline, facts, (alive, gone)) {
        return None;
    }
    Some(Outcome::Errno(error.unwrap_or(Errno::ETIMEDOUT)))
}

/// Whether an attempt to connect was gone before its kernel gives up (`tcp_write_timeout`,
/// net/ipv4/tcp_timer.c). A program that closes it leaves nothing on the wire (`tcp_need_reset`,
/// net/ipv4/tcp.c).
fn is_given_up(timeline: &Timeline, facts: &Facts, (alive, gone): (u64, u64)) -> bool {
    let options = facts.tcp.as_ref().and_then(|tcp| tcp.options_set.as_ref());
    let Some((tries, timeout_ms)) = options.and_then(|set| set.syncnt.zip(set.user_timeout_ms))
    else {
        return false;
    };
    let tries_again = timeline.events().iter().any(|event| {
        let What::Socket(sample) = &event.what else { return false };
        let is_last = event.source == Source::ClientSocket && event.at_ns == alive;
        is_last && sample.state == "SYN_SENT" && u32::from(sample.timer_count) < tries
    });
    let began = timeline.segments(Source::ClientWire).find(|(_, segment)| segment.sent);
    let asked_ms = began.map_or(0, |(at_ns, _)| gone.saturating_sub(at_ns) / 1_000_000);
    let has_time = timeout_ms == 0 || asked_ms < timeout_ms.into();
    tries_again && has_time
}

/// What the wire showed since a segment last came in.
#[derive(Default)]
struct Wire {
    heard_at: Option<u64>,
    has_probed: bool,
    /// A probe, whose sequence number is one that was acknowledged.
    has_stale: bool,
    has_reset: bool,
}

/// `sk_err_soft`, which a timeout reports in place of ETIMEDOUT: the last ICMP error, or that the next
/// hop's link-layer address was asked for in vain.
fn soft_error<'a>(events: impl Iterator<Item = &'a Event>) -> Option<Errno> {
    let mut error = None;
    for event in events.filter(|event| event.source == Source::ClientWire) {
        let What::Frame(Frame { sent, kind }) = &event.what else { continue };
        match (sent, kind) {
            (true, FrameKind::NeighbourRequest(_)) => error = Some(Errno::EHOSTUNREACH),
            (false, FrameKind::NeighbourReply(_)) => error = None,
            (false, FrameKind::Icmp { kind, code, from, about_connection: true }) => {
                error = of_icmp(*from, *kind, *code).or(error);
            }
            _ => {}
        }
    }
    error
}

/// `icmp_err_convert` (net/ipv4/icmp.c) and `icmpv6_err_convert` (net/ipv6/icmp.c), of destinations that
/// cannot be reached.
const fn of_icmp(from: IpAddr, kind: u8, code: u8) -> Option<Errno> {
    match (from, kind, code) {
        (IpAddr::V4(_), 3, 0 | 6 | 9 | 11) | (IpAddr::V6(_), 1, 0) => Some(Errno::ENETUNREACH),
        (IpAddr::V4(_), 3, 1 | 10 | 12..=15) | (IpAddr::V6(_), 1, 2 | 3) => {
            Some(Errno::EHOSTUNREACH)
        }
        (IpAddr::V4(_), 3, 3) | (IpAddr::V6(_), 1, 4) => Some(Errno::ECONNREFUSED),
        (IpAddr::V6(_), 1, 1 | 5 | 6) => Some(Errno::EACCES),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::Parameters;
    use spec::facts::TcpFacts;
    use timeline::event::SocketSample;
    use timeline::{Flags, Segment};

    const S: u64 = 1_000_000_000;

    fn segment(sent: bool, flags: Flags) -> What {
        let (source_port, destination_port) = if sent { (40_000, 7) } else { (7, 40_000) };
        What::Segment(Segment {
            sent,
            source_port,
            destination_port,
            seq: 1,
            ack: 1,
            flags,
            window: 502,
            len: 0,
        })
    }

    /// An attempt to connect that has sent so many SYNs again and is gone 2 s after the first, of a socket
    /// that may send six again and has this user timeout, milliseconds.
    fn attempt(timer_count: u8, user_timeout_ms: u32) -> Option<Outcome> {
        let mut facts = model::nominal_facts(&Parameters::default(), 250);
        let options = spec::SocketOptions {
            syncnt: Some(6),
            user_timeout_ms: Some(user_timeout_ms),
            ..spec::SocketOptions::default()
        };
        facts.tcp = Some(TcpFacts { options_set: Some(options), ..TcpFacts::default() });
        let sample = SocketSample {
            state: "SYN_SENT".into(),
            timer: 1,
            timer_count,
            ..SocketSample::default()
        };
        let syn = segment(true, Flags { syn: true, ..Flags::default() });
        let events = vec![
            Event::new(S, Source::ClientWire, syn),
            Event::new(2 * S, Source::ClientSocket, What::Socket(Box::new(sample))),
            Event::new(3 * S, Source::ClientSocket, What::SocketGone),
        ];
        outcome(&Timeline::new(events), &facts, (2 * S, 3 * S))
    }

    #[test]
    fn an_attempt_that_would_have_gone_on_was_given_up_by_its_program() {
        let timed_out = Some(Outcome::Errno(Errno::ETIMEDOUT));
        assert_eq!(attempt(1, 0), None);
        assert_eq!(attempt(6, 0), timed_out);
        assert_eq!(attempt(1, 60_000), None);
        assert_eq!(attempt(1, 1_500), timed_out);
    }
}
