//! The switch: a bridge in a namespace of its own, between two cables or three. Whatever happens behind
//! one port, the others keep their carrier. It is also where a path gets its delay.

use crate::error::Error;
use crate::filter::Port;
use crate::layout::Layout;
use crate::link::{self, End, Index};
use crate::netem;
use crate::nsid::{self, Nsid};
use crate::offload;
use crate::rack::{BRIDGE, Place};
use crate::relay::Relay;
use crate::rtnl::Rtnl;
use netns::Namespace;
use spec::Sieve;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

#[cfg(test)]
mod tests;

/// A switch with two ports, or three.
#[derive(Debug)]
pub(crate) struct Switch {
    third: OnceLock<Third>,
    /// Holds the namespace too, and is open as long as the switch lives: a cut waits for nothing.
    rtnl: Mutex<Rtnl>,
    /// The numbers that hosts' namespaces have here, by the inodes of those.
    numbers: Mutex<BTreeMap<u64, Nsid>>,
    /// What the near port is called: after whom it leads to.
    near: &'static str,
    forwarding: Forwarding,
    place: Place,
}

/// The port towards a third host.
#[derive(Debug)]
struct Third {
    /// Whether what is dropped between the others is dropped between this and the server too.
    is_cut_too: bool,
}

/// How frames get from port to port.
#[derive(Debug)]
enum Forwarding {
    /// By a bridge, at once.
    Bridge,
    /// By a bridge, out of ports that hold each frame.
    Netem(Duration),
    /// By a thread that holds each frame, and may drop some.
    Relay(Relay),
}

impl Switch {
    /// A switch without cables, that adds the path's round trip: half each way.
    pub(crate) fn new(near: &'static str, layout: &Layout) -> Result<Self, Error> {
        let Layout { rtt, sieves, is_quiet, .. } = *layout;
        let (place, rtnl, forwarding) = if !sieves && rtt.is_zero() {
            let (place, rtnl) = if is_quiet { Place::shared()? } else { Place::alone()? };
            (place, rtnl, Forwarding::Bridge)
        } else {
            let (place, mut rtnl) = Place::bare()?;
            let forwarding = if !sieves && netem::is_there(&mut rtnl)? {
                link::bridge(&mut rtnl, "switch", BRIDGE)?;
                Forwarding::Netem(rtt / 2)
            } else {
                Forwarding::Relay(Relay::start(place.namespace(), rtt / 2)?)
            };
            (place, rtnl, forwarding)
        };
        let (rtnl, numbers) = (Mutex::new(rtnl), Mutex::default());
        Ok(Self { third: OnceLock::new(), rtnl, numbers, near, forwarding, place })
    }

    /// Plugs in the cable towards the client or the router, whose end `far` is.
    pub(crate) fn plug_near(&self, far: &End<'_>) -> Result<(), Error> {
        self.plug(Port::Near, far)
    }

    /// Plugs in the server's cable, whose end `far` is.
    pub(crate) fn plug_server(&self, far: &End<'_>) -> Result<(), Error> {
        self.plug(Port::Server, far)
    }

    /// Plugs in the cable towards a third host, whose end `far` is. `is_cut_too`: frames that are dropped
    /// between the others are dropped between this host and the server as well.
    pub(crate) fn plug_third(&self, far: &End<'_>, is_cut_too: bool) -> Result<(), Error> {
        let hold = match &self.forwarding {
            Forwarding::Bridge => None,
            Forwarding::Netem(hold) => Some(*hold),
            Forwarding::Relay(_) => {
                return Err(Error::Unsupported {
                    what: "a delay on a switch with three hosts".into(),
                    remedy: "it needs netem (modprobe sch_netem)".into(),
                });
            }
        };
        let near =
            End { name: "third", index: THIRD, mac: None, namespace: None, master: Some(BRIDGE) };
        let mut rtnl = self.rtnl();
        link::veth(&mut rtnl, &near, far)?;
        let _ = self.third.set(Third { is_cut_too });
        hold.map_or(Ok(()), |hold| netem::delay(&mut rtnl, THIRD, hold))
    }

    /// Takes the server's port down or up. What is on its way to the server goes down with it;
    /// what is on its way from the server arrives.
    pub(crate) fn set_server_port(&self, up: bool) -> Result<(), Error> {
        link::set_up(&mut self.rtnl(), self.index(Port::Server), up)?;
        if let Forwarding::Relay(relay) = &self.forwarding {
            relay.flush_to_server();
        }
        Ok(())
    }

    /// Whether it can drop some frames and let others pass.
    pub(crate) fn sieves(&self) -> bool {
        matches!(self.forwarding, Forwarding::Relay(_))
    }

    /// Drops these frames, or lets them pass again; carriers stay. Without a relay it drops all or
    /// none.
    pub(crate) fn sieve(&self, sieve: Option<Sieve>) -> Result<(), Error> {
        if let Forwarding::Relay(relay) = &self.forwarding {
            relay.sieve(sieve);
            return Ok(());
        }
        let drop = sieve.is_some();
        let mut rtnl = self.rtnl();
        link::isolate(&mut rtnl, self.index(Port::Near), drop)?;
        link::isolate(&mut rtnl, self.index(Port::Server), drop)?;
        match self.third.get() {
            Some(Third { is_cut_too: true }) => link::isolate(&mut rtnl, THIRD, drop),
            Some(Third { is_cut_too: false }) | None => Ok(()),
        }
    }

