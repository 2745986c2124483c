//! The trials of a batch that have ended, and the reports about all of them.

use crate::batch::Trials;
use crate::ended::Concluded;
use crate::files;
use crate::ledger::Ledger;
use crate::output::{self, Exit, Format};
use crate::part::Earlier;
use crate::screen::Screen;
use crate::store::Store;
use anyhow::{Context, Result};
use report::{Digest, Identity, Lost, Machine, Run, Status, Tally, Trial, human, key};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use timeline::Timeline;
use verdict::{Verdict, Word};

/// A batch that runs, or has run.
pub(crate) struct Conducted {
    pub(crate) trials: Trials,
    pub(crate) machine: Machine,
    pub(crate) screen: Screen,
    /// Trials whose end is unknown.
    pub(crate) lost: Option<Lost>,
    /// Whether the user stopped it (Ctrl-C).
    pub(crate) interrupted: bool,
    store: Option<Arc<Store>>,
    format: Format,
    ledger: Ledger,
    ended: usize,
    /// How many had ended before.
    earlier: usize,
    /// The most severe of all trials.
    exit: Exit,
    /// What was said about refused settings.
    refused: BTreeSet<String>,
    started: Instant,
}

impl Conducted {
    /// None has ended yet. Without a store, none will be run.
    pub(crate) fn new(
        trials: Trials,
        store: Option<Arc<Store>>,
        screen: Screen,
        format: Format,
    ) -> Result<Self> {
        let mut trials = trials;
        let earlier = std::mem::take(&mut trials.earlier);
        let place =
            store.as_ref().map_or_else(std::env::temp_dir, |store| store.directory().into());
        let mut conducted = Self {
            machine: trials.machine(),
            trials,
            screen,
            lost: None,
            interrupted: false,
            store,
            format,
            ledger: Ledger::open(&place)?,
            ended: 0,
            earlier: earlier.len(),
            exit: Exit::AGREES,
            refused: BTreeSet::new(),
            started: Instant::now(),
        };
        for Earlier { experiment, machine, digest, exit } in earlier {
            conducted.machine = machine;
            conducted.exit = conducted.exit.and(exit);
            conducted.ledger.add(&experiment, digest)?;
        }
        Ok(conducted)
    }

    /// A batch that this machine cannot run, for this reason.
    pub(crate) fn skipped(trials: Trials, format: Format, why: &str) -> Result<Self> {
        let screen = Screen::new(format, &trials);
        let mut conducted = Self::new(trials, None, screen, format)?;
        conducted.skip_all(why);
        Ok(conducted)
    }

    /// Says once why no trial can be run, and counts each as skipped.
    pub(crate) fn skip_all(&mut self, why: &str) {
        self.screen.skipped(why);
        for position in 0..self.trials.total() {
            let place = self.trials.place(position);
            let experiment = self.trials.experiment(place);
            let phase = place.phase.map(|phase| phase.number + 1);
            let key = key(experiment, &self.machine, place.turn, phase);
            let identity = Identity { number: place.number, turn: place.turn, phase, key };
            let verdict = Verdict::without_measurement(Word::Skipped, why);
            let machine = self.machine.clone();
            let trial = unmeasured((identity, machine), experiment.clone(), verdict, None);
            let digest = Digest::new(position, &trial);
            self.count(&trial, digest, Exit::SKIPPED);
        }
    }

    /// Takes a trial that has ended: tells of it, and keeps no more than a line.
    pub(crate) fn add(&mut self, concluded: Concluded) {
        let Concluded { trial, digest, exit, refusal } = concluded;
        match refusal {
            // Each repeat of an experiment is refused with the same words.
            Some(refusal) if self.refused.insert(refusal.clone()) => {
                self.screen.say(&format!("error: {refusal}"));
            }
            Some(_) => {}
            None => self.screen.ended(&trial),
        }
        self.count(&trial, digest, exit);
    }

    fn count(&mut self, trial: &Trial, digest: Digest, exit: Exit) {
        self.ended += 1;
        self.exit = self.exit.and(exit);
        if self.format == Format::Jsonl {
            let line = digest.line() + "\n";
            self.exit = self.exit.and(output::print(line.as_bytes()));
        }
        if let Err(error) = self.ledger.add(&trial.experiment, digest) {
            self.exit = self.exit.and(output::fail(Exit::INTERNAL, &error));
        }
    }

    fn not_started(&self) -> usize {
        let lost = self.lost.as_ref().map_or(0, |lost| lost.trials);
        self.trials.total() - self.ended - lost
    }

    /// Whether every trial has ended by itself.
    pub(crate) fn is_whole(&self) -> bool {
        self.lost.is_none() && !self.interrupted && self.not_started() == 0
    }

    /// The exit code of all trials, and of those that are missing.
    pub(crate) fn exit(&self) -> Exit {
        let missing = match &self.lost {
            Some(_) if !self.interrupted => Exit::INTERNAL,
            None if self.not_started() == 0 => Exit::AGREES,
            _ => Exit::INCONCLUSIVE,
        };
        self.exit.and(missing)
    }

