//! The measured time in its predicted window, drawn to scale.

use crate::trial::Trial;
use crate::{span, words};
use maud::{Markup, html};
use model::Prediction;
use std::time::Duration;

/// How much is shown on each side of what must be seen.
const MARGIN: f64 = 0.22;

/// A linear scale, in percent.
pub(super) struct Scale {
    from: f64,
    to: f64,
}

impl Scale {
    /// A scale that shows all of `times`, with a margin; `None` without any.
    pub(super) fn around(times: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut times = times.into_iter();
        let first = times.next()?;
        let (from, to) = times.fold((first, first), |(from, to), t| (from.min(t), to.max(t)));
        let margin = if to > from { (to - from) * MARGIN } else { to.abs().max(1e-6) * MARGIN };
        Some(Self { from: from - margin, to: to + margin })
    }

    pub(super) fn percent(&self, time: f64) -> f64 {
        (time - self.from) / (self.to - self.from) * 100.0
    }
}

/// The predicted windows of whatever outcome, in seconds.
pub(super) fn spans(prediction: &Prediction) -> impl Iterator<Item = (f64, f64)> {
    let seconds =
        |(earliest, latest): (Duration, Duration)| (earliest.as_secs_f64(), latest.as_secs_f64());
    prediction.windows.iter().filter_map(|window| window.span).map(seconds)
}

/// Boxes for windows, and a tick for each measurement with whether it is off, all in percent.
pub(super) fn bar(
    class: &str,
    windows: impl IntoIterator<Item = (f64, f64)>,
    measured: impl IntoIterator<Item = (f64, bool)>,
) -> Markup {
    html! {
        span class=(class) aria-hidden="true" {
            @for (from, to) in windows {
                i style={ "left:" (hundredth(from)) "%;width:" (hundredth((to - from).max(0.8))) "%" } {}
            }
            @for (at, off) in measured {
                b class=[off.then_some("off")] style={ "left:" (hundredth(at)) "%" } {}
            }
        }
    }
}

/// A bar of windows and measurements in seconds; empty without a window.
pub(super) fn bar_of_times(
    class: &str,
    windows: &[(f64, f64)],
    measured: &[(f64, bool)],
) -> Markup {
    let edges = windows.iter().flat_map(|(earliest, latest)| [*earliest, *latest]);
    let all = edges.chain(measured.iter().map(|(at, _)| *at));
    let Some(scale) = Scale::around(all).filter(|_| !windows.is_empty()) else {
        return Markup::default();
    };
    let percent = |seconds: f64| scale.percent(seconds);
    let windows = windows.iter().map(|(from, to)| (percent(*from), percent(*to)));
    bar(class, windows, measured.iter().map(|(at, off)| (percent(*at), *off)))
}

/// Windows with their edges, and the measurement, each with its time.
pub(super) fn ruler(trial: &Trial) -> Markup {
    let detected = trial.verdict.measured.as_ref().and_then(|measured| measured.detected_s);
    let (Some(prediction), Some(detected)) = (&trial.prediction, detected) else {
        return Markup::default();
    };
    let spans: Vec<_> = spans(prediction).collect();
    if spans.is_empty() {
        return Markup::default();
    }
    let edges = spans.iter().flat_map(|(earliest, latest)| [*earliest, *latest]);
    let Some(scale) = Scale::around(edges.chain([detected])) else { return Markup::default() };
    let digits = words::digits(&prediction.windows, &[detected]);
    let text = |seconds| span::measured_to(seconds, digits);
    let within = spans.iter().any(|(earliest, latest)| (*earliest..=*latest).contains(&detected));
    let at = scale.percent(detected);
    html! {
        .ruler aria-hidden="true" {
            .line {}
            @for (earliest, latest) in spans {
                @let (from, to) = (scale.percent(earliest), scale.percent(latest));
                .box style={ "left:" (hundredth(from)) "%;width:" (hundredth((to - from).max(0.4))) "%" } {}
                // Where the two labels would meet they lean apart.
                @let apart = to - from < 24.0;
                (label(from, if apart { "finish" } else { edge(from) }, &text(earliest)))
                (label(to, if apart { "start" } else { edge(to) }, &text(latest)))
            }
            .tick.off[!within] style={ "left:" (hundredth(at)) "%" } {}
            span class={ "above " (edge(at)) } style={ "left:" (hundredth(at)) "%" } {
                (text(detected)) " measured"
            }
        }
    }
}

/// A time below the line.
fn label(at: f64, lean: &str, text: &str) -> Markup {
    html! {
        span class={ "below " (lean) } style={ "left:" (hundredth(at)) "%" } { (text) }
    }
}

fn hundredth(percent: f64) -> String {
    format!("{percent:.2}")
}

/// Labels near an edge do not stand over it.
fn edge(percent: f64) -> &'static str {
    match percent {
        p if p < 22.0 => "start",
        p if p > 78.0 => "finish",
        _ => "",
    }
}
