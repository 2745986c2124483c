//! Reports to read: one page for a trial, one for a whole run.
//!
//! A page needs nothing but itself: no script, no font, no picture from elsewhere. It reads on a
//! phone, on paper, and in the dark.

mod article;
mod axis;
mod diagram;
mod ruler;
mod run;
mod schedule;
mod strips;
mod text;

use crate::escape::escaped;
use crate::human;
use crate::parameters::in_force;
use crate::trial::{Machine, Trial};
use crate::words;
use text::{prose, push};
use verdict::claims::{ARTICLE, Catalogue};

pub use article::article_page;
pub use run::run_page;

/// A file beside a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its name, relative to the page.
    pub name: String,
    /// What it holds.
    pub what: String,
}

/// The report of one trial. `files` are those that lie beside it.
pub fn trial_page(machine: &Machine, trial: &Trial, files: &[File]) -> Vec<u8> {
    let experiment = &trial.experiment;
    let mut body = String::new();
    let claims = if experiment.claims.is_empty() {
        String::new()
    } else {
        let link = |id: &String| format!("<a href=\"#claim-{0}\">{0}</a>", escaped(id));
        let links: Vec<_> = experiment.claims.iter().map(link).collect();
        format!(" · claims {}", links.join(", "))
    };
    push(
        &mut body,
        format_args!(
            "<p class=\"kicker\"><b>{}</b>{claims} · trial {}</p>\n<h1>{}</h1>\n",
            escaped(&experiment.name),
            trial.identity.number,
            prose(&experiment.question),
        ),
    );
    verdict(&mut body, trial);
    body.push_str("<div class=\"columns\">\n<section>\n");
    let diagram = diagram::diagram(trial);
    if !diagram.is_empty() {
        body.push_str("<h2>What happened</h2>\n");
        body.push_str(&diagram);
        body.push_str(LEGEND);
    }
    body.push_str("</section>\n<section>\n");
    schedule::section(&mut body, trial);
    proof(&mut body, trial);
    claims_tested(&mut body, &experiment.claims);
    conditions(&mut body, machine, trial);
    list_files(&mut body, files);
    body.push_str("</section>\n</div>\n");
    page(&format!("{} – halfopen", experiment.name), machine, &body)
}

const LEGEND: &str = "<ul class=\"legend\">\
<li><i class=\"l-open\"></i>established</li>\
<li><i class=\"l-between\"></i>closing</li>\
<li><i class=\"l-closed\"></i>closed</li>\
<li><i class=\"l-retransmission\"></i>retransmission timer</li>\
<li><i class=\"l-keepalive\"></i>keepalive timer</li>\
<li><i class=\"l-window\"></i>predicted</li>\
<li><i class=\"l-cut\"></i>nothing passes</li></ul>\n\
<p class=\"legend\">Each event has its row; the space between two grows with the logarithm of the \
time between them.</p>\n";

fn verdict(body: &mut String, trial: &Trial) {
    let word = trial.verdict.word;
    push(
        body,
        format_args!(
            "<p class=\"verdict {word}\"><b>{}.</b> {}.</p>\n",
            capital(&trial.status().to_string()),
            prose(&capital(human::compared(trial).trim_end_matches('.'))),
        ),
    );
    let has_reason = trial.verdict.measured.is_some() && !trial.verdict.reason.is_empty();
    if has_reason {
        let reason = words::by_name(&trial.experiment.parameters, &trial.verdict.reason);
        let reason = prose(&reason);
        push(body, format_args!("<p class=\"reason {word}\">{reason}</p>\n"));
    }
    ruler::ruler(body, trial);
    if let Some(prediction) = &trial.prediction {
        let choice = words::choice(&trial.experiment.parameters, prediction);
        let (how, why) = match &prediction.unknown {
            None if choice.is_some() => {
                ("Predicted before the fault; the first window, because", &prediction.why)
            }
            None => ("Predicted before the fault, because", &prediction.why),
            Some(_) if has_reason => return, // which says the same
            Some(unknown) => ("Before the fault no outcome was predicted:", unknown),
        };
        let why = prose(why.trim_end_matches('.'));
        let choice = choice.map_or_else(String::new, |choice| format!(" {}.", capital(&choice)));
        let choice = prose(&choice);
        push(body, format_args!("<p class=\"why\">{how} {why}.{choice}</p>\n"));
    }
}

