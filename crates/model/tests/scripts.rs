//! Programs that make any sequence of calls, and sockets that are sampled in whatever trouble.

mod common;

use common::parameters;
use model::{IfIt, ObservedCall, StepKind};
use spec::facts::{Facts, JiffyClock, TcpFacts};
use spec::script::Step;
use spec::{Outcome, Reference, SocketOptions, TcpState};
use std::time::Duration;

const HZ: u32 = 250;

fn predict(sets: &[(&str, &str)]) -> model::Prediction {
    let parameters = parameters(sets);
    model::predict(&parameters, &model::nominal_facts(&parameters, HZ))
}

fn scripted(script: &str, sets: &[(&str, &str)]) -> model::Prediction {
    let sets = [&[("client.traffic", "script"), ("client.script", script)], sets].concat();
    let prediction = predict(&sets);
    assert_eq!(prediction.unknown, None, "{script}");
    prediction
}

const POWER_OFF: (&str, &str) = ("fault.kind", "power-off");
const KEEPALIVE: [(&str, &str); 4] = [
    ("client.keepalive.enabled", "true"),
    ("client.keepalive.idle", "40s"),
    ("client.keepalive.interval", "10s"),
    ("client.keepalive.probes", "4"),
];

/// Seconds of the earliest and the latest end.
fn hull(prediction: &model::Prediction) -> (f64, f64) {
    let (from, to) = prediction.hull().unwrap();
    (from.as_secs_f64(), to.as_secs_f64())
}

/// Keepalive would have ended it 80 s after the last exchange. A write 45 s after the fault stops the
/// probes, and its retransmissions decide.
#[test]
fn a_write_stops_the_probes_and_decides() {
    let retries2 = ("sysctl.tcp_retries2", "5");
    let sets = [&KEEPALIVE[..], &[POWER_OFF, retries2]].concat();
    let prediction = scripted("wait 45s; write 100", &sets);
    assert_eq!(prediction.reference, Reference::FirstWrite);
    let alone = predict(&[POWER_OFF, ("client.traffic", "one-write"), retries2]);
    let (ends, as_alone) = (hull(&prediction), hull(&alone));
    assert!((ends.0 - as_alone.0).abs() < 0.3 && (ends.1 - as_alone.1).abs() < 0.3);
    assert!(prediction.schedule.iter().all(|step| step.kind != StepKind::KeepaliveProbe));
}

/// Sixty seconds of FIN_WAIT2 fall into slots of 512 jiffies. A run for each of these phases of the clock, from the
/// program's first call on, was more than the model goes through.
#[test]
fn a_coarse_timer_at_the_end_does_not_multiply_what_comes_before() {
    let flap = [
        ("fault.kind", "flap"),
        ("fault.duration", "700ms"),
        ("topology", "router"),
        ("family", "ipv6"),
    ];
    let (earliest, latest) = hull(&scripted("write 3000; write 2000; close", &flap));
    assert!(earliest > 60.0 && latest - earliest > 512.0 / f64::from(HZ), "{earliest} {latest}");
}

/// At HZ 1000 a retransmission of 0.4 s fires at the end of a slot of eight jiffies, and so does what is left of the
/// user timeout after it. The close 2 s after the write comes up to eight jiffies later or sooner than that slot ends.
#[test]
fn a_close_after_the_first_retransmission_counts_from_the_close() {
    let parameters = parameters(&[
        ("client.traffic", "script"),
        ("client.script", "request 100 2s; write 1448; shutdown"),
        POWER_OFF,
        ("client.user_timeout", "3s"),
        ("sysctl.tcp_retries2", "3"),
    ]);
    let nominal = model::nominal_facts(&parameters, 1000);
    let facts = Facts { virtual_time: true, ..nominal };
    let prediction = model::predict(&parameters, &facts);
    let (earliest, latest) = hull(&prediction);
    assert_eq!(prediction.reference, Reference::Close);
    assert!(earliest > 1.416 && latest < 1.429, "{earliest} {latest}");
}

/// The phase of the clock matters to the probes of a closed window as it does to all timers: a run for each
/// from the beginning was more than the model goes through where calls come besides.
#[test]
fn calls_beside_a_closed_window_are_predicted() {
    let closed = [POWER_OFF, ("client.fills_window", "true"), ("server.reads", "false")];
    let (earliest, latest) = hull(&scripted("wait 90s; wait 706s; shutdown", &closed));
    // After the shutdown, 796 s after the fault: the 15th probe without an answer, and the next timeout.
    assert!(earliest > 130.0 && latest < 310.0, "{earliest} {latest}");
}

