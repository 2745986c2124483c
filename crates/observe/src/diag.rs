//! Socket diagnostics (`sock_diag(7)`): one socket's state, timer and `struct tcp_info`, asked for
//! from outside the program that owns it.

use crate::Error;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send,
    socket,
};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use timeline::event::{SocketSample, TcpInfo};

/// Socket diagnostics of one network namespace.
///
/// The kernel answers while the question is being sent, so that a sample is two system calls and
/// never waits. Asking changes nothing: it takes no error from the socket, and sends nothing.
#[derive(Debug)]
pub struct SocketDiag {
    socket: OwnedFd,
    sequence: u32,
}

impl SocketDiag {
    /// Opens socket diagnostics for a namespace.
    ///
    /// # Errors
    /// [`Error::Namespace`] if it cannot be entered, [`Error::System`] if no netlink socket can be
    /// had (no descriptors left, or a kernel without `CONFIG_NETLINK_DIAG`'s base).
    pub fn open(namespace: &netns::Namespace) -> Result<Self, Error> {
        namespace
            .run(|| {
                let socket = socket(
                    AddressFamily::Netlink,
                    SockType::Raw,
                    SockFlag::SOCK_CLOEXEC,
                    SockProtocol::NetlinkSockDiag,
                )?;
                connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
                Ok(Self { socket, sequence: 0 })
            })
            .map_err(|source| Error::Namespace { instrument: "socket diagnostics", source })?
            .map_err(|errno: Errno| Error::system("opening socket diagnostics", errno))
    }

    /// The connection of `local` to `remote` as it is now; `None` when the kernel has no such
    /// socket (any more): it is closed, or was never opened.
    ///
    /// The lookup is the kernel's own for an incoming packet (`inet_lookup`), which falls back to
    /// a listener on the local port. A listener is never taken for the connection.
    ///
    /// # Errors
    /// [`Error::MixedFamilies`], [`Error::NoDiagnostics`] if the kernel has none for TCP,
    /// [`Error::System`] if a system call fails, [`Error::Malformed`] for an unreadable answer.
    pub fn sample(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Option<SocketSample>, Error> {
        if local.is_ipv4() != remote.is_ipv4() {
            return Err(Error::MixedFamilies { local, remote });
        }
        self.sequence = self.sequence.wrapping_add(1);
        let question = request(self.sequence, local, remote);
        send(self.socket.as_raw_fd(), &question, MsgFlags::empty())
            .map_err(|errno| Error::system(format!("asking about {local} -> {remote}"), errno))?;
        let mut answer = [0; 2048];
        loop {
            let received = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT);
            let len = match received {
                Err(Errno::EINTR) => continue,
                received => received.map_err(|errno| {
                    Error::system(format!("reading the answer about {local} -> {remote}"), errno)
                })?,
            };
            match parse(answer.get(..len).unwrap_or(&answer), self.sequence)? {
                Answer::Stale => {}
                Answer::Failed(Errno::ENOENT) => return Ok(None),
                Answer::Failed(errno @ (Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT)) => {
                    let source = io::Error::from(errno);
                    return Err(Error::NoDiagnostics { local, remote, source });
                }
                Answer::Failed(errno) => {
                    return Err(Error::system(format!("asking about {local} -> {remote}"), errno));
                }
                Answer::Socket(found) => {
                    let ends = (canonical(local), canonical(remote));
                    return Ok((found.ends == ends).then_some(found.sample));
                }
            }
        }
    }
}

