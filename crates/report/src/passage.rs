//! Where each frame went: seen at one tap, was it seen at the other?

use spec::{Parameters, Topology};
use std::collections::VecDeque;
use std::time::Duration;
use timeline::event::{FrameKind, Phase};
use timeline::{Event, Flags, Segment, Source, What};

/// The longest a frame takes from tap to tap without added delay, before it counts as lost.
const TRANSIT: Duration = Duration::from_millis(20);

/// By so much the stamps of the two taps may disagree: each is brought from wall time to monotonic
/// time by itself. A frame may seem to arrive before it left.
const SKEW_NS: u64 = 2_000_000;

/// What became of an event's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Passage {
    /// No frame.
    None,
    /// It came to its host.
    Arrived,
    /// It left one host and did not come to the other.
    Lost,
    /// It came to this host, and the other never sent it: a router did.
    Appeared,
    /// It left this host for the router between, and came there.
    Taken,
    /// Nobody can say: the other tap never saw anything, or the trial was over.
    Unknown,
}

/// Puts events in the order of time and pairs the taps: of a frame that both saw, the client's
/// event is kept.
#[derive(Debug, Clone)]
pub struct Pairing {
    transit_ns: u64,
    queue: VecDeque<Waiting>,
    taps: [bool; 2],
    /// Whether each host has a link of its own, to a router.
    routed: bool,
    /// Whether the trial is over and its taps are being closed, one before the other.
    aftermath: bool,
}

#[derive(Debug, Clone)]
struct Waiting {
    event: Event,
    met: bool,
}

/// What makes a frame the same at both taps.
#[derive(PartialEq)]
enum Mark<'a> {
    Segment { source_port: u16, destination_port: u16, seq: u32, ack: u32, flags: Flags },
    Frame(&'a FrameKind),
}

impl Mark<'_> {
    /// ARP and neighbour discovery ask who is on the link; a router passes neither on.
    fn stays_on_its_link(&self) -> bool {
        use FrameKind::{NeighbourReply, NeighbourRequest};
        matches!(self, Self::Frame(NeighbourRequest(_) | NeighbourReply(_)))
    }
}

impl Pairing {
    /// For the path of a trial with these parameters.
    pub fn new(parameters: &Parameters) -> Self {
        let transit_ns = (TRANSIT + parameters.path.rtt).as_nanos() as u64;
        let routed = parameters.topology == Topology::Router;
        Self { transit_ns, queue: VecDeque::new(), taps: [false; 2], routed, aftermath: false }
    }

    /// How long after an event it is known what became of it.
    pub fn delay(&self) -> Duration {
        Duration::from_nanos(self.transit_ns)
    }

    /// Takes an event. They may come in any order, as long as each comes before [`Self::pop`]
    /// is asked for later ones.
    pub fn push(&mut self, event: Event) {
        match event.source {
            Source::ClientWire => self.taps[0] = true,
            Source::ServerWire => self.taps[1] = true,
            _ => {}
        }
        let place = self.queue.partition_point(|waiting| waiting.event.at_ns <= event.at_ns);
        self.queue.insert(place, Waiting { event, met: false });
    }

    /// The next event whose fate is known at `now_ns`, with that fate.
    pub fn pop(&mut self, now_ns: u64) -> Option<(Event, Passage)> {
        loop {
            let first = self.queue.front()?;
            if first.event.at_ns.saturating_add(self.transit_ns) > now_ns {
                return None;
            }
            let waiting = self.queue.pop_front()?;
            self.aftermath |=
                matches!(waiting.event.what, What::Phase(phase) if phase >= Phase::Aftermath);
            if let Some(passage) = self.passage(&waiting) {
                return Some((waiting.event, passage));
            }
        }
    }

    /// What became of it; `None` if its other sight is the one to keep.
    fn passage(&mut self, waiting: &Waiting) -> Option<Passage> {
        let Some((sent, mark)) = mark(&waiting.event) else { return Some(Passage::None) };
        if self.routed && mark.stays_on_its_link() {
            return Some(if sent { Passage::Taken } else { Passage::Appeared });
        }
        let at_client = waiting.event.source == Source::ClientWire;
        let reach_ns = if sent { self.transit_ns } else { SKEW_NS };
        if waiting.met || self.meet(&waiting.event, (sent, &mark), reach_ns) {
            return at_client.then_some(Passage::Arrived);
        }
        let other_tap_sees = self.taps[usize::from(at_client)] && !self.aftermath;
        Some(match (sent, other_tap_sees) {
            (true, false) => Passage::Unknown,
            (false, false) => Passage::Arrived, // wherever it came from
            (true, true) => Passage::Lost,
            (false, true) => Passage::Appeared,
        })
    }

