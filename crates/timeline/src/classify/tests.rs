use super::*;
use crate::segment::Flags;
use Class::{Ack, Data, Fin, KeepaliveProbe, ProbeAnswer, Reset, Retransmission, Syn, SynAck};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const FIN: u8 = 0x11;
const RST: u8 = 0x14;
const DATA: u8 = 0x18;

/// `sent` by the client, flags, seq, ack, len, window.
type Row = (bool, u8, u32, u32, u32, u16);

fn segment((sent, bits, seq, ack, len, window): Row) -> Segment {
    let (source_port, destination_port) = if sent { (40_000, 7) } else { (7, 40_000) };
    let flags = Flags::from_bits(bits);
    Segment { sent, source_port, destination_port, seq, ack, flags, window, len }
}

/// Sequence numbers count from the SYN of their sender, so that a table can be read; here they
/// are moved to where the sender really began.
fn moved(row: Row, client_isn: u32, server_isn: u32) -> Segment {
    let mut segment = segment(row);
    let (own, other) = if row.0 { (client_isn, server_isn) } else { (server_isn, client_isn) };
    segment.seq = segment.seq.wrapping_add(own);
    if segment.flags.ack {
        segment.ack = segment.ack.wrapping_add(other);
    }
    segment
}

/// Checks a table for sequence numbers that begin anywhere, and at both taps.
fn check(table: &[(Row, Class)]) {
    let starts = [0, 1, 77_777, u32::MAX, u32::MAX - 1, u32::MAX - 100, u32::MAX - 250, 1 << 31];
    for client_isn in starts {
        for server_isn in starts {
            for tap in [Side::Client, Side::Server] {
                let mut classifier = Classifier::new(tap);
                for (line, (row, expected)) in table.iter().enumerate() {
                    let mut segment = moved(*row, client_isn, server_isn);
                    segment.sent ^= tap == Side::Server;
                    assert_eq!(
                        classifier.feed(None, &segment),
                        *expected,
                        "line {line} at the {tap:?}'s tap, from {client_isn} and {server_isn}"
                    );
                }
            }
        }
    }
}

const OPEN: [(Row, Class); 5] = [
    ((true, SYN, 0, 0, 0, 64240), Syn { n: 1 }),
    ((false, SYN | ACK, 0, 1, 0, 65160), SynAck { n: 1 }),
    ((true, ACK, 1, 1, 0, 502), Ack),
    ((true, DATA, 1, 1, 100, 502), Data { bytes: 100 }),
    ((false, ACK, 1, 101, 0, 509), Ack),
];

fn after_opening(rest: &[(Row, Class)]) {
    check(&[&OPEN[..], rest].concat());
}

fn again(n: u32, bytes: u32) -> Class {
    Retransmission { n, bytes, oldest: true }
}

#[test]
fn probes_of_a_dead_peer_are_numbered_and_the_reset_is_none_of_them() {
    after_opening(&[
        ((true, ACK, 100, 1, 0, 502), KeepaliveProbe { n: 1 }),
        ((true, ACK, 100, 1, 0, 502), KeepaliveProbe { n: 2 }),
        ((true, ACK, 100, 1, 0, 502), KeepaliveProbe { n: 3 }),
        ((true, RST, 101, 1, 0, 502), Reset),
    ]);
}

#[test]
fn an_answer_begins_the_count_again() {
    after_opening(&[
        ((true, ACK, 100, 1, 0, 502), KeepaliveProbe { n: 1 }),
        ((false, ACK, 1, 101, 0, 509), ProbeAnswer),
        ((true, ACK, 100, 1, 0, 502), KeepaliveProbe { n: 1 }),
        ((true, ACK, 100, 1, 0, 502), KeepaliveProbe { n: 2 }),
        ((false, ACK, 1, 101, 0, 509), ProbeAnswer),
        ((false, ACK, 1, 101, 0, 509), Ack),
    ]);
}

