//! The way of a probe once the fault has come, and what meets it at its end: what keepalive and
//! window probes have in common.

use crate::old::dead_path::{is_cut, moves, nanos, round_trip_ns, way_back};
use crate::hop::{Fate, Hop, Icmp, Limit, Neighbour, Number};
use crate::kernel::Kernel;
use crate::old::scene::WayBack;
use crate::wheel::Context;
use spec::{Errno, Facts, FaultKind, Neighbour as Neighbours, Parameters, Reject, Topology};

/// What answers probes after the fault.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Healed {
    /// From when on, nanoseconds.
    pub(crate) at_ns: u64,
    /// Whether with a reset; otherwise with an acknowledgement.
    pub(crate) reset: bool,
    /// Whether it has another link-layer address now, and must be asked for.
    pub(crate) moved: bool,
    pub(crate) back: WayBack,
    /// A round trip, nanoseconds, at least, and how much longer at most: the smoothed one holds
    /// what the machine took for other segments.
    pub(crate) round_trip_ns: (u64, u64),
}

impl Healed {
    /// What answers `at_ns`; `None` if nobody ever does.
    pub(crate) fn of(parameters: &Parameters, facts: &Facts, at_ns: u64) -> Option<Self> {
        let fault = &parameters.fault;
        let permanent = parameters.neighbour == Neighbours::Permanent;
        let moved = moves(parameters);
        let least = nanos(parameters.path.rtt);
        let healed = Self {
            at_ns,
            reset: fault.kind != FaultKind::Flap,
            moved,
            back: way_back(parameters),
            round_trip_ns: (least, round_trip_ns(parameters, facts) - least),
        };
        match fault.kind {
            FaultKind::Flap => Some(healed),
            FaultKind::Reboot => (!moved || !permanent).then_some(healed),
            // The router is next door: what delays the path lies behind it.
            FaultKind::Reject if fault.reject == Reject::TcpReset => {
                Some(Self { round_trip_ns: (0, 0), back: WayBack::Known, ..healed })
            }
            _ => None,
        }
    }

    /// The same from another moment on.
    pub(crate) fn from(self, at_ns: u64) -> Self {
        Self { at_ns, ..self }
    }

    pub(crate) fn is_open(self) -> bool {
        self.reset && self.round_trip_ns.1 > 0
    }

    fn reply(self, asked: bool, late: bool) -> Reply {
        // Whoever is asked learns the way back.
        let asks_back = match self.back {
            WayBack::Known => false,
            WayBack::Asks => !asked,
            WayBack::AlwaysAsks | WayBack::AskedInVain => true,
        };
        let times = 1 + u64::from(asked) + u64::from(asks_back);
        let (least, longer) = self.round_trip_ns;
        let (soonest, longer) = (least.saturating_mul(times), longer.saturating_mul(times));
        let (after_ns, open_ns) = if late {
            (soonest.saturating_add(longer), (longer, 0))
        } else {
            (soonest, (0, longer))
        };
        Reply { reset: self.reset, after_ns, open_ns }
    }
}

/// What a probe draws.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reply {
    pub(crate) reset: bool,
    /// When it comes back, nanoseconds after the probe, and how much sooner or later than that it
    /// may.
    pub(crate) after_ns: u64,
    pub(crate) open_ns: (u64, u64),
}

/// How long a probe and its answer are within reach of the fault, nanoseconds: what delays the path
/// lies behind the router, so that answers meet its faults as well.
pub(crate) fn exposed_ns(parameters: &Parameters, rtt_ns: u64) -> u64 {
    if parameters.topology == Topology::Router && !is_cut(parameters) { rtt_ns } else { rtt_ns / 2 }
}

/// Where probes end that a fault has cut off, but for a neighbour entry that is still believed: in
/// silence, or with a router that asks in vain. `None`: an entry decides, which `entry` has.
pub(crate) fn without_entry(parameters: &Parameters) -> Option<Hop> {
    let kind = parameters.fault.kind;
    let cut = is_cut(parameters);
    let routed = parameters.topology == Topology::Router;
    match (routed, parameters.neighbour) {
        (true, _) if !cut => Some(Hop::Silent),
        (true, Neighbours::Permanent) => {
            let icmp = Icmp { error: Errno::EHOSTUNREACH, reverts: false };
            Some(Hop::Asks(Neighbour::of_router(), Limit::none(), icmp))
        }
        // ICMP means nothing to a probe, and nobody ever answers.
        (true, Neighbours::Learned) if kind == FaultKind::PowerOff => Some(Hop::Silent),
        (false, Neighbours::Permanent) => Some(Hop::Silent),
        (false, Neighbours::Learned) if !cut && kind != FaultKind::Blackhole => Some(Hop::Silent),
        (_, Neighbours::Learned) => None,
    }
}

