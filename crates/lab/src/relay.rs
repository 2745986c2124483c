//! Delay without netem: a thread that takes frames off one port, holds them, and puts them on the
//! other, by packet sockets. It stands in the place of the bridge's forwarding.
//!
//! The hosts' ends must not leave checksums or segmentation to the interface (see
//! [`crate::offload`]): the frames the thread sees would not be fit to send.

use crate::error::Error;
use crate::filter::{Filter, Port};
use crate::link::Index;
use netns::Namespace;
use netns::packet::PacketSocket;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::prctl;
use nix::sys::socket::{self, ControlMessageOwned, MsgFlags};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use spec::Sieve;
use std::collections::VecDeque;
use std::io::{self, IoSliceMut, PipeReader, PipeWriter};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// The relay: it ends with this.
#[derive(Debug)]
pub(crate) struct Relay {
    shared: Arc<Shared>,
    hold: Duration,
    thread: Option<JoinHandle<()>>,
    /// The thread ends when this is closed.
    lifeline: Option<PipeWriter>,
}

/// What the thread and its owner both look at.
#[derive(Debug)]
struct Shared {
    /// By [`Port`].
    sockets: [PacketSocket; 2],
    /// Which frames are dropped on arrival.
    filter: Mutex<Option<Filter>>,
    /// When frames on their way to the server were last dropped, nanoseconds of `CLOCK_MONOTONIC`:
    /// the thread looks at its queues only when a frame comes or is due.
    flushed_ns: AtomicU64,
    /// Frames that could not be sent though the port was up.
    lost: AtomicU64,
}

impl Relay {
    /// Starts a relay that holds each frame for `hold`, in the switch's namespace; its ports are
    /// still to be attached.
    pub(crate) fn start(namespace: &Namespace, hold: Duration) -> Result<Self, Error> {
        let failed = |source| Error::kernel("starting the relay that delays frames", source);
        let sockets = namespace
            .run(|| Ok([open()?, open()?]))
            .map_err(|source| Error::Namespace { doing: "starting the relay", source })?
            .map_err(|errno: Errno| failed(errno.into()))?;
        let shared = Arc::new(Shared {
            sockets,
            filter: Mutex::new(None),
            flushed_ns: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        let (ended, lifeline) = io::pipe().map_err(failed)?;
        let thread = std::thread::Builder::new()
            .name("relay".into())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run(hold, &ended)
            })
            .map_err(failed)?;
        Ok(Self { shared, hold, thread: Some(thread), lifeline: Some(lifeline) })
    }

    /// Whether it holds frames for a while.
    pub(crate) fn holds(&self) -> bool {
        !self.hold.is_zero()
    }

    /// Attaches a port, which must exist and be up: at first, and when it is a new one.
    pub(crate) fn attach(&self, port: Port, index: Index) -> Result<(), Error> {
        self.shared.sockets[port as usize].bind(index).map_err(|errno| {
            Error::kernel(format!("attaching port {index} to the relay"), errno.into())
        })
    }

    /// Drops these frames from now on, or none; what is being held still arrives.
    pub(crate) fn sieve(&self, sieve: Option<Sieve>) {
        *self.shared.filter() = sieve.map(Filter::new);
    }

    /// Drops what is being held for the server.
    pub(crate) fn flush_to_server(&self) {
        self.shared.flushed_ns.store(now().as_nanos() as u64, Ordering::Release);
    }

    /// Frames that should have passed and did not: the kernel had no room for them.
    pub(crate) fn lost(&self) -> u64 {
        let overruns =
            self.shared.sockets.iter().map(|socket| socket.take_drops().unwrap_or(0)).sum();
        self.shared.lost.fetch_add(overruns, Ordering::AcqRel) + overruns
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.lifeline.take();
        if let Some(thread) = self.thread.take() {
            // A panic in it has been reported where it happened.
            thread.join().ok();
        }
    }
}

/// A frame on its way.
struct Held {
    /// `CLOCK_MONOTONIC`.
    due: Duration,
    bytes: Vec<u8>,
}

