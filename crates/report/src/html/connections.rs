//! The connections of commands: whose each is, what was predicted of it, and what became of it.

use super::text::prose;
use crate::span;
use crate::trial::Trial;
use crate::words;
use maud::{Markup, html};
use model::Window;
use spec::{Parameters, SocketOptions};
use verdict::FlowVerdict;

pub(super) fn section(trial: &Trial) -> Markup {
    let flows = &trial.verdict.flows;
    let deciding = trial.verdict.deciding().map(|flow| flow.id);
    html! {
        @if !flows.is_empty() {
            h2 { "Connections" }
            table.stacked {
                thead {
                    tr { th.number { "id" } th { "connection" } th { "socket" } th { "predicted" } th { "end" } th { "verdict" } }
                }
                tbody {
                    @for flow in flows {
                        tr {
                            td.number { (flow.id.0) }
                            td { (flow.local) br; "to " (flow.remote) }
                            td data-head="socket" { (socket(flow)) }
                            td data-head="predicted" { (predicted(&trial.experiment.parameters, flow)) }
                            td data-head="end" { (end(flow)) }
                            td data-head="verdict" {
                                (flow.word.map_or_else(|| "–".to_owned(), |word| word.to_string()))
                                @if deciding == Some(flow.id) && flows.len() > 1 { br; b { "decides" } }
                            }
                        }
                    }
                }
            }
            @for flow in flows.iter().filter(|flow| !flow.reason.is_empty()) {
                p.reason { "Connection " (flow.id.0) ": " (prose(&flow.reason)) "." }
            }
        }
    }
}

/// Whose it is, and its options.
fn socket(flow: &FlowVerdict) -> String {
    let owner = flow.owner.as_ref().map_or("–", |owner| owner.process.as_str());
    let Some(SocketOptions {
        keepalive, keepidle_s, keepintvl_s, keepcnt, user_timeout_ms, ..
    }) = &flow.options
    else {
        return owner.into();
    };
    let keepalive = match (keepalive, keepidle_s, keepintvl_s, keepcnt) {
        (Some(true), Some(idle), Some(interval), Some(count)) => {
            format!("keepalive {idle} s / {interval} s / {count}")
        }
        (Some(true), ..) => "keepalive".into(),
        _ => "no keepalive".into(),
    };
    let timeout = user_timeout_ms.filter(|ms| *ms > 0);
    let timeout = timeout.map_or_else(String::new, |ms| format!(", user timeout {ms} ms"));
    format!("{owner}: {keepalive}{timeout}")
}

fn predicted(parameters: &Parameters, flow: &FlowVerdict) -> String {
    let Some(prediction) = &flow.prediction else { return "nothing".into() };
    if prediction.unknown.is_some() {
        return "unknown".into();
    }
    let after = words::after_reference(prediction.reference, parameters);
    let window = |window: &Window| match window.span {
        Some(_) => format!("{} {after}", words::window(window)),
        None => parameters.named(&words::window(window)),
    };
    prediction.windows.iter().map(window).collect::<Vec<_>>().join(" or ")
}

fn end(flow: &FlowVerdict) -> String {
    match (flow.ended_by, flow.ended_s) {
        (Some(by), Some(at)) => {
            format!("{}, {} after the fault", by.name(), span::measured(at))
        }
        _ if flow.facts.is_none() => "not watched".into(),
        _ => "lives".into(),
    }
}