fn proof(body: &mut String, trial: &Trial) {
    let evidence = &trial.verdict.proof.evidence;
    if evidence.is_empty() {
        return;
    }
    body.push_str("<h2>Proof of the fault</h2>\n<ul class=\"proof\">\n");
    for piece in evidence {
        let class = if piece.holds { "" } else { " class=\"fails\"" };
        let finding = words::by_name(&trial.experiment.parameters, &piece.finding);
        push(body, format_args!("<li{class}>{}</li>\n", prose(&finding)));
    }
    body.push_str("</ul>\n");
}

/// What the ids of claims stand for.
fn claims_tested(body: &mut String, ids: &[String]) {
    if ids.is_empty() {
        return;
    }
    body.push_str("<h2>Claims that it tests</h2>\n<dl>\n");
    for claim in Catalogue::built_in().claims.iter().filter(|claim| ids.contains(&claim.id)) {
        let source = if claim.is_of_the_article() { ARTICLE } else { &claim.source };
        let (id, says) = (escaped(&claim.id), prose(&claim.says));
        let source = prose(source);
        push(body, format_args!("<dt id=\"claim-{id}\">{id}</dt><dd>{says} ({source})</dd>\n"));
    }
    body.push_str("</dl>\n");
}

fn conditions(body: &mut String, machine: &Machine, trial: &Trial) {
    let parameters = &trial.experiment.parameters;
    let mut rows = vec![
        ("network and socket", words::setting(parameters)),
        ("stimulus", words::stimulus(parameters)),
    ];
    if let Some(width) = trial.prediction.as_ref().and_then(words::width) {
        rows.push(("what makes the window so wide", width));
    }
    let kernel = trial.facts.as_ref().map_or(&machine.kernel, |facts| &facts.kernel);
    let hz = trial.facts.as_ref().map_or(machine.hz, |facts| facts.hz);
    rows.push(("kernel", format!("Linux {kernel}, HZ {hz}, {} clock", machine.clock)));
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
    body.push_str("<h2>Conditions</h2>\n<dl>\n");
    for (name, value) in rows {
        push(body, format_args!("<dt>{name}</dt><dd>{}</dd>\n", prose(&value)));
    }
    body.push_str("</dl>\n<details><summary>Every setting</summary>\n<dl>\n");
    for (key, value) in in_force(parameters, trial.facts.as_ref()) {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        push(body, format_args!("<dt>{}</dt><dd>{}</dd>\n", escaped(&key), escaped(&value)));
    }
    body.push_str("</dl>\n</details>\n");
}

fn list_files(body: &mut String, files: &[File]) {
    if files.is_empty() {
        return;
    }
    body.push_str("<div class=\"evidence\">\n<h2>Evidence</h2>\n<ul class=\"files\">\n");
    for file in files {
        let (name, what) = (escaped(&file.name), escaped(&file.what));
        push(body, format_args!("<li><a href=\"{name}\">{name}</a><br>{what}</li>\n"));
    }
    body.push_str("</ul>\n</div>\n");
}

/// The frame of a page about what was measured on one machine.
fn page(title: &str, machine: &Machine, body: &str) -> Vec<u8> {
    let Machine { kernel, hz, clock } = machine;
    let footer = format!("halfopen · measured on Linux {kernel}, HZ {hz}, {clock} clock");
    framed(title, &footer, body)
}

/// The frame of every page.
fn framed(title: &str, footer: &str, body: &str) -> Vec<u8> {
    let style = include_str!("html/style.css");
    let (title, footer) = (escaped(title), escaped(footer));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}\
         <footer>{footer}</footer>\n\
         </main>\n</body>\n</html>\n"
    )
    .into_bytes()
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests;