/// A segment that is full takes no FIN along (`__tcp_retransmit_skb`): both are sent again once the path is
/// back, where one that is shorter takes it along. Measured where time is virtual; and what comes again is
/// counted where the connection goes on, too.
#[test]
fn what_comes_again_after_a_flap_is_counted() {
    let flap = [
        ("fault.kind", "flap"),
        ("fault.duration", "2s"),
        ("path.rtt", "1ms"),
        ("sysctl.tcp_retries2", "7"),
        ("sysctl.tcp_orphan_retries", "3"),
    ];
    for (script, count) in [
        ("write 1448; close", Some(6)),
        ("write 1000; close", Some(5)),
        ("write 1000", Some(5)),
        ("write 4000", None),
    ] {
        let prediction = scripted(script, &flap);
        let counts: Vec<_> = prediction.windows.iter().map(|w| w.retransmits).collect();
        assert!(counts.iter().all(|c| *c == count), "{script}: {counts:?}");
    }
}

/// The router has lost the server's address with the cable, and asks for it when the first frame comes. What
/// is sent while the answer is on its way waits with it and goes with it: nothing is sent again. Measured where
/// time is virtual.
#[test]
fn what_is_sent_while_an_address_is_asked_for_goes_once_it_is_told() {
    let flap = [
        ("topology", "router"),
        ("fault.kind", "flap"),
        ("fault.duration", "300ms"),
        ("path.rtt", "40ms"),
        ("sysctl.tcp_early_retrans", "0"),
    ];
    for script in ["wait 700ms; write 8000; close", "wait 700ms; write 100; wait 10ms; write 100"] {
        let prediction = scripted(script, &flap);
        let counts: Vec<_> = prediction.windows.iter().map(|w| w.retransmits).collect();
        assert!(counts.iter().all(|c| *c == Some(0)), "{script}: {counts:?}");
    }
}

/// A stopped server's kernel holds back what would tell a smaller window: the FIN behind it is sent again by
/// the loss probe. Measured where time is virtual.
#[test]
fn a_window_that_shrinks_is_not_told_at_once() {
    let counts = |script| {
        let prediction = scripted(script, &[("fault.kind", "process-freeze")]);
        let mut counts: Vec<_> = prediction.windows.iter().map(|w| w.retransmits).collect();
        counts.sort_unstable();
        counts.dedup();
        counts
    };
    assert_eq!(counts("write 1000; write 3000; write 20000; close"), [Some(1)]);
    assert_eq!(counts("write 600; write 600; close"), [Some(1)]);
    assert_eq!(counts("write 12000; close"), [Some(0)]);
    // Acknowledgements of what filled the congestion window let the FIN go, behind 760 bytes that are
    // not yet acknowledged.
    assert_eq!(counts("write 700; write 3000; write 8000; close"), [Some(1)]);
}

/// What congestion control decides, or a call that waits for room, is not guessed. Each was measured where time is
/// virtual, and ended at another time than the one that a plain resending would lead to.
#[test]
fn what_is_up_to_congestion_control_or_to_the_send_buffer_is_unknown() {
    let flap = [("fault.kind", "flap"), ("fault.duration", "300ms")];
    let long = [("fault.kind", "flap"), ("fault.duration", "2s"), ("path.rtt", "40ms")];
    let slow = [("fault.kind", "flap"), ("fault.duration", "300ms"), ("path.rtt", "600ms")];
    for (script, fault, reason) in [
        (
            "write 20000; write 3000; write 30000; write 2000; close",
            &[POWER_OFF][..],
            "send buffer",
        ),
        ("request 5000 500ms", &flap, "as much as it reads"),
        ("write 2000; wait 20ms; write 100; write 5000; close", &long, "congestion control"),
        (
            "write 20000; write 3000; wait 250ms; request 5000 2s; close",
            &slow,
            "congestion control",
        ),
    ] {
        let sets = [&[("client.traffic", "script"), ("client.script", script)], fault].concat();
        let unknown = predict(&sets).unknown.unwrap_or_default();
        assert!(unknown.contains(reason), "{script}: {unknown}");
    }
    scripted("write 20000; write 3000; close", &[POWER_OFF]);
    scripted("write 20000; write 30000", &[POWER_OFF]);
}

/// A FIN that the congestion window holds back is what the loss probe sends: it is new. Measured where time is
/// virtual.
#[test]
fn a_loss_probe_sends_the_fin_that_waits() {
    let sets = [("fault.kind", "blackhole"), ("sysctl.tcp_retries2", "2")];
    for (script, count) in
        [("write 100; write 12000; shutdown", 3), ("write 100; write 9000; shutdown", 4)]
    {
        let prediction = scripted(script, &[&sets[..], &[("sysctl.tcp_timestamps", "0")]].concat());
        let counts: Vec<_> = prediction.windows.iter().map(|w| w.retransmits).collect();
        assert!(counts.iter().all(|c| *c == Some(count)), "{script}: {counts:?}");
    }
}

