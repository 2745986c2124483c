//! `connect`: SYNs until something answers, or until the kernel gives up.
//!
//! `tcp_connect` (net/ipv4/tcp_output.c) sends the SYN and arms the write timer for
//! `TCP_TIMEOUT_INIT`, a second. `tcp_write_timeout` (net/ipv4/tcp_timer.c) gives up by count
//! (`tcp_syn_retries` and `tcp_syn_linear_timeouts` together) or by time (as long as
//! `tcp_syn_retries` doublings of a second would take, or the user timeout), whichever comes first;
//! the time counts from the SYN. The first `tcp_syn_linear_timeouts` retransmissions leave the RTO
//! as it is.

use crate::conclude::{called_after_crash, conclude, unknown};
use crate::dead_path;
use crate::hop::{self, Hop, Icmp, Limit};
use crate::kernel::Kernel;
use crate::laboratory::nanos;
use crate::prediction::{Prediction, StepKind};
use crate::purpose::Purpose;
use crate::scene::{HopKind, ICMP_NS, Scene};
use crate::world::{Answer, Healed};
use crate::{sending, way};
use spec::effect::{Cable, PathFate};
use spec::{Errno, Facts, Family, FaultKind, Neighbour, Outcome, Parameters, Reject, Topology};
use std::time::Duration;

pub(crate) fn predict(
    parameters: &Parameters,
    facts: &Facts,
    called_ns: Option<u64>,
) -> Prediction {
    let kernel = Kernel::new(parameters, facts);
    let ends = scenes(&kernel, parameters, facts)
        .and_then(|scenes| sending::found(&kernel, facts, &scenes, called_ns));
    let found = match ends {
        Ok(found) => found,
        Err(reason) => return unknown(parameters, reason),
    };
    let prediction = conclude(parameters, found, |prediction| why(&kernel, parameters, prediction));
    let mut prediction = called_after_crash(parameters, prediction, Duration::ZERO);
    if parameters.path.rtt / 2 >= FIRST_SYN {
        for window in &mut prediction.windows {
            window.retransmits = None;
        }
    }
    prediction
}

/// When a SYN is sent again for the first time: `TCP_TIMEOUT_INIT`. A copy that the path still
/// holds back in this very kernel (netem) keeps the next from being sent
/// (`skb_still_in_host_queue`): how many are, is up to what delays the path.
const FIRST_SYN: Duration = Duration::from_secs(1);

/// What may happen to the SYN, apart from the clock's phase.
pub(crate) fn scenes(
    kernel: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
) -> Result<Vec<Scene>, String> {
    let asks = parameters.neighbour == Neighbour::Learned;
    if let Some(reason) = dead_path::own_settings(parameters, facts, None).filter(|_| asks) {
        return Err(reason);
    }
    let healed = healed(parameters);
    let later = Kernel::later(parameters, facts)?;
    // The call comes within 100 ms of the fault; the path heals, and sysctls change, that much
    // earlier, seen from there.
    let moves = later.is_some() || healed.is_some_and(|healed| healed.at_ns > 0);
    let earlier = sending::earlier(moves);
    let scene = |earlier_ns: &u64| Scene {
        purpose: Purpose::Syn,
        rto: u64::from(kernel.hz.get()),
        srtt_us: 0,
        cwnd: 1,
        write_interval_ns: None,
        writes_most: 1,
        later: sending::later_from(parameters, later.as_ref(), *earlier_ns),
        hop: hop(kernel, parameters),
        healed: healed.map(|healed| healed.earlier(*earlier_ns)),
        losses: way::losses(kernel, parameters, 0),
        icmp_ns: ICMP_NS,
        unseen: parameters.fault.kind == FaultKind::Unplug,
    };
    Ok(earlier.iter().map(scene).collect())
}

/// Who answers a SYN, and from when on.
fn healed(parameters: &Parameters) -> Option<Healed> {
    let fault = &parameters.fault;
    let round_trip_ns = (nanos(parameters.path.rtt), 0);
    let back = dead_path::way_back(parameters);
    let at_once = |with| Healed { at_ns: 0, with, moved: false, back, round_trip_ns };
    match fault.kind {
        FaultKind::None | FaultKind::ProcessFreeze => Some(at_once(Answer::Ack)),
        // What the path does not drop is answered.
        FaultKind::Blackhole if fault.packets.is_some() => Some(at_once(Answer::Ack)),
        FaultKind::ProcessCrash => Some(at_once(Answer::Reset)),
        // The router is next door: what delays the path lies behind it.
        FaultKind::Reject if fault.reject == Reject::TcpReset => {
            Some(Healed { round_trip_ns: (0, 0), ..at_once(Answer::Reset) })
        }
        FaultKind::Flap | FaultKind::Reboot | FaultKind::Takeover => {
            let moved = fault.moves() && parameters.topology != Topology::Router;
            if moved && parameters.neighbour == Neighbour::Permanent {
                return None;
            }
            // A rebooted host's server listens again.
            let healed = Healed { moved, ..at_once(Answer::Ack) };
            Some(healed.from(nanos(parameters.fault_duration()?)))
        }
        FaultKind::PowerOff
        | FaultKind::Blackhole
        | FaultKind::Mtu
        | FaultKind::Reject
        | FaultKind::Forget
        | FaultKind::Unplug => None,
    }
}

