//! How a trial is watched where predictions are made anew: until the program and its connections have
//! ended, or the deadline has passed.

use super::fault::Later;
use super::forecast::{Forecast, Forecasts};
use super::{AFTERMATH, Trial};
use anyhow::Result;
use observe::clock::monotonic_ns;
use serde_json::{Value, json};
use spec::{FaultKind, Parameters, Part};
use std::time::Duration;
use timeline::What;
use timeline::event::FaultStep;
use tokio::time::Instant;

/// Where nothing breaks and no deadline is set.
const FOR_EVER: Duration = Duration::from_secs(365 * 86_400);

/// The trial goes on so long beyond a planned fault, at least.
const BEYOND: Duration = Duration::from_secs(2);

/// Segments of one write, and writes without a pause, come within this time.
const TOGETHER: Duration = Duration::from_millis(1);

/// How a trial is watched: what is broken now, what is still to be done, what is predicted.
pub(super) struct Watched {
    /// The trial's own settings.
    pub(super) whole: Parameters,
    /// Those in force: with the fault that a program has ordered, if one has.
    pub(super) parameters: Parameters,
    /// What times count from: the trial's own fault, or that nothing is broken by it.
    fault_at: Instant,
    fault_ns: u64,
    pub(super) acts: Vec<(Instant, Later)>,
    pub(super) forecasts: Forecasts,
    /// Whether what is broken was ordered by a program.
    pub(super) is_ordered: bool,
    /// Whether the fault in force has ended as planned.
    pub(super) is_over: bool,
    /// Planned faults that have come.
    came: usize,
}

impl Watched {
    fn new(whole: &Parameters, fault_at: Instant, fault_ns: u64, forecasts: Forecasts) -> Self {
        let mut watched = Self {
            whole: whole.clone(),
            parameters: whole.clone(),
            fault_at,
            fault_ns,
            acts: Trial::later_acts(whole, fault_at),
            forecasts,
            is_ordered: false,
            is_over: false,
            came: 0,
        };
        watched.plan_next(fault_at);
        watched
    }

    /// What is broken.
    pub(super) fn in_force(&self) -> Option<FaultKind> {
        self.predicted_from().filter(|_| !self.is_over)
    }

    /// What was broken last: what is predicted goes on from it, when it is over too.
    pub(super) fn predicted_from(&self) -> Option<FaultKind> {
        Some(self.parameters.fault.kind).filter(|kind| *kind != FaultKind::None)
    }

    /// A planned fault has come: the next one counts from it.
    pub(super) fn plan_next(&mut self, at: Instant) {
        self.came += 1;
        if let Some(next) = self.whole.further.get(self.came - 1) {
            self.acts.push((at + next.after, Later::Break(self.came)));
        }
        self.acts.sort_by_key(|(at, _)| *at);
    }

    /// Planned faults that are to come.
    pub(super) fn planned_acts(&self) -> Vec<(Instant, Later)> {
        let is_planned = |(_, act): &&(Instant, Later)| matches!(act, Later::Break(_));
        self.acts.iter().filter(is_planned).copied().collect()
    }

    /// The document that says when something was done.
    pub(super) fn at(&self, at_ns: u64) -> Value {
        json!({ "at_s": (at_ns as f64 - self.fault_ns as f64) / 1e9 })
    }
}

