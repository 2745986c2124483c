//! A connection whose other host lives on, though something else broke: a proxy that lost its server, or
//! the server of a proxy that lost its client. Nothing is predicted of it until that host's program ends
//! it; from then on it is predicted as after the end of a process, by its FIN or its RST.

use crate::orders::View;
use model::command::Farewell;
use spec::{FaultAct, FaultKind, Parameters};
use timeline::event::{FaultStep, Phase};
use timeline::{Event, FlowId, Source, Timeline, What};

/// The trial as such a connection sees it from the moment on that its peer ended it; `None`: that has not
/// ended it, or its own program did so before.
pub(crate) fn ended_by_peer(
    own: &Parameters,
    timeline: &Timeline,
    flow: FlowId,
    fault_at: u64,
) -> Option<(View, Farewell)> {
    let end = timeline.phase_at(Phase::Aftermath).unwrap_or(u64::MAX);
    let since = |event: &&Event| event.flow == Some(flow) && (fault_at..end).contains(&event.at_ns);
    // Where it was seen only as it came, it left half a round trip before.
    let one_way_ns = (own.path.rtt / 2).as_nanos() as u64;
    let ends = |event: &Event| {
        let What::Segment(segment) = &event.what else { return None };
        let farewell = match (segment.flags.rst, segment.flags.fin) {
            (true, _) => Farewell::Rst,
            (false, true) => Farewell::Fin,
            (false, false) => return None,
        };
        let (by_peer, left_ns) = match event.source {
            Source::ServerWire => (segment.sent, event.at_ns),
            Source::ClientWire => (!segment.sent, event.at_ns.saturating_sub(one_way_ns)),
            _ => return None,
        };
        Some((left_ns, by_peer, farewell))
    };
    let (at_ns, by_peer, farewell) = timeline.events().iter().filter(since).find_map(ends)?;
    if !by_peer {
        return None;
    }
    let mut parameters = own.clone();
    parameters.fault.kind = FaultKind::ProcessCrash;
    let is_kept = |event: &&Event| match event.what {
        What::Fault(_) => false,
        // What was known just before.
        What::Facts(_) => event.flow != Some(flow) || event.at_ns <= at_ns,
        _ => true,
    };
    let mut events: Vec<_> = timeline.events().iter().filter(is_kept).cloned().collect();
    for step in [FaultStep::Begin, FaultStep::Done(FaultAct::Killed), FaultStep::Complete] {
        events.push(Event::lab(at_ns, What::Fault(step)));
    }
    // What happened at that moment came after it.
    events.sort_by_key(|event| (event.at_ns, !matches!(event.what, What::Fault(_))));
    Some((View { parameters, timeline: Timeline::new(events), fault_at: at_ns }, farewell))
}
