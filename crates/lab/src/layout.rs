//! Who is where: what a plan's addresses and parameters mean for each host.

use crate::host::Host;
use crate::link::{Index, Mac};
use crate::router::Side;
use spec::experiment::Fault;
use spec::{
    Addresses, Answer, Drops, Family, FaultKind, LostHost, Neighbour, Parameters, Program, Sieve,
    Topology,
};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The number of the client's interface.
pub(crate) const CLIENT: Index = 2;
/// The number of the server's interface.
pub(crate) const SERVER: Index = 3;
/// The number of the third host's interface.
pub(crate) const THIRD: Index = 4;

/// A network to be built.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) topology: Topology,
    pub(crate) family: Family,
    pub(crate) neighbour: Neighbour,
    pub(crate) rtt: Duration,
    /// For how long a flow is idle before the router forgets it, and what becomes of it then.
    pub(crate) forgets: Option<(Duration, Answer)>,
    /// Whether the path may drop some packets and let others pass.
    pub(crate) sieves: bool,
    pub(crate) client: Host,
    pub(crate) server: Host,
    /// On the topology `proxy`.
    pub(crate) third: Option<Host>,
    /// Whether the server is the host in the middle: a path that drops what is on its way to the server
    /// then drops what is on its way from the third host too.
    pub(crate) server_is_between: bool,
    pub(crate) only: Only,
    /// Whether everybody speaks only to hosts whose link-layer addresses they know.
    pub(crate) is_quiet: bool,
}

/// Both ends of the only connection that there will be, the client's and the server's; `None` where
/// there may be any.
pub(crate) type Only = Option<(SocketAddr, SocketAddr)>;

impl Layout {
    pub(crate) fn new(addresses: &Addresses, parameters: &Parameters) -> Self {
        let (client, server) = (addresses.client.ip(), addresses.server.ip());
        let third = addresses.third.map(|third| third.ip());
        let hosts = || [Some(client), Some(server), third].into_iter().flatten();
        let host = |index, address, gateway: Option<IpAddr>, sysctls: &_| {
            let others = hosts().filter(|other| *other != address);
            let next: Vec<_> = gateway.map_or_else(|| others.collect(), |gateway| vec![gateway]);
            let known = next.into_iter().map(|next| (next, mac_of(next)));
            Host {
                index,
                address,
                prefix_len: addresses.prefix_len,
                mac: mac_of(address),
                gateway,
                neighbours: known
                    .filter(|_| parameters.neighbour == Neighbour::Permanent)
                    .collect(),
                rto_min: None,
                sysctls: Clone::clone(sysctls),
            }
        };
        let (to_server, to_client) = (addresses.client_gateway, addresses.server_gateway);
        Self {
            topology: parameters.topology,
            family: parameters.family,
            neighbour: parameters.neighbour,
            rtt: parameters.path.rtt,
            forgets: parameters.forgets_after().map(|idle| (idle, parameters.fault.answer)),
            sieves: sieves(parameters),
            client: Host {
                rto_min: parameters.path.rto_min.map(|rto_min| (server, rto_min)),
                ..host(CLIENT, client, to_server, &parameters.sysctl)
            },
            server: host(SERVER, server, to_client, &parameters.server_sysctl),
            third: third.map(|third| host(THIRD, third, None, &parameters.third_sysctl)),
            server_is_between: parameters.fault.host == LostHost::Proxy,
            only: only(addresses, parameters),
            is_quiet: is_quiet(addresses, parameters),
        }
    }
}

/// A router asks for the server's link-layer address, a program may look for whom it likes, and a host that
/// takes an address over says so to everybody.
fn is_quiet(addresses: &Addresses, parameters: &Parameters) -> bool {
    let announces = |fault: &Fault| fault.kind == FaultKind::Takeover;
    parameters.topology == Topology::Switch
        && only(addresses, parameters).is_some()
        && parameters.neighbour == Neighbour::Permanent
        && !parameters.faults().any(announces)
}

/// Whether the switch drops some frames and lets others pass. A router does without it where it is to
/// drop one way.
fn sieves(parameters: &Parameters) -> bool {
    let by_routes =
        |sieve: &Sieve| sieve.drops == Drops::All && parameters.topology == Topology::Router;
    let mut sieves = parameters.faults().filter_map(Fault::sieve);
    sieves.any(|sieve| !by_routes(&sieve))
}

/// halfopen's own peers have one connection, between the ports that they are told to use.
fn only(addresses: &Addresses, parameters: &Parameters) -> Only {
    let Parameters { client, server, .. } = parameters;
    let ours = [client.program, server.program].iter().all(|program| *program == Program::Halfopen);
    let known = addresses.client.port() != 0;
    (ours && known && !parameters.runs_command()).then_some((addresses.client, addresses.server))
}

/// The router's side towards a host that has a gateway.
pub(crate) fn side_towards(host: &Host) -> Option<Side> {
    let gateway = host.gateway?;
    Some(Side { gateway, mac: mac_of(gateway), host: host.address, prefix_len: host.prefix_len })
}

/// The MAC address of the host at an address: locally administered, and as unique as the address
/// is. Its second octet is free for a host that comes back with another one.
fn mac_of(address: IpAddr) -> Mac {
    let (family, [a, b, c, d]) = match address {
        IpAddr::V4(address) => (0x40, address.octets()),
        IpAddr::V6(address) => {
            // The lease is in the subnet, the host in the last 16 bits.
            let segments = address.segments();
            let (subnet, host) = (segments[3].to_be_bytes(), segments[7].to_be_bytes());
            (0x60, [subnet[0], subnet[1], host[0], host[1]])
        }
    };
    [0x02, family, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_hosts_share_a_mac_address() {
        let mut seen = HashSet::new();
        for lease in 0..Addresses::LEASES {
            for family in [Family::Ipv4, Family::Ipv6] {
                let addresses = Addresses::new(lease, family, Topology::Router, 1, 2);
                let hosts = [Some(addresses.client.ip()), Some(addresses.server.ip())];
                let gateways = [addresses.client_gateway, addresses.server_gateway];
                for address in hosts.into_iter().chain(gateways).flatten() {
                    let mac = mac_of(address);
                    assert_eq!(mac[0] & 3, 2, "locally administered, of one host");
                    assert!(seen.insert(mac), "{address}: {mac:?} twice");
                }
            }
        }
    }
}
