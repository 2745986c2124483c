//! Predictions as a picture for the guide: a row each, all on one axis of time.

use super::picture::{Theme, file};
use super::text::prose;
use crate::span;
use maud::{Markup, html};
use model::{Prediction, Step, StepKind};
use std::collections::BTreeSet;
use std::time::Duration;

/// One row of the picture.
#[derive(Debug, Clone)]
pub struct Forecast {
    /// What is different from the other rows.
    pub label: String,
    /// What is predicted.
    pub prediction: Prediction,
}

/// Which times the axis has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeAxis {
    /// From zero, in equal steps.
    Linear,
    /// From milliseconds to hours.
    Logarithmic,
    /// Only the times at which connections end.
    Ends,
}

const WIDTH: f64 = 440.0;
const LEFT: f64 = 6.0;
const RIGHT: f64 = 426.0;
const ROW: f64 = 42.0;
const HOUR: Duration = Duration::from_secs(3600);
/// The first time of a logarithmic axis.
const FIRST_S: f64 = 0.01;
/// Beside the axis of ends, as a share of what is between them.
const MARGIN: f64 = 0.25;

/// An SVG file with a row for each prediction; its times count from `zero`.
pub fn forecast(rows: &[Forecast], axis: TimeAxis, zero: &str, theme: Theme) -> Vec<u8> {
    let scale = Scale::new(axis, rows);
    let bottom = ROW * rows.len() as f64 + 4.0;
    let kinds = kinds(rows, axis);
    let content = html! {
        @for time in scale.marks() {
            @let x = tenth(scale.x(time));
            line.hair x1=(x) x2=(x) y1="0" y2=(bottom) {}
            text.head x=(x) y=(bottom + 14.0) text-anchor=(anchor(scale.x(time))) {
                (scale.label(time))
            }
        }
        @for (row, index) in rows.iter().zip(0_u32..) {
            g transform={ "translate(0 " (ROW * f64::from(index)) ")" } { (draw(row, &scale, axis)) }
        }
        text.head x=(LEFT) y=(bottom + 31.0) {
            @if axis == TimeAxis::Logarithmic { "Time on a logarithmic scale, " } @else { "Time " }
            (zero)
        }
        (legend(&kinds, bottom + 48.0))
    };
    let label = rows.iter().map(|row| format!("{}: {}", row.label, ends(&row.prediction)));
    let label = label.collect::<Vec<_>>().join("; ");
    file((WIDTH, bottom + 54.0), &label, &content, theme)
}

fn draw(row: &Forecast, scale: &Scale, axis: TimeAxis) -> Markup {
    let Forecast { label, prediction } = row;
    let spans = prediction.windows.iter().filter_map(|window| window.span);
    let end = prediction.hull().map_or(RIGHT, |(_, latest)| scale.x(latest.as_secs_f64()));
    let y = 29.0;
    html! {
        text x=(LEFT) y="15" { (prose(label)) }
        text.told[prediction.hull().is_some()] x=(RIGHT) y="15" text-anchor="end" {
            (prose(&ends(prediction)))
        }
        line.arrow x1=(LEFT) x2=(tenth(end)) y1=(y) y2=(y) {}
        @if prediction.hull().is_none() {
            path.tip d={ "M" (RIGHT + 6.0) " " (y) "l-7 -3.6v7.2z" } {}
        }
        @if axis != TimeAxis::Ends {
            @for step in steps(prediction) { (mark(step.kind, scale.x(middle(step)), y)) }
            @if let Some(last) = steps(prediction).last().filter(|last| goes_on(last, prediction)) {
                text.gap x=(tenth(scale.x(middle(last)) + 6.0)) y=(y - 3.0) { "and so on" }
            }
        }
        @for (earliest, latest) in spans {
            @let (from, to) = (scale.x(earliest.as_secs_f64()), scale.x(latest.as_secs_f64()));
            @let width = (to - from).max(4.0);
            rect.window x=(tenth(f64::midpoint(from, to) - width / 2.0)) y=(y - 7.0)
                width=(tenth(width)) height="14" {}
        }
    }
}

