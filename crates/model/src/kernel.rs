//! The settings in force: what sysctls, socket options and measured facts come to, in the kernel's
//! own units.

use crate::allowance;
use crate::tick::Hz;
use crate::wheel::Wheel;
use spec::{Facts, Family, Parameters, Traffic};
use std::time::Duration;

/// What decides when the client's timers fire and when they give up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kernel {
    pub(crate) hz: Hz,
    pub(crate) wheel: Wheel,
    /// Whether time stands still while the kernel works ([`Facts::virtual_time`]).
    pub(crate) virtual_time: bool,
    /// `icsk_rto_min`, jiffies.
    pub(crate) rto_min: u64,
    /// `tcp_rto_max(sk)`, jiffies.
    pub(crate) rto_max: u64,
    /// `tcp_retries2`.
    pub(crate) retries2: u32,
    /// `tcp_syn_retries`.
    pub(crate) syn_retries: u32,
    /// `tcp_syn_linear_timeouts` (Linux 6.5).
    pub(crate) syn_linear_timeouts: u32,
    /// `tcp_orphan_retries`.
    pub(crate) orphan_retries: u32,
    /// `tcp_fin_timeout`, jiffies.
    pub(crate) fin_timeout: u64,
    /// Whether tail loss probes are on: `tcp_early_retrans` 3 or 4, and SACK.
    pub(crate) tail_loss_probe: bool,
    /// `tcp_thin_linear_timeouts` or the socket option, an established connection, and a congestion control that leaves the initial slow start on
    /// a timeout (`tcp_stream_is_thin`, `tcp_in_initial_slowstart`): BBR keeps its threshold
    /// infinite (`bbr_ssthresh`), so that no stream ever is thin.
    pub(crate) thin_linear_timeouts: bool,
    /// `tcp_autocorking`.
    pub(crate) autocorks: bool,
    /// The largest segment, bytes.
    pub(crate) mss: u32,
    /// `tcp_min_rtt`, microseconds; where it was not seen the smoothed round trip stands for it.
    pub(crate) min_rtt_us: u64,
    /// The headers of an IP packet with a segment of data, bytes.
    pub(crate) headers: u32,
    /// Whether SACK was agreed on.
    pub(crate) sack: bool,
    /// `tcp_retries1`.
    pub(crate) retries1: u32,
    /// `tcp_mtu_probing`, `tcp_base_mss` and `tcp_mtu_probe_floor`.
    pub(crate) mtu_probing: MtuProbing,
    /// `tcp_retrans_collapse`.
    pub(crate) collapses: bool,
    /// `TCP_USER_TIMEOUT`, milliseconds.
    pub(crate) user_timeout_ms: Option<u64>,
    /// `keepalive_time_when`, jiffies.
    pub(crate) keepalive_time: u64,
    /// `keepalive_intvl_when`, jiffies.
    pub(crate) keepalive_interval: u64,
    /// Whether ICMPv6 errors are limited on the way to a /64.
    pub(crate) limits_icmpv6: bool,
    /// Whether a receiver learns what part of its memory data takes (`scaling_ratio`, Linux 6.6).
    pub(crate) scales_window: bool,
    /// While `ksoftirqd` runs, what comes in waits for it (`ksoftirqd_running`, kernel/softirq.c: in 6.1,
    /// no longer in 6.12): an answer from next door may come after the call that it answers.
    pub(crate) softirqs_wait: bool,
    /// `keepalive_probes`.
    pub(crate) keepalive_probes: u32,
}

/// What the kernel does about segments that are too long for the path (`tcp_mtu_probing`,
/// net/ipv4/tcp_timer.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MtuProbing {
    /// Whether it makes them shorter when it takes the path for a black hole.
    pub(crate) on: bool,
    /// Whether it has from the beginning.
    pub(crate) from_start: bool,
    /// What it begins with, bytes.
    pub(crate) base_mss: u32,
    /// The least, bytes.
    pub(crate) floor: u32,
}

