//! The kernel's own timers, as its tracepoints showed them, against the model's: to the jiffy.

use crate::measure::{Measured, reference_at};
use crate::verdict::FlowVerdict;
use model::prediction::{Step, StepKind};
use model::tick::Hz;
use model::wheel::{Context, Wheel};
use model::{Prediction, allowance, predict_after};
use serde::Serialize;
use spec::facts::JiffyClock;
use spec::script::Step as Call;
use spec::{Facts, Outcome, Parameters, Reference, Traffic};
use std::collections::BTreeMap;
use std::time::Duration;
use timeline::event::{Frame, FrameKind, Side, Timer, Trace};
use timeline::{Source, Timeline, What};

/// What was compared, and what differed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Timers whose slot of the wheel was compared: what they were armed for, and where they went.
    pub armed: u32,
    /// Steps of the schedule whose jiffy was compared with that of the kernel's timer.
    pub fired: u32,
    /// Steps that were not compared, by why.
    pub uncompared: BTreeMap<Uncompared, u32>,
    /// Each difference, a sentence.
    pub differences: Vec<String>,
    /// How many of them are gross: over a quarter of the timeout, or no timer fired at all.
    pub gross: u32,
}

/// Why a step of the schedule was not compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Uncompared {
    /// Which jiffy it was is not known, or nothing showed the kernel's timers.
    NoClock,
    /// The prediction leaves open which of several courses it takes.
    SeveralCourses,
    /// The program calls again, and when within its jiffy is not known.
    LaterCalls,
    /// What times count from may lie in either of two jiffies.
    Astride,
    /// A timer before it ran late.
    LateTimer,
    /// An ICMP error had the segment sent at once.
    Icmp,
    /// It may come in any of several jiffies, and came in another than the first.
    Open,
    /// No record of it, lost or never made, but what it did was seen: something was sent, a timer
    /// armed, an end reported.
    EffectOnly,
    /// The end of a connection that its program had closed, which came then: after FIN_WAIT2 it is
    /// no timer of the socket's (`tcp_time_wait`, net/ipv4/tcp_minisocks.c).
    MiniSocket,
    /// The trial had ended.
    AfterEnd,
}

impl Uncompared {
    /// Why, after a number of steps.
    pub const fn why(self) -> &'static str {
        match self {
            Self::NoClock => "without a view of the kernel's timers",
            Self::SeveralCourses => "in predictions with several possible courses",
            Self::LaterCalls => "of programs that call again",
            Self::Astride => "that count from a call or segment astride two jiffies",
            Self::LateTimer => "after a timer that ran late",
            Self::Icmp => "sent by an ICMP error and not by a timer",
            Self::Open => "that may come in several jiffies",
            Self::EffectOnly => "that only their effects showed",
            Self::MiniSocket => "of a mini-socket, whose timer is not seen",
            Self::AfterEnd => "after the end of the trial",
        }
    }
}

impl Comparison {
    /// How many steps were not compared.
    pub fn unknown(&self) -> u32 {
        self.uncompared.values().sum()
    }

    fn pass_over(&mut self, steps: usize, why: Uncompared) {
        if steps > 0 {
            *self.uncompared.entry(why).or_default() += steps as u32;
        }
    }
}

/// Compares every timer of the client's socket after the fault, as far as tracepoints showed it.
pub fn compare(
    parameters: &Parameters,
    facts: &Facts,
    prediction: &Prediction,
    measured: &Measured,
    timeline: &Timeline,
) -> Comparison {
    let from = (reference_at(timeline, measured.reference), false);
    compare_from(parameters, facts, (prediction, measured), timeline, from)
}

/// The same of a connection that is predicted anew with each fault and call: its prediction knows what was
/// called, and counts from what it was judged by.
pub fn compare_flow(trial: &Parameters, flow: &FlowVerdict, timeline: &Timeline) -> Comparison {
    let (Some(facts), Some(prediction), Some(measured), Some(reference_s)) =
        (&flow.facts, &flow.prediction, &flow.measured, flow.reference_s)
    else {
        return Comparison::default();
    };
    let since_ns = (reference_s * 1e9).round() as i64;
    let from_ns = timeline.fault_at().unwrap_or(0).saturating_add_signed(since_ns);
    compare_from(trial, facts, (prediction, measured), timeline, (from_ns, true))
}

