//! `halfopen article`: every claim held against the kernel, on both clocks side by side.

use crate::cli::{self, ArticleClock, Format};
use crate::output::{self, Exit};
use crate::run::{Batch, Prepared};
use crate::store::{self, Store};
use crate::{catalogue, guest, supervisor};
use anyhow::{Context, Result, anyhow};
use report::article::{document, markdown, terminal};
use report::html::article_page;
use report::{Article, Clock, Run, Trial, junit};
use spec::Experiment;
use spec::file::parse_override;
use std::path::Path;
use verdict::claims::{Catalogue, Claim, Piece, Settings};
use verdict::findings::{Bench, Exhibit, find};

pub(crate) fn run(arguments: &cli::Article) -> Exit {
    carry_out(arguments).unwrap_or_else(|error| output::fail(Exit::INTERNAL, &error))
}

fn carry_out(arguments: &cli::Article) -> Result<Exit> {
    let catalogue = Catalogue::built_in();
    let clocks: &[Clock] = match arguments.clock {
        ArticleClock::Real => &[Clock::Real],
        ArticleClock::Virtual => &[Clock::Virtual],
        ArticleClock::Both => &[Clock::Real, Clock::Virtual],
    };
    let (mut ready, mut missing) = (Vec::new(), Vec::new());
    for clock in clocks {
        match prepare(&catalogue, *clock)? {
            Ok(prepared) => ready.push(prepared),
            Err(why) => missing.push((*clock, why)),
        }
    }

    // While there are privileges, and before any thread: see `run`.
    let laboratories: Vec<_> = ready.iter().map(|_| supervisor::start()).collect::<Result<_>>()?;
    store::become_the_caller(&arguments.out)?;
    let store = Store::open(&arguments.out)?.fresh_inside("article")?;
    let mut exit = if missing.is_empty() { Exit::AGREES } else { Exit::SKIPPED };
    let mut runs = Vec::new();
    // One after the other: trials on the real clock suffer from a busy machine.
    for (prepared, laboratory) in ready.iter().zip(laboratories) {
        let inside = store.fresh_inside(&prepared.clock().to_string())?;
        let conducted = prepared.conduct(laboratory, &inside, arguments.output.format)?;
        exit = exit.and(conducted.exit);
        if conducted.interrupted {
            // Half the evidence makes no findings.
            return Ok(exit);
        }
        runs.push(conducted.run);
    }
    let article = article(&catalogue, runs, missing);
    if let Some(directory) = &arguments.reference {
        keep(&catalogue, &article, directory)?;
    }

    store.write_files(&[
        ("article.md", markdown(&article, page).into_bytes()),
        ("article.html", article_page(&article, page)),
        ("article.json", document(&article)),
        ("junit.xml", junit::reports(&article.runs).context("writing the JUnit report")?),
    ])?;
    let written = match arguments.output.format {
        Format::Json => output::print(&document(&article)),
        Format::Human => {
            let text = terminal(&article, output::colour(&std::io::stdout()));
            let place = store.directory().join("article.html");
            output::print(format!("\n{text}report: {}\n", place.display()).as_bytes())
        }
    };
    Ok(exit.and(written))
}

fn article(catalogue: &Catalogue, runs: Vec<Run>, missing: Vec<(Clock, String)>) -> Article {
    let bench = bench(&runs);
    let found = |claim: &Claim| (claim.clone(), find(claim, &bench));
    let claims = catalogue.claims.iter().map(found).collect();
    Article { command: command_line(), date: now(), runs, missing, claims }
}

