//! The keepalive timer of an idle connection: `tcp_keepalive_timer` (net/ipv4/tcp_timer.c).
//!
//! The timer is armed for the idle time when `SO_KEEPALIVE` is set (`tcp_set_keepalive`), and not
//! again when segments arrive: it fires, sees how long ago the last one came
//! (`keepalive_time_elapsed`), and waits for the rest. From the first probe on it is armed for the
//! interval at each firing, each time rounded to a slot of the wheel.

use crate::course::{Beat, Course, Courses};
use crate::kernel::Kernel;
use crate::prediction::StepKind;
use crate::retransmit::EPOCH;
use crate::wheel::Context;
use spec::{Errno, Outcome};

/// How an idle connection meets its fault.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    /// How long the timer was armed before the last exchange ended, nanoseconds: one round trip
    /// and what the programs need.
    pub(crate) armed_before_ns: (u64, u64),
    /// From the last exchange to the fault, nanoseconds; `None`: the peer never goes away.
    pub(crate) fault_after_ns: Option<u64>,
    /// When something answers again, nanoseconds after the last exchange.
    pub(crate) healed: Option<Healed>,
    /// The time of a round trip, nanoseconds.
    pub(crate) rtt_ns: u64,
}

/// What answers probes after the fault.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Healed {
    /// From when on, nanoseconds after the last exchange.
    pub(crate) at_ns: u64,
    /// Whether with a reset; otherwise with an acknowledgement.
    pub(crate) reset: bool,
}

/// No more cells of the clock than this are looked at, each with all phases within it that matter.
const CELLS_MOST: u64 = 1 << 14;

/// The courses of this scene over every phase of the clock.
pub(crate) fn courses(kernel: &Kernel, scene: &Scene, courses: &mut Courses) {
    let tick_ns = kernel.hz.tick_ns();
    let first = kernel.wheel.slot(kernel.keepalive_time);
    let period = first.max(kernel.wheel.slot(kernel.keepalive_interval));
    // Within a slot of the first timer, all courses have the same jiffies from there on; only the
    // phases at its end may find the idle time not yet over.
    let cells = (period / first).min(CELLS_MOST);
    let (least, most) = scene.armed_before_ns;
    for cell in 0..cells {
        // The first jiffy of a phase whose timer fires at the end of the next slot.
        let base = (EPOCH + cell * first).saturating_sub(kernel.keepalive_time % first);
        let margin = (most / tick_ns + 2).min(first.saturating_sub(1)).min(64);
        let phases = [0, 1].into_iter().chain((0..=margin).map(|back| first - 1 - back));
        for phase in phases.filter(|phase| *phase < first) {
            for before_ns in [least, most] {
                for within_ns in [0, tick_ns / 2, tick_ns - 1] {
                    let armed_ns = (base + phase) * tick_ns + within_ns;
                    let course = Timer::new(kernel, scene, armed_ns, before_ns).run();
                    courses.add(&course, 0);
                }
            }
        }
    }
}

struct Timer<'a> {
    kernel: &'a Kernel,
    scene: &'a Scene,
    tick_ns: u64,
    /// The last exchange, which the times of the scene count from.
    exchange_ns: u64,
    /// The last segment that was received: `rcv_tstamp`.
    received_ns: u64,
    fires: u64,
    timeout: u64,
    /// `icsk_probes_out`.
    unanswered: u32,
    sent: u32,
    nominal_ns: u64,
    beats: Vec<(StepKind, u64, u64, u64)>,
}

impl<'a> Timer<'a> {
    fn new(kernel: &'a Kernel, scene: &'a Scene, armed_ns: u64, before_ns: u64) -> Self {
        let tick_ns = kernel.hz.tick_ns();
        let timeout = kernel.keepalive_time;
        let exchange_ns = armed_ns + before_ns;
        Self {
            kernel,
            scene,
            tick_ns,
            exchange_ns,
            received_ns: exchange_ns,
            fires: kernel.wheel.fires_at(armed_ns / tick_ns, timeout, Context::Call),
            timeout,
            unanswered: 0,
            sent: 0,
            nominal_ns: exchange_ns + timeout * tick_ns,
            beats: Vec::new(),
        }
    }