#[test]
fn a_probe_before_any_data_stands_at_the_syn() {
    check(&[
        OPEN[0],
        OPEN[1],
        OPEN[2],
        ((true, ACK, 0, 1, 0, 502), KeepaliveProbe { n: 1 }),
        ((false, ACK, 0, 1, 0, 502), KeepaliveProbe { n: 1 }),
        ((false, ACK, 1, 1, 0, 502), ProbeAnswer),
    ]);
}

#[test]
fn a_probe_of_other_systems_has_one_byte() {
    after_opening(&[
        ((true, ACK, 100, 1, 1, 502), KeepaliveProbe { n: 1 }),
        ((true, ACK, 100, 1, 1, 502), KeepaliveProbe { n: 2 }),
    ]);
}

#[test]
fn a_single_byte_sent_again_is_no_probe() {
    after_opening(&[
        ((true, DATA, 101, 1, 1, 502), Data { bytes: 1 }),
        ((true, DATA, 101, 1, 1, 502), again(1, 1)),
        ((false, ACK, 1, 102, 0, 509), Ack),
        ((true, ACK, 101, 1, 0, 502), KeepaliveProbe { n: 1 }),
    ]);
}

#[test]
fn one_write_to_a_dead_peer_is_sent_again_and_again() {
    after_opening(&[
        ((true, DATA, 101, 1, 100, 502), Data { bytes: 100 }),
        ((true, DATA, 101, 1, 100, 502), again(1, 100)),
        ((true, DATA, 101, 1, 100, 502), again(2, 100)),
        ((true, DATA, 101, 1, 100, 502), again(3, 100)),
    ]);
}

#[test]
fn a_tail_loss_probe_of_several_segments_does_not_begin_at_the_oldest_byte() {
    after_opening(&[
        ((true, DATA, 101, 1, 100, 502), Data { bytes: 100 }),
        ((true, DATA, 201, 1, 100, 502), Data { bytes: 100 }),
        ((true, DATA, 201, 1, 100, 502), Retransmission { n: 1, bytes: 100, oldest: false }),
        // A timeout may merge what was sent in small pieces (tcp_retrans_try_collapse).
        ((true, DATA, 101, 1, 200, 502), again(2, 200)),
        ((true, DATA, 301, 1, 100, 502), Data { bytes: 100 }),
        ((true, DATA, 101, 1, 300, 502), again(3, 300)),
    ]);
}

#[test]
fn an_acknowledgement_of_something_new_begins_the_count_again() {
    after_opening(&[
        ((true, DATA, 101, 1, 100, 502), Data { bytes: 100 }),
        ((true, DATA, 101, 1, 100, 502), again(1, 100)),
        ((false, ACK, 1, 101, 0, 509), Ack),
        ((true, DATA, 101, 1, 100, 502), again(2, 100)),
        ((false, ACK, 1, 201, 0, 509), Ack),
        ((true, DATA, 201, 1, 100, 502), Data { bytes: 100 }),
        ((true, DATA, 201, 1, 100, 502), again(1, 100)),
    ]);
}

#[test]
fn a_super_packet_is_one_range_and_part_of_it_sent_again_is_not_new() {
    after_opening(&[
        ((true, DATA, 101, 1, 14_480, 502), Data { bytes: 14_480 }),
        ((true, DATA, 101, 1, 1448, 502), again(1, 1448)),
        ((false, ACK, 1, 1549, 0, 509), Ack),
        ((true, DATA, 1549, 1, 13_032, 502), again(1, 13_032)),
        ((true, DATA, 14_581, 1, 2896, 502), Data { bytes: 2896 }),
    ]);
}

#[test]
fn a_closed_window_is_probed() {
    after_opening(&[
        ((true, DATA, 101, 1, 100, 502), Data { bytes: 100 }),
        ((false, ACK, 1, 201, 0, 0), Ack),
        ((true, ACK, 200, 1, 0, 502), Class::WindowProbe { n: 1, since_closed: 1 }),
        ((false, ACK, 1, 201, 0, 0), ProbeAnswer),
        // What ends a connection is a number of probes in a row that nobody answers.
        ((true, ACK, 200, 1, 0, 502), Class::WindowProbe { n: 1, since_closed: 2 }),
        ((true, ACK, 200, 1, 0, 502), Class::WindowProbe { n: 2, since_closed: 3 }),
        ((false, ACK, 1, 201, 0, 509), ProbeAnswer),
        ((true, ACK, 200, 1, 0, 502), KeepaliveProbe { n: 1 }),
        ((false, ACK, 1, 201, 0, 0), ProbeAnswer),
        ((true, ACK, 200, 1, 0, 502), Class::WindowProbe { n: 1, since_closed: 1 }),
    ]);
}

