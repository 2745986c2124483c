//! What we do: experiments, their settings, faults and units.
//!
//! This room is pure: it calls no clock, no file system, no process, no socket. It turns text
//! (experiment files, `--set KEY=VALUE`) into a validated [`Experiment`], and names the facts that
//! are measured before the fault ([`Facts`]) and the outcomes a client can meet ([`Outcome`]).

pub mod act;
pub mod choice;
mod combinations;
pub mod command;
mod counted;
pub mod duration;
pub mod effect;
pub mod experiment;
pub mod facts;
pub mod file;
mod leg;
pub mod mend;
mod names;
pub mod outcome;
pub mod program;
mod proxied;
pub mod relevance;
pub mod script;
pub mod sequence;
pub mod settings;
pub mod sieve;
pub mod socket;
pub mod sweep;
pub mod sysctl;
pub mod trial;

pub use act::FaultAct;
pub use choice::{
    Answer, CallName, Direction, Family, FaultKind, LostHost, Neighbour, Program, Reject, TcpState,
    Topology, Traffic,
};
pub use counted::counted;
pub use effect::Effect;
pub use experiment::{Experiment, Parameters, VirtualKernel};
pub use facts::Facts;
pub use leg::Leg;
pub use mend::Mend;
pub use names::{HOSTS, Part};
pub use outcome::{Errno, Outcome, Reference};
pub use script::Script;
pub use sieve::{Drops, Sieve};
pub use socket::SocketOptions;
pub use trial::{Addresses, Plan, Stagger};
