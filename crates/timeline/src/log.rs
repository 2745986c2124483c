//! The merged log of a trial, and the questions everyone asks of it.

use crate::event::{Event, FaultStep, Phase, Source, What};
use crate::flow::{Flow, FlowId};
use crate::segment::Segment;

/// Every event of a trial, in the order of time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Timeline {
    events: Vec<Event>,
}

impl Timeline {
    /// From events in any order; those of the same time keep theirs.
    pub fn new(mut events: Vec<Event>) -> Self {
        events.sort_by_key(|event| event.at_ns);
        Self { events }
    }

    /// Every event, in the order of time.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// When the fault began; `None` if none was injected.
    pub fn fault_at(&self) -> Option<u64> {
        self.fault_step(&FaultStep::Begin)
    }

    /// When a step of the fault was first done; `None` if it was not.
    pub fn fault_step(&self, step: &FaultStep) -> Option<u64> {
        self.first(|event| matches!(&event.what, What::Fault(done) if done == step))
    }

    /// When a phase was entered.
    pub fn phase_at(&self, phase: Phase) -> Option<u64> {
        self.first(|event| event.what == What::Phase(phase))
    }

    /// The segments that a tap saw, with their times.
    pub fn segments(&self, tap: Source) -> impl DoubleEndedIterator<Item = (u64, &Segment)> {
        self.events.iter().filter(move |event| event.source == tap).filter_map(|event| match &event
            .what
        {
            What::Segment(segment) => Some((event.at_ns, segment)),
            _ => None,
        })
    }

    /// The connections that appeared, in the order of their numbers.
    pub fn flows(&self) -> Vec<(FlowId, Flow)> {
        let mut flows: Vec<_> = self
            .events
            .iter()
            .filter_map(|event| match (event.flow, &event.what) {
                (Some(id), What::Flow(flow)) => Some((id, *flow)),
                _ => None,
            })
            .collect();
        flows.sort_unstable_by_key(|(id, _)| *id);
        flows
    }

    /// What concerns one connection: its own events, and those about none.
    #[must_use]
    pub fn about(&self, flow: FlowId) -> Self {
        let concerns = |event: &&Event| event.flow.is_none_or(|of| of == flow);
        Self { events: self.events.iter().filter(concerns).cloned().collect() }
    }

    /// The same up to a moment, as if the trial had ended then.
    #[must_use]
    pub fn until(&self, at_ns: u64) -> Self {
        let before = |event: &&Event| event.at_ns < at_ns;
        let mut events: Vec<_> = self.events.iter().filter(before).cloned().collect();
        events.push(Event::lab(at_ns, What::Phase(Phase::Aftermath)));
        Self { events }
    }

    fn first(&self, mut wanted: impl FnMut(&Event) -> bool) -> Option<u64> {
        self.events.iter().find(|event| wanted(event)).map(|event| event.at_ns)
    }

    /// One JSON document a line.
    ///
    /// # Errors
    /// Never for events made by this crate; serde's error otherwise.
    pub fn to_jsonl(&self) -> serde_json::Result<String> {
        let mut text = String::new();
        for event in &self.events {
            text.push_str(&serde_json::to_string(event)?);
            text.push('\n');
        }
        Ok(text)
    }

    /// Reads [`Self::to_jsonl`] back.
    ///
    /// # Errors
    /// The line's number and what is wrong with it.
    pub fn from_jsonl(text: &str) -> Result<Self, String> {
        text.lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(index, line)| {
                serde_json::from_str(line).map_err(|error| format!("line {}: {error}", index + 1))
            })
            .collect::<Result<Vec<_>, _>>()
            .map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Call, Trace};
    use crate::{Flags, event::Side};
    use spec::{CallName, Errno, FaultAct};

    #[test]
    fn a_log_is_sorted_and_read_back() {
        let segment = Segment {
            sent: true,
            source_port: 40_000,
            destination_port: 7,
            seq: 1,
            ack: 2,
            flags: Flags::from_bits(0x18),
            window: 501,
            len: 100,
        };
        let timeline = Timeline::new(vec![
            Event::new(30, Source::ClientWire, What::Segment(segment)),
            Event::lab(10, What::Fault(FaultStep::Begin)),
            Event::lab(11, What::Fault(FaultStep::Done(FaultAct::PortDown))),
            Event::new(
                40,
                Source::ClientProgram,
                What::Call(Call {
                    name: CallName::Read,
                    detail: String::new(),
                    result: Err(Errno::ETIMEDOUT),
                    began_ns: 39,
                }),
            ),
            Event::new(
                38,
                Source::Tracepoint,
                What::Trace(Trace::ErrorReport { side: Side::Client, error: Errno::ETIMEDOUT }),
            ),
        ]);
        assert_eq!(timeline.fault_at(), Some(10));
        assert_eq!(timeline.segments(Source::ClientWire).count(), 1);
        let text = timeline.to_jsonl().unwrap();
        assert_eq!(Timeline::from_jsonl(&text).unwrap(), timeline, "{text}");
        assert!(Timeline::from_jsonl("{}\n").unwrap_err().starts_with("line 1"));
    }
    #[test]
    fn recordings_with_sentences_for_acts_are_read() {
        let read = |what: &str| {
            let line =
                format!(r#"{{"at_ns":1,"source":"lab","what":{{"fault":{{"done":"{what}"}}}}}}"#);
            let timeline = Timeline::from_jsonl(&line).unwrap();
            timeline.events()[0].what.clone()
        };
        for (sentence, act) in [
            ("the server's host is destroyed", FaultAct::HostDestroyed),
            ("host-destroyed", FaultAct::HostDestroyed),
            (
                "the server's cable behind the router is dead, and the router has forgotten the \
                 server's link-layer address",
                FaultAct::CableDeadAndForgotten,
            ),
        ] {
            assert_eq!(read(sentence), What::Fault(FaultStep::Done(act)));
        }
    }
    #[test]
    fn a_connection_is_seen_without_the_others() {
        use crate::flow::Ends;
        let end = |text: &str| text.parse().unwrap();
        let flow = |port: u16| Flow {
            ends: Ends { client: end(&format!("198.18.0.1:{port}")), server: end("198.18.0.2:7") },
            opened_by: Side::Client,
            leg: spec::Leg::Whole,
        };
        let gone =
            |at_ns, id| Event::new(at_ns, Source::ClientSocket, What::SocketGone).of(FlowId(id));
        let opened = |at_ns, id| Event::lab(at_ns, What::Flow(flow(id as u16))).of(FlowId(id));
        let fault = Event::lab(5, What::Fault(FaultStep::Begin));
        let timeline =
            Timeline::new(vec![opened(1, 0), opened(2, 1), gone(3, 1), fault.clone(), gone(9, 0)]);
        assert_eq!(timeline.flows(), [(FlowId(0), flow(0)), (FlowId(1), flow(1))]);
        assert_eq!(timeline.about(FlowId(0)).events(), [opened(1, 0), fault, gone(9, 0)]);
    }
}
