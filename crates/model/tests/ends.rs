//! Connecting and closing: what predictions were held against, and what they must be like.

mod common;

use common::parameters;
use model::StepKind;
use proptest::prelude::*;
use spec::facts::JiffyClock;
use spec::{Outcome, Reference};
use std::time::Duration;

fn predict(sets: &[(&str, &str)], hz: u32) -> model::Prediction {
    let parameters = parameters(sets);
    model::predict(&parameters, &model::nominal_facts(&parameters, hz))
}

const CONNECT: [(&str, &str); 2] = [("client.traffic", "connect"), ("fault.kind", "power-off")];
const CLOSE: [(&str, &str); 2] = [("client.traffic", "close"), ("fault.kind", "power-off")];
const SHUTDOWN: [(&str, &str); 2] = [("client.traffic", "shutdown"), ("fault.kind", "power-off")];
const FROZEN: [(&str, &str); 2] = [("client.traffic", "close"), ("fault.kind", "process-freeze")];

fn holds(sets: &[(&str, &str)], outcome: &str, measured_s: f64, retransmits: u32) {
    let prediction = predict(sets, 250);
    let measured = Duration::from_secs_f64(measured_s);
    assert!(
        prediction.windows.iter().any(|window| {
            window.span.is_some_and(|(a, b)| a <= measured && measured <= b)
                && window.outcome.to_string() == outcome
                && window.retransmits.is_none_or(|count| count == retransmits)
        }),
        "{sets:?}: {outcome} at {measured_s} s with {retransmits}: {:#?}",
        prediction.windows
    );
}

/// Where ARP fails, the timers fire and no SYN leaves; behind a router they pass the client's tap.
#[test]
fn a_segment_that_waits_for_an_address_is_held() {
    let held = |sets: &[(&str, &str)]| {
        let prediction = predict(sets, 250);
        let again = prediction.schedule.iter().filter(|step| step.kind != StepKind::GiveUp);
        again.map(|step| step.held).collect::<Vec<_>>()
    };
    let learned = [&CONNECT[..], &[("neighbour", "learned")]].concat();
    assert_eq!(held(&learned), [true; 3]);
    let learned_behind_router = [&learned[..], &[("topology", "router")]].concat();
    assert_eq!(held(&learned_behind_router), [false; 3]);
    assert!(held(&CONNECT).iter().all(|held| !held));
    let unplugged = [
        ("topology", "direct"),
        ("fault.kind", "unplug"),
        ("client.traffic", "one-write"),
        ("sysctl.tcp_retries2", "3"),
    ];
    assert!(held(&unplugged).iter().all(|held| *held));
}

/// Seconds after the call, as measured on Linux 6.18 and 6.12 at HZ=250.
#[test]
fn attempts_end_as_measured() {
    let router = [("topology", "router"), ("fault.kind", "reject")];
    for (sets, outcome, measured_s, retransmits) in [
        // By time, two retransmissions; the count of 1 + 4 would allow five.
        (&[("sysctl.tcp_syn_retries", "1")][..], "ETIMEDOUT", 3.0780, 2),
        (&[("sysctl.tcp_syn_retries", "2")], "ETIMEDOUT", 7.131, 5),
        (
            &[("sysctl.tcp_syn_retries", "2"), ("sysctl.tcp_syn_linear_timeouts", "0")],
            "ETIMEDOUT",
            7.1747,
            2,
        ),
        // The defaults, in virtual time.
        (&[], "ETIMEDOUT", 133.9092, 10),
        (&[("client.user_timeout", "500ms")], "ETIMEDOUT", 1.030, 1),
        // The rest of a user timeout goes by the millisecond of the call, not by its jiffy.
        (&[("client.user_timeout", "1074ms")], "ETIMEDOUT", 1.0787, 1),
        (&[("client.user_timeout", "1074ms")], "ETIMEDOUT", 1.0797, 1),
        (&[("neighbour", "learned")], "EHOSTUNREACH", 3.063, 0),
        // Behind the router, whose questions fail in the very slot in which the time is over.
        (&[("topology", "router"), ("sysctl.tcp_syn_retries", "1")], "ETIMEDOUT", 3.0726, 2),
        (&[router[0], router[1], ("fault.reject", "host-unreachable")], "EHOSTUNREACH", 1.0243, 1),
        (&[router[0], router[1], ("fault.reject", "tcp-reset")], "ECONNREFUSED", 0.0003, 0),
        (&[("fault.kind", "process-crash")], "ECONNREFUSED", 0.0073, 0),
        // The first round trip is the router's question.
        (
            &[("fault.kind", "process-crash"), ("topology", "router"), ("path.rtt", "2s")],
            "ECONNREFUSED",
            4.0055,
            3,
        ),
    ] {
        holds(&[&CONNECT[..], sets].concat(), outcome, measured_s, retransmits);
    }
}

