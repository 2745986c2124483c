//! The page of an article: every claim, its finding, and the trials that it rests on.

use super::ruler::{Scale, spans};
use super::text::{prose, push};
use super::{capital, framed, schedule};
use crate::article::{Article, Brief, about};
use crate::escape::escaped;
use crate::tally::Run;
use crate::trial::{Clock, Trial};
use verdict::Word;
use verdict::claims::{ARTICLE, Claim};
use verdict::findings::{Finding, Standing, Table};

/// The claim below which every retransmission is listed.
const CLAIM_OF_THE_SCHEDULE: &str = "C3";

/// The report of an article. `link` gives the address of a trial's page, relative to this one.
pub fn article_page(article: &Article, link: impl Fn(&Run, &Trial) -> Option<String>) -> Vec<u8> {
    let mut body = String::new();
    push(
        &mut body,
        format_args!(
            "<p class=\"kicker\"><b>halfopen article</b> · {}</p>\n<h1>{}</h1>\n",
            escaped(&article.date),
            capital(&prose(&article.counted())),
        ),
    );
    push(&mut body, format_args!("<p class=\"question\">The article is {}.</p>\n", prose(ARTICLE)));
    provenance(&mut body, article);
    index(&mut body, article);
    let mut beyond = false;
    for (claim, finding) in &article.claims {
        if claim.id.starts_with("G-") && !beyond {
            beyond = true;
            body.push_str("<h2 class=\"part\">Beyond the article</h2>\n");
        }
        section(&mut body, article, claim, finding, &link);
    }
    let footer = format!("halfopen · {} · {}", article.date, article.command);
    framed("The article, claim by claim – halfopen", &footer, &body)
}

fn provenance(body: &mut String, article: &Article) {
    body.push_str("<ul class=\"runs\">\n");
    for run in &article.runs {
        push(body, format_args!("<li>{}</li>\n", prose(&capital(&about(run)))));
    }
    for missing in &article.missing {
        push(body, format_args!("<li>{}</li>\n", prose(&capital(&missing.to_string()))));
    }
    push(body, format_args!("<li><code>{}</code></li>\n</ul>\n", escaped(&article.command)));
}

/// Every claim's id in the colour of its finding.
fn index(body: &mut String, article: &Article) {
    body.push_str("<p class=\"index\">");
    for (claim, finding) in &article.claims {
        let id = escaped(&claim.id);
        push(
            body,
            format_args!(
                "<a class=\"{}\" href=\"#{id}\" title=\"{}\">{} {id}</a> ",
                class(finding.standing),
                finding.standing,
                mark(finding.standing),
            ),
        );
    }
    body.push_str("</p>\n<p class=\"legend\">✓ holds · ± holds with a condition · ✗ does not hold · – not tested</p>\n");
}

fn section(
    body: &mut String,
    article: &Article,
    claim: &Claim,
    finding: &Finding,
    link: &impl Fn(&Run, &Trial) -> Option<String>,
) {
    push(
        body,
        format_args!(
            "<section class=\"group claim\" id=\"{}\">\n<h2><small>{}</small> {}</h2>\n",
            escaped(&claim.id),
            escaped(&claim.id),
            prose(&claim.says),
        ),
    );
    if !claim.is_of_the_article() {
        push(body, format_args!("<p class=\"question\">{}</p>\n", prose(&claim.source)));
    }
    push(
        body,
        format_args!(
            "<p class=\"result\"><b class=\"{}\">{}.</b> {}</p>\n",
            class(finding.standing),
            capital(&finding.standing.to_string()),
            prose(&sentence(&finding.text)),
        ),
    );
    if let Some(table) = &finding.table {
        figures(body, table);
    }
    let evidence: Vec<_> = article.evidence(claim).collect();
    if !evidence.is_empty() {
        body.push_str(
            "<table>\n<thead><tr><th>experiment</th><th>clock</th><th>predicted</th>\
             <th>measured</th><th class=\"spare\"></th></tr></thead>\n<tbody>\n",
        );
        for (run, trial) in &evidence {
            let clock = article.whose(run, trial).replace("HZ ", "HZ&nbsp;");
            row(body, &clock, trial, link(run, trial));
        }
        body.push_str("</tbody>\n</table>\n");
    }
    if claim.id == CLAIM_OF_THE_SCHEDULE {
        every_retransmission(body, &evidence);
    }
    body.push_str("</section>\n");
}

