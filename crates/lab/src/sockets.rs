//! Ending the TCP sockets of a namespace.
//!
//! A killed program's connections live on without it, as orphans that send a FIN again and again
//! for a minute and a half, and each of them pins its namespace. A host without power has none.

use crate::netlink::{Message, Socket};
use crate::network::Error;
use crate::sysctl;
use netns::Namespace;

/// Destroys every TCP socket in a namespace but those that listen, orphans included. Where the
/// kernel cannot (`CONFIG_INET_DIAG_DESTROY`), orphans are told to give up after one retry.
pub(crate) fn destroy_all(namespace: &Namespace) -> Result<(), Error> {
    let destroyed = Socket::open(namespace, libc::NETLINK_SOCK_DIAG).and_then(|mut diag| {
        for family in [libc::AF_INET, libc::AF_INET6] {
            destroy_family(&mut diag, family as u8)?;
        }
        Ok(())
    });
    if destroyed.is_err() {
        namespace
            .run(|| sysctl::write_if_present("ipv4/tcp_orphan_retries", "1"))
            .map_err(|source| Error::Namespace { doing: "ending orphans", source })?
            .map_err(|source| Error::kernel("setting net.ipv4.tcp_orphan_retries=1", source))?;
    }
    Ok(())
}

// include/uapi/linux/sock_diag.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// `TCP_LISTEN`, include/net/tcp_states.h.
const LISTEN: u32 = 10;
/// `struct inet_diag_sockid`.
const ID_LEN: usize = 48;

fn destroy_family(diag: &mut Socket, family: u8) -> Result<(), Error> {
    let question =
        Message::new(SOCK_DIAG_BY_FAMILY, libc::NLM_F_DUMP, &request(family, &[0; ID_LEN]));
    let answers = diag.read(format_args!("listing TCP sockets"), question)?;
    for answer in answers {
        // struct inet_diag_msg: family, state, timer, retrans, id.
        let Some(id) = answer.body.get(4..4 + ID_LEN) else { continue };
        let message = Message::new(SOCK_DESTROY, 0, &request(family, id));
        match diag.ask(format_args!("destroying a TCP socket"), message) {
            // It closed in the meantime.
            Err(Error::Kernel { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {}
            done => done?,
        }
    }
    Ok(())
}

/// `struct inet_diag_req_v2`: family, protocol, extensions, pad, states, id.
fn request(family: u8, id: &[u8]) -> Vec<u8> {
    let mut request = vec![family, libc::IPPROTO_TCP as u8, 0, 0];
    request.extend_from_slice(&(!(1u32 << LISTEN)).to_ne_bytes());
    request.extend_from_slice(id);
    request
}
