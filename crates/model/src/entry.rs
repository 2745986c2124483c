//! The neighbour entry that probes go by, as it was before the fault: what is left of its life.
//!
//! A neighbour is believed for `reachable_time` after it was last confirmed: by its own answer, or by
//! an acknowledgement that TCP passed on with its next segment (`sk_dst_confirm`). A keepalive or
//! window probe's answer does not count (`tcp_ack` returns before that), so that an idle client's
//! entry turns stale whatever its peer says. How long `reachable_time` is is drawn at random for each
//! interface (`neigh_rand_reach_time`), but the kernel tells (`NDTPA_REACHABLE_TIME`): nothing is left
//! to chance but a new draw, once in 300 s (`neigh_periodic_work`, net/core/neighbour.c).

use crate::hop::{Hop, Icmp, Limit, Manners, Neighbour, State};
use crate::kernel::Kernel;
use crate::tick::Phase;
use crate::wheel::Context;
use spec::facts::NeighbourFacts;
use spec::{Errno, Facts, Parameters, Topology};
use std::collections::BTreeSet;
use std::time::Duration;

/// The hops that the entry may be, in jiffies after the jiffy `from` of the cut clock of [`Phase`]
/// (if that is not known: after the last exchange): one or a few if somebody has looked at it, and
/// otherwise whatever it may be. `confirms` are the jiffies of a segment that is yet to pass on an
/// acknowledgement; `probes_every`, jiffies, is the time from one probe to the next: of lives that end
/// between the same two, one will do.
pub(crate) fn hops(
    kernel: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
    from: Option<u64>,
    confirms: &[u64],
    probes_every: u64,
) -> Vec<Hop> {
    let local = parameters.topology != Topology::Router;
    let known = Looked::at(kernel, facts).map(|looked| {
        let after = kernel.hz.from_msecs(parameters.fault.after.as_millis() as u64);
        let from = from.unwrap_or(looked.sampled.saturating_sub(after));
        Looked { from, ..looked }
    });
    let (states, manners) = match known {
        Some(looked) => (looked.states(kernel, confirms), Some(looked.manners(kernel))),
        None => (anything(kernel, parameters.fault.after, probes_every), None),
    };
    let icmp = Icmp { error: Errno::EHOSTUNREACH, reverts: false };
    let hop = |state| Hop::Asks(Neighbour::in_state(local, state, manners), Limit::none(), icmp);
    states.into_iter().map(hop).collect()
}

/// An entry that somebody has looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Looked {
    known: NeighbourFacts,
    /// When, and from when on jiffies are counted.
    pub(crate) sampled: u64,
    from: u64,
}

impl Looked {
    /// The entry in the facts, in jiffies of the cut clock of [`Phase`].
    pub(crate) fn at(kernel: &Kernel, facts: &Facts) -> Option<Self> {
        let known = facts.neighbour.filter(|known| known.sampled_at_ns > 0)?;
        let clock = Phase::new(kernel.hz, facts.jiffies?);
        let sampled = clock.of(known.sampled_at_ns)? / kernel.hz.tick_ns();
        Some(Self { known, sampled, from: 0 })
    }

    /// Whether its life can be followed from here, with whatever settings: a short one depends on
    /// when it was last used (`neigh->used`), and an entry that is never asked for loses what is
    /// sent to it.
    pub(crate) fn is_plain(&self) -> bool {
        let known = &self.known;
        known.questions_to_all > 0
            && known.reachable_ms > 2 * known.delay_ms
            && self.drawn_ms().saturating_add_unsigned(3 * known.reachable_ms) < DRAWN_FOR_MS
    }

    /// Since when the time was drawn: less than zero comes as a number of days that no host is up
    /// for, where HZ does not divide 1000 (`jiffies_to_msecs`).
    fn drawn_ms(&self) -> i64 {
        let drawn = self.known.drawn_ms;
        if drawn > WRAPPED_MS { 0 } else { drawn }
    }

    /// When it was last confirmed, before the sample.
    pub(crate) fn confirmed(&self, kernel: &Kernel) -> Vec<u64> {
        self.ago(kernel, self.known.confirmed_ms)
    }

    /// `HZ/100` is the least that its timer is set for.
    pub(crate) fn manners(&self, kernel: &Kernel) -> Manners {
        let least = u64::from(kernel.hz.get() / 100);
        Manners {
            delay: kernel.hz.from_msecs(self.known.delay_ms),
            again: kernel.hz.from_msecs(self.known.retrans_ms).max(least),
            direct: self.known.direct_questions,
            all: self.known.questions_to_all,
        }
    }

