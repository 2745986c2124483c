use super::*;
use crate::samples;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block as Parsed, PcapNgReader};
use timeline::Segment;

/// 2026-11-22, so that a reader sees a plausible date.
const WALL_OFFSET_NS: u64 = 1_795_000_000_000_000_000;

fn file(trial: &Trial) -> Vec<u8> {
    let frames: Vec<_> = trial
        .timeline
        .events()
        .iter()
        .filter_map(|event| match &event.what {
            What::Segment(segment) => Some((event, ethernet(segment))),
            _ => None,
        })
        .collect();
    let packets: Vec<_> = frames
        .iter()
        .map(|(event, frame)| Packet {
            event,
            wall_ns: event.at_ns + WALL_OFFSET_NS,
            frame: &frame[..frame.len().min(77)], // a length that needs padding
            wire_len: frame.len() as u32,
        })
        .collect();
    capture(trial, &packets)
}

/// A frame between the two hosts, without checksums.
fn ethernet(segment: &Segment) -> Vec<u8> {
    let from_client = segment.source_port == 40_000;
    let [client, server] = [1_u8, 2];
    let [from, to] = if from_client { [client, server] } else { [server, client] };
    let mut frame = vec![2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 8, 0];
    frame.extend([0x45, 0]);
    frame.extend((40 + segment.len as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 198, 18, 0, from, 198, 18, 0, to]);
    frame.extend(segment.source_port.to_be_bytes());
    frame.extend(segment.destination_port.to_be_bytes());
    frame.extend(segment.seq.to_be_bytes());
    frame.extend(segment.ack.to_be_bytes());
    let flags = segment.flags;
    let bits = [flags.fin, flags.syn, flags.rst, flags.psh, flags.ack]
        .iter()
        .enumerate()
        .fold(0_u8, |bits, (n, set)| bits | (u8::from(*set) << n));
    frame.extend([0x50, bits]);
    frame.extend(segment.window.to_be_bytes());
    frame.extend([0, 0, 0, 0]);
    frame.resize(frame.len() + segment.len as usize, b'x');
    frame
}

struct Read {
    interface: u32,
    at: std::time::Duration,
    original_len: u32,
    comments: Vec<String>,
}

fn read_back(bytes: &[u8]) -> (Vec<String>, Vec<Read>) {
    let mut reader = PcapNgReader::new(bytes).unwrap();
    let (mut interfaces, mut packets) = (vec![], vec![]);
    while let Some(block) = reader.next_block() {
        match block.unwrap() {
            Parsed::InterfaceDescription(interface) => interfaces.push(format!("{interface:?}")),
            Parsed::EnhancedPacket(packet) => packets.push(Read {
                interface: packet.interface_id,
                at: packet.timestamp,
                original_len: packet.original_len,
                comments: packet
                    .options
                    .iter()
                    .filter_map(|option| match option {
                        EnhancedPacketOption::Comment(text) => Some(text.to_string()),
                        _ => None,
                    })
                    .collect(),
            }),
            other => panic!("an unexpected block: {other:?}"),
        }
    }
    (interfaces, packets)
}

#[test]
fn another_reader_finds_two_interfaces_and_every_packet() {
    let trial = samples::keepalive();
    let (interfaces, packets) = read_back(&file(&trial));
    assert_eq!(interfaces.len(), 2);
    for (interface, name) in interfaces.iter().zip(["client", "server"]) {
        assert!(interface.contains(&format!("IfName(\"{name}\")")), "{interface}");
    }
    for (tap, id) in [(Source::ClientWire, 0), (Source::ServerWire, 1)] {
        let expected: Vec<_> = trial.timeline.segments(tap).collect();
        let found: Vec<_> = packets.iter().filter(|packet| packet.interface == id).collect();
        assert_eq!(found.len(), expected.len());
        for (packet, (at_ns, segment)) in found.iter().zip(expected) {
            assert_eq!(packet.at.as_nanos(), u128::from(at_ns + WALL_OFFSET_NS));
            assert_eq!(packet.original_len, 54 + segment.len);
        }
    }
}

#[test]
fn the_packets_that_matter_have_comments() {
    let comments = |trial: &Trial| -> Vec<String> {
        let (_, packets) = read_back(&file(trial));
        let line = |packet: Read| {
            assert!(packet.comments.len() < 2);
            let tap = if packet.interface == 0 { "client" } else { "server" };
            packet.comments.first().map(|comment| format!("{tap}: {comment}"))
        };
        packets.into_iter().filter_map(line).collect()
    };
    let all = [samples::keepalive(), samples::sending(), samples::crash()]
        .map(|trial| format!("{}\n{}\n", trial.experiment.name, comments(&trial).join("\n")));
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn a_file_for_people_to_open() {
    insta::assert_binary_snapshot!(".pcapng", file(&samples::sending()));
}

#[test]
fn a_text_longer_than_an_option_is_cut_between_characters() {
    let mut block = Block::new(1);
    block.option(COMMENT, "µ".repeat(40_000).as_bytes());
    let bytes = block.finish();
    assert_eq!(u16::from_le_bytes([bytes[10], bytes[11]]), 65_534);
    assert_eq!(bytes.len() % 4, 0);
}
