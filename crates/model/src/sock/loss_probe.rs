//! The tail loss probe: `tcp_schedule_loss_probe`, `tcp_send_loss_probe` (net/ipv4/tcp_output.c),
//! `tcp_rearm_rto` (net/ipv4/tcp_input.c).

use super::{Carries, Pending, Sock, State};
use crate::hop::{Fate, Number};
use crate::kernel::Kernel;
use crate::prediction::StepKind;
use crate::rto;
use crate::step::{Progress, Step};

impl Sock {
    /// `tcp_schedule_loss_probe`, not after an acknowledgement.
    pub(super) fn tcp_schedule_loss_probe(&mut self, step: &mut Step<'_>) {
        if !step.cfg.tail_loss_probe || self.timeouts > 0 || self.state == State::SynSent {
            return;
        }
        let mut timeout = rto::probe_timeout(step.cfg, self.srtt_us, self.packets_out());
        let delta_us = self.rto_delta_us(step);
        if delta_us > 0 {
            timeout = timeout.min(step.cfg.hz.from_usecs(delta_us.unsigned_abs()));
        }
        self.reset_xmit_timer(step, Pending::LossProbe, timeout);
    }

    /// `tcp_send_loss_probe`: new data if there is any, else the last segment again; one a tail.
    pub(super) fn tcp_send_loss_probe(&mut self, step: &mut Step<'_>) -> Progress {
        let next = self.next_number();
        let sent = if self.tlp_out.is_some() {
            None
        } else if self.waiting && !self.window_closed {
            Some(self.send_one_packet(step))
        } else if self.fin_waits && !self.window_closed {
            self.fin_waits = false;
            Some(self.send_head(step, Carries::Fin))
        } else {
            let last = self.queue.iter().rposition(|segment| !segment.merged);
            let number = self.first + last.unwrap_or(0);
            match self.transmit(step, number) {
                Fate::Busy => None,
                fate => {
                    self.stamp_sent(step, number, fate);
                    Some((number, fate))
                }
            }
        };
        let Some((number, fate)) = sent else {
            self.rearm_rest(step);
            return Ok(());
        };
        step.log(StepKind::TailLossProbe);
        step.held(fate);
        // `tlp_retrans`: new data is acknowledged like any other.
        self.tlp_out = Some(self.next_number().min(next));
        self.reset_xmit_timer(step, Pending::Retransmission, self.rto);
        self.after_sending(step, number, fate)
    }

    /// `tcp_write_xmit` with `push_one`: one frame of what waits, of one segment where the congestion
    /// window takes none.
    fn send_one_packet(&mut self, step: &mut Step<'_>) -> (Number, Fate) {
        let most =
            if self.is_deferred() { self.free().min(self.tcp_tso_autosize(step)) } else { 1 };
        self.send_frame(step, most)
    }

    /// `tcp_set_xmit_timer`: an acknowledgement has left something out.
    pub(super) fn rearm(&mut self, step: &mut Step<'_>) {
        let probe = rto::probe_timeout(step.cfg, self.srtt_us, self.packets_out());
        let (what, timeout) = if step.cfg.tail_loss_probe {
            (Pending::LossProbe, probe.min(self.rto))
        } else {
            (Pending::Retransmission, self.rto)
        };
        self.reset_xmit_timer(step, what, timeout);
    }

    /// `tcp_rearm_rto` while a tail loss probe is pending.
    pub(super) fn tcp_rearm_rto(&mut self, step: &mut Step<'_>) {
        self.rearm_rest(step);
    }

    fn rearm_rest(&mut self, step: &mut Step<'_>) {
        let rest_us = self.rto_delta_us(step).max(1).unsigned_abs();
        self.reset_xmit_timer(step, Pending::Retransmission, step.cfg.hz.from_usecs(rest_us));
    }

    /// `tcp_rto_delta_us`: how long until the first segment's RTO is over.
    fn rto_delta_us(&self, step: &Step<'_>) -> i64 {
        let first_ns = self.queue.first().map_or(step.now_ns, |segment| segment.sent_ns);
        let due_us = first_ns / 1_000 + step.cfg.hz.to_usecs(self.rto);
        due_us as i64 - (step.now_ns / 1_000) as i64
    }

    /// Whether a write would have the tail loss probe wait anew.
    pub(crate) fn probes_anew(&self, cfg: &Kernel, held: bool) -> bool {
        let sends = self.timeouts == 0 && self.packets_out() < self.cwnd.max(1) as usize;
        sends && cfg.tail_loss_probe && self.state != State::SynSent && !held
    }
}
