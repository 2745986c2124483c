//! Says in a few words what an event is: for the live timeline, for the comments in the capture
//! file, for the diagram.

mod frame;
mod segment;

use crate::span;
use crate::words;
use model::Prediction;
use segment::Resends;
use spec::{CallName, Errno, FaultKind, Leg, Parameters, Part, SocketOptions, Topology, counted};
use std::collections::HashMap;
use std::time::Duration;
use timeline::event::{Call, FaultStep, Phase, SocketSample, Trace};
use timeline::{Class, Classifier, Event, FlowId, Segment, Side, Source, What};

/// Waking later than this is worth a line; after that, only later still.
const LATE_NS: u64 = 10_000_000;

/// What is to be said about one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Where it happened.
    pub place: Place,
    /// A few words.
    pub text: String,
    /// How much it matters, and how.
    pub tone: Tone,
}

/// Where something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// At the client, program or kernel.
    Client,
    /// On the wire, on its way to the server.
    ToServer,
    /// On the wire, on its way to the client.
    ToClient,
    /// At the server, program or kernel.
    Server,
    /// In the trial as a whole.
    Trial,
}

/// How much something matters, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tone {
    /// The ordinary course: data, acknowledgements, calls that succeed. Much of it can be left out.
    Ordinary,
    /// Background.
    Quiet,
    /// A socket's state or timer: background where something else shows them.
    State,
    /// A step of what the trial is about: probes, retransmissions, the handshake, the close.
    Step,
    /// The fault.
    Fault,
    /// The end of the connection, for the host that learns of it.
    End,
    /// Something that weakens the evidence.
    Warning,
}

/// Turns events, fed in the order of time, into notes.
#[derive(Debug, Clone)]
pub struct Narrator {
    /// With the fault that is there, or was ordered.
    parameters: Parameters,
    probes: Option<u32>,
    resends: Resends,
    taps: [Classifier; 2],
    /// Each socket's state, timer and count, by host and connection.
    sockets: HashMap<(Side, Option<FlowId>), (String, u8, u8)>,
    /// The options that each socket was last seen to have.
    options: HashMap<Option<FlowId>, SocketOptions>,
    links: Vec<(String, String)>,
    /// The longest that the machine was busy so far.
    latest_ns: u64,
    /// The connections of the third host.
    beside: HashMap<FlowId, Leg>,
}

impl Narrator {
    /// For a trial with these parameters.
    pub fn new(parameters: &Parameters) -> Self {
        Self {
            parameters: parameters.clone(),
            probes: parameters.client.keepalive.probes,
            resends: Resends::default(),
            taps: [Classifier::new(Side::Client), Classifier::new(Side::Server)],
            sockets: HashMap::new(),
            options: HashMap::new(),
            links: Vec::new(),
            latest_ns: LATE_NS,
            beside: HashMap::new(),
        }
    }

    /// The same, with the prediction: from now on probes have a total, and the tail loss probe is
    /// told from the first retransmission.
    #[must_use]
    pub fn with_prediction(mut self, prediction: Option<&Prediction>) -> Self {
        if let Some(prediction) = prediction {
            self.predict(prediction);
        }
        self
    }

    /// Learns the prediction.
    pub fn predict(&mut self, prediction: &Prediction) {
        self.resends.expect(&prediction.schedule);
        let most = prediction.windows.iter().filter_map(|window| window.keepalive_probes).max();
        self.probes = most.filter(|probes| *probes > 0).or(self.probes);
    }

    /// What is to be said about the next event; `None` if it is nothing new. Of what the third host
    /// does, and of its connections, in short.
    pub fn note(&mut self, event: &Event) -> Option<Note> {
        if let (Some(id), What::Flow(flow)) = (event.flow, &event.what)
            && self.parameters.parts(flow.leg).contains(&Part::Third)
        {
            self.beside.insert(id, flow.leg);
        }
        let hosts = self.parameters.hosts();
        let [near, far] = match event.flow.and_then(|flow| self.beside.get(&flow)) {
            Some(leg) => self.parameters.parts(*leg).map(|part| hosts[part as usize]),
            None if event.source.part() == Some(Part::Third) => [hosts[Part::Third as usize]; 2],
            None => return self.told(event),
        };
        let Note { place, text, tone } = self.told(event)?;
        let text = match place {
            Place::Trial => text,
            Place::Client => format!("{near}: {text}"),
            Place::Server => format!("{far}: {text}"),
            Place::ToServer => format!("{near} → {far}: {text}"),
            Place::ToClient => format!("{far} → {near}: {text}"),
        };
        // A living peer's answers, for days.
        let is_idle = matches!(&event.what, What::Segment(segment)
            if segment.len == 0 && !(segment.flags.syn || segment.flags.fin || segment.flags.rst));
        let is_told = matches!(tone, Tone::Step | Tone::Fault | Tone::End | Tone::Warning);
        let is_shown = is_told && !is_idle;
        is_shown.then_some(Note { place: Place::Trial, text, tone })
    }

