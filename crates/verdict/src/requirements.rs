//! What the user needs, held against what happened: apart from the verdict, which is about the model.

use crate::verdict::{Requirement, Verdict};
use spec::command::Exits;
use spec::{Outcome, Parameters, duration};
use timeline::event::Phase;
use timeline::{Source, Timeline, What};

/// Every requirement of the trial.
pub fn require(
    parameters: &Parameters,
    verdict: &Verdict,
    timeline: &Timeline,
) -> Vec<Requirement> {
    let require = &parameters.require;
    let mut found = Vec::new();
    let noticed_s = verdict.noticed_s(parameters, timeline);
    if let Some(wanted) = require.noticed_within {
        found.push(Requirement {
            key: "require.noticed_within".into(),
            wanted: duration::show(wanted),
            measured_s: noticed_s,
            found: noticed_s.map_or_else(
                || "the program did not act on it".into(),
                |noticed| format!("noticed after {noticed:.3} s"),
            ),
            met: noticed_s.is_some_and(|noticed| noticed <= wanted.as_secs_f64()),
        });
    }
    if let Some(wanted) = require.survives {
        let lives = survives(verdict, timeline);
        found.push(Requirement {
            key: "require.survives".into(),
            wanted: wanted.to_string(),
            measured_s: None,
            found: if lives { "the connection lives" } else { "the connection does not live" }
                .into(),
            met: lives == wanted,
        });
    }
    if let Some(wanted) = &require.exits {
        let client = Source::program(parameters.part("client"));
        let exit = timeline.events().iter().find_map(|event| match event.what {
            What::Exited { code, signal } if event.source == client => {
                Some((event.at_ns, exit_of(code, signal)))
            }
            _ => None,
        });
        let fault_at = timeline.fault_at();
        found.push(Requirement {
            key: "require.exits".into(),
            wanted: wanted.to_string(),
            measured_s: exit
                .as_ref()
                .zip(fault_at)
                .map(|((at, _), fault_at)| (*at as f64 - fault_at as f64) / 1e9),
            found: match &exit {
                Some((_, Some(Exits::Code(code)))) => format!("its own exit code is {code}"),
                Some((_, Some(Exits::Signal(signal)))) => format!("{signal} ended it"),
                _ => "it did not end".into(),
            },
            met: exit.is_some_and(|(_, exit)| exit.as_ref() == Some(wanted)),
        });
    }
    found
}

/// How a process ended, as a requirement writes it.
pub(crate) fn exit_of(code: Option<i32>, signal: Option<i32>) -> Option<Exits> {
    match (code, signal) {
        (Some(code), _) => u8::try_from(code).ok().map(Exits::Code),
        (None, Some(signal)) => Some(Exits::Signal(spec::command::signal_name(signal))),
        (None, None) => None,
    }
}

/// Whether the connection lives at the end, and everything that was sent is acknowledged.
fn survives(verdict: &Verdict, timeline: &Timeline) -> bool {
    let Some(measured) = &verdict.measured else { return false };
    let end = timeline.phase_at(Phase::Aftermath).unwrap_or(u64::MAX);
    let flow = verdict.deciding().map(|flow| flow.id);
    let last = timeline.events().iter().rev().find_map(|event| match &event.what {
        What::Socket(sample)
            if event.source == Source::ClientSocket
                && event.at_ns <= end
                && (flow.is_none() || event.flow == flow) =>
        {
            Some(sample)
        }
        _ => None,
    });
    measured.outcome == Outcome::None
        && measured.noticed_s.is_none()
        && last.is_some_and(|sample| sample.send_queue == 0)
}
