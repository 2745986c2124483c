//! The write timer of a connection whose data nobody acknowledges: tail loss probe, retransmissions
//! on timeout, and the end.
//!
//! A [`Sender`] goes through the life of `icsk_retransmit_timer` event by event, as
//! net/ipv4/tcp_timer.c (`tcp_write_timer_handler`, `tcp_retransmit_timer`, `tcp_write_timeout`,
//! `retransmits_timed_out`, `tcp_clamp_rto_to_user_timeout`) and net/ipv4/tcp_output.c
//! (`tcp_schedule_loss_probe`, `tcp_send_loss_probe`, `tcp_event_new_data_sent`) have it, from one
//! phase of the clock.

use super::course::{Beat, Course};
use super::slip::Slip;
use crate::hop::{Fate, Hop, Number};
use crate::kernel::Kernel;
use crate::prediction::StepKind;
use crate::purpose::{self, Farewell, Moment, Purpose};
use crate::rto;
use crate::scene::{BEATS_MOST, Healed, Scene};
use crate::wheel::Context;
use crate::world::{Answer, WayBack};
use spec::{Errno, Outcome};

/// Clocks of two timers that fire on their jiffies may be this much apart from it: a comparison of
/// two times nearer than this can go either way.
pub(crate) const JITTER_NS: u64 = 300_000;
/// `retrans_time` of a neighbour entry, the default: from one question to the next.
const NEIGHBOUR_TIMER_NS: u64 = 1_000_000_000;
/// `TCP_THIN_LINEAR_RETRIES` (include/net/tcp.h).
const THIN_LINEAR_RETRIES: u32 = 6;

/// So often the rate limit is looked at from both sides: each time takes another timer that runs late
/// just then, and doubles the courses.
const FORKS_MOST: u32 = 6;

/// Which event the write timer waits for: `icsk_pending`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pending {
    LossProbe,
    Retransmission,
}

#[derive(Debug, Clone)]
pub(crate) struct Sender<'a> {
    kernel: &'a Kernel,
    scene: &'a Scene,
    hop: Hop,
    tick_ns: u64,
    start_ns: u64,
    now_ns: u64,
    context: Context,
    /// When each outstanding segment was last sent: `skb_mstamp_ns`.
    sent_ns: Vec<u64>,
    /// How many writes each outstanding segment holds.
    writes_in: Vec<usize>,
    /// Whether there is new data that is not sent yet: the congestion window holds it back, or the
    /// kernel corks it.
    waiting: bool,
    /// How many writes are corked.
    corked: usize,
    /// `TSQ_THROTTLED`: something waits for the host's own queue.
    throttled: bool,
    /// Whether the first segment was really sent again since the last timeout: `retrans_out`.
    resent_since: bool,
    next_write_ns: Option<u64>,
    /// How many more writes there are after that.
    writes_left: usize,
    pending: Pending,
    /// `timer->expires`, and the jiffy of its slot.
    expires: u64,
    fires: u64,
    /// The timeout that is being waited for, jiffies.
    timeout: u64,
    /// `tlp_high_seq`: a tail loss probe is out.
    probed: bool,
    /// Timeouts so far: `icsk_retransmits`, which is these modulo 256.
    timeouts: u32,
    /// `icsk_backoff`.
    backoff: u32,
    rto: u64,
    /// `retrans_stamp`.
    first_retransmission_ns: Option<u64>,
    /// `sk_err_soft`.
    soft_error: Option<Errno>,
    resent: u32,
    /// When the pending timer is due by the textbook, nanoseconds after the first write.
    nominal_ns: u64,
    /// By how much late timers may have put off the pending one, and the one that fired last.
    slip: Slip,
    slipped: Slip,
    /// The same for the hop's timer.
    hop_slip: Slip,
    /// How late the first segment out may have been sent.
    sent_late: Slip,
    /// How late the handler of the timer that fired last may have run.
    late: Slip,
    /// How late the first retransmission on timeout may have been stamped, from which patience counts;
    /// and by how many jiffies the pending timer comes later where that was a jiffy late, and all
    /// others on their jiffies.
    first_late: Slip,
    first_carries: u64,
    /// How often a course has parted from this one by the rate limit.
    forks: u32,
    /// Whether a write has come before a timer that was due, and ran late.
    overtaken: bool,
    /// The slots of all timers that were armed, the hop's and the server's too, jiffies.
    slots: u64,
    beats: Vec<Beat>,
    done: Vec<Course>,
    /// The longest timer that fired, jiffies.
    longest: u64,
    hop_first: bool,
    /// Whether the hop's timer fired last, not the write timer.
    hops_turn: bool,
    /// Whether the hop's timer was armed after the write timer.
    hop_armed_last: bool,
    /// When an answer comes that is on its way, and when the segment was sent that it echoes.
    answer: Option<(u64, u64)>,
    /// When the segments were sent that wait at the hop.
    waiting_ns: Vec<u64>,
    /// When a link-layer address comes that was asked for.
    resolved_ns: Option<u64>,
    /// By how much sooner the end may come, where an answer makes it.
    sooner_ns: u64,
}

/// The course has come to its end.
struct Ended;

type Progress = Result<(), Ended>;

