//! The instruments of a trial: taps, socket diagnostics, tracepoints, and a watch on the machine
//! itself. Each is a task that sends what it saw to the trial; none changes what it watches.

use crate::channel::Capture;
use anyhow::{Context, Result};
use model::tick::Hz;
use model::wheel::Wheel;
use netns::Namespace;
use observe::clock::{hz, jiffy_clock, monotonic_ns};
use observe::{SocketDiag, Tap, Tracer};
use report::Clock;
use spec::Addresses;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use timeline::event::SocketSample;
use timeline::{Event, Source, What};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

/// What an instrument saw.
#[derive(Debug, Clone)]
pub(crate) enum Seen {
    Event(Event),
    Capture(Capture),
}

/// Where a trial's instruments send what they saw.
pub(crate) type Sink = mpsc::UnboundedSender<Seen>;

/// A running instrument. Dropping it ends its task; [`Running::stop`] lets it finish in order.
pub(crate) struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    /// Takes what is left to see, closes the instrument's descriptors, and waits until they are
    /// closed: an open one would keep its namespace alive.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        // A task that panicked has lost its instrument; its silence shows in the evidence.
        let _ = self.task.await;
    }
}

/// Starts capturing on a host's interface. `stirred` is notified of every batch of packets.
pub(crate) fn start_tap(
    namespace: &Namespace,
    interface: &str,
    source: Source,
    addresses: &Addresses,
    sink: Sink,
    stirred: Arc<Notify>,
) -> Result<Running> {
    let tap = Tap::open(namespace, interface, source, addresses)?;
    let tap = polled(tap).context("waiting for a tap")?;
    Ok(run(move |stop| tap_packets(tap, source, sink, stirred, stop)))
}

async fn tap_packets(
    mut tap: AsyncFd<Polled<Tap>>,
    source: Source,
    sink: Sink,
    stirred: Arc<Notify>,
    mut stop: oneshot::Receiver<()>,
) {
    let mut batch = Vec::new();
    loop {
        let stopped = tokio::select! {
            ready = tap.readable_mut() => match ready {
                Ok(mut ready) => {
                    ready.clear_ready();
                    false
                }
                Err(_) => true,
            },
            _ = &mut stop => true,
        };
        if stopped {
            let finished = tap.into_inner().0.finish(&mut batch);
            send_captured(&mut batch, &sink);
            return tell_failure(finished, source, &sink);
        }
        if let Err(error) = tap.get_mut().0.drain(&mut batch) {
            send_captured(&mut batch, &sink);
            return tell_failure(Err(error), source, &sink);
        }
        if !batch.is_empty() {
            stirred.notify_one();
        }
        send_captured(&mut batch, &sink);
    }
}

/// An instrument that failed on the way is an event: its silence would look like evidence.
fn tell_failure(result: Result<(), observe::Error>, source: Source, sink: &Sink) {
    if let Err(error) = result {
        let what =
            What::InstrumentMissing { instrument: format!("{source}"), why: error.to_string() };
        let _ = sink.send(Seen::Event(Event::new(monotonic_ns(), source, what)));
    }
}

fn send_captured(batch: &mut Vec<observe::Captured>, sink: &Sink) {
    for captured in batch.drain(..) {
        let seen = match captured.event.what {
            What::Lost { .. } => Seen::Event(captured.event),
            _ => Seen::Capture(Capture {
                event: captured.event,
                wall_ns: captured.wall_ns,
                wire_len: captured.wire_len,
                frame: hex(&captured.frame),
            }),
        };
        // Nobody listens when the trial has ended.
        let _ = sink.send(seen);
    }
}

/// An instrument as tokio wants it: instruments lend their descriptors, tokio asks for numbers.
struct Polled<T>(T);

impl<T: AsFd> AsRawFd for Polled<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe since AsRawFd promises nothing; AsFd, which `Polled` asks \
              for, promises what it wants"
)]
fn polled<T: AsFd>(instrument: T) -> std::io::Result<AsyncFd<Polled<T>>> {
    AsyncFd::new(Polled(instrument))
}

