//! By how much late timers put off the next.
//!
//! A timer may run a jiffy after its own (`allowance`), and what its handler arms is then a jiffy
//! late. Where that falls into a slot of eight jiffies or more, the slot takes the jiffy up, unless
//! it was the last before the next slot: then all that follows comes a slot later. So a course can
//! have more than one end although the phase of the clock is known, with nothing between them.

use crate::wheel::{Context, Wheel};

/// The jiffies by which timers may be put off: ranges, both ends included, in order and apart; none
/// where there is but 0, which is nearly everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slip(Vec<(u64, u64)>);

/// More ranges than this are taken for one.
const RANGES_MOST: usize = 16;

impl Slip {
    /// Not at all.
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    /// What a jiffy of the timer itself makes of it: the jiffies by which its handler may run late.
    pub(crate) fn and_own(&self) -> Self {
        Self::of(self.ranges().map(|(least, most)| (least, most + 1)))
    }

    /// By how much a timer is put off that is armed at jiffy `at` for `timeout` jiffies, where what it
    /// counts from is so late: the handler that arms it, or what was sent or received before.
    pub(crate) fn arms(&self, wheel: Wheel, at: u64, timeout: u64) -> Self {
        // The wheel's own clock is a jiffy ahead in a handler.
        let slot = wheel.slot(timeout.saturating_sub(1));
        self.through(slot, |late| wheel.fires_at(at + late, timeout, Context::Handler))
    }

    /// What slots of so many jiffies make of it. `fires` says when the timer fires for each jiffy of
    /// lateness.
    fn through(&self, slot: u64, fires: impl Fn(u64) -> u64) -> Self {
        let on_time = fires(0);
        let after = |late| fires(late).saturating_sub(on_time);
        // Mostly a slot takes all of it up.
        if after(self.most()) == 0 {
            return Self::none();
        }
        if self.0.len() > RANGES_MOST {
            return Self(vec![(after(self.least()), after(self.most()))]);
        }
        Self::of(self.ranges().flat_map(|(least, most)| {
            let (first, last) = (after(least), after(most));
            let last = last.max(first);
            let slots = (last - first) / slot;
            let whole = slot == 1 || slots > RANGES_MOST as u64;
            let (slots, length) = if whole { (0, last - first) } else { (slots, 0) };
            (0..=slots).map(move |n| (first + n * slot, first + n * slot + length))
        }))
    }

    /// By how much a timer is put off that is cut by what is `left` of a user timeout: where its handler
    /// alone runs late, where that alone is late from which the user timeout counts, or both. `fires`
    /// says when it fires by how late it is armed and how much is left then.
    pub(crate) fn of_cut(
        (handler, first): (&Self, &Self),
        left: u64,
        slot: u64,
        fires: impl Fn(u64, u64) -> u64,
    ) -> Self {
        let handler = handler.through(slot, |late| fires(late, left.saturating_sub(late)));
        let alone = first.through(slot, |late| fires(0, left + late));
        let both = first.through(slot, |late| fires(late, left));
        handler.or(&alone).or(&both)
    }

    /// What is in either.
    fn or(&self, other: &Self) -> Self {
        let mut ranges: Vec<_> = self.ranges().chain(other.ranges()).collect();
        ranges.sort_unstable();
        Self::of(ranges.into_iter())
    }

    /// Those of ranges in order that overlap or follow each other are one.
    fn of(ranges: impl Iterator<Item = (u64, u64)>) -> Self {
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for (least, most) in ranges {
            match joined.last_mut() {
                Some(last) if least <= last.1 + 1 => last.1 = last.1.max(most),
                _ => joined.push((least, most)),
            }
        }
        if joined[..] == [(0, 0)] { Self::none() } else { Self(joined) }
    }

    /// The least that is `needed` or more.
    pub(crate) fn reaches(&self, needed: u64) -> Option<u64> {
        let (least, _) = self.ranges().find(|(_, most)| *most >= needed)?;
        Some(needed.max(least))
    }

    /// What lies below `end`; none if nothing does.
    pub(crate) fn below(&self, end: u64) -> Self {
        let below = self.ranges().filter(|(least, _)| *least < end);
        Self::of(below.map(|(least, most)| (least, most.min(end - 1))))
    }

    /// What lies beyond, if so much has come true; none if nothing does.
    pub(crate) fn beyond(&self, known: u64) -> Self {
        let beyond = self.ranges().filter(|(_, most)| *most >= known);
        Self::of(beyond.map(|(least, most)| (least.saturating_sub(known), most - known)))
    }

    fn least(&self) -> u64 {
        self.0.first().map_or(0, |(least, _)| *least)
    }

    pub(crate) fn most(&self) -> u64 {
        self.0.last().map_or(0, |(_, most)| *most)
    }

    pub(crate) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        let on_time = self.0.is_empty().then_some((0, 0));
        on_time.into_iter().chain(self.0.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tick::Hz;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const EPOCH: u64 = 1 << 24;

    fn wheel() -> Wheel {
        Wheel::new(Hz::new(250))
    }

    /// The jiffies in it.
    fn all(slip: &Slip) -> BTreeSet<u64> {
        slip.ranges().flat_map(|(least, most)| least..=most).collect()
    }

    fn of(jiffies: &[u64]) -> Slip {
        Slip::of(jiffies.iter().map(|jiffy| (*jiffy, *jiffy)))
    }

    #[test]
    fn a_slot_takes_a_jiffy_up_or_makes_eight_of_it() {
        let late = Slip::none().and_own();
        for before in 2..8 {
            assert_eq!(late.arms(wheel(), EPOCH - before, 104), Slip::none(), "{before}");
        }
        assert_eq!(late.arms(wheel(), EPOCH - 1, 104), of(&[0, 8]));
        // No slot holds more than a jiffy.
        assert_eq!(late.arms(wheel(), EPOCH - 1, 51), of(&[0, 1]));
    }

    #[test]
    fn what_has_come_true_is_told_from_what_may_come() {
        let slip = of(&[0, 8, 9]);
        assert_eq!(slip.reaches(3), Some(8));
        assert_eq!(slip.reaches(10), None);
        assert_eq!(slip.below(9), of(&[0, 8]));
        assert_eq!(slip.beyond(8), of(&[0, 1]));
        assert_eq!(of(&[8]).below(8), Slip::none());
    }

    proptest! {
        #[test]
        fn every_way_to_be_late_is_in_it(
            phase in 0..4096_u64,
            timeouts in prop::collection::vec(1..700_u64, 1..7),
        ) {
            let mut slip = Slip::none();
            let mut fires = BTreeSet::from([EPOCH + phase]);
            let mut on_time = EPOCH + phase;
            for timeout in timeouts {
                let next = |at| wheel().fires_at(at, timeout, Context::Handler);
                slip = slip.and_own().arms(wheel(), on_time, timeout);
                fires = fires.iter().flat_map(|at| [next(*at), next(at + 1)]).collect();
                on_time = next(on_time);
                let expected: BTreeSet<u64> = fires.iter().map(|at| at - on_time).collect();
                prop_assert_eq!(all(&slip), expected);
            }
        }
    }
}