impl<'a> Sender<'a> {
    pub(crate) fn new(
        kernel: &'a Kernel,
        scene: &'a Scene,
        hop: Hop,
        start_ns: u64,
        late_ns: u64,
        hop_first: bool,
    ) -> Self {
        let tick_ns = kernel.hz.tick_ns();
        Self {
            kernel,
            scene,
            hop,
            tick_ns,
            start_ns,
            now_ns: start_ns,
            context: Context::Call,
            sent_ns: Vec::new(),
            writes_in: Vec::new(),
            waiting: false,
            corked: 0,
            throttled: false,
            resent_since: false,
            next_write_ns: scene
                .write_interval_ns
                .map(|interval| start_ns.saturating_add(interval).saturating_add(late_ns)),
            writes_left: scene.writes_most.saturating_sub(2),
            pending: Pending::Retransmission,
            expires: 0,
            fires: 0,
            timeout: 0,
            probed: false,
            timeouts: 0,
            backoff: 0,
            rto: scene.rto,
            // `tcp_connect` stamps the SYN itself.
            first_retransmission_ns: scene.purpose.is_syn().then_some(start_ns),
            soft_error: None,
            resent: 0,
            nominal_ns: 0,
            slip: Slip::none(),
            slipped: Slip::none(),
            hop_slip: Slip::none(),
            sent_late: Slip::none(),
            late: Slip::none(),
            forks: 0,
            overtaken: false,
            first_late: Slip::none(),
            first_carries: 0,
            slots: 0,
            beats: Vec::new(),
            done: Vec::new(),
            longest: scene.other_timers(kernel),
            hop_first,
            hops_turn: false,
            hop_armed_last: false,
            answer: None,
            waiting_ns: Vec::new(),
            resolved_ns: None,
            sooner_ns: 0,
        }
    }

    /// Goes on to the end. More than one course where the clocks' jitter decides.
    /// With the longest timer that fired, jiffies.
    pub(crate) fn run(mut self) -> (Vec<Course>, u64) {
        let written = self.write();
        self.go_on(written);
        (self.done, self.longest)
    }

    /// Goes on to the end, if this is not it.
    fn go_on(&mut self, mut progress: Progress) {
        while progress.is_ok() {
            progress = self.step();
        }
    }

    /// Takes over what another has come to that parted from this one.
    fn adopt(&mut self, other: Self) {
        self.done = other.done;
        self.longest = self.longest.max(other.longest);
    }

    /// Another gives up, and this one goes on.
    fn part_with(&mut self, mut other: Self) {
        // It has its end.
        let _ = other.give_up();
        self.adopt(other);
    }

    /// The next event: a write, the hop's timer, or the write timer.
    fn step(&mut self) -> Progress {
        let timer = self.hop.fires().map_or(self.fires, |hop| hop.min(self.fires));
        let timer_ns = timer * self.tick_ns;
        if let Some(at_ns) = self.next_write_ns.filter(|at_ns| *at_ns < timer_ns) {
            return self.write_next(at_ns);
        }
        if let Some(at_ns) = self.next_write_ns
            && at_ns < timer_ns + self.kernel.late_ns()
            && self.probes_anew()
            && !self.overtaken
        {
            // Where the timer runs late, the program writes before it. Not more than once: each time
            // takes another timer that runs as late as that.
            let mut other = Self { overtaken: true, ..self.clone() };
            let written = other.write_next(at_ns);
            other.go_on(written);
            self.adopt(other);
        }
        // What comes at a timer's jiffy comes after it: the softirq of timers is the first.
        if let Some(at_ns) = self.resolved_ns.filter(|at_ns| *at_ns < timer_ns) {
            self.resolved_ns = None;
            self.hop.resolve(at_ns / self.tick_ns);
            return Ok(());
        }
        if let Some((at_ns, echoed_ns)) = self.answer.filter(|(at_ns, _)| *at_ns < timer_ns) {
            self.now_ns = at_ns;
            return self.end_answered(echoed_ns);
        }
        let sooner_ns = 3 * self.scene.healed.map_or(0, |healed| healed.sooner_ns);
        if let Some((at_ns, echoed_ns)) = self.answer
            && at_ns.saturating_sub(sooner_ns) < timer_ns + self.kernel.late_ns()
        {
            // The answer may come before this timer, too.
            let mut other = self.clone();
            other.now_ns = at_ns;
            let _ = other.end_answered(echoed_ns);
            self.adopt(other);
        }
        self.now_ns = timer_ns;
        if let Some((at_ns, kernel)) = &self.scene.later
            && self.since_start_ns() >= *at_ns
        {
            self.kernel = kernel;
        }
        self.context = Context::Handler;
        let slip = if self.is_hops_turn(timer) { &self.hop_slip } else { &self.slip };
        self.slipped = slip.clone();
        self.late = self.kernel.late(&self.slipped);
        self.part_by_rate_limit();
        self.timer(timer)
    }

    /// The program's next write.
    fn write_next(&mut self, at_ns: u64) -> Progress {
        self.now_ns = at_ns;
        self.context = Context::Call;
        self.next_write_ns = self
            .scene
            .write_interval_ns
            .filter(|_| self.writes_left > 0)
            .map(|interval| at_ns.saturating_add(interval));
        self.writes_left = self.writes_left.saturating_sub(1);
        self.write()
    }

