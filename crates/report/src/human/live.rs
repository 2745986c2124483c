//! The timeline as things happen.

use crate::human::paint::Paint;
use crate::human::row;
use crate::narrate::{Narrator, Note, Place, Tone};
use crate::passage::{Pairing, Passage};
use crate::span;
use model::Prediction;
use spec::{Parameters, Reference};
use std::time::Duration;
use timeline::event::{FaultStep, Phase};
use timeline::{Event, Segment, Source, What};

/// So many ordinary events in a row are shown; of more, the number.
const ORDINARY_SHOWN: u32 = 3;

/// Prints a trial while it runs: feed it events, and take the lines that are ready.
///
/// A line comes a few hundredths of a second after its event (and a round-trip time more, where
/// one was added): until then, nobody knows whether its frame arrived. Call [`Self::lines`] every
/// so often.
#[derive(Debug, Clone)]
pub struct Live {
    paint: Paint,
    narrator: Narrator,
    pairing: Pairing,
    reference: Reference,
    phase: Phase,
    heads_shown: bool,
    /// What times count from.
    origin_ns: Option<u64>,
    fault_ns: Option<u64>,
    last_received_ns: Option<u64>,
    first_write_seen: bool,
    exchanges: u32,
    rto_us: u32,
    ordinary: Ordinary,
}

/// Ordinary events since the last one that was not.
#[derive(Debug, Clone, Copy, Default)]
struct Ordinary {
    shown: u32,
    hidden: u32,
}

impl Live {
    /// For a trial with these parameters.
    pub fn new(parameters: &Parameters, colour: bool) -> Self {
        Self {
            paint: Paint(colour),
            narrator: Narrator::new(parameters),
            pairing: Pairing::new(parameters.path.rtt),
            reference: Reference::Fault,
            phase: Phase::Building,
            heads_shown: false,
            origin_ns: None,
            fault_ns: None,
            last_received_ns: None,
            first_write_seen: false,
            exchanges: 0,
            rto_us: 0,
            ordinary: Ordinary::default(),
        }
    }

    /// Learns the prediction: what times count from, and how many probes to expect.
    pub fn predict(&mut self, prediction: &Prediction) {
        self.narrator.predict(prediction);
        self.reference = prediction.reference;
    }

    /// Takes an event.
    pub fn feed(&mut self, event: &Event) {
        self.pairing.push(event.clone());
    }

