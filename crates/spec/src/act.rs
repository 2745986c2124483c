//! What the laboratory did to break something, or to mend it. Verdicts decide by these; only the
//! report puts them into words.

use serde::{Deserialize, Serialize};

/// One thing that was done. Recordings of before these had names hold sentences: they are read too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultAct {
    /// Nothing: the peer lives.
    #[serde(alias = "nothing: the peer lives")]
    Nothing,
    /// SIGKILL to the host's program.
    #[serde(alias = "the server process killed (SIGKILL)")]
    Killed,
    /// SIGSTOP to the host's program.
    #[serde(alias = "the server process stopped (SIGSTOP)")]
    Stopped,
    /// The switch's port to the host is down.
    #[serde(alias = "the switch's port to the server is down")]
    PortDown,
    /// The host's cable behind the router is dead.
    #[serde(alias = "the server's cable behind the router is dead")]
    CableDead,
    /// The same, and the router has forgotten the host's link-layer address.
    #[serde(alias = "the server's cable behind the router is dead, and the router has forgotten \
                     the server's link-layer address")]
    CableDeadAndForgotten,
    /// The switch's port to the host is up again.
    #[serde(alias = "the server's cable is alive again")]
    CableAlive,
    /// The switch drops every frame between its ports.
    #[serde(alias = "the switch drops every frame between its ports")]
    SwitchDrops,
    /// The switch forwards again.
    #[serde(alias = "the switch forwards again")]
    SwitchForwards,
    /// The router drops every packet for either host.
    #[serde(alias = "the router drops every packet for either host")]
    RouterDrops,
    /// The path drops some packets (`fault.direction`, `.packets` and `.loss` say which).
    DropsSome,
    /// The router answers every packet that it is to forward (`fault.reject` says how).
    #[serde(
        alias = "the router answers every packet it is to forward with tcp-reset",
        alias = "the router answers every packet it is to forward with host-unreachable",
        alias = "the router answers every packet it is to forward with net-unreachable",
        alias = "the router answers every packet it is to forward with port-unreachable",
        alias = "the router answers every packet it is to forward with admin-prohibited"
    )]
    RouterRejects,
    /// The router forgets a flow that is idle (`fault.idle` says for how long): as it does from before
    /// the connection on.
    RouterForgets,
    /// The router forwards again.
    #[serde(alias = "the router forwards again")]
    RouterForwards,
    /// The host's end of the one cable is down.
    #[serde(alias = "the server's end of the cable is down")]
    Unplugged,
    /// The host is destroyed: its processes, sockets, interface and namespace.
    #[serde(alias = "the server's host is destroyed")]
    HostDestroyed,
    /// The host in its place has said that it has the address now.
    Announced,
    /// A fresh host is in its place (`fault.new_mac` says with which link-layer address).
    #[serde(
        alias = "a fresh server host, with the same MAC address, is on the network",
        alias = "a fresh server host, with a new MAC address, is on the network",
        alias = "a fresh server host has booted, with the same MAC address",
        alias = "a fresh server host has booted, with a new MAC address"
    )]
    HostReplaced,
}
