//! The zero-window probe timer of a connection whose peer has closed its window: `tcp_probe_timer`
//! (net/ipv4/tcp_timer.c), `tcp_send_probe0` (net/ipv4/tcp_output.c), `tcp_ack_probe`
//! (net/ipv4/tcp_input.c).
//!
//! Each probe doubles the time to the next, up to the longest RTO. Here `tcp_retries2` is a number:
//! so many probes in a row without an answer, and the timer's next expiry ends the connection. An
//! answer begins the count anew, but not the doubling; and `TCP_USER_TIMEOUT` counts from the first
//! probe on, answered or not. A live peer does not answer each probe: its kernel answers segments
//! outside its window once in `tcp_invalid_ratelimit` (`tcp_oow_rate_limited`).

use crate::allowance;
use crate::old::course::{Beat, Course, Courses};
use crate::old::dead_path::{SAMPLE_NS, SLOP_NS, nanos};
use crate::entry;
use crate::hop::Hop;
use crate::kernel::{Kernel, server_sysctl};
use crate::old::predict::{conclude, unknown};
use crate::prediction::{Prediction, StepKind, Window};
use crate::old::retransmit::EPOCH;
use crate::rto::{self, Estimator};
use crate::old::slip::Slip;
use crate::tick::Phase;
use crate::old::way::{self, Healed, Reply, Way};
use crate::wheel::Context;
use crate::width::{self, Cause};
use spec::facts::{JiffyClock, TcpFacts};
use spec::{Errno, Facts, FaultKind, Outcome, Parameters};
use std::ops::RangeInclusive;
use std::time::Duration;

/// An idle client whose last data the server's closed window holds back.
pub(crate) fn predict(parameters: &Parameters, facts: &Facts) -> Prediction {
    let kernel = Kernel::new(parameters, facts);
    let looked = facts.tcp.as_ref().is_some_and(|tcp| tcp.sampled_at_ns > 0);
    let phase_known = facts.jiffies.is_some() && looked;
    let between_ns =
        if phase_known { 0 } else { (phases(&kernel).1 - 1) as u64 * kernel.hz.tick_ns() };
    let scenes = match scenes(&kernel, parameters, facts) {
        Ok(scenes) => scenes,
        Err(reason) => return unknown(parameters, reason),
    };
    let mut all = Courses::new(kernel.hz);
    for (scene, start) in &scenes {
        let timer = Timer::new(&kernel, scene, start);
        for course in timer.run() {
            match course {
                Ok(course) => {
                    all.add(&course, (kernel.hz.tick_ns() - 1 + between_ns, between_ns));
                }
                Err(reason) => return unknown(parameters, reason),
            }
        }
    }
    let mut prediction = conclude(parameters, all, |prediction| why(&kernel, prediction));
    if !looked {
        let shortest_and_longest = bases(&kernel, parameters, facts.tcp.as_ref());
        join(&mut prediction.windows);
        prediction.windows.iter_mut().for_each(open_by_rto);
        let ms = |jiffies: u64| kernel.hz.to_msecs(jiffies);
        prediction.why += &format!(
            "; nobody has looked at the RTO with which the window closed, {} to {} ms: what filled it \
             ended in delayed acknowledgements",
            ms(*shortest_and_longest.start()),
            ms(*shortest_and_longest.end())
        );
    }
    prediction
}

