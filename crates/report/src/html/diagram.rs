//! The sequence diagram: client, wire and server, with time running down.

use super::axis::Axis;
use super::strips::{self, Span};
use super::text::{self, cut, prose};
use crate::course;
use crate::narrate::{Note, Place, Tone};
use crate::passage::Passage;
use crate::span;
use crate::story::{self, Item};
use crate::trial::Trial;
use crate::words;
use maud::{Markup, html};
use model::StepKind;
use spec::{Outcome, Topology};
use timeline::What;
use timeline::event::{FaultStep, Phase, Side};

pub(super) const WIDTH: f64 = 440.0;
const TIMES: f64 = 70.0;
const WINDOWS: f64 = 77.0;
const TIMER: f64 = 89.0;
const CLIENT: f64 = 98.0;
const SERVER: f64 = 428.0;
/// Where a lost frame ends, and where the router stands if there is one.
const LOST: f64 = 330.0;
const TOP: f64 = 26.0;
/// The most letters in a line, and the height of each line after the first.
const LETTERS: usize = 46;
/// The most letters between client and router.
const ROUTER_LETTERS: usize = 30;
const LINE: f64 = 14.0;
/// A higher diagram is not shrunk to one page of paper: its letters would be under six points.
const PAGE: f64 = 1250.0;

/// One row of the diagram.
struct Row {
    at_ns: u64,
    kind: Kind,
}

enum Kind {
    Event(Note, Passage),
    More(u32),
}

/// The diagram as an SVG element; `None` if nothing happened.
pub(super) fn diagram(trial: &Trial) -> Option<Markup> {
    let Drawing { height, label, content } = draw_all(trial)?;
    Some(html! {
        svg.sequence.long[height > PAGE] viewBox={ "0 0 " (WIDTH) " " (height) } role="img"
            aria-label=(label) { (content) }
    })
}

/// What an SVG element is made of.
pub(super) struct Drawing {
    pub(super) height: f64,
    /// What it shows, in words.
    pub(super) label: String,
    pub(super) content: Markup,
}

/// The diagram; `None` if nothing happened.
pub(super) fn draw_all(trial: &Trial) -> Option<Drawing> {
    let rows = rows(trial);
    let origin_ns = course::reference_ns(trial).unwrap_or(rows.first()?.at_ns);
    let (axis, heights) = Axis::new(TOP, rows.iter().map(|row| (row.at_ns, row.height())));
    let hosts = words::hosts(&trial.experiment.parameters);
    let routed = trial.experiment.parameters.topology == Topology::Router;
    let befores = std::iter::once(None).chain(rows.iter().zip(&heights).map(Some));
    let content = html! {
        (heads(hosts, routed))
        (cut_wire(trial, &axis))
        (windows(trial, &axis))
        (lifelines(trial, &axis))
        @for ((row, y), before) in rows.iter().zip(&heights).zip(befores) {
            @if let Some((before, before_y)) = before {
                @let gone = host_gone(trial).is_some_and(|gone_ns| before.at_ns >= gone_ns);
                @let seconds = (row.at_ns - before.at_ns) as f64 / 1e9;
                (gap(seconds, (before_y + 4.0, y - row.height() + 6.0), gone))
            }
            @let since_ns = before.map(|(before, _)| row.at_ns - before.at_ns);
            (draw(row, *y, &moment(row.at_ns, origin_ns, since_ns)))
        }
    };
    let label =
        format!("Sequence of events at the {}, on the wire and at the {}", hosts[0], hosts[1]);
    Some(Drawing { height: (axis.bottom() + 24.0).round(), label, content })
}

impl Row {
    fn height(&self) -> f64 {
        match &self.kind {
            Kind::Event(note, _) if matches!(note.place, Place::ToServer | Place::ToClient) => 27.0,
            Kind::Event(note, _) if note.tone == Tone::Fault => 24.0,
            Kind::Event(note, _) => {
                21.0 + LINE * (text::lines(&note.text, LETTERS).len() - 1) as f64
            }
            Kind::More(_) => 19.0,
        }
    }
}

