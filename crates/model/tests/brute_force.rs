//! The model held against brute force: small simulations of net/ipv4/tcp_timer.c and kernel/time/timer.c,
//! written from their source alone, in which every timer runs in its jiffy or one late, in all
//! combinations. Each end must lie in a window of the prediction that knows the phase, and each window
//! should hold an end.

mod common;

use common::parameters;
use spec::facts::{Facts, JiffyClock, TcpFacts};
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// When the clock was read, and the first jiffy of the story.
const EPOCH_NS: u64 = 40_000_000_000;
/// A handler runs this long after the tick that it runs in.
const HANDLER_NS: u64 = 20_000;
const RTO_MAX_MS: u64 = 120_000;
const RTO_MIN_MS: u64 = 200;

/// A kernel's clock: jiffy `start` began at [`EPOCH_NS`].
#[derive(Clone, Copy)]
struct Clock {
    hz: u64,
    start: u64,
}

/// A timer that was armed.
#[derive(Clone, Copy)]
struct Timer {
    /// The jiffy of its slot.
    fires: u64,
}

/// An end: nanoseconds after the reference, and how many segments were sent again until then.
type Ends = BTreeSet<(u64, u32)>;

impl Clock {
    fn jiffies(self, ms: u64) -> u64 {
        (ms * self.hz).div_ceil(1000)
    }

    fn tick_ns(self) -> u64 {
        1_000_000_000 / self.hz
    }

    /// When a handler runs that runs in this jiffy.
    fn ns(self, jiffy: u64) -> u64 {
        EPOCH_NS + (jiffy - self.start) * self.tick_ns() + HANDLER_NS
    }

    /// `tcp_clock_ms`.
    fn ms(self, jiffy: u64) -> u64 {
        self.ns(jiffy) / 1_000_000
    }

    fn facts(self, sets: &[(String, String)], tcp: TcpFacts) -> Facts {
        let mut facts = model::nominal_facts(&parameters(sets), self.hz as u32);
        let nominal = facts.tcp.take().unwrap();
        facts.kernel = "6.12".into();
        facts.jiffies = Some(JiffyClock { jiffies: self.start, at_ns: EPOCH_NS });
        facts.tcp = Some(TcpFacts { snd_mss: 1448, snd_cwnd: 10, options: nominal.options, ..tcp });
        facts
    }
}

/// `calc_wheel_index`: a timer for `expires` put into a wheel whose clock stands at `clk`.
fn arm(expires: u64, clk: u64) -> Timer {
    // A timer that is due runs at the next jiffy.
    let Some(delta) = expires.checked_sub(clk) else { return Timer { fires: clk } };
    let mut level = 0;
    while level < 8 && delta >= 63 << (3 * level) {
        level += 1;
    }
    let slot = 1 << (3 * level);
    Timer { fires: (expires / slot + 1) * slot }
}

impl Timer {
    /// `mod_timer` in a system call or for an arriving packet.
    fn armed_by_call(now: u64, delay: u64) -> Self {
        arm(now + delay, now)
    }

    /// `mod_timer` in this timer's handler: `__run_timers` has set the clock one past its slot.
    fn armed_anew(self, now: u64, delay: u64) -> Self {
        arm(now + delay, self.fires + 1)
    }
}

/// `tcp_model_timeout`.
fn model_timeout_ms(boundary: u32) -> u64 {
    let threshold = (RTO_MAX_MS / RTO_MIN_MS).ilog2();
    if boundary <= threshold {
        ((2_u64 << boundary) - 1) * RTO_MIN_MS
    } else {
        ((2_u64 << threshold) - 1) * RTO_MIN_MS + u64::from(boundary - threshold) * RTO_MAX_MS
    }
}

/// Unacknowledged data: `tcp_send_loss_probe` and `tcp_retransmit_timer`.
#[derive(Clone, Copy)]
struct Retransmission {
    clock: Clock,
    loss_probe: bool,
    user_timeout_ms: u64,
    retries2: u32,
    rto: u64,
    retransmits: u32,
    sent: u32,
    /// `retrans_stamp`, milliseconds.
    stamp: Option<u64>,
}

