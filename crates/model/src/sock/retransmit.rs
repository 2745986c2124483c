//! Retransmission on timeout: `tcp_retransmit_timer`, `tcp_write_timeout`, `retransmits_timed_out`,
//! `tcp_clamp_rto_to_user_timeout`, `tcp_orphan_retries` (net/ipv4/tcp_timer.c), and what an ICMP
//! error does to it: `tcp_ld_RTO_revert`, `tcp_v4_err` (net/ipv4/tcp_ipv4.c).

use super::{Carries, Pending, Segment, Sock, State};
use crate::hop::{Fate, Number};
use crate::kernel::Kernel;
use crate::prediction::{COUNTED_MOST, StepKind};
use crate::rto;
use crate::step::{Progress, Stamp, Step};
use crate::wheel::Context;
use spec::Outcome;

/// Clocks of two timers that fire on their jiffies may be this much apart from it: a comparison of
/// two times nearer than this can go either way.
const JITTER_NS: u64 = 300_000;
/// `TCP_THIN_LINEAR_RETRIES` (include/net/tcp.h).
const THIN_LINEAR_RETRIES: u32 = 6;

/// Whether a time is past another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimedOut {
    No,
    Yes,
    /// The clocks' jitter decides.
    Either,
}

impl Sock {
    pub(super) fn retransmission_by_stamps(&self, cfg: &Kernel, now_ns: u64) -> [u64; 3] {
        let timed_out = self.retransmits_timed_out(cfg, now_ns);
        let (timeout, sooner) = if self.stamps.retrans_stamp.is_some() {
            self.user_timeout_left(cfg, now_ns)
        } else {
            (0, 0)
        };
        [timed_out as u64 + ((self.meets_black_hole(cfg, now_ns) as u64) << 2), timeout, sooner]
    }

    /// `tcp_retransmit_timer`.
    pub(super) fn tcp_retransmit_timer(&mut self, step: &mut Step<'_>) -> Progress {
        if self.queue.is_empty() {
            return Ok(());
        }
        let gives_up = match self.retransmits_timed_out(step.cfg, step.now_ns) {
            TimedOut::No => false,
            TimedOut::Yes => true,
            // A handler that runs late is past it.
            TimedOut::Either => step.now_ns > step.due_ns || step.either(),
        };
        if gives_up {
            return self.write_err(step);
        }
        self.tcp_mtu_probing(step);
        self.timeouts = self.timeouts.saturating_add(1);
        // `tcp_enter_loss`: all that is out counts as lost.
        self.fin_out = false;
        if self.timeouts <= COUNTED_MOST || step.world.is_silent() {
            step.log(self.sends_again());
        }
        let fate = self.send_again(step);
        step.held(fate);
        if self.stamps.retrans_stamp.is_none() {
            // The time stamp of the segment, which is an old one if it could not be sent.
            self.stamp(step, Stamp::Retransmission(Some(self.queue[0].sent_ns)));
        }
        // `tcp_stream_is_thin`: fewer than four segments out, now that small ones were gathered.
        let thin = step.cfg.thin_linear_timeouts
            && self.state == State::Open
            && self.packets_out() < 4
            && self.counted() <= THIN_LINEAR_RETRIES;
        if thin {
            self.backoff = 0;
            self.rto = self.rto_base.max(step.cfg.rto_min).min(step.cfg.rto_max);
        } else if self.state != State::SynSent || self.timeouts > step.cfg.syn_linear_timeouts {
            self.backoff += 1;
            self.rto = (self.rto * 2).min(step.cfg.rto_max);
        }
        let (rest, sooner) = self.user_timeout_left(step.cfg, step.now_ns);
        let (timeout, sooner) = (rest.min(self.rto), sooner.min(self.rto));
        let timeout = if sooner != timeout && step.either() { sooner } else { timeout };
        self.reset_xmit_timer(step, Pending::Retransmission, timeout);
        self.after_sending(step, self.first, fate)?;
        if !step.world.hop.has_timer() {
            // Nothing will ask when they were sent.
            self.queue.iter_mut().for_each(|segment| segment.sent_ns = 0);
        }
        Ok(())
    }