/// Seconds after the call, as measured on Linux 6.18 and 6.12 at HZ=250.
#[test]
fn connections_are_forgotten_as_measured() {
    for (sets, measured_s, retransmits) in [
        (&[("sysctl.tcp_orphan_retries", "3")][..], 6.858, 5),
        (&[("sysctl.tcp_orphan_retries", "1"), ("client.linger", "5s")], 6.848, 5),
        // 0 stands for 8; the defaults, in virtual time.
        (&[], 107.2866, 9),
        (&[("client.linger", "0s")], 0.0001, 0),
    ] {
        holds(&[&CLOSE[..], sets].concat(), "released", measured_s, retransmits);
    }
    for (fin_timeout, measured_s) in
        [("1", 1.0478), ("2", 2.072), ("60", 60.1829), ("61", 2.071), ("62", 4.0878)]
    {
        let sets = [&FROZEN[..], &[("sysctl.tcp_fin_timeout", fin_timeout)]].concat();
        holds(&sets, "released", measured_s, 0);
    }
    let retries = [("sysctl.tcp_retries2", "3")];
    holds(&[&SHUTDOWN[..], &retries].concat(), "ETIMEDOUT", 6.795, 5);
}

#[test]
fn a_second_more_of_fin_timeout_is_a_minute_less() {
    for hz in [100, 250, 300, 1000] {
        let forgotten = |fin_timeout: &str| {
            predict(&[&FROZEN[..], &[("sysctl.tcp_fin_timeout", fin_timeout)]].concat(), hz)
                .hull()
                .unwrap()
        };
        assert!(forgotten("60").0 >= Duration::from_secs(60));
        assert!(forgotten("61").1 < Duration::from_secs(3), "HZ={hz}: {:?}", forgotten("61"));
        assert!(forgotten("120").0 >= Duration::from_secs(120), "60 s, twice");
    }
}

#[test]
fn times_count_from_the_call_or_from_the_crash() {
    assert_eq!(predict(&CONNECT, 250).reference, Reference::Connect);
    assert_eq!(predict(&CLOSE, 250).reference, Reference::Close);
    let crash = predict(&[CONNECT[0], ("fault.kind", "process-crash")], 250);
    assert_eq!(crash.reference, Reference::Fault);
    assert!(crash.hull().unwrap().1 > Duration::from_millis(100), "the call comes within 100 ms");
}

#[test]
fn a_server_that_lives_is_connected_to_and_not_lost() {
    for fault in ["none", "process-freeze"] {
        for sets in [&[("client.traffic", "connect")][..], &[("client.traffic", "shutdown")]] {
            let prediction = predict(&[sets, &[("fault.kind", fault)]].concat(), 250);
            assert_eq!(prediction.windows[0].outcome, Outcome::None, "{fault} {sets:?}");
            assert_eq!(prediction.windows.len(), 1);
        }
    }
    // Three questions of the router's are not enough for its round trip.
    let far = [CONNECT[0], ("topology", "router"), ("path.rtt", "4s")];
    holds(&far, "EHOSTUNREACH", 3.0534, 3);
}