/// Keepalive is over before the program writes.
#[test]
fn a_write_that_comes_too_late_is_not_the_reference() {
    let sets = [&KEEPALIVE[..], &[POWER_OFF]].concat();
    let prediction = scripted("wait 10m; write 100", &sets);
    assert_eq!(prediction.reference, Reference::LastActivity);
    let (earliest, latest) = hull(&prediction);
    assert!(earliest > 79.9 && latest < 84.0, "{earliest}–{latest}");
    assert_eq!(prediction.windows[0].keepalive_probes, Some(4));
}

/// ICMP errors take each doubling back, so that timeouts are many, and each may run late: as many phases
/// as are gone through leave room for that.
#[test]
fn a_call_at_any_phase_ends_as_late_as_a_write_does() {
    let reject = [
        ("topology", "router"),
        ("fault.kind", "reject"),
        ("fault.reject", "host-unreachable"),
        ("sysctl.tcp_retries2", "3"),
    ];
    let sets =
        [&reject[..], &[("client.traffic", "script"), ("client.script", "write 100")]].concat();
    let parameters = parameters(&sets);
    let call = ObservedCall { at_ns: 5_000_000_000, step: Step::Write(100) };
    let observed =
        model::predict_with(&parameters, &model::nominal_facts(&parameters, HZ), &[call]);
    let written = predict(&[&reject[..], &[("client.traffic", "one-write")]].concat());
    assert_eq!(hull(&observed), hull(&written));
}

/// What the congestion window does not let go waits, and the tail loss probe sends of it what is new
/// (`tcp_send_loss_probe`): no retransmission.
#[test]
fn the_loss_probe_of_a_large_write_sends_new_data() {
    let sets = [POWER_OFF, ("sysctl.tcp_retries2", "3")];
    let count = |script: &str| {
        let prediction = scripted(script, &sets);
        let steps = prediction.schedule.iter().map(|step| step.kind);
        let timeouts = steps.filter(|kind| *kind == StepKind::Retransmission).count();
        prediction.windows[0].retransmits.unwrap() as usize - timeouts
    };
    assert_eq!([count("write 100"), count("write 20000")], [1, 0]);
}

/// Where a path comes back to a sender that has more to send, F-RTO decides how much comes again, which is
/// not modelled: no number is better than a wrong one.
#[test]
fn what_comes_again_of_a_large_write_after_a_flap_is_not_counted() {
    let flap = [
        ("fault.kind", "flap"),
        ("fault.after", "2500ms"),
        ("fault.duration", "1700ms"),
        ("sysctl.tcp_retries2", "4"),
    ];
    let all = |script: &str, count: fn(Option<u32>) -> bool| {
        let prediction = scripted(script, &flap);
        prediction.windows.iter().all(|window| count(window.retransmits))
    };
    assert!(all("write 100; close", |count| count.is_some()));
    assert!(all("write 20000; close", |count| count.is_none()));
}

/// A frame of several segments is received as one and acknowledged at once: nothing but the FIN is out
/// when that is sent, and no loss probe comes before its acknowledgement.
#[test]
fn a_frame_of_several_segments_is_acknowledged_as_one() {
    let sets = [("fault.kind", "none"), ("sysctl.tcp_fin_timeout", "1")];
    let prediction = scripted("write 3000; wait 1ms; close", &sets);
    assert_eq!(prediction.windows[0].outcome, Outcome::Released);
    assert!(prediction.windows.iter().all(|window| window.retransmits == Some(0)));
}

/// A frame holds half a congestion window at most (`tcp_cwnd_test`): nine segments are two frames, each of
/// which takes one of the router's six ICMP errors.
#[test]
fn a_large_write_leaves_in_frames_of_half_a_congestion_window() {
    let sets = [
        ("topology", "router"),
        ("fault.kind", "reject"),
        ("fault.reject", "host-unreachable"),
        ("sysctl.tcp_retries2", "3"),
        ("client.traffic", "script"),
        ("client.script", "write 1000; write 20000"),
    ];
    let parameters = parameters(&sets);
    let facts = Facts { virtual_time: true, ..model::nominal_facts(&parameters, HZ) };
    let prediction = model::predict(&parameters, &facts);
    // Linux 6.12 gave up after 3.984 s.
    let (from, to) = hull(&prediction);
    assert!(from > 3.9 && from <= 3.984 && to >= 3.984, "{prediction:?}");
}

/// A write of two segments is one frame, and its second does not wait for the first, which waits for a
/// link-layer address (`tcp_push`). On both clocks 1449 bytes ended as 1448 did.
#[test]
fn a_segment_does_not_wait_for_one_of_the_same_write() {
    let unplugged = [
        ("fault.kind", "unplug"),
        ("neighbour", "learned"),
        ("topology", "direct"),
        ("sysctl.tcp_retries2", "0"),
    ];
    let ends = |bytes: u32| hull(&scripted(&format!("write {bytes}; wait 37ms"), &unplugged));
    for bytes in [1_449, 2_896, 2_897] {
        assert_eq!(ends(bytes), ends(1_448), "{bytes}");
    }
}

