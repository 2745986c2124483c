//! One TCP socket, without any input or output of its own: time is an argument, timers are a closed
//! enum, calls, segments and expiries come in, segments and what the program is told go out.
//!
//! Its fields are those of `struct tcp_sock` and `struct inet_connection_sock` that timers read and
//! write, under their names. Each timer's handler is a file: [`retransmit`] (`tcp_retransmit_timer`),
//! [`loss_probe`] (`tcp_send_loss_probe`), [`window_probe`] (`tcp_probe_timer`), [`keepalive`]
//! (`tcp_keepalive_timer`), [`close`] (FIN_WAIT2 and orphans); all in net/ipv4/tcp_timer.c and
//! net/ipv4/tcp_output.c. [`write`](mod@write) has what is new, [`ack`] what is acknowledged.

mod ack;
mod close;
mod keepalive;
mod loss_probe;
mod rack;
mod retransmit;
mod rtt;
mod window_probe;
mod write;

pub(crate) use crate::step::{Stamps, Timer};
pub(crate) use close::TIMEWAIT_SECS;
pub(crate) use rtt::RttRange;
pub(crate) use window_probe::probe0_when;

use crate::hop::{Fate, Icmp, Number};
use crate::kernel::Kernel;
use crate::prediction::StepKind;
use crate::step::{Ended, Progress, Stamp, Step};
use crate::wheel::Context;
use crate::world::{Packet, Sent};
use spec::{Errno, Outcome};

/// What the write timer waits for: `icsk_pending`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Pending {
    /// `ICSK_TIME_LOSS_PROBE`.
    LossProbe,
    /// `ICSK_TIME_RETRANS`.
    Retransmission,
    /// `ICSK_TIME_PROBE0`.
    WindowProbe,
    /// `ICSK_TIME_REO_TIMEOUT`.
    Reordering,
}

/// A timer that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Armed {
    /// The jiffy of its slot in the wheel.
    pub(crate) fires: u64,
    /// How long was asked for, jiffies.
    pub(crate) timeout: u64,
}

/// What a segment carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Carries {
    /// The SYN of `connect`.
    Syn,
    /// Data.
    Data,
    /// Data that ends a request.
    Request,
    /// The FIN of `close` or `shutdown`.
    Fin,
}

/// A segment that was sent and is not acknowledged: one of `tcp_rtx_queue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Segment {
    pub(crate) carries: Carries,
    /// When it was last sent: `skb_mstamp_ns`.
    pub(crate) sent_ns: u64,
    /// When it was first sent, if something may ask for that; or else 0.
    pub(crate) first_sent_ns: u64,
    /// `TCPCB_EVER_RETRANS`.
    pub(crate) resent: bool,
    /// How much data, and in how many of the program's writes.
    pub(crate) bytes: u32,
    pub(crate) writes: u32,
    /// Whether it is part of the one before it (`tcp_collapse_retrans`).
    pub(crate) merged: bool,
}

/// How far the connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum State {
    /// `TCP_SYN_SENT`.
    SynSent,
    /// `TCP_ESTABLISHED` or `TCP_CLOSE_WAIT`.
    Open,
    /// `TCP_FIN_WAIT1`, `TCP_CLOSING` or `TCP_LAST_ACK`: a FIN is out, or waits behind data.
    FinSent,
    /// `TCP_FIN_WAIT2`.
    FinWait2,
}

