//! `halfopen merge`: the parts of a sweep, joined and judged again.

use crate::judge::shown;
use crate::ledger::Ledger;
use crate::output::{self, Exit, Format};
use crate::parts;
use anyhow::{Context, Result};
use report::{Digest, Tally, human};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

pub(crate) fn run(directories: &[PathBuf], format: Format) -> Exit {
    join(directories, format).unwrap_or_else(|error| output::fail(Exit::USAGE, &error))
}

fn join(directories: &[PathBuf], format: Format) -> Result<Exit> {
    let started = Instant::now();
    let mut keys = BTreeSet::new();
    let mut ledger = Ledger::open(&std::env::temp_dir())?;
    let (mut exit, mut machine) = (Exit::AGREES, None);
    for directory in directories {
        parts::each_of_directory(directory, |key, judged| {
            if keys.insert(key) {
                exit = exit.and(judged.exit);
                let digest = Digest::new(keys.len() - 1, &judged.trial);
                ledger.add(&judged.trial.experiment, digest)?;
                machine.get_or_insert(judged.trial.machine);
            }
            Ok(())
        })?;
    }
    let missing = parts::missing(directories, &keys)?;
    let tally = Tally {
        machine: machine.with_context(|| nothing_in(directories))?,
        wall_s: started.elapsed().as_secs_f64(),
        groups: ledger.groups.clone().in_order(),
        not_started: missing.len(),
        lost: None,
    };
    if !missing.is_empty() {
        exit = exit.and(Exit::INCONCLUSIVE);
    }
    Ok(exit.and(match format {
        Format::Json | Format::Jsonl => {
            output::print_by(|output| report::json::run(output, &tally, ledger.digests()))
        }
        Format::Human => {
            let mut text = human::summary(&tally, output::colour(&std::io::stdout()));
            for trial in missing.iter().take(MISSING_MOST) {
                text += &format!("missing: {}\n", shown(trial));
            }
            let more = missing.len().saturating_sub(MISSING_MOST);
            if more > 0 {
                text += &format!("and {more} more that are missing\n");
            }
            output::print(text.as_bytes())
        }
    }))
}

fn nothing_in(directories: &[PathBuf]) -> String {
    let all: Vec<_> = directories.iter().map(|path| path.display().to_string()).collect();
    format!(
        "{}: no trial that has ended is in there: give what `run --out` was given",
        all.join(", ")
    )
}

/// So many missing trials are named one by one.
const MISSING_MOST: usize = 20;
