//! Faults that follow one another.

mod common;

use common::parameters;
use model::command::{Observed, predict_in_sequence, predict_program};
use model::{ObservedCall, Prediction, StepKind};
use spec::facts::TcpFacts;
use spec::script::Step;
use spec::{Facts, Outcome, Reference, SocketOptions};

fn predict(sets: &[&[(&str, &str)]]) -> Prediction {
    let parameters = parameters(&sets.concat());
    parameters.validate().unwrap_or_else(|(key, why)| panic!("{key}: {why}"));
    model::predict(&parameters, &model::nominal_facts(&parameters, 250))
}

fn span_s(prediction: &Prediction) -> (f64, f64) {
    let (from, to) = prediction.hull().unwrap_or_else(|| panic!("{prediction:?}"));
    (from.as_secs_f64(), to.as_secs_f64())
}

const KEEPALIVE: [(&str, &str); 4] = [
    ("client.keepalive.enabled", "true"),
    ("client.keepalive.idle", "2s"),
    ("client.keepalive.interval", "1s"),
    ("client.keepalive.probes", "3"),
];
const FLAP: [(&str, &str); 2] = [("fault.kind", "flap"), ("fault.duration", "2500ms")];
const AGAIN: [(&str, &str); 3] =
    [("fault.2.kind", "flap"), ("fault.2.after", "7s"), ("fault.2.duration", "2500ms")];
const LONGER: (&str, &str) = ("fault.2.duration", "9s");

/// Each time for less than keepalive waits: an answer in between has it begin anew.
#[test]
fn probes_that_two_outages_swallow_do_not_add_up() {
    let twice = predict(&[&FLAP, &KEEPALIVE, &AGAIN]);
    assert_eq!(twice.windows[0].outcome, Outcome::None, "{twice:?}");
    let longer = predict(&[&FLAP, &KEEPALIVE, &AGAIN, &[LONGER]]);
    assert_eq!(longer.windows[0].outcome, Outcome::TIMED_OUT, "{longer:?}");
    assert_eq!(longer.windows[0].keepalive_probes, Some(3), "{longer:?}");
    assert_eq!(longer.reference, Reference::LastActivity);
    // An answered probe began it anew: the idle time, and three intervals.
    let (from, to) = span_s(&longer);
    assert!(from > 4.9 && to < 5.4, "{longer:?}");
    assert!(longer.why.contains("with fault 2 (`flap`), 7s after the first"), "{}", longer.why);
}

/// What ends in the first outage is as if it were the only one.
#[test]
fn what_is_over_does_not_meet_the_next() {
    let once = |sets| predict(&[&[("fault.kind", "blackhole")], &KEEPALIVE, sets]);
    assert_eq!(once(&AGAIN), once(&[]));
    // The path stays away, whatever becomes of the process.
    let crash = once(&[("fault.2.kind", "process-crash"), ("fault.2.after", "1s")]);
    assert_eq!(crash.windows[0].outcome, Outcome::TIMED_OUT, "{crash:?}");
    assert!((span_s(&crash).0 - span_s(&once(&[])).0).abs() < 0.01, "{crash:?}");
}

