//! The connections of a trial, numbered as they appear.

use crate::event::{Event, Source, Trace, What};
use crate::flow::{Ends, Flow, FlowId, Side};
use spec::Leg;
use std::collections::HashMap;

/// Numbers the connections of a trial in the order of their SYN.
///
/// Each instrument shows connections in the order in which they were opened. So the numbers are in
/// that order too, whichever instrument is the first to show one.
///
/// Ports can be used again: a SYN with another sequence number is another connection.
#[derive(Debug, Clone, Default)]
pub struct FlowTable {
    flows: Vec<Known>,
    by_ends: HashMap<Ends, Vec<FlowId>>,
}

#[derive(Debug, Clone)]
struct Known {
    ends: Ends,
    /// `None`: it is expected, and nothing has been seen of it.
    opened_ns: Option<u64>,
    /// The sequence number of its SYN.
    syn: Option<u32>,
    /// Whether its socket was seen to enter SYN_SENT.
    syn_sent: bool,
}

/// What an event says about the beginning of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beginning {
    /// A SYN with this sequence number.
    Syn(u32),
    /// A socket enters SYN_SENT.
    SynSent,
    /// Nothing.
    Unsaid,
}

impl FlowTable {
    /// The number of a connection that is known before it is opened.
    pub fn expect(&mut self, ends: Ends) -> FlowId {
        match self.by_ends.get(&ends).and_then(|ids| ids.last()) {
            Some(id) => *id,
            None => self.add(ends),
        }
    }

    /// Has the event name its connection, whose ends the instrument gives beside it. If this is the
    /// first that is seen of the connection, returns the event that says so.
    pub fn name(&mut self, event: &mut Event, ends: Ends) -> Option<Event> {
        let beginning = beginning(event);
        let id = self.find(event.at_ns, ends, beginning).unwrap_or_else(|| self.add(ends));
        event.flow = Some(id);
        let known = &mut self.flows[id.0 as usize];
        match beginning {
            Beginning::Syn(sequence) => known.syn = Some(sequence),
            Beginning::SynSent => known.syn_sent = true,
            Beginning::Unsaid => {}
        }
        if known.opened_ns.is_some() {
            return None;
        }
        known.opened_ns = Some(event.at_ns);
        let flow = Flow { ends, opened_by: opener(event), leg: Leg::Whole };
        Some(Event::new(event.at_ns, event.source, What::Flow(flow)).of(id))
    }

    /// The latest connection with each pair of ends, in the order of numbers.
    pub fn latest(&self) -> Vec<(FlowId, Ends)> {
        let mut latest: Vec<_> = self
            .by_ends
            .iter()
            .filter_map(|(ends, ids)| ids.last().map(|id| (*id, *ends)))
            .collect();
        latest.sort_unstable();
        latest
    }

    /// Every connection with these ends, in the order of numbers.
    pub fn between(&self, ends: Ends) -> &[FlowId] {
        self.by_ends.get(&ends).map_or(&[], Vec::as_slice)
    }

    /// The ends of a connection.
    pub fn ends(&self, id: FlowId) -> Option<Ends> {
        self.flows.get(id.0 as usize).map(|known| known.ends)
    }

    /// Which of the connections with these ends the event is about; `None`: a new one.
    fn find(&self, at_ns: u64, ends: Ends, beginning: Beginning) -> Option<FlowId> {
        let ids = self.by_ends.get(&ends)?;
        let latest = *ids.last()?;
        let known = |id: FlowId| &self.flows[id.0 as usize];
        match beginning {
            Beginning::Syn(sequence) => {
                let same = ids.iter().rev().find(|id| known(**id).syn == Some(sequence));
                same.copied().or_else(|| known(latest).syn.is_none().then_some(latest))
            }
            Beginning::SynSent => (!known(latest).syn_sent).then_some(latest),
            // An instrument that is late tells of the one before.
            Beginning::Unsaid => {
                let opened = |id: FlowId| known(id).opened_ns.is_none_or(|at| at <= at_ns);
                ids.iter().rev().copied().find(|id| opened(*id)).or(ids.first().copied())
            }
        }
    }

    fn add(&mut self, ends: Ends) -> FlowId {
        let id = FlowId(self.flows.len() as u32);
        self.flows.push(Known { ends, opened_ns: None, syn: None, syn_sent: false });
        self.by_ends.entry(ends).or_default().push(id);
        id
    }
}