impl Trial {
    /// Watches until the client's program and the connections of the moment of the fault have ended,
    /// or the deadline has passed; predicts anew what changes, and does what is planned or ordered.
    pub(super) async fn watch_anew(
        &mut self,
        parameters: &Parameters,
        fault_at: Instant,
        forecasts: Forecasts,
    ) -> Result<()> {
        let fault_ns = self.flows.fault_ns();
        let first = forecasts.values().next().map(|forecast| forecast.facts.clone());
        let is_followed = !parameters.runs_command() && !parameters.further.is_empty();
        self.came = first.filter(|_| is_followed).map(|first| (parameters.up_to_fault(0), first));
        let mut watched = Watched::new(parameters, fault_at, fault_ns, forecasts);
        loop {
            while let Some(asked) = self.waiting.pop_front() {
                self.obey(asked, &mut watched).await?;
            }
            let Watched { forecasts, acts, .. } = &watched;
            let breaks = watched.predicted_from().is_some();
            let deadline = self.deadline_of_commands(&watched);
            let clear = forecasts.values().filter_map(|forecast| forecast.clear_at).min();
            let options_ns = self.flows.options_due_ns().filter(|_| breaks);
            let left = |at_ns: u64| Duration::from_nanos(at_ns.saturating_sub(monotonic_ns()));
            let options = options_ns.map(|at_ns| Instant::now() + left(at_ns));
            let times = [Some(deadline), acts.first().map(|(at, _)| *at), clear, options];
            let next = times.into_iter().flatten().min().unwrap_or(deadline);
            let is_done = |trial: &Self| trial.commands_are_done(forecasts);
            let is_outdated = |trial: &Self| {
                let due_ns = trial.flows.options_due_ns();
                let sooner = due_ns.is_some_and(|due| options_ns.is_none_or(|at| due < at));
                breaks && (sooner || !trial.flows.outdated().is_empty())
            };
            self.follow_exactly_until(next, |trial| {
                is_done(trial) || is_outdated(trial) || !trial.waiting.is_empty()
            })
            .await?;
            if !self.waiting.is_empty() {
                continue;
            }
            if breaks && self.see_changes(&mut watched).await? {
                continue;
            }
            let is_done = self.commands_are_done(&watched.forecasts);
            if is_done || Instant::now() >= deadline {
                break;
            }
            if watched.acts.first().is_some_and(|(at, _)| *at <= Instant::now()) {
                let act = watched.acts.remove(0).1;
                let parameters = watched.parameters.clone();
                match act {
                    Later::Restore => {
                        self.restore(&parameters).await?;
                        watched.is_over = true;
                        if watched.is_ordered {
                            self.is_healed(&mut watched).await?;
                        }
                    }
                    Later::Break(place) => self.break_as_planned(place, &mut watched).await?,
                    Later::ChangeSysctls => self.change_sysctls(&parameters)?,
                }
            }
        }
        if watched.acts.iter().any(|(_, act)| *act == Later::Restore) {
            self.mark(What::Fault(FaultStep::Outlasted));
        }
        let until = Instant::now() + AFTERMATH;
        if parameters.survivor_accepts() && parameters.runs_command() {
            self.see_closed(&watched.forecasts, until).await?;
        }
        self.follow_until(until, |_| false).await?;
        Ok(())
    }

    /// Looks again at connections of which something has changed, and says whether there were any.
    async fn see_changes(&mut self, watched: &mut Watched) -> Result<bool> {
        let parameters = watched.parameters.clone();
        let forecasts = &mut watched.forecasts;
        let mut changed = self.options_changed(&parameters, forecasts).await?;
        let outdated = self.flows.outdated();
        if !outdated.is_empty() {
            // What belongs together comes together.
            self.follow_until(Instant::now() + TOGETHER, |_| false).await?;
        }
        changed.extend(outdated);
        let now = Instant::now();
        let cleared = forecasts.iter().filter(|(_, forecast)| forecast.is_clear(now));
        changed.extend(cleared.map(|(flow, _)| *flow));
        for flow in &changed {
            self.look_again(*flow, &parameters, forecasts).await?;
        }
        Ok(!changed.is_empty())
    }

    /// A server does not end with its connections, nor does a program in the middle.
    fn commands_are_done(&self, forecasts: &Forecasts) -> bool {
        if !self.plan.experiment.parameters.runs_command() {
            return self.is_told();
        }
        let mut open = forecasts.iter().filter(|(_, forecast)| forecast.was_open);
        let client = self.plan.experiment.parameters.part("client");
        (client == Part::Server || self.host(client).has_exited)
            && open.all(|(flow, _)| self.flows.has_ended(*flow))
    }

    /// When the trial ends: by the latest of what is predicted now. What a program orders does not end
    /// it.
    fn deadline_of_commands(&self, watched: &Watched) -> Instant {
        let Watched { whole, fault_at, .. } = watched;
        let after = match whole.fault.kind {
            FaultKind::None => whole.deadline.unwrap_or(FOR_EVER),
            _ => match whole.deadline.filter(|_| !whole.deadline_extends) {
                Some(exact) => return *fault_at + exact,
                None => self.latest_end(watched),
            },
        };
        let ends = *fault_at + after;
        let planned = watched.planned_acts().into_iter();
        planned.map(|(at, _)| at + BEYOND).fold(ends, Instant::max)
    }

    /// How long after the first fault the latest end is that is predicted.
    fn latest_end(&self, watched: &Watched) -> Duration {
        let Watched { parameters, fault_ns, forecasts, .. } = watched;
        let deadlines = forecasts.iter().map(|(flow, forecast)| {
            let Forecast { facts, conditional, .. } = forecast;
            let sampled = facts.tcp.as_ref().map(|tcp| tcp.sampled_at_ns);
            let from = match self.flows.calls(*flow).first() {
                _ if conditional.from_sample => sampled,
                call => call.map(|call| call.at_ns),
            };
            let waited = from.unwrap_or(self.flows.fault_ns()).saturating_sub(*fault_ns);
            Duration::from_nanos(waited) + self.deadline(parameters, &conditional.prediction)
        });
        deadlines.max().unwrap_or(self.bench.never)
    }
}
