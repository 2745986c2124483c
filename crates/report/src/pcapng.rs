//! The packets of a trial as one capture file that Wireshark reads, with comments on the packets
//! that matter.
//!
//! Format: draft-ietf-opsawg-pcapng. One section, two interfaces (`client` and `server`), time
//! stamps in nanoseconds.

mod block;

use crate::narrate::{Narrator, Tone};
use crate::passage::{Passage, pair};
use crate::trial::Trial;
use crate::{human, words};
use block::Block;
use spec::{Leg, Parameters, Part};
use std::collections::{HashMap, HashSet};
use timeline::{Event, FlowId, Source, What};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const COMMENT: u16 = 1;
const SHB_OS: u16 = 3;
const SHB_APPLICATION: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_RESOLUTION: u16 = 9;
const EPB_FLAGS: u16 = 2;
const ETHERNET: u16 = 1;

/// A frame that a tap captured, with the event that was made of it.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// The event, as it stands in the trial's timeline.
    pub event: &'a Event,
    /// The kernel's stamp: nanoseconds of wall time since 1970.
    pub wall_ns: u64,
    /// The bytes that were kept, from the Ethernet header on. Packets without any are left out:
    /// they stand for losses, which the section's comment counts.
    pub frame: &'a [u8],
    /// The length on the wire, bytes.
    pub wire_len: u32,
}

/// The capture file of a trial. The packets may come in any order.
pub fn capture(trial: &Trial, packets: &[Packet<'_>]) -> Vec<u8> {
    let mut packets: Vec<_> = packets.iter().filter(|packet| !packet.frame.is_empty()).collect();
    packets.sort_by_key(|packet| packet.event.at_ns);
    let mut bytes = section(trial);
    let parameters = &trial.experiment.parameters;
    let count = if parameters.third_there() { 3 } else { 2 };
    for name in parameters.hosts().into_iter().take(count) {
        bytes.extend(interface(name, &format!("the {name}'s interface")));
    }
    let (mut comments, legs) = (Comments::new(trial), trial.timeline.legs());
    for packet in packets {
        let comment = comments.of(packet.event);
        let number = number(packet.event, parameters, &legs);
        bytes.extend(enhanced(packet, number, comment.as_deref()));
    }
    bytes
}

/// The number of the interface that a packet passed: that of its host's part.
fn number(event: &Event, parameters: &Parameters, legs: &HashMap<FlowId, Leg>) -> u32 {
    let leg = event.flow.and_then(|flow| legs.get(&flow)).copied().unwrap_or_default();
    let [near, far] = parameters.parts(leg);
    match event.source.part() {
        Some(Part::Client) if event.flow.is_some() => near as u32,
        Some(Part::Server) if event.flow.is_some() => far as u32,
        Some(part) => part as u32,
        None => 0,
    }
}

fn section(trial: &Trial) -> Vec<u8> {
    let mut block = Block::new(SECTION_HEADER);
    block.u32(0x1a2b_3c4d).u16(1).u16(0).u64(u64::MAX); // the section's length is not given
    let experiment = &trial.experiment;
    block.option(COMMENT, format!("{}: {}", experiment.name, experiment.question).as_bytes());
    block.option(COMMENT, words::setting(&experiment.parameters).as_bytes());
    block.option(COMMENT, words::stimulus(&experiment.parameters).as_bytes());
    let verdict = format!("{}: {}", trial.verdict.word, human::compared(trial));
    block.option(COMMENT, verdict.as_bytes());
    for event in trial.timeline.events() {
        if let What::Lost { count } = event.what {
            let source = words::source(&experiment.parameters, event.source);
            let lost = format!("{source}: {count} packets or events lost");
            block.option(COMMENT, lost.as_bytes());
        }
    }
    if let Some(facts) = &trial.facts {
        block.option(SHB_OS, format!("Linux {}", facts.kernel).as_bytes());
    }
    block.option(SHB_APPLICATION, b"halfopen");
    block.finish()
}

fn interface(name: &str, description: &str) -> Vec<u8> {
    let mut block = Block::new(INTERFACE_DESCRIPTION);
    block.u16(ETHERNET).u16(0).u32(0); // no limit to the length
    block.option(IF_NAME, name.as_bytes());
    block.option(IF_DESCRIPTION, description.as_bytes());
    block.option(IF_RESOLUTION, &[9]);
    block.finish()
}

fn enhanced(packet: &Packet<'_>, interface: u32, comment: Option<&str>) -> Vec<u8> {
    let mut block = Block::new(ENHANCED_PACKET);
    let captured = packet.frame.len() as u32;
    block.u32(interface).u32((packet.wall_ns >> 32) as u32).u32(packet.wall_ns as u32);
    block.u32(captured).u32(packet.wire_len.max(captured)).padded(packet.frame);
    if let Some(comment) = comment {
        block.option(COMMENT, comment.as_bytes());
    }
    let outbound = match &packet.event.what {
        What::Segment(segment) => segment.sent,
        What::Frame(frame) => frame.sent,
        _ => false,
    };
    let direction = if outbound { 2_u32 } else { 1 };
    block.option(EPB_FLAGS, &direction.to_le_bytes());
    block.finish()
}

/// What is to be said about packets, asked in the order of time.
struct Comments {
    narrator: Narrator,
    lost: HashSet<(Source, u64)>,
    marks: HashMap<(Source, u64), String>,
    hosts: [&'static str; 2],
}

impl Comments {
    fn new(trial: &Trial) -> Self {
        let parameters = &trial.experiment.parameters;
        let narrator = Narrator::new(parameters).with_prediction(trial.prediction.as_ref());
        let lost = pair(trial.timeline.events(), parameters)
            .into_iter()
            .filter(|(_, passage)| *passage == Passage::Lost)
            .map(|(event, _)| (event.source, event.at_ns))
            .collect();
        Self { narrator, lost, marks: around_the_fault(trial), hosts: parameters.names() }
    }

    fn of(&mut self, event: &Event) -> Option<String> {
        let note = self.narrator.note(event)?;
        let key = (event.source, event.at_ns);
        let matters = !matches!(note.tone, Tone::Ordinary | Tone::Quiet | Tone::State);
        let lost = self.lost.contains(&key);
        let mut parts = Vec::new();
        if matters || lost {
            parts.push(note.text);
        }
        if lost {
            let [watched, other] = self.hosts;
            let other = if event.source == Source::ClientWire { other } else { watched };
            if !self.narrator.is_beside(event) {
                parts.push(format!("did not come to the {other}"));
            }
        }
        parts.extend(self.marks.remove(&key));
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// The last packet before the fault and the first after it, at the client.
fn around_the_fault(trial: &Trial) -> HashMap<(Source, u64), String> {
    let mut marks = HashMap::new();
    let Some(fault_ns) = trial.timeline.fault_at() else { return marks };
    let kind = trial.experiment.parameters.fault.kind;
    let times = || trial.timeline.segments(Source::ClientWire).map(|(at_ns, _)| at_ns);
    if let Some(last) = times().take_while(|at_ns| *at_ns < fault_ns).last() {
        marks.insert(
            (Source::ClientWire, last),
            format!("the last segment before the fault ({kind})"),
        );
    }
    if let Some(first) = times().find(|at_ns| *at_ns >= fault_ns) {
        let after = crate::span::measured((first - fault_ns) as f64 / 1e9);
        let text = format!("the first segment after the fault ({kind}), {after} later");
        marks.insert((Source::ClientWire, first), text);
    }
    marks
}

#[cfg(test)]
mod tests;
