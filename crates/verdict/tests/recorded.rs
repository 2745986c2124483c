//! Verdicts on trials that were recorded on a real kernel (Linux 6.18, HZ 250), as they were and
//! with one thing changed. Each directory is what `halfopen run` left, without the capture.
#![expect(clippy::disallowed_methods, reason = "the room is pure; its test reads recordings")]

use model::Prediction;
use spec::{CallName, Errno, Experiment, Facts, FaultKind, Outcome, Parameters, Reference};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use timeline::event::{Call, FaultStep, Frame, FrameKind, Phase, Side, Timer, Trace};
use timeline::{Event, Flags, Segment, Source, Timeline, What};
use verdict::samples::{Came, Sample};
use verdict::timers::{Uncompared, compare_flow};
use verdict::{Verdict, Word, judge};

struct Recorded {
    experiment: Experiment,
    facts: Facts,
    prediction: Prediction,
    events: Vec<Event>,
    verdict: Verdict,
}

impl Recorded {
    fn read(name: &str) -> Self {
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/recorded").join(name);
        let read = |file: &str| fs::read_to_string(directory.join(file)).unwrap();
        Self {
            experiment: serde_json::from_str(&read("experiment.json")).unwrap(),
            facts: serde_json::from_str(&read("facts.json")).unwrap(),
            prediction: serde_json::from_str(&read("prediction.json")).unwrap(),
            events: Timeline::from_jsonl(&read("timeline.jsonl")).unwrap().events().to_vec(),
            verdict: serde_json::from_str(&read("verdict.json")).unwrap(),
        }
    }

    fn judge(&self) -> Verdict {
        let timeline = Timeline::new(self.events.clone());
        judge(&self.experiment.parameters, &self.facts, &self.prediction, &timeline)
    }

    fn fault_at(&self) -> u64 {
        Timeline::new(self.events.clone()).fault_at().unwrap()
    }

    /// Moves everything from the end of the connection on to a later time.
    fn delay_the_end(&mut self, by: Duration) {
        let detected = self.verdict.measured.as_ref().unwrap().detected_s.unwrap();
        let last_probe = self.fault_at() + (detected * 1e9) as u64 - 500_000_000;
        for event in self.events.iter_mut().filter(|event| event.at_ns > last_probe) {
            event.at_ns += by.as_nanos() as u64;
            if let What::Call(call) = &mut event.what {
                call.began_ns += by.as_nanos() as u64;
            }
        }
    }
}

const ALL: &[&str] = &[
    "process-crash-idle",
    "process-crash-unread",
    "host-crash-idle-keepalive",
    "host-crash-sending-user-timeout",
    "host-alive-keepalive",
    "host-reboot-sending",
    "zero-window-alive",
    "script-write-then-close",
];

#[test]
fn recorded_trials_are_judged_as_they_were() {
    for name in ALL {
        let recorded = Recorded::read(name);
        let verdict = recorded.judge();
        assert_eq!(verdict.word, Word::Agrees, "{name}: {}", verdict.reason);
        assert_eq!(verdict.measured, recorded.verdict.measured, "{name}");
    }
}

#[test]
fn another_outcome_is_not_agreed_with() {
    for name in ALL {
        let mut recorded = Recorded::read(name);
        let measured = recorded.verdict.measured.as_ref().unwrap().outcome;
        for window in &mut recorded.prediction.windows {
            window.outcome =
                if measured == Outcome::None { Outcome::TIMED_OUT } else { Outcome::None };
            window.span = (measured == Outcome::None)
                .then_some((Duration::from_secs(1), Duration::from_secs(2)));
        }
        let verdict = recorded.judge();
        assert_eq!(verdict.word, Word::Disagrees, "{name}: {}", verdict.reason);
        assert!(verdict.reason.contains("expected"), "{}", verdict.reason);
    }
}

#[test]
fn another_count_of_probes_is_not_agreed_with() {
    let mut recorded = Recorded::read("host-crash-idle-keepalive");
    recorded.prediction.windows[0].keepalive_probes = Some(4);
    let verdict = recorded.judge();
    assert_eq!(verdict.word, Word::Disagrees);
    assert!(verdict.reason.contains("4 keepalive probes"), "{}", verdict.reason);
}