/// The story's events, the moment that times count from, and the end if the client was told
/// nothing.
fn rows(trial: &Trial) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for item in story::whole(trial) {
        match item {
            // The strips show states and timers.
            Item::Happened { note: Note { tone: Tone::State, .. }, .. } | Item::Origin { .. } => {}
            Item::Happened { at_ns, note, passage } => {
                rows.push(Row { at_ns, kind: Kind::Event(note, passage) });
            }
            Item::More(count) => {
                let at_ns = rows.last().map_or(0, |row| row.at_ns);
                rows.push(Row { at_ns, kind: Kind::More(count) });
            }
        }
    }
    if let (Some(reference_ns), Some((last_ns, _))) =
        (course::reference_ns(trial), course::last_received(trial))
        && reference_ns == last_ns
        && rows.iter().all(|row| row.at_ns != reference_ns)
    {
        let text = "the last segment received: time zero".into();
        let note = Note { place: Place::ToClient, text, tone: Tone::Quiet };
        rows.push(Row { at_ns: last_ns, kind: Kind::Event(note, Passage::Arrived) });
    }
    let measured = trial.verdict.measured.as_ref();
    let outcome = measured.map(|measured| measured.outcome);
    // A program that has closed is told nothing: the end is the kernel's alone.
    if let (Some(Outcome::Released), Some(reference_ns), Some(after_s)) =
        (outcome, course::reference_ns(trial), measured.and_then(|m| m.detected_s))
    {
        let at_ns = reference_ns.saturating_add((after_s * 1e9).round() as u64);
        let text = "the kernel lets go of the connection".into();
        let note = Note { place: Place::Client, text, tone: Tone::End };
        rows.push(Row { at_ns, kind: Kind::Event(note, Passage::None) });
    }
    if let (Some(Outcome::None), Some(at_ns)) = (outcome, trial.timeline.phase_at(Phase::Aftermath))
    {
        let text = "up to here the kernel reported nothing".into();
        let note = Note { place: Place::Client, text, tone: Tone::End };
        rows.push(Row { at_ns, kind: Kind::Event(note, Passage::None) });
    }
    rows.sort_by_key(|row| row.at_ns);
    rows
}

fn heads([watched, other]: [&str; 2], routed: bool) -> Markup {
    let (middle, between) =
        if routed { (LOST, "router") } else { (f64::midpoint(CLIENT, SERVER), "wire") };
    html! {
        (text("head", (TIMES, 12.0), "end", "seconds"))
        (text("head", (TIMER - 2.0, 12.0), "start", watched))
        (text("head", (middle, 12.0), "middle", between))
        (text("head", (SERVER + 4.0, 12.0), "end", other))
    }
}

/// The times in which nothing passes, of faults of that kind.
fn cut_wire(trial: &Trial, axis: &Axis) -> Markup {
    html! {
        @for (from_ns, to_ns) in cuts(trial) {
            @let from = axis.y(from_ns);
            @let to = to_ns.map_or(axis.bottom() + 12.0, |to_ns| axis.y(to_ns));
            (rect("cut", (LOST, SERVER - 4.0 - LOST), (from, (to - from).max(0.0)), None))
        }
    }
}

/// When nothing passed: from when on, and until when, if that ended.
fn cuts(trial: &Trial) -> Vec<(u64, Option<u64>)> {
    let mut fault = &trial.experiment.parameters.fault;
    let mut cuts: Vec<(u64, Option<u64>)> = Vec::new();
    for event in trial.timeline.events() {
        match &event.what {
            What::Ordered { fault: Some(next), .. } => fault = next,
            What::Fault(FaultStep::Begin)
                if fault.effect().is_silent() && fault.still.is_none() =>
            {
                cuts.push((event.at_ns, None));
            }
            What::Fault(FaultStep::Restored) => {
                if let Some((_, to_ns @ None)) = cuts.last_mut() {
                    *to_ns = Some(event.at_ns);
                }
            }
            _ => {}
        }
    }
    cuts
}

/// The predicted windows beside the axis.
fn windows(trial: &Trial, axis: &Axis) -> Markup {
    let Some(reference_ns) = course::reference_ns(trial) else { return Markup::default() };
    html! {
        @for leg in course::course(trial) {
            @if let Some(step) = leg.step {
                @let at = |time: std::time::Duration| axis.y(reference_ns.saturating_add(time.as_nanos() as u64));
                @let (from, to) = (at(step.earliest), at(step.latest));
                @let half = ((to - from) / 2.0).max(3.0);
                @let class = if step.kind == StepKind::GiveUp { "window end" } else { "window" };
                @let title =
                    format!("{} predicted {}", leg.name, span::range(step.earliest, step.latest));
                (rect(class, (WINDOWS, 6.0), (f64::midpoint(from, to) - half, half * 2.0), Some(&title)))
            }
        }
    }
}

