//! The events of a trial that reports show, in the order of time: everything from the fault on,
//! and as much from before it as is needed.

use crate::narrate::{Narrator, Note, Place, Tone};
use crate::passage::{Pairing, Passage};
use crate::span;
use crate::trial::Trial;
use model::Prediction;
use spec::{CallName, Parameters, Reference, counted};
use std::time::Duration;
use timeline::event::{FaultStep, Phase};
use timeline::{Event, Segment, Source, What};

/// So many ordinary events in a row are told, and so many with the same words; of more, the
/// number.
const ORDINARY_TOLD: usize = 6;
const SAME_TOLD: usize = 2;

/// One thing to tell.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    /// An event.
    Happened {
        /// When.
        at_ns: u64,
        /// What.
        note: Note,
        /// What became of its frame.
        passage: Passage,
    },
    /// Times count from this moment from now on.
    Origin {
        /// The moment.
        at_ns: u64,
        /// Which it is.
        text: String,
    },
    /// So many ordinary events were left out.
    More(u32),
}

/// Tells a trial from its events, live or afterwards.
#[derive(Debug, Clone)]
pub(crate) struct Story {
    narrator: Narrator,
    pairing: Pairing,
    reference: Reference,
    phase: Phase,
    begun: bool,
    connected: bool,
    fault_ns: Option<u64>,
    last_received_ns: Option<u64>,
    first_call_seen: bool,
    /// The calls of the client's program that times may count from, with their beginnings.
    calls: Vec<(Reference, u64)>,
    exchanges: Exchanges,
    rto_us: u32,
    /// The ordinary events told in a row.
    told: Vec<String>,
    left_out: u32,
    items: Vec<Item>,
}

/// A finished trial.
pub(crate) fn whole(trial: &Trial) -> Vec<Item> {
    let mut story = Story::new(&trial.experiment.parameters);
    if let Some(prediction) = &trial.prediction {
        story.predict(prediction);
    }
    for event in trial.timeline.events() {
        story.feed(event);
    }
    story.finish()
}

impl Story {
    pub(crate) fn new(parameters: &Parameters) -> Self {
        Self {
            narrator: Narrator::new(parameters),
            pairing: Pairing::new(parameters),
            reference: Reference::Fault,
            phase: Phase::Building,
            begun: false,
            connected: false,
            fault_ns: None,
            last_received_ns: None,
            first_call_seen: false,
            calls: Vec::new(),
            exchanges: Exchanges::default(),
            rto_us: 0,
            told: Vec::new(),
            left_out: 0,
            items: Vec::new(),
        }
    }

    /// Learns the prediction: what times count from, and how many probes to expect.
    pub(crate) fn predict(&mut self, prediction: &Prediction) {
        self.narrator.predict(prediction);
        self.reference = prediction.reference;
    }

    pub(crate) fn feed(&mut self, event: &Event) {
        if let (Source::ClientProgram, What::Call(call), false) =
            (event.source, &event.what, self.first_call_seen)
        {
            let reference = match call.name {
                CallName::Write => Some(Reference::FirstWrite),
                CallName::Connect => Some(Reference::Connect),
                CallName::Close | CallName::Shutdown => Some(Reference::Close),
                _ => None,
            };
            self.calls.extend(reference.map(|reference| (reference, call.began_ns)));
        }
        self.pairing.push(event.clone());
    }

    /// What can be told at `now_ns`.
    pub(crate) fn items(&mut self, now_ns: u64) -> Vec<Item> {
        while let Some((event, passage)) = self.pairing.pop(now_ns) {
            self.tell(&event, passage);
        }
        std::mem::take(&mut self.items)
    }

    /// What is left to tell at the end.
    pub(crate) fn finish(mut self) -> Vec<Item> {
        let mut items = self.items(u64::MAX);
        self.end_ordinary();
        items.append(&mut self.items);
        items
    }

    fn tell(&mut self, event: &Event, passage: Passage) {
        if !std::mem::replace(&mut self.begun, true) {
            let text = "times count from the first event".into();
            self.items.push(Item::Origin { at_ns: event.at_ns, text });
        }
        self.begin_counting(event.at_ns);
        self.follow(event);
        let Some(note) = self.narrator.note(event) else { return };
        let settling = self.connected && self.phase <= Phase::Settling;
        match note.tone {
            Tone::Ordinary | Tone::State if settling => return,
            Tone::State if self.phase <= Phase::Settling => return,
            Tone::Ordinary | Tone::State if self.is_told_enough(&note.text) => {
                self.left_out += 1;
                return;
            }
            Tone::Ordinary | Tone::State => self.told.push(note.text.clone()),
            _ => self.end_ordinary(),
        }
        self.items.push(Item::Happened { at_ns: event.at_ns, note, passage });
    }

    /// Follows what the story depends on: phases, the fault, what times count from.
    fn follow(&mut self, event: &Event) {
        match (event.source, &event.what) {
            (_, What::Phase(phase)) => {
                if (self.phase, *phase) == (Phase::Settling, Phase::Connected) {
                    self.settled(event.at_ns);
                }
                self.phase = *phase;
            }
            // Of several faults times count from the first.
            (_, What::Fault(FaultStep::Begin)) if self.fault_ns.is_none() => {
                self.fault(event.at_ns);
            }
            _ if self.narrator.is_beside(event) => {}
            (Source::ClientWire, What::Segment(segment)) => self.segment(event.at_ns, segment),
            (Source::ClientProgram | Source::ServerProgram, What::Call(call)) => {
                self.connected |= call.name == CallName::Connect && call.result.is_ok();
            }
            (Source::ClientSocket, What::Socket(sample)) => {
                self.rto_us = sample.info.as_ref().map_or(self.rto_us, |info| info.rto_us);
            }
            _ => {}
        }
    }