impl AsFd for SocketDiag {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// `TCP_ESTABLISHED` … `TCP_NEW_SYN_RECV` (include/net/tcp_states.h), without the prefix.
pub(crate) fn state_name(state: u32) -> String {
    const NAMES: [&str; 12] = [
        "ESTABLISHED",
        "SYN_SENT",
        "SYN_RECV",
        "FIN_WAIT1",
        "FIN_WAIT2",
        "TIME_WAIT",
        "CLOSE",
        "CLOSE_WAIT",
        "LAST_ACK",
        "LISTEN",
        "CLOSING",
        "NEW_SYN_RECV",
    ];
    state
        .checked_sub(1)
        .and_then(|index| NAMES.get(index as usize))
        .map_or_else(|| format!("STATE_{state}"), |name| (*name).to_string())
}

// The layouts of include/uapi/linux/{netlink,sock_diag,inet_diag}.h.
const NLMSGHDR_LEN: usize = 16;
const REQ_V2_LEN: usize = 56;
const DIAG_MSG_LEN: usize = 72;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_INFO: u16 = 2;
const IPPROTO_TCP: u8 = 6;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Type and alignment flags of an attribute are the upper two bits.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// An `nlmsghdr` and an `inet_diag_req_v2` for exactly one socket.
fn request(
    sequence: u32,
    local: SocketAddr,
    remote: SocketAddr,
) -> [u8; NLMSGHDR_LEN + REQ_V2_LEN] {
    let mut message = [0; NLMSGHDR_LEN + REQ_V2_LEN];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        message[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(&((NLMSGHDR_LEN + REQ_V2_LEN) as u32).to_ne_bytes());
    put(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(&NLM_F_REQUEST.to_ne_bytes());
    put(&sequence.to_ne_bytes());
    put(&0_u32.to_ne_bytes());
    put(&[if local.is_ipv4() { AF_INET } else { AF_INET6 }, IPPROTO_TCP]);
    put(&[1 << (INET_DIAG_INFO - 1), 0]);
    put(&u32::MAX.to_ne_bytes()); // every state; an exact lookup does not look at it
    put(&local.port().to_be_bytes());
    put(&remote.port().to_be_bytes());
    put(&address_bytes(local.ip()));
    put(&address_bytes(remote.ip()));
    put(&0_u32.to_ne_bytes()); // any interface
    put(&[0xff; 8]); // INET_DIAG_NOCOOKIE
    message
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

/// A dual-stack socket shows IPv4 addresses as mapped ones.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[derive(Debug, PartialEq)]
enum Answer {
    /// To an earlier question.
    Stale,
    Failed(Errno),
    Socket(Box<Found>),
}

#[derive(Debug, PartialEq)]
struct Found {
    ends: (SocketAddr, SocketAddr),
    sample: SocketSample,
}

fn parse(message: &[u8], sequence: u32) -> Result<Answer, Error> {
    const TRUNCATED: Error = Error::Malformed("it ends inside a header");
    let kind = u16_at(message, 4).ok_or(TRUNCATED)?;
    if u32_at(message, 8).ok_or(TRUNCATED)? != sequence {
        return Ok(Answer::Stale);
    }
    let len = u32_at(message, 0).ok_or(TRUNCATED)? as usize;
    let body = message.get(NLMSGHDR_LEN..len.min(message.len())).ok_or(TRUNCATED)?;
    match kind {
        NLMSG_ERROR => {
            let negative = u32_at(body, 0).ok_or(TRUNCATED)?.cast_signed();
            Ok(Answer::Failed(Errno::from_raw(negative.wrapping_neg())))
        }
        SOCK_DIAG_BY_FAMILY => parse_socket(body).map(|found| Answer::Socket(Box::new(found))),
        _ => Err(Error::Malformed("it is neither an error nor a socket")),
    }
}

/// A `struct inet_diag_msg` and the attributes after it.
fn parse_socket(body: &[u8]) -> Result<Found, Error> {
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
    let ends = end(8, 4).zip(end(24, 6)).ok_or(unknown_family)?;
    Ok(Found {
        ends,
        sample: SocketSample {
            state: state_name(u32::from(header[1])),
            timer: header[2],
            timer_count: header[3],
            timer_expires_ms: word(52),
            receive_queue: word(56),
            send_queue: word(60),
            info: attribute(&body[DIAG_MSG_LEN..], INET_DIAG_INFO).map(parse_tcp_info),
        },
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

/// `struct tcp_info` grows at its end: what an older kernel does not give reads as 0.
fn parse_tcp_info(info: &[u8]) -> TcpInfo {
    let u8_at = |offset: usize| info.get(offset).copied().unwrap_or(0);
    let u16_at = |offset| u16_at(info, offset).unwrap_or(0);
    let u32_at = |offset| u32_at(info, offset).unwrap_or(0);
    let u64_at = |offset| u64_at(info, offset).unwrap_or(0);
    TcpInfo {
        retransmits: u8_at(2),
        probes: u8_at(3),
        backoff: u8_at(4),
        options: u8_at(5),
        rto_us: u32_at(8),
        snd_mss: u32_at(16),
        unacked: u32_at(24),
        lost: u32_at(32),
        retrans: u32_at(36),
        last_data_sent_ms: u32_at(44),
        last_data_recv_ms: u32_at(52),
        last_ack_recv_ms: u32_at(56),
        rtt_us: u32_at(68),
        rttvar_us: u32_at(72),
        snd_cwnd: u32_at(80),
        total_retrans: u32_at(100),
        bytes_acked: u64_at(120),
        bytes_received: u64_at(128),
        segs_out: u32_at(136),
        segs_in: u32_at(140),
        notsent_bytes: u32_at(144),
        min_rtt_us: u32_at(148),
        bytes_retrans: u64_at(208),
        snd_wnd: u32_at(228),
        total_rto: u16_at(240),
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().copied().map(u64::from_ne_bytes)
}

#[cfg(test)]
mod tests;
