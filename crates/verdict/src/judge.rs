//! The verdict.

use crate::measure::{DetectedBy, Measured, first_called_at, measure};
use crate::proof::{Proof, prove};
use crate::timers::fired;
use crate::verdict::{Verdict, Word};
use crate::waited::waited;
use model::tick::Hz;
use model::wheel::Wheel;
use model::{Prediction, Window};
use spec::script::Step;
use spec::{CallName, Facts, Outcome, Parameters, Reference, Topology, Traffic, counted};
use std::time::Duration;
use timeline::event::{FaultStep, Frame, FrameKind};
use timeline::{FlowId, Source, Timeline, What};

/// Holds the measurement against the prediction.
pub fn judge(
    parameters: &Parameters,
    facts: &Facts,
    prediction: &Prediction,
    timeline: &Timeline,
) -> Verdict {
    // Of several connections, that of our own peers is the first: it has its number beforehand.
    let alone = (timeline.flows().len() > 1).then(|| timeline.about(FlowId(0)));
    let timeline = alone.as_ref().unwrap_or(timeline);
    let Some(measured) = measure(parameters, facts, timeline) else {
        return Verdict::without_measurement(Word::Inconclusive, "the fault was never injected");
    };
    let proof = prove(parameters, timeline);
    let (word, reason) = match weigh(parameters, facts, prediction, timeline, &measured, &proof) {
        Ok(()) => (Word::Agrees, String::new()),
        Err((word, reason)) => (word, reason),
    };
    Verdict {
        word,
        reason,
        measured: Some(measured),
        proof,
        ..Verdict::without_measurement(word, "")
    }
    .named(parameters)
}

pub(crate) fn weigh(
    parameters: &Parameters,
    facts: &Facts,
    prediction: &Prediction,
    timeline: &Timeline,
    measured: &Measured,
    proof: &Proof,
) -> Result<(), (Word, String)> {
    let inconclusive = |reason: String| Err((Word::Inconclusive, reason));
    if let Some(why) = &prediction.unknown {
        return inconclusive(format!("the model cannot predict this: {why}"));
    }
    if let Some(missing) = proof.evidence.iter().find(|evidence| !evidence.holds) {
        return inconclusive(format!("the fault is not proved: {}", missing.finding));
    }
    // Before a later fault the one before it has lost something, and the socket was looked at since.
    if let Some(tcp) = &facts.tcp
        && parameters.further.is_empty()
        && tcp.rto_us >= 1_000_000
        && tcp.srtt_us < 100_000
        && model::smallest_rto(parameters, facts) < Duration::from_millis(900)
    {
        return inconclusive(format!(
            "the RTO was {} ms on a path of {} µs before the fault: something was lost while the \
             connection settled",
            tcp.rto_us / 1000,
            tcp.srtt_us
        ));
    }
    if let Some(tcp) = &facts.tcp
        && u128::from(tcp.srtt_us) < parameters.path.rtt.as_micros()
    {
        return inconclusive(format!(
            "the path was to have a round trip of {} µs; the client measured {} µs",
            parameters.path.rtt.as_micros(),
            tcp.srtt_us
        ));
    }
    if let Some(reason) = blind(timeline) {
        return inconclusive(reason);
    }
    // A program that gave up by its own timer had seen what it wanted to see.
    if measured.outcome == Outcome::None
        && measured.noticed_s.is_none()
        && timeline.fault_step(&FaultStep::Outlasted).is_some()
    {
        return inconclusive("the trial ended before the fault was over".into());
    }
    // Times that count from something else cannot be compared.
    let same = prediction.reference == measured.reference || measured.detected_s.is_none();
    if same && prediction.windows.iter().any(|window| fits(window, measured)) {
        return Ok(());
    }
    if !same {
        let why = format!(
            "times were to count from the {}, and the end came after the {} ({})",
            in_words(prediction.reference),
            in_words(measured.reference),
            difference(prediction, measured)
        );
        return Err((Word::Disagrees, why));
    }
    if let Some(reason) = half_blind(timeline, prediction, measured) {
        return inconclusive(reason);
    }
    if let Some(by_ns) = timeline.events().iter().find_map(|event| match event.what {
        What::WallClockSet { by_ns } => Some(by_ns),
        _ => None,
    }) {
        return inconclusive(format!(
            "the wall clock was set by {:.3} s during the trial, which makes the times of some \
             packets inexact ({})",
            by_ns as f64 / 1e9,
            difference(prediction, measured)
        ));
    }
    if let Some(reason) = disturbed(parameters, facts, prediction, timeline, measured) {
        return inconclusive(reason);
    }
    Err((Word::Disagrees, difference(prediction, measured)))
}

