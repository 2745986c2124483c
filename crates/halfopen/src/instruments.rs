//! The instruments of a trial: taps, socket diagnostics, tracepoints, and a watch on the machine
//! itself. Each is a task that sends what it saw to the trial; none changes what it watches.

mod sampler;
mod shared;
mod tap;

use crate::channel::Capture;
use observe::tap::TapFilter;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use timeline::{Ends, Event};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub(crate) use sampler::{Followed, Pace, start_sampler};
pub(crate) use shared::{Shared, TRACEFS};
pub(crate) use tap::start_tap;

/// What an instrument saw, and the ends of the connection that it is about where the event does not
/// name that yet.
#[derive(Debug, Clone)]
pub(crate) enum Seen {
    Event(Event, Option<Ends>),
    Capture(Capture, Option<Ends>),
}

/// Where a trial's instruments send what they saw.
pub(crate) type Sink = mpsc::UnboundedSender<Seen>;

/// A running instrument. Dropping it ends its task; [`Running::stop`] lets it finish in order.
pub(crate) struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    /// Of a tap.
    filter: Option<TapFilter>,
}

impl Running {
    /// Has a tap leave out exchanges of data from now on, or not.
    pub(crate) fn leave_out_exchanges(&self, leave_out: bool) -> Result<(), observe::Error> {
        self.filter.as_ref().map_or(Ok(()), |filter| filter.leave_out_exchanges(leave_out))
    }

    /// Takes what is left to see, closes the instrument's descriptors, and waits until they are
    /// closed: an open one would keep its namespace alive.
    pub(crate) async fn stop(self) {
        drop((self.stop, self.filter));
        // A task that panicked has lost its instrument; its silence shows in the evidence.
        let _ = self.task.await;
    }
}

fn run<F: Future<Output = ()> + Send + 'static>(
    task: impl FnOnce(oneshot::Receiver<()>) -> F,
) -> Running {
    let (stop, stopped) = oneshot::channel();
    Running { stop, task: tokio::spawn(task(stopped)), filter: None }
}

/// An instrument or a timer as tokio wants it: they lend their descriptors, tokio asks for numbers.
pub(crate) struct Polled<T>(T);

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
pub(crate) fn polled<T: AsFd>(descriptor: T) -> std::io::Result<AsyncFd<Polled<T>>> {
    AsyncFd::new(Polled(descriptor))
}
