//! Samples the sockets of a host by socket diagnostics.

use super::{Running, Seen, Sink, run};
use anyhow::Result;
use model::tick::Hz;
use model::wheel::Wheel;
use netns::Namespace;
use observe::SocketDiag;
use observe::clock::{hz, jiffy_clock, monotonic_ns};
use observe::diag::Look;
use report::Clock;
use spec::{Addresses, Part};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use timeline::event::SocketSample;
use timeline::{Ends, Event, FlowId, Side, Source, What};
use tokio::sync::{Notify, oneshot, watch};

/// How often socket diagnostics look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// At most this long between two looks; `None`: only when something stirs.
    every: Option<Duration>,
    /// Whether to look every millisecond while a timer is due: that is when connections end.
    closely: bool,
    /// Whether to look, and say so, at random moments too.
    at_random: bool,
}

/// The next random moment to look at a socket. They lie ever further apart, as timers do.
#[derive(Debug, Clone, Copy)]
struct Random {
    due_ns: u64,
    /// The next is at most so long after it.
    spread_ns: u64,
    dice: u64,
}

impl Random {
    const FIRST_NS: u64 = 200_000_000;
    const LONGEST_NS: u64 = 600_000_000_000;

    /// From now on; a connection's port makes its moments, which so are the same each time.
    fn new(port: u16, now_ns: u64) -> Self {
        Self { due_ns: now_ns, spread_ns: Self::FIRST_NS, dice: port.into() }.next(now_ns)
    }

    fn next(self, now_ns: u64) -> Self {
        // Knuth's linear congruential generator (MMIX).
        let dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let part = u128::from(dice >> 32) * u128::from(self.spread_ns);
        let spread_ns = (self.spread_ns * 5 / 4).min(Self::LONGEST_NS);
        Self { due_ns: now_ns + (part >> 32) as u64 + 1, spread_ns, dice }
    }
}

impl Pace {
    /// The pace for a trial: often where socket diagnostics are the only witness; never by the
    /// clock where time is virtual, and every look would be a moment to stop at.
    pub(crate) fn new(clock: Clock, traced: bool, jobs: usize) -> Self {
        let every = match clock {
            Clock::Virtual => None,
            Clock::Real if traced => Some(Duration::from_millis(250)),
            Clock::Real if jobs <= 10 => Some(Duration::from_millis(5)),
            Clock::Real => Some(Duration::from_millis(20)),
        };
        Self { every, closely: !traced && clock == Clock::Real, at_random: false }
    }

    /// The same, and at random moments too if so wanted.
    pub(crate) fn at_random(self, at_random: bool) -> Self {
        Self { at_random, ..self }
    }

    /// When to look again at a socket whose timer, if one runs, is due in so many milliseconds.
    fn next(self, timer_ms: Option<u64>) -> Option<Duration> {
        let due = timer_ms
            .filter(|_| self.closely)
            .map(|ms| Duration::from_millis(if ms <= 10 { 1 } else { ms - 5 }));
        match (self.every, due) {
            (Some(every), Some(due)) => Some(every.min(due)),
            (every, due) => every.or(due),
        }
    }
}

/// When a mini-socket ends (`inet_twsk_schedule`, net/ipv4/inet_timewait_sock.c). No tracepoint
/// tells, and time may jump to where a look is due: so looks come where its timer's slot ends.
#[derive(Debug, Clone, Copy)]
struct MiniSocket {
    /// When its slot of the timer wheel is due.
    due_ns: u64,
    /// How long the slot is, nanoseconds.
    slot_ns: u64,
}

impl MiniSocket {
    /// `idiag_timer`: time-wait.
    const TIMER: u8 = 3;
    /// For so long after it was due, it is looked for closely.
    const CLOSELY_NS: u64 = 20_000_000;

    /// One whose timer expires so many milliseconds from now.
    fn new(expires_ms: u64, now_ns: u64) -> Self {
        let hz = Hz::new(hz());
        let tick_ns = hz.tick_ns();
        let delay = hz.whole_in_msecs(expires_ms);
        let slot = Wheel::new(hz).slot(delay);
        let end_ns = now_ns + delay * tick_ns;
        let due_ns = jiffy_clock().map_or(end_ns, |clock| {
            let jiffy = clock.jiffies + now_ns.saturating_sub(clock.at_ns) / tick_ns + delay;
            let due = (jiffy / slot + 1) * slot;
            clock.at_ns + due.saturating_sub(clock.jiffies) * tick_ns
        });
        Self { due_ns, slot_ns: slot * tick_ns }
    }

    /// When to look again.
    fn next(self, now_ns: u64) -> Duration {
        const LOOK_NS: u64 = 1_000_000;
        Duration::from_nanos(match self.due_ns.checked_sub(now_ns) {
            // A sleeper wakes up to a millisecond late.
            Some(left_ns) if left_ns > 2 * LOOK_NS => left_ns - 2 * LOOK_NS,
            _ if now_ns < self.due_ns + Self::CLOSELY_NS => LOOK_NS,
            _ => (self.slot_ns / 32).max(LOOK_NS),
        })
    }
}