/// A timer that ran late by the kernel's own record may have left room for one probe less where a
/// time decides how many there are, as a user timeout does: the count then decides nothing.
#[test]
fn another_count_decides_nothing_where_the_kernel_ran_a_timer_late() {
    let mut recorded = Recorded::read("host-crash-idle-keepalive");
    recorded.prediction.windows[0].keepalive_probes = Some(4);
    assert_eq!(recorded.judge().word, Word::Disagrees);
    let fault_at = recorded.fault_at();
    let armed = recorded.events.iter_mut().find_map(|event| match &mut event.what {
        What::Trace(Trace::TimerStart {
            side: Side::Client,
            timer: Timer::Keepalive,
            bucket: Some(bucket),
            ..
        }) if event.at_ns > fault_at => Some(bucket),
        _ => None,
    });
    *armed.unwrap() -= 1;
    // Here a number decides how many there are.
    assert_eq!(recorded.judge().word, Word::Disagrees);
    recorded.experiment.parameters.client.user_timeout = Some(Duration::from_secs(8));
    let verdict = recorded.judge();
    assert_eq!(verdict.word, Word::Inconclusive, "{}", verdict.reason);
    assert!(verdict.reason.contains("ran 1 of its own timers late"), "{}", verdict.reason);
    for probes in [2, 9] {
        recorded.prediction.windows[0].keepalive_probes = Some(probes);
        assert_eq!(recorded.judge().word, Word::Disagrees);
    }
}

/// Its first probe's timer, armed before the fault, ran a jiffy late, and the next fell into the next
/// slot: the end is where a late timer has it, and not where one that runs on its jiffy has it.
#[test]
fn a_late_timer_is_seen_that_was_armed_before_the_fault() {
    let mut recorded = Recorded::read("zero-window-alive");
    recorded.prediction.windows.truncate(1);
    let verdict = recorded.judge();
    assert_eq!(verdict.word, Word::Inconclusive, "{}", verdict.reason);
    assert!(verdict.reason.contains("ran 1 of its own timers late"), "{}", verdict.reason);
    // By no more than that slot.
    let (earliest, latest) = recorded.prediction.windows[0].span.unwrap();
    let earlier = |time: Duration| time.saturating_sub(Duration::from_millis(20));
    recorded.prediction.windows[0].span = Some((earlier(earliest), earlier(latest)));
    assert_eq!(recorded.judge().word, Word::Disagrees);
}

/// `timer_expire` can be on the jiffy, and the handler it leads to not: what that arms tells.
#[test]
fn a_late_handler_is_seen_in_what_it_arms() {
    let mut recorded = Recorded::read("host-crash-idle-keepalive");
    recorded.events.retain(|event| !matches!(event.what, What::Late { .. }));
    let detected = recorded.verdict.measured.as_ref().unwrap().detected_s.unwrap();
    let before = |by_s: f64| Duration::from_secs_f64(detected - by_s);
    recorded.prediction.windows[0].span = Some((before(0.033), before(0.003)));
    assert_eq!(recorded.judge().word, Word::Disagrees);
    let fault_at = recorded.fault_at();
    let expired = recorded.events.iter().position(|event| {
        event.at_ns > fault_at
            && matches!(event.what, What::Trace(Trace::TimerExpire { side: Side::Client, .. }))
    });
    let mut armed =
        recorded.events[expired.unwrap()..].iter_mut().filter_map(|event| match &mut event.what {
            What::Trace(Trace::TimerStart {
                side: Side::Client,
                now,
                expires,
                bucket: Some(bucket),
                ..
            }) => Some((now, expires, bucket)),
            _ => None,
        });
    let (now, timeout_at, bucket) = armed.next().unwrap();
    (*now, *timeout_at) = (*now + 1, *timeout_at + 1);
    let slot_after_next = *bucket + 8;
    // The slot has taken up what it was late by.
    assert_eq!(recorded.judge().word, Word::Disagrees);
    let armed =
        recorded.events[expired.unwrap()..].iter_mut().find_map(|event| match &mut event.what {
            What::Trace(Trace::TimerStart { side: Side::Client, bucket, .. }) => Some(bucket),
            _ => None,
        });
    *armed.unwrap() = Some(slot_after_next);
    let verdict = recorded.judge();
    assert_eq!(verdict.word, Word::Inconclusive, "{}", verdict.reason);
}

