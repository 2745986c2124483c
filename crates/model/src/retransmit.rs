//! The write timer of a connection whose data nobody acknowledges: tail loss probe, retransmissions
//! on timeout, and the end.
//!
//! A [`Sender`] goes through the life of `icsk_retransmit_timer` event by event, as
//! net/ipv4/tcp_timer.c (`tcp_write_timer_handler`, `tcp_retransmit_timer`, `tcp_write_timeout`,
//! `retransmits_timed_out`, `tcp_clamp_rto_to_user_timeout`) and net/ipv4/tcp_output.c
//! (`tcp_schedule_loss_probe`, `tcp_send_loss_probe`, `tcp_event_new_data_sent`) have it, from one
//! phase of the clock. [`courses`] asks for every phase.

use crate::course::{Beat, Course, Courses};
use crate::kernel::Kernel;
use crate::prediction::StepKind;
use crate::rto;
use crate::wheel::Context;
use spec::Outcome;

/// The jiffy from which phases are counted: a multiple of every slot, and small enough for
/// nanoseconds.
pub(crate) const EPOCH: u64 = 1 << 24;

/// `TCP_THIN_LINEAR_RETRIES` (include/net/tcp.h).
const THIN_LINEAR_RETRIES: u32 = 6;

/// Clocks of two timers that fire on their jiffies may be this much apart from it: a comparison of
/// two times nearer than this can go either way.
const JITTER_NS: u64 = 300_000;

/// What a sender is up against.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    /// `icsk_rto` when the first segment is sent, jiffies.
    pub(crate) rto: u64,
    /// The smoothed round-trip time, microseconds.
    pub(crate) srtt_us: u64,
    /// `snd_cwnd`, segments.
    pub(crate) cwnd: usize,
    /// From one write to the next, nanoseconds; `None`: only one.
    pub(crate) write_interval_ns: Option<u64>,
    /// The error at the end: `ETIMEDOUT`, or the soft error that an ICMP left.
    pub(crate) error: Outcome,
    /// When the path works again, nanoseconds after the first write.
    pub(crate) healed: Option<Healed>,
}

/// A path that comes back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Healed {
    /// When, nanoseconds after the first write.
    pub(crate) at_ns: u64,
    /// What answers then.
    pub(crate) with: Answer,
    /// When the answer comes after a segment, nanoseconds.
    pub(crate) after_ns: u64,
}

/// What answers a segment that gets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// An acknowledgement: the connection goes on.
    Ack,
    /// A reset.
    Reset,
}

/// The courses of this scene over every phase of the clock.
pub(crate) fn courses(kernel: &Kernel, scene: &Scene, courses: &mut Courses) {
    let tick_ns = kernel.hz.tick_ns();
    // Slots of coarser timers than the longest RTO's do not occur.
    let period = kernel.wheel.slot(kernel.rto_max);
    // Within a jiffy the phase does not matter to a single write: its timers count from the jiffy.
    let within: Vec<u64> = match scene.write_interval_ns {
        None => vec![tick_ns - 1],
        Some(_) => {
            (0..PHASES_WITHIN).map(|n| (n * tick_ns + tick_ns / 2) / PHASES_WITHIN).collect()
        }
    };
    let late: &[u64] = if scene.write_interval_ns.is_some() { &WRITES_LATE_NS } else { &[0] };
    for phase in 0..period {
        for &within_ns in &within {
            for &late_ns in late {
                let start_ns = (EPOCH + phase) * tick_ns + within_ns;
                let earlier_ns = if scene.write_interval_ns.is_none() {
                    within_ns
                } else {
                    tick_ns / PHASES_WITHIN
                };
                for course in Sender::new(kernel, scene, start_ns, late_ns).run() {
                    courses.add(&course, earlier_ns);
                }
            }
        }
    }
}

/// Into how many parts a jiffy is divided where the phase within it matters.
const PHASES_WITHIN: u64 = 4;
/// By how much a program's later writes may lag behind their times, nanoseconds.
const WRITES_LATE_NS: [u64; 3] = [60_000, 300_000, 1_000_000];
/// How many steps a schedule shows at most; the later ones are all alike.
const BEATS_MOST: usize = 300;

/// Which event the write timer waits for: `icsk_pending`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pending {
    LossProbe,
    Retransmission,
}

#[derive(Debug, Clone)]
struct Sender<'a> {
    kernel: &'a Kernel,
    scene: &'a Scene,
    tick_ns: u64,
    start_ns: u64,
    now_ns: u64,
    context: Context,
    /// When each outstanding segment was last sent: `skb_mstamp_ns`.
    sent_ns: Vec<u64>,
    /// Segments that the congestion window holds back.
    waiting: usize,
    next_write_ns: Option<u64>,
    pending: Pending,
    /// `timer->expires`, and the jiffy of its slot.
    expires: u64,
    fires: u64,
    /// The timeout that is being waited for, jiffies.
    timeout: u64,
    /// `tlp_high_seq`: a tail loss probe is out.
    probed: bool,
    /// `icsk_retransmits`.
    timeouts: u32,
    rto: u64,
    /// `retrans_stamp`.
    first_retransmission_ns: Option<u64>,
    resent: u32,
    /// When the pending timer is due by the textbook, nanoseconds after the first write.
    nominal_ns: u64,
    beats: Vec<Beat>,
}