/// Both sockets through their states, and the client's timers beside its line.
fn lifelines(trial: &Trial, axis: &Axis) -> Markup {
    let bottom = axis.bottom() + 14.0;
    let router = (trial.experiment.parameters.topology == Topology::Router).then_some(LOST);
    let gone_ns = host_gone(trial);
    let [watched, other] = words::hosts(&trial.experiment.parameters);
    html! {
        @for x in [CLIENT, SERVER].into_iter().chain(router) {
            (line("host", (x, TOP), (x, bottom)))
        }
        @for (side, host, x) in [(Side::Client, watched, CLIENT), (Side::Server, other, SERVER)] {
            @for state in strips::states(&trial.timeline, side) {
                @let until_ns = gone_ns.filter(|_| side == Side::Server).unwrap_or(u64::MAX);
                @let title = format!("{host}: {}", state.what);
                (strip(axis, (x - 3.0, 6.0), &state.until(until_ns), state_class(&state.what), &title))
            }
        }
        @for timer in strips::timers(&trial.timeline, Side::Client) {
            @if let Some(name) = crate::narrate::timer_name(timer.what) {
                (strip(axis, (TIMER, 3.0), &timer, timer_class(timer.what), name))
            }
        }
        @if let Some(gone_ns) = gone_ns { (cross(SERVER, axis.y(gone_ns) + 7.0)) }
    }
}

fn strip<T>(axis: &Axis, across: (f64, f64), span: &Span<T>, class: &str, title: &str) -> Markup {
    let (from, to) = (axis.y(span.from_ns), axis.y(span.to_ns));
    if to - from < 0.5 {
        return Markup::default();
    }
    rect(class, across, (from, to - from), Some(title))
}

fn state_class(state: &str) -> &'static str {
    match state {
        "ESTABLISHED" => "state open",
        "CLOSE" | "LISTEN" => "state closed",
        _ => "state between",
    }
}

fn timer_class(timer: u8) -> &'static str {
    match timer {
        1 => "timer retransmission",
        2 => "timer keepalive",
        _ => "timer other",
    }
}

/// When the server's host ceased to be, and every socket in it, if it did.
fn host_gone(trial: &Trial) -> Option<u64> {
    let mut faults = trial.experiment.parameters.faults();
    let gone = |what: &What| matches!(what, What::Link { interface, exists: false, .. } if interface == "server");
    let events = || trial.timeline.events().iter();
    faults
        .any(|fault| fault.effect().destroys_host())
        .then(|| {
            let link = events().find(|event| gone(&event.what)).map(|event| event.at_ns);
            link.or_else(|| trial.timeline.fault_step(&FaultStep::Complete))
        })
        .flatten()
}

/// A long wait: how long it was, and a break in the lines that go on.
fn gap(seconds: f64, (from, to): (f64, f64), server_gone: bool) -> Markup {
    if seconds < 0.1 {
        return Markup::default();
    }
    let y = f64::midpoint(from, to);
    let lines = if server_gone { &[CLIENT][..] } else { &[CLIENT, SERVER] };
    html! {
        (text("gap", (TIMES, y + 3.5), "end", &span::measured(seconds)))
        @for x in lines {
            @let (left, upper, lower) = (x - 5.0, y + 1.0, y + 5.5);
            (path("break", &format!("M{left:.1} {upper:.1}l10 -4M{left:.1} {lower:.1}l10 -4")))
        }
    }
}

fn draw(row: &Row, y: f64, moment: &str) -> Markup {
    let (note, passage) = match &row.kind {
        Kind::Event(note, passage) => (note, *passage),
        Kind::More(count) => {
            let text = format!("⋯ {count} more like this");
            return words((CLIENT + 12.0, y), "start", "quiet", &text);
        }
    };
    let tone = tone_class(note.tone);
    let is_frame = matches!(note.place, Place::ToServer | Place::ToClient);
    html! {
        (text("time", (TIMES, if is_frame { y + 1.0 } else { y }), "end", moment))
        @match note.place {
            Place::Client => {
                (dot(CLIENT, y - 4.0, tone))
                (words((CLIENT + 12.0, y), "start", tone, &note.text))
            }
            Place::Server => {
                (dot(SERVER, y - 4.0, tone))
                (words((SERVER - 12.0, y), "end", tone, &note.text))
            }
            Place::Trial => {
                @if note.tone == Tone::Fault {
                    (line("fault-line", (CLIENT, y - 15.0), (SERVER, y - 15.0)))
                }
                (words((CLIENT + 12.0, y), "start", tone, &note.text))
            }
            Place::ToServer | Place::ToClient => (arrow(note, passage, y)),
        }
    }
}