#[test]
fn the_kernels_timers_are_compared_where_their_jiffies_are_known() {
    let mut recorded = Recorded::read("host-crash-idle-keepalive");
    let compare = |recorded: &Recorded| {
        verdict::timers::compare(
            &recorded.experiment.parameters,
            &recorded.facts,
            &recorded.prediction,
            recorded.verdict.measured.as_ref().unwrap(),
            &Timeline::new(recorded.events.clone()),
        )
    };
    let steps = recorded.prediction.schedule.len() as u32;
    let comparison = compare(&recorded);
    assert_eq!((comparison.fired, comparison.unknown()), (steps, 0), "{comparison:?}");
    assert!(comparison.armed > 0 && comparison.differences.is_empty(), "{comparison:?}");
    // A segment that is stamped so near to the next jiffy may have been received in that.
    let as_it_was = recorded.facts.jiffies.unwrap();
    let fault_at = recorded.fault_at();
    let timeline = Timeline::new(recorded.events.clone());
    let heard = timeline
        .segments(Source::ClientWire)
        .filter(|(at, segment)| *at < fault_at && !segment.sent)
        .map(|(at, _)| at)
        .next_back();
    let begins = as_it_was.at_ns - (as_it_was.at_ns - heard.unwrap()).next_multiple_of(4_000_000);
    recorded.facts.jiffies.as_mut().unwrap().at_ns += heard.unwrap() - begins + 50_000;
    let comparison = compare(&recorded);
    assert_eq!((comparison.fired, comparison.unknown()), (0, steps), "{comparison:?}");
    // A jiffy off.
    recorded.facts.jiffies = Some(as_it_was);
    recorded.facts.jiffies.as_mut().unwrap().jiffies += 1;
    let comparison = compare(&recorded);
    assert!(!comparison.differences.is_empty() && comparison.gross == 0, "{comparison:?}");
    // Half a timeout off, where nothing was sent and no timer armed, is no lost record.
    recorded.facts.jiffies = Some(as_it_was);
    for step in &mut recorded.prediction.schedule {
        step.earliest += step.timeout / 2;
        step.latest += step.timeout / 2;
    }
    let comparison = compare(&recorded);
    assert!(comparison.gross > 0, "{comparison:?}");
    // Unless no timer of the socket's makes the step: the host's own ICMP error did.
    recorded.prediction.schedule.iter_mut().for_each(|step| step.timeout = Duration::ZERO);
    let comparison = compare(&recorded);
    assert_eq!((comparison.fired, comparison.gross), (0, 0));
    assert_eq!(comparison.uncompared.get(&Uncompared::Icmp), Some(&(steps - 1)), "{comparison:?}");
    // Where the tracepoints have nothing of the timer, what it did is seen all the same.
    recorded.prediction = Recorded::read("host-crash-idle-keepalive").prediction;
    recorded.events.retain(|event| !matches!(event.what, What::Trace(Trace::TimerExpire { .. })));
    let comparison = compare(&recorded);
    let effect_only = [(Uncompared::EffectOnly, steps)].into();
    assert_eq!((comparison.fired, comparison.uncompared), (0, effect_only));
}

/// What a probe draws while the fault is being done came before it.
#[test]
fn a_probe_that_is_answered_while_the_fault_is_being_done_is_answered() {
    let mut recorded = Recorded::read("host-crash-idle-keepalive");
    let measured = recorded.judge().measured.unwrap();
    assert_eq!(measured.reference, Reference::LastActivity);
    let fault_at = recorded.fault_at();
    let timeline = Timeline::new(recorded.events.clone());
    let heard = timeline
        .segments(Source::ClientWire)
        .filter(|(at, segment)| *at < fault_at && !segment.sent)
        .map(|(at, _)| at)
        .next_back();
    let begins =
        recorded.events.iter_mut().find(|event| event.what == What::Fault(FaultStep::Begin));
    begins.unwrap().at_ns = heard.unwrap() - 1_000_000;
    recorded.events.sort_by_key(|event| event.at_ns);
    assert_eq!(recorded.judge().measured.unwrap().detected_s, measured.detected_s);
}

/// Where faults follow one another a schedule counts from what the last of them is judged by, here the answer
/// to a probe, which came with the tick that sent it.
#[test]
fn the_timers_after_the_second_fault_are_compared_from_there() {
    let read = |file: &str| {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recorded/path-flaps-twice");
        fs::read_to_string(PathBuf::from(directory).join(file)).unwrap()
    };
    let experiment: serde_json::Value = serde_json::from_str(&read("experiment.json")).unwrap();
    let mut parameters = Parameters::default();
    for (key, value) in experiment["parameters"].as_object().unwrap() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        spec::settings::apply(&mut parameters, key, &value).unwrap();
    }
    let timeline = Timeline::from_jsonl(&read("timeline.jsonl")).unwrap();
    let mut flow = verdict::judge_programs(&parameters, &timeline).flows.remove(0);
    let steps = flow.prediction.as_ref().unwrap().schedule.len() as u32;
    let comparison = compare_flow(&parameters, &flow, &timeline);
    assert_eq!((steps, comparison.fired, comparison.unknown()), (4, 4, 0), "{comparison:?}");
    assert!(comparison.differences.is_empty(), "{comparison:?}");
    flow.reference_s = flow.reference_s.map(|reference_s| reference_s + 0.008);
    let comparison = compare_flow(&parameters, &flow, &timeline);
    assert_eq!(comparison.differences.len(), 4, "{comparison:?}");
}