/// Why the wire may have shown other than what passed, whatever was measured: a tap or a forwarder
/// that lost frames, or an instrument that failed on the way.
fn blind(timeline: &Timeline) -> Option<String> {
    timeline.events().iter().find_map(|event| match (&event.what, event.source) {
        (What::Lost { count }, Source::ClientWire | Source::ServerWire | Source::Instrument) => {
            Some(format!(
                "the laboratory itself lost {} ({})",
                counted(*count, "packet"),
                event.source
            ))
        }
        (What::Suspended { for_ns }, _) => Some(format!(
            "the machine was suspended for {:.1} s during the trial",
            Duration::from_nanos(*for_ns).as_secs_f64()
        )),
        (What::InstrumentMissing { instrument, why }, Source::ClientWire | Source::ServerWire) => {
            Some(format!("{instrument} failed during the trial: {why}"))
        }
        _ => None,
    })
}

/// Why a disagreement may be that of the tracepoints: they lost events, and it was not they who
/// told the end, which may be among these. Counts are the wire's: no lost event excuses them.
fn half_blind(timeline: &Timeline, prediction: &Prediction, measured: &Measured) -> Option<String> {
    let lost = timeline.events().iter().filter(|event| event.source == Source::Tracepoint);
    let lost: u64 =
        lost.map(|event| if let What::Lost { count } = event.what { count } else { 0 }).sum();
    let told = measured.detected_by == Some(DetectedBy::Tracepoint);
    let fit = prediction.windows.iter().any(|window| counts_fit(window, measured));
    (lost > 0 && !told && fit).then(|| {
        format!(
            "the tracepoints lost {}, the end of the connection perhaps among them ({})",
            counted(lost, "event"),
            difference(prediction, measured)
        )
    })
}

/// Whether the measurement lies in the window: outcome, time and counts.
fn fits(window: &Window, measured: &Measured) -> bool {
    window.outcome == measured.outcome
        && in_time(window, measured, 0.0)
        && counts_fit(window, measured)
}

fn in_time(window: &Window, measured: &Measured, grace_s: f64) -> bool {
    in_time_or(window, measured, [0.0, grace_s])
}

/// The same, so much sooner or so much later.
fn in_time_or(window: &Window, measured: &Measured, [sooner_s, later_s]: [f64; 2]) -> bool {
    match (window.span, measured.detected_s) {
        (None, None) => true,
        (Some((earliest, latest)), Some(detected)) => {
            // A source with a resolution saw the end up to that much late.
            detected >= earliest.as_secs_f64() - sooner_s
                && detected - measured.resolution_s <= latest.as_secs_f64() + later_s
        }
        _ => false,
    }
}

fn counts_fit(window: &Window, measured: &Measured) -> bool {
    counts_fit_with(window, measured, Missing::default())
}

/// How many less than predicted there may be.
#[derive(Debug, Clone, Copy, Default)]
struct Missing {
    retransmits: u32,
    /// Keepalive or window probes.
    probes: u32,
}

impl Missing {
    const ANY: Self = Self { retransmits: u32::MAX, probes: u32::MAX };
}

fn counts_fit_with(window: &Window, measured: &Measured, missing: Missing) -> bool {
    let agree = |predicted: Option<u32>, counted: Option<u32>, missing: u32| {
        let (Some(predicted), Some(counted)) = (predicted, counted) else { return true };
        (counted..=counted.saturating_add(missing)).contains(&predicted)
    };
    agree(window.retransmits, measured.retransmits_on_wire, missing.retransmits)
        && agree(window.keepalive_probes, measured.keepalive_probes_on_wire, missing.probes)
        && agree(window.window_probes, measured.window_probes_on_wire, missing.probes)
}