    /// Whether an event is about a connection of the third host.
    pub(crate) fn is_beside(&self, event: &Event) -> bool {
        event.flow.is_some_and(|flow| self.beside.contains_key(&flow))
    }

    fn told(&mut self, event: &Event) -> Option<Note> {
        let side = side_of(event.source);
        let here = if side == Side::Client { Place::Client } else { Place::Server };
        let trial = |text: &str, tone| Some(Note { place: Place::Trial, text: text.into(), tone });
        match &event.what {
            What::Segment(segment) => Some(self.segment(side, event.flow, segment)),
            What::Frame(frame) => frame::note(frame, heading(side, frame.sent)),
            What::Call(call) => Some(called(here, call)),
            What::Socket(sample) => self.socket((side, event.flow), here, sample),
            What::SocketGone => {
                let was_there = self.sockets.remove(&(side, event.flow)).is_some();
                was_there.then(|| Note {
                    place: here,
                    text: "socket gone".into(),
                    tone: Tone::State,
                })
            }
            What::Trace(trace) => traced(trace),
            What::Fault(step) => self.fault_step(step),
            What::Phase(Phase::Interrupted) => trial("interrupted (Ctrl-C)", Tone::Warning),
            What::InstrumentMissing { instrument, why } => {
                trial(&format!("without {instrument}: {why}"), Tone::Warning)
            }
            What::Lost { count } => {
                let source = words::source(&self.parameters, event.source);
                let text = format!("{source}: {} lost", counted(*count, "event"));
                trial(&words::by_name(&self.parameters, &text), Tone::Warning)
            }
            What::Late { by_ns } if *by_ns > self.latest_ns => {
                self.latest_ns = *by_ns;
                let late = span::measured(Duration::from_nanos(*by_ns).as_secs_f64());
                trial(&format!("the machine was busy: {late} late"), Tone::Warning)
            }
            What::Suspended { for_ns } => {
                let time = span::measured(Duration::from_nanos(*for_ns).as_secs_f64());
                trial(&format!("the machine was suspended for {time}"), Tone::Warning)
            }
            What::WallClockSet { by_ns } => {
                let by = span::measured(Duration::from_nanos(by_ns.unsigned_abs()).as_secs_f64());
                let way = if *by_ns < 0 { "back" } else { "forward" };
                let source = words::source(&self.parameters, event.source);
                let text = format!("{source}: the wall clock was set {way} by {by}");
                trial(&words::by_name(&self.parameters, &text), Tone::Warning)
            }
            What::Thinned { events, flows } => {
                let text = format!(
                    "{} of an exchange without a pause {} not kept, {} among them",
                    counted(*events, "event"),
                    if *events == 1 { "is" } else { "are" },
                    counted(*flows, "whole connection")
                );
                trial(&text, Tone::Quiet)
            }
            What::Ordered { fault: Some(fault), planned } => {
                self.parameters.fault = (**fault).clone();
                let whose = if *planned { "the next fault" } else { "ordered by a program" };
                trial(whose, Tone::Step)
            }
            What::Ordered { fault: None, .. } => trial("healed: predicted anew", Tone::Step),
            What::Output { line, .. } => {
                Some(Note { place: here, text: format!("writes: {line}"), tone: Tone::Step })
            }
            What::OutputOmitted { lines, bytes } => {
                let text = format!(
                    "wrote {} more, and {} that are not kept",
                    counted(*lines, "line"),
                    counted(*bytes, "byte")
                );
                Some(Note { place: here, text, tone: Tone::Quiet })
            }
            What::Exited { code, signal } => {
                let how = match (code, signal) {
                    (Some(code), _) => format!("exit code {code}"),
                    (None, Some(signal)) => spec::command::signal_name(*signal),
                    (None, None) => "in an unknown way".into(),
                };
                Some(Note { place: here, text: format!("ended: {how}"), tone: Tone::End })
            }
            What::Phase(_) | What::Late { .. } | What::Flow(_) | What::Facts(_) => None,
            What::Options { options, .. } => self.options(event.flow, here, options),
            What::Sysctl { name, value } => {
                trial(&format!("net.ipv4.{name} = {value} from now on"), Tone::Step)
            }
            What::Link { interface, exists, up, carrier } => {
                self.link(interface, link_state(*exists, *up, *carrier))
            }
        }
    }

