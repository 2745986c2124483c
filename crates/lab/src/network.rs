//! One trial's network: a client, a server and what joins them; and what can break between them.
//!
//! ```text
//! switch   client ─────────────── switch ─ server
//! router   client ─ router ────── switch ─ server      two subnets
//! direct   client ────────────────────── server
//! proxy    client ─────────────── switch ─ server
//!          third  ────────────────┘
//! ```
//!
//! Each of them is a namespace without a name, and each cable a veth pair. The switch is a bridge;
//! behind the router it keeps the router's interface and routes as they are whatever happens to
//! the server. `path.rtt` is added in the switch.
//!
//! Every method that acts hands its work to [`tokio::task::spawn_blocking`]: the kernel does what
//! it is asked inside the system call, and that may take milliseconds.

pub use crate::error::Error;

use crate::announce::announce;
use crate::host::{Host, INTERFACE};
use crate::layout::{CLIENT, Layout, Only, SERVER, THIRD};
use crate::link;
use crate::rtnl::Rtnl;
use crate::sockets;
use crate::switch::Switch;
use crate::wiring::{Breakage, Built, EVERYTHING, Wiring};
use netns::Namespace;
use spec::facts::NeighbourFacts;
use spec::{Addresses, Drops, FaultAct, Neighbour, Parameters, Reject, Sieve};
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, RuntimeFlavor};