/// Times count from a script's close where the program had closed before the end: one that was told
/// the end before it closed had not.
#[test]
fn a_script_that_was_told_the_end_before_it_closed_has_not_let_go() {
    let mut recorded = Recorded::read("script-write-then-close");
    let measured = recorded.judge().measured.unwrap();
    assert_eq!((measured.outcome, measured.reference), (Outcome::Released, Reference::Close));
    let fault_at = recorded.fault_at();
    let is_close = |event: &Event| {
        matches!(&event.what, What::Call(call) if call.name == CallName::Close)
            && event.source == Source::ClientProgram
            && event.at_ns > fault_at
    };
    let place = recorded.events.iter().position(is_close).unwrap();
    let What::Call(close) = &recorded.events[place].what else { unreachable!() };
    let began_ns = close.began_ns - 1_000_000;
    let told = Call {
        name: CallName::Read,
        detail: String::new(),
        result: Err(Errno::ETIMEDOUT),
        began_ns,
    };
    recorded.events.insert(place, Event::new(began_ns, Source::ClientProgram, What::Call(told)));
    let verdict = recorded.judge();
    let measured = verdict.measured.unwrap();
    assert_eq!((measured.outcome, measured.reference), (Outcome::TIMED_OUT, Reference::FirstWrite));
    // And what was predicted from the close cannot be held against it.
    assert_eq!(verdict.word, Word::Disagrees);
    assert!(
        verdict.reason.contains("times were to count from the call of close"),
        "{}",
        verdict.reason
    );
}

/// A sample is one look, with the socket's options and nothing of what came before or after it.
#[test]
fn samples_are_looks_after_which_nothing_but_timers_moved_the_socket() {
    let recorded = Recorded::read("host-crash-idle-keepalive");
    let timeline = Timeline::new(recorded.events.clone());
    let measured = recorded.verdict.measured.as_ref().unwrap();
    let parameters = &recorded.experiment.parameters;
    let samples = verdict::samples::samples(parameters, &recorded.facts, measured, &timeline);
    assert!(!samples.is_empty());
    let end_s = |sample: &Sample| sample.after_fault_ns as f64 / 1e9 + sample.ended_s;
    for sample in &samples {
        assert!((end_s(sample) - end_s(&samples[0])).abs() < 1e-6, "{sample:?}");
        assert!(["idle, keepalive", "keepalive probes out"].contains(&sample.doing()));
        let tcp = sample.facts.tcp.as_ref().unwrap();
        assert_eq!(tcp.options_set.as_ref().unwrap().keepalive, Some(true));
        // Its own prediction, as seen from the sample.
        let mut prediction = recorded.prediction.clone();
        let end = Duration::from_secs_f64(sample.ended_s);
        let around = Duration::from_millis(5);
        prediction.windows[0].span = Some((end.saturating_sub(around), end + around));
        assert_eq!(sample.compare(&prediction), Came::Inside);
        prediction.windows[0].span = Some((end + around, end + around * 2));
        assert_eq!(sample.compare(&prediction), Came::Outside);
        prediction.unknown = Some("nobody knows".into());
        assert_eq!(sample.compare(&prediction), Came::Unknown);
    }
    // A write after them all, and none is what stayed as it was.
    let mut events = recorded.events.clone();
    let last = events.iter().rposition(|event| event.source == Source::ClientSocket).unwrap();
    let call = Call { name: CallName::Write, detail: String::new(), result: Ok(100), began_ns: 0 };
    let at_ns = samples.last().unwrap().after_fault_ns + recorded.fault_at() + 1;
    events.insert(last, Event::new(at_ns, Source::ClientProgram, What::Call(call)));
    let timeline = Timeline::new(events);
    let none = verdict::samples::samples(parameters, &recorded.facts, measured, &timeline);
    assert!(none.is_empty(), "{none:?}");
}

/// The host was back 48 ms late. The router had asked for it meanwhile, and asked again a second
/// later, when the prediction has the connection reset by the answer to the first question.
#[test]
fn a_question_that_a_late_restoration_missed_excuses_a_later_answer() {
    let mut recorded = Recorded::read("host-reboot-idle-late");
    let verdict = recorded.judge();
    assert_eq!(verdict.word, Word::Inconclusive, "{}", verdict.reason);
    assert!(verdict.reason.contains("over 48.3 ms later than planned"), "{}", verdict.reason);
    // Neither another error nor one that came sooner.
    let predicted = recorded.prediction.clone();
    recorded.prediction.windows[0].outcome = Outcome::TIMED_OUT;
    assert_eq!(recorded.judge().word, Word::Disagrees);
    recorded.prediction = predicted.clone();
    let (earliest, latest) = recorded.prediction.windows[0].span.unwrap();
    let later = Duration::from_secs(5);
    recorded.prediction.windows[0].span = Some((earliest + later, latest + later));
    assert_eq!(recorded.judge().word, Word::Disagrees);
    recorded.prediction = predicted;
    let due = recorded.fault_at() + 1_000_000_000;
    for event in &mut recorded.events {
        if event.what == What::Fault(FaultStep::Restored) {
            event.at_ns = due + 20_000_000;
        }
    }
    assert_eq!(recorded.judge().word, Word::Disagrees);
}

