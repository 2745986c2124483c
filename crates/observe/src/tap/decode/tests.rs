use super::{decode as decode_with_ends, *};
use etherparse::PacketBuilder;
use proptest::prelude::*;
use spec::{Family, Topology};

const CLIENT_PORT: u16 = 40_000;
const SERVER_PORT: u16 = 7;

fn addresses(family: Family) -> Addresses {
    Addresses::new(1, family, Topology::Switch, CLIENT_PORT, SERVER_PORT)
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4) | pair[1]).collect()
}

fn decode(frame: &[u8], wire_len: u32, sent: bool, addresses: &Addresses) -> What {
    decode_with_ends(frame, wire_len, sent, addresses).0
}

fn frame(kind: FrameKind) -> What {
    What::Frame(Frame { sent: true, kind })
}

/// A segment from the client.
fn segment_of(family: Family, data: usize) -> Vec<u8> {
    let Addresses { client, server, .. } = addresses(family);
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let ip = match (client.ip(), server.ip()) {
        (IpAddr::V4(c), IpAddr::V4(s)) => link.ipv4(c.octets(), s.octets(), 64),
        (IpAddr::V6(c), IpAddr::V6(s)) => link.ipv6(c.octets(), s.octets(), 64),
        _ => unreachable!(),
    };
    let builder = ip
        .tcp(CLIENT_PORT, SERVER_PORT, 1000, 501)
        .psh()
        .ack(2000)
        .options(&[etherparse::TcpOptionElement::Timestamp(1, 2)])
        .unwrap();
    let mut whole = Vec::new();
    builder.write(&mut whole, &vec![0; data]).unwrap();
    whole
}

/// The same, cut to `kept` bytes and decoded.
fn tcp(family: Family, data: usize, kept: usize) -> What {
    let whole = segment_of(family, data);
    let wire_len = whole.len() as u32;
    decode(&whole[..kept.min(whole.len())], wire_len, true, &addresses(family))
}

#[test]
fn segments_of_the_connection_with_options_and_their_true_length() {
    for family in [Family::Ipv4, Family::Ipv6] {
        for (data, kept) in [(0, 256), (100, 256), (1448, 256), (60_000, 96)] {
            let What::Segment(segment) = tcp(family, data, kept) else {
                panic!("{family}: {data} bytes, {kept} kept")
            };
            assert_eq!(segment.len, data as u32, "{family}, {kept} kept");
            assert_eq!((segment.seq, segment.ack, segment.window), (1000, 2000, 501));
            assert_eq!(segment.flags.to_string(), "PSH ACK");
            assert!(segment.sent);
        }
    }
}

#[test]
fn a_segment_cut_inside_its_header_is_another_frame() {
    assert_eq!(tcp(Family::Ipv4, 100, 40), frame(FrameKind::Other { ethertype: 0x0800 }));
    assert_eq!(tcp(Family::Ipv6, 100, 60), frame(FrameKind::Other { ethertype: 0x86dd }));
}

#[test]
fn a_segment_too_long_for_its_length_field_reaches_to_the_end_of_the_frame() {
    // total length 0, 20 bytes of TCP header, ACK.
    let hex = "020000000002 020000000001 0800 4500 0000 0001 4000 4006 0000 c6120011 c6120012
        9c40 0007 000003e8 000007d0 5010 01f5 0000 0000";
    let What::Segment(segment) = decode(&bytes(hex), 54 + 80_000, false, &addresses(Family::Ipv4))
    else {
        panic!("not a segment")
    };
    assert_eq!(segment.len, 80_000);
    assert!(!segment.sent);
}

#[test]
fn connections_between_the_hosts_are_told_by_their_ports() {
    let hex = "020000000002 020000000001 0800 4500 0028 0001 4000 4006 0000 c6120011 c6120012
        9c41 0008 000003e8 000007d0 5010 01f5 0000 0000";
    let here = addresses(Family::Ipv4);
    let (decoded, ends) = decode_with_ends(&bytes(hex), 54, true, &here);
    assert!(matches!(decoded, What::Segment(_)), "{decoded:?}");
    let ends = ends.unwrap();
    assert_eq!((ends.client.port(), ends.server.port()), (CLIENT_PORT + 1, 8));

    let elsewhere = Addresses::new(2, Family::Ipv4, Topology::Switch, CLIENT_PORT, SERVER_PORT);
    let decoded = decode_with_ends(&bytes(hex), 54, true, &elsewhere);
    assert_eq!(decoded, (frame(FrameKind::Other { ethertype: 0x0800 }), None));
}

#[test]
fn arp() {
    let request = "ffffffffffff 020000000001 0806 0001 0800 06 04 0001
        020000000001 c6120011 000000000000 c6120012";
    let reply = "020000000001 020000000002 0806 0001 0800 06 04 0002
        020000000002 c6120012 020000000001 c6120011";
    let server = addresses(Family::Ipv4).server.ip();
    for (hex, kind) in
        [(request, FrameKind::NeighbourRequest(server)), (reply, FrameKind::NeighbourReply(server))]
    {
        let whole = bytes(hex);
        assert_eq!(decode(&whole, 42, true, &addresses(Family::Ipv4)), frame(kind));
        let cut = decode(&whole[..30], 42, true, &addresses(Family::Ipv4));
        assert_eq!(cut, frame(FrameKind::Other { ethertype: 0x0806 }), "cut");
    }
}

