//! The zero-window probe timer of a connection whose peer has closed its window: `tcp_probe_timer`
//! (net/ipv4/tcp_timer.c), `tcp_send_probe0` (net/ipv4/tcp_output.c), `tcp_ack_probe`
//! (net/ipv4/tcp_input.c).
//!
//! Each probe doubles the time to the next, up to the longest RTO. Here `tcp_retries2` is a number:
//! so many probes in a row without an answer, and the timer's next expiry ends the connection. An
//! answer begins the count anew, but not the doubling; and `TCP_USER_TIMEOUT` counts from the first
//! probe on, answered or not. A live peer does not answer each probe: its kernel answers segments
//! outside its window once in `tcp_invalid_ratelimit` (`tcp_oow_rate_limited`).

use crate::closed_window::{bases, scenes};
use crate::conclude::{conclude, unknown};
use crate::kernel::Kernel;
use crate::prediction::{Prediction, Window};
use crate::start;
use crate::width::{self, Cause};
use crate::windows::{Counted, windows};
use spec::{Facts, Outcome, Parameters};
use std::time::Duration;

/// An idle client whose last data the server's closed window holds back.
pub(crate) fn predict(parameters: &Parameters, facts: &Facts) -> Prediction {
    let kernel = Kernel::new(parameters, facts);
    let scenes = match scenes(&kernel, parameters, facts) {
        Ok(scenes) => scenes,
        Err(reason) => return unknown(parameters, reason),
    };
    let ends = match start::window_ends(&kernel, &scenes) {
        Ok(ends) => ends,
        Err(reason) => return unknown(parameters, reason),
    };
    let counted = Counted {
        while_it_lives: true,
        window_probes: true,
        early_ns: kernel.reference_late_ns(),
        ..Counted::default()
    };
    let mut prediction = conclude(parameters, windows(&ends, &counted, kernel.hz), |prediction| {
        why(&kernel, prediction)
    });
    open_by_rto(&kernel, parameters, facts, &mut prediction);
    prediction
}

fn is_looked(facts: &Facts) -> bool {
    facts.tcp.as_ref().is_some_and(|tcp| tcp.sampled_at_ns > 0)
}

/// Where the socket was not sampled, what of a window's width has no other cause is the RTO's
/// with which the peer's window closed.
pub(crate) fn open_by_rto(
    kernel: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
    prediction: &mut Prediction,
) {
    if !is_looked(facts) {
        let shortest_and_longest = bases(kernel, parameters, facts.tcp.as_ref());
        join(&mut prediction.windows);
        prediction.windows.iter_mut().for_each(the_rest_is_the_rto_s);
        let ms = |jiffies: u64| kernel.hz.to_msecs(jiffies);
        prediction.why += &format!(
            "; the RTO when the window closed was not sampled, {} to {} ms: the data that filled \
             it ended in delayed acknowledgements",
            ms(*shortest_and_longest.start()),
            ms(*shortest_and_longest.end())
        );
    }
}

/// What of a window's width has no other cause is the RTO's.
pub(crate) fn the_rest_is_the_rto_s(window: &mut Window) {
    window.width.retain(|share| share.cause != Cause::Undetermined);
    let named = window.width.iter().map(|share| share.by).sum();
    let whole = window.span.map_or(Duration::ZERO, |(from, to)| to.saturating_sub(from));
    window.width.extend(width::shares([(Cause::Rto, whole.saturating_sub(named))]));
}

/// One window for each outcome and count: between them lie other values of the RTO.
pub(crate) fn join(windows: &mut Vec<Window>) {
    let mut joined: Vec<Window> = Vec::new();
    for window in windows.drain(..) {
        let same = |other: &&mut Window| {
            other.outcome == window.outcome && other.window_probes == window.window_probes
        };
        match joined.iter_mut().find(same) {
            Some(other) => {
                other.span = other
                    .span
                    .zip(window.span)
                    .map(|((from, to), (earliest, latest))| (from.min(earliest), to.max(latest)));
            }
            None => joined.push(window),
        }
    }
    *windows = joined;
}

pub(crate) fn why(kernel: &Kernel, prediction: &Prediction) -> String {
    let Some(window) = prediction.windows.first() else { return String::new() };
    let probes = window.window_probes.unwrap_or(0);
    match (window.outcome, kernel.user_timeout_ms) {
        (Outcome::None, _) => {
            "a closed window is probed for as long as the peer's kernel answers".into()
        }
        (Outcome::TIMED_OUT, Some(ms)) if probes < kernel.retries2 => format!(
            "the first expiry of the probe timer {} s (the user timeout) or more after the first \
             probe ends it, answered or not",
            ms as f64 / 1000.0
        ),
        (Outcome::TIMED_OUT, _) => format!(
            "{} window probes in a row are not answered: for window probes tcp_retries2 is a \
             count, and the next expiry of the timer ends it",
            kernel.retries2
        ),
        _ => "a window probe meets a host that does not know the connection: a RST".into(),
    }
}