/// The hosts of one trial and what joins them. Dropping it removes everything that
/// nothing else holds; use [`Network::remove`] to know that nothing does.
#[derive(Debug)]
pub struct Network {
    client: Namespace,
    server: Option<Namespace>,
    third: Option<Namespace>,
    wiring: Arc<Wiring>,
    /// What the server is, or will be when it boots again.
    server_host: Host,
    neighbour: Neighbour,
    only: Only,
    fault: Option<Breakage>,
    /// Whether a server has booted that waits for its cable.
    has_booted: bool,
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
    /// The interface of each host, in its namespace.
    pub const INTERFACE: &'static str = INTERFACE;

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
        let layout = Layout::new(addresses, parameters);
        blocking(move || {
            let Built { client, server, third, wiring } = Wiring::build(&layout)?;
            if let (Some((idle, answer)), Wiring::Router(router, _)) = (layout.forgets, &wiring) {
                router.forget(idle, answer)?;
            }
            Ok(Self {
                client,
                server: Some(server),
                third,
                wiring: Arc::new(wiring),
                server_host: layout.server,
                neighbour: layout.neighbour,
                only: layout.only,
                fault: None,
                has_booted: false,
            })
        })
        .await
    }

    /// The client's namespace.
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// The server's namespace; `None` once it is destroyed.
    pub fn server(&self) -> Option<&Namespace> {
        self.server.as_ref()
    }

    /// The third host's namespace, on the topology `proxy`.
    pub fn third(&self) -> Option<&Namespace> {
        self.third.as_ref()
    }

    /// Cuts the server off, as if its host had lost power or its cable: its port of the switch
    /// goes down. Client and router keep their carriers.
    ///
    /// Behind a router, where hosts' neighbour entries are pinned, the router also forgets the
    /// server's: a router that sees a cable go dead does that (`arp_evict_nocarrier`), and its
    /// answers then come when address resolution has failed, 3 seconds after the next packet.
    /// Where entries are learned, the router's dies by itself, 20 to 50 seconds later.
    ///
    /// # Errors
    /// [`Error::Topology`] on `direct`, [`Error::Sequence`] if something is broken already.
    pub async fn cut(&mut self) -> Result<FaultAct, Error> {
        self.break_by(Breakage::Cut).await
    }

    /// Drops packets between the hosts, silently: everything, or what the sieve says; all carriers
    /// stay. What `path.rtt` holds on its way still arrives.
    ///
    /// # Errors
    /// [`Error::Topology`] on `direct`, [`Error::Sequence`] if something is broken already, or if
    /// the network was not built for a sieve ([`Self::sieves`]).
    pub async fn blackhole(&mut self, sieve: Option<Sieve>) -> Result<FaultAct, Error> {
        self.break_by(Breakage::Blackhole(sieve.unwrap_or(EVERYTHING))).await
    }

    /// Whether the path can drop what this sieve says: one that drops some packets and lets others
    /// pass needs a network that was built for it.
    pub fn sieves(&self, sieve: Sieve) -> bool {
        let by_routes = sieve.drops == Drops::All && matches!(*self.wiring, Wiring::Router(..));
        by_routes || self.wiring.switch().is_some_and(Switch::sieves)
    }

    /// Pulls the cable out at the server's end: both hosts lose their carriers.
    ///
    /// # Errors
    /// [`Error::Topology`] except on `direct`, [`Error::Sequence`] if something is broken already.
    pub async fn unplug(&mut self) -> Result<FaultAct, Error> {
        let done = self.break_by(Breakage::Unplug).await?;
        let client = self.client.clone();
        // The kernel empties and stops the client's queue a moment later (`linkwatch_do_dev`,
        // net/core/link_watch.c). Until then a segment is not lost but refused, and TCP takes it
        // for unsent.
        blocking(move || {
            let mut rtnl = Rtnl::open(&client)?;
            link::wait_until("the client to see its carrier gone", || {
                Ok(link::state(&mut rtnl, CLIENT)?.is_none_or(|state| !state.running))
            })
        })
        .await?;
        Ok(done)
    }

    /// Has the router answer everything it is to forward, in both directions, at the kernel's
    /// default rate limits.
    ///
    /// # Errors
    /// [`Error::Topology`] except on `router`, [`Error::Unsupported`] where the kernel has no
    /// nf_tables, [`Error::Sequence`] if something is broken already.
    pub async fn reject(&mut self, kind: Reject) -> Result<FaultAct, Error> {
        self.break_by(Breakage::Reject(kind)).await
    }

    /// Undoes [`Self::cut`], [`Self::blackhole`] or [`Self::reject`], and waits until frames pass
    /// again. What the hosts had configured is as before; what they had learned, they learn again.
    ///
    /// # Errors
    /// [`Error::Sequence`] if nothing is broken, [`Error::NoServer`] if the server is destroyed,
    /// [`Error::Topology`] on `direct`.
    pub async fn restore(&mut self) -> Result<FaultAct, Error> {
        let operation = "restoring the network";
        let fault = self.fault.ok_or(Error::Sequence { operation, why: "nothing is broken" })?;
        let wiring = Arc::clone(&self.wiring);
        let done = blocking(move || wiring.restore(fault)).await?;
        self.fault = None;
        Ok(done)
    }

    /// Destroys the server's host, and waits until nothing holds its namespace any more. Its
    /// processes must be dead, and every tap and socket in its namespace closed; connections that
    /// have outlived their processes are destroyed with it. Only a cut keeps their last words from
    /// the client.
    ///
    /// # Errors
    /// [`Error::Pinned`] if something keeps the namespace alive, [`Error::NoServer`],
    /// [`Error::Topology`] on `direct`, where the client's interface would go with it.
    pub async fn destroy_server(&mut self) -> Result<FaultAct, Error> {
        let operation = "destroying the server";
        if self.wiring.switch().is_none() {
            return Err(Error::Topology { operation, topology: self.wiring.topology() });
        }
        let (wiring, neighbour) = (Arc::clone(&self.wiring), self.neighbour);
        let server = self.server.take().ok_or(Error::NoServer { operation })?;
        let only = self.only.map(|(client, server)| (server, client));
        let server = prompt(move || destroy_connections(&server, only).map(|()| server)).await?;
        together().await;
        blocking(move || wiring.destroy_server(server, neighbour)).await?;
        Ok(FaultAct::HostDestroyed)
    }

    /// Boots a fresh server host in the place of the destroyed one: the same address, sysctls and
    /// neighbours, and the same MAC address unless it is to be new; no connections. Its cable is
    /// dead until [`Self::connect_server`], so that all of this can be done beforehand.
    ///
    /// # Errors
    /// [`Error::ServerPresent`] if the one before was not destroyed.
    pub async fn boot_server(&mut self, new_mac: bool) -> Result<(), Error> {
        if self.server.is_some() {
            return Err(Error::ServerPresent);
        }
        if new_mac {
            self.server_host.mac[1] = self.server_host.mac[1].wrapping_add(1);
        }
        let (wiring, host) = (Arc::clone(&self.wiring), self.server_host.clone());
        let server = blocking(move || wiring.boot_server(&host)).await?;
        self.server = Some(server);
        self.has_booted = true;
        Ok(())
    }

    /// Brings the cable of a freshly booted server to life, and waits until frames pass.
    ///
    /// # Errors
    /// [`Error::Sequence`] if no server has booted.
    pub async fn connect_server(&mut self) -> Result<FaultAct, Error> {
        let (Some(server), true) = (self.server.clone(), self.has_booted) else {
            let operation = "connecting the server";
            return Err(Error::Sequence { operation, why: "no server has booted" });
        };
        let (wiring, host) = (Arc::clone(&self.wiring), self.server_host.clone());
        blocking(move || wiring.connect_server(&host, &server)).await?;
        (self.has_booted, self.fault) = (false, None);
        Ok(FaultAct::HostReplaced)
    }

    /// Has the server's host say that it has its address, to everybody on its link.
    ///
    /// # Errors
    /// [`Error::NoServer`], [`Error::Kernel`] or [`Error::Namespace`].
    pub async fn announce_server(&self) -> Result<FaultAct, Error> {
        let operation = "announcing the server's address";
        let server = self.server.clone().ok_or(Error::NoServer { operation })?;
        let Host { mac, address, .. } = self.server_host;
        prompt(move || announce(&server, SERVER, mac, address)).await?;
        Ok(FaultAct::Announced)
    }

    /// Every interface of the network as it is now.
    ///
    /// # Errors
    /// [`Error::Kernel`] or [`Error::Namespace`].
    pub async fn links(&self) -> Result<Vec<LinkState>, Error> {
        let (client, server) = (self.client.clone(), self.server.clone());
        let (wiring, third) = (Arc::clone(&self.wiring), self.third.clone());
        prompt(move || {
            let server = server.map(|server| wiring.host_link(&server, SERVER));
            let server = server.transpose()?.flatten();
            let mut links = vec![
                LinkState::new("client", wiring.host_link(&client, CLIENT)?),
                LinkState::new("server", server),
            ];
            if let Some(third) = third {
                links.push(LinkState::new("third", wiring.host_link(&third, THIRD)?));
            }
            links.extend(
                wiring.links()?.into_iter().map(|(name, state)| LinkState::new(name, state)),
            );
            Ok(links)
        })
        .await
    }

    /// What the sender on the server's link (the client or the router) knows of its
    /// link-layer address; `None` if nothing. The time stamp is the caller's to fill in.
    ///
    /// # Errors
    /// [`Error::Kernel`] or [`Error::Namespace`].
    pub fn knows_server(&self) -> Result<Option<NeighbourFacts>, Error> {
        match &*self.wiring {
            Wiring::Router(router, _) => router.knows_server(),
            Wiring::Direct | Wiring::Switch(_) => {
                let mut rtnl = Rtnl::open(&self.client)?;
                link::neighbour_facts(&mut rtnl, CLIENT, self.server_host.address)
            }
        }
    }

    /// What delays the frames: `netem`, the kernel's own, or `relay`, a thread of this process;
    /// `None` without `path.rtt`.
    pub fn delayed_by(&self) -> Option<&'static str> {
        self.wiring.switch().and_then(Switch::delayed_by)
    }

    /// Frames that the path's delay has lost because the machine was too busy: of a trial that
    /// lost any, nothing can be concluded.
    pub fn lost_frames(&self) -> u64 {
        self.wiring.switch().map_or(0, Switch::lost)
    }

    /// Removes the network, and waits until nothing holds it any more. Connections that are left in
    /// it are destroyed; processes and other sockets in it must be gone.
    ///
    /// # Errors
    /// [`Error::Pinned`] if something keeps a namespace alive.
    pub async fn remove(self) -> Result<(), Error> {
        let wiring = Arc::clone(&self.wiring);
        let (client, server, third, neighbour) =
            (self.client.clone(), self.server.clone(), self.third.clone(), self.neighbour);
        // This destroys their connections.
        prompt(move || drop(self)).await;
        together().await;
        blocking(move || {
            server.map_or(Ok(()), |server| wiring.end_server(server, neighbour))?;
            third.map_or(Ok(()), |third| wiring.end_third(third, neighbour))?;
            wiring.end_client(client, neighbour)
        })
        .await
    }

    async fn break_by(&mut self, fault: Breakage) -> Result<FaultAct, Error> {
        if self.fault.is_some() {
            let operation = fault.operation();
            return Err(Error::Sequence { operation, why: "something is broken already" });
        }
        let (wiring, server) = (Arc::clone(&self.wiring), self.server.clone());
        let done = prompt(move || wiring.break_by(fault, server.as_ref())).await?;
        self.fault = Some(fault);
        Ok(done)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let hosts = [
            (Some(&self.client), self.only),
            (self.server.as_ref(), self.only.map(|(client, server)| (server, client))),
            (self.third.as_ref(), None),
        ];
        for (host, only) in hosts {
            let Some(host) = host else { continue };
            if let Err(error) = destroy_connections(host, only) {
                tracing::warn!(%error, "orphaned connections may keep a network for a while");
            }
        }
    }
}