    /// Whether a write would have the tail loss probe wait anew.
    fn probes_anew(&self) -> bool {
        let sends = self.timeouts == 0 && self.sent_ns.len() < self.scene.cwnd.max(1);
        sends
            && self.kernel.tail_loss_probe
            && !self.scene.purpose.is_syn()
            && self.hop.held().is_empty()
    }

    /// A timer fires at jiffy `timer`, which is now: the hop's, or the write timer.
    fn timer(&mut self, timer: u64) -> Progress {
        self.hops_turn = self.is_hops_turn(timer);
        if self.hops_turn {
            return self.hop_fires(timer);
        }
        self.write_timer()?;
        if self.beats.len() > BEATS_MOST {
            self.skip_equal_timeouts();
        }
        Ok(())
    }

    fn is_hops_turn(&self, timer: u64) -> bool {
        timer != self.fires || (self.is_hop_first() && self.hop.fires() == Some(timer))
    }

    /// `tcp_write_timer_handler`.
    fn write_timer(&mut self) -> Progress {
        self.longest = self.longest.max(self.timeout);
        match self.pending {
            Pending::LossProbe => self.loss_probe(),
            Pending::Retransmission => self.retransmission_timer(),
        }
    }

    /// Which of two timers in the same slot comes first. A slot is a list to whose head timers are
    /// added (`enqueue_timer`, kernel/time/timer.c): the later armed. A SYN's timer and the
    /// neighbour's are armed by the same CPU, and for the same time as long as the RTO has not
    /// doubled; coarser slots come first (`__run_timers`).
    fn is_hop_first(&self) -> bool {
        if !self.scene.purpose.is_syn() {
            return self.hop_first;
        }
        let slot = |timeout| self.kernel.wheel.slot(timeout);
        let (own, hops) = (slot(self.timeout), slot(self.kernel.hz.get().into()));
        own < hops || (own == hops && self.hop_armed_last)
    }

    fn jiffy(&self) -> u64 {
        self.now_ns / self.tick_ns
    }

    fn send(&mut self, number: Number) -> Fate {
        let armed = self.hop.fires();
        let fate = self.hop.send(self.kernel, number, self.jiffy(), self.context);
        // `skb_still_in_host_queue`.
        self.throttled |= fate == Fate::Busy;
        if self.hop.fires() != armed {
            self.hop_armed_last = true;
            self.put_off_hop();
        }
        if self.hop.is_asking() && fate != Fate::Busy {
            self.waiting_ns.push(self.now_ns);
        }
        fate
    }

    /// `tcp_write_xmit`: a segment of its own for each write, if the congestion window lets it.
    fn write(&mut self) -> Progress {
        if self.timeouts > 0 || self.sent_ns.len() >= self.scene.cwnd.max(1) {
            // What is held back stays back: nothing is acknowledged.
            self.waiting = true;
            self.next_write_ns = None;
            return Ok(());
        }
        self.corked += 1;
        if self.is_corked() {
            self.waiting = true;
            self.throttled = true;
            return Ok(());
        }
        let number = self.send_new();
        let fate = self.send(number);
        if number == 0 {
            self.arm(Pending::Retransmission, self.rto);
        } else if self.pending == Pending::LossProbe {
            self.rearm_rest();
        }
        self.schedule_loss_probe();
        self.after_sending(number, fate)
    }

    /// Takes what was written into a segment of its own.
    fn send_new(&mut self) -> Number {
        self.waiting = false;
        self.sent_ns.push(self.now_ns);
        self.writes_in.push(std::mem::take(&mut self.corked).max(1));
        self.sent_ns.len() - 1
    }

    /// `tcp_should_autocork` (net/ipv4/tcp.c): what is written waits for more as long as segments
    /// that wait in the host's own queue take more memory (`sk_wmem_alloc`).
    fn is_corked(&self) -> bool {
        let held = |number: &Number| self.writes_in.get(*number).copied().unwrap_or(1);
        self.kernel.autocorks
            && match self.hop.held() {
                [] => false,
                [one] => held(one) >= self.corked,
                _ => true,
            }
    }

    /// `tcp_schedule_loss_probe`, not after an acknowledgement.
    fn schedule_loss_probe(&mut self) {
        if !self.kernel.tail_loss_probe || self.timeouts > 0 || self.scene.purpose.is_syn() {
            return;
        }
        let mut timeout = rto::probe_timeout(self.kernel, self.scene.srtt_us, self.sent_ns.len());
        let rest_us = self.rto_rest_us();
        if rest_us > 0 {
            timeout = timeout.min(self.kernel.hz.from_usecs(rest_us.unsigned_abs()));
        }
        self.arm(Pending::LossProbe, timeout);
    }

    /// `tcp_send_loss_probe`: new data if there is any, else the last segment again; one a tail.
    fn loss_probe(&mut self) -> Progress {
        let fate_and_number = if self.probed {
            None
        } else if self.waiting {
            let number = self.send_new();
            Some((self.send(number), number))
        } else {
            let number = self.sent_ns.len() - 1;
            match self.send(number) {
                Fate::Busy => None,
                fate => {
                    self.stamp(number);
                    self.count(fate);
                    Some((fate, number))
                }
            }
        };
        let Some((fate, number)) = fate_and_number else {
            self.rearm_rest();
            return Ok(());
        };
        self.beat(StepKind::TailLossProbe);
        self.hold(fate);
        self.probed = true;
        self.arm(Pending::Retransmission, self.rto);
        self.after_sending(number, fate)
    }

