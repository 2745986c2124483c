//! The neighbour entry that probes go by, as it was before the fault: what is left of its life.
//!
//! A neighbour is believed for `reachable_time` after it was last confirmed: by its own answer, or
//! by an acknowledgement that TCP passed on with its next segment (`sk_dst_confirm`). A keepalive
//! or window probe's answer does not count (`tcp_ack` returns before that), so that an idle
//! client's entry turns stale whatever its peer says. How long `reachable_time` is is drawn at
//! random for each interface (`neigh_rand_reach_time`), but the kernel tells
//! (`NDTPA_REACHABLE_TIME`): nothing is left to chance but a new draw, once in 300 s
//! (`neigh_periodic_work`, net/core/neighbour.c).

use crate::hop::{Hop, Icmp, Limit, Manners, Neighbour, State};
use crate::kernel::Kernel;
use crate::tick::JiffyPhase;
use crate::wheel::Context;
use spec::facts::NeighbourFacts;
use spec::{Errno, Facts, Parameters, Topology};
use std::collections::BTreeSet;
use std::time::Duration;

/// The hops that the entry may be, in jiffies after the jiffy `from` of the cut clock of [`JiffyPhase`]
/// (if that is not known: after the last exchange): one or a few if it was sampled, and otherwise
/// whatever it may be. `confirms` are the jiffies of a segment that is yet to pass on an
/// acknowledgement; `probes_every`, jiffies, is the time from one probe to the next: of lives that
/// end between the same two, one will do.
///
/// # Errors
/// Why its life cannot be followed.
pub(crate) fn hops(
    kernel: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
    from: Option<u64>,
    confirms: &[u64],
    probes_every: u64,
) -> Result<Vec<Hop>, String> {
    let local = parameters.topology != Topology::Router;
    let known = Looked::at(kernel, facts);
    if let Some(reason) = unmodelled(parameters, facts, known) {
        return Err(reason);
    }
    let known = known.map(|looked| {
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
    Ok(states.into_iter().map(hop).collect())
}

/// Why settings of the neighbour table make the life of an entry unknown, if they do: all that was
/// looked at is followed, but for what depends on when the entry was last used, which is not
/// known.
fn unmodelled(parameters: &Parameters, facts: &Facts, known: Option<Looked>) -> Option<String> {
    // Settings are the client's, and mean nothing to a router.
    let routed = parameters.topology == Topology::Router;
    let mut own = own_settings(parameters, facts)
        .filter(|leaf| !routed && (known.is_none() || !is_looked_at(leaf)));
    if let Some(leaf) = own.next() {
        return Some(format!("a neighbour table with its own {leaf} is not modelled"));
    }
    let known = known?;
    let short = known.is_short().then_some(
        "a neighbour entry that is believed for so short a time is asked for by itself if it was \
         used just before (neigh_timer_handler), and when it was used is not known",
    );
    let vain = known.is_never_asked_for().then_some(
        "a neighbour entry that is never asked for by broadcast loses what is sent to it",
    );
    short.or(vain).map(ToOwned::to_owned)
}

/// The settings of the client's neighbour table that are its own, by the last part of their names.
pub(crate) fn own_settings<'a>(
    parameters: &'a Parameters,
    facts: &'a Facts,
) -> impl Iterator<Item = &'a str> {
    let names = parameters.sysctl.keys().chain(facts.sysctl.keys());
    names.filter(|name| name.starts_with("neigh.")).filter_map(|name| name.rsplit('.').next())
}

/// Whether what such a setting comes to is known from the look at the entry.
pub(crate) fn is_looked_at(leaf: &str) -> bool {
    SEEN.contains(&leaf)
}

/// Settings of a neighbour table that are looked at before the fault (`NDTPA_*`), or that nothing
/// here depends on.
const SEEN: &[&str] = &[
    "base_reachable_time",
    "base_reachable_time_ms",
    "delay_first_probe_time",
    "gc_stale_time",
    "locktime",
    "mcast_solicit",
    "retrans_time",
    "retrans_time_ms",
    "ucast_solicit",
];

/// An entry that was sampled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Looked {
    known: NeighbourFacts,
    /// When, and from when on jiffies are counted.
    pub(crate) sampled: u64,
    from: u64,
}

