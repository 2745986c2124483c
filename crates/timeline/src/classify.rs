//! What each captured segment is, told from the sequence numbers alone.
//!
//! A tap shows headers; whether a segment is new data, the same data again, or a keepalive probe
//! follows from what passed before it. Ranges of sequence numbers are compared, never packets
//! counted: with segmentation offload one captured segment may stand for several.

use crate::event::{Side, Source};
use crate::log::Timeline;
use crate::segment::Segment;

/// What a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// A connection request, for the `n`th time.
    Syn {
        /// From 1.
        n: u32,
    },
    /// The answer to one, for the `n`th time.
    SynAck {
        /// From 1.
        n: u32,
    },
    /// Data not sent before.
    Data {
        /// How much.
        bytes: u32,
    },
    /// Data sent again.
    Retransmission {
        /// How often data was sent again since the peer last acknowledged something new, from 1.
        n: u32,
        /// How much.
        bytes: u32,
        /// Whether it begins at the oldest byte that is not acknowledged. A timeout sends that
        /// again; a tail loss probe (RFC 8985) sends the newest segment, which is the same one
        /// only while a single segment is outstanding.
        oldest: bool,
    },
    /// Nothing, or one stale byte, just before the next sequence number, while nothing is
    /// outstanding (RFC 9293 3.8.4): an idle connection asks whether the peer is there.
    KeepaliveProbe {
        /// Its number since the peer was last heard, from 1.
        n: u32,
    },
    /// The same, while the peer's window is closed (RFC 9293 3.8.6.1).
    WindowProbe {
        /// Its number since the window closed, from 1.
        n: u32,
    },
    /// An acknowledgement that a probe drew.
    ProbeAnswer,
    /// An acknowledgement without data.
    Ack,
    /// The end of the sender's data, for the `n`th time.
    Fin {
        /// From 1.
        n: u32,
        /// Whether it carries data that was sent before.
        data_again: bool,
    },
    /// The connection is refused or gone.
    Reset,
    /// A segment between other ports than the connection's.
    OtherConnection,
}

impl Class {
    /// Whether data is sent again, by a timeout, a tail loss probe or otherwise.
    pub const fn is_data_again(self) -> bool {
        matches!(self, Self::Retransmission { .. } | Self::Fin { data_again: true, .. })
    }

    /// Whether it is a keepalive probe.
    pub const fn is_keepalive_probe(self) -> bool {
        matches!(self, Self::KeepaliveProbe { .. })
    }
}

/// Classifies the segments of one connection at one tap, in their order.
#[derive(Debug, Clone)]
pub struct Classifier {
    tap: Side,
    ports: Option<Ports>,
    client: Sender,
    server: Sender,
}

/// The ports of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ports {
    /// The client's.
    pub client: u16,
    /// The server's.
    pub server: u16,
}

/// Every segment a tap saw, with its time and what it is. For [`Source`]s that are not taps:
/// nothing.
pub fn classified(
    timeline: &Timeline,
    tap: Source,
) -> impl Iterator<Item = (u64, &Segment, Class)> {
    let side = if tap == Source::ServerWire { Side::Server } else { Side::Client };
    let mut classifier = Classifier::new(side);
    timeline.segments(tap).map(move |(at_ns, segment)| (at_ns, segment, classifier.feed(segment)))
}

impl Classifier {
    /// For the tap on this side's interface. The connection is that of the first segment fed.
    pub fn new(tap: Side) -> Self {
        Self { tap, ports: None, client: Sender::default(), server: Sender::default() }
    }

    /// The same for a connection that is known already.
    #[must_use]
    pub fn with_ports(mut self, ports: Ports) -> Self {
        self.ports = Some(ports);
        self
    }

    /// Who sent a segment that this tap saw.
    pub fn sender(&self, segment: &Segment) -> Side {
        match (self.tap, segment.sent) {
            (Side::Client, true) | (Side::Server, false) => Side::Client,
            _ => Side::Server,
        }
    }

    /// What the next segment is.
    pub fn feed(&mut self, segment: &Segment) -> Class {
        let side = self.sender(segment);
        let ports = match side {
            Side::Client => Ports { client: segment.source_port, server: segment.destination_port },
            Side::Server => Ports { client: segment.destination_port, server: segment.source_port },
        };
        if *self.ports.get_or_insert(ports) != ports {
            return Class::OtherConnection;
        }
        let (sender, peer) = match side {
            Side::Client => (&mut self.client, &mut self.server),
            Side::Server => (&mut self.server, &mut self.client),
        };
        let answers = peer.probed;
        let class = sender.classify(segment, answers);
        if class == (Class::Syn { n: 1 }) {
            *peer = Sender::default(); // the ports are used again: another connection
        } else {
            peer.hear(segment, class);
        }
        class
    }
}

/// One direction of the connection, as far as the tap saw it.
#[derive(Debug, Clone, Default)]
struct Sender {
    /// The first sequence number not sent yet.
    next: Option<u32>,
    /// The first sequence number the peer has not acknowledged.
    unacknowledged: Option<u32>,
    /// The sequence number of the SYN, and how often it was sent.
    syn: Option<(u32, u32)>,
    /// The sequence number after the FIN, and how often it was sent.
    fin: Option<(u32, u32)>,
    /// How often data was sent again since the peer last acknowledged something new.
    again: u32,
    /// Keepalive probes since the peer was last heard.
    keepalive_probes: u32,
    /// Window probes since the peer's window closed.
    window_probes: u32,
    /// Whether the peer has closed its window.
    window_closed: bool,
    /// Whether a probe waits for its answer.
    probed: bool,
}

