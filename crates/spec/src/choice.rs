//! The closed choices an experiment is made of, each with the words that name it.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A closed choice, whose values have a written name each.
pub trait Choice: FromStr<Err = String> {
    /// Every name.
    fn names() -> Vec<&'static str>;
}

/// An enum whose variants have one written name each: in files, on the command line and in JSON.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident {
        $($(#[doc = $variant_doc:literal])* $variant:ident = $text:literal,)+
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[doc = $variant_doc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The written name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// What it means, a sentence or two, for the reference.
            pub fn about(self) -> &'static str {
                match self { $(Self::$variant => concat!($($variant_doc),*).trim(),)+ }
            }
        }

        impl Choice for $name {
            fn names() -> Vec<&'static str> {
                Self::ALL.iter().map(|value| value.name()).collect()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(self.name())
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|value| value.name() == text).ok_or_else(|| {
                    let names: Vec<_> = Self::ALL.iter().map(|value| format!("`{value}`")).collect();
                    format!("`{text}` is not one of {}", names.join(", "))
                })
            }
        }
    };
}

choice! {
    /// How client and server are joined.
    Topology {
        /// Client, a bridge in a namespace of its own, server: the client keeps its carrier
        /// whatever happens to the server.
        Switch = "switch",
        /// Client, a forwarding router, server: two subnets.
        Router = "router",
        /// One veth pair: the client's carrier is the server's.
        Direct = "direct",
        /// Client, proxy and server on one switch: the client's program connects to a program in the
        /// middle, which connects to the server.
        Proxy = "proxy",
    }
}

choice! {
    /// The address family of the connection.
    Family {
        /// IPv4 and ARP.
        Ipv4 = "ipv4",
        /// IPv6 and neighbour discovery.
        Ipv6 = "ipv6",
    }
}

choice! {
    /// How hosts know each other's link-layer addresses.
    Neighbour {
        /// Entries that never expire: the errno is TCP's own.
        Permanent = "permanent",
        /// Entries that ARP or neighbour discovery learn, confirm and lose.
        Learned = "learned",
    }
}

choice! {
    /// What the client does after the fault.
    Traffic {
        /// Nothing.
        Idle = "idle",
        /// One write of 100 bytes, within 100 ms of the fault.
        OneWrite = "one-write",
        /// A write of 100 bytes every 50 ms.
        Stream = "stream",
        /// An application-level request and answer, with a deadline for the answer.
        Heartbeat = "heartbeat",
        /// `connect`: before the fault there is no connection.
        Connect = "connect",
        /// `close`: the program lets go, and its kernel goes on alone.
        Close = "close",
        /// `shutdown(SHUT_WR)`: a FIN, and the program still listens.
        Shutdown = "shutdown",
        /// The calls of `client.script`.
        Script = "script",
    }
}

choice! {
    /// Which program a host runs.
    Program {
        /// This program's own peer.
        Halfopen = "halfopen",
        /// A real nginx, which accepts, answers HTTP requests and closes idle connections by its
        /// own timer. The other host's peer connects and asks.
        Nginx = "nginx",
        /// A command of the user's, about which nothing is known.
        Command = "command",
    }
}

choice! {
    /// Whose host breaks.
    LostHost {
        /// The server's: the client is the survivor.
        Server = "server",
        /// The client's: the server is the survivor.
        Client = "client",
        /// That in the middle, on the topology `proxy`: both others are left.
        Proxy = "proxy",
    }
}

choice! {
    /// What breaks, named by mechanism.
    FaultKind {
        /// Nothing: a live peer.
        None = "none",
        /// SIGKILL to the server process.
        ProcessCrash = "process-crash",
        /// SIGSTOP, and SIGCONT after `fault.duration` if that is given.
        ProcessFreeze = "process-freeze",
        /// The cable at the server's end goes dead, then its processes and namespace are destroyed.
        PowerOff = "power-off",
        /// `power-off`, then a fresh host with the same address and no connections.
        Reboot = "reboot",
        /// `power-off`, then another host has the address: it knows no connection.
        Takeover = "takeover",
        /// Packets are dropped silently in the middle: all, or some (`fault.direction`, `.packets`,
        /// `.loss`).
        Blackhole = "blackhole",
        /// Packets longer than `fault.mtu` are dropped silently in the middle: a path MTU black hole.
        Mtu = "mtu",
        /// The router's netfilter answers with a TCP reset or an ICMP unreachable.
        Reject = "reject",
        /// The router's connection tracking forgets a flow that was idle for `fault.idle`.
        Forget = "forget",
        /// The server's end of the one veth pair goes down: the client loses its own carrier.
        Unplug = "unplug",
        /// `power-off`'s cut without destroying anything, restored after `fault.duration`.
        Flap = "flap",
    }
}