impl Retransmission {
    fn run(mut self, timer: Timer, late: u64, ends: &mut Ends, from_ns: u64) {
        let now = timer.fires + late;
        let ms = self.clock.ms(now);
        let rto_max = self.clock.jiffies(RTO_MAX_MS);
        let delay = if self.loss_probe {
            self.loss_probe = false;
            self.rto
        } else {
            let timeout_ms = match self.user_timeout_ms {
                0 => model_timeout_ms(self.retries2),
                timeout_ms => timeout_ms,
            };
            let since = |stamp: Option<u64>| ms - stamp.unwrap_or(ms);
            if self.retransmits > 0 && since(self.stamp) >= timeout_ms {
                ends.insert((self.clock.ns(now) - from_ns, self.sent));
                return;
            }
            // `tcp_retransmit_skb`, which a loss probe goes around.
            self.stamp.get_or_insert(ms);
            self.retransmits += 1;
            self.rto = (self.rto * 2).min(rto_max);
            match self.user_timeout_ms {
                0 => self.rto,
                timeout_ms => match timeout_ms.saturating_sub(since(self.stamp)) {
                    0 => 1,
                    left => self.rto.min(self.clock.jiffies(left)),
                },
            }
        };
        self.sent += 1;
        let next = timer.armed_anew(now, delay);
        for late in 0..=1 {
            self.run(next, late, ends, from_ns);
        }
    }
}

/// `tcp_keepalive_timer` of an idle connection.
#[derive(Clone, Copy)]
struct Keepalive {
    clock: Clock,
    idle: u64,
    interval: u64,
    probes: u32,
    user_timeout_ms: u64,
    /// `rcv_tstamp`.
    received: u64,
    probes_out: u32,
}

impl Keepalive {
    fn run(mut self, timer: Timer, late: u64, ends: &mut Ends, from_ns: u64) {
        let now = timer.fires + late;
        let elapsed = now - self.received;
        let delay = if elapsed < self.idle {
            self.idle - elapsed
        } else {
            let gives_up = match self.user_timeout_ms {
                0 => self.probes_out >= self.probes,
                ms => elapsed >= self.clock.jiffies(ms) && self.probes_out > 0,
            };
            if gives_up {
                ends.insert((self.clock.ns(now) - from_ns, self.probes_out));
                return;
            }
            self.probes_out += 1;
            self.interval
        };
        let next = timer.armed_anew(now, delay);
        for late in 0..=1 {
            self.run(next, late, ends, from_ns);
        }
    }
}

/// `tcp_probe_timer` of a closed window, once nobody answers.
#[derive(Clone, Copy)]
struct WindowProbe {
    clock: Clock,
    rto: u64,
    retries2: u32,
    user_timeout_ms: u64,
    /// `icsk_probes_tstamp`.
    first: Option<u64>,
    backoff: u32,
    probes_out: u32,
}

impl WindowProbe {
    /// `tcp_probe0_when`.
    fn when(self) -> u64 {
        let base = self.rto.max(self.clock.jiffies(RTO_MIN_MS));
        let most = (RTO_MAX_MS / RTO_MIN_MS).ilog2() + 1;
        (base << self.backoff.min(most)).min(self.clock.jiffies(RTO_MAX_MS))
    }

    fn run(mut self, timer: Timer, late: u64, ends: &mut Ends, from_ns: u64) {
        let now = timer.fires + late;
        let timeout = self.clock.jiffies(self.user_timeout_ms);
        let has_timeout = self.user_timeout_ms > 0;
        let over = self.first.is_some_and(|first| has_timeout && now - first >= timeout);
        if over || self.probes_out >= self.retries2 {
            ends.insert((self.clock.ns(now) - from_ns, self.probes_out));
            return;
        }
        let first = *self.first.get_or_insert(now);
        self.probes_out += 1;
        self.backoff += u32::from(self.backoff < self.retries2);
        let mut delay = self.when();
        if has_timeout {
            // `tcp_clamp_probe0_to_user_timeout`: `TCP_TIMEOUT_MIN` is two jiffies.
            delay = delay.min(timeout.saturating_sub(now - first).max(2));
        }
        let next = timer.armed_anew(now, delay);
        for late in 0..=1 {
            self.run(next, late, ends, from_ns);
        }
    }
}

/// How the comparison came out.
#[derive(Default)]
struct Score {
    ends: usize,
    missed: usize,
    windows: usize,
    spurious: usize,
    unknown: usize,
    shown: String,
}

