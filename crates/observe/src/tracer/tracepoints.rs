//! The tracepoints that are watched, and what one record of each says.

use super::format::{Field, Format};
use std::net::{IpAddr, SocketAddr};

/// A tracepoint, by what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    SetState,
    ErrorReport,
    Retransmit,
    SendReset,
    ReceiveReset,
    TimerStart,
    TimerExpire,
}

impl Kind {
    pub(super) const ALL: [Self; 7] = [
        Self::SetState,
        Self::ErrorReport,
        Self::Retransmit,
        Self::SendReset,
        Self::ReceiveReset,
        Self::TimerStart,
        Self::TimerExpire,
    ];

    /// Its directory below `events` in tracefs.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::SetState => "sock/inet_sock_set_state",
            Self::ErrorReport => "sock/inet_sk_error_report",
            Self::Retransmit => "tcp/tcp_retransmit_skb",
            Self::SendReset => "tcp/tcp_send_reset",
            Self::ReceiveReset => "tcp/tcp_receive_reset",
            Self::TimerStart => "timer/timer_start",
            Self::TimerExpire => "timer/timer_expire_entry",
        }
    }

    /// Whether there is no tracer without it. `inet_sk_error_report` came in Linux 5.14: before
    /// that, the change to `CLOSE` tells the moment and the program the errno.
    pub(super) fn is_indispensable(self) -> bool {
        matches!(self, Self::SetState)
    }
}

/// What one record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sighting {
    /// The thread in whose context it happened, as the first PID namespace numbers it.
    pub(super) pid: i32,
    pub(super) saw: Saw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Saw {
    /// A socket: its address in the kernel (0 if the record does not say), local and remote end.
    Socket { socket: u64, local: SocketAddr, remote: SocketAddr, did: SocketDid },
    /// A timer, by its address in the kernel.
    Timer { timer: u64, did: TimerDid },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SocketDid {
    SetState { old: u32, new: u32 },
    ReportError { error: i32 },
    Retransmit { err: Option<i32> },
    SendReset,
    ReceiveReset,
}

/// Functions are the kernel's addresses, times are jiffies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimerDid {
    Start { function: u64, now: u64, expires: u64, bucket: Option<u64> },
    Expire { function: u64, now: u64 },
}

/// Reads the records of one tracepoint.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) kind: Kind,
    pub(super) id: u16,
    pid: Field,
    fields: Fields,
}

/// The fields a kind of record needs; `Option` for those that some kernels lack.
#[derive(Debug)]
enum Fields {
    SetState { socket: Field, ends: Ends, old: Field, new: Field },
    ErrorReport { ends: Ends, error: Field },
    Retransmit { socket: Field, ends: Ends, err: Option<Field> },
    SendReset { socket: Field, ends: Ends },
    ReceiveReset { socket: Field, ends: Ends },
    TimerStart { timer: Field, function: Field, now: Field, expires: Field, bucket: Option<Field> },
    TimerExpire { timer: Field, function: Field, now: Field },
}

/// How a record gives the two ends of a socket: local, remote.
#[derive(Debug)]
enum Ends {
    /// Ports in the host's order, and IPv6 addresses, which for an IPv4 socket are mapped ones
    /// (`TP_STORE_ADDRS`, include/trace/events/net_probe_common.h).
    Apart { ports: [Field; 2], addresses: [Field; 2] },
    /// A `struct sockaddr_in` or `sockaddr_in6` each (`tcp_send_reset` since Linux 6.10).
    Whole([Field; 2]),
}

impl Reader {
    /// `None` if this kernel's records lack a field that is needed.
    pub(super) fn new(kind: Kind, format: &Format) -> Option<Self> {
        let field = |name| format.field(name);
        let fields = match kind {
            Kind::SetState => Fields::SetState {
                socket: field("skaddr")?,
                ends: Ends::new(format)?,
                old: field("oldstate")?,
                new: field("newstate")?,
            },
            Kind::ErrorReport => {
                Fields::ErrorReport { ends: Ends::new(format)?, error: field("error")? }
            }
            Kind::Retransmit => Fields::Retransmit {
                socket: field("skaddr")?,
                ends: Ends::new(format)?,
                err: field("err"),
            },
            Kind::SendReset => {
                Fields::SendReset { socket: field("skaddr")?, ends: Ends::new(format)? }
            }
            Kind::ReceiveReset => {
                Fields::ReceiveReset { socket: field("skaddr")?, ends: Ends::new(format)? }
            }
            Kind::TimerStart => Fields::TimerStart {
                timer: field("timer")?,
                function: field("function")?,
                now: field("now")?,
                expires: field("expires")?,
                bucket: field("bucket_expiry"),
            },
            Kind::TimerExpire => Fields::TimerExpire {
                timer: field("timer")?,
                function: field("function")?,
                now: field("now")?,
            },
        };
        Some(Self { kind, id: format.id, pid: field("common_pid")?, fields })
    }

