//! Reference commands: `halfopen list`, `show`, `keys` and `explain`.

use crate::catalogue;
use crate::output::{self, Exit, Format};
use anyhow::anyhow;
use report::keys;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

/// The experiments and their questions.
pub(crate) fn list(format: Format) -> Exit {
    let experiments = match catalogue::all() {
        Ok(experiments) => experiments,
        Err(error) => return output::fail(Exit::INTERNAL, &error),
    };
    let colour = output::colour(&std::io::stdout());
    match format {
        Format::Human | Format::Jsonl => {
            output::print(report::human::list(&experiments, colour).as_bytes())
        }
        Format::Json => output::print(&report::json::list(&experiments)),
    }
}

/// An experiment's file.
pub(crate) fn show(name: &str) -> Exit {
    match catalogue::text(name) {
        Ok(text) => output::print(text.as_bytes()),
        Err(error) => output::fail(Exit::USAGE, &error),
    }
}

/// An experiment file to start from.
const INIT: &str = include_str!("init.toml");

/// Writes an experiment file to start from; one that is there stays.
pub(crate) fn init(file: &Path) -> Exit {
    let written = File::create_new(file).and_then(|mut new| new.write_all(INIT.as_bytes()));
    let name = file.display();
    match written {
        Ok(()) => output::print(format!("{name} is written: halfopen run {name}\n").as_bytes()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            output::fail(Exit::USAGE, &anyhow!("{name} is there already: give another name"))
        }
        Err(error) => output::fail(
            Exit::INTERNAL,
            &anyhow::Error::from(error).context(format!("writing {name}")),
        ),
    }
}

/// Every key of a setting.
pub(crate) fn keys(format: Format) -> Exit {
    let all = keys::all();
    match format {
        Format::Human | Format::Jsonl => output::print(keys::terminal(&all).as_bytes()),
        Format::Json => output::print(&keys::document(&all)),
    }
}

/// One key, or one claim by its id.
pub(crate) fn explain(key: &str, format: Format) -> Exit {
    let colour = output::colour(&std::io::stdout());
    let claims = verdict::claims::Catalogue::built_in().claims;
    if let Some(claim) = claims.iter().find(|claim| claim.id == key) {
        return match format {
            Format::Human | Format::Jsonl => {
                let tests = |name: &&str| claim.evidence.iter().any(|label| label == name);
                let by: Vec<_> =
                    catalogue::BUILT_IN.iter().map(|(name, _)| *name).filter(tests).collect();
                output::print(keys::claim(claim, &by, colour).as_bytes())
            }
            Format::Json => output::print(&keys::claim_document(claim)),
        };
    }
    if let [b'A'..=b'Z', b'0'..=b'9', ..] = key.as_bytes() {
        let known: Vec<_> = claims.iter().map(|claim| claim.id.as_str()).collect();
        let why = anyhow!("there is no claim `{key}`: there are {}", known.join(", "));
        return output::fail(Exit::USAGE, &why);
    }
    let key = match keys::explain(key) {
        Ok(key) => key,
        Err(why) => return output::fail(Exit::USAGE, &anyhow!(why)),
    };
    match format {
        Format::Human | Format::Jsonl => output::print(keys::explained(&key, colour).as_bytes()),
        Format::Json => output::print(&keys::document(&[key])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file to start from is an experiment, as it is and with every line switched on that can be.
    #[test]
    fn the_file_to_start_from_is_an_experiment() {
        spec::file::load("experiment", "experiment.toml", INIT, false, &[]).unwrap();
        let is_option = |line: &&str| {
            line.strip_prefix("# ")
                .is_some_and(|line| line.starts_with('[') || line.contains(" = "))
        };
        for line in INIT.lines().filter(is_option) {
            let option = line.trim_start_matches("# ").split("  #").next().unwrap().trim();
            if let Some((key, _)) = option.split_once(" = ") {
                let name = key.rsplit('.').next().unwrap();
                let is_known = |known: &keys::Key| {
                    known.key.ends_with(&format!(".{name}")) || known.key == name
                };
                assert!(keys::all().iter().any(is_known) || name == "tcp_retries2", "{line}");
            }
        }
    }
}
