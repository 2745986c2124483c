//! `halfopen advise`: which options to choose, what given ones do, and what is wrong with some.

use crate::human::paint::Paint;
use crate::json;
use crate::json::trial::{TrialDocument, trial_document};
use crate::span;
use crate::tally::Run;
use advice::{
    Advice, Busy, Chosen, Detection, Ecosystem, Keepalive, Kind, Options, Reading, Snippet,
    Survived,
};
use model::Found;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// The document's schema.
const SCHEMA: &str = "halfopen/advise/1";

/// Advice, in the words of some ecosystems, and the trials that prove it.
#[derive(Debug)]
pub struct Proven<'a> {
    /// What to choose.
    pub advice: &'a Advice,
    /// The words that are wanted, by the ecosystems' short names.
    pub written: &'a BTreeMap<String, (Ecosystem, Snippet)>,
    /// The trials of its worst cases.
    pub proof: Option<&'a Run>,
    /// Why there are none.
    pub not_proven: Option<&'a str>,
}

/// The advice for a person, before its proof.
pub fn human(proven: &Proven<'_>, colour: bool) -> String {
    let paint = Paint(colour);
    let demand = &proven.advice.demand;
    let outage = if demand.survive.is_zero() {
        String::new()
    } else {
        format!(", an outage of {} survived", span::exact(demand.survive))
    };
    let mut text = paint.strong(&format!(
        "Wanted: a dead peer found within {} ({}){outage}",
        span::exact(demand.detect),
        match demand.busy {
            Busy::Idle => "idle",
            Busy::Sending => "sending",
            Busy::Any => "idle or sending",
        }
    ));
    let (major, minor) = demand.path.kernel;
    let taken = model::newer_than_read((major, minor)).map(|taken| format!(" ({taken})"));
    writeln!(
        text,
        "\n{}\n",
        paint.quiet(&format!(
            "Linux {major}.{minor}, HZ {}, round trip {}{}",
            demand.path.hz,
            span::exact(demand.path.rtt),
            taken.unwrap_or_default()
        ))
    )
    .expect("a String takes all");
    match &proven.advice.chosen {
        Some(chosen) => possible(&mut text, paint, proven, chosen),
        None => impossible(&mut text, paint, proven.advice),
    }
    text
}

fn possible(text: &mut String, paint: Paint, proven: &Proven<'_>, chosen: &Chosen) {
    for (name, value) in named(&chosen.options) {
        line(text, paint, &name, &value);
    }
    text.push('\n');
    let demand = &proven.advice.demand;
    for sentence in why(&chosen.options, demand.busy) {
        line(text, paint, "why", &sentence);
    }
    detection(text, paint, &chosen.detection, demand.busy);
    survived(text, paint, &chosen.survived, &chosen.options, demand.busy);
    if let Some(keepalive) = chosen.options.keepalive {
        line(text, paint, "cost", &cost(keepalive, &chosen.options));
    }
    for (id, (ecosystem, snippet)) in proven.written {
        text.push('\n');
        writeln!(text, "{} {}", paint.strong(&ecosystem.name), paint.quiet(&format!("--for {id}")))
            .expect("a String takes all");
        let sysctls = sysctls(snippet);
        let sysctls = sysctls
            .iter()
            .filter(|(name, _)| !snippet.text.contains(*name))
            .map(|(name, value)| format!("sysctl net.ipv4.{name} = {value}"));
        for part in snippet.text.lines().map(str::to_owned).chain(sysctls) {
            writeln!(text, "    {part}").expect("a String takes all");
        }
        for caveat in &snippet.caveats {
            writeln!(text, "  {} {caveat}", paint.warning("note:")).expect("a String takes all");
        }
        let source = format!("default: {}; source: {}", ecosystem.default, ecosystem.source);
        writeln!(text, "  {}", paint.quiet(&source)).expect("a String takes all");
    }
}

fn impossible(text: &mut String, paint: Paint, advice: &Advice) {
    let why = advice.collides.as_deref().unwrap_or("no option can");
    line(text, paint, "impossible", why);
    let demand = &advice.demand;
    if let Some(detect) = advice.nearest.detect {
        let what = format!(
            "a dead peer found within {}, with the same outage of {}",
            span::exact(detect),
            span::exact(demand.survive)
        );
        line(text, paint, "nearest", &what);
    }
    if let Some(survive) = advice.nearest.survive.filter(|_| !demand.survive.is_zero()) {
        let outage = if survive.is_zero() {
            "no outage that is sure to be survived".into()
        } else {
            format!("an outage of {} survived", span::exact(survive))
        };
        let what = format!(
            "{outage}, and a dead peer found within the same {}",
            span::exact(demand.detect)
        );
        line(text, paint, "nearest", &what);
    }
}

