//! A run as Markdown: for step summaries, and for results that are kept in the repository.

use crate::human::{self, OF_COMMANDS};
use crate::mends::{self, HEADS};
use crate::span;
use crate::summary::{Groups, NOTHING_KNOWN};
use crate::tally::Tally;
use std::fmt::Write;

/// The summary of a run. `link` gives the address of a trial's own page, by its experiment's name
/// and its number, relative to the text; `None`: it is not kept.
pub fn summary(tally: &Tally, link: impl Fn(&str, usize) -> Option<String>) -> String {
    let mut text = String::new();
    writeln!(
        text,
        "**{}** · {} · {}\n",
        tally.groups.counted(),
        cell(&tally.kernels()),
        span::measured(tally.wall_s)
    )
    .expect("a String takes all");
    let columns = tally.groups.columns();
    let heads = cells(&columns);
    let of_commands: &[_] = if tally.groups.have_commands() { &OF_COMMANDS } else { &[] };
    let last = cells(of_commands);
    writeln!(
        text,
        "| experiment |{heads} verdict | outcome | predicted | measured | noticed |{last}"
    )
    .expect("a String takes all");
    let more = columns.len() + of_commands.len();
    writeln!(text, "|---{}|---|---|---|---|---|", "|---".repeat(more)).expect("a String takes all");
    let groups = || tally.groups.labels().into_iter().zip(tally.groups.all());
    for (label, group) in groups() {
        let address = match group.numbers() {
            [(number, true)] => link(&group.experiment.name, *number),
            _ => None,
        };
        let label = address
            .map_or_else(|| cell(&label), |address| format!("[{}](<{address}>)", cell(&label)));
        let cells = [group.outcomes(), group.predicted(), group.measured(), group.noticed()];
        let cells = cells.map(|text| cell(&text)).join(" | ");
        let values = Groups::values(group, &columns, NOTHING_KNOWN);
        let values = self::cells(&values);
        let verdicts = group.verdicts();
        let last = &group.of_commands()[..of_commands.len()];
        let last = self::cells(last);
        writeln!(text, "| {label} |{values} {verdicts} | {cells} |{last}")
            .expect("a String takes all");
    }
    let reasons: Vec<_> = tally
        .groups
        .all()
        .iter()
        .flat_map(|group| {
            let name = tally.groups.name(group);
            group.reasons().map(move |reason| format!("{name} {reason}"))
        })
        .chain(human::missing(tally))
        .collect();
    if !reasons.is_empty() {
        text.push('\n');
    }
    for reason in reasons {
        writeln!(text, "- {}", cell(&reason)).expect("a String takes all");
    }
    text + &mends(&tally.groups)
}

/// How long programs hang, and what mends them; empty where no experiment says so.
fn mends(groups: &Groups) -> String {
    let rows = mends::rows(groups);
    if rows.is_empty() {
        return String::new();
    }
    let head = format!("\n|{}\n|{}\n", cells(&HEADS), "---|".repeat(HEADS.len()));
    let row = |row: &mends::Row| format!("|{}\n", cells(&row.cells()));
    head + &rows.iter().map(row).collect::<String>()
}

/// Further cells of a row.
fn cells(texts: &[impl AsRef<str>]) -> String {
    texts.iter().fold(String::new(), |row, text| row + " " + &cell(text.as_ref()) + " |")
}

/// Text that cannot end its cell, nor become markup.
pub(crate) fn cell(text: &str) -> String {
    let mut cell = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' => cell.push(' '),
            '|' | '\\' | '*' | '_' | '`' | '[' | ']' | '<' | '>' => cell.extend(['\\', character]),
            other => cell.push(other),
        }
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn a_run_is_a_table() {
        let link = |name: &str, number: usize| Some(format!("../{name}-{number}/report.html"));
        insta::assert_snapshot!(summary(&samples::repeated().tally(), link));
    }

    #[test]
    fn nothing_ends_its_cell() {
        assert_eq!(cell("tcp_retries2 | x\ny"), "tcp\\_retries2 \\| x y");
    }
}
