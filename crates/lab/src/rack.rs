//! Where switches stand: each in a namespace of its own, or several at one bridge.
//!
//! To remove a bridge the kernel waits for every RCU callback of the machine (`br_multicast_dev_del`,
//! net/bridge/br_multicast.c), for one bridge after the other, and meanwhile nobody can change an
//! interface: with a bridge for each of 500 trials that takes seconds.
//!
//! The ports of a shared bridge learn nothing, and nothing is flooded to them. A frame goes where its
//! link-layer address is known to be, and no two trials of a machine have one in common
//! ([`crate::layout`]): no trial sees a frame of another.

use crate::error::Error;
use crate::host::{Setting, quiet_namespace};
use crate::link::{self, Index};
use crate::rtnl::Rtnl;
use netns::Namespace;
use spec::Family;
use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A switch's place, and what holds its namespace.
#[derive(Debug)]
pub(crate) struct Place {
    namespace: Arc<Namespace>,
    /// Among those at one bridge; `None` where it is alone.
    number: Option<u32>,
}

/// The number of the bridge, if there is one.
pub(crate) const BRIDGE: Index = 10;

/// How many share a bridge, which has at most 1024 ports.
const PLACES: u32 = 32;

impl Place {
    /// A namespace without a bridge. It has no addresses, and needs no IPv6 to forward it.
    pub(crate) fn bare() -> Result<(Self, Rtnl), Error> {
        let (namespace, rtnl) = quiet_namespace(Family::Ipv4, OUT_OF_NETFILTER)?;
        Ok((Self { namespace: Arc::new(namespace), number: None }, rtnl))
    }

    /// A bridge that no other uses.
    pub(crate) fn alone() -> Result<(Self, Rtnl), Error> {
        let (place, mut rtnl) = Self::bare()?;
        link::bridge(&mut rtnl, "switch", BRIDGE)?;
        Ok((place, rtnl))
    }

    /// A place at the bridge that was made last, or at a new one.
    pub(crate) fn shared() -> Result<(Self, Rtnl), Error> {
        static LAST: Mutex<(Weak<Namespace>, u32)> = Mutex::new((Weak::new(), 0));
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        let at_it = last.0.upgrade().filter(|_| last.1 < PLACES);
        let (place, rtnl) = if let Some(namespace) = at_it {
            let rtnl = Rtnl::open(&namespace)?;
            (Self { namespace, number: Some(last.1) }, rtnl)
        } else {
            let (place, rtnl) = Self::alone()?;
            *last = (Arc::downgrade(&place.namespace), 0);
            (Self { number: Some(0), ..place }, rtnl)
        };
        last.1 += 1;
        Ok((place, rtnl))
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.number.is_some()
    }

    /// The number here of what has a number at every switch.
    pub(crate) fn index(&self, index: Index) -> Index {
        /// More than the ports of one.
        const APART: Index = 4;
        index + APART * self.number.unwrap_or(0)
    }

    /// The name here of what has a name at every switch.
    pub(crate) fn name<'a>(&self, name: &'a str) -> Cow<'a, str> {
        self.number.map_or(name.into(), |number| format!("{name}-{number}").into())
    }
}

/// Where `br_netfilter` is loaded, every new namespace passes bridged packets to the IP layer's
/// hooks.
const OUT_OF_NETFILTER: &[Setting] = &[
    Setting { path: "bridge/bridge-nf-call-iptables", value: "0", part_of: None },
    Setting { path: "bridge/bridge-nf-call-ip6tables", value: "0", part_of: None },
    Setting { path: "bridge/bridge-nf-call-arptables", value: "0", part_of: None },
];