/// A flap behind a router makes copies of the FIN wait there: the second is acknowledged at once,
/// and its round trip makes the RTO, of which FIN_WAIT2 lasts 3.5 at least.
#[test]
fn a_fin_that_waited_makes_fin_wait2_longer() {
    let sets = [
        ("client.traffic", "close"),
        ("topology", "router"),
        ("fault.kind", "flap"),
        ("fault.duration", "300ms"),
        ("sysctl.tcp_fin_timeout", "1"),
    ];
    let prediction = predict(&sets, 250);
    let (earliest, _) = prediction.hull().unwrap();
    assert!(earliest > Duration::from_secs(4), "{prediction:#?}");
}

#[test]
fn a_known_phase_leaves_narrow_windows() {
    for sets in [
        [&CONNECT[..], &[("sysctl.tcp_syn_retries", "3")]].concat(),
        [&CLOSE[..], &[("sysctl.tcp_orphan_retries", "4")]].concat(),
        [&FROZEN[..], &[("sysctl.tcp_fin_timeout", "60")]].concat(),
    ] {
        let parameters = parameters(&sets);
        let mut facts = model::nominal_facts(&parameters, 250);
        let wide = model::predict(&parameters, &facts).hull().unwrap();
        facts.jiffies = Some(JiffyClock { jiffies: 4_295_642_804, at_ns: 3_002_280_000_000 });
        for call_ms in 0..40 {
            let called_ns = 3_002_400_500_000 + call_ms * 1_000_000;
            let prediction = model::predict_after(&parameters, &facts, called_ns);
            for window in &prediction.windows {
                let (earliest, latest) = window.span.unwrap();
                let width = latest.saturating_sub(earliest);
                assert!(width < Duration::from_millis(45), "{sets:?}: {window:?}");
                assert!(wide.0 <= earliest && latest <= wide.1, "{sets:?}: {window:?} {wide:?}");
            }
        }
    }
}

#[test]
fn more_retries_are_never_sooner() {
    for hz in [100, 250, 300, 1000] {
        for (sets, key, most) in [
            (&CONNECT, "sysctl.tcp_syn_retries", 40),
            (&CLOSE, "sysctl.tcp_orphan_retries", 40),
            (&SHUTDOWN, "sysctl.tcp_retries2", 20),
        ] {
            let mut last = (Duration::ZERO, Duration::ZERO);
            for retries in 1..=most {
                let retries = retries.to_string();
                let hull = predict(&[&sets[..], &[(key, retries.as_str())]].concat(), hz).hull();
                let hull = hull.unwrap();
                assert!(hull.0 >= last.0 && hull.1 >= last.1, "HZ={hz} {key}={retries}");
                last = hull;
            }
        }
    }
}

#[test]
fn what_is_sent_again_has_its_own_name() {
    let kinds = |sets: &[(&str, &str)]| -> Vec<StepKind> {
        predict(sets, 250).schedule.iter().map(|step| step.kind).collect()
    };
    let retries = [("sysctl.tcp_syn_retries", "1")];
    let syn = StepKind::SynRetransmission;
    assert_eq!(kinds(&[&CONNECT[..], &retries].concat()), [syn, syn, StepKind::GiveUp]);
    for sets in [&CLOSE, &SHUTDOWN] {
        let kinds = kinds(&[&sets[..], &[("client.user_timeout", "1ms")]].concat());
        let (fin, probe) = (StepKind::FinRetransmission, StepKind::TailLossProbe);
        assert_eq!(kinds, [probe, fin, StepKind::GiveUp]);
    }
}