    /// Its times are told in steps of ten milliseconds: a few states may be meant. `confirms` as
    /// for [`hops`].
    pub(crate) fn states(&self, kernel: &Kernel, confirms: &[u64]) -> Vec<State> {
        let manners = self.manners(kernel);
        let reachable = kernel.hz.from_msecs(self.known.reachable_ms);
        let updated = self.ago(kernel, self.known.updated_ms);
        let confirmed = self.confirmed(kernel);
        let confirmed = if confirms.is_empty() { &confirmed } else { confirms };
        let both = confirmed.iter().flat_map(|at| updated.iter().map(move |since| (*since, *at)));
        let mut ends = BTreeSet::new();
        match self.known.state {
            NeighbourFacts::REACHABLE => {
                for (updated, confirmed) in both {
                    let fires = kernel.wheel.fires_at(updated, reachable, Context::Call);
                    ends.extend(self.believed(kernel, fires, confirmed));
                }
                ends.into_iter().map(|at| State::Reachable { until: self.since(at) }).collect()
            }
            NeighbourFacts::STALE => vec![State::Reachable { until: 0 }],
            NeighbourFacts::DELAY => {
                let mut states = Vec::new();
                for (updated, confirmed) in both {
                    let fires = kernel.wheel.fires_at(updated, manners.delay, Context::Handler);
                    if fires > confirmed + manners.delay {
                        states.push(State::Delay { fires: self.since(fires) });
                        continue;
                    }
                    // It has been confirmed meanwhile, and is believed again.
                    let fires = fires_again(kernel, fires, confirmed + reachable);
                    let ends = self.believed(kernel, fires, confirmed);
                    let believed = |at| State::Reachable { until: self.since(at) };
                    states.extend(ends.into_iter().map(believed));
                }
                states.sort_unstable();
                states.dedup();
                states
            }
            NeighbourFacts::PROBE => {
                let mut states = Vec::new();
                for updated in updated {
                    let (mut fires, mut asked) = (updated, 0);
                    while fires <= self.sampled && asked < manners.direct {
                        fires =
                            kernel.wheel.fires_at(fires, manners.again.max(1), Context::Handler);
                        asked += 1;
                    }
                    states.push(State::Probe { fires: self.since(fires), asked });
                }
                states.dedup();
                states
            }
            _ => vec![State::Failed],
        }
    }

    /// When an entry turns stale that was last confirmed at this jiffy: its timer `fires`, and sees
    /// how long ago that was (`neigh_timer_handler`).
    fn believed(&self, kernel: &Kernel, fires: u64, confirmed: u64) -> BTreeSet<u64> {
        let until = confirmed + kernel.hz.from_msecs(self.known.reachable_ms);
        let mut fires = fires;
        while fires <= until {
            fires = fires_again(kernel, fires, until);
        }
        // A time that was drawn anew is looked at when the timer fires.
        let left = kernel.hz.duration(fires.saturating_sub(self.sampled));
        let mut ends = BTreeSet::from([fires]);
        if self.drawn_ms().saturating_add(left.as_millis() as i64) >= DRAWN_FOR_MS {
            let second = kernel.hz.from_secs(1).max(1);
            let latest = confirmed + kernel.hz.from_secs(BELIEVED_SECS.1);
            ends.extend((fires..=latest.max(fires)).step_by(second as usize));
        }
        ends
    }

    /// The jiffies that so many milliseconds before the sample may be.
    fn ago(&self, kernel: &Kernel, ms: u64) -> Vec<u64> {
        let latest = self.sampled.saturating_sub(kernel.hz.whole_in_msecs(ms));
        let step = kernel.hz.from_msecs(CLOCK_MS);
        (latest.saturating_sub(step)..=latest).collect()
    }

    /// Jiffies since those that times count from.
    fn since(&self, at: u64) -> u64 {
        at.saturating_sub(self.from)
    }
}

/// When an entry's timer fires that its handler sets at jiffy `now` for the jiffy `at`.
fn fires_again(kernel: &Kernel, now: u64, at: u64) -> u64 {
    let least = u64::from(kernel.hz.get() / 100);
    kernel.wheel.fires_at(now, at.saturating_sub(now).max(least), Context::Handler)
}

/// What an entry may be `after` the last exchange, where nobody has looked: believed, or doubted,
/// since a probe before the fault found it stale.
fn anything(kernel: &Kernel, after: Duration, probes_every: u64) -> Vec<State> {
    let seconds = |secs: u64| kernel.hz.from_secs(secs);
    let slot = kernel.wheel.slot(seconds(BELIEVED_SECS.1));
    let step = seconds(1).max(probes_every).max(1) as usize;
    if after < Duration::from_secs(BELIEVED_SECS.0) {
        let last = seconds(BELIEVED_SECS.1) + slot;
        let believed = (seconds(BELIEVED_SECS.0)..=last).step_by(step);
        return believed.map(|until| State::Reachable { until }).collect();
    }
    let fault = kernel.hz.from_msecs(after.as_millis() as u64);
    let believed = (0..=seconds(BELIEVED_SECS.1) + slot).step_by(step);
    let doubted = (0..=seconds(DOUBTED_SECS)).step_by(step);
    believed
        .map(|until| State::Reachable { until: fault + until })
        .chain(doubted.map(|fires| State::Probe { fires: fault + fires, asked: u32::MAX }))
        .collect()
}

/// Half and one and a half of `base_reachable_time`, 30 s.
const BELIEVED_SECS: (u64, u64) = (15, 45);
/// `delay_first_probe_time` and three questions, at most.
const DOUBTED_SECS: u64 = 9;
/// How long a drawn `reachable_time` stays.
const DRAWN_FOR_MS: i64 = 300_000;
/// A draw that long ago was not: another comes after 300 s.
const WRAPPED_MS: i64 = 1 << 30;
/// A tick of `USER_HZ`, which `nda_cacheinfo` counts in.
const CLOCK_MS: u64 = 10;
