//! The zero-window probe: `tcp_probe_timer` (net/ipv4/tcp_timer.c), `tcp_send_probe0`
//! (net/ipv4/tcp_output.c), `tcp_ack_probe` (net/ipv4/tcp_input.c).
//!
//! Each probe doubles the time to the next, up to the longest RTO. Here `tcp_retries2` is a number:
//! so many probes in a row without an answer, and the timer's next expiry ends the connection. An
//! answer begins the count anew, but not the doubling; and `TCP_USER_TIMEOUT` counts from the first
//! probe on, answered or not.

use super::{Pending, Sock};
use crate::kernel::Kernel;
use crate::prediction::StepKind;
use crate::step::{Progress, Stamp, Step};
use crate::world::Sent;

/// `TCP_TIMEOUT_MIN`, jiffies.
const LEAST: u64 = 2;

impl Sock {
    pub(super) fn window_probe_by_stamps(&self, cfg: &Kernel, jiffy: u64) -> [u64; 3] {
        let left = self.probe0_left(cfg, jiffy).map_or(0, |left| left.min(cfg.rto_max) + 1);
        let first = self.stamps.probes_tstamp.is_none();
        [u64::from(self.window_probe_timed_out(cfg, jiffy)), left, u64::from(first)]
    }

    /// `tcp_check_probe_timer` (include/net/tcp.h): what waits for the window has it probed.
    pub(super) fn tcp_check_probe_timer(&mut self, step: &mut Step<'_>) {
        if self.queue.is_empty() && self.write_timer.is_none() {
            let timeout = probe0_when(step.cfg, self.rto, 0);
            self.reset_xmit_timer(step, Pending::WindowProbe, timeout);
        }
    }

    /// `tcp_probe_timer`: it ends after so many probes without an answer, or so long after the first.
    pub(super) fn tcp_probe_timer(&mut self, step: &mut Step<'_>) -> Progress {
        let now = step.jiffy();
        if self.window_probe_timed_out(step.cfg, now) || self.has_probed_enough(step) {
            return self.write_err(step);
        }
        if self.stamps.probes_tstamp.is_none() {
            // Without a user timeout nothing compares it.
            let matters = step.cfg.user_timeout_ms.is_some();
            self.stamp(step, Stamp::FirstProbe(Some(if matters { now } else { 0 })));
        }
        step.log(StepKind::WindowProbe);
        self.tcp_send_probe0(step);
        Ok(())
    }

    /// Whether so many probes in a row were not answered that it ends. An orphan whose probes have come
    /// to their longest time is given up for their number alone, answered or not.
    fn has_probed_enough(&self, step: &Step<'_>) -> bool {
        let cfg = step.cfg;
        if self.orphaned_ns.is_none_or(|at_ns| step.now_ns <= at_ns) {
            return self.probes_out >= cfg.retries2;
        }
        // `inet_csk_rto_backoff`.
        let longest = self.rto.checked_shl(self.backoff).is_none_or(|rto| rto >= cfg.rto_max);
        let most = self.orphan_retries(cfg, !longest);
        self.probes_out >= most || (longest && self.backoff >= most)
    }

    fn window_probe_timed_out(&self, cfg: &Kernel, now: u64) -> bool {
        let patience = cfg.user_timeout_ms.map(|ms| cfg.hz.from_msecs(ms));
        self.stamps
            .probes_tstamp
            .zip(patience)
            .is_some_and(|(first, patience)| now.saturating_sub(first) >= patience)
    }

    /// `tcp_send_probe0`.
    fn tcp_send_probe0(&mut self, step: &mut Step<'_>) {
        self.probes_out = self.probes_out.saturating_add(1);
        self.backoff = (self.backoff + 1).min(step.cfg.retries2.max(self.backoff));
        self.reset_probe_timer(step);
        Self::tcp_write_wakeup(step, Sent::WindowProbe);
    }

    /// `tcp_ack_probe`: the window is still closed.
    pub(crate) fn tcp_ack_probe(&mut self, step: &mut Step<'_>) {
        self.probes_out = 0;
        self.received(step);
        if self.window_closed && self.waiting {
            self.reset_probe_timer(step);
        }
    }

    fn reset_probe_timer(&mut self, step: &mut Step<'_>) {
        let whole = probe0_when(step.cfg, self.rto, self.backoff);
        // `tcp_clamp_probe0_to_user_timeout`.
        let timeout =
            self.probe0_left(step.cfg, step.jiffy()).map_or(whole, |left| whole.min(left));
        self.reset_xmit_timer(step, Pending::WindowProbe, timeout);
    }

    /// What is left of the user timeout once it counts, jiffies.
    fn probe0_left(&self, cfg: &Kernel, now: u64) -> Option<u64> {
        let (first, ms) = self.stamps.probes_tstamp.zip(cfg.user_timeout_ms)?;
        Some(cfg.hz.from_msecs(ms).saturating_sub(now.saturating_sub(first)).max(LEAST))
    }
}

/// `tcp_probe0_when` and `tcp_probe0_base` (include/net/tcp.h): the RTO, at least `TCP_RTO_MIN`,
/// doubled; the doublings end at one more than fit between `TCP_RTO_MIN` and `TCP_RTO_MAX`.
pub(crate) fn probe0_when(cfg: &Kernel, rto: u64, backoff: u32) -> u64 {
    let base = rto.max(cfg.hz.tcp_rto_min());
    let most = (cfg.hz.tcp_rto_max() / cfg.hz.tcp_rto_min()).ilog2() + 1;
    (base << backoff.min(most)).min(cfg.rto_max)
}
