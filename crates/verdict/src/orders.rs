//! Faults that a trial's programs have ordered: a flow is judged by the last that came before its end.

use spec::Parameters;
use spec::experiment::Fault;
use timeline::event::{FaultStep, Trace};
use timeline::{Event, FlowId, Side, Source, Timeline, What};

/// An order, in force until the next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order<'a> {
    pub(crate) at_ns: u64,
    until_ns: u64,
    /// `None`: that all be healed.
    pub(crate) fault: Option<&'a Fault>,
}

/// What a trial was like from an order on.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) parameters: Parameters,
    pub(crate) timeline: Timeline,
    pub(crate) fault_at: u64,
}

/// The orders, in order.
pub(crate) fn orders(timeline: &Timeline) -> Vec<Order<'_>> {
    let mut orders: Vec<Order> = Vec::new();
    for event in timeline.events() {
        let What::Ordered { fault } = &event.what else { continue };
        if let Some(last) = orders.last_mut() {
            last.until_ns = event.at_ns;
        }
        let fault = fault.as_deref();
        orders.push(Order { at_ns: event.at_ns, until_ns: u64::MAX, fault });
    }
    orders
}

impl Order<'_> {
    /// The trial of a flow from the last order on that came before its end; `None` where there is none.
    pub(crate) fn last_before_the_end(
        orders: &[Self],
        trial: &Parameters,
        timeline: &Timeline,
        flow: FlowId,
    ) -> Option<View> {
        let end = end_of(timeline, flow).unwrap_or(u64::MAX);
        let order = orders.iter().rev().find(|order| order.at_ns <= end)?;
        Some(order.view(trial, timeline))
    }

    fn view(&self, trial: &Parameters, timeline: &Timeline) -> View {
        let mut parameters = trial.clone();
        if let Some(fault) = self.fault {
            parameters.fault = fault.clone();
        }
        let within = |event: &Event| (self.at_ns..self.until_ns).contains(&event.at_ns);
        let is_seen = |event: &&Event| match event.what {
            What::Fault(_) | What::Facts(_) => within(event),
            _ => true,
        };
        let mut events: Vec<_> = timeline.events().iter().filter(is_seen).cloned().collect();
        let begins =
            events.iter().find(|event| matches!(event.what, What::Fault(FaultStep::Begin)));
        let fault_at = begins.map_or(self.at_ns, |event| event.at_ns);
        if begins.is_none() {
            // Being healed is no step of a fault.
            events.push(Event::new(self.at_ns, Source::Lab, What::Fault(FaultStep::Begin)));
        }
        View { parameters, timeline: Timeline::new(events), fault_at }
    }
}

/// When a flow ended for the client's host, or its program let go of it.
fn end_of(timeline: &Timeline, flow: FlowId) -> Option<u64> {
    let mut events = timeline.events().iter().filter(|event| event.flow == Some(flow));
    let ends = |event: &&Event| match (&event.what, event.source) {
        (What::SocketGone, Source::ClientSocket) => true,
        (What::Trace(Trace::SetState { side: Side::Client, new, .. }), _) => new == "CLOSE",
        (What::Segment(segment), Source::ClientWire) => {
            segment.sent && segment.flags.fin || !segment.sent && segment.flags.rst
        }
        _ => false,
    };
    events.find(ends).map(|event| event.at_ns)
}