    /// `tcp_retransmit_timer`.
    fn retransmission_timer(&mut self) -> Progress {
        match self.timed_out() {
            Verdict::No => self.part_by_patience(),
            Verdict::Yes => {
                let Some(first_ns) = self.first_later() else { return self.give_up() };
                self.part_with(self.clone());
                self.first_retransmission_ns = Some(first_ns);
            }
            Verdict::Either => self.part_with(self.clone()),
        }
        self.beat(self.scene.purpose.step());
        self.timeouts += 1;
        let fate = self.send_again();
        self.hold(fate);
        if self.first_retransmission_ns.is_none() {
            // The time stamp of the segment, which is an old one if it could not be sent.
            self.first_retransmission_ns = Some(self.sent_ns[0]);
            self.first_late = self.sent_late.clone();
            self.first_carries = u64::from(self.first_late.most() > 0);
        }
        // `tcp_stream_is_thin`: fewer than four segments out, now that small ones were gathered.
        let thin = self.kernel.thin_linear_timeouts
            && self.sent_ns.len().div_ceil(self.kernel.writes_a_segment) < 4
            && self.counted() <= THIN_LINEAR_RETRIES;
        if thin {
            self.backoff = 0;
            self.rto = self.scene.rto.max(self.kernel.rto_min).min(self.kernel.rto_max);
        } else if !self.scene.purpose.is_linear(self.kernel, self.timeouts) {
            self.backoff += 1;
            self.rto = (self.rto * 2).min(self.kernel.rto_max);
        }
        let (timeout, sooner) = self.clamp_to_user_timeout();
        if sooner != timeout {
            let mut other = self.clone();
            other.arm_clamped(sooner);
            let sent = other.after_sending(0, fate);
            other.go_on(sent);
            self.adopt(other);
        }
        self.arm_clamped(timeout);
        self.after_sending(0, fate)
    }

    /// However late the handler runs, what is left of the user timeout ends at the same jiffy; but it
    /// counts from the first retransmission.
    fn arm_clamped(&mut self, timeout: u64) {
        self.arm(Pending::Retransmission, timeout);
        let Some(patience_ms) = self.kernel.user_timeout_ms else { return };
        let (now, wheel) = (self.jiffy(), self.kernel.wheel);
        let slot = wheel.slot(timeout.saturating_sub(1));
        let rest = if timeout < self.rto { timeout } else { self.rest_of(patience_ms) };
        if rest >= self.rto + self.late.most() {
            return;
        }
        let fires = |late: u64, rest: u64| {
            wheel.fires_at(now + late, self.rto.min(rest.max(1)), Context::Handler)
        };
        self.slip = Slip::of_cut((&self.late, &self.first_late), rest, slot, fires);
    }

    /// What is left of the user timeout, jiffies.
    fn rest_of(&self, patience_ms: u64) -> u64 {
        let first_ns = self.first_retransmission_ns.unwrap_or(self.now_ns);
        let elapsed_ms = self.now_ns.saturating_sub(first_ns) / 1_000_000;
        self.kernel.hz.from_msecs(patience_ms.saturating_sub(elapsed_ms))
    }

    /// `tcp_retransmit_skb`, of the first segment.
    fn send_again(&mut self) -> Fate {
        let fate = self.send(0);
        self.resent_since = fate != Fate::Busy;
        if self.resent_since {
            self.stamp(0);
            self.count(fate);
        }
        fate
    }

    /// What comes back at once.
    fn after_sending(&mut self, number: Number, fate: Fate) -> Progress {
        let by_asking_only = self.scene.healed.is_some_and(|healed| healed.moved);
        if self.hop.passes(fate, by_asking_only) {
            self.answered();
        }
        if fate == Fate::Answered { self.icmp(number) } else { Ok(()) }
    }

    /// The timer of the neighbour entry: an answer to its question, or the end of its patience.
    fn hop_fires(&mut self, now: u64) -> Progress {
        if self.hop.asks_again() {
            self.answered();
        }
        let failed = self.hop.fire(self.kernel, now);
        self.put_off_hop();
        self.slots += self.kernel.wheel.slot(self.kernel.hz.get().into());
        self.hop_armed_last = true;
        if !failed.is_empty() {
            self.waiting_ns.clear();
        }
        let freed = self.hop.is_local() && !failed.is_empty();
        if !failed.is_empty() && self.fires == now {
            // What failure leads to comes by softirqs that follow the one of timers.
            self.write_timer()?;
        }
        for number in failed {
            self.icmp(number)?;
        }
        if freed { self.queue_is_free() } else { Ok(()) }
    }