/// What waits at a router for the server's address arrives together, the first that comes again is
/// acknowledged at once, and its round trip, of some two seconds, makes the RTO that FIN_WAIT2 lasts for.
#[test]
fn what_comes_again_is_acknowledged_at_once_after_a_flap() {
    let flap = [
        ("topology", "router"),
        ("fault.kind", "flap"),
        ("fault.after", "2500ms"),
        ("fault.duration", "1700ms"),
        ("sysctl.tcp_fin_timeout", "5"),
    ];
    let script = [("client.traffic", "script"), ("client.script", "write 100; close")];
    let parameters = parameters(&[&flap[..], &script].concat());
    let mut facts = Facts { virtual_time: true, ..model::nominal_facts(&parameters, HZ) };
    let tcp = facts.tcp.as_mut().unwrap();
    (tcp.srtt_us, tcp.rttvar_us) = (2, 1);
    let prediction = model::predict(&parameters, &facts);
    // Linux 6.12 let go after 10.101 s.
    let measured = Duration::from_millis(10_101);
    let holds = |(from, to): (Duration, Duration)| from <= measured && measured <= to;
    assert!(
        prediction.windows.iter().any(|window| window.span.is_some_and(holds)),
        "{prediction:?}"
    );
}

const FORGET: [(&str, &str); 3] =
    [("topology", "router"), ("fault.kind", "forget"), ("fault.idle", "60s")];

/// What the router has forgotten is as dead as what a firewall drops, from the first probe on.
#[test]
fn probes_that_come_too_late_for_the_router_end_as_in_a_black_hole() {
    let keepalive = |idle| [KEEPALIVE[0], ("client.keepalive.idle", idle), KEEPALIVE[2]];
    let late = predict(&[&keepalive("90s")[..], &FORGET].concat());
    let dropped = [("topology", "router"), ("fault.kind", "blackhole")];
    let dropped = predict(&[&keepalive("90s")[..], &dropped].concat());
    let ((a, b), (c, d)) = (hull(&late), hull(&dropped));
    assert!((a - c).abs() < 0.01 && (b - d).abs() < 0.01, "{late:?} {dropped:?}");
    assert!(late.why.contains("idle for 60 s"), "{}", late.why);
    let soon = predict(&[&keepalive("30s")[..], &FORGET].concat());
    assert_eq!(soon.windows[0].outcome, Outcome::None, "{soon:?}");
    let at_once = predict(&[&keepalive("60s")[..], &FORGET].concat());
    assert!(at_once.unknown.is_some_and(|why| why.contains("remembers")), "{:?}", at_once.windows);
}

/// Only what the flow was idle for counts: the second write comes in time, the third does not.
#[test]
fn each_write_has_the_router_remember() {
    let reset = ("fault.answer", "tcp-reset");
    let sets = [&FORGET[..], &[reset]].concat();
    let lives = scripted("wait 50s; request 100 1s; wait 50s; write 100", &sets);
    assert_eq!(lives.windows[0].outcome, Outcome::None);
    let reset = scripted("wait 50s; request 100 1s; wait 70s; write 100", &sets);
    assert_eq!(reset.windows[0].outcome.to_string(), "ECONNRESET");
}

/// A second write long after the first: its segment waits behind, and the first decides.
#[test]
fn two_writes_far_apart_end_as_the_first() {
    let sets = [POWER_OFF, ("sysctl.tcp_retries2", "5")];
    let one = hull(&scripted("write 100", &sets));
    let two = hull(&scripted("write 100; wait 5s; write 100", &sets));
    assert!((one.0 - two.0).abs() < 0.1 && (one.1 - two.1).abs() < 0.1, "{one:?} {two:?}");
    let named = hull(&predict(&[sets[0], sets[1], ("client.traffic", "one-write")]));
    assert!((one.0 - named.0).abs() < 0.1 && (one.1 - named.1).abs() < 0.1, "{one:?} {named:?}");
}

#[test]
fn a_shutdown_after_a_write_waits_for_the_data() {
    let sets = [POWER_OFF, ("sysctl.tcp_retries2", "3")];
    let prediction = scripted("write 100; shutdown", &sets);
    assert_eq!(prediction.windows[0].outcome, Outcome::TIMED_OUT);
    assert_eq!(prediction.reference, Reference::FirstWrite);
    assert!(prediction.schedule.iter().any(|step| step.kind == StepKind::Retransmission));
    let alone = scripted("shutdown", &sets);
    assert_eq!(alone.reference, Reference::Close);
    assert!(alone.schedule.iter().any(|step| step.kind == StepKind::FinRetransmission));
}

