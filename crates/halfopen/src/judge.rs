//! `halfopen judge`: recorded trials, judged again from their files alone.

use crate::channel::{Circumstances, Ending};
use crate::cli::Format;
use crate::output::{self, Exit};
use anyhow::{Context, Result, anyhow, ensure};
use report::{Clock, Run, Trial, human};
use serde::de::DeserializeOwned;
use spec::{Experiment, Facts};
use std::path::{Path, PathBuf};
use timeline::Timeline;
use verdict::Verdict;

pub(crate) fn run(directories: &[PathBuf], format: Format) -> Exit {
    let started = std::time::Instant::now();
    let mut trials = Vec::new();
    let mut changed = Vec::new();
    let (mut exit, mut clock) = (Exit::AGREES, Clock::Real);
    for directory in directories {
        let found = match trial_directories(directory) {
            Ok(found) => found,
            Err(error) => return output::fail(Exit::USAGE, &error),
        };
        for directory in found {
            match judge(trials.len(), &directory) {
                Ok(Judged { trial, recorded, circumstances }) => {
                    clock = circumstances.clock;
                    exit = exit.and(match circumstances.ending {
                        Ending::Failed(_) => Exit::INTERNAL,
                        _ => Exit::of(trial.verdict.word),
                    });
                    if recorded.word != trial.verdict.word {
                        changed.push(format!(
                            "{}: recorded as {}, judged {} now",
                            directory.display(),
                            recorded.word,
                            trial.verdict.word
                        ));
                    }
                    trials.push(trial);
                }
                Err(error) => return output::fail(Exit::USAGE, &error),
            }
        }
    }
    let facts = trials.iter().find_map(|trial| trial.facts.as_ref());
    let run = Run {
        kernel: facts.map_or_else(String::new, |facts| facts.kernel.clone()),
        hz: facts.map_or(0, |facts| facts.hz),
        clock,
        wall_s: started.elapsed().as_secs_f64(),
        trials,
    };
    let written = match format {
        Format::Json => output::print(&report::json::run(&run)),
        Format::Human => {
            let colour = output::colour(&std::io::stdout());
            let mut text: String =
                run.trials.iter().map(|trial| human::verdict(trial, colour)).collect();
            for line in &changed {
                text += &format!("changed: {line}\n");
            }
            output::print(text.as_bytes())
        }
    };
    exit.and(written)
}

/// The directory itself if it holds a trial, or those in it that do.
fn trial_directories(directory: &Path) -> Result<Vec<PathBuf>> {
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
    found.sort();
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

/// The trial, judged now, with the verdict as it was recorded.
struct Judged {
    trial: Trial,
    recorded: Verdict,
    circumstances: Circumstances,
}

fn judge(number: usize, directory: &Path) -> Result<Judged> {
    let experiment: Experiment = read(directory, "experiment.json")?;
    let recorded: Verdict = read(directory, "verdict.json")?;
    let path = directory.join("timeline.jsonl");
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let timeline =
        Timeline::from_jsonl(&text).map_err(|error| anyhow!("{}: {error}", path.display()))?;
    let circumstances: Circumstances = read(directory, "trial.json")?;
    // A trial that came to its end has both; others may have ended before.
    let (facts, prediction): (Option<Facts>, Option<model::Prediction>) =
        if circumstances.ending == Ending::Complete {
            (Some(read(directory, "facts.json")?), Some(read(directory, "prediction.json")?))
        } else {
            (read_if_there(directory, "facts.json")?, read_if_there(directory, "prediction.json")?)
        };
    let verdict = circumstances.ending.verdict(
        &experiment.parameters,
        facts.as_ref(),
        prediction.as_ref(),
        &timeline,
    );
    let artifacts = Some(directory.display().to_string());
    let trial = Trial { number, experiment, facts, prediction, verdict, timeline, artifacts };
    Ok(Judged { trial, recorded, circumstances })
}

fn read_if_there<T: DeserializeOwned>(directory: &Path, name: &str) -> Result<Option<T>> {
    if directory.join(name).is_file() { read(directory, name).map(Some) } else { Ok(None) }
}

fn read<T: DeserializeOwned>(directory: &Path, name: &str) -> Result<T> {
    let path = directory.join(name);
    let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("understanding {}", path.display()))
}
