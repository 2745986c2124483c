//! The retransmission timeout: estimated from round trips, and turned into a patience.

use crate::kernel::Kernel;
use crate::tick::Hz;
use spec::facts::TcpFacts;

/// `__tcp_set_rto` and `tcp_bound_rto` (include/net/tcp.h): jiffies, from `srtt` and the variance
/// term that already holds 4·RTTVAR and `rto_min`, both in microseconds.
pub(crate) fn from_estimate(kernel: &Kernel, srtt_us: u64, variance_us: u64) -> u64 {
    kernel.hz.from_usecs(srtt_us + variance_us).clamp(1, kernel.rto_max)
}

/// How long an acknowledgement is held back that nothing follows, jiffies: `TCP_DELACK_MIN` or
/// `TCP_ATO_MIN`, 40 ms, and no longer than the smallest RTO of its sender allows
/// (`tcp_send_delayed_ack`, `tcp_delack_max`, net/ipv4/tcp_output.c).
pub(crate) fn delayed_ack(hz: Hz, rto_min: u64) -> u64 {
    u64::from(hz.get() / 25).min(rto_min.max(2) - 1).max(1)
}

/// Jacobson's estimator as `tcp_rtt_estimator` (net/ipv4/tcp_input.c) has it, microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Estimator {
    /// Eight times the smoothed round-trip time.
    srtt8: i64,
    mdev: i64,
    mdev_max: i64,
    rttvar: i64,
}

impl Estimator {
    /// As it was when socket diagnostics looked; they do not tell the variance term.
    pub(crate) fn of(tcp: &TcpFacts, variance_us: u64, rto_min_us: i64) -> Self {
        Self {
            // Never 0 once there was a sample.
            srtt8: (i64::from(tcp.srtt_us) << 3).max(1),
            mdev: i64::from(tcp.rttvar_us) << 2,
            mdev_max: rto_min_us,
            rttvar: variance_us as i64,
        }
    }

    /// Takes one round trip, of an exchange in which everything outstanding was acknowledged.
    pub(crate) fn sample(&mut self, rtt_us: i64, rto_min_us: i64) {
        let is_first = self.srtt8 == 0;
        self.sample_within(rtt_us, rto_min_us);
        if is_first {
            return;
        }
        // `snd_una` is past `rtt_seq`.
        if self.mdev_max < self.rttvar {
            self.rttvar -= (self.rttvar - self.mdev_max) >> 2;
        }
        self.mdev_max = rto_min_us;
    }

    /// Takes one round trip of a segment behind one that is missing.
    pub(crate) fn sample_within(&mut self, rtt_us: i64, rto_min_us: i64) {
        if self.srtt8 == 0 {
            self.srtt8 = (rtt_us << 3).max(1);
            self.mdev = rtt_us << 1;
            self.rttvar = self.mdev.max(rto_min_us);
            self.mdev_max = self.rttvar;
            return;
        }
        let mut error = rtt_us - (self.srtt8 >> 3);
        self.srtt8 = (self.srtt8 + error).max(1);
        if error < 0 {
            error = -error - (self.mdev >> 2);
            if error > 0 {
                error >>= 3;
            }
        } else {
            error -= self.mdev >> 2;
        }
        self.mdev += error;
        if self.mdev > self.mdev_max {
            self.mdev_max = self.mdev;
            self.rttvar = self.rttvar.max(self.mdev_max);
        }
    }

    /// The smoothed round-trip time, microseconds.
    pub(crate) fn srtt_us(&self) -> u64 {
        (self.srtt8 >> 3).max(0) as u64
    }

    /// The variance term of the RTO, microseconds.
    pub(crate) fn variance_us(&self) -> u64 {
        self.rttvar.max(0) as u64
    }
}

/// How long after the first retransmission on timeout the kernel gives up, milliseconds:
/// `tcp_model_timeout` (net/ipv4/tcp_timer.c), the time that `boundary` doublings of `TCP_RTO_MIN`
/// would take.
pub(crate) fn model_timeout_ms(kernel: &Kernel, boundary: u32) -> u64 {
    model_timeout_from_ms(kernel, boundary, kernel.hz.tcp_rto_min())
}

/// How long after the SYN the kernel gives up, milliseconds, unless the number of SYNs decides.
pub(crate) fn syn_patience_ms(kernel: &Kernel) -> u64 {
    kernel.user_timeout_ms.unwrap_or_else(|| {
        model_timeout_from_ms(kernel, kernel.syn_retries, kernel.hz.get().into())
    })
}

/// The same for doublings of `base` jiffies.
fn model_timeout_from_ms(kernel: &Kernel, boundary: u32, base: u64) -> u64 {
    let linear = (kernel.rto_max / base).max(1).ilog2();
    let jiffies = if boundary <= linear {
        ((2_u64 << boundary) - 1) * base
    } else {
        ((2_u64 << linear) - 1) * base + u64::from(boundary - linear) * kernel.rto_max
    };
    kernel.hz.to_msecs(jiffies)
}

/// How long the tail loss probe waits for one segment outstanding or more, jiffies
/// (`tcp_schedule_loss_probe`, net/ipv4/tcp_output.c): two round trips, and for a single segment
/// `rto_min` more, since its acknowledgement may be delayed; `TCP_TIMEOUT_MIN_US`, 2 ms, otherwise.
pub(crate) fn probe_timeout(kernel: &Kernel, srtt_us: u64, packets_out: usize) -> u64 {
    let margin = if packets_out == 1 { kernel.hz.to_usecs(kernel.rto_min) } else { 2_000 };
    if srtt_us == 0 {
        u64::from(kernel.hz.get())
    } else {
        kernel.hz.from_usecs(2 * srtt_us + margin)
    }
}
