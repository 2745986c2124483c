//! Paths that drop some packets and let others pass.

mod common;

use common::parameters;
use spec::Outcome;

fn predict(sets: &[(&str, &str)]) -> model::Prediction {
    let sets = [&[("fault.kind", "blackhole")], sets].concat();
    let parameters = parameters(&sets);
    model::predict(&parameters, &model::nominal_facts(&parameters, 250))
}

const KEEPALIVE: [(&str, &str); 4] = [
    ("client.keepalive.enabled", "true"),
    ("client.keepalive.idle", "5s"),
    ("client.keepalive.interval", "2s"),
    ("client.keepalive.probes", "3"),
];

fn with_keepalive(sets: &[(&str, &str)]) -> model::Prediction {
    predict(&[&KEEPALIVE[..], sets].concat())
}

/// Seconds of the earliest end.
fn earliest(prediction: &model::Prediction) -> f64 {
    prediction.hull().unwrap_or_else(|| panic!("{prediction:?}")).0.as_secs_f64()
}

/// Keepalive looks at the user timeout when its timer fires after a probe: the first check is at 7 s.
#[test]
fn one_lost_probe_kills_where_the_user_timeout_is_over_before_the_next() {
    let one = ("fault.packets", "1");
    let killed = with_keepalive(&[one, ("client.user_timeout", "4s")]);
    assert!((7.0..7.2).contains(&earliest(&killed)), "{killed:?}");
    assert_eq!(killed.windows[0].keepalive_probes, Some(1));
    let lives = with_keepalive(&[one, ("client.user_timeout", "16s")]);
    assert_eq!(lives.windows[0].outcome, Outcome::None);
}

/// Which way they are lost makes no difference to who waits for answers.
#[test]
fn as_many_lost_packets_as_probes_end_it_and_one_less_does_not() {
    for direction in ["both", "to-server", "to-client"] {
        let direction = ("fault.direction", direction);
        let dead = with_keepalive(&[direction, ("fault.packets", "3")]);
        let all = with_keepalive(&[direction]);
        assert!((earliest(&dead) - earliest(&all)).abs() < 0.01, "{direction:?} {dead:?} {all:?}");
        let lives = with_keepalive(&[direction, ("fault.packets", "2")]);
        assert_eq!(lives.windows[0].outcome, Outcome::None, "{direction:?}");
    }
}

#[test]
fn a_write_gets_through_unless_more_is_lost_than_it_is_sent() {
    let write = [("client.traffic", "one-write"), ("sysctl.tcp_retries2", "3")];
    let of = |packets| predict(&[&write[..], &[("fault.packets", packets)]].concat());
    assert_eq!(of("5").windows[0].outcome, Outcome::None);
    let all = predict(&write);
    assert!((earliest(&of("6")) - earliest(&all)).abs() < 0.3, "{:?} {all:?}", of("6"));
}

/// The packets that a seed loses are known: the sixth probe of seed 1 is the third in a row.
#[test]
fn chance_is_known_from_its_seed() {
    let lossy = [("fault.loss", "30%"), ("fault.seed", "1")];
    let dead = with_keepalive(&lossy);
    assert_eq!(dead.windows[0].outcome, Outcome::TIMED_OUT);
    assert_eq!(dead.windows[0].keepalive_probes, Some(5), "{dead:?}");
    let soon = with_keepalive(&[&lossy[..], &[("deadline", "10s")]].concat());
    assert_eq!(soon.windows[0].outcome, Outcome::None, "the trial is over before: {soon:?}");
    let writes = predict(&[&lossy[..], &[("client.traffic", "stream")]].concat());
    assert!(writes.unknown.is_some_and(|why| why.contains("chance")));
    let idle = predict(&lossy);
    assert_eq!(idle.windows[0].outcome, Outcome::None);
}

