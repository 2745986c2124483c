//! The page of a whole run.

use super::text::prose;
use super::{capital, mends, page, ruler, sweep};
use crate::human::missing;
use crate::span;
use crate::summary::{Group, NOTHING_KNOWN};
use crate::tally::Tally;
use crate::trial::Status;
use maud::{Markup, html};

/// The report of a run. `link` gives the address of a trial's own page, by its experiment's name
/// and its number, relative to this one.
pub fn run_page(tally: &Tally, link: impl Fn(&str, usize) -> String) -> Vec<u8> {
    let body = html! {
        p.kicker {
            b { "halfopen" }
            " · " (tally.kernels()) " · " (span::measured(tally.wall_s))
        }
        h1 { "Trials: " (tally.groups.counted()) }
        @if let Some(line) = missing(tally) {
            p.result { (prose(&capital(&line))) }
        }
        @if let Some(table) = mends::section(&tally.groups) { (table) }
        (sweep::pictures(&tally.groups))
        @for group in tally.groups.all() {
            (section(&tally.groups.name(group), group, &link))
        }
    };
    page("A run of halfopen", &tally.machines(), &body)
}

fn section(name: &str, group: &Group, link: &impl Fn(&str, usize) -> String) -> Markup {
    let address = |(number, has_page): &(usize, bool)| {
        has_page.then(|| link(&group.experiment.name, *number))
    };
    let told: Vec<_> =
        group.told().iter().map(|(at, status)| (*at, *status != Status::Agrees)).collect();
    let reasons: Vec<_> = group.reasons().collect();
    let mut trials = group.numbers().to_vec();
    trials.sort_unstable();
    html! {
        section.group {
            h2 {
                @match group.numbers() {
                    [only] => (linked(address(only), name)),
                    numbers => { (name) " " small { "× " (numbers.len()) } }
                }
            }
            p.question { (prose(&group.experiment.question)) }
            p.result {
                b class=(group.most_severe()) { (capital(&group.verdicts())) }
                @for text in result(group) { " · " (prose(&text)) }
            }
            (ruler::bar_of_times("bar wide", group.spans(), &told))
            @if !reasons.is_empty() {
                ul {
                    @for reason in reasons { li { (prose(&reason)) } }
                }
            }
            @if group.trials() > 1 {
                p.trials {
                    "Trials:"
                    @for trial in &trials {
                        " " (linked(address(trial), &format!("#{}", trial.0)))
                    }
                }
            }
        }
    }
}

/// What was measured and predicted; what there is none of is left out.
fn result(group: &Group) -> impl Iterator<Item = String> {
    let known = |text: String| (text != NOTHING_KNOWN).then_some(text);
    let measured = match (group.outcomes().as_str(), known(group.measured())) {
        (NOTHING_KNOWN, _) => None,
        ("none", _) => Some(match group.gave_up() {
            Some(at) => format!("the program gave up {at}, the kernel told nothing"),
            None => "told nothing".to_owned(),
        }),
        (outcomes, Some(measured)) => Some(format!("{outcomes} {measured}")),
        (outcomes, None) => Some(outcomes.to_owned()),
    };
    let predicted = known(group.predicted()).map(|predicted| format!("predicted {predicted}"));
    let [ended_by, program] = group.of_commands();
    let ended_by = known(ended_by).map(|by| format!("ended by {by}"));
    let program = known(program).map(|did| format!("the program: {did}"));
    [measured, predicted, ended_by, program].into_iter().flatten()
}

fn linked(address: Option<String>, text: &str) -> Markup {
    html! {
        @match address {
            Some(address) => a href=(address) { (text) },
            None => (text),
        }
    }
}