impl<'a> Sender<'a> {
    fn new(kernel: &'a Kernel, scene: &'a Scene, start_ns: u64, late_ns: u64) -> Self {
        let mut sender = Self {
            kernel,
            scene,
            tick_ns: kernel.hz.tick_ns(),
            start_ns,
            now_ns: start_ns,
            context: Context::Call,
            sent_ns: Vec::new(),
            waiting: 0,
            next_write_ns: None,
            pending: Pending::Retransmission,
            expires: 0,
            fires: 0,
            timeout: 0,
            probed: false,
            timeouts: 0,
            rto: scene.rto,
            first_retransmission_ns: None,
            resent: 0,
            nominal_ns: 0,
            beats: Vec::new(),
        };
        sender.write();
        sender.next_write_ns =
            scene.write_interval_ns.map(|interval| start_ns.saturating_add(interval + late_ns));
        sender
    }

    /// Goes on to the end. More than one course where the clocks' jitter decides.
    fn run(mut self) -> Vec<Course> {
        let mut courses = Vec::new();
        loop {
            let fires_ns = self.fires * self.tick_ns;
            if let Some(at_ns) = self.next_write_ns.filter(|at_ns| *at_ns < fires_ns) {
                self.now_ns = at_ns;
                self.context = Context::Call;
                let sent = self.write();
                // What the congestion window holds back stays back: nothing is acknowledged.
                self.next_write_ns = self
                    .scene
                    .write_interval_ns
                    .filter(|_| sent)
                    .map(|interval| at_ns.saturating_add(interval));
                if let Some(end) = self.answered().filter(|_| sent) {
                    courses.push(end);
                    return courses;
                }
                continue;
            }
            self.now_ns = fires_ns;
            self.context = Context::Handler;
            match self.pending {
                Pending::LossProbe => {
                    if !self.loss_probe() {
                        continue;
                    }
                }
                Pending::Retransmission => {
                    match self.timed_out() {
                        Verdict::No => {}
                        Verdict::Yes => {
                            courses.push(self.give_up());
                            return courses;
                        }
                        Verdict::Either => courses.push(self.clone().give_up()),
                    }
                    self.retransmission();
                }
            }
            if let Some(end) = self.answered() {
                courses.push(end);
                return courses;
            }
            if self.beats.len() > BEATS_MOST {
                self.skip_equal_timeouts();
            }
        }
    }

    fn jiffy(&self) -> u64 {
        self.now_ns / self.tick_ns
    }

    /// `tcp_write_xmit`: a segment of its own for each write, if the congestion window lets it.
    fn write(&mut self) -> bool {
        let open = self.timeouts == 0;
        if !open || self.sent_ns.len() >= self.scene.cwnd.max(1) {
            self.waiting += 1;
            return false;
        }
        self.send_new();
        self.schedule_loss_probe();
        true
    }

    /// `tcp_event_new_data_sent`.
    fn send_new(&mut self) {
        let first = self.sent_ns.is_empty();
        self.sent_ns.push(self.now_ns);
        if first {
            self.arm(Pending::Retransmission, self.rto);
        } else if self.pending == Pending::LossProbe {
            self.rearm_rest();
        }
    }

