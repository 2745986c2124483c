//! Socket diagnostics (`sock_diag(7)`) for the TCP sockets of a namespace: one looked up, all listed,
//! one destroyed. What is read here is the kernel's own; callers take from it what they need.

use crate::{Error as NamespaceError, Namespace, monotonic_ns};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send,
    socket,
};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The namespace could not be entered.
    #[error("opening socket diagnostics: {0}")]
    Namespace(#[from] NamespaceError),
    /// A system call failed.
    #[error("{operation}: {source}")]
    System {
        /// The operation and its object.
        operation: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The kernel has no socket diagnostics for TCP, or cannot destroy sockets.
    #[error("{operation}: {source}")]
    Unsupported {
        /// The operation and its object.
        operation: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
    /// An answer that cannot be read.
    #[error("reading an answer of socket diagnostics: {0}")]
    Malformed(&'static str),
}

/// A TCP socket as the kernel shows it (`struct inet_diag_msg`, include/uapi/linux/inet_diag.h).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpSocket {
    /// Its own end. A dual-stack socket's IPv4 address is shown as that, not as a mapped one.
    pub local: SocketAddr,
    /// Its peer's end; unspecified for a listener.
    pub remote: SocketAddr,
    /// `idiag_state`, from 1 (include/net/tcp_states.h).
    pub state: u8,
    /// `idiag_timer`: 0 none, 1 retransmission, 2 keepalive, 3 time-wait, 4 zero-window probe.
    pub timer: u8,
    /// `idiag_retrans`: retransmissions or probes of that timer.
    pub timer_count: u8,
    /// `idiag_expires`, milliseconds.
    pub timer_expires_ms: u32,
    /// `idiag_rqueue`, bytes.
    pub receive_queue: u32,
    /// `idiag_wqueue`, bytes.
    pub send_queue: u32,
    /// `idiag_inode`: the number in `/proc/PID/fd/N -> socket:[number]`; 0 where no process has it.
    pub inode: u32,
    /// `struct tcp_info`, as long as this kernel's is; `None` if it has none or was not asked.
    pub tcp_info: Option<Vec<u8>>,
    /// It is a subflow of MPTCP (`INET_DIAG_ULP_INFO`, which the kernel shows to CAP_NET_ADMIN alone).
    pub is_mptcp: bool,
    family: u8,
    /// `struct inet_diag_sockid`, with the cookie that tells it from a later one.
    id: [u8; ID_LEN],
}

/// A socket of a list, and when the kernel looked at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// The socket.
    pub socket: TcpSocket,
    /// `CLOCK_MONOTONIC`, nanoseconds, to within `within_ns`.
    pub at_ns: u64,
    /// By how much sooner or later that may be, nanoseconds.
    pub within_ns: u64,
}

/// Every state, as a set of bits by the number of the state.
pub const ALL_STATES: u32 = u32::MAX;
/// `1 << TCP_LISTEN`.
pub const LISTEN: u32 = 1 << 10;

/// Socket diagnostics of one namespace.
///
/// The kernel answers while the question is being sent: nothing here waits.
#[derive(Debug)]
pub struct SockDiag {
    socket: OwnedFd,
    sequence: u32,
}

impl SockDiag {
    /// Opens socket diagnostics inside a namespace.
    ///
    /// # Errors
    /// [`Error::Namespace`], or [`Error::System`] if no netlink socket can be opened.
    pub fn open(namespace: &Namespace) -> Result<Self, Error> {
        let open = || -> Result<OwnedFd, Errno> {
            let socket = socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::NetlinkSockDiag,
            )?;
            connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
            Ok(socket)
        };
        let socket = namespace.run(open)?.map_err(failed("opening socket diagnostics"))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The socket with these two ends, with its `tcp_info`; `None` if the kernel has none.
    ///
    /// The lookup is the kernel's own for an incoming packet (`inet_lookup`), which falls back to
    /// a listener on the local port. A listener is never taken for a connection.
    ///
    /// # Errors
    /// [`Error::Unsupported`], [`Error::System`] or [`Error::Malformed`].
    pub fn lookup(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Option<TcpSocket>, Error> {
        let ends = (canonical(local), canonical(remote));
        let found = self.find(local, remote)?;
        Ok(found.filter(|found| (found.local, found.remote) == ends))
    }

    /// Whether something listens at this end, or at its port of every address: the kernel's own lookup
    /// for a SYN.
    ///
    /// # Errors
    /// [`Error::Unsupported`], [`Error::System`] or [`Error::Malformed`].
    pub fn listens(&mut self, local: SocketAddr) -> Result<bool, Error> {
        let nobody = match local {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        Ok(self.find(local, nobody)?.is_some_and(|found| 1 << found.state == LISTEN))
    }

    fn find(&mut self, local: SocketAddr, remote: SocketAddr) -> Result<Option<TcpSocket>, Error> {
        const OPERATION: &str = "asking socket diagnostics about a connection";
        let question = Request {
            family: family_of(local),
            info: true,
            states: ALL_STATES,
            id: id_of(local, remote),
        };
        self.ask(SOCK_DIAG_BY_FAMILY, 0, &question, OPERATION)?;
        let mut answer = [0; 2048];
        loop {
            let len = self.receive(&mut answer, OPERATION)?;
            for message in messages(&answer[..len], self.sequence) {
                match message? {
                    Message::Refused(Errno::ENOENT) => return Ok(None),
                    Message::Refused(errno) => return Err(refused(OPERATION, errno)),
                    Message::Socket(found) => return Ok(Some(*found)),
                    Message::Done => {}
                }
            }
        }
    }

    /// Every socket of a family in these states (a set of bits), without `tcp_info`. Sockets on an
    /// IPv6 socket that speak IPv4 are listed with those of IPv6.
    ///
    /// # Errors
    /// [`Error::Unsupported`], [`Error::System`] or [`Error::Malformed`].
    pub fn list(&mut self, ipv6: bool, states: u32) -> Result<Vec<TcpSocket>, Error> {
        let found = self.dump(ipv6, states, false)?;
        Ok(found.into_iter().map(|looked| looked.socket).collect())
    }

    /// The same with `tcp_info`, and when the kernel looked at each.
    ///
    /// # Errors
    /// [`Error::Unsupported`], [`Error::System`] or [`Error::Malformed`].
    pub fn look(&mut self, ipv6: bool, states: u32) -> Result<Vec<Looked>, Error> {
        self.dump(ipv6, states, true)
    }

    fn dump(&mut self, ipv6: bool, states: u32, info: bool) -> Result<Vec<Looked>, Error> {
        const OPERATION: &str = "listing TCP sockets";
        let family = if ipv6 { AF_INET6 } else { AF_INET };
        let question = Request { family, info, states, id: [0; ID_LEN] };
        let mut before_ns = monotonic_ns();
        self.ask(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &question, OPERATION)?;
        let mut found = Vec::new();
        let mut answer = vec![0; 32 << 10];
        loop {
            let began_ns = monotonic_ns();
            let len = self.receive(&mut answer, OPERATION)?;
            // Each part was made while the one before was received, or when it was asked for
            // (`netlink_dump`, net/netlink/af_netlink.c).
            let within_ns = (monotonic_ns() - before_ns).div_ceil(2);
            let at_ns = before_ns + within_ns;
            before_ns = began_ns;
            for message in messages(&answer[..len], self.sequence) {
                match message? {
                    Message::Done => return Ok(found),
                    Message::Refused(errno) => return Err(refused(OPERATION, errno)),
                    Message::Socket(socket) => {
                        found.push(Looked { socket: *socket, at_ns, within_ns });
                    }
                }
            }
        }
    }

    /// Destroys a socket as if its connection had ended: its owner gets ECONNABORTED, its peer
    /// whatever the protocol sends. Says whether it was there still.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without `CONFIG_INET_DIAG_DESTROY`, [`Error::System`].
    pub fn destroy(&mut self, found: &TcpSocket) -> Result<bool, Error> {
        let TcpSocket { family, id, .. } = *found;
        self.destroy_by(family, id)
    }

    /// The same for the socket with these two ends, whichever it is; where there is none, for what
    /// listens at the local one.
    ///
    /// # Errors
    /// As for [`Self::destroy`].
    pub fn destroy_between(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<bool, Error> {
        self.destroy_by(family_of(local), id_of(local, remote))
    }

    fn destroy_by(&mut self, family: u8, id: [u8; ID_LEN]) -> Result<bool, Error> {
        const OPERATION: &str = "destroying a TCP socket";
        let question = Request { family, info: false, states: ALL_STATES, id };
        self.ask(SOCK_DESTROY, NLM_F_ACK, &question, OPERATION)?;
        let mut answer = [0; 2048];
        loop {
            let len = self.receive(&mut answer, OPERATION)?;
            for message in messages(&answer[..len], self.sequence) {
                match message? {
                    Message::Done => return Ok(true),
                    Message::Refused(Errno::ENOENT) => return Ok(false),
                    Message::Refused(errno) => return Err(refused(OPERATION, errno)),
                    Message::Socket(_) => {}
                }
            }
        }
    }

    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        question: &Request,
        operation: &'static str,
    ) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = question.sealed(kind, flags, self.sequence);
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())
            .map(drop)
            .map_err(failed(operation))
    }

    fn receive(&self, buffer: &mut [u8], operation: &'static str) -> Result<usize, Error> {
        loop {
            match recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EINTR) => {}
                received => return received.map_err(failed(operation)),
            }
        }
    }
}