    /// `tcp_wfree` and `tcp_tsq_write` (net/ipv4/tcp_output.c), after the ICMP errors: what the
    /// host's own queue held is thrown away, and a segment that a timeout could not send again for
    /// that is sent now. The timer begins anew, with the RTO as it is
    /// (`tcp_xmit_retransmit_queue`).
    fn queue_is_free(&mut self) -> Progress {
        let throttled = std::mem::take(&mut self.throttled);
        if !throttled || self.timeouts == 0 || self.resent_since || self.scene.purpose.is_syn() {
            return Ok(());
        }
        if self.scene.writes_most > 2 {
            // The program wrote on. Whether that was sent by now, and fills the congestion window of
            // one, is up to the memory that segments take (`tcp_should_autocork`), which differs
            // between kernels.
            let mut other = self.clone();
            other.go_on(Ok(()));
            self.adopt(other);
        }
        let fate = self.send_again();
        self.arm(Pending::Retransmission, self.rto);
        self.after_sending(0, fate)
    }

    /// `tcp_v4_err`, `tcp_v6_err`: first the backoff (`tcp_ld_RTO_revert`), then the error.
    fn icmp(&mut self, number: Number) -> Progress {
        let Some(icmp) = self.hop.icmp() else { return Ok(()) };
        if icmp.reverts && number == 0 && self.counted() > 0 && self.backoff > 0 {
            let base = self.scene.rto;
            self.backoff -= 1;
            self.rto = base
                .checked_shl(self.backoff)
                .map_or(self.kernel.rto_max, |rto| rto.min(self.kernel.rto_max));
            let since_us =
                (self.now_ns + self.scene.icmp_ns).saturating_sub(self.sent_ns[0]) / 1_000;
            let since = self.kernel.hz.from_usecs(since_us);
            match self.rto.checked_sub(since) {
                Some(rest @ 1..) => self.arm_rest(rest),
                _ => self.retransmission_timer()?,
            }
        }
        // An ICMP error ends an attempt to connect, but not one that comes back while `connect`
        // itself holds the socket (`sock_owned_by_user`), as it does from next door.
        if self.scene.purpose.is_syn() && self.context == Context::Handler {
            return self.end(Outcome::Errno(icmp.error), self.since_start_ns());
        }
        self.soft_error = Some(icmp.error);
        Ok(())
    }

    /// `icsk_retransmits` (include/net/inet_connection_sock.h), eight bits: after 256 timeouts the
    /// kernel takes the next for the first. It neither gives up then nor takes a doubling back.
    fn counted(&self) -> u32 {
        self.timeouts & 0xff
    }

    /// `retransmits_timed_out`, at a retransmission timeout.
    fn timed_out(&self) -> Verdict {
        self.first_retransmission_ns.map_or(Verdict::No, |first_ns| self.timed_out_since(first_ns))
    }

    /// The same, if the first retransmission was stamped then.
    fn timed_out_since(&self, first_ns: u64) -> Verdict {
        if self.counted() == 0 {
            return Verdict::No;
        }
        if self.timeouts >= self.scene.purpose.timeouts_most(self.kernel) {
            return Verdict::Yes;
        }
        let passed_ns = self.now_ns.saturating_sub(first_ns);
        let patience_ns = self.patience_ms().saturating_mul(1_000_000);
        // Both time stamps are cut to whole milliseconds (`tcp_time_stamp_ts`) before they are
        // subtracted. Where ticks fall on milliseconds, as at HZ 100, 250 and 1000, and both are
        // a timer's, nothing is lost by that.
        if self.tick_ns.is_multiple_of(1_000_000) && first_ns.is_multiple_of(self.tick_ns) {
            return if passed_ns >= patience_ns { Verdict::Yes } else { Verdict::No };
        }
        // Otherwise the phase of the clock decides between one millisecond less than the patience
        // and the patience itself.
        if passed_ns >= patience_ns.saturating_add(JITTER_NS) {
            Verdict::Yes
        } else if passed_ns + 1_000_000 + JITTER_NS <= patience_ns {
            Verdict::No
        } else {
            Verdict::Either
        }
    }

    /// When the first retransmission was stamped if that was a jiffy late, if a slot has taken up what
    /// that put off, and this timeout then is not past the patience yet.
    fn first_later(&self) -> Option<u64> {
        let absorbed = self.first_carries == 0 && self.first_late.reaches(1).is_some();
        let first_ns = self.first_retransmission_ns.filter(|_| absorbed)? + self.tick_ns;
        (self.timed_out_since(first_ns) == Verdict::No).then_some(first_ns)
    }

    /// Where the timers since the first retransmission ran late, this timeout may be past the
    /// patience: a course of its own ends there. In this one they did not run as late as that.
    fn part_by_patience(&mut self) {
        let Some(first_ns) = self.first_retransmission_ns.filter(|_| self.counted() > 0) else {
            return;
        };
        let over_ns = first_ns.saturating_add(self.patience_ms().saturating_mul(1_000_000));
        let needed = over_ns.saturating_sub(self.now_ns).div_ceil(self.tick_ns);
        let before = self.first_late.most().saturating_sub(1).min(self.slipped.most());
        let Some(late) = self.late.beyond(before).reaches(needed).filter(|_| needed > 0) else {
            return;
        };
        let mut other = self.clone();
        other.now_ns += late * self.tick_ns;
        other.slipped = self.slipped.beyond(late);
        self.part_with(other);
        self.be_late_below(before + needed);
    }

