//! What each captured segment is, told from the sequence numbers alone.
//!
//! A tap shows headers; whether a segment is new data, the same data again, or a keepalive probe
//! follows from what passed before it. Ranges of sequence numbers are compared, never packets
//! counted: with segmentation offload one captured segment may stand for several.

use crate::event::{Source, What};
use crate::flow::{FlowId, Side};
use crate::log::Timeline;
use crate::segment::Segment;
use std::collections::HashMap;

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
        /// Its number since the peer was last heard, from 1.
        n: u32,
        /// Its number since the window closed, from 1.
        since_closed: u32,
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
}

impl Class {
    /// Whether data is sent again, by a timeout, a tail loss probe or otherwise.
    pub const fn is_data_again(self) -> bool {
        matches!(self, Self::Retransmission { .. } | Self::Fin { data_again: true, .. })
    }

    /// Whether a connection request is sent again.
    pub const fn is_syn_again(self) -> bool {
        matches!(self, Self::Syn { n: 2.. })
    }

    /// Whether the end of the data is sent again.
    pub const fn is_fin_again(self) -> bool {
        matches!(self, Self::Fin { n: 2.., .. })
    }

    /// Whether it is a zero-window probe.
    pub const fn is_window_probe(self) -> bool {
        matches!(self, Self::WindowProbe { .. })
    }

    /// Whether it is a keepalive probe.
    pub const fn is_keepalive_probe(self) -> bool {
        matches!(self, Self::KeepaliveProbe { .. })
    }
}

/// Classifies the segments that one tap saw, each within its connection, in their order.
#[derive(Debug, Clone)]
pub struct Classifier {
    tap: Side,
    connections: HashMap<Connection, Connected>,
}

/// Which connection. What was recorded before trials had several is told by its ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Connection {
    flow: Option<FlowId>,
    client_port: u16,
    server_port: u16,
}

/// Both directions of a connection.
#[derive(Debug, Clone, Default)]
struct Connected {
    client: Sender,
    server: Sender,
}

/// Every segment a tap saw, with its time and what it is. For [`Source`]s that are not taps:
/// nothing.
pub fn classified(
    timeline: &Timeline,
    tap: Source,
) -> impl Iterator<Item = (u64, &Segment, Class)> {
    let side = if tap == Source::ServerWire { Side::Server } else { Side::Client };
    let mut classifier = Classifier::new(side);
    timeline.events().iter().filter(move |event| event.source == tap).filter_map(move |event| {
        match &event.what {
            What::Segment(segment) => {
                Some((event.at_ns, segment, classifier.feed(event.flow, segment)))
            }
            _ => None,
        }
    })
}

impl Classifier {
    /// For the tap on this side's interface.
    pub fn new(tap: Side) -> Self {
        Self { tap, connections: HashMap::new() }
    }

    /// Who sent a segment that this tap saw.
    pub fn sender(&self, segment: &Segment) -> Side {
        if segment.sent { self.tap } else { self.tap.other() }
    }

    /// What the next segment is, of this connection.
    pub fn feed(&mut self, flow: Option<FlowId>, segment: &Segment) -> Class {
        let side = self.sender(segment);
        let (client_port, server_port) = match side {
            Side::Client => (segment.source_port, segment.destination_port),
            Side::Server => (segment.destination_port, segment.source_port),
        };
        let connection = Connection { flow, client_port, server_port };
        let Connected { client, server } = self.connections.entry(connection).or_default();
        let (sender, peer) = match side {
            Side::Client => (client, server),
            Side::Server => (server, client),
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
    /// Window probes since the peer was last heard, and since its window closed.
    window_probes: u32,
    window_probes_since_closed: u32,
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
                Class::WindowProbe {
                    n: counted(&mut self.window_probes),
                    since_closed: counted(&mut self.window_probes_since_closed),
                }
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
        self.window_probes = 0;
        self.window_closed = segment.window == 0;
        if !self.window_closed {
            self.window_probes_since_closed = 0;
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

/// How far what a host sends is acknowledged.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    sent: Option<u32>,
    acknowledged: Option<u32>,
}

impl Progress {
    /// Whether a segment has new data, and was sent while other data were not acknowledged. Segments are
    /// fed in the order of time.
    pub fn feed(&mut self, segment: &Segment, class: Class) -> bool {
        if !segment.sent {
            self.acknowledged = Some(segment.ack);
            return false;
        }
        if !matches!(class, Class::Data { .. }) {
            return false;
        }
        let before = self.sent.replace(segment.seq.wrapping_add(segment.len));
        let left = before.zip(self.acknowledged).map(|(sent, acked)| sent.wrapping_sub(acked));
        left.is_some_and(|left| left.cast_signed() > 0)
    }
}

#[cfg(test)]
mod tests;
