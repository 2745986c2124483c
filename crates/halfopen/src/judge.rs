//! `halfopen judge`: recorded trials, judged again from their files alone.

use crate::channel::Ending;
use crate::cli::ExportForm;
use crate::files::{self, Recorded};
use crate::output::{self, Exit, Format};
use crate::{judging, ledger::Ledger};
use anyhow::{Context, Result, ensure};
use report::html::Theme;
use report::{Digest, Lost, Tally, Trial, human};
use std::path::{Path, PathBuf};
use std::time::Instant;
use verdict::Word;

pub(crate) fn run(directories: &[PathBuf], format: Format) -> Exit {
    carry_out(directories, format).unwrap_or_else(|error| output::fail(Exit::USAGE, &error))
}

fn carry_out(directories: &[PathBuf], format: Format) -> Result<Exit> {
    let started = Instant::now();
    let colour = output::colour(&std::io::stdout());
    let mut found = Vec::new();
    for directory in directories {
        found.extend(trial_directories(directory)?);
    }
    let mut ledger = Ledger::open(&std::env::temp_dir())?;
    let (mut exit, mut first, mut changed) = (Exit::AGREES, None, Vec::new());
    let mut damaged: Option<Lost> = None;
    for (position, directory) in found.iter().enumerate() {
        let judged = match judge(directory) {
            Ok(judged) => judged,
            Err(error) => {
                exit = exit.and(output::fail(Exit::USAGE, &error));
                let why = format!("{error:#}");
                damaged.get_or_insert(Lost { trials: 0, why }).trials += 1;
                continue;
            }
        };
        exit = exit.and(judged.exit);
        changed.extend(judged.changed);
        let digest = Digest::new(position, &judged.trial);
        match format {
            Format::Human => {
                let name = (found.len() > 1).then(|| directory.display());
                let name = name.map_or_else(String::new, |name| shown(&format!("{name}")) + "\n");
                let verdict = human::verdict(&judged.trial, colour);
                exit = exit.and(output::print(format!("{name}{verdict}").as_bytes()));
            }
            Format::Jsonl => {
                let line = digest.line() + "\n";
                exit = exit.and(output::print(line.as_bytes()));
            }
            Format::Json => {}
        }
        ledger.add(&judged.trial.experiment, digest)?;
        first.get_or_insert(judged.trial.machine);
    }
    // Each that is damaged was named.
    let Some(machine) = first else { return Ok(exit) };
    let tally = Tally {
        machine,
        wall_s: started.elapsed().as_secs_f64(),
        groups: ledger.groups.clone(),
        not_started: 0,
        lost: damaged,
    };
    Ok(exit.and(match format {
        Format::Json => {
            output::print_by(|output| report::json::run(output, &tally, ledger.digests()))
        }
        Format::Jsonl => Exit::AGREES,
        Format::Human => {
            let summary = (found.len() > 1).then(|| human::summary(&tally, colour));
            let lines = changed.iter().map(|line| format!("changed: {}\n", shown(line)));
            let text: String = summary.into_iter().chain(lines).collect();
            output::print(text.as_bytes())
        }
    }))
}

/// A recorded trial for another tool.
pub(crate) fn export(form: ExportForm, directory: &Path) -> Exit {
    let picture = |trial: &Trial, theme| {
        report::html::picture(trial, theme).context("nothing happened in this trial")
    };
    let drawn = only_trial(directory).and_then(|directory| judge(&directory)).and_then(
        |Judged { trial, .. }| match form {
            ExportForm::Svg => picture(&trial, Theme::Light),
            ExportForm::SvgDark => picture(&trial, Theme::Dark),
            ExportForm::Perfetto => Ok(report::perfetto::trace(&trial)),
        },
    );
    match drawn {
        Ok(bytes) => output::print(&bytes),
        Err(error) => output::fail(Exit::USAGE, &error),
    }
}

/// A path for a terminal, with control characters escaped.
pub(crate) fn shown(path: &str) -> String {
    path.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The only trial of a directory.
fn only_trial(directory: &Path) -> Result<PathBuf> {
    let mut found = trial_directories(directory)?;
    ensure!(
        found.len() == 1,
        "{} holds {} trials: give one of them, such as {}",
        directory.display(),
        found.len(),
        found[0].display()
    );
    Ok(found.remove(0))
}

/// The directory itself if it holds a trial, or those in it that do.
pub(crate) fn trial_directories(directory: &Path) -> Result<Vec<PathBuf>> {
    let holds_trial = |path: &Path| path.join("experiment.json").is_file();
    if holds_trial(directory) {
        return Ok(vec![directory.to_owned()]);
    }
    let entries =
        std::fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| holds_trial(path))
        .collect();
    found.sort_by_cached_key(|path| natural(path));
    ensure!(
        !found.is_empty() || !directory.join("run.json").is_file(),
        "{} is the report of a run; its trials lie beside it, in {}",
        directory.display(),
        directory.parent().unwrap_or(directory).display()
    );
    ensure!(
        !found.is_empty(),
        "{} holds no trial: a trial's directory has experiment.json, trial.json, facts.json, \
         prediction.json, timeline.jsonl and verdict.json",
        directory.display()
    );
    Ok(found)
}

/// What sorts `name` before `name-2`, and that before `name-10`.
fn natural(path: &Path) -> (String, usize) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match name.rsplit_once('-').map(|(stem, number)| (stem.to_owned(), number.parse())) {
        Some((stem, Ok(number))) => (stem, number),
        _ => (name, 1),
    }
}

/// A trial, judged now.
pub(crate) struct Judged {
    pub(crate) trial: Trial,
    pub(crate) exit: Exit,
    pub(crate) is_interrupted: bool,
    /// In which way its verdict was another when it was recorded.
    changed: Option<String>,
}

pub(crate) fn judge(directory: &Path) -> Result<Judged> {
    let Recorded { mut trial, circumstances } = files::read(directory)?;
    let recorded: Word = trial.verdict.word;
    trial.verdict = judging::verdict(
        &circumstances.ending,
        &trial.experiment.parameters,
        trial.facts.as_ref(),
        trial.prediction.as_ref(),
        &trial.timeline,
    );
    let exit = judging::exit(&circumstances.ending, &trial);
    let now = trial.verdict.word;
    let changed = (recorded != now)
        .then(|| format!("{}: recorded as {recorded}, judged {now} now", directory.display()));
    let is_interrupted = circumstances.ending == Ending::Interrupted;
    Ok(Judged { trial, exit, is_interrupted, changed })
}

#[cfg(test)]
mod tests;