    /// Whether its records are of timers, which have a function.
    pub(super) fn has_function(&self) -> bool {
        matches!(self.fields, Fields::TimerStart { .. } | Fields::TimerExpire { .. })
    }

    /// Reads one record; `None` if it is too short, of no internet family, or says nothing.
    pub(super) fn read(&self, record: &[u8]) -> Option<Sighting> {
        let number = |field: Field| field.unsigned(record);
        let socket = |socket: Option<Field>, ends: &Ends, did| {
            let [local, remote] = ends.read(record)?;
            let socket = socket.map_or(Some(0), number)?;
            Some(Saw::Socket { socket, local, remote, did })
        };
        let saw = match &self.fields {
            Fields::SetState { socket: at, ends, old, new } => {
                let (old, new) = (number(*old)? as u32, number(*new)? as u32);
                socket(Some(*at), ends, SocketDid::SetState { old, new })?
            }
            Fields::ErrorReport { ends, error } => {
                // It also fires without an error.
                let error = error.int(record).filter(|error| *error != 0)?;
                socket(None, ends, SocketDid::ReportError { error })?
            }
            Fields::Retransmit { socket: at, ends, err } => {
                let err = err.and_then(|err| err.int(record));
                socket(Some(*at), ends, SocketDid::Retransmit { err })?
            }
            Fields::SendReset { socket: at, ends } => {
                socket(Some(*at), ends, SocketDid::SendReset)?
            }
            Fields::ReceiveReset { socket: at, ends } => {
                socket(Some(*at), ends, SocketDid::ReceiveReset)?
            }
            Fields::TimerStart { timer, function, now, expires, bucket } => Saw::Timer {
                timer: number(*timer)?,
                did: TimerDid::Start {
                    function: number(*function)?,
                    now: number(*now)?,
                    expires: number(*expires)?,
                    bucket: bucket.and_then(number),
                },
            },
            Fields::TimerExpire { timer, function, now } => Saw::Timer {
                timer: number(*timer)?,
                did: TimerDid::Expire { function: number(*function)?, now: number(*now)? },
            },
        };
        Some(Sighting { pid: self.pid.int(record)?, saw })
    }
}

impl Ends {
    fn new(format: &Format) -> Option<Self> {
        let both = |local, remote| Some([format.field(local)?, format.field(remote)?]);
        match both("sport", "dport") {
            Some(ports) => Some(Self::Apart { ports, addresses: both("saddr_v6", "daddr_v6")? }),
            None => both("saddr", "daddr").map(Self::Whole),
        }
    }

    fn read(&self, record: &[u8]) -> Option<[SocketAddr; 2]> {
        match self {
            Self::Apart { ports, addresses } => {
                let end = |index: usize| {
                    let address: [u8; 16] = addresses[index].bytes(record)?.try_into().ok()?;
                    let port = ports[index].unsigned(record)? as u16;
                    Some(SocketAddr::new(IpAddr::from(address).to_canonical(), port))
                };
                Some([end(0)?, end(1)?])
            }
            Self::Whole([local, remote]) => Some([
                socket_address(local.bytes(record)?)?,
                socket_address(remote.bytes(record)?)?,
            ]),
        }
    }
}

/// A `struct sockaddr_in` or `sockaddr_in6`.
fn socket_address(bytes: &[u8]) -> Option<SocketAddr> {
    const AF_INET: u16 = libc::AF_INET as u16;
    const AF_INET6: u16 = libc::AF_INET6 as u16;
    let (family, rest) = bytes.split_first_chunk()?;
    let (port, rest) = rest.split_first_chunk()?;
    let address = match u16::from_ne_bytes(*family) {
        AF_INET => IpAddr::from(*rest.first_chunk::<4>()?),
        AF_INET6 => IpAddr::from(*rest.get(4..)?.first_chunk::<16>()?),
        _ => return None,
    };
    Some(SocketAddr::new(address.to_canonical(), u16::from_be_bytes(*port)))
}

#[cfg(test)]
mod tests;