/// The path first, then the process: its kernel's RST is lost, or its FIN, which comes again.
#[test]
fn a_process_that_dies_while_the_path_is_away_is_told_of_when_that_is_back() {
    let crash = [("fault.2.kind", "process-crash"), ("fault.2.after", "1s")];
    let lasts = ("fault.duration", "9s");
    let all = |sets: &[(&str, &str)]| predict(&[&FLAP, &crash, &[lasts], sets]);
    // The sixth doubling of the server's RTO is the first that comes after 9 s.
    let idle = all(&[]);
    assert_eq!(idle.windows[0].outcome, Outcome::Eof, "{idle:?}");
    let (from, to) = span_s(&idle);
    let textbook = 1.2 + 0.208 * 64.0;
    assert!(from > textbook && to < textbook * 1.1, "{idle:?}");
    // Data is sent sooner: nobody can read it any more.
    let write = all(&[("client.traffic", "one-write")]);
    assert_eq!(write.windows[0].outcome, Outcome::Errno(spec::Errno::ECONNRESET), "{write:?}");
    assert_eq!(write.reference, Reference::FirstWrite);
    // Probes are acknowledged: the FIN tells all the same.
    let probes = ("client.keepalive.probes", "9");
    let alive = predict(&[&FLAP, &crash, &[lasts], &KEEPALIVE, &[probes]]);
    assert!(alive.windows.iter().all(|window| window.outcome == Outcome::Eof), "{alive:?}");
    assert!(alive.windows[0].keepalive_probes > Some(4), "{alive:?}");
    // Unread data made it a RST, and nobody knows the connection.
    let reset = predict(&[&FLAP, &crash, &[lasts], &KEEPALIVE, &[probes, ("server.linger", "0s")]]);
    assert_eq!(reset.windows[0].outcome, Outcome::Errno(spec::Errno::ECONNRESET), "{reset:?}");
    assert!(span_s(&reset).1 < 11.0, "{reset:?}");
    // After `tcp_orphan_retries` doublings the socket is gone: a probe finds nobody.
    let given_up = ("server.sysctl.tcp_orphan_retries", "2");
    let gone = predict(&[&FLAP, &crash, &[lasts], &KEEPALIVE, &[probes, given_up]]);
    assert_eq!(gone.windows[0].outcome, Outcome::Errno(spec::Errno::ECONNRESET), "{gone:?}");
    assert_eq!(all(&[given_up]).windows[0].outcome, Outcome::None);
    // The child that holds the socket has nothing sent.
    let inherited = predict(&[&FLAP, &crash, &[lasts, ("server.inherited", "true")]]);
    assert_eq!(inherited.windows[0].outcome, Outcome::None, "{inherited:?}");
    let learned = all(&[("neighbour", "learned")]).unknown.unwrap();
    assert!(learned.contains("link-layer address"), "{learned}");
    let orphan = ("server.sysctl.tcp_orphan_retries", "6");
    let why = all(&[orphan, ("fault.duration", "20s")]).unknown.unwrap();
    assert!(why.contains("for the last time"), "{why}");
}

/// A write that the first outage held up has been acknowledged: times count from the one that was not.
#[test]
fn a_write_that_got_through_is_no_reference() {
    let writes = [("client.traffic", "script"), ("client.script", "write 100; wait 8s; write 100")];
    let timeout = ("client.user_timeout", "5s");
    let later = predict(&[&FLAP, &writes, &AGAIN, &[timeout, LONGER]]);
    let once = [("fault.kind", "power-off"), ("client.traffic", "one-write"), timeout];
    let alone = predict(&[&once]);
    assert_eq!(later.windows[0].outcome, Outcome::TIMED_OUT, "{later:?}");
    assert_eq!(later.reference, Reference::FirstWrite);
    let ((from, to), (alone_from, alone_to)) = (span_s(&later), span_s(&alone));
    assert!(from >= alone_from - 0.1 && to <= alone_to + 0.1, "{later:?} {alone:?}");
}

const STREAM: [(&str, &str); 2] = [("client.traffic", "stream"), ("sysctl.tcp_retries2", "3")];
const OFF: [(&str, &str); 1] = [("fault.kind", "power-off")];

/// Whether the second is given up when the first is, give or take a slot and a jiffy of each timeout.
fn are_alike(prediction: &Prediction, alone: &Prediction) {
    assert_eq!(prediction.windows[0].outcome, Outcome::TIMED_OUT, "{prediction:?}");
    assert_eq!(prediction.reference, Reference::FirstWrite);
    let ((from, to), (alone_from, alone_to)) = (span_s(prediction), span_s(alone));
    let is_alike = from > alone_from - 0.1 && to < alone_to + 0.1;
    assert!(is_alike, "{from} {to}, alone {alone_from} {alone_to}");
}

