//! The page of a whole run.

use super::ruler::Scale;
use super::text::{prose, push};
use super::{capital, page};
use crate::escape::escaped;
use crate::human::missing;
use crate::span;
use crate::summary::{Group, NOTHING_KNOWN};
use crate::tally::Tally;
use crate::trial::Status;

/// The report of a run. `link` gives the address of a trial's own page, by its experiment's name
/// and its number, relative to this one.
pub fn run_page(tally: &Tally, link: impl Fn(&str, usize) -> String) -> Vec<u8> {
    let mut body = String::new();
    let machine = &tally.machine;
    push(
        &mut body,
        format_args!(
            "<p class=\"kicker\"><b>halfopen</b> · Linux {} · HZ {} · {} clock · {}</p>\n<h1>{}</h1>\n",
            escaped(&machine.kernel),
            machine.hz,
            machine.clock,
            escaped(&span::measured(tally.wall_s)),
            capital(&tally.groups.counted()),
        ),
    );
    if let Some(line) = missing(tally) {
        push(&mut body, format_args!("<p class=\"result\">{}</p>\n", prose(&capital(&line))));
    }
    for group in tally.groups.all() {
        one(&mut body, &tally.groups.name(group), group, &link);
    }
    page("A run of halfopen", machine, &body)
}

fn one(body: &mut String, name: &str, group: &Group, link: &impl Fn(&str, usize) -> String) {
    push(
        body,
        format_args!(
            "<section class=\"group\">\n<h2>{}</h2>\n<p class=\"question\">{}</p>\n\
             <p class=\"result\"><b class=\"{}\">{}</b>{}</p>\n",
            heading(name, group, link),
            prose(&group.experiment.question),
            group.most_severe(),
            capital(&group.verdicts()),
            result(group),
        ),
    );
    ruler(body, group);
    let reasons: Vec<_> = group.reasons().collect();
    if !reasons.is_empty() {
        body.push_str("<ul>\n");
        for reason in reasons {
            push(body, format_args!("<li>{}</li>\n", prose(&reason)));
        }
        body.push_str("</ul>\n");
    }
    if group.trials() > 1 {
        body.push_str("<p class=\"trials\">Trials:");
        for (number, has_page) in group.numbers() {
            let address = has_page.then(|| link(&group.experiment.name, *number));
            push(body, format_args!(" {}", linked(address, &format!("#{number}"))));
        }
        body.push_str("</p>\n");
    }
    body.push_str("</section>\n");
}

/// What was measured and predicted; what there is none of is left out.
fn result(group: &Group) -> String {
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

fn heading(name: &str, group: &Group, link: &impl Fn(&str, usize) -> String) -> String {
    match group.numbers() {
        [(number, has_page)] => {
            linked(has_page.then(|| link(&group.experiment.name, *number)), name)
        }
        numbers => format!("{} <small>× {}</small>", escaped(name), numbers.len()),
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
fn ruler(body: &mut String, group: &Group) {
    let edges = group.spans().iter().flat_map(|(earliest, latest)| [*earliest, *latest]);
    let all = edges.chain(group.told().iter().map(|(at, _)| *at));
    let Some(scale) = Scale::around(all).filter(|_| !group.spans().is_empty()) else { return };
    body.push_str("<span class=\"bar wide\" aria-hidden=\"true\">");
    for (earliest, latest) in group.spans() {
        let (from, to) = (scale.percent(*earliest), scale.percent(*latest));
        let width = (to - from).max(0.4);
        push(body, format_args!("<i style=\"left:{from:.2}%;width:{width:.2}%\"></i>"));
    }
    for (at, status) in group.told() {
        let off = if *status == Status::Agrees { "" } else { " class=\"off\"" };
        push(body, format_args!("<b{off} style=\"left:{:.2}%\"></b>", scale.percent(*at)));
    }
    body.push_str("</span>\n");
}
