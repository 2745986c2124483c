//! An article held against a kernel: each claim with its finding and its evidence.
//!
//! What one clock showed stands beside what the other did. The texts for a terminal, for Markdown
//! and for programs are made here; the page is in `html`.

use crate::counts::Counts;
use crate::human;
use crate::json;
use crate::markdown::cell;
use crate::span;
use crate::summary::Group;
use crate::tally::Run;
use crate::trial::{Clock, Trial};
use serde::Serialize;
use std::fmt::{self, Write};
use verdict::claims::{ARTICLE, Claim};
use verdict::findings::{Finding, Standing, Table};

/// Claims, findings, and the runs that they rest on.
#[derive(Debug, Clone, PartialEq)]
pub struct Article {
    /// The command that made it, as a person would type it.
    pub command: String,
    /// When it was made: a date and a time, in words of the calendar.
    pub date: String,
    /// The runs: at most one for each kernel. A trial's name is its label among the evidence.
    pub runs: Vec<Run>,
    /// Kernels that were not available.
    pub missing: Vec<Missing>,
    /// Each claim with its finding.
    pub claims: Vec<(Claim, Finding)>,
}

/// A kernel that was not available.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The clock that it would have had.
    pub clock: Clock,
    /// Its HZ, where the clock has kernels of several; `None` for the usual one.
    pub hz: Option<u32>,
    /// Why it is not available, and what would help.
    pub why: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} clock", self.clock)?;
        if let Some(hz) = self.hz {
            write!(formatter, ", HZ {hz}")?;
        }
        write!(formatter, ": skipped: {}", self.why)
    }
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

    /// The clock of a piece of evidence: `virtual`, or `virtual, HZ 100` where kernels of
    /// several HZ have made it.
    pub(crate) fn whose(&self, run: &Run, trial: &Trial) -> String {
        let made = |other: &&Run| {
            other.machine.clock == run.machine.clock
                && other.trials.iter().any(|made| made.experiment.name == trial.experiment.name)
        };
        match self.runs.iter().filter(made).count() {
            0 | 1 => run.machine.clock.to_string(),
            _ => format!("{}, HZ {}", run.machine.clock, run.machine.hz),
        }
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
        let group = Group::of(trial);
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
        "{} clock: Linux {}, HZ {}, {} ({}), {} of wall time",
        run.machine.clock,
        run.machine.kernel,
        run.machine.hz,
        spec::counted(run.trials.len(), "trial"),
        run.trials.iter().map(Trial::status).collect::<Counts>(),
        span::measured(run.wall_s)
    )
}

/// For a terminal.
pub fn terminal(article: &Article, colour: bool) -> String {
    let mut text = String::new();
    for (claim, finding) in &article.claims {
        text += &human::claim(&claim.id, finding.standing, &claim.says, &finding.text, colour);
        if let Some(table) = &finding.table {
            text += &human::figures(table);
        }
        let widest = claim.evidence.iter().map(String::len).max().unwrap_or(0);
        let clocks = article.evidence(claim).map(|(run, trial)| article.whose(run, trial).len());
        let clocks = clocks.max().unwrap_or(0).max("virtual".len());
        for (run, trial) in article.evidence(claim) {
            let Brief { predicted, measured } = Brief::new(trial);
            let clock = article.whose(run, trial);
            let name = &trial.experiment.name;
            let word = trial.verdict.word;
            writeln!(
                text,
                "    {name:<widest$}  {clock:<clocks$}  {measured:<24}  predicted {predicted}  {word}"
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

/// What each clock was, and which was not available.
fn provenance(article: &Article) -> impl Iterator<Item = String> + '_ {
    article.runs.iter().map(about).chain(article.missing.iter().map(Missing::to_string))
}

/// Where a claim stands in [`markdown`].
fn anchor(id: &str) -> String {
    format!("claim-{}", id.to_lowercase())
}

/// A claim's id with a link to what it says.
fn linked(id: &str) -> String {
    format!("[{id}](#{})", anchor(id))
}

/// For a repository, or a step summary. `link` gives the address of a trial's page.
pub fn markdown(article: &Article, link: impl Fn(&Run, &Trial) -> Option<String>) -> String {
    let mut text =
        format!("# The article, claim by claim\n\nThe article is {}.\n\n", cell(ARTICLE));
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
        writeln!(
            text,
            "| <a id=\"{}\"></a>{id} | {says} ({}) | {standing} | {found} |",
            anchor(id),
            cell(&claim.source)
        )
        .expect("a String takes all");
    }
    for (claim, finding) in &article.claims {
        let Some(table) = &finding.table else { continue };
        let row = |cells: &[String]| {
            let cells: Vec<_> = cells.iter().map(|text| cell(text)).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        write!(text, "\n## {}, in figures\n\n{}", linked(&claim.id), row(&table.head))
            .expect("a String takes all");
        text += &row(&vec!["---".into(); table.head.len()]);
        text.extend(table.rows.iter().map(|cells| row(cells)));
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
                linked(&claim.id),
                article.whose(run, trial),
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
            .map(|missing| Skipped { clock: missing.clock, hz: missing.hz, reason: &missing.why })
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
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<&'a Table>,
    evidence: Vec<Reference<'a>>,
}

/// A trial, by its kernel's run and its place in it.
#[derive(Serialize)]
struct Reference<'a> {
    label: &'a str,
    clock: Clock,
    hz: u32,
    trial: usize,
}

#[derive(Serialize)]
struct Skipped<'a> {
    clock: Clock,
    #[serde(skip_serializing_if = "Option::is_none")]
    hz: Option<u32>,
    reason: &'a str,
}

fn entry<'a>(article: &'a Article, claim: &'a Claim, finding: &'a Finding) -> Entry<'a> {
    let reference = |(run, trial): (&Run, &'a Trial)| Reference {
        label: &trial.experiment.name,
        clock: run.machine.clock,
        hz: run.machine.hz,
        trial: run.trials.iter().position(|other| std::ptr::eq(other, trial)).unwrap_or_default(),
    };
    Entry {
        id: &claim.id,
        says: &claim.says,
        source: &claim.source,
        finding: finding.standing,
        text: &finding.text,
        table: finding.table.as_ref(),
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
            Some(format!("{}/{}/report.html", run.machine.clock, trial.experiment.name))
        };
        insta::assert_snapshot!(markdown(&samples::article(), link));
    }

    #[test]
    fn where_kernels_of_several_hz_made_a_trial_each_row_says_which() {
        let mut article = samples::article();
        let mut again = Run { trials: vec![samples::sending()], ..article.runs[0].clone() };
        again.machine.hz = 1000;
        article.runs.push(again);
        let text = markdown(&article, |_, _| None);
        assert!(text.contains("| [C7](#claim-c7) | host-crash-sending | real, HZ 250 |"), "{text}");
        assert!(
            text.contains("| [C7](#claim-c7) | host-crash-sending | real, HZ 1000 |"),
            "{text}"
        );
        assert!(text.contains("| [E2](#claim-e2) | host-crash-idle-keepalive | real |"), "{text}");
        let document: serde_json::Value = serde_json::from_slice(&document(&article)).unwrap();
        assert_eq!(document["claims"][1]["evidence"][1]["hz"], 1000);
        assert_eq!(document["claims"][1]["table"]["rows"][0][1], "210 ms");
        assert_eq!(document["skipped"][1]["hz"], 100);
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