/// Why the disagreement may be the machine's doing, or the deadline's, and not the kernel's.
fn disturbed(
    parameters: &Parameters,
    facts: &Facts,
    prediction: &Prediction,
    timeline: &Timeline,
    measured: &Measured,
) -> Option<String> {
    let expected: Vec<&Window> =
        prediction.windows.iter().filter(|window| window.outcome == measured.outcome).collect();
    let within = |grace_s: f64, missing: Missing| {
        expected.iter().any(|window| {
            in_time(window, measured, grace_s) && counts_fit_with(window, measured, missing)
        })
    };
    let (late_timers, put_off, late_s) = late_timers(timeline, measured.reference, facts.hz);
    // Where a time decides how many fit, each timer that puts off the next may leave room for one
    // less, and one that runs late may find that time over. Of probes a number decides, unless there
    // is a user timeout.
    let retransmits = u32::try_from(put_off + 1).unwrap_or(u32::MAX);
    let by_time = parameters.client.user_timeout.is_some();
    let missing = Missing { retransmits, probes: if by_time { retransmits } else { 0 } };
    if late_timers > 0 && within(late_s, missing) {
        return Some(format!(
            "the kernel ran {late_timers} of its own timers late, which moved the end by up to \
             {:.0} ms ({})",
            late_s * 1000.0,
            difference(prediction, measured)
        ));
    }
    if let Some((what, late_s)) = begun_late(parameters, facts, timeline) {
        return Some(format!(
            "the machine was busy: {what} came {:.1} ms after the client's timers were looked at, \
             and the prediction is for {:.0} ms at most ({})",
            late_s * 1000.0,
            model::FAULT_WITHIN.as_secs_f64() * 1000.0,
            difference(prediction, measured)
        ));
    }
    // Times and counts begin with the client's calls, and some of its timers with those before.
    let calls_s = longest_delay_s(timeline, |source| source == Source::ClientProgram);
    let called_late = |window: &&Window| {
        in_time_or(window, measured, [calls_s; 2])
            && counts_fit_with(window, measured, Missing::ANY)
    };
    if calls_s > 0.0 && expected.iter().any(called_late) {
        return Some(format!(
            "the machine was busy: the client's program ran {:.1} ms late, which is more than what the \
             measurement is off by ({})",
            calls_s * 1000.0,
            difference(prediction, measured)
        ));
    }
    let delay_s = longest_delay_s(timeline, |source| source != Source::ClientProgram);
    if within(delay_s, Missing::default()) {
        return Some(format!(
            "the machine was busy: a thread or process ran {:.1} ms late, which is more than what the \
             measurement is off by ({})",
            delay_s * 1000.0,
            difference(prediction, measured)
        ));
    }
    if let Some((count, most_s)) = waited(facts, prediction, timeline)
        && expected.iter().any(|window| may_have_moved(window, measured, most_s))
    {
        return Some(format!(
            "{} came a microsecond or more after the segment that drew it, and took a jiffy off its \
             timeout: in virtual time softirqs waited for a program that had been woken ({})",
            counted(count, "ICMP error"),
            difference(prediction, measured)
        ));
    }
    if let Some((late_s, again_s)) = question_missed(parameters, timeline, Hz::new(facts.hz))
        && within(late_s + again_s, Missing::default())
    {
        return Some(format!(
            "the fault was over {:.1} ms later than planned: a request for the server's link-layer \
             address was lost meanwhile ({})",
            late_s * 1000.0,
            difference(prediction, measured)
        ));
    }
    let watched_s = watched_s(timeline, measured);
    let yet_to_come = |window: &&Window| {
        window.outcome == Outcome::None && counts_fit_with(window, measured, Missing::ANY)
    };
    let last = prediction.schedule.last().filter(|step| step.latest.as_secs_f64() > watched_s);
    if let Some(step) = last
        && expected.iter().any(yet_to_come)
    {
        return Some(format!(
            "the trial ended {watched_s:.3} s after the {}, before the last {} was due ({})",
            in_words(measured.reference),
            step.kind.name(),
            difference(prediction, measured)
        ));
    }
    if measured.outcome == Outcome::None
        && prediction
            .windows
            .iter()
            .any(|window| window.span.is_some_and(|(_, latest)| latest.as_secs_f64() > watched_s))
    {
        return Some(format!(
            "the trial ended {watched_s:.3} s after the {}, before the prediction could come true",
            in_words(measured.reference)
        ));
    }
    None
}