#[test]
fn handshakes_are_tried_again() {
    check(&[
        ((true, SYN, 0, 0, 0, 64240), Syn { n: 1 }),
        ((true, SYN, 0, 0, 0, 64240), Syn { n: 2 }),
        ((false, SYN | ACK, 0, 1, 0, 65160), SynAck { n: 1 }),
        ((false, SYN | ACK, 0, 1, 0, 65160), SynAck { n: 2 }),
        ((true, ACK, 1, 1, 0, 502), Ack),
        // The same ports, a new connection.
        ((true, SYN, 5000, 0, 0, 64240), Syn { n: 1 }),
        ((false, SYN | ACK, 9000, 5001, 0, 65160), SynAck { n: 1 }),
        ((true, ACK, 5001, 9001, 0, 502), Ack),
        ((true, ACK, 5000, 9001, 0, 502), KeepaliveProbe { n: 1 }),
    ]);
}

#[test]
fn a_close_takes_four_segments_and_each_fin_may_be_sent_again() {
    after_opening(&[
        ((false, FIN, 1, 101, 0, 509), Fin { n: 1, data_again: false }),
        ((true, ACK, 101, 2, 0, 502), Ack),
        ((true, DATA, 101, 2, 10, 502), Data { bytes: 10 }),
        ((true, FIN, 111, 2, 0, 502), Fin { n: 1, data_again: false }),
        ((true, FIN, 101, 2, 10, 502), Fin { n: 2, data_again: true }),
        ((true, FIN, 111, 2, 0, 502), Fin { n: 3, data_again: false }),
        ((false, ACK, 2, 112, 0, 509), Ack),
    ]);
}

#[test]
fn a_tap_that_came_late_knows_the_next_byte_from_acknowledgements() {
    check(&[
        ((false, ACK, 1, 101, 0, 509), Ack),
        ((true, ACK, 100, 1, 0, 502), KeepaliveProbe { n: 1 }),
        ((false, RST, 1, 0, 0, 0), Reset),
    ]);
}

#[test]
fn each_connection_is_classified_by_itself() {
    let mut classifier = Classifier::new(Side::Client);
    let mut other_port = OPEN.map(|(row, _)| segment(row));
    for segment in &mut other_port {
        let port =
            if segment.sent { &mut segment.source_port } else { &mut segment.destination_port };
        *port = 40_001;
    }
    // The same ports again, as another connection.
    let (first, second) = (Some(FlowId(0)), Some(FlowId(1)));
    for ((row, expected), other) in OPEN.iter().zip(other_port) {
        assert_eq!(classifier.feed(first, &other), *expected);
        assert_eq!(classifier.feed(first, &segment(*row)), *expected);
        assert_eq!(classifier.feed(second, &segment(*row)), *expected);
    }
}

#[test]
fn new_data_are_behind_where_others_are_not_acknowledged() {
    let end = u32::MAX - 1;
    let data = |seq: u32| (segment((true, DATA, seq, 1, 4, 100)), Data { bytes: 4 });
    let acknowledged = |ack: u32| (segment((false, ACK, 1, ack, 0, 100)), Ack);
    let mut progress = Progress::default();
    let mut feed = |(segment, class)| progress.feed(&segment, class);
    assert!(!feed(acknowledged(end)));
    assert!(!feed(data(end)), "the first");
    assert!(feed(data(end.wrapping_add(4))), "the first is not acknowledged");
    assert!(!feed(acknowledged(end.wrapping_add(8))));
    assert!(!feed(data(end.wrapping_add(8))), "all are acknowledged");
}