fn beginning(event: &Event) -> Beginning {
    match &event.what {
        What::Segment(segment) if segment.flags.syn && !segment.flags.ack => {
            Beginning::Syn(segment.seq)
        }
        What::Trace(Trace::SetState { new, .. }) if new == "SYN_SENT" => Beginning::SynSent,
        _ => Beginning::Unsaid,
    }
}

fn opener(event: &Event) -> Side {
    let at = match event.source {
        Source::ServerWire | Source::ServerSocket | Source::ServerProgram => Side::Server,
        _ => Side::Client,
    };
    match &event.what {
        What::Trace(trace) => trace.side(),
        What::Segment(segment) if !segment.sent => at.other(),
        _ => at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::{Flags, Segment};
    use std::net::SocketAddr;

    fn ends(client_port: u16) -> Ends {
        let end = |text: &str, port| SocketAddr::new(text.parse().unwrap(), port);
        Ends { client: end("198.18.0.1", client_port), server: end("198.18.0.2", 7) }
    }

    fn segment(at_ns: u64, source: Source, syn: bool, seq: u32) -> Event {
        let segment = Segment {
            sent: source == Source::ClientWire,
            source_port: 1,
            destination_port: 7,
            seq,
            ack: 0,
            flags: Flags { syn, ..Flags::default() },
            window: 1,
            len: 0,
        };
        Event::new(at_ns, source, What::Segment(segment))
    }

    fn state(at_ns: u64, old: &str, new: &str) -> Event {
        let trace = Trace::SetState { side: Side::Client, old: old.into(), new: new.into() };
        Event::new(at_ns, Source::Tracepoint, What::Trace(trace))
    }

    #[test]
    fn connections_are_numbered_as_they_appear_whoever_shows_them_first() {
        let mut table = FlowTable::default();
        let mut first = segment(10, Source::ServerWire, true, 5);
        let opened = table.name(&mut first, ends(1)).expect("it is new");
        assert_eq!((first.flow, opened.flow), (Some(FlowId(0)), Some(FlowId(0))));
        let flow = Flow { ends: ends(1), opened_by: Side::Client, leg: Leg::Whole };
        assert_eq!((opened.at_ns, opened.what), (10, What::Flow(flow)));
        let mut other = state(12, "CLOSE", "SYN_SENT");
        assert!(table.name(&mut other, ends(2)).is_some());
        // The slower instruments show what is known.
        for mut late in [segment(9, Source::ClientWire, true, 5), state(8, "CLOSE", "SYN_SENT")] {
            assert_eq!(table.name(&mut late, ends(1)), None);
            assert_eq!(late.flow, Some(FlowId(0)));
        }
        assert_eq!(other.flow, Some(FlowId(1)));
        assert_eq!(table.latest(), [(FlowId(0), ends(1)), (FlowId(1), ends(2))]);
    }

    #[test]
    fn one_that_is_expected_has_its_number_before_it_opens() {
        let mut table = FlowTable::default();
        assert_eq!(table.expect(ends(1)), FlowId(0));
        assert_eq!(table.expect(ends(1)), FlowId(0));
        let mut syn = segment(10, Source::ClientWire, true, 5);
        assert!(table.name(&mut syn, ends(1)).is_some());
        assert_eq!(syn.flow, Some(FlowId(0)));
        assert_eq!(table.ends(FlowId(0)), Some(ends(1)));
    }

    #[test]
    fn ports_that_are_used_again_are_another_connection() {
        let mut table = FlowTable::default();
        let mut name = |mut event: Event| {
            let opened = table.name(&mut event, ends(1)).is_some();
            (event.flow.unwrap().0, opened)
        };
        assert_eq!(name(segment(10, Source::ClientWire, true, 5)), (0, true));
        assert_eq!(name(segment(11, Source::ClientWire, true, 5)), (0, false), "sent again");
        assert_eq!(name(state(9, "CLOSE", "SYN_SENT")), (0, false));
        assert_eq!(name(segment(50, Source::ClientWire, true, 77)), (1, true));
        assert_eq!(name(segment(50, Source::ServerWire, true, 77)), (1, false));
        assert_eq!(name(segment(12, Source::ServerWire, true, 5)), (0, false), "a late one");
        assert_eq!(name(state(49, "CLOSE", "SYN_SENT")), (1, false));
        assert_eq!(name(state(20, "ESTABLISHED", "CLOSE")), (0, false), "of the one before");
        assert_eq!(name(segment(51, Source::ClientWire, false, 78)), (1, false));
    }
}