/// A closed window may end the connection before the server's process is killed, and after that
/// where a forked child keeps its kernel answering.
#[test]
fn a_closed_window_is_not_forgotten_at_a_crash() {
    let closed = [
        ("client.fills_window", "true"),
        ("server.reads", "false"),
        ("fault.kind", "process-crash"),
        ("client.user_timeout", "2s"),
    ];
    let why = |sets: &[(&str, &str)]| predict(&[&closed[..], sets].concat(), 250).unknown;
    assert_eq!(why(&[("fault.after", "100ms")]), None);
    assert!(why(&[("fault.after", "10s")]).is_some_and(|why| why.contains("before the fault")));
    let inherited = [("fault.after", "100ms"), ("server.inherited", "true")];
    assert!(why(&inherited).is_some_and(|why| why.contains("closed window")));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Nothing that is accepted overflows, and nothing ends before its timers can.
    #[test]
    fn whatever_is_accepted_is_predicted(
        hz in prop_oneof![Just(100_u32), Just(250), Just(300), Just(1000)],
        syn_retries in 1_u32..=127,
        linear in 0_u32..=127,
        orphan_retries in 0_u32..=255,
        fin_timeout in 0_u64..=21_474_836,
        linger in prop::option::of(0_u64..=32_767),
        user_timeout_ms in prop::option::of(1_u64..=2_147_483_647),
        closes: bool,
        fault in prop::sample::select(&["power-off", "blackhole", "none", "process-freeze"][..]),
    ) {
        let mut p = parameters(&[("fault.kind", fault)]);
        p.client.traffic = if closes { spec::Traffic::Close } else { spec::Traffic::Connect };
        for (name, value) in [
            ("tcp_syn_retries", syn_retries.into()),
            ("tcp_syn_linear_timeouts", linear.into()),
            ("tcp_orphan_retries", orphan_retries.into()),
            ("tcp_fin_timeout", fin_timeout),
        ] {
            p.sysctl.insert(name.into(), value.to_string());
        }
        p.client.linger = linger.filter(|_| closes).map(Duration::from_secs);
        p.client.user_timeout = user_timeout_ms.map(Duration::from_millis);
        let prediction = model::predict(&p, &model::nominal_facts(&p, hz));
        prop_assert_eq!(&prediction.unknown, &None);
        let early = Duration::from_secs(1) / hz + model::allowance::EARLY;
        for step in &prediction.schedule {
            // Beyond the wheel's capacity, 12 days at HZ=1000, timers do fire early.
            let far = fin_timeout > 1_000_000 && step.kind == StepKind::GiveUp;
            prop_assert!(far || step.earliest + early >= step.nominal, "{:?}", step);
        }
        let first = Duration::from_millis(if closes { 200 } else { 1000 });
        let alive = matches!(fault, "none" | "process-freeze");
        if !alive && linger != Some(0) && let Some((earliest, _)) = prediction.hull() {
            prop_assert!(earliest > first, "{:?}", earliest);
        }
    }
}

/// A request into a cable that is out waits in the host's own queue, and so does the FIN that follows it:
/// the congestion window of one is full, and what the queue held is not sent again when the neighbour entry
/// fails (kernel: 3.159 and 3.178 s after `close`).
#[test]
fn a_fin_that_left_keeps_the_data_before_it_from_being_sent_again() {
    let sets = [
        ("fault.kind", "unplug"),
        ("topology", "direct"),
        ("family", "ipv6"),
        ("neighbour", "learned"),
        ("fault.after", "1s"),
        ("client.traffic", "script"),
        ("client.script", "request 100 5s"),
        ("sysctl.tcp_timestamps", "0"),
        ("sysctl.tcp_orphan_retries", "3"),
    ];
    for measured_s in [3.159, 3.178] {
        holds(&sets, "released", measured_s, 0);
    }
    let (earliest, latest) = predict(&sets, 250).hull().unwrap();
    assert!(latest < earliest + Duration::from_millis(400), "{earliest:?}–{latest:?}");
}
