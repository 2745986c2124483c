//! The kernel's own timers, as its tracepoints showed them, against the model's: to the jiffy.

use crate::measure::{Measured, reference_at};
use model::prediction::{Step, StepKind};
use model::tick::Hz;
use model::wheel::{Context, Wheel};
use model::{Prediction, allowance, predict_after};
use spec::facts::JiffyClock;
use spec::{Facts, Parameters, Reference, Traffic};
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
    /// Steps that were not compared: a timer before them ran late, their jiffy could not be known,
    /// or the tracepoints lost the record.
    pub unknown: u32,
    /// Each difference, a sentence.
    pub differences: Vec<String>,
}

/// Compares every timer of the client's socket after the fault, as far as tracepoints showed it.
pub fn compare(
    parameters: &Parameters,
    facts: &Facts,
    prediction: &Prediction,
    measured: &Measured,
    timeline: &Timeline,
) -> Comparison {
    let mut comparison = Comparison::default();
    compare_slots(facts, timeline, &mut comparison);
    compare_schedule(parameters, facts, prediction, measured, timeline, &mut comparison);
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

fn compare_schedule(
    parameters: &Parameters,
    facts: &Facts,
    prediction: &Prediction,
    measured: &Measured,
    timeline: &Timeline,
    comparison: &mut Comparison,
) {
    let Some(clock) = facts.jiffies else { return };
    let ticks = Ticks { hz: Hz::new(facts.hz), clock };
    // What a call arms is known once the call has been seen.
    let by_call =
        matches!(measured.reference, Reference::FirstWrite | Reference::Connect | Reference::Close);
    let called = by_call.then(|| reference_at(timeline, measured.reference));
    let jiffies = called.map(|called| armed_at(timeline, called)).unwrap_or_default();
    let first_write = called.map(|called| ticks.within(called, jiffies.first().copied()));
    let after;
    let (prediction, reference_ns) = match first_write {
        Some(first_write_ns) => {
            after = predict_after(parameters, facts, first_write_ns);
            (&after, first_write_ns)
        }
        None => (prediction, reference_at(timeline, measured.reference)),
    };
    // A segment may have been stamped in one jiffy and received in the next.
    let received_astride = first_write.is_none() && ticks.left_of(reference_ns) < STAMPED_NS;
    // And a call may arm one timer in one jiffy, and another in the next.
    let astride = received_astride || jiffies.windows(2).any(|two| two[0] != two[1]);
    let steps = &prediction.schedule;
    // When within its jiffy a second write comes cannot be known.
    let client = &parameters.client;
    let single = !matches!(client.traffic, Traffic::Stream | Traffic::Heartbeat)
        && client.second_write.is_none();
    // Windows of the same counts differ by late timers alone: one course.
    let one_course = prediction.windows.first().is_some_and(|first| {
        first.span.is_some()
            && prediction.windows.iter().all(|window| window.differs_in_time_only(first))
    });
    if !one_course || steps.is_empty() || !single || astride {
        comparison.unknown += steps.len() as u32;
        return;
    }
    let fired = fired(timeline, Wheel::new(ticks.hz), reference_ns);
    let icmp: Vec<u64> = icmp_errors(timeline).collect();
    for (index, step) in steps.iter().enumerate() {
        let (wanted, last) = ticks.of_step(step, reference_ns);
        let timer = timer_of(step, steps);
        let near = fired
            .iter()
            .filter(|firing| firing.timer == timer)
            .min_by_key(|firing| low(firing.now).abs_diff(wanted));
        let Some(firing) = near else {
            comparison.unknown += (steps.len() - index) as u32;
            return;
        };
        let mut until = fired.iter().filter(|other| other.at_ns <= firing.at_ns);
        if until.any(|other| other.late > 0) {
            comparison.unknown += (steps.len() - index) as u32;
            return;
        }
        let difference = low(firing.now).cast_signed() - wanted.cast_signed();
        let open = last.cast_signed() - wanted.cast_signed();
        // An ICMP error can have a segment sent again at once: no timer makes that step.
        let by_icmp =
            icmp.iter().any(|at_ns| ticks.from(i128::from(*at_ns)).abs_diff(wanted) <= SLOT);
        let missing = difference.unsigned_abs() > ticks.in_jiffies(step.timeout) / 4 + 1;
        if missing || (by_icmp && difference != 0) || (1..=open).contains(&difference) {
            comparison.unknown += 1;
            continue;
        }
        comparison.fired += 1;
        if difference != 0 {
            comparison.differences.push(format!(
                "{} {} fired {difference:+} jiffies from where the model has it",
                step.kind.name(),
                step.n
            ));
        }
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
            What::Trace(Trace::TimerStart {
                side: Side::Client,
                timer,
                now,
                expires,
                bucket: Some(bucket),
            }) => {
                armed.retain(|(other, _)| *other != timer);
                armed.push((timer, bucket));
                // What a handler arms shows the jiffy that it really ran in.
                if let Some(last) =
                    fired.last_mut().filter(|last| last.timer == timer && !last.arms)
                    && event.at_ns.saturating_sub(last.at_ns) < HANDLER_NS
                {
                    last.arms = true;
                    last.late = now.saturating_sub(last.due);
                    let delay = expires.saturating_sub(now);
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
    /// it can be in.
    fn of_step(&self, step: &Step, reference_ns: u64) -> (u64, u64) {
        let after = |time: Duration| i128::from(reference_ns) + time.as_nanos() as i128;
        let earliest = after(step.earliest + allowance::EARLY);
        let latest = after(step.latest.saturating_sub(step.late))
            - allowance::late(self.hz).as_nanos() as i128;
        let last = self.from(latest - i128::from(self.hz.tick_ns()) + ROUNDING_NS + 1);
        (self.from(earliest), last)
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
