//! Keepalive: `tcp_keepalive_timer` (net/ipv4/tcp_timer.c).
//!
//! The timer is armed for the idle time when `SO_KEEPALIVE` is set (`tcp_set_keepalive`), and not
//! again when segments arrive: it fires, sees how long ago the last one came
//! (`keepalive_time_elapsed`), and waits for the rest. From the first probe on it is armed for the
//! interval at each firing, each time rounded to a slot of the wheel.

use super::{Armed, Sock, State, Timer};
use crate::kernel::Kernel;
use crate::prediction::StepKind;
use crate::step::{Progress, Step};
use crate::world::Sent;

impl Sock {
    pub(super) fn keepalive_by_stamps(&self, cfg: &Kernel, jiffy: u64) -> [u64; 3] {
        if self.is_sending() {
            return [0; 3];
        }
        let elapsed = self.keepalive_time_elapsed(jiffy);
        [elapsed.min(cfg.keepalive_time), u64::from(self.keepalive_gives_up(cfg, elapsed)), 0]
    }

    /// `tcp_keepalive_timer`.
    pub(super) fn tcp_keepalive_timer(&mut self, step: &mut Step<'_>) -> Progress {
        self.keepalive_timer = None;
        if self.state == State::FinWait2 && self.closed {
            return self.fin_wait2_timer(step);
        }
        if !self.keepopen {
            return Ok(());
        }
        let time = step.cfg.keepalive_time;
        if self.is_sending() {
            // "It is alive without keepalive".
            self.reset_keepalive_timer(step, time, None);
            return Ok(());
        }
        let elapsed = self.keepalive_time_elapsed(step.jiffy());
        if let Some(rest @ 1..) = time.checked_sub(elapsed) {
            let from_ns = self.stamps.rcv_tstamp;
            self.reset_keepalive_timer(step, rest, Some(from_ns));
            return Ok(());
        }
        if self.keepalive_gives_up(step.cfg, elapsed) {
            return self.write_err(step);
        }
        step.log(StepKind::KeepaliveProbe);
        Self::tcp_write_wakeup(step, Sent::KeepaliveProbe);
        self.probes_out = self.probes_out.saturating_add(1);
        self.reset_keepalive_timer(step, step.cfg.keepalive_interval, None);
        Ok(())
    }

    /// Data is out, or waits.
    pub(crate) fn is_sending(&self) -> bool {
        !self.queue.is_empty() || self.waiting || self.fin_waits
    }

    fn keepalive_time_elapsed(&self, jiffy: u64) -> u64 {
        jiffy.saturating_sub(self.stamps.rcv_tstamp)
    }

    /// `TCP_USER_TIMEOUT` takes the place of the number of probes, in both directions.
    fn keepalive_gives_up(&self, cfg: &Kernel, elapsed: u64) -> bool {
        match cfg.user_timeout_ms {
            Some(ms) => elapsed >= cfg.hz.from_msecs(ms) && self.probes_out > 0,
            None => self.probes_out >= cfg.keepalive_probes,
        }
    }

    /// `inet_csk_reset_keepalive_timer`. Where the phase of the clock is not known up to its slot, that is asked
    /// for when it may fire.
    pub(crate) fn reset_keepalive_timer(
        &mut self,
        step: &mut Step<'_>,
        timeout: u64,
        from: Option<u64>,
    ) {
        let (now, context) = (step.jiffy(), step.wheel_context());
        let fires = step.cfg.wheel.fires_from(now, timeout, context, step.world.phase);
        self.keepalive_timer = Some(Armed { fires, timeout });
        step.armed(Timer::Keepalive, timeout, from);
    }

    /// `tcp_write_wakeup`: a segment that the peer has to answer.
    pub(super) fn tcp_write_wakeup(step: &mut Step<'_>, probe: Sent) {
        let number = step.world.next_probe();
        let fate = step.world.send(step.cfg, probe, number, step.now_ns, step.wheel_context());
        step.held(fate);
    }
}
