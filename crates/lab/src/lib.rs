//! Builds the networks, sets sysctls, injects the faults.

pub mod network;
pub mod sysctl;

mod error;
mod holders;
mod host;
mod link;
mod netlink;
mod sockets;
mod switch;