/// A client that sends nothing once the path is back proves nothing about it; one that sends, and
/// hears nothing, does.
#[test]
fn a_path_that_nobody_tried_need_not_be_proved() {
    let mut recorded = Recorded::read("host-crash-idle-keepalive");
    recorded.experiment.parameters.fault.kind = FaultKind::Flap;
    let timeline = Timeline::new(recorded.events.clone());
    let began = recorded.fault_at();
    let sent: Vec<_> = timeline
        .segments(Source::ClientWire)
        .filter(|(at, segment)| *at > began && segment.sent)
        .map(|(at, segment)| (at, *segment))
        .collect();
    let (probed, probe) = sent[0];
    let back = probed + 500_000_000;
    recorded.events.retain(|event| event.at_ns < back);
    for (at_ns, what) in [
        (back, What::Fault(FaultStep::Restored)),
        (back + 2_000_000_000, What::Phase(Phase::Aftermath)),
    ] {
        recorded.events.push(Event::new(at_ns, Source::Lab, what));
    }
    let about_path = |verdict: Verdict| {
        let evidence = verdict.proof.evidence.into_iter();
        evidence
            .filter(|found| found.finding.contains("once the path was back"))
            .collect::<Vec<_>>()
    };
    assert_eq!(about_path(recorded.judge()), []);
    let what = What::Segment(probe);
    recorded.events.push(Event::new(back + 1_000_000, Source::ClientWire, what));
    recorded.events.sort_by_key(|event| event.at_ns);
    let found = about_path(recorded.judge());
    assert!(matches!(&found[..], [only] if !only.holds), "{found:?}");
}

#[test]
fn a_late_end_disagrees_unless_the_machine_was_late() {
    let mut recorded = Recorded::read("host-crash-idle-keepalive");
    recorded.events.retain(|event| !matches!(event.what, What::Late { .. }));
    recorded.delay_the_end(Duration::from_millis(400));
    assert_eq!(recorded.judge().word, Word::Disagrees);

    let at_ns = recorded.fault_at() + 1_000_000_000;
    let what = What::Late { by_ns: 450_000_000 };
    recorded.events.push(Event::new(at_ns, Source::Instrument, what));
    let verdict = recorded.judge();
    assert_eq!(verdict.word, Word::Inconclusive, "{}", verdict.reason);
    assert!(verdict.reason.contains("450"), "{}", verdict.reason);
}

/// That the fault came late excuses what does not agree only where something can have come of it: in
/// the time beyond, a segment passed or a timer fired.
/// In virtual time an ICMP error comes with its segment. One that waited takes a jiffy off a timeout.
#[test]
fn an_icmp_error_that_waited_excuses_a_timeout_where_time_is_virtual() {
    let word = |waits_ns: u64, virtual_time: bool| {
        let mut recorded = Recorded::read("host-crash-sending-user-timeout");
        recorded.facts.virtual_time = virtual_time;
        for window in &mut recorded.prediction.windows {
            window.span = window.span.map(|(from, to)| {
                (from + Duration::from_millis(90), to + Duration::from_millis(90))
            });
        }
        let fault_at = recorded.fault_at();
        let segments = recorded.events.iter().filter(|event| {
            event.source == Source::ClientWire
                && event.at_ns > fault_at
                && matches!(&event.what, What::Segment(segment) if segment.sent)
        });
        let sent = segments.max_by_key(|event| event.at_ns).unwrap().clone();
        let kind = FrameKind::Icmp {
            kind: 3,
            code: 0,
            from: "198.18.0.1".parse().unwrap(),
            about_connection: true,
        };
        let what = What::Frame(Frame { sent: false, kind });
        recorded.events.push(Event { at_ns: sent.at_ns + waits_ns, what, ..sent });
        let verdict = recorded.judge();
        verdict.word
    };
    assert_eq!(word(1500, true), Word::Inconclusive);
    assert_eq!(word(0, true), Word::Disagrees);
    assert_eq!(word(1500, false), Word::Disagrees);
    assert_eq!(word(5_000_000, true), Word::Disagrees, "that is another timer's");
}