#[test]
fn neighbour_discovery() {
    let ends = "2001000200000002 0000000000000001 2001000200000002 0000000000000002";
    let solicitation = format!(
        "020000000002 020000000001 86dd 60000000 0018 3a ff {ends}
         87 00 0000 00000000 2001000200000002 0000000000000002"
    );
    let advertisement = solicitation.replace("87 00 0000 0", "88 00 0000 6");
    let server = addresses(Family::Ipv6).server.ip();
    for (hex, kind) in [
        (solicitation, FrameKind::NeighbourRequest(server)),
        (advertisement, FrameKind::NeighbourReply(server)),
    ] {
        assert_eq!(decode(&bytes(&hex), 78, true, &addresses(Family::Ipv6)), frame(kind));
    }
}

/// Host unreachable from 198.18.0.22, quoting an IP header and the first eight bytes of TCP.
fn unreachable(to: &str) -> Vec<u8> {
    bytes(&format!(
        "020000000001 020000000002 0800 4500 0038 0001 0000 4001 0000 c6120016 c6120011
         03 01 0000 00000000
         4500 00dc 0001 4000 4006 0000 c6120011 {to} 9c40 0007 000003e8"
    ))
}

#[test]
fn icmp_errors_are_checked_against_the_connection() {
    for (to, about_connection) in [("c6120012", true), ("c6120013", false)] {
        let from = "198.18.0.22".parse().unwrap();
        let kind = FrameKind::Icmp { kind: 3, code: 1, from, about_connection };
        let here = addresses(Family::Ipv4);
        let (decoded, ends) = decode_with_ends(&unreachable(to), 70, true, &here);
        assert_eq!(decoded, frame(kind));
        let quoted = Ends { client: here.client, server: here.server };
        assert_eq!(ends, about_connection.then_some(quoted));
    }
}

/// Address unreachable, quoting a whole TCP header.
const UNREACHABLE_V6: &str = "020000000001 020000000002 86dd 60000000 003c 3a 40
    20010002000000020000000000000006 20010002000000020000000000000001
    01 03 0000 00000000
    60000000 0014 06 40
    20010002000000020000000000000001 20010002000000020000000000000002
    9c40 0007 000003e8 00000000 5010 01f5";

#[test]
fn icmpv6_errors_are_checked_against_the_connection() {
    let kind = FrameKind::Icmp {
        kind: 1,
        code: 3,
        from: "2001:2:0:2::6".parse().unwrap(),
        about_connection: true,
    };
    assert_eq!(decode(&bytes(UNREACHABLE_V6), 114, true, &addresses(Family::Ipv6)), frame(kind));
}

#[test]
fn tagged_frames_and_garbage() {
    let tagged = "020000000002 020000000001 8100 0005 0800 4500 0028 0001 4000 4006 0000
        c6120011 c6120012 9c40 0007 000003e8 000007d0 5010 01f5 0000 0000";
    let decoded = decode(&bytes(tagged), 58, true, &addresses(Family::Ipv4));
    assert!(matches!(decoded, What::Segment(Segment { seq: 1000, len: 0, .. })), "{decoded:?}");
    for short in [&[][..], &[0; 13], &[0; 14]] {
        let decoded = decode(short, short.len() as u32, true, &addresses(Family::Ipv4));
        assert_eq!(decoded, frame(FrameKind::Other { ethertype: 0 }));
    }
}

proptest! {
    #[test]
    fn foreign_frames_are_read(
        kind in prop::sample::select(vec![0x0800_u16, 0x86dd, 0x0806, 0x8100, 0x88a8, 0x88e5]),
        rest in prop::collection::vec(any::<u8>(), 0..300),
        first in any::<u8>(),
        wire_len in any::<u32>(),
    ) {
        let mut frame = vec![2; 12];
        frame.extend(kind.to_be_bytes());
        // Mostly plausible first bytes: IPv4 or IPv6, and TCP or ICMP.
        frame.push(match first % 3 { 0 => 0x45, 1 => 0x60, _ => first });
        frame.extend(&rest);
        if let Some(byte) = frame.get_mut(14 + 9) {
            *byte = [1, 6, 58, first][usize::from(first % 4)];
        }
        decode(&frame, wire_len, true, &addresses(Family::Ipv4));
        decode(&rest, wire_len, false, &addresses(Family::Ipv6));
    }

    #[test]
    fn damaged_foreign_frames_are_read(
        frame in prop_oneof![
            damage::bytes(segment_of(Family::Ipv4, 20)),
            damage::bytes(segment_of(Family::Ipv6, 20)),
            damage::bytes(unreachable("c6120012")),
            damage::bytes(bytes(UNREACHABLE_V6)),
        ],
        wire_len in prop_oneof![0..2000_u32, any::<u32>()],
        sent in any::<bool>(),
    ) {
        for family in [Family::Ipv4, Family::Ipv6] {
            decode(&frame, wire_len, sent, &addresses(family));
        }
    }
}