    /// Where the timers before this one ran late, the hop's rate limit has more to give by now, and
    /// may let an ICMP error through that it would hold back: a course of its own. In this one they
    /// did not run as late as that.
    fn part_by_rate_limit(&mut self) {
        let Some(needed) = self.hop.early_for_limit(self.jiffy()) else { return };
        let Some(late) = self.late.reaches(needed).filter(|_| self.forks < FORKS_MOST) else {
            return;
        };
        self.forks += 1;
        let mut other = self.clone();
        other.fires += late;
        other.now_ns += late * self.tick_ns;
        (other.slipped, other.late) = (self.slipped.beyond(late), self.late.beyond(late));
        let fired = other.timer(other.fires);
        other.go_on(fired);
        self.adopt(other);
        self.be_late_below(needed);
    }

    fn be_late_below(&mut self, jiffies: u64) {
        self.late = self.late.below(jiffies);
        self.slipped = self.slipped.below(jiffies);
    }

    fn patience_ms(&self) -> u64 {
        let moment = Moment {
            rto: self.rto,
            warned: self.soft_error.is_some(),
            orphaned: self.orphaned_ns().is_some_and(|at_ns| self.now_ns > at_ns),
        };
        self.scene.purpose.patience_ms(self.kernel, moment)
    }

    /// When `close` returns, and the connection has no program any more. A timer of that very jiffy
    /// runs before the program does.
    fn orphaned_ns(&self) -> Option<u64> {
        match self.scene.purpose {
            Purpose::Fin(Farewell { lingers: 0, .. }) => Some(self.start_ns),
            Purpose::Fin(Farewell { lingers, .. }) => {
                let called = self.start_ns / self.tick_ns;
                Some(self.kernel.wheel.fires_at(called, lingers, Context::Call) * self.tick_ns)
            }
            _ => None,
        }
    }

    /// `tcp_clamp_rto_to_user_timeout`: the timeout, and the shortest that it may be instead. Both
    /// time stamps are cut to whole milliseconds before they are subtracted, and where ticks do not
    /// fall on milliseconds, as at HZ 300, that decides between two jiffies.
    fn clamp_to_user_timeout(&self) -> (u64, u64) {
        let Some(patience_ms) = self.kernel.user_timeout_ms else { return (self.rto, self.rto) };
        let first_ns = self.first_retransmission_ns.unwrap_or(self.now_ns);
        let (least_ms, most_ms) = if self.tick_ns.is_multiple_of(1_000_000) {
            let elapsed_ms = self.now_ns / 1_000_000 - first_ns / 1_000_000;
            (elapsed_ms, elapsed_ms)
        } else {
            let elapsed_ns = self.now_ns.saturating_sub(first_ns);
            let least_ms = elapsed_ns.saturating_sub(JITTER_NS) / 1_000_000;
            (least_ms, (elapsed_ns + JITTER_NS) / 1_000_000 + 1)
        };
        let timeout = |elapsed_ms| match patience_ms.saturating_sub(elapsed_ms) {
            0 => 1,
            remaining_ms => self.rto.min(self.kernel.hz.from_msecs(remaining_ms)),
        };
        (timeout(least_ms), timeout(most_ms))
    }

    /// `tcp_rto_delta_us`: how long until the first segment's RTO is over.
    fn rto_rest_us(&self) -> i64 {
        let first_ns = self.sent_ns.first().copied().unwrap_or(self.now_ns);
        let due_us = first_ns / 1_000 + self.kernel.hz.to_usecs(self.rto);
        due_us as i64 - (self.now_ns / 1_000) as i64
    }

    /// `tcp_rearm_rto` while a tail loss probe is pending.
    fn rearm_rest(&mut self) {
        let rest_us = self.rto_rest_us().max(1).unsigned_abs();
        self.arm_rest(self.kernel.hz.from_usecs(rest_us));
    }

    /// However late the handler runs, what is left of the first segment's RTO ends at the same jiffy;
    /// but it counts from when that was sent.
    fn arm_rest(&mut self, rest: u64) {
        self.arm(Pending::Retransmission, rest);
        self.slip = self.sent_late.arms(self.kernel.wheel, self.jiffy(), rest);
    }

    /// A segment was sent again.
    fn stamp(&mut self, number: Number) {
        self.sent_ns[number] = self.now_ns;
        if number == 0 {
            self.sent_late = self.late.clone();
        }
    }

    /// The hop's timer was armed, by the handler that runs or by the program's call.
    fn put_off_hop(&mut self) {
        self.hop_slip = match self.context {
            Context::Call => Slip::none(),
            Context::Handler => {
                self.late.arms(self.kernel.wheel, self.jiffy(), self.kernel.hz.get().into())
            }
        };
    }

