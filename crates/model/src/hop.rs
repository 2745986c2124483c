//! The next hop of a segment that will not be acknowledged: it is lost in silence, or a router
//! rejects it, or it waits for a link-layer address that never comes.
//!
//! What comes back to the sender are ICMP errors. They do not end a connection, but they name the
//! error at its end, and a host or network unreachable takes one doubling of the RTO back
//! (RFC 6069; `tcp_ld_RTO_revert`, net/ipv4/tcp_ipv4.c; for IPv6 only "no route", `tcp_v6_err`,
//! net/ipv6/tcp_ipv6.c).

use crate::kernel::Kernel;
use crate::wheel::Context;
use spec::{Errno, Family};

/// Where segments go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Hop {
    /// They are lost.
    Silent,
    /// Each is answered by ICMP, as far as the rate limit lets it.
    Rejects(Limit, Icmp),
    /// They wait for address resolution, and end in ICMP each time that fails.
    Asks(Neighbour, Limit, Icmp),
}

/// The ICMP error that a segment draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Icmp {
    /// What it leaves in `sk_err_soft`.
    pub(crate) error: Errno,
    /// Whether it takes back a doubling of the RTO.
    pub(crate) reverts: bool,
}

/// What becomes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It passes the client's tap, and is lost or waits at the router.
    OnWire,
    /// It passes the client's tap, and an ICMP error comes back at once.
    Answered,
    /// It waits in the client's own queue.
    Held,
    /// Its last copy still waits there: it is not sent again (`skb_still_in_host_queue`).
    Busy,
}

/// Segments by their number; the first outstanding one is 0.
pub(crate) type Number = usize;

impl Hop {
    /// A segment is sent at jiffy `now`.
    pub(crate) fn send(
        &mut self,
        kernel: &Kernel,
        number: Number,
        now: u64,
        context: Context,
    ) -> Fate {
        match self {
            Self::Silent => Fate::OnWire,
            Self::Rejects(limit, _) => {
                if limit.allows(now) {
                    Fate::Answered
                } else {
                    Fate::OnWire
                }
            }
            Self::Asks(neighbour, ..) => neighbour.send(kernel, number, now, context),
        }
    }

    /// When its own timer fires.
    pub(crate) fn fires(&self) -> Option<u64> {
        match self {
            Self::Asks(neighbour, ..) => neighbour.fires(),
            _ => None,
        }
    }

    /// Its timer fires: the segments whose ICMP errors come back now.
    pub(crate) fn fire(&mut self, kernel: &Kernel, now: u64) -> Vec<Number> {
        match self {
            Self::Asks(neighbour, limit, _) => {
                let mut failed = neighbour.fire(kernel, now);
                failed.retain(|_| limit.allows(now));
                failed
            }
            _ => Vec::new(),
        }
    }

    /// Whether segments wait here for an address.
    fn waits(&self) -> bool {
        matches!(self, Self::Asks(neighbour, ..) if !neighbour.queue.is_empty())
    }

    /// The segments that wait in the client's own queue.
    pub(crate) fn held(&self) -> &[Number] {
        match self {
            Self::Asks(neighbour, ..) if neighbour.local => &neighbour.queue,
            _ => &[],
        }
    }

    /// Whether it has a timer of its own.
    pub(crate) fn has_timer(&self) -> bool {
        matches!(self, Self::Asks(..))
    }

    /// Whether it is a timer that makes an ICMP error which takes a doubling of the RTO back.
    pub(crate) fn reverts_by_timer(&self) -> bool {
        self.has_timer() && self.icmp().is_some_and(|icmp| icmp.reverts)
    }

    /// Whether the timer that fires next asks once more, which can set those free that wait.
    pub(crate) fn asks_again(&self) -> bool {
        let asks = |neighbour: &Neighbour| {
            let all = neighbour.manners.map_or(QUESTIONS, |manners| manners.all);
            matches!(neighbour.state, State::Incomplete { asked, .. } if asked < all)
        };
        self.waits() && matches!(self, Self::Asks(neighbour, ..) if asks(neighbour))
    }

