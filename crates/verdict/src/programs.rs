//! Trials whose client is a command: every flow by itself, and what the programs did.

mod options;
mod seen;

use crate::judge::weigh;
use crate::living::ended_by_peer;
use crate::measure::{Measured, first_called_at, measure, reference_at};
use crate::orders::{Order, View, came, orders, prove_each};
use crate::pairs::pair;
use crate::proof::prove;
use crate::verdict::{EndedBy, FlowVerdict, Verdict, Word};
use model::Prediction;
use model::command::{
    Conditional, Farewell, Unread, parameters, predict_in_sequence, predict_program,
};
use options::Changed;
use seen::Seen;
use spec::facts::TcpFacts;
use spec::{CallName, Errno, Facts, FaultKind, Leg, Outcome, Parameters, Reference, counted};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use timeline::classify::Class;
use timeline::event::{Call, FrameKind, Phase, Timer, Trace};
use timeline::{Event, Flow, FlowId, Side, Source, Timeline, What};

/// The verdict on a trial whose client is a command: the most severe of its flows'.
pub fn judge_programs(trial: &Parameters, timeline: &Timeline) -> Verdict {
    if timeline.fault_at().is_none() {
        let mut verdict =
            Verdict::without_measurement(Word::Inconclusive, "the fault was never injected");
        verdict.flows = flows(trial, timeline, 0);
        return verdict;
    }
    let fault_at = timeline.fault_at().unwrap_or(0);
    let proof = if trial.further.is_empty() && orders(timeline).is_empty() {
        prove(trial, &timeline.of_leg(trial, trial.broken_leg())).named(trial)
    } else {
        prove_each(trial, timeline, fault_at)
    };
    let flows = flows(trial, timeline, fault_at);
    let mut verdict = Verdict {
        word: Word::Agrees,
        reason: String::new(),
        measured: None,
        proof,
        flows,
        requirements: Vec::new(),
    };
    verdict.measured = verdict.deciding().and_then(|flow| flow.measured.clone());
    let unproved = verdict.proof.evidence.iter().find(|evidence| !evidence.holds);
    let disagrees = verdict.flows.iter().find(|flow| flow.word == Some(Word::Disagrees));
    let inconclusive = verdict.flows.iter().find(|flow| flow.word == Some(Word::Inconclusive));
    let judged = verdict.flows.iter().any(|flow| flow.word.is_some());
    let (word, reason) = if verdict.flows.is_empty() {
        (Word::Inconclusive, "no connection between the two hosts was seen".to_owned())
    } else if let Some(missing) = unproved {
        (Word::Inconclusive, format!("the fault is not proved: {}", missing.finding))
    } else if let Some(flow) = disagrees.or(inconclusive) {
        (flow.word.unwrap_or(Word::Inconclusive), in_flow(&verdict.flows, flow))
    } else if !judged && trial.fault.kind != FaultKind::None {
        (Word::Inconclusive, why_none_is_judged(&verdict.flows))
    } else {
        (Word::Agrees, String::new())
    };
    (verdict.word, verdict.reason) = (word, reason);
    verdict
}

/// Why there is no prediction for any connection.
fn why_none_is_judged(flows: &[FlowVerdict]) -> String {
    let past = flows.iter().filter(|flow| flow.leg == Leg::Past).count();
    if past > 0 {
        return format!(
            "no connection through the proxy was open at the moment of the fault; {} went past it, from the \
             client to the server itself: have the client connect to the host `proxy`",
            counted(past, "connection")
        );
    }
    let before = flows.iter().filter_map(|flow| flow.opened_s).filter(|s| (-1.0..0.0).contains(s));
    if before.count() < BRIEF {
        return "no connection was open at the moment of the fault".into();
    }
    "no connection was open at the moment of the fault, or none for long enough to be looked at \
     before: the program opens and closes them all the time"
        .into()
}

/// Of a program that opens so many connections in the last second before the fault, each is brief.
const BRIEF: usize = 5;

fn in_flow(flows: &[FlowVerdict], flow: &FlowVerdict) -> String {
    if flows.len() == 1 {
        flow.reason.clone()
    } else {
        format!("flow {} ({}): {}", flow.id.0, flow.local, flow.reason)
    }
}

