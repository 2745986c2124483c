//! An article held against a kernel: each claim with its finding and its evidence.
//!
//! What one clock showed stands beside what the other did. The texts for a terminal, for Markdown
//! and for programs are made here; the page is in `html`.

use crate::human;
use crate::json;
use crate::markdown::cell;
use crate::span;
use crate::summary::{Group, groups};
use crate::trial::{Clock, Run, Trial};
use serde::Serialize;
use std::fmt::Write;
use verdict::claims::Claim;
use verdict::findings::{Finding, Standing};

/// Claims, findings, and the runs that they rest on.
#[derive(Debug, Clone, PartialEq)]
pub struct Article {
    /// The command that made it, as a person would type it.
    pub command: String,
    /// When it was made: a date and a time, in words of the calendar.
    pub date: String,
    /// The runs: at most one for each clock. A trial's name is its label among the evidence.
    pub runs: Vec<Run>,
    /// Clocks that could not be had, and why.
    pub missing: Vec<(Clock, String)>,
    /// Each claim with its finding.
    pub claims: Vec<(Claim, Finding)>,
}

impl Article {
    /// The trials that are a claim's evidence, label by label, with their runs.
    pub(crate) fn evidence<'a>(
        &'a self,
        claim: &'a Claim,
    ) -> impl Iterator<Item = (&'a Run, &'a Trial)> {
        claim.evidence.iter().flat_map(move |label| {
            self.runs.iter().flat_map(move |run| {
                let of_label = |trial: &&Trial| trial.experiment.name == *label;
                run.trials.iter().filter(of_label).map(move |trial| (run, trial))
            })
        })
    }

    /// `21 hold, 9 hold with a condition, 2 do not hold, 4 not tested`.
    pub(crate) fn counted(&self) -> String {
        let count = |wanted| self.claims.iter().filter(|(_, f)| f.standing == wanted).count();
        let words = [
            (Standing::Holds, "holds", "hold"),
            (Standing::HoldsWithACondition, "holds with a condition", "hold with a condition"),
            (Standing::DoesNotHold, "does not hold", "do not hold"),
            (Standing::NotTested, "not tested", "not tested"),
        ];
        let shown = words.map(|(standing, one, many)| match count(standing) {
            0 => None,
            1 => Some(format!("1 {one}")),
            count => Some(format!("{count} {many}")),
        });
        shown.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// One trial in a few words: outcome, predicted, measured.
pub(crate) struct Brief {
    pub(crate) predicted: String,
    pub(crate) measured: String,
}

impl Brief {
    pub(crate) fn new(trial: &Trial) -> Self {
        let group = groups(std::slice::from_ref(trial)).remove(0);
        let (outcomes, at) = (group.outcomes(), group.measured());
        let measured = match (outcomes.as_str(), at.as_str()) {
            ("none", _) => match group.gave_up() {
                Some(at) => format!("nothing; the program gave up {at}"),
                None => "nothing".into(),
            },
            (outcome, "–") => outcome.into(),
            (outcome, at) => format!("{outcome} {at}"),
        };
        Self { predicted: group.predicted(), measured }
    }
}

/// One line about a run.
pub(crate) fn about(run: &Run) -> String {
    format!(
        "{} clock: Linux {}, HZ {}, {} trials ({}), {} of wall time",
        run.clock,
        run.kernel,
        run.hz,
        run.trials.len(),
        Group::counted(run.trials.iter().map(|trial| trial.verdict.word)),
        span::measured(run.wall_s)
    )
}

/// For a terminal.
pub fn terminal(article: &Article, colour: bool) -> String {
    let mut text = String::new();
    for (claim, finding) in &article.claims {
        text += &human::claim(&claim.id, finding.standing, &claim.says, &finding.text, colour);
        let widest = claim.evidence.iter().map(String::len).max().unwrap_or(0);
        for (run, trial) in article.evidence(claim) {
            let Brief { predicted, measured } = Brief::new(trial);
            let clock = run.clock.to_string();
            let name = &trial.experiment.name;
            let word = trial.verdict.word;
            writeln!(
                text,
                "    {name:<widest$}  {clock:<7}  {measured:<24}  predicted {predicted}  {word}"
            )
            .expect("a String takes all");
        }
        text.push('\n');
    }
    writeln!(text, "{}", article.counted()).expect("a String takes all");
    for line in provenance(article) {
        writeln!(text, "{line}").expect("a String takes all");
    }
    text
}

/// What each clock was, and which could not be had.
fn provenance(article: &Article) -> impl Iterator<Item = String> + '_ {
    let missing =
        article.missing.iter().map(|(clock, why)| format!("{clock} clock: skipped: {why}"));
    article.runs.iter().map(about).chain(missing)
}

