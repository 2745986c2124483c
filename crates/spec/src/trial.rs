//! One run of an experiment: what the laboratory is handed.

use crate::choice::{Family, Topology};
use crate::experiment::Experiment;
use crate::names::Part;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// One trial: an experiment, and addresses of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Its number within the run, from 0.
    pub number: usize,
    /// The experiment, merged and validated.
    pub experiment: Experiment,
    /// Where its hosts live.
    pub addresses: Addresses,
    /// Where in the timer wheel's longest slot it starts; `None`: wherever.
    pub phase: Option<Stagger>,
}

/// The `number`th of `count` equally spaced starts within the timer wheel's longest slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stagger {
    /// From 0.
    pub number: u32,
}

impl Stagger {
    /// Jiffies in the slot that takes the default keepalive idle time at any usual HZ: the wheel's
    /// sixth level (`LVL_GRAN(5)`, kernel/time/timer.c).
    const SLOT_JIFFIES: u32 = 32_768;

    /// The golden section of 2^32: its multiples lie well apart in each of the wheel's slots, which
    /// are powers of eight. Equal parts of the longest slot would be one and the same phase of a
    /// shorter.
    const GOLDEN: u32 = 0x9e37_79b9;

    /// How long after the others' common start it begins, at this many timer interrupts a second.
    pub fn delay(self, hz: u32) -> Duration {
        let slot = Duration::from_secs(Self::SLOT_JIFFIES.into()) / hz.max(1);
        let part = u128::from(self.number.wrapping_mul(Self::GOLDEN)) * slot.as_nanos();
        Duration::from_nanos((part >> 32) as u64)
    }
}

/// Addresses and ports of one trial, unique across all trials on the machine that run or ran
/// within the last minutes: trace events carry no namespace, and orphans outlive their trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// The client's address and port.
    pub client: SocketAddr,
    /// The server's address and port.
    pub server: SocketAddr,
    /// The third host's address and port, on the topology `proxy`.
    #[serde(default)]
    pub third: Option<SocketAddr>,
    /// The router's address on the client's subnet, on the topology `router`.
    pub client_gateway: Option<IpAddr>,
    /// The router's address on the server's subnet, on the topology `router`.
    pub server_gateway: Option<IpAddr>,
    /// The length of both subnets' prefix, bits.
    pub prefix_len: u8,
}

impl Addresses {
    /// How many leases [`Addresses::new`] knows: 16 addresses each in 198.18.0.0/15.
    pub const LEASES: u16 = 8192;

    /// The addresses of lease number `lease`, below [`Self::LEASES`], in the prefixes set aside
    /// for benchmarking (198.18.0.0/15, RFC 2544; 2001:2::/48, RFC 5180), which no real network
    /// uses.
    ///
    /// # Panics
    /// If `lease` is out of range.
    pub fn new(
        lease: u16,
        family: Family,
        topology: Topology,
        client_port: u16,
        server_port: u16,
    ) -> Self {
        assert!(lease < Self::LEASES, "lease {lease} of {}", Self::LEASES);
        let routed = topology == Topology::Router;
        // Two halves of eight addresses: the client's subnet and, behind a router, the server's.
        let host = |half: u16, number: u16| -> IpAddr {
            match family {
                Family::Ipv4 => {
                    let base = u32::from(Ipv4Addr::new(198, 18, 0, 0));
                    Ipv4Addr::from(base + u32::from(lease) * 16 + u32::from(half * 8 + number))
                        .into()
                }
                Family::Ipv6 => {
                    Ipv6Addr::new(0x2001, 2, 0, lease * 2 + half, 0, 0, 0, number).into()
                }
            }
        };
        let server_half = u16::from(routed);
        Self {
            client: SocketAddr::new(host(0, 1), client_port),
            server: SocketAddr::new(host(server_half, 2), server_port),
            third: (topology == Topology::Proxy).then(|| SocketAddr::new(host(0, 3), server_port)),
            client_gateway: routed.then(|| host(0, 6)),
            server_gateway: routed.then(|| host(1, 6)),
            prefix_len: match family {
                Family::Ipv4 => 29,
                Family::Ipv6 => 64,
            },
        }
    }

    /// The address of a host.
    pub fn of(&self, part: Part) -> Option<SocketAddr> {
        match part {
            Part::Client => Some(self.client),
            Part::Server => Some(self.server),
            Part::Third => self.third,
        }
    }

    /// The same, to give it another port.
    pub fn of_mut(&mut self, part: Part) -> Option<&mut SocketAddr> {
        match part {
            Part::Client => Some(&mut self.client),
            Part::Server => Some(&mut self.server),
            Part::Third => self.third.as_mut(),
        }
    }

    /// Whose address this is.
    pub fn host_at(&self, address: IpAddr) -> Option<Part> {
        let is_at = |part: &Part| self.of(*part).is_some_and(|end| end.ip() == address);
        Part::ALL.into_iter().find(is_at)
    }

    /// Whether these are the addresses of some lease, and none of a real network.
    pub fn are_leased(&self, family: Family, topology: Topology) -> bool {
        let lease = match self.client.ip() {
            IpAddr::V4(address) => {
                u32::from(address).wrapping_sub(Ipv4Addr::new(198, 18, 0, 0).into()) / 16
            }
            IpAddr::V6(address) => u32::from(address.segments()[3]) / 2,
        };
        let (client, server) = (self.client.port(), self.server.port());
        u16::try_from(lease).is_ok_and(|lease| {
            lease < Self::LEASES && *self == Self::new(lease, family, topology, client, server)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn phases_fill_each_slot_of_the_wheel() {
        for hz in [100, 250, 300, 1000] {
            let tick_ns = 1_000_000_000 / u128::from(hz);
            for slot_ns in [512, 4096, Stagger::SLOT_JIFFIES].map(|n| u128::from(n) * tick_ns) {
                let mut times: Vec<_> = (0..16)
                    .map(|number| Stagger { number }.delay(hz).as_nanos() % slot_ns)
                    .collect();
                times.sort_unstable();
                let widest = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
                assert!(widest < slot_ns / 4, "HZ {hz}: {widest} of {slot_ns}");
            }
        }
    }

    #[test]
    fn leases_never_share_an_address() {
        let mut seen = HashSet::new();
        for lease in 0..Addresses::LEASES {
            for family in [Family::Ipv4, Family::Ipv6] {
                let a = Addresses::new(lease, family, Topology::Router, 40_000, 7);
                for address in [
                    a.client.ip(),
                    a.server.ip(),
                    a.client_gateway.unwrap(),
                    a.server_gateway.unwrap(),
                ] {
                    assert!(seen.insert(address), "{address} twice");
                }
            }
        }
        for family in [Family::Ipv4, Family::Ipv6] {
            let leased = Addresses::new(8191, family, Topology::Router, 1, 2);
            assert!(leased.are_leased(family, Topology::Router));
            assert!(!leased.are_leased(family, Topology::Switch));
            for other in ["127.0.0.1:1", "198.17.255.255:1", "198.20.0.1:1", "[::1]:1"] {
                let client = other.parse().unwrap();
                let elsewhere = Addresses { client, ..leased.clone() };
                assert!(!elsewhere.are_leased(family, Topology::Router), "{other}");
            }
        }
        let last = Addresses::new(8191, Family::Ipv4, Topology::Switch, 1, 2);
        assert_eq!(last.client.to_string(), "198.19.255.241:1");
        assert_eq!(last.server.to_string(), "198.19.255.242:2");
    }
}