fn compare_from(
    parameters: &Parameters,
    facts: &Facts,
    (prediction, measured): (&Prediction, &Measured),
    timeline: &Timeline,
    from: (u64, bool),
) -> Comparison {
    let mut comparison = Comparison::default();
    compare_slots(facts, timeline, &mut comparison);
    let both = (prediction, measured);
    compare_schedule(parameters, facts, both, timeline, from, &mut comparison);
    comparison
}

/// Where each timer was put by the wheel: `timer_start` says for which jiffy it was armed, and of
/// which jiffy its slot is.
fn compare_slots(facts: &Facts, timeline: &Timeline, comparison: &mut Comparison) {
    let wheel = Wheel::new(Hz::new(facts.hz));
    let since = timeline.fault_at().unwrap_or(0);
    for event in timeline.events().iter().filter(|event| event.at_ns >= since) {
        let What::Trace(Trace::TimerStart {
            side: Side::Client,
            timer: Timer::Write | Timer::Keepalive,
            now,
            expires,
            bucket: Some(bucket),
        }) = event.what
        else {
            continue;
        };
        let Some(delay) = expires.checked_sub(now) else { continue };
        comparison.armed += 1;
        let slots = [Context::Call, Context::Handler].map(|from| wheel.fires_at(now, delay, from));
        if !slots.contains(&bucket) {
            comparison.differences.push(format!(
                "a timer armed at jiffy {now} for {delay} was put into the slot of {bucket}, not \
                 of {} or {}",
                slots[0], slots[1]
            ));
        }
    }
}

