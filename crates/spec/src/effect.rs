//! What each fault does to the lost host and to the path, layer by layer. Every crate
//! asks here; each function matches exhaustively, so that a new fault is a compile error and never a
//! guess.

use crate::choice::FaultKind;

/// What a fault does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effect {
    /// The processes on the host that breaks.
    pub processes: Processes,
    /// The kernel of that host, with its sockets.
    pub host: HostFate,
    /// That host's cable.
    pub cable: Cable,
    /// The middle of the path.
    pub path: PathFate,
    /// Whether the fault ends by itself.
    pub ends: Ends,
}

/// What happens to the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Processes {
    /// They run on.
    Run,
    /// SIGSTOP: their kernel answers for them.
    Stopped,
    /// SIGKILL: their kernel closes their sockets.
    Killed,
    /// They are destroyed with their host: no socket is closed.
    Gone,
}

/// What happens to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostFate {
    /// Its kernel and its sockets stay.
    Stays,
    /// It is destroyed.
    Destroyed,
    /// It is destroyed, and a fresh one with the same address comes: it knows no connection.
    Replaced,
}

/// What happens to the cable between the host and the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cable {
    /// It carries.
    Up,
    /// It is dead at the host's end; the survivor keeps its carrier.
    FarEndDown,
    /// The survivor loses its own carrier.
    CarrierLost,
}

/// What happens to packets in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathFate {
    /// They pass.
    Open,
    /// They are dropped without an error.
    Silent,
    /// The router answers them by itself (`fault.reject`).
    Rejected,
    /// Some packets are dropped without an error, and the others pass.
    Sieved,
    /// They pass until the flow was idle for too long (`fault.idle`): then the router has forgotten
    /// it.
    Forgotten,
}

/// Whether a fault ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// It does not.
    Never,
    /// After `fault.duration`, if that is given.
    IfDuration,
    /// Always: after `fault.duration`, or a time of its own where none is given.
    Always,
}

impl FaultKind {
    /// What this fault does.
    pub const fn effect(self) -> Effect {
        let none = Effect {
            processes: Processes::Run,
            host: HostFate::Stays,
            cable: Cable::Up,
            path: PathFate::Open,
            ends: Ends::Never,
        };
        match self {
            Self::None => none,
            Self::ProcessCrash => Effect { processes: Processes::Killed, ..none },
            Self::ProcessFreeze => {
                Effect { processes: Processes::Stopped, ends: Ends::IfDuration, ..none }
            }
            Self::PowerOff => Effect {
                processes: Processes::Gone,
                host: HostFate::Destroyed,
                cable: Cable::FarEndDown,
                ..none
            },
            Self::Reboot | Self::Takeover => Effect {
                processes: Processes::Gone,
                host: HostFate::Replaced,
                cable: Cable::FarEndDown,
                ends: Ends::Always,
                ..none
            },
            Self::Blackhole => Effect { path: PathFate::Silent, ..none },
            Self::Mtu => Effect { path: PathFate::Sieved, ends: Ends::IfDuration, ..none },
            Self::Reject => Effect { path: PathFate::Rejected, ..none },
            Self::Forget => Effect { path: PathFate::Forgotten, ..none },
            Self::Unplug => Effect { cable: Cable::CarrierLost, ..none },
            Self::Flap => Effect { cable: Cable::FarEndDown, ends: Ends::Always, ..none },
        }
    }
}

impl Effect {
    /// Whether the lost host is destroyed, with every socket in it.
    pub const fn destroys_host(self) -> bool {
        match self.host {
            HostFate::Stays => false,
            HostFate::Destroyed | HostFate::Replaced => true,
        }
    }

    /// Whether packets are lost without an answer.
    pub const fn is_silent(self) -> bool {
        match (self.cable, self.path) {
            (Cable::FarEndDown | Cable::CarrierLost, _) | (_, PathFate::Silent) => true,
            (
                Cable::Up,
                PathFate::Open | PathFate::Rejected | PathFate::Forgotten | PathFate::Sieved,
            ) => false,
        }
    }

    /// Whether the programs of the lost host are killed, and their kernel closes their sockets.
    pub const fn kills(self) -> bool {
        match self.processes {
            Processes::Killed => true,
            Processes::Run | Processes::Stopped | Processes::Gone => false,
        }
    }

    /// Whether every packet reaches the lost host's kernel and is answered: the fault touches only
    /// programs, or nothing.
    pub const fn peer_kernel_answers(self) -> bool {
        matches!((self.host, self.cable, self.path), (HostFate::Stays, Cable::Up, PathFate::Open))
    }

    /// Whether packets reach the lost host's kernel once the fault is there. Under `forget` they do
    /// until the flow has been idle for too long, and where only some are dropped the others do.
    pub const fn reachable_at_fault(self) -> bool {
        let is_open = matches!(self.path, PathFate::Open | PathFate::Forgotten | PathFate::Sieved);
        matches!((self.host, self.cable), (HostFate::Stays, Cable::Up)) && is_open
    }
}
