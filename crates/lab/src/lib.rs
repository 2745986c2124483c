//! Builds the networks, sets sysctls, injects the faults.

pub mod guest;
pub mod network;
pub mod sysctl;

mod announce;
mod error;
mod filter;
mod forget;
mod holders;
mod host;
mod layout;
mod link;
mod netem;
mod netlink;
mod nf_tables;
mod nsid;
mod offload;
mod rack;
mod reject;
mod relay;
mod router;
mod rtnl;
mod sockets;
mod switch;
mod wiring;