/// Whether the end may have moved so far, either way, from where it was expected, and with it one
/// retransmission.
fn may_have_moved(window: &Window, measured: &Measured, by_s: f64) -> bool {
    let near = |(earliest, latest): (Duration, Duration), detected_s: f64| {
        (earliest.as_secs_f64() - by_s..=latest.as_secs_f64() + by_s).contains(&detected_s)
    };
    let counts = |predicted: u32, counted: u32| predicted.abs_diff(counted) <= 1;
    window.span.zip(measured.detected_s).is_some_and(|(span, detected_s)| near(span, detected_s))
        && window.retransmits.zip(measured.retransmits_on_wire).is_none_or(|(p, c)| counts(p, c))
}

/// What times count from, as a person says it.
const fn in_words(reference: Reference) -> &'static str {
    match reference {
        Reference::Fault => "fault",
        Reference::FirstWrite => "first write",
        Reference::LastActivity => "last segment received",
        Reference::LastRequest => "last request",
        Reference::Connect => "call of connect",
        Reference::Close => "call of close or shutdown",
    }
}

/// How long the connection was watched, seconds after the reference.
fn watched_s(timeline: &Timeline, measured: &Measured) -> f64 {
    use timeline::event::Phase;
    let ended = timeline.phase_at(Phase::Aftermath).or(timeline.phase_at(Phase::Interrupted));
    let reference_at = crate::measure::reference_at(timeline, measured.reference);
    ended.unwrap_or(0).saturating_sub(reference_at) as f64 / 1e9
}

/// How many of the client's timers ran after the jiffy that the wheel had put them to, how many of
/// these put off the next, and by how much the end can have moved, seconds: what the wheel made of
/// each delay for the next timer, and the last one's own.
fn late_timers(timeline: &Timeline, reference: Reference, hz: u32) -> (usize, usize, f64) {
    let fault_at = timeline.fault_at().unwrap_or(0);
    let since_ns = crate::measure::reference_at(timeline, reference).min(fault_at);
    let hz = Hz::new(hz);
    let fired = fired(timeline, Wheel::new(hz), since_ns);
    let late = fired.iter().filter(|firing| firing.late > 0);
    let put_off = fired.iter().filter(|firing| firing.put_off > 0);
    let jiffies = put_off.clone().map(|firing| firing.put_off).sum::<u64>()
        + fired.last().map_or(0, |firing| firing.late);
    (late.count(), put_off.count(), hz.duration(jiffies).as_secs_f64())
}

/// By how much a fault ended later than it was due, if a router asked for the server meanwhile, and by
/// how much later it asks again, seconds. Nobody sees what it asks then, but the same question comes
/// a second later, and a slot of the wheel (`retrans_time`; `neigh_timer_handler`,
/// net/core/neighbour.c).
fn question_missed(parameters: &Parameters, timeline: &Timeline, hz: Hz) -> Option<(f64, f64)> {
    if parameters.topology != Topology::Router {
        return None;
    }
    let second = u64::from(hz.get());
    let again_ns =
        [second, second + Wheel::new(hz).slot(second) + 1].map(|jiffies| jiffies * hz.tick_ns());
    let due = timeline.fault_at()? + parameters.fault_duration()?.as_nanos() as u64;
    let restored = timeline.fault_step(&FaultStep::Restored)?;
    let asked = timeline.events().iter().find(|event| {
        let question = |frame: &Frame| matches!(frame.kind, FrameKind::NeighbourRequest(_));
        event.at_ns >= restored
            && event.source == Source::ServerWire
            && matches!(&event.what, What::Frame(frame) if !frame.sent && question(frame))
    })?;
    let [latest, earliest] = again_ns.map(|ns| asked.at_ns.saturating_sub(ns));
    let missed = due < restored && earliest < restored && due <= latest;
    missed.then(|| ((restored - due) as f64 / 1e9, again_ns[1] as f64 / 1e9))
}