/// Everything that it may meet, and the timer at the moment of the sample.
pub(crate) fn scenes(
    kernel: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
) -> Result<Vec<(Scene, Start)>, String> {
    let fault = &parameters.fault;
    let looked = facts.tcp.as_ref().is_some_and(|tcp| tcp.sampled_at_ns > 0);
    let goes_away = !matches!(fault.kind, FaultKind::None | FaultKind::ProcessFreeze);
    let rtt = nanos(parameters.path.rtt) / kernel.hz.tick_ns();
    let bases = bases(kernel, parameters, facts.tcp.as_ref());
    let starts = starts(kernel, facts.tcp.as_ref(), facts.jiffies, (rtt, bases))?;
    let later = Kernel::later(parameters, facts)?;
    // Where nobody has looked, the window closes `fault.after` before the fault.
    let ahead_ns = if looked { 0 } else { nanos(fault.after.min(PROBED_MOST)) };
    let limit_ms = server_sysctl(parameters, facts, "tcp_invalid_ratelimit").unwrap_or(500);
    let mut all = Vec::new();
    // The fault comes some time after the sample, and its end some time after it is due.
    for slop_ns in [0, SLOP_NS] {
        let fault_ns = ahead_ns.saturating_add(slop_ns);
        let later_ns = fault_ns.saturating_add(nanos(parameters.later.after));
        let lasts = nanos(parameters.fault_duration().unwrap_or_default());
        let scene = Scene {
            fault_after_ns: goes_away.then_some(fault_ns),
            reference_until_ns: fault_ns,
            later: later.clone().map(|kernel| (later_ns, kernel)),
            healed: Healed::of(parameters, facts, fault_ns.saturating_add(lasts)),
            // The smoothed round-trip time still holds what filling the window cost.
            rtt_ns: nanos(parameters.path.rtt),
            exposed_ns: way::exposed_ns(parameters, nanos(parameters.path.rtt)),
            unseen: fault.kind == FaultKind::Unplug,
            hop: Hop::Silent,
            answers_every: kernel.hz.from_msecs(limit_ms),
        };
        for start in &starts {
            for hop in hops(kernel, parameters, facts, start)? {
                all.push((Scene { hop, ..scene.clone() }, start.clone()));
            }
        }
    }
    Ok(all)
}

/// What of a window's width has no other cause is the RTO's.
pub(crate) fn open_by_rto(window: &mut Window) {
    window.width.retain(|share| share.cause != Cause::Undetermined);
    let named = window.width.iter().map(|share| share.by).sum();
    let whole = window.span.map_or(Duration::ZERO, |(from, to)| to.saturating_sub(from));
    window.width.extend(width::shares([(Cause::Rto, whole.saturating_sub(named))]));
}

/// One window for each outcome and count: between them lie other values of the RTO.
pub(crate) fn join(windows: &mut Vec<Window>) {
    let mut joined: Vec<Window> = Vec::new();
    for window in windows.drain(..) {
        let same = |other: &&mut Window| {
            other.outcome == window.outcome && other.window_probes == window.window_probes
        };
        match joined.iter_mut().find(same) {
            Some(other) => {
                other.span = other
                    .span
                    .zip(window.span)
                    .map(|((from, to), (earliest, latest))| (from.min(earliest), to.max(latest)));
            }
            None => joined.push(window),
        }
    }
    *windows = joined;
}

/// Where probes may end after the fault, in jiffies after the sample.
fn hops(
    kernel: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
    start: &Start,
) -> Result<Vec<Hop>, String> {
    way::without_entry(parameters).map_or_else(
        || {
            // The first probe passes on the last acknowledgement of data.
            let first = if start.first_probe.is_none() { &[start.expires][..] } else { &[] };
            let sampled = start.sampled_ns / kernel.hz.tick_ns();
            let often = kernel.hz.from_secs(OFTEN_SECS);
            entry::hops(kernel, parameters, facts, Some(sampled), first, often)
        },
        |hop| Ok(vec![hop]),
    )
}

fn why(kernel: &Kernel, prediction: &Prediction) -> String {
    let Some(window) = prediction.windows.first() else { return String::new() };
    let probes = window.window_probes.unwrap_or(0);
    match (window.outcome, kernel.user_timeout_ms) {
        (Outcome::None, _) => {
            "a closed window is probed for as long as the peer's kernel answers".into()
        }
        (Outcome::TIMED_OUT, Some(ms)) if probes < kernel.retries2 => format!(
            "the first expiry of the probe timer {} s (the user timeout) or more after the first \
             probe ends it, answered or not",
            ms as f64 / 1000.0
        ),
        (Outcome::TIMED_OUT, _) => format!(
            "{} window probes in a row are not answered: here tcp_retries2 is a number, and the \
             next expiry of the timer ends it",
            kernel.retries2
        ),
        _ => "a window probe meets a host that does not know the connection: a RST".into(),
    }
}