/// With data out that nobody acknowledges, `close` makes an orphan: tcp_orphan_retries decides.
#[test]
fn a_close_with_data_out_is_bounded_as_an_orphan_is() {
    let prediction = scripted("write 100; wait 1s; close", &[POWER_OFF]);
    assert_eq!(prediction.windows[0].outcome, Outcome::Released);
    assert_eq!(prediction.reference, Reference::Close);
    let (earliest, latest) = hull(&prediction);
    // 102.2 s after the first retransmission, a second before the close; the next timeout.
    assert!(earliest > 101.0 && latest < 110.0, "{earliest}–{latest}");
}

/// What is written into a closed window changes nothing: its probes decide.
#[test]
fn a_write_into_a_closed_window_changes_nothing() {
    let closed = [
        POWER_OFF,
        ("client.fills_window", "true"),
        ("server.reads", "false"),
        ("fault.after", "1ms"),
        ("sysctl.tcp_retries2", "4"),
    ];
    let prediction = scripted("write 100", &closed);
    assert_eq!(prediction.windows[0].outcome, Outcome::TIMED_OUT);
    assert!(prediction.schedule.iter().any(|step| step.kind == StepKind::WindowProbe));
}

/// A write just before the first keepalive timer: it is the write that decides.
#[test]
fn a_write_just_before_a_keepalive_timer_decides() {
    let sets = [&KEEPALIVE[..], &[POWER_OFF, ("sysctl.tcp_retries2", "3")]].concat();
    let prediction = scripted("wait 39500ms; write 100", &sets);
    assert_eq!(prediction.reference, Reference::FirstWrite);
    let (earliest, latest) = hull(&prediction);
    assert!(earliest > 6.5 && latest < 7.1, "{earliest}–{latest}");
}

/// A living peer acknowledges, and answers requests; a stopped one only acknowledges.
#[test]
fn a_request_is_answered_by_a_program_alone() {
    let living = scripted("request 100 2s; wait 1s; request 100 2s", &[]);
    assert_eq!(living.windows[0].outcome, Outcome::None, "{living:#?}");
    let stopped = scripted("request 100 2s", &[("fault.kind", "process-freeze")]);
    assert_eq!(stopped.windows[0].outcome, Outcome::Released, "{stopped:#?}");
    assert_eq!(stopped.reference, Reference::Close);
}

/// A stopped program goes on after half a second, and answers what it missed.
#[test]
fn a_program_that_goes_on_answers_late() {
    let sets = [("fault.kind", "process-freeze"), ("fault.duration", "500ms")];
    let late = scripted("request 100 2s", &sets);
    assert!(late.windows.iter().all(|window| window.outcome == Outcome::None), "{late:#?}");
    let soon = scripted("request 100 100ms; wait 1s", &sets);
    assert!(soon.windows.iter().all(|window| window.outcome == Outcome::Released), "{soon:#?}");
    // The answer comes for a socket that nobody reads any more: a reset, long before the minute of
    // FIN_WAIT2 is over.
    let (_, latest) = hull(&soon);
    assert!(latest < 1.0, "{latest}");
}

/// `SO_LINGER` of 0: nothing is waited for, whatever is out.
#[test]
fn a_close_that_does_not_linger_resets() {
    let prediction = scripted("write 100; close", &[POWER_OFF, ("client.linger", "0s")]);
    assert_eq!(prediction.windows[0].outcome, Outcome::Released);
    assert!(hull(&prediction).1 < 0.05, "{prediction:#?}");
}

/// A living peer holds its acknowledgement back for 40 ms. With two segments out the tail loss probe
/// does not wait for it: the FIN goes again, and what comes twice is acknowledged at once. Linux 6.12,
/// virtual clock, HZ 250: one retransmission.
#[test]
fn a_write_and_a_close_have_the_fin_sent_twice() {
    let prediction = scripted("write 100; close", &[]);
    let window = &prediction.windows[0];
    assert_eq!((window.outcome, window.retransmits), (Outcome::Released, Some(1)));
    let alone = scripted("close", &[]);
    assert_eq!(alone.windows[0].retransmits, Some(0));
    // Of a second small segment a program that reads acknowledges both, and all that follows later.
    let two = scripted("write 100; wait 1s; write 100; wait 1s; close", &[]);
    assert_eq!(two.windows[0].retransmits, Some(0), "{two:#?}");
}

/// A retransmission gathers what is small, the FIN too: all of it comes in one segment.
#[test]
fn a_retransmission_takes_the_fin_along() {
    let flap = [("fault.kind", "flap"), ("fault.duration", "300ms")];
    let prediction = scripted("write 100; write 100; close", &flap);
    for window in &prediction.windows {
        assert_eq!(window.outcome, Outcome::Released);
        assert!(hull(&prediction).0 > 59.9, "{prediction:#?}");
    }
}

