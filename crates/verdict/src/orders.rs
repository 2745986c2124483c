//! Faults that follow a trial's first, planned or ordered by its programs: a flow is judged by the last that
//! came before its end.

use crate::proof::{Evidence, Proof, prove_part};
use spec::experiment::Fault;
use spec::{Facts, FaultKind, Parameters};
use timeline::event::{FaultStep, Trace};
use timeline::{Event, FlowId, Side, Source, Timeline, What};

/// An order, in force until the next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order<'a> {
    pub(crate) at_ns: u64,
    until_ns: u64,
    /// `None`: that all be healed.
    pub(crate) fault: Option<&'a Fault>,
    pub(crate) planned: bool,
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
        let What::Ordered { fault, planned } = &event.what else { continue };
        if let Some(last) = orders.last_mut() {
            last.ends(event);
        }
        let fault = fault.as_deref();
        let planned = *planned;
        orders.push(Order { at_ns: event.at_ns, until_ns: u64::MAX, fault, planned });
    }
    orders
}

impl Order<'_> {
    /// The next order comes, which puts an end to this one, but for a path that stays away.
    fn ends(&mut self, next: &Event) {
        let stays = |fault: &Fault| fault.still.is_some();
        if !matches!(&next.what, What::Ordered { fault: Some(fault), .. } if stays(fault)) {
            self.until_ns = next.at_ns;
        }
    }

    /// The trial of a flow from the last order on that came before its end; `None` where there is none.
    pub(crate) fn last_before_the_end(
        orders: &[Self],
        trial: &Parameters,
        timeline: &Timeline,
        flow: FlowId,
    ) -> Option<View> {
        let end = end_of(trial, timeline, flow).unwrap_or(u64::MAX);
        let order = orders.iter().rev().find(|order| order.at_ns <= end)?;
        Some(order.view(trial, timeline))
    }

    fn view(&self, trial: &Parameters, timeline: &Timeline) -> View {
        let mut parameters = trial.clone();
        match self.fault {
            Some(fault) => parameters.fault = fault.clone(),
            None if trial.fault.kind.can_be_healed() => parameters.fault.kind = FaultKind::None,
            None => {}
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

/// The trial up to the last planned fault before a flow's end, and what was known of the flow before the first;
/// `None` where programs do as they like, or there is one fault.
pub(crate) fn came<'a>(
    orders: &[Order<'_>],
    trial: &Parameters,
    timeline: &'a Timeline,
    flow: FlowId,
) -> Option<(Parameters, &'a Facts)> {
    let end = end_of(trial, timeline, flow).unwrap_or(u64::MAX);
    let came = orders.iter().filter(|order| order.planned && order.fault.is_some());
    let place = came.take_while(|order| order.at_ns <= end).count();
    let first = timeline.events().iter().find_map(|event| match &event.what {
        What::Facts(facts) if event.flow == Some(flow) => Some(&**facts),
        _ => None,
    });
    let is_followed = !trial.runs_command() && !trial.further.is_empty();
    let own = is_followed.then(|| trial.up_to_fault(place));
    own.zip(first)
}

/// What proves each fault that was planned, and what the programs ordered: that did what it says as each
/// flow shows.
pub(crate) fn prove_each(trial: &Parameters, timeline: &Timeline, from_ns: u64) -> Proof {
    let orders = orders(timeline);
    let told = |order: &Order| {
        let at_s = (order.at_ns as f64 - from_ns as f64) / 1e9;
        let what = order.fault.map_or_else(|| "healed".into(), |fault| fault.kind.to_string());
        let finding = format!("ordered by a program {at_s:.3} s after it began: {what}");
        vec![Evidence { finding, holds: true }]
    };
    if trial.further.is_empty() {
        return Proof { evidence: orders.iter().flat_map(told).collect() };
    }
    let mut first =
        Order { at_ns: 0, until_ns: u64::MAX, fault: Some(&trial.fault), planned: true };
    let mut events = timeline.events().iter();
    if let Some(next) = events.find(|event| matches!(event.what, What::Ordered { .. })) {
        first.ends(next);
    }
    let faults = || std::iter::once(&first).chain(&orders).filter(|order| order.fault.is_some());
    let count = faults().count();
    let prove = |(place, order): (usize, &Order)| {
        if !order.planned {
            return told(order);
        }
        let View { parameters, timeline, .. } = order.view(trial, timeline);
        let (leg, is_last) = (trial.broken_leg(), place + 1 == count);
        let seen = if is_last { timeline } else { timeline.until(order.until_ns) };
        let proof = prove_part(&parameters, &seen.of_leg(trial, leg), is_last).named(trial);
        let kind = parameters.fault.kind;
        let of_it = |evidence: Evidence| Evidence {
            finding: format!("fault {} ({kind}): {}", place + 1, evidence.finding),
            ..evidence
        };
        proof.evidence.into_iter().map(of_it).collect()
    };
    let mut evidence: Vec<_> = faults().enumerate().flat_map(prove).collect();
    let planned = faults().filter(|order| order.planned).count();
    if let Some(missing) = trial.further.get(planned - 1) {
        evidence.push(Evidence {
            finding: format!("the trial was over before fault {} ({})", planned + 1, missing.kind),
            holds: true,
        });
    }
    Proof { evidence }
}

/// When a flow ended for the client's host: it was told, by a FIN too, or its program let go of it.
fn end_of(trial: &Parameters, timeline: &Timeline, flow: FlowId) -> Option<u64> {
    let goes_on = trial.follows_program();
    let mut events = timeline.events().iter().filter(|event| event.flow == Some(flow));
    let ends = |event: &&Event| match (&event.what, event.source) {
        (What::SocketGone, Source::ClientSocket) => true,
        // What waits in FIN_WAIT2 once no process has it is another socket (`tcp_time_wait`).
        (What::Trace(Trace::SetState { side: Side::Client, old, new }), _) => {
            new == "CLOSE" && !(goes_on && old == "FIN_WAIT2")
        }
        (What::Segment(segment), Source::ClientWire) => {
            let fin = segment.flags.fin && !(goes_on && segment.sent);
            fin || !segment.sent && segment.flags.rst
        }
        _ => false,
    };
    events.find(ends).map(|event| event.at_ns)
}
