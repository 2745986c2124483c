//! Whose an event is: which trial's, which connection's, and which of its two sockets'.

use super::tracepoints::{Saw, Sighting, SocketDid, TimerDid};
use crate::diag::state_name;
use spec::{Addresses, Errno, Part};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use timeline::event::{Side, Timer, Trace};
use timeline::{Ends, Event, Source, What};

/// `TCP_CLOSE`, include/net/tcp_states.h.
const STATE_CLOSE: u32 = 7;

/// Where a timer lies in a socket, and the function that tells it from others: both are constants
/// of a kernel build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TimerPlace {
    /// The kernel's address of its function.
    pub(super) function: u64,
    /// Bytes from the socket's address to the timer's.
    pub(super) offset: u64,
}

/// The places of a socket's timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TimerPlaces {
    pub(super) write: TimerPlace,
    pub(super) keepalive: TimerPlace,
}

/// A watched socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Owner {
    key: usize,
    side: Side,
    ends: Ends,
}

/// An event of a socket that is not known yet.
#[derive(Debug)]
struct Stray {
    at_ns: u64,
    socket: u64,
    did: StrayDid,
}

#[derive(Debug, Clone, Copy)]
enum StrayDid {
    /// One of its timers'.
    Timer(Timer, TimerDid),
    /// Its own, before it had a port.
    Socket(SocketDid),
}

/// As many strays as are kept: those of every other TCP socket of the machine are among them.
const STRAYS: usize = 4096;

/// Tells the events of watched sockets from all others.
///
/// Records about sockets carry both ends, of which the hosts' addresses tell the trial. Records
/// about timers carry the timer's address alone, from which the socket's follows; a socket's address
/// is known from the first record that carries it together with the ends, and forgotten when the
/// kernel gives it to another socket.
///
/// A socket that is not bound enters SYN_SENT before the kernel chooses its port (`tcp_v4_connect`,
/// net/ipv4/tcp_ipv4.c): that record waits for the next of the same socket.
#[derive(Debug, Default)]
pub(super) struct Attribution {
    /// By the local and the remote address.
    hosts: HashMap<(IpAddr, IpAddr), (usize, Side)>,
    sockets: HashMap<u64, Owner>,
    places: Option<TimerPlaces>,
    strays: VecDeque<Stray>,
}

impl Attribution {
    /// From now on, timers are attributed.
    pub(super) fn set_places(&mut self, places: TimerPlaces) {
        self.places = Some(places);
    }

    pub(super) fn watch(&mut self, key: usize, addresses: &Addresses) {
        let hosts = || Part::ALL.into_iter().filter_map(|part| addresses.of(part));
        for (local, remote) in hosts().flat_map(|one| hosts().map(move |other| (one, other))) {
            if let Some((_, side)) = Ends::between(addresses, local, remote) {
                let pair = (local.ip().to_canonical(), remote.ip().to_canonical());
                self.hosts.insert(pair, (key, side));
            }
        }
    }

    pub(super) fn unwatch(&mut self, key: usize) {
        self.hosts.retain(|_, (of, _)| *of != key);
        self.sockets.retain(|_, owner| owner.key != key);
    }

    /// Every key that is watched, once.
    pub(super) fn keys(&self) -> impl Iterator<Item = usize> {
        let keys: BTreeSet<_> = self.hosts.values().map(|(key, _)| *key).collect();
        keys.into_iter()
    }

    /// Whose a socket with these ends is.
    fn owner(&self, local: SocketAddr, remote: SocketAddr) -> Option<Owner> {
        let (key, side) = *self.hosts.get(&(local.ip(), remote.ip()))?;
        let ends = match side {
            Side::Client => Ends { client: local, server: remote },
            Side::Server => Ends { client: remote, server: local },
        };
        Some(Owner { key, side, ends })
    }

