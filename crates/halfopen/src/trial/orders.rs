//! Faults that the trial's own programs order, by the control socket.

use super::Trial;
use super::commands::Watched;
use crate::control::{Asked, Wish};
use anyhow::Result;
use model::command::falls_silent;
use model::{IfIt, predict_socket};
use observe::clock::monotonic_ns;
use serde_json::{Value, json};
use spec::{FaultKind, Parameters, relevance, settings};
use std::time::Duration;
use timeline::What;
use tokio::time::Instant;

/// What is broken until it is healed.
const UNTIL_HEALED: Duration = Duration::from_secs(365 * 86_400);

impl Trial {
    /// Does what a program asks for, and answers it.
    pub(super) async fn obey(&mut self, asked: Asked, watched: &mut Watched) -> Result<()> {
        self.see_connections().await?;
        let answer = match asked.wish {
            Wish::Fault(settings) => match self.ordered(&settings, watched) {
                Ok(parameters) => {
                    self.look_closely().await?;
                    // One at a time: what can be healed makes room.
                    if watched.in_force().is_some_and(is_healed) {
                        self.heal(watched).await?;
                    }
                    Ok(self.break_as_ordered(parameters, watched).await?)
                }
                Err(why) => Err(why),
            },
            Wish::Heal => match watched.in_force() {
                Some(kind) if is_healed(kind) => Ok(self.heal(watched).await?),
                Some(kind) => Err(format!("`{kind}` cannot be healed")),
                None => Err("nothing is broken".into()),
            },
            Wish::When => Ok(self.when(watched).await?),
            Wish::Flows => Ok(self.connections()),
        };
        // Who asked may have gone.
        let _ = asked.answer.send(answer);
        Ok(())
    }

    /// The trial's settings with a fault that a program orders.
    fn ordered(&self, given: &[(String, String)], watched: &Watched) -> Result<Parameters, String> {
        if self.stage.server().is_err() {
            return Err("the server's host is gone".into());
        }
        let mut parameters = watched.whole.clone();
        // How long it lasts is the order's own.
        parameters.fault.duration = None;
        let host = parameters.fault.host.name();
        for (key, value) in given {
            if key == "fault.host" && value == host {
                continue;
            }
            if key == "fault.host" {
                return Err(format!(
                    "`host`: of this trial it is `{host}`, and cannot change: start it with \
                     --fault-host"
                ));
            }
            settings::apply(&mut parameters, key, value)
                .map_err(|why| format!("`{key}`: {why}"))?;
        }
        parameters.reboot_after_power_off();
        if parameters.fault.duration.is_some()
            && let Some(need) = relevance::lacks("fault.duration", &parameters)
        {
            return Err(format!(
                "`for`: it matters only with {}; `{}` ends by `heal`",
                need.with, parameters.fault.kind
            ));
        }
        match parameters.fault.kind {
            FaultKind::None => return Err("`none` breaks nothing".into()),
            FaultKind::Forget => {
                return Err(
                    "`forget` holds from before the connection: give it with --fault".into()
                );
            }
            FaultKind::Flap => {
                parameters.fault.duration.get_or_insert(UNTIL_HEALED);
            }
            _ => {}
        }
        if let Some(sieve) = parameters.fault.sieve()
            && !self.stage.network().is_ok_and(|network| network.sieves(sieve))
        {
            return Err("a path that drops some packets and lets others pass is built before the \
                        connection: give this fault with --fault and --set"
                .into());
        }
        // A deadline is the trial's, and counts from its beginning.
        parameters.deadline = None;
        parameters.validate().map_err(|(key, why)| format!("`{key}`: {why}"))?;
        Ok(parameters)
    }

    async fn break_as_ordered(
        &mut self,
        parameters: Parameters,
        watched: &mut Watched,
    ) -> Result<Value> {
        self.mark(What::Ordered { fault: Some(Box::new(parameters.fault.clone())) });
        self.plan.experiment.parameters.fault = parameters.fault.clone();
        watched.forecasts = self.look_at_flows(&parameters).await?;
        let at = Instant::now();
        let answer = watched.at(monotonic_ns());
        self.inject(&parameters).await?;
        watched.acts = Self::later_acts(&parameters, at);
        watched.parameters = parameters;
        Ok(answer)
    }

    async fn heal(&mut self, watched: &mut Watched) -> Result<Value> {
        self.restore(&watched.parameters.clone()).await?;
        self.is_healed(watched).await
    }

    /// What a program had ordered is over.
    pub(super) async fn is_healed(&mut self, watched: &mut Watched) -> Result<Value> {
        self.release();
        self.is_at_peace();
        self.mark(What::Ordered { fault: None });
        self.plan.experiment.parameters.fault = watched.whole.fault.clone();
        watched.parameters = watched.whole.clone();
        watched.acts = Vec::new();
        let answer = watched.at(monotonic_ns());
        watched.forecasts = self.look_at_flows(&watched.parameters.clone()).await?;
        Ok(answer)
    }

    /// What is predicted of each open connection from now on: if nothing changes, and if its peer fell
    /// silent now.
    async fn when(&mut self, watched: &Watched) -> Result<Value> {
        let open: Vec<_> = self.flows.open().collect();
        let mut found = Vec::new();
        for flow in open {
            let options = self.look_at_options(flow).await?;
            let own = watched.parameters.of_leg(self.flows.leg(flow));
            let facts = self.facts_of(Some(flow), options, &own)?;
            if facts.tcp.is_none() {
                continue;
            }
            let silent = report::json::predicted(&predict_socket(&facts, IfIt::StaysAsItIs));
            let stays = match watched.in_force() {
                None => json!({"outcome": "none", "earliest_s": null, "latest_s": null}),
                Some(_) if falls_silent(&own, &facts) => silent.clone(),
                Some(kind) => self.forecast(flow, watched).unwrap_or_else(
                    || json!({"unknown": format!("it was not open when `{kind}` came, and may be answered")}),
                ),
            };
            let mut one = self.connection(flow);
            one["prediction"] = stays;
            one["if_silent"] = silent;
            found.push(one);
        }
        Ok(json!({ "flows": found }))
    }

    /// What was predicted of a connection when the fault came, or since, from now on.
    fn forecast(&self, flow: timeline::FlowId, watched: &Watched) -> Option<Value> {
        let forecast = watched.forecasts.get(&flow)?;
        let from_ns = forecast.counts_from_ns(self.flows.fault_ns(), &self.flows.calls(flow))?;
        let passed = Duration::from_nanos(monotonic_ns().saturating_sub(from_ns));
        let mut prediction = forecast.prediction().clone();
        prediction.recount(|time| time.saturating_sub(passed));
        Some(report::json::predicted(&prediction))
    }

    fn connections(&self) -> Value {
        let all: Vec<_> = self.flows.all().map(|flow| self.connection(flow)).collect();
        json!({ "flows": all })
    }

    fn connection(&self, flow: timeline::FlowId) -> Value {
        let ends = self.flows.ends(flow).map(|ends| ends.seen_from(timeline::Side::Client));
        let (local, remote) = ends.unzip();
        let is_open = self.flows.open().any(|open| open == flow);
        json!({ "id": flow.0, "local": local, "remote": remote, "open": is_open })
    }
}

/// Whether something can be undone while the trial goes on.
const fn is_healed(kind: FaultKind) -> bool {
    matches!(
        kind,
        FaultKind::Flap
            | FaultKind::Blackhole
            | FaultKind::Mtu
            | FaultKind::Reject
            | FaultKind::ProcessFreeze
    )
}
