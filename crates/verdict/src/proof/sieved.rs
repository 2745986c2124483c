//! A path that drops some packets: which were lost, and which passed.

use super::Scene;
use spec::sieve::is_lost;
use spec::{Drops, Sieve, counted};
use timeline::{Segment, Source};

/// How long a busy machine may take to forward a segment.
const LATE_NS: u64 = 1_000_000_000;

/// The segments that left one host for the other since the fault, and how many were lost.
struct Way {
    /// Whether the path is to drop any of them.
    sieved: bool,
    /// Of each, in order, whether it was lost.
    lost: Vec<bool>,
}

impl Way {
    fn lost(&self) -> usize {
        self.lost.iter().filter(|lost| **lost).count()
    }
}

impl Scene<'_> {
    /// What the sieve is to drop did not arrive, and everything else did.
    pub(super) fn sieved(&self, sieve: Sieve) -> (bool, String) {
        let to_lost = self.way(sieve.to_lost, Source::ClientWire, Source::ServerWire);
        let to_survivor = self.way(sieve.to_survivor, Source::ServerWire, Source::ClientWire);
        let passed = |way: &Way| way.sieved || way.lost() == 0;
        let sieved = [&to_lost, &to_survivor].into_iter().filter(|way| way.sieved);
        let all: usize = sieved.clone().map(|way| way.lost.len()).sum();
        let missing: usize = sieved.clone().map(Way::lost).sum();
        let as_wanted = match sieve.drops {
            Drops::All => missing == all,
            Drops::Next(packets) => missing == all.min(packets as usize),
            Drops::Share(loss, seed) => [(&to_lost, true), (&to_survivor, false)]
                .into_iter()
                .filter(|(way, _)| way.sieved)
                .all(|(way, is_to_lost)| {
                    let chance = |number: usize| is_lost(loss, seed, is_to_lost, number as u64);
                    way.lost.iter().enumerate().all(|(number, lost)| *lost == chance(number))
                }),
        };
        let part = |way: &Way, to: &str| {
            let sent = counted(way.lost.len(), "segment");
            format!("of {sent} to the {to} {} did not arrive", way.lost())
        };
        let finding = format!("{}; {}", part(&to_lost, "server"), part(&to_survivor, "client"));
        (as_wanted && passed(&to_lost) && passed(&to_survivor), finding)
    }

    /// What left one host while the fault lasted, but for what may still be on its way at the end.
    fn way(&self, sieved: bool, from: Source, to: Source) -> Way {
        let last = self.until.min(self.end).saturating_sub(self.transit);
        let sent = |from_ns: u64| {
            let left = self.timeline.segments(from);
            left.filter(move |(at, segment)| *at >= from_ns && segment.sent)
        };
        let arrived = |at: u64, segment: &Segment| {
            // A busy machine takes its time; what is sent again is another.
            let again = sent(at + 1).find(|(_, other)| *other == segment).map(|(at, _)| at);
            let latest = (at + self.transit + LATE_NS).min(again.unwrap_or(u64::MAX));
            self.timeline.segments(to).any(|(came, other)| {
                (at..=latest).contains(&came)
                    && Segment { sent: true, ..*other } == *segment
                    && !other.sent
            })
        };
        let sent = sent(self.done).take_while(|(at, _)| *at < last);
        Way { sieved, lost: sent.map(|(at, segment)| !arrived(at, segment)).collect() }
    }
}