/// Where the SYN goes. Before it nothing was sent, so that no host has learned an address.
fn hop(kernel: &Kernel, parameters: &Parameters) -> HopKind {
    let fault = &parameters.fault;
    let ipv4 = parameters.family == Family::Ipv4;
    let limit = Limit::of_router(kernel, parameters.family);
    // `tcp_v6_err` takes no doubling back before there is a connection.
    let unreachable = Icmp { error: Errno::EHOSTUNREACH, reverts: ipv4 };
    let router = parameters.topology == Topology::Router;
    let effect = fault.effect();
    match effect.path {
        PathFate::Rejected if fault.reject == Reject::TcpReset => {
            return HopKind::Fixed(Hop::Silent);
        }
        PathFate::Rejected => {
            let icmp = dead_path::icmp_of(parameters.family, fault.reject);
            let icmp = Icmp { reverts: icmp.reverts && ipv4, ..icmp };
            return HopKind::Fixed(Hop::Rejects(limit, icmp));
        }
        PathFate::Silent if router => return HopKind::Fixed(Hop::Silent),
        PathFate::Silent | PathFate::Open | PathFate::Forgotten | PathFate::Sieved => {}
    }
    match (router, parameters.neighbour) {
        (true, _) if effect.cable == Cable::CarrierLost => HopKind::Fixed(Hop::Silent),
        (true, _) => HopKind::Fixed(Hop::Asks(hop::Neighbour::unknown(false), limit, unreachable)),
        (false, Neighbour::Learned) => {
            HopKind::Fixed(Hop::Asks(hop::Neighbour::unknown(true), Limit::none(), unreachable))
        }
        (false, Neighbour::Permanent) => HopKind::Fixed(Hop::Silent),
    }
}

fn why(kernel: &Kernel, parameters: &Parameters, prediction: &Prediction) -> String {
    let Some(window) = prediction.windows.first() else { return String::new() };
    let again =
        prediction.schedule.iter().filter(|step| step.kind == StepKind::SynRetransmission).count();
    match window.outcome {
        Outcome::None if again == 0 => "the server's kernel answers the SYN".into(),
        Outcome::None => "a SYN gets through before the kernel gives up".into(),
        Outcome::Errno(Errno::ECONNREFUSED) if parameters.fault.kind == FaultKind::ProcessCrash => {
            "no socket listens on the port any more: the server's kernel answers the SYN with a \
             RST"
            .into()
        }
        Outcome::Errno(Errno::ETIMEDOUT) => why_timed_out(kernel, window.span, again),
        _ if parameters.fault.kind == FaultKind::Reject => {
            if parameters.fault.reject == Reject::TcpReset {
                "the router answers the SYN with a RST".into()
            } else if again == 0 {
                "the ICMP error for the first SYN may come when `connect` has returned already (this \
                 kernel leaves what comes in to `ksoftirqd` while that runs): it ends the attempt"
                    .into()
            } else {
                "the ICMP error for the first SYN comes back while `connect` itself still holds \
                 the socket, and is put aside; the one for the second ends the attempt"
                    .into()
            }
        }
        _ => "three questions for the link-layer address, a second apart, go unanswered: a host \
              unreachable ends the attempt"
            .into(),
    }
}

fn why_timed_out(kernel: &Kernel, span: Option<(Duration, Duration)>, again: usize) -> String {
    let end = span.map_or(0.0, |(earliest, _)| earliest.as_secs_f64());
    let patience = crate::rto::syn_patience_ms(kernel) as f64 / 1000.0;
    let most = kernel.syn_retries + kernel.syn_linear_timeouts;
    if end < patience {
        return format!("the kernel sends a SYN again {most} times at most");
    }
    let name = match kernel.user_timeout_ms {
        Some(_) => "TCP_USER_TIMEOUT",
        None => "tcp_syn_retries doublings of a second",
    };
    format!(
        "the kernel gives up at the first timeout at least {patience} s (from {name}) after the SYN: \
         timeout {}, at {end:.1} s",
        again + 1
    )
}