    /// `inet_csk_reset_xmit_timer`. A timer that is pending for the same jiffy stays in its slot
    /// (`__mod_timer`).
    fn arm(&mut self, pending: Pending, timeout: u64) {
        self.hop_armed_last = false;
        let timeout = timeout.min(self.kernel.rto_max);
        self.slots += self.kernel.wheel.slot(timeout);
        let now = self.jiffy();
        if self.fires <= now || self.expires != now + timeout {
            self.fires = self.kernel.wheel.fires_at(now, timeout, self.context);
        }
        self.expires = now + timeout;
        self.pending = pending;
        self.timeout = timeout;
        let armed_ns = match self.context {
            Context::Call => self.since_start_ns(),
            Context::Handler => {
                self.slip = self.late.arms(self.kernel.wheel, now, timeout);
                let fires = |at| self.kernel.wheel.fires_at(at, timeout, Context::Handler);
                self.first_carries = fires(now + self.first_carries) - fires(now);
                self.nominal_ns
            }
        };
        self.nominal_ns = armed_ns + timeout * self.tick_ns;
    }

    /// From the longest RTO on, one timeout is like the other: goes to the last but a few.
    fn skip_equal_timeouts(&mut self) {
        let step_ns = (self.fires * self.tick_ns).saturating_sub(self.now_ns);
        let alone = matches!(self.hop, Hop::Silent) && self.rto == self.kernel.rto_max;
        if !alone || self.timeout != self.rto || step_ns == 0 {
            return;
        }
        let first_ns = self.first_retransmission_ns.unwrap_or(self.now_ns);
        let end_ns = first_ns.saturating_add(self.patience_ms().saturating_mul(1_000_000));
        // When a lingering program lets go, the patience changes.
        let end_ns = match self.orphaned_ns() {
            Some(at_ns) if at_ns > self.now_ns => end_ns.min(at_ns),
            _ => end_ns,
        };
        let healed_ns =
            self.scene.healed.map_or(u64::MAX, |healed| self.start_ns.saturating_add(healed.at_ns));
        let later_ns = self
            .scene
            .later
            .as_ref()
            .map(|(at_ns, _)| self.start_ns.saturating_add(*at_ns))
            .filter(|later_ns| *later_ns > self.now_ns)
            .unwrap_or(u64::MAX);
        let answer_ns = self.answer.map(|(at_ns, _)| at_ns);
        let next_ns = [Some(end_ns), Some(healed_ns), Some(later_ns), answer_ns];
        let next_ns = next_ns.into_iter().flatten().min().unwrap_or(end_ns);
        let left = self.scene.purpose.timeouts_most(self.kernel).saturating_sub(self.timeouts);
        let steps = next_ns.saturating_sub(self.now_ns) / step_ns;
        let steps = steps.min(left.into()).saturating_sub(3);
        let ahead = steps * (self.fires - self.jiffy());
        self.fires += ahead;
        self.expires += ahead;
        self.nominal_ns += steps * self.timeout * self.tick_ns;
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.timeouts = self.timeouts.saturating_add(steps);
        self.resent = self.resent.saturating_add(steps);
    }

    /// A segment is sent again; the tap sees it or not.
    fn count(&mut self, fate: Fate) {
        let seen = !self.scene.unseen && matches!(fate, Fate::OnWire | Fate::Answered);
        self.resent += u32::from(seen);
    }

    fn since_start_ns(&self) -> u64 {
        self.now_ns.saturating_sub(self.start_ns)
    }

    fn beat(&mut self, kind: StepKind) {
        if self.beats.len() <= BEATS_MOST || kind == StepKind::GiveUp {
            self.beats.push(Beat {
                kind,
                at_ns: self.since_start_ns(),
                nominal_ns: self.nominal_ns,
                timeout_ns: self.timeout * self.tick_ns,
                slip_ns: self.slipped.most() * self.tick_ns,
                held: false,
            });
        }
    }

    /// What the timer that has just fired sends may not leave the client's host.
    fn hold(&mut self, fate: Fate) {
        let now_ns = self.since_start_ns();
        let held = self.scene.unseen || matches!(fate, Fate::Held | Fate::Busy);
        if let Some(beat) = self.beats.last_mut().filter(|beat| beat.at_ns == now_ns) {
            beat.held = held;
        }
    }

    /// `tcp_write_err`.
    fn give_up(&mut self) -> Progress {
        self.beat(StepKind::GiveUp);
        self.end(self.scene.purpose.given_up(self.soft_error), self.since_start_ns())
    }

    /// The end of the course if what is sent now is answered.
    fn answered(&mut self) {
        let now_ns = self.since_start_ns();
        let Some(healed) = self.scene.healed.filter(|healed| now_ns >= healed.at_ns) else {
            return;
        };
        // The question for the server's link-layer address takes a round trip of its own, as does
        // the server's for the way back.
        let asks = self.hop.is_asking();
        let sent_ns = self.now_ns.saturating_add(if asks { healed.after_ns } else { 0 });
        let back_ns = match healed.back {
            WayBack::Asks if !asks => healed.after_ns,
            WayBack::AlwaysAsks => healed.after_ns,
            WayBack::AskedInVain => healed.after_ns.saturating_add(1_000_000_000),
            _ => 0,
        };
        self.resolved_ns.get_or_insert(sent_ns);
        let waiting_ns = std::mem::take(&mut self.waiting_ns);
        let holds_back = self.scene.purpose.acknowledged_after();
        let (at_ns, echoed_ns) = match (holds_back, healed.with, &waiting_ns[..]) {
            // A FIN that comes again is acknowledged at once (`tcp_data_queue`).
            (_, _, [_, second, ..]) => (sent_ns.saturating_add(healed.after_ns), *second),
            (Some(jiffies), Answer::Ack, _) if self.answer.is_none() => {
                let first_ns = waiting_ns.first().copied().unwrap_or(self.now_ns);
                (self.held_back(sent_ns, jiffies, healed), first_ns)
            }
            _ => (sent_ns.saturating_add(healed.after_ns), self.now_ns),
        };
        let at_ns = at_ns.saturating_add(back_ns);
        // The timers go on until the answer comes.
        let answer = (at_ns, echoed_ns);
        self.answer = Some(self.answer.map_or(answer, |other| other.min(answer)));
    }

