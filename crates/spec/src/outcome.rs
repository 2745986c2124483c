//! What a client can be told, and what times count from.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How a connection ended for the client, as its kernel reports it to the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A system call fails with this error.
    Errno(Errno),
    /// `read` gives 0: the peer's FIN arrived.
    Eof,
    /// Nothing: still established at the deadline.
    None,
    /// The program has closed its socket and can be told nothing; the kernel has now let the
    /// connection go as well.
    Released,
}

impl Outcome {
    /// `ETIMEDOUT`, the outcome of every kernel timer that gives up.
    pub const TIMED_OUT: Self = Self::Errno(Errno::ETIMEDOUT);
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errno(errno) => errno.fmt(formatter),
            Self::Eof => formatter.pad("EOF"),
            Self::None => formatter.pad("none"),
            Self::Released => formatter.pad("released"),
        }
    }
}

impl Serialize for Outcome {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Outcome {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "EOF" => Ok(Self::Eof),
            "none" => Ok(Self::None),
            "released" => Ok(Self::Released),
            name => Errno::from_name(name)
                .map(Self::Errno)
                .ok_or_else(|| serde::de::Error::custom(format!("unknown outcome `{name}`"))),
        }
    }
}

/// A Linux error number (asm-generic/errno.h), shown by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($name:ident = $number:literal,)+) => {
        impl Errno {
            $(#[doc = concat!("`", stringify!($name), "`")] pub const $name: Self = Self($number);)+

            const NAMES: &[(Self, &str)] = &[$((Self::$name, stringify!($name)),)+];
        }
    };
}

errnos! {
    EPERM = 1, ENOENT = 2, EINTR = 4, EIO = 5, EBADF = 9, EAGAIN = 11, ENOMEM = 12, EACCES = 13,
    EFAULT = 14, ENODEV = 19, EINVAL = 22, EMFILE = 24, ENFILE = 23, EPIPE = 32, EPROTO = 71,
    EMSGSIZE = 90, ENOPROTOOPT = 92, EOPNOTSUPP = 95, EADDRINUSE = 98, EADDRNOTAVAIL = 99,
    ENETDOWN = 100, ENETUNREACH = 101, ENETRESET = 102, ECONNABORTED = 103, ECONNRESET = 104,
    ENOBUFS = 105, EISCONN = 106, ENOTCONN = 107, ETIMEDOUT = 110, ECONNREFUSED = 111,
    EHOSTDOWN = 112, EHOSTUNREACH = 113, EALREADY = 114, EINPROGRESS = 115, ECANCELED = 125,
}

impl Errno {
    /// The number with this name; also reads `ERRNO_123`, the form of a number without one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(errno, _)| *errno)
            .or_else(|| name.strip_prefix("ERRNO_")?.parse().ok().map(Self))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(errno, _)| errno == self) {
            Some((_, name)) => formatter.pad(name),
            None => formatter.pad(&format!("ERRNO_{}", self.0)),
        }
    }
}

impl Serialize for Errno {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Errno {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::from_name(&name)
            .ok_or_else(|| serde::de::Error::custom(format!("unknown errno `{name}`")))
    }
}

/// What the times of a prediction and of a measurement count from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reference {
    /// The fault itself: for a process crash.
    Fault,
    /// The client's first write after the fault.
    FirstWrite,
    /// The last segment the client received before the fault.
    LastActivity,
    /// The last request that a web server on the client's side received before the fault.
    LastRequest,
    /// The client's call of `connect`.
    Connect,
    /// The client's call of `close` or `shutdown`.
    Close,
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Fault => "fault",
            Self::FirstWrite => "first-write",
            Self::LastActivity => "last-activity",
            Self::LastRequest => "last-request",
            Self::Connect => "connect",
            Self::Close => "close",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_read_back_from_json() {
        for outcome in [
            Outcome::TIMED_OUT,
            Outcome::Eof,
            Outcome::None,
            Outcome::Released,
            Outcome::Errno(Errno::EHOSTUNREACH),
            Outcome::Errno(Errno(4711)),
        ] {
            let json = serde_json::to_string(&outcome).unwrap();
            assert_eq!(serde_json::from_str::<Outcome>(&json).unwrap(), outcome, "{json}");
        }
    }
}