/// What the probes meet.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    /// When the peer goes away, nanoseconds after the sample; `None`: it stays.
    pub(crate) fault_after_ns: Option<u64>,
    /// Where the times of the prediction's reference end, nanoseconds after the sample: the fault,
    /// whether or not the peer goes away with it.
    pub(crate) reference_until_ns: u64,
    /// Settings that change while it waits: when, nanoseconds after the sample, and what is in
    /// force from then on.
    pub(crate) later: Option<(u64, Kernel)>,
    /// When something answers again, nanoseconds after the sample.
    pub(crate) healed: Option<Healed>,
    /// The time of a round trip, nanoseconds.
    pub(crate) rtt_ns: u64,
    /// How long a probe and its answer are within reach of the fault, nanoseconds.
    pub(crate) exposed_ns: u64,
    /// Whether nothing that is sent after the fault passes the client's tap.
    pub(crate) unseen: bool,
    /// Where probes end after the fault.
    pub(crate) hop: Hop,
    /// `tcp_invalid_ratelimit` at the peer, jiffies.
    pub(crate) answers_every: u64,
}

/// The timer at the moment of the sample. Jiffies are those of one clock.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    /// `tcp_probe0_base`.
    pub(crate) base: u64,
    /// When the sample was taken, nanoseconds of the same clock.
    pub(crate) sampled_ns: u64,
    /// When the last segment was received: `rcv_tstamp`.
    pub(crate) received: u64,
    /// For when the timer is set: `timer->expires`.
    pub(crate) expires: u64,
    /// `icsk_backoff`.
    pub(crate) backoff: u32,
    /// `icsk_probes_out`.
    pub(crate) unanswered: u32,
    /// `icsk_probes_tstamp`.
    pub(crate) first_probe: Option<u64>,
    /// When the peer last answered a probe: `last_oow_ack_time`.
    pub(crate) answered: Option<u64>,
}

/// Every state of the timer that agrees with what was measured before the fault: one for each
/// jiffy that the sample may have been taken in, or one for each phase of the wheel where the jiffy
/// clock is not known. A round trip takes `rtt` jiffies.
///
/// # Errors
/// Why there is none: the window is not closed.
fn starts(
    kernel: &Kernel,
    tcp: Option<&TcpFacts>,
    clock: Option<JiffyClock>,
    (rtt, bases): (u64, RangeInclusive<u64>),
) -> Result<Vec<Start>, String> {
    let (period, stride) = phases(kernel);
    let phases = || (EPOCH..EPOCH + period).step_by(stride);
    let Some(tcp) = tcp.filter(|tcp| tcp.sampled_at_ns > 0) else {
        // Nobody has looked: the window closes when the times begin.
        let step = (bases.end() - bases.start()).div_ceil(BASES_MOST).max(1);
        let last = *bases.end();
        let bases = bases.step_by(step as usize).chain([last]);
        let starts = bases.flat_map(|base| {
            phases().map(move |now| Start {
                base,
                sampled_ns: now * kernel.hz.tick_ns(),
                received: now,
                expires: now + probe_timeout(kernel, base, 0),
                backoff: 0,
                unanswered: 0,
                first_probe: None,
                answered: None,
            })
        });
        return Ok(starts.collect());
    };
    if tcp.timer != TcpFacts::TIMER_PROBE0 {
        return Err("the server's window was not closed before the fault".into());
    }
    let tick_ns = kernel.hz.tick_ns();
    let whole = |ms: u32| kernel.hz.whole_in_msecs(u64::from(ms));
    let start = |sampled_ns: u64| {
        let sampled = sampled_ns / tick_ns;
        let received =
            sampled.saturating_sub(whole(tcp.last_ack_recv_ms.min(tcp.last_data_recv_ms)));
        let first_probe = tcp.window_probed_at_ns.map(|at_ns| {
            sampled_ns.saturating_sub(tcp.sampled_at_ns.saturating_sub(at_ns)) / tick_ns
        });
        // The instruments may not have told of a probe that was sent just now.
        let (backoff, unanswered) = (u32::from(tcp.backoff), u32::from(tcp.probes));
        let first_probe = first_probe.or_else(|| match backoff {
            0 => None,
            _ if unanswered >= backoff => {
                let timeout = probe_timeout(kernel, *bases.start(), 0);
                Some(kernel.wheel.fires_at(received, timeout, Context::Call))
            }
            _ => Some(received.saturating_sub(rtt)),
        });
        Start {
            base: *bases.start(),
            sampled_ns,
            received,
            expires: sampled + whole(tcp.timer_expires_ms),
            backoff: tcp.backoff.into(),
            unanswered: tcp.probes.into(),
            first_probe,
            answered: first_probe
                .filter(|first| received >= *first)
                .map(|_| received.saturating_sub(rtt / 2)),
        }
    };
    let known = clock.map(|clock| Phase::new(kernel.hz, clock));
    let known: Vec<u64> = known
        .into_iter()
        .flat_map(|phase| [0, SAMPLE_NS].map(|late_ns| phase.of(tcp.sampled_at_ns + late_ns)))
        .flatten()
        .collect();
    Ok(if known.is_empty() {
        phases().map(|now| start(now * tick_ns)).collect()
    } else {
        known.into_iter().map(start).collect()
    })
}