/// The server's FIN and the client's are as fast as each other where a script begins with `close`.
#[test]
fn a_script_that_closes_at_a_crash_is_released() {
    let crash = ("fault.kind", "process-crash");
    assert_eq!(scripted("close", &[crash]).windows[0].outcome, Outcome::Released);
    assert_eq!(scripted("wait 1s; close", &[crash]).windows[0].outcome, Outcome::Eof);
    let inherited = scripted("close", &[crash, ("server.inherited", "true")]);
    assert_eq!(inherited.reference, Reference::Fault);
    assert_eq!(inherited.windows[0].outcome, Outcome::Released);
}

/// What changes later is not forgotten because the peer answers. Linux 6.12, virtual clock, HZ 250:
/// ETIMEDOUT at 10,859 s.
#[test]
fn a_living_peer_with_a_closed_window_sees_what_changes_later() {
    let prediction = predict(&[
        ("client.fills_window", "true"),
        ("server.reads", "false"),
        ("later.after", "3h"),
        ("later.sysctl.tcp_retries2", "0"),
    ]);
    assert_eq!(prediction.unknown, None);
    assert!(prediction.windows.iter().all(|window| window.outcome == Outcome::TIMED_OUT));
    let (earliest, latest) = hull(&prediction);
    assert!(earliest < 10_859.0 && latest > 10_859.0, "{earliest}–{latest}");
}

/// The same of keepalive.
#[test]
fn a_living_peer_is_given_up_where_probes_are_forbidden_later() {
    let sets = [
        ("client.keepalive.enabled", "true"),
        ("client.keepalive.idle", "2s"),
        ("client.keepalive.interval", "1s"),
        ("later.after", "10m"),
        ("later.sysctl.tcp_keepalive_probes", "0"),
    ];
    assert_eq!(predict(&sets).windows[0].outcome, Outcome::TIMED_OUT);
}

fn facts() -> Facts {
    let parameters = parameters::<&str>(&[]);
    let mut facts = model::nominal_facts(&parameters, HZ);
    facts.jiffies = Some(JiffyClock { jiffies: 4_295_000_000, at_ns: 1_000_000_000_000 });
    facts
}

/// The calls that were seen give the phase: the windows are narrow.
#[test]
fn what_was_observed_is_predicted_to_the_jiffy() {
    let parameters = parameters(&[
        POWER_OFF,
        ("client.traffic", "script"),
        ("client.script", "write 100"),
        ("sysctl.tcp_retries2", "3"),
    ]);
    let mut facts = facts();
    facts.virtual_time = true;
    facts.tcp.as_mut().unwrap().sampled_at_ns = 1_000_000_000_000;
    let call = ObservedCall { at_ns: 1_000_050_500_000, step: Step::Write(100) };
    let known = model::predict_with(&parameters, &facts, &[call]);
    let (earliest, latest) = hull(&known);
    assert!(latest - earliest < 0.02, "{earliest}–{latest}");
    let (from, to) = hull(&model::predict(&parameters, &facts));
    assert!(from <= earliest && latest <= to);
}

fn socket(
    tcp: impl FnOnce(&mut TcpFacts),
    options: SocketOptions,
    if_it: IfIt,
) -> model::Prediction {
    let mut facts = facts();
    let sample = facts.tcp.as_mut().unwrap();
    sample.sampled_at_ns = 1_000_000_000_000;
    sample.state = Some(TcpState::Established);
    sample.options_set = Some(options);
    tcp(sample);
    let prediction = model::predict_socket(&facts, if_it);
    assert_eq!(prediction.unknown, None);
    prediction
}

#[test]
fn an_idle_socket_without_keepalive_never_ends_unless_it_writes() {
    let idle = socket(|_| {}, SocketOptions::default(), IfIt::StaysIdle);
    assert_eq!(idle.windows[0].outcome, Outcome::None);
    let writes = socket(|_| {}, SocketOptions::default(), IfIt::WritesNow);
    let (earliest, latest) = hull(&writes);
    assert!(earliest > 930.0 && latest < 945.0, "{earliest}–{latest}");
}

/// Twelve of forty seconds are over, and four probes follow.
#[test]
fn a_sampled_keepalive_timer_counts_from_what_was_received() {
    let options = SocketOptions {
        keepalive: Some(true),
        keepidle_s: Some(40),
        keepintvl_s: Some(10),
        keepcnt: Some(4),
        ..SocketOptions::default()
    };
    let tcp = |tcp: &mut TcpFacts| {
        tcp.timer = TcpFacts::TIMER_KEEPALIVE;
        tcp.timer_expires_ms = 28_000;
        (tcp.last_ack_recv_ms, tcp.last_data_recv_ms) = (12_000, 12_000);
    };
    let (earliest, latest) = hull(&socket(tcp, options.clone(), IfIt::StaysIdle));
    assert!(earliest > 67.9 && latest < 72.0, "{earliest}–{latest}");
    // Two probes are out: two more, and the end.
    let tcp = |tcp: &mut TcpFacts| {
        tcp.timer = TcpFacts::TIMER_KEEPALIVE;
        (tcp.timer_expires_ms, tcp.probes) = (4_000, 2);
        (tcp.last_ack_recv_ms, tcp.last_data_recv_ms) = (56_000, 56_000);
    };
    let (earliest, latest) = hull(&socket(tcp, options, IfIt::StaysAsItIs));
    assert!(earliest > 23.9 && latest < 27.0, "{earliest}–{latest}");
}