/// In between everything gets through, and the RTO is what it was: times count from the first write that does not.
#[test]
fn a_stream_meets_the_second_outage_as_if_it_were_the_only_one() {
    let alone = predict(&[&OFF, &STREAM]);
    let twice = predict(&[&FLAP, &AGAIN, &STREAM]);
    assert_eq!(twice.windows[0].outcome, Outcome::None, "{twice:?}");
    are_alike(&predict(&[&FLAP, &AGAIN, &STREAM, &[LONGER]]), &alone);
    let probed = predict(&[&FLAP, &AGAIN, &STREAM, &KEEPALIVE, &[LONGER]]);
    are_alike(&probed, &alone);
    let crash = [("fault.2.kind", "process-crash"), AGAIN[1]];
    let told = predict(&[&FLAP, &STREAM, &crash]);
    assert_eq!((told.windows[0].outcome, told.reference), (Outcome::Eof, Reference::Fault));
}

/// Retransmissions at 0.2, 0.6, 1.5 and 3.1 s: the path is there from 2.5 to 2.9 s, and nobody sees it.
#[test]
fn a_stream_does_not_notice_a_path_that_is_back_between_two_retransmissions() {
    let soon = [("fault.2.kind", "power-off"), ("fault.2.after", "2900ms")];
    are_alike(&predict(&[&FLAP, &STREAM, &soon]), &predict(&[&OFF, &STREAM]));
    let later = [("fault.2.kind", "power-off"), ("fault.2.after", "3400ms")];
    let (from, _) = span_s(&predict(&[&FLAP, &STREAM, &later]));
    // What it wrote meanwhile got through, and it began anew.
    assert!(from > 3.0, "{from}");
}

/// The program's patience is for one answer, and the outages do not add up.
#[test]
fn heartbeats_outlive_two_short_outages() {
    let beats = [
        ("client.traffic", "heartbeat"),
        ("client.heartbeat.interval", "500ms"),
        ("client.heartbeat.deadline", "4s"),
    ];
    let given_up = |sets: &[(&str, &str)]| {
        let prediction = predict(&[&FLAP, &AGAIN, &beats, sets]);
        assert_eq!(prediction.windows[0].outcome, Outcome::None, "{prediction:?}");
        prediction.why.contains("gives the server up 4s after its request")
    };
    assert!(!given_up(&[]));
    assert!(given_up(&[LONGER]));
    assert!(given_up(&[("fault.duration", "5s")]));
}

/// What is seen of a stream at the second fault is enough, however much it writes after it.
#[test]
fn a_stream_whose_socket_has_settled_is_predicted_from_it() {
    let whole = parameters(&[&FLAP[..], &AGAIN, &STREAM].concat());
    let mut facts = model::nominal_facts(&whole, 250);
    let options = SocketOptions { nodelay: Some(true), ..SocketOptions::default() };
    facts.tcp.as_mut().unwrap().options_set = Some(options);
    let write = |number: u64| ObservedCall { at_ns: number * 50_000_000, step: Step::Write(100) };
    let calls = (0..50).map(write).collect();
    let observed = Observed { calls, behind: true, ..Observed::default() };
    let told = predict_program(&whole.with_fault(1), &facts, &observed).prediction;
    assert_eq!(told.windows[0].outcome, Outcome::None, "{told:?}");
    assert!(told.unknown.is_none(), "{told:?}");
}

/// A request at 1.741 s, again at 1.948 and more: the router asks for the server at 3.796 s. The second copy has
/// the server's kernel acknowledge at once, before its program answers, and the round trip counts from that copy.
#[test]
fn what_waited_at_a_router_is_acknowledged_by_its_second_copy() {
    let script = "wait 1741ms; request 100 4s; wait 3s; write 100";
    let script = [("client.traffic", "script"), ("client.script", script), ("topology", "router")];
    let off = [("fault.2.kind", "power-off"), ("fault.2.after", "5833ms")];
    let waited = predict(&[&FLAP, &off, &script, &[("fault.duration", "3219ms")]]);
    let probe = &waited.schedule[0];
    assert_eq!(probe.kind, StepKind::TailLossProbe);
    // Two round trips, smoothed: an eighth of 1.848 s, or of 2.055 s if the first copy were echoed.
    let timeout_ms = probe.timeout.as_millis();
    assert!((650..680).contains(&timeout_ms), "{timeout_ms}");
}

