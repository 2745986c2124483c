//! The way of a probe once the fault has come, and what meets it at its end: what keepalive and
//! window probes have in common.

use crate::dead_path::is_cut;
use crate::hop::{Hop, Icmp, Limit, Neighbour};
use crate::kernel::{Kernel, server_sysctl};
use crate::laboratory::nanos;
use crate::world::{Healed, Losses, Memory, Moment, Peer, Which, World};
use spec::effect::{PathFate, Processes};
use spec::{
    Answer, Drops, Errno, Facts, FaultKind, Neighbour as Neighbours, Parameters, Sieve, Topology,
};
use std::time::Duration;

/// What probes meet; times in nanoseconds after a moment that is yet to be gone through: the last exchange,
/// or the sample of a closed window.
#[derive(Debug, Clone)]
pub(crate) struct Meets {
    /// When the peer goes away; `None`: it stays.
    pub(crate) fault_after_ns: Option<u64>,
    /// Where the times of the prediction's reference end: the fault, whether or not the peer goes away with
    /// it.
    pub(crate) reference_until_ns: u64,
    /// What answers again, and when.
    pub(crate) healed: Option<Healed>,
    /// The time of a round trip.
    pub(crate) rtt_ns: u64,
    /// Settings that change while it waits: when, and what is in force from then on.
    pub(crate) later: Option<(u64, Kernel)>,
    /// How long a probe and its answer are within reach of the fault.
    pub(crate) exposed_ns: u64,
    /// Where probes end after the fault. Its jiffies count from the same moment.
    pub(crate) hop: Hop,
    /// Whether nothing that is sent after the fault passes the client's tap.
    pub(crate) unseen: bool,
    /// `tcp_invalid_ratelimit` at the peer, jiffies.
    pub(crate) answers_every: u64,
    /// What a router on the way knows of the flow, if it may forget it.
    pub(crate) memory: Option<Memory>,
    /// Which packets the path drops from the fault on, if it drops some.
    pub(crate) losses: Option<Losses>,
}

impl Meets {
    /// What a fault at this moment makes of a path of this round trip on which something answers again.
    pub(crate) fn new(
        kernel: &Kernel,
        (parameters, facts): (&Parameters, &Facts),
        (fault_ns, rtt_ns): (u64, u64),
        later: Option<&Kernel>,
        healed: Option<Healed>,
    ) -> Self {
        let limit_ms = server_sysctl(parameters, facts, "tcp_invalid_ratelimit").unwrap_or(500);
        let later_ns = fault_ns.saturating_add(nanos(parameters.later.after));
        Self {
            fault_after_ns: goes_away(parameters).then_some(fault_ns),
            reference_until_ns: fault_ns,
            healed,
            rtt_ns,
            later: later.map(|kernel| (later_ns, kernel.clone())),
            exposed_ns: exposed_ns(parameters, rtt_ns),
            hop: Hop::Silent,
            unseen: parameters.fault.kind == FaultKind::Unplug,
            answers_every: kernel.hz.from_msecs(limit_ms),
            memory: None,
            losses: None,
        }
    }

    /// The same as the world of a run whose moment is this.
    pub(crate) fn world(&self, cfg: &Kernel, origin_ns: u64) -> World {
        let at = |after_ns: u64| Moment::At(origin_ns.saturating_add(after_ns));
        let jiffy = origin_ns / cfg.hz.tick_ns();
        let peer = Peer {
            invalid_ratelimit: self.answers_every,
            ..Peer::new(self.rtt_ns, self.exposed_ns)
        };
        let mut world = World::new(cfg, peer, self.hop.clone().later(jiffy));
        world.lost = self.fault_after_ns.map_or(Moment::Never, at);
        world.reference_until = at(self.reference_until_ns);
        world.unseen = self.unseen;
        world.memory = self.memory.clone().map(|memory| Memory { passed: jiffy, ..memory });
        world.losses = self.losses.clone().map(|losses| losses.later(origin_ns));
        world.recovery = self.healed.map(|healed| healed.recovery(origin_ns, false));
        world.later = self.later.as_ref().map_or(Moment::Never, |(after_ns, _)| at(*after_ns));
        world
    }
}