/// What is sent on the way.
fn steps(prediction: &Prediction) -> impl Iterator<Item = &Step> {
    prediction.schedule.iter().filter(|step| step.kind != StepKind::GiveUp && !step.held)
}

/// Whether more retransmissions follow than are counted beforehand.
fn goes_on(last: &Step, prediction: &Prediction) -> bool {
    last.kind == StepKind::Retransmission
        && prediction.schedule.iter().all(|step| !step.held)
        && prediction.windows.iter().all(|window| window.retransmits.is_none())
}

fn middle(step: &Step) -> f64 {
    f64::midpoint(step.earliest.as_secs_f64(), step.latest.as_secs_f64())
}

/// A step's mark; its form says what it is where colours do not.
fn mark(kind: StepKind, x: f64, y: f64) -> Markup {
    let x = tenth(x);
    match kind {
        StepKind::KeepaliveProbe => html! { circle.timer.keepalive cx=(x) cy=(y) r="3" {} },
        StepKind::WindowProbe => html! {
            path.timer.other d={ "M" (x) " " (y - 4.5) "l4.5 4.5l-4.5 4.5l-4.5 -4.5z" } {}
        },
        _ => html! {
            rect.timer.retransmission x=(tenth(x - 1.0)) y=(y - 5.0) width="2" height="10" {}
        },
    }
}

/// The end in a few words: `ETIMEDOUT 937.7–939.8 s`, from hours on to the minute.
fn ends(prediction: &Prediction) -> String {
    const MINUTE_S: u64 = 60;
    let outcomes: BTreeSet<_> = prediction.windows.iter().map(|w| w.outcome.to_string()).collect();
    let outcomes = outcomes.into_iter().collect::<Vec<_>>().join(" or ");
    match (&prediction.unknown, prediction.hull()) {
        (Some(_), _) => "unknown".into(),
        (None, None) => "never told".into(),
        (None, Some((earliest, latest))) if latest >= HOUR => {
            // What is a jiffy early is not a minute early.
            let from = (earliest + Duration::from_secs(1)).as_secs() / MINUTE_S;
            let to = latest.as_secs().div_ceil(MINUTE_S);
            let [from, to] = [from, to].map(|minutes| Duration::from_secs(minutes * MINUTE_S));
            format!("{outcomes} {} – {}", span::exact(from), span::exact(to))
        }
        (None, Some((earliest, latest))) => {
            format!("{outcomes} {}", span::range(earliest, latest))
        }
    }
}

/// The kinds of steps that are drawn, each once.
fn kinds(rows: &[Forecast], axis: TimeAxis) -> Vec<(StepKind, &'static str)> {
    let known = [
        (StepKind::Retransmission, "retransmission"),
        (StepKind::KeepaliveProbe, "keepalive probe"),
        (StepKind::WindowProbe, "window probe"),
    ];
    let is_drawn = |(kind, _): &(StepKind, &str)| {
        rows.iter().any(|row| steps(&row.prediction).any(|step| step.kind == *kind))
    };
    known.into_iter().filter(is_drawn).filter(|_| axis != TimeAxis::Ends).collect()
}

fn legend(kinds: &[(StepKind, &str)], y: f64) -> Markup {
    let place = |index: usize| LEFT + 4.0 + 118.0 * index as f64;
    html! {
        @for (index, (kind, name)) in kinds.iter().enumerate() {
            (mark(*kind, place(index), y - 4.0))
            text.head x=(place(index) + 9.0) y=(y) { (name) }
        }
        @let x = place(kinds.len());
        rect.window x=(x - 4.0) y=(y - 10.0) width="8" height="12" {}
        text.head x=(x + 9.0) y=(y) { "the end, predicted" }
    }
}

/// From times to places.
struct Scale {
    from: f64,
    to: f64,
    axis: TimeAxis,
}

