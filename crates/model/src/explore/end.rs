//! How runs end.

use super::{Event, Explorer};
use crate::prediction::StepKind;
use crate::run::{Live, Past};
use crate::step::Effects;
use crate::tick::EPOCH;
use crate::world::InFlight;
use spec::Outcome;

/// How a run ends.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) outcome: Outcome,
    pub(crate) at_ns: u64,
    /// Where only a handler that ran late could make it: when that was.
    pub(crate) not_before_ns: u64,
    /// The reference that its time counts from: the earliest and the latest moment it may be.
    pub(crate) start: (u64, u64),
    pub(crate) past: Past,
    /// The timeout of the last timer, nanoseconds, where that is not the last in the log.
    pub(crate) timeout_ns: Option<u64>,
    /// By how much sooner, and later, it may come, nanoseconds.
    pub(crate) open_ns: (u64, u64),
    /// Whether the program gave up, which waited for an answer.
    pub(crate) by_program: bool,
    /// Whether the client's own neighbour entry decided what passed its tap.
    pub(crate) local: bool,
}

impl Explorer<'_> {
    /// These runs go on for ever.
    pub(super) fn live_on(&mut self, live: &Live, pasts: Vec<Past>, at_ns: u64) {
        let end = |past| End::new(live, past, Outcome::None, at_ns, (0, 0), None);
        self.ends.extend(pasts.into_iter().map(end));
    }

    /// The ends that a step has come to.
    pub(super) fn told(
        &mut self,
        live: &Live,
        past: &Past,
        effects: &Effects,
        packet: Option<InFlight>,
        (event, handler_late_ns): (Event, u64),
    ) {
        let gave_up = effects.steps.last().is_some_and(|(kind, _)| *kind == StepKind::GiveUp);
        for told in &effects.told {
            if gave_up && live.world.reference_until.ahead().is_some_and(|at_ns| told.at_ns < at_ns)
            {
                self.unknown = Some(if !live.world.is_reached(told.at_ns) {
                    "the client's kernel may give the connection up before the fault that times count from"
                        .into()
                } else if live.sock.window_closed {
                    "the client's kernel gives the connection up before the fault, by the probes of \
                     the closed window"
                        .into()
                } else {
                    "the client's kernel gives the connection up before the fault, by keepalive \
                     probes that a living server has not answered yet"
                        .into()
                });
                return;
            }
            let mut past = past.clone();
            let mut timeout_ns = (event == Event::Hop).then_some(NEIGHBOUR_TIMER_NS);
            if let Some(waited_ns) = told.waited_ns {
                let now_ns = packet.map_or(told.at_ns, |packet| packet.at_ns);
                let nominal_ns = now_ns.saturating_sub(past.begins_ns) + waited_ns;
                let span_ns = (told.at_ns, told.at_ns + told.later_ns);
                past.push(StepKind::GiveUp, span_ns, nominal_ns, waited_ns, false);
                if live.world.phase == EPOCH {
                    self.longest = self.longest.max(waited_ns / self.cfg.hz.tick_ns());
                }
                timeout_ns = None;
            }
            let open_ns = packet.map_or((0, 0), |packet| packet.open_ns);
            let open_ns = if told.waited_ns.is_some() { (0, 0) } else { open_ns };
            if live.stands {
                for past in Past::parts(&[past], self.cfg.hz.tick_ns()).iter() {
                    let end = self.stood_for(live, past.clone(), told, gave_up);
                    self.ends.push(end);
                }
                continue;
            }
            // What only a late handler leads to is allowed to be so late anyway.
            let drawn = packet.filter(|_| told.waited_ns.is_none());
            let late_ns = drawn.map_or(handler_late_ns, |packet| packet.late_ns);
            let not_before_ns = match drawn {
                Some(packet) if packet.also_on_time => told.at_ns - late_ns,
                _ if late_ns == 0 => 0,
                _ => told.at_ns,
            };
            let at_ns = told.at_ns - late_ns;
            let end = End::new(live, past, told.outcome, at_ns, open_ns, timeout_ns);
            let start = (end.start.0.saturating_sub(told.later_ns), end.start.1);
            let by_program = event == Event::AnswerDue;
            self.ends.push(End { not_before_ns, start, by_program, ..end });
        }
    }
}

impl End {
    pub(super) fn new(
        live: &Live,
        past: Past,
        outcome: Outcome,
        at_ns: u64,
        open_ns: (u64, u64),
        timeout_ns: Option<u64>,
    ) -> Self {
        let local = live.world.hop.is_local() && !live.world.unseen;
        let start = past.starts();
        let (not_before_ns, by_program) = (0, false);
        Self { outcome, at_ns, not_before_ns, start, past, timeout_ns, open_ns, by_program, local }
    }
}

/// `retrans_time` of a neighbour entry, the default: from one question to the next.
const NEIGHBOUR_TIMER_NS: u64 = 1_000_000_000;
