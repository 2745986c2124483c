//! rtnetlink, asked from where nothing is asynchronous.
//!
//! The kernel carries a netlink request out inside `send`, and its answer is there when that
//! returns. So the library's connection is given a socket that never waits, and is driven on the
//! spot by the caller: no task of a runtime owns the socket, which would pin its namespace until
//! the runtime came round to closing it, and no request waits for a runtime's turn.

use crate::error::Error;
use netlink_sys::{AsyncSocket, Socket, SocketAddr};
use netns::Namespace;
use rtnetlink::packet_core::{ErrorMessage, NlasIterator};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::proto::Connection;
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

/// A connection to what configures one namespace. Dropping it closes its socket there and then.
pub(crate) struct Rtnl {
    connection: Box<Connection<RouteNetlinkMessage, Prompt>>,
    handle: rtnetlink::Handle,
}

impl Rtnl {
    /// Opens a connection inside `namespace`.
    pub(crate) fn open(namespace: &Namespace) -> Result<Self, Error> {
        namespace
            .run(Self::open_here)
            .map_err(|source| Error::Namespace { doing: "opening a netlink socket", source })?
    }

    /// Opens a connection in the calling thread's own namespace.
    pub(crate) fn open_here() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection_with_socket()
            .map_err(|source| Error::kernel("opening a netlink socket", source))?;
        Ok(Self { connection: Box::new(connection), handle })
    }

    /// Has a request carried out. `doing` names it for the error.
    pub(crate) fn ask<T, Request>(
        &mut self,
        doing: fmt::Arguments<'_>,
        request: impl FnOnce(&rtnetlink::Handle) -> Request,
    ) -> Result<T, Error>
    where
        Request: Future<Output = Result<T, rtnetlink::Error>>,
    {
        let failed = |why: &str| Error::kernel(doing.to_string(), io::Error::other(why));
        let mut request = pin!(request(&self.handle));
        let mut context = Context::from_waker(Waker::noop());
        // Handed over and sent; answered and read; looked at.
        for _ in 0..3 {
            if let Poll::Ready(answer) = request.as_mut().poll(&mut context) {
                return answer.map_err(|error| match error {
                    rtnetlink::Error::NetlinkError(refusal) => Error::Kernel {
                        doing: doing.to_string(),
                        source: errno(&refusal),
                        says: words(&refusal),
                    },
                    error => Error::kernel(doing.to_string(), io::Error::other(error)),
                });
            }
            if Pin::new(&mut self.connection).poll(&mut context).is_ready() {
                return Err(failed("the netlink socket is broken"));
            }
        }
        Err(failed("the kernel's answer could not be decoded"))
    }
}

impl fmt::Debug for Rtnl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Rtnl").finish_non_exhaustive()
    }
}

/// What the kernel refuses with: a negative errno. (`ErrorMessage::to_io` panics at the lowest number.)
pub(crate) fn errno(refusal: &ErrorMessage) -> io::Error {
    io::Error::from_raw_os_error(refusal.raw_code().wrapping_neg())
}

/// What the kernel says beside its refusal: an attribute after the header of the refused request
/// (with `NETLINK_EXT_ACK` and `NETLINK_CAP_ACK`).
pub(crate) fn words(refusal: &ErrorMessage) -> Option<String> {
    /// `struct nlmsghdr`.
    const HEADER_LEN: usize = 16;
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let attributes = NlasIterator::new(refusal.header.get(HEADER_LEN..)?);
    let text = attributes.filter_map(Result::ok).find(|found| found.kind() == NLMSGERR_ATTR_MSG)?;
    Some(String::from_utf8_lossy(text.value()).trim_end_matches('\0').to_owned())
}

/// A socket that has its answer already, or will not get one. It is asked for more than there is:
/// whether anything is left to read it knows from what it has read, without a system call.
pub(crate) struct Prompt {
    socket: Socket,
    /// Nothing was sent that is not answered to its end.
    is_answered: AtomicBool,
}

impl Prompt {
    /// The longest message of a dump (`netlink_dump`, net/netlink/af_netlink.c).
    const MESSAGE_LEN_MAX: usize = 32 * 1024;

    fn at_once<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            result => Poll::Ready(result),
        }
    }

    fn sent(&self, result: io::Result<usize>) -> Poll<io::Result<usize>> {
        self.is_answered.store(false, Ordering::Relaxed);
        Self::at_once(result)
    }

    fn receive<T>(&self, take: impl FnOnce(&[u8]) -> T) -> Poll<io::Result<(T, SocketAddr)>> {
        thread_local! {
            static BYTES: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(Prompt::MESSAGE_LEN_MAX));
        }
        if self.is_answered.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        BYTES.with_borrow_mut(|bytes| {
            bytes.clear();
            let received = self.socket.recv_from(bytes, libc::MSG_DONTWAIT);
            self.is_answered.store(is_last(bytes), Ordering::Relaxed);
            Self::at_once(received.map(|(_, address)| (take(bytes), address)))
        })
    }
}

/// Whether nothing follows this answer: one of a single part, or the end of one of many.
pub(crate) fn is_last(answer: &[u8]) -> bool {
    const NLMSG_ERROR: u16 = 2;
    const NLMSG_DONE: u16 = 3;
    const NLM_F_MULTI: u16 = 2;
    let mut rest = answer;
    // struct nlmsghdr: length, type, flags.
    while let Some((head, _)) = rest.split_at_checked(8) {
        let number = |at: usize| u16::from_ne_bytes([head[at], head[at + 1]]);
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if number(6) & NLM_F_MULTI == 0 || matches!(number(4), NLMSG_ERROR | NLMSG_DONE) {
            return true;
        }
        rest = rest.get(length.next_multiple_of(4).max(8)..).unwrap_or_default();
    }
    false
}

impl AsyncSocket for Prompt {
    fn socket_ref(&self) -> &Socket {
        &self.socket
    }

    fn socket_mut(&mut self) -> &mut Socket {
        &mut self.socket
    }

    fn new(protocol: isize) -> io::Result<Self> {
        // The kernel binds it when it is first used.
        let socket = Socket::new(protocol)?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        Ok(Self { socket, is_answered: AtomicBool::new(true) })
    }

    fn poll_send(&self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.sent(self.socket.send(bytes, libc::MSG_DONTWAIT))
    }

    fn poll_send_to(
        &self,
        _: &mut Context<'_>,
        bytes: &[u8],
        address: &SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.sent(self.socket.send_to(bytes, address, libc::MSG_DONTWAIT))
    }

    fn poll_recv<B: bytes::BufMut>(
        &self,
        context: &mut Context<'_>,
        bytes: &mut B,
    ) -> Poll<io::Result<()>> {
        self.poll_recv_from(context, bytes).map_ok(drop)
    }

    fn poll_recv_from<B: bytes::BufMut>(
        &self,
        _: &mut Context<'_>,
        bytes: &mut B,
    ) -> Poll<io::Result<SocketAddr>> {
        self.receive(|received| bytes.put_slice(received)).map_ok(|((), address)| address)
    }

    fn poll_recv_from_full(&self, _: &mut Context<'_>) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        self.receive(<[u8]>::to_vec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answer_is_known_by_its_header() {
        let message = |kind: u16, flags: u16| {
            let mut bytes = vec![0; 20];
            bytes[0] = 20;
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
            bytes
        };
        assert!(is_last(&message(16, 0)));
        assert!(!is_last(&[message(16, 2), message(16, 2)].concat()));
        assert!(is_last(&[message(16, 2), message(3, 2)].concat()));
        assert!(is_last(&message(2, 0)));
        assert!(!is_last(&[]));
    }
}