/// The jiffies that a slot of the longest timer has, and in what steps they are looked at.
pub(crate) fn phases(kernel: &Kernel) -> (u64, usize) {
    let period = kernel.wheel.slot(kernel.rto_max);
    (period, period.div_ceil(PHASES_MOST).max(1) as usize)
}

/// `tcp_probe0_base` (include/net/tcp.h): the RTO, at least `TCP_RTO_MIN`; jiffies. Where nobody has
/// looked it may be longer than that of a settled connection: what fills a window ends in segments
/// whose acknowledgements are delayed, and each of these round trips counts for an eighth.
fn bases(kernel: &Kernel, parameters: &Parameters, tcp: Option<&TcpFacts>) -> RangeInclusive<u64> {
    let rto = tcp.map_or(0, |tcp| kernel.hz.from_usecs(tcp.rto_us.into()));
    let base = |rto: u64| rto.max(kernel.hz.tcp_rto_min());
    let Some(tcp) = tcp.filter(|tcp| tcp.sampled_at_ns == 0) else { return base(rto)..=base(rto) };
    // In one go, or in as many rounds as the path lets it take.
    let delayed = if parameters.path.rtt.is_zero() { 3 } else { 8 };
    let least_us = kernel.hz.to_usecs(kernel.rto_min);
    let mut estimate = Estimator::of(tcp, least_us, least_us as i64);
    let held_back_us = kernel.hz.to_usecs(u64::from(kernel.hz.get() / 25) + 1);
    for _ in 0..delayed {
        estimate.sample(i64::from(tcp.srtt_us) + held_back_us as i64, least_us as i64);
    }
    let longest = rto::from_estimate(kernel, estimate.srtt_us(), estimate.variance_us());
    base(rto)..=base(rto.max(longest))
}

/// `tcp_probe0_when` (include/net/tcp.h): the doublings end at one more than fit between `TCP_RTO_MIN`
/// and `TCP_RTO_MAX`.
fn probe_timeout(kernel: &Kernel, base: u64, backoff: u32) -> u64 {
    let most = (kernel.hz.tcp_rto_max() / kernel.hz.tcp_rto_min()).ilog2() + 1;
    (base << backoff.min(most)).min(kernel.rto_max)
}

#[derive(Clone)]
pub(crate) struct Timer<'a> {
    kernel: &'a Kernel,
    scene: &'a Scene,
    tick_ns: u64,
    base: u64,
    sampled_ns: u64,
    /// The last segment before the fault, which the times of the course count from.
    reference_ns: u64,
    /// Whether a probe drew that segment, so that a timer made the reference.
    answered_reference: bool,
    expires: u64,
    pub(crate) fires: u64,
    pub(crate) timeout: u64,
    backoff: u32,
    unanswered: u32,
    first_probe: Option<u64>,
    /// How late that may have been, where it was not seen.
    first_late: Slip,
    pub(crate) answered: Option<u64>,
    /// From the last answer to the next probe, jiffies.
    step: u64,
    /// When an answer that is on its way arrives.
    pub(crate) answer_ns: Option<u64>,
    /// All probes until now, and those of them that were gone through one by one.
    probes: u32,
    walked: u32,
    nominal_ns: u64,
    way: Way,
    /// The reset that is on its way, and when it arrives.
    reset: Option<(u64, Reply)>,
    /// By how much the timers before it may have put off the pending one, and the one before it was
    /// put off.
    slip: Slip,
    slipped: Slip,
    /// How late the last probe may have been sent.
    late: Slip,
    /// The slots of all timers that were armed, jiffies.
    slots: u64,
    beats: Vec<Beat>,
}

