//! Ending the TCP sockets of a namespace.
//!
//! A killed program's connections live on without it, as orphans that send a FIN again and again
//! for a minute and a half, and each of them pins its namespace. A host without power has none.

use crate::error::Error;
use crate::sysctl;
use netns::Namespace;
use netns::sock_diag::{self, ALL_STATES, LISTEN, SockDiag};

/// Destroys every TCP socket in a namespace but those that listen, orphans included. Where the
/// kernel cannot (`CONFIG_INET_DIAG_DESTROY`), orphans are told to give up after one retry.
pub(crate) fn destroy_all(namespace: &Namespace) -> Result<(), Error> {
    if destroy(namespace).is_err() {
        namespace
            .run(|| sysctl::write_if_present("ipv4/tcp_orphan_retries", "1"))
            .map_err(|source| Error::Namespace { doing: "ending orphans", source })?
            .map_err(|source| Error::kernel("setting net.ipv4.tcp_orphan_retries=1", source))?;
    }
    Ok(())
}

fn destroy(namespace: &Namespace) -> Result<(), sock_diag::Error> {
    let mut diag = SockDiag::open(namespace)?;
    for ipv6 in [false, true] {
        for socket in diag.list(ipv6, ALL_STATES & !LISTEN)? {
            diag.destroy(&socket)?;
        }
    }
    Ok(())
}
