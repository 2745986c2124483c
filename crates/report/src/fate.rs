//! What became of the program of a trial whose host has lost the other.

use crate::trial::Trial;
use model::Window;
use serde::{Deserialize, Serialize};
use spec::Outcome;
use timeline::event::Phase;
use timeline::{Event, Source, What};
use verdict::EndedBy;

/// What the program that had to find out was told, said and did; of several connections, about the one
/// that it acted on last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Fate {
    /// When it acted, seconds after the fault; `None`: never.
    pub(crate) acted_s: Option<f64>,
    /// How long it was watched, seconds after the fault.
    pub(crate) watched_s: Option<f64>,
    /// What its kernel told it.
    pub(crate) told: Outcome,
    /// What ended its connection.
    pub(crate) ended_by: Option<EndedBy>,
    /// Whether anything was to come, as predicted.
    pub(crate) hopeless: bool,
    /// What it wrote about it.
    pub(crate) said: Option<String>,
}

impl Fate {
    /// `None`: nothing was measured.
    pub(crate) fn of(trial: &Trial) -> Option<Self> {
        let Trial { experiment, verdict, timeline, .. } = trial;
        let flow = verdict.last_noticed(&experiment.parameters);
        let (measured, prediction) = match flow {
            Some(flow) => (flow.measured.as_ref(), flow.prediction.as_ref()),
            None => (verdict.measured.as_ref(), trial.prediction.as_ref()),
        };
        let fault_at = timeline.fault_at()?;
        let end = timeline.phase_at(Phase::Aftermath);
        let windows = prediction.map_or(&[][..], |predicted| &predicted.windows);
        let nothing = |window: &Window| window.outcome == Outcome::None;
        Some(Self {
            acted_s: verdict.noticed_s(&experiment.parameters, timeline),
            watched_s: end.map(|end| end.saturating_sub(fault_at) as f64 / 1e9),
            told: measured?.outcome,
            ended_by: flow.and_then(|flow| flow.ended_by),
            hopeless: !windows.is_empty() && windows.iter().all(nothing),
            said: said(trial, fault_at, end.unwrap_or(u64::MAX)),
        })
    }
}

/// What the program wrote between two moments: the first line that names an error, else the last.
fn said(trial: &Trial, from_ns: u64, to_ns: u64) -> Option<String> {
    let parameters = &trial.experiment.parameters;
    let program = Source::program(parameters.part(parameters.asked()));
    let line = |event: &Event| match &event.what {
        What::Output { line, .. } if event.source == program && !line.trim().is_empty() => {
            (from_ns..to_ns).contains(&event.at_ns).then(|| line.clone())
        }
        _ => None,
    };
    let lines: Vec<_> = trial.timeline.events().iter().filter_map(line).collect();
    let found = lines.iter().find(|line| complains(line)).or(lines.last());
    found.map(|line| line.trim().to_owned())
}

fn complains(line: &str) -> bool {
    const WORDS: [&str; 10] = [
        "error",
        "exception",
        "timed out",
        "timeout",
        "reset",
        "closed",
        "unreachable",
        "not respond",
        "lost",
        "fail",
    ];
    let lower = line.to_lowercase();
    // What is indented is a place in a program.
    !line.starts_with([' ', '\t']) && WORDS.iter().any(|word| lower.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use timeline::Timeline;
    use timeline::event::Stream;

    #[test]
    fn of_all_that_a_program_wrote_the_error_is_kept() {
        let mut trial = samples::keepalive();
        let fault_at = trial.timeline.fault_at().unwrap();
        let output = |after_ns: u64, line: &str| {
            let what = What::Output { stream: Stream::Error, line: line.into() };
            Event::new(fault_at + after_ns, Source::ClientProgram, what)
        };
        let mut said = |lines: &[&str]| {
            let written = lines.iter().zip(1..).map(|(line, after)| output(after, line));
            trial.timeline = Timeline::new(written.collect());
            super::said(&trial, fault_at, fault_at + 100)
        };
        let node =
            ["      throw er; // Unhandled 'error' event", "Error: read ETIMEDOUT", "Node.js"];
        assert_eq!(said(&node).unwrap(), "Error: read ETIMEDOUT");
        assert_eq!(said(&["hello", "bye"]).unwrap(), "bye");
        assert_eq!(said(&[]), None);
    }
}
