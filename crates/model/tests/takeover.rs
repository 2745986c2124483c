//! Another host takes the server's address over.

mod common;

use common::parameters;
use spec::Outcome;

fn predict(sets: &[(&str, &str)]) -> model::Prediction {
    let parameters = parameters(sets);
    model::predict(&parameters, &model::nominal_facts(&parameters, 250))
}

const LEARNED: [(&str, &str); 4] = [
    ("neighbour", "learned"),
    ("client.traffic", "one-write"),
    ("fault.duration", "1s"),
    ("sysctl.tcp_retries2", "8"),
];

fn learned(sets: &[(&str, &str)]) -> model::Prediction {
    predict(&[&LEARNED[..], sets].concat())
}

/// Who is told of the new link-layer address finds the other host as one that has kept it; who is not
/// must find out by itself.
#[test]
fn an_announcement_makes_the_new_address_known() {
    let reboot = ("fault.kind", "reboot");
    let takeover = ("fault.kind", "takeover");
    assert_eq!(learned(&[takeover]).windows, learned(&[reboot]).windows);
    let silent = learned(&[takeover, ("fault.announce", "false")]);
    assert_eq!(silent.windows, learned(&[reboot, ("fault.new_mac", "true")]).windows);
    assert_ne!(silent.windows, learned(&[takeover]).windows);
}

#[test]
fn what_is_pinned_to_the_old_address_never_reaches_the_other_host() {
    let pinned = predict(&[("fault.kind", "takeover"), ("client.traffic", "one-write")]);
    assert!(pinned.windows.iter().all(|window| window.outcome == Outcome::TIMED_OUT));
}

/// What waits for an answer then goes at once.
#[test]
fn an_announcement_to_who_may_be_asking_is_not_guessed() {
    let takeover = ("fault.kind", "takeover");
    let late = learned(&[takeover, ("fault.duration", "30s")]);
    assert!(late.unknown.is_some_and(|why| why.contains("asking")));
    let router = [takeover, ("topology", "router")];
    let writes = predict(&[&router[..], &[("client.traffic", "one-write")]].concat());
    assert!(writes.unknown.is_some_and(|why| why.contains("asking")));
    let idle = predict(&[&router[..], &[("client.keepalive.enabled", "true")]].concat());
    assert_eq!(idle.unknown, None);
}