#[test]
fn what_the_other_kernel_sends_again_is_not_guessed() {
    for sets in [
        &[("fault.direction", "to-server"), ("fault.after", "20ms")][..],
        &[("fault.packets", "1"), ("fault.after", "20ms")],
        &[
            ("fault.direction", "to-client"),
            ("fault.packets", "1"),
            ("client.traffic", "script"),
            ("client.script", "request 100 5s"),
        ],
    ] {
        let prediction = predict(sets);
        let why = prediction.unknown.unwrap_or_default();
        assert!(why.contains("sends that again"), "{sets:?}: {why}");
    }
}

/// What the client sends is lost until the path is used up, and then it is answered: held against the kernel
/// in virtual time, as are the seconds.
#[test]
fn what_is_lost_a_number_of_times_gets_through_the_next_time() {
    let of = |traffic, packets, more: &[(&str, &str)]| {
        let sets = [("client.traffic", traffic), ("fault.packets", packets)];
        predict(&[&sets[..], more].concat())
    };
    for (packets, measured_s) in [("1", 62.229), ("3", 62.228), ("6", 68.373), ("12", 107.284)] {
        for direction in ["both", "to-server", "to-client"] {
            let released = of("close", packets, &[("fault.direction", direction)]);
            let (from, to) = released.hull().unwrap();
            assert!((from.as_secs_f64()..=to.as_secs_f64()).contains(&measured_s), "{released:?}");
        }
        assert_eq!(of("shutdown", packets, &[]).windows[0].outcome, Outcome::None);
    }
    let syn = ("sysctl.tcp_syn_retries", "1");
    let connected = of("connect", "2", &[syn]);
    assert_eq!(connected.windows[0].outcome, Outcome::None);
    assert_eq!(of("connect", "9", &[syn]).windows[0].outcome, Outcome::TIMED_OUT);
    let beats = of("heartbeat", "3", &[]);
    assert_eq!((beats.unknown, beats.windows[0].outcome), (None, Outcome::None));
    for traffic in ["heartbeat", "connect"] {
        let why = of(traffic, "1", &[("fault.direction", "to-client")]).unknown.unwrap();
        assert!(why.contains("sends that again"), "{traffic}: {why}");
    }
}

/// The connection is over before the program makes its call.
#[test]
fn a_router_that_answers_a_probe_before_the_fault_leaves_nothing_to_predict() {
    let forget = [("fault.kind", "forget"), ("topology", "router"), ("fault.idle", "1s")];
    let of = |answer, after| {
        let sets = [
            ("fault.answer", answer),
            ("fault.after", after),
            ("client.traffic", "close"),
            ("client.keepalive.enabled", "true"),
            ("client.keepalive.idle", "2s"),
        ];
        let parameters = parameters(&[&forget[..], &sets].concat());
        model::predict(&parameters, &model::nominal_facts(&parameters, 250)).unknown
    };
    assert!(of("tcp-reset", "2540ms").unwrap().contains("before the fault a keepalive probe"));
    assert_eq!(of("tcp-reset", "1500ms"), None);
    assert_eq!(of("silent", "2540ms"), None);
}

/// `tcp_sacktag_one`, `tcp_clean_rtx_queue`: what comes behind a lost segment gives a round trip. On a path that
/// was slow and is not now, an eighth of the difference is gone from the RTO; without SACK it is not.
#[test]
fn a_segment_behind_a_lost_one_gives_a_round_trip() {
    let parameters = parameters(&[
        ("fault.kind", "mtu"),
        ("fault.mtu", "1400"),
        ("client.traffic", "script"),
        ("client.script", "write 4000"),
        ("sysctl.tcp_retries2", "3"),
    ]);
    let mut facts = model::nominal_facts(&parameters, 250);
    let tcp = facts.tcp.as_mut().unwrap();
    (tcp.srtt_us, tcp.rttvar_us, tcp.rto_us) = (48_000, 50_000, 248_000);
    let with_sack = earliest(&model::predict(&parameters, &facts));
    facts.tcp.as_mut().unwrap().options &= !2; // TCPI_OPT_SACK
    let without = earliest(&model::predict(&parameters, &facts));
    // Four timeouts, 15 times the first, less the 14 ms after which RACK sends again and starts it.
    assert!((0.05..0.13).contains(&(without - with_sack)), "{with_sack} {without}");
}
