//! Reports to read: one page for a trial, one for a whole run.
//!
//! A page needs nothing but itself: no script, no font, no picture from elsewhere. It reads on a
//! phone, on paper, and in the dark.

mod article;
mod axis;
mod connections;
mod diagram;
mod forecast;
mod mends;
mod picture;
mod ruler;
mod run;
mod schedule;
pub(crate) mod strips;
mod sweep;
mod text;

use crate::human;
use crate::parameters::in_force;
use crate::trial::{Machine, Trial};
use crate::words;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use text::prose;
use verdict::Requirement;
use verdict::claims::{ARTICLE, Catalogue};

pub use article::article_page;
pub use forecast::{Forecast, TimeAxis, forecast};
pub use mends::mends_page;
pub use picture::{Theme, picture};
pub use run::run_page;

/// The style of every page, in the light and in the dark.
const STYLE: &str = concat!(
    ":root {\n  color-scheme: light dark;\n",
    include_str!("html/light.css"),
    "}\n@media (prefers-color-scheme: dark) {\n:root {\n",
    include_str!("html/dark.css"),
    "}\n}\n",
    include_str!("html/diagram.css"),
    include_str!("html/style.css"),
);

/// A file beside a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its name, relative to the page.
    pub name: String,
    /// What it holds.
    pub what: String,
}

/// The report of one trial. `files` are those that lie beside it.
pub fn trial_page(trial: &Trial, files: &[File]) -> Vec<u8> {
    let experiment = &trial.experiment;
    let body = html! {
        p.kicker {
            b { (experiment.name) }
            @for (number, id) in experiment.claims.iter().enumerate() {
                @if number == 0 { " · claims " } @else { ", " }
                a href={ "#claim-" (id) } { (id) }
            }
            " · trial " (trial.identity.number)
        }
        h1 { (prose(&experiment.question)) }
        (verdict(trial))
        .columns {
            section {
                @if let Some(diagram) = diagram::diagram(&trial.seen()) {
                    h2 { "What happened" }
                    (diagram)
                    (legend())
                }
            }
            section {
                (connections::section(trial))
                (schedule::section(trial))
                (proof(trial))
                (claims_tested(&experiment.claims))
                (conditions(trial))
                (list_files(files))
            }
        }
    };
    page(&format!("{} – halfopen", experiment.name), &[&trial.machine], &body)
}

fn legend() -> Markup {
    html! {
        ul.legend {
            @for (class, what) in [
                ("l-open", "established"),
                ("l-between", "closing"),
                ("l-closed", "closed"),
                ("l-retransmission", "retransmission timer"),
                ("l-keepalive", "keepalive timer"),
                ("l-window", "predicted"),
                ("l-cut", "nothing passes"),
            ] {
                li { i class=(class) {} (what) }
            }
        }
        p.legend {
            "Each event has its row; the space between two grows with the logarithm of the time \
             between them."
        }
    }
}

fn verdict(trial: &Trial) -> Markup {
    let word = trial.verdict.word;
    let reason = trial.verdict.measured.as_ref().map(|_| trial.verdict.reason.as_str());
    let reason = reason.filter(|reason| !reason.is_empty());
    html! {
        p class={ "verdict " (trial.status()) } {
            b { (capital(&trial.status().to_string())) "." }
            " " (prose(&capital(human::compared(trial).trim_end_matches('.')))) "."
        }
        @if let Some(reason) = reason {
            p class={ "reason " (word) } {
                (prose(&words::by_name(&trial.experiment.parameters, reason)))
            }
        }
        @if !trial.verdict.requirements.is_empty() {
            ul.proof {
                @for Requirement { key, wanted, found, met, .. } in &trial.verdict.requirements {
                    li.fails[!met] { (key) " = " (wanted) ": " (prose(found)) }
                }
            }
        }
        (ruler::ruler(trial))
        @if let Some(why) = why(trial, reason.is_some()) {
            p.why { (prose(&why)) }
        }
    }
}

/// Why the outcome was predicted, or why none was.
fn why(trial: &Trial, has_reason: bool) -> Option<String> {
    let prediction = trial.prediction.as_ref()?;
    let choice = words::choice(&trial.experiment.parameters, prediction);
    let (how, why) = match &prediction.unknown {
        None if choice.is_some() => {
            ("Predicted before the fault; the first window, because", &prediction.why)
        }
        // Of a command's connection from its last look, which may be of after the fault.
        None if !trial.verdict.flows.is_empty() => {
            ("Predicted from its socket, because", &prediction.why)
        }
        None => ("Predicted before the fault, because", &prediction.why),
        Some(_) if has_reason => return None, // the reason says the same
        Some(unknown) => ("Before the fault no outcome was predicted:", unknown),
    };
    let choice = choice.map_or_else(String::new, |choice| format!(" {}.", capital(&choice)));
    Some(format!("{how} {}.{choice}", why.trim_end_matches('.')))
}

