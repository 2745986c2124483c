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
