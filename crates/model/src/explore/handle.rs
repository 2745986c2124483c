//! One event of a run: what the socket, its world and its program make of it.

use super::event::hop_fires;
use super::{Event, Explorer};
use crate::kernel::Kernel;
use crate::program::Call;
use crate::run::Live;
use crate::step::{Effects, Progress, Step};
use crate::wheel::Context;
use crate::world::{Arrival, InFlight};
use spec::Outcome;

const BLOCKS: &str = "what is written may take all of the send buffer: the write then waits until something is \
                      acknowledged, and what the program does next comes later";

impl Explorer<'_> {
    /// What happens to the socket.
    pub(super) fn handle(
        &self,
        live: &mut Live,
        event: Event,
        cfg: &Kernel,
        (due_ns, now_ns): (u64, u64),
    ) -> (Progress, Effects, Option<InFlight>) {
        let Live { sock, world, program, .. } = live;
        let arrives = event == Event::Arrival;
        let packet = arrives.then(|| world.arrives(now_ns)).flatten();
        let context = match event {
            Event::Expiry(_) | Event::Hop => Context::Handler,
            _ => Context::Call,
        };
        let mut step = Step {
            cfg,
            later: world.later.ahead().zip(self.later),
            now_ns,
            due_ns,
            context,
            sooner_ns: packet.map_or(0, |packet| packet.sooner_ns),
            late_ns: packet.map_or((0, 0), |packet| {
                (packet.late_ns * u64::from(packet.also_on_time), packet.late_ns)
            }),
            world,
            effects: Effects::default(),
        };
        let progress = match (event, packet) {
            (Event::Expiry(timer), _) => sock.expired(&mut step, timer),
            (Event::Hop, _) => hop_fires(sock, &mut step, self.calls.go_on()),
            (Event::Resolved, _) => {
                step.world.resolved_ns = None;
                step.world.hop.resolve(now_ns / cfg.hz.tick_ns());
                Ok(())
            }
            (
                Event::Arrival,
                Some(InFlight {
                    what: Arrival::Ack { next, echoed_ns, answers, came_twice }, ..
                }),
            ) => {
                if answers && sock.closed {
                    // Data for a socket that no process reads any more: `TCPABORTONDATA`.
                    sock.reset(&mut step)
                } else {
                    if answers {
                        program.answered(self.calls, now_ns);
                    }
                    sock.writes_on(program.goes_on(self.calls, now_ns));
                    let progress = sock.acknowledged(&mut step, next, echoed_ns, came_twice);
                    if self.calls.repeats_after.is_some() && sock.is_held_back() {
                        program.hold_back();
                    }
                    progress
                }
            }
            (Event::Arrival, Some(InFlight { what: Arrival::Missing { seen, came }, .. })) => {
                sock.missing(&mut step, seen, came)
            }
            (Event::Arrival, Some(InFlight { what: Arrival::ProbeAck, .. })) => {
                sock.tcp_ack_probe(&mut step);
                Ok(())
            }
            (Event::Arrival, Some(InFlight { what: Arrival::Fin, .. })) => step.told(Outcome::Eof),
            (Event::Arrival, Some(_)) => sock.reset(&mut step),
            // It was dropped on its way.
            (Event::Arrival, None) => Ok(()),
            (Event::Call, _) => match program.call(self.calls) {
                Some(Call::Connect) => sock.connect(&mut step),
                Some(call @ (Call::Write(bytes) | Call::Request(bytes, _))) => {
                    if self.calls.repeats_after.is_some() && sock.is_held_back() {
                        // What is held back stays back until something is acknowledged.
                        program.hold_back();
                    }
                    let asks = matches!(call, Call::Request(..));
                    let progress = sock.write(&mut step, bytes, asks);
                    let goes_on = self.calls.repeats_after.is_none() && program.next.is_some();
                    if (goes_on || asks) && sock.may_block(cfg) {
                        step.world.unknown = Some(BLOCKS);
                    }
                    progress
                }
                Some(Call::Shutdown) => sock.shutdown(&mut step),
                Some(Call::Close) => {
                    program.gives_up();
                    sock.close(&mut step, self.calls.lingers)
                }
                None => Ok(()),
            },
            // The program is done with it; its kernel goes on, and nobody asks what comes of it.
            (Event::AnswerDue, _) if self.calls.heartbeats_within.is_some() => {
                step.told(Outcome::None)
            }
            (Event::AnswerDue, _) => {
                program.gives_up();
                sock.close(&mut step, self.calls.lingers)
            }
        };
        (progress, step.effects, packet)
    }
}