    fn segment(&mut self, at_ns: u64, segment: &Segment) {
        match (self.fault_ns, segment.sent, segment.len) {
            (None, false, 0) if self.reference == Reference::LastRequest => {}
            (None, false, _) => self.last_received_ns = Some(at_ns),
            _ => {}
        }
        if segment.len > 0 && self.phase <= Phase::Settling {
            self.exchanges.feed(segment.sent);
        }
    }

    fn settled(&mut self, at_ns: u64) {
        let rto = if self.rto_us == 0 {
            String::new()
        } else {
            format!(", RTO {}", span::exact(Duration::from_micros(self.rto_us.into())))
        };
        self.end_ordinary();
        let text = format!("settled after {}{rto}", counted(self.exchanges.count, "exchange"));
        let note = Note { place: Place::Trial, text, tone: Tone::Quiet };
        self.items.push(Item::Happened { at_ns, note, passage: Passage::None });
    }

    fn fault(&mut self, fault_ns: u64) {
        self.fault_ns = Some(fault_ns);
        self.end_ordinary();
        let (at_ns, text) = match (self.reference, self.last_received_ns) {
            (Reference::LastActivity, Some(received_ns)) => {
                let earlier = span::measured((fault_ns - received_ns) as f64 / 1e9);
                (received_ns, format!("t = 0 is the last segment received, {earlier} earlier"))
            }
            (Reference::LastRequest, Some(received_ns)) => {
                let earlier = span::measured((fault_ns - received_ns) as f64 / 1e9);
                (received_ns, format!("t = 0 is the last request, {earlier} earlier"))
            }
            (Reference::Connect, _) => return,
            _ => (fault_ns, "times count from the fault".into()),
        };
        self.items.push(Item::Origin { at_ns, text });
    }

    /// Where times count from a call after the fault: the first of its kind. It is told when it
    /// returns; what it made the kernel do comes before that, and counts from it already.
    fn begin_counting(&mut self, now_ns: u64) {
        let Some(fault_ns) = self.fault_ns.filter(|_| !self.first_call_seen) else { return };
        let begun = |(reference, began_ns): &&(Reference, u64)| {
            *reference == self.reference && (fault_ns..=now_ns).contains(began_ns)
        };
        if let Some((reference, at_ns)) = self.calls.iter().find(begun).copied() {
            let what = if reference == Reference::FirstWrite { "write" } else { "call" };
            let text = format!("times count from this {what}");
            self.items.push(Item::Origin { at_ns, text });
            self.first_call_seen = true;
            self.calls.clear();
        }
    }

    fn is_told_enough(&self, text: &str) -> bool {
        let same = self.told.iter().filter(|told| *told == text).count();
        self.told.len() >= ORDINARY_TOLD || same >= SAME_TOLD
    }

    fn end_ordinary(&mut self) {
        self.told.clear();
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 {
            self.items.push(Item::More(left_out));
        }
    }
}

/// Counts exchanges: data one way, then data the other way.
#[derive(Debug, Clone, Copy, Default)]
struct Exchanges {
    count: u32,
    /// Which way the data went that nothing has answered yet.
    asked: Option<bool>,
}

impl Exchanges {
    fn feed(&mut self, sent: bool) {
        match self.asked {
            Some(asked) if asked != sent => {
                self.count += 1;
                self.asked = None;
            }
            _ => self.asked = Some(sent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    /// What is told, with the microseconds since the origin that holds there.
    fn told(trial: &Trial) -> Vec<(i64, String)> {
        let mut origin_ns = 0;
        let tell = |item| match item {
            Item::Happened { at_ns, note, .. } => Some((at_ns, note.text)),
            Item::Origin { at_ns, text } => {
                origin_ns = at_ns;
                Some((at_ns, text))
            }
            Item::More(_) => None,
        };
        let told: Vec<_> = whole(trial).into_iter().filter_map(tell).collect();
        told.into_iter().map(|(at_ns, text)| (at_ns.cast_signed() / 1000, text)).collect()
    }

    /// In virtual time the segment leaves at the moment of the call; the call returns after it.
    #[test]
    fn what_a_call_makes_the_kernel_do_counts_from_the_call() {
        let mut trial = samples::sending();
        let events = trial.timeline.events().to_vec();
        let after_us = |event: &Event| event.at_ns.saturating_sub(samples::START_NS) / 1_000;
        let moved = events.into_iter().map(|mut event| {
            if let (What::Call(call), 512_000..512_100) = (&event.what, after_us(&event)) {
                assert_eq!(call.name, CallName::Write);
                event.at_ns += 20_000;
            }
            event
        });
        trial.timeline = timeline::Timeline::new(moved.collect());
        let told = told(&trial);
        let place = |wanted: &str| told.iter().position(|(_, text)| text == wanted).unwrap();
        let origin = place("times count from this write");
        let data = told[origin..].iter().position(|(_, text)| text == "data 100 bytes");
        assert_eq!(data, Some(1), "{told:#?}");
        assert!(told[origin].0 <= told[origin + 1].0, "{told:#?}");
        assert_eq!(told[origin + 2].1, "write 100 bytes", "{told:#?}");
    }

    #[test]
    fn what_is_written_into_a_closing_window_is_no_exchange() {
        let mut exchanges = Exchanges::default();
        for sent in [true, false, true, false, true, true, true, true] {
            exchanges.feed(sent);
        }
        assert_eq!(exchanges.count, 2);
        let mut server_asks = Exchanges::default();
        for sent in [false, true, false, true] {
            server_asks.feed(sent);
        }
        assert_eq!(server_asks.count, 2);
    }
}
