//! One trial's network: a client, a server and what joins them; and what can break between them.
//!
//! ```text
//! switch   client ─────────────── switch ─ server
//! router   client ─ router ────── switch ─ server      two subnets
//! direct   client ────────────────────── server
//! ```
//!
//! Each of them is a namespace without a name, and each cable a veth pair. The switch is a bridge;
//! behind the router it keeps the router's interface and routes as they are whatever happens to
//! the server.
//!
//! Every method that acts hands its work to [`tokio::task::spawn_blocking`]: the kernel does what
//! it is asked inside the system call, and that may take milliseconds.

pub use crate::error::Error;

use crate::host::{self, Host, INTERFACE};
use crate::link::{self, Index, Mac, PATIENCE};
use crate::netlink::Socket;
use crate::switch::{NEAR_PORT, SERVER_PORT, Switch};
use crate::{holders, sockets};
use netns::Namespace;
use spec::{Addresses, Neighbour, Parameters, Topology};
use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;

const CLIENT: Index = 2;
const SERVER: Index = 3;

/// The hosts of one trial and what joins them. Dropping it removes everything; the kernel does
/// that in its own time, so use [`Network::remove`] to know that it is done.
#[derive(Debug)]
pub struct Network {
    client: Namespace,
    server: Option<Namespace>,
    wiring: Arc<Wiring>,
    /// What the server is, or will be when it boots again.
    server_host: Host,
    fault: Option<Fault>,
}

/// What joins the hosts.
#[derive(Debug)]
enum Wiring {
    Direct,
    Switch(Switch),
}

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Cut,
    Blackhole,
    Unplug,
}

/// An interface of the network, for the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkState {
    /// `client` and `server` for the hosts' own; `switch port to server` and the like for those
    /// between them.
    pub interface: String,
    /// Whether it exists.
    pub exists: bool,
    /// `IFF_UP`.
    pub up: bool,
    /// `IFF_LOWER_UP`: the carrier.
    pub carrier: bool,
}

impl Network {
    /// The client's interface, in its namespace.
    pub const CLIENT_INTERFACE: &'static str = INTERFACE;
    /// The server's interface, in its namespace.
    pub const SERVER_INTERFACE: &'static str = INTERFACE;

