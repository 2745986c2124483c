//! A connection of a trial: its number, its ends, its sides.

use serde::{Deserialize, Serialize};
use spec::{Addresses, Leg, Part};
use std::net::SocketAddr;

/// One TCP connection of a trial: its number in the order of SYNs, from 0.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct FlowId(pub u32);

/// Whose socket, or which host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The client's.
    Client,
    /// The server's.
    Server,
}

impl Side {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// The two ends of a connection, by the hosts that they are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ends {
    /// On the client's host.
    pub client: SocketAddr,
    /// On the server's host.
    pub server: SocketAddr,
}

impl Ends {
    /// The ends of the connection between two sockets, and whose the first is; `None` if they are
    /// not on two hosts of these addresses. Ports do not matter. Where the third host has an end it
    /// is the client's.
    pub fn between(
        addresses: &Addresses,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Option<(Self, Side)> {
        let (local, remote) = (canonical(local), canonical(remote));
        match (addresses.host_at(local.ip())?, addresses.host_at(remote.ip())?) {
            (Part::Client, Part::Server) | (Part::Third, Part::Client | Part::Server) => {
                Some((Self { client: local, server: remote }, Side::Client))
            }
            (Part::Server, Part::Client) | (Part::Client | Part::Server, Part::Third) => {
                Some((Self { client: remote, server: local }, Side::Server))
            }
            (Part::Client, Part::Client)
            | (Part::Server, Part::Server)
            | (Part::Third, Part::Third) => None,
        }
    }

    /// The hosts of the client's end and the server's; `None` if they are on none of these addresses.
    pub fn hosts(&self, addresses: &Addresses) -> Option<[Part; 2]> {
        Some([addresses.host_at(self.client.ip())?, addresses.host_at(self.server.ip())?])
    }

    /// The end on this side, and the other one.
    pub fn seen_from(&self, side: Side) -> (SocketAddr, SocketAddr) {
        match side {
            Side::Client => (self.client, self.server),
            Side::Server => (self.server, self.client),
        }
    }
}

/// A dual-stack socket shows IPv4 addresses as mapped ones.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A connection that has appeared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Its ends.
    pub ends: Ends,
    /// The host that sent the SYN, or where that was not seen the first segment.
    pub opened_by: Side,
    /// Which two hosts it joins.
    #[serde(default, skip_serializing_if = "is_whole")]
    pub leg: Leg,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_whole(leg: &Leg) -> bool {
    *leg == Leg::Whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_by_the_hosts_whatever_the_ports() {
        let addresses = Addresses::new(0, spec::Family::Ipv4, spec::Topology::Switch, 40_000, 7);
        let end = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (here, there) = (end("198.18.0.1:51234"), end("198.18.0.2:6379"));
        let ends = Ends { client: here, server: there };
        assert_eq!(Ends::between(&addresses, here, there), Some((ends, Side::Client)));
        assert_eq!(Ends::between(&addresses, there, here), Some((ends, Side::Server)));
        let mapped = end("[::ffff:198.18.0.1]:51234");
        assert_eq!(Ends::between(&addresses, mapped, there), Some((ends, Side::Client)));
        assert_eq!(Ends::between(&addresses, here, end("198.18.0.3:6379")), None);
        assert_eq!(ends.seen_from(Side::Server), (there, here));
    }
}