choice! {
    /// Which way a path drops packets, under the faults `blackhole` and `mtu`.
    Direction {
        /// Both ways.
        Both = "both",
        /// What goes to the server.
        ToServer = "to-server",
        /// What goes to the client.
        ToClient = "to-client",
    }
}

choice! {
    /// What the router's netfilter answers under the fault `reject`.
    Reject {
        /// A TCP segment with RST.
        TcpReset = "tcp-reset",
        /// ICMP type 3 code 1 (`ICMPv6`: type 1 code 3, address unreachable).
        HostUnreachable = "host-unreachable",
        /// ICMP type 3 code 0 (`ICMPv6`: type 1 code 0, no route).
        NetUnreachable = "net-unreachable",
        /// ICMP type 3 code 3 (`ICMPv6`: type 1 code 4).
        PortUnreachable = "port-unreachable",
        /// ICMP type 3 code 13 (`ICMPv6`: type 1 code 1).
        AdminProhibited = "admin-prohibited",
    }
}

choice! {
    /// What becomes of the packets of a flow that the router has forgotten, under the fault `forget`.
    Answer {
        /// They are dropped without an error.
        Silent = "silent",
        /// Each is answered with a TCP segment with RST.
        TcpReset = "tcp-reset",
    }
}

choice! {
    /// RFC 9293 3.3.2 states, under the kernel's names (include/net/tcp_states.h) without `TCP_`.
    TcpState {
        /// Open both ways.
        Established = "ESTABLISHED",
        /// A SYN is out.
        SynSent = "SYN_SENT",
        /// A SYN was answered.
        SynRecv = "SYN_RECV",
        /// A FIN is out.
        FinWait1 = "FIN_WAIT1",
        /// The FIN is acknowledged.
        FinWait2 = "FIN_WAIT2",
        /// Both FINs are acknowledged; old segments may still come.
        TimeWait = "TIME_WAIT",
        /// Closed.
        Close = "CLOSE",
        /// The peer has sent its FIN.
        CloseWait = "CLOSE_WAIT",
        /// Both have, the peer first; ours is not acknowledged.
        LastAck = "LAST_ACK",
        /// Waits for connections.
        Listen = "LISTEN",
        /// Both have, at the same time; ours is not acknowledged.
        Closing = "CLOSING",
        /// A connection request is being answered.
        NewSynRecv = "NEW_SYN_RECV",
    }
}

choice! {
    /// What a program reports that it called, or did.
    CallName {
        /// `connect`.
        Connect = "connect",
        /// `accept`.
        Accept = "accept",
        /// `setsockopt`.
        SetSockOpt = "setsockopt",
        /// `read`.
        Read = "read",
        /// `recv`, of the error queue.
        Recv = "recv",
        /// `write`.
        Write = "write",
        /// `shutdown`.
        Shutdown = "shutdown",
        /// `close`.
        Close = "close",
        /// Its own timer for an answer has ended: it gives the other one up.
        Heartbeat = "heartbeat",
        /// Its check of what came back, byte for byte.
        Check = "check",
    }
}

impl TcpState {
    /// By the kernel's number, from 1 in the order of [`Self::ALL`]; `None` if it has no such state.
    pub fn from_number(number: u8) -> Option<Self> {
        usize::from(number).checked_sub(1).and_then(|index| Self::ALL.get(index).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_are_refused_with_the_accepted_ones() {
        for kind in FaultKind::ALL {
            assert_eq!(kind.name().parse(), Ok(*kind));
        }
        let error = "hub".parse::<Topology>().unwrap_err();
        assert_eq!(error, "`hub` is not one of `switch`, `router`, `direct`, `proxy`");
    }
}
