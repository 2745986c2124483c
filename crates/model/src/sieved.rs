//! A path that drops some packets and lets others pass.

use crate::black_hole;
use crate::conclude::{lives_on, unknown};
use crate::kernel::Kernel;
use crate::prediction::Prediction;
use crate::{connecting, idle, scripted};
use spec::experiment::BLOCK;
use spec::script::Step;
use spec::{
    Drops, Facts, Neighbour, Outcome, Parameters, Program, Script, Sieve, Topology, Traffic,
};
use std::time::Duration;

/// The prediction, where some packets pass that way; `None`: none does, and the client's own timers
/// alone can tell.
pub(crate) fn predict(
    parameters: &Parameters,
    facts: &Facts,
    first_write_ns: Option<u64>,
) -> Option<Prediction> {
    if let Some(reason) = not_known(parameters) {
        return Some(unknown(parameters, reason.into()));
    }
    let sieve = parameters.fault.sieve()?;
    let client = &parameters.client;
    let again = || scripted::predict_once(parameters, facts, first_write_ns);
    match (sieve.drops, client.traffic) {
        (Drops::All, _) => None,
        (Drops::Share(..), _) if !client.keepalive.enabled => {
            let why = "an idle connection without keepalive sends nothing that could be lost";
            Some(lives_on(parameters, why.into()))
        }
        (Drops::Next(_) | Drops::Share(..), Traffic::Idle) if !client.fills_window => {
            Some(idle::predict(&Kernel::new(parameters, facts), parameters, facts))
        }
        (Drops::Next(_), Traffic::Connect) => {
            Some(connecting::predict(parameters, facts, first_write_ns))
        }
        (Drops::Next(_) | Drops::Share(..), _) => {
            let mut prediction = without_peer_again(parameters, sieve, again());
            if parameters.script().as_ref().is_some_and(leaves_several) {
                prediction.windows.iter_mut().for_each(|window| window.retransmits = None);
            }
            Some(prediction)
        }
        (Drops::Longer(_), _) => black_hole::predict(parameters, facts, again),
    }
}

/// What the lost answers of the peer's program do: its kernel sends them again by itself, so that the
/// path is used up sooner, and something comes sooner than the model has it.
fn without_peer_again(
    parameters: &Parameters,
    sieve: Sieve,
    mut prediction: Prediction,
) -> Prediction {
    let answers = matches!(parameters.client.traffic, Traffic::OneWrite | Traffic::Stream);
    if sieve.to_lost || !answers || prediction.unknown.is_some() {
        return prediction;
    }
    if prediction.windows.iter().any(|window| window.outcome != Outcome::None) {
        return unknown(parameters, SENDS_AGAIN.into());
    }
    for window in &mut prediction.windows {
        window.retransmits = None;
    }
    prediction
}

/// Whether a FIN is lost behind several segments: which of them it is gathered with when they come again
/// is up to how many of them an acknowledgement lets leave.
fn leaves_several(script: &Script) -> bool {
    let lets_go = script.steps.iter().any(|step| matches!(step, Step::Close | Step::Shutdown));
    let bytes = script.steps.iter().map(|step| match step {
        Step::Write(bytes) | Step::Request(bytes, _) => *bytes,
        Step::Wait(_) | Step::Close | Step::Shutdown => 0,
    });
    lets_go && bytes.sum::<u32>() > BLOCK
}

/// Why nothing can be said, if nothing can.
pub(crate) fn not_known(parameters: &Parameters) -> Option<&'static str> {
    let Sieve { to_lost, to_survivor, drops } = parameters.fault.sieve()?;
    let Parameters { client, server, fault, .. } = parameters;
    let acknowledged = UNACKNOWLEDGED + parameters.path.rtt;
    let is_unfinished =
        to_lost && server.reads && client.traffic != Traffic::Connect && fault.after < acknowledged;
    let acks_pass = matches!(drops, Drops::Longer(_)) || (drops == Drops::All && to_survivor);
    if is_unfinished && !acks_pass {
        return Some(UNFINISHED);
    }
    match drops {
        Drops::All if to_survivor => None,
        Drops::All if server.program != Program::Halfopen => Some(STILL_SENDS),
        Drops::All => {
            let asks = parameters.neighbour == Neighbour::Learned
                && parameters.topology == Topology::Switch
                && fault.after >= BELIEVED;
            asks.then_some(ASKS)
        }
        Drops::Share(..) => {
            let sends = client.traffic != Traffic::Idle
                || client.fills_window
                || parameters.predicts_anew();
            sends.then_some(CHANCE)
        }
        // That depends on the calls, and on the kernel.
        Drops::Longer(_) => None,
        // Nothing reaches the server before the path is used up, unless it is used up the other way.
        Drops::Next(_) if to_lost => None,
        Drops::Next(_) => match client.traffic {
            Traffic::Heartbeat | Traffic::Connect => Some(SENDS_AGAIN),
            Traffic::Script => {
                let script = client.script.as_ref();
                let answered = script.is_some_and(|script| {
                    script.requests() || parameters.predicts_anew() && script.writes()
                });
                answered.then_some(SENDS_AGAIN)
            }
            Traffic::Idle
            | Traffic::OneWrite
            | Traffic::Stream
            | Traffic::Close
            | Traffic::Shutdown => None,
        },
    }
}

/// `TCP_DELACK_MIN` is 40 ms; and what a busy machine takes.
const UNACKNOWLEDGED: Duration = Duration::from_millis(60);
/// A neighbour entry is believed for longer than this, whatever the random part of it.
const BELIEVED: Duration = Duration::from_secs(10);
const UNFINISHED: &str = "the fault comes before the server's kernel has the acknowledgement of its \
                          last answer: it sends that again, and what comes back moves timers";
const STILL_SENDS: &str = "what goes to the client still arrives, and when the server's program sends \
                           something is not known";
const ASKS: &str = "the server's host may ask for the client's link-layer address, and its question \
                    still arrives: when is random";
const CHANCE: &str = "chance decides which packets are lost";
const SENDS_AGAIN: &str = "an answer of the server's is lost, and its kernel sends that again by itself: \
                           when is not modelled";
