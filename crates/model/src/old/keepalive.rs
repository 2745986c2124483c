//! The keepalive timer of an idle connection: `tcp_keepalive_timer` (net/ipv4/tcp_timer.c).
//!
//! The timer is armed for the idle time when `SO_KEEPALIVE` is set (`tcp_set_keepalive`), and not
//! again when segments arrive: it fires, sees how long ago the last one came
//! (`keepalive_time_elapsed`), and waits for the rest. From the first probe on it is armed for the
//! interval at each firing, each time rounded to a slot of the wheel.

use crate::allowance;
use crate::old::course::{Beat, Course, Courses};
use crate::hop::Hop;
use crate::kernel::Kernel;
use crate::prediction::StepKind;
use crate::old::retransmit::EPOCH;
use crate::old::slip::Slip;
use crate::old::way::{Healed, Reply, Way};
use crate::wheel::Context;
use spec::{Errno, Outcome};
use std::collections::VecDeque;

/// How an idle connection meets its fault.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    /// How long the timer was armed before the last exchange ended, nanoseconds: one round trip
    /// and what the programs need.
    pub(crate) armed_before_ns: (u64, u64),
    /// From the last exchange to the fault, nanoseconds; `None`: the peer never goes away.
    pub(crate) fault_after_ns: Option<u64>,
    /// What answers again, and when, nanoseconds after the last exchange.
    pub(crate) healed: Option<Healed>,
    /// The time of a round trip, nanoseconds.
    pub(crate) rtt_ns: u64,
    /// Settings that change while it waits: when, nanoseconds after the last exchange, and what is
    /// in force from then on.
    pub(crate) later: Option<(u64, Kernel)>,
    /// How long a probe and its answer are within reach of the fault, nanoseconds.
    pub(crate) exposed_ns: u64,
    /// Where probes end after the fault. Its jiffies count from the last exchange's.
    pub(crate) hop: Hop,
    /// Whether nothing that is sent after the fault passes the client's tap.
    pub(crate) unseen: bool,
    /// Where the times of the prediction's reference end, nanoseconds after the last exchange: the
    /// fault, whether or not the peer goes away with it.
    pub(crate) reference_until_ns: u64,
    /// How long the last exchange's acknowledgement is delayed, jiffies; `None`: it is not.
    pub(crate) delayed_ack: Option<u64>,
    /// The error that this acknowledgement may draw if it goes after the fault.
    pub(crate) delayed_ack_error: Option<Errno>,
    /// `tcp_invalid_ratelimit` at the peer, jiffies.
    pub(crate) answers_every: u64,
    /// Whether keepalive is on.
    pub(crate) enabled: bool,
}

/// Of more slots of the clock than this, divided by the phases that matter in each, some are looked
/// at, and the windows widened by what lies between them.
const CELLS_MOST: u64 = 1 << 10;
/// All phases of no longer slot than this are looked at one by one.
const SLOT_MOST: u64 = 4096;
/// Without keepalive: the longest slot of a neighbour entry's timers, jiffies.
const OTHERS_SLOT: u64 = 512;
/// No more phases at the end of a slot than this are looked at.
const MARGIN_MOST: u64 = 32;