/// For a repository, or a step summary. `link` gives the address of a trial's page.
pub fn markdown(article: &Article, link: impl Fn(&Run, &Trial) -> Option<String>) -> String {
    let mut text = String::from("# The article, claim by claim\n\n");
    writeln!(text, "**{}**\n", article.counted()).expect("a String takes all");
    writeln!(text, "- made {} by `{}`", article.date, article.command).expect("a String takes all");
    for line in provenance(article) {
        writeln!(text, "- {}", cell(&line)).expect("a String takes all");
    }
    text += "\n| claim | it says | finding | what happens |\n|---|---|---|---|\n";
    for (claim, finding) in &article.claims {
        let cells = [&claim.id, &claim.says, &format!("**{}**", finding.standing), &finding.text];
        let [id, says, standing, found] = cells;
        let (says, found) = (cell(says), cell(found));
        writeln!(text, "| {id} | {says} ({}) | {standing} | {found} |", cell(&claim.source))
            .expect("a String takes all");
    }
    text += "\n## Evidence\n\n| claim | experiment | clock | predicted | measured | verdict |\n\
             |---|---|---|---|---|---|\n";
    for (claim, _) in &article.claims {
        for (run, trial) in article.evidence(claim) {
            let Brief { predicted, measured } = Brief::new(trial);
            let label = cell(&trial.experiment.name);
            let label = match link(run, trial) {
                Some(address) => format!("[{label}](<{address}>)"),
                None => label,
            };
            writeln!(
                text,
                "| {} | {label} | {} | {} | {} | {} |",
                claim.id,
                run.clock,
                cell(&predicted),
                cell(&measured),
                trial.verdict.word
            )
            .expect("a String takes all");
        }
    }
    text
}

/// For programs: `halfopen/article/1`.
pub fn document(article: &Article) -> Vec<u8> {
    json::pretty(&Document {
        schema: "halfopen/article/1",
        command: &article.command,
        date: &article.date,
        claims: article
            .claims
            .iter()
            .map(|(claim, finding)| entry(article, claim, finding))
            .collect(),
        runs: article.runs.iter().map(json::document).collect(),
        skipped: article
            .missing
            .iter()
            .map(|(clock, reason)| Skipped { clock: *clock, reason })
            .collect(),
    })
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    command: &'a str,
    date: &'a str,
    claims: Vec<Entry<'a>>,
    runs: Vec<json::RunDocument<'a>>,
    skipped: Vec<Skipped<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    id: &'a str,
    says: &'a str,
    source: &'a str,
    finding: Standing,
    text: &'a str,
    evidence: Vec<Reference<'a>>,
}

/// A trial, by its place among the runs.
#[derive(Serialize)]
struct Reference<'a> {
    label: &'a str,
    clock: Clock,
    trial: usize,
}

#[derive(Serialize)]
struct Skipped<'a> {
    clock: Clock,
    reason: &'a str,
}

fn entry<'a>(article: &'a Article, claim: &'a Claim, finding: &'a Finding) -> Entry<'a> {
    let reference = |(run, trial): (&Run, &'a Trial)| Reference {
        label: &trial.experiment.name,
        clock: run.clock,
        trial: trial.number,
    };
    Entry {
        id: &claim.id,
        says: &claim.says,
        source: &claim.source,
        finding: finding.standing,
        text: &finding.text,
        evidence: article.evidence(claim).map(reference).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn a_terminal_gets_each_claim_with_its_evidence() {
        insta::assert_snapshot!(terminal(&samples::article(), false));
    }

    #[test]
    fn a_repository_gets_two_tables() {
        let link = |run: &Run, trial: &Trial| {
            Some(format!("{}/{}/report.html", run.clock, trial.experiment.name))
        };
        insta::assert_snapshot!(markdown(&samples::article(), link));
    }

    #[test]
    fn a_document_names_the_trials_of_each_claim() {
        let document: serde_json::Value =
            serde_json::from_slice(&document(&samples::article())).unwrap();
        assert_eq!(document["schema"], "halfopen/article/1");
        let claim = &document["claims"][0];
        assert_eq!(claim["finding"], "holds-with-a-condition");
        let evidence = &claim["evidence"][0];
        let trial = evidence["trial"].as_u64().unwrap() as usize;
        assert_eq!(document["runs"][0]["trials"][trial]["experiment"], evidence["label"]);
    }
}
