//! What a trial's object says of commands and their connections.

use super::measurement::{Measurement, measurement};
use super::prediction::{Forecast, forecast, micros};
use crate::trial::Trial;
use serde::Serialize;
use spec::command::Command;
use spec::{Leg, Parameters, SocketOptions};
use timeline::{Source, What};
use verdict::{EndedBy, FlowVerdict, Word};

/// The hosts' programs; null where it is halfopen's own.
#[derive(Serialize)]
pub(super) struct Programs<'a> {
    client: Option<ProgramDocument<'a>>,
    /// Absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<ProgramDocument<'a>>,
    server: Option<ProgramDocument<'a>>,
}

#[derive(Serialize)]
struct ProgramDocument<'a> {
    command: &'a [String],
    exited_s: Option<f64>,
    exit: Option<i32>,
    signal: Option<String>,
    output: Option<String>,
}

#[derive(Serialize)]
pub(super) struct FlowDocument<'a> {
    id: u32,
    /// With a proxy: `downstream` (client and proxy), `upstream` (proxy and server) or `past` it.
    #[serde(skip_serializing_if = "Option::is_none")]
    leg: Option<Leg>,
    /// The connection on the proxy's other side that belongs to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    paired_with: Option<u32>,
    /// Why that is not known, where several connections come into question.
    #[serde(skip_serializing_if = "Option::is_none")]
    why_unpaired: Option<&'a str>,
    /// The host of the local end, which is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'static str>,
    local: String,
    remote: String,
    owner: Option<&'a str>,
    pid: Option<u32>,
    opened_s: Option<f64>,
    options: OptionsDocument,
    prediction: Forecast<'a>,
    measured: FlowMeasurement<'a>,
    verdict: Option<Word>,
    reason: &'a str,
}

/// A socket's options; each null where it could not be read.
#[derive(Serialize, Default)]
pub(crate) struct OptionsDocument {
    keepalive: Option<bool>,
    keepidle_s: Option<u32>,
    keepintvl_s: Option<u32>,
    keepcnt: Option<u32>,
    user_timeout_ms: Option<u32>,
    nodelay: Option<bool>,
    rto_max_ms: Option<u32>,
}

impl OptionsDocument {
    pub(crate) fn of(options: Option<&SocketOptions>) -> Self {
        options.map_or_else(Self::default, |options| Self {
            keepalive: options.keepalive,
            keepidle_s: options.keepidle_s,
            keepintvl_s: options.keepintvl_s,
            keepcnt: options.keepcnt,
            user_timeout_ms: options.user_timeout_ms,
            nodelay: options.nodelay,
            rto_max_ms: options.rto_max_ms,
        })
    }
}

/// A measurement, and what ended the connection.
struct FlowMeasurement<'a> {
    measured: Measurement<'a>,
    ended_by: Option<EndedBy>,
    ended_s: Option<f64>,
}

impl Serialize for FlowMeasurement<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::{Error, SerializeMap};
        let value = serde_json::to_value(&self.measured).map_err(S::Error::custom)?;
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in value.as_object().into_iter().flatten() {
            map.serialize_entry(key, value)?;
        }
        map.serialize_entry("ended_by", &self.ended_by)?;
        map.serialize_entry("ended_s", &self.ended_s)?;
        map.end()
    }
}

pub(super) fn programs(trial: &Trial) -> Option<Programs<'_>> {
    let parameters = &trial.experiment.parameters;
    let of = |host: &str| {
        let part = parameters.part(host);
        program(
            trial,
            &parameters.peer(part).command,
            Source::program(part),
            &format!("{host}.out"),
        )
    };
    let proxy = || parameters.third_there().then(|| of("proxy")).flatten();
    let programs = || Programs { client: of("client"), proxy: proxy(), server: of("server") };
    parameters.runs_command().then(programs)
}

fn program<'a>(
    trial: &Trial,
    command: &'a Command,
    source: Source,
    output: &str,
) -> Option<ProgramDocument<'a>> {
    if command.words.is_empty() {
        return None;
    }
    let exited = trial.timeline.events().iter().find_map(|event| match event.what {
        What::Exited { code, signal } if event.source == source => {
            Some((event.at_ns, code, signal))
        }
        _ => None,
    });
    let exited_s = exited
        .zip(trial.timeline.fault_at())
        .map(|((at_ns, ..), fault_at)| micros((at_ns as f64 - fault_at as f64) / 1e9));
    Some(ProgramDocument {
        command: &command.words,
        exited_s,
        exit: exited.and_then(|(_, code, _)| code),
        signal: exited.and_then(|(.., signal)| signal).map(spec::command::signal_name),
        output: trial.directory.as_ref().map(|directory| format!("{directory}/{output}")),
    })
}

pub(super) fn flows(trial: &Trial) -> Option<Vec<FlowDocument<'_>>> {
    let parameters = &trial.experiment.parameters;
    let flows = || trial.verdict.flows.iter().map(|one| flow(one, parameters)).collect();
    parameters.predicts_anew().then(flows)
}

fn flow<'a>(flow: &'a FlowVerdict, parameters: &Parameters) -> FlowDocument<'a> {
    let has_proxy = parameters.third_there();
    let [near, _] = parameters.parts(flow.leg);
    FlowDocument {
        id: flow.id.0,
        leg: has_proxy.then_some(flow.leg),
        paired_with: flow.paired_with.map(|id| id.0),
        why_unpaired: flow.why_unpaired.as_deref(),
        host: has_proxy.then(|| parameters.hosts()[near as usize]),
        local: flow.local.to_string(),
        remote: flow.remote.to_string(),
        owner: flow.owner.as_ref().map(|owner| owner.process.as_str()),
        pid: flow.owner.as_ref().map(|owner| owner.pid),
        opened_s: flow.opened_s.map(micros),
        options: OptionsDocument::of(flow.options.as_ref()),
        prediction: forecast(flow.prediction.as_ref()),
        measured: FlowMeasurement {
            measured: measurement(flow.measured.as_ref(), parameters, flow.leg),
            ended_by: flow.ended_by,
            ended_s: flow.ended_s.map(micros),
        },
        verdict: flow.word,
        reason: &flow.reason,
    }
}