/// Writes what is worth keeping: the article of each clock by itself, and of both together.
/// Trials' own pages are not kept, and not linked to.
fn keep(catalogue: &Catalogue, whole: &Article, directory: &Path) -> Result<()> {
    let store = Store::open(directory)?;
    let mut articles: Vec<_> = whole
        .runs
        .iter()
        .map(|run| {
            let name = format!("{}-{}", run.kernel, run.clock);
            (name, article(catalogue, vec![run.clone()], Vec::new()))
        })
        .collect();
    if whole.runs.len() > 1 {
        articles.push(("article".into(), whole.clone()));
    }
    for (name, article) in articles {
        store.inside(&name)?.write_files(&[
            ("article.md", markdown(&article, |_, _| None).into_bytes()),
            ("article.html", article_page(&article, |_, _| None)),
            ("article.json", document(&article)),
        ])?;
    }
    Ok(())
}

/// The trials of one clock; the inner error says why it cannot be had.
fn prepare(catalogue: &Catalogue, clock: Clock) -> Result<Result<Prepared, String>> {
    let settings = settings_on(clock);
    let experiments: Vec<_> = catalogue
        .pieces(settings)
        .iter()
        .map(|piece| experiment(piece, settings))
        .collect::<Result<_>>()?;
    let defaults = settings == Settings::Defaults;
    let batch = Batch {
        experiments: &experiments,
        repeat: 1,
        phases: None,
        clock,
        hz: guest::HZ_DEFAULT,
        jobs: None,
        defaults,
    };
    Ok(batch.prepare()?.map_err(|(_, why)| why))
}

const fn settings_on(clock: Clock) -> Settings {
    match clock {
        Clock::Real => Settings::Short,
        Clock::Virtual => Settings::Defaults,
    }
}

/// The experiment of a piece of evidence, under the label that claims know it by.
fn experiment(piece: &Piece, settings: Settings) -> Result<Experiment> {
    let overrides = piece
        .overrides
        .iter()
        .map(|text| parse_override(text).map_err(|problem| anyhow!("{}: {problem}", piece.label)))
        .collect::<Result<Vec<_>>>()?;
    let defaults = settings == Settings::Defaults;
    let found = catalogue::find(&piece.experiment, defaults, &overrides, false)
        .with_context(|| format!("the evidence {}", piece.label))?;
    Ok(Experiment { name: piece.label.clone(), ..found })
}

fn bench(runs: &[Run]) -> Bench<'_> {
    let exhibit = |run: &Run, trial| exhibit(settings_on(run.clock), trial);
    Bench::new(
        runs.iter()
            .flat_map(|run| run.trials.iter().map(move |trial| exhibit(run, trial)))
            .collect(),
    )
}

fn exhibit(settings: Settings, trial: &Trial) -> Exhibit<'_> {
    Exhibit {
        label: &trial.experiment.name,
        settings,
        parameters: &trial.experiment.parameters,
        facts: trial.facts.as_ref(),
        prediction: trial.prediction.as_ref(),
        verdict: &trial.verdict,
        timeline: &trial.timeline,
    }
}

/// The address of a trial's page, from the article's directory.
fn page(run: &Run, trial: &Trial) -> Option<String> {
    let directory = Path::new(trial.artifacts.as_ref()?).file_name()?.to_str()?;
    Some(format!("{}/{directory}/report.html", run.clock))
}

pub(crate) fn command_line() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    format!("halfopen {}", arguments.join(" "))
}

pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_piece_of_evidence_can_be_made() {
        let catalogue = Catalogue::built_in();
        for settings in [Settings::Short, Settings::Defaults] {
            for piece in catalogue.pieces(settings) {
                experiment(&piece, settings).unwrap();
            }
        }
    }

    #[test]
    fn experiments_name_the_claims_that_rest_on_them() {
        let claims = Catalogue::built_in();
        for (name, _) in catalogue::BUILT_IN {
            let named = catalogue::find(name, false, &[], false).unwrap().claims;
            let named: BTreeSet<_> = named.iter().map(String::as_str).collect();
            let rests: BTreeSet<_> = claims.about(name).into_iter().collect();
            assert_eq!(named, rests, "experiments/{name}.toml");
        }
    }
}