/// A killed process's FIN comes if the connection lives until then.
#[test]
fn a_crash_after_an_outage_is_told_at_once() {
    let write = [("client.traffic", "one-write"), ("sysctl.tcp_retries2", "6")];
    let crash = [("fault.2.kind", "process-crash"), ("fault.2.after", "4s")];
    let told = predict(&[&FLAP, &write, &crash]);
    assert_eq!((told.windows[0].outcome, told.reference), (Outcome::Eof, Reference::Fault));
    let hopeless =
        predict(&[&FLAP, &crash, &[("client.traffic", "one-write"), ("sysctl.tcp_retries2", "0")]]);
    assert_eq!(hopeless.windows[0].outcome, Outcome::TIMED_OUT, "{hopeless:?}");
}

#[test]
fn what_is_not_modelled_is_unknown_with_its_reason() {
    const WRITE: (&str, &str) = ("client.traffic", "one-write");
    for (sets, reason) in [
        (&[("client.traffic", "stream"), ("path.rtt", "20ms")][..], "congestion window"),
        (&[("fault.after", "0s"), WRITE], "last answer has come"),
        (&[("path.rtt", "150ms"), WRITE], "last answer has come"),
        (
            &[("fault.2.kind", "process-freeze"), ("fault.3.kind", "flap"), LATER, ENDS, WRITE],
            "`process-freeze`",
        ),
        (
            &[("fault.2.kind", "blackhole"), ("fault.2.direction", "to-client"), WRITE],
            "drops some packets",
        ),
        (
            &[("neighbour", "learned"), ("fault.2.after", "20s"), WRITES_LATE[0], WRITES_LATE[1]],
            "link-layer address",
        ),
    ] {
        let why = predict(&[&FLAP, &AGAIN, sets]).unknown.unwrap();
        assert!(why.contains(reason), "{sets:?}: {why}");
    }
}

const LATER: (&str, &str) = ("fault.3.after", "5s");
const ENDS: (&str, &str) = ("fault.3.duration", "1s");
const WRITES_LATE: [(&str, &str); 2] =
    [("client.traffic", "script"), ("client.script", "write 100; wait 21s; write 100")];

#[test]
fn what_of_a_stream_has_waited_at_a_router_is_not_followed() {
    let drops = [("fault.2.kind", "blackhole"), AGAIN[1], ("topology", "router")];
    let why = predict(&[&FLAP, &STREAM, &drops]).unknown.unwrap();
    assert!(why.contains("in which parts"), "{why}");
}

/// A router that is cut off from the server asks for it in vain, and says so.
#[test]
fn a_router_speaks_for_a_server_that_goes_away_for_the_second_time() {
    let routed = [("topology", "router"), ("sysctl.tcp_retries2", "3")];
    let write = [("client.traffic", "script"), ("client.script", "write 100; wait 8s; write 100")];
    let off = [("fault.2.kind", "power-off"), AGAIN[1]];
    let twice = predict(&[&FLAP, &off, &routed, &write]);
    assert_eq!(twice.windows[0].outcome, Outcome::Errno(spec::Errno::EHOSTUNREACH), "{twice:?}");
    assert_eq!(twice.reference, Reference::FirstWrite);
    let dropped = predict(&[&FLAP, &off, &routed, &write, &[("fault.2.kind", "blackhole")]]);
    assert_eq!(dropped.windows[0].outcome, Outcome::TIMED_OUT, "{dropped:?}");
}

/// A firewall that rejects for a while: what an ICMP error has left is gone with the next answer.
#[test]
fn a_router_rejects_between_two_faults() {
    let reject =
        [("topology", "router"), ("fault.kind", "reject"), ("fault.reject", "host-unreachable")];
    let later = [("fault.2.kind", "blackhole"), ("fault.2.after", "3s")];
    let script = |script| [("client.traffic", "script"), ("client.script", script)];
    let own = ("sysctl.tcp_retries2", "5");
    // Rejected for three seconds, then dropped: the error is the router's, and the doublings go on.
    let both = predict(&[&reject, &later, &script("write 100"), &[own]]);
    let alone = predict(&[
        &[("topology", "router"), ("fault.kind", "blackhole")],
        &script("write 100"),
        &[own],
    ]);
    assert_eq!(both.windows[0].outcome, Outcome::Errno(spec::Errno::EHOSTUNREACH), "{both:?}");
    assert!((span_s(&both).0 - span_s(&alone).0).abs() > 0.1, "{both:?}");
    // A reset ends it at the next packet.
    let reset = [("fault.2.kind", "reject"), ("fault.2.after", "3s")];
    let first = [("topology", "router"), ("fault.kind", "blackhole")];
    let reset = predict(&[&first, &reset, &script("wait 5s; write 100")]);
    assert_eq!(reset.windows[0].outcome, Outcome::Errno(spec::Errno::ECONNRESET), "{reset:?}");
    assert!(span_s(&reset).1 < 0.02, "{reset:?}");
}

