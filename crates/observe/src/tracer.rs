//! The kernel's tracepoints for the trials' sockets: state changes, errors, retransmissions,
//! resets, timers.
//!
//! They come through a tracefs instance, which sees every record. BPF programs on the same
//! tracepoints do not: they are skipped where one interrupts another (`trace_call_bpf`,
//! kernel/trace/bpf_trace.c), and were seen not to run at all, uncounted, in the interrupts of single
//! threads. The kernel leaves out the timers of everything else, and what concerns no trial is
//! thrown away at once.

mod attribution;
mod calibration;
mod format;
mod instance;
mod pages;
mod tracefs;
mod tracepoints;

use crate::{Error, clock};
use attribution::{Attribution, TimerPlaces};
use instance::Instance;
use spec::Addresses;
use spec::facts::JiffyClock;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use timeline::{Ends, Event, Source, What};
use tracepoints::{Kind, Reader, Saw, Sighting, TimerDid};

/// Watches every trial of a process at once.
///
/// Trace records carry no namespace: trials are told apart by their hosts' addresses, which must be
/// unique on the machine. Ports do not matter: connections are found as they appear.
///
/// The timers of a socket are attributed to it; `timer_start` fires when the kernel puts a timer
/// into a slot of its wheel. Moving one within the same slot fires nothing, though it changes
/// `expires` (`__mod_timer`, kernel/time/timer.c), and an expiry can find nothing to do: TCP clears
/// its timers lazily.
#[derive(Debug)]
pub struct Tracer {
    instance: Instance,
    readers: Vec<Reader>,
    attribution: Attribution,
    missing: Vec<Missing>,
    jiffies: JiffyEstimate,
    batch: Vec<(u64, Sighting)>,
}

/// Something the tracer would have liked to see on this kernel, and why it cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Which tracepoint, or what else.
    pub instrument: String,
    /// Why not.
    pub why: String,
}

/// Removes the tracefs instances that processes which were killed have left behind. Those in use
/// stay.
pub fn remove_stale_instances() {
    if let Some(tracefs) = tracefs::find() {
        instance::remove_stale(&tracefs);
    }
}

impl Tracer {
    /// Opens the tracepoints of the whole machine. Their numbers and layouts come from tracefs; if
    /// that is mounted nowhere, it is mounted at `mount_point`, which the caller gives only inside
    /// a mount namespace of its own.
    ///
    /// To tell whose a timer is, it connects to itself a few times in a network namespace of its
    /// own, which takes some milliseconds.
    ///
    /// # Errors
    /// [`Error::NoTracefs`], [`Error::TracingForbidden`], [`Error::NoTracepoint`],
    /// [`Error::TooManyFiles`], or [`Error::System`].
    pub fn open(mount_point: Option<&Path>) -> Result<Self, Error> {
        let tracefs = tracefs::find_or_mount(mount_point)?;
        let mut missing = Vec::new();
        let mut readers = Vec::new();
        for kind in Kind::ALL {
            match tracefs::reader(&tracefs, kind) {
                Ok(reader) => readers.push(reader),
                Err(why) if kind.is_indispensable() => {
                    return Err(Error::NoTracepoint { tracepoint: kind.path(), why });
                }
                Err(why) => missing.push(Missing { instrument: kind.path().into(), why }),
            }
        }
        let mut tracer = Self {
            instance: Instance::open(&tracefs, &readers)?,
            readers,
            attribution: Attribution::default(),
            missing,
            jiffies: JiffyEstimate::new(),
            batch: Vec::new(),
        };
        tracer.calibrate();
        Ok(tracer)
    }

    /// From now on the events of this trial's sockets are handed over with its key.
    pub fn watch(&mut self, key: usize, addresses: &Addresses) {
        self.attribution.watch(key, addresses);
    }

    /// No more of them.
    pub fn unwatch(&mut self, key: usize) {
        self.attribution.unwatch(key);
    }

