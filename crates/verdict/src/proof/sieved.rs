//! A path that drops some packets: which were lost, and which passed.

use super::Scene;
use spec::sieve::is_lost;
use spec::{Drops, Family, Parameters, Sieve, counted};
use timeline::{Segment, Source};

/// How long a busy machine may take to forward a segment.
const LATE_NS: u64 = 1_000_000_000;

/// The segments that left one host for the other since the fault, and how many were lost.
struct Way {
    /// Whether the path is to drop any of them.
    sieved: bool,
    /// Each in order, with whether it was lost.
    sent: Vec<(Segment, bool)>,
}

impl Way {
    fn lost(&self) -> usize {
        self.sent.iter().filter(|(_, lost)| *lost).count()
    }

    /// How many segments were too long for the path, and how many were not.
    fn long_and_short(&self, mtu: u32, family: Family) -> (usize, usize) {
        let count = |long| {
            self.sent.iter().filter(|(segment, _)| is_longer(segment, mtu, family) == long).count()
        };
        (count(Some(true)), count(Some(false)))
    }
}

/// Whether the IP packet of a segment is longer; `None`: its TCP options, which nobody noted, decide.
fn is_longer(segment: &Segment, mtu: u32, family: Family) -> Option<bool> {
    let ip = match family {
        Family::Ipv4 => 20,
        Family::Ipv6 => 40,
    };
    let [least, most] = [20, 60].map(|tcp| ip + tcp + segment.len);
    if least > mtu { Some(true) } else { (most <= mtu).then_some(false) }
}

impl Scene<'_> {
    /// What the sieve is to drop did not arrive, and everything else did.
    pub(super) fn sieved(&self, parameters: &Parameters, sieve: Sieve) -> (bool, String) {
        let to_lost = self.way(sieve.to_lost, Source::ClientWire, Source::ServerWire);
        let to_survivor = self.way(sieve.to_survivor, Source::ServerWire, Source::ClientWire);
        let passed = |way: &Way| way.sieved || way.lost() == 0;
        let sieved = [&to_lost, &to_survivor].into_iter().filter(|way| way.sieved);
        let all: usize = sieved.clone().map(|way| way.sent.len()).sum();
        let missing: usize = sieved.clone().map(Way::lost).sum();
        let as_wanted = match sieve.drops {
            Drops::All => missing == all,
            Drops::Next(packets) => missing == all.min(packets as usize),
            Drops::Longer(mtu) => {
                sieved.clone().flat_map(|way| &way.sent).all(|(segment, lost)| {
                    is_longer(segment, mtu, parameters.family).is_none_or(|longer| longer == *lost)
                })
            }
            Drops::Share(loss, seed) => [(&to_lost, true), (&to_survivor, false)]
                .into_iter()
                .filter(|(way, _)| way.sieved)
                .all(|(way, is_to_lost)| {
                    let chance = |number: usize| is_lost(loss, seed, is_to_lost, number as u64);
                    way.sent.iter().enumerate().all(|(number, (_, lost))| *lost == chance(number))
                }),
        };
        let part = |way: &Way, to: &str| {
            let sent = counted(way.sent.len(), "segment");
            let lost = way.lost();
            let Drops::Longer(mtu) = sieve.drops else {
                return format!("of {sent} to the {to} {lost} did not arrive");
            };
            let (long, short) = way.long_and_short(mtu, parameters.family);
            format!(
                "of {sent} to the {to}, {long} too long for a path of {mtu} bytes and {short} not, \
                 {lost} did not arrive"
            )
        };
        let finding = format!("{}; {}", part(&to_lost, "server"), part(&to_survivor, "client"));
        (as_wanted && passed(&to_lost) && passed(&to_survivor), finding)
    }

    /// What left one host while the fault lasted, but for what may still be on its way at the end.
    fn way(&self, sieved: bool, from: Source, to: Source) -> Way {
        let last = self.until.min(self.end).saturating_sub(self.transit);
        let since = |tap, sent: bool| {
            let segments = self.timeline.segments(tap);
            segments.filter(move |(at, segment)| *at >= self.done && segment.sent == sent)
        };
        let mut came: Vec<_> = since(to, false).collect();
        let mut sent: Vec<_> =
            since(from, true).map(|(at, segment)| (at, *segment, true)).collect();
        // From the last on: of segments that are alike, those that came are the later ones.
        for (at, segment, lost) in sent.iter_mut().rev() {
            // A busy machine takes its time.
            let within = *at..=*at + self.transit + LATE_NS;
            let arrival = came.iter().rposition(|(arrived, other)| {
                within.contains(arrived) && Segment { sent: true, ..**other } == *segment
            });
            *lost = arrival.map(|index| came.remove(index)).is_none();
        }
        let in_time = sent.into_iter().take_while(|(at, ..)| *at < last);
        Way { sieved, sent: in_time.map(|(_, segment, lost)| (segment, lost)).collect() }
    }
}
