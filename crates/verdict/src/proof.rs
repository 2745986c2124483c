//! Whether the fault did what its name says.

mod path;
mod peer;
mod sieved;

use serde::{Deserialize, Serialize};
use spec::{CallName, FaultKind, Parameters, Traffic};
use std::time::Duration;
use timeline::event::{FaultStep, Frame, FrameKind, Phase};
use timeline::{Segment, Source, Timeline, What};

/// The evidence for the fault, and what is missing from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Everything that was looked at.
    pub evidence: Vec<Evidence>,
}

/// One thing that must be so if the fault did what its name says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// What was found, a sentence with times and counts.
    pub finding: String,
    /// Whether it is as it must be.
    pub holds: bool,
}

impl Proof {
    /// Has what it says of the survivor and the other call them by their names.
    pub(crate) fn named(mut self, trial: &Parameters) -> Self {
        for evidence in &mut self.evidence {
            evidence.finding = trial.named(&evidence.finding);
        }
        self
    }

    /// Whether every piece of evidence holds.
    pub fn holds(&self) -> bool {
        self.evidence.iter().all(|evidence| evidence.holds)
    }
}

/// Looks for the evidence of the fault.
pub fn prove(parameters: &Parameters, timeline: &Timeline) -> Proof {
    prove_part(parameters, timeline, true)
}

/// The same of a fault that others may follow: what the last one is put to the test by, those before it
/// need not have met.
pub(crate) fn prove_part(parameters: &Parameters, timeline: &Timeline, is_last: bool) -> Proof {
    let Some(scene) = Scene::new(parameters, timeline) else {
        let finding = "the fault was never completed".to_owned();
        return Proof { evidence: vec![Evidence { finding, holds: false }] };
    };
    let mut proof = Collector { evidence: Vec::new() };
    let fault_is_none = parameters.fault.kind == FaultKind::None;
    // Where nothing breaks, commands are started after what times count from.
    // A proxy need not have connected to the server.
    let is_unused = parameters.third_there() && timeline.flows().is_empty();
    if parameters.client.traffic != Traffic::Connect
        && !(parameters.runs_command() && fault_is_none)
        && !is_unused
    {
        proof.evidence.push(scene.last_exchange());
    }
    match parameters.fault.kind {
        FaultKind::None => {
            if parameters.server.program.description().is_web_server {
                proof.add(scene.closed_by_itself());
            } else if !parameters.runs_command() {
                proof.add(scene.nothing_ended());
            }
            proof.add(scene.carrier("client", true));
            proof.add(scene.carrier("server", true));
        }
        FaultKind::ProcessCrash => {
            proof.add(scene.carrier("client", true));
            if parameters.fault.still.is_some() {
                proof.add(scene.silence());
                proof.evidence.extend(scene.path_is_back());
            } else {
                proof.add(scene.said_goodbye(parameters));
            }
            proof.evidence.extend(scene.met_processes("killed", parameters.server.inherited));
        }
        FaultKind::ProcessFreeze => {
            proof.add(scene.carrier("server", true));
            if !parameters.runs_command() {
                proof.add(scene.nothing_ended());
            }
            if !parameters.server.fills_window {
                proof.add(scene.nothing_said());
            }
            proof.evidence.extend(scene.met_processes("stopped", false));
            if parameters.server.program.description().is_web_server {
                proof.evidence.extend(scene.ran_again(parameters));
            }
        }
        FaultKind::PowerOff => {
            proof.add(scene.port_down(parameters.topology));
            proof.add(scene.silence());
            proof.add(scene.carrier("client", true));
            proof.add(scene.destroyed());
        }
        FaultKind::Reboot | FaultKind::Takeover => {
            proof.add(scene.port_down(parameters.topology));
            proof.add(scene.silence());
            proof.add(scene.carrier("client", true));
            proof.add(scene.destroyed());
            proof.add(scene.restored(parameters));
            if parameters.fault.kind == FaultKind::Takeover {
                proof.evidence.extend(scene.announced(parameters.fault.announce));
            }
        }
        FaultKind::Flap => {
            proof.add(scene.port_down(parameters.topology));
            proof.add(scene.silence());
            proof.add(scene.carrier("client", true));
            proof.add(scene.restored(parameters));
            proof.evidence.extend(scene.path_is_back().filter(|_| is_last));
        }
        FaultKind::Blackhole | FaultKind::Mtu => {
            proof.add(match parameters.fault.sieve() {
                None => scene.silence(),
                Some(sieve) => scene.sieved(parameters, sieve),
            });
            if is_last {
                proof.add(scene.tried());
            }
            proof.add(scene.carrier("client", true));
            proof.add(scene.carrier("server", true));
        }
        FaultKind::Reject => {
            proof.add(scene.rejected(parameters.fault.reject, is_last));
            proof.add(scene.carrier("client", true));
            proof.add(scene.carrier("server", true));
        }
        FaultKind::Forget => {
            proof.add(scene.forgot(parameters));
            proof.add(scene.carrier("client", true));
            proof.add(scene.carrier("server", true));
        }
        FaultKind::Unplug => {
            proof.add(scene.carrier("client", false));
            proof.add(scene.silence());
        }
    }
    let effect = parameters.fault.effect();
    if effect.reachable_at_fault() && !effect.kills() {
        proof.evidence.extend(scene.kept_alive(parameters));
    }
    proof.evidence.extend(scene.data_intact());
    Proof { evidence: proof.evidence }
}

struct Collector {
    evidence: Vec<Evidence>,
}

impl Collector {
    fn add(&mut self, (holds, finding): (bool, String)) {
        self.evidence.push(Evidence { finding, holds });
    }
}

