//! The switch: a bridge in a namespace of its own, between two cables. Whatever happens behind one
//! port, the other keeps its carrier.

use crate::host::quiet_namespace;
use crate::link::{self, End, Index};
use crate::netlink::Socket;
use crate::network::Error;
use crate::sysctl;
use netns::Namespace;
use std::sync::{Mutex, PoisonError};

/// The port towards the client or, behind a router, towards the router.
pub(crate) const NEAR_PORT: Index = 11;
/// The port towards the server.
pub(crate) const SERVER_PORT: Index = 12;
const BRIDGE: Index = 10;

/// A switch with two ports.
#[derive(Debug)]
pub(crate) struct Switch {
    /// Holds the namespace too, and is open as long as the switch lives: a cut waits for nothing.
    netlink: Mutex<Socket>,
    /// What the near port is called: after whom it leads to.
    near: &'static str,
}

impl Switch {
    /// A switch without cables.
    pub(crate) fn new(family: spec::Family, near: &'static str) -> Result<Self, Error> {
        let (namespace, mut netlink) = quiet_namespace(family)?;
        keep_bridge_out_of_netfilter(&namespace)?;
        link::bridge(&mut netlink, "switch", BRIDGE)?;
        Ok(Self { netlink: Mutex::new(netlink), near })
    }

    /// Plugs in the cable towards the client or the router.
    pub(crate) fn plug_near(&self, far: &End<'_>) -> Result<(), Error> {
        self.plug(self.near, NEAR_PORT, far)
    }

    /// Plugs in the server's cable.
    pub(crate) fn plug_server(&self, far: &End<'_>) -> Result<(), Error> {
        self.plug("server", SERVER_PORT, far)
    }

    /// Takes the server's port down or up.
    pub(crate) fn set_server_port(&self, up: bool) -> Result<(), Error> {
        link::set_up(&mut self.netlink(), SERVER_PORT, up)
    }

    /// Drops every frame, or lets them pass again; carriers stay.
    pub(crate) fn blackhole(&self, drop: bool) -> Result<(), Error> {
        let mut netlink = self.netlink();
        link::isolate(&mut netlink, NEAR_PORT, drop)?;
        link::isolate(&mut netlink, SERVER_PORT, drop)
    }

    /// Waits until frames pass through both ports.
    pub(crate) fn wait_until_forwarding(&self) -> Result<(), Error> {
        let mut netlink = self.netlink();
        for port in [NEAR_PORT, SERVER_PORT] {
            link::wait_until("a port of the switch to forward", || {
                let state = link::state(&mut netlink, port)?;
                Ok(state.is_some_and(|state| state.running && state.forwarding != Some(false)))
            })?;
        }
        Ok(())
    }

    /// Both ports, by name.
    pub(crate) fn ports(&self) -> Result<[(String, Option<link::State>); 2], Error> {
        let mut netlink = self.netlink();
        Ok([
            (format!("switch port to {}", self.near), link::state(&mut netlink, NEAR_PORT)?),
            ("switch port to server".to_owned(), link::state(&mut netlink, SERVER_PORT)?),
        ])
    }

    /// Whether the server's cable is plugged in.
    pub(crate) fn has_server(&self) -> Result<bool, Error> {
        Ok(link::state(&mut self.netlink(), SERVER_PORT)?.is_some())
    }

    /// Whether there is no such port.
    pub(crate) fn has_no(&self, port: Index) -> Result<bool, Error> {
        Ok(link::state(&mut self.netlink(), port)?.is_none())
    }

    fn plug(&self, name: &'static str, index: Index, far: &End<'_>) -> Result<(), Error> {
        let near = End { name, index, mac: None, namespace: None, master: Some(BRIDGE) };
        link::veth(&mut self.netlink(), &near, far)
    }

    fn netlink(&self) -> std::sync::MutexGuard<'_, Socket> {
        // A request that panicked leaves nothing half-done in the socket that the next would see.
        self.netlink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where `br_netfilter` is loaded, every new namespace passes bridged packets to the IP layer's
/// hooks.
fn keep_bridge_out_of_netfilter(namespace: &Namespace) -> Result<(), Error> {
    namespace
        .run(|| {
            for table in ["iptables", "ip6tables", "arptables"] {
                sysctl::write_if_present(&format!("bridge/bridge-nf-call-{table}"), "0").map_err(
                    |source| {
                        Error::kernel(
                            format!("setting net.bridge.bridge-nf-call-{table}=0"),
                            source,
                        )
                    },
                )?;
            }
            Ok(())
        })
        .map_err(|source| Error::Namespace { doing: "configuring the switch", source })?
}