    /// Says once which trials are missing, and why.
    pub(crate) fn tell_missing(&mut self) {
        self.screen.clear();
        if let Some(text) = human::missing(&self.tally()) {
            self.screen.say(&text);
        }
    }

    fn tally(&self) -> Tally {
        Tally {
            machine: self.machine.clone(),
            wall_s: self.started.elapsed().as_secs_f64(),
            groups: self.ledger.groups.clone().in_order(),
            not_started: self.not_started(),
            lost: self.lost.clone(),
        }
    }

    /// Writes and shows what is to be said about all trials together.
    pub(crate) fn conclude(mut self) -> Exit {
        self.tell_missing();
        let tally = self.tally();
        let mut exit = self.exit();
        if self.trials.total() + self.earlier > 1
            && let Some(store) = self.store.as_ref().filter(|store| store.keeps())
        {
            match write_reports(store, &tally, &self.ledger) {
                Ok(directory) => self.screen.say_where(&directory),
                Err(error) => exit = exit.and(output::fail(Exit::INTERNAL, &error)),
            }
        }
        exit.and(match self.format {
            Format::Json => {
                output::print_by(|output| report::json::run(output, &tally, self.ledger.digests()))
            }
            Format::Jsonl => Exit::AGREES,
            Format::Human => self.screen.conclude(&tally, self.trials.total() + self.earlier),
        })
    }

    /// Writes the tables of all trials into a directory for this kernel and clock, to be kept.
    ///
    /// # Errors
    /// What cannot be written.
    pub(crate) fn keep(&self, directory: &Path) -> Result<()> {
        let tally = self.tally();
        let table = report::markdown::summary(&tally, |_, _| None);
        let mut files = vec![("run.md", table.into_bytes())];
        files.extend(report::html::mends_page(&tally).map(|page| ("mends.html", page)));
        files.extend(report::json::mends(&tally).map(|document| ("mends.json", document)));
        let name = format!("{}-{}", self.machine.kernel, self.machine.clock);
        Store::open(directory)?.inside(&name)?.write_files(&files)
    }

    /// Every trial, read back from its files.
    ///
    /// # Errors
    /// Which file cannot be read.
    pub(crate) fn into_run(self) -> Result<Run> {
        let wall_s = self.started.elapsed().as_secs_f64();
        let trials = self.ledger.digests().map(|digest| self.read_back(&digest?));
        let trials = trials.collect::<Result<_>>()?;
        Ok(Run { machine: self.machine.clone(), wall_s, trials })
    }

    fn read_back(&self, digest: &Digest) -> Result<Trial> {
        if let Some(directory) = &digest.artifacts {
            return Ok(files::read(Path::new(directory))?.trial);
        }
        let place = self.trials.place(digest.position);
        let experiment = self.trials.experiment(place).clone();
        let word = match digest.status {
            Status::Skipped => Word::Skipped,
            _ => Word::Inconclusive,
        };
        let verdict = Verdict::without_measurement(word, digest.reason.clone());
        let failure = (digest.status == Status::Failed).then(|| digest.reason.clone());
        let identity = Identity { number: digest.number, turn: place.turn, ..Identity::default() };
        Ok(unmeasured((identity, self.machine.clone()), experiment, verdict, failure))
    }
}

/// A trial of which nothing is left but its verdict.
fn unmeasured(
    (identity, machine): (Identity, Machine),
    experiment: spec::Experiment,
    verdict: Verdict,
    failure: Option<String>,
) -> Trial {
    Trial {
        identity,
        machine,
        experiment,
        facts: None,
        prediction: None,
        verdict,
        failure,
        timeline: Timeline::default(),
        artifacts: None,
        directory: None,
    }
}

/// The files about all trials of a run together, made from what is left of each.
fn write_reports(store: &Store, tally: &Tally, ledger: &Ledger) -> Result<std::path::PathBuf> {
    let (directory, _) = store.fresh("run", 1)?;
    // The trials' directories stand beside the run's.
    let page =
        |name: &str, number: usize| format!("../{}/report.html", crate::store::name(name, number));
    let write =
        |file: &str, write: &mut dyn FnMut(&mut dyn std::io::Write) -> std::io::Result<()>| {
            directory.write_by(file, write).with_context(|| format!("writing {file} of the run"))
        };
    write("run.json", &mut |output| report::json::run(output, tally, ledger.digests()))?;
    write("report.html", &mut |output| output.write_all(&report::html::run_page(tally, page)))?;
    write("summary.md", &mut |output| {
        output.write_all(
            report::markdown::summary(tally, |name, number| Some(page(name, number))).as_bytes(),
        )
    })?;
    write("run.csv", &mut |output| {
        report::csv::run(output, &tally.groups, |group| ledger.of_group(group))
    })?;
    write("junit.xml", &mut |output| {
        report::junit::report(output, &[tally], |_, group| {
            ledger.of_group(tally.groups.all()[group].place())
        })
    })?;
    write("run.ktap", &mut |output| {
        report::ktap::report(output, &tally.groups, |group| ledger.of_group(group))
    })?;
    Ok(directory.path().to_owned())
}