impl AsFd for SockDiag {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn failed(operation: &'static str) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::System { operation, source: errno.into() }
}

fn refused(operation: &'static str, errno: Errno) -> Error {
    let source = io::Error::from(errno);
    match errno {
        Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT => Error::Unsupported { operation, source },
        _ => Error::System { operation, source },
    }
}

fn family_of(address: SocketAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

/// A dual-stack socket shows IPv4 addresses as mapped ones.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

// The layouts of include/uapi/linux/{netlink,sock_diag,inet_diag}.h.
const NLMSGHDR_LEN: usize = 16;
const REQ_V2_LEN: usize = 56;
const ID_LEN: usize = 48;
const DIAG_MSG_LEN: usize = 72;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_ULP_INFO: u16 = 19;
const INET_ULP_INFO_NAME: u16 = 1;
const IPPROTO_TCP: u8 = 6;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Type and alignment flags of an attribute are the upper two bits.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// An `inet_diag_req_v2`.
struct Request {
    family: u8,
    info: bool,
    states: u32,
    id: [u8; ID_LEN],
}

impl Request {
    fn sealed(&self, kind: u16, flags: u16, sequence: u32) -> [u8; NLMSGHDR_LEN + REQ_V2_LEN] {
        let mut message = [0; NLMSGHDR_LEN + REQ_V2_LEN];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            message[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&((NLMSGHDR_LEN + REQ_V2_LEN) as u32).to_ne_bytes());
        put(&kind.to_ne_bytes());
        put(&(NLM_F_REQUEST | flags).to_ne_bytes());
        put(&sequence.to_ne_bytes());
        put(&0_u32.to_ne_bytes());
        let extensions = if self.info { 1 << (INET_DIAG_INFO - 1) } else { 0 };
        put(&[self.family, IPPROTO_TCP, extensions, 0]);
        put(&self.states.to_ne_bytes());
        put(&self.id);
        message
    }
}

/// An `inet_diag_sockid`: the ends, any interface, and no cookie.
fn id_of(local: SocketAddr, remote: SocketAddr) -> [u8; ID_LEN] {
    let mut id = [0; ID_LEN];
    id[..2].copy_from_slice(&local.port().to_be_bytes());
    id[2..4].copy_from_slice(&remote.port().to_be_bytes());
    id[4..20].copy_from_slice(&address_bytes(local.ip()));
    id[20..36].copy_from_slice(&address_bytes(remote.ip()));
    id[40..].copy_from_slice(&[0xff; 8]); // INET_DIAG_NOCOOKIE
    id
}

fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            bytes
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[derive(Debug, PartialEq)]
enum Message {
    /// The end of a list, or an acknowledgement.
    Done,
    Refused(Errno),
    Socket(Box<TcpSocket>),
}

/// The messages of one datagram that answer question number `sequence`, and no earlier one.
fn messages(mut rest: &[u8], sequence: u32) -> impl Iterator<Item = Result<Message, Error>> {
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (of, message, after) = match split(rest) {
                Ok(parts) => parts,
                Err(error) => {
                    rest = &[];
                    return Some(Err(error));
                }
            };
            rest = after;
            if of == sequence {
                return Some(parse(message));
            }
        }
        None
    })
}

