//! What joins the hosts, and how it breaks.

use crate::error::Error;
use crate::filter::Port;
use crate::holders;
use crate::host::{self, Host};
use crate::layout::{CLIENT, Layout, SERVER, THIRD, side_towards};
use crate::link::{self, End, Index, PATIENCE};
use crate::router::Router;
use crate::rtnl::Rtnl;
use crate::switch::Switch;
use netns::Namespace;
use spec::{Drops, FaultAct, Neighbour, Reject, Sieve, Topology};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What joins the hosts.
#[derive(Debug)]
pub(crate) enum Wiring {
    /// One cable.
    Direct,
    /// A switch.
    Switch(Switch),
    /// A router, and behind it a switch: it keeps the router's interface and routes as they are
    /// whatever happens to the server.
    Router(Router, Switch),
}

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breakage {
    Cut,
    Blackhole(Sieve),
    Unplug,
    Reject(Reject),
}

impl Breakage {
    /// Its operation, for errors.
    pub(crate) fn operation(self) -> &'static str {
        match self {
            Self::Cut => "cutting the server off",
            Self::Blackhole(_) => "dropping what passes",
            Self::Unplug => "pulling the cable out",
            Self::Reject(_) => "rejecting what is forwarded",
        }
    }
}

/// Everything, both ways.
pub(crate) const EVERYTHING: Sieve = Sieve { to_lost: true, to_survivor: true, drops: Drops::All };

const NOT_BUILT_FOR_IT: &str = "the switch was built to drop all frames or none";

/// A network that is built: its hosts' namespaces, and what joins them.
pub(crate) struct Built {
    pub(crate) client: Namespace,
    pub(crate) server: Namespace,
    pub(crate) third: Option<Namespace>,
    pub(crate) wiring: Wiring,
}

impl Wiring {
    /// Builds a network and waits until frames pass.
    pub(crate) fn build(layout: &Layout) -> Result<Built, Error> {
        let turn = take_turn();
        let (client, mut client_rtnl) = host::namespace(layout.family)?;
        let (server, mut server_rtnl) = host::namespace(layout.family)?;
        let (client_end, server_end) = (layout.client.end(&client), layout.server.end(&server));
        let wiring = match (side_towards(&layout.client), side_towards(&layout.server)) {
            (Some(to_client), Some(to_server)) => {
                let router = Router::new(to_client, to_server, layout.neighbour)?;
                let switch = Switch::new("router", layout)?;
                router.plug_client(&client_end)?;
                switch.plug_near(&router.server_end())?;
                switch.plug_server(&server_end)?;
                router.settle(layout.client.mac)?;
                Self::Router(router, switch)
            }
            _ if layout.topology == Topology::Direct => {
                let near = End { namespace: None, ..client_end };
                link::veth(&mut client_rtnl, &near, &server_end)?;
                Self::Direct
            }
            _ => {
                let switch = Switch::new("client", layout)?;
                switch.plug_near(&client_end)?;
                switch.plug_server(&server_end)?;
                Self::Switch(switch)
            }
        };
        let third = layout.third.as_ref().map(|host| wiring.add_third(host, layout)).transpose()?;
        layout.client.settle(&client, &mut client_rtnl)?;
        layout.server.settle(&server, &mut server_rtnl)?;
        drop(turn);
        host::wait_until_ready(&mut client_rtnl, CLIENT, layout.client.address)?;
        host::wait_until_ready(&mut server_rtnl, SERVER, layout.server.address)?;
        wiring.wait_until_forwarding()?;
        Ok(Built { client, server, third, wiring })
    }

    /// Joins the third host.
    fn add_third(&self, host: &Host, layout: &Layout) -> Result<Namespace, Error> {
        let operation = "joining a third host";
        let wrong = Error::Topology { operation, topology: self.topology() };
        let switch = self.switch().ok_or(wrong)?;
        let (namespace, mut rtnl) = host::namespace(layout.family)?;
        switch.plug_third(&host.end(&namespace), layout.server_is_between)?;
        host.settle(&namespace, &mut rtnl)?;
        host::wait_until_ready(&mut rtnl, THIRD, host.address)?;
        Ok(namespace)
    }