fn flows(trial: &Parameters, timeline: &Timeline, fault_at: u64) -> Vec<FlowVerdict> {
    let mut seen = BTreeSet::new();
    let mut flows: Vec<_> = timeline
        .events()
        .iter()
        .filter_map(|event| match (&event.what, event.flow) {
            (What::Flow(flow), Some(id)) if seen.insert(id) => Some((id, *flow, event.at_ns)),
            _ => None,
        })
        .collect();
    flows.sort_by_key(|(id, ..)| *id);
    let legs: BTreeMap<_, _> =
        flows.iter().map(|(_, flow, _)| (flow.leg, timeline.of_leg(trial, flow.leg))).collect();
    let orders = orders(timeline);
    let judged = flows.iter().map(|(id, flow, at_ns)| {
        let seen = legs.get(&flow.leg).unwrap_or(timeline);
        let mut verdict = judge_in_view(trial, seen, &orders, fault_at, *id, *flow, *at_ns);
        verdict.reason = trial.of_leg(flow.leg).named(&verdict.reason);
        verdict
    });
    let mut judged: Vec<_> = judged.collect();
    pair(&mut judged, &flows);
    judged
}

/// Judges a connection from the moment on that its end depends on: the trial's fault, the last order
/// before its end, or, where its other host lives on, when that ended it.
fn judge_in_view(
    trial: &Parameters,
    timeline: &Timeline,
    orders: &[Order<'_>],
    fault_at: u64,
    id: FlowId,
    flow: Flow,
    opened_at: u64,
) -> FlowVerdict {
    let ordered = Order::last_before_the_end(orders, trial, timeline, id);
    let came = came(orders, trial, timeline, id);
    let whole = || View { parameters: trial.clone(), timeline: timeline.clone(), fault_at };
    let view = ordered.unwrap_or_else(whole);
    let own = View { parameters: view.parameters.of_leg(flow.leg), ..view };
    let broke_at = own.fault_at;
    let lives = !trial.breaks(flow.leg) && fault_at > 0;
    let ended = ended_by_peer(&own.parameters, &own.timeline, id, own.fault_at).filter(|_| lives);
    let (own, farewell) = match ended {
        Some((own, farewell)) => (own, Some(farewell)),
        None => (own, None),
    };
    let from = own.fault_at;
    let mut verdict = judge_flow(&own, came.as_ref(), (id, flow, opened_at), farewell);
    if farewell.is_some() {
        count_from_earlier(&mut verdict, since(broke_at, from));
    }
    // Times count from the trial's beginning.
    let later = since(fault_at, from);
    for time in [&mut verdict.opened_s, &mut verdict.ended_s, &mut verdict.reference_s] {
        *time = time.map(|s| s + later);
    }
    verdict
}

/// Has times that count from a moment count from one so many seconds before it.
fn count_from_earlier(verdict: &mut FlowVerdict, earlier_s: f64) {
    let earlier = Duration::from_secs_f64(earlier_s.max(0.0));
    if let Some(prediction) = &mut verdict.prediction {
        prediction.recount(|time| time + earlier);
    }
    if let Some(measured) = &mut verdict.measured {
        for time in [&mut measured.detected_s, &mut measured.noticed_s] {
            *time = time.map(|s| s + earlier_s);
        }
    }
    verdict.reference_s = verdict.reference_s.map(|s| s - earlier_s);
}

fn judge_flow(
    view: &View,
    came: Option<&(Parameters, &Facts)>,
    (id, flow, opened_at): (FlowId, Flow, u64),
    farewell: Option<Farewell>,
) -> FlowVerdict {
    let View { parameters: trial, timeline, fault_at } = view;
    let fault_at = *fault_at;
    let about = |event: &&Event| event.flow == Some(id);
    let events = || timeline.events().iter().filter(about);
    let looks: Vec<_> = events()
        .filter_map(|event| match &event.what {
            What::Facts(facts) => Some((event.at_ns, &**facts)),
            _ => None,
        })
        .collect();
    let socket = events().find_map(|event| match &event.what {
        What::Options { side: Side::Client, owner, options } => {
            Some((owner.clone(), (**options).clone()))
        }
        _ => None,
    });
    let (owner, found) = socket.unzip();
    // What times count from and what is predicted begins with the last look.
    let follows = trial.follows_program();
    let first = came.map(|(_, first)| *first).filter(|_| follows);
    let facts = first.or(looks.last().map(|(_, facts)| *facts)).cloned();
    let in_force = facts.as_ref().and_then(|facts| facts.tcp.as_ref()?.options_set.clone());
    let opened_s = (fault_at > 0).then(|| since(fault_at, opened_at));
    let (local, remote) = flow.ends.seen_from(Side::Client);
    let mut verdict = FlowVerdict {
        id,
        leg: flow.leg,
        paired_with: None,
        why_unpaired: None,
        local,
        remote,
        owner,
        opened_s,
        options: in_force.or(found),
        facts,
        prediction: None,
        measured: None,
        ended_by: None,
        ended_s: None,
        reference_s: None,
        word: None,
        reason: String::new(),
    };
    let Some(facts) = verdict.facts.clone() else {
        let why = match fault_at {
            _ if flow.leg == Leg::Past => "it does not pass the proxy",
            0 => "the fault never came",
            _ if opened_at < fault_at => "it was not open at the moment of the fault",
            _ => "it was opened after the fault",
        };
        verdict.reason = format!("{why}: nothing is predicted");
        return verdict;
    };
    if let Some(tcp) = &facts.tcp
        && !follows
        && events().any(|event| ends_within(event, tcp.sampled_at_ns, fault_at))
    {
        verdict.reason =
            "it ended between the last look and the fault: nothing is predicted".into();
        return verdict;
    }
    let mut seen = Seen::of(timeline, id, fault_at);
    seen.observed.farewell = farewell;
    if let Some(farewell) = farewell {
        // A RST is what unread data turns a FIN into.
        seen.observed.unread = if farewell == Farewell::Rst { Unread::Yes } else { Unread::No };
    }
    let mut own = parameters(trial, &facts, &seen.observed);
    if follows {
        own.client = trial.client.clone();
    }
    let Conditional { mut prediction, from_sample } = match came {
        Some((whole, first)) => predict_in_sequence(trial, &facts, &seen.observed, (whole, first)),
        None => predict_program(trial, &facts, &seen.observed),
    };
    let half_closed = seen.half_closed(&facts);
    let part = part_of(timeline, id, &seen, &own, half_closed);
    let at_fault = looks.first().map_or(&facts, |(_, facts)| facts);
    if let Some(mut measured) = measure(&own, at_fault, &part) {
        let from = reference_at(&part, measured.reference);
        verdict.reference_s = Some(since(fault_at, from));
        let mut settled = facts.clone();
        if follows {
            // What was looked at was before the first fault.
            settled.tcp = None;
        }
        if from_sample {
            count_from(&mut prediction, measured.reference, (from, fault_at), &seen, &facts);
            // The connection need not have settled: its state is known, whatever it is.
            settled.tcp = None;
        } else {
            // What was sent again before this fault, of a write that an earlier one held up, is not counted.
            let again = seen.count(from, fault_at, is_again);
            for count in prediction.windows.iter_mut().filter_map(|w| w.retransmits.as_mut()) {
                *count = count.saturating_sub(again);
            }
        }
        let left = left_by_program(&part, fault_at, &measured, from, half_closed);
        let left = left.filter(|_| !follows);
        if let Some(left_at) = left {
            measured.noticed_s = Some(since(from, left_at));
        } else if own.client.program.description().reports {
            // It has said so itself.
        } else if let Some(detected_s) = measured.detected_s {
            let alive_s = detected_s - measured.resolution_s;
            let alive_at = from.saturating_add_signed((alive_s * 1e9) as i64);
            // It may act before its socket is looked at, and not before the kernel lets it know.
            let acted = acted_at(timeline, id, alive_at).map(|at| since(from, at).max(detected_s));
            measured.noticed_s = acted;
        } else {
            measured.noticed_s = None;
        }
        let ended_s = if left.is_some() { measured.noticed_s } else { measured.detected_s };
        verdict.ended_s = ended_s.map(|ended| ended + since(fault_at, from));
        verdict.ended_by = match left {
            Some(_) => Some(EndedBy::Program),
            None => ended_by(&part, &own, &measured, from),
        };
        let weighed = if left.is_some() {
            weigh_farewell(&prediction, &measured)
        } else {
            let proved = crate::Proof { evidence: Vec::new() };
            weigh(&own, &settled, &prediction, &part, &measured, &proved)
        };
        let changed = Changed::of(trial, &facts, &part, id);
        let excused =
            changed.and_then(|changed| changed.excuses(&weighed, fault_at, verdict.ended_s));
        let (word, reason) = excused.or(weighed.err()).unwrap_or((Word::Agrees, String::new()));
        (verdict.word, verdict.reason) = (Some(word), reason);
        verdict.measured = Some(measured);
    }
    verdict.prediction = Some(prediction);
    verdict
}

/// Whether a FIN or a RST passed the client between two moments.
fn ends_within(event: &Event, from: u64, to: u64) -> bool {
    let is_last =
        matches!(&event.what, What::Segment(segment) if segment.flags.fin || segment.flags.rst);
    event.source == Source::ClientWire && (from..to).contains(&event.at_ns) && is_last
}

/// Seconds from one moment to another.
fn since(from: u64, at: u64) -> f64 {
    (at as f64 - from as f64) / 1e9
}

/// Whether something is sent again.
const fn is_again(class: Class) -> bool {
    class.is_data_again() || class.is_fin_again() || class.is_syn_again()
}

/// Has times and counts that begin with a sample begin with the reference.
fn count_from(
    prediction: &mut Prediction,
    reference: Reference,
    (reference_at, fault_at): (u64, u64),
    seen: &Seen,
    facts: &Facts,
) {
    let sampled_at = facts.tcp.as_ref().map_or(reference_at, |tcp: &TcpFacts| tcp.sampled_at_ns);
    let later = |time: std::time::Duration| {
        let at = (time.as_nanos() as u64).saturating_add(sampled_at);
        std::time::Duration::from_nanos(at.saturating_sub(reference_at))
    };
    let before = |wanted| seen.count(reference_at, sampled_at, wanted);
    // What was sent again before the fault is not counted, though it may be of a write before it.
    let again = seen.count(reference_at.max(fault_at), sampled_at, is_again);
    prediction.reference = reference;
    prediction.recount(later);
    for window in &mut prediction.windows {
        let counts: [(&mut Option<u32>, u32); 3] = [
            (&mut window.retransmits, again),
            (&mut window.keepalive_probes, before(Class::is_keepalive_probe)),
            (&mut window.window_probes, before(Class::is_window_probe)),
        ];
        for (count, more) in counts {
            *count = count.map(|count| count + more);
        }
    }
}

/// The timeline of one flow, up to the moment that the trial ends its programs, with the calls that
/// times count from, as the wire shows them.
fn part_of(
    timeline: &Timeline,
    id: FlowId,
    seen: &Seen,
    own: &Parameters,
    half_closed: bool,
) -> Timeline {
    let end = timeline.phase_at(Phase::Aftermath).unwrap_or(u64::MAX);
    let is_program =
        |event: &Event| matches!(event.source, Source::ClientProgram | Source::ServerProgram);
    let is_part = |event: &&Event| {
        let about = event.flow == Some(id) || (event.flow.is_none() && !is_program(event));
        about && (event.at_ns < end || matches!(event.what, What::Phase(_)))
    };
    let mut events: Vec<_> = timeline.events().iter().filter(is_part).cloned().collect();
    let is_path = !own.fault.effect().peer_kernel_answers();
    // Where faults follow one another, one before this held it up.
    let written = seen.unacknowledged_ns.filter(|_| is_path || !own.further.is_empty());
    let calls = [
        (CallName::Connect, seen.connected_ns),
        (CallName::Write, written.or(seen.observed.first_write_ns())),
        (CallName::Shutdown, seen.fin_ns.filter(|_| half_closed)),
    ];
    let ends = [CallName::Shutdown, CallName::Close].map(|name| (name, own_call(timeline, name)));
    let ends = ends.into_iter().filter(|_| own.follows_program());
    for (name, at_ns) in calls.into_iter().chain(ends) {
        let Some(at_ns) = at_ns else { continue };
        let detail = "as the wire shows".into();
        let call = Call { name, detail, result: Ok(0), began_ns: at_ns };
        events.push(Event::new(at_ns, Source::ClientWire, What::Call(call)).of(id));
    }
    Timeline::new(events)
}

/// When a program of halfopen's own, which the wire does not show to, first made this call, before the trial told it to.
fn own_call(timeline: &Timeline, wanted: CallName) -> Option<u64> {
    let end = timeline.phase_at(Phase::Aftermath).unwrap_or(u64::MAX);
    first_called_at(timeline, 0, &[wanted]).filter(|at_ns| *at_ns < end)
}

/// When the program closed the connection before its kernel had told it anything.
fn left_by_program(
    part: &Timeline,
    fault_at: u64,
    measured: &Measured,
    reference_at: u64,
    half_closed: bool,
) -> Option<u64> {
    if measured.outcome != Outcome::None {
        return None;
    }
    let is_closed =
        |state: &str| state == "CLOSE" || !half_closed && matches!(state, "FIN_WAIT1" | "LAST_ACK");
    let closed = part.events().iter().filter(|event| event.at_ns >= fault_at).find(|event| {
        match &event.what {
            What::Trace(Trace::SetState { side: Side::Client, new, .. }) => is_closed(new),
            // Without tracepoints, as late as the socket is looked at.
            What::Socket(sample) => {
                event.source == Source::ClientSocket && is_closed(&sample.state)
            }
            What::SocketGone => event.source == Source::ClientSocket,
            What::Segment(segment) => {
                let is_farewell = segment.flags.rst || segment.flags.fin && !half_closed;
                event.source == Source::ClientWire && segment.sent && is_farewell
            }
            _ => false,
        }
    });
    let noticed = measured.noticed_s.map(|s| reference_at.saturating_add_signed((s * 1e9) as i64));
    closed.map(|event| event.at_ns).into_iter().chain(noticed).min()
}

/// When the program did something that shows that it knows: it closed the socket, connected anew, or
/// ended.
fn acted_at(timeline: &Timeline, id: FlowId, from: u64) -> Option<u64> {
    let end = timeline.phase_at(Phase::Aftermath).unwrap_or(u64::MAX);
    let events = timeline.events().iter();
    let mut later = events.filter(|event| (from..end).contains(&event.at_ns));
    later
        .find(|event| match &event.what {
            What::Segment(segment) => {
                event.flow == Some(id)
                    && event.source == Source::ClientWire
                    && segment.sent
                    && segment.flags.fin
            }
            What::Flow(flow) => flow.opened_by == Side::Client,
            What::Exited { .. } => event.source == Source::ClientProgram,
            // A server's descriptor is gone.
            What::Call(call) => event.flow == Some(id) && call.name == CallName::Close,
            _ => false,
        })
        .map(|event| event.at_ns)
}

/// A program may leave at any time; but not later than its kernel must have told it.
fn weigh_farewell(prediction: &Prediction, measured: &Measured) -> Result<(), (Word, String)> {
    if let Some(why) = &prediction.unknown {
        let reason = format!(
            "the program left the connection, and the model cannot say what its kernel would have \
             told it: {why}"
        );
        return Err((Word::Inconclusive, reason));
    }
    let left = measured.noticed_s.unwrap_or(0.0);
    let last = prediction.windows.iter().try_fold(0.0_f64, |last, window| {
        window.span.map(|(_, latest)| last.max(latest.as_secs_f64()))
    });
    match last {
        Some(last) if left > last => Err((
            Word::Disagrees,
            format!(
                "the program left the connection after {left:.3} s, and its kernel should have \
                 told it the end within {last:.3} s"
            ),
        )),
        _ => Ok(()),
    }
}

/// From a timer's expiry to the error that it reports, at most.
const EXPIRY_NS: u64 = 500_000;

/// By the error first: timers also expire just before the answer to a probe resets the connection.
fn ended_by(
    part: &Timeline,
    own: &Parameters,
    measured: &Measured,
    reference_at: u64,
) -> Option<EndedBy> {
    let at = reference_at.saturating_add_signed((measured.detected_s? * 1e9) as i64);
    let events = || part.events().iter().filter(move |event| event.at_ns <= at + 1_000);
    let fault_at = part.fault_at().unwrap_or(0);
    let icmp = events().any(|event| {
        event.at_ns >= fault_at
            && event.source == Source::ClientWire
            && matches!(&event.what, What::Frame(frame)
                if !frame.sent && matches!(frame.kind, FrameKind::Icmp { about_connection: true, .. }))
    });
    match measured.outcome {
        Outcome::None | Outcome::Released => return None,
        Outcome::Eof => return Some(EndedBy::Fin),
        Outcome::Errno(Errno::ECONNRESET | Errno::EPIPE) => return Some(EndedBy::Reset),
        Outcome::Errno(Errno::ECONNREFUSED) if !icmp => return Some(EndedBy::Reset),
        Outcome::Errno(Errno::ETIMEDOUT) => {}
        Outcome::Errno(_) if icmp => return Some(EndedBy::Icmp),
        Outcome::Errno(_) => {}
    }
    if own.client.user_timeout.is_some() {
        return Some(EndedBy::UserTimeout);
    }
    let sampled = events().rev().find_map(|event| match (&event.what, event.source) {
        (What::Socket(sample), Source::ClientSocket) if sample.timer != 0 => Some(sample.timer),
        _ => None,
    });
    let probes_window = sampled == Some(spec::facts::TcpFacts::TIMER_PROBE0);
    let write = if probes_window { EndedBy::WindowProbe } else { EndedBy::Retransmission };
    let expired = events().rev().find_map(|event| match &event.what {
        What::Trace(Trace::TimerExpire { side: Side::Client, timer, .. })
            if event.at_ns + EXPIRY_NS >= at && *timer != Timer::DelayedAck =>
        {
            Some(*timer)
        }
        _ => None,
    });
    match (expired, sampled) {
        (Some(Timer::Keepalive), _) | (None, Some(spec::facts::TcpFacts::TIMER_KEEPALIVE)) => {
            Some(EndedBy::Keepalive)
        }
        (Some(_), _) | (None, Some(_)) => Some(write),
        (None, None) => None,
    }
}
