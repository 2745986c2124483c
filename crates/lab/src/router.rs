//! The router: a forwarding host between the client's subnet and the server's.

use crate::error::Error;
use crate::host::{self, Setting};
use crate::link::{self, End, Index, LOOPBACK, Mac};
use crate::netlink::Socket;
use crate::rtnl::Rtnl;
use crate::{forget, nf_tables, reject};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netns::Namespace;
use spec::facts::NeighbourFacts;
use spec::{Answer, Family, Neighbour, Reject};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const TO_CLIENT: Index = 5;
const TO_SERVER: Index = 6;

/// One of the router's two sides.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    /// The router's address there.
    pub(crate) gateway: IpAddr,
    /// The router's link-layer address there.
    pub(crate) mac: Mac,
    /// The host there.
    pub(crate) host: IpAddr,
    /// The length of the subnet's prefix, bits.
    pub(crate) prefix_len: u8,
}

/// A router between two hosts, with everything the kernel does by default: rate limits too.
#[derive(Debug)]
pub(crate) struct Router {
    namespace: Namespace,
    rtnl: Mutex<Rtnl>,
    client: Side,
    server: Side,
    neighbour: Neighbour,
    /// Whether packets for the server, and for the client, are dropped.
    swallowed: Mutex<[bool; 2]>,
}

impl Router {
    /// A forwarding router without cables.
    pub(crate) fn new(client: Side, server: Side, neighbour: Neighbour) -> Result<Self, Error> {
        let family = if client.host.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
        let path = match family {
            Family::Ipv4 => "ipv4/ip_forward",
            Family::Ipv6 => "ipv6/conf/all/forwarding",
        };
        let forward = Setting { path, value: "1", part_of: Some("forwarding") };
        let (namespace, mut rtnl) = host::quiet_namespace(family, &[forward])?;
        link::set_up(&mut rtnl, LOOPBACK, true)?;
        Ok(Self {
            namespace,
            rtnl: Mutex::new(rtnl),
            client,
            server,
            neighbour,
            swallowed: Mutex::default(),
        })
    }

    /// Plugs in the client's cable.
    pub(crate) fn plug_client(&self, far: &End<'_>) -> Result<(), Error> {
        let mac = Some(self.client.mac);
        let near = End { name: "client", index: TO_CLIENT, mac, namespace: None, master: None };
        link::veth(&mut self.rtnl(), &near, far)
    }

    /// The router's end of the cable towards the server.
    pub(crate) fn server_end(&self) -> End<'_> {
        End {
            name: "server",
            index: TO_SERVER,
            mac: Some(self.server.mac),
            namespace: Some(&self.namespace),
            master: None,
        }
    }

    /// Gives the router, whose cables are in, its place in the network. `client` is the client's link-layer address, to be pinned where hosts pin theirs.
    pub(crate) fn settle(&self, client: Mac) -> Result<(), Error> {
        let mut rtnl = self.rtnl();
        for (index, side) in self.sides() {
            host::bring_up(&mut rtnl, index, side.gateway, side.prefix_len, side.mac)?;
        }
        if self.neighbour == Neighbour::Permanent {
            link::neighbour(&mut rtnl, TO_CLIENT, self.client.host, client)?;
        }
        Ok(())
    }

    /// Waits until frames pass through both interfaces.
    pub(crate) fn wait_until_forwarding(&self) -> Result<(), Error> {
        let mut rtnl = self.rtnl();
        for (index, side) in self.sides() {
            host::wait_until_ready(&mut rtnl, index, side.gateway)?;
        }
        Ok(())
    }

    /// Forgets the server's link-layer address where hosts' own entries are pinned, as a router
    /// does that sees the server's cable go dead: its next packet must ask for it. Says whether
    /// it did. Learned entries die by themselves, within a random time.
    pub(crate) fn forget_server(&self) -> Result<bool, Error> {
        if self.neighbour == Neighbour::Learned {
            return Ok(false);
        }
        link::forget(&mut self.rtnl(), TO_SERVER, self.server.host)?;
        Ok(true)
    }

    /// What it knows of the server's link-layer address.
    pub(crate) fn knows_server(&self) -> Result<Option<NeighbourFacts>, Error> {
        link::neighbour_facts(&mut self.rtnl(), TO_SERVER, self.server.host)
    }

    /// Drops everything for the server, or for the client; or forwards it again.
    pub(crate) fn swallow(&self, for_server: bool, for_client: bool) -> Result<(), Error> {
        let mut rtnl = self.rtnl();
        let mut swallowed = self.swallowed.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, host, drop) in
            [(0, self.server.host, for_server), (1, self.client.host, for_client)]
        {
            if swallowed[index] != drop {
                link::swallow(&mut rtnl, host, drop)?;
                swallowed[index] = drop;
            }
        }
        Ok(())
    }

    /// Answers everything that is to be forwarded, both ways, with a rejection; or, with `None`,
    /// forwards it again.
    pub(crate) fn reject(&self, kind: Option<Reject>) -> Result<(), Error> {
        let mut netfilter = Socket::open(&self.namespace, NETLINK_NETFILTER)?;
        match kind {
            Some(kind) => reject::begin(&mut netfilter, kind),
            None => nf_tables::end(&mut netfilter),
        }
    }

    /// Forgets flows that are idle for so long, from now on.
    pub(crate) fn forget(&self, idle: Duration, answer: Answer) -> Result<(), Error> {
        let mut netfilter = Socket::open(&self.namespace, NETLINK_NETFILTER)?;
        forget::begin(&self.namespace, &mut netfilter, idle, answer)
    }

    /// Both interfaces, by name.
    pub(crate) fn links(&self) -> Result<[(String, Option<link::State>); 2], Error> {
        let mut rtnl = self.rtnl();
        Ok([
            ("router port to client".to_owned(), link::state(&mut rtnl, TO_CLIENT)?),
            ("router port to server".to_owned(), link::state(&mut rtnl, TO_SERVER)?),
        ])
    }

    fn sides(&self) -> [(Index, &Side); 2] {
        [(TO_CLIENT, &self.client), (TO_SERVER, &self.server)]
    }

    fn rtnl(&self) -> MutexGuard<'_, Rtnl> {
        self.rtnl.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