    fn run(mut self) -> Course {
        loop {
            let now = self.fires;
            let now_ns = now * self.tick_ns;
            let elapsed = now.saturating_sub(self.received_ns / self.tick_ns);
            if elapsed < self.kernel.keepalive_time {
                self.arm(self.kernel.keepalive_time - elapsed);
                self.nominal_ns = self.received_ns + self.kernel.keepalive_time * self.tick_ns;
                continue;
            }
            if self.gives_up(elapsed) {
                self.beat(StepKind::GiveUp, now_ns);
                return self.end(Outcome::TIMED_OUT, now_ns);
            }
            let answer_ns = now_ns + self.scene.rtt_ns;
            match self.answer(now_ns) {
                Some(Reply::Reset) => {
                    self.probe(now_ns);
                    return self.end(Outcome::Errno(Errno::ECONNRESET), answer_ns);
                }
                Some(Reply::Alive) => return self.end(Outcome::None, now_ns),
                Some(Reply::BeforeFault) => {
                    self.received_ns = answer_ns;
                    self.unanswered = 0;
                    self.sent = 0;
                    self.beats.clear();
                }
                None => self.probe(now_ns),
            }
            let interval = self.kernel.keepalive_interval;
            self.nominal_ns += interval * self.tick_ns;
            self.arm(interval);
        }
    }

    fn probe(&mut self, now_ns: u64) {
        self.beat(StepKind::KeepaliveProbe, now_ns);
        self.unanswered += 1;
        self.sent += 1;
    }

    /// What comes back for a probe sent now.
    fn answer(&self, now_ns: u64) -> Option<Reply> {
        let after_ns = now_ns.saturating_sub(self.exchange_ns);
        let Some(fault_ns) = self.scene.fault_after_ns else { return Some(Reply::Alive) };
        if after_ns + self.scene.rtt_ns / 2 < fault_ns {
            return Some(Reply::BeforeFault);
        }
        let healed = self.scene.healed.filter(|healed| after_ns >= healed.at_ns)?;
        Some(if healed.reset { Reply::Reset } else { Reply::Alive })
    }

    /// `TCP_USER_TIMEOUT` takes the place of the number of probes, in both directions.
    fn gives_up(&self, elapsed: u64) -> bool {
        match self.kernel.user_timeout_ms {
            Some(patience_ms) => {
                elapsed >= self.kernel.hz.from_msecs(patience_ms) && self.unanswered > 0
            }
            None => self.unanswered >= self.kernel.keepalive_probes,
        }
    }

    fn arm(&mut self, timeout: u64) {
        self.timeout = timeout;
        self.fires = self.kernel.wheel.fires_at(self.fires, timeout, Context::Handler);
    }

    fn beat(&mut self, kind: StepKind, at_ns: u64) {
        if self.beats.len() < BEATS_MOST {
            self.beats.push((kind, at_ns, self.nominal_ns, self.timeout * self.tick_ns));
        }
    }

    fn end(self, outcome: Outcome, end_ns: u64) -> Course {
        let since = |at_ns: u64| at_ns.saturating_sub(self.received_ns);
        let beats = self
            .beats
            .iter()
            .map(|(kind, at_ns, nominal_ns, timeout_ns)| Beat {
                kind: *kind,
                at_ns: since(*at_ns),
                nominal_ns: since(*nominal_ns),
                timeout_ns: *timeout_ns,
            })
            .collect();
        Course {
            beats,
            outcome,
            end_ns: since(end_ns),
            retransmits: Some(0),
            keepalive_probes: (outcome != Outcome::None).then_some(self.sent),
        }
    }
}

/// How many steps a schedule shows at most.
const BEATS_MOST: usize = 300;

enum Reply {
    /// The peer is still there: the probe does not count.
    BeforeFault,
    /// An acknowledgement after the fault: the connection goes on.
    Alive,
    /// A reset.
    Reset,
}
