//! What a sender is up against, apart from the phase of the clock.

use crate::entry::Looked;
use crate::hop::{self, Hop, Icmp, Limit, Neighbour, State};
use crate::kernel::Kernel;
use crate::laboratory::SLOP_NS;
use crate::purpose::Purpose;
use crate::rto;
use crate::world::{Healed, Losses};

/// What an ICMP error from next door needs to come back.
pub(crate) const ICMP_NS: u64 = 20_000;

/// What an ICMP error takes to come back: it decides whether a timeout that is begun anew has spent
/// a jiffy already. One that a neighbour's timer makes comes at the jiffy at which the segment was
/// sent, give or take; and where time is virtual, nothing takes any, unless it waits for `ksoftirqd`.
pub(crate) fn icmp_times(kernel: &Kernel, by_timer: bool) -> impl Iterator<Item = u64> + use<> {
    let none = by_timer || kernel.virtual_time;
    let some = !kernel.virtual_time || kernel.softirqs_wait;
    none.then_some(0).into_iter().chain(some.then_some(ICMP_NS))
}
/// So many timeouts in silence are looked at one by one beside the doublings.
const TIMEOUTS_ALIKE: u64 = 75;
/// Lives of a neighbour entry that differ by less than this may lead to the same run.
pub(crate) const LIVES_APART_SECS: u64 = 5;
/// By how much a program's later writes may lag behind their times, nanoseconds.
const WRITES_LATE_NS: [u64; 3] = [60_000, 300_000, 1_000_000];
/// The same where time is virtual: what a sleep may be longer than it was asked to be
/// (`timer_slack_ns`, 50 µs), or nothing.
const WRITES_LATE_VIRTUAL_NS: [u64; 2] = [0, 60_000];

/// What a sender is up against.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    /// What the segments are for.
    pub(crate) purpose: Purpose,
    /// `icsk_rto` when the first segment is sent, jiffies.
    pub(crate) rto: u64,
    /// The smoothed round-trip time, microseconds.
    pub(crate) srtt_us: u64,
    /// `snd_cwnd`, segments.
    pub(crate) cwnd: usize,
    /// From one write to the next, nanoseconds; `None`: only one.
    pub(crate) write_interval_ns: Option<u64>,
    /// How many writes there are at most.
    pub(crate) writes_most: usize,
    /// Settings that change while it waits: when, nanoseconds after the first write, and what is
    /// in force from then on.
    pub(crate) later: Option<(u64, Kernel)>,
    /// Where segments go. Its jiffies count from the first write's.
    pub(crate) hop: HopKind,
    /// When the path works again, nanoseconds after the first write.
    pub(crate) healed: Option<Healed>,
    /// Which packets the path drops, if it drops some.
    pub(crate) losses: Option<Losses>,
    /// What an ICMP error from next door takes to come back, nanoseconds.
    pub(crate) icmp_ns: u64,
    /// Whether nothing that is sent passes the client's tap.
    pub(crate) unseen: bool,
}

/// How to make the hop of each course.
#[derive(Debug, Clone)]
pub(crate) enum HopKind {
    /// The same for each.
    Fixed(Hop),
    /// The client's own neighbour entry, or the router's for the server: believed for so many jiffies
    /// after the first write, or up to so many longer.
    Believed { local: bool, jiffies: (u64, u64), limit: Limit, icmp: Icmp },
    /// The entry of either as it was before the fault.
    Looked { entry: Looked, local: bool, confirms: Confirms, limit: Limit, icmp: Icmp },
}

/// When a neighbour entry was last confirmed, or will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Confirms {
    /// It may be left at what was seen.
    pub(crate) seen: bool,
    /// The first write may pass on an acknowledgement.
    pub(crate) by_write: bool,
    /// The jiffy of a delayed acknowledgement that may do so before it.
    pub(crate) delayed: Option<u64>,
}

impl HopKind {
    /// See [`Hop::reverts_by_timer`].
    pub(crate) fn reverts_by_timer(&self) -> bool {
        match self {
            Self::Fixed(hop) => hop.reverts_by_timer(),
            Self::Believed { icmp, .. } | Self::Looked { icmp, .. } => icmp.reverts,
        }
    }