/// The fourth retransmission of a connection with tcp_retries2 = 15 is out.
#[test]
fn a_socket_in_its_fourth_retransmission_ends_as_a_whole_run_does() {
    let tcp = |tcp: &mut TcpFacts| {
        tcp.timer = 1;
        (tcp.retransmits, tcp.backoff, tcp.unacked) = (4, 4, 1);
        tcp.rto_us = 204_000 << 4;
        (tcp.timer_expires_ms, tcp.last_data_sent_ms) = (2_264, 1_000);
    };
    let (earliest, latest) = hull(&socket(tcp, SocketOptions::default(), IfIt::StaysAsItIs));
    // The whole run takes some 937.5 to 939.7 s; 3.264 + 1.632 + 0.816 + 0.408 + 0.4 s of it and some
    // slots are over before the pending timer.
    assert!(earliest > 929.0 && latest < 938.0, "{earliest}–{latest}");
    assert!(latest - earliest < 5.0);
}

#[test]
fn a_sampled_window_probe_goes_on() {
    let tcp = |tcp: &mut TcpFacts| {
        tcp.timer = TcpFacts::TIMER_PROBE0;
        (tcp.backoff, tcp.probes) = (3, 1);
        tcp.rto_us = 204_000;
        tcp.timer_expires_ms = 900;
        (tcp.last_ack_recv_ms, tcp.last_data_recv_ms) = (1_700, 1_700);
    };
    let prediction = socket(tcp, SocketOptions::default(), IfIt::StaysAsItIs);
    assert_eq!(prediction.windows[0].outcome, Outcome::TIMED_OUT);
}

/// A trial of Linux 6.12 at HZ=250 in virtual time: a request that was answered 5 µs later, in the same
/// jiffy, and a flow that a router had forgotten when the keepalive probe came.
#[test]
fn an_answer_comes_in_the_jiffy_of_its_call() {
    let sets = [
        ("client.traffic", "script"),
        ("client.script", "request 100 100ms"),
        ("client.keepalive.enabled", "true"),
        ("client.keepalive.idle", "5s"),
        ("client.keepalive.interval", "3s"),
        ("client.keepalive.probes", "1"),
        ("topology", "router"),
        ("fault.kind", "forget"),
        ("fault.after", "200ms"),
        ("fault.idle", "4s"),
        ("fault.answer", "tcp-reset"),
    ];
    let parameters = parameters(&sets);
    let mut facts = model::nominal_facts(&parameters, HZ);
    facts.virtual_time = true;
    facts.jiffies = Some(JiffyClock { jiffies: 4_294_892_347, at_ns: 204_000_000 });
    facts.tcp = Some(TcpFacts {
        rto_us: 204_000,
        srtt_us: 2,
        sampled_at_ns: 205_058_560,
        last_data_recv_ms: 204,
        last_ack_recv_ms: 204,
        timer: 2,
        timer_expires_ms: 4_796,
        ..facts.tcp.unwrap()
    });
    let prediction = model::predict(&parameters, &facts);
    let told = 5.208_000_000 - 0.205_071_104;
    let (from, to) = hull(&prediction);
    assert!(from <= told && told <= to, "{prediction:?}");
}

/// Two probes have met a router that had forgotten the flow before the fault: nobody has answered them.
#[test]
fn probes_that_a_router_has_dropped_before_the_fault_count() {
    let forgotten = [
        ("client.keepalive.enabled", "true"),
        ("client.keepalive.idle", "5s"),
        ("client.keepalive.interval", "1s"),
        ("client.keepalive.probes", "4"),
        ("sysctl.tcp_retries2", "3"),
        ("topology", "router"),
        ("fault.kind", "forget"),
        ("fault.after", "7s"),
        ("fault.idle", "5s"),
    ];
    let predicted = |sets: &[(&str, &str)]| {
        let parameters = parameters(&[&forgotten, sets].concat());
        let mut facts = model::nominal_facts(&parameters, HZ);
        facts.virtual_time = true;
        facts.jiffies = Some(JiffyClock { jiffies: 4_294_894_047, at_ns: 7_004_000_000 });
        facts.tcp = Some(TcpFacts {
            rto_us: 204_000,
            srtt_us: 1,
            sampled_at_ns: 7_004_916_480,
            last_data_recv_ms: 7004,
            last_ack_recv_ms: 7004,
            timer: 2,
            timer_expires_ms: 108,
            probes: 2,
            ..facts.tcp.unwrap()
        });
        model::predict(&parameters, &facts)
    };
    let script = |script| [("client.traffic", "script"), ("client.script", script)];
    // The fourth probe goes at 8.16 s: a later call comes too late.
    for idle in [predicted(&[]), predicted(&script("wait 3s; write 100"))] {
        let (from, to) = hull(&idle);
        assert!(from <= 9.184 && 9.184 <= to && to - from < 0.02, "{idle:?}");
        assert_eq!(idle.reference, Reference::LastActivity);
        assert_eq!(idle.windows[0].keepalive_probes, Some(4), "{idle:?}");
    }
    // While something is unacknowledged, keepalive is silent.
    let writes = predicted(&script("wait 1s; write 100"));
    assert_eq!(writes.reference, Reference::FirstWrite, "{writes:?}");
    assert!(hull(&writes).0 > 6.6 && hull(&writes).1 < 6.9, "{writes:?}");
}