/// The courses of this scene over every phase of the clock.
///
/// # Errors
/// Why there are none: the connection ends before the fault.
pub(crate) fn courses(kernel: &Kernel, scene: &Scene, courses: &mut Courses) -> Result<(), String> {
    let tick_ns = kernel.hz.tick_ns();
    let slot = |timeout| if scene.enabled { kernel.wheel.slot(timeout) } else { OTHERS_SLOT };
    let first = slot(kernel.keepalive_time);
    let period = first.max(slot(kernel.keepalive_interval));
    // Within a slot of the first timer, all courses have the same jiffies from there on; only the
    // phases at its end may find the idle time not yet over.
    let (least, most) = scene.armed_before_ns;
    let margin = (most / tick_ns + 2).min(first).min(MARGIN_MOST);
    // Where the fault comes while the first timer may fire, each phase is another story.
    let first_fires = kernel.keepalive_time..=kernel.keepalive_time + 2 * first + margin;
    let fault = scene.fault_after_ns.map(|fault_ns| fault_ns / tick_ns);
    let margin = match fault.filter(|fault| first_fires.contains(fault)) {
        _ if !scene.enabled => first,
        Some(_) if first <= SLOT_MOST => first,
        _ => margin,
    };
    let cells = period / first;
    let stride = cells.div_ceil((CELLS_MOST / margin).max(8));
    // What lies between the cells that are looked at.
    let between_ns = (stride - 1) * first * tick_ns;
    for cell in (0..cells).step_by(stride as usize) {
        // The first jiffy of a phase whose timer fires at the end of the next slot.
        let base = EPOCH + cell * first - kernel.keepalive_time % first;
        let mut add = |armed_ns, longer_ns| {
            for before_ns in [least, most] {
                for course in Timer::new(kernel, scene, armed_ns, before_ns).run() {
                    courses.add(&course?, (longer_ns + between_ns, between_ns));
                }
            }
            Ok::<_, String>(())
        };
        // All but the last phases of a slot: the later armed, the shorter.
        if margin < first {
            let length_ns = (first - margin) * tick_ns;
            add(base * tick_ns + length_ns - 1, length_ns - 1)?;
        }
        for phase in first - margin..first {
            for part in 1..=PARTS {
                add((base + phase) * tick_ns + part * tick_ns / PARTS - 1, tick_ns / PARTS)?;
            }
        }
    }
    Ok(())
}

/// A timer that runs: what is known of it. Jiffies of one clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    /// When it was armed, for how long, and by whom.
    pub(crate) armed: u64,
    pub(crate) delay: u64,
    pub(crate) context: Context,
    /// When the last segment was received, whether a probe drew it, and how many were sent since.
    pub(crate) received: u64,
    pub(crate) answered: bool,
    pub(crate) probes: u32,
    /// When all this was looked at, nanoseconds of the same clock.
    pub(crate) sampled_ns: u64,
}

impl Known {
    /// The jiffy at which it fires.
    pub(crate) fn fires(&self, kernel: &Kernel) -> u64 {
        kernel.wheel.fires_at(self.armed, self.delay, self.context)
    }
}

/// The courses of this scene from a timer that is known. The scene's times count from the last
/// segment received, whether or not a probe has drawn it.
///
/// # Errors
/// As for [`courses`].
pub(crate) fn courses_at(
    kernel: &Kernel,
    scene: &Scene,
    known: Known,
    courses: &mut Courses,
) -> Result<(), String> {
    let tick_ns = kernel.hz.tick_ns();
    let received_ns = (known.received + 1) * tick_ns - 1;
    let mut timer = Timer::new(kernel, scene, received_ns, 0);
    (timer.timeout, timer.armed) = (known.delay, known.armed);
    if scene.enabled {
        timer.fires = known.fires(kernel);
    }
    (timer.unanswered, timer.way.seen) = (known.probes, known.probes);
    if known.answered {
        timer.delayed_ack = None;
        timer.answered_at = Some(known.received - (scene.rtt_ns / 2 / tick_ns).min(known.received));
    }
    // The last probe armed the timer; those before it came an interval and its slot earlier each.
    let mut probe = known.armed;
    for _ in 0..known.probes {
        let probe_ns = probe * tick_ns;
        if timer.is_before_fault(probe_ns) {
            timer.answers.push_front(probe_ns + scene.rtt_ns);
            timer.answered_at = timer.answered_at.max(Some(probe + scene.rtt_ns / 2 / tick_ns));
        }
        let latest = probe.saturating_sub(known.delay);
        let slot = kernel.wheel.slot(known.delay);
        let before = (latest.saturating_sub(slot)..=latest)
            .rev()
            .find(|at| kernel.wheel.fires_at(*at, known.delay, Context::Handler) == probe);
        probe = before.unwrap_or(latest);
    }
    for course in timer.run() {
        courses.add(&course?, (tick_ns - 1, 0));
    }
    Ok(())
}

