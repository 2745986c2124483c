//! What is measured before the fault, and what a prediction may start from.

use crate::choice::TcpState;
use crate::socket::SocketOptions;
use crate::sysctl::Sysctls;
use serde::{Deserialize, Serialize};

/// The state of the kernel and of the client's connection just before the fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The kernel's release, as `uname -r` gives it.
    pub kernel: String,
    /// Timer interrupts a second: 1/HZ is a jiffy.
    pub hz: u32,
    /// The TCP sysctls in force in the client's namespace, by their name below `net.ipv4`.
    pub sysctl: Sysctls,
    /// The TCP sysctls in force in the server's namespace.
    pub server_sysctl: Sysctls,
    /// The client's connection; `None` if it could not be sampled.
    pub tcp: Option<TcpFacts>,
    /// Which jiffy it is at which moment of `CLOCK_MONOTONIC`; `None` if that is not known.
    pub jiffies: Option<JiffyClock>,
    /// Whether time is virtual: it stands still while the kernel works, so that no timer runs late
    /// and no packet takes any time but the path's.
    #[serde(default)]
    pub virtual_time: bool,
    /// What the sender on the server's link (the client or the router) knows of its
    /// link-layer address; `None` if it was not sampled, or nothing is known.
    #[serde(default)]
    pub neighbour: Option<NeighbourFacts>,
    /// The server's socket of this connection, where its process is about to be killed while the path is
    /// away: its kernel sends the FIN again by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_tcp: Option<TcpFacts>,
}

/// `struct tcp_info` of the client's socket (include/uapi/linux/tcp.h), and the sizes that decide
/// which timers are armed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpFacts {
    /// `tcpi_rto`, microseconds.
    pub rto_us: u32,
    /// `tcpi_rtt`: the smoothed round-trip time, microseconds.
    pub srtt_us: u32,
    /// `tcpi_rttvar`, microseconds.
    pub rttvar_us: u32,
    /// `tcpi_min_rtt`: the shortest of late, microseconds; `None` in files of before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_rtt_us: Option<u32>,
    /// `tcpi_snd_mss`, bytes.
    pub snd_mss: u32,
    /// `tcpi_snd_cwnd`, segments.
    pub snd_cwnd: u32,
    /// `tcpi_options`: TCPI_OPT_TIMESTAMPS 1, _SACK 2, _WSCALE 4.
    pub options: u8,
    /// Monotonic time of the sample, nanoseconds.
    pub sampled_at_ns: u64,
    /// `tcpi_last_data_recv`, milliseconds before the sample.
    pub last_data_recv_ms: u32,
    /// `tcpi_last_ack_recv`, milliseconds before the sample.
    pub last_ack_recv_ms: u32,
    /// The running timer, `idiag_timer`: 0 none, 1 retransmission, 2 keepalive, 3 time-wait,
    /// 4 zero-window probe.
    pub timer: u8,
    /// `idiag_expires`: when it fires, milliseconds after the sample.
    pub timer_expires_ms: u32,
    /// `tcpi_backoff`: doublings of the running timer.
    #[serde(default)]
    pub backoff: u8,
    /// `tcpi_probes`: keepalive or zero-window probes in a row without an answer.
    #[serde(default)]
    pub probes: u8,
    /// `tcpi_snd_wnd`: what the server says it can take, bytes. Kernels before 5.4 do not tell.
    #[serde(default)]
    pub snd_wnd: u32,
    /// Monotonic time, nanoseconds, of the first zero-window probe since the server closed its
    /// window; `None`: there was none.
    #[serde(default)]
    pub window_probed_at_ns: Option<u64>,
    /// `idiag_state`; `None` in files of before it was kept.
    #[serde(default)]
    pub state: Option<TcpState>,
    /// `tcpi_retransmits`: `icsk_retransmits`, timeouts in a row without an answer.
    #[serde(default)]
    pub retransmits: u8,
    /// `tcpi_unacked`: segments sent and not acknowledged.
    #[serde(default)]
    pub unacked: u32,
    /// `tcpi_notsent_bytes`: written and not sent.
    #[serde(default)]
    pub notsent_bytes: u32,
    /// `tcpi_last_data_sent`, milliseconds before the sample.
    #[serde(default)]
    pub last_data_sent_ms: u32,
    /// `idiag_retrans`: retransmissions or probes of the running timer.
    #[serde(default)]
    pub timer_count: u8,
    /// Its options, where they could be read.
    #[serde(default)]
    pub options_set: Option<SocketOptions>,
    /// The kernel looked within so much of `sampled_at_ns`, nanoseconds.
    #[serde(default)]
    pub sampled_within_ns: u64,
    /// `idiag_inode`: 0 where no process has the socket; `None` in files of before it was kept.
    #[serde(default)]
    pub inode: Option<u32>,
    /// `tcpi_retrans`: segments sent again and not acknowledged.
    #[serde(default)]
    pub retrans: u32,
    /// `tcpi_total_retrans`: segments sent again in the connection's life; `None` in files of before it was
    /// kept.
    #[serde(default)]
    pub total_retrans: Option<u32>,
    /// `tcpi_total_rto_recoveries` (Linux 6.7): how often a first timeout came, of a connection's life.
    #[serde(default)]
    pub rto_recoveries: u16,
    /// `tcpi_total_rto_time`, milliseconds: how long these lasted, each from its first timeout on.
    #[serde(default)]
    pub rto_time_ms: u32,
    /// Whether everything that was received had been acknowledged, so that no acknowledgement is being
    /// delayed; `None` where nobody has seen it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<bool>,
}