impl Looked {
    /// The entry in the facts, in jiffies of the cut clock of [`JiffyPhase`].
    pub(crate) fn at(kernel: &Kernel, facts: &Facts) -> Option<Self> {
        let known = facts.neighbour.filter(|known| known.sampled_at_ns > 0)?;
        let clock = JiffyPhase::new(kernel.hz, facts.jiffies?);
        let sampled = clock.of(known.sampled_at_ns)? / kernel.hz.tick_ns();
        Some(Self { known, sampled, from: 0 })
    }

    /// Whether its life can be followed from here, with whatever settings: a short one depends on
    /// when it was last used (`neigh->used`), and an entry that is never asked for loses what is
    /// sent to it.
    pub(crate) fn is_plain(&self) -> bool {
        let known = &self.known;
        !self.is_never_asked_for()
            && !self.is_short()
            && self.drawn_ms().saturating_add_unsigned(3 * known.reachable_ms) < DRAWN_FOR_MS
    }

    /// Since when the time was drawn: less than zero comes as a number of days that no host is up
    /// for, where HZ does not divide 1000 (`jiffies_to_msecs`).
    fn drawn_ms(&self) -> i64 {
        let drawn = self.known.drawn_ms;
        if drawn > WRAPPED_MS { 0 } else { drawn }
    }

    /// Whether its timer may find that it was used within `delay_first_probe_time`, and goes on to
    /// `NUD_DELAY` without another packet. The output of a believed entry does not touch
    /// `neigh->used`: that is from before it was last confirmed.
    fn is_short(&self) -> bool {
        self.known.reachable_ms <= 2 * self.known.delay_ms
    }

    fn is_never_asked_for(&self) -> bool {
        self.known.questions_to_all == 0
    }

    /// When it was last confirmed, before the sample.
    pub(crate) fn confirmed(&self, kernel: &Kernel) -> Vec<u64> {
        self.ago(kernel, self.known.confirmed_ms)
    }

    /// `reachable_time`, jiffies. Like its other times, the kernel tells it as `jiffies_to_msecs`.
    fn reachable(&self, kernel: &Kernel) -> u64 {
        kernel.hz.whole_in_msecs(self.known.reachable_ms)
    }

    pub(crate) fn manners(&self, kernel: &Kernel) -> Manners {
        Manners {
            delay: kernel.hz.whole_in_msecs(self.known.delay_ms),
            again: kernel.hz.whole_in_msecs(self.known.retrans_ms).max(shortest(kernel)),
            direct: self.known.direct_questions,
            all: self.known.questions_to_all,
        }
    }

