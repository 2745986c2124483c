//! What a client's program does after the fault, call by call.

use crate::duration;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// A sequence of calls. After the last one the program waits in `read`, unless the script repeats.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// The calls, in order.
    pub steps: Vec<Step>,
    /// Whether the program starts again after the last step, until a call fails.
    #[serde(default)]
    pub repeats: bool,
}

/// One call, or the time between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// `wait D`: do nothing for so long.
    Wait(Duration),
    /// `write N`: write so many bytes; nobody answers.
    Write(u32),
    /// `request N D`: write so many bytes and wait for as many back. Without all of them within the
    /// deadline the program closes the socket.
    Request(u32, Duration),
    /// `shutdown`: `shutdown(SHUT_WR)`.
    Shutdown,
    /// `close`: the program lets go; its kernel goes on alone.
    Close,
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wait(time) => write!(formatter, "wait {}", duration::show(*time)),
            Self::Write(bytes) => write!(formatter, "write {bytes}"),
            Self::Request(bytes, deadline) => {
                write!(formatter, "request {bytes} {}", duration::show(*deadline))
            }
            Self::Shutdown => formatter.write_str("shutdown"),
            Self::Close => formatter.write_str("close"),
        }
    }
}

impl fmt::Display for Script {
    /// As it is written: steps separated by `;`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<_> = self.steps.iter().map(Step::to_string).collect();
        formatter.write_str(&steps.join("; "))
    }
}