/// A socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Sock {
    pub(crate) state: State,
    /// Whether the program has called `close`.
    pub(crate) closed: bool,
    /// When the program lets go of it, nanoseconds: `SOCK_DEAD`, after what `SO_LINGER` waits.
    pub(crate) orphaned_ns: Option<u64>,
    /// `tcp_rtx_queue`.
    pub(crate) queue: Vec<Segment>,
    /// The number of the first segment of the queue.
    pub(crate) first: Number,
    /// What was written and not sent: the congestion window or the server's window holds it back,
    /// or the kernel corks it.
    pub(crate) waiting: bool,
    /// Whether that ends a request.
    pub(crate) asks: bool,
    /// How much waits, bytes, and how many writes are corked.
    pub(crate) unsent: u32,
    pub(crate) corked: u32,
    /// Whether a FIN waits behind that.
    pub(crate) fin_waits: bool,
    /// Whether `snd_wnd` takes nothing.
    pub(crate) window_closed: bool,
    /// `snd_cwnd`, segments.
    pub(crate) cwnd: u32,
    /// `icsk_mtup.search_low` as the largest segment, bytes, once the path was taken for a black hole.
    pub(crate) mss_limit: u32,
    /// The peer has all segments from this one on, and misses some before it (SACK).
    pub(crate) sacked_from: Number,
    /// `icsk_rto`, jiffies.
    pub(crate) rto: u64,
    /// `__tcp_set_rto`: the RTO without doublings, jiffies.
    pub(crate) rto_base: u64,
    /// `srtt_us`.
    pub(crate) srtt_us: u64,
    /// `icsk_backoff`.
    pub(crate) backoff: u32,
    /// Timeouts in a row; `icsk_retransmits` is these modulo 256.
    pub(crate) timeouts: u32,
    /// `tlp_high_seq`: a tail loss probe is out, until something after this number is acknowledged. One that
    /// was sent again stays so where it was itself the last.
    pub(crate) tlp_out: Option<Number>,
    /// `icsk_probes_out`.
    pub(crate) probes_out: u32,
    /// `sk_err_soft`.
    pub(crate) err_soft: Option<Errno>,
    /// `SOCK_KEEPOPEN`.
    pub(crate) keepopen: bool,
    /// `TSQ_THROTTLED`: something waits for the host's own queue.
    pub(crate) throttled: bool,
    /// `retrans_out`: whether the first segment was really sent again since the last timeout.
    pub(crate) retrans_out: bool,
    /// Whether a FIN has left since the last timeout: it fills the congestion window of one.
    pub(crate) fin_out: bool,
    /// What acknowledgements make of the RTO, where that is known.
    pub(crate) rtt: Option<RttRange>,
    pub(crate) write_timer: Option<(Pending, Armed)>,
    pub(crate) keepalive_timer: Option<Armed>,
    pub(crate) delack_timer: Option<Armed>,
    /// The error that the delayed acknowledgement draws if it goes after the fault.
    pub(crate) delack_draws: Option<Errno>,
    pub(crate) stamps: Stamps,
}

impl Sock {
    /// A socket of a settled connection: nothing is out, nothing waits.
    pub(crate) fn settled(rto: u64, srtt_us: u64, cwnd: u32) -> Self {
        Self {
            state: State::Open,
            closed: false,
            orphaned_ns: None,
            queue: Vec::new(),
            first: 0,
            waiting: false,
            asks: false,
            unsent: 0,
            corked: 0,
            fin_waits: false,
            window_closed: false,
            cwnd,
            mss_limit: u32::MAX,
            sacked_from: 0,
            rto,
            rto_base: rto,
            srtt_us,
            backoff: 0,
            timeouts: 0,
            tlp_out: None,
            probes_out: 0,
            err_soft: None,
            keepopen: false,
            throttled: false,
            retrans_out: false,
            fin_out: false,
            rtt: None,
            write_timer: None,
            keepalive_timer: None,
            delack_timer: None,
            delack_draws: None,
            stamps: Stamps::default(),
        }
    }

    /// A socket that has not connected yet.
    pub(crate) fn unconnected(cfg: &Kernel) -> Self {
        // `TCP_TIMEOUT_INIT`.
        Self { state: State::SynSent, ..Self::settled(cfg.hz.get().into(), 0, 1) }
    }

    /// When a timer fires, jiffies.
    pub(crate) fn fires(&self, timer: Timer) -> Option<u64> {
        self.armed(timer).map(|armed| armed.fires)
    }

    pub(crate) fn armed(&self, timer: Timer) -> Option<Armed> {
        match timer {
            Timer::Write => self.write_timer.map(|(_, armed)| armed),
            Timer::Keepalive => self.keepalive_timer,
            Timer::DelayedAck => self.delack_timer,
        }
    }

