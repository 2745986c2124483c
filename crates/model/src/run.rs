//! A run: one socket with its world and its program, and the pasts that have led to it.
//!
//! Runs that are alike from here on are one, whatever led to them: a past holds what no longer
//! matters to what comes next (when it began, what has fired, what was counted), and the stamps, of
//! which only comparisons with now matter. Pasts that began in one jiffy after the other, and have sent
//! again for the first time as much later, are a block of which one stands for all.

mod log;

use crate::prediction::{COUNTED_MOST, StepKind};
use crate::program::Program;
use crate::sock::{Sock, Stamps, Timer};
use crate::step::{Effects, Stamp};
use crate::world::World;
use log::Log;

use std::borrow::Cow;

pub(crate) use log::Expiry;

/// Runs, each with the pasts that have led to it.
pub(crate) type Runs = Vec<(Box<Live>, Vec<Past>)>;

/// What comes next depends on this alone, and on the stamps of each past.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Live {
    pub(crate) sock: Sock,
    pub(crate) world: World,
    pub(crate) program: Program,
    /// Whether a call has come before a timer that was due, and ran late.
    pub(crate) overtaken: bool,
    /// Whether it stands for others that have come as far at another time.
    pub(crate) stands: bool,
}

impl Live {
    /// Puts all its moments off by so many jiffies.
    pub(crate) fn put_off(&mut self, jiffies: u64, by_ns: u64) {
        self.sock.put_off(jiffies, by_ns);
        self.world.put_off(jiffies);
        self.program.put_off(by_ns);
    }

    pub(crate) fn new(sock: Sock, world: World, program: Program) -> Self {
        Self { sock, world, program, overtaken: false, stands: false }
    }
}

/// How many steps a schedule shows at most; the later ones are all alike.
pub(crate) const STEPS_SHOWN: u32 = 300;

/// What has led to a run. Times are nanoseconds of one clock.
#[derive(Debug, Clone)]
pub(crate) struct Past {
    /// The reference that its times count from: the earliest and the latest moment it may be. Of a
    /// block, the first's.
    pub(crate) start: (u64, u64),
    /// Of a block of pasts, one a jiffy: by how much the last began later than the first, and has a
    /// later `retrans_stamp`.
    block_ns: u64,
    /// The moment of it that the run is of; where several are one by now, of one of them, and of a block
    /// of the last.
    pub(crate) begins_ns: u64,
    /// By how much sooner and later than computed a moment of it may be that was not seen.
    within_ns: (u64, u64),
    pub(crate) stamps: Stamps,
    /// Whether a timer ran late on the way, and it matters.
    pub(crate) late: bool,
    /// Whether a timer made the reference, which may so be later than computed.
    pub(crate) reference_by_timer: bool,
    /// Where times count from a call of the program's: in what time before it that comes.
    pub(crate) call_spread_ns: Option<u64>,
    /// Which call its times count from; `None`: what the run began with.
    pub(crate) called: Option<Called>,
    pub(crate) counts: Counts,
    /// The slots of all timers on the way, jiffies.
    pub(crate) slots: u64,
    /// When each timer is due by the textbook, without ticks and slots, after the beginning.
    nominal: [u64; 2],
    log: Log,
    pub(crate) steps: u32,
}

/// A call that times count from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Called {
    /// The first `write`.
    Write,
    /// `shutdown`, where nothing was written.
    Shutdown,
    /// `close`.
    Close,
}

/// What the tap counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Counts {
    pub(crate) retransmits: u32,
    /// Keepalive or window probes.
    pub(crate) probes: u32,
    /// Keepalive and window probes apart.
    pub(crate) window_probes: u32,
}

impl Past {
    pub(crate) fn new(start: (u64, u64), begins_ns: u64, stamps: Stamps) -> Self {
        Self {
            start,
            block_ns: 0,
            begins_ns,
            within_ns: (begins_ns.saturating_sub(start.0), start.1.saturating_sub(begins_ns)),
            stamps,
            late: false,
            reference_by_timer: false,
            call_spread_ns: None,
            called: None,
            counts: Counts::default(),
            slots: 0,
            nominal: [0; 2],
            log: Log::default(),
            steps: 0,
        }
    }

    /// Puts all its moments off by so many jiffies.
    pub(crate) fn put_off(&mut self, jiffies: u64, by_ns: u64) {
        self.log = std::mem::take(&mut self.log).settled(self.starts());
        self.start = (self.start.0 + by_ns, self.start.1 + by_ns);
        self.begins_ns += by_ns;
        self.stamps.put_off(jiffies, by_ns);
    }

    /// It may have begun as much sooner.
    pub(crate) fn open(&mut self, by_ns: u64) {
        self.start.0 -= by_ns;
        self.within_ns.0 += by_ns;
    }

    /// When a timer is due by the textbook.
    pub(crate) fn due(&mut self, timer: Timer, at_ns: u64) {
        self.nominal[index(timer)] = at_ns.saturating_sub(self.begins_ns);
    }