/// What given options do, for a person: `halfopen advise --explain`.
pub fn explained(options: &Options, found: &Detection, outages: &Survived, colour: bool) -> String {
    let paint = Paint(colour);
    let mut text = String::new();
    let all = named(options);
    for (name, value) in &all {
        line(&mut text, paint, name, value);
    }
    if all.is_empty() {
        line(&mut text, paint, "options", "none is set");
    }
    text.push('\n');
    for sentence in why(options, Busy::Any) {
        line(&mut text, paint, "why", &sentence);
    }
    detection(&mut text, paint, found, Busy::Any);
    survived(&mut text, paint, outages, options, Busy::Any);
    if let Some(keepalive) = options.keepalive {
        line(&mut text, paint, "cost", &cost(keepalive, options));
    }
    text
}

/// What is wrong with a line of a configuration, for a person: `halfopen advise --review`.
pub fn reviewed(readings: &[Reading], colour: bool) -> String {
    let paint = Paint(colour);
    let mut text = String::new();
    for (at, reading) in readings.iter().enumerate() {
        if at > 0 {
            text.push('\n');
        }
        writeln!(text, "{}", paint.strong(&format!("As {} reads it", reading.ecosystem.name)))
            .expect("a String takes all");
        for (name, value) in named(&reading.options) {
            line(&mut text, paint, &name, &value);
        }
        detection(&mut text, paint, &reading.detection, Busy::Any);
        for finding in &reading.findings {
            let name = finding.kind.name();
            let label = match finding.kind {
                Kind::Dangerous => paint.bad(&format!("{name:>WIDTH$}")),
                Kind::Masked | Kind::Ineffective => paint.warning(&format!("{name:>WIDTH$}")),
            };
            writeln!(text, "{label}  {}", finding.what).expect("a String takes all");
            if let Some(command) = &finding.shown_by {
                line(&mut text, paint, "", &paint.quiet(command));
            }
        }
        if reading.findings.is_empty() {
            line(&mut text, paint, "", "nothing is masked, ineffective or dangerous");
        }
    }
    text
}

/// The document: `halfopen advise --format json`.
pub fn document(proven: &Proven<'_>) -> Vec<u8> {
    let advice = proven.advice;
    let demand = &advice.demand;
    let chosen = advice.chosen.as_ref();
    let mut why = match chosen {
        Some(chosen) => why(&chosen.options, demand.busy),
        None => advice.collides.clone().into_iter().collect(),
    };
    why.extend(model::newer_than_read(demand.path.kernel).map(|taken| format!("{taken}.")));
    let of = |value: &dyn Fn(&Ecosystem, &Snippet) -> Value| -> BTreeMap<&String, Value> {
        let written = proven.written.iter();
        written.map(|(id, (ecosystem, snippet))| (id, value(ecosystem, snippet))).collect()
    };
    json::pretty(&Document {
        schema: SCHEMA,
        detect_s: demand.detect.as_secs_f64(),
        survive_s: demand.survive.as_secs_f64(),
        traffic: demand.busy.name(),
        kernel: format!("{}.{}", demand.path.kernel.0, demand.path.kernel.1),
        hz: demand.path.hz,
        rtt_s: demand.path.rtt.as_secs_f64(),
        forgets_after_s: demand.path.forgets_after.map(|after| after.as_secs_f64()),
        possible: chosen.is_some(),
        why: why.join(" "),
        options: chosen.map_or_else(|| options(&Options::default()), |c| options(&c.options)),
        sysctl: proven.written.values().flat_map(|(_, snippet)| sysctls(snippet)).collect(),
        cost: json!({"probes_per_hour_idle":
            chosen.and_then(|c| c.options.keepalive).map(|k| 3600.0 / f64::from(k.idle_s))}),
        worst: worst(chosen, demand.busy),
        survived: json!({
            "idle_s": chosen.and_then(|c| c.survived.idle).map(|(longest, _)| longest.as_secs_f64()),
            "sending_s": chosen.and_then(|c| c.survived.sending).map(|longest| longest.as_secs_f64()),
        }),
        nearest: json!({
            "detect_s": advice.nearest.detect.map(|detect| detect.as_secs_f64()),
            "survive_s": advice.nearest.survive.map(|survive| survive.as_secs_f64()),
        }),
        proof: proven
            .proof
            .map_or_else(Vec::new, |run| run.trials.iter().map(trial_document).collect()),
        not_proven: proven.not_proven,
        snippets: of(&|_, snippet| json!(snippet.text)),
        ecosystems: of(&|ecosystem, snippet| {
            json!({"name": ecosystem.name, "source": ecosystem.source, "default": ecosystem.default,
                   "version": ecosystem.version, "caveats": snippet.caveats,
                   "sysctl": sysctls(snippet)})
        }),
    })
}