    /// Breaks it, and says what was done.
    pub(crate) fn break_by(
        &self,
        fault: Breakage,
        server: Option<&Namespace>,
    ) -> Result<FaultAct, Error> {
        let operation = fault.operation();
        match (fault, self) {
            (Breakage::Cut, Self::Switch(switch)) => {
                switch.set_server_port(false)?;
                Ok(FaultAct::PortDown)
            }
            (Breakage::Cut, Self::Router(router, switch)) => {
                switch.set_server_port(false)?;
                Ok(if router.forget_server()? {
                    FaultAct::CableDeadAndForgotten
                } else {
                    FaultAct::CableDead
                })
            }
            (Breakage::Blackhole(sieve), Self::Router(router, _)) if sieve.drops == Drops::All => {
                router.swallow(sieve.to_lost, sieve.to_survivor)?;
                Ok(if sieve == EVERYTHING { FaultAct::RouterDrops } else { FaultAct::DropsSome })
            }
            (Breakage::Blackhole(sieve), Self::Switch(switch) | Self::Router(_, switch)) => {
                if sieve != EVERYTHING && !switch.sieves() {
                    return Err(Error::Sequence { operation, why: NOT_BUILT_FOR_IT });
                }
                switch.sieve(Some(sieve))?;
                Ok(if sieve == EVERYTHING { FaultAct::SwitchDrops } else { FaultAct::DropsSome })
            }
            (Breakage::Unplug, Self::Direct) => {
                let server = server.ok_or(Error::NoServer { operation })?;
                let mut rtnl = Rtnl::open(server)?;
                link::set_up(&mut rtnl, SERVER, false)?;
                Ok(FaultAct::Unplugged)
            }
            (Breakage::Reject(kind), Self::Router(router, _)) => {
                router.reject(Some(kind))?;
                Ok(FaultAct::RouterRejects)
            }
            _ => Err(Error::Topology { operation, topology: self.topology() }),
        }
    }

    /// Mends it, waits until frames pass, and says what was done.
    pub(crate) fn restore(&self, fault: Breakage) -> Result<FaultAct, Error> {
        let operation = "restoring the network";
        let wrong = Error::Topology { operation, topology: self.topology() };
        let switch = self.switch().ok_or(wrong)?;
        if !switch.has(Port::Server)? {
            return Err(Error::NoServer { operation });
        }
        let done = match (fault, self) {
            (Breakage::Cut, _) => {
                switch.set_server_port(true)?;
                FaultAct::CableAlive
            }
            (Breakage::Blackhole(sieve), Self::Router(router, _)) if sieve.drops == Drops::All => {
                router.swallow(false, false)?;
                FaultAct::RouterForwards
            }
            (Breakage::Reject(_), Self::Router(router, _)) => {
                router.reject(None)?;
                FaultAct::RouterForwards
            }
            _ => {
                switch.sieve(None)?;
                FaultAct::SwitchForwards
            }
        };
        switch.wait_until_forwarding()?;
        Ok(done)
    }

    /// Boots a server in the place of one that is gone, behind a dead cable.
    pub(crate) fn boot_server(&self, host: &Host) -> Result<Namespace, Error> {
        let operation = "booting the server";
        let wrong = Error::Topology { operation, topology: self.topology() };
        let switch = self.switch().ok_or(wrong)?;
        let (namespace, mut rtnl) = host::namespace(host.family())?;
        switch.plug_server(&host.end(&namespace))?;
        switch.set_server_port(false)?;
        host.settle(&namespace, &mut rtnl)?;
        Ok(namespace)
    }

    /// Brings the cable of a server that has booted to life, and waits until frames pass.
    pub(crate) fn connect_server(&self, host: &Host, server: &Namespace) -> Result<(), Error> {
        let operation = "connecting the server";
        let wrong = Error::Topology { operation, topology: self.topology() };
        let switch = self.switch().ok_or(wrong)?;
        switch.set_server_port(true)?;
        host::wait_until_ready(&mut Rtnl::open(server)?, SERVER, host.address)?;
        switch.wait_until_forwarding()
    }

    /// Lets go of the namespace of the client, whose connections are destroyed, and waits until
    /// nothing holds it any more. What the kernel then does with it it does in its own time.
    pub(crate) fn end_client(&self, client: Namespace, neighbour: Neighbour) -> Result<(), Error> {
        self.end("client", CLIENT, client, neighbour)
    }

    /// The same for the server.
    pub(crate) fn end_server(&self, server: Namespace, neighbour: Neighbour) -> Result<(), Error> {
        self.end("server", SERVER, server, neighbour)
    }

