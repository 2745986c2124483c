//! From a frame's bytes to what it means for the connection. Never fails: what cannot be read is
//! [`FrameKind::Other`].

use etherparse::{
    ArpOperation, ArpPacketSlice, Icmpv4Slice, Icmpv6Slice, IpNumber, LaxIpPayloadSlice,
    LaxIpSlice, LaxNetSlice, LaxSlicedPacket, TcpHeaderSlice, ether_type,
};
use spec::Addresses;
use std::net::{IpAddr, SocketAddr};
use timeline::event::{Frame, FrameKind};
use timeline::{Ends, Flags, Segment, What};

/// What a frame is, and the ends of the connection that it is about. `frame` may be shorter than
/// `wire_len`: only its first bytes were kept.
pub(super) fn decode(
    frame: &[u8],
    wire_len: u32,
    sent: bool,
    addresses: &Addresses,
) -> (What, Option<Ends>) {
    let framed = |kind: Option<FrameKind>| {
        What::Frame(Frame { sent, kind: kind.unwrap_or_else(|| other(frame)) })
    };
    let ip = match LaxSlicedPacket::from_ethernet(frame).ok().and_then(|packet| packet.net) {
        Some(LaxNetSlice::Arp(arp)) => return (framed(arp_kind(&arp)), None),
        Some(LaxNetSlice::Ipv4(ip)) => LaxIpSlice::Ipv4(ip),
        Some(LaxNetSlice::Ipv6(ip)) => LaxIpSlice::Ipv6(ip),
        None => return (framed(None), None),
    };
    if let Some((segment, ends)) = segment(&ip, frame, wire_len, sent, addresses) {
        return (What::Segment(segment), Some(ends));
    }
    let (kind, ends) = icmp(&ip, addresses);
    (framed(kind), ends)
}

fn icmp(ip: &LaxIpSlice<'_>, addresses: &Addresses) -> (Option<FrameKind>, Option<Ends>) {
    let (payload, from) = (ip.payload(), ip.source_addr());
    let found = match payload.ip_number {
        _ if payload.fragmented => None,
        IpNumber::ICMP => icmpv4_kind(payload.payload, from, addresses),
        IpNumber::IPV6_ICMP => icmpv6_kind(payload.payload, from, addresses),
        _ => None,
    };
    found.map_or((None, None), |(kind, ends)| (Some(kind), ends))
}

/// The segment, if it is between the trial's two hosts, and the connection's ends.
fn segment(
    ip: &LaxIpSlice<'_>,
    frame: &[u8],
    wire_len: u32,
    sent: bool,
    addresses: &Addresses,
) -> Option<(Segment, Ends)> {
    let payload = ip.payload();
    if payload.ip_number != IpNumber::TCP || payload.fragmented {
        return None;
    }
    let tcp = TcpHeaderSlice::from_slice(payload.payload).ok()?;
    let source = SocketAddr::new(ip.source_addr(), tcp.source_port());
    let destination = SocketAddr::new(ip.destination_addr(), tcp.destination_port());
    let (ends, _) = Ends::between(addresses, source, destination)?;
    let segment = Segment {
        sent,
        source_port: tcp.source_port(),
        destination_port: tcp.destination_port(),
        seq: tcp.sequence_number(),
        ack: tcp.acknowledgment_number(),
        flags: Flags::from_bits(tcp.slice()[13]),
        window: tcp.window_size(),
        len: payload_len(ip, frame, wire_len).saturating_sub(tcp.slice().len() as u32),
    };
    Some((segment, ends))
}