/// Into how many parts a jiffy is divided where the phase within it matters.
const PARTS: u64 = 4;

#[derive(Clone)]
struct Timer<'a> {
    kernel: &'a Kernel,
    scene: &'a Scene,
    tick_ns: u64,
    /// The last exchange, which the times of the scene count from.
    exchange_ns: u64,
    /// The last segment that was received: `rcv_tstamp`.
    received_ns: u64,
    /// The last one before the fault, which the times of the course count from.
    reference_ns: u64,
    /// When answers arrive that are on their way.
    answers: VecDeque<u64>,
    /// When the peer last answered a probe: `last_oow_ack_time`.
    answered_at: Option<u64>,
    /// When the delayed acknowledgement goes.
    delayed_ack: Option<u64>,
    /// The error that it draws if it goes after the fault.
    may_draw: Option<Errno>,
    /// The error that it has drawn: `sk_err_soft`.
    soft_error: Option<Errno>,
    heard: u32,
    way: Way,
    /// The reply that is on its way, and when it arrives.
    reply: Option<(u64, Reply)>,
    fires: u64,
    timeout: u64,
    /// `icsk_probes_out`.
    unanswered: u32,
    sent: usize,
    skipped: bool,
    nominal_ns: u64,
    /// Whether the last segment was the answer to a probe.
    answered: bool,
    /// When the timer was armed.
    armed: u64,
    /// By how much those before it may have put it off, and the one before it was put off.
    slip: Slip,
    slipped: Slip,
    /// How late the last segment was received, where the probe that drew it went late.
    received_late: Slip,
    /// The slots of all timers that were armed, jiffies.
    slots: u64,
    beats: Vec<Beat>,
}

impl<'a> Timer<'a> {
    pub(crate) fn new(kernel: &'a Kernel, scene: &'a Scene, armed_ns: u64, before_ns: u64) -> Self {
        let tick_ns = kernel.hz.tick_ns();
        let timeout = kernel.keepalive_time;
        let exchange_ns = armed_ns + before_ns;
        Self {
            kernel,
            scene,
            tick_ns,
            exchange_ns,
            received_ns: exchange_ns,
            reference_ns: exchange_ns,
            answers: VecDeque::new(),
            answered_at: None,
            delayed_ack: scene
                .delayed_ack
                .map(|delay| kernel.wheel.fires_at(exchange_ns / tick_ns, delay, Context::Call)),
            may_draw: None,
            soft_error: None,
            heard: 0,
            reply: None,
            way: Way::new(kernel, scene.hop.clone(), scene.healed, exchange_ns),
            fires: if scene.enabled {
                kernel.wheel.fires_at(armed_ns / tick_ns, timeout, Context::Call)
            } else {
                NEVER
            },
            timeout,
            unanswered: 0,
            sent: 0,
            skipped: false,
            nominal_ns: exchange_ns + timeout * tick_ns,
            answered: false,
            armed: armed_ns / tick_ns,
            slip: Slip::none(),
            slipped: Slip::none(),
            received_late: Slip::none(),
            slots: if scene.enabled { kernel.wheel.slot(timeout) } else { 0 },
            beats: Vec::new(),
        }
    }

    /// Goes on to the end. Where this timer and a neighbour's fire at the same jiffy, either may come
    /// first.
    fn run(self) -> Vec<Result<Course, String>> {
        // Whether an error comes of the delayed acknowledgement is not gone through.
        let errors = [None].into_iter().chain(self.scene.delayed_ack_error.map(Some));
        let ways = self.way.clone().variants().into_iter();
        let both = ways.flat_map(|way| errors.clone().map(move |error| (way.clone(), error)));
        let mut courses = Vec::new();
        for (way, may_draw) in both {
            let course = Self { may_draw, way, ..self.clone() }.go_on(&mut courses);
            courses.push(course);
        }
        courses
    }