/// What is over before the next fault counts from a call that may come late.
#[test]
fn a_call_after_the_next_fault_is_not_over_before_it() {
    let late = [("client.traffic", "script"), ("client.script", "wait 8s; write 100")];
    let timeout = ("client.user_timeout", "5s");
    let saved = [("fault.kind", "blackhole"), AGAIN[0], AGAIN[1], ("fault.2.duration", "500ms")];
    let lives = predict(&[&saved, &late, &[timeout]]);
    assert_eq!(lives.windows[0].outcome, Outcome::None, "{lives:?}");
}

/// A tail loss probe that is acknowledged, and nothing behind it, leaves `tlp_high_seq`: the next loss has none
/// (`tcp_process_tlp_ack`, `tcp_send_loss_probe`).
#[test]
fn after_a_tail_loss_probe_that_was_the_last_there_is_no_other() {
    let next = [("fault.kind", "blackhole"), ("fault.packets", "1")];
    let writes = [("client.traffic", "script"), ("client.script", "write 100; wait 5s; write 100")];
    let flap =
        [("fault.2.kind", "flap"), ("fault.2.after", "1500ms"), ("fault.2.duration", "4600ms")];
    let probes = |first: &[(&str, &str)]| {
        let prediction = predict(&[first, &writes, &flap]);
        assert_eq!(prediction.windows[0].outcome, Outcome::None, "{prediction:?}");
        prediction.schedule.iter().filter(|step| step.kind == StepKind::TailLossProbe).count()
    };
    assert_eq!(probes(&next), 0);
    // The first write's RTO has come.
    assert_eq!(probes(&[next[0], ("fault.packets", "2")]), 1);
    // What had been sent again before the facts were taken may have been a probe.
    let trial = parameters(&[("fault.kind", "flap"), ("fault.duration", "1100ms")]);
    let mut facts = model::nominal_facts(&trial, 250);
    let tcp = facts.tcp.as_mut().unwrap();
    (tcp.total_retrans, tcp.options_set) = (Some(1), Some(SocketOptions::default()));
    let write = ObservedCall { at_ns: 0, step: Step::Write(100) };
    let observed = Observed { calls: vec![write], ..Observed::default() };
    let windows = predict_program(&trial, &facts, &observed).prediction.windows;
    let resent: Vec<_> = windows.iter().map(|window| window.retransmits).collect();
    assert_eq!(resent, [Some(3), Some(4)]);
}

/// A program that has closed is followed to where its kernel lets go.
#[test]
fn a_client_may_close_between_two_faults() {
    let close = [("client.traffic", "script"), ("client.script", "wait 4s; close")];
    let off = [("fault.2.kind", "power-off"), AGAIN[1]];
    // Acknowledged in between: it waits for the server's own FIN, whatever becomes of that.
    let waits = predict(&[&FLAP, &off, &close]);
    assert_eq!((waits.windows[0].outcome, waits.reference), (Outcome::Released, Reference::Close));
    assert!(span_s(&waits).0 > 59.0, "{waits:?}");
    // The second outage swallows it, and `tcp_orphan_retries` decides.
    let late = ("client.script", "wait 8s; close");
    let orphan = predict(&[&FLAP, &off, &close, &[late, ("sysctl.tcp_orphan_retries", "2")]]);
    assert_eq!(orphan.windows[0].outcome, Outcome::Released, "{orphan:?}");
    assert!(span_s(&orphan).1 < 5.0, "{orphan:?}");
    // Half closed, it is told.
    let shut = ("client.script", "wait 8s; shutdown");
    let told = predict(&[&FLAP, &off, &close, &[shut, ("sysctl.tcp_retries2", "2")]]);
    assert_eq!((told.windows[0].outcome, told.reference), (Outcome::TIMED_OUT, Reference::Close));
    let crash = [("fault.2.kind", "process-crash"), AGAIN[1]];
    let why = predict(&[&FLAP, &crash, &close]).unknown.unwrap();
    assert!(why.contains("may have"), "{why}");
}