impl Shared {
    fn run(&self, hold: Duration, lifeline: &PipeReader) {
        // By default the kernel may wake a sleeper 50 µs late.
        prctl::set_timerslack(1).ok();
        let mut buffer = vec![0; 1 << 16];
        // By the port they came from.
        let mut queues = [VecDeque::<Held>::new(), VecDeque::new()];
        loop {
            let due = queues.iter().filter_map(VecDeque::front).map(|frame| frame.due).min();
            let patience = due.map(|due| TimeSpec::from_duration(due.saturating_sub(now())));
            let [near, server] = &self.sockets;
            let mut polled = [
                PollFd::new(near.as_fd(), PollFlags::POLLIN),
                PollFd::new(server.as_fd(), PollFlags::POLLIN),
                PollFd::new(lifeline.as_fd(), PollFlags::POLLIN),
            ];
            match ppoll(&mut polled, patience, None) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => {
                    tracing::error!(%errno, "the relay that delays frames cannot wait");
                    return;
                }
            }
            if polled[2].any().unwrap_or(true) {
                return;
            }
            for port in [Port::Near, Port::Server] {
                if polled[port as usize].any().unwrap_or(true) {
                    self.take(port, hold, &mut buffer, &mut queues[port as usize]);
                }
            }
            let flushed = Duration::from_nanos(self.flushed_ns.load(Ordering::Acquire));
            queues[Port::Near as usize].retain(|frame| frame.due >= flushed + hold);
            for (port, other) in [(Port::Near, Port::Server), (Port::Server, Port::Near)] {
                let queue = &mut queues[port as usize];
                while queue.front().is_some_and(|frame| frame.due <= now()) {
                    if let Some(frame) = queue.pop_front() {
                        self.put(other, &frame.bytes);
                    }
                }
            }
        }
    }

    /// Takes the frames that have arrived.
    fn take(&self, port: Port, hold: Duration, buffer: &mut [u8], queue: &mut VecDeque<Held>) {
        let socket = self.sockets[port as usize].as_raw_fd();
        let mut control = nix::cmsg_space!(TimeSpec);
        loop {
            let mut parts = [IoSliceMut::new(buffer)];
            let received = socket::recvmsg::<()>(
                socket,
                &mut parts,
                Some(&mut control),
                MsgFlags::MSG_DONTWAIT,
            );
            let (len, arrived) = match received {
                Ok(message) => (message.bytes, arrival(&message)),
                // ENETDOWN is said once when the port goes down.
                Err(Errno::ENETDOWN | Errno::EINTR) => continue,
                Err(_) => return,
            };
            let frame = &buffer[..len];
            let dropped = self.filter().as_mut().is_some_and(|filter| filter.drops(port, frame));
            if !dropped {
                queue.push_back(Held { due: arrived + hold, bytes: frame.to_vec() });
            }
        }
    }

    fn filter(&self) -> MutexGuard<'_, Option<Filter>> {
        self.filter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a frame; without effect into a port that is down or gone.
    fn put(&self, port: Port, frame: &[u8]) {
        let socket = self.sockets[port as usize].as_raw_fd();
        match socket::send(socket, frame, MsgFlags::empty()) {
            Ok(_) | Err(Errno::ENETDOWN | Errno::ENXIO | Errno::ENODEV) => {}
            Err(_) => {
                self.lost.fetch_add(1, Ordering::AcqRel);
            }
        }
    }
}

/// When a frame arrived at the port, on `CLOCK_MONOTONIC`: the thread may have been late.
fn arrival(message: &socket::RecvMsg<'_, '_, ()>) -> Duration {
    let stamp = message.cmsgs().ok().and_then(|mut messages| {
        messages.find_map(|message| match message {
            ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
            _ => None,
        })
    });
    let wall = clock_gettime(ClockId::CLOCK_REALTIME).map(Duration::from).unwrap_or_default();
    let age = stamp.and_then(|stamp| wall.checked_sub(stamp)).unwrap_or_default();
    // The wall clock may have been set in between: no frame has waited for a second.
    if age > Duration::from_secs(1) { now() } else { now().saturating_sub(age) }
}

fn now() -> Duration {
    Duration::from_nanos(netns::monotonic_ns())
}

fn open() -> Result<PacketSocket, Errno> {
    let socket = PacketSocket::open()?;
    socket.enlarge_buffer(4 << 20)?;
    socket.ignore_outgoing()?;
    Ok(socket)
}