    /// When the acknowledgement of a FIN comes that is sent at `sent_ns`: the server's kernel holds
    /// it back for a number of its own jiffies.
    fn held_back(&self, sent_ns: u64, jiffies: u64, healed: Healed) -> u64 {
        let arrives = sent_ns.saturating_add(healed.after_ns / 2) / self.tick_ns;
        let fires = self.kernel.wheel.fires_at(arrives, jiffies, Context::Call);
        (fires * self.tick_ns).saturating_add(healed.after_ns / 2)
    }

    /// The answer is here, to the segment that was sent at `echoed_ns`.
    fn end_answered(&mut self, echoed_ns: u64) -> Progress {
        let outcome = match (self.scene.healed.map(|healed| healed.with), self.scene.purpose) {
            (Some(Answer::Reset), purpose) => {
                // The question for an address, and the answer to the segment.
                self.sooner_ns = 2 * self.scene.healed.map_or(0, |healed| healed.sooner_ns);
                purpose.reset()
            }
            (_, Purpose::Fin(farewell)) => return self.fin_wait2(farewell, echoed_ns),
            _ => Outcome::None,
        };
        self.end(outcome, self.since_start_ns())
    }

    /// The settings in force at a jiffy that is yet to come.
    fn kernel_at(&self, jiffy: u64) -> &'a Kernel {
        match &self.scene.later {
            Some((at_ns, kernel)) if jiffy * self.tick_ns >= self.start_ns + at_ns => kernel,
            _ => self.kernel,
        }
    }

    /// The FIN is acknowledged, and the server says no more. A course for each jiffy that the
    /// acknowledgement may have come in and each RTO, where they end differently.
    fn fin_wait2(&mut self, farewell: Farewell, echoed_ns: u64) -> Progress {
        let late_ns = crate::allowance::late(self.kernel.hz).as_nanos() as u64;
        // At most three round trips: the question, the answer, and the server's own question.
        let sooner_ns = 3 * self.scene.healed.map_or(0, |healed| healed.sooner_ns);
        let first_ns = self.now_ns.saturating_sub(sooner_ns).max(self.start_ns);
        let jiffies = first_ns / self.tick_ns..=(self.now_ns + late_ns) / self.tick_ns;
        let slipped = std::mem::replace(&mut self.slipped, Slip::none());
        self.slots += jiffies.end() - jiffies.start() + slipped.most();
        let (least, most) = if self.resent > 0 && !farewell.timestamps {
            (self.rto, self.rto)
        } else {
            let least_us = first_ns.saturating_sub(echoed_ns) / 1_000;
            let most_us = (self.now_ns + late_ns).saturating_sub(echoed_ns) / 1_000;
            farewell.rto_after(self.kernel, (least_us, most_us))
        };
        let mut ends = Vec::new();
        for rto in least..=most {
            let late = |(least, most)| jiffies.start() + least..=jiffies.end() + most;
            for acknowledged in slipped.ranges().flat_map(late) {
                let (fires, waited) =
                    purpose::fin_wait2(|jiffy| self.kernel_at(jiffy), acknowledged, rto);
                if !ends.iter().any(|(other, _)| *other == fires) {
                    ends.push((fires, waited));
                }
            }
        }
        for (fires, waited) in ends {
            let mut one = self.clone();
            one.nominal_ns = one.since_start_ns() + waited * one.tick_ns;
            one.now_ns = fires * one.tick_ns;
            one.timeout = waited;
            one.longest = one.longest.max(waited);
            one.beat(StepKind::GiveUp);
            // It has its end.
            let _ = one.end(Outcome::Released, one.since_start_ns());
            self.adopt(one);
        }
        Err(Ended)
    }

    fn end(&mut self, outcome: Outcome, end_ns: u64) -> Progress {
        // What is sent again after an acknowledgement is not counted here.
        let counts = outcome != Outcome::None || self.scene.write_interval_ns.is_none();
        // How many pass the tap before the client's neighbour entry dies is up to that entry.
        let counts = counts && (!self.hop.is_local() || self.scene.unseen);
        self.done.push(Course {
            beats: std::mem::take(&mut self.beats),
            outcome,
            end_ns,
            retransmits: counts.then_some(self.resent),
            keepalive_probes: None,
            window_probes: None,
            slip: self.slipped.clone(),
            open_ns: (0, 0),
            reference_late_ns: self.sooner_ns,
            slots_ns: self.slots * self.tick_ns,
            timeout_ns: self.hops_turn.then_some(NEIGHBOUR_TIMER_NS),
        });
        Err(Ended)
    }
}

/// Whether a time is past another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    No,
    Yes,
    /// The clocks' jitter decides.
    Either,
}