    /// Its times are told in steps of ten milliseconds: a few states may be meant. `confirms` as
    /// for [`hops`].
    pub(crate) fn states(&self, kernel: &Kernel, confirms: &[u64]) -> Vec<State> {
        let manners = self.manners(kernel);
        let reachable = self.reachable(kernel);
        let updated = self.ago(kernel, self.known.updated_ms);
        let before = self.confirmed(kernel);
        let to_come: Vec<_> = confirms.iter().copied().map(Some).collect();
        let to_come = if to_come.is_empty() { &[None][..] } else { &to_come };
        let confirmed =
            before.iter().flat_map(|at| to_come.iter().map(|next| Confirmed(*at, *next)));
        let both = confirmed.flat_map(|at| updated.iter().map(move |since| (*since, at)));
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
                    if fires > confirmed.by(fires) + manners.delay {
                        states.push(State::Delay { fires: self.since(fires) });
                        continue;
                    }
                    // It has been confirmed meanwhile, and is believed again.
                    let fires = fires_again(kernel, fires, confirmed.by(fires) + reachable);
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
    fn believed(&self, kernel: &Kernel, fires: u64, confirmed: Confirmed) -> BTreeSet<u64> {
        let until = |fires| confirmed.by(fires) + self.reachable(kernel);
        let mut fires = fires;
        while fires <= until(fires) {
            fires = fires_again(kernel, fires, until(fires));
        }
        // A time that was drawn anew is looked at when the timer fires.
        let left = kernel.hz.duration(fires.saturating_sub(self.sampled));
        let mut ends = BTreeSet::from([fires]);
        if self.drawn_ms().saturating_add(left.as_millis() as i64) >= DRAWN_FOR_MS {
            let second = kernel.hz.from_secs(1).max(1);
            let latest = confirmed.by(fires) + kernel.hz.from_secs(BELIEVED_SECS.1);
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
    kernel.wheel.fires_at(now, at.saturating_sub(now).max(shortest(kernel)), Context::Handler)
}

/// The least that an entry's timer is set for: `HZ/100` (`neigh_timer_handler`).
fn shortest(kernel: &Kernel) -> u64 {
    u64::from(kernel.hz.get() / 100)
}

/// When an entry was last confirmed, and when it is going to be, jiffies.
#[derive(Debug, Clone, Copy)]
struct Confirmed(u64, Option<u64>);

impl Confirmed {
    /// `neigh->confirmed` at this jiffy.
    fn by(self, now: u64) -> u64 {
        self.1.filter(|next| *next <= now).unwrap_or(self.0)
    }
}

/// What an entry may be `after` the last exchange, where it was not sampled: believed, or
/// doubted,
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

/// How long an entry is believed: between half and one and a half of `base_reachable_time`, 30 s, at
/// random (`neigh_rand_reach_time`, net/core/neighbour.c).
pub(crate) const BELIEVED_SECS: (u64, u64) = (15, 45);
/// `delay_first_probe_time` and three questions, at most.
const DOUBTED_SECS: u64 = 9;
/// How long a drawn `reachable_time` stays.
const DRAWN_FOR_MS: i64 = 300_000;
/// A draw that long ago was not: another comes after 300 s.
const WRAPPED_MS: i64 = 1 << 30;
/// A tick of `USER_HZ`, which `nda_cacheinfo` counts in.
const CLOCK_MS: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use spec::facts::JiffyClock;

    fn looked(hz: u32, known: NeighbourFacts) -> (Kernel, Looked) {
        let parameters = Parameters::default();
        let mut facts = crate::nominal_facts(&parameters, hz);
        facts.jiffies = Some(JiffyClock { jiffies: 4_295_000_000, at_ns: known.sampled_at_ns });
        facts.neighbour = Some(known);
        let kernel = Kernel::new(&parameters, &facts);
        let looked = Looked::at(&kernel, &facts).unwrap();
        (kernel, looked)
    }

    const BELIEVED: NeighbourFacts = NeighbourFacts {
        state: NeighbourFacts::REACHABLE,
        sampled_at_ns: 1_000_000_000_000,
        confirmed_ms: 200,
        updated_ms: 200,
        reachable_ms: 20_000,
        delay_ms: 5_000,
        retrans_ms: 1_000,
        direct_questions: 3,
        questions_to_all: 3,
        drawn_ms: 1_000,
    };

    /// `jiffies_to_msecs` rounds up where HZ does not divide 1000.
    #[test]
    fn times_are_the_jiffies_that_the_kernel_told_in_milliseconds() {
        for jiffies in [4_501, 4_502, 5_999, 13_499] {
            let told = |jiffies| crate::tick::Hz::new(300).to_msecs(jiffies);
            let facts = NeighbourFacts {
                reachable_ms: told(jiffies),
                delay_ms: told(1_501),
                retrans_ms: told(301),
                ..BELIEVED
            };
            let (kernel, looked) = looked(300, facts);
            let manners = looked.manners(&kernel);
            assert_eq!(looked.reachable(&kernel), jiffies);
            assert_eq!((manners.delay, manners.again), (1_501, 301));
        }
    }

    /// A confirmation that is yet to come counts if the entry is still believed by then.
    #[test]
    fn a_confirmation_comes_too_late_for_an_entry_that_is_stale() {
        let (kernel, looked) = looked(250, BELIEVED);
        let ends = |confirms: &[u64]| {
            let states = looked.states(&kernel, confirms).into_iter();
            let ends = states.map(|state| match state {
                State::Reachable { until } => until.saturating_sub(looked.sampled) / 250,
                _ => panic!("{state:?}"),
            });
            ends.collect::<BTreeSet<_>>()
        };
        assert!(ends(&[]).iter().all(|secs| (19..=22).contains(secs)), "{:?}", ends(&[]));
        let soon = ends(&[looked.sampled + 15 * 250]);
        assert!(soon.iter().all(|secs| (35..=37).contains(secs)), "{soon:?}");
        assert_eq!(ends(&[looked.sampled + 30 * 250]), ends(&[]));
    }
}
