//! Captures what passes a host's interface.

use super::{Polled, Running, Seen, Sink, polled, run};
use crate::channel::Capture;
use anyhow::{Context, Result};
use netns::Namespace;
use observe::Tap;
use observe::clock::monotonic_ns;
use report::Clock;
use spec::Addresses;
use std::sync::Arc;
use timeline::{Event, Source, What};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, oneshot};

/// Starts capturing on a host's interface. `stirred` is notified of every batch of packets.
pub(crate) fn start_tap(
    namespace: &Namespace,
    interface: &str,
    source: Source,
    addresses: &Addresses,
    clock: Clock,
    sink: Sink,
    stirred: Arc<Notify>,
) -> Result<Running> {
    // Nobody is there to set a virtual kernel's clock.
    let tap = Tap::open(namespace, interface, source, addresses, clock == Clock::Real)?;
    let filter = tap.filter()?;
    let tap = polled(tap).context("waiting for a tap")?;
    let running = run(move |stop| tap_packets(tap, source, clock, sink, stirred, stop));
    Ok(Running { filter: Some(filter), ..running })
}

async fn tap_packets(
    mut tap: AsyncFd<Polled<Tap>>,
    source: Source,
    clock: Clock,
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
            let mut tap = tap.into_inner().0;
            let finished = tap.finish(&mut batch);
            send_captured(&mut batch, &sink);
            tell_failure(finished, source, &sink);
            return close(tap, clock).await;
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

/// Closing a packet socket waits until no processor uses it any more (`synchronize_net` in
/// `packet_release`, net/packet/af_packet.c): some 10 ms, in which a thread of the runtime would do
/// nothing else. A virtual kernel has one processor, and waits for none.
async fn close(tap: Tap, clock: Clock) {
    match clock {
        Clock::Real => {
            let _ = tokio::task::spawn_blocking(move || drop(tap)).await;
        }
        Clock::Virtual => drop(tap),
    }
}

/// An instrument that failed on the way is an event: its silence would look like evidence.
fn tell_failure(result: Result<(), observe::Error>, source: Source, sink: &Sink) {
    if let Err(error) = result {
        let what =
            What::InstrumentMissing { instrument: format!("{source}"), why: error.to_string() };
        let _ = sink.send(Seen::Event(Event::new(monotonic_ns(), source, what), None));
    }
}

fn send_captured(batch: &mut Vec<observe::Captured>, sink: &Sink) {
    for captured in batch.drain(..) {
        let seen = if let What::Lost { .. } | What::WallClockSet { .. } = captured.event.what {
            Seen::Event(captured.event, None)
        } else {
            let capture = Capture {
                event: captured.event,
                wall_ns: captured.wall_ns,
                wire_len: captured.wire_len,
                frame: captured.frame,
            };
            Seen::Capture(capture, captured.ends)
        };
        // Nobody listens when the trial has ended.
        let _ = sink.send(seen);
    }
}