    /// Builds the network that `parameters` ask for (topology, family, neighbours, delay, both
    /// hosts' sysctls) at `addresses`, and waits until frames pass.
    ///
    /// # Errors
    /// [`Error`]; nothing is left behind. See [`Error::is_unsupported`] for what makes a trial
    /// skipped.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn build(addresses: &Addresses, parameters: &Parameters) -> Result<Self, Error> {
        let (addresses, parameters) = (addresses.clone(), parameters.clone());
        blocking(move || Self::assemble(&addresses, &parameters)).await
    }

    /// The client's namespace.
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// The server's namespace; `None` once it is destroyed.
    pub fn server(&self) -> Option<&Namespace> {
        self.server.as_ref()
    }

    /// Cuts the server off, as if its host had lost power or its cable: its port of the switch
    /// goes down. Client and router keep their carriers.
    ///
    /// # Errors
    /// [`Error::Topology`] on `direct`, [`Error::Sequence`] if something is broken already.
    pub async fn cut(&mut self) -> Result<String, Error> {
        self.break_by(Fault::Cut, "cutting the server off", |wiring| {
            wiring.switch("cutting the server off")?.set_server_port(false)?;
            Ok("the switch's port to the server is down".to_owned())
        })
        .await
    }

    /// Drops every frame between the hosts, silently and both ways. All carriers stay.
    ///
    /// # Errors
    /// [`Error::Topology`] on `direct`, [`Error::Sequence`] if something is broken already.
    pub async fn blackhole(&mut self) -> Result<String, Error> {
        self.break_by(Fault::Blackhole, "dropping every frame", |wiring| {
            wiring.switch("dropping every frame")?.blackhole(true)?;
            Ok("the switch drops every frame between its ports".to_owned())
        })
        .await
    }

    /// Pulls the cable out at the server's end: both hosts lose their carriers.
    ///
    /// # Errors
    /// [`Error::Topology`] except on `direct`, [`Error::Sequence`] if something is broken already.
    pub async fn unplug(&mut self) -> Result<String, Error> {
        let operation = "pulling the cable out";
        let server = self.server.clone().ok_or(Error::NoServer { operation })?;
        self.break_by(Fault::Unplug, operation, move |wiring| {
            if let Wiring::Switch(_) = wiring {
                return Err(Error::Topology { operation, topology: wiring.topology() });
            }
            let mut netlink = Socket::open(&server, libc::NETLINK_ROUTE)?;
            link::set_up(&mut netlink, SERVER, false)?;
            Ok("the server's end of the cable is down".to_owned())
        })
        .await
    }

    /// Undoes [`Self::cut`] or [`Self::blackhole`], and waits until frames pass again. What the
    /// hosts had configured is as before; what they had learned, they learn again.
    ///
    /// # Errors
    /// [`Error::Sequence`] if nothing is broken, or nothing that can be mended.
    pub async fn restore(&mut self) -> Result<String, Error> {
        let operation = "restoring the network";
        let fault = self.fault.ok_or(Error::Sequence { operation, why: "nothing is broken" })?;
        let wiring = Arc::clone(&self.wiring);
        let done = blocking(move || wiring.restore(fault)).await?;
        self.fault = None;
        Ok(done)
    }

    /// Destroys the server's host, and waits until the kernel has removed it. Its processes must
    /// be dead, and every tap and socket in its namespace closed.
    ///
    /// # Errors
    /// [`Error::Pinned`] if something keeps the namespace alive, [`Error::NoServer`],
    /// [`Error::Topology`] on `direct`, where the client's interface would go with it.
    pub async fn destroy_server(&mut self) -> Result<String, Error> {
        let operation = "destroying the server";
        self.wiring.switch(operation)?;
        let server = self.server.take().ok_or(Error::NoServer { operation })?;
        let wiring = Arc::clone(&self.wiring);
        blocking(move || {
            sockets::destroy_all(&server)?;
            wiring.wait_until_gone("server", SERVER_PORT, server)?;
            Ok("the server's host is destroyed".to_owned())
        })
        .await
    }

    /// Boots a fresh server host in the place of the destroyed one: the same address, sysctls and
    /// neighbours, and the same MAC address unless it is to be new; no connections.
    ///
    /// # Errors
    /// [`Error::ServerPresent`] if the one before was not destroyed.
    pub async fn boot_server(&mut self, new_mac: bool) -> Result<String, Error> {
        if self.server.is_some() {
            return Err(Error::ServerPresent);
        }
        if new_mac {
            self.server_host.mac[1] = self.server_host.mac[1].wrapping_add(1);
        }
        let (wiring, host) = (Arc::clone(&self.wiring), self.server_host.clone());
        let server = blocking(move || wiring.boot_server(&host)).await?;
        self.server = Some(server);
        self.fault = None;
        let with = if new_mac { "with a new MAC address" } else { "with the same MAC address" };
        Ok(format!("a fresh server host has booted, {with}"))
    }

    /// Every interface of the network as it is now.
    ///
    /// # Errors
    /// [`Error::Kernel`] or [`Error::Namespace`].
    pub async fn links(&self) -> Result<Vec<LinkState>, Error> {
        let (client, server) = (self.client.clone(), self.server.clone());
        let wiring = Arc::clone(&self.wiring);
        blocking(move || {
            let host = |namespace: &Namespace, index| {
                link::state(&mut Socket::open(namespace, libc::NETLINK_ROUTE)?, index)
            };
            let mut links = vec![LinkState::new("client", host(&client, CLIENT)?)];
            let server = server.map(|server| host(&server, SERVER)).transpose()?.flatten();
            links.push(LinkState::new("server", server));
            links.extend(wiring.links()?);
            Ok(links)
        })
        .await
    }

    /// Removes the network, and waits until the kernel has. TCP sockets that are left in it are
    /// destroyed; processes and other sockets in it must be gone.
    ///
    /// # Errors
    /// [`Error::Pinned`] if something keeps a namespace alive.
    pub async fn remove(self) -> Result<(), Error> {
        let wiring = Arc::clone(&self.wiring);
        blocking(move || {
            let (client, server) = (self.client.clone(), self.server.clone());
            drop(self);
            if let Some(server) = server {
                wiring.wait_until_gone("server", SERVER_PORT, server)?;
            }
            wiring.wait_until_gone("client", NEAR_PORT, client)
        })
        .await
    }

    fn assemble(addresses: &Addresses, parameters: &Parameters) -> Result<Self, Error> {
        let Hosts { client, server } = Hosts::of(addresses, parameters);
        let family = parameters.family;
        let (client_namespace, mut client_netlink) = host::quiet_namespace(family)?;
        let (server_namespace, mut server_netlink) = host::quiet_namespace(family)?;
        let wiring = match parameters.topology {
            Topology::Direct => {
                let near = link::End { namespace: None, ..client.end(&client_namespace) };
                link::veth(&mut client_netlink, &near, &server.end(&server_namespace))?;
                Wiring::Direct
            }
            Topology::Switch => {
                let switch = Switch::new(family, "client")?;
                switch.plug_near(&client.end(&client_namespace))?;
                switch.plug_server(&server.end(&server_namespace))?;
                Wiring::Switch(switch)
            }
            Topology::Router => {
                let what = "the topology `router`".to_owned();
                return Err(Error::Unsupported { what, remedy: "not built yet".to_owned() });
            }
        };
        client.settle(&client_namespace, &mut client_netlink)?;
        server.settle(&server_namespace, &mut server_netlink)?;
        host::wait_until_ready(&mut client_netlink, CLIENT, client.address)?;
        host::wait_until_ready(&mut server_netlink, SERVER, server.address)?;
        wiring.wait_until_forwarding()?;
        Ok(Self {
            client: client_namespace,
            server: Some(server_namespace),
            wiring: Arc::new(wiring),
            server_host: server,
            fault: None,
        })
    }

    async fn break_by(
        &mut self,
        fault: Fault,
        operation: &'static str,
        work: impl FnOnce(&Wiring) -> Result<String, Error> + Send + 'static,
    ) -> Result<String, Error> {
        if self.fault.is_some() {
            return Err(Error::Sequence { operation, why: "it is broken already" });
        }
        let wiring = Arc::clone(&self.wiring);
        let done = blocking(move || work(&wiring)).await?;
        self.fault = Some(fault);
        Ok(done)
    }

    fn destroy_sockets(&self) -> Result<(), Error> {
        [Some(&self.client), self.server.as_ref()]
            .into_iter()
            .flatten()
            .try_for_each(sockets::destroy_all)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = self.destroy_sockets() {
            tracing::warn!(%error, "removing a network: orphaned sockets may keep it for a while");
        }
    }
}

