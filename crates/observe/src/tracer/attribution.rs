//! Whose an event is: which trial's, which connection's, and which of its two sockets'.

use super::tracepoints::{Saw, Sighting, SocketDid, TimerDid};
use crate::diag::state_name;
use spec::{Addresses, Errno};
use std::collections::{HashMap, VecDeque};
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
    chains: HashMap<(Owner, Timer), Chain>,
    /// Ticks that an expiry can be late before its arming must have been another one.
    late_max: u64,
    /// Whether nobody records cancelled timers, so that chains of records have gaps.
    without_cancels: bool,
}

/// What was last seen of a timer. The kernel says of each: armed, detached (cancelled), perhaps
/// expired, armed again. Where that is broken, records were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chain {
    /// In this slot, or at this jiffy where the kernel does not say the slot.
    Armed { slot: u64 },
    /// Taken out of its slot.
    Detached { slot: Option<u64> },
}

impl Attribution {
    pub(super) fn new(hz: u32) -> Self {
        Self { late_max: u64::from(hz / 10), ..Self::default() }
    }

    /// From now on, timers are attributed.
    pub(super) fn set_places(&mut self, places: TimerPlaces) {
        self.places = Some(places);
    }

    pub(super) fn watch(&mut self, key: usize, addresses: &Addresses) {
        let [client, server] =
            [addresses.client, addresses.server].map(|end| end.ip().to_canonical());
        self.hosts.insert((client, server), (key, Side::Client));
        self.hosts.insert((server, client), (key, Side::Server));
    }

    pub(super) fn unwatch(&mut self, key: usize) {
        self.hosts.retain(|_, (of, _)| *of != key);
        self.sockets.retain(|_, owner| owner.key != key);
        self.chains.retain(|(owner, _), _| owner.key != key);
    }

    /// Every key that is watched, once.
    pub(super) fn keys(&self) -> impl Iterator<Item = usize> {
        self.hosts.values().filter(|(_, side)| *side == Side::Client).map(|(key, _)| *key)
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
        let function = match did {
            TimerDid::Start { function, .. } | TimerDid::Expire { function, .. } => Some(function),
            TimerDid::Cancel => None,
        };
        let socket_of = |place: TimerPlace| timer.wrapping_sub(place.offset);
        let candidates = [(write, Timer::Write), (keepalive, Timer::Keepalive)];
        let mut possible = candidates
            .into_iter()
            .filter(|(place, _)| function.is_none_or(|function| function == place.function))
            .map(|(place, kind)| (socket_of(place), kind));
        if function.is_some() {
            let Some((socket, timer)) = possible.next() else { return };
            match self.sockets.get(&socket) {
                Some(owner) => self.emit_timer(at_ns, *owner, timer, did, sink),
                None => self.keep(Stray { at_ns, socket, did: StrayDid::Timer(timer, did) }),
            }
            return;
        }
        // A cancelled timer has no function to tell: it must be one of a known socket's, and of
        // one only.
        let mut known =
            possible.filter_map(|(socket, kind)| Some((self.sockets.get(&socket)?, kind)));
        if let (Some((owner, timer)), None) = (known.next(), known.next()) {
            self.emit_timer(at_ns, *owner, timer, did, sink);
        }
    }

    fn emit_timer(
        &mut self,
        at_ns: u64,
        owner: Owner,
        timer: Timer,
        did: TimerDid,
        sink: &mut impl FnMut(usize, Option<Ends>, Event),
    ) {
        if self.breaks_chain(owner, timer, did) {
            let what = What::Lost { count: 1 };
            sink(owner.key, Some(owner.ends), Event::new(at_ns, Source::Tracepoint, what));
        }
        emit(sink, at_ns, owner, timer_trace(owner.side, timer, did));
    }

    /// From now on, records of cancelled timers are not to be expected.
    pub(super) fn do_without_cancels(&mut self) {
        self.without_cancels = true;
    }

    /// Whether a record cannot follow the one before it.
    fn breaks_chain(&mut self, owner: Owner, timer: Timer, did: TimerDid) -> bool {
        if self.without_cancels {
            return false;
        }
        let before = self.chains.get(&(owner, timer)).copied();
        let (after, is_broken) = match (did, before) {
            (TimerDid::Start { expires, bucket, .. }, _) => {
                let slot = bucket.unwrap_or(expires);
                (Chain::Armed { slot }, matches!(before, Some(Chain::Armed { .. })))
            }
            (TimerDid::Cancel, Some(Chain::Armed { slot })) => {
                (Chain::Detached { slot: Some(slot) }, false)
            }
            (TimerDid::Cancel, _) => (Chain::Detached { slot: None }, before.is_some()),
            (TimerDid::Expire { now, .. }, Some(Chain::Detached { slot: Some(slot) })) => {
                (Chain::Detached { slot: None }, now > slot + self.late_max)
            }
            (TimerDid::Expire { .. }, _) => {
                (Chain::Detached { slot: None }, matches!(before, Some(Chain::Armed { .. })))
            }
        };
        self.chains.insert((owner, timer), after);
        is_broken
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
        TimerDid::Cancel => Trace::TimerCancel { side, timer },
        TimerDid::Expire { now, .. } => Trace::TimerExpire { side, timer, now },
    }
}

#[cfg(test)]
mod tests;
