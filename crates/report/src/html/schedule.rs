//! Each retransmission or probe: predicted, measured, and where in its window.

use super::text::push;
use crate::course::{Leg, course};
use crate::escape::escaped;
use crate::trial::Trial;
use crate::words;
use model::{Prediction, StepKind};
use spec::Outcome;

pub(super) fn section(body: &mut String, trial: &Trial) {
    let legs = course(trial);
    let Some(prediction) = trial.prediction.as_ref().filter(|_| !legs.is_empty()) else { return };
    push(
        body,
        format_args!(
            "<h2>Predicted and measured</h2>\n<table>\n<caption>seconds {}</caption>\n<thead><tr><th>step</th>\
             <th class=\"number spare\">timeout</th><th class=\"number spare\">nominal</th>\
             <th class=\"number\">predicted</th><th class=\"number\">measured</th><th></th></tr></thead>\n<tbody>\n",
            words::after_reference(prediction.reference, &trial.experiment.parameters)
        ),
    );
    for leg in &legs {
        row(body, leg, prediction);
    }
    body.push_str("</tbody>\n</table>\n");
}

fn row(body: &mut String, leg: &Leg, prediction: &Prediction) {
    let seconds = |seconds: f64| format!("{seconds:.3}");
    let name = match &leg.step {
        Some(step) if step.kind == StepKind::GiveUp => {
            // A program that has closed is told nothing any more.
            let released = prediction.windows.iter().any(|w| w.outcome == Outcome::Released);
            if released { "lets go" } else { "told" }.to_owned()
        }
        _ => leg.name.clone(),
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
    let off = leg.misses();
    let measured = leg.measured_s.map_or_else(|| "–".into(), seconds);
    push(
        body,
        format_args!(
            "<tr><td>{}</td><td class=\"number spare\">{}</td><td class=\"number spare\">{}</td>\
             <td class=\"number\">{}</td><td class=\"number{}\">{}</td><td>{}</td></tr>\n",
            escaped(&name),
            escaped(&timeout),
            escaped(&nominal),
            escaped(&predicted),
            if off { " off" } else { "" },
            escaped(&measured),
            bar(leg),
        ),
    );
}

/// The window from a fifth to four fifths of the bar, and the measurement where it lies.
fn bar(leg: &Leg) -> String {
    let Some(step) = &leg.step else { return String::new() };
    let (earliest, latest) = (step.earliest.as_secs_f64(), step.latest.as_secs_f64());
    let mut bar = "<span class=\"bar\"><i style=\"left:20%;width:60%\"></i>".to_owned();
    if let Some(at) = leg.measured_s {
        let share = if latest > earliest { (at - earliest) / (latest - earliest) } else { 0.5 };
        let percent = (20.0 + 60.0 * share).clamp(1.0, 99.0);
        let off = if leg.misses() { " class=\"off\"" } else { "" };
        push(&mut bar, format_args!("<b{off} style=\"left:{percent:.1}%\"></b>"));
    }
    bar + "</span>"
}
