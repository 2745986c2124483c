//! The page of a whole run.

use super::ruler::{Scale, spans};
use super::text::{escaped, prose, push};
use super::{capital, page};
use crate::span;
use crate::summary::{Group, NOTHING_KNOWN, groups};
use crate::trial::{Run, Trial};
use verdict::Word;

/// The report of a run. `link` gives the address of a trial's own page, relative to this one.
pub fn run_page(run: &Run, link: impl Fn(&Trial) -> Option<String>) -> Vec<u8> {
    let groups = groups(&run.trials);
    let mut body = String::new();
    push(
        &mut body,
        format_args!(
            "<p class=\"kicker\"><b>halfopen</b> · Linux {} · HZ {} · {} clock · {}</p>\n<h1>{}</h1>\n",
            escaped(&run.kernel),
            run.hz,
            run.clock,
            escaped(&span::measured(run.wall_s)),
            capital(&Group::counted(run.trials.iter().map(|trial| trial.verdict.word))),
        ),
    );
    for group in &groups {
        one(&mut body, group, &link);
    }
    page("A run of halfopen", run, &body)
}

fn one(body: &mut String, group: &Group<'_>, link: &impl Fn(&Trial) -> Option<String>) {
    let first = group.trials()[0];
    push(
        body,
        format_args!(
            "<section class=\"group\">\n<h2>{}</h2>\n<p class=\"question\">{}</p>\n\
             <p class=\"result\"><b class=\"{}\">{}</b>{}</p>\n",
            heading(group, link),
            prose(&first.experiment.question),
            group.gravest(),
            capital(&group.verdicts()),
            result(group),
        ),
    );
    ruler(body, group);
    let reasons: Vec<_> = group.reasons().collect();
    if !reasons.is_empty() {
        body.push_str("<ul>\n");
        for (number, reason) in reasons {
            push(body, format_args!("<li>#{number}: {}</li>\n", prose(reason)));
        }
        body.push_str("</ul>\n");
    }
    if group.trials().len() > 1 {
        body.push_str("<p class=\"trials\">Trials:");
        for trial in group.trials() {
            push(
                body,
                format_args!(" {}", linked(link(trial), &format!("#{}", trial.shown_number()))),
            );
        }
        body.push_str("</p>\n");
    }
    body.push_str("</section>\n");
}

/// What was measured and predicted; what there is none of is left out.
fn result(group: &Group<'_>) -> String {
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
    let mut result = String::new();
    for text in [measured, predicted].iter().flatten() {
        push(&mut result, format_args!(" · {}", prose(text)));
    }
    result
}

fn heading(group: &Group<'_>, link: &impl Fn(&Trial) -> Option<String>) -> String {
    match group.trials() {
        [trial] => linked(link(trial), group.name()),
        trials => format!("{} <small>× {}</small>", escaped(group.name()), trials.len()),
    }
}

fn linked(address: Option<String>, text: &str) -> String {
    let text = escaped(text);
    match address {
        Some(address) => format!("<a href=\"{}\">{text}</a>", escaped(&address)),
        None => text,
    }
}

/// All windows of the group, and a tick for each trial.
fn ruler(body: &mut String, group: &Group<'_>) {
    let windows: Vec<_> = group
        .trials()
        .iter()
        .filter_map(|trial| trial.prediction.as_ref())
        .flat_map(spans)
        .collect();
    let told: Vec<_> = group
        .trials()
        .iter()
        .filter_map(|trial| {
            Some((trial.verdict.measured.as_ref()?.detected_s?, trial.verdict.word))
        })
        .collect();
    let edges = windows.iter().flat_map(|(earliest, latest)| [*earliest, *latest]);
    let all = edges.chain(told.iter().map(|(at, _)| *at));
    let Some(scale) = Scale::around(all).filter(|_| !windows.is_empty()) else { return };
    body.push_str("<span class=\"bar wide\" aria-hidden=\"true\">");
    for (earliest, latest) in windows {
        let (from, to) = (scale.percent(earliest), scale.percent(latest));
        let width = (to - from).max(0.4);
        push(body, format_args!("<i style=\"left:{from:.2}%;width:{width:.2}%\"></i>"));
    }
    for (at, word) in told {
        let off = if word == Word::Agrees { "" } else { " class=\"off\"" };
        push(body, format_args!("<b{off} style=\"left:{:.2}%\"></b>", scale.percent(at)));
    }
    body.push_str("</span>\n");
}