/// The connections that are to be sampled: the latest of each pair of ends.
pub(crate) type Followed = watch::Receiver<Vec<(FlowId, Ends)>>;

/// Starts sampling the sockets of one host. Samples are sent when something in them changed, each
/// with the one before it, which says when it still was as it had been.
pub(crate) fn start_sampler(
    namespace: &Namespace,
    source: Source,
    addresses: &Addresses,
    followed: Followed,
    pace: Pace,
    sink: Sink,
    stirred: Arc<Notify>,
) -> Result<Running> {
    let diag = SocketDiag::open(namespace)?;
    let sampler = Sampler {
        diag,
        addresses: addresses.clone(),
        followed,
        pace,
        output: Output { source, sink },
        sockets: Vec::new(),
    };
    Ok(run(move |stop| sampler.run(stirred, stop)))
}

struct Sampler {
    diag: SocketDiag,
    addresses: Addresses,
    followed: Followed,
    pace: Pace,
    output: Output,
    sockets: Vec<Sampled>,
}

impl Sampler {
    async fn run(mut self, stirred: Arc<Notify>, mut stop: oneshot::Receiver<()>) {
        self.follow();
        loop {
            let due = self.look();
            let pause = async {
                match due {
                    Some(due) => tokio::time::sleep(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = pause => {}
                () = stirred.notified() => {
                    self.search();
                    if let Some(pause) = self.pause() {
                        tokio::time::sleep(pause).await;
                    }
                }
                Ok(()) = self.followed.changed() => self.follow(),
                _ = &mut stop => {
                    self.look();
                    self.sockets.iter_mut().for_each(|socket| socket.send_last(&self.output));
                    return;
                }
            }
        }
    }

    /// How long to wait before the next look, if the last was just now and nothing is lost by waiting
    /// for what else comes: an exchange of data stirs both hosts a dozen times, and each look costs two
    /// system calls for each socket.
    fn pause(&self) -> Option<Duration> {
        if self.pace.closely {
            return None;
        }
        let looked = self.sockets.iter().filter_map(|socket| socket.last.as_ref());
        let latest_ns = looked.map(|(at_ns, _)| *at_ns).max().unwrap_or(0);
        let living = self.sockets.iter().filter(|socket| !socket.is_gone).count();
        let pause = CROWDED * u32::try_from(living).unwrap_or(u32::MAX).clamp(1, CROWDED_MOST);
        (monotonic_ns() < latest_ns + pause.as_nanos() as u64).then_some(pause)
    }

    /// Looks for a connection that neither a SYN on the wire nor a tracepoint has shown: where its
    /// host gets no answer for a link-layer address. It costs a look at every socket of the machine.
    fn search(&mut self) {
        if !self.pace.closely || self.sockets.iter().any(|socket| !socket.is_gone) {
            return;
        }
        let Some(own) = self.own() else { return };
        let others = Part::ALL.into_iter().filter_map(|part| self.addresses.of(part));
        let mut found = Vec::new();
        for other in others.filter(|other| other.ip() != own) {
            found.extend(self.diag.connections(own, other.ip()).unwrap_or_default());
        }
        for (local, remote) in found {
            let ends = Ends::between(&self.addresses, local, remote).map(|(ends, _)| ends);
            if let Ok(Some(sample)) = self.diag.sample(local, remote) {
                let what = What::Socket(Box::new(sample));
                let event = Event::new(monotonic_ns(), self.output.source, what);
                let _ = self.output.sink.send(Seen::Event(event, ends));
            }
        }
    }

    /// Learns of new connections, and forgets those whose ports are used again.
    fn follow(&mut self) {
        let followed = self.followed.borrow_and_update().clone();
        for socket in &mut self.sockets {
            if !followed.iter().any(|(flow, _)| *flow == socket.flow) {
                socket.send_last(&self.output);
            }
        }
        self.sockets.retain(|socket| followed.iter().any(|(flow, _)| *flow == socket.flow));
        let own = self.own();
        for (flow, ends) in followed {
            // Of three hosts, one has no end of it.
            let here = [Side::Client, Side::Server].map(|side| ends.seen_from(side));
            let here = here.into_iter().find(|(local, _)| Some(local.ip()) == own);
            if let Some(here) = here
                && !self.sockets.iter().any(|socket| socket.flow == flow)
            {
                self.sockets.push(Sampled::new(flow, here));
            }
        }
    }

    /// The address of its host.
    fn own(&self) -> Option<IpAddr> {
        let part = self.output.source.part()?;
        self.addresses.of(part).map(|address| address.ip())
    }

    /// Looks once at every socket, and says when to look again.
    fn look(&mut self) -> Option<Duration> {
        let Self { diag, pace, output, sockets, .. } = self;
        let living = sockets.iter_mut().filter(|socket| !socket.is_gone);
        living.filter_map(|socket| socket.look(diag, *pace, output)).min()
    }
}

/// Two looks within such a time for each socket are one.
const CROWDED: Duration = Duration::from_millis(1);
/// No pause is longer than this many.
const CROWDED_MOST: u32 = 50;

/// Where samples go, and as whose.
struct Output {
    source: Source,
    sink: Sink,
}

/// One socket.
struct Sampled {
    flow: FlowId,
    local: SocketAddr,
    remote: SocketAddr,
    /// The last look: when it began, and what it showed.
    last: Option<(u64, Option<SocketSample>)>,
    sent_ns: u64,
    mini: Option<MiniSocket>,
    random: Option<Random>,
    /// It was there, and the kernel has closed it.
    is_gone: bool,
}

impl Sampled {
    fn new(flow: FlowId, (local, remote): (SocketAddr, SocketAddr)) -> Self {
        Self {
            flow,
            local,
            remote,
            last: None,
            sent_ns: 0,
            mini: None,
            random: None,
            is_gone: false,
        }
    }

    /// Looks once, and says when to look again.
    fn look(&mut self, diag: &mut SocketDiag, pace: Pace, output: &Output) -> Option<Duration> {
        let next = self.look_once(diag, pace, output);
        if !pace.at_random {
            return next;
        }
        let Some((at_ns, Some(sample))) = self.last.clone() else { return next };
        let now_ns = monotonic_ns();
        let mut random = self.random.unwrap_or_else(|| Random::new(self.local.port(), now_ns));
        if random.due_ns <= now_ns {
            random = random.next(now_ns);
            if at_ns > self.sent_ns {
                self.send(at_ns, Some(&sample), output);
            }
        }
        self.random = Some(random);
        let due = Duration::from_nanos(random.due_ns.saturating_sub(now_ns));
        Some(next.map_or(due, |next| next.min(due)))
    }

    fn look_once(
        &mut self,
        diag: &mut SocketDiag,
        pace: Pace,
        output: &Output,
    ) -> Option<Duration> {
        let Look { began_ns, ended_ns, sample } = match diag.look(self.local, self.remote) {
            Ok(look) => look,
            Err(error) => {
                tracing::warn!("socket diagnostics failed: {error}");
                return pace.every;
            }
        };
        let changed = match &self.last {
            None => sample.is_some(),
            Some((_, before)) => differs(before.as_ref(), sample.as_ref()),
        };
        if changed {
            self.send_last(output);
            // What is new was so at the latest when the look ended.
            self.send(ended_ns, sample.as_ref(), output);
        } else if sample.is_some()
            && ended_ns - self.sent_ns > 1_000_000_000
            && pace.every.is_some()
        {
            self.send(ended_ns, sample.as_ref(), output);
        }
        self.is_gone = changed && sample.is_none();
        let timer = sample.as_ref().filter(|sample| sample.timer != 0);
        let timer_ms = timer.map(|sample| u64::from(sample.timer_expires_ms));
        let is_mini = timer.is_some_and(|sample| sample.timer == MiniSocket::TIMER);
        self.mini = timer_ms
            .filter(|_| is_mini)
            // One whose timer was set anew gets another slot.
            .map(|ms| match self.mini {
                Some(mini) if ms == 0 || ended_ns < mini.due_ns => mini,
                _ => MiniSocket::new(ms, ended_ns),
            });
        if changed || self.last.is_some() || sample.is_some() {
            self.last = Some((began_ns, sample));
        }
        match self.mini {
            Some(mini) => {
                let next = mini.next(ended_ns);
                Some(pace.every.map_or(next, |every| every.min(next)))
            }
            None => pace.next(timer_ms),
        }
    }

    /// Sends the look before this one, unless it was sent already.
    fn send_last(&mut self, output: &Output) {
        if let Some((at_ns, sample)) = self.last.take()
            && at_ns > self.sent_ns
        {
            self.send(at_ns, sample.as_ref(), output);
        }
    }

    fn send(&mut self, at_ns: u64, sample: Option<&SocketSample>, output: &Output) {
        let what = match sample {
            Some(sample) => What::Socket(Box::new(sample.clone())),
            None => What::SocketGone,
        };
        self.sent_ns = at_ns;
        let event = Event::new(at_ns, output.source, what).of(self.flow);
        let _ = output.sink.send(Seen::Event(event, None));
    }
}

/// Whether two looks differ in something that matters: not in counters that only age.
fn differs(before: Option<&SocketSample>, after: Option<&SocketSample>) -> bool {
    match (before, after) {
        (None, None) => false,
        (Some(before), Some(after)) => {
            let key = |s: &SocketSample| {
                let info = s.info.as_ref();
                (
                    s.state.clone(),
                    s.timer,
                    s.timer_count,
                    s.receive_queue,
                    s.send_queue,
                    info.map(|info| (info.total_retrans, info.backoff, info.probes)),
                )
            };
            key(before) != key(after)
        }
        _ => true,
    }
}
