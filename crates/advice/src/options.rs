//! The options of a socket that decide when a peer that is gone is found out.

use serde::Deserialize;
use spec::duration;
use std::collections::BTreeMap;
use std::time::Duration;

/// Options of one socket. What is `None` is not set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// `SO_KEEPALIVE`, with all its times.
    pub keepalive: Option<Keepalive>,
    /// `TCP_USER_TIMEOUT` (RFC 5482).
    pub user_timeout: Option<Duration>,
    /// `TCP_RTO_MAX_MS` (Linux 6.15).
    pub rto_max: Option<Duration>,
    /// The sysctl `tcp_retries2` of the host, where it is not the default.
    pub retries2: Option<u32>,
    /// Which of these its program cannot set, so that the host's sysctls do.
    pub by_sysctl: BySysctl,
}

/// Options that are set by the sysctls of a host, for every socket of its network namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BySysctl {
    /// Keepalive's times: `tcp_keepalive_time`, `tcp_keepalive_intvl`, `tcp_keepalive_probes`.
    pub times: bool,
    /// `tcp_rto_max_ms` (Linux 6.15).
    pub rto_max: bool,
}

/// RFC 1122 4.2.3.6 keep-alives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// `TCP_KEEPIDLE`, seconds.
    pub idle_s: u32,
    /// `TCP_KEEPINTVL`, seconds.
    pub interval_s: u32,
    /// `TCP_KEEPCNT`.
    pub probes: u32,
}

impl Keepalive {
    /// Linux's sysctls.
    pub const DEFAULT: Self = Self { idle_s: 7200, interval_s: 75, probes: 9 };

    /// From the last segment received to the first probe.
    pub fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_s.into())
    }

    /// From the last segment received to the end, without ticks and wheel slots.
    pub fn sum(&self) -> Duration {
        self.idle() + self.probing()
    }

    /// From the first probe to the end.
    pub fn probing(&self) -> Duration {
        Duration::from_secs(u64::from(self.interval_s) * u64::from(self.probes))
    }
}

impl Keepalive {
    /// How many probes in a row end an idle connection when they are lost: their number, or, beside a
    /// user timeout, as many as come before the first keepalive timer at or past it
    /// (`tcp_keepalive_timer`).
    pub fn lost_probes(&self, user_timeout: Option<Duration>) -> u32 {
        let Some(timeout) = user_timeout else { return self.probes };
        let after_first = timeout.saturating_sub(Duration::from_secs(u64::from(self.idle_s)));
        let intervals = after_first.as_millis().div_ceil(u128::from(self.interval_s) * 1000);
        u32::try_from(intervals).unwrap_or(u32::MAX).max(1)
    }
}

impl Options {
    /// The settings of an experiment whose client has these options.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = Vec::new();
        if let Some(keepalive) = &self.keepalive {
            settings.push(("client.keepalive.enabled", "true".into()));
            if !self.by_sysctl.times {
                settings.extend([
                    ("client.keepalive.idle", format!("{}s", keepalive.idle_s)),
                    ("client.keepalive.interval", format!("{}s", keepalive.interval_s)),
                    ("client.keepalive.probes", keepalive.probes.to_string()),
                ]);
            }
        }
        let rto_max = self.rto_max.filter(|_| !self.by_sysctl.rto_max);
        let durations = [("client.user_timeout", self.user_timeout), ("client.rto_max", rto_max)];
        let shown = |(key, value): (_, Option<Duration>)| Some((key, duration::show(value?)));
        settings.extend(durations.into_iter().filter_map(shown));
        settings.extend(self.sysctls().map(|(key, value)| (key, value.to_string())));
        settings
    }

    /// The sysctls of the host, by their names below `net.ipv4`.
    pub fn sysctl(&self) -> BTreeMap<&'static str, u64> {
        let name = |key: &'static str| key.strip_prefix("sysctl.").unwrap_or(key);
        self.sysctls().map(|(key, value)| (name(key), value)).collect()
    }

    /// The same, by their keys in an experiment.
    fn sysctls(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let times = self.keepalive.filter(|_| self.by_sysctl.times);
        let rto_max = self.rto_max.filter(|_| self.by_sysctl.rto_max);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        [
            ("sysctl.tcp_keepalive_time", times.map(|times| times.idle_s.into())),
            ("sysctl.tcp_keepalive_intvl", times.map(|times| times.interval_s.into())),
            ("sysctl.tcp_keepalive_probes", times.map(|times| times.probes.into())),
            ("sysctl.tcp_retries2", self.retries2.map(u64::from)),
            ("sysctl.tcp_rto_max_ms", rto_max.map(millis)),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
    }
}

/// Keepalive times that an ecosystem does not let one set.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fixed {
    #[serde(default)]
    interval_s: Option<u32>,
    /// The interval is the idle time divided by this.
    #[serde(default)]
    interval_share: Option<u32>,
    pub(crate) probes: u32,
}

impl Fixed {
    /// Keepalive that is over within so many seconds, with the longest idle time.
    pub(crate) fn within(self, most_s: u32) -> Option<Keepalive> {
        let with =
            |idle_s| Keepalive { idle_s, interval_s: self.interval_s(idle_s), probes: self.probes };
        let most = Duration::from_secs(most_s.into());
        (1..=most_s).rev().map(with).find(|keepalive| keepalive.sum() <= most)
    }

    /// The interval that goes with an idle time.
    pub(crate) fn interval_s(self, idle_s: u32) -> u32 {
        let share = self.interval_share.map(|share| (idle_s / share).max(1));
        self.interval_s.or(share).unwrap_or(1)
    }
}

/// A duration for people: `300 ms`, `4.3 s`, `5000 s`.
pub(crate) fn in_words(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0..1000 => format!("{millis} ms"),
        _ if millis.is_multiple_of(1000) => format!("{} s", millis / 1000),
        _ => format!("{} s", duration.as_secs_f64()),
    }
}
