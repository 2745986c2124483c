//! The way of a probe once the fault has come, and what meets it at its end: what keepalive and
//! window probes have in common.

use crate::dead_path::{is_cut, moves, round_trip_ns, way_back};
use crate::hop::{Hop, Icmp, Limit, Neighbour};
use crate::kernel::Kernel;
use crate::laboratory::nanos;
use crate::world::{Memory, WayBack};
use spec::{
    Answer, Errno, Facts, FaultKind, Neighbour as Neighbours, Parameters, Reject, Topology,
};

/// What answers probes after the fault.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Healed {
    /// From when on, nanoseconds.
    pub(crate) at_ns: u64,
    /// Whether with a reset; otherwise with an acknowledgement.
    pub(crate) reset: bool,
    /// Whether it has another link-layer address now, and must be asked for.
    pub(crate) moved: bool,
    pub(crate) back: WayBack,
    /// A round trip, nanoseconds, at least, and how much longer at most: the smoothed one holds
    /// what the machine took for other segments.
    pub(crate) round_trip_ns: (u64, u64),
}

impl Healed {
    /// What answers `at_ns`; `None` if nothing ever does.
    pub(crate) fn of(parameters: &Parameters, facts: &Facts, at_ns: u64) -> Option<Self> {
        let fault = &parameters.fault;
        let permanent = parameters.neighbour == Neighbours::Permanent;
        let moved = moves(parameters);
        let least = nanos(parameters.path.rtt);
        let healed = Self {
            at_ns,
            reset: fault.kind != FaultKind::Flap,
            moved,
            back: way_back(parameters),
            round_trip_ns: (least, round_trip_ns(parameters, facts) - least),
        };
        match fault.kind {
            FaultKind::Flap => Some(healed),
            FaultKind::Reboot => (!moved || !permanent).then_some(healed),
            // The router is next door: what delays the path lies behind it.
            FaultKind::Reject if fault.reject == Reject::TcpReset => {
                Some(Self { round_trip_ns: (0, 0), back: WayBack::Known, ..healed })
            }
            FaultKind::None
            | FaultKind::ProcessCrash
            | FaultKind::ProcessFreeze
            | FaultKind::PowerOff
            | FaultKind::Blackhole
            | FaultKind::Reject
            | FaultKind::Forget
            | FaultKind::Unplug => None,
        }
    }

    /// The same from another moment on.
    pub(crate) fn from(self, at_ns: u64) -> Self {
        Self { at_ns, ..self }
    }

    pub(crate) fn is_open(self) -> bool {
        self.reset && self.round_trip_ns.1 > 0
    }
}

/// How long a probe and its answer are within reach of the fault, nanoseconds: what delays the path
/// lies behind the router, so that answers meet its faults as well.
pub(crate) fn exposed_ns(parameters: &Parameters, rtt_ns: u64) -> u64 {
    if parameters.topology == Topology::Router && !is_cut(parameters) { rtt_ns } else { rtt_ns / 2 }
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
    let kind = parameters.fault.kind;
    let cut = is_cut(parameters);
    let routed = parameters.topology == Topology::Router;
    match (routed, parameters.neighbour) {
        (true, _) if !cut => Some(Hop::Silent),
        (true, Neighbours::Permanent) => {
            let icmp = Icmp { error: Errno::EHOSTUNREACH, reverts: false };
            Some(Hop::Asks(Neighbour::of_router(), Limit::none(), icmp))
        }
        // A probe ignores ICMP, and no answer ever comes.
        (true, Neighbours::Learned) if kind == FaultKind::PowerOff => Some(Hop::Silent),
        (false, Neighbours::Permanent) => Some(Hop::Silent),
        (false, Neighbours::Learned) if !cut && kind != FaultKind::Blackhole => Some(Hop::Silent),
        (_, Neighbours::Learned) => None,
    }
}
