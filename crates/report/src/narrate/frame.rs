//! Names of frames that are not TCP.

use crate::narrate::{Note, Place, Tone};
use std::net::IpAddr;
use timeline::event::{Frame, FrameKind};

pub(super) fn note(frame: &Frame, place: Place) -> Option<Note> {
    let (text, tone) = match frame.kind {
        FrameKind::NeighbourRequest(IpAddr::V4(who)) => {
            (format!("ARP: who has {who}?"), Tone::Step)
        }
        FrameKind::NeighbourRequest(IpAddr::V6(who)) => {
            (format!("neighbour discovery: who has {who}?"), Tone::Step)
        }
        FrameKind::NeighbourReply(IpAddr::V4(who)) => (format!("ARP: {who} is here"), Tone::Step),
        FrameKind::NeighbourReply(IpAddr::V6(who)) => {
            (format!("neighbour discovery: {who} is here"), Tone::Step)
        }
        FrameKind::Icmp { kind, code, from, about_connection } => {
            let name = icmp_name(from.is_ipv6(), kind, code);
            if about_connection {
                (format!("ICMP {name}"), Tone::End)
            } else {
                (format!("ICMP {name}, not about this connection"), Tone::Quiet)
            }
        }
        FrameKind::Other { .. } => return None,
    };
    Some(Note { place, text, tone })
}

/// The name of an ICMP (RFC 792, RFC 1122 3.2.2.1, RFC 1812 5.2.7.1) or `ICMPv6` (RFC 4443) message.
fn icmp_name(v6: bool, kind: u8, code: u8) -> String {
    let name = match (v6, kind, code) {
        (false, 3, 0) => "net unreachable",
        (false, 3, 1) => "host unreachable",
        (false, 3, 2) => "protocol unreachable",
        (false, 3, 3) | (true, 1, 4) => "port unreachable",
        (false, 3, 4) => "fragmentation needed",
        (false, 3, 9 | 10 | 13) | (true, 1, 1) => "administratively prohibited",
        (false, 5, _) | (true, 137, _) => "redirect",
        (false, 8, _) | (true, 128, _) => "echo request",
        (false, 0, _) | (true, 129, _) => "echo reply",
        (false, 11, _) | (true, 3, _) => "time exceeded",
        (true, 1, 0) => "no route",
        (true, 1, 3) => "address unreachable",
        (true, 2, _) => "packet too big",
        _ => return format!("type {kind} code {code}"),
    };
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn icmp_says_what_it_means() {
        assert_eq!(icmp_name(false, 3, 1), "host unreachable");
        assert_eq!(icmp_name(true, 1, 3), "address unreachable");
        assert_eq!(icmp_name(false, 42, 7), "type 42 code 7");
    }

    #[test]
    fn a_message_about_something_else_is_said_to_be_so() {
        let from = "198.18.0.6".parse().unwrap();
        let kind = FrameKind::Icmp { kind: 3, code: 1, from, about_connection: false };
        let note = note(&Frame { sent: false, kind }, Place::ToClient).unwrap();
        assert_eq!(note.text, "ICMP host unreachable, not about this connection");
        assert_eq!(note.tone, Tone::Quiet);
    }
}
