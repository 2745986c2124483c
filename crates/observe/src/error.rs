//! What can go wrong with an instrument, and what to do about it.

use std::io;

/// Why an instrument is not available, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The namespace could not be entered to open the instrument in it.
    #[error("opening {instrument}: {source}")]
    Namespace {
        /// Which instrument.
        instrument: &'static str,
        /// What entering it gave.
        source: netns::Error,
    },
    /// There is no such interface in the namespace.
    #[error("tapping interface `{interface}`: the namespace has no interface of that name")]
    NoInterface {
        /// The name asked for.
        interface: String,
    },
    /// A system call of an instrument failed, with no remedy of its own.
    #[error("{operation}: {source}")]
    System {
        /// The operation and its object.
        operation: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A packet socket needs `CAP_NET_RAW` in the namespace that owns the network namespace.
    #[error(
        "opening a packet socket on `{interface}`: {source}; it needs CAP_NET_RAW in the user \
         namespace that made the network namespace: run as root, or where user namespaces are \
         allowed"
    )]
    PacketSocket {
        /// The interface to tap.
        interface: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The kernel has no socket diagnostics for TCP.
    #[error(
        "asking socket diagnostics about {local} -> {remote}: {source}; the kernel needs \
         CONFIG_INET_DIAG and CONFIG_INET_TCP_DIAG (modules inet_diag and tcp_diag, which cannot \
         be loaded from inside a container)"
    )]
    NoDiagnostics {
        /// The socket's own address.
        local: std::net::SocketAddr,
        /// Its peer's.
        remote: std::net::SocketAddr,
        /// What the kernel answered.
        source: io::Error,
    },
    /// An answer that this program cannot read.
    #[error("reading an answer of socket diagnostics: {0}")]
    Malformed(&'static str),
    /// There is no tracefs to read the tracepoints from.
    #[error(
        "looking for tracefs: {why}; run as root, on a kernel with CONFIG_FTRACE, or mount it: \
         mount -t tracefs tracefs /sys/kernel/tracing"
    )]
    NoTracefs {
        /// What was tried.
        why: String,
    },
    /// Tracing the whole machine is a privilege.
    #[error(
        "making a tracefs instance: {source}; it needs root, and a tracefs that can be written"
    )]
    TracingForbidden {
        /// What the kernel answered.
        source: io::Error,
    },
    /// The kernel lacks a tracepoint that nothing can replace.
    #[error(
        "reading tracepoint {tracepoint}: {why}; the kernel needs CONFIG_FTRACE and CONFIG_INET"
    )]
    NoTracepoint {
        /// Its directory below `events`.
        tracepoint: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// No file descriptors are left.
    #[error("opening {instrument}: {source}; raise the limit: ulimit -n 65536")]
    TooManyFiles {
        /// Which instrument.
        instrument: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The two ends of a socket are of different address families.
    #[error("{local} -> {remote}: one end is IPv4 and the other IPv6")]
    MixedFamilies {
        /// The socket's own address.
        local: std::net::SocketAddr,
        /// Its peer's.
        remote: std::net::SocketAddr,
    },
}

impl Error {
    /// A failed system call without a remedy.
    pub(crate) fn system(operation: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System { operation: operation.into(), source: source.into() }
    }
}