    /// Goes on to the end. Courses that part from this one on the way are added to `parted`.
    ///
    /// # Errors
    /// If that comes before the fault.
    fn go_on(mut self, parted: &mut Vec<Result<Course, String>>) -> Result<Course, String> {
        let tick_ns = self.tick_ns;
        loop {
            let fires = self.fires;
            if let Some(at) = self.delayed_ack.take_if(|at| *at <= fires) {
                if let Some(reply) = self.send_delayed_ack(at) {
                    self.draw(reply, at * tick_ns);
                }
                continue;
            }
            let until = self.reply.map_or(fires, |(at_ns, _)| fires.min(at_ns / tick_ns));
            if let Some(asks) = self.way.fires_before(until) {
                if let Some(reply) = self.way.fire(self.kernel, asks) {
                    self.draw(reply, asks * tick_ns);
                }
                continue;
            }
            if let Some((at_ns, reply)) = self.reply
                && (fires == NEVER || at_ns < fires * tick_ns)
            {
                return Ok(self.ends_answered(reply, at_ns));
            }
            if fires == NEVER {
                return Ok(self.end(Outcome::None, 0));
            }
            let due_ns = fires * self.tick_ns;
            if let Some((at_ns, reply)) = self.reply
                && at_ns < due_ns + self.kernel.late_ns()
            {
                parted.push(Ok(self.clone().ends_answered(reply, at_ns)));
            }
            while let Some(at_ns) = self.answers.front().copied().filter(|at_ns| *at_ns < due_ns) {
                self.answers.pop_front();
                self.hear_answer(at_ns);
            }
            if self.heard > HEARD_MOST {
                return Ok(self.end(Outcome::None, due_ns));
            }
            let now = self.fires;
            let now_ns = now * self.tick_ns;
            if let Some((at_ns, kernel)) = &self.scene.later
                && now_ns.saturating_sub(self.exchange_ns) >= *at_ns
            {
                self.kernel = kernel;
            }
            let elapsed = now.saturating_sub(self.received_ns / self.tick_ns);
            if let Some(rest @ 1..) = self.kernel.keepalive_time.checked_sub(elapsed) {
                self.nominal_ns = self.received_ns + self.kernel.keepalive_time * self.tick_ns;
                self.arm_rest(rest);
                continue;
            }
            if self.gives_up(elapsed) {
                if now_ns.saturating_sub(self.exchange_ns) < self.scene.reference_until_ns {
                    return Err("the client's kernel gives the connection up before the fault, \
                                by keepalive probes that a living server has not answered yet"
                        .into());
                }
                return Ok(self.give_up());
            }
            parted.extend(self.part_by_patience(elapsed).map(Ok));
            self.beat(StepKind::KeepaliveProbe);
            self.unanswered += 1;
            self.sent += 1;
            if self.is_sent_before_fault(now_ns) {
                self.way.seen += 1;
                if self.is_before_fault(now_ns) {
                    self.draw_answer(now_ns);
                }
            } else {
                let seen = self.way.seen;
                if let Some(reply) = self.way.send(self.kernel, self.sent, now) {
                    self.draw(reply, now_ns);
                }
                if self.scene.unseen {
                    self.way.seen = seen;
                }
            }
            let interval = self.kernel.keepalive_interval;
            self.nominal_ns += interval * self.tick_ns;
            self.arm(interval);
            if self.beats.len() >= BEATS_MOST && !self.skipped && self.answers.is_empty() {
                self.skip_equal_intervals(elapsed, now);
            }
        }
    }

    /// The last exchange's acknowledgement goes, and may meet what answers after the fault.
    fn send_delayed_ack(&mut self, at: u64) -> Option<Reply> {
        if self.is_sent_before_fault(at * self.tick_ns) {
            return None;
        }
        let seen = self.way.seen;
        let reply = self.way.send(self.kernel, 0, at);
        self.way.seen = seen;
        self.soft_error = self.may_draw;
        // To an acknowledgement of what it knows a living peer has nothing to say.
        reply.filter(|reply| reply.reset)
    }

