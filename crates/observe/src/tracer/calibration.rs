//! Where a socket keeps its timers, which no interface of the kernel tells.
//!
//! Trace records of a timer carry its address and no socket. Its distance from the socket's
//! address is a constant of the kernel's build: it is measured, once for each tracer, on a few
//! connections of our own over the loopback interface of a namespace of our own. Connecting arms
//! the retransmission timer first; switching `SO_KEEPALIVE` on arms the keepalive timer.

#![expect(unsafe_code, reason = "no safe binding raises an interface")]

use super::attribution::{TimerPlace, TimerPlaces};
use super::tracepoints::{Saw, Sighting, SocketDid, TimerDid};
use netns::Namespace;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, getsockname, setsockopt,
    socket, sockopt,
};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};

/// Connections made, and how many of them must agree, with none that says otherwise more often.
const CONNECTIONS: u8 = 5;
const AGREEING: usize = 3;

/// No socket is larger than this, bytes.
const SOCKET_LEN_MAX: u64 = 8192;

/// `TCP_SYN_SENT` and `TCP_CLOSE`, include/net/tcp_states.h.
const STATE_SYN_SENT: u32 = 2;
const STATE_CLOSE: u32 = 7;

/// Makes connections and looks at what `drain` gives afterwards; or says why nothing is known.
pub(super) fn measure(drain: impl FnOnce() -> Vec<(u64, Sighting)>) -> Result<TimerPlaces, String> {
    let namespace = Namespace::create().map_err(|error| error.to_string())?;
    let inode = namespace.inode();
    let connections = namespace
        .run(|| make_connections(inode))
        .map_err(|error| error.to_string())?
        .map_err(|error| format!("making connections to measure the kernel on: {error}"))?;
    let sightings = drain();
    let found = connections.iter().filter_map(|ends| places(&sightings, *ends));
    agreed(found).ok_or_else(|| "the places of a socket's timers could not be measured".into())
}

/// What most connections say, if enough do.
fn agreed(found: impl Iterator<Item = TimerPlaces>) -> Option<TimerPlaces> {
    let mut votes: HashMap<TimerPlaces, usize> = HashMap::new();
    for places in found {
        *votes.entry(places).or_default() += 1;
    }
    let (places, count) = votes.iter().max_by_key(|(_, count)| **count)?;
    let rivals = votes.values().filter(|other| *other == count).count();
    (*count >= AGREEING && rivals == 1).then_some(*places)
}

/// The places that one connection's records show. The thread that connects is the one that arms
/// both timers, so that others' timers do not matter.
fn places(
    sightings: &[(u64, Sighting)],
    (from, to): (SocketAddr, SocketAddr),
) -> Option<TimerPlaces> {
    let is_ours = |local, remote| (local, remote) == (from, to);
    let (connecting, pid, socket_at) =
        sightings.iter().enumerate().find_map(|(index, (_, sighting))| match sighting.saw {
            Saw::Socket { socket, local, remote, did: SocketDid::SetState { new, .. } }
                if is_ours(local, remote) && new == STATE_SYN_SENT && socket != 0 =>
            {
                Some((index, sighting.pid, socket))
            }
            _ => None,
        })?;
    let armed = sightings[connecting..]
        .iter()
        .map(|(_, sighting)| sighting)
        .take_while(|sighting| {
            !matches!(sighting.saw, Saw::Socket { socket, did: SocketDid::SetState { new, .. }, .. }
                if socket == socket_at && new == STATE_CLOSE)
        })
        .filter(|sighting| sighting.pid == pid)
        .filter_map(|sighting| match sighting.saw {
            Saw::Timer { timer, did: TimerDid::Start { function, .. } } => {
                let offset = timer.checked_sub(socket_at)?;
                (offset < SOCKET_LEN_MAX).then_some(TimerPlace { function, offset })
            }
            _ => None,
        });
    let mut armed = armed.peekable();
    let write = *armed.peek()?;
    let keepalive = armed.find(|place| place.function != write.function)?;
    Some(TimerPlaces { write, keepalive })
}

/// Connects a few times, and gives the two ends of each connection. The addresses follow from the
/// namespace's number, which no other namespace has: others may be measuring at the same time.
fn make_connections(inode: u64) -> io::Result<Vec<(SocketAddr, SocketAddr)>> {
    raise_loopback()?;
    let [.., a, b, c] = inode.to_be_bytes();
    let address = Ipv4Addr::new(127, a, b, c.clamp(1, 254));
    let listener = TcpListener::bind((address, 0))?;
    let server = listener.local_addr()?;
    (0..CONNECTIONS).map(|_| make_connection(address, server)).collect()
}

fn make_connection(from: Ipv4Addr, server: SocketAddr) -> io::Result<(SocketAddr, SocketAddr)> {
    let client = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let any_port = SockaddrStorage::from(SocketAddr::from((from, 0)));
    bind(client.as_raw_fd(), &any_port)?;
    let bound: SockaddrStorage = getsockname(client.as_raw_fd())?;
    let bound = bound.as_sockaddr_in().map(|bound| SocketAddrV4::from(*bound));
    let bound = bound.ok_or(io::ErrorKind::AddrNotAvailable)?;
    connect(client.as_raw_fd(), &SockaddrStorage::from(server))?;
    setsockopt(&client, sockopt::KeepAlive, &true)?;
    // Closing resets: the namespace need not wait for TIME_WAIT.
    setsockopt(&client, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    Ok((SocketAddr::V4(bound), server))
}

fn raise_loopback() -> io::Result<()> {
    let any: OwnedFd =
        socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    let request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: libc::IFF_UP as libc::c_short },
    };
    // SAFETY: SIOCSIFFLAGS reads a complete `ifreq`, which lives across the call; the socket is
    // open.
    let result = unsafe {
        libc::ioctl(any.as_raw_fd(), libc::SIOCSIFFLAGS as libc::Ioctl, &raw const request)
    };
    Errno::result(result).map(drop).map_err(io::Error::from)
}

#[cfg(test)]
mod tests;
