//! One step of a socket: what it is given, what comes of it, and what cannot be known on the way.

use crate::allowance;
use crate::hop::Fate;
use crate::kernel::Kernel;
use crate::prediction::StepKind;
use crate::wheel::Context;
use crate::world::World;
use spec::Outcome;

/// The timers of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Timer {
    /// `icsk_retransmit_timer`: one at a time of `sock::Pending`.
    Write,
    /// `sk_timer`: keepalive, and FIN_WAIT2 of an orphan.
    Keepalive,
    /// `icsk_delack_timer`.
    DelayedAck,
}

/// Moments that timers compare with now. They decide when the next comes, not how it is handled:
/// sockets that differ in them alone go the same way until one of them decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Stamps {
    /// `rcv_tstamp`, jiffies.
    pub(crate) rcv_tstamp: u64,
    /// `retrans_stamp`, nanoseconds.
    pub(crate) retrans_stamp: Option<u64>,
    /// `icsk_probes_tstamp`, jiffies.
    pub(crate) probes_tstamp: Option<u64>,
    /// `icsk_timeout` of the write timer, jiffies.
    pub(crate) expires: u64,
}

/// The run is over.
#[derive(Debug)]
pub(crate) struct Ended;

/// Whether the run goes on.
pub(crate) type Progress = Result<(), Ended>;

/// A moment that a socket notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// `rcv_tstamp`.
    Received(u64),
    /// `retrans_stamp`.
    Retransmission(Option<u64>),
    /// `icsk_probes_tstamp`.
    FirstProbe(Option<u64>),
    /// `icsk_timeout`.
    Expires(u64),
}

impl Stamps {
    /// Puts them off, but for those that are forgotten.
    pub(crate) fn put_off(&mut self, jiffies: u64, by_ns: u64) {
        let put_off = |at: &mut u64, by: u64| *at += if *at > 0 { by } else { 0 };
        put_off(&mut self.rcv_tstamp, jiffies);
        put_off(&mut self.expires, jiffies);
        self.retrans_stamp.iter_mut().for_each(|at_ns| put_off(at_ns, by_ns));
        self.probes_tstamp.iter_mut().for_each(|at| put_off(at, jiffies));
    }
}

impl Stamp {
    pub(crate) fn set(self, stamps: &mut Stamps) {
        match self {
            Self::Received(at) => stamps.rcv_tstamp = at,
            Self::Retransmission(at) => stamps.retrans_stamp = at,
            Self::FirstProbe(at) => stamps.probes_tstamp = at,
            Self::Expires(at) => stamps.expires = at,
        }
    }
}

/// A step: time is an argument.
pub(crate) struct Step<'a> {
    /// What is set at this moment.
    pub(crate) cfg: &'a Kernel,
    /// What is set once that changes, and when, nanoseconds.
    pub(crate) later: Option<(u64, &'a Kernel)>,
    pub(crate) now_ns: u64,
    /// The jiffy of the timer that fires, nanoseconds, where its handler runs late; otherwise now.
    pub(crate) due_ns: u64,
    pub(crate) context: Context,
    /// By how much sooner than now the segment that arrives may have come, nanoseconds.
    pub(crate) sooner_ns: u64,
    /// By how much late it was drawn, where it also would have been on time; and in any case.
    pub(crate) late_ns: (u64, u64),
    pub(crate) world: &'a mut World,
    pub(crate) effects: Effects,
}

/// What came of a step.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// What the timer did that fired, and whether what it sent stayed in its host.
    pub(crate) steps: Vec<(StepKind, bool)>,
    /// Timers that were armed, jiffies; and from which jiffy on their time counts by the textbook,
    /// where that is not now.
    pub(crate) armed: Vec<(Timer, u64, Option<u64>)>,
    pub(crate) stamped: Vec<Stamp>,
    /// Data segments that were sent again and passed the tap.
    pub(crate) resent: u32,
    /// The slots of what else the phase of the clock moves, jiffies.
    pub(crate) slots: u64,
    /// The longest time, jiffies, that something waits for which is no timer of the socket's.
    pub(crate) waits: u64,
    /// How it ends, where it does; more than one where that cannot be known.
    pub(crate) told: Vec<Told>,
}

/// An end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    pub(crate) outcome: Outcome,
    pub(crate) at_ns: u64,
    /// By how much later it comes in another phase of the clock, at most, nanoseconds.
    pub(crate) later_ns: u64,
    /// The timeout of a last timer that this step did not arm, nanoseconds.
    pub(crate) waited_ns: Option<u64>,
}

impl<'a> Step<'a> {
    pub(crate) fn tick_ns(&self) -> u64 {
        self.cfg.hz.tick_ns()
    }

    pub(crate) fn jiffy(&self) -> u64 {
        self.now_ns / self.tick_ns()
    }

    /// How far the wheel's own clock is when a timer is armed: in a handler that runs late, jiffies
    /// have caught up with it.
    pub(crate) fn wheel_context(&self) -> Context {
        if self.now_ns > self.due_ns { Context::Call } else { self.context }
    }

    /// The earliest and the latest moment at which what arrives now may have come, nanoseconds.
    pub(crate) fn arrival_ns(&self) -> (u64, u64) {
        let (sooner_ns, late_ns) = self.late_ns;
        let first_ns = (self.now_ns - sooner_ns).saturating_sub(self.sooner_ns);
        (first_ns, self.now_ns - late_ns + allowance::late(self.cfg.hz).as_nanos() as u64)
    }

    /// The settings in force at a jiffy that is yet to come.
    pub(crate) fn cfg_at(&self, jiffy: u64) -> &'a Kernel {
        match self.later {
            Some((at_ns, later)) if jiffy * self.tick_ns() >= at_ns => later,
            _ => self.cfg,
        }
    }

    /// What cannot be known: both are explored.
    pub(crate) fn either(&mut self) -> bool {
        self.world.choices.either()
    }

    /// The timer that fires does this.
    pub(crate) fn log(&mut self, kind: StepKind) {
        self.effects.steps.push((kind, false));
    }

    /// What it sends may not leave the client's host.
    pub(crate) fn held(&mut self, fate: Fate) {
        let held = self.world.unseen || matches!(fate, Fate::Held | Fate::Busy);
        if let Some(last) = self.effects.steps.last_mut() {
            last.1 = held;
        }
    }

    pub(crate) fn armed(&mut self, timer: Timer, timeout: u64, from: Option<u64>) {
        self.effects.armed.push((timer, timeout, from));
    }

    /// The program is told the end, or its kernel lets go.
    pub(crate) fn told(&mut self, outcome: Outcome) -> Progress {
        let at_ns = self.now_ns;
        self.effects.told.push(Told { outcome, at_ns, later_ns: 0, waited_ns: None });
        Err(Ended)
    }

    /// The kernel forgets the connection then: at the earliest and at the latest.
    pub(crate) fn released_at(&mut self, (at_ns, latest_ns): (u64, u64), waited_ns: u64) {
        let (outcome, later_ns) = (Outcome::Released, latest_ns - at_ns);
        let waited_ns = Some(waited_ns);
        self.effects.told.push(Told { outcome, at_ns, later_ns, waited_ns });
    }
}
