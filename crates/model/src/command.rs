//! A connection of a program that does as it likes: what happens if it stays as it is.

use crate::{Prediction, predict, predict_after};
use spec::{Facts, FaultKind, Parameters, SocketOptions, Traffic};
use std::time::Duration;

/// What is known of a program's connection, beside the facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Observed {
    /// When the program first wrote something new after the fault, `CLOCK_MONOTONIC`, nanoseconds.
    pub first_write_ns: Option<u64>,
    /// Whether it wrote again before the first segment was sent again.
    pub wrote_again: bool,
    /// Whether something that it had sent before was not read by the other program at the fault.
    pub unread: bool,
}

/// The settings of the trial as this connection has them: its socket's options, and what was
/// observed, take the place of what our own client is told.
pub fn parameters(parameters: &Parameters, facts: &Facts, observed: Observed) -> Parameters {
    let mut own = parameters.clone();
    let options = facts.tcp.as_ref().and_then(|tcp| tcp.options_set.clone()).unwrap_or_default();
    let SocketOptions { keepalive, keepidle_s, keepintvl_s, keepcnt, .. } = options;
    let seconds = |value: Option<u32>| value.map(|value| Duration::from_secs(value.into()));
    let millis = |value: Option<u32>| {
        value.filter(|value| *value > 0).map(|value| Duration::from_millis(value.into()))
    };
    own.client.traffic =
        if observed.first_write_ns.is_some() { Traffic::OneWrite } else { Traffic::Idle };
    own.client.keepalive.enabled = keepalive == Some(true);
    own.client.keepalive.idle = seconds(keepidle_s);
    own.client.keepalive.interval = seconds(keepintvl_s);
    own.client.keepalive.probes = keepcnt;
    own.client.user_timeout = millis(options.user_timeout_ms);
    // Where the socket has no value of its own this is the sysctl's, which says the same.
    own.client.rto_max = options.rto_max_ms.map(|ms| Duration::from_millis(ms.into()));
    own.client.thin_linear_timeouts = options.thin_linear_timeouts == Some(true);
    own.server.reads = !observed.unread;
    own
}

/// What its kernel will report, and when, if the program does nothing but what was observed.
pub fn predict_program(trial: &Parameters, facts: &Facts, observed: Observed) -> Prediction {
    let own = parameters(trial, facts, observed);
    let unknown = |reason: &str| Prediction {
        reference: crate::conclude::reference(&own),
        windows: Vec::new(),
        schedule: Vec::new(),
        why: reason.into(),
        unknown: Some(reason.into()),
    };
    let Some(tcp) = &facts.tcp else {
        return unknown("the socket could not be sampled just before the fault");
    };
    if tcp.options_set.is_none() {
        return unknown("the socket's options could not be read just before the fault");
    }
    let is_path = !matches!(
        own.fault.kind,
        FaultKind::None | FaultKind::ProcessCrash | FaultKind::ProcessFreeze
    );
    if is_path && (tcp.unacked > 0 || tcp.notsent_bytes > 0) {
        return unknown("something was sent and not acknowledged at the moment of the fault");
    }
    if is_path && observed.wrote_again {
        return unknown("the program wrote again before the first segment was sent again");
    }
    match observed.first_write_ns {
        Some(at_ns) if is_path => predict_after(&own, facts, at_ns),
        _ => predict(&own, facts),
    }
}
