//! Reference commands: `halfopen list`, `show`, `keys` and `explain`.

use crate::catalogue;
use crate::output::{self, Exit, Format};
use anyhow::anyhow;
use report::keys;

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
            Format::Human | Format::Jsonl => output::print(keys::claim(claim, colour).as_bytes()),
            Format::Json => output::print(&keys::claim_document(claim)),
        };
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
