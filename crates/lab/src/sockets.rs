//! Ending the TCP sockets of a namespace.
//!
//! A killed program's connections live on without it, as orphans that send a FIN again and again
//! for a minute and a half, and each of them pins its namespace. A host without power has none.

use crate::netlink::{Message, Socket};
use crate::network::Error;
use crate::sysctl;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags,
};
use netlink_packet_sock_diag::{SOCK_DESTROY, SOCK_DIAG_BY_FAMILY};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netns::Namespace;
use rtnetlink::packet_core::{Emitable, NLM_F_DUMP, Parseable};

/// Destroys every TCP socket in a namespace but those that listen, orphans included. Where the
/// kernel cannot (`CONFIG_INET_DIAG_DESTROY`), orphans are told to give up after one retry.
pub(crate) fn destroy_all(namespace: &Namespace) -> Result<(), Error> {
    let destroyed = Socket::open(namespace, NETLINK_SOCK_DIAG).and_then(|mut diag| {
        destroy_family(&mut diag, SocketId::new_v4())?;
        destroy_family(&mut diag, SocketId::new_v6())
    });
    if destroyed.is_err() {
        namespace
            .run(|| sysctl::write_if_present("ipv4/tcp_orphan_retries", "1"))
            .map_err(|source| Error::Namespace { doing: "ending orphans", source })?
            .map_err(|source| Error::kernel("setting net.ipv4.tcp_orphan_retries=1", source))?;
    }
    Ok(())
}

fn destroy_family(diag: &mut Socket, any: SocketId) -> Result<(), Error> {
    let question = request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, any);
    let answers = diag.read(format_args!("listing TCP sockets"), &question)?;
    for answer in answers {
        let Ok(socket) = InetResponseHeader::parse(answer.body.as_slice()) else { continue };
        let message = request(SOCK_DESTROY, 0, socket.socket_id);
        match diag.ask(format_args!("destroying a TCP socket"), message) {
            // It closed in the meantime.
            Err(Error::Kernel { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {}
            done => done?,
        }
    }
    Ok(())
}

fn request(kind: u16, flags: u16, socket_id: SocketId) -> Message {
    let request = InetRequest {
        family: if socket_id.source_address.is_ipv4() { AF_INET } else { AF_INET6 },
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        // Also the states that the library has no names for.
        states: StateFlags::from_bits_retain(!StateFlags::LISTEN.bits()),
        socket_id,
    };
    let mut bytes = vec![0; request.buffer_len()];
    request.emit(&mut bytes);
    Message::new(kind, flags, &bytes)
}