/// Heartbeats each 3 s: the first comes while the flow is remembered, the second does not.
#[test]
fn heartbeats_meet_a_router_that_forgets_between_two_of_them() {
    let outcomes = |sets: &[(&str, &str)]| {
        let heartbeats = [
            ("client.traffic", "heartbeat"),
            ("client.heartbeat.interval", "3s"),
            ("topology", "router"),
            ("fault.kind", "forget"),
            ("fault.after", "1s"),
            ("sysctl.tcp_retries2", "3"),
        ];
        let prediction = predict(&[&heartbeats[..], sets].concat());
        let outcomes: Vec<_> = prediction.windows.iter().map(|window| window.outcome).collect();
        (outcomes, prediction.hull().map(|(earliest, _)| earliest.as_secs()))
    };
    let patient = ("client.heartbeat.deadline", "20s");
    assert_eq!(outcomes(&[("fault.idle", "2s"), patient]), (vec![Outcome::TIMED_OUT], Some(9)));
    // The program gives up before its kernel does.
    let short = ("client.heartbeat.deadline", "2s");
    assert_eq!(outcomes(&[("fault.idle", "2s"), short]), (vec![Outcome::None], None));
    assert_eq!(outcomes(&[("fault.idle", "5s"), patient]), (vec![Outcome::None], None));
}

/// What is left of the congestion window takes two segments, which is too little for a frame: they leave
/// with the loss probe, as one frame (`tcp_tso_should_defer`), so that one ICMP error more is left for the
/// second retransmission, which takes a doubling back. Measured where time is virtual: 103.808 s.
#[test]
fn what_is_too_little_for_a_frame_waits_for_the_loss_probe() {
    let sets = [
        ("fault.kind", "reject"),
        ("fault.reject", "host-unreachable"),
        ("topology", "router"),
        ("neighbour", "learned"),
        ("sysctl.tcp_retrans_collapse", "0"),
        ("sysctl.tcp_retries2", "3"),
    ];
    let script = "write 1; wait 20ms; write 1449; write 12000; write 1448; close";
    let schedule = scripted(script, &sets).schedule;
    let third = schedule.iter().find(|step| step.kind == StepKind::Retransmission && step.n == 3);
    assert_eq!(third.map(|step| step.timeout), Some(Duration::from_millis(200)));
}

/// A trial of Linux 6.18 at HZ=250: the probe that was due 9 ms after the sample was answered, and the fault came
/// just after it, long before the latest that it could have.
#[test]
fn a_probe_may_be_answered_just_before_the_fault() {
    let parameters = parameters(&[
        ("client.traffic", "script"),
        ("client.script", "wait 1s; write 100"),
        POWER_OFF,
        ("client.fills_window", "true"),
        ("server.reads", "false"),
        ("sysctl.tcp_retries2", "4"),
    ]);
    let mut facts = model::nominal_facts(&parameters, HZ);
    facts.jiffies = Some(JiffyClock { jiffies: 4_299_471_866, at_ns: 18_318_536_000_000 });
    facts.tcp = Some(TcpFacts {
        rto_us: 208_000,
        srtt_us: 7_790,
        rttvar_us: 14_002,
        timer: TcpFacts::TIMER_PROBE0,
        timer_expires_ms: 8,
        sampled_at_ns: 18_318_534_794_390,
        last_data_recv_ms: 388,
        last_ack_recv_ms: 200,
        ..facts.tcp.unwrap()
    });
    let prediction = model::predict(&parameters, &facts);
    let measured = Duration::from_millis(8_999);
    let holds = |window: &model::Window| {
        window.window_probes == Some(3)
            && window.span.is_some_and(|(from, to)| from <= measured && measured <= to)
    };
    assert!(prediction.windows.iter().any(holds), "{:#?}", prediction.windows);
}
