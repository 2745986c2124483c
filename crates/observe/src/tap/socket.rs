//! What a tap receives.

use super::{SNAP_LEN, TapFilter};
use crate::Error;
use netns::packet::PacketSocket;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, LinkAddr, MsgFlags, MultiHeaders, recvmmsg};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// The receive buffer asked for, bytes.
const RECEIVE_BUFFER: usize = 16 << 20;

#[derive(Debug)]
pub(super) struct Receiver {
    socket: PacketSocket,
}

/// So many frames are taken at once.
const FRAMES_MOST: usize = 8;

/// What a frame's message says beside its bytes.
pub(super) struct Received {
    pub(super) wall_ns: u64,
    pub(super) wire_len: u32,
    pub(super) sent: bool,
}

impl Receiver {
    /// To be called inside the namespace.
    pub(super) fn open(interface: &str) -> Result<Self, Error> {
        let index = nix::net::if_::if_nametoindex(interface)
            .map_err(|_| Error::NoInterface { interface: interface.to_string() })?;
        let socket = PacketSocket::open().map_err(|errno| {
            let interface = interface.to_string();
            match errno {
                Errno::EPERM | Errno::EACCES => {
                    Error::PacketSocket { interface, source: errno.into() }
                }
                _ => Error::system(format!("opening a packet socket on `{interface}`"), errno),
            }
        })?;
        socket
            .enlarge_buffer(RECEIVE_BUFFER)
            .map_err(|errno| Error::system("enlarging a tap's receive buffer", errno))?;
        socket
            .bind(index)
            .map_err(|errno| Error::system(format!("binding a tap to `{interface}`"), errno))?;
        Ok(Self { socket })
    }

    pub(super) fn filter(&self) -> Result<TapFilter, Error> {
        let socket = self.socket.try_clone();
        socket.map(TapFilter::new).map_err(|errno| Error::system("duplicating a tap", errno))
    }

    /// Takes some of the frames that wait, each with its first [`SNAP_LEN`] bytes, and says whether
    /// there may be more; `EAGAIN` if none waits.
    pub(super) fn receive(&self, take: &mut impl FnMut(Received, &[u8])) -> Result<bool, Errno> {
        let control = nix::cmsg_space!(libc::timespec);
        let mut headers = MultiHeaders::preallocate(FRAMES_MOST, Some(control));
        let mut buffers = [[0; SNAP_LEN]; FRAMES_MOST];
        let mut slices = buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
        // MSG_TRUNC: the true length, however little of it fits.
        let flags = MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
        let messages = recvmmsg(self.socket.as_raw_fd(), &mut headers, &mut slices, flags, None)?;
        let mut received = Vec::with_capacity(FRAMES_MOST);
        for message in messages {
            let stamp = message.cmsgs()?.find_map(|control| match control {
                ControlMessageOwned::ScmTimestampns(time) => Some(time),
                _ => None,
            });
            let stamp = stamp.unwrap_or_else(|| std::time::Duration::ZERO.into());
            received.push(Received {
                wall_ns: stamp.tv_sec().cast_unsigned() * 1_000_000_000
                    + stamp.tv_nsec().cast_unsigned(),
                wire_len: message.bytes as u32,
                sent: message
                    .address
                    .is_some_and(|from: LinkAddr| from.pkttype() == libc::PACKET_OUTGOING),
            });
        }
        let may_be_more = received.len() == FRAMES_MOST;
        received.into_iter().zip(&buffers).for_each(|(frame, bytes)| take(frame, bytes));
        Ok(may_be_more)
    }

    /// Frames dropped since the last call, for want of room in the buffer.
    pub(super) fn take_drops(&self) -> Result<u64, Error> {
        self.socket
            .take_drops()
            .map_err(|errno| Error::system("reading how many frames a tap lost", errno))
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