    /// What a timeout does.
    pub(crate) fn sends_again(&self) -> StepKind {
        match self.queue[0].carries {
            Carries::Syn => StepKind::SynRetransmission,
            Carries::Data | Carries::Request => StepKind::Retransmission,
            Carries::Fin => StepKind::FinRetransmission,
        }
    }

    /// `tcp_retransmit_skb`, of the first segment.
    pub(super) fn send_again(&mut self, step: &mut Step<'_>) -> Fate {
        if !step.world.hop.held().contains(&self.first) {
            self.tcp_retrans_try_collapse(step, self.first);
        }
        let fate = self.transmit(step, self.first);
        self.retrans_out = fate != Fate::Busy;
        if self.retrans_out {
            self.stamp_sent(step, self.first, fate);
        }
        fate
    }

    /// `tcp_retrans_try_collapse`: gathers small segments into the one that is sent again, but for those
    /// that the host's own queue still holds.
    pub(super) fn tcp_retrans_try_collapse(&mut self, step: &Step<'_>, number: Number) {
        let index = number - self.first;
        // A full one is sent as it is (`__tcp_retransmit_skb`), whatever a FIN behind it would need.
        let is_full = self.queue[index].bytes >= step.cfg.mss;
        if !step.cfg.collapses || is_full || self.queue[index].carries == Carries::Syn {
            return;
        }
        for next in index + 1..self.queue.len() {
            let segment = self.queue[next];
            if segment.merged {
                continue;
            }
            let bytes = self.queue[index].bytes + segment.bytes;
            if bytes > step.cfg.mss || step.world.hop.held().contains(&(self.first + next)) {
                return;
            }
            self.queue[index].bytes = bytes;
            self.queue[index].resent |= segment.resent;
            let (sent_ns, first_sent_ns, bytes, writes) = (0, 0, 0, 0);
            let (resent, merged) = (false, true);
            self.queue[next] =
                Segment { sent_ns, first_sent_ns, resent, bytes, writes, merged, ..segment };
        }
    }

    /// `icsk_retransmits` (include/net/inet_connection_sock.h), eight bits: after 256 timeouts the
    /// kernel takes the next for the first. It neither gives up then nor takes a doubling back.
    fn counted(&self) -> u32 {
        self.timeouts & 0xff
    }

    /// How many more timeouts are alike, as far as their number goes.
    pub(crate) fn timeouts_alike(&self) -> u64 {
        let counted = self.counted();
        if counted > THIN_LINEAR_RETRIES { u64::from(0xff - counted) } else { 0 }
    }

    /// `retransmits_timed_out`.
    pub(super) fn retransmits_timed_out(&self, cfg: &Kernel, now_ns: u64) -> TimedOut {
        let Some(first_ns) = self.stamps.retrans_stamp.filter(|_| self.counted() > 0) else {
            return TimedOut::No;
        };
        let syn = self.state == State::SynSent;
        if syn && self.timeouts >= cfg.syn_retries + cfg.syn_linear_timeouts {
            return TimedOut::Yes;
        }
        times_out(cfg, (first_ns, now_ns), self.patience_ms(cfg, now_ns))
    }

    /// `tcp_write_timeout`: whether the path is taken for a black hole.
    fn meets_black_hole(&self, cfg: &Kernel, now_ns: u64) -> TimedOut {
        let counts = self.counted() > 0 && self.state != State::SynSent && self.may_shrink(cfg);
        let first_ns = self.stamps.retrans_stamp.filter(|_| counts);
        first_ns.map_or(TimedOut::No, |first_ns| {
            times_out(cfg, (first_ns, now_ns), rto::model_timeout_ms(cfg, cfg.retries1))
        })
    }

