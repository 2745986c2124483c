//! The end of a connection that the program lets go of: `__tcp_close` and `tcp_shutdown`
//! (net/ipv4/tcp.c), `tcp_send_fin` (net/ipv4/tcp_output.c), and FIN_WAIT2: `tcp_rcv_state_process`
//! (net/ipv4/tcp_input.c), `tcp_keepalive_timer` (net/ipv4/tcp_timer.c), `tcp_time_wait`
//! (net/ipv4/tcp_minisocks.c).

use super::{Carries, Sock, State, ended};
use crate::kernel::Kernel;
use crate::step::{Progress, Step};
use crate::wheel::Context;

impl Sock {
    /// `shutdown(SHUT_WR)`.
    pub(crate) fn shutdown(&mut self, step: &mut Step<'_>) -> Progress {
        if self.state != State::Open {
            return Ok(());
        }
        self.state = State::FinSent;
        self.tcp_send_fin(step)
    }

    /// `close`, which itself waits for `lingers` jiffies (`SO_LINGER`).
    /// With 0 it sends a RST instead (`tcp_disconnect`).
    pub(crate) fn close(&mut self, step: &mut Step<'_>, lingers: Option<u64>) -> Progress {
        self.closed = true;
        if lingers == Some(0) {
            return step.told(spec::Outcome::Released);
        }
        self.orphaned_ns = Some(match lingers {
            None => 0,
            Some(lingers) => {
                step.effects.waits = lingers;
                step.cfg.wheel.fires_at(step.jiffy(), lingers, Context::Call) * step.tick_ns()
            }
        });
        match self.state {
            State::Open => {
                self.state = State::FinSent;
                self.tcp_send_fin(step)
            }
            State::FinSent => Ok(()),
            State::FinWait2 => self.fin_wait2(step),
            State::SynSent => step.told(spec::Outcome::Released),
        }
    }

    /// `tcp_send_fin`: behind what is not sent yet, or at once. After a timeout that could send nothing
    /// again, since the host's own queue still held it, all is lost and nothing in flight: the congestion
    /// window of one takes the FIN (`tcp_cwnd_test`).
    fn tcp_send_fin(&mut self, step: &mut Step<'_>) -> Progress {
        if self.is_deferred() && self.unsent < self.free() * step.cfg.mss {
            return self.send_deferred_fin(step);
        }
        let none_in_flight = self.timeouts > 0 && !self.retrans_out;
        if self.waiting || (self.is_held_back() && !none_in_flight) {
            self.fin_waits = true;
            return Ok(());
        }
        self.fin_out = none_in_flight;
        self.send_new(step, Carries::Fin)
    }

    /// The FIN of a socket without a program is acknowledged, and the server says no more. One end
    /// for each jiffy that the acknowledgement may have come in, where they differ.
    pub(super) fn fin_wait2(&mut self, step: &mut Step<'_>) -> Progress {
        let (first_ns, last_ns) = step.arrival_ns();
        let tick_ns = step.tick_ns();
        let jiffies = first_ns / tick_ns..=(last_ns / tick_ns).max(first_ns / tick_ns);
        step.effects.slots += jiffies.end() - jiffies.start();
        let answer_ns = step.world.answer_comes_ns();
        let mut ends: Vec<u64> = Vec::new();
        for acknowledged in jiffies {
            let (fires, waited) = fin_wait2(step, acknowledged, self.rto);
            let fires_ns = (fires.0 * tick_ns, fires.1 * tick_ns);
            // Data for what no process reads any more ends it (`TCP_TW_RST`).
            if let Some(at_ns) = answer_ns.filter(|at_ns| *at_ns < fires_ns.1) {
                step.released_at((at_ns, at_ns), at_ns.saturating_sub(step.now_ns));
                if at_ns < fires_ns.0 {
                    return ended();
                }
            }
            if !ends.contains(&fires.0) {
                ends.push(fires.0);
                step.released_at(fires_ns, waited * tick_ns);
            }
        }
        ended()
    }

    /// `tcp_keepalive_timer` of an orphan in FIN_WAIT2: a mini-socket for the rest, or a RST and the end.
    pub(super) fn fin_wait2_timer(&self, step: &mut Step<'_>) -> Progress {
        match past_time_wait(step.cfg, self.rto) {
            0 => step.told(spec::Outcome::Released),
            rest => {
                let rest = rest.max(least_fin_time(self.rto));
                let fires = step.cfg.wheel.fires_at(step.jiffy(), rest, step.wheel_context());
                let at_ns = fires * step.tick_ns();
                step.released_at((at_ns, at_ns), rest * step.tick_ns());
                ended()
            }
        }
    }
}

/// FIN_WAIT2 of a connection whose program has let go, from the acknowledgement of the FIN at jiffy
/// `acknowledged` on: the earliest and the latest jiffy at which the kernel forgets it, and how long it
/// waited by the textbook, jiffies.
///
/// Up to `TCP_TIMEWAIT_LEN`, a mini-socket waits for all of it. Beyond, the socket itself waits for
/// the time past that (`inet_csk_reset_keepalive_timer`), and then a mini-socket for the same time
/// once more (`tmo` in `tcp_keepalive_timer`): 61 s are 1 s and 1 s.
fn fin_wait2(step: &mut Step<'_>, acknowledged: u64, rto: u64) -> ((u64, u64), u64) {
    // `tcp_fin_time`, and `tcp_time_wait` again.
    let cfg = step.cfg_at(acknowledged);
    let first = past_time_wait(cfg, rto);
    if first == 0 {
        let time = cfg.fin_timeout.max(least_fin_time(rto));
        return (cfg.wheel.fires_within(acknowledged, time, step.world.phase), time);
    }
    let halfway = cfg.wheel.fires_at(acknowledged, first, Context::Call);
    let rest = past_time_wait(step.cfg_at(halfway), rto);
    step.effects.waits = first.max(rest);
    if rest == 0 {
        // Nothing left: a RST, and the end.
        return ((halfway, halfway), first);
    }
    let rest = rest.max(least_fin_time(rto));
    let fires = cfg.wheel.fires_at(halfway, rest, Context::Handler);
    ((fires, fires), first + rest)
}

/// What of `tcp_fin_time` is past `TCP_TIMEWAIT_LEN`, jiffies.
fn past_time_wait(cfg: &Kernel, rto: u64) -> u64 {
    let timewait = u64::from(cfg.hz.get()) * TIMEWAIT_SECS;
    cfg.fin_timeout.max(least_fin_time(rto)).saturating_sub(timewait)
}

/// 3.5 times the RTO: the least that `tcp_fin_time` and `tcp_time_wait` give.
fn least_fin_time(rto: u64) -> u64 {
    (rto << 2) - (rto >> 1)
}

/// `TCP_TIMEWAIT_LEN` (include/net/tcp.h), seconds.
pub(crate) const TIMEWAIT_SECS: u64 = 60;
