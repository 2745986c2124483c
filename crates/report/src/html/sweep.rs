//! Pictures of a sweep: a curve for one setting that varies, a heat map for two, a map for each value of
//! the third for three.

use crate::span;
use crate::summary::{Group, Groups};
use crate::trial::Status;
use maud::{Markup, html};
use std::collections::BTreeMap;
use std::time::Duration;

/// The pictures of all experiments of a run of which settings vary.
pub(super) fn pictures(groups: &Groups) -> Markup {
    let mut by_name: Vec<(&str, Vec<&Group>)> = Vec::new();
    for group in groups.all() {
        let name = group.experiment.name.as_str();
        match by_name.iter_mut().find(|(known, _)| *known == name) {
            Some((_, members)) => members.push(group),
            None => by_name.push((name, vec![group])),
        }
    }
    html! {
        @for (name, members) in &by_name {
            @if let Some(sweep) = Sweep::of(groups, members) {
                figure.sweep {
                    figcaption { b { (name) } " · " (sweep.caption()) }
                    (sweep.picture())
                    (sweep.legend())
                }
            }
        }
    }
}

/// The points of a sweep.
struct Sweep<'a> {
    /// The settings that vary, the one with the fewest values first, each with its values.
    axes: Vec<(String, Vec<String>)>,
    points: BTreeMap<Vec<String>, &'a Group>,
    /// Every outcome that was measured, the most frequent first.
    outcomes: Vec<String>,
    /// The least and the most of all times, seconds.
    ends: (f64, f64),
}

/// A heat map with more rows or columns is not looked at.
const VALUES_MOST: usize = 40;
const AXES_MOST: usize = 3;
/// What nothing was told has for an outcome.
const NONE: &str = "none";

impl<'a> Sweep<'a> {
    fn of(groups: &Groups, members: &[&'a Group]) -> Option<Self> {
        let settings: Vec<_> = members.iter().map(|group| groups.apart(group)).collect();
        let mut axes: Vec<(String, Vec<String>)> = Vec::new();
        for key in settings.first()?.keys() {
            let mut values = Vec::new();
            for value in settings.iter().filter_map(|settings| settings.get(key)) {
                if !values.contains(value) {
                    values.push(value.clone());
                }
            }
            axes.push((key.clone(), values));
        }
        axes.retain(|(_, values)| values.len() > 1);
        axes.sort_by_key(|(_, values)| values.len());
        let fits = axes.iter().all(|(_, values)| values.len() <= VALUES_MOST);
        if axes.is_empty() || axes.len() > AXES_MOST || !fits {
            return None;
        }
        let point = |settings: &BTreeMap<String, String>| -> Vec<String> {
            axes.iter().filter_map(|(key, _)| settings.get(key).cloned()).collect()
        };
        let points: BTreeMap<_, _> =
            settings.iter().map(point).zip(members.iter().copied()).collect();
        let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
        for (outcome, count) in members.iter().flat_map(|group| group.outcome_counts()) {
            *counts.entry(outcome).or_default() += count;
        }
        let mut outcomes: Vec<_> = counts.into_iter().collect();
        outcomes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let outcomes = outcomes.into_iter().map(|(outcome, _)| outcome.clone()).collect();
        let ends = members
            .iter()
            .flat_map(|group| times(group))
            .fold((f64::INFINITY, 0.0_f64), |(least, most), time| {
                (least.min(time), most.max(time))
            });
        Some(Self { axes, points, outcomes, ends })
    }

    fn caption(&self) -> String {
        let keys: Vec<_> = self.axes.iter().map(|(key, _)| key.as_str()).collect();
        format!("when the client is told, by {}", keys.join(" and "))
    }

    fn picture(&self) -> Markup {
        match self.axes.as_slice() {
            [(key, values)] => self.curve(key, values),
            [rows, columns] => self.map(None, rows, columns),
            [each, rows, columns] => html! {
                .multiples {
                    @for value in &each.1 {
                        div {
                            p { (each.0) " = " (value) }
                            (self.map(Some(value), rows, columns))
                        }
                    }
                }
            },
            _ => html! {},
        }
    }

    /// How far up a time is, from 0 to 1; by its logarithm where times differ much.
    fn share(&self, time: f64) -> f64 {
        let (least, most) = self.ends;
        if most <= least {
            return 0.5;
        }
        if self.is_logarithmic() {
            (time.max(least) / least).ln() / (most / least).ln()
        } else {
            time / most
        }
    }

    fn is_logarithmic(&self) -> bool {
        self.ends.0 > 0.0 && self.ends.1 / self.ends.0 > 20.0
    }

    fn mark(&self, group: &Group) -> &'static str {
        match dominant(group) {
            None => "?",
            Some(NONE) => "–",
            Some(outcome) => {
                let place = self.told().position(|known| known == outcome);
                MARKS[place.unwrap_or(0).min(MARKS.len() - 1)]
            }
        }
    }