impl Scale {
    fn new(axis: TimeAxis, rows: &[Forecast]) -> Self {
        let hulls = || rows.iter().filter_map(|row| row.prediction.hull());
        let last = hulls().map(|(_, latest)| latest.as_secs_f64()).fold(0.0, f64::max);
        let first = hulls().map(|(earliest, _)| earliest.as_secs_f64()).fold(last, f64::min);
        let (from, to) = match axis {
            TimeAxis::Linear => (0.0, last * 1.04),
            TimeAxis::Logarithmic => (FIRST_S, last * 2.0),
            TimeAxis::Ends => {
                let margin = (last - first) * MARGIN;
                (first - margin, last + margin)
            }
        };
        Self { from, to, axis }
    }

    fn x(&self, time: f64) -> f64 {
        let share = if self.axis == TimeAxis::Logarithmic {
            (time.max(self.from) / self.from).ln() / (self.to / self.from).ln()
        } else {
            (time - self.from) / (self.to - self.from)
        };
        LEFT + (RIGHT - LEFT) * share.clamp(0.0, 1.0)
    }

    fn label(&self, time: f64) -> String {
        match self.axis {
            TimeAxis::Ends => format!("{} s", tenth(time)),
            _ => span::exact(Duration::from_secs_f64(time)),
        }
    }

    /// Round times along the axis.
    fn marks(&self) -> Vec<f64> {
        const ROUND: [f64; 18] = [
            0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0,
            1800.0, 3600.0, 7200.0, 14_400.0,
        ];
        const FAR: [f64; 7] = [0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0];
        if self.axis == TimeAxis::Logarithmic {
            return FAR.into_iter().filter(|time| *time <= self.to).collect();
        }
        let is_wide = |step: &&f64| (self.to - self.from) / **step <= 6.0;
        let step = ROUND.iter().find(is_wide).copied().unwrap_or(86_400.0);
        let [first, last] = [(self.from / step).ceil(), (self.to / step).floor()];
        (first as u32..=last as u32).map(|n| f64::from(n) * step).collect()
    }
}

fn tenth(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// Labels near an edge do not stand over it.
fn anchor(x: f64) -> &'static str {
    match x {
        x if x < LEFT + 20.0 => "start",
        x if x > RIGHT - 20.0 => "end",
        _ => "middle",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use model::Window;
    use spec::Outcome;

    fn row(label: &str, prediction: &Prediction) -> Forecast {
        Forecast { label: label.into(), prediction: prediction.clone() }
    }

    #[test]
    fn each_step_has_its_mark_and_each_end_its_window() {
        let told = samples::keepalive().prediction.unwrap();
        let mut never = told.clone();
        never.windows = vec![Window::new(Outcome::None, None)];
        let rows = [row("told", &told), row("never <told>", &never)];
        let svg = |axis| {
            String::from_utf8(forecast(&rows, axis, "from the fault", Theme::Light)).unwrap()
        };
        let drawn = svg(TimeAxis::Linear);
        let probes = steps(&told).count();
        assert!(probes > 0);
        // Both rows, and the legend.
        assert_eq!(drawn.matches("timer keepalive").count(), 2 * probes + 1, "{drawn}");
        assert_eq!(drawn.matches("rect class=\"window\"").count(), 1 + 1, "{drawn}");
        assert!(drawn.contains("never told") && drawn.contains("never &lt;told&gt;"), "{drawn}");
        assert!(drawn.contains("Time from the fault"), "{drawn}");
        assert!(!svg(TimeAxis::Ends).contains("timer keepalive"), "the ends alone");
        assert!(svg(TimeAxis::Logarithmic).contains("10 ms"));
    }

    #[test]
    fn times_never_run_backwards_or_over_the_edge() {
        let rows = [row("told", &samples::keepalive().prediction.unwrap())];
        for axis in [TimeAxis::Linear, TimeAxis::Logarithmic, TimeAxis::Ends] {
            let scale = Scale::new(axis, &rows);
            let places: Vec<_> = [0.0, 1.0, 8.0, 1e6].map(|time| scale.x(time)).into();
            assert!(places.is_sorted(), "{places:?}");
            assert!(places.iter().all(|x| (LEFT..=RIGHT).contains(x)), "{places:?}");
            assert!((2..=7).contains(&scale.marks().len()), "{axis:?}: {:?}", scale.marks());
        }
    }
}