    /// The lines that are ready at `now_ns` of the events' clock, without newlines.
    pub fn lines(&mut self, now_ns: u64) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some((event, passage)) = self.pairing.pop(now_ns) {
            self.show(&event, passage, &mut lines);
        }
        lines
    }

    /// The lines that are left at the end of the trial.
    pub fn finish(mut self) -> Vec<String> {
        let mut lines = self.lines(u64::MAX);
        self.end_ordinary(&mut lines);
        lines
    }

    fn show(&mut self, event: &Event, passage: Passage, lines: &mut Vec<String>) {
        if !std::mem::replace(&mut self.heads_shown, true) {
            lines.push(row::heads(self.paint));
        }
        self.watch(event, lines);
        let Some(note) = self.narrator.note(event) else { return };
        if self.phase == Phase::Settling && note.tone == Tone::Ordinary {
            return;
        }
        if note.tone == Tone::Ordinary && self.fault_ns.is_some() {
            if self.ordinary.shown == ORDINARY_SHOWN {
                self.ordinary.hidden += 1;
                return;
            }
            self.ordinary.shown += 1;
        } else {
            self.end_ordinary(lines);
        }
        lines.push(self.row(event.at_ns, &note, passage));
    }

    /// Follows what the lines depend on: phases, the fault, what times count from.
    fn watch(&mut self, event: &Event, lines: &mut Vec<String>) {
        self.origin_ns.get_or_insert(event.at_ns);
        match &event.what {
            What::Phase(phase) => {
                if (self.phase, *phase) == (Phase::Settling, Phase::Connected) {
                    self.settled(event.at_ns, lines);
                }
                self.phase = *phase;
            }
            What::Fault(FaultStep::Begin) => self.fault(event.at_ns, lines),
            What::Segment(segment)
                if event.source == Source::ClientWire && self.fault_ns.is_none() =>
            {
                if !segment.sent {
                    self.last_received_ns = Some(event.at_ns);
                } else if segment.len > 0 && self.phase == Phase::Settling {
                    self.exchanges += 1;
                }
            }
            What::Segment(Segment { sent: true, len: 1.., .. })
                if event.source == Source::ClientWire =>
            {
                self.first_write(event.at_ns, lines);
            }
            What::Call(call) if event.source == Source::ClientProgram && call.name == "write" => {
                self.first_write(call.began_ns, lines);
            }
            What::Socket(sample) if event.source == Source::ClientSocket => {
                self.rto_us = sample.info.as_ref().map_or(self.rto_us, |info| info.rto_us);
            }
            _ => {}
        }
    }

    fn settled(&self, at_ns: u64, lines: &mut Vec<String>) {
        let rto = if self.rto_us == 0 {
            String::new()
        } else {
            format!(", RTO {}", span::exact(Duration::from_micros(self.rto_us.into())))
        };
        let text = format!("settled after {} exchanges{rto}", self.exchanges);
        let note = Note { place: Place::Trial, text, tone: Tone::Quiet };
        lines.push(self.row(at_ns, &note, Passage::None));
    }

    fn fault(&mut self, at_ns: u64, lines: &mut Vec<String>) {
        self.fault_ns = Some(at_ns);
        self.end_ordinary(lines);
        let (origin_ns, text) = match (self.reference, self.last_received_ns) {
            (Reference::LastActivity, Some(received_ns)) => {
                let earlier = span::measured(seconds_between(received_ns, at_ns));
                (received_ns, format!("the last segment came {earlier} ago: times count from it"))
            }
            _ => (at_ns, "times count from the fault".into()),
        };
        self.origin_ns = Some(origin_ns);
        lines.push(row::rule(&text, self.paint));
    }

    fn first_write(&mut self, at_ns: u64, lines: &mut Vec<String>) {
        if self.fault_ns.is_none() || std::mem::replace(&mut self.first_write_seen, true) {
            return;
        }
        if self.reference == Reference::FirstWrite {
            self.origin_ns = Some(at_ns);
            lines.push(row::rule("times count from this write", self.paint));
        }
    }

    fn end_ordinary(&mut self, lines: &mut Vec<String>) {
        let Ordinary { hidden, .. } = std::mem::take(&mut self.ordinary);
        if hidden > 0 {
            let more = format!("{:>12}  ⋯ {hidden} more calls and segments of that kind", "");
            lines.push(self.paint.quiet(&more));
        }
    }

    fn row(&self, at_ns: u64, note: &Note, passage: Passage) -> String {
        let origin_ns = self.origin_ns.unwrap_or(at_ns);
        row::row(seconds_between(origin_ns, at_ns), note, passage, self.paint)
    }
}

fn seconds_between(from_ns: u64, to_ns: u64) -> f64 {
    (i128::from(to_ns) - i128::from(from_ns)) as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use crate::trial::Trial;

    /// Feeds a trial in steps, as a runner would.
    fn lines(trial: &Trial) -> Vec<String> {
        let mut live = Live::new(&trial.experiment.parameters, false);
        let mut lines = Vec::new();
        for event in trial.timeline.events() {
            if event.what == What::Phase(Phase::Connected) {
                live.predict(trial.prediction.as_ref().unwrap());
            }
            live.feed(event);
            lines.extend(live.lines(event.at_ns));
        }
        lines.extend(live.finish());
        lines
    }

    #[test]
    fn an_idle_client_whose_probes_are_lost() {
        let lines = lines(&samples::keepalive());
        assert!(lines.iter().all(|line| line.chars().count() <= 104), "{lines:#?}");
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_write_that_is_sent_again() {
        insta::assert_snapshot!(lines(&samples::sending()).join("\n"));
    }

    #[test]
    fn a_killed_process_closes_in_four_steps() {
        insta::assert_snapshot!(lines(&samples::crash()).join("\n"));
    }

    #[test]
    fn a_stream_is_cut_short() {
        let lines = lines(&samples::stream());
        let more = lines.iter().filter(|line| line.contains("more calls and segments")).count();
        assert!(more > 0, "{lines:#?}");
        assert!(lines.len() < 40, "{lines:#?}");
    }
}
