//! A TCP socket as it can be sampled from outside: its state and its options.

use serde::{Deserialize, Serialize};

/// The options that decide when a socket finds out, as `getsockopt` shows them: where the socket has
/// no value of its own, the sysctl's. A field is `None` where it could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketOptions {
    /// `SO_KEEPALIVE`.
    pub keepalive: Option<bool>,
    /// `TCP_KEEPIDLE`, whole seconds.
    pub keepidle_s: Option<u32>,
    /// `TCP_KEEPINTVL`, whole seconds.
    pub keepintvl_s: Option<u32>,
    /// `TCP_KEEPCNT`.
    pub keepcnt: Option<u32>,
    /// `TCP_USER_TIMEOUT`, milliseconds; 0: not set.
    pub user_timeout_ms: Option<u32>,
    /// `TCP_NODELAY`.
    pub nodelay: Option<bool>,
    /// `TCP_RTO_MAX_MS` (Linux 6.15), milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto_max_ms: Option<u32>,
    /// `TCP_SYNCNT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syncnt: Option<u32>,
    /// `TCP_LINGER2`, seconds; less than 0: no time in FIN_WAIT2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linger2_s: Option<i32>,
    /// `TCP_THIN_LINEAR_TIMEOUTS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thin_linear_timeouts: Option<bool>,
}