impl<'a> Timer<'a> {
    pub(crate) fn new(kernel: &'a Kernel, scene: &'a Scene, start: &Start) -> Self {
        let tick_ns = kernel.hz.tick_ns();
        let mut timer = Self {
            kernel,
            scene,
            tick_ns,
            base: start.base,
            sampled_ns: start.sampled_ns,
            reference_ns: (start.received + 1) * tick_ns - 1,
            answered_reference: false,
            expires: start.expires,
            fires: 0,
            timeout: 0,
            backoff: start.backoff,
            unanswered: start.unanswered,
            first_probe: start.first_probe,
            first_late: Slip::none(),
            answered: start.answered,
            step: 0,
            answer_ns: None,
            probes: 0,
            walked: 0,
            nominal_ns: 0,
            reset: None,
            way: Way::new(kernel, scene.hop.clone(), scene.healed, start.sampled_ns),
            slip: Slip::none(),
            slipped: Slip::none(),
            late: Slip::none(),
            slots: 0,
            beats: Vec::new(),
        };
        timer.way.seen = start.unanswered;
        // It was armed by the answer to a probe, or by the timer's own handler if there was none.
        let context = if start.unanswered > 0 { Context::Handler } else { Context::Call };
        let armed = timer.armed(start);
        timer.timeout = start.expires.saturating_sub(armed);
        timer.fires = kernel.wheel.fires_at(armed, timer.timeout, context);
        timer.nominal_ns = start.expires * tick_ns;
        if start.unanswered > 0 {
            timer.await_answer(armed * tick_ns);
        }
        timer
    }

    /// When the timer was armed: by the last segment received, which closed the window or answered a
    /// probe; or by its own handler with the last probe since.
    fn armed(&self, start: &Start) -> u64 {
        let (mut at, mut context) = (start.received, Context::Call);
        let mut earlier =
            Self { backoff: start.backoff.saturating_sub(start.unanswered), ..self.clone() };
        for _ in 0..start.unanswered {
            earlier.first_probe = start.first_probe.filter(|first| *first <= at);
            at = self.kernel.wheel.fires_at(at, earlier.wanted(at), context);
            earlier.backoff = (earlier.backoff + 1).min(start.backoff);
            context = Context::Handler;
        }
        if at + self.wanted(at) == start.expires {
            at
        } else if start.unanswered > 0 {
            // What came last was another segment, or the settings have changed since.
            start.expires.saturating_sub(self.whole_timeout())
        } else {
            start.received
        }
    }

    /// The last probe before the sample was sent at this time: its answer is still on its way, if it
    /// drew one.
    fn await_answer(&mut self, sent_ns: u64) {
        let there_ns = sent_ns + self.scene.exposed_ns;
        let fault_ns = self.scene.fault_after_ns.map(|fault_ns| self.sampled_ns + fault_ns);
        if fault_ns.is_none_or(|fault_ns| there_ns < fault_ns) {
            self.draw_answer(sent_ns, self.scene.rtt_ns);
            self.answer_ns = self.answer_ns.map(|here_ns| here_ns.max(self.sampled_ns));
        }
    }

