//! Faults that follow the first: planned, or ordered by the trial's own programs, by the control socket.

use super::Trial;
use super::watched::Watched;
use crate::control::{Asked, Wish};
use anyhow::Result;
use model::command::falls_silent;
use model::{IfIt, Prediction, Window, predict_socket};
use observe::clock::monotonic_ns;
use serde_json::{Value, json};
use spec::{FaultKind, Outcome, Parameters, Reference, relevance, settings};
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
                Ok(parameters) => Ok(self.break_next(parameters, watched, false).await?),
                Err(why) => Err(why),
            },
            Wish::Heal => match watched.in_force() {
                Some(kind) if kind.can_be_healed() => Ok(self.heal(watched).await?),
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
                    "`host`: this trial breaks the {host}'s host, and an order cannot change that: \
                     start the trial with --fault-host {value}"
                ));
            }
            settings::apply(&mut parameters, key, value)
                .map_err(|why| format!("`{}`: {why}", in_an_order(key)))?;
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
            kind @ (FaultKind::ProcessCrash | FaultKind::ProcessFreeze)
                if !self.server.has_program() =>
            {
                return Err(format!("`{kind}`: the {host}'s program has ended"));
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
        parameters.validate().map_err(|(key, why)| format!("`{}`: {why}", in_an_order(key)))?;
        Ok(parameters)
    }

    /// The planned fault of this place comes.
    pub(super) async fn break_as_planned(
        &mut self,
        place: usize,
        watched: &mut Watched,
    ) -> Result<()> {
        let parameters = watched.whole.with_fault(place);
        if let Some((came, _)) = &mut self.came {
            *came = watched.whole.up_to_fault(place);
        }
        self.break_next(parameters, watched, true).await.map(drop)
    }

    /// A fault comes. One at a time: what can be healed makes room, but for a path that stays away.
    async fn break_next(
        &mut self,
        parameters: Parameters,
        watched: &mut Watched,
        planned: bool,
    ) -> Result<Value> {
        self.look_closely().await?;
        let stays = parameters.fault.still.is_some();
        let replaced = watched.in_force().filter(|kind| kind.can_be_healed() && !stays);
        if replaced.is_some() {
            self.heal(watched).await?;
        }
        let fault = Some(Box::new(parameters.fault.clone()));
        self.mark(What::Ordered { fault, planned });
        self.plan.experiment.parameters.fault = parameters.fault.clone();
        self.look_at_all(&parameters, watched).await?;
        let at = Instant::now();
        let mut answer = watched.at(monotonic_ns());
        if let Some(kind) = replaced {
            answer["replaced"] = json!(kind.to_string());
        }
        self.inject(&parameters).await?;
        self.predict_from_all(&parameters, &mut watched.forecasts);
        if !stays {
            let planned_acts = watched.planned_acts();
            watched.acts = Self::later_acts(&parameters, at);
            watched.acts.extend(planned_acts);
        }
        if planned {
            watched.plan_next(at);
        }
        watched.parameters = parameters;
        (watched.is_ordered, watched.is_over) = (!planned, false);
        Ok(answer)
    }

    async fn heal(&mut self, watched: &mut Watched) -> Result<Value> {
        self.restore(&watched.parameters.clone()).await?;
        self.is_healed(watched).await
    }

    /// What was broken is undone.
    pub(super) async fn is_healed(&mut self, watched: &mut Watched) -> Result<Value> {
        self.release();
        self.is_at_peace();
        self.mark(What::Ordered { fault: None, planned: !watched.is_ordered });
        watched.parameters = watched.whole.clone();
        if watched.whole.fault.kind.can_be_healed() {
            watched.parameters.fault.kind = FaultKind::None;
        }
        self.plan.experiment.parameters.fault = watched.parameters.fault.clone();
        watched.acts = watched.planned_acts();
        (watched.is_ordered, watched.is_over) = (false, false);
        let answer = watched.at(monotonic_ns());
        self.look_at_all(&watched.parameters.clone(), watched).await?;
        Ok(answer)
    }

    /// What is known of each connection, unless all that its program does was known beforehand: it may have closed.
    async fn look_at_all(&mut self, parameters: &Parameters, watched: &mut Watched) -> Result<()> {
        if !parameters.follows_program() {
            watched.forecasts = self.look_at_flows(parameters).await?;
        }
        Ok(())
    }

    /// What is predicted of each open connection from now on: if nothing changes, and if its peer fell
    /// silent now.
    async fn when(&mut self, watched: &Watched) -> Result<Value> {
        let open: Vec<_> = self.flows.open().collect();
        let untimed = |windows, why: &str| Prediction::of(Reference::LastActivity, windows, why);
        let mut found = Vec::new();
        for flow in open {
            let options = self.look_at_options(flow).await?;
            let own = watched.parameters.of_leg(self.flows.leg(flow));
            let facts = self.facts_of(Some(flow), options, &own)?;
            if facts.tcp.is_none() {
                continue;
            }
            let silent = predict_socket(&facts, IfIt::StaysAsItIs);
            let stays = match watched.predicted_from() {
                None => untimed(vec![Window::new(Outcome::None, None)], "nothing is broken"),
                Some(_) if falls_silent(&own, &facts) => silent.clone(),
                Some(kind) => self.forecast(flow, watched).unwrap_or_else(|| {
                    let why = format!("it was not open when `{kind}` came, and may be answered");
                    Prediction { unknown: Some(why.clone()), ..untimed(Vec::new(), &why) }
                }),
            };
            let mut one = self.connection(flow);
            one["prediction"] = report::json::predicted(&stays);
            one["if_silent"] = report::json::predicted(&silent);
            found.push(one);
        }
        Ok(json!({ "flows": found }))
    }

    /// What was predicted of a connection when the fault came, or since, from now on.
    fn forecast(&self, flow: timeline::FlowId, watched: &Watched) -> Option<Prediction> {
        let forecast = watched.forecasts.get(&flow)?;
        let from_ns = forecast.counts_from_ns(self.flows.fault_ns(), &self.flows.calls(flow))?;
        let passed = Duration::from_nanos(monotonic_ns().saturating_sub(from_ns));
        let mut prediction = forecast.prediction().clone();
        prediction.recount(|time| time.saturating_sub(passed));
        Some(prediction)
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

/// What a setting of a fault is called in an order.
fn in_an_order(key: &str) -> &str {
    match key.strip_prefix("fault.") {
        Some("duration") => "for",
        Some(name) => name,
        None => key,
    }
}
