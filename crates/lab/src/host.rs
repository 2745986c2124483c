//! A host at an edge of the network: a namespace with one interface, addresses and neighbours.

use crate::error::Error;
use crate::link::{self, End, Index, LOOPBACK, Mac};
use crate::rtnl::Rtnl;
use crate::sysctl;
use netns::Namespace;
use spec::Family;
use spec::sysctl::Sysctls;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// The name of the one interface on each host.
pub(crate) const INTERFACE: &str = "eth0";

/// What a host is to be.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// The number of its interface.
    pub(crate) index: Index,
    /// Its address.
    pub(crate) address: IpAddr,
    /// The length of its subnet's prefix, bits.
    pub(crate) prefix_len: u8,
    /// Its link-layer address.
    pub(crate) mac: Mac,
    /// The way out of its subnet.
    pub(crate) gateway: Option<IpAddr>,
    /// The neighbours that it knows for good.
    pub(crate) neighbours: Vec<(IpAddr, Mac)>,
    /// A host for which it has a route with a smallest RTO (`RTAX_RTO_MIN`).
    pub(crate) rto_min: Option<(IpAddr, Duration)>,
    /// `net.ipv4.*`.
    pub(crate) sysctls: Sysctls,
}

impl Host {
    /// The host's end of a cable, to be placed in its namespace.
    pub(crate) fn end<'a>(&self, namespace: &'a Namespace) -> End<'a> {
        End {
            name: INTERFACE,
            index: self.index,
            mac: Some(self.mac),
            namespace: Some(namespace),
            master: None,
        }
    }

    /// The family of its address.
    pub(crate) fn family(&self) -> Family {
        if self.address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
    }

    /// Gives the host, whose cable is in, its sysctls and its place in the network.
    pub(crate) fn settle(&self, namespace: &Namespace, rtnl: &mut Rtnl) -> Result<(), Error> {
        sysctl::apply(namespace, &self.sysctls)?;
        link::set_up(rtnl, LOOPBACK, true)?;
        bring_up(rtnl, self.index, self.address, self.prefix_len, self.mac)?;
        if let Some(gateway) = self.gateway {
            link::default_route(rtnl, self.index, gateway)?;
        }
        if let Some((peer, rto_min)) = self.rto_min {
            link::route_with_rto_min(rtnl, self.index, peer, self.gateway, rto_min)?;
        }
        for (address, mac) in &self.neighbours {
            link::neighbour(rtnl, self.index, *address, *mac)?;
        }
        Ok(())
    }
}

/// Takes an interface up and gives it its address, for IPv6 a link-local one too: neighbour
/// discovery cannot ask without.
pub(crate) fn bring_up(
    rtnl: &mut Rtnl,
    index: Index,
    address: IpAddr,
    prefix_len: u8,
    mac: Mac,
) -> Result<(), Error> {
    link::set_up(rtnl, index, true)?;
    if address.is_ipv6() {
        link::address(rtnl, index, link_local(mac).into(), 64)?;
    }
    link::address(rtnl, index, address, prefix_len)
}

/// Waits until the host can be talked to over its interface.
pub(crate) fn wait_until_ready(
    rtnl: &mut Rtnl,
    index: Index,
    address: IpAddr,
) -> Result<(), Error> {
    link::wait_until("the carrier of a host", || {
        Ok(link::state(rtnl, index)?.is_some_and(|state| state.running && state.carrier))
    })?;
    if address.is_ipv6() {
        link::wait_until("an IPv6 address", || link::is_local(rtnl, address))?;
    }
    Ok(())
}

/// A namespace for a host, and a socket to configure it with.
pub(crate) fn namespace(family: Family) -> Result<(Namespace, Rtnl), Error> {
    // Programs have no privileges, and may serve the ports that they want to.
    let path = "ipv4/ip_unprivileged_port_start";
    quiet_namespace(family, &[Setting { path, value: "0", part_of: None }])
}

/// A namespace that says nothing by itself, with `settings` besides, and a socket to configure it
/// with.
pub(crate) fn quiet_namespace(
    family: Family,
    settings: &[Setting],
) -> Result<(Namespace, Rtnl), Error> {
    let configure = || {
        quiet(family).iter().chain(settings).try_for_each(Setting::write)?;
        Rtnl::open_here()
    };
    let (namespace, rtnl) = Namespace::create_with(configure)
        .map_err(|source| Error::Namespace { doing: "making a host", source })?;
    Ok((namespace, rtnl?))
}

/// A file below /proc/sys/net, and what to write there.
pub(crate) struct Setting {
    pub(crate) path: &'static str,
    pub(crate) value: &'static str,
    /// What this kernel lacks if there is no such file; `None` if that does not matter.
    pub(crate) part_of: Option<&'static str>,
}

impl Setting {
    fn write(&self) -> Result<(), Error> {
        let Self { path, value, part_of } = self;
        let present = sysctl::write_if_present(path, value).map_err(|source| {
            Error::kernel(format!("writing {value} to /proc/sys/net/{path}"), source)
        })?;
        match part_of {
            Some(what) if !present => Err(Error::Unsupported {
                what: (*what).to_owned(),
                remedy: format!("this kernel has no /proc/sys/net/{path}"),
            }),
            _ => Ok(()),
        }
    }
}

/// The interface identifier that RFC 4291 (appendix A) makes of a MAC address.
fn link_local(mac: Mac) -> Ipv6Addr {
    let identifier = [mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]];
    let mut address = [0; 16];
    address[..2].copy_from_slice(&[0xfe, 0x80]);
    address[8..].copy_from_slice(&identifier);
    address.into()
}

/// Keeps interfaces that are yet to come from configuring themselves: no IPv6 at all in a trial
/// with IPv4; and with IPv6 no router solicitations, no addresses but ours, and the multicast
/// reports about those at once instead of up to ten seconds later.
fn quiet(family: Family) -> &'static [Setting] {
    const IPV6: Option<&str> = Some("IPv6");
    match family {
        Family::Ipv4 => {
            &[Setting { path: "ipv6/conf/default/disable_ipv6", value: "1", part_of: None }]
        }
        Family::Ipv6 => &[
            Setting { path: "ipv6/conf/default/disable_ipv6", value: "0", part_of: IPV6 },
            Setting { path: "ipv6/conf/default/accept_ra", value: "0", part_of: IPV6 },
            Setting { path: "ipv6/conf/default/addr_gen_mode", value: "1", part_of: IPV6 },
            Setting {
                path: "ipv6/conf/default/mldv2_unsolicited_report_interval",
                value: "1",
                part_of: None,
            },
        ],
    }
}