/// Destroys the connections of a host, or the only one that it can have: its own end and the other.
fn destroy_connections(host: &Namespace, only: Only) -> Result<(), Error> {
    match only {
        Some((local, remote)) => sockets::destroy(host, local, remote),
        None => sockets::destroy_all(host),
    }
}

/// Waits until others that come at about the same time are there too. The kernel cleans up after all
/// namespaces that have ended together in about the time that one takes (`cleanup_net`,
/// net/core/net_namespace.c), and meanwhile nobody else can change an interface. The first goes on at
/// once.
async fn together() {
    const APART: Duration = Duration::from_millis(200);
    static NEXT: Mutex<Option<Instant>> = Mutex::new(None);
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return;
    }
    let now = Instant::now();
    let turn = {
        let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
        match *next {
            Some(turn) if turn > now => turn,
            _ => {
                *next = Some(now + APART);
                now
            }
        }
    };
    tokio::time::sleep_until(turn.into()).await;
}

/// Destroys every TCP socket in a namespace, so that none of them outlives its program for a minute
/// and a half, and pins the namespace. For namespaces whose [`Network`] is in another process, or
/// gone; a network does this by itself.
///
/// # Errors
/// [`Error::Namespace`] if it cannot be entered, [`Error::Kernel`].
pub fn destroy_sockets(namespace: &Namespace) -> Result<(), Error> {
    sockets::destroy_all(namespace)
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

/// Work that never waits for the kernel. A runtime of one thread, on one processor, does it itself.
async fn prompt<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => work(),
        _ => blocking(work).await,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