/// `from` is what times count from, and whether the prediction knows what was called.
fn compare_schedule(
    parameters: &Parameters,
    facts: &Facts,
    (prediction, measured): (&Prediction, &Measured),
    timeline: &Timeline,
    (from_ns, knows_calls): (u64, bool),
    comparison: &mut Comparison,
) {
    let Some(clock) = facts.jiffies else {
        return comparison.pass_over(prediction.schedule.len(), Uncompared::NoClock);
    };
    let ticks = Ticks { hz: Hz::new(facts.hz), clock };
    // What a call arms is known once the call has been seen.
    let by_call =
        matches!(measured.reference, Reference::FirstWrite | Reference::Connect | Reference::Close);
    let called = by_call.then_some(from_ns);
    let jiffies = called.map(|called| armed_at(timeline, called)).unwrap_or_default();
    let first_write = called.map(|called| ticks.within(called, jiffies.first().copied()));
    let after;
    let (prediction, reference_ns) = match first_write {
        Some(first_write_ns) if !knows_calls => {
            after = predict_after(parameters, facts, first_write_ns);
            (&after, first_write_ns)
        }
        _ => (prediction, first_write.unwrap_or(from_ns)),
    };
    // A segment may have been stamped in one jiffy and received in the next.
    let received_astride = first_write.is_none() && ticks.left_of(reference_ns) < STAMPED_NS;
    // And a call may arm one timer in one jiffy, and another in the next.
    let astride = received_astride || jiffies.windows(2).any(|two| two[0] != two[1]);
    let steps = &prediction.schedule;
    // Windows of the same counts differ by late timers alone: one course.
    let one_course = prediction.windows.first().is_some_and(|first| {
        first.span.is_some()
            && prediction.windows.iter().all(|window| window.differs_in_time_only(first))
    });
    let seen = Seen::new(timeline, &ticks);
    let none = [
        (seen.timers.is_empty(), Uncompared::NoClock),
        (!one_course, Uncompared::SeveralCourses),
        (calls_again(parameters), Uncompared::LaterCalls),
        (astride, Uncompared::Astride),
    ];
    if let Some((_, why)) = none.iter().find(|(holds, _)| *holds) {
        return comparison.pass_over(steps.len(), *why);
    }
    let fired = fired(timeline, Wheel::new(ticks.hz), reference_ns);
    let ended = measured
        .detected_s
        .map(|after_s| ticks.from(i128::from(from_ns) + (after_s * 1e9) as i128));
    // Socket diagnostics see that late by up to their resolution.
    let seen_late = ticks.in_jiffies(Duration::from_secs_f64(measured.resolution_s)) + 1;
    // Whether its handler ran late nothing shows.
    let forgotten = |wanted: u64, step: &Step| {
        let latest = i128::from(reference_ns) + step.latest.as_nanos() as i128;
        let by = ticks.from(latest) + seen_late;
        measured.outcome == Outcome::Released
            && ended.is_some_and(|ended| (wanted - 1..=by).contains(&ended))
    };
    for (index, step) in steps.iter().enumerate() {
        let (wanted, last) = ticks.of_step(step, reference_ns, first_write.is_none());
        let timer = timer_of(step, steps);
        let near = fired
            .iter()
            .filter(|firing| firing.timer == timer)
            .min_by_key(|firing| low(firing.now).abs_diff(wanted));
        let until = near.map_or(u64::MAX, |firing| firing.at_ns);
        let by_then =
            |firing: &&Firing| firing.at_ns <= until && low(firing.now) <= last.max(wanted) + SLOT;
        if fired.iter().filter(by_then).any(|firing| firing.late > 0) {
            return comparison.pass_over(steps.len() - index, Uncompared::LateTimer);
        }
        if ended.is_some_and(|ended| wanted > ended + SLOT) {
            return comparison.pass_over(steps.len() - index, Uncompared::AfterEnd);
        }
        let open = last.cast_signed() - wanted.cast_signed();
        let difference = near.map(|firing| low(firing.now).cast_signed() - wanted.cast_signed());
        let gross = difference.is_none_or(|difference| {
            difference.unsigned_abs() > ticks.in_jiffies(step.timeout) / 4 + 1
        });
        // An ICMP error, of the host itself too, can have a segment sent again at once, or end it: no timer of the
        // socket makes that step, but the neighbour's, of which nothing shows whether it ran late.
        let by_icmp =
            step.timeout.is_zero() || seen.icmp.iter().any(|at| at.abs_diff(wanted) <= SLOT);
        if difference != Some(0) && by_icmp {
            comparison.pass_over(1, Uncompared::Icmp);
        } else if gross && seen.stirred(wanted, last) {
            comparison.pass_over(1, Uncompared::EffectOnly);
        } else if gross && step.kind == StepKind::GiveUp && forgotten(wanted, step) {
            comparison.pass_over(1, Uncompared::MiniSocket);
        } else if difference.is_some_and(|difference| (1..=open).contains(&difference)) {
            comparison.pass_over(1, Uncompared::Open);
        } else {
            comparison.fired += 1;
            comparison.gross += u32::from(gross);
            let what = match difference {
                Some(0) => continue,
                Some(difference) if !gross => {
                    format!("fired {difference:+} jiffies from the predicted one")
                }
                _ => "did not fire near the predicted jiffy".into(),
            };
            comparison.differences.push(format!("{} {} {what}", step.kind.name(), step.n));
        }
    }
}

/// Whether the program makes, or may make, a second call: when within its jiffy that comes cannot be
/// known.
fn calls_again(parameters: &Parameters) -> bool {
    match parameters.client.traffic {
        Traffic::Heartbeat => true,
        Traffic::Connect => false,
        _ => parameters.script().is_some_and(|script| {
            let waits = script.steps.iter().filter(|step| matches!(step, Call::Wait(_))).count();
            let calls = script.steps.len() - waits;
            // A request that is not answered closes, and a window was filled by calls before.
            let more = script.requests() || calls == 1 && parameters.client.fills_window;
            script.repeats || calls > 1 || more
        }),
    }
}

/// What was seen of the client's connection, by its jiffy, low bits.
struct Seen {
    /// Timers that were armed.
    timers: Vec<u64>,
    /// What left the client, and errors that its kernel reported.
    others: Vec<u64>,
    /// ICMP errors about it.
    icmp: Vec<u64>,
}

