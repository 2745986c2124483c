//! Socket diagnostics (`sock_diag(7)`): sockets' state, timer and `struct tcp_info`, asked for from
//! outside the program that owns them.

use crate::Error;
use netns::monotonic_ns;
use netns::sock_diag::{self, ALL_STATES, LISTEN, SockDiag, TcpSocket};
use spec::TcpState;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use timeline::event::{SocketSample, TcpInfo};

/// Socket diagnostics of one network namespace.
///
/// The kernel answers while the question is being sent, so that a sample is two system calls and
/// never waits. Asking changes nothing: it takes no error from the socket, and sends nothing.
#[derive(Debug)]
pub struct SocketDiag {
    diag: SockDiag,
}

/// What one look at a connection showed.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// Before the question, `CLOCK_MONOTONIC`, nanoseconds.
    pub began_ns: u64,
    /// After the answer.
    pub ended_ns: u64,
    /// The socket; `None` if there is none.
    pub sample: Option<SocketSample>,
}

impl SocketDiag {
    /// Opens socket diagnostics for a namespace.
    ///
    /// # Errors
    /// [`Error::Namespace`] if it cannot be entered, [`Error::System`] if no netlink socket can be
    /// had (no descriptors left, or a kernel without `CONFIG_NETLINK_DIAG`'s base).
    pub fn open(namespace: &netns::Namespace) -> Result<Self, Error> {
        Ok(Self { diag: SockDiag::open(namespace)? })
    }

    /// The connection of `local` to `remote` as it is now; `None` when the kernel has no such
    /// socket (any more): it is closed, or was never opened.
    ///
    /// # Errors
    /// [`Error::MixedFamilies`], [`Error::NoDiagnostics`] if the kernel has none for TCP,
    /// [`Error::System`] if a system call fails, [`Error::Malformed`] for an unreadable answer.
    pub fn sample(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Option<SocketSample>, Error> {
        Ok(self.look(local, remote)?.sample)
    }

    /// The same, with the moments between which the kernel looked.
    ///
    /// # Errors
    /// As for [`Self::sample`].
    pub fn look(&mut self, local: SocketAddr, remote: SocketAddr) -> Result<Look, Error> {
        let began_ns = monotonic_ns();
        let found = self.lookup(local, remote)?;
        let ended_ns = monotonic_ns();
        let within_ns = ended_ns - began_ns;
        let sample = found.map(|socket| SocketSample { within_ns, ..sample_of(&socket) });
        Ok(Look { began_ns, ended_ns, sample })
    }

    /// The same socket by the number of its inode, which `/proc/PID/fd` shows; `None` as above,
    /// or when no process has it.
    ///
    /// # Errors
    /// As for [`Self::sample`].
    pub fn inode(&mut self, local: SocketAddr, remote: SocketAddr) -> Result<Option<u32>, Error> {
        Ok(self.lookup(local, remote)?.map(|socket| socket.inode).filter(|inode| *inode != 0))
    }

    /// The port at which a program listens at this address, or at every address: this one, or any if
    /// that is `None`.
    ///
    /// # Errors
    /// As for [`Self::sample`].
    pub fn listener(&mut self, address: IpAddr, port: Option<u16>) -> Result<Option<u16>, Error> {
        if let Some(port) = port {
            return Ok(self.diag.listens((address, port).into())?.then_some(port));
        }
        let serves = |socket: &TcpSocket| {
            let at = socket.local.ip();
            at == address || at.is_unspecified()
        };
        // A listener of IPv6 may serve IPv4 too.
        for ipv6 in if address.is_ipv4() { &[false, true][..] } else { &[true] } {
            if let Some(socket) = self.diag.list(*ipv6, LISTEN)?.into_iter().find(serves) {
                return Ok(Some(socket.local.port()));
            }
        }
        Ok(None)
    }

    /// Every connection with this address at its own end and that one at the other, whatever the
    /// ports: local and remote end of each. It takes a look at every TCP socket of the machine.
    ///
    /// # Errors
    /// As for [`Self::sample`].
    pub fn connections(
        &mut self,
        local: IpAddr,
        remote: IpAddr,
    ) -> Result<Vec<(SocketAddr, SocketAddr)>, Error> {
        let found = self.diag.list(local.is_ipv6(), ALL_STATES & !LISTEN)?;
        let ends = found.iter().map(|socket| (socket.local, socket.remote));
        Ok(ends.filter(|(own, other)| (own.ip(), other.ip()) == (local, remote)).collect())
    }

    fn lookup(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Option<TcpSocket>, Error> {
        if local.is_ipv4() != remote.is_ipv4() {
            return Err(Error::MixedFamilies { local, remote });
        }
        self.diag.lookup(local, remote).map_err(|error| match error {
            sock_diag::Error::Unsupported { source, .. } => {
                Error::NoDiagnostics { local, remote, source }
            }
            error => error.into(),
        })
    }
}

impl AsFd for SocketDiag {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.diag.as_fd()
    }
}

impl From<sock_diag::Error> for Error {
    fn from(error: sock_diag::Error) -> Self {
        match error {
            sock_diag::Error::Namespace(source) => {
                Self::Namespace { instrument: "socket diagnostics", source }
            }
            sock_diag::Error::System { operation, source }
            | sock_diag::Error::Unsupported { operation, source } => {
                Self::system(operation, source)
            }
            sock_diag::Error::Malformed(why) => Self::Malformed(why),
        }
    }
}

/// A state's name, without the prefix `TCP_`.
pub(crate) fn state_name(state: u32) -> String {
    u8::try_from(state)
        .ok()
        .and_then(TcpState::from_number)
        .map_or_else(|| format!("STATE_{state}"), |state| state.to_string())
}

pub(crate) fn sample_of(socket: &TcpSocket) -> SocketSample {
    SocketSample {
        state: state_name(u32::from(socket.state)),
        timer: socket.timer,
        timer_count: socket.timer_count,
        timer_expires_ms: socket.timer_expires_ms,
        receive_queue: socket.receive_queue,
        send_queue: socket.send_queue,
        inode: socket.inode,
        within_ns: 0,
        info: socket.tcp_info.as_deref().map(parse_tcp_info),
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
        total_rto_recoveries: u16_at(242),
        total_rto_time_ms: u32_at(244),
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