/// The way of one connection's probes.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    hop: Hop,
    healed: Option<Healed>,
    /// What the times of `healed` count from, nanoseconds.
    origin_ns: u64,
    tick_ns: u64,
    /// Whether its timer comes first where both fire.
    first: bool,
    /// Whether a reply takes as long as it can.
    late: bool,
    /// Probes that passed the client's tap.
    pub(crate) seen: u32,
    /// When a probe last made it ask, and how long before that the one before did.
    asked: Option<(u64, Option<u64>)>,
}

impl Way {
    pub(crate) fn new(kernel: &Kernel, hop: Hop, healed: Option<Healed>, origin_ns: u64) -> Self {
        let tick_ns = kernel.hz.tick_ns();
        let hop = hop.later(origin_ns / tick_ns);
        Self { hop, healed, origin_ns, tick_ns, first: false, late: false, seen: 0, asked: None }
    }

    /// The same for either order of two timers that fire at the same jiffy, and for the soonest and
    /// the latest reply.
    pub(crate) fn variants(self) -> Vec<Self> {
        let orders: &[bool] = if self.hop.has_timer() { &[true, false] } else { &[false] };
        let lates: &[bool] =
            if self.healed.is_some_and(Healed::is_open) { &[false, true] } else { &[false] };
        let both = orders.iter().flat_map(|first| lates.iter().map(move |late| (*first, *late)));
        both.map(|(first, late)| Self { first, late, ..self.clone() }).collect()
    }

    /// When its own timer fires, if that comes before one that fires at `fires`.
    pub(crate) fn fires_before(&self, fires: u64) -> Option<u64> {
        self.hop.fires().filter(|asks| *asks < fires || (*asks == fires && self.first))
    }

    /// Its own timer fires: it asks once more, or gives up; ICMP means nothing here. Says what
    /// those that wait draw.
    pub(crate) fn fire(&mut self, kernel: &Kernel, at: u64) -> Option<Reply> {
        let healed = self.healed(at).filter(|_| self.hop.asks_again());
        if healed.is_none() {
            self.hop.fire(kernel, at);
        }
        healed.map(|healed| self.gets_through(healed, at))
    }

    /// A probe is sent: says what it draws.
    pub(crate) fn send(&mut self, kernel: &Kernel, number: Number, now: u64) -> Option<Reply> {
        let fate = self.hop.send(kernel, number, now, Context::Handler);
        self.seen += u32::from(matches!(fate, Fate::OnWire | Fate::Answered));
        let asked = self.hop.asked_now();
        if asked {
            let before = self.asked.map(|(last, _)| now - last);
            self.asked = Some((now, before));
        }
        let healed = self.healed(now)?;
        if !self.hop.passes(fate, healed.moved) {
            return None;
        }
        Some(if asked { self.gets_through(healed, now) } else { healed.reply(false, self.late) })
    }

    /// The address that was asked for is told, and what waits for it goes on.
    fn gets_through(&mut self, healed: Healed, now: u64) -> Reply {
        if self.hop.is_local() {
            self.seen += self.hop.waiting() as u32;
        }
        self.hop.resolve(now);
        healed.reply(true, self.late)
    }

    fn healed(&self, now: u64) -> Option<Healed> {
        let after_ns = (now * self.tick_ns).saturating_sub(self.origin_ns);
        self.healed.filter(|healed| after_ns >= healed.at_ns)
    }

    /// When something begins to answer, jiffies.
    pub(crate) fn heals(&self) -> Option<u64> {
        self.healed.map(|healed| self.origin_ns.saturating_add(healed.at_ns) / self.tick_ns)
    }

    /// After how many jiffies, a multiple of `step`, a probe at `now` finds it as it was found;
    /// `None`: not yet.
    pub(crate) fn repeats_after(&self, now: u64, step: u64) -> Option<u64> {
        match &self.hop {
            Hop::Asks(..) => {
                let (last, before) = self.asked?;
                let since = before.filter(|_| last == now)?;
                since.is_multiple_of(step).then_some(since)
            }
            _ => Some(step),
        }
    }

    /// Goes on by so many jiffies, in which `probes` are sent, a multiple of what it repeats itself
    /// after.
    pub(crate) fn skip(&mut self, jiffies: u64, probes: u32) {
        let local = self.hop.is_local();
        let hop = std::mem::replace(&mut self.hop, Hop::Silent);
        self.hop = hop.later(jiffies);
        self.asked = self.asked.map(|(last, before)| (last + jiffies, before));
        self.seen = self.seen.saturating_add(if local { 0 } else { probes });
    }
}
