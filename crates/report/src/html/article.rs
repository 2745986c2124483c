//! The page of an article: every claim, its finding, and the trials that it rests on.

use super::ruler::{bar_of_times, spans};
use super::text::prose;
use super::{capital, framed, schedule};
use crate::article::{Article, Brief, about};
use crate::tally::Run;
use crate::trial::{Clock, Trial};
use maud::{Markup, html};
use verdict::Word;
use verdict::claims::{ARTICLE, Claim};
use verdict::findings::{Finding, Standing, Table};

/// The claim below which every retransmission is listed.
const CLAIM_OF_THE_SCHEDULE: &str = "C3";

/// The report of an article. `link` gives the address of a trial's page, relative to this one.
pub fn article_page(article: &Article, link: impl Fn(&Run, &Trial) -> Option<String>) -> Vec<u8> {
    let first_beyond = article.claims.iter().position(|(claim, _)| claim.id.starts_with("G-"));
    let body = html! {
        p.kicker { b { "halfopen article" } " · " (article.date) }
        h1 { "Of " (spec::counted(article.claims.len(), "claim")) " " (prose(&article.counted())) }
        p.question { "The article is " (prose(ARTICLE)) "." }
        (provenance(article))
        (index(article))
        @for (number, (claim, finding)) in article.claims.iter().enumerate() {
            @if Some(number) == first_beyond { h2.part { "Beyond the article" } }
            (section(article, claim, finding, &link))
        }
    };
    let footer = format!("halfopen · {} · {}", article.date, article.command);
    framed("The article, claim by claim – halfopen", &footer, &body)
}

fn provenance(article: &Article) -> Markup {
    html! {
        ul.runs {
            @for run in &article.runs { li { (prose(&capital(&about(run)))) } }
            @for missing in &article.missing { li { (prose(&capital(&missing.to_string()))) } }
            li { code { (article.command) } }
        }
    }
}

/// Every claim's id in the colour of its finding.
fn index(article: &Article) -> Markup {
    html! {
        p.index {
            @for (claim, Finding { standing, .. }) in &article.claims {
                a class=(class(*standing)) href={ "#" (claim.id) } title=(standing) {
                    (mark(*standing)) " " (claim.id)
                }
                " "
            }
        }
        p.legend { "✓ holds · ± holds with a condition · ✗ does not hold · – not tested" }
    }
}

fn section(
    article: &Article,
    claim: &Claim,
    finding: &Finding,
    link: &impl Fn(&Run, &Trial) -> Option<String>,
) -> Markup {
    let evidence: Vec<_> = article.evidence(claim).collect();
    html! {
        section.group.claim id=(claim.id) {
            h2 { small { (claim.id) } " " (prose(&claim.says)) }
            @if !claim.is_of_the_article() {
                p.question { (prose(&claim.source)) }
            }
            p.result {
                b class=(class(finding.standing)) { (capital(&finding.standing.to_string())) "." }
                " " (prose(&sentence(&finding.text)))
            }
            @if let Some(table) = &finding.table { (figures(table)) }
            @if !evidence.is_empty() {
                table {
                    thead {
                        tr {
                            th { "experiment" }
                            th { "clock" }
                            th { "predicted" }
                            th { "measured" }
                            td.spare {}
                        }
                    }
                    tbody {
                        @for (run, trial) in &evidence {
                            (row(&article.whose(run, trial), trial, link(run, trial)))
                        }
                    }
                }
            }
            @if claim.id == CLAIM_OF_THE_SCHEDULE { (every_retransmission(&evidence)) }
        }
    }
}

/// A finding's table.
fn figures(table: &Table) -> Markup {
    html! {
        .figures tabindex="0" role="group" aria-label="Figures" {
            table {
                thead { tr { @for text in &table.head { th { (prose(text)) } } } }
                tbody {
                    @for cells in &table.rows {
                        tr { @for text in cells { td { (prose(text)) } } }
                    }
                }
            }
        }
    }
}

fn row(clock: &str, trial: &Trial, address: Option<String>) -> Markup {
    let Brief { predicted, measured } = Brief::new(trial);
    let word = trial.verdict.word;
    let windows: Vec<_> = trial.prediction.iter().flat_map(spans).collect();
    let told = trial.verdict.measured.as_ref().and_then(|measured| measured.detected_s);
    let told: Vec<_> = told.map(|at| (at, word != Word::Agrees)).into_iter().collect();
    html! {
        tr {
            td {
                @match address {
                    Some(address) => a href=(address) { (breakable(&trial.experiment.name)) },
                    None => (breakable(&trial.experiment.name)),
                }
            }
            td { (clock.replace("HZ ", "HZ\u{a0}")) }
            td { (prose(&predicted)) }
            td {
                (prose(&measured))
                @if word != Word::Agrees { " " b class=(word) { (word) } }
            }
            td.spare { (bar_of_times("bar", &windows, &told)) }
        }
    }
}

/// A name that may break after each hyphen.
fn breakable(name: &str) -> Markup {
    html! {
        @for part in name.split_inclusive('-') {
            (part)
            @if part.ends_with('-') { wbr; }
        }
    }
}

/// The schedule of the trial at the defaults if there is one.
fn every_retransmission(evidence: &[(&Run, &Trial)]) -> Markup {
    let virtual_first = evidence.iter().max_by_key(|(run, _)| run.machine.clock == Clock::Virtual);
    html! {
        @if let Some((run, trial)) = virtual_first {
            details.schedule open {
                summary {
                    "Every retransmission of " (trial.experiment.name) " on the "
                    (run.machine.clock) " clock"
                }
                (schedule::section(trial))
            }
        }
    }
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
