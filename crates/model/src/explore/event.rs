//! What happens next to a run.

use crate::kernel::Kernel;
use crate::run::Live;
use crate::sock::{Sock, State, Timer};
use crate::step::{Progress, Step};

/// What happens next to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A timer of the socket fires.
    Expiry(Timer),
    /// The next hop's timer fires.
    Hop,
    /// The link-layer address comes that the hop has asked for.
    Resolved,
    /// Something arrives.
    Arrival,
    /// The program's next call.
    Call,
    /// The program's deadline for an answer is over.
    AnswerDue,
}

/// What happens next to a run. Of what happens at the same jiffy, timers come first: their softirq is
/// the first.
pub(super) fn next(live: &Live, cfg: &Kernel) -> Option<(u64, Event)> {
    let tick_ns = cfg.hz.tick_ns();
    let own = live.sock.next_timer();
    let hop = live.world.hop.fires();
    let timer = match (own, hop) {
        (Some((own, _)), Some(hop)) if hop < own || (hop == own && is_hop_first(live, cfg)) => {
            Some((hop, Event::Hop))
        }
        (Some((own, timer)), _) => Some((own, Event::Expiry(timer))),
        (None, Some(hop)) => {
            // With nothing unacknowledged, the hop's question does not matter.
            let matters = live.world.hop.waiting() > 0 || !live.world.in_flight.is_empty();
            matters.then_some((hop, Event::Hop))
        }
        (None, None) => None,
    };
    let timer = timer.map(|(at, event)| (at * tick_ns, event));
    let resolved = live.world.resolved_ns.map(|at_ns| (at_ns, Event::Resolved));
    let arrival = live.world.in_flight.first().map(|packet| (packet.at_ns, Event::Arrival));
    let call = live.program.next.map(|(at_ns, _)| (at_ns, Event::Call));
    let answer = live.program.answer_due.map(|at_ns| (at_ns, Event::AnswerDue));
    // The first of equals.
    [timer, call, resolved, arrival, answer].into_iter().flatten().min_by_key(|(at_ns, _)| *at_ns)
}

/// Which of two timers in the same slot comes first. A slot is a list to whose head timers are
/// added (`enqueue_timer`, kernel/time/timer.c): the later armed. A SYN's timer and the
/// neighbour's are armed by the same CPU, and for the same time as long as the RTO has not
/// doubled; coarser slots come first (`__run_timers`).
fn is_hop_first(live: &Live, cfg: &Kernel) -> bool {
    if live.sock.state != State::SynSent {
        return live.world.hop_first;
    }
    let timeout = live.sock.armed(Timer::Write).map_or(0, |armed| armed.timeout);
    let (own, hops) = (cfg.wheel.slot(timeout), cfg.wheel.slot(cfg.hz.get().into()));
    own < hops || (own == hops && live.world.hop_armed_last)
}

/// The timer of the neighbour entry: an answer to its question, or the end of its patience.
pub(super) fn hop_fires(sock: &mut Sock, step: &mut Step<'_>, writes_on: bool) -> Progress {
    let now = step.jiffy();
    let waits = (!sock.queue.is_empty()).then(|| sock.packet(sock.first));
    if step.world.hop_asks(step.cfg, waits, step.now_ns) {
        return Ok(());
    }
    let failed = step.world.hop.fire(step.cfg, now);
    step.effects.slots += step.cfg.wheel.slot(step.cfg.hz.get().into());
    step.world.hop_armed_last = true;
    if failed.is_empty() {
        return Ok(());
    }
    step.world.forget_waiting();
    if sock.queue.is_empty() {
        // ICMP means nothing to a probe: it lies outside the window.
        return Ok(());
    }
    let freed = step.world.hop.is_local();
    if sock.fires(Timer::Write) == Some(step.due_ns / step.tick_ns()) {
        // What failure leads to comes by softirqs that follow the one of timers.
        sock.tcp_write_timer(step)?;
    }
    for number in failed {
        sock.icmp(step, number)?;
    }
    if freed { sock.queue_is_free(step, writes_on) } else { Ok(()) }
}
