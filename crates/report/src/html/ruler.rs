//! The measured time in its predicted window, drawn to scale.

use super::text::push;
use crate::escape::escaped;
use crate::trial::Trial;
use crate::{span, words};
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

pub(super) fn ruler(body: &mut String, trial: &Trial) {
    let (Some(prediction), Some(measured)) = (&trial.prediction, &trial.verdict.measured) else {
        return;
    };
    let Some(detected) = measured.detected_s else { return };
    let spans: Vec<_> = spans(prediction).collect();
    if spans.is_empty() {
        return;
    }
    let edges = spans.iter().flat_map(|(earliest, latest)| [*earliest, *latest]);
    let Some(scale) = Scale::around(edges.chain([detected])) else { return };
    let digits = words::digits(&prediction.windows, &[detected]);
    body.push_str("<div class=\"ruler\" aria-hidden=\"true\"><div class=\"line\"></div>");
    let mut within = false;
    for (earliest, latest) in &spans {
        let (from, to) = (scale.percent(*earliest), scale.percent(*latest));
        within |= (*earliest..=*latest).contains(&detected);
        push(
            body,
            format_args!(
                "<div class=\"box\" style=\"left:{from:.2}%;width:{:.2}%\"></div>",
                (to - from).max(0.4)
            ),
        );
        let apart = to - from < 24.0;
        let text = |seconds| span::measured_to(seconds, digits);
        label(body, from, "below finish-or-middle", &text(*earliest), apart);
        label(body, to, "below start-or-middle", &text(*latest), apart);
    }
    let at = scale.percent(detected);
    let off = if within { "" } else { " off" };
    push(body, format_args!("<div class=\"tick{off}\" style=\"left:{at:.2}%\"></div>"));
    push(
        body,
        format_args!(
            "<span class=\"above{}\" style=\"left:{at:.2}%\">{} measured</span></div>\n",
            edge(at),
            escaped(&span::measured_to(detected, digits))
        ),
    );
}

/// A time below the line. Where two would meet they lean apart.
fn label(body: &mut String, at: f64, class: &str, text: &str, apart: bool) {
    let lean = match (apart, class.contains("finish")) {
        (false, _) => edge(at),
        (true, true) => " finish",
        (true, false) => " start",
    };
    push(
        body,
        format_args!(
            "<span class=\"below{lean}\" style=\"left:{at:.2}%\">{}</span>",
            escaped(text)
        ),
    );
}

/// Labels near an edge do not stand over it.
fn edge(percent: f64) -> &'static str {
    match percent {
        p if p < 22.0 => " start",
        p if p > 78.0 => " finish",
        _ => "",
    }
}
