//! Each retransmission or probe: predicted, measured, and where in its window.

use super::ruler;
use crate::course::{Leg, course};
use crate::trial::Trial;
use crate::words;
use maud::{Markup, html};
use model::{Prediction, StepKind};
use spec::Outcome;

pub(super) fn section(trial: &Trial) -> Markup {
    let legs = course(trial);
    let prediction = trial.prediction.as_ref().filter(|_| !legs.is_empty());
    html! {
        @if let Some(prediction) = prediction {
            h2 { "Predicted and measured" }
            table {
                caption {
                    "seconds "
                    (words::after_reference(prediction.reference, &trial.experiment.parameters))
                }
                thead {
                    tr {
                        th { "step" }
                        th.number.spare { "timeout" }
                        th.number.spare { "nominal" }
                        th.number { "predicted" }
                        th.number { "measured" }
                        td {}
                    }
                }
                tbody {
                    @for leg in &legs { (row(leg, prediction)) }
                }
            }
        }
    }
}

fn row(leg: &Leg, prediction: &Prediction) -> Markup {
    let seconds = |seconds: f64| format!("{seconds:.3}");
    let name = match &leg.step {
        Some(step) if step.kind == StepKind::GiveUp => {
            // A program that has closed is told nothing any more.
            let released = prediction.windows.iter().any(|w| w.outcome == Outcome::Released);
            if released { "lets go" } else { "told" }
        }
        _ => &leg.name,
    };
    let (timeout, nominal, predicted) = leg.step.as_ref().map_or_else(
        || (String::new(), String::new(), "–".to_owned()),
        |step| {
            let [earliest, latest, timeout, nominal] =
                [step.earliest, step.latest, step.timeout, step.nominal]
                    .map(|time| seconds(time.as_secs_f64()));
            (timeout, nominal, format!("{earliest}–{latest}"))
        },
    );
    let measured = leg.measured_s.map_or_else(|| "–".into(), seconds);
    html! {
        tr {
            td { (name) }
            td.number.spare { (timeout) }
            td.number.spare { (nominal) }
            td.number { (predicted) }
            td.number.off[leg.misses()] { (measured) }
            td { (bar(leg)) }
        }
    }
}

/// The window from a fifth to four fifths of the bar, and the measurement where it lies.
fn bar(leg: &Leg) -> Markup {
    let Some(step) = &leg.step else { return Markup::default() };
    let (earliest, latest) = (step.earliest.as_secs_f64(), step.latest.as_secs_f64());
    let measured = leg.measured_s.map(|at| {
        let share = if latest > earliest { (at - earliest) / (latest - earliest) } else { 0.5 };
        ((20.0 + 60.0 * share).clamp(1.0, 99.0), leg.misses())
    });
    ruler::bar("bar", [(20.0, 80.0)], measured)
}