    /// The peer acknowledges a probe, which lies outside its window, if it has not done that just now
    /// (`__tcp_oow_rate_limited`).
    fn draw_answer(&mut self, now_ns: u64) {
        let there = (now_ns + self.scene.rtt_ns / 2) / self.tick_ns;
        if self
            .answered_at
            .is_none_or(|last| there.saturating_sub(last) >= self.scene.answers_every)
        {
            self.answered_at = Some(there);
            self.answers.push_back(now_ns + self.scene.rtt_ns);
        }
    }

    /// The answer to a probe arrives. One that was on its way when the fault came still does, but
    /// the last segment before the fault is another.
    fn hear_answer(&mut self, at_ns: u64) {
        self.received_ns = at_ns;
        self.unanswered = 0;
        self.heard += u32::from(self.scene.fault_after_ns.is_none());
        let after_ns = at_ns.saturating_sub(self.exchange_ns);
        if after_ns < self.scene.reference_until_ns {
            self.reference_ns = at_ns;
            self.answered = true;
            self.way.seen = 0;
            // What put off the probe that was answered put off the reference as well, but for the
            // probe's own jiffy.
            self.slipped = Slip::none();
            self.received_late = self.kernel.late(&self.slipped);
            self.slip = self.received_late.arms(self.kernel.wheel, self.armed, self.timeout);
            self.beats.clear();
        }
    }

    /// One interval is like the other: goes to the last but a few before the user timeout.
    fn skip_equal_intervals(&mut self, elapsed: u64, now: u64) {
        let step = self.fires - now;
        let cycle = self.way.repeats_after(now, step);
        let Some((patience_ms, cycle)) = self.kernel.user_timeout_ms.zip(cycle) else { return };
        self.skipped = true;
        let end = self.kernel.hz.from_msecs(patience_ms).saturating_sub(elapsed);
        let healed = self.way.heals().map_or(u64::MAX, |heals| heals.saturating_sub(now));
        let later = self.scene.later.as_ref().map_or(u64::MAX, |(at_ns, _)| {
            let left = (self.exchange_ns.saturating_add(*at_ns) / self.tick_ns).saturating_sub(now);
            if left == 0 { u64::MAX } else { left }
        });
        let ahead = (end.min(healed).min(later) / cycle).saturating_sub(3) * cycle;
        let steps = ahead / step;
        self.fires += ahead;
        self.nominal_ns += steps * self.timeout * self.tick_ns;
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.way.skip(ahead, steps);
        self.unanswered = self.unanswered.saturating_add(steps);
    }

    /// Whether a probe that is sent now is answered before the fault comes its way; one that is not
    /// is lost on its way, and meets nobody who asks for addresses.
    fn is_before_fault(&self, now_ns: u64) -> bool {
        self.is_sent_before_fault(now_ns.saturating_add(self.scene.exposed_ns))
    }

    fn is_sent_before_fault(&self, now_ns: u64) -> bool {
        let after_ns = now_ns.saturating_sub(self.exchange_ns);
        self.scene.fault_after_ns.is_none_or(|fault_ns| after_ns < fault_ns)
    }

    /// What meets a probe that was sent at this time replies.
    fn draw(&mut self, reply: Reply, now_ns: u64) {
        self.reply.get_or_insert((now_ns.saturating_add(reply.after_ns), reply));
    }

    fn ends_answered(self, reply: Reply, at_ns: u64) -> Course {
        let outcome = if reply.reset { Outcome::Errno(Errno::ECONNRESET) } else { Outcome::None };
        let slip = self.slipped.clone();
        Course { open_ns: reply.open_ns, slip, ..self.end(outcome, at_ns) }
    }

