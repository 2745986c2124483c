//! A packet socket (`packet(7)`) on one interface.

#![expect(unsafe_code, reason = "no safe binding binds a packet socket or knows its options")]

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// A packet socket, which stamps what it receives with wall time in nanoseconds
/// (`SO_TIMESTAMPNS`). It receives nothing until it is bound.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
}

/// `PACKET_IGNORE_OUTGOING`, include/uapi/linux/if_packet.h (Linux 4.20).
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

impl PacketSocket {
    /// Opens one in the calling thread's namespace.
    ///
    /// # Errors
    /// EPERM without `CAP_NET_RAW`; EMFILE.
    pub fn open() -> Result<Self, Errno> {
        // Protocol 0: no frames of other interfaces come before it is bound.
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        setsockopt(&fd, sockopt::ReceiveTimestampns, &true)?;
        Ok(Self { fd })
    }

    /// Asks for a receive buffer of so many bytes; the kernel doubles it for its own use. Without
    /// `CAP_NET_ADMIN` in the first user namespace, `net.core.rmem_max` caps it.
    ///
    /// # Errors
    /// None that is known.
    pub fn enlarge_buffer(&self, bytes: usize) -> Result<(), Errno> {
        setsockopt(&self.fd, sockopt::RcvBufForce, &bytes)
            .or_else(|_| setsockopt(&self.fd, sockopt::RcvBuf, &bytes))
    }

    /// From now on, frames that the host itself sends are not received.
    ///
    /// # Errors
    /// ENOPROTOOPT before Linux 4.20.
    pub fn ignore_outgoing(&self) -> Result<(), Errno> {
        let on: libc::c_int = 1;
        // SAFETY: the option takes an int, and is given one with its size; the descriptor is open.
        let result = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                PACKET_IGNORE_OUTGOING,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        Errno::result(result).map(drop)
    }

    /// Receives what passes the interface with this number, every protocol.
    ///
    /// # Errors
    /// ENODEV, or ENETDOWN where the interface is down.
    pub fn bind(&self, interface: u32) -> Result<(), Errno> {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
            sll_ifindex: interface.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let len = size_of_val(&address) as libc::socklen_t;
        // SAFETY: `address` is a complete sockaddr_ll of `len` bytes that lives across the call,
        // which only reads it; the descriptor is open.
        let result = unsafe { libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), len) };
        Errno::result(result).map(drop)
    }

    /// Another descriptor of the same socket.
    ///
    /// # Errors
    /// EMFILE.
    pub fn try_clone(&self) -> Result<Self, Errno> {
        let fd = self
            .fd
            .try_clone()
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
        Ok(Self { fd })
    }

    /// From now on, only frames that this classic BPF program accepts are received (socket(7),
    /// `SO_ATTACH_FILTER`); an empty one accepts all.
    ///
    /// # Errors
    /// EINVAL: it is no valid program.
    pub fn filter(&self, program: &[libc::sock_filter]) -> Result<(), Errno> {
        let filter = libc::sock_fprog {
            len: program.len() as libc::c_ushort,
            filter: program.as_ptr().cast_mut(),
        };
        let option =
            if program.is_empty() { libc::SO_DETACH_FILTER } else { libc::SO_ATTACH_FILTER };
        let len = size_of_val(&filter) as libc::socklen_t;
        let fd = self.fd.as_raw_fd();
        // SAFETY: the option takes a sock_fprog, or any int; the kernel only reads that and the program
        // that it points to, both of which live across the call; the descriptor is open.
        let result = unsafe {
            libc::setsockopt(fd, libc::SOL_SOCKET, option, (&raw const filter).cast(), len)
        };
        match Errno::result(result) {
            Err(Errno::ENOENT) if program.is_empty() => Ok(()),
            result => result.map(drop),
        }
    }

    /// Frames dropped since the last call, for want of room in the buffer.
    ///
    /// # Errors
    /// None that is known.
    pub fn take_drops(&self) -> Result<u64, Errno> {
        let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut len = size_of_val(&statistics) as libc::socklen_t;
        // SAFETY: the descriptor is an open packet socket; the kernel writes at most `len` bytes
        // to `statistics`, which is that long, lives across the call, and any bytes are valid in.
        let result = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut len,
            )
        };
        Errno::result(result)?;
        Ok(u64::from(statistics.tp_drops))
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}