impl Seen {
    fn new(timeline: &Timeline, ticks: &Ticks) -> Self {
        let jiffy = |at_ns: u64| ticks.from(i128::from(at_ns));
        let mut seen = Self {
            timers: Vec::new(),
            others: Vec::new(),
            icmp: icmp_errors(timeline).map(jiffy).collect(),
        };
        for event in timeline.events() {
            match &event.what {
                What::Trace(Trace::TimerStart { side: Side::Client, now, .. }) => {
                    seen.timers.push(low(*now));
                }
                What::Trace(Trace::ErrorReport { side: Side::Client, .. }) => {
                    seen.others.push(jiffy(event.at_ns));
                }
                What::Segment(segment) if segment.sent && event.source == Source::ClientWire => {
                    seen.others.push(jiffy(event.at_ns));
                }
                _ => {}
            }
        }
        seen
    }

    /// Whether a handler has shown itself by what it did: it armed a timer, sent something, or gave
    /// up.
    fn stirred(&self, wanted: u64, last: u64) -> bool {
        let near = wanted.saturating_sub(1)..=last.max(wanted) + 1;
        self.timers.iter().chain(&self.others).any(|jiffy| near.contains(jiffy))
    }
}

/// When ICMP errors about the connection came to the client.
fn icmp_errors(timeline: &Timeline) -> impl Iterator<Item = u64> {
    timeline
        .events()
        .iter()
        .filter(|event| {
            event.source == Source::ClientWire
                && matches!(
                    event.what,
                    What::Frame(Frame {
                        sent: false,
                        kind: FrameKind::Icmp { about_connection: true, .. }
                    })
                )
        })
        .map(|event| event.at_ns)
}

/// Which timer makes a step.
fn timer_of(step: &Step, steps: &[Step]) -> Timer {
    let is_keepalive = |step: &Step| step.kind == StepKind::KeepaliveProbe;
    match step.kind {
        StepKind::KeepaliveProbe => Timer::Keepalive,
        StepKind::GiveUp if steps.iter().any(is_keepalive) => Timer::Keepalive,
        _ => Timer::Write,
    }
}

/// The jiffies at which a call armed the write timer, once or more.
fn armed_at(timeline: &Timeline, called_ns: u64) -> Vec<u64> {
    let within = called_ns..called_ns.saturating_add(HANDLER_NS);
    let events = timeline.events().iter().filter(|event| event.at_ns >= called_ns);
    let armed = events.filter_map(|event| match event.what {
        What::Trace(Trace::TimerStart { side: Side::Client, timer: Timer::Write, now, .. }) => {
            Some((event.at_ns, now))
        }
        _ => None,
    });
    let by_call = armed.enumerate().filter(|(n, (at_ns, _))| *n == 0 || within.contains(at_ns));
    by_call.map(|(_, (_, now))| now).collect()
}

/// One of the client's timers that fired.
pub(crate) struct Firing {
    at_ns: u64,
    timer: Timer,
    /// The jiffy, as `timer_expire` has it, and that of its slot.
    now: u64,
    due: u64,
    /// Whether its handler armed it again.
    arms: bool,
    /// How many jiffies after that its handler ran.
    pub(crate) late: u64,
    /// How many jiffies later than otherwise the timer fires that its handler armed.
    pub(crate) put_off: u64,
}

/// The client's timers, but for that of delayed acknowledgements, that fired from `since_ns` on.
pub(crate) fn fired(timeline: &Timeline, wheel: Wheel, since_ns: u64) -> Vec<Firing> {
    let mut armed: Vec<(Timer, u64)> = Vec::new();
    let mut fired: Vec<Firing> = Vec::new();
    for event in timeline.events() {
        match event.what {
            What::Trace(Trace::TimerStart { side: Side::Client, timer, now, expires, bucket }) => {
                // Older kernels do not say it.
                let delay = expires.saturating_sub(now);
                let bucket = bucket.unwrap_or_else(|| wheel.fires_at(now, delay, Context::Handler));
                armed.retain(|(other, _)| *other != timer);
                armed.push((timer, bucket));
                // What a handler arms shows the jiffy that it really ran in.
                if let Some(last) =
                    fired.last_mut().filter(|last| last.timer == timer && !last.arms)
                    && event.at_ns.saturating_sub(last.at_ns) < HANDLER_NS
                {
                    last.arms = true;
                    last.late = now.saturating_sub(last.due);
                    let on_time = wheel.fires_at(last.due, delay, Context::Handler);
                    last.put_off = bucket.saturating_sub(on_time);
                }
            }
            What::Trace(Trace::TimerExpire {
                side: Side::Client,
                timer: timer @ (Timer::Write | Timer::Keepalive),
                now,
            }) if event.at_ns >= since_ns => {
                let slot = armed.iter().find(|(other, _)| *other == timer);
                let due = slot.map_or(now, |(_, due)| *due);
                let late = now.saturating_sub(due);
                fired.push(Firing {
                    at_ns: event.at_ns,
                    timer,
                    now,
                    due,
                    arms: false,
                    late,
                    put_off: 0,
                });
            }
            _ => {}
        }
    }
    fired
}

