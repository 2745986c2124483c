//! What the outstanding segment is for, a SYN, data or a FIN: it decides how long the kernel sends
//! it again, and what an answer, an ICMP error or the end of its patience means.
//!
//! Source: `tcp_write_timeout`, `tcp_orphan_retries` and `tcp_keepalive_timer`
//! (net/ipv4/tcp_timer.c), `__tcp_close` (net/ipv4/tcp.c), `tcp_rcv_state_process`
//! (net/ipv4/tcp_input.c), `tcp_time_wait` (net/ipv4/tcp_minisocks.c).

use crate::kernel::{Kernel, server_sysctl};
use crate::prediction::StepKind;
use crate::rto::{self, Estimator};
use crate::wheel::Context;
use spec::{Errno, Facts, Outcome, Parameters};

/// What the outstanding segment is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// Data, of a program that holds its socket.
    Data,
    /// The FIN of `shutdown`: the program still holds its socket.
    HalfClose {
        /// As [`Farewell::acknowledged_after`].
        acknowledged_after: u64,
    },
    /// The SYN of `connect`.
    Syn,
    /// The FIN of `close`.
    Fin(Farewell),
}

/// How a program lets its connection go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Farewell {
    /// How long `close` itself waits, jiffies: `SO_LINGER`.
    pub(crate) lingers: u64,
    /// How long the server's kernel holds its acknowledgement back, jiffies (`tcp_send_delayed_ack`).
    pub(crate) acknowledged_after: u64,
    /// What the round trips before have come to: with the least and the most variance that the RTO
    /// in whole jiffies leaves open.
    pub(crate) estimates: [Estimator; 2],
    /// Whether segments carry time stamps: only then a FIN that was sent again gives a round trip,
    /// and takes the doublings of the RTO back.
    pub(crate) timestamps: bool,
}

impl Farewell {
    /// `icsk_rto` once an acknowledgement has given one more round trip, of which the least and the
    /// most are known: the least and the most, jiffies. Time stamps tell round trips in milliseconds
    /// (`tcp_rtt_tsopt_us`).
    pub(crate) fn rto_after(&self, kernel: &Kernel, rtt_us: (u64, u64)) -> (u64, u64) {
        let rto_min_us = kernel.hz.to_usecs(kernel.rto_min) as i64;
        let after = |estimate: Estimator, rtt_us: u64| {
            let mut estimate = estimate;
            let rtt_us = i64::try_from(rtt_us).unwrap_or(i64::MAX).min(i64::MAX >> 8);
            estimate.sample(rtt_us, rto_min_us);
            rto::from_estimate(kernel, estimate.srtt_us(), estimate.variance_us())
        };
        let [least, most] = self.estimates;
        let least = after(least, rtt_us.0.saturating_sub(1_000));
        (least, after(most, rtt_us.1.saturating_add(1_000)).max(least))
    }
}

/// How the client lets go.
pub(crate) fn farewell(kernel: &Kernel, parameters: &Parameters, facts: &Facts) -> Farewell {
    let lingers = parameters.client.linger.unwrap_or_default();
    let fallback = spec::facts::TcpFacts::default();
    let tcp = facts.tcp.as_ref().unwrap_or(&fallback);
    let rto_min_us = kernel.hz.to_usecs(kernel.rto_min) as i64;
    // The RTO is known in whole jiffies.
    let most_us = u64::from(tcp.rto_us.saturating_sub(tcp.srtt_us));
    let least_us = most_us.saturating_sub(kernel.hz.to_usecs(1));
    Farewell {
        lingers: kernel.hz.from_secs(lingers.as_secs()),
        acknowledged_after: held_back(kernel, parameters, facts),
        estimates: [least_us, most_us].map(|us| Estimator::of(tcp, us, rto_min_us)),
        timestamps: facts.tcp.as_ref().is_none_or(|tcp| tcp.options & TCPI_OPT_TIMESTAMPS != 0),
    }
}

/// `tcpi_options`: time stamps were agreed on.
const TCPI_OPT_TIMESTAMPS: u8 = 1;

/// How long the server's kernel holds back the acknowledgement of a FIN that no data follows, in
/// jiffies.
pub(crate) fn held_back(kernel: &Kernel, parameters: &Parameters, facts: &Facts) -> u64 {
    let least_us = server_sysctl(parameters, facts, "tcp_rto_min_us").unwrap_or(200_000);
    rto::delayed_ack(kernel.hz, kernel.hz.from_usecs(least_us))
}

/// What the kernel knows when a timeout comes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// `icsk_rto`, jiffies.
    pub(crate) rto: u64,
    /// Whether an ICMP error has come: `sk_err_soft`.
    pub(crate) warned: bool,
    /// Whether the program has let go: `SOCK_DEAD`.
    pub(crate) orphaned: bool,
}

