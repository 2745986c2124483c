//! A connection whose other host lives on, though something else broke: a proxy that lost its server, or
//! the server of a proxy that lost its client. Nothing is predicted of it until that host's program ends
//! it; from then on it is predicted as after the end of a process, by its FIN or its RST.

use crate::orders::View;
use model::Prediction;
use model::command::Unread;
use spec::{FaultAct, FaultKind, Parameters};
use timeline::event::{FaultStep, Phase};
use timeline::{Event, FlowId, Source, Timeline, What};

/// How a living peer ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Farewell {
    Fin,
    Rst,
}

impl Farewell {
    /// What the connection's end depends on: a RST is what unread data turns a FIN into.
    pub(crate) const fn unread(self) -> Unread {
        match self {
            Self::Fin => Unread::No,
            Self::Rst => Unread::Yes,
        }
    }

    /// Says why in the prediction.
    pub(crate) fn explain(self, own: &Parameters, prediction: &mut Prediction) {
        let what = match self {
            Self::Fin => "FIN",
            Self::Rst => "RST",
        };
        let why = format!(
            "nothing tells the client until the server's program ends the connection: its {what}"
        );
        prediction.why = own.named(&why);
    }
}

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
    let ends = |event: &Event| {
        let What::Segment(segment) = &event.what else { return None };
        let farewell = match (segment.flags.rst, segment.flags.fin) {
            (true, _) => Farewell::Rst,
            (false, true) => Farewell::Fin,
            (false, false) => return None,
        };
        let by_peer = match event.source {
            Source::ServerWire => segment.sent,
            Source::ClientWire => !segment.sent,
            _ => return None,
        };
        Some((event.at_ns, by_peer, farewell))
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

/// Which connection of a proxy belongs to which: the first that it opens to the server after one of the
/// client's has come is for that. Each is a number, when its SYN was seen, and whether it is the client's.
pub(crate) fn pairs(mut opened: Vec<(FlowId, u64, bool)>) -> Vec<(FlowId, FlowId)> {
    opened.sort_by_key(|(id, at_ns, _)| (*at_ns, *id));
    let mut waiting = std::collections::VecDeque::new();
    let mut pairs = Vec::new();
    for (id, _, is_clients) in opened {
        if is_clients {
            waiting.push_back(id);
        } else if let Some(first) = waiting.pop_front() {
            pairs.push((first, id));
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_to_the_server_is_for_the_first_of_the_client_that_has_none() {
        let flow = |id, at_ns, is_clients| (FlowId(id), at_ns, is_clients);
        let check = flow(0, 5, false);
        let opened = vec![
            check,
            flow(1, 10, true),
            flow(2, 11, true),
            flow(3, 12, false),
            flow(4, 13, false),
        ];
        let pairs = pairs(opened);
        assert_eq!(pairs, [(FlowId(1), FlowId(3)), (FlowId(2), FlowId(4))]);
    }
}