fn arrow(note: &Note, passage: Passage, y: f64) -> Markup {
    let tone = tone_class(note.tone);
    let rightward = note.place == Place::ToServer;
    let unknown = if passage == Passage::Unknown { " unknown" } else { "" };
    let (start, finish) =
        if rightward { (CLIENT + 4.0, SERVER - 4.0) } else { (SERVER - 4.0, CLIENT + 4.0) };
    let (from, to) = match passage {
        Passage::Lost | Passage::Taken => (start, LOST),
        Passage::Appeared => (LOST, finish),
        _ => (start, finish),
    };
    let back = if rightward { -7.0 } else { 7.0 };
    // A name stands where its frame begins, if it is a host or if there is room.
    let from_router = passage == Passage::Appeared;
    let (x, anchor) = match rightward {
        true if !from_router => (CLIENT + 12.0, "start"),
        false if from_router && note.text.chars().count() <= ROUTER_LETTERS => (LOST - 8.0, "end"),
        _ => (SERVER - 12.0, "end"),
    };
    html! {
        (line(&format!("arrow {tone}{unknown}"), (from, y), (to, y)))
        @match passage {
            Passage::Lost => (cross(to, y)),
            Passage::Unknown => {}
            _ => (path(&format!("tip {tone}"), &format!("M{to} {y:.1}l{back} -3.6v7.2z"))),
        }
        (words((x, y - 5.0), anchor, tone, &cut(&note.text, LETTERS)))
    }
}

/// Text that may take several lines, the last of which stands at `y`.
fn words((x, y): (f64, f64), anchor: &str, class: &str, all: &str) -> Markup {
    let lines = text::lines(all, LETTERS);
    html! {
        @for (line, above) in lines.iter().zip((0..lines.len()).rev()) {
            (text(class, (x, y - LINE * above as f64), anchor, &prose(line)))
        }
    }
}

fn text(class: &str, (x, y): (f64, f64), anchor: &str, text: &str) -> Markup {
    html! { text class=(class) x=(x) y=(tenth(y)) text-anchor=(anchor) { (text) } }
}

fn line(class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) -> Markup {
    html! { line class=(class) x1=(x1) y1=(tenth(y1)) x2=(x2) y2=(tenth(y2)) {} }
}

/// A rectangle from its left edge with its width, and from its top with its height.
fn rect(
    class: &str,
    (x, width): (f64, f64),
    (y, height): (f64, f64),
    title: Option<&str>,
) -> Markup {
    html! {
        rect class=(class) x=(x) y=(tenth(y)) width=(width) height=(tenth(height)) {
            @if let Some(title) = title { title { (title) } }
        }
    }
}

fn path(class: &str, d: &str) -> Markup {
    html! { path class=(class) d=(d) {} }
}

fn cross(x: f64, y: f64) -> Markup {
    path("cross", &format!("M{:.1} {:.1}l8 8m0 -8l-8 8", x - 4.0, y - 4.0))
}

fn dot(x: f64, y: f64, tone: &str) -> Markup {
    html! { circle class={ "dot " (tone) } cx=(x) cy=(tenth(y)) r="4" {} }
}

fn tenth(length: f64) -> String {
    format!("{length:.1}")
}

const fn tone_class(tone: Tone) -> &'static str {
    match tone {
        Tone::Ordinary => "ordinary",
        Tone::Quiet | Tone::State => "quiet",
        Tone::Step => "step",
        Tone::Fault => "fault",
        Tone::End => "told",
        Tone::Warning => "warning",
    }
}

/// A row's time: since the row before where that is hardly any, since the reference otherwise.
fn moment(at_ns: u64, origin_ns: u64, since_ns: Option<u64>) -> String {
    if let Some(since_ns) = since_ns.filter(|since_ns| *since_ns < 1_000_000) {
        return format!("+{} µs", since_ns / 1000);
    }
    let seconds = (i128::from(at_ns) - i128::from(origin_ns)) as f64 / 1e9;
    if seconds.abs() < 0.000_5 {
        "0".into()
    } else if seconds.abs() < 3600.0 {
        format!("{seconds:.3}").replace('-', "−")
    } else {
        let whole = seconds as u64;
        let rest = seconds - (whole - whole % 60) as f64;
        format!("{}:{:02}:{rest:04.1}", whole / 3600, whole / 60 % 60)
    }
}