/// What came how long after the last look at the socket, seconds, if that was longer than the prediction
/// takes it to be, and can have made a difference: the call that the client makes at the fault; or the
/// fault, where something of the connection happened meanwhile, by the taps or the tracepoints, or what is
/// yet to come counts from the fault. Where nothing did, the fault met the socket as it would have met it
/// in time.
fn begun_late(
    parameters: &Parameters,
    facts: &Facts,
    timeline: &Timeline,
) -> Option<(&'static str, f64)> {
    let sampled_ns = facts.tcp.as_ref().map(|tcp| tcp.sampled_at_ns).filter(|ns| *ns > 0)?;
    let fault_ns = timeline.fault_at()?;
    let within_ns = model::FAULT_WITHIN.as_nanos() as u64;
    let late = |at_ns: u64| at_ns.checked_sub(sampled_ns).filter(|late_ns| *late_ns > within_ns);
    let counts_on = parameters.fault_duration().is_some() || !parameters.later.sysctl.is_empty();
    let meanwhile = sampled_ns.saturating_add(within_ns)..=fault_ns;
    let happened = timeline.events().iter().any(|event| {
        let about = matches!(event.what, What::Segment(_) | What::Frame(_) | What::Trace(_));
        about && meanwhile.contains(&event.at_ns)
    });
    let is_call = |step: &Step| !matches!(step, Step::Wait(_));
    let calls = parameters.client.traffic == Traffic::Connect
        || parameters.script().is_some_and(|script| script.steps.first().is_some_and(is_call));
    let names = [CallName::Connect, CallName::Write, CallName::Shutdown, CallName::Close];
    let called_ns = first_called_at(timeline, fault_ns, &names).filter(|_| calls);
    let fault = late(fault_ns).filter(|_| counts_on || happened).map(|ns| ("the fault", ns));
    let call = || called_ns.and_then(late).map(|ns| ("the client's call", ns));
    fault.or_else(call).map(|(what, ns)| (what, ns as f64 / 1e9))
}

/// The longest scheduling delay recorded after the fault, seconds.
fn longest_delay_s(timeline: &Timeline, by: impl Fn(Source) -> bool) -> f64 {
    let fault_at = timeline.fault_at().unwrap_or(0);
    let late =
        timeline.events().iter().filter(|event| event.at_ns >= fault_at).filter_map(|event| {
            match event.what {
                What::Late { by_ns } if by(event.source) => Some(by_ns),
                _ => None,
            }
        });
    late.max().unwrap_or(0) as f64 / 1e9
}

/// Expected, happened.
fn difference(prediction: &Prediction, measured: &Measured) -> String {
    let expected: Vec<String> = prediction.windows.iter().map(describe_window).collect();
    let mut happened = match measured.detected_s {
        Some(detected) => format!("{} after {detected:.3} s", measured.outcome),
        None => "nothing".to_owned(),
    };
    for (count, name) in [
        (measured.retransmits_on_wire, "retransmissions"),
        (measured.keepalive_probes_on_wire, "keepalive probes"),
        (measured.window_probes_on_wire, "window probes"),
    ] {
        if let Some(count) = count {
            happened += &format!(", {count} {name}");
        }
    }
    format!("expected {}; measured {happened}", expected.join(", or "))
}

fn describe_window(window: &Window) -> String {
    let mut text = match window.span {
        Some((earliest, latest)) => format!(
            "{} within {:.3}–{:.3} s",
            window.outcome,
            earliest.as_secs_f64(),
            latest.as_secs_f64()
        ),
        None => "nothing".to_owned(),
    };
    for (count, name) in [
        (window.retransmits, "retransmissions"),
        (window.keepalive_probes, "keepalive probes"),
        (window.window_probes, "window probes"),
    ] {
        if let Some(count) = count {
            text += &format!(", {count} {name}");
        }
    }
    text
}
