//! A run as Markdown: for step summaries, and for results that are kept in the repository.

use crate::span;
use crate::summary::{Group, groups};
use crate::trial::{Run, Trial};
use std::fmt::Write;

/// The summary of a run. `link` gives the address of a trial's own page, relative to the text.
pub fn summary(run: &Run, link: impl Fn(&Trial) -> Option<String>) -> String {
    let mut text = String::new();
    let counted = Group::counted(run.trials.iter().map(|trial| trial.verdict.word));
    writeln!(
        text,
        "**{counted}** · Linux {} · HZ {} · {} clock · {}\n",
        cell(&run.kernel),
        run.hz,
        run.clock,
        span::measured(run.wall_s)
    )
    .expect("a String takes all");
    text += "| experiment | verdict | outcome | predicted | measured | noticed |\n";
    text += "|---|---|---|---|---|---|\n";
    let groups = groups(&run.trials);
    for group in &groups {
        let label = cell(&group.label());
        let label = match link(group.trials()[0]).filter(|_| group.trials().len() == 1) {
            Some(address) => format!("[{label}](<{address}>)"),
            None => label,
        };
        let cells = [group.outcomes(), group.predicted(), group.measured(), group.noticed()];
        let cells = cells.map(|text| cell(&text)).join(" | ");
        let verdicts = group.verdicts();
        writeln!(text, "| {label} | {verdicts} | {cells} |").expect("a String takes all");
    }
    let reasons = groups.iter().flat_map(|group| group.reasons().map(move |why| (group, why)));
    for (index, (group, (number, reason))) in reasons.enumerate() {
        let before = if index == 0 { "\n" } else { "" };
        writeln!(text, "{before}- {} #{number}: {}", cell(group.name()), cell(reason))
            .expect("a String takes all");
    }
    text
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
        let link = |trial: &Trial| Some(format!("{}/report.html", trial.number));
        insta::assert_snapshot!(summary(&samples::repeated(), link));
    }

    #[test]
    fn nothing_ends_its_cell() {
        assert_eq!(cell("tcp_retries2 | x\ny"), "tcp\\_retries2 \\| x y");
    }
}