    /// Goes on to the end. Where this timer and a neighbour's fire at the same jiffy, either may come
    /// first.
    fn run(self) -> Vec<Result<Course, String>> {
        let variants = self.way.clone().variants().into_iter();
        let mut courses = Vec::new();
        for way in variants {
            let course = Self { way, ..self.clone() }.go_on(&mut courses);
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
            let fires = self.reset.map_or(self.fires, |(at_ns, _)| self.fires.min(at_ns / tick_ns));
            if let Some(asks) = self.way.fires_before(fires) {
                let reply = self.way.fire(self.kernel, asks);
                self.draw(reply, asks * tick_ns);
                continue;
            }
            if let Some((at_ns, reply)) =
                self.reset.filter(|(at_ns, _)| *at_ns < self.fires * tick_ns)
            {
                return Ok(self.ends_answered(reply, at_ns));
            }
            if let Some(here_ns) = self.answer_ns.take_if(|here_ns| *here_ns < self.fires * tick_ns)
            {
                self.hear_answer(here_ns);
                if self.lives_on(here_ns) {
                    return Ok(self.end(Outcome::None, here_ns));
                }
                self.skip_equal_probes(here_ns);
                continue;
            }
            let now = self.fires;
            let now_ns = now * self.tick_ns;
            if let Some((at_ns, reply)) = self.reset
                && at_ns < now_ns + self.kernel.late_ns()
            {
                parted.push(Ok(self.clone().ends_answered(reply, at_ns)));
            }
            if let Some((at_ns, kernel)) = &self.scene.later
                && now_ns.saturating_sub(self.sampled_ns) >= *at_ns
            {
                self.kernel = kernel;
            }
            if self.gives_up(now) {
                if now_ns < self.sampled_ns + self.scene.reference_until_ns {
                    return Err("the client's kernel gives the connection up before the fault, \
                                by the probes of the closed window"
                        .into());
                }
                self.beat(StepKind::GiveUp);
                return Ok(self.end(Outcome::TIMED_OUT, now_ns));
            }
            parted.extend(self.part_by_patience().map(Ok));
            if self.first_probe.is_none() {
                self.first_probe = Some(now);
                self.first_late = self.kernel.late(&self.slip);
            }
            self.probes += 1;
            self.walked += 1;
            if self.walked > WALKED_MOST {
                return Err(
                    "the user timeout takes more probes of the closed window than are gone \
                            through one by one"
                        .into(),
                );
            }
            self.unanswered += 1;
            self.backoff = (self.backoff + 1).min(self.kernel.retries2.max(self.backoff));
            self.beat(StepKind::WindowProbe);
            self.nominal_ns += self.whole_timeout() * self.tick_ns;
            self.slipped = self.slip.clone();
            self.late = self.kernel.late(&self.slipped);
            self.arm(now, Context::Handler);
            if self.is_sent_before_fault(now_ns) {
                self.way.seen += 1;
                if self.is_sent_before_fault(now_ns + self.scene.exposed_ns) {
                    self.draw_answer(now_ns, self.scene.rtt_ns);
                }
                continue;
            }
            let seen = self.way.seen;
            let reply = self.way.send(self.kernel, self.probes as usize, now);
            if self.scene.unseen {
                self.way.seen = seen;
            }
            self.draw(reply, now_ns);
        }
    }

    fn ends_answered(self, reply: Reply, at_ns: u64) -> Course {
        let slip = self.slipped.clone();
        Course { open_ns: reply.open_ns, slip, ..self.end(RESET, at_ns) }
    }

    /// `tcp_probe_timer`: after so many probes without an answer, or so long after the first one.
    fn gives_up(&self, now: u64) -> bool {
        let patience = self.kernel.user_timeout_ms.map(|ms| self.kernel.hz.from_msecs(ms));
        let over = self
            .first_probe
            .zip(patience)
            .is_some_and(|(first, patience)| now.saturating_sub(first) >= patience);
        over || self.unanswered >= self.kernel.retries2
    }

    /// Where this timer runs late, it may find the user timeout over that it does not find over now: a
    /// course of its own.
    fn part_by_patience(&self) -> Option<Course> {
        let patience = self.kernel.hz.from_msecs(self.kernel.user_timeout_ms?);
        let left = patience.checked_sub(self.fires.saturating_sub(self.first_probe?))?;
        let late = self.kernel.late(&self.slip).reaches(left)?;
        if self.fires * self.tick_ns < self.sampled_ns + self.scene.reference_until_ns {
            return None;
        }
        let mut other = self.clone();
        other.fires += late;
        other.slip = self.slip.beyond(late);
        other.beat(StepKind::GiveUp);
        let end_ns = other.fires * self.tick_ns;
        Some(other.end(Outcome::TIMED_OUT, end_ns))
    }