    /// Whether its timer, when it fires next, throws away what waits: each segment may draw its error.
    pub(crate) fn fails_next(&self, kernel: &Kernel) -> bool {
        let Self::Asks(neighbour, ..) = self else { return false };
        let all = neighbour.manners(kernel).all;
        matches!(neighbour.state, State::Incomplete { asked, .. } if asked >= all)
    }

    /// Whether the segment that was just sent reaches the far end at once if that is there: it goes
    /// straight on, or makes the hop ask.
    pub(crate) fn passes(&self, fate: Fate, by_asking_only: bool) -> bool {
        let asked = self.asked_now();
        let straight = matches!(fate, Fate::OnWire | Fate::Answered) && !self.waits();
        fate != Fate::Busy && (asked || (straight && !by_asking_only))
    }

    /// Whether it has asked for an address and not heard.
    pub(crate) fn is_asking(&self) -> bool {
        matches!(self, Self::Asks(Neighbour { state: State::Incomplete { .. }, .. }, ..))
    }

    /// The address that it asked for comes at jiffy `now`.
    pub(crate) fn resolve(&mut self, now: u64) {
        if let Self::Asks(neighbour, ..) = self
            && matches!(neighbour.state, State::Incomplete { .. })
        {
            neighbour.state = State::Reachable { until: now + u64::from(u32::MAX) };
            neighbour.queue.clear();
        }
    }

    /// Whether the segment that was just sent made it ask.
    pub(crate) fn asked_now(&self) -> bool {
        matches!(self, Self::Asks(neighbour, ..) if neighbour.asked_now)
    }

    /// Whether how long an entry is believed is not known from a jiffy on.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Asks(Neighbour { state: State::Reachable { .. }, open: 1.., .. }, ..))
    }

    /// The same hop if its entry is no longer believed at this jiffy, and if it still is; `None`: which
    /// it is, is known.
    pub(crate) fn believed_or_not(&self, now: u64) -> Option<[Self; 2]> {
        let Self::Asks(neighbour, limit, icmp) = self else { return None };
        let State::Reachable { until } = neighbour.state else { return None };
        let last = until + neighbour.open;
        if !(until..last).contains(&now) {
            return None;
        }
        let entry = |until, open| {
            let state = State::Reachable { until };
            Self::Asks(Neighbour { state, open, ..neighbour.clone() }, limit.clone(), *icmp)
        };
        Some([entry(now, 0), entry(now + 1, last - (now + 1))])
    }

    /// How many segments wait for an address.
    pub(crate) fn waiting(&self) -> usize {
        if let Self::Asks(neighbour, ..) = self { neighbour.queue.len() } else { 0 }
    }

    /// The same hop so many jiffies later.
    pub(crate) fn later(mut self, jiffies: u64) -> Self {
        if let Self::Asks(neighbour, ..) = &mut self {
            match &mut neighbour.state {
                State::Reachable { until: at }
                | State::Delay { fires: at }
                | State::Probe { fires: at, .. }
                | State::Incomplete { fires: at, .. } => *at = at.saturating_add(jiffies),
                State::Failed => {}
            }
        }
        self
    }

    /// The same with all its moments so many jiffies later, but for those that it has forgotten.
    pub(crate) fn put_off(self, jiffies: u64) -> Self {
        let forgotten = State::Reachable { until: 0 };
        let mut hop = match &self {
            Self::Asks(neighbour, ..) if neighbour.state == forgotten && neighbour.open == 0 => {
                self
            }
            _ => self.later(jiffies),
        };
        if let Self::Rejects(limit, _) | Self::Asks(_, limit, _) = &mut hop {
            limit.put_off(jiffies);
        }
        hop
    }

    /// How long its timer was armed for, jiffies.
    pub(crate) fn timeout(&self, kernel: &Kernel) -> u64 {
        let Self::Asks(neighbour, ..) = self else { return 0 };
        let manners = neighbour.manners(kernel);
        match neighbour.state {
            State::Delay { .. } => manners.delay,
            _ => manners.again,
        }
    }

    /// Forgets what cannot matter from a jiffy on.
    pub(crate) fn forget(&mut self, jiffy: u64) {
        if let Self::Asks(Neighbour { state: State::Reachable { until }, open, .. }, ..) = self {
            let last = *until + *open;
            (*until, *open) = match last.checked_sub(jiffy) {
                None | Some(0) => (0, 0),
                Some(_) if *open == 0 => (*until, 0),
                Some(_) => ((*until).max(jiffy), last - (*until).max(jiffy)),
            };
        }
        if let Self::Rejects(limit, _) | Self::Asks(_, limit, _) = self
            && limit.full_at <= jiffy
        {
            limit.full_at = 0;
        }
    }

    /// The router's limit of ICMP errors.
    pub(crate) fn limit(&self) -> Option<&Limit> {
        match self {
            Self::Silent => None,
            Self::Rejects(limit, _) | Self::Asks(_, limit, _) => Some(limit),
        }
    }

    /// The same with what is left of a limit.
    pub(crate) fn limited_by(mut self, left: Option<&Limit>) -> Self {
        if let Self::Rejects(limit, _) | Self::Asks(_, limit, _) = &mut self
            && let Some(left) = left.filter(|left| left.cost == limit.cost)
        {
            limit.full_at = left.full_at;
        }
        self
    }

    /// Whether the client's own neighbour entry decides what passes its tap.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::Asks(Neighbour { local: true, .. }, ..))
    }

    pub(crate) fn icmp(&self) -> Option<Icmp> {
        match self {
            Self::Silent => None,
            Self::Rejects(_, icmp) | Self::Asks(.., icmp) => Some(*icmp),
        }
    }
}

