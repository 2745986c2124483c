//! `halfopen judge`: recorded trials, judged again from their files alone.

use crate::cli::Format;
use crate::output::{self, Exit};
use anyhow::{Context, Result, anyhow, ensure};
use report::{Clock, Run, Trial, human};
use serde::de::DeserializeOwned;
use spec::{Experiment, Facts};
use std::path::{Path, PathBuf};
use timeline::Timeline;
use verdict::{Verdict, Word};

pub(crate) fn run(directories: &[PathBuf], format: Format) -> Exit {
    let started = std::time::Instant::now();
    let mut trials = Vec::new();
    let mut changed = Vec::new();
    for directory in directories {
        let found = match trial_directories(directory) {
            Ok(found) => found,
            Err(error) => return output::fail(Exit::USAGE, &error),
        };
        for directory in found {
            match judge(trials.len(), &directory) {
                Ok((trial, recorded)) => {
                    if recorded != trial.verdict {
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
    let exit =
        trials.iter().fold(Exit::AGREES, |exit, trial| exit.and(Exit::of(trial.verdict.word)));
    let facts = trials.iter().find_map(|trial| trial.facts.as_ref());
    let run = Run {
        kernel: facts.map_or_else(String::new, |facts| facts.kernel.clone()),
        hz: facts.map_or(0, |facts| facts.hz),
        clock: Clock::Real,
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
        !found.is_empty(),
        "{} holds no trial: a trial's directory has experiment.json, facts.json, prediction.json, \
         timeline.jsonl and verdict.json",
        directory.display()
    );
    Ok(found)
}

/// The trial, judged now, and the verdict as it was recorded.
fn judge(number: usize, directory: &Path) -> Result<(Trial, Verdict)> {
    let experiment: Experiment = read(directory, "experiment.json")?;
    let recorded: Verdict = read(directory, "verdict.json")?;
    let path = directory.join("timeline.jsonl");
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let timeline =
        Timeline::from_jsonl(&text).map_err(|error| anyhow!("{}: {error}", path.display()))?;
    let has = |name: &str| directory.join(name).is_file();
    let (facts, prediction, verdict) = if has("facts.json") && has("prediction.json") {
        let facts: Facts = read(directory, "facts.json")?;
        let prediction: model::Prediction = read(directory, "prediction.json")?;
        let verdict = verdict::judge(&experiment.parameters, &facts, &prediction, &timeline);
        (Some(facts), Some(prediction), verdict)
    } else if recorded.word == Word::Skipped {
        (None, None, recorded.clone())
    } else {
        let reason = "the trial ended before anything was predicted";
        (None, None, Verdict::without_measurement(Word::Inconclusive, reason))
    };
    let artifacts = Some(directory.display().to_string());
    let trial = Trial { number, experiment, facts, prediction, verdict, timeline, artifacts };
    Ok((trial, recorded))
}

fn read<T: DeserializeOwned>(directory: &Path, name: &str) -> Result<T> {
    let path = directory.join(name);
    let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("understanding {}", path.display()))
}
