//! What the trials of a process share: the tracepoints, and the watch on the machine.

use super::{Seen, Sink, polled};
use anyhow::{Context, Result};
use observe::Tracer;
use observe::clock::{self, monotonic_ns};
use report::Clock;
use spec::Addresses;
use spec::facts::JiffyClock;
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use timeline::event::LATE_LEAST_NS;
use timeline::{Event, Source, What};

/// What every trial of this process shares: the tracepoints, and the watch on lateness.
#[derive(Clone, Default)]
pub(crate) struct Shared {
    sinks: Arc<Mutex<HashMap<usize, Sink>>>,
    tracer: Option<Arc<Mutex<Tracer>>>,
    /// What there is not, or not wholly, and why.
    missing: Vec<(String, String)>,
}

impl Shared {
    /// Opens the tracepoints if the machine has them, and starts watching the machine.
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
                tracing::warn!("scheduling delays are not recorded: {error}");
            }
        }
        shared
    }

    /// Whether tracepoints are on.
    pub(crate) fn traced(&self) -> bool {
        self.tracer.is_some()
    }

    /// From now on the trial gets its sockets' tracepoints and scheduling delays; first of all,
    /// which instruments are missing.
    pub(crate) fn join(&self, trial: usize, addresses: &Addresses, sink: Sink) {
        for (instrument, why) in &self.missing {
            let what = What::InstrumentMissing { instrument: instrument.clone(), why: why.clone() };
            let event = Event::new(monotonic_ns(), Source::Instrument, what);
            let _ = sink.send(Seen::Event(event, None));
        }
        lock(&self.sinks).insert(trial, sink);
        if let Some(tracer) = &self.tracer {
            lock(tracer).watch(trial, addresses);
        }
    }

    /// Which jiffy it is at which moment, by all that shows it. Where time is virtual no interrupt is
    /// late, but some are lost.
    pub(crate) fn jiffy_clock(&self, time: Clock) -> Option<JiffyClock> {
        if time == Clock::Virtual {
            return clock::jiffy_clock_now();
        }
        let clock = clock::jiffy_clock()?;
        let seen = self.tracer.as_ref().and_then(|tracer| lock(tracer).jiffy_clock());
        Some(seen.map_or(clock, |seen| clock::not_behind(clock, seen)))
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
    tracer.drain(&mut |trial, ends, event| {
        if let Some(sink) = sinks.get(&trial) {
            let _ = sink.send(Seen::Event(event, ends));
        }
    });
}

/// Sleeps and looks how late it wakes. What delays this thread may delay peers and instruments.
/// After a suspend, which stops the monotonic clock, it may have slept for much longer.
fn watch_lateness(sinks: &Mutex<HashMap<usize, Sink>>) {
    const SLEEP: Duration = Duration::from_millis(5);
    /// Two clocks are read one after the other: what a thread waits between the two is no suspend.
    const SUSPENDED_NS: u64 = 500_000_000;
    let mut suspended_ns = clock::suspended_ns();
    loop {
        let before = monotonic_ns();
        std::thread::sleep(SLEEP);
        let at_ns = monotonic_ns();
        let tell = |what: What| {
            let event = Event::new(at_ns, Source::Instrument, what);
            for sink in lock(sinks).values() {
                let _ = sink.send(Seen::Event(event.clone(), None));
            }
        };
        let by_ns = (at_ns - before).saturating_sub(SLEEP.as_nanos() as u64);
        if by_ns >= LATE_LEAST_NS {
            tell(What::Late { by_ns });
        }
        let now_ns = clock::suspended_ns();
        if now_ns > suspended_ns + SUSPENDED_NS {
            tell(What::Suspended { for_ns: now_ns - suspended_ns });
            suspended_ns = now_ns;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