    /// The timer that fires first. Of those that fire at the same jiffy, the write timer: what
    /// keepalive does depends on whether something is out, which that does not change.
    pub(crate) fn next_timer(&self) -> Option<(u64, Timer)> {
        let all = [Timer::DelayedAck, Timer::Write, Timer::Keepalive];
        let fires = all.into_iter().filter_map(|timer| Some((self.fires(timer)?, timer)));
        fires.min_by_key(|(at, _)| *at)
    }

    /// Whether a moment's handler looks at the stamps, and what it makes of them: sockets with the
    /// same answer go the same way.
    pub(crate) fn by_stamps(&self, event: Decides, cfg: &Kernel, now_ns: u64) -> [u64; 3] {
        let jiffy = now_ns / cfg.hz.tick_ns();
        match event {
            Decides::Expiry(Timer::Write) => match self.write_timer {
                Some((Pending::Retransmission, _)) => self.retransmission_by_stamps(cfg, now_ns),
                Some((Pending::WindowProbe, _)) => self.window_probe_by_stamps(cfg, jiffy),
                Some((Pending::LossProbe | Pending::Reordering, _)) | None => [0; 3],
            },
            Decides::Expiry(Timer::Keepalive) => self.keepalive_by_stamps(cfg, jiffy),
            Decides::Expiry(Timer::DelayedAck) | Decides::Nothing => [0; 3],
            Decides::Arrival => {
                [self.stamps.expires, self.stamps.probes_tstamp.map_or(0, |at| at + 1), 0]
            }
            Decides::Icmp if !matches!(self.write_timer, Some((Pending::WindowProbe, _))) => {
                let [timed_out, timeout, sooner] = self.retransmission_by_stamps(cfg, now_ns);
                [self.stamps.expires * 4 + timed_out, timeout, sooner]
            }
            Decides::Icmp | Decides::Anything => [
                self.stamps.expires,
                self.stamps.retrans_stamp.map_or(0, |at| at + 1),
                self.stamps.probes_tstamp.map_or(0, |at| at + 1),
            ],
        }
    }

    /// When a timer's handler gives up at the earliest, nanoseconds, where only time decides and one
    /// expiry is like the other until then.
    pub(crate) fn gives_up_at(&self, timer: Timer, cfg: &Kernel, now_ns: u64) -> Option<u64> {
        match (timer, self.write_timer) {
            (Timer::Keepalive, _) => {
                let patience = cfg.hz.from_msecs(cfg.user_timeout_ms?);
                Some((self.stamps.rcv_tstamp + patience) * cfg.hz.tick_ns())
            }
            (Timer::Write, Some((Pending::Retransmission, armed))) => {
                let alike =
                    self.rto == cfg.rto_max && armed.timeout == self.rto && !self.may_shrink(cfg);
                let lingers_ns = self.orphaned_ns.filter(|at_ns| *at_ns > now_ns);
                let over_ns = self.over_ns(cfg, now_ns).filter(|_| alike)?;
                Some(over_ns.min(lingers_ns.unwrap_or(u64::MAX)))
            }
            _ => None,
        }
    }

    /// Goes on by so many expiries of a timer, and so many jiffies; says for how long it is armed.
    pub(crate) fn skip(&mut self, timer: Timer, count: u32, jiffies: u64) -> u64 {
        let armed = match timer {
            Timer::Keepalive => {
                self.probes_out = self.probes_out.saturating_add(count);
                self.keepalive_timer.as_mut()
            }
            Timer::Write | Timer::DelayedAck => {
                self.timeouts = self.timeouts.saturating_add(count);
                self.write_timer.as_mut().map(|(_, armed)| armed)
            }
        };
        armed.map_or(0, |armed| {
            armed.fires += jiffies;
            armed.timeout
        })
    }

    /// Forgets when segments were sent, where none is ever acknowledged and no other will be: only the
    /// first one's tells how long until its timeout, and what an ICMP error leaves of that.
    pub(crate) fn forget_sent(&mut self, icmp: Option<Icmp>) {
        let first = usize::from(self.timeouts == 0 || icmp.is_some_and(|icmp| icmp.reverts));
        self.queue.iter_mut().skip(first).for_each(|segment| segment.sent_ns = 0);
    }

