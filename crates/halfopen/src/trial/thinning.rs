//! What is kept of connections that exchange without a pause: so much from the beginning and from each
//! change of the fault, and the last before it. What is between these says nothing new.

use crate::channel::Message;
use std::collections::{BTreeMap, VecDeque};
use timeline::classify::Class;
use timeline::event::Trace;
use timeline::{Event, FlowId, What};

/// So many ordinary events of all connections are kept at the beginning, and after each change.
const ORDINARY_KEPT: u32 = 5_000;
/// So many of the latest events of a connection wait for something that is not ordinary.
const HELD_MOST: usize = 500;
/// So many connections are kept from the beginning on, and after each change.
const FLOWS_KEPT: u32 = 200;
/// Of those that come and go after these, so many of the last.
const ENDED_KEPT: usize = 16;

/// What is reported of a trial's connections, and what waits.
pub(super) struct Thinning {
    flows: BTreeMap<FlowId, Held>,
    /// The latest of those that have ended and were never reported.
    ended: VecDeque<FlowId>,
    ordinary_left: u32,
    flows_left: u32,
    events_omitted: u64,
    flows_omitted: u64,
}

#[derive(Default)]
struct Held {
    /// Whether nothing of it is reported until it is clear that it stays.
    whole: bool,
    has_ended: bool,
    dropped: bool,
    messages: VecDeque<Message>,
}

impl Default for Thinning {
    fn default() -> Self {
        Self {
            flows: BTreeMap::new(),
            ended: VecDeque::new(),
            ordinary_left: ORDINARY_KEPT,
            flows_left: FLOWS_KEPT,
            events_omitted: 0,
            flows_omitted: 0,
        }
    }
}

impl Thinning {
    /// Takes what is known of a connection, and hands over what is to be reported now. `has_ended`
    /// says whether the connection has.
    pub(super) fn take(
        &mut self,
        flow: FlowId,
        message: Message,
        is_ordinary: bool,
        has_ended: bool,
        report: &mut impl FnMut(Message),
    ) {
        let flows_left = &mut self.flows_left;
        let held = self.flows.entry(flow).or_insert_with(|| {
            let whole = *flows_left == 0;
            *flows_left = flows_left.saturating_sub(1);
            Held { whole, ..Held::default() }
        });
        if held.dropped {
            self.events_omitted += 1;
            return;
        }
        let waits = held.whole || is_ordinary && self.ordinary_left == 0;
        if !waits {
            self.ordinary_left -= u32::from(is_ordinary);
            held.messages.drain(..).for_each(&mut *report);
            return report(message);
        }
        held.messages.push_back(message);
        if held.messages.len() > HELD_MOST && held.whole {
            // It stays.
            held.whole = false;
            held.messages.drain(..).for_each(report);
        } else if held.messages.len() > HELD_MOST {
            held.messages.pop_front();
            self.events_omitted += 1;
        } else if held.whole && has_ended && !held.has_ended {
            held.has_ended = true;
            self.ended.push_back(flow);
            self.forget_ended();
        }
    }

    fn forget_ended(&mut self) {
        if self.ended.len() <= ENDED_KEPT {
            return;
        }
        let first = self.ended.pop_front().and_then(|flow| self.flows.get_mut(&flow));
        if let Some(held) = first {
            held.dropped = true;
            self.events_omitted += std::mem::take(&mut held.messages).len() as u64;
            self.flows_omitted += 1;
        }
    }

    /// The fault changes, or the trial ends: what waits is reported, and what comes next is kept.
    pub(super) fn release(&mut self, report: &mut impl FnMut(Message)) {
        for held in self.flows.values_mut() {
            held.whole = false;
            held.messages.drain(..).for_each(&mut *report);
        }
        self.ended.clear();
        (self.ordinary_left, self.flows_left) = (ORDINARY_KEPT, FLOWS_KEPT);
    }

    /// Whether ordinary events are not kept any more.
    pub(super) const fn is_spent(&self) -> bool {
        self.ordinary_left == 0
    }

    /// What was left out so far, if anything.
    pub(super) fn omitted(&self) -> Option<What> {
        let (events, flows) = (self.events_omitted, self.flows_omitted);
        (events > 0).then_some(What::Thinned { events, flows })
    }
}

/// Whether an event is one of those that an exchange of data makes all the time. `class` is what a
/// segment is, where that is known.
pub(super) fn is_ordinary(event: &Event, class: Option<Class>) -> bool {
    match &event.what {
        What::Segment(segment) => {
            let flags = segment.flags;
            let is_plain = !flags.syn && !flags.fin && !flags.rst && segment.window > 0;
            let class = class.unwrap_or(Class::Ack);
            is_plain && matches!(class, Class::Data { .. } | Class::Ack | Class::ProbeAnswer)
        }
        What::Socket(sample) => sample.state == "ESTABLISHED" && sample.timer_count == 0,
        What::Trace(trace) => matches!(trace, Trace::TimerStart { .. } | Trace::TimerCancel { .. }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Ending;

    fn message(number: usize) -> Message {
        Message::Ended(number, Ending::Complete)
    }

    fn number(message: &Message) -> usize {
        let Message::Ended(number, _) = message else { panic!("{message:?}") };
        *number
    }

    #[test]
    fn the_first_and_the_last_of_an_endless_exchange_are_kept() {
        let (mut thinning, mut kept) = (Thinning::default(), Vec::new());
        let mut report = |message: Message| kept.push(number(&message));
        let first = ORDINARY_KEPT as usize;
        for event in 0..first + 2_000 {
            thinning.take(FlowId(0), message(event), true, false, &mut report);
        }
        thinning.take(FlowId(0), message(usize::MAX), false, false, &mut report);
        let last = first + 2_000 - HELD_MOST..first + 2_000;
        let all: Vec<_> = (0..first).chain(last).chain([usize::MAX]).collect();
        assert_eq!(kept, all);
        let events = (2_000 - HELD_MOST) as u64;
        assert_eq!(thinning.omitted(), Some(What::Thinned { events, flows: 0 }));
    }

    #[test]
    fn the_last_of_many_short_connections_are_kept() {
        let (mut thinning, mut kept) = (Thinning::default(), Vec::new());
        let mut report = |message: Message| kept.push(number(&message));
        let all = FLOWS_KEPT as usize + 100;
        for flow in 0..all {
            for has_ended in [false, true, true] {
                thinning.take(FlowId(flow as u32), message(flow), false, has_ended, &mut report);
            }
        }
        thinning.release(&mut report);
        kept.dedup();
        let wanted: Vec<_> = (0..FLOWS_KEPT as usize).chain(all - ENDED_KEPT..all).collect();
        assert_eq!(kept, wanted);
        let flows = 100 - ENDED_KEPT as u64;
        assert_eq!(thinning.omitted(), Some(What::Thinned { events: 3 * flows, flows }));
    }
}