    /// Waits until frames pass through both ports.
    pub(crate) fn wait_until_forwarding(&self) -> Result<(), Error> {
        let mut rtnl = self.rtnl();
        let third = self.third.get().map(|_| THIRD);
        for port in [self.index(Port::Near), self.index(Port::Server)].into_iter().chain(third) {
            link::wait_until("a port of the switch to forward", || {
                let state = link::state(&mut rtnl, port)?;
                Ok(state.is_some_and(|state| state.running && state.forwarding != Some(false)))
            })?;
        }
        Ok(())
    }

    /// Its ports, by name.
    pub(crate) fn links(&self) -> Result<Vec<(String, Option<link::State>)>, Error> {
        let mut rtnl = self.rtnl();
        let third = self.third.get().map(|_| ("third", THIRD));
        let ports = [(self.near, self.index(Port::Near)), ("server", self.index(Port::Server))];
        let named = ports.into_iter().chain(third).map(|(host, port)| {
            Ok((format!("switch port to {host}"), link::state(&mut rtnl, port)?))
        });
        named.collect()
    }

    /// Whether there is such a port: it goes with the interface at the cable's other end.
    pub(crate) fn has(&self, port: Port) -> Result<bool, Error> {
        Ok(link::state(&mut self.rtnl(), self.index(port))?.is_some())
    }

    /// An interface of a host.
    pub(crate) fn link_of(
        &self,
        host: &Namespace,
        index: Index,
    ) -> Result<Option<link::State>, Error> {
        let mut rtnl = self.rtnl();
        let number = self.number(&mut rtnl, host)?;
        link::state_in(&mut rtnl, Some(number), index)
    }

    fn number(&self, rtnl: &mut Rtnl, host: &Namespace) -> Result<Nsid, Error> {
        let mut numbers = lock(&self.numbers);
        let number = match numbers.get(&host.inode()) {
            Some(number) => *number,
            None => nsid::of(rtnl, host)?,
        };
        numbers.insert(host.inode(), number);
        Ok(number)
    }

    /// The number that a host's namespace has here. It is about to end, and may then be another's.
    pub(crate) fn last_number(&self, host: &Namespace) -> Result<Nsid, Error> {
        let known = lock(&self.numbers).remove(&host.inode());
        known.map_or_else(|| nsid::of(&mut self.rtnl(), host), Ok)
    }

    /// Whether the namespace of this number still lives.
    pub(crate) fn knows(&self, number: Nsid) -> Result<bool, Error> {
        nsid::lives(&mut self.rtnl(), number)
    }

    /// What delays the frames, if anything does.
    pub(crate) fn delayed_by(&self) -> Option<&'static str> {
        match self.forwarding {
            Forwarding::Bridge => None,
            Forwarding::Netem(_) => Some("netem"),
            Forwarding::Relay(ref relay) => relay.holds().then_some("relay"),
        }
    }

    /// Frames that the delay has lost.
    pub(crate) fn lost(&self) -> u64 {
        match &self.forwarding {
            Forwarding::Relay(relay) => relay.lost(),
            Forwarding::Bridge | Forwarding::Netem(_) => 0,
        }
    }

    fn plug(&self, port: Port, far: &End<'_>) -> Result<(), Error> {
        let name = match port {
            Port::Near => self.near,
            Port::Server => "server",
        };
        let master = (!matches!(self.forwarding, Forwarding::Relay(_))).then_some(BRIDGE);
        let (name, index) = (self.place.name(name), self.index(port));
        let near = End { name: &name, index, mac: None, namespace: None, master };
        let mut rtnl = self.rtnl();
        if let Some(host) = far.namespace {
            self.number(&mut rtnl, host)?;
        }
        link::veth(&mut rtnl, &near, far)?;
        match &self.forwarding {
            // Its cable is dead until the far end comes up.
            Forwarding::Bridge => match far.mac.filter(|_| self.place.is_shared()) {
                Some(mac) => link::only_for(&mut rtnl, index, mac),
                None => Ok(()),
            },
            Forwarding::Netem(hold) => netem::delay(&mut rtnl, index, *hold),
            Forwarding::Relay(relay) => {
                if let Some(namespace) = far.namespace {
                    offload::switch_off(namespace, far.name)?;
                }
                relay.attach(port, index)?;
                if port == Port::Server {
                    // What was sent to the one before does not reach the next.
                    relay.flush_to_server();
                }
                Ok(())
            }
        }
    }

    fn index(&self, port: Port) -> Index {
        self.place.index(match port {
            Port::Near => 11,
            Port::Server => 12,
        })
    }

    fn rtnl(&self) -> MutexGuard<'_, Rtnl> {
        lock(&self.rtnl)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A request that panicked leaves nothing half-done in the socket that the next would see.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The port towards a third host.
const THIRD: Index = 13;