    /// Whether a FIN would wait behind what was sent again, for a congestion window of one.
    pub(crate) fn holds_fin_back(&self) -> bool {
        self.timeouts > 0 && self.retrans_out
    }

    /// Forgets how long round trips took, where nothing is out or waits, and nothing else will be sent that is.
    pub(crate) fn forget_estimates(&mut self) {
        if !self.is_sending() && !self.waiting && !self.fin_waits && !self.window_closed {
            (self.rto, self.rto_base, self.srtt_us, self.rtt) = (1, 1, 1, None);
        }
    }

    /// Puts all its moments off, but for those that it has forgotten.
    pub(crate) fn put_off(&mut self, jiffies: u64, by_ns: u64) {
        let sent = self
            .queue
            .iter_mut()
            .flat_map(|segment| [&mut segment.sent_ns, &mut segment.first_sent_ns]);
        let moments = self.orphaned_ns.iter_mut().chain(sent);
        moments.filter(|at_ns| **at_ns > 0).for_each(|at_ns| *at_ns += by_ns);
        let write = self.write_timer.as_mut().map(|(_, armed)| armed);
        let others = self.keepalive_timer.iter_mut().chain(&mut self.delack_timer);
        write.into_iter().chain(others).for_each(|armed| armed.fires += jiffies);
    }

    /// A timer fires.
    pub(crate) fn expired(&mut self, step: &mut Step<'_>, timer: Timer) -> Progress {
        match timer {
            Timer::Write => self.tcp_write_timer(step),
            Timer::Keepalive => self.tcp_keepalive_timer(step),
            Timer::DelayedAck => {
                self.delack_timer = None;
                self.tcp_delack_timer(step);
                Ok(())
            }
        }
    }

    /// `tcp_write_timer_handler`.
    pub(crate) fn tcp_write_timer(&mut self, step: &mut Step<'_>) -> Progress {
        match self.write_timer.take() {
            Some((Pending::LossProbe, _)) => self.tcp_send_loss_probe(step),
            Some((Pending::Retransmission, _)) => self.tcp_retransmit_timer(step),
            Some((Pending::WindowProbe, _)) => self.tcp_probe_timer(step),
            Some((Pending::Reordering, _)) => self.tcp_rack_reo_timeout(step),
            None => Ok(()),
        }
    }

    /// `tcp_delack_timer_handler`: the acknowledgement of the last data received.
    fn tcp_delack_timer(&mut self, step: &mut Step<'_>) {
        let number = self.next_number();
        step.world.send(step.cfg, Sent::Ack, number, step.now_ns, step.context);
        if self.delack_draws.is_some() && !step.world.is_reached(step.now_ns) {
            self.err_soft = self.delack_draws;
        }
    }

    pub(crate) fn next_number(&self) -> Number {
        self.first + self.queue.len()
    }

    /// `packets_out`.
    pub(crate) fn packets_out(&self) -> usize {
        self.queue.iter().filter(|segment| !segment.merged).count()
    }

    /// A segment with all that was gathered into it.
    pub(crate) fn packet(&self, number: Number) -> Packet {
        let [head, rest @ ..] = &self.queue[number - self.first..] else {
            return Packet::default();
        };
        let merged = rest.iter().take_while(|segment| segment.merged);
        let has = |carries| {
            let merged = merged.clone().any(|segment| segment.carries == carries);
            head.carries == carries || merged
        };
        Packet {
            first: number,
            next: number + 1 + merged.clone().count(),
            bytes: head.bytes.min(self.mss_limit),
            syn: head.carries == Carries::Syn,
            fin: has(Carries::Fin),
            asks: has(Carries::Request),
        }
    }