    /// What this kernel does not offer.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Hands over every event that is waiting, with its trial's key and the ends of the connection
    /// that it is about, and never blocks. Within one call they are in the order of time; one can be
    /// older than the last of the call before, where another processor was slower to show it, or
    /// where a timer's socket became known only now. If records were lost for want of room, every
    /// trial is told.
    pub fn drain(&mut self, sink: &mut impl FnMut(usize, Option<Ends>, Event)) {
        let lost = self.collect();
        for (at_ns, sighting) in self.batch.drain(..) {
            self.attribution.take(at_ns, sighting, sink);
        }
        if lost > 0 {
            let at_ns = clock::monotonic_ns();
            for key in self.attribution.keys() {
                let what = What::Lost { count: lost };
                sink(key, None, Event::new(at_ns, Source::Tracepoint, what));
            }
        }
    }

    /// Which jiffy it is, from the timer records so far, of whosever sockets: that tick `jiffies`
    /// began at `at_ns` or a little earlier, by the least time that passed between a tick and such
    /// a record. [`clock::jiffy_clock`] has the exact grid of ticks, where it is available.
    pub fn jiffy_clock(&self) -> Option<JiffyClock> {
        self.jiffies.earliest
    }

    /// Reads what is waiting into the batch, in the order of time; returns how much was lost.
    fn collect(&mut self) -> u64 {
        let Self { instance, readers, batch, jiffies, .. } = self;
        let mut take = |at_ns: u64, record: &[u8]| {
            let Some(id) = record.first_chunk().copied().map(u16::from_ne_bytes) else { return };
            let reader = readers.iter().find(|reader| reader.id == id);
            if let Some(sighting) = reader.and_then(|reader| reader.read(record)) {
                jiffies.learn(at_ns, sighting);
                batch.push((at_ns, sighting));
            }
        };
        let lost = instance.drain(&mut take).unwrap_or_else(|error| {
            tracing::warn!("{error}");
            1
        });
        batch.sort_by_key(|(at_ns, _)| *at_ns);
        lost
    }

    fn calibrate(&mut self) {
        let measured = calibration::measure(|| {
            self.collect();
            std::mem::take(&mut self.batch)
        });
        match measured {
            Ok(places) => {
                self.attribution.set_places(places);
                self.restrict(places);
            }
            Err(why) => {
                self.missing.push(Missing { instrument: "the timers' sockets".into(), why });
            }
        }
    }

    /// Has the kernel leave out all other timers; without that, they are read and dropped.
    fn restrict(&mut self, TimerPlaces { write, keepalive }: TimerPlaces) {
        let functions = [write.function, keepalive.function];
        if let Err(error) = self.instance.restrict(&self.readers, &functions) {
            tracing::warn!("the timers of the whole machine are read: {error}");
        }
    }
}

impl AsFd for Tracer {
    /// Readable when something happened.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.instance.as_fd()
    }
}

impl AsRawFd for Tracer {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// The beginning of jiffies, as early as records show it to be.
#[derive(Debug)]
struct JiffyEstimate {
    tick_ns: u64,
    earliest: Option<JiffyClock>,
}

impl JiffyEstimate {
    fn new() -> Self {
        Self { tick_ns: clock::tick_ns(clock::hz()), earliest: None }
    }

    /// `jiffies` was read a moment before the record's time stamp.
    fn learn(&mut self, at_ns: u64, sighting: Sighting) {
        let Saw::Timer { did: TimerDid::Start { now, .. } | TimerDid::Expire { now, .. }, .. } =
            sighting.saw
        else {
            return;
        };
        let beginning = |clock: &JiffyClock| {
            i128::from(clock.at_ns) - i128::from(clock.jiffies) * i128::from(self.tick_ns)
        };
        let seen = JiffyClock { jiffies: now, at_ns };
        if self.earliest.is_none_or(|known| beginning(&seen) < beginning(&known)) {
            self.earliest = Some(seen);
        }
    }
}