/// A finding's table.
fn figures(body: &mut String, table: &Table) {
    let row = |cells: &[String], tag: &str| {
        let cells = cells.iter().map(|text| format!("<{tag}>{}</{tag}>", prose(text)));
        format!("<tr>{}</tr>", cells.collect::<String>())
    };
    push(
        body,
        format_args!(
            "<div class=\"figures\"><table>\n<thead>{}</thead>\n<tbody>\n",
            row(&table.head, "th")
        ),
    );
    for cells in &table.rows {
        push(body, format_args!("{}\n", row(cells, "td")));
    }
    body.push_str("</tbody>\n</table></div>\n");
}

fn row(body: &mut String, clock: &str, trial: &Trial, address: Option<String>) {
    let Brief { predicted, measured } = Brief::new(trial);
    let name = escaped(&trial.experiment.name).replace('-', "-<wbr>");
    let name = match address {
        Some(address) => format!("<a href=\"{}\">{name}</a>", escaped(&address)),
        None => name,
    };
    let word = trial.verdict.word;
    let off = if word == Word::Agrees {
        String::new()
    } else {
        format!(" <b class=\"{word}\">{word}</b>")
    };
    push(
        body,
        format_args!(
            "<tr><td>{name}</td><td>{clock}</td><td>{}</td><td>{}{off}</td><td class=\"spare\">{}</td></tr>\n",
            prose(&predicted),
            prose(&measured),
            bar(trial),
        ),
    );
}

/// The windows, and a tick where the measurement lies.
fn bar(trial: &Trial) -> String {
    let windows: Vec<_> = trial.prediction.iter().flat_map(spans).collect();
    let told = trial.verdict.measured.as_ref().and_then(|measured| measured.detected_s);
    let edges = windows.iter().flat_map(|(earliest, latest)| [*earliest, *latest]);
    let Some(scale) = Scale::around(edges.chain(told)).filter(|_| !windows.is_empty()) else {
        return String::new();
    };
    let mut bar = "<span class=\"bar\" aria-hidden=\"true\">".to_owned();
    for (earliest, latest) in &windows {
        let (from, to) = (scale.percent(*earliest), scale.percent(*latest));
        let width = (to - from).max(0.8);
        push(&mut bar, format_args!("<i style=\"left:{from:.2}%;width:{width:.2}%\"></i>"));
    }
    if let Some(at) = told {
        let off = if trial.verdict.word == Word::Agrees { "" } else { " class=\"off\"" };
        push(&mut bar, format_args!("<b{off} style=\"left:{:.2}%\"></b>", scale.percent(at)));
    }
    bar + "</span>"
}

/// The schedule of the trial at the defaults if there is one.
fn every_retransmission(body: &mut String, evidence: &[(&Run, &Trial)]) {
    let virtual_first =
        evidence.iter().max_by_key(|(run, _)| run.machine.clock == Clock::Virtual).copied();
    let Some((run, trial)) = virtual_first else { return };
    push(
        body,
        format_args!(
            "<details class=\"schedule\" open><summary>Every retransmission of {} on the {} \
             clock</summary>\n",
            escaped(&trial.experiment.name),
            run.machine.clock
        ),
    );
    schedule::section(body, trial);
    body.push_str("</details>\n");
}

const fn class(standing: Standing) -> &'static str {
    match standing {
        Standing::Holds => "holds",
        Standing::HoldsWithACondition => "holds-if",
        Standing::DoesNotHold => "fails-to-hold",
        Standing::NotTested => "untested",
    }
}

const fn mark(standing: Standing) -> &'static str {
    match standing {
        Standing::Holds => "✓",
        Standing::HoldsWithACondition => "±",
        Standing::DoesNotHold => "✗",
        Standing::NotTested => "–",
    }
}

/// With a capital and a full stop.
fn sentence(text: &str) -> String {
    let text = capital(text);
    if text.ends_with('.') { text } else { text + "." }
}