impl TcpFacts {
    /// `idiag_timer` (net/ipv4/inet_diag.c): the keepalive timer.
    pub const TIMER_KEEPALIVE: u8 = 2;
    /// `idiag_timer`: the zero-window probe.
    pub const TIMER_PROBE0: u8 = 4;
}

/// A neighbour entry (`struct nda_cacheinfo`, include/uapi/linux/neighbour.h), and how the entries
/// of its interface ask (`NDTPA_*`, the same file). Milliseconds; those before the sample come in
/// steps of ten, rounded down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourFacts {
    /// `ndm_state`: NUD_INCOMPLETE 1, _REACHABLE 2, _STALE 4, _DELAY 8, _PROBE 16, _FAILED 32,
    /// _PERMANENT 128.
    pub state: u16,
    /// Monotonic time of the sample, nanoseconds.
    pub sampled_at_ns: u64,
    /// `ndm_confirmed`: since it was last confirmed.
    pub confirmed_ms: u64,
    /// `ndm_updated`: since it has been in this state.
    pub updated_ms: u64,
    /// `NDTPA_REACHABLE_TIME`: how long it is believed after a confirmation, drawn at random.
    pub reachable_ms: u64,
    /// `NDTPA_DELAY_PROBE_TIME`.
    pub delay_ms: u64,
    /// `NDTPA_RETRANS_TIME`.
    pub retrans_ms: u64,
    /// `NDTPA_UCAST_PROBES`.
    pub direct_questions: u32,
    /// `NDTPA_MCAST_PROBES`.
    pub questions_to_all: u32,
    /// `ndtc_last_rand`: since `reachable_ms` was drawn; it is drawn again after 300 s. Less than
    /// zero on a host that has just booted (`neigh_table_init`, net/core/neighbour.c).
    pub drawn_ms: i64,
}

impl NeighbourFacts {
    /// `NUD_REACHABLE`.
    pub const REACHABLE: u16 = 2;
    /// `NUD_STALE`.
    pub const STALE: u16 = 4;
    /// `NUD_DELAY`.
    pub const DELAY: u16 = 8;
    /// `NUD_PROBE`.
    pub const PROBE: u16 = 16;
}

/// A jiffy counter read together with the monotonic clock: tick `jiffies` began at `at_ns`.
///
/// Ticks follow each other at exactly `TICK_NSEC`, `1e9 / hz` rounded to whole nanoseconds, of the
/// monotonic clock (`tick_do_update_jiffies64`, kernel/time/tick-sched.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JiffyClock {
    /// The kernel's `jiffies`, all 64 bits or the low 32.
    pub jiffies: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub at_ns: u64,
}

impl Facts {
    /// The kernel's [`version`].
    pub fn version(&self) -> (u32, u32) {
        version(&self.kernel)
    }
}

/// `(6, 18)` for the release `6.18.44`.
pub fn version(release: &str) -> (u32, u32) {
    let digits = release.split(|c: char| !c.is_ascii_digit());
    let mut numbers = digits.map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
