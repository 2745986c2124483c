//! The guide's reference pages, made from the tables that the program itself reads.

use crate::catalogue::by_fault;
use crate::keys::Key;
use crate::markdown::cell;
use spec::{Experiment, FaultKind, Reject};
use std::fmt::Write;

/// Said on top of each page.
const MADE: &str = "<!-- Made by `just reference` from the program: change it there. -->\n\n";

/// The groups of keys by their first word, with a heading; what is in none stands under the last.
const GROUPS: &[(&[&str], &str)] = &[
    (&["topology", "family", "neighbour", "path"], "The network"),
    (&["client"], "The client"),
    (&["server", "nginx"], "The server"),
    (&["proxy"], "The proxy"),
    (&["fault"], "The fault"),
    (&["sysctl", "later"], "Sysctls"),
    (&["require"], "Requirements"),
    (&[], "The trial"),
];

/// The page of keys: default, what each accepts, what it needs to matter, an example.
pub fn keys(keys: &[Key]) -> String {
    let mut page = format!(
        "{MADE}# Keys\n\nA key stands in an experiment file, and after `--set` (`--set \
         client.user_timeout=30s`). `halfopen keys` prints this table, and `halfopen explain KEY` one key, \
         with what each of its values means.\n\n\
         Durations are written `200ms`, `5s`, `2h11m15s`.\n"
    );
    for (words, heading) in GROUPS {
        writeln!(page, "\n## {heading}\n\n| key | default | what it is | accepts | example |")
            .and_then(|()| writeln!(page, "|---|---|---|---|---|"))
            .expect("a String takes all");
        for key in keys.iter().filter(|key| group(&key.key) == *words) {
            writeln!(page, "{}", row(key)).expect("a String takes all");
        }
    }
    page
}

/// The first words of the group that a key belongs to.
fn group(key: &str) -> &'static [&'static str] {
    let word = key.split('.').next().unwrap_or_default();
    let found = GROUPS.iter().find(|(words, _)| words.contains(&word));
    found.map_or(&[], |(words, _)| words)
}

fn row(key: &Key) -> String {
    let default = key.default.as_deref().map_or_else(|| "–".into(), code);
    let needs = key.needs.iter().map(|need| format!(" Matters only with {}.", inline(need)));
    let needs: String = needs.collect();
    let place = if key.only_in_files { " In a file only." } else { "" };
    let (about, accepts) = (inline(&key.about), inline(&key.accepts));
    let example = code(&key.example);
    format!("| {} | {default} | {about}{needs}{place} | {accepts} | {example} |", code(&key.key))
}

/// The page of faults.
pub fn faults() -> String {
    let mut page = format!(
        "{MADE}# Faults\n\nThe values of `fault.kind`, each named for its mechanism. `fault.host` says whose \
         host breaks; the server's, unless it says `client` or, with the topology `proxy`, `proxy`.\n\n| fault | what is done |\n|---|---|\n"
    );
    for kind in FaultKind::ALL {
        writeln!(page, "| `{kind}` | {} |", inline(kind.about())).expect("a String takes all");
    }
    page += "\nWhat `fault.reject` answers:\n\n| value | what is sent |\n|---|---|\n";
    for reject in Reject::ALL {
        writeln!(page, "| `{reject}` | {} |", inline(reject.about())).expect("a String takes all");
    }
    page
}

/// The page of built-in experiments, by fault.
pub fn experiments(experiments: &[Experiment]) -> String {
    let mut page = format!(
        "{MADE}# Experiments\n\nThe experiments that are built in. `halfopen run NAME` runs one, `halfopen \
         predict NAME` only predicts it, `halfopen show NAME` prints its file.\n"
    );
    for (kind, members) in by_fault(experiments) {
        writeln!(page, "\n## {kind}\n\n{}\n\n| name | question |\n|---|---|", inline(kind.about()))
            .expect("a String takes all");
        for Experiment { name, question, .. } in members {
            writeln!(page, "| `{name}` | {} |", cell(question)).expect("a String takes all");
        }
    }
    page
}

/// Text that may hold `code`, for a cell.
fn inline(text: &str) -> String {
    let part = |(index, part): (usize, &str)| {
        if index % 2 == 1 { code(part) } else { cell(part) }
    };
    text.split('`').enumerate().map(part).collect()
}

/// A word of code, for a cell.
fn code(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_in_the_group_of_its_first_word() {
        assert_eq!(group("client.keepalive.idle"), ["client"]);
        assert_eq!(group("deadline"), [""; 0]);
        assert_eq!(inline("a `b|c` <d>"), "a `b\\|c` \\<d\\>");
    }
}