    /// Notes the result of a step. `fired` is the timer whose handler ran, with its timeout.
    pub(crate) fn take(
        &mut self,
        effects: &Effects,
        fired: Fired,
        hz: crate::tick::Hz,
        keepalive_time: u64,
    ) {
        let tick_ns = hz.tick_ns();
        let wheel = crate::wheel::Wheel::new(hz);
        self.count_resent(effects.resent);
        self.slots += effects.slots;
        let since_ns = fired.now_ns.saturating_sub(self.begins_ns);
        let base_ns = fired.timer.map_or(since_ns, |(timer, _)| self.nominal[index(timer)]);
        for (kind, held) in &effects.steps {
            self.log(*kind, base_ns, &fired, tick_ns, *held);
        }
        for stamp in &effects.stamped {
            if matches!(stamp, Stamp::Retransmission(_)) {
                (self.start, self.block_ns) = (self.starts(), 0);
            }
            stamp.set(&mut self.stamps);
        }
        for (timer, timeout, from) in &effects.armed {
            self.slots += wheel.slot(*timeout);
            self.nominal[index(*timer)] = match from {
                // What is left of the idle time, which counts from the last segment.
                Some(from) if *from == self.begins_ns / tick_ns => keepalive_time * tick_ns,
                Some(from) => ((from + keepalive_time) * tick_ns).saturating_sub(self.begins_ns),
                None => base_ns.saturating_add(timeout.saturating_mul(tick_ns)),
            };
        }
    }

    fn log(&mut self, kind: StepKind, nominal_ns: u64, fired: &Fired, tick_ns: u64, held: bool) {
        if self.steps > STEPS_SHOWN && kind != StepKind::GiveUp {
            return;
        }
        let timeout_ns = fired.timer.map_or(0, |(_, timeout)| timeout * tick_ns);
        self.push(kind, (fired.due_ns, fired.due_ns), nominal_ns, timeout_ns, held);
    }

    /// Notes what a timer did, at the earliest and at the latest.
    pub(crate) fn push(
        &mut self,
        kind: StepKind,
        (at_ns, latest_ns): (u64, u64),
        nominal_ns: u64,
        timeout_ns: u64,
        held: bool,
    ) {
        let after_ns = (at_ns, if self.late { 0 } else { latest_ns }, latest_ns);
        self.log.push(Expiry { kind, after_ns, is_moment: true, nominal_ns, timeout_ns, held });
        self.steps += 1;
    }

    /// Notes what so many timers did, the first due at `due_ns`, each of the next so much later, at
    /// least and at most.
    pub(crate) fn push_alike(
        &mut self,
        (kind, held): (StepKind, bool),
        count: u32,
        due_ns: u64,
        gaps_ns: (u64, u64),
        timeout_ns: u64,
    ) {
        for place in 0..u64::from(count) {
            let [from_ns, to_ns] = [gaps_ns.0, gaps_ns.1].map(|gap_ns| due_ns + place * gap_ns);
            let nominal_ns = self.nominal[index(Timer::Write)] + place * timeout_ns;
            let after_ns = (from_ns, if self.late { 0 } else { from_ns }, to_ns);
            self.log.push(Expiry { kind, after_ns, is_moment: true, nominal_ns, timeout_ns, held });
        }
        self.steps += count;
    }

    /// Goes on by timers that are all alike.
    pub(crate) fn skip(&mut self, timer: Timer, by_ns: u64, seen: u32) {
        self.nominal[index(timer)] = self.nominal[index(timer)].saturating_add(by_ns);
        match timer {
            Timer::Keepalive => self.counts.probes = self.counts.probes.saturating_add(seen),
            Timer::Write | Timer::DelayedAck => self.count_resent(seen),
        }
    }

    fn count_resent(&mut self, seen: u32) {
        self.counts.retransmits =
            self.counts.retransmits.saturating_add(seen).min(COUNTED_MOST + 1);
    }

    /// The program makes a call, which times may count from.
    pub(crate) fn called(&mut self, call: Called, now_ns: u64) {
        let Some(spread_ns) = self.call_spread_ns else { return };
        if self.called.is_none() || call == Called::Close {
            self.begin_anew(now_ns);
            self.start = (now_ns.saturating_sub(spread_ns), now_ns);
            self.reference_by_timer = false;
            self.called = Some(call);
        }
    }

    /// What was written before this moment is acknowledged.
    pub(crate) fn written(&mut self, at_ns: u64) {
        if at_ns > self.begins_ns && self.called == Some(Called::Write) {
            self.called = None;
            self.called(Called::Write, at_ns);
        }
    }

    /// A segment has arrived that is the reference from now on.
    pub(crate) fn begin_anew(&mut self, now_ns: u64) {
        for due_ns in &mut self.nominal {
            *due_ns = (*due_ns + self.begins_ns).saturating_sub(now_ns);
        }
        let (sooner_ns, later_ns) = self.within_ns;
        self.start = (now_ns.saturating_sub(sooner_ns), now_ns.saturating_add(later_ns));
        self.begins_ns = now_ns;
        self.reference_by_timer = true;
        self.late = false;
        self.counts = Counts::default();
        self.log = Log::default();
        self.steps = 0;
    }