    fn segment(&mut self, tap: Side, flow: Option<FlowId>, segment: &Segment) -> Note {
        let classifier = &mut self.taps[index(tap)];
        let sender = classifier.sender(segment);
        let class = classifier.feed(flow, segment);
        let (text, tone) = segment::describe(class, segment, sender, self.probes, &self.resends);
        // A program that does not report its calls: its FIN says that it has closed.
        let (text, tone) = match (class, self.silent_program(sender)) {
            (Class::Fin { n: 1, .. }, Some(name)) => (format!("{text}: {name} closes"), Tone::End),
            _ => (text, tone),
        };
        Note { place: heading(tap, segment.sent), text, tone }
    }

    /// The name of a host's program that does not report its calls and closes by itself; one that is
    /// killed does not.
    fn silent_program(&self, side: Side) -> Option<&'static str> {
        let Parameters { client, server, fault, .. } = &self.parameters;
        let (program, is_killed) = match side {
            Side::Client => (client.program, false),
            Side::Server => (server.program, fault.effect().kills()),
        };
        program.description().name.filter(|_| !is_killed)
    }

    fn socket(
        &mut self,
        whose: (Side, Option<FlowId>),
        place: Place,
        sample: &SocketSample,
    ) -> Option<Note> {
        let SocketSample { state, timer, timer_count, .. } = sample;
        let now = (state.clone(), *timer, *timer_count);
        let before = self.sockets.insert(whose, now.clone());
        (before.as_ref() != Some(&now)).then(|| {
            let text = match timer_name(*timer) {
                None => state.clone(),
                Some(name) if *timer_count > 0 => format!("{state}, {name} {timer_count}"),
                Some(name) => format!("{state}, {name}"),
            };
            Note { place, text, tone: Tone::State }
        })
    }

    fn fault_step(&self, step: &FaultStep) -> Option<Note> {
        let (text, tone) = match step {
            FaultStep::Begin if self.parameters.fault.kind == FaultKind::None => {
                (self.parameters.named("no fault: from here the client waits"), Tone::Fault)
            }
            FaultStep::Begin => (format!("fault: {}", self.parameters.fault.kind), Tone::Fault),
            FaultStep::Done(act) => (words::act(&self.parameters, *act), Tone::Step),
            // One alone is told by the act.
            FaultStep::Processes { met: 0 | 1, left: 0 } | FaultStep::Complete => return None,
            FaultStep::Processes { met, left } => (words::processes(*met, *left), Tone::Step),
            FaultStep::Restoring => ("the fault is being undone".into(), Tone::Step),
            FaultStep::Restored => ("the fault is over".into(), Tone::Fault),
            FaultStep::Outlasted => ("the trial ends before the fault does".into(), Tone::Step),
        };
        Some(Note { place: Place::Trial, text, tone })
    }

    /// Options that are not as they were.
    fn options(
        &mut self,
        flow: Option<FlowId>,
        place: Place,
        options: &SocketOptions,
    ) -> Option<Note> {
        let before = self.options.insert(flow, options.clone())?;
        let changed = options.changed_from(&before, &self.parameters.later.sysctl);
        let values: Vec<_> =
            changed.iter().map(|(name, value)| format!("{name} is {value} now")).collect();
        let text = values.join(", ");
        (!values.is_empty()).then_some(Note { place, text, tone: Tone::Step })
    }

    fn link(&mut self, interface: &str, state: &str) -> Option<Note> {
        let known = self.links.iter_mut().find(|(name, _)| name == interface);
        match known {
            Some((_, before)) if before == state => return None,
            Some((_, before)) => state.clone_into(before),
            None => {
                self.links.push((interface.into(), state.into()));
                if state == "up" {
                    return None; // as it should be
                }
            }
        }
        let interface = interface_name(&self.parameters, interface);
        let text = words::named(&self.parameters, &format!("link {interface}: {state}"));
        Some(Note { place: Place::Trial, text, tone: Tone::Quiet })
    }
}