/// `halfopen/advise/1`.
#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    detect_s: f64,
    survive_s: f64,
    traffic: &'static str,
    kernel: String,
    hz: u32,
    rtt_s: f64,
    forgets_after_s: Option<f64>,
    possible: bool,
    why: String,
    options: Value,
    sysctl: BTreeMap<&'static str, u64>,
    cost: Value,
    worst: Value,
    survived: Value,
    nearest: Value,
    proof: Vec<TrialDocument<'a>>,
    not_proven: Option<&'a str>,
    snippets: BTreeMap<&'a String, Value>,
    ecosystems: BTreeMap<&'a String, Value>,
}

/// The document of `halfopen advise --explain`.
pub fn explained_document(given: &Options, found: &Detection, outages: &Survived) -> Vec<u8> {
    json::pretty(&json!({
        "schema": "halfopen/advise-explain/1",
        "options": options(given),
        "why": why(given, Busy::Any).join(" "),
        "idle": of_found(found.idle),
        "sending": of_found(found.sending),
        "survived": {
            "idle_s": outages.idle.map(|(longest, _)| longest.as_secs_f64()),
            "sending_s": outages.sending.map(|longest| longest.as_secs_f64()),
        },
    }))
}

/// The document of `halfopen advise --review`.
pub fn reviewed_document(readings: &[Reading]) -> Vec<u8> {
    let of_reading = |reading: &Reading| {
        let findings: Vec<_> = reading
            .findings
            .iter()
            .map(|f| json!({"kind": f.kind.name(), "what": f.what, "shown_by": f.shown_by}))
            .collect();
        json!({
            "read_by": reading.ecosystem.name,
            "source": reading.ecosystem.source,
            "options": options(&reading.options),
            "idle": of_found(reading.detection.idle),
            "sending": of_found(reading.detection.sending),
            "findings": findings,
        })
    };
    json::pretty(&json!({
        "schema": "halfopen/advise-review/1",
        "readings": readings.iter().map(of_reading).collect::<Vec<_>>(),
    }))
}

/// The sysctls that do what the ecosystem cannot.
fn sysctls(snippet: &Snippet) -> BTreeMap<&'static str, u64> {
    snippet.options.as_ref().map_or_else(BTreeMap::new, Options::sysctl)
}