    fn is_sent_before_fault(&self, now_ns: u64) -> bool {
        let after_ns = now_ns.saturating_sub(self.sampled_ns);
        self.scene.fault_after_ns.is_none_or(|fault_ns| after_ns < fault_ns)
    }

    /// The peer acknowledges a probe, if it has not done that just now (`__tcp_oow_rate_limited`).
    fn draw_answer(&mut self, now_ns: u64, after_ns: u64) {
        let there_ns = now_ns + after_ns.saturating_sub(self.scene.rtt_ns / 2);
        let there = there_ns / self.tick_ns;
        if self.answered.is_none_or(|last| there.saturating_sub(last) >= self.scene.answers_every) {
            self.answered = Some(there);
            self.answer_ns = Some(now_ns + after_ns);
        }
    }

    /// What meets a probe that was sent at this time replies.
    fn draw(&mut self, reply: Option<Reply>, now_ns: u64) {
        match reply {
            Some(reply) if reply.reset => {
                self.reset.get_or_insert((now_ns.saturating_add(reply.after_ns), reply));
            }
            Some(reply) => self.draw_answer(now_ns, reply.after_ns),
            None => {}
        }
    }

    /// The acknowledgement of a probe arrives: `tcp_ack_probe`.
    fn hear_answer(&mut self, here_ns: u64) {
        self.unanswered = 0;
        let is_reference = here_ns < self.sampled_ns + self.scene.reference_until_ns;
        if is_reference {
            // What put off the probe put off the reference as well, but for the probe's own jiffy.
            self.slipped = Slip::none();
            self.late = self.kernel.late(&self.slipped);
        }
        self.arm(here_ns / self.tick_ns, Context::Call);
        if is_reference {
            self.reference_ns = here_ns;
            self.nominal_ns = here_ns + self.timeout * self.tick_ns;
            self.answered_reference = true;
            self.way.seen = 0;
            self.beats.clear();
        }
    }

    /// From the longest timeout on, one answered probe is like the other: goes to the last but a
    /// few before the user timeout.
    fn skip_equal_probes(&mut self, here_ns: u64) {
        let now = here_ns / self.tick_ns;
        let step = self.fires.saturating_sub(now);
        let settled = self.step == step && self.timeout == self.kernel.rto_max;
        self.step = step;
        let (Some(first), Some(patience_ms)) = (self.first_probe, self.kernel.user_timeout_ms)
        else {
            return;
        };
        let passed = |at_ns: u64| self.is_past(at_ns, here_ns);
        let changed = self.scene.later.as_ref().is_none_or(|(at_ns, _)| passed(*at_ns));
        let answered = step >= self.scene.answers_every;
        let counted = passed(self.scene.reference_until_ns);
        if !(settled && self.stays(here_ns) && changed && answered && counted) || step == 0 {
            return;
        }
        let left = (first + self.kernel.hz.from_msecs(patience_ms)).saturating_sub(now);
        // The round trip and the timer: from one probe's sending to the next.
        let cycle = step + (self.scene.rtt_ns / self.tick_ns);
        let steps = (left / cycle.max(1)).saturating_sub(4);
        let ahead = steps * cycle;
        self.fires += ahead;
        self.expires += ahead;
        self.answered = self.answered.map(|last| last + ahead);
        self.nominal_ns += steps * self.timeout * self.tick_ns;
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.probes = self.probes.saturating_add(steps);
        self.way.skip(ahead, steps);
    }

    /// `tcp_probe0_when`.
    fn whole_timeout(&self) -> u64 {
        probe_timeout(self.kernel, self.base, self.backoff)
    }

    /// The same, cut by what is left of the user timeout (`tcp_clamp_probe0_to_user_timeout`).
    fn wanted(&self, now: u64) -> u64 {
        self.whole_timeout().min(self.left(now).unwrap_or(u64::MAX))
    }

    /// What is left of the user timeout once it counts.
    fn left(&self, now: u64) -> Option<u64> {
        let (first, ms) = self.first_probe.zip(self.kernel.user_timeout_ms)?;
        let left = self.kernel.hz.from_msecs(ms).saturating_sub(now.saturating_sub(first));
        Some(left.max(LEAST))
    }