impl Score {
    fn hold(&mut self, what: &str, prediction: &model::Prediction, ends: &Ends) {
        if prediction.unknown.is_some() {
            self.unknown += 1;
            return;
        }
        let windows: Vec<_> = prediction
            .windows
            .iter()
            .filter_map(|window| {
                let counts = [window.retransmits, window.keepalive_probes, window.window_probes];
                Some((window.span?, counts.into_iter().flatten().max()))
            })
            .collect();
        let holds = |(span, count): &((Duration, Duration), Option<u32>), end: &(u64, u32)| {
            let at = Duration::from_nanos(end.0);
            span.0 <= at && at <= span.1 && *count == Some(end.1)
        };
        self.ends += ends.len();
        self.windows += windows.len();
        for end in ends.iter().filter(|end| !windows.iter().any(|window| holds(window, end))) {
            self.missed += 1;
            self.show(what, &format!("missed {end:?}"), &windows);
        }
        for window in windows.iter().filter(|window| !ends.iter().any(|end| holds(window, end))) {
            self.spurious += 1;
            self.show(what, &format!("nothing fills {window:?}"), &windows);
        }
    }

    /// Nothing is missed, and no window is there for nothing.
    fn is_clean(&self, name: &str) {
        println!("{name}: {self}");
        let is_clean = self.missed + self.spurious + self.unknown == 0;
        assert!(is_clean && self.ends > 1_000, "{name}: {self}\n{}", self.shown);
    }

    fn show(&mut self, what: &str, problem: &str, windows: &dyn fmt::Debug) {
        if self.shown.lines().count() < 40 {
            self.shown += &format!("{what}: {problem} of {windows:?}\n");
        }
    }
}

impl fmt::Display for Score {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ends, missed, windows, spurious, unknown, .. } = self;
        write!(
            formatter,
            "{ends} ends, {missed} missed; {windows} windows, {spurious} that nothing fills; {unknown} unknown"
        )
    }
}