#[test]
fn a_late_fault_excuses_only_what_happened_before_it() {
    let mut recorded = Recorded::read("host-crash-idle-keepalive");
    recorded.delay_the_end(Duration::from_secs(2));
    recorded.events.retain(|event| !matches!(event.what, What::Late { .. }));
    let fault_at = recorded.fault_at();
    recorded.facts.tcp.as_mut().unwrap().sampled_at_ns = fault_at - 150_000_000;
    let meanwhile = fault_at - 40_000_000;
    recorded.events.retain(|event| {
        !(fault_at - 60_000_000..=fault_at).contains(&event.at_ns)
            || !matches!(event.what, What::Segment(_) | What::Frame(_) | What::Trace(_))
    });
    let verdict = recorded.judge();
    assert_eq!(verdict.word, Word::Disagrees, "{}", verdict.reason);
    let expired =
        Trace::TimerExpire { side: Side::Client, timer: Timer::Keepalive, now: 4_295_000_000 };
    recorded.events.push(Event::new(meanwhile, Source::Tracepoint, What::Trace(expired)));
    let verdict = recorded.judge();
    assert_eq!(verdict.word, Word::Inconclusive, "{}", verdict.reason);
    assert!(verdict.reason.contains("150.0 ms"), "{}", verdict.reason);
}

/// The end of a connection counts from the client's close: one that came late came nearer to it.
#[test]
fn a_late_program_excuses_an_early_end() {
    let mut recorded = Recorded::read("script-write-then-close");
    let fault_at = recorded.fault_at();
    let is_close = |event: &Event| {
        matches!(&event.what, What::Call(call) if call.name == CallName::Close)
            && event.source == Source::ClientProgram
            && event.at_ns >= fault_at
    };
    recorded.events.retain(|event| !matches!(event.what, What::Late { .. }));
    let late = Duration::from_secs(3);
    let close = recorded.events.iter_mut().find(|event| is_close(event)).unwrap();
    let What::Call(call) = &mut close.what else { unreachable!() };
    call.began_ns += late.as_nanos() as u64;
    close.at_ns += late.as_nanos() as u64;
    let at_ns = close.at_ns;
    let verdict = recorded.judge();
    assert_eq!(verdict.word, Word::Disagrees, "{}", verdict.reason);
    for (source, word) in
        [(Source::Instrument, Word::Disagrees), (Source::ClientProgram, Word::Inconclusive)]
    {
        let what = What::Late { by_ns: late.as_nanos() as u64 };
        recorded.events.push(Event::new(at_ns, source, what));
        let verdict = recorded.judge();
        assert_eq!(verdict.word, word, "{}", verdict.reason);
    }
}

/// The prediction is for a call that comes within 100 ms.
#[test]
fn a_late_call_excuses_what_does_not_agree() {
    let mut recorded = Recorded::read("host-crash-sending-user-timeout");
    recorded.delay_the_end(Duration::from_secs(2));
    recorded.events.retain(|event| !matches!(event.what, What::Late { .. }));
    let fault_at = recorded.fault_at();
    let called_at = recorded.events.iter().find_map(|event| match &event.what {
        What::Call(call) if call.name == CallName::Write && call.began_ns >= fault_at => {
            Some(call.began_ns)
        }
        _ => None,
    });
    let called_at = called_at.unwrap();
    assert!(called_at > fault_at + 2000, "{}", called_at - fault_at);
    for (late_ns, word) in [(99_999_000, Word::Disagrees), (100_001_000, Word::Inconclusive)] {
        recorded.facts.tcp.as_mut().unwrap().sampled_at_ns = called_at - late_ns;
        let verdict = recorded.judge();
        assert_eq!(verdict.word, word, "{}", verdict.reason);
        assert_eq!(verdict.reason.contains("the client's call came"), word == Word::Inconclusive);
    }
}

#[test]
fn a_goodbye_from_a_powered_off_host_spoils_the_proof() {
    let mut recorded = Recorded::read("host-crash-idle-keepalive");
    let farewell = recorded.events.iter().find_map(|event| match event.what {
        What::Segment(segment) if event.source == Source::ClientWire && !segment.sent => {
            Some(segment)
        }
        _ => None,
    });
    let mut farewell = farewell.unwrap();
    farewell.flags = Flags { fin: true, ack: true, ..Flags::default() };
    let at_ns = recorded.fault_at() + 5_000_000;
    let what = What::Segment(farewell);
    recorded.events.push(Event::new(at_ns, Source::ClientWire, what));
    let verdict = recorded.judge();
    assert_eq!(verdict.word, Word::Inconclusive, "{}", verdict.reason);
    assert!(verdict.reason.contains("not proved"), "{}", verdict.reason);
    assert!(verdict.measured.unwrap().fin_from_server);
}