fn proof(trial: &Trial) -> Markup {
    let evidence = &trial.verdict.proof.evidence;
    html! {
        @if !evidence.is_empty() {
            h2 { "Proof of the fault" }
            ul.proof {
                @for piece in evidence {
                    li class=[(!piece.holds).then_some("fails")] {
                        (prose(&words::by_name(&trial.experiment.parameters, &piece.finding)))
                    }
                }
            }
        }
    }
}

/// What the ids of claims stand for.
fn claims_tested(ids: &[String]) -> Markup {
    let catalogue = Catalogue::built_in();
    html! {
        @if !ids.is_empty() {
            h2 { "Claims that it tests" }
            dl {
                @for claim in catalogue.claims.iter().filter(|claim| ids.contains(&claim.id)) {
                    dt id={ "claim-" (claim.id) } { (claim.id) }
                    dd { (prose(&claim.says)) " (" (prose(&claim.source)) ")" }
                }
            }
            @if catalogue.claims.iter().any(|c| c.is_of_the_article() && ids.contains(&c.id)) {
                p.legend { "The article is " (prose(ARTICLE)) "." }
            }
        }
    }
}

fn conditions(trial: &Trial) -> Markup {
    let parameters = &trial.experiment.parameters;
    html! {
        h2 { "Conditions" }
        dl {
            @for (name, value) in condition_rows(trial) {
                dt { (prose(name)) }
                dd { (prose(&value)) }
            }
        }
        details {
            summary { "Every setting" }
            dl {
                @for (key, value) in in_force(parameters, trial.facts.as_ref()) {
                    dt { (key) }
                    dd {
                        @match value.as_str() {
                            Some(text) => (text),
                            None => (value),
                        }
                    }
                }
            }
        }
    }
}

fn condition_rows(trial: &Trial) -> Vec<(&'static str, String)> {
    let parameters = &trial.experiment.parameters;
    let mut rows = vec![
        ("network and socket", words::setting(parameters)),
        ("stimulus", words::stimulus(parameters)),
    ];
    if let Some(width) = trial.prediction.as_ref().and_then(words::width) {
        rows.push(("causes of the window's width", width));
    }
    let Machine { kernel, hz, clock } = &trial.machine;
    rows.push(("kernel", format!("Linux {kernel}, HZ {hz}, {clock} clock")));
    if let Some(tcp) = trial.facts.as_ref().and_then(|facts| facts.tcp.as_ref()) {
        let millis = |us: u32| format!("{} ms", f64::from(us) / 1000.0);
        rows.push((
            "before the fault",
            format!(
                "RTO {}, smoothed RTT {}, RTT variance {}",
                millis(tcp.rto_us),
                millis(tcp.srtt_us),
                millis(tcp.rttvar_us),
            ),
        ));
    }
    if let Some(measured) = &trial.verdict.measured {
        let [watched, other] = words::hosts(parameters);
        let states =
            format!("{watched} {}, {other} {}", measured.client_state, measured.server_state);
        rows.push(("last states", states));
        let counts = words::counts(
            measured.retransmits_on_wire,
            measured.keepalive_probes_on_wire,
            measured.window_probes_on_wire,
        );
        if !counts.is_empty() {
            rows.push(("on the wire", counts));
        }
        if let Some(by) = measured.detected_by {
            rows.push(("end seen by", words::detected_by(by, measured.resolution_s)));
        }
    }
    rows
}

fn list_files(files: &[File]) -> Markup {
    html! {
        @if !files.is_empty() {
            .evidence {
                h2 { "Evidence" }
                ul.files {
                    @for File { name, what } in files {
                        li { a href=(name) { (name) } br; (what) }
                    }
                }
            }
        }
    }
}

/// The frame of a page about what was measured on these machines.
fn page(title: &str, machines: &[&Machine], body: &Markup) -> Vec<u8> {
    let on =
        |Machine { kernel, hz, clock }: &Machine| format!("Linux {kernel}, HZ {hz}, {clock} clock");
    let on: Vec<_> = machines.iter().map(|machine| on(machine)).collect();
    framed(title, &format!("halfopen · measured on {}", on.join("; ")), body)
}

/// The frame of every page.
fn framed(title: &str, footer: &str, body: &Markup) -> Vec<u8> {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    (body)
                    footer { (footer) }
                }
            }
        }
    };
    page.into_string().into_bytes()
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests;