fn options(options: &Options) -> Value {
    let keepalive = options.keepalive;
    json!({
        "keepalive": keepalive.map(|_| true),
        "keepidle_s": keepalive.map(|k| k.idle_s),
        "keepintvl_s": keepalive.map(|k| k.interval_s),
        "keepcnt": keepalive.map(|k| k.probes),
        "user_timeout_ms": options.user_timeout.map(millis),
        "nodelay": Value::Null,
        "rto_max_ms": options.rto_max.map(millis),
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn worst(chosen: Option<&Chosen>, busy: Busy) -> Value {
    let latest = |found: Found| found.latest().map(|latest| latest.as_secs_f64());
    let detection = chosen.map(|chosen| chosen.detection);
    json!({
        "idle_s": detection.filter(|_| busy.may_idle()).and_then(|o| latest(o.idle)),
        "sending_s": detection.filter(|_| busy.may_send()).and_then(|o| latest(o.sending)),
    })
}

fn of_found(found: Found) -> Value {
    match found {
        Found::Within(outcome, earliest, latest) => json!({"outcome": outcome,
            "earliest_s": earliest.as_secs_f64(), "latest_s": latest.as_secs_f64()}),
        Found::Never => json!({"outcome": "none", "earliest_s": null, "latest_s": null}),
        Found::Unknown => Value::Null,
    }
}

/// The options by their names in the kernel.
fn named(options: &Options) -> Vec<(String, String)> {
    let mut named = Vec::new();
    let mut add = |name: &str, value: String| named.push((name.to_owned(), value));
    if let Some(keepalive) = options.keepalive {
        add("SO_KEEPALIVE", "on".into());
        add("TCP_KEEPIDLE", format!("{} s", keepalive.idle_s));
        add("TCP_KEEPINTVL", format!("{} s", keepalive.interval_s));
        add("TCP_KEEPCNT", keepalive.probes.to_string());
    }
    if let Some(timeout) = options.user_timeout {
        add("TCP_USER_TIMEOUT", format!("{} ms", timeout.as_millis()));
    }
    if let Some(most) = options.rto_max {
        add("TCP_RTO_MAX_MS", format!("{} ms", most.as_millis()));
    }
    named.extend(
        options
            .sysctl()
            .iter()
            .map(|(name, value)| (format!("net.ipv4.{name}"), value.to_string())),
    );
    named
}

/// Which timer does what.
fn why(options: &Options, busy: Busy) -> Vec<String> {
    let mut why = Vec::new();
    match options.keepalive {
        Some(keepalive) => {
            let probed = format!(
                "Idle: keepalive sends a probe {} s after the last segment received, and then every {} s;",
                keepalive.idle_s, keepalive.interval_s
            );
            why.push(match options.user_timeout {
                Some(timeout) => format!(
                    "{probed} the first keepalive timer at or past TCP_USER_TIMEOUT ({}) ends the \
                     connection, and TCP_KEEPCNT does not count.",
                    span::exact(timeout)
                ),
                None => format!(
                    "{probed} after {} without an answer the connection ends.",
                    spec::counted(keepalive.probes as usize, "probe")
                ),
            });
        }
        None if busy.may_idle() => {
            why.push(
                "Idle: without SO_KEEPALIVE nothing is sent, so nothing can be missed.".into(),
            );
        }
        None => {}
    }
    if busy.may_send() || options.user_timeout.is_some() {
        why.push(match options.user_timeout {
            Some(timeout) => format!(
                "Sending: what is not acknowledged is sent again, each time after twice as long{}; \
                 {} after the first retransmission TCP_USER_TIMEOUT ends the connection.",
                options.rto_max.map_or_else(String::new, |most| format!(
                    ", but at least every {} (TCP_RTO_MAX_MS)",
                    span::exact(most)
                )),
                span::exact(timeout)
            ),
            None => "Sending: without TCP_USER_TIMEOUT tcp_retries2 decides.".into(),
        });
    }
    why
}

fn detection(text: &mut String, paint: Paint, detection: &Detection, busy: Busy) {
    if busy.may_idle() {
        let what = found(detection.idle, "the last segment received");
        line(text, paint, "if idle", &what);
    }
    let what = found(detection.sending, "the first write that is not acknowledged");
    line(text, paint, "if it writes", &what);
}

fn found(found: Found, after: &str) -> String {
    match found {
        Found::Within(_, earliest, latest) => {
            format!("told {} after {after}", span::range(earliest, latest))
        }
        Found::Never => "never told".into(),
        Found::Unknown => "the model cannot say".into(),
    }
}

fn survived(text: &mut String, paint: Paint, survived: &Survived, options: &Options, busy: Busy) {
    if busy.may_idle() && options.keepalive.is_some() {
        let what = survived.idle.map_or_else(
            || "every outage while it is idle".into(),
            |(longest, _)| {
                if longest.is_zero() {
                    return "no outage while it is idle that begins just before the first probe".into();
                }
                format!(
                    "outages up to {} while it is idle; the worst begins just before the first probe",
                    span::exact(longest)
                )
            },
        );
        line(text, paint, "survives", &what);
    }
    if busy.may_send() {
        let what = survived.sending.map_or_else(
            || "every outage while it writes".into(),
            |longest| format!("outages up to {} while it writes", span::exact(longest)),
        );
        line(text, paint, "survives", &what);
    }
}

fn cost(keepalive: Keepalive, options: &Options) -> String {
    let an_hour = 3600.0 / f64::from(keepalive.idle_s);
    let lost = match keepalive.lost_probes(options.user_timeout) {
        1 => "one lost probe ends the connection".into(),
        probes => format!("{} in a row must be lost", spec::counted(probes as usize, "probe")),
    };
    format!("{an_hour:.1} probes an hour while it is idle; {lost}")
}

const WIDTH: usize = 16;

fn line(text: &mut String, paint: Paint, label: &str, what: &str) {
    writeln!(text, "{}  {what}", paint.quiet(&format!("{label:>WIDTH$}")))
        .expect("a String takes all");
}