/// The rate limit of ICMP errors to one address: `inet_peer_xrlim_allow` (net/ipv4/inetpeer.c), a
/// bucket of six tokens, one a `icmp_ratelimit`, a second by default.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Limit {
    /// Jiffies a token; 0: no limit.
    cost: u64,
    /// When the bucket is full if nothing more is taken, jiffies: what `rate_tokens` and `rate_last`
    /// come to.
    full_at: u64,
}

impl Limit {
    /// `XRLIM_BURST_FACTOR`.
    const BURST: u64 = 6;

    /// An address that has drawn no ICMP for a while.
    pub(crate) fn per(cost: u64) -> Self {
        Self { cost, full_at: 0 }
    }

    /// A router's, by default: one a second; for IPv6 four on the way to a /64
    /// (`icmpv6_xrlim_allow`, net/ipv6/icmp.c). Linux 6.12 was seen to keep to that, and 6.18 to let
    /// every retransmission draw its error.
    pub(crate) fn of_router(kernel: &Kernel, family: Family) -> Self {
        let second = u64::from(kernel.hz.get());
        match family {
            Family::Ipv4 => Self::per(second),
            Family::Ipv6 if kernel.limits_icmpv6 => Self::per(second / 4),
            Family::Ipv6 => Self::none(),
        }
    }

    /// None: to the host itself, over loopback.
    pub(crate) fn none() -> Self {
        Self::per(0)
    }

    pub(crate) fn put_off(&mut self, jiffies: u64) {
        if self.full_at > 0 {
            self.full_at += jiffies;
        }
    }

    fn allows(&mut self, now: u64) -> bool {
        let taken = self.full_at.saturating_sub(now);
        let allowed = taken + self.cost <= Self::BURST * self.cost;
        if allowed && self.cost > 0 {
            self.full_at = now + taken + self.cost;
        }
        allowed
    }
}

/// An entry of the neighbour table (net/core/neighbour.c: `__neigh_event_send`,
/// `neigh_timer_handler`, `neigh_invalidate`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Neighbour {
    /// Whether it is the client's own, so that its queue holds what has not passed the tap.
    local: bool,
    state: State,
    /// By how many jiffies more than its state says it may be believed.
    open: u64,
    queue: Vec<Number>,
    /// Whether the last segment made it ask.
    asked_now: bool,
    /// `None`: the defaults.
    manners: Option<Manners>,
}

