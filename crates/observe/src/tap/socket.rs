//! The packet socket itself.

#![expect(unsafe_code, reason = "no safe binding binds a packet socket or reads its statistics")]

use crate::Error;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockType, recvmsg,
    setsockopt, socket, sockopt,
};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The receive buffer asked for, bytes; the kernel doubles it for its own use. Without
/// `CAP_NET_ADMIN` in the first user namespace, `net.core.rmem_max` caps it.
const RECEIVE_BUFFER: usize = 4 << 20;

#[derive(Debug)]
pub(super) struct PacketSocket {
    fd: OwnedFd,
    control: Vec<u8>,
}

/// What a frame's message says beside its bytes.
pub(super) struct Received {
    pub(super) wall_ns: u64,
    pub(super) wire_len: u32,
    pub(super) sent: bool,
}

impl PacketSocket {
    /// To be called inside the namespace.
    pub(super) fn open(interface: &str) -> Result<Self, Error> {
        let index = nix::net::if_::if_nametoindex(interface)
            .map_err(|_| Error::NoInterface { interface: interface.to_string() })?;
        // Protocol 0 receives nothing, and no other interface's frames, until it is bound.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Packet, SockType::Raw, flags, None).map_err(|errno| {
            let interface = interface.to_string();
            match errno {
                Errno::EPERM | Errno::EACCES => {
                    Error::PacketSocket { interface, source: errno.into() }
                }
                _ => Error::system(format!("opening a packet socket on `{interface}`"), errno),
            }
        })?;
        setsockopt(&fd, sockopt::ReceiveTimestampns, &true)
            .map_err(|errno| Error::system("asking a packet socket for time stamps", errno))?;
        if setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER)
                .map_err(|errno| Error::system("enlarging a tap's receive buffer", errno))?;
        }
        bind(fd.as_fd(), index)
            .map_err(|errno| Error::system(format!("binding a tap to `{interface}`"), errno))?;
        Ok(Self { fd, control: nix::cmsg_space!(libc::timespec) })
    }

    /// One frame, its first bytes into `buffer`; `EAGAIN` if none is waiting.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Result<Received, Errno> {
        let mut iov = [IoSliceMut::new(buffer)];
        // MSG_TRUNC: the true length, however little of it fits.
        let message = recvmsg::<LinkAddr>(
            self.fd.as_raw_fd(),
            &mut iov,
            Some(&mut self.control),
            MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT,
        )?;
        let stamp = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::ScmTimestampns(time) => Some(time),
            _ => None,
        });
        let stamp = stamp.unwrap_or_else(|| std::time::Duration::ZERO.into());
        Ok(Received {
            wall_ns: stamp.tv_sec().cast_unsigned() * 1_000_000_000
                + stamp.tv_nsec().cast_unsigned(),
            wire_len: message.bytes as u32,
            sent: message.address.is_some_and(|from| from.pkttype() == libc::PACKET_OUTGOING),
        })
    }

    /// Frames dropped since the last call, for want of room in the buffer.
    pub(super) fn take_drops(&self) -> Result<u64, Error> {
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
        Errno::result(result)
            .map_err(|errno| Error::system("reading how many frames a tap lost", errno))?;
        Ok(u64::from(statistics.tp_drops))
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn bind(fd: BorrowedFd<'_>, index: libc::c_uint) -> Result<(), Errno> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: `address` is a complete sockaddr_ll of `len` bytes that lives across the call, which
    // only reads it; the descriptor is open.
    let result = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) };
    Errno::result(result).map(drop)
}