/// How long a probe and its answer are within reach of the fault, nanoseconds: what delays the path
/// lies behind the router, so that answers meet its faults as well.
pub(crate) fn exposed_ns(parameters: &Parameters, rtt_ns: u64) -> u64 {
    if parameters.fault.sieve().is_some_and(|sieve| !sieve.to_survivor) {
        return 0;
    }
    if parameters.topology == Topology::Router && !is_cut(parameters) { rtt_ns } else { rtt_ns / 2 }
}

/// Which packets the path drops from a moment on, nanoseconds, if it drops some.
pub(crate) fn losses(cfg: &Kernel, parameters: &Parameters, from_ns: u64) -> Option<Losses> {
    let Sieve { to_lost, to_survivor, drops } = parameters.fault.sieve()?;
    let (which, until_ns) = match drops {
        Drops::All => return None,
        Drops::Next(packets) => (Which::Next(packets), None),
        Drops::Share(loss, seed) => {
            (Which::Share { loss, seed, sent: [0; 2] }, parameters.deadline)
        }
        Drops::Longer(mtu) => {
            let ends =
                parameters.fault_duration().map(|lasts| from_ns.saturating_add(nanos(lasts)));
            let ends = ends.map_or(Moment::Never, Moment::At);
            (Which::Longer { bytes: mtu.saturating_sub(cfg.headers), ends }, None)
        }
    };
    Some(Losses {
        from: Moment::At(from_ns),
        to_peer: to_lost,
        to_socket: to_survivor,
        which,
        until: until_ns.map_or(Moment::Never, |after| until(from_ns, after)),
    })
}

/// The moment so long after another, and what the laboratory takes to look away.
fn until(from_ns: u64, after: Duration) -> Moment {
    Moment::At(from_ns.saturating_add(nanos(after + LOOKS_AWAY)))
}

const LOOKS_AWAY: Duration = Duration::from_secs(1);

/// Whether nothing that is sent after the fault reaches the peer's socket.
pub(crate) fn goes_away(parameters: &Parameters) -> bool {
    let effect = parameters.fault.effect();
    !effect.reachable_at_fault() || effect.processes == Processes::Killed
}

/// What such a router knows when the last exchange has passed it, at this jiffy.
pub(crate) fn memory(cfg: &Kernel, parameters: &Parameters, passed: u64) -> Option<Memory> {
    // Data without an answer is acknowledged when the server's kernel decides.
    let held_back = if parameters.server.reads { 0 } else { cfg.hz.from_msecs(250) };
    Some(Memory {
        idle: nanos(parameters.forgets_after()?) / cfg.hz.tick_ns(),
        passed,
        open: 1 + cfg.late_ns().div_ceil(cfg.hz.tick_ns()) + held_back,
        resets: parameters.fault.answer == Answer::TcpReset,
    })
}

/// Where probes end that a fault has cut off, but for a neighbour entry that is still believed: in
/// silence, or with a router that gets no answer to its requests. `None`: an entry decides, which
/// `entry` has.
pub(crate) fn without_entry(parameters: &Parameters) -> Option<Hop> {
    let (kind, path) = (parameters.fault.kind, parameters.fault.effect().path);
    let cut = is_cut(parameters);
    let routed = parameters.topology == Topology::Router;
    match (routed, parameters.neighbour) {
        (true, _) if !cut => Some(Hop::Silent),
        (true, Neighbours::Permanent) => {
            let icmp = Icmp { error: Errno::EHOSTUNREACH, reverts: false };
            Some(Hop::Asks(Neighbour::unknown(false), Limit::none(), icmp))
        }
        // A probe ignores ICMP, and no answer ever comes.
        (true, Neighbours::Learned) if kind == FaultKind::PowerOff => Some(Hop::Silent),
        (false, Neighbours::Permanent) => Some(Hop::Silent),
        (false, Neighbours::Learned) if !cut && path != PathFate::Silent => Some(Hop::Silent),
        (_, Neighbours::Learned) => None,
    }
}