    /// Whether the kernel would make shorter segments.
    pub(super) fn may_shrink(&self, cfg: &Kernel) -> bool {
        cfg.mtu_probing.on && cfg.mss.min(self.mss_limit) > cfg.mtu_probing.floor
    }

    /// `tcp_mtu_probing`: segments are shorter from now on, first as long as `tcp_base_mss`, then half
    /// as long each time.
    fn tcp_mtu_probing(&mut self, step: &mut Step<'_>) {
        let meets = match self.meets_black_hole(step.cfg, step.now_ns) {
            TimedOut::No => false,
            TimedOut::Yes => true,
            TimedOut::Either => step.now_ns > step.due_ns || step.either(),
        };
        if !meets {
            return;
        }
        let probing = step.cfg.mtu_probing;
        let is_first = self.mss_limit == u32::MAX && !probing.from_start;
        let half = if is_first { u32::MAX } else { step.cfg.mss.min(self.mss_limit) / 2 };
        self.mss_limit = half.min(probing.base_mss).max(probing.floor);
    }

    /// When the patience is over, nanoseconds, unless a number of SYNs decides.
    pub(crate) fn over_ns(&self, cfg: &Kernel, now_ns: u64) -> Option<u64> {
        let first_ns = self.stamps.retrans_stamp.filter(|_| self.state != State::SynSent)?;
        let patience_ns = self.patience_ms(cfg, now_ns).saturating_mul(1_000_000);
        Some(first_ns.saturating_add(patience_ns))
    }

    /// `tcp_write_timeout`: how long after the first retransmission (of a SYN: after the SYN) the
    /// kernel gives up, milliseconds.
    fn patience_ms(&self, cfg: &Kernel, now_ns: u64) -> u64 {
        if self.state == State::SynSent {
            return rto::syn_patience_ms(cfg);
        }
        if let Some(ms) = cfg.user_timeout_ms {
            return ms;
        }
        // A timer of the very jiffy at which the program lets go runs before the program does.
        let orphaned = self.orphaned_ns.is_some_and(|at_ns| now_ns > at_ns);
        let alive = self.rto < cfg.rto_max;
        let retries = if orphaned { self.orphan_retries(cfg, alive) } else { cfg.retries2 };
        rto::model_timeout_ms(cfg, retries)
    }

    /// `tcp_orphan_retries`. 0 stands for 8 while the socket is `alive`: its timeout has not reached its
    /// maximum.
    pub(super) fn orphan_retries(&self, cfg: &Kernel, alive: bool) -> u32 {
        match cfg.orphan_retries {
            0 if alive => 8,
            _ if self.err_soft.is_some() && !alive => 0,
            retries => retries,
        }
    }

    /// `tcp_clamp_rto_to_user_timeout`: what is left of the user timeout, jiffies, and the least
    /// that it may be. Both time stamps are cut to whole milliseconds before they are subtracted, and
    /// where ticks do not fall on milliseconds, as at HZ 300, that decides between two jiffies.
    fn user_timeout_left(&self, cfg: &Kernel, now_ns: u64) -> (u64, u64) {
        let Some(patience_ms) = cfg.user_timeout_ms else { return (u64::MAX, u64::MAX) };
        let first_ns = self.stamps.retrans_stamp.unwrap_or(now_ns);
        let (least_ms, most_ms) = if cfg.hz.tick_ns().is_multiple_of(1_000_000) {
            let elapsed_ms = (now_ns / 1_000_000).saturating_sub(first_ns / 1_000_000);
            (elapsed_ms, elapsed_ms)
        } else {
            let elapsed_ns = now_ns.saturating_sub(first_ns);
            let least_ms = elapsed_ns.saturating_sub(JITTER_NS) / 1_000_000;
            (least_ms, (elapsed_ns + JITTER_NS) / 1_000_000 + 1)
        };
        let left = |elapsed_ms| match patience_ms.saturating_sub(elapsed_ms) {
            0 => 1,
            remaining_ms => cfg.hz.from_msecs(remaining_ms),
        };
        // What is longer than any RTO makes no difference.
        (left(least_ms).min(cfg.rto_max), left(most_ms).min(cfg.rto_max))
    }