impl Purpose {
    /// How long after the first retransmission (of a SYN: after the SYN) the kernel gives up.
    pub(crate) fn patience_ms(self, kernel: &Kernel, moment: Moment) -> u64 {
        let retries = |boundary| {
            kernel.user_timeout_ms.unwrap_or_else(|| rto::model_timeout_ms(kernel, boundary))
        };
        match self {
            Self::Syn => kernel.user_timeout_ms.unwrap_or_else(|| {
                rto::model_timeout_from_ms(kernel, kernel.syn_retries, kernel.hz.get().into())
            }),
            Self::Fin(_) if moment.orphaned => retries(orphan_retries(kernel, moment)),
            Self::Fin(_) | Self::Data | Self::HalfClose { .. } => retries(kernel.retries2),
        }
    }

    /// The number of timeouts after which the kernel gives up, whatever the time.
    pub(crate) fn timeouts_most(self, kernel: &Kernel) -> u32 {
        match self {
            Self::Syn => kernel.syn_retries + kernel.syn_linear_timeouts,
            _ => u32::MAX,
        }
    }

    /// Whether the RTO stays as it is at this timeout, the first being 1.
    pub(crate) fn is_linear(self, kernel: &Kernel, timeouts: u32) -> bool {
        matches!(self, Self::Syn) && timeouts <= kernel.syn_linear_timeouts
    }

    /// How long the server's kernel holds its acknowledgement back, jiffies.
    pub(crate) fn acknowledged_after(self) -> Option<u64> {
        match self {
            Self::Data | Self::Syn => None,
            Self::HalfClose { acknowledged_after }
            | Self::Fin(Farewell { acknowledged_after, .. }) => Some(acknowledged_after),
        }
    }

    pub(crate) fn is_syn(self) -> bool {
        matches!(self, Self::Syn)
    }

    /// What sending it again is called.
    pub(crate) fn step(self) -> StepKind {
        match self {
            Self::Data => StepKind::Retransmission,
            Self::Syn => StepKind::SynRetransmission,
            Self::HalfClose { .. } | Self::Fin(_) => StepKind::FinRetransmission,
        }
    }

    /// What the program is told when the kernel gives up.
    pub(crate) fn given_up(self, soft_error: Option<Errno>) -> Outcome {
        match self {
            Self::Fin(_) => Outcome::Released,
            _ => Outcome::Errno(soft_error.unwrap_or(Errno::ETIMEDOUT)),
        }
    }

    /// What the program is told when a RST comes.
    pub(crate) fn reset(self) -> Outcome {
        match self {
            Self::Fin(_) => Outcome::Released,
            Self::Syn => Outcome::Errno(Errno::ECONNREFUSED),
            Self::Data | Self::HalfClose { .. } => Outcome::Errno(Errno::ECONNRESET),
        }
    }
}

/// `tcp_orphan_retries`. 0 stands for 8 while the RTO has not reached its maximum.
fn orphan_retries(kernel: &Kernel, moment: Moment) -> u32 {
    let alive = moment.rto < kernel.rto_max;
    match kernel.orphan_retries {
        0 if alive => 8,
        _ if moment.warned && !alive => 0,
        retries => retries,
    }
}

/// FIN_WAIT2 of a connection whose program has let go, from the acknowledgement of the FIN at jiffy
/// `acknowledged` on: the jiffy at which the kernel forgets it, and how long it waited by the
/// textbook, jiffies.
///
/// Up to `TCP_TIMEWAIT_LEN`, a mini-socket waits for all of it. Beyond, the socket itself waits for
/// the time past that (`inet_csk_reset_keepalive_timer`), and then a mini-socket for the same time
/// once more (`tmo` in `tcp_keepalive_timer`): 61 s are 1 s and 1 s.
pub(crate) fn fin_wait2<'a>(
    kernel_at: impl Fn(u64) -> &'a Kernel,
    acknowledged: u64,
    rto: u64,
) -> (u64, u64) {
    // `tcp_fin_time`, and `tcp_time_wait` again.
    let least = (rto << 2) - (rto >> 1);
    let past = |kernel: &Kernel| {
        let timewait = u64::from(kernel.hz.get()) * TIMEWAIT_SECS;
        kernel.fin_timeout.max(least).saturating_sub(timewait)
    };
    let kernel = kernel_at(acknowledged);
    let first = past(kernel);
    if first == 0 {
        let time = kernel.fin_timeout.max(least);
        return (kernel.wheel.fires_at(acknowledged, time, Context::Call), time);
    }
    let halfway = kernel.wheel.fires_at(acknowledged, first, Context::Call);
    match past(kernel_at(halfway)) {
        // Nothing left: a RST, and the end.
        0 => (halfway, first),
        rest => {
            let rest = rest.max(least);
            (kernel.wheel.fires_at(halfway, rest, Context::Handler), first + rest)
        }
    }
}

/// `TCP_TIMEWAIT_LEN` (include/net/tcp.h), seconds.
pub(crate) const TIMEWAIT_SECS: u64 = 60;
