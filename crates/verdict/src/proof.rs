//! Whether the fault did what its name says.

use crate::measure::server_is_gone;
use serde::{Deserialize, Serialize};
use spec::{Answer, CallName, FaultKind, Parameters, Reject, Traffic, counted};
use std::time::Duration;
use timeline::classify::classified;
use timeline::event::{FaultStep, Frame, FrameKind, Phase, Side, Trace};
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
    /// Whether every piece of evidence holds.
    pub fn holds(&self) -> bool {
        self.evidence.iter().all(|evidence| evidence.holds)
    }
}

/// Looks for the evidence of the fault.
pub fn prove(parameters: &Parameters, timeline: &Timeline) -> Proof {
    let Some(scene) = Scene::new(parameters, timeline) else {
        let finding = "the fault was never completed".to_owned();
        return Proof { evidence: vec![Evidence { finding, holds: false }] };
    };
    let mut proof = Collector { evidence: Vec::new() };
    let fault_is_none = parameters.fault.kind == FaultKind::None;
    // Where nothing breaks, commands are started after what times count from.
    if parameters.client.traffic != Traffic::Connect
        && !(parameters.runs_command() && fault_is_none)
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
            proof.add(scene.said_goodbye(parameters));
        }
        FaultKind::ProcessFreeze => {
            proof.add(scene.carrier("server", true));
            if !parameters.runs_command() {
                proof.add(scene.nothing_ended());
            }
            if !parameters.server.fills_window {
                proof.add(scene.nothing_said());
            }
            if parameters.server.program.description().is_web_server {
                proof.evidence.extend(scene.ran_again(parameters));
            }
        }
        FaultKind::PowerOff => {
            proof.add(scene.port_down());
            proof.add(scene.silence());
            proof.add(scene.carrier("client", true));
            proof.add(scene.destroyed());
        }
        FaultKind::Reboot => {
            proof.add(scene.port_down());
            proof.add(scene.silence());
            proof.add(scene.carrier("client", true));
            proof.add(scene.destroyed());
            proof.add(scene.restored(parameters));
        }
        FaultKind::Flap => {
            proof.add(scene.port_down());
            proof.add(scene.silence());
            proof.add(scene.carrier("client", true));
            proof.add(scene.restored(parameters));
            proof.evidence.extend(scene.path_is_back());
        }
        FaultKind::Blackhole => {
            proof.add(scene.silence());
            proof.add(scene.tried());
            proof.add(scene.carrier("client", true));
            proof.add(scene.carrier("server", true));
        }
        FaultKind::Reject => {
            proof.add(scene.rejected(parameters.fault.reject));
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
    let effect = parameters.fault.kind.effect();
    if effect.peer_kernel_stays() && !effect.kills() {
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

    /// The last segment from the server that reached the client: the path worked until then.
    fn last_exchange(&self) -> Evidence {
        let last = self
            .timeline
            .segments(Source::ClientWire)
            .rfind(|(at, segment)| *at < self.began && !segment.sent);
        match last {
            Some((at, _)) => Evidence {
                finding: format!(
                    "the last segment from the server came {} before the fault",
                    span(self.began.saturating_sub(at))
                ),
                holds: true,
            },
            None => Evidence {
                finding: "no segment from the server was captured before the fault".into(),
                holds: false,
            },
        }
    }

    /// While the fault lasts, nothing that the client sends arrives, and nothing comes from the
    /// server's address.
    fn silence(&self) -> (bool, String) {
        let left = self.during(Source::ClientWire, true).count();
        let arrived = self.arrived(Source::ServerWire, Source::ClientWire).count();
        let came = self.arrived(Source::ClientWire, Source::ServerWire);
        let (came, ended) = came.fold((0, 0), |(came, ended), segment| {
            (came + 1, ended + u32::from(segment.flags.fin || segment.flags.rst))
        });
        let finding = format!(
            "{} left the client and {arrived} arrived at the server; {came} came from \
             it, {ended} with FIN or RST among them",
            counted(left, "segment")
        );
        (arrived == 0 && came == 0, finding)
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

    fn farewells(&self) -> impl Iterator<Item = (u64, &'a Segment)> {
        let (began, until) = (self.began, self.until);
        self.timeline.segments(Source::ClientWire).filter(move |(at, segment)| {
            (began..until).contains(at) && !segment.sent && (segment.flags.fin || segment.flags.rst)
        })
    }

    /// No FIN and no RST came.
    fn nothing_ended(&self) -> (bool, String) {
        match self.farewells().next() {
            None => (true, "neither FIN nor RST came from the server".into()),
            Some((at, segment)) => {
                (false, format!("{} came {} after the fault", segment.flags, span(at - self.began)))
            }
        }
    }

    /// The web server closed the connection, if anybody did: no RST, and its program runs on.
    fn closed_by_itself(&self) -> (bool, String) {
        let resets = self.farewells().filter(|(_, segment)| segment.flags.rst).count();
        let text = match self.farewells().next() {
            Some((at, segment)) => {
                format!("{} came {} after the fault", segment.flags, span(at - self.began))
            }
            None => "neither FIN nor RST came from the server".into(),
        };
        (resets == 0, text)
    }

    /// The kernel closed the dead process's connection; or did not, where a child holds it.
    fn said_goodbye(&self, parameters: &Parameters) -> (bool, String) {
        let first = self.farewells().next();
        match (first, parameters.server.inherited) {
            (Some((at, segment)), false) => {
                (true, format!("{} came {} after the kill", segment.flags, span(at - self.began)))
            }
            (None, false) => {
                (false, "neither FIN nor RST came from the dead process's kernel".into())
            }
            (None, true) => {
                (true, "neither FIN nor RST came: the child still holds the connection".into())
            }
            (Some((_, segment)), true) => {
                (false, format!("{} came although a child holds the connection", segment.flags))
            }
        }
    }

    /// How often keepalive put the question to a host that lives: a trial that is over before its
    /// first probe says nothing about keepalive.
    fn kept_alive(&self, parameters: &Parameters) -> Option<Evidence> {
        let client = &parameters.client;
        if !client.keepalive.enabled || client.traffic != Traffic::Idle {
            return None;
        }
        let probes = classified(self.timeline, Source::ClientWire)
            .filter(|(at, segment, class)| {
                (self.began..self.end).contains(at) && segment.sent && class.is_keepalive_probe()
            })
            .count();
        let finding = match probes {
            0 => {
                "no keepalive probe was due before the trial ended: keepalive was not tried".into()
            }
            1 => "1 keepalive probe left the client".to_owned(),
            _ => format!("{probes} keepalive probes left the client"),
        };
        Some(Evidence { finding, holds: true })
    }

    /// A stopped program sends no data; its kernel still acknowledges.
    fn nothing_said(&self) -> (bool, String) {
        let data = self.arrived(Source::ClientWire, Source::ServerWire);
        let data = data.filter(|segment| segment.len > 0).count();
        (data == 0, format!("{} with data came from the stopped program", counted(data, "segment")))
    }

    /// Something was put to the test: if the client sent nothing while it lived, then its closing
    /// FIN, which the laboratory has it send for that.
    fn tried(&self) -> (bool, String) {
        let from = self.done;
        let count = |tap, sent| {
            let segments = self.timeline.segments(tap);
            segments.filter(|(at, segment)| *at >= from && segment.sent == sent).count()
        };
        // A segment that waits for a link-layer address has left as a question.
        let asked = self.timeline.events().iter().filter(|event| {
            event.at_ns >= from
                && event.source == Source::ClientWire
                && matches!(&event.what, What::Frame(frame) if asks(frame))
        });
        let left = count(Source::ClientWire, true) + asked.count();
        (
            left > 0,
            format!(
                "{} left the client, its closing FIN and its questions for addresses included",
                counted(left, "segment")
            ),
        )
    }

    /// A web server that was stopped and runs again acts at once on a timer that has ended: it must
    /// run again when it should.
    fn ran_again(&self, parameters: &Parameters) -> Option<Evidence> {
        let due = parameters.fault.after + parameters.fault_duration()?;
        let segments = self.timeline.segments(Source::ClientWire);
        let (last, _) = segments.take_while(|(at, _)| *at < self.began).last()?;
        let ran = self.timeline.fault_step(&FaultStep::Restored)?;
        let late = (ran - last).saturating_sub(due.as_nanos() as u64);
        Some(Evidence {
            finding: format!("the server process ran again, {} later than it should", span(late)),
            holds: late <= ACTING.as_nanos() as u64,
        })
    }

    /// After a path came back to a client that had sent something, something came back to it.
    fn path_is_back(&self) -> Option<Evidence> {
        let restored = self.timeline.fault_step(&FaultStep::Restored)?;
        let sent = self.during(Source::ClientWire, true).count();
        let ended = self.timeline.events().iter().any(|event| {
            matches!(event.what, What::Trace(Trace::ErrorReport { side: Side::Client, .. }))
                || event.source == Source::ClientProgram
                    && matches!(&event.what, What::Call(call) if call.name == CallName::Read && call.result.is_err())
                // A program that has given up waits for nothing more.
                || event.source == Source::ClientProgram
                    && matches!(&event.what, What::Call(call) if call.name == CallName::Heartbeat)
                // A program that has closed is told nothing.
                || event.at_ns < self.end
                    && event.source == Source::ClientSocket
                    && event.what == What::SocketGone
        });
        if sent == 0 || ended {
            return None;
        }
        let segments = self.timeline.segments(Source::ClientWire);
        let came = segments.filter(|(at, s)| (restored..self.end).contains(at) && !s.sent).count();
        // What is sent too late is not answered before the trial ends; and where nothing is sent,
        // nothing can come.
        let answerable = self.end.saturating_sub(self.transit * 3);
        let tried = self.timeline.events().iter().any(|event| {
            (restored..answerable).contains(&event.at_ns)
                && event.source == Source::ClientWire
                && match &event.what {
                    What::Segment(segment) => segment.sent,
                    What::Frame(frame) => asks(frame),
                    _ => false,
                }
        });
        let watched = self.end.saturating_sub(restored);
        if came == 0 && !tried {
            // A retransmission can be far off; but who looks away at once has seen nothing.
            let finding = format!("the trial ended {} after the path was back", span(watched));
            let too_soon = watched < WATCHED_AFTER.as_nanos() as u64;
            return too_soon.then_some(Evidence { finding, holds: false });
        }
        let finding =
            format!("{} came from the server once the path was back", counted(came, "segment"));
        Some(Evidence { finding, holds: came > 0 })
    }

    /// Whether a host's carrier is as it must be at the end, or when the fault began to be undone.
    fn carrier(&self, interface: &str, wanted: bool) -> (bool, String) {
        match self.link(interface, self.until.min(self.end)) {
            Some((exists, up, carrier)) => {
                let state = match (exists, up && carrier) {
                    (false, _) => "no longer exists",
                    (_, true) => "kept its carrier",
                    (_, false) => "lost its carrier",
                };
                (
                    exists && (up && carrier) == wanted,
                    format!("the {interface}'s interface {state}"),
                )
            }
            None => (false, format!("the {interface}'s interface was not watched")),
        }
    }

    /// The last look at an interface after the fault and before `until`.
    fn link(&self, name: &str, until: u64) -> Option<(bool, bool, bool)> {
        self.timeline
            .events()
            .iter()
            .filter(|event| (self.done..=until).contains(&event.at_ns))
            .filter_map(|event| match &event.what {
                What::Link { interface, exists, up, carrier } if interface == name => {
                    Some((*exists, *up, *carrier))
                }
                _ => None,
            })
            .next_back()
    }

    /// The server's port of the switch is down, or gone with the server.
    fn port_down(&self) -> (bool, String) {
        match self.link("switch port to server", self.until) {
            Some((true, up, _)) => (
                !up,
                format!("the switch's port to the server is {}", if up { "up" } else { "down" }),
            ),
            Some((false, ..)) => {
                (true, "the switch's port to the server is gone with the server".into())
            }
            None => (false, "the switch's port to the server was not watched".into()),
        }
    }

    fn destroyed(&self) -> (bool, String) {
        if server_is_gone(self.timeline) {
            (true, "the server's host is gone, with its processes, sockets and interface".into())
        } else {
            (false, "the server's host was not destroyed".into())
        }
    }

    /// A fault that ends did end when it was due, unless the trial ended before. Undoing it takes
    /// a moment, and on a busy machine more: that matters if the client sent something meanwhile.
    fn restored(&self, parameters: &Parameters) -> (bool, String) {
        if let Some(at) = self.timeline.fault_step(&FaultStep::Restored) {
            let due = self.began
                + parameters.fault_duration().map_or(0, |duration| duration.as_nanos() as u64);
            let missed = self
                .timeline
                .segments(Source::ClientWire)
                .filter(|(sent, segment)| (due..at).contains(sent) && segment.sent)
                .count();
            let mut finding =
                format!("the fault was over {} after it began", span(at - self.began));
            if missed > 0 {
                finding += &format!(
                    ", {} later than it should: {} lost meanwhile",
                    span(at - due),
                    counted(missed, "segment")
                );
            }
            (missed == 0, finding)
        } else if self.timeline.fault_step(&FaultStep::Outlasted).is_some() {
            (true, "the deadline passed before the fault was scheduled to end".into())
        } else {
            (false, "the fault was not undone before the trial ended".into())
        }
    }

    /// The client's own check of the answers, if it came to that.
    fn data_intact(&self) -> Option<Evidence> {
        self.timeline.events().iter().find_map(|event| match &event.what {
            // Where nothing was sent, nothing could come back.
            What::Call(call) if call.name == CallName::Check && call.result != Ok(0) => {
                Some(match call.result {
                    Ok(bytes) => Evidence {
                        finding: format!("{} came back as sent", counted(bytes, "byte")),
                        holds: true,
                    },
                    Err(_) => Evidence {
                        finding:
                            "what came back is not what was sent: bytes were lost or came twice"
                                .into(),
                        holds: false,
                    },
                })
            }
            _ => None,
        })
    }

    /// Nothing of the connection passes the router any more, which answers what it rejects.
    fn rejected(&self, kind: Reject) -> (bool, String) {
        // The closing FIN included: an idle client sends nothing else.
        let sent = self
            .timeline
            .segments(Source::ClientWire)
            .filter(|(at, segment)| *at >= self.done && segment.sent)
            .count();
        let passed = self.arrived(Source::ServerWire, Source::ClientWire);
        let arrived = passed.filter(|segment| !segment.flags.rst).count();
        let answers = if kind == Reject::TcpReset {
            let came = self.timeline.segments(Source::ClientWire);
            came.filter(|(at, s)| *at >= self.began && !s.sent && s.flags.rst).count()
        } else {
            self.icmp_answers()
        };
        let finding = format!(
            "{} left the client, {arrived} passed the router, which answered {} ({kind})",
            counted(sent, "segment"),
            counted(answers, "time")
        );
        // A RST draws no answer.
        let asks = self.timeline.segments(Source::ClientWire);
        let asks = asks.filter(|(at, s)| *at >= self.done && s.sent && !s.flags.rst).count();
        (arrived == 0 && (answers > 0 || (sent > 0 && asks == 0)), finding)
    }

    /// What came to the router before the flow had been idle for so long passed it, and nothing after
    /// that.
    fn forgot(&self, parameters: &Parameters) -> (bool, String) {
        let remembers = parameters.fault.idle.unwrap_or_default().as_nanos() as u64;
        let slack = QUEUEING.as_nanos() as u64;
        let (mut before, mut forgotten) = (None, None);
        let (mut passed, mut lost, mut wrong, mut resets) = (0, 0, 0, 0);
        for (at, segment) in self.timeline.segments(Source::ClientWire) {
            let idle = before.map_or(0, |before| at - before);
            if !segment.sent {
                resets += u32::from(forgotten.is_some() && segment.flags.rst);
                before = Some(at).filter(|_| forgotten.is_none()).or(before);
                continue;
            }
            let arrived = self.timeline.segments(Source::ServerWire).any(|(came, other)| {
                (at..at + self.transit).contains(&came)
                    && Segment { sent: true, ..*other } == *segment
                    && !other.sent
            });
            if forgotten.is_none() && idle >= remembers {
                forgotten = Some(idle);
            }
            let near =
                forgotten.is_none_or(|idle| idle < remembers + slack) && idle + slack >= remembers;
            wrong += u32::from(arrived == forgotten.is_some() && !near);
            (passed, lost) = (passed + u32::from(arrived), lost + u32::from(!arrived));
            before = Some(at).filter(|_| arrived).or(before);
        }
        let answered = parameters.fault.answer == Answer::TcpReset;
        let holds = wrong == 0 && (lost == 0 || answered == (resets > 0));
        let finding = match forgotten {
            Some(idle) => format!(
                "the flow was idle for {}: {lost} segments did not pass the router after that, which \
                 sent {resets} resets; {passed} had passed before",
                span(idle)
            ),
            None => format!(
                "the flow was never idle for {}: {passed} segments passed the router, {lost} did not",
                span(remembers)
            ),
        };
        (holds, finding)
    }

    fn icmp_answers(&self) -> usize {
        self.timeline
            .events()
            .iter()
            .filter(|event| event.at_ns >= self.done)
            .filter(|event| event.source == Source::ClientWire)
            .filter(|event| {
                matches!(
                    event.what,
                    What::Frame(Frame {
                        sent: false,
                        kind: FrameKind::Icmp { about_connection: true, .. }
                    })
                )
            })
            .count()
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