fn sets(list: &[(&str, String)]) -> Vec<(String, String)> {
    list.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

/// User timeouts that cut in everywhere, milliseconds.
const USER_TIMEOUTS_MS: [u64; 16] =
    [1, 90, 204, 300, 411, 500, 700, 999, 1_237, 2_000, 3_000, 3_141, 5_000, 6_600, 9_000, 12_500];

/// Starts within the wheel's slots of 8 and 64 jiffies.
fn clocks() -> impl Iterator<Item = Clock> {
    let phases = || (0..64).step_by(3).chain([1, 7, 55, 62]);
    [100, 250, 1000].into_iter().flat_map(move |hz| {
        phases().map(move |phase| Clock { hz, start: (1 << 32) + 4096 + phase })
    })
}

#[test]
fn retransmission() {
    let mut score = Score::default();
    for clock in clocks() {
        let by_count = (0..=6).map(|retries2| (retries2, 0));
        let by_time = USER_TIMEOUTS_MS.map(|timeout_ms| (3, timeout_ms));
        let settings = by_count.chain(by_time).flat_map(|(a, b)| [(a, b, 3), (a, b, 0)]);
        for (retries2, user_timeout_ms, early_retrans) in settings {
            let mut list = vec![
                ("fault.kind", "power-off".to_owned()),
                ("client.traffic", "one-write".into()),
                ("sysctl.tcp_retries2", retries2.to_string()),
                ("sysctl.tcp_early_retrans", early_retrans.to_string()),
            ];
            if user_timeout_ms > 0 {
                list.push(("client.user_timeout", format!("{user_timeout_ms}ms")));
            }
            let list = sets(&list);
            let rto = clock.jiffies(RTO_MIN_MS) + 1;
            let facts = clock.facts(
                &list,
                TcpFacts {
                    rto_us: (rto * 1_000_000 / clock.hz) as u32,
                    srtt_us: 60,
                    rttvar_us: 30,
                    sampled_at_ns: EPOCH_NS,
                    last_data_recv_ms: 200,
                    last_ack_recv_ms: 200,
                    ..TcpFacts::default()
                },
            );
            let write_ns = EPOCH_NS + clock.tick_ns() / 2;
            let prediction = model::predict_after(&parameters(&list), &facts, write_ns);
            // `tcp_schedule_loss_probe`: 2 · srtt + rto_min, and no later than the RTO.
            let probe = (200_120 * clock.hz).div_ceil(1_000_000).min(rto);
            let loss_probe = early_retrans == 3;
            let run = Retransmission {
                clock,
                loss_probe,
                user_timeout_ms,
                retries2,
                rto,
                retransmits: 0,
                sent: 0,
                stamp: None,
            };
            let first = Timer::armed_by_call(clock.start, if loss_probe { probe } else { rto });
            let mut ends = Ends::new();
            for late in 0..=1 {
                run.run(first, late, &mut ends, write_ns);
            }
            let what = format!("HZ {} from {} {list:?}", clock.hz, clock.start);
            score.hold(&what, &prediction, &ends);
        }
    }
    score.is_clean("retransmission");
}

#[test]
fn keepalive() {
    let mut score = Score::default();
    for clock in clocks() {
        let times = [(1, 1), (2, 1), (1, 3), (3, 2), (10, 1), (40, 10)];
        let by_count = times.into_iter().flat_map(|(a, b)| [1, 2, 3, 5].map(|n| (a, b, n, 0)));
        let by_time = USER_TIMEOUTS_MS.into_iter().flat_map(|ms| [(2, 1, 3, ms), (1, 2, 9, ms)]);
        for (idle_s, interval_s, probes, user_timeout_ms) in by_count.chain(by_time) {
            let mut list = vec![
                ("fault.kind", "power-off".to_owned()),
                ("client.keepalive.enabled", "true".into()),
                ("client.keepalive.idle", format!("{idle_s}s")),
                ("client.keepalive.interval", format!("{interval_s}s")),
                ("client.keepalive.probes", probes.to_string()),
            ];
            if user_timeout_ms > 0 {
                list.push(("client.user_timeout", format!("{user_timeout_ms}ms")));
            }
            let list = sets(&list);
            // The timer is armed just before the last exchange, 200 ms before the sample.
            let idle = idle_s * clock.hz;
            let armed = clock.start;
            let sampled = armed + clock.hz / 5;
            let facts = clock.facts(
                &list,
                TcpFacts {
                    rto_us: (201_000_000 / clock.hz * clock.hz / 1000) as u32,
                    srtt_us: 60,
                    rttvar_us: 30,
                    sampled_at_ns: clock.ns(sampled) + clock.tick_ns() / 2,
                    last_data_recv_ms: 200,
                    last_ack_recv_ms: 200,
                    timer: TcpFacts::TIMER_KEEPALIVE,
                    timer_expires_ms: ((armed + idle - sampled) * 1000 / clock.hz) as u32,
                    ..TcpFacts::default()
                },
            );
            let prediction = model::predict(&parameters(&list), &facts);
            let run = Keepalive {
                clock,
                idle,
                interval: interval_s * clock.hz,
                probes,
                user_timeout_ms,
                received: armed,
                probes_out: 0,
            };
            let mut ends = Ends::new();
            for late in 0..=1 {
                run.run(Timer::armed_by_call(armed, idle), late, &mut ends, clock.ns(armed));
            }
            let what = format!("HZ {} from {} {list:?}", clock.hz, clock.start);
            score.hold(&what, &prediction, &ends);
        }
    }
    score.is_clean("keepalive");
}

#[test]
fn closed_window() {
    let mut score = Score::default();
    for clock in clocks() {
        let by_count = (1..=7).map(|retries2| (retries2, 0));
        let by_time = USER_TIMEOUTS_MS.into_iter().flat_map(|ms| [(8, ms), (3, ms)]);
        for (retries2, user_timeout_ms) in by_count.chain(by_time) {
            let mut list = vec![
                ("fault.kind", "power-off".to_owned()),
                ("client.fills_window", "true".into()),
                ("server.reads", "false".into()),
                ("sysctl.tcp_retries2", retries2.to_string()),
            ];
            if user_timeout_ms > 0 {
                list.push(("client.user_timeout", format!("{user_timeout_ms}ms")));
            }
            let list = sets(&list);
            // The window closes at the start, and the fault comes before the first probe.
            let rto = clock.jiffies(RTO_MIN_MS) + 1;
            let sampled = clock.start + clock.jiffies(100);
            let facts = clock.facts(
                &list,
                TcpFacts {
                    rto_us: (rto * 1_000_000 / clock.hz) as u32,
                    srtt_us: 60,
                    rttvar_us: 30,
                    sampled_at_ns: clock.ns(sampled) + clock.tick_ns() / 2,
                    last_data_recv_ms: 100,
                    last_ack_recv_ms: 100,
                    timer: TcpFacts::TIMER_PROBE0,
                    timer_expires_ms: ((clock.start + rto - sampled) * 1000 / clock.hz) as u32,
                    ..TcpFacts::default()
                },
            );
            let prediction = model::predict(&parameters(&list), &facts);
            let run = WindowProbe {
                clock,
                rto,
                retries2,
                user_timeout_ms,
                first: None,
                backoff: 0,
                probes_out: 0,
            };
            let mut ends = Ends::new();
            for late in 0..=1 {
                run.run(
                    Timer::armed_by_call(clock.start, rto),
                    late,
                    &mut ends,
                    clock.ns(clock.start),
                );
            }
            let what = format!("HZ {} from {} {list:?}", clock.hz, clock.start);
            score.hold(&what, &prediction, &ends);
        }
    }
    score.is_clean("closed window");
}
