//! What the path does over several faults, one after the other.

use super::{Answer, Arrival, Healed, InFlight, Losses, Moment, Recovery, World};
use crate::hop::Hop;

/// A fault changes what the path does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Outage {
    /// When, nanoseconds.
    pub(crate) from_ns: u64,
    /// Where packets end.
    hop: Hop,
    /// When the path is back, if it ever is.
    recovery: Option<Recovery>,
    /// Which packets it drops, if it drops some.
    losses: Option<Losses>,
}

/// What the path does from the first fault to the last.
#[derive(Debug, Clone)]
pub(crate) struct Sequence {
    /// One after the other.
    pub(crate) outages: Vec<Away>,
    /// When the last fault comes, which times count from, nanoseconds after the first.
    pub(crate) last_ns: u64,
    /// When the FIN of a process that was killed while the path was away arrives, at the earliest and at the
    /// latest, nanoseconds after the first fault.
    pub(crate) fin_ns: Option<(u64, u64)>,
    /// From when on a neighbour entry that was learned may no longer be believed, nanoseconds before
    /// and after the first fault; `None`: none is learned.
    pub(crate) believed_ns: Option<(u64, u64)>,
}

/// What a fault makes of the path; times in nanoseconds after the first fault.
#[derive(Debug, Clone)]
pub(crate) struct Away {
    pub(crate) from_ns: u64,
    pub(crate) hop: Hop,
    /// What answers again, and when.
    pub(crate) healed: Option<Healed>,
    /// Which packets the path drops, if it drops some; all others pass.
    pub(crate) losses: Option<Losses>,
}

pub(crate) const ANSWER_IS_OUT: &str = "the path goes away before the server's kernel knows that its program's last answer has \
                             come: it sends that again by itself, and what follows depends on when";

const CONGESTED: &str = "how much a program that writes on has sent before the next fault takes its answers is up to the \
                         congestion window, which an outage has made small on a path with a delay";

const IN_PARTS: &str = "of what a program goes on writing, some waits at the router for the server's link-layer address: in which \
                        parts it is acknowledged when that comes is not followed";

const WAITS: &str = "what waits at the router for a link-layer address goes on when that comes, whatever the next fault \
                     does to what comes later, or is answered by ICMP when the router forgets whom it asks for";

impl Sequence {
    /// A world whose first fault comes at `fault_ns` goes through it.
    pub(crate) fn befalls(&self, world: &mut World, fault_ns: u64) {
        let at = |after_ns: u64| fault_ns.saturating_add(after_ns);
        world.reference_until = Moment::At(at(self.last_ns));
        let lost = self.outages.iter().find(|away| away.losses.is_none());
        world.lost = lost.map_or(Moment::Never, |away| Moment::At(at(away.from_ns)));
        world.believed_until = self
            .believed_ns
            .map_or(Moment::Never, |(before, after)| Moment::At(at(after).saturating_sub(before)));
        (world.recovery, world.losses) = (None, None);
        let outages = self.outages.iter().map(|away| Outage {
            from_ns: at(away.from_ns),
            hop: away.hop.clone(),
            recovery: away.healed.map(|healed| healed.recovery(fault_ns, false)),
            losses: away.losses.clone().map(|losses| losses.later(fault_ns)),
        });
        world.outages = outages.collect();
    }

    /// The same, once for each moment that its FIN may come at.
    pub(crate) fn each_befalls(&self, world: &World, fault_ns: u64) -> Vec<World> {
        let mut world = world.clone();
        self.befalls(&mut world, fault_ns);
        let Some((first_ns, last_ns)) = self.fin_ns else { return vec![world] };
        let open_ns = last_ns - first_ns;
        let ends = [(first_ns, (0, open_ns)), (last_ns, (open_ns, 0))];
        let comes = |(after_ns, open_ns): (u64, (u64, u64))| {
            let mut world = world.clone();
            let at_ns = fault_ns.saturating_add(after_ns);
            world.push(InFlight { open_ns, ..InFlight::of(Arrival::Fin, at_ns) });
            world
        };
        ends.map(comes).to_vec()
    }

    /// Whether a hop has a timer of its own.
    pub(crate) fn has_timer(&self) -> bool {
        self.outages.iter().any(|away| away.hop.has_timer())
    }
}

impl Outage {
    pub(super) fn put_off(&mut self, by_ns: u64) {
        self.from_ns += by_ns;
        self.recovery.iter_mut().for_each(|recovery| recovery.at.put_off(by_ns));
        self.losses = self.losses.take().map(|losses| losses.later(by_ns));
    }

    /// Whether nothing passes when it begins.
    fn is_away(&self) -> bool {
        let is_back = |recovery: &Recovery| {
            recovery.with != Answer::Reset && recovery.at == Moment::At(self.from_ns)
        };
        self.losses.is_none() && !self.recovery.as_ref().is_some_and(is_back)
    }
}

impl World {
    /// Whether the path has gone away again by then.
    pub(super) fn is_away_again(&self, at_ns: u64) -> bool {
        self.outages.first().is_some_and(|next| next.from_ns <= at_ns && next.is_away())
    }

    /// Whether the path is back, or never was away.
    pub(super) fn is_back(&self, now_ns: u64) -> bool {
        let recovered = self.recovery.as_ref().is_some_and(|r| r.at.is_past(now_ns));
        self.is_reached(now_ns) || recovered
    }

    /// Whether everything passes until the next fault, of which there is one.
    pub(crate) fn is_settled(&self, now_ns: u64) -> bool {
        let goes_on = self.losses.as_ref().is_some_and(Losses::goes_on);
        let answers = self.recovery.as_ref().is_none_or(|r| r.with == Answer::Ack);
        self.is_back(now_ns) && answers && !goes_on && self.memory.is_none()
    }

    /// What the path does changes, at each moment that is past.
    pub(super) fn go_through(&mut self, now_ns: u64) {
        while self.outages.first().is_some_and(|next| next.from_ns <= now_ns) {
            let outage = self.outages.remove(0);
            if self.congested && self.lost == Moment::Past {
                self.unknown = Some(CONGESTED);
            }
            if self.writes_on && self.lost == Moment::Past && self.hop.has_timer() {
                self.unknown = Some(IN_PARTS);
            }
            let comes_back = outage.recovery.as_ref().is_some_and(|r| r.with != Answer::Reset);
            // A program that writes on meets nothing but an old acknowledgement.
            let is_old = self.writes_on && matches!(outage.hop, Hop::Silent);
            let matters = (comes_back && !is_old) || outage.losses.is_some();
            if matters && outage.from_ns < self.answer_is_out_ns {
                self.unknown = Some(ANSWER_IS_OUT);
            }
            if self.hop.waiting() > 0 {
                self.unknown = Some(WAITS);
            }
            self.limit = self.hop.limit().cloned().or(self.limit.take());
            self.hop = outage.hop.limited_by(self.limit.as_ref());
            (self.recovery, self.losses) = (outage.recovery, outage.losses);
            self.forget_waiting();
            self.resolved_ns = None;
        }
        if self.answer_is_out_ns <= now_ns {
            self.answer_is_out_ns = 0;
        }
    }
}