/// What the kernel's `idiag_timer` stands for; `None`: no timer runs.
pub fn timer_name(timer: u8) -> Option<&'static str> {
    match timer {
        0 => None,
        1 => Some("retransmission timer"),
        2 => Some("keepalive timer"),
        3 => Some("time-wait timer"),
        4 => Some("window probe timer"),
        _ => Some("an unknown timer"),
    }
}

fn called(place: Place, call: &Call) -> Note {
    let Call { name, detail, result, .. } = call;
    let ends = place == Place::Client;
    let (text, tone) = match (*name, result) {
        (CallName::Heartbeat, _) => (detail.clone(), Tone::End),
        (CallName::Read, Ok(0)) if ends => ("read gives 0: end of file".into(), Tone::End),
        (CallName::Read, Ok(0)) => ("read gives 0".into(), Tone::Step),
        (CallName::Read | CallName::Write, Ok(count)) => {
            (format!("{name} {}", counted(*count, "byte")), Tone::Ordinary)
        }
        (CallName::Write, Err(Errno::EAGAIN)) => {
            ("write waits: the send buffer is full".into(), Tone::Step)
        }
        (CallName::Close, Ok(_)) if !detail.is_empty() => (format!("close: {detail}"), Tone::Step),
        (CallName::Connect, Ok(_)) => ("connected".into(), Tone::Step),
        (CallName::Connect, Err(Errno::EINPROGRESS)) => ("connect begins".into(), Tone::Step),
        (CallName::Accept, Ok(_)) => ("accepted".into(), Tone::Step),
        (CallName::SetSockOpt, Ok(_)) => (detail.clone(), Tone::Quiet),
        (CallName::Check, Ok(0)) => ("check: no answers were expected".into(), Tone::Quiet),
        (CallName::Check, Ok(_)) => (format!("check: {detail}"), Tone::Quiet),
        (_, Ok(_)) => (name.to_string(), Tone::Step),
        (_, Err(errno)) if ends => (format!("{name} fails: {errno}"), Tone::End),
        (_, Err(errno)) => (format!("{name} fails: {errno}"), Tone::Step),
    };
    Note { place, text, tone }
}

fn traced(trace: &Trace) -> Option<Note> {
    let place = |side| if side == Side::Client { Place::Client } else { Place::Server };
    let (side, text, tone) = match trace {
        Trace::SetState { side, old, new } => (*side, format!("{old} → {new}"), Tone::State),
        Trace::ErrorReport { side, error } if error.0 != 0 => {
            (*side, format!("the kernel reports {error}"), Tone::End)
        }
        Trace::Retransmit { side, err: Some(err) } if *err != 0 => {
            let error = spec::Errno(err.abs());
            (*side, format!("could not send again: {error}"), Tone::Warning)
        }
        // The wire shows the others, and timers are for the diagram.
        _ => return None,
    };
    Some(Note { place: place(side), text, tone })
}

/// What an interface is called: the switch behind a router is a cable that can go dead.
fn interface_name(parameters: &Parameters, interface: &str) -> String {
    match parameters.topology {
        Topology::Router => interface.replace("switch port to", "cable to"),
        _ => interface.to_owned(),
    }
}

fn link_state(exists: bool, up: bool, carrier: bool) -> &'static str {
    match (exists, up, carrier) {
        (false, ..) => "gone",
        (_, false, _) => "down",
        (_, _, false) => "no carrier",
        _ => "up",
    }
}

const fn side_of(source: Source) -> Side {
    match source {
        Source::ServerProgram | Source::ServerWire | Source::ServerSocket => Side::Server,
        _ => Side::Client,
    }
}

const fn heading(tap: Side, sent: bool) -> Place {
    match (tap, sent) {
        (Side::Client, true) | (Side::Server, false) => Place::ToServer,
        _ => Place::ToClient,
    }
}

const fn index(side: Side) -> usize {
    match side {
        Side::Client => 0,
        Side::Server => 1,
    }
}