impl LinkState {
    fn new(interface: impl Display, state: Option<link::State>) -> Self {
        Self {
            interface: interface.to_string(),
            exists: state.is_some(),
            up: state.is_some_and(|state| state.up),
            carrier: state.is_some_and(|state| state.carrier),
        }
    }
}

impl Wiring {
    fn topology(&self) -> Topology {
        match self {
            Self::Direct => Topology::Direct,
            Self::Switch(_) => Topology::Switch,
        }
    }

    fn switch(&self, operation: &'static str) -> Result<&Switch, Error> {
        match self {
            Self::Switch(switch) => Ok(switch),
            Self::Direct => Err(Error::Topology { operation, topology: self.topology() }),
        }
    }

    fn wait_until_forwarding(&self) -> Result<(), Error> {
        match self {
            Self::Direct => Ok(()),
            Self::Switch(switch) => switch.wait_until_forwarding(),
        }
    }

    fn restore(&self, fault: Fault) -> Result<String, Error> {
        let operation = "restoring the network";
        let switch = self.switch(operation)?;
        if !switch.has_server()? {
            return Err(Error::NoServer { operation });
        }
        let done = match fault {
            Fault::Cut => {
                switch.set_server_port(true)?;
                "the switch's port to the server is up again"
            }
            Fault::Blackhole => {
                switch.blackhole(false)?;
                "frames pass through the switch again"
            }
            Fault::Unplug => unreachable!("`direct` has no switch"),
        };
        switch.wait_until_forwarding()?;
        Ok(done.to_owned())
    }

