//! Ending the TCP sockets of a namespace.
//!
//! A killed program's connections live on without it, as orphans that send a FIN again and again
//! for a minute and a half, and each of them pins its namespace. A host without power has none.

use crate::error::Error;
use crate::sysctl;
use netns::Namespace;
use netns::sock_diag::{self, ALL_STATES, LISTEN, SockDiag};
use std::net::SocketAddr;

/// Destroys every TCP socket in a namespace but those that listen, orphans included. Where the
/// kernel cannot (`CONFIG_INET_DIAG_DESTROY`), orphans are told to give up after one retry.
pub(crate) fn destroy_all(namespace: &Namespace) -> Result<(), Error> {
    if try_destroy_all(namespace).is_err() {
        namespace
            .run(|| sysctl::write_if_present("ipv4/tcp_orphan_retries", "1"))
            .map_err(|source| Error::Namespace { doing: "ending orphans", source })?
            .map_err(|source| Error::kernel("setting net.ipv4.tcp_orphan_retries=1", source))?;
    }
    Ok(())
}

/// Destroys one connection of a namespace, if it is there. Listing all sockets costs a look at every
/// one of the machine.
pub(crate) fn destroy(
    namespace: &Namespace,
    local: SocketAddr,
    remote: SocketAddr,
) -> Result<(), Error> {
    let done = SockDiag::open(namespace).and_then(|mut diag| diag.destroy_between(local, remote));
    done.map(drop).or_else(|_| destroy_all(namespace))
}

fn try_destroy_all(namespace: &Namespace) -> Result<(), sock_diag::Error> {
    let mut diag = SockDiag::open(namespace)?;
    for ipv6 in [false, true] {
        for socket in diag.list(ipv6, ALL_STATES & !LISTEN)? {
            diag.destroy(&socket)?;
        }
    }
    Ok(())
}