/// What is unacknowledged at the last fault is known from the ones before it.
#[test]
fn what_the_socket_alone_does_not_tell_the_faults_before_tell() {
    let write = [("client.traffic", "one-write"), ("client.user_timeout", "6s")];
    let reboot =
        [("fault.2.kind", "reboot"), ("fault.2.after", "2600ms"), ("fault.2.duration", "500ms")];
    let whole = parameters(&[&FLAP[..], &write, &reboot].concat());
    let first = model::nominal_facts(&whole, 250);
    let mut facts = first.clone();
    let tcp = facts.tcp.as_mut().unwrap();
    (tcp.unacked, tcp.retransmits, tcp.timer) = (1, 3, 1);
    tcp.options_set = Some(SocketOptions { user_timeout_ms: Some(6_000), ..Default::default() });
    let (own, observed) = (whole.with_fault(1), Observed::default());
    let alone = predict_program(&own, &facts, &observed).prediction;
    assert!(alone.unknown.unwrap().contains("unacknowledged"));
    let told = predict_in_sequence(&own, &facts, &observed, (&whole, &first)).prediction;
    assert_eq!(told.windows[0].outcome, Outcome::Errno(spec::Errno::ECONNRESET), "{told:?}");
    assert_eq!(told.reference, Reference::FirstWrite);
}

/// A router's limit of ICMP errors is used up by the fault before: the socket at the last one does not show it.
#[test]
fn a_router_that_has_sent_errors_just_before_is_followed_from_the_first_fault() {
    let stream = [("topology", "router"), ("client.traffic", "stream")];
    let off = [("fault.2.kind", "power-off"), ("fault.2.after", "3330ms")];
    let whole = parameters(&[&FLAP[..], &stream, &off].concat());
    let facts = model::nominal_facts(&whole, 250);
    let mut last = facts.clone();
    last.tcp.as_mut().unwrap().options_set = Some(SocketOptions::default());
    let (own, observed) = (whole.with_fault(1), Observed::default());
    let told = |whole| predict_in_sequence(&own, &last, &observed, (whole, &facts)).prediction;
    assert!(told(&whole).unknown.unwrap().contains("limit"), "{:?}", told(&whole));
    let long_before = parameters(&[&FLAP[..], &stream, &off, &[("fault.2.after", "20s")]].concat());
    assert_eq!(told(&long_before).unknown, None);
}

/// A server that stops when the path is back: its kernel acknowledges what comes, if anything still does.
#[test]
fn a_client_gives_up_after_the_path_is_back_where_nothing_was_due_before() {
    let late = [("client.traffic", "one-write"), ("client.user_timeout", "4s")];
    let stops = [("fault.2.kind", "process-freeze"), ("fault.2.after", "3900ms")];
    let away = [("fault.kind", "blackhole")];
    let given_up = predict(&[&away, &late, &stops]);
    assert_eq!(given_up.windows[0].outcome, Outcome::TIMED_OUT, "{given_up:?}");
    let lives = predict(&[&away, &late, &stops, &[("client.user_timeout", "9s")]]);
    assert_eq!(lives.windows[0].outcome, Outcome::None, "{lives:?}");
    let trial = parameters(&[("fault.kind", "process-freeze")]);
    let mut facts = model::nominal_facts(&trial, 250);
    let tcp = facts.tcp.as_mut().unwrap();
    (tcp.unacked, tcp.retransmits, tcp.timer, tcp.rto_us) = (1, 4, 1, 3_328_000);
    (tcp.backoff, tcp.timer_expires_ms, tcp.last_data_sent_ms) = (4, 500, 4_000);
    tcp.state = Some(spec::TcpState::Established);
    tcp.options_set = Some(SocketOptions { user_timeout_ms: Some(4_000), ..Default::default() });
    let why = predict_program(&trial, &facts, &Observed::default()).prediction.unknown;
    assert!(why.unwrap_or_default().contains("gives up at its next timeout"));
}