    fn boot_server(&self, host: &Host) -> Result<Namespace, Error> {
        let switch = self.switch("booting the server")?;
        let family = if host.address.is_ipv4() { spec::Family::Ipv4 } else { spec::Family::Ipv6 };
        let (namespace, mut netlink) = host::quiet_namespace(family)?;
        switch.plug_server(&host.end(&namespace))?;
        host.settle(&namespace, &mut netlink)?;
        host::wait_until_ready(&mut netlink, SERVER, host.address)?;
        switch.wait_until_forwarding()?;
        Ok(namespace)
    }

    fn links(&self) -> Result<Vec<LinkState>, Error> {
        match self {
            Self::Direct => Ok(Vec::new()),
            Self::Switch(switch) => {
                Ok(switch.ports()?.map(|(name, state)| LinkState::new(name, state)).into())
            }
        }
    }

    /// Lets go of a host's namespace, and waits until its end of the cable, and so the port at
    /// the other end, is gone. Without a switch nobody is left to tell.
    fn wait_until_gone(
        &self,
        host: &'static str,
        port: Index,
        namespace: Namespace,
    ) -> Result<(), Error> {
        let inode = namespace
            .inode()
            .map_err(|source| Error::Namespace { doing: "looking at a namespace", source })?;
        drop(namespace);
        let Self::Switch(switch) = self else { return Ok(()) };
        link::wait_until("a host to end", || switch.has_no(port)).map_err(|error| match error {
            Error::Late { .. } => {
                Error::Pinned { host, inode, waited: PATIENCE, holders: holders::of(inode) }
            }
            error => error,
        })
    }
}

/// Both hosts, as a plan describes them.
struct Hosts {
    client: Host,
    server: Host,
}

impl Hosts {
    fn of(addresses: &Addresses, parameters: &Parameters) -> Self {
        let (client, server) = (addresses.client.ip(), addresses.server.ip());
        let known = |address: IpAddr| {
            (parameters.neighbour == Neighbour::Permanent).then(|| (address, mac_of(address)))
        };
        let host = |index, address, gateway: Option<IpAddr>, peer, sysctls: &_| Host {
            index,
            address,
            prefix_len: addresses.prefix_len,
            mac: mac_of(address),
            gateway,
            neighbour: known(gateway.unwrap_or(peer)),
            sysctls: Clone::clone(sysctls),
        };
        Self {
            client: host(CLIENT, client, addresses.client_gateway, server, &parameters.sysctl),
            server: host(
                SERVER,
                server,
                addresses.server_gateway,
                client,
                &parameters.server_sysctl,
            ),
        }
    }
}

/// The MAC address of the host at an address: locally administered, and as unique as the address
/// is. Its second octet is free for hosts that come back with another one.
fn mac_of(address: IpAddr) -> Mac {
    let [a, b, c, d] = match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => {
            let segments = address.segments();
            let (lease, host) = (segments[3].to_be_bytes(), segments[7].to_be_bytes());
            [lease[0], lease[1], host[0], host[1]]
        }
    };
    [0x02, if address.is_ipv4() { 0x40 } else { 0x60 }, a, b, c, d]
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