    /// Hands over what a record means for a watched socket, if anything.
    pub(super) fn take(
        &mut self,
        at_ns: u64,
        sighting: Sighting,
        sink: &mut impl FnMut(usize, Option<Ends>, Event),
    ) {
        match sighting.saw {
            Saw::Socket { socket, local, remote, did } => {
                let owner = self.owner(local, remote);
                let whole = owner.filter(|_| local.port() != 0 && remote.port() != 0);
                self.identify(socket, whole, did, sink);
                match (owner, whole) {
                    (_, Some(owner)) => emit(sink, at_ns, owner, socket_trace(owner.side, did)),
                    (Some(_), None) if socket != 0 => {
                        self.keep(Stray { at_ns, socket, did: StrayDid::Socket(did) });
                    }
                    _ => {}
                }
            }
            Saw::Timer { timer, did } => self.take_timer(at_ns, timer, did, sink),
        }
    }

    /// Keeps track of which socket lives at which address.
    fn identify(
        &mut self,
        socket: u64,
        owner: Option<Owner>,
        did: SocketDid,
        sink: &mut impl FnMut(usize, Option<Ends>, Event),
    ) {
        if socket == 0 {
            return;
        }
        // A socket begins closed, and its timers before that belonged to another.
        let is_new = matches!(did, SocketDid::SetState { old: STATE_CLOSE, .. });
        let is_over = matches!(did, SocketDid::SetState { new: STATE_CLOSE, .. });
        if is_new || (is_over && owner.is_none()) {
            self.strays.retain(|stray| stray.socket != socket);
        }
        let Some(owner) = owner else {
            self.sockets.remove(&socket);
            return;
        };
        // Closing stops the timers afterwards: the address stays known until it is used again.
        if self.sockets.insert(socket, owner) == Some(owner) {
            return;
        }
        for stray in self.strays.iter().filter(|stray| stray.socket == socket) {
            let trace = match stray.did {
                StrayDid::Timer(timer, did) => timer_trace(owner.side, timer, did),
                StrayDid::Socket(did) => socket_trace(owner.side, did),
            };
            emit(sink, stray.at_ns, owner, trace);
        }
        self.strays.retain(|stray| stray.socket != socket);
    }

    fn take_timer(
        &mut self,
        at_ns: u64,
        timer: u64,
        did: TimerDid,
        sink: &mut impl FnMut(usize, Option<Ends>, Event),
    ) {
        let Some(TimerPlaces { write, keepalive }) = self.places else { return };
        let (TimerDid::Start { function, .. } | TimerDid::Expire { function, .. }) = did;
        let places = [(write, Timer::Write), (keepalive, Timer::Keepalive)];
        let found = places.into_iter().find(|(place, _)| place.function == function);
        let Some((place, kind)) = found else { return };
        let socket = timer.wrapping_sub(place.offset);
        match self.sockets.get(&socket) {
            Some(owner) => emit(sink, at_ns, *owner, timer_trace(owner.side, kind, did)),
            None => self.keep(Stray { at_ns, socket, did: StrayDid::Timer(kind, did) }),
        }
    }

    fn keep(&mut self, stray: Stray) {
        if self.strays.len() == STRAYS {
            self.strays.pop_front();
        }
        self.strays.push_back(stray);
    }
}

fn emit(sink: &mut impl FnMut(usize, Option<Ends>, Event), at_ns: u64, owner: Owner, trace: Trace) {
    let event = Event::new(at_ns, Source::Tracepoint, What::Trace(trace));
    sink(owner.key, Some(owner.ends), event);
}

fn socket_trace(side: Side, did: SocketDid) -> Trace {
    match did {
        SocketDid::SetState { old, new } => {
            Trace::SetState { side, old: state_name(old), new: state_name(new) }
        }
        SocketDid::ReportError { error } => Trace::ErrorReport { side, error: Errno(error) },
        SocketDid::Retransmit { err } => Trace::Retransmit { side, err },
        SocketDid::SendReset => Trace::SendReset { side },
        SocketDid::ReceiveReset => Trace::ReceiveReset { side },
    }
}

fn timer_trace(side: Side, timer: Timer, did: TimerDid) -> Trace {
    match did {
        TimerDid::Start { now, expires, bucket, .. } => {
            Trace::TimerStart { side, timer, now, expires, bucket }
        }
        TimerDid::Expire { now, .. } => Trace::TimerExpire { side, timer, now },
    }
}

#[cfg(test)]
mod tests;