/// The first message: the question that it answers, its bytes, and what comes after it.
fn split(bytes: &[u8]) -> Result<(u32, &[u8], &[u8]), Error> {
    const TRUNCATED: Error = Error::Malformed("it ends inside a header");
    let len = u32_at(bytes, 0).ok_or(TRUNCATED)? as usize;
    let sequence = u32_at(bytes, 8).ok_or(TRUNCATED)?;
    let message = bytes.get(..len.min(bytes.len())).ok_or(TRUNCATED)?;
    if message.len() < NLMSGHDR_LEN {
        return Err(TRUNCATED);
    }
    Ok((sequence, message, bytes.get(len.next_multiple_of(4)..).unwrap_or_default()))
}

fn parse(message: &[u8]) -> Result<Message, Error> {
    const TRUNCATED: Error = Error::Malformed("it ends inside a header");
    let body = message.get(NLMSGHDR_LEN..).ok_or(TRUNCATED)?;
    match u16_at(message, 4).ok_or(TRUNCATED)? {
        NLMSG_DONE => Ok(Message::Done),
        NLMSG_ERROR => match u32_at(body, 0).ok_or(TRUNCATED)?.cast_signed() {
            0 => Ok(Message::Done),
            negative => Ok(Message::Refused(Errno::from_raw(negative.wrapping_neg()))),
        },
        SOCK_DIAG_BY_FAMILY => parse_socket(body).map(|found| Message::Socket(Box::new(found))),
        _ => Err(Error::Malformed("it is neither an error nor a socket")),
    }
}

