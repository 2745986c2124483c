//! A TCP socket as it can be sampled from outside: its state and its options.

use crate::sysctl::Sysctls;
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

impl SocketOptions {
    /// The options that are not as they were before, of those that decide when the socket finds out: its
    /// program has changed them, or somebody else has by a duplicate of its descriptor. Each with its
    /// name and its value now. `sysctls` are those that were changed meanwhile, which show in a socket
    /// without a value of its own. What could not be read counts as unchanged.
    pub fn changed_from(&self, before: &Self, sysctls: &Sysctls) -> Vec<(&'static str, i64)> {
        let keeps_alive = self.keepalive == Some(true) || before.keepalive == Some(true);
        let matters = |name: &str, sysctl: &str| {
            !sysctls.contains_key(sysctl) && (keeps_alive || !name.starts_with("TCP_KEEP"))
        };
        let options = self.timing().into_iter().zip(before.timing());
        let changed = |((name, sysctl, now), (_, _, before)): (Timing, Timing)| {
            let now = now.filter(|now| before.is_some_and(|before| before != *now))?;
            matters(name, sysctl).then_some((name, now))
        };
        options.filter_map(changed).collect()
    }

    /// What decides when the socket finds out.
    fn timing(&self) -> [Timing; 9] {
        [
            ("SO_KEEPALIVE", "", self.keepalive.map(i64::from)),
            ("TCP_KEEPIDLE", "tcp_keepalive_time", self.keepidle_s.map(i64::from)),
            ("TCP_KEEPINTVL", "tcp_keepalive_intvl", self.keepintvl_s.map(i64::from)),
            ("TCP_KEEPCNT", "tcp_keepalive_probes", self.keepcnt.map(i64::from)),
            ("TCP_USER_TIMEOUT", "", self.user_timeout_ms.map(i64::from)),
            ("TCP_RTO_MAX_MS", "tcp_rto_max_ms", self.rto_max_ms.map(i64::from)),
            ("TCP_SYNCNT", "tcp_syn_retries", self.syncnt.map(i64::from)),
            ("TCP_LINGER2", "tcp_fin_timeout", self.linger2_s.map(i64::from)),
            (
                "TCP_THIN_LINEAR_TIMEOUTS",
                "tcp_thin_linear_timeouts",
                self.thin_linear_timeouts.map(i64::from),
            ),
        ]
    }
}

/// An option's name, the sysctl that a socket without a value of its own shows, and the value.
type Timing = (&'static str, &'static str, Option<i64>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_do_not_matter_have_not_changed() {
        let before = SocketOptions {
            keepalive: Some(false),
            keepidle_s: Some(7200),
            user_timeout_ms: Some(0),
            ..SocketOptions::default()
        };
        let none = Sysctls::new();
        let after = SocketOptions {
            keepidle_s: Some(5),
            nodelay: Some(true),
            syncnt: Some(6),
            ..before.clone()
        };
        assert_eq!(after.changed_from(&before, &none), []);
        let after = SocketOptions { user_timeout_ms: Some(5000), ..after };
        assert_eq!(after.changed_from(&before, &none), [("TCP_USER_TIMEOUT", 5000)]);
        let after = SocketOptions { keepalive: Some(true), ..after };
        let changed = [("SO_KEEPALIVE", 1), ("TCP_KEEPIDLE", 5), ("TCP_USER_TIMEOUT", 5000)];
        assert_eq!(after.changed_from(&before, &none), changed);
        let time = Sysctls::from([("tcp_keepalive_time".into(), "5".into())]);
        let changed = [("SO_KEEPALIVE", 1), ("TCP_USER_TIMEOUT", 5000)];
        assert_eq!(after.changed_from(&before, &time), changed);
    }
}
