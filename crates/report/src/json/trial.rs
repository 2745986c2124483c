//! One trial's object, and what says on what it ran.

use super::measurement::{Measurement, measurement};
use super::prediction::{Forecast, forecast, micros};
use super::programs;
use crate::parameters::in_force;
use crate::trial::{Clock, Machine, Trial};
use serde::Serialize;
use serde_json::value::{RawValue, Value, to_raw_value};
use std::collections::BTreeMap;
use verdict::{Evidence, Requirement, Word};

pub(crate) const SCHEMA: &str = "halfopen/run/1";

/// What says on what trials ran: an object with what every document of trials begins with.
pub(crate) fn head(machine: &Machine) -> String {
    #[derive(Serialize)]
    struct Head<'a> {
        schema: &'static str,
        kernel: &'a str,
        hz: u32,
        clock: Clock,
    }
    let Machine { kernel, hz, clock } = machine;
    let head = Head { schema: SCHEMA, kernel, hz: *hz, clock: *clock };
    serde_json::to_string(&head).expect("our own types are JSON values")
}

/// A trial's object.
pub(crate) fn trial(trial: &Trial) -> Box<RawValue> {
    to_raw_value(&trial_document(trial)).expect("our own types are JSON values")
}

#[derive(Serialize)]
pub(crate) struct TrialDocument<'a> {
    kernel: &'a str,
    hz: u32,
    clock: Clock,
    experiment: &'a str,
    parameters: BTreeMap<String, Value>,
    prediction: Forecast<'a>,
    /// `None`: no connection was there.
    measured: Option<Measurement<'a>>,
    /// `client`, `proxy` or `server`: the survivor, and the host that breaks.
    survivor: &'a str,
    lost_host: &'a str,
    verdict: Word,
    reason: &'a str,
    artifacts: Option<&'a str>,
    /// From 1, among the trials of this name; the same as of its directory.
    number: usize,
    /// From 1, among the trials of this experiment with these settings.
    turn: usize,
    /// With `--phases`, from 1.
    phase: Option<u32>,
    key: &'a str,
    /// What went wrong in halfopen itself.
    failure: Option<&'a str>,
    proof: &'a [Evidence],
    requirements: Vec<RequirementDocument<'a>>,
    /// Where the client is a command.
    #[serde(skip_serializing_if = "Option::is_none")]
    programs: Option<programs::Programs<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flows: Option<Vec<programs::FlowDocument<'a>>>,
    /// With a proxy: who was told by whom, and when, a sentence for each connection of the client's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    told: Vec<String>,
}

#[derive(Serialize)]
struct RequirementDocument<'a> {
    key: &'a str,
    wanted: &'a str,
    measured_s: Option<f64>,
    met: bool,
    found: &'a str,
}

pub(crate) fn trial_document(trial: &Trial) -> TrialDocument<'_> {
    let parameters = &trial.experiment.parameters;
    let [survivor, lost_host] = parameters.names();
    let no_flow = parameters.runs_command() && trial.verdict.flows.is_empty();
    let leg = trial.verdict.deciding().map_or(parameters.broken_leg(), |flow| flow.leg);
    let Machine { kernel, hz, clock } = &trial.machine;
    TrialDocument {
        kernel,
        hz: *hz,
        clock: *clock,
        experiment: &trial.experiment.name,
        parameters: in_force(&trial.experiment.parameters, trial.facts.as_ref()),
        prediction: forecast(trial.prediction.as_ref()),
        measured: (!no_flow).then(|| measurement(trial.verdict.measured.as_ref(), parameters, leg)),
        survivor,
        lost_host,
        verdict: trial.verdict.word,
        reason: &trial.verdict.reason,
        artifacts: trial.artifacts.as_deref(),
        number: trial.identity.number,
        turn: trial.identity.turn,
        phase: trial.identity.phase,
        key: &trial.identity.key,
        failure: trial.failure.as_deref(),
        proof: &trial.verdict.proof.evidence,
        requirements: trial.verdict.requirements.iter().map(requirement).collect(),
        programs: programs::programs(trial),
        flows: programs::flows(trial),
        told: trial.told_through_proxy(),
    }
}

fn requirement(requirement: &Requirement) -> RequirementDocument<'_> {
    let Requirement { key, wanted, measured_s, found, met } = requirement;
    RequirementDocument { key, wanted, measured_s: measured_s.map(micros), met: *met, found }
}