    /// `inet_csk_reset_xmit_timer`. A timer that is pending for the same jiffy stays in its slot
    /// (`__mod_timer`).
    pub(crate) fn reset_xmit_timer(&mut self, step: &mut Step<'_>, what: Pending, timeout: u64) {
        let timeout = timeout.min(step.cfg.rto_max);
        let now = step.jiffy();
        let expires = now + timeout;
        let stays = self
            .write_timer
            .map(|(_, armed)| armed.fires)
            .filter(|fires| *fires > now && self.stamps.expires == expires);
        let fires =
            stays.unwrap_or_else(|| step.cfg.wheel.fires_at(now, timeout, step.wheel_context()));
        self.write_timer = Some((what, Armed { fires, timeout }));
        // Only a call in the same jiffy can ask for the same time as a window probe's timer, and
        // nothing can for a timeout without answers.
        let forgets = match what {
            Pending::WindowProbe => fires == step.cfg.wheel.fires_at(now, timeout, Context::Call),
            // An ICMP error asks for less than the RTO, unless that is the longest.
            Pending::Retransmission => {
                let doubles = timeout == self.rto && self.rto < step.cfg.rto_max;
                self.timeouts > 0 && (doubles || step.world.is_silent())
            }
            Pending::LossProbe | Pending::Reordering => false,
        };
        self.stamp(step, Stamp::Expires(if forgets { 0 } else { expires }));
        step.world.hop_armed_last = false;
        step.armed(Timer::Write, timeout, None);
    }

    /// Notes a moment that will be compared with later ones.
    pub(crate) fn stamp(&mut self, step: &mut Step<'_>, stamp: Stamp) {
        stamp.set(&mut self.stamps);
        step.effects.stamped.push(stamp);
    }

    /// A segment arrives: keepalive counts from then.
    pub(crate) fn received(&mut self, step: &mut Step<'_>) {
        if self.keepopen {
            self.stamp(step, Stamp::Received(step.jiffy()));
        }
    }

    /// `tcp_transmit_skb`, of one segment of the queue.
    pub(crate) fn transmit(&mut self, step: &mut Step<'_>, number: Number) -> Fate {
        let sent = Sent::Segment(self.packet(number));
        let context = step.wheel_context();
        let fate = step.world.send(step.cfg, sent, number, step.now_ns, context);
        // `skb_still_in_host_queue`.
        self.throttled |= fate == Fate::Busy;
        fate
    }

    /// A segment was sent again.
    pub(crate) fn stamp_sent(&mut self, step: &mut Step<'_>, number: Number, fate: Fate) {
        let segment = &mut self.queue[number - self.first];
        segment.sent_ns = step.now_ns;
        // Only round trips ask for it.
        segment.resent = self.rtt.is_some();
        let seen = !step.world.unseen && matches!(fate, Fate::OnWire | Fate::Answered);
        step.effects.resent += u32::from(seen);
    }

    /// What comes back at once.
    pub(crate) fn after_sending(
        &mut self,
        step: &mut Step<'_>,
        number: Number,
        fate: Fate,
    ) -> Progress {
        if fate == Fate::Answered { self.icmp(step, number) } else { Ok(()) }
    }

    /// `tcp_write_err`.
    pub(crate) fn write_err(&mut self, step: &mut Step<'_>) -> Progress {
        step.log(StepKind::GiveUp);
        let outcome = if self.closed {
            Outcome::Released
        } else {
            Outcome::Errno(self.err_soft.unwrap_or(Errno::ETIMEDOUT))
        };
        step.told(outcome)
    }

    /// `tcp_reset`.
    pub(crate) fn reset(&self, step: &mut Step<'_>) -> Progress {
        let outcome = match self.state {
            _ if self.closed => Outcome::Released,
            State::SynSent => Outcome::Errno(Errno::ECONNREFUSED),
            _ => Outcome::Errno(Errno::ECONNRESET),
        };
        step.told(outcome)
    }
}

/// What happens, as far as stamps may decide about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decides {
    /// A timer fires.
    Expiry(Timer),
    /// An answer to a probe arrives.
    Arrival,
    /// An ICMP error about what is outstanding.
    Icmp,
    /// A call, an acknowledgement.
    Anything,
    /// A question of the next hop, which the socket knows nothing of.
    Nothing,
}

/// The run is over.
pub(crate) fn ended() -> Progress {
    Err(Ended)
}