    fn told(&self) -> impl Iterator<Item = &str> {
        self.outcomes.iter().map(String::as_str).filter(|outcome| *outcome != NONE)
    }

    fn legend(&self) -> Markup {
        let marks = self.told().zip(MARKS);
        let unsaid = self.outcomes.iter().any(|outcome| outcome == NONE);
        html! {
            p.legend {
                @for (outcome, mark) in marks { span { (mark) " " (outcome) } }
                @if unsaid { span { "– nothing told" } }
                span.off { "✗ does not agree" }
                @if self.axes.len() == 1 {
                    span { i.l-window {} "predicted" }
                } @else {
                    span { "stronger colour: later" }
                }
                @if self.is_logarithmic() { span { "logarithmic" } }
            }
        }
    }

    fn map(
        &self,
        each: Option<&String>,
        rows: &(String, Vec<String>),
        columns: &(String, Vec<String>),
    ) -> Markup {
        html! {
            .figures tabindex="0" role="group" aria-label=(self.caption()) {
                table.heat {
                    thead {
                        tr {
                            th scope="col" { (rows.0) " ↓" br; (columns.0) " →" }
                            @for value in &columns.1 { th.number scope="col" { (value) } }
                        }
                    }
                    tbody {
                        @for row in &rows.1 {
                            tr {
                                th scope="row" { (row) }
                                @for column in &columns.1 {
                                    (self.cell(each.into_iter().chain([row, column])))
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    fn cell<'b>(&self, point: impl Iterator<Item = &'b String>) -> Markup {
        let point: Vec<_> = point.cloned().collect();
        let Some(group) = self.points.get(&point) else { return html! { td {} } };
        let agrees = group.most_severe() == Status::Agrees;
        let median = group.times_s().map(|[_, median, _]| median);
        // From a wash to half of the ink's strength: text stays readable on both.
        let shade = median.map_or(0.0, |time| (6.0 + 38.0 * self.share(time)).round());
        html! {
            td.number.off[!agrees] style={ "--shade:" (shade) "%" } {
                (self.mark(group))
                @if let Some(median) = median { " " (span::measured(median)) }
                @if !agrees { " ✗" }
            }
        }
    }

    /// The predicted band with what was measured.
    fn curve(&self, key: &str, values: &[String]) -> Markup {
        let step = (WIDTH - LEFT - 20.0) / values.len() as f64;
        let x = |at: usize| LEFT + step * (at as f64 + 0.5);
        let y = |time: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - self.share(time));
        let every = values.len().div_ceil(12);
        let points = || {
            values.iter().enumerate().filter_map(|(at, value)| {
                self.points.get(std::slice::from_ref(value)).map(|group| (at, value, *group))
            })
        };
        html! {
            svg.curve viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(self.caption()) {
                @for time in self.rule() {
                    line.hair x1=(LEFT) x2=(WIDTH) y1=(tenth(y(time))) y2=(tenth(y(time))) {}
                    text.head x=(LEFT - 8.0) y=(tenth(y(time) + 4.0)) text-anchor="end" {
                        (span::measured(time))
                    }
                }
                @for (at, _, group) in points() {
                    @for (from, to) in group.spans() {
                        rect.window x=(tenth(x(at) - step * 0.4)) width=(tenth(step * 0.8))
                            y=(tenth(y(*to))) height=(tenth((y(*from) - y(*to)).max(2.0))) {}
                    }
                }
                @for (at, value, group) in points() {
                    @for (time, status) in group.told() {
                        text.mark.off[*status != Status::Agrees] x=(tenth(x(at)))
                            y=(tenth(y(*time) + 4.0)) text-anchor="middle" {
                            (if *status == Status::Agrees { self.mark(group) } else { "✗" })
                        }
                    }
                    @if group.told().is_empty() {
                        text.mark.off[group.most_severe() != Status::Agrees] x=(tenth(x(at)))
                            y=(TOP - 8.0) text-anchor="middle" { (self.mark(group)) }
                    }
                    @if at % every == 0 {
                        text.head x=(tenth(x(at))) y=(HEIGHT - BOTTOM + 18.0) text-anchor="middle" {
                            (value)
                        }
                    }
                }
                text.head x=(tenth(LEFT + (WIDTH - LEFT) / 2.0)) y=(HEIGHT - 6.0) text-anchor="middle" {
                    (key)
                }
            }
        }
    }

    /// Times with a line of their own: the ends, and what lies between.
    fn rule(&self) -> Vec<f64> {
        let (least, most) = self.ends;
        if !least.is_finite() {
            return Vec::new();
        }
        if self.is_logarithmic() {
            vec![least, (least * most).sqrt(), most]
        } else {
            vec![0.0, most / 2.0, most]
        }
    }
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 84.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 44.0;
/// One for each outcome, the most frequent first.
const MARKS: [&str; 5] = ["●", "▲", "■", "◆", "★"];

fn tenth(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// The outcome that was measured most often.
fn dominant(group: &Group) -> Option<&str> {
    let most = group.outcome_counts().iter().max_by_key(|(_, count)| **count);
    most.map(|(outcome, _)| outcome.as_str())
}

/// Every time of a group, predicted and measured, seconds.
fn times(group: &Group) -> impl Iterator<Item = f64> {
    let ends = group.spans().iter().flat_map(|(from, to)| [*from, *to]);
    ends.chain(group.told().iter().map(|(at, _)| *at)).map(at_least_a_tick)
}

/// Of no time there is no logarithm.
fn at_least_a_tick(seconds: f64) -> f64 {
    seconds.max(Duration::from_millis(1).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    fn with(settings: &[(&str, &str)]) -> crate::Trial {
        let mut trial = samples::sending();
        for (name, value) in settings {
            trial.experiment.parameters.sysctl.insert((*name).into(), (*value).into());
        }
        trial
    }

    fn drawn(trials: &[crate::Trial]) -> String {
        pictures(&Groups::of(trials)).into_string()
    }

    #[test]
    fn one_setting_is_a_curve_two_are_a_map_three_are_maps() {
        let one = drawn(&[with(&[("tcp_retries2", "3")]), with(&[("tcp_retries2", "4")])]);
        assert!(
            one.contains("svg") && one.contains("●") && one.contains("class=\"window\""),
            "{one}"
        );
        let pairs =
            ["3", "4"].map(|a| ["1", "2"].map(|b| [("tcp_retries2", a), ("tcp_early_retrans", b)]));
        let trials: Vec<_> = pairs.iter().flatten().map(|pair| with(pair)).collect();
        let two = drawn(&trials);
        assert_eq!(two.matches("<td").count(), 4, "{two}");
        let triples = trials.iter().flat_map(|trial| {
            ["0", "1"].map(|value| {
                let mut trial = trial.clone();
                trial.experiment.parameters.sysctl.insert("tcp_frto".into(), value.into());
                trial
            })
        });
        let three = drawn(&triples.collect::<Vec<_>>());
        assert_eq!(three.matches("<table").count(), 2, "{three}");
        assert_eq!(three.matches("<td").count(), 8, "{three}");
    }

    #[test]
    fn what_does_not_vary_has_no_picture_and_what_disagrees_is_marked() {
        assert_eq!(drawn(&[samples::sending(), samples::sending()]), "");
        let mut late = samples::late();
        late.experiment.parameters.sysctl.insert("tcp_retries2".into(), "9".into());
        let text = drawn(&[samples::late(), late]);
        assert!(text.contains('✗') && text.contains("mark off"), "{text}");
    }
}