/// How an interface's neighbour entries ask (`struct neigh_parms`), jiffies and questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Manners {
    /// `delay_first_probe_time`.
    pub(crate) delay: u64,
    /// `retrans_time_ms`.
    pub(crate) again: u64,
    /// `ucast_solicit`.
    pub(crate) direct: u32,
    /// `mcast_solicit`.
    pub(crate) all: u32,
}

/// `nud_state`, with the jiffy of its timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum State {
    /// Believed until a jiffy.
    Reachable { until: u64 },
    /// Doubted since a packet used it after that: `delay_first_probe_time`, 5 s.
    Delay { fires: u64 },
    /// Asked directly; packets still go.
    Probe { fires: u64, asked: u32 },
    /// Given up.
    Failed,
    /// Asked by broadcast; packets wait.
    Incomplete { fires: u64, asked: u32 },
}

/// `ucast_solicit` and `mcast_solicit`, the defaults: questions before giving up.
const QUESTIONS: u32 = 3;
/// `delay_first_probe_time`, seconds.
pub(crate) const DELAY_SECS: u64 = 5;

impl Neighbour {
    /// An entry that nothing is known of: the client's own or a router's.
    pub(crate) fn unknown(local: bool) -> Self {
        Self::in_state(local, State::Failed, None)
    }

    /// An entry that is believed until a jiffy, or up to so many longer.
    pub(crate) fn believed(local: bool, (until, open): (u64, u64)) -> Self {
        Self { open, ..Self::in_state(local, State::Reachable { until }, None) }
    }

    /// An entry in this state: the client's own or a router's.
    pub(crate) fn in_state(local: bool, state: State, manners: Option<Manners>) -> Self {
        Self { local, state, open: 0, queue: Vec::new(), asked_now: false, manners }
    }

    fn manners(&self, kernel: &Kernel) -> Manners {
        let second = u64::from(kernel.hz.get());
        self.manners.unwrap_or(Manners {
            delay: DELAY_SECS * second,
            again: second,
            direct: QUESTIONS,
            all: QUESTIONS,
        })
    }

    fn send(&mut self, kernel: &Kernel, number: Number, now: u64, context: Context) -> Fate {
        if self.local && self.queue.contains(&number) {
            return Fate::Busy;
        }
        let manners = self.manners(kernel);
        self.asked_now = false;
        match self.state {
            State::Reachable { until } if now >= until => {
                let fires = kernel.wheel.fires_at(now, manners.delay, context);
                self.state = State::Delay { fires };
            }
            State::Failed => {
                let fires = kernel.wheel.fires_at(now, manners.again, context);
                self.state = State::Incomplete { fires, asked: 1 };
                self.asked_now = true;
            }
            _ => {}
        }
        if !matches!(self.state, State::Incomplete { .. }) {
            return Fate::OnWire;
        }
        self.queue.push(number);
        if self.local { Fate::Held } else { Fate::OnWire }
    }

    fn fires(&self) -> Option<u64> {
        match self.state {
            State::Reachable { .. } | State::Failed => None,
            State::Delay { fires }
            | State::Probe { fires, .. }
            | State::Incomplete { fires, .. } => Some(fires),
        }
    }

    fn fire(&mut self, kernel: &Kernel, now: u64) -> Vec<Number> {
        let manners = self.manners(kernel);
        let again = kernel.wheel.fires_at(now, manners.again, Context::Handler);
        match self.state {
            State::Delay { .. } if manners.direct == 0 => self.state = State::Failed,
            State::Delay { .. } => self.state = State::Probe { fires: again, asked: 1 },
            State::Probe { asked, .. } if asked < manners.direct => {
                self.state = State::Probe { fires: again, asked: asked + 1 };
            }
            State::Incomplete { asked, .. } if asked < manners.all => {
                self.state = State::Incomplete { fires: again, asked: asked + 1 };
            }
            State::Probe { .. } | State::Incomplete { .. } => {
                self.state = State::Failed;
                return std::mem::take(&mut self.queue);
            }
            State::Reachable { .. } | State::Failed => {}
        }
        Vec::new()
    }
}