/// The low 32 bits of a jiffy: all that some sources have.
fn low(jiffy: u64) -> u64 {
    jiffy & u64::from(u32::MAX)
}

/// The jiffy clock of a trial.
struct Ticks {
    hz: Hz,
    clock: JiffyClock,
}

impl Ticks {
    /// The first jiffy that begins at this time of `CLOCK_MONOTONIC` or later, low bits.
    fn from(&self, at_ns: i128) -> u64 {
        let tick_ns = i128::from(self.hz.tick_ns());
        let since = at_ns - i128::from(self.clock.at_ns);
        let ticks = since.div_euclid(tick_ns) + i128::from(since.rem_euclid(tick_ns) > ROUNDING_NS);
        low((i128::from(self.clock.jiffies) + ticks) as u64)
    }

    /// What is left of its jiffy at this time, nanoseconds.
    fn left_of(&self, at_ns: u64) -> i128 {
        let tick_ns = i128::from(self.hz.tick_ns());
        tick_ns - (i128::from(at_ns) - i128::from(self.clock.at_ns)).rem_euclid(tick_ns)
    }

    /// The jiffy that a step was predicted for, if no timer before it ran late, and the last that
    /// it can be in. Where the reference is a segment of which the jiffy is known, a step is in one: the later,
    /// if the segment came as near to its jiffy's beginning as conversions round, which where time is virtual
    /// is when the tick's own probe is answered.
    fn of_step(&self, step: &Step, reference_ns: u64, is_segment: bool) -> (u64, u64) {
        let after = |time: Duration| i128::from(reference_ns) + time.as_nanos() as i128;
        let earliest = after(step.earliest + allowance::EARLY);
        let latest = after(step.latest.saturating_sub(step.late))
            - allowance::late(self.hz).as_nanos() as i128;
        let last = self.from(latest - i128::from(self.hz.tick_ns()) + ROUNDING_NS + 1);
        let is_one = is_segment && latest - earliest < i128::from(self.hz.tick_ns());
        (if is_one { last } else { self.from(earliest) }, last)
    }

    fn in_jiffies(&self, time: Duration) -> u64 {
        time.as_nanos() as u64 / self.hz.tick_ns()
    }

    /// A time, moved into the jiffy that the kernel says it was in.
    fn within(&self, at_ns: u64, jiffy: Option<u64>) -> u64 {
        let Some(jiffy) = jiffy else { return at_ns };
        let tick_ns = self.hz.tick_ns();
        let ticks = low(jiffy).cast_signed() - low(self.clock.jiffies).cast_signed();
        let begins = self.clock.at_ns.cast_signed() + ticks * tick_ns.cast_signed();
        let begins = begins.max(0).cast_unsigned();
        at_ns.clamp(begins, begins + tick_ns - 1)
    }
}

/// A handler arms its next timer within so long.
const HANDLER_NS: u64 = 1_000_000;
/// A slot of the timers that are short enough for many ICMP errors, jiffies.
const SLOT: u64 = 8;
/// From a segment's stamp until it is received, on a CPU that is not kept from that.
const STAMPED_NS: i128 = 100_000;
/// Times that are this near to a jiffy's beginning are it: conversions round.
const ROUNDING_NS: i128 = 2_000;