/// A `struct inet_diag_msg` and the attributes after it.
fn parse_socket(body: &[u8]) -> Result<TcpSocket, Error> {
    let header: &[u8; DIAG_MSG_LEN] =
        body.first_chunk().ok_or(Error::Malformed("it ends inside inet_diag_msg"))?;
    let family = header[0];
    let word = |offset| u32_at(header, offset).unwrap_or(0);
    let port = |offset: usize| u16::from_be_bytes([header[offset], header[offset + 1]]);
    let end = |address_offset: usize, port_offset| {
        let bytes: [u8; 16] = header[address_offset..address_offset + 16].try_into().ok()?;
        let address = match family {
            AF_INET => IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
            AF_INET6 => IpAddr::from(bytes),
            _ => return None,
        };
        Some(canonical(SocketAddr::new(address, port(port_offset))))
    };
    let unknown_family = Error::Malformed("an address family that is neither IPv4 nor IPv6");
    let (local, remote) = end(8, 4).zip(end(24, 6)).ok_or(unknown_family)?;
    let mut id = [0; ID_LEN];
    id.copy_from_slice(&header[4..4 + ID_LEN]);
    let attributes = &body[DIAG_MSG_LEN..];
    let ulp = attribute(attributes, INET_DIAG_ULP_INFO);
    Ok(TcpSocket {
        local,
        remote,
        state: header[1],
        timer: header[2],
        timer_count: header[3],
        timer_expires_ms: word(52),
        receive_queue: word(56),
        send_queue: word(60),
        inode: word(68),
        tcp_info: attribute(attributes, INET_DIAG_INFO).map(<[u8]>::to_vec),
        is_mptcp: ulp.and_then(|ulp| attribute(ulp, INET_ULP_INFO_NAME)) == Some(b"mptcp\0"),
        family,
        id,
    })
}

/// The value of the first attribute of a type: `struct nlattr` (length, type), value, padding to
/// four bytes.
fn attribute(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    const HEADER_LEN: usize = 4;
    loop {
        let len = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & NLA_TYPE_MASK;
        let value = rest.get(HEADER_LEN..len)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(len.next_multiple_of(4)..)?;
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests;