impl Sender {
    /// What a segment of this sender is, and what follows from it for the next.
    fn classify(&mut self, segment: &Segment, answers_probe: bool) -> Class {
        let class = self.name(segment, answers_probe);
        if !segment.flags.rst {
            self.probed |=
                matches!(class, Class::KeepaliveProbe { .. } | Class::WindowProbe { .. });
            self.next = Some(match self.next {
                Some(next) if !is_before(next, segment.end()) => next,
                _ => segment.end(),
            });
        }
        class
    }

    fn name(&mut self, segment: &Segment, answers_probe: bool) -> Class {
        let Segment { seq, len, flags, .. } = *segment;
        if flags.rst {
            return Class::Reset;
        }
        if flags.syn {
            return self.name_syn(segment);
        }
        let is_old = self.next.is_some_and(|next| is_before(seq, next));
        if flags.fin {
            return self.name_fin(segment, is_old);
        }
        if self.is_probe(segment) {
            return if self.window_closed {
                Class::WindowProbe { n: counted(&mut self.window_probes) }
            } else {
                Class::KeepaliveProbe { n: counted(&mut self.keepalive_probes) }
            };
        }
        match len {
            0 if answers_probe => Class::ProbeAnswer,
            0 => Class::Ack,
            bytes if is_old => Class::Retransmission {
                n: counted(&mut self.again),
                bytes,
                oldest: self.unacknowledged.is_none_or(|oldest| !is_before(oldest, seq)),
            },
            bytes => Class::Data { bytes },
        }
    }

    fn name_syn(&mut self, segment: &Segment) -> Class {
        let n = match self.syn {
            Some((seq, times)) if seq == segment.seq => times + 1,
            _ => 1,
        };
        if n == 1 {
            *self = Self::default();
        }
        self.syn = Some((segment.seq, n));
        if segment.flags.ack { Class::SynAck { n } } else { Class::Syn { n } }
    }

    fn name_fin(&mut self, segment: &Segment, is_old: bool) -> Class {
        let n = match self.fin {
            Some((end, times)) if end == segment.end() => times + 1,
            _ => 1,
        };
        self.fin = Some((segment.end(), n));
        let data_again = is_old && segment.len > 0;
        if data_again {
            self.again += 1;
        }
        Class::Fin { n, data_again }
    }

    /// `tcp_xmit_probe_skb` (net/ipv4/tcp_output.c) sends nothing at `snd_una - 1`, which is
    /// `snd_nxt - 1` as nothing is outstanding; other systems add a byte there.
    fn is_probe(&self, segment: &Segment) -> bool {
        let just_before =
            |mark: Option<u32>| mark.is_some_and(|m| m.wrapping_sub(1) == segment.seq);
        match segment.len {
            0 => just_before(self.next) || just_before(self.unacknowledged),
            1 => just_before(self.next) && self.unacknowledged == self.next,
            _ => false,
        }
    }

    /// The peer sent a segment: what that says about this sender.
    fn hear(&mut self, segment: &Segment, class: Class) {
        if segment.flags.rst {
            return;
        }
        let asks = matches!(class, Class::KeepaliveProbe { .. } | Class::WindowProbe { .. });
        self.probed &= asks; // a probe of the peer's own is no answer
        self.keepalive_probes = 0;
        self.window_closed = segment.window == 0;
        if !self.window_closed {
            self.window_probes = 0;
        }
        if !segment.flags.ack {
            return;
        }
        if self.unacknowledged.is_none_or(|oldest| is_before(oldest, segment.ack)) {
            self.unacknowledged = Some(segment.ack);
            self.again = 0;
        }
        self.next.get_or_insert(segment.ack);
    }
}

/// Whether `a` comes before `b` in the circle of sequence numbers (RFC 9293 3.4).
const fn is_before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

const fn counted(counter: &mut u32) -> u32 {
    *counter += 1;
    *counter
}

#[cfg(test)]
mod tests {
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
        let starts =
            [0, 1, 77_777, u32::MAX, u32::MAX - 1, u32::MAX - 100, u32::MAX - 250, 1 << 31];
        for client_isn in starts {
            for server_isn in starts {
                for tap in [Side::Client, Side::Server] {
                    let mut classifier = Classifier::new(tap);
                    for (line, (row, expected)) in table.iter().enumerate() {
                        let mut segment = moved(*row, client_isn, server_isn);
                        segment.sent ^= tap == Side::Server;
                        assert_eq!(
                            classifier.feed(&segment),
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
            ((true, ACK, 200, 1, 0, 502), Class::WindowProbe { n: 1 }),
            ((false, ACK, 1, 201, 0, 0), ProbeAnswer),
            ((true, ACK, 200, 1, 0, 502), Class::WindowProbe { n: 2 }),
            ((true, ACK, 200, 1, 0, 502), Class::WindowProbe { n: 3 }),
            ((false, ACK, 1, 201, 0, 509), ProbeAnswer),
            ((true, ACK, 200, 1, 0, 502), KeepaliveProbe { n: 1 }),
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
    fn other_connections_do_not_disturb() {
        let mut classifier =
            Classifier::new(Side::Client).with_ports(Ports { client: 40_000, server: 7 });
        let mut other = segment((true, DATA, 900, 1, 100, 502));
        other.source_port = 40_001;
        for (row, expected) in OPEN {
            assert_eq!(classifier.feed(&other), Class::OtherConnection);
            assert_eq!(classifier.feed(&segment(row)), expected);
        }
    }
}