    /// `tcp_v4_err`, `tcp_v6_err`: first the backoff (`tcp_ld_RTO_revert`), then the error.
    pub(crate) fn icmp(&mut self, step: &mut Step<'_>, number: Number) -> Progress {
        let Some(icmp) = step.world.hop.icmp() else { return Ok(()) };
        if icmp.reverts && number == self.first && self.counted() > 0 && self.backoff > 0 {
            self.backoff -= 1;
            self.rto = self
                .rto_base
                .checked_shl(self.backoff)
                .map_or(step.cfg.rto_max, |rto| rto.min(step.cfg.rto_max));
            let since_us =
                (step.now_ns + step.world.icmp_ns).saturating_sub(self.queue[0].sent_ns) / 1_000;
            match self.rto.checked_sub(step.cfg.hz.from_usecs(since_us)) {
                Some(rest @ 1..) => self.reset_xmit_timer(step, Pending::Retransmission, rest),
                _ => self.tcp_retransmit_timer(step)?,
            }
        }
        // An ICMP error ends an attempt to connect, but not one that comes back while `connect`
        // itself holds the socket (`sock_owned_by_user`), as it does from next door.
        if self.state == State::SynSent
            && (step.context == Context::Handler || step.cfg.softirqs_wait && step.either())
        {
            return step.told(Outcome::Errno(icmp.error));
        }
        self.err_soft = Some(icmp.error);
        Ok(())
    }

    /// `tcp_wfree` and `tcp_tsq_write` (net/ipv4/tcp_output.c), after the ICMP errors: what the
    /// host's own queue held is thrown away, and a segment that a timeout could not send again for
    /// that is sent now. The timer begins anew, with the RTO as it is
    /// (`tcp_xmit_retransmit_queue`), unless a FIN fills the congestion window.
    pub(crate) fn queue_is_free(&mut self, step: &mut Step<'_>, writes_on: bool) -> Progress {
        let throttled = std::mem::take(&mut self.throttled);
        let resends = throttled && self.timeouts > 0 && !self.retrans_out && !self.fin_out;
        if !resends || self.state == State::SynSent {
            return Ok(());
        }
        // Where the program wrote on: whether that was sent by now, and fills the congestion window
        // of one, is up to the memory that segments take (`tcp_should_autocork`), which differs
        // between kernels.
        if writes_on && step.either() {
            return Ok(());
        }
        let fate = self.send_again(step);
        self.reset_xmit_timer(step, Pending::Retransmission, self.rto);
        self.after_sending(step, self.first, fate)
    }
}

/// Whether so long has passed between two moments, the first of which a timer made.
fn times_out(cfg: &Kernel, (first_ns, now_ns): (u64, u64), after_ms: u64) -> TimedOut {
    let passed_ns = now_ns.saturating_sub(first_ns);
    let patience_ns = after_ms.saturating_mul(1_000_000);
    // Both time stamps are cut to whole milliseconds (`tcp_time_stamp_ts`) before they are
    // subtracted. Where ticks fall on milliseconds, as at HZ 100, 250 and 1000, and both are
    // a timer's, nothing is lost by that.
    let tick_ns = cfg.hz.tick_ns();
    if tick_ns.is_multiple_of(1_000_000) && first_ns.is_multiple_of(tick_ns) {
        return if passed_ns >= patience_ns { TimedOut::Yes } else { TimedOut::No };
    }
    // Otherwise the phase of the clock decides between one millisecond less than the patience
    // and the patience itself.
    if passed_ns >= patience_ns.saturating_add(JITTER_NS) {
        TimedOut::Yes
    } else if passed_ns + 1_000_000 + JITTER_NS <= patience_ns {
        TimedOut::No
    } else {
        TimedOut::Either
    }
}
