//! The server's process ends or stops, its host lives on: the kernel there answers for it.
//!
//! `exit_files` closes the socket like `close` does (`__tcp_close`, net/ipv4/tcp.c): with a FIN, or
//! with a RST if data was left unread or `SO_LINGER` is 0. A stopped process changes nothing for
//! its kernel, which acknowledges for as long as there is room.

use crate::allowance;
use crate::conclude::{lives_on, unknown};
use crate::prediction::{Prediction, Window};
use crate::tick::Hz;
use crate::width::{self, Cause};
use crate::window;
use spec::{Errno, Facts, FaultKind, Outcome, Parameters, Reference, Traffic};
use std::time::Duration;

/// How a living peer ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// By a FIN.
    Fin,
    /// By a RST.
    Rst,
}

/// SIGKILL to the server process. The client writes once it is gone: what arrives before that would
/// count as unread.
pub(crate) fn predict(parameters: &Parameters, facts: &Facts) -> Prediction {
    let server = &parameters.server;
    if let Some(reason) = given_up(parameters, facts) {
        return unknown(parameters, reason);
    }
    if server.inherited {
        let why = "a forked child still holds the socket: the kernel closes nothing and goes on \
                   acknowledging";
        let mut prediction = lives_on(parameters, why.into());
        prediction.reference = Reference::Fault;
        return prediction;
    }
    let (outcome, why) = if !server.reads {
        let why = "the server's kernel discards unread data, and sends a RST instead of a FIN";
        (Outcome::Errno(Errno::ECONNRESET), why)
    } else if server.linger == Some(Duration::ZERO) {
        let why = "SO_LINGER with 0 seconds makes the closing of the socket a RST";
        (Outcome::Errno(Errno::ECONNRESET), why)
    } else if server.fills_window {
        if !parameters.path.rtt.is_zero() {
            let reason = "how many round trips the unsent data need before the FIN follows them \
                          is up to congestion control";
            return unknown(parameters, reason.into());
        }
        let why = "the server's kernel still has what the killed process wrote, and sends all of \
                   it before the FIN, once the client reads";
        (Outcome::Eof, why)
    } else {
        let why = "the server's kernel closes the socket of the killed process: its FIN arrives \
                   before anything that the client sends is answered";
        (Outcome::Eof, why)
    };
    let one_way = round_trip(parameters, facts) / 2;
    let earliest = (parameters.path.rtt / 2).saturating_sub(allowance::EARLY);
    // The client reads within 100 ms of the fault, and until then its window is closed.
    let reads = if server.fills_window { BEGINS } else { Duration::ZERO };
    let hz = Hz::new(facts.hz);
    let latest = reads + one_way + allowance::EXIT + allowance::late(hz);
    let causes = [
        (Cause::ProcessExit, allowance::EXIT),
        (Cause::RoundTrip, one_way.saturating_sub(parameters.path.rtt / 2)),
        (Cause::Call, reads),
    ];
    let window = Window::new(outcome, Some((earliest, latest)))
        .because(causes.into_iter().chain(width::allowed(hz)));
    Prediction::of(Reference::Fault, vec![window], why)
}

/// The peer's host lives on, and its FIN or RST was seen to leave at the moment that times count from:
/// it passes the path, and the client's kernel takes it in a softirq (`tcp_fin`, `tcp_reset`,
/// net/ipv4/tcp_input.c), which waits for a scheduling slice at most.
pub(crate) fn farewell(parameters: &Parameters, hz: u32, farewell: Farewell) -> Prediction {
    let (outcome, what) = match farewell {
        Farewell::Fin => (Outcome::Eof, "FIN"),
        Farewell::Rst => (Outcome::Errno(Errno::ECONNRESET), "RST"),
    };
    let one_way = parameters.path.rtt / 2;
    // What delays a path is an hrtimer, which without high resolution waits for the tick.
    let tick = if one_way.is_zero() { Duration::ZERO } else { Hz::new(hz).duration(1) };
    let span = (one_way.saturating_sub(allowance::EARLY), one_way + tick + allowance::SLICE);
    let causes = [
        (Cause::Tick, tick),
        (Cause::Slice, allowance::SLICE),
        (Cause::Clocks, one_way.min(allowance::EARLY)),
    ];
    let why = format!(
        "nothing tells the client until the server's program ends the connection: its {what}"
    );
    let window = Window::new(outcome, Some(span)).because(causes);
    Prediction::of(Reference::Fault, vec![window], parameters.named(&why))
}

/// Why a connection whose window the server keeps closed may have come to its end by itself: before
/// the process is killed, or after that, where its kernel lives on and nothing is closed.
fn given_up(parameters: &Parameters, facts: &Facts) -> Option<String> {
    if !parameters.client.fills_window {
        return None;
    }
    let mut alive = parameters.clone();
    alive.fault.kind = FaultKind::None;
    let closed = window::predict(&alive, facts);
    let ends = closed.windows.iter().any(|window| window.outcome != Outcome::None);
    let after = "the client's kernel gives the connection up by the probes of the closed window, \
                 and those do not count from the crash";
    closed.unknown.or((parameters.server.inherited && ends).then(|| after.to_owned()))
}

/// SIGSTOP to the server process.
pub(crate) fn predict_freeze(parameters: &Parameters) -> Prediction {
    let client = &parameters.client;
    let fills = client.traffic == Traffic::Stream
        && parameters.fault.duration.is_none()
        && parameters.deadline.is_some_and(|deadline| deadline > WINDOW_OPEN);
    if fills && client.user_timeout.is_some() {
        return unknown(parameters, FILLS.into());
    }
    lives_on(
        parameters,
        "a stopped process says nothing to its kernel, which goes on acknowledging".into(),
    )
}

/// The client begins its traffic this long after the fault at most.
const BEGINS: Duration = Duration::from_millis(100);
/// Why it is not known what a stopped server makes of more than surely fits.
pub(crate) const FILLS: &str = "how much a stopped server's kernel takes in before its window closes, and the user \
                                timeout begins to count, depends on its memory accounting";
/// What surely fits, bytes.
pub(crate) const FITS: u64 = 30_000;
/// How long a stream of 2,000 bytes a second surely fits into a receive buffer of the default
/// 128 KiB, of which half is window.
const WINDOW_OPEN: Duration = Duration::from_secs(15);

/// The round trip as it was measured, or as it was asked for.
pub(crate) fn round_trip(parameters: &Parameters, facts: &Facts) -> Duration {
    let measured = facts.tcp.as_ref().map(|tcp| Duration::from_micros(tcp.srtt_us.into()));
    measured.unwrap_or_default().max(parameters.path.rtt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_farewell_that_was_seen_to_leave_needs_the_path_and_a_slice() {
        let mut parameters = Parameters::default();
        let span = |parameters: &Parameters| {
            let prediction = farewell(parameters, 250, Farewell::Fin);
            prediction.windows[0].span.map(|(from, to)| (from.as_micros(), to.as_micros()))
        };
        assert_eq!(span(&parameters), Some((0, 2_800)));
        parameters.path.rtt = Duration::from_millis(100);
        assert_eq!(span(&parameters), Some((49_500, 56_800)), "an hrtimer waits for the tick");
        let reset = farewell(&parameters, 250, Farewell::Rst);
        assert_eq!(reset.windows[0].outcome, Outcome::Errno(Errno::ECONNRESET));
    }
}