/// How long the IP header says that its payload is, however little of it was kept. A segment too
/// long for the field (BIG TCP) says 0: then it reaches to the end of the frame.
fn payload_len(ip: &LaxIpSlice<'_>, frame: &[u8], wire_len: u32) -> u32 {
    let declared = match ip {
        LaxIpSlice::Ipv4(v4) => {
            let headers = v4.header().slice().len() as u32;
            (v4.header().total_len() > 0)
                .then(|| u32::from(v4.header().total_len()).saturating_sub(headers))
        }
        LaxIpSlice::Ipv6(v6) => {
            let extensions = v6.extensions().slice().len() as u32;
            (v6.header().payload_length() > 0)
                .then(|| u32::from(v6.header().payload_length()).saturating_sub(extensions))
        }
    };
    declared.unwrap_or_else(|| {
        let before = ip.payload().payload.as_ptr().addr() - frame.as_ptr().addr();
        wire_len.saturating_sub(before as u32)
    })
}

fn other(frame: &[u8]) -> FrameKind {
    let ethertype = frame.get(12..14).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    FrameKind::Other { ethertype }
}

fn arp_kind(arp: &ArpPacketSlice<'_>) -> Option<FrameKind> {
    let address = |bytes: &[u8]| Some(IpAddr::from(*bytes.first_chunk::<4>()?));
    match arp.operation() {
        _ if arp.proto_addr_type() != ether_type::IPV4 => None,
        ArpOperation::REQUEST => {
            address(arp.target_protocol_addr()).map(FrameKind::NeighbourRequest)
        }
        ArpOperation::REPLY => address(arp.sender_protocol_addr()).map(FrameKind::NeighbourReply),
        _ => None,
    }
}

fn icmpv4_kind(
    message: &[u8],
    from: IpAddr,
    addresses: &Addresses,
) -> Option<(FrameKind, Option<Ends>)> {
    let icmp = Icmpv4Slice::from_slice(message).ok()?;
    // Unreachable, source quench, redirect, time exceeded, parameter problem: RFC 792.
    let is_error = matches!(icmp.type_u8(), 3 | 4 | 5 | 11 | 12);
    let ends = quoted(&message[8..], addresses).filter(|_| is_error);
    Some((icmp_frame(icmp.type_u8(), icmp.code_u8(), from, ends), ends))
}

fn icmp_frame(kind: u8, code: u8, from: IpAddr, ends: Option<Ends>) -> FrameKind {
    FrameKind::Icmp { kind, code, from, about_connection: ends.is_some() }
}

fn icmpv6_kind(
    message: &[u8],
    from: IpAddr,
    addresses: &Addresses,
) -> Option<(FrameKind, Option<Ends>)> {
    const NEIGHBOUR_SOLICITATION: u8 = 135;
    const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    let icmp = Icmpv6Slice::from_slice(message).ok()?;
    let target = || Some(IpAddr::from(*message.get(8..)?.first_chunk::<16>()?));
    match icmp.type_u8() {
        NEIGHBOUR_SOLICITATION => Some((FrameKind::NeighbourRequest(target()?), None)),
        NEIGHBOUR_ADVERTISEMENT => Some((FrameKind::NeighbourReply(target()?), None)),
        kind => {
            // Errors are the types below 128: RFC 4443, section 2.1.
            let ends = quoted(&message[8..], addresses).filter(|_| kind < 128);
            Some((icmp_frame(kind, icmp.code_u8(), from, ends), ends))
        }
    }
}

/// The ends of the connection whose packet an ICMP error quotes. Its ports are enough: an error
/// need not quote more than the first eight bytes after the IP header (RFC 792).
fn quoted(quoted: &[u8], addresses: &Addresses) -> Option<Ends> {
    let (ip, _) = LaxIpSlice::from_slice(quoted).ok()?;
    let LaxIpPayloadSlice { ip_number: IpNumber::TCP, payload, .. } = *ip.payload() else {
        return None;
    };
    let [a, b, c, d] = payload.first_chunk().copied()?;
    let source = SocketAddr::new(ip.source_addr(), u16::from_be_bytes([a, b]));
    let destination = SocketAddr::new(ip.destination_addr(), u16::from_be_bytes([c, d]));
    Ends::between(addresses, source, destination).map(|(ends, _)| ends)
}

#[cfg(test)]
mod tests;
