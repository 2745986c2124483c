//! What the outstanding segment is for, a SYN, data or a FIN.

use crate::kernel::{Kernel, server_sysctl};
use crate::rto::{self, Estimator};
use crate::sock::RttRange;
use spec::facts::TcpFacts;
use spec::{Facts, Parameters};

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
    pub(crate) rtt: RttRange,
}

/// How the client lets go.
pub(crate) fn farewell(kernel: &Kernel, parameters: &Parameters, facts: &Facts) -> Farewell {
    let lingers = parameters.client.linger.unwrap_or_default();
    let fallback = TcpFacts::default();
    let tcp = facts.tcp.as_ref().unwrap_or(&fallback);
    let rto_min_us = kernel.hz.to_usecs(kernel.rto_min) as i64;
    // The RTO is known in whole jiffies; its variance is `rto_min` at least (`tcp_rtt_estimator`).
    let most_us = u64::from(tcp.rto_us.saturating_sub(tcp.srtt_us));
    let least_us = most_us.saturating_sub(kernel.hz.to_usecs(1));
    let least_us = least_us.max(rto_min_us as u64).min(most_us);
    Farewell {
        lingers: kernel.hz.from_secs(lingers.as_secs()),
        acknowledged_after: held_back(kernel, parameters, facts),
        rtt: RttRange {
            estimates: [least_us, most_us].map(|us| Estimator::of(tcp, us, rto_min_us)),
            usual_us: tcp.srtt_us.into(),
            timestamps: facts.tcp.as_ref().is_none_or(|tcp| tcp.options & TCPI_OPT_TIMESTAMPS != 0),
        },
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

impl Purpose {
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
}