    /// `tcp_schedule_loss_probe`, not after an acknowledgement.
    fn schedule_loss_probe(&mut self) {
        if !self.kernel.tail_loss_probe || self.timeouts > 0 {
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
    /// Says whether anything was sent.
    fn loss_probe(&mut self) -> bool {
        if self.probed {
            self.rearm_rest();
            return false;
        }
        self.beat(StepKind::TailLossProbe);
        self.probed = true;
        if self.waiting > 0 {
            self.waiting -= 1;
            self.sent_ns.push(self.now_ns);
        } else {
            if let Some(last) = self.sent_ns.last_mut() {
                *last = self.now_ns;
            }
            self.resent += 1;
        }
        self.arm(Pending::Retransmission, self.rto);
        true
    }

    /// `retransmits_timed_out`, at a retransmission timeout.
    fn timed_out(&self) -> Verdict {
        let (Some(first_ns), true) = (self.first_retransmission_ns, self.timeouts > 0) else {
            return Verdict::No;
        };
        // Both time stamps are cut to whole milliseconds (`tcp_time_stamp_ts`) before they are
        // subtracted: between one millisecond less than the patience and the patience itself, the
        // phase of the clock decides.
        let passed_ns = self.now_ns - first_ns;
        let patience_ns = self.patience_ms().saturating_mul(1_000_000);
        if passed_ns >= patience_ns.saturating_add(JITTER_NS) {
            Verdict::Yes
        } else if passed_ns + 1_000_000 + JITTER_NS <= patience_ns {
            Verdict::No
        } else {
            Verdict::Either
        }
    }

    /// The rest of `tcp_retransmit_timer`: the first segment again, and a longer timeout.
    fn retransmission(&mut self) {
        self.beat(StepKind::Retransmission);
        self.timeouts += 1;
        self.resent += 1;
        if let Some(first) = self.sent_ns.first_mut() {
            *first = self.now_ns;
        }
        self.first_retransmission_ns.get_or_insert(self.now_ns);
        // `tcp_stream_is_thin`: fewer than four segments out.
        let thin = self.kernel.thin_linear_timeouts
            && self.sent_ns.len() < 4
            && self.timeouts <= THIN_LINEAR_RETRIES;
        self.rto = if thin {
            self.scene.rto.clamp(self.kernel.rto_min, self.kernel.rto_max)
        } else {
            (self.rto * 2).min(self.kernel.rto_max)
        };
        self.arm(Pending::Retransmission, self.clamp_to_user_timeout());
    }

    /// `tcp_clamp_rto_to_user_timeout`.
    fn clamp_to_user_timeout(&self) -> u64 {
        let Some(patience_ms) = self.kernel.user_timeout_ms else { return self.rto };
        let first_ns = self.first_retransmission_ns.unwrap_or(self.now_ns);
        let elapsed_ms = self.now_ns / 1_000_000 - first_ns / 1_000_000;
        match patience_ms.saturating_sub(elapsed_ms) {
            0 => 1,
            remaining_ms => self.rto.min(self.kernel.hz.from_msecs(remaining_ms)),
        }
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
        self.arm(Pending::Retransmission, self.kernel.hz.from_usecs(rest_us));
    }

    /// `inet_csk_reset_xmit_timer`. A timer that is pending for the same jiffy stays in its slot
    /// (`__mod_timer`).
    fn arm(&mut self, pending: Pending, timeout: u64) {
        let timeout = timeout.min(self.kernel.rto_max);
        let now = self.jiffy();
        let unchanged =
            self.context == Context::Call && self.fires > now && self.expires == now + timeout;
        if !unchanged {
            self.fires = self.kernel.wheel.fires_at(now, timeout, self.context);
        }
        self.expires = now + timeout;
        self.pending = pending;
        self.timeout = timeout;
        let armed_ns = match self.context {
            Context::Call => self.since(self.now_ns),
            Context::Handler => self.nominal_ns,
        };
        self.nominal_ns = armed_ns + timeout * self.tick_ns;
    }

    /// From the longest RTO on, one timeout is like the other: goes to the last but a few.
    fn skip_equal_timeouts(&mut self) {
        let step_ns = (self.fires * self.tick_ns).saturating_sub(self.now_ns);
        if self.rto != self.kernel.rto_max || self.timeout != self.rto || step_ns == 0 {
            return;
        }
        let first_ns = self.first_retransmission_ns.unwrap_or(self.now_ns);
        let end_ns = first_ns.saturating_add(self.patience_ms().saturating_mul(1_000_000));
        let healed_ns =
            self.scene.healed.map_or(u64::MAX, |healed| self.start_ns.saturating_add(healed.at_ns));
        let steps = (end_ns.min(healed_ns).saturating_sub(self.now_ns) / step_ns).saturating_sub(3);
        let ahead = steps * (self.fires - self.jiffy());
        self.fires += ahead;
        self.expires += ahead;
        self.nominal_ns += steps * self.timeout * self.tick_ns;
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.timeouts = self.timeouts.saturating_add(steps);
        self.resent = self.resent.saturating_add(steps);
    }

    /// How long after the first retransmission the kernel gives up.
    fn patience_ms(&self) -> u64 {
        self.kernel
            .user_timeout_ms
            .unwrap_or_else(|| rto::model_timeout_ms(self.kernel, self.kernel.retries2))
    }

    fn since(&self, at_ns: u64) -> u64 {
        at_ns - self.start_ns
    }

    fn beat(&mut self, kind: StepKind) {
        let at_ns = self.since(self.now_ns);
        self.beats.push(Beat {
            kind,
            at_ns,
            nominal_ns: self.nominal_ns,
            timeout_ns: self.timeout * self.tick_ns,
        });
    }

    fn give_up(mut self) -> Course {
        self.beat(StepKind::GiveUp);
        let end_ns = self.since(self.now_ns);
        let error = self.scene.error;
        self.end(error, end_ns)
    }

    /// The end of the course if the segment that is sent now is answered.
    fn answered(&self) -> Option<Course> {
        let healed = self.scene.healed?;
        let at_ns = self.since(self.now_ns);
        (at_ns >= healed.at_ns).then(|| {
            let outcome = match healed.with {
                Answer::Ack => Outcome::None,
                Answer::Reset => Outcome::Errno(spec::Errno::ECONNRESET),
            };
            self.clone().end(outcome, at_ns.saturating_add(healed.after_ns))
        })
    }

    fn end(self, outcome: Outcome, end_ns: u64) -> Course {
        Course {
            beats: self.beats,
            outcome,
            end_ns,
            retransmits: Some(self.resent),
            keepalive_probes: None,
        }
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