    /// The hops that it may be if the first write comes at jiffy `start`.
    pub(crate) fn hops(&self, kernel: &Kernel, start: u64) -> Vec<Hop> {
        match self {
            Self::Fixed(hop) => vec![hop.clone()],
            Self::Believed { local, jiffies: (least, open), limit, icmp } => {
                let neighbour = Neighbour::believed(*local, (start + least, *open));
                vec![Hop::Asks(neighbour, limit.clone(), *icmp)]
            }
            Self::Looked { entry, local, confirms, limit, icmp } => {
                let mut states = if confirms.seen { entry.states(kernel, &[]) } else { Vec::new() };
                if confirms.by_write {
                    let delayed = confirms.delayed.filter(|at| *at <= start);
                    let at: Vec<_> = delayed.into_iter().chain([start]).collect();
                    states.extend(entry.states(kernel, &at));
                }
                // A segment that is sent in the jiffy of the entry's timer may come first.
                for state in states.clone() {
                    if let State::Reachable { until: until @ 1.. } = state {
                        states.push(State::Reachable { until: until + 1 });
                    }
                }
                states.sort_unstable();
                states.dedup();
                let manners = Some(entry.manners(kernel));
                let hop = |state| {
                    let neighbour = Neighbour::in_state(*local, state, manners);
                    Hop::Asks(neighbour, limit.clone(), *icmp)
                };
                states.into_iter().map(hop).collect()
            }
        }
    }
}

impl Scene {
    /// About how many events a run has.
    pub(crate) fn events(&self, kernel: &Kernel) -> u64 {
        let tick_ns = kernel.hz.tick_ns();
        let most = self.cwnd.min(self.writes_most) as u64;
        let writes = self
            .write_interval_ns
            .map_or(0, |interval| (self.rto * tick_ns / interval.max(1)).min(most));
        let timeouts = match self.hop {
            _ if self.healed.is_some_and(|healed| healed.at_ns == 0) => 0,
            HopKind::Fixed(Hop::Silent) => u64::from(kernel.rto_max.ilog2()) + TIMEOUTS_ALIKE,
            _ if self.purpose.is_syn() => {
                u64::from(kernel.syn_retries + kernel.syn_linear_timeouts)
            }
            _ => self.longest_patience_ms(kernel).saturating_mul(1_000_000) / (self.rto * tick_ns),
        };
        let lives = match &self.hop {
            HopKind::Believed { jiffies: (_, open), .. } => {
                open / kernel.hz.from_secs(LIVES_APART_SECS).max(1) + 1
            }
            HopKind::Fixed(_) | HopKind::Looked { .. } => 1,
        };
        (writes * 3 + timeouts.saturating_add(10)).saturating_mul(lives)
    }

    /// The longest that anything which may be in force has it wait.
    fn longest_patience_ms(&self, kernel: &Kernel) -> u64 {
        let later = self.later.as_ref().map_or(kernel, |(_, kernel)| kernel);
        let patience_ms = |kernel: &Kernel| {
            let orphan_retries = match (self.purpose, kernel.orphan_retries) {
                (Purpose::Fin(_), 0) => 8,
                (Purpose::Fin(_), retries) => retries,
                _ => 0,
            };
            let retries = kernel.retries2.max(orphan_retries);
            kernel.user_timeout_ms.unwrap_or_else(|| rto::model_timeout_ms(kernel, retries))
        };
        patience_ms(kernel).max(patience_ms(later))
    }

    /// The jiffies that the first write may come at, where its hop says when it was looked at: the
    /// first, and how many.
    pub(crate) fn starts(&self, kernel: &Kernel) -> Option<(u64, u64)> {
        let HopKind::Looked { entry, .. } = &self.hop else { return None };
        Some((entry.sampled, kernel.hz.from_usecs(SLOP_NS / 1_000) + 1))
    }

    /// The longest timer beside the write timer that decides something, jiffies: the hop's, or
    /// `close`'s own.
    pub(crate) fn other_timers(&self, kernel: &Kernel) -> u64 {
        let hops = if self.has_timer() { kernel.hz.from_secs(hop::DELAY_SECS) } else { 1 };
        match self.purpose {
            Purpose::Fin(farewell) => hops.max(farewell.lingers.min(kernel.rto_max)),
            _ => hops,
        }
    }

    /// By how much the program's later writes may lag behind, where there are any.
    pub(crate) fn lates_ns(&self, kernel: &Kernel) -> &'static [u64] {
        match self.write_interval_ns {
            None => &[0],
            Some(_) if kernel.virtual_time => &WRITES_LATE_VIRTUAL_NS,
            Some(_) => &WRITES_LATE_NS,
        }
    }

    /// Whether something depends on where within its jiffy the first write comes: later writes, or
    /// the jiffy in which an acknowledgement arrives.
    pub(crate) fn is_finer_than_jiffies(&self) -> bool {
        self.write_interval_ns.is_some() || matches!(self.purpose, Purpose::Fin(_))
    }

    /// Whether the hop has a timer of its own.
    pub(crate) fn has_timer(&self) -> bool {
        match &self.hop {
            HopKind::Fixed(hop) => hop.has_timer(),
            HopKind::Believed { .. } | HopKind::Looked { .. } => true,
        }
    }
}