    /// The same for the third host.
    pub(crate) fn end_third(&self, third: Namespace, neighbour: Neighbour) -> Result<(), Error> {
        self.end("third", THIRD, third, neighbour)
    }

    /// Ends a host whose connections are destroyed. On a direct cable no other host sees that.
    fn end(
        &self,
        host: &'static str,
        index: Index,
        namespace: Namespace,
        neighbour: Neighbour,
    ) -> Result<(), Error> {
        wait_for_nobody(&namespace, index, neighbour)?;
        let Some(switch) = self.switch() else { return Ok(()) };
        let number = switch.last_number(&namespace)?;
        let inode = namespace.inode();
        drop(namespace);
        link::wait_until("a host to end", || Ok(!switch.knows(number)?))
            .map_err(|error| pinned(error, host, inode))
    }

    /// Ends the server's host, whose connections are destroyed: every hold on its namespace, and with
    /// that its cable. The kernel takes its time for it, the longer the more end at once; on the
    /// network this makes no difference.
    pub(crate) fn destroy_server(
        &self,
        server: Namespace,
        neighbour: Neighbour,
    ) -> Result<(), Error> {
        let operation = "destroying the server";
        let wrong = Error::Topology { operation, topology: self.topology() };
        let switch = self.switch().ok_or(wrong)?;
        // Asked from the switch, at the other end of the cable that goes.
        let number = switch.last_number(&server)?;
        wait_for_nobody(&server, SERVER, neighbour)?;
        let inode = server.inode();
        drop(server);
        let gone = || Ok(!switch.knows(number)?);
        link::wait_until("a host to end", gone).map_err(|error| pinned(error, "server", inode))?;
        link::wait_for_long("a host's cable to go with it", || Ok(!switch.has(Port::Server)?))
    }

    /// An interface of one of the hosts: asked from the switch, if there is one, where no socket has
    /// to be opened first.
    pub(crate) fn host_link(
        &self,
        host: &Namespace,
        index: Index,
    ) -> Result<Option<link::State>, Error> {
        match self.switch() {
            Some(switch) => switch.link_of(host, index),
            None => link::state(&mut Rtnl::open(host)?, index),
        }
    }

    /// The interfaces between the hosts.
    pub(crate) fn links(&self) -> Result<Vec<(String, Option<link::State>)>, Error> {
        Ok(match self {
            Self::Direct => Vec::new(),
            Self::Switch(switch) => switch.links()?,
            Self::Router(router, switch) => {
                router.links()?.into_iter().chain(switch.links()?).collect()
            }
        })
    }

    pub(crate) fn topology(&self) -> Topology {
        match self {
            Self::Direct => Topology::Direct,
            Self::Switch(_) => Topology::Switch,
            Self::Router(..) => Topology::Router,
        }
    }

    pub(crate) fn switch(&self) -> Option<&Switch> {
        match self {
            Self::Direct => None,
            Self::Switch(switch) | Self::Router(_, switch) => Some(switch),
        }
    }

    fn wait_until_forwarding(&self) -> Result<(), Error> {
        if let Self::Router(router, _) = self {
            router.wait_until_forwarding()?;
        }
        self.switch().map_or(Ok(()), Switch::wait_until_forwarding)
    }
}

/// One network is built at a time: the kernel configures one interface at a time anyway (RTNL),
/// and a thread that writes a sysctl at the same time spins, on a processor
/// (`restart_syscall`). A hundred builders at once take twice as long as one after the other.
fn take_turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A last segment that waits for the other host's link-layer address would keep the namespace for three
/// seconds; an interface that goes down waits for nobody. Elsewhere nothing waits, and every change of
/// an interface has to wait for those of the whole machine.
fn wait_for_nobody(namespace: &Namespace, index: Index, neighbour: Neighbour) -> Result<(), Error> {
    if neighbour != Neighbour::Learned {
        return Ok(());
    }
    match link::set_up(&mut Rtnl::open(namespace)?, index, false) {
        // It went with the other end of its cable.
        Err(Error::Kernel { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        down => down,
    }
}

/// Why a host has not ended in time: who holds its namespace, as far as /proc tells.
fn pinned(error: Error, host: &'static str, inode: u64) -> Error {
    let Error::Late { .. } = error else { return error };
    let holders = match holders::of(inode) {
        found if found.is_empty() => {
            "no process is in it or has a descriptor of it, so a socket holds it".into()
        }
        found => found.join(", "),
    };
    Error::Pinned { host, inode, waited: PATIENCE, holders }
}
