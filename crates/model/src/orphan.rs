//! A process that is killed while the path is away. Its kernel closes the socket: a RST is sent once and
//! lost, and the socket is gone. A FIN is sent again by a socket that no process has, until it is acknowledged or
//! `tcp_orphan_retries` ends it (`tcp_write_timeout`, net/ipv4/tcp_timer.c).

use crate::allowance;
use crate::closing;
use crate::kernel::Kernel;
use crate::laboratory::{SLOP, SLOP_NS, nanos};
use crate::prediction::{StepKind, Window};
use crate::width::{self, Cause};
use crate::world::{Answer, Sequence};
use spec::facts::TcpFacts;
use spec::{Facts, FaultKind, Neighbour, Outcome, Parameters, Topology, Traffic};
use std::time::Duration;

pub(crate) const WHY_EOF: &str = "the killed process's kernel sends its FIN again and again, and one of them comes once \
                                  the path is back";
/// Why a process that is killed or stopped when the client may have closed or shut down is not predicted.
pub(crate) const BOTH_END: &str = "what the killed or stopped process, or its kernel, says to a client that may have \
                                   closed, or shut down, is not modelled";
const ASKS: &str = "the path is away when the process is killed: whether its kernel still knows the client's link-layer \
                    address, or asks for it in vain, is not followed";
const NOBODY_READS: &str =
    "a forked child still holds the socket, and what is sent once the path is back nobody reads";
const NOT_SAMPLED: &str =
    "the killed process's kernel sends its FIN again by its own timeouts, and its RTO is not known";
const NOT_SETTLED: &str = "the killed process's kernel still had something to send, or to send again, and its FIN \
                           follows that: when, is not known";
const GIVES_UP: &str = "the killed process's kernel sends its FIN for the last time before the path is back, and gives up after that";
/// By how much later than planned a path may be back where time is virtual.
const BACK_LATE_NS: u64 = 2_000_000;

/// When something happens at the earliest and at the latest, nanoseconds after the first fault.
type Within = (u64, u64);

/// The ways that the farewell of a process's kernel may take, which the last of these faults, `own`, kills while the
/// path is away; the sequence as it is where that is not so, or the path does not come back.
pub(crate) fn closed(
    own: &Parameters,
    facts: &Facts,
    sequence: Sequence,
) -> Result<Vec<Sequence>, String> {
    let left = own.fault.still.and_then(|still| still.left);
    let Some(left) = left else { return Ok(vec![sequence]) };
    if own.neighbour == Neighbour::Learned {
        return Err(ASKS.into());
    }
    let server = &own.server;
    if server.inherited {
        let is_idle = own.client.traffic == Traffic::Idle;
        return if is_idle { Ok(vec![sequence]) } else { Err(NOBODY_READS.into()) };
    }
    let back_ns = sequence.last_ns.saturating_add(nanos(left));
    let fins = if !server.reads || server.linger == Some(Duration::ZERO) {
        vec![None]
    } else {
        if own.client_says_goodbye() {
            return Err(BOTH_END.into());
        }
        fins(own, facts, (sequence.last_ns, back_ns))?
    };
    let closed = |fin_ns: &Option<Within>| {
        let mut closed = Sequence { fin_ns: *fin_ns, ..sequence.clone() };
        let with = if fin_ns.is_some() { Answer::Orphan } else { Answer::Reset };
        let away = closed.outages.last_mut();
        away.and_then(|away| away.healed.as_mut())
            .into_iter()
            .for_each(|healed| healed.with = with);
        closed
    };
    Ok(fins.iter().map(closed).collect())
}

/// When the first FIN arrives that is sent once the path is back; more than one where it may just miss
/// that. `None`: it has been given up by then.
fn fins(
    own: &Parameters,
    facts: &Facts,
    (killed_ns, back_ns): Within,
) -> Result<Vec<Option<Within>>, String> {
    let tcp = facts.server_tcp.as_ref().ok_or(NOT_SAMPLED)?;
    if tcp.unacked > 0 || tcp.notsent_bytes > 0 || tcp.total_retrans.is_some_and(|count| count > 0)
    {
        return Err(NOT_SETTLED.into());
    }
    let (parameters, facts) = as_client(own, facts, tcp);
    let prediction = closing::predict(&parameters, &facts, None);
    if let Some(reason) = prediction.unknown {
        return Err(reason);
    }
    let kernel = Kernel::new(&parameters, &facts);
    let (acts_ns, back_late_ns) =
        if kernel.virtual_time { (0, BACK_LATE_NS) } else { (SLOP_NS, SLOP_NS) };
    let killed_until_ns = killed_ns + nanos(allowance::EXIT) + acts_ns;
    let one_way_ns = nanos(own.path.rtt) / 2;
    let mut found = Vec::new();
    for step in &prediction.schedule {
        let sent = (killed_ns + nanos(step.earliest), killed_until_ns + nanos(step.latest));
        if sent.1 < back_ns {
            continue;
        }
        if step.kind == StepKind::GiveUp {
            return Err(GIVES_UP.into());
        }
        found.push(Some((sent.0.max(back_ns) + one_way_ns, sent.1 + one_way_ns)));
        if sent.0 >= back_ns + back_late_ns {
            return Ok(found);
        }
    }
    found.push(None);
    Ok(found)
}

/// What makes the window of the FIN as wide as it is: the timers of the server that send it again have slots of
/// their own.
pub(crate) fn of_fin(window: &mut Window) {
    if window.outcome == Outcome::Eof {
        let causes = [
            (Cause::ProcessExit, allowance::EXIT),
            (Cause::Call, SLOP),
            (Cause::EarlierSlots, Duration::MAX),
        ];
        for (cause, most) in causes {
            width::determine(&mut window.width, cause, most);
        }
    }
}

/// The server's kernel as a client's that closes, and hears nothing more.
fn as_client(own: &Parameters, facts: &Facts, tcp: &TcpFacts) -> (Parameters, Facts) {
    let mut parameters = Parameters {
        path: own.path.clone(),
        family: own.family,
        topology: Topology::Switch,
        neighbour: Neighbour::Permanent,
        sysctl: own.server_sysctl.clone(),
        ..Parameters::default()
    };
    (parameters.client.traffic, parameters.fault.kind) = (Traffic::Close, FaultKind::Blackhole);
    let facts = Facts {
        sysctl: facts.server_sysctl.clone(),
        server_sysctl: facts.sysctl.clone(),
        tcp: Some(tcp.clone()),
        jiffies: None,
        neighbour: None,
        server_tcp: None,
        ..facts.clone()
    };
    (parameters, facts)
}