    /// `tcp_reset_xmit_timer`, by the probe's handler or its answer. A timer that is pending for the
    /// same jiffy stays in its slot.
    fn arm(&mut self, now: u64, context: Context) {
        self.timeout = self.wanted(now);
        self.slip = match self.left(now) {
            Some(left) if left < self.timeout + self.late.most() => {
                self.slip_clamped(now, left, context)
            }
            _ => self.late.arms(self.kernel.wheel, now, self.timeout),
        };
        self.slots += self.kernel.wheel.slot(self.timeout);
        if self.fires <= now || self.expires != now + self.timeout {
            self.fires = self.kernel.wheel.fires_at(now, self.timeout, context);
        }
        self.expires = now + self.timeout;
    }

    /// By how much a timer is put off that a user timeout may cut.
    fn slip_clamped(&self, now: u64, left: u64, context: Context) -> Slip {
        let whole = self.whole_timeout();
        let fires = |late, left: u64| {
            self.kernel.wheel.fires_at(now + late, whole.min(left.max(LEAST)), context)
        };
        let slot = self.kernel.wheel.slot(self.timeout.saturating_sub(1));
        Slip::of_cut((&self.late, &self.first_late), left, slot, fires)
    }

    /// Whether nothing will ever end it: there is no user timeout, and enough probes are answered.
    fn lives_on(&self, now_ns: u64) -> bool {
        self.stays(now_ns)
            && self.kernel.user_timeout_ms.is_none()
            && self.probes > self.kernel.retries2 + DOUBLINGS_MOST
    }

    /// Whether the peer answers from now on: it never goes away, or is back.
    fn stays(&self, now_ns: u64) -> bool {
        let back = |healed: &Healed| !healed.reset && self.is_past(healed.at_ns, now_ns);
        self.scene.fault_after_ns.is_none() || self.scene.healed.as_ref().is_some_and(back)
    }

    /// Whether a time after the sample is over.
    fn is_past(&self, at_ns: u64, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.sampled_ns) > at_ns
    }

    fn beat(&mut self, kind: StepKind) {
        if self.beats.len() < BEATS_MOST || kind == StepKind::GiveUp {
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

    fn end(mut self, outcome: Outcome, end_ns: u64) -> Course {
        if outcome == Outcome::None {
            self.beats.truncate(BEATS_SHOWN);
        }
        let since = |at_ns: u64| at_ns.saturating_sub(self.reference_ns);
        let beats = self.beats.iter().map(|beat| Beat {
            at_ns: since(beat.at_ns),
            nominal_ns: since(beat.nominal_ns),
            ..*beat
        });
        let late_ns = allowance::late(self.kernel.hz).as_nanos() as u64;
        Course {
            beats: beats.collect(),
            outcome,
            end_ns: since(end_ns),
            retransmits: Some(0),
            keepalive_probes: None,
            window_probes: (outcome != Outcome::None).then_some(self.way.seen),
            slip: self.slip,
            open_ns: (0, 0),
            reference_late_ns: if self.answered_reference { late_ns } else { 0 },
            timeout_ns: None,
            slots_ns: self.slots * self.tick_ns,
        }
    }
}

/// No more probes than this are gone through one by one; `tcp_retries2` is 255 at most.
const WALKED_MOST: u32 = 400;
/// `TCP_TIMEOUT_MIN`, jiffies.
const LEAST: u64 = 2;
const RESET: Outcome = Outcome::Errno(Errno::ECONNRESET);
/// How many phases of the wheel are looked at: all, up to HZ 1000.
const PHASES_MOST: u64 = 1 << 12;
/// How many values of an RTO that nobody has looked at, beside the last.
const BASES_MOST: u64 = 4;
/// Of lives of a neighbour entry this near to each other one will do: probes come ever less often.
const OFTEN_SECS: u64 = 5;
/// After this long the probes of a living peer are all alike.
const PROBED_MOST: Duration = Duration::from_secs(3600);
/// How many steps a schedule shows at most.
const BEATS_MOST: usize = 300;
/// How many probes of a living peer a schedule shows: more than the doublings.
const BEATS_SHOWN: usize = 14;
/// No timeout is doubled more often.
const DOUBLINGS_MOST: u32 = 32;