/// Neighbours are believed for 15 s: within that it makes no difference that they were learned.
#[test]
fn entries_that_are_still_believed_make_no_difference() {
    let write = [("client.traffic", "one-write"), ("client.user_timeout", "5s")];
    let later = [("fault.2.after", "4s"), ("fault.2.duration", "9s")];
    let known = predict(&[&FLAP, &AGAIN, &later, &write]);
    let learned = predict(&[&FLAP, &AGAIN, &later, &write, &[("neighbour", "learned")]]);
    assert_eq!(learned.windows, known.windows);
    assert!(learned.unknown.is_none(), "{learned:?}");
}

/// What has passed the router's rules and waits for the server's address is not rejected any more.
#[test]
fn what_waits_at_a_router_when_it_begins_to_reject_is_unknown() {
    let waits =
        [("topology", "router"), ("client.traffic", "one-write"), ("fault.duration", "500ms")];
    let reject = |after| [("fault.2.kind", "reject"), ("fault.2.after", after)];
    let why = predict(&[&FLAP, &waits, &reject("1s")]).unknown.unwrap();
    assert!(why.contains("waits at the router"), "{why}");
    let later = predict(&[&FLAP, &waits, &reject("5s")]);
    assert_eq!(later.windows[0].outcome, Outcome::None, "{later:?}");
}

/// Of two lost probes, one that the path drops after it was back.
#[test]
fn a_path_that_drops_the_next_packet_after_an_outage() {
    let next = [("fault.2.kind", "blackhole"), ("fault.2.after", "7s"), ("fault.2.packets", "3")];
    let lives = predict(&[&FLAP, &KEEPALIVE, &next, &[("fault.2.packets", "2")]]);
    assert_eq!(lives.windows[0].outcome, Outcome::None, "{lives:?}");
    let ends = predict(&[&FLAP, &KEEPALIVE, &next]);
    assert_eq!(ends.windows[0].outcome, Outcome::TIMED_OUT, "{ends:?}");
    assert_eq!(ends.windows[0].keepalive_probes, Some(3), "{ends:?}");
}

/// What waits for the congestion window shows on the wire only when it is sent.
#[test]
fn what_is_written_while_the_congestion_window_is_full_is_unknown() {
    let trial = parameters(&FLAP);
    let mut facts = model::nominal_facts(&trial, 250);
    let tcp = facts.tcp.as_mut().unwrap();
    (tcp.snd_cwnd, tcp.options_set) =
        (4, Some(SocketOptions { nodelay: Some(true), ..Default::default() }));
    let why = |writes: u64| {
        let write = |number| ObservedCall { at_ns: number * 50_000_000, step: Step::Write(100) };
        let calls = (0..writes).map(write).collect();
        let observed = Observed { calls, behind: true, ..Observed::default() };
        predict_program(&trial, &facts, &observed).prediction.unknown
    };
    assert_eq!(why(4), None);
    assert!(why(5).unwrap().contains("congestion window"));
}

/// A stream into a stopped server: its window closes some time, and the user timeout counts from there.
#[test]
fn more_than_surely_fits_into_a_stopped_server_is_not_followed() {
    let trial = parameters(&[("fault.kind", "process-freeze")]);
    let options = SocketOptions { user_timeout_ms: Some(1228), ..SocketOptions::default() };
    let tcp = TcpFacts { options_set: Some(options), ..TcpFacts::default() };
    let facts = Facts { tcp: Some(tcp), ..model::nominal_facts(&trial, 250) };
    let why = |writes: u64| {
        let write = |number| ObservedCall { at_ns: number * 50_000_000, step: Step::Write(100) };
        let observed = Observed { calls: (0..writes).map(write).collect(), ..Observed::default() };
        predict_program(&trial, &facts, &observed).prediction.unknown.unwrap_or_default()
    };
    assert!(why(301).contains("memory accounting"), "{}", why(301));
    assert!(!why(20).contains("memory accounting"), "{}", why(20));
}