/// How long a segment can wait on its way, beside the path's own delay.
const QUEUEING: Duration = Duration::from_millis(20);

/// How long neighbour discovery takes, with its first two questions lost.
const ASKING: Duration = Duration::from_secs(2);

/// From a moment that an experiment sets to the moment the laboratory acts, at most.
const ACTING: Duration = Duration::from_millis(100);

/// Unless the experiment says otherwise, a path that is back is watched for two seconds at least,
/// less what it took to bring it back.
const WATCHED_AFTER: Duration = Duration::from_secs(1);

/// The timeline from the fault on.
struct Scene<'a> {
    timeline: &'a Timeline,
    /// The fault began.
    began: u64,
    /// Its first action was done: from here on it is in force.
    done: u64,
    /// It began to be undone, or the trial ended.
    until: u64,
    /// The client was told to close: what comes later proves nothing.
    end: u64,
    /// How long a segment can be on its way.
    transit: u64,
}

impl<'a> Scene<'a> {
    fn new(parameters: &Parameters, timeline: &'a Timeline) -> Option<Self> {
        let began = timeline.fault_at()?;
        let step = |wanted: fn(&FaultStep) -> bool| {
            timeline.events().iter().find_map(|event| match &event.what {
                What::Fault(step) if wanted(step) => Some(event.at_ns),
                _ => None,
            })
        };
        let done = step(|step| matches!(step, FaultStep::Done(_)))?;
        step(|step| *step == FaultStep::Complete)?;
        let end = timeline
            .events()
            .iter()
            .find(|event| {
                !parameters.client_lets_go()
                    && event.source == Source::ClientProgram
                    && matches!(&event.what, What::Call(call) if call.name == CallName::Close)
            })
            .map(|event| match &event.what {
                What::Call(call) => call.began_ns,
                _ => event.at_ns,
            })
            .or(timeline.phase_at(Phase::Aftermath))
            .or(timeline.phase_at(Phase::Interrupted))
            .unwrap_or(u64::MAX);
        let until = step(|step| *step == FaultStep::Restoring).unwrap_or(end);
        let transit = (parameters.path.rtt + QUEUEING).as_nanos() as u64;
        Some(Self { timeline, began, done, until, end, transit })
    }

    /// The segments that a tap saw while the fault lasted.
    fn during(&self, tap: Source, sent: bool) -> impl Iterator<Item = &'a Segment> {
        let (done, until) = (self.done, self.until);
        self.timeline
            .segments(tap)
            .filter(move |(at, segment)| (done..until).contains(at) && segment.sent == sent)
            .map(|(_, segment)| segment)
    }

    /// The segments that came to one host while the fault lasted, but for those that had left the
    /// other before it began and were on their way.
    fn arrived(&self, at: Source, from: Source) -> impl Iterator<Item = &'a Segment> {
        let (timeline, done) = (self.timeline, self.done);
        let earliest = done.saturating_sub(self.transit);
        self.during(at, false).filter(move |came| {
            let on_its_way = timeline.segments(from).any(|(left, segment)| {
                (earliest..done).contains(&left) && Segment { sent: false, ..*segment } == **came
            });
            !on_its_way
        })
    }
}

/// Whether a host asks for a link-layer address.
fn asks(frame: &Frame) -> bool {
    frame.sent && matches!(frame.kind, FrameKind::NeighbourRequest(_))
}

/// Nanoseconds for people.
fn span(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} µs", ns / 1_000),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.3} s", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::FaultAct;
    use timeline::event::Call;
    use timeline::{Event, Flags};

    /// A link that is down for a second: the client sends 100 ms into it, and the program gives the
    /// server up, or not, after `gives_up_ms`.
    fn flap(gives_up_ms: Option<u64>) -> Proof {
        let mut parameters = Parameters::default();
        parameters.client.traffic = Traffic::Heartbeat;
        parameters.fault.kind = FaultKind::Flap;
        parameters.fault.duration = Some(Duration::from_secs(1));
        let ms = |ms: u64| ms * 1_000_000;
        let lab = |at, step| Event::new(ms(at), Source::Lab, What::Fault(step));
        let call = |at, name| {
            Event::new(
                ms(at),
                Source::ClientProgram,
                What::Call(Call { name, detail: String::new(), result: Ok(0), began_ns: ms(at) }),
            )
        };
        let sent = Segment {
            sent: true,
            source_port: 40_000,
            destination_port: 7,
            seq: 1,
            ack: 1,
            flags: Flags::from_bits(0x18),
            window: 502,
            len: 100,
        };
        let segment = |at| Event::new(ms(at), Source::ClientWire, What::Segment(sent));
        let mut events = vec![
            lab(1_000, FaultStep::Begin),
            lab(1_001, FaultStep::Done(FaultAct::PortDown)),
            lab(1_002, FaultStep::Complete),
            segment(1_100),
            lab(2_000, FaultStep::Restoring),
            lab(2_001, FaultStep::Restored),
            segment(2_010),
            call(3_000, CallName::Close),
        ];
        events.extend(gives_up_ms.map(|at| call(at, CallName::Heartbeat)));
        prove(&parameters, &Timeline::new(events))
    }

    #[test]
    fn a_program_that_gave_up_waits_for_nothing_from_the_path() {
        let is_back = |proof: Proof| {
            proof.evidence.iter().find(|piece| piece.finding.contains("path was back")).cloned()
        };
        assert_eq!(is_back(flap(Some(2_100))), None);
        let came = is_back(flap(None)).unwrap();
        assert!(!came.holds, "{}", came.finding);
    }
}
