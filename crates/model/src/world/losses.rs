//! A path that drops some packets of the connection and lets the others pass.

use super::{InFlight, Moment, Sent, World};
use spec::sieve::is_lost;

/// What the path drops.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Losses {
    /// From when on.
    pub(crate) from: Moment,
    /// Whether it drops what the socket sends.
    pub(crate) to_peer: bool,
    /// Whether it drops what the peer sends.
    pub(crate) to_socket: bool,
    pub(crate) which: Which,
    /// When nobody looks any more.
    pub(crate) until: Moment,
}

/// Which packets it drops.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Which {
    /// So many more.
    Next(u32),
    /// By chance, which the seed knows.
    Share {
        /// Of 10,000.
        loss: u16,
        seed: u64,
        /// How many packets the socket, and the peer, have sent since the fault.
        sent: [u64; 2],
    },
    /// Those with more data than so many bytes.
    Longer {
        bytes: u32,
        /// When the fault ends.
        ends: Moment,
    },
}

impl Losses {
    /// Whether a packet with so much data that comes to it now is dropped.
    fn take(&mut self, to_peer: bool, data: u32, now_ns: u64) -> bool {
        let applies = if to_peer { self.to_peer } else { self.to_socket };
        if !applies || !self.from.is_past(now_ns) {
            return false;
        }
        match &mut self.which {
            Which::Next(0) => false,
            Which::Next(left) => {
                *left -= 1;
                true
            }
            Which::Share { loss, seed, sent } => {
                let sent = &mut sent[usize::from(!to_peer)];
                *sent += 1;
                is_lost(*loss, *seed, to_peer, *sent - 1)
            }
            Which::Longer { bytes, ends } => data > *bytes && !ends.is_past(now_ns),
        }
    }

    /// The same so much later.
    pub(crate) fn later(self, by_ns: u64) -> Self {
        let later = |moment| match moment {
            Moment::At(at_ns) => Moment::At(by_ns.saturating_add(at_ns)),
            moment => moment,
        };
        let mut own = Self { from: later(self.from), until: later(self.until), ..self };
        if let Which::Longer { ends, .. } = &mut own.which {
            *ends = later(*ends);
        }
        own
    }

    /// Has it end so much later, nanoseconds, if it does: says whether it does.
    pub(crate) fn end_later(&mut self, by_ns: u64) -> bool {
        match &mut self.which {
            Which::Longer { ends: Moment::At(at_ns), .. } => {
                *at_ns += by_ns;
                true
            }
            Which::Longer { ends: Moment::Never | Moment::Past, .. }
            | Which::Next(_)
            | Which::Share { .. } => false,
        }
    }

    /// Whether it may drop another packet of a kind that has passed.
    pub(super) fn goes_on(&self) -> bool {
        match self.which {
            Which::Next(0) | Which::Longer { .. } => false,
            Which::Next(_) | Which::Share { .. } => true,
        }
    }
}

impl World {
    /// Whether the path drops what is sent now.
    pub(super) fn loses(&mut self, sent: Sent, now_ns: u64) -> bool {
        let data = if let Sent::Segment(packet) = sent { packet.bytes } else { 0 };
        let lost = self.losses.as_mut().is_some_and(|losses| losses.take(true, data, now_ns));
        let is_probe = matches!(sent, Sent::KeepaliveProbe | Sent::WindowProbe);
        self.seen += u32::from(lost && is_probe);
        lost
    }

    /// The first of what is on its way arrives, and has passed the router; `None`: the path has
    /// dropped it, half a round trip ago.
    pub(crate) fn arrives(&mut self, now_ns: u64) -> Option<InFlight> {
        let packet = self.in_flight.remove(0);
        let passed_ns = now_ns.saturating_sub(self.peer.rtt_ns / 2);
        if self.losses.as_mut().is_some_and(|losses| losses.take(false, 0, passed_ns)) {
            return None;
        }
        if let Some(memory) = &mut self.memory {
            memory.passed = now_ns / self.tick_ns;
        }
        Some(packet)
    }

    /// Whether the trial is over by then.
    pub(crate) fn is_over(&self, at_ns: u64) -> bool {
        self.losses.as_ref().is_some_and(|losses| losses.until.is_past(at_ns))
    }

    /// Whether chance goes on to decide.
    pub(crate) fn is_chance(&self) -> bool {
        matches!(&self.losses, Some(Losses { which: Which::Share { .. }, .. }))
    }
}