#[test]
fn a_fault_that_was_not_completed_proves_nothing() {
    for name in ALL {
        let mut recorded = Recorded::read(name);
        recorded.events.retain(|event| event.what != What::Fault(FaultStep::Complete));
        let verdict = recorded.judge();
        assert_eq!(verdict.word, Word::Inconclusive, "{name}");
    }
}

#[test]
fn a_crash_without_goodbye_is_no_crash() {
    let mut recorded = Recorded::read("process-crash-idle");
    recorded.events.retain(|event| match event.what {
        What::Segment(segment) => !(segment.flags.fin || segment.flags.rst),
        _ => true,
    });
    let verdict = recorded.judge();
    assert_eq!(verdict.word, Word::Inconclusive, "{}", verdict.reason);
    assert!(verdict.reason.contains("neither FIN nor RST"), "{}", verdict.reason);
}

#[test]
fn without_tracepoints_socket_diagnostics_tell_with_their_resolution() {
    let mut recorded = Recorded::read("host-crash-idle-keepalive");
    let exact = recorded.verdict.measured.as_ref().unwrap().detected_s.unwrap();
    recorded.events.retain(|event| event.source != Source::Tracepoint);
    let measured = recorded.judge().measured.unwrap();
    assert_eq!(measured.detected_by, Some(verdict::DetectedBy::SockDiag));
    let detected = measured.detected_s.unwrap();
    assert!(detected >= exact, "nobody knows before the kernel does");
    assert!(detected - measured.resolution_s <= exact, "{measured:?}");
}

/// Between two looks at its socket a program may be told the peer's FIN and close.
#[test]
fn without_tracepoints_the_wire_shows_a_fin_that_is_answered_at_once() {
    let mut recorded = Recorded::read("process-crash-idle");
    recorded.experiment.parameters.client.program = spec::Program::Command;
    recorded.events.retain(|event| {
        ![Source::Tracepoint, Source::ClientSocket, Source::ClientProgram].contains(&event.source)
    });
    let fin = recorded.events.iter().find_map(|event| match event.what {
        What::Segment(segment) if event.source == Source::ClientWire && segment.flags.fin => {
            Some((event.at_ns, segment))
        }
        _ => None,
    });
    let (came_at, came) = fin.unwrap();
    let answer = Segment {
        sent: true,
        source_port: came.destination_port,
        destination_port: came.source_port,
        ..came
    };
    let left = Event::new(came_at + 100_000, Source::ClientWire, What::Segment(answer));
    recorded.events.push(left);
    let timeline = Timeline::new(recorded.events);
    let parameters = &recorded.experiment.parameters;
    let measured = verdict::measure(parameters, &recorded.facts, &timeline).unwrap();
    assert_eq!(measured.outcome, Outcome::Eof);
    assert_eq!(measured.detected_by, Some(verdict::DetectedBy::SockDiag));
    assert!((measured.resolution_s - 0.000_1).abs() < 1e-7, "{measured:?}");
}

#[test]
fn a_trial_that_ended_too_early_decides_nothing() {
    let mut recorded = Recorded::read("host-alive-keepalive");
    recorded.prediction.windows[0].outcome = Outcome::TIMED_OUT;
    recorded.prediction.windows[0].span = Some((Duration::from_secs(60), Duration::from_secs(61)));
    let verdict = recorded.judge();
    assert_eq!(verdict.word, Word::Inconclusive, "{}", verdict.reason);
    assert!(verdict.reason.contains("before the prediction could come true"), "{}", verdict.reason);
}

#[test]
fn a_program_that_gave_up_before_the_fault_ended_has_decided() {
    let mut recorded = Recorded::read("host-alive-keepalive");
    let at_ns = recorded.fault_at() + 1_000_000_000;
    let what = What::Fault(FaultStep::Outlasted);
    recorded.events.push(Event::new(at_ns + 1_000_000, Source::Lab, what));
    let verdict = recorded.judge();
    assert_eq!(verdict.word, Word::Inconclusive, "{}", verdict.reason);
    assert!(verdict.reason.contains("ended before the fault was over"), "{}", verdict.reason);

    let call = Call {
        name: CallName::Heartbeat,
        detail: "no answer within 1s".into(),
        began_ns: at_ns,
        result: Ok(0),
    };
    recorded.events.push(Event::new(at_ns, Source::ClientProgram, What::Call(call)));
    // By then only the probes of the first second had been sent.
    recorded.prediction.windows[0].keepalive_probes = None;
    let verdict = recorded.judge();
    assert!(verdict.measured.unwrap().noticed_s.is_some());
    assert_eq!(verdict.word, Word::Agrees, "{}", verdict.reason);
}