    /// `TCP_USER_TIMEOUT` takes the place of the number of probes, in both directions.
    fn gives_up(&self, elapsed: u64) -> bool {
        match self.kernel.user_timeout_ms {
            Some(patience_ms) => {
                elapsed >= self.kernel.hz.from_msecs(patience_ms) && self.unanswered > 0
            }
            None => self.unanswered >= self.kernel.keepalive_probes,
        }
    }

    /// Where the timers before this one ran late, it may find the user timeout over that it does not
    /// find over now: a course of its own. In this one they did not run as late as that.
    fn part_by_patience(&mut self, elapsed: u64) -> Option<Course> {
        let patience = self.kernel.hz.from_msecs(self.kernel.user_timeout_ms?);
        let over = patience.checked_sub(elapsed).filter(|over| *over > 0 && self.unanswered > 0)?;
        let needed = self.kernel.late(&self.slip).reaches(over)?;
        let after_ns = (self.fires * self.tick_ns).saturating_sub(self.exchange_ns);
        if after_ns < self.scene.reference_until_ns {
            return None;
        }
        let mut other = self.clone();
        other.fires += needed;
        other.slip = self.slip.beyond(needed);
        self.slip = self.slip.below(over);
        Some(other.give_up())
    }

    fn give_up(mut self) -> Course {
        self.beat(StepKind::GiveUp);
        let outcome = self.soft_error.map_or(Outcome::TIMED_OUT, Outcome::Errno);
        let end_ns = self.fires * self.tick_ns;
        self.end(outcome, end_ns)
    }

    fn arm(&mut self, timeout: u64) {
        let late = self.kernel.late(&self.slip);
        self.start(late.arms(self.kernel.wheel, self.fires, timeout), timeout);
    }

    /// Waits for what is left of the idle time. However late the handler runs, that ends at the same
    /// jiffy; but it counts from the last segment received.
    fn arm_rest(&mut self, rest: u64) {
        self.start(self.received_late.arms(self.kernel.wheel, self.fires, rest), rest);
    }

    fn start(&mut self, slip: Slip, timeout: u64) {
        self.slipped = std::mem::replace(&mut self.slip, slip);
        self.timeout = timeout;
        self.armed = self.fires;
        self.slots += self.kernel.wheel.slot(timeout);
        self.fires = self.kernel.wheel.fires_at(self.armed, timeout, Context::Handler);
    }

    fn beat(&mut self, kind: StepKind) {
        if self.beats.len() < BEATS_MOST {
            self.beats.push(Beat {
                kind,
                at_ns: self.fires * self.tick_ns,
                nominal_ns: self.nominal_ns,
                timeout_ns: self.timeout * self.tick_ns,
                slip_ns: self.slip.most() * self.tick_ns,
                held: false,
            });
        }
    }

    fn end(self, outcome: Outcome, end_ns: u64) -> Course {
        let since = |at_ns: u64| at_ns.saturating_sub(self.reference_ns);
        let beats = self
            .beats
            .iter()
            .map(|beat| Beat {
                at_ns: since(beat.at_ns),
                nominal_ns: since(beat.nominal_ns),
                ..*beat
            })
            .collect();
        let late_ns = allowance::late(self.kernel.hz).as_nanos() as u64;
        let reference_late_ns = if self.answered { late_ns } else { 0 };
        let before = self.scene.armed_before_ns;
        Course {
            beats,
            outcome,
            end_ns: since(end_ns),
            retransmits: Some(0),
            keepalive_probes: (outcome != Outcome::None).then_some(self.way.seen),
            window_probes: None,
            slip: self.slip,
            open_ns: (0, 0),
            reference_late_ns,
            timeout_ns: None,
            slots_ns: (self.slots * self.tick_ns).saturating_add(before.1 - before.0),
        }
    }
}

/// How many steps a schedule shows at most.
const BEATS_MOST: usize = 300;
/// Of a peer that stays, when it has answered so often, one answer is like the other.
const HEARD_MOST: u32 = 32;
/// The jiffy of a timer that is not armed.
const NEVER: u64 = u64::MAX;
