//! `halfopen article`: every claim held against the kernel, on both clocks side by side.

use crate::batch::{Batch, Trials};
use crate::cli::{self, ArticleClock};
use crate::output::{self, Exit, Format};
use crate::session::Session;
use crate::store::Store;
use crate::{catalogue, kernels};
use anyhow::{Context, Result, anyhow};
use report::article::{Missing, document, markdown, terminal};
use report::html::article_page;
use report::{Article, Clock, Run, Trial, junit};
use spec::file::parse_override;
use spec::{Experiment, VirtualKernel};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use verdict::claims::{Catalogue, Claim, Piece, Settings};
use verdict::findings::{Bench, Exhibit, find};

pub(crate) fn run(arguments: &cli::ArticleArgs) -> Exit {
    carry_out(arguments).unwrap_or_else(|error| output::fail(Exit::INTERNAL, &error))
}

fn carry_out(arguments: &cli::ArticleArgs) -> Result<Exit> {
    let catalogue = Catalogue::built_in();
    let legs = match arguments.clock {
        ArticleClock::Real => vec![Leg::REAL],
        ArticleClock::Virtual => Leg::virtual_ones(),
        ArticleClock::Both => [vec![Leg::REAL], Leg::virtual_ones()].concat(),
    };
    let (mut ready, mut run, mut missing, mut exit) = (vec![], vec![], vec![], Exit::AGREES);
    for leg in legs {
        match leg.prepare(&catalogue)? {
            Ok(trials) => {
                ready.push(trials);
                run.push(leg);
            }
            Err(why) => {
                // A kernel of another HZ is one more witness; a clock is half of the evidence.
                if leg.other_hz.is_none() {
                    exit = Exit::SKIPPED;
                }
                missing.push(Missing { clock: leg.clock, hz: leg.other_hz, why });
            }
        }
    }

    let Session { laboratories, store } = Session::open(ready, Some(&arguments.results.out))?;
    let store = store.fresh_inside("article")?;
    let mut runs = Vec::new();
    for (leg, laboratory) in run.into_iter().zip(laboratories) {
        let inside = store.fresh_inside(&leg.name())?;
        let mut conducted =
            laboratory.conduct(Arc::new(inside), arguments.results.output.format)?;
        conducted.tell_missing();
        exit = exit.and(conducted.exit());
        if !conducted.is_whole() {
            // Half the evidence makes no findings.
            return Ok(exit);
        }
        runs.push(conducted.into_run()?);
    }
    let article = article(&catalogue, runs, missing);
    if let Some(directory) = &arguments.reference {
        keep(&catalogue, &article, directory)?;
    }

    store.write_files(&[
        ("article.md", markdown(&article, page).into_bytes()),
        ("article.html", article_page(&article, page)),
        ("article.json", document(&article)),
        ("junit.xml", junit::reports(&article.runs)),
    ])?;
    let written = match arguments.results.output.format {
        Format::Json => output::print(&document(&article)),
        Format::Human | Format::Jsonl => {
            let text = terminal(&article, output::colour(&std::io::stdout()));
            let place = store.directory().join("article.html");
            output::print(format!("\n{text}report: {}\n", place.display()).as_bytes())
        }
    };
    Ok(exit.and(written))
}

fn article(catalogue: &Catalogue, runs: Vec<Run>, missing: Vec<Missing>) -> Article {
    let bench = bench(&runs);
    let found = |claim: &Claim| (claim.clone(), find(claim, &bench));
    let claims = catalogue.claims.iter().map(found).collect();
    Article { command: command_line(), date: now(), runs, missing, claims }
}

/// Writes what is worth keeping: the article of each clock by itself, and of both together.
/// Trials' own pages are not kept, and not linked to.
fn keep(catalogue: &Catalogue, whole: &Article, directory: &Path) -> Result<()> {
    let store = Store::open(directory)?;
    let mut clocks = BTreeMap::<_, Vec<Run>>::new();
    for run in &whole.runs {
        clocks
            .entry(format!("{}-{}", run.machine.kernel, run.machine.clock))
            .or_default()
            .push(run.clone());
    }
    let mut articles: Vec<_> = clocks
        .into_iter()
        .map(|(name, runs)| (name, article(catalogue, runs, Vec::new())))
        .collect();
    if articles.len() > 1 {
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

/// What is run on one kernel.
#[derive(Debug, Clone, Copy)]
struct Leg {
    clock: Clock,
    /// In virtual time: a kernel of another HZ than the usual one, for what depends on HZ.
    other_hz: Option<u32>,
}

impl Leg {
    const REAL: Self = Self { clock: Clock::Real, other_hz: None };

    /// The virtual kernels in the order of their HZ; the one that the environment names stands for
    /// all.
    fn virtual_ones() -> Vec<Self> {
        let other = |hz: u32| (hz != kernels::HZ_DEFAULT).then_some(hz);
        let named = kernels::ready().is_some();
        let all = VirtualKernel::HZ.map(|hz| Self { clock: Clock::Virtual, other_hz: other(hz) });
        all.into_iter().filter(|leg| !named || leg.other_hz.is_none()).collect()
    }

    /// Of its directory.
    fn name(self) -> String {
        match self.other_hz {
            Some(hz) => format!("{}-hz{hz}", self.clock),
            None => self.clock.to_string(),
        }
    }

    /// The trials; the inner error says why there are none.
    fn prepare(self, catalogue: &Catalogue) -> Result<Result<Trials, String>> {
        let settings = settings_on(self.clock);
        let pieces = match self.other_hz {
            Some(_) => catalogue.pieces_at_every_hz(),
            None => catalogue.pieces(settings),
        };
        let experiments =
            pieces.iter().map(|piece| experiment(piece, settings)).collect::<Result<_>>()?;
        let batch = Batch {
            experiments,
            repeat: 1,
            phases: None,
            clock: self.clock,
            kernel: VirtualKernel { hz: self.other_hz, version: None },
            jobs: None,
            samples: false,
            defaults: settings == Settings::Defaults,
        };
        Ok(batch.prepare()?.map_err(|(_, why)| why))
    }
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
    let exhibit = |run: &Run, trial| exhibit(settings_on(run.machine.clock), trial);
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

/// The address of a trial's page, from the article's directory: its run's directory is inside.
fn page(_: &Run, trial: &Trial) -> Option<String> {
    let directory = Path::new(trial.artifacts.as_ref()?);
    let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
    Some(format!("{}/{}/report.html", name(directory.parent()?)?, name(directory)?))
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
