//! Sweeps that are run in parts: what a directory already holds of one, and which part is whose.

use crate::batch::Trials;
use crate::judge::{self, Judged};
use crate::part::{Earlier, Partition, key_of};
use anyhow::{Context, Result, bail};
use report::{Digest, Identity, Machine};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Judges the trials of a sweep that a directory holds again, and gives each, by its key, to `take`: one
/// after the other, since all together may be more than fits into memory. Not those that were interrupted,
/// nor what a killed run has written half.
pub(crate) fn each_of_directory(
    directory: &Path,
    mut take: impl FnMut(String, Judged) -> Result<()>,
) -> Result<()> {
    for trial in judge::trial_directories(directory).unwrap_or_default() {
        if !trial.join("trial.json").is_file() {
            continue;
        }
        let judged = judge::judge(&trial)?;
        if !judged.is_interrupted {
            take(key(&judged), judged)?;
        }
    }
    Ok(())
}

fn key(judged: &Judged) -> String {
    let Machine { clock, hz, .. } = judged.trial.machine;
    let Identity { turn, phase, .. } = judged.trial.identity;
    key_of(&judged.trial.experiment, clock, hz, turn, phase)
}

/// Leaves out what `directory` already holds of these trials, and keeps it to be reported.
pub(crate) fn resume(trials: &mut Trials, directory: &Path) -> Result<()> {
    let positions: BTreeMap<_, _> =
        trials.keys().into_iter().map(|(position, key)| (key, position)).collect();
    let mut ended = BTreeSet::new();
    each_of_directory(directory, |key, Judged { trial, exit, .. }| {
        if let Some(position) = positions.get(&key).copied()
            && ended.insert(position)
        {
            let digest = Digest::new(position, &trial);
            trials.earlier.push(Earlier {
                machine: trial.machine,
                experiment: trial.experiment,
                digest,
                exit,
            });
        }
        Ok(())
    })?;
    trials.keep(|position| !ended.contains(&position));
    Ok(())
}

/// Leaves out what is not in this part of the sweep.
pub(crate) fn partition(trials: &mut Trials, part: Partition) {
    let keys: BTreeMap<_, _> = trials.keys().into_iter().collect();
    trials.keep(|position| part.has(&keys[&position]));
}

/// What a directory says of the sweep that it has a part of, so that parts can be joined.
#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    schema: String,
    /// Every trial of the sweep: its key, and what a person calls it.
    trials: BTreeMap<String, String>,
}

const PLAN: &str = "plan.json";
const SCHEMA: &str = "halfopen/plan/1";

/// The plan of a whole sweep, as a file.
pub(crate) fn plan(trials: &Trials) -> (&'static str, Vec<u8>) {
    let named = trials.keys().into_iter().map(|(position, key)| {
        let place = trials.place_of(position);
        let experiment = trials.experiment(place);
        // What a sweep changes stands at the end of the question.
        let with = experiment.question.rfind(" (with ").map(|at| &experiment.question[at..]);
        (key, format!("{}{} #{}", experiment.name, with.unwrap_or_default(), place.turn))
    });
    let plan = Plan { schema: SCHEMA.into(), trials: named.collect() };
    (PLAN, report::json::pretty(&plan))
}

/// What the plans of these directories have and none of these keys is.
pub(crate) fn missing(
    directories: &[impl AsRef<Path>],
    keys: &BTreeSet<String>,
) -> Result<Vec<String>> {
    let mut missing = BTreeMap::new();
    for directory in directories {
        let path = directory.as_ref().join(PLAN);
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let plan: Plan = serde_json::from_slice(&bytes)
            .with_context(|| format!("reading {}", path.display()))?;
        if plan.schema != SCHEMA {
            bail!("{}: its schema is {}, and {SCHEMA} is expected", path.display(), plan.schema);
        }
        missing.extend(plan.trials.into_iter().filter(|(key, _)| !keys.contains(key)));
    }
    Ok(missing.into_values().collect())
}