#[test]
fn lost_trace_events_excuse_a_time_that_others_told_and_no_count() {
    let lost = |recorded: &mut Recorded| {
        let what = What::Lost { count: 3 };
        let at_ns = recorded.fault_at() + 1_000_000_000;
        recorded.events.push(Event::new(at_ns, Source::Tracepoint, what));
    };
    let mut recorded = Recorded::read("host-crash-idle-keepalive");
    lost(&mut recorded);
    assert_eq!(recorded.judge().word, Word::Agrees);

    recorded.prediction.windows[0].keepalive_probes = Some(4);
    assert_eq!(recorded.judge().word, Word::Disagrees);

    let mut recorded = Recorded::read("host-crash-idle-keepalive");
    recorded.events.retain(|event| {
        event.source != Source::Tracepoint && !matches!(event.what, What::Late { .. })
    });
    recorded.delay_the_end(Duration::from_millis(400));
    assert_eq!(recorded.judge().word, Word::Disagrees);
    lost(&mut recorded);
    let verdict = recorded.judge();
    assert_eq!(verdict.word, Word::Inconclusive, "{}", verdict.reason);
    assert!(verdict.reason.contains("lost 3 events"), "{}", verdict.reason);
    recorded.prediction.windows[0].keepalive_probes = Some(4);
    assert_eq!(recorded.judge().word, Word::Disagrees);
}

/// A trial that ends before the first probe agrees with everything, and shows nothing.
#[test]
fn whether_keepalive_was_tried_is_said() {
    let mut recorded = Recorded::read("host-alive-keepalive");
    let said = |recorded: &Recorded| {
        let findings = recorded.judge().proof.evidence.into_iter().map(|piece| piece.finding);
        findings.filter(|finding| finding.contains("keepalive")).collect::<Vec<_>>()
    };
    assert!(said(&recorded)[0].ends_with("keepalive probes left the client"));
    let soon = recorded.fault_at() + 500_000_000;
    let closes = |event: &Event| {
        event.source == Source::ClientProgram
            && matches!(&event.what, What::Call(call) if call.name == CallName::Close)
    };
    let closed_at = recorded.events.iter().find(|event| closes(event)).unwrap().at_ns;
    recorded.events.retain(|event| event.at_ns < soon || event.at_ns >= closed_at - 1_000_000);
    let said = said(&recorded);
    assert_eq!(
        said,
        ["no keepalive probe was due before the trial ended: keepalive was not tried"]
    );
}

/// As before Linux 5.14: the change of state tells the moment.
#[test]
fn without_error_reports_the_change_of_state_tells() {
    for name in ["host-crash-idle-keepalive", "host-reboot-sending"] {
        let mut recorded = Recorded::read(name);
        let exact = recorded.verdict.measured.as_ref().unwrap().detected_s.unwrap();
        recorded.events.retain(|event| {
            !matches!(&event.what, What::Trace(Trace::ErrorReport { .. }))
                && event.source != Source::ClientSocket
        });
        let verdict = recorded.judge();
        let measured = verdict.measured.unwrap();
        assert_eq!(measured.detected_by, Some(verdict::DetectedBy::Tracepoint), "{name}");
        let apart = (measured.detected_s.unwrap() - exact).abs();
        assert!(apart < 0.001, "{name}: {apart} s");
        assert_eq!(verdict.word, Word::Agrees, "{name}: {}", verdict.reason);
    }
}

#[test]
fn a_suspend_of_the_machine_decides_nothing() {
    let mut recorded = Recorded::read("host-crash-idle-keepalive");
    let what = What::Suspended { for_ns: 3_600_000_000_000 };
    recorded.events.push(Event::new(recorded.fault_at() + 1_000_000, Source::Instrument, what));
    let verdict = recorded.judge();
    assert_eq!(verdict.word, Word::Inconclusive);
    assert!(verdict.reason.contains("suspended for 3600.0 s"), "{}", verdict.reason);
}

#[test]
fn a_step_of_the_wall_clock_excuses_what_does_not_agree() {
    let mut recorded = Recorded::read("host-crash-idle-keepalive");
    let what = What::WallClockSet { by_ns: -2_000_000_000 };
    recorded.events.push(Event::new(recorded.fault_at() + 1_000_000, Source::ClientWire, what));
    assert_eq!(recorded.judge().word, Word::Agrees);
    recorded.prediction.windows[0].keepalive_probes = Some(4);
    let verdict = recorded.judge();
    assert_eq!(verdict.word, Word::Inconclusive);
    assert!(verdict.reason.contains("wall clock was set by -2.000 s"), "{}", verdict.reason);
}
