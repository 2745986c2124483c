//! Addresses that no other trial on this machine has: not one that runs, in whatever process, nor
//! one that ended a moment ago and whose orphaned sockets can still speak.

use anyhow::{Context, Result, bail};
use spec::{Addresses, Family, Topology};
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// A lease on addresses. It ends when it is dropped, or with the process.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) addresses: Addresses,
    /// An abstract socket's name is taken once in the machine, and free when its socket closes.
    _claim: UnixDatagram,
}

/// The addresses of a trial that has a kernel of its own: the same in every run.
pub(crate) fn fixed(number: usize, family: Family, topology: Topology) -> Addresses {
    let lease = number % usize::from(Addresses::LEASES);
    let port = 32_768 + (number / usize::from(Addresses::LEASES)) as u16;
    Addresses::new(lease as u16, family, topology, port, 10_000)
}

impl Lease {
    /// Takes free addresses, at random, so that those of the last trials are not used again soon.
    pub(crate) fn take(family: Family, topology: Topology) -> Result<Self> {
        let random = RandomState::new().hash_one(std::process::id());
        let first = (random % u64::from(Addresses::LEASES)) as u16;
        for offset in 0..Addresses::LEASES {
            let number = (first + offset) % Addresses::LEASES;
            let name = SocketAddr::from_abstract_name(format!("halfopen/lease/{number}"))
                .context("naming a lease")?;
            match UnixDatagram::bind_addr(&name) {
                Ok(claim) => {
                    let client_port = 32_768 + (random >> 16) as u16 % 28_000;
                    let server_port = 10_000 + (random >> 32) as u16 % 20_000;
                    let addresses =
                        Addresses::new(number, family, topology, client_port, server_port);
                    return Ok(Self { addresses, _claim: claim });
                }
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                Err(error) => {
                    return Err(error).context(
                        "claiming addresses for a trial (one file descriptor each: see `ulimit -n`)",
                    );
                }
            }
        }
        bail!("all {} address leases of this machine are taken by trials", Addresses::LEASES)
    }
}