    /// Looks for the other tap's sight of a frame, and marks it.
    fn meet(&mut self, event: &Event, (sent, mark): (bool, &Mark<'_>), reach_ns: u64) -> bool {
        let last_ns = event.at_ns.saturating_add(reach_ns);
        self.queue
            .iter_mut()
            .take_while(|other| other.event.at_ns <= last_ns)
            .filter(|other| !other.met && other.event.source != event.source)
            .find(|other| self::mark(&other.event).is_some_and(|(s, m)| s != sent && m == *mark))
            .is_some_and(|other| {
                other.met = true;
                true
            })
    }
}

/// Every event of a finished trial with what became of its frame.
pub fn pair<'a>(
    events: impl IntoIterator<Item = &'a Event>,
    parameters: &Parameters,
) -> Vec<(Event, Passage)> {
    let mut pairing = Pairing::new(parameters);
    for event in events {
        pairing.push(event.clone());
    }
    std::iter::from_fn(|| pairing.pop(u64::MAX)).collect()
}

fn mark(event: &Event) -> Option<(bool, Mark<'_>)> {
    if !matches!(event.source, Source::ClientWire | Source::ServerWire) {
        return None;
    }
    match &event.what {
        // Not the length: with segmentation offload one tap may see in pieces what the other sees
        // whole. Not the window: nothing changes it on the way, and it proves nothing.
        What::Segment(Segment { sent, source_port, destination_port, seq, ack, flags, .. }) => {
            let (source_port, destination_port) = (*source_port, *destination_port);
            let (seq, ack, flags) = (*seq, *ack, *flags);
            Some((*sent, Mark::Segment { source_port, destination_port, seq, ack, flags }))
        }
        What::Frame(frame) => Some((frame.sent, Mark::Frame(&frame.kind))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    fn fates(trial: &crate::Trial) -> Vec<(u64, Source, Passage)> {
        pair(trial.timeline.events(), &trial.experiment.parameters)
            .into_iter()
            .filter(|(_, passage)| *passage != Passage::None)
            .map(|(event, passage)| (event.at_ns, event.source, passage))
            .collect()
    }

    #[test]
    fn before_a_power_off_everything_arrives_and_after_it_nothing() {
        let trial = samples::keepalive();
        let fault_at = trial.timeline.fault_at().unwrap();
        let fates = fates(&trial);
        assert!(fates.iter().any(|(at, ..)| *at < fault_at));
        for (at, source, passage) in fates {
            let expected = if at < fault_at { Passage::Arrived } else { Passage::Lost };
            assert_eq!((source, passage), (Source::ClientWire, expected), "at {at}");
        }
    }

    #[test]
    fn a_frame_may_seem_to_arrive_before_it_left() {
        let trial = samples::crash();
        for tap in [Source::ClientWire, Source::ServerWire] {
            let skewed = trial.timeline.events().iter().map(|event| {
                let by_ns = if event.source == tap { 30_000 } else { 0 };
                Event { at_ns: event.at_ns + by_ns, ..event.clone() }
            });
            let skewed: Vec<_> = skewed.collect();
            for (event, passage) in pair(&skewed, &trial.experiment.parameters) {
                let is_frame = mark(&event).is_some();
                let expected = if is_frame { Passage::Arrived } else { Passage::None };
                assert_eq!(passage, expected, "{event:?}");
            }
        }
    }

    #[test]
    fn without_the_other_tap_nobody_can_say() {
        let trial = samples::keepalive();
        let events = trial.timeline.events().iter().filter(|e| e.source != Source::ServerWire);
        for (event, passage) in pair(events, &trial.experiment.parameters) {
            let Some((sent, _)) = mark(&event) else { continue };
            let expected = if sent { Passage::Unknown } else { Passage::Arrived };
            assert_eq!(passage, expected, "{event:?}");
        }
    }

    #[test]
    fn what_one_tap_misses_in_the_aftermath_is_no_loss() {
        let trial = samples::crash();
        let end_ns = trial.timeline.segments(Source::ServerWire).next_back().unwrap().0;
        let closed_early =
            |event: &&Event| event.source != Source::ClientWire || event.at_ns + 1_000_000 < end_ns;
        let events = trial.timeline.events().iter().filter(closed_early);
        let passages: Vec<_> =
            pair(events, &trial.experiment.parameters).into_iter().map(|(_, p)| p).collect();
        assert!(passages.contains(&Passage::Unknown), "{passages:?}");
        assert!(!passages.contains(&Passage::Lost), "{passages:?}");
        assert!(!passages.contains(&Passage::Appeared), "{passages:?}");
    }

    #[test]
    fn who_is_on_a_link_is_asked_by_the_router_and_told_to_it() {
        let trial = samples::routed();
        let found = pair(trial.timeline.events(), &trial.experiment.parameters);
        let asked: Vec<_> = found
            .iter()
            .filter(|(event, _)| matches!(event.what, What::Frame(_)))
            .map(|(event, passage)| (event.source, *passage))
            .collect();
        let (client, server) = (Source::ClientWire, Source::ServerWire);
        let expected = [
            (client, Passage::Taken),
            (client, Passage::Appeared),
            (server, Passage::Appeared),
            (server, Passage::Taken),
        ];
        assert_eq!(asked, expected);
    }
}