/// How often socket diagnostics look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// At most this long between two looks; `None`: only when something stirs.
    every: Option<Duration>,
    /// Whether to look every millisecond while a timer is due: that is when connections end.
    closely: bool,
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
        Self { every, closely: !traced && clock == Clock::Real }
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

/// Starts sampling a socket. Samples are sent when something in them changed, each with the one
/// before it, which says when it still was as it had been.
pub(crate) fn start_sampler(
    namespace: &Namespace,
    source: Source,
    local: SocketAddr,
    remote: SocketAddr,
    pace: Pace,
    sink: Sink,
    stirred: Arc<Notify>,
) -> Result<Running> {
    let diag = SocketDiag::open(namespace)?;
    let sampler = Sampler { diag, source, local, remote, sink, last: None, sent_ns: 0, mini: None };
    Ok(run(move |stop| sampler.run(pace, stirred, stop)))
}

struct Sampler {
    diag: SocketDiag,
    source: Source,
    local: SocketAddr,
    remote: SocketAddr,
    sink: Sink,
    /// The last look: when it began, and what it showed.
    last: Option<(u64, Option<SocketSample>)>,
    sent_ns: u64,
    mini: Option<MiniSocket>,
}

impl Sampler {
    async fn run(mut self, pace: Pace, stirred: Arc<Notify>, mut stop: oneshot::Receiver<()>) {
        loop {
            let due = self.look(pace);
            let pause = async {
                match due {
                    Some(due) => tokio::time::sleep(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = pause => {}
                () = stirred.notified() => {}
                _ = &mut stop => {
                    self.look(pace);
                    self.send_last();
                    return;
                }
            }
        }
    }

    /// Looks once, and says when to look again.
    fn look(&mut self, pace: Pace) -> Option<Duration> {
        let began_ns = monotonic_ns();
        let sample = match self.diag.sample(self.local, self.remote) {
            Ok(sample) => sample,
            Err(error) => {
                tracing::warn!("socket diagnostics failed: {error}");
                return pace.every;
            }
        };
        let ended_ns = monotonic_ns();
        let changed = match &self.last {
            None => sample.is_some(),
            Some((_, before)) => differs(before.as_ref(), sample.as_ref()),
        };
        if changed {
            self.send_last();
            // What is new was so at the latest when the look ended.
            self.send(ended_ns, sample.as_ref());
        } else if sample.is_some()
            && ended_ns - self.sent_ns > 1_000_000_000
            && pace.every.is_some()
        {
            self.send(ended_ns, sample.as_ref());
        }
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
    fn send_last(&mut self) {
        if let Some((at_ns, sample)) = self.last.take()
            && at_ns > self.sent_ns
        {
            self.send(at_ns, sample.as_ref());
        }
    }

    fn send(&mut self, at_ns: u64, sample: Option<&SocketSample>) {
        let what = match sample {
            Some(sample) => What::Socket(Box::new(sample.clone())),
            None => What::SocketGone,
        };
        self.sent_ns = at_ns;
        let _ = self.sink.send(Seen::Event(Event::new(at_ns, self.source, what)));
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

/// What every trial of this process shares: the tracepoints, and the watch on lateness.
#[derive(Clone, Default)]
pub(crate) struct Shared {
    sinks: Arc<Mutex<HashMap<usize, Sink>>>,
    tracer: Option<Arc<Mutex<Tracer>>>,
    /// What there is not, or not wholly, and why.
    missing: Vec<(String, String)>,
}

impl Shared {
    /// Opens the tracepoints if they are to be had, and starts watching the machine.
    pub(crate) fn start(clock: Clock) -> Self {
        let mut shared = Self::default();
        match trace(&shared.sinks) {
            Ok(tracer) => {
                let missing = lock(&tracer).missing().to_vec();
                shared.missing = missing.into_iter().map(|m| (m.instrument, m.why)).collect();
                shared.tracer = Some(tracer);
            }
            Err(error) => shared.missing.push(("tracepoints".into(), format!("{error:#}"))),
        }
        if clock == Clock::Real {
            let sinks = shared.sinks.clone();
            let watch = move || watch_lateness(&sinks);
            if let Err(error) = std::thread::Builder::new().name("lateness".into()).spawn(watch) {
                tracing::warn!("nobody watches for scheduling delay: {error}");
            }
        }
        shared
    }

    /// Whether tracepoints are on.
    pub(crate) fn traced(&self) -> bool {
        self.tracer.is_some()
    }

    /// From now on the trial hears of its sockets' tracepoints and of scheduling delay; first of
    /// all, of what there is not.
    pub(crate) fn join(&self, trial: usize, addresses: &Addresses, sink: Sink) {
        for (instrument, why) in &self.missing {
            let what = What::InstrumentMissing { instrument: instrument.clone(), why: why.clone() };
            let event = Event::new(monotonic_ns(), Source::Instrument, what);
            let _ = sink.send(Seen::Event(event));
        }
        lock(&self.sinks).insert(trial, sink);
        if let Some(tracer) = &self.tracer {
            lock(tracer).watch(trial, addresses);
        }
    }

    /// The last events, and no more after them.
    pub(crate) fn leave(&self, trial: usize) {
        if let Some(tracer) = &self.tracer {
            let mut tracer = lock(tracer);
            deliver(&mut tracer, &self.sinks);
            tracer.unwatch(trial);
        }
        lock(&self.sinks).remove(&trial);
    }
}

/// Where tracefs is mounted if it is not yet: in this process's own mount namespace, so that the
/// machine's mounts stay as they are.
pub(crate) const TRACEFS: &str = "/sys/kernel/tracing";

/// Opens the tracepoints, and a task that hands their events to the trials.
fn trace(sinks: &Arc<Mutex<HashMap<usize, Sink>>>) -> Result<Arc<Mutex<Tracer>>> {
    let tracer = Tracer::open(Some(Path::new(TRACEFS)))?;
    let descriptor = tracer.as_fd().try_clone_to_owned().context("waiting for tracepoints")?;
    let ready = polled(descriptor).context("waiting for tracepoints")?;
    let tracer = Arc::new(Mutex::new(tracer));
    let (drained, sinks) = (tracer.clone(), sinks.clone());
    tokio::spawn(async move {
        while let Ok(mut guard) = ready.readable().await {
            guard.clear_ready();
            deliver(&mut lock(&drained), &sinks);
        }
    });
    Ok(tracer)
}

fn deliver(tracer: &mut Tracer, sinks: &Mutex<HashMap<usize, Sink>>) {
    let sinks = lock(sinks);
    tracer.drain(&mut |trial, event| {
        if let Some(sink) = sinks.get(&trial) {
            let _ = sink.send(Seen::Event(event));
        }
    });
}

/// Sleeps and looks how late it wakes. What delays this thread may delay peers and instruments.
fn watch_lateness(sinks: &Mutex<HashMap<usize, Sink>>) {
    const SLEEP: Duration = Duration::from_millis(5);
    const WORTH_TELLING_NS: u64 = 2_000_000;
    loop {
        let before = monotonic_ns();
        std::thread::sleep(SLEEP);
        let at_ns = monotonic_ns();
        let by_ns = (at_ns - before).saturating_sub(SLEEP.as_nanos() as u64);
        if by_ns >= WORTH_TELLING_NS {
            let event = Event::new(at_ns, Source::Instrument, What::Late { by_ns });
            for sink in lock(sinks).values() {
                let _ = sink.send(Seen::Event(event.clone()));
            }
        }
    }
}

fn run<F: Future<Output = ()> + Send + 'static>(
    task: impl FnOnce(oneshot::Receiver<()>) -> F,
) -> Running {
    let (stop, stopped) = oneshot::channel();
    Running { stop, task: tokio::spawn(task(stopped)) }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
    }
    text
}