impl Kernel {
    pub(crate) fn new(parameters: &Parameters, facts: &Facts) -> Self {
        let hz = Hz::new(facts.hz);
        let client = &parameters.client;
        let keepalive = &client.keepalive;
        let number = |name, default| sysctl(parameters, facts, name).unwrap_or(default);
        let seconds = |set: Option<Duration>, name, default| {
            let secs = set.map_or_else(|| number(name, default), |time| time.as_secs());
            hz.from_secs(secs.clamp(1, KEEPALIVE_SECS_MOST))
        };
        let rto_max_ms = client
            .rto_max
            .filter(|_| has_rto_max(facts))
            .map_or_else(|| number("tcp_rto_max_ms", 120_000), |time| time.as_millis() as u64);
        let early_retrans = number("tcp_early_retrans", 3);
        let sack = facts.tcp.as_ref().map_or_else(
            || {
                number("tcp_sack", 1) != 0
                    && server_sysctl(parameters, facts, "tcp_sack") != Some(0)
            },
            |tcp| tcp.options & TCPI_OPT_SACK != 0,
        );
        let headers = headers(parameters, facts);
        let mtu_probing = MtuProbing {
            on: number("tcp_mtu_probing", 0) > 0,
            from_start: number("tcp_mtu_probing", 0) > 1,
            base_mss: number("tcp_base_mss", 1024) as u32,
            // `tcp_min_snd_mss` is 48, too.
            floor: number("tcp_mtu_probe_floor", 48).max(number("tcp_min_snd_mss", 48)) as u32,
        };
        let mss = MTU - headers;
        let mss = if mtu_probing.from_start { mss.min(mtu_probing.base_mss) } else { mss };
        Self {
            hz,
            wheel: Wheel::new(hz),
            virtual_time: facts.virtual_time,
            rto_min: rto_min(parameters, hz, number("tcp_rto_min_us", 200_000)),
            rto_max: if has_rto_max(facts) {
                hz.from_msecs(rto_max_ms.clamp(1_000, 120_000))
            } else {
                hz.tcp_rto_max()
            },
            retries2: number("tcp_retries2", 15).min(255) as u32,
            syn_retries: number("tcp_syn_retries", 6).clamp(1, 127) as u32,
            syn_linear_timeouts: if facts.version() >= (6, 5) {
                number("tcp_syn_linear_timeouts", 4).min(127) as u32
            } else {
                0
            },
            orphan_retries: number("tcp_orphan_retries", 0).min(255) as u32,
            fin_timeout: hz.from_secs(number("tcp_fin_timeout", 60)),
            tail_loss_probe: sack && matches!(early_retrans, 3 | 4),
            thin_linear_timeouts: (client.thin_linear_timeouts
                || number("tcp_thin_linear_timeouts", 0) != 0)
                && !matches!(client.traffic, Traffic::Connect | Traffic::Close | Traffic::Shutdown)
                && text(parameters, facts, "tcp_congestion_control") != Some("bbr"),
            autocorks: number("tcp_autocorking", 1) != 0,
            mss: facts.tcp.as_ref().map_or(mss, |tcp| tcp.snd_mss).max(1),
            headers,
            sack,
            retries1: number("tcp_retries1", 3).min(255) as u32,
            mtu_probing,
            min_rtt_us: facts.tcp.as_ref().map_or(parameters.path.rtt.as_micros() as u64, |tcp| {
                tcp.min_rtt_us.unwrap_or(tcp.srtt_us).into()
            }),
            collapses: number("tcp_retrans_collapse", 1) != 0,
            user_timeout_ms: client.user_timeout.map(|time| time.as_millis() as u64),
            keepalive_time: seconds(keepalive.idle, "tcp_keepalive_time", 7200),
            keepalive_interval: seconds(keepalive.interval, "tcp_keepalive_intvl", 75),
            limits_icmpv6: facts.version() < (6, 18),
            scales_window: facts.version() >= (6, 6),
            softirqs_wait: facts.version() < (6, 12),
            keepalive_probes: keepalive
                .probes
                .unwrap_or_else(|| number("tcp_keepalive_probes", 9).min(255) as u32),
        }
    }
}

impl Kernel {
    /// The settings in force once `later.sysctl` is: which of them a connection that exists looks
    /// at each time a timer fires, and which it has made its own when it began
    /// (`tcp_init_sock`, net/ipv4/tcp.c). `None`: nothing changes.
    ///
    /// # Errors
    /// Which setting it is not known of.
    pub(crate) fn later(parameters: &Parameters, facts: &Facts) -> Result<Option<Self>, String> {
        let later = &parameters.later.sysctl;
        if let Some(name) = later.keys().find(|name| {
            !READ_EACH_TIME.contains(&name.as_str()) && !READ_ONCE.contains(&name.as_str())
        }) {
            return Err(format!(
                "whether a connection that exists sees a change of {name} is not modelled"
            ));
        }
        let mut facts = facts.clone();
        let effective = later.iter().filter(|(name, _)| READ_EACH_TIME.contains(&name.as_str()));
        for (name, value) in effective {
            facts.sysctl.insert(name.clone(), value.clone());
        }
        Ok((!later.is_empty()).then(|| Self::new(parameters, &facts)))
    }

    /// How late a reference may be that a timer made, nanoseconds, beside the jiffy that is gone
    /// through.
    pub(crate) fn reference_late_ns(&self) -> u64 {
        let gone_through_ns = if self.virtual_time { 0 } else { self.hz.tick_ns() };
        allowance::late(self.hz).as_nanos() as u64 - gone_through_ns
    }

    /// How long after its jiffy a timer may run, nanoseconds: what comes in that time may come before
    /// it, from a timer on another CPU too.
    pub(crate) fn late_ns(&self) -> u64 {
        if self.virtual_time { 0 } else { allowance::late(self.hz).as_nanos() as u64 }
    }
}

