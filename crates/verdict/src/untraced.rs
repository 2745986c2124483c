//! What a kernel has told a program that reports nothing, where no tracepoint says it: by the states of
//! the socket, and by what the wire showed before it was gone.

use spec::{Errno, Outcome};
use std::net::IpAddr;
use timeline::classify::{Class, classified};
use timeline::event::{Frame, FrameKind};
use timeline::{Event, Source, Timeline, What};

/// How a connection ended that socket diagnostics saw `alive` at the one moment and `gone` at the other;
/// `None`: its program closed it, or tracepoints tell.
pub(crate) fn outcome(timeline: &Timeline, (alive, gone): (u64, u64)) -> Option<Outcome> {
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
    Some(Outcome::Errno(error.unwrap_or(Errno::ETIMEDOUT)))
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