    /// What tells pasts of one run apart, but for when they began.
    pub(crate) fn key(&self) -> impl Ord + use<> {
        let called = (self.called, self.call_spread_ns);
        let reference = (self.reference_by_timer, called, self.within_ns);
        (self.stamps, self.block_ns, self.counts, self.steps, reference)
    }

    /// The same, where `retrans_stamp` may be as much later as the reference is.
    pub(crate) fn block_key(&self) -> impl Ord + use<> {
        let (from_ns, to_ns) = self.start;
        // It may lie before the reference, which a later call is.
        let since_ns = self.stamps.retrans_stamp.map(|at_ns| at_ns.wrapping_sub(from_ns));
        let stamps = Stamps { retrans_stamp: since_ns, ..self.stamps };
        let called = (self.called, self.call_spread_ns);
        let reference = (self.reference_by_timer, called, self.within_ns);
        (to_ns - from_ns, self.late, stamps, self.counts, self.steps, reference)
    }

    /// Whether the next past in order, with the same key but for its block, begins a jiffy after this
    /// block.
    pub(crate) fn is_followed_by(&self, next: &Self, tick_ns: u64) -> bool {
        let follows = next.start.0 == self.start.0 + self.block_ns + tick_ns;
        follows && self.stamps.retrans_stamp.is_some() && self.block_key() == next.block_key()
    }

    /// The earliest and the latest reference, of a block of all its pasts.
    pub(crate) fn starts(&self) -> (u64, u64) {
        (self.start.0, self.start.1.saturating_add(self.block_ns))
    }

    /// Whether it is no block.
    pub(crate) fn is_one(&self) -> bool {
        self.block_ns == 0
    }

    /// Parts a block until `alike` makes the same of the first stamps of each part as of the last, and
    /// so of all between.
    pub(crate) fn part<Key: PartialEq>(
        &self,
        tick_ns: u64,
        alike: &mut impl FnMut(Stamps) -> Key,
        parts: &mut Vec<Self>,
    ) {
        let first = self.stamps;
        let last_ns = first.retrans_stamp.map(|at_ns| at_ns + self.block_ns);
        if self.is_one() || alike(first) == alike(Stamps { retrans_stamp: last_ns, ..first }) {
            parts.push(self.clone());
            return;
        }
        let half_ns = self.block_ns / tick_ns / 2 * tick_ns;
        let rest_ns = half_ns + tick_ns;
        let mut half = self.clone();
        half.block_ns = half_ns;
        half.begins_ns -= self.block_ns - half_ns;
        half.part(tick_ns, alike, parts);
        let mut rest = self.clone();
        rest.block_ns -= rest_ns;
        rest.start = (self.start.0 + rest_ns, self.start.1 + rest_ns);
        rest.stamps.retrans_stamp = first.retrans_stamp.map(|at_ns| at_ns + rest_ns);
        rest.part(tick_ns, alike, parts);
    }

    /// The pasts of a block.
    pub(crate) fn parts(pasts: &[Self], tick_ns: u64) -> Cow<'_, [Self]> {
        if pasts.iter().all(Self::is_one) {
            return Cow::Borrowed(pasts);
        }
        let mut single = Vec::new();
        for past in pasts {
            past.part(tick_ns, &mut |stamps| stamps.retrans_stamp, &mut single);
        }
        Cow::Owned(single)
    }

    /// Whether the next past in order, with the same key, began no more than a jiffy after this one.
    pub(crate) fn is_one_with(&self, next: &Self, tick_ns: u64) -> bool {
        next.start.0 <= self.start.1.saturating_add(tick_ns) && self.key() == next.key()
    }

    /// Takes it in.
    pub(crate) fn merge(&mut self, other: Self) {
        let others = other.starts();
        self.log = std::mem::take(&mut self.log).merge(self.starts(), other.log, others);
        if self.stamps == other.stamps {
            self.start.1 = self.start.1.max(other.start.1);
        } else {
            self.block_ns = other.start.0 - self.start.0 + other.block_ns;
            self.begins_ns = other.begins_ns;
        }
        self.late &= other.late;
        self.slots = self.slots.max(other.slots);
        for (own, others) in self.nominal.iter_mut().zip(other.nominal) {
            *own = (*own).min(others);
        }
    }

    /// The timer that fired last.
    pub(crate) fn last(&self) -> Option<&Expiry> {
        self.log.last()
    }

    /// The timers that fired, in order.
    pub(crate) fn expiries(&self) -> Vec<Expiry> {
        self.log.expiries(self.starts())
    }
}

/// What a step was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fired {
    /// The timer of the socket that fired, with its timeout, jiffies.
    pub(crate) timer: Option<(Timer, u64)>,
    pub(crate) due_ns: u64,
    pub(crate) now_ns: u64,
}

fn index(timer: Timer) -> usize {
    usize::from(timer == Timer::Keepalive)
}