/// Sysctls that the timers of a connection look at when they fire.
const READ_EACH_TIME: &[&str] = &[
    "tcp_early_retrans",
    "tcp_fin_timeout",
    "tcp_keepalive_intvl",
    "tcp_keepalive_probes",
    "tcp_keepalive_time",
    "tcp_mtu_probe_floor",
    "tcp_mtu_probing",
    "tcp_orphan_retries",
    "tcp_retrans_collapse",
    "tcp_retries1",
    "tcp_retries2",
    "tcp_syn_linear_timeouts",
    "tcp_syn_retries",
    "tcp_thin_linear_timeouts",
];
/// Sysctls that a connection makes its own when it begins.
const READ_ONCE: &[&str] = &[
    "tcp_congestion_control",
    "tcp_rmem",
    "tcp_rto_max_ms",
    "tcp_rto_min_us",
    "tcp_sack",
    "tcp_timestamps",
    "tcp_window_scaling",
    "tcp_wmem",
];

/// `tcp_rto_min` (net/ipv4/tcp_output.c): what the route has locked, or the socket's, which begins
/// as the sysctl's.
fn rto_min(parameters: &Parameters, hz: Hz, sysctl_us: u64) -> u64 {
    let us = |time: Duration| time.as_micros() as u64;
    let jiffies = match (parameters.path.rto_min, parameters.client.rto_min) {
        (Some(route), _) => hz.from_msecs(us(route) / 1_000),
        (None, Some(socket)) => hz.from_usecs(us(socket)),
        (None, None) => hz.from_usecs(sysctl_us),
    };
    jiffies.max(1)
}

/// Headers without options, and the time stamp's if it was agreed on.
fn headers(parameters: &Parameters, facts: &Facts) -> u32 {
    let stamps = facts.tcp.as_ref().map_or_else(
        || {
            sysctl(parameters, facts, "tcp_timestamps") != Some(0)
                && server_sysctl(parameters, facts, "tcp_timestamps") != Some(0)
        },
        |tcp| tcp.options & TCPI_OPT_TIMESTAMPS != 0,
    );
    let ip = match parameters.family {
        Family::Ipv4 => 20,
        Family::Ipv6 => 40,
    };
    ip + 20 + if stamps { 12 } else { 0 }
}

/// The newest release of Linux whose source the model was read from.
pub const NEWEST_READ: (u32, u32) = (6, 18);

/// What is said of a release that is newer than any that was read.
pub fn newer_than_read((major, minor): (u32, u32)) -> Option<String> {
    let (read_major, read_minor) = NEWEST_READ;
    ((major, minor) > NEWEST_READ).then(|| {
        format!(
            "Linux {major}.{minor} is taken to be as {read_major}.{read_minor}, the newest release whose source \
             the model was read from"
        )
    })
}

/// The MTU of every link of the laboratory.
const MTU: u32 = 1500;

/// The smallest RTO that the client's connection can have: by route, socket or sysctl.
pub fn smallest_rto(parameters: &Parameters, facts: &Facts) -> Duration {
    let kernel = Kernel::new(parameters, facts);
    kernel.hz.duration(kernel.rto_min)
}

/// Keepalive's idle time and interval, as they are in force.
pub fn keepalive_times(parameters: &Parameters, facts: &Facts) -> [Duration; 2] {
    let kernel = Kernel::new(parameters, facts);
    [kernel.keepalive_time, kernel.keepalive_interval].map(|jiffies| kernel.hz.duration(jiffies))
}

/// The most that `proc_dointvec_jiffies` takes at HZ=100, in seconds.
const KEEPALIVE_SECS_MOST: u64 = 21_474_836;
/// `tcpi_options`: time stamps were agreed on.
const TCPI_OPT_TIMESTAMPS: u8 = 1;
/// `tcpi_options`: SACK was agreed on.
const TCPI_OPT_SACK: u8 = 2;

/// Linux 6.15 made the longest RTO a setting (`tcp_rto_max_ms`, `TCP_RTO_MAX_MS`).
pub(crate) fn has_rto_max(facts: &Facts) -> bool {
    facts.version() >= (6, 15)
}

/// A sysctl of the client's namespace: as it was read, or as it is going to be set.
pub(crate) fn sysctl(parameters: &Parameters, facts: &Facts, name: &str) -> Option<u64> {
    text(parameters, facts, name)?.parse().ok()
}

fn text<'a>(parameters: &'a Parameters, facts: &'a Facts, name: &str) -> Option<&'a str> {
    facts.sysctl.get(name).or_else(|| parameters.sysctl.get(name)).map(|text| text.trim())
}

/// The server's `tcp_rmem`: least, default and most, bytes.
pub(crate) fn tcp_rmem(parameters: &Parameters, facts: &Facts) -> Option<[u32; 3]> {
    let name = "tcp_rmem";
    let text = facts.server_sysctl.get(name).or_else(|| parameters.server_sysctl.get(name))?;
    let values: Vec<u32> = text.split_whitespace().filter_map(|value| value.parse().ok()).collect();
    values.try_into().ok()
}

pub(crate) fn server_sysctl(parameters: &Parameters, facts: &Facts, name: &str) -> Option<u64> {
    let text = facts.server_sysctl.get(name).or_else(|| parameters.server_sysctl.get(name))?;
    text.trim().parse().ok()
}
