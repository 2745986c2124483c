//! A trial whose client is a command: from the server's readiness to the end of the programs.

use super::fault::Later;
use super::{AFTERMATH, Trial};
use crate::channel::{Ending, Message};
use crate::instruments::Seen;
use anyhow::Result;
use model::command::{Conditional, Observed, Unread, falls_silent, predict_program};
use model::{ObservedCall, Prediction};
use nix::sys::signal::Signal;
use observe::clock::monotonic_ns;
use serde_json::{Value, json};
use spec::facts::TcpFacts;
use spec::{Facts, FaultKind, Leg, Parameters, Part, Reference, SocketOptions};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use timeline::event::{FaultStep, Phase};
use timeline::{Ends, Event, FlowId, Side, Source, What};
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

/// How long a server may take until it is ready, and a client until it is connected.
pub(super) const READY_MOST: Duration = Duration::from_secs(60);
/// How long a program's output is waited for that the fault is to follow.
const OUTPUT_MOST: Duration = Duration::from_secs(3600);
/// How long a program may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(1);
/// Where nothing breaks and no deadline is set.
const FOR_EVER: Duration = Duration::from_secs(365 * 86_400);

/// How long a tap may take to show what has passed.
const SHOWN_MOST: Duration = Duration::from_millis(200);
/// What a program did that has ended is shown by then.
const SHOWN: Duration = Duration::from_millis(10);
/// Segments of one write, and writes without a pause, come within this time.
const TOGETHER: Duration = Duration::from_millis(1);

/// What is predicted of a connection, and from what.
pub(super) struct Forecast {
    pub(super) facts: Facts,
    unread: Unread,
    conditional: Conditional,
    /// The options that the socket was last seen to have.
    pub(super) options: Option<SocketOptions>,
    /// Whether it was open when the fault came.
    was_open: bool,
    /// When something was last received before the fault.
    received_ns: Option<u64>,
    /// When the timer will have expired of which it is unknown whether it is that of a loss probe
    /// or of a retransmission; afterwards it can be told.
    clear_at: Option<Instant>,
}

impl Forecast {
    fn new(facts: Facts, unread: Unread, conditional: Conditional, was_open: bool) -> Self {
        // A loss probe's, or that of a retransmission which is overdue: either is sooner than the
        // RTO.
        let is_unclear = |tcp: &&TcpFacts| {
            let sooner = u64::from(tcp.timer_expires_ms) * 2_000 < u64::from(tcp.rto_us);
            tcp.timer == 1 && tcp.unacked > 1 && tcp.retransmits == 0 && sooner
        };
        let tcp = facts.tcp.as_ref().filter(|_| conditional.from_sample).filter(is_unclear);
        let expired = |tcp: &TcpFacts| {
            Instant::now() + Duration::from_millis(tcp.timer_expires_ms.into()) + EXPIRED
        };
        let clear_at = tcp.map(expired);
        let options = facts.tcp.as_ref().and_then(|tcp| tcp.options_set.clone());
        Self { facts, unread, conditional, options, was_open, received_ns: None, clear_at }
    }

    /// That of its socket.
    pub(super) fn inode(&self) -> Option<u32> {
        self.facts.tcp.as_ref().and_then(|tcp| tcp.inode)
    }

    /// What is predicted.
    pub(super) const fn prediction(&self) -> &Prediction {
        &self.conditional.prediction
    }

    /// From which moment its times count, nanoseconds of `CLOCK_MONOTONIC`; `None` where that is not
    /// known.
    pub(super) fn counts_from_ns(&self, fault_ns: u64, calls: &[ObservedCall]) -> Option<u64> {
        if self.conditional.from_sample {
            return self.facts.tcp.as_ref().map(|tcp| tcp.sampled_at_ns);
        }
        match self.conditional.prediction.reference {
            Reference::Fault => Some(fault_ns),
            Reference::FirstWrite => calls.first().map(|call| call.at_ns),
            Reference::LastActivity => self.received_ns,
            Reference::Connect | Reference::Close | Reference::LastRequest => None,
        }
    }

    fn is_clear(&self, now: Instant) -> bool {
        self.clear_at.is_some_and(|at| at <= now)
    }
}

/// Two ticks at HZ 100, and a slot: by then a short timer has expired.
const EXPIRED: Duration = Duration::from_millis(30);

pub(super) type Forecasts = BTreeMap<FlowId, Forecast>;

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
}

impl Watched {
    /// What is broken.
    pub(super) fn in_force(&self) -> Option<FaultKind> {
        Some(self.parameters.fault.kind).filter(|kind| *kind != FaultKind::None)
    }

    /// Whether what is broken was ordered by a program.
    fn is_ordered(&self) -> bool {
        self.parameters.fault != self.whole.fault
    }

    /// The document that says when something was done.
    pub(super) fn at(&self, at_ns: u64) -> Value {
        json!({ "at_s": (at_ns as f64 - self.fault_ns as f64) / 1e9 })
    }
}

impl Trial {
    /// The trial, once the network is built.
    pub(super) async fn story_of_commands(
        &mut self,
        parameters: &Parameters,
        turn: SemaphorePermit<'_>,
    ) -> Result<Ending> {
        self.mark(What::Phase(Phase::Connecting));
        self.client_may_end = false;
        if let Some(pattern) = &parameters.fault.on_output {
            self.pattern = Some(regex::Regex::new(pattern)?);
        }
        // What checks whether the server is ready is not what is looked at.
        self.flows.ignore(true);
        let asking = parameters.part("client");
        let mut serving = vec![parameters.part("server")];
        serving.extend(parameters.third_there().then(|| parameters.part("proxy")));
        for part in serving {
            self.give_a_port(parameters, part);
            self.start(part).await?;
            if let Some(why) = self.wait_until_ready(parameters, part).await? {
                return Ok(Ending::Disturbed(why));
            }
        }
        self.forward();
        self.flows.ignore(false);
        drop(turn);
        let mut forecasts = Forecasts::new();
        let fault_at;
        if parameters.fault.kind == FaultKind::None {
            self.mark(What::Phase(Phase::Connected));
            self.look_at_links().await?;
            fault_at = Instant::now();
            self.inject(parameters).await?;
            self.start(asking).await?;
        } else {
            self.start(asking).await?;
            if let Some(why) = self.wait_for_moment(parameters, asking).await? {
                return Ok(Ending::Disturbed(why));
            }
            forecasts = self.look_at_flows(parameters).await?;
            self.mark(What::Phase(Phase::Connected));
            self.look_at_links().await?;
            fault_at = Instant::now();
            self.inject(parameters).await?;
        }
        self.mark(What::Phase(Phase::Watching));
        self.watch_commands(parameters, fault_at, forecasts).await?;
        self.mark(What::Phase(Phase::Aftermath));
        self.end_commands(parameters).await?;
        Ok(Ending::Complete)
    }

    /// halfopen's own proxy listens at the server's port, where it is not told another.
    fn give_a_port(&mut self, parameters: &Parameters, part: Part) {
        let server = self.plan.addresses.of(parameters.part("server"));
        let is_proxy = parameters.third_there() && part == parameters.part("proxy");
        if is_proxy
            && parameters.peer(part).listen.is_none()
            && let (Some(server), Some(own)) = (server, self.plan.addresses.of_mut(part))
        {
            own.set_port(server.port());
        }
    }

    /// Waits for the moment of the fault. Returns why it does not come.
    async fn wait_for_moment(
        &mut self,
        parameters: &Parameters,
        asking: Part,
    ) -> Result<Option<String>> {
        let after = parameters.fault.after.as_nanos() as u64;
        let most = if self.pattern.is_some() { OUTPUT_MOST } else { READY_MOST };
        let most = Instant::now() + most;
        loop {
            let due = self.fault_due(after);
            let now = monotonic_ns();
            if due.is_some_and(|due| due <= now) {
                self.look_closely().await?;
                return self.see_connections().await.map(|()| None);
            }
            let has_left = self.host(asking).end().is_some();
            if has_left {
                // The taps may not have shown yet what it did.
                self.follow_until(Instant::now() + SHOWN, |_| false).await?;
            }
            let due = self.fault_due(after);
            let is_open = self.flows.open().next().is_some();
            if let Some(how) = self.host(asking).end().filter(|_| due.is_none() || !is_open) {
                let what = match self.pattern {
                    Some(_) if due.is_none() => "no line of output matched `fault.on_output`",
                    _ if self.flows.any_is_established() => {
                        "its connections ended before the fault (`--after`)"
                    }
                    _ if parameters.third_there() => "it had no connection with the proxy's host",
                    _ => "it had no connection with the server's host",
                };
                return Ok(Some(format!("{how}; {what}")));
            }
            if due.is_none() && Instant::now() >= most {
                let next = if parameters.third_there() { "proxy" } else { "server" };
                let address = self.address(parameters.part(next))?.ip();
                return Ok(Some(match self.pattern {
                    Some(_) => "no line of output matched `fault.on_output` within an hour".into(),
                    None => format!(
                        "the client's program had no connection with the {next}'s host within {} s \
                         (the host is called `{next}`, and its address is {address})",
                        READY_MOST.as_secs()
                    ),
                }));
            }
            let until = due.map_or(most, |due| Instant::now() + Duration::from_nanos(due - now));
            self.follow_until(until, |trial| {
                trial.fault_due(after) != due || (!has_left && trial.host(asking).end().is_some())
            })
            .await?;
        }
    }

    /// What a program writes can be faster than what the taps show: waits until they show what the
    /// kernel has.
    pub(super) async fn see_connections(&mut self) -> Result<()> {
        let mut pairs = vec![[Part::Client, Part::Server]];
        if self.plan.addresses.third.is_some() {
            pairs.extend([[Part::Third, Part::Client], [Part::Third, Part::Server]]);
        }
        let mut connections = Vec::new();
        for [near, far] in pairs {
            let (client, server) = (self.address(near)?.ip(), self.address(far)?.ip());
            let host = self.namespace(near)?;
            connections.extend(self.host_mut(near).sockets(&host)?.connections(client, server)?);
        }
        let ends = |(client, server)| Ends { client, server };
        let connections: Mutex<Vec<_>> = Mutex::new(connections.into_iter().map(ends).collect());
        let are_shown = |trial: &Self| {
            let mut unseen = connections.lock().unwrap_or_else(PoisonError::into_inner);
            unseen.retain(|ends| !trial.flows.shows(*ends));
            unseen.is_empty()
        };
        self.follow_until(Instant::now() + SHOWN_MOST, are_shown).await?;
        Ok(())
    }

    /// When the fault is due, nanoseconds of `CLOCK_MONOTONIC`, as far as that is known.
    fn fault_due(&self, after_ns: u64) -> Option<u64> {
        if self.pattern.is_some() {
            return self.matched_ns.map(|at| at + after_ns);
        }
        self.flows.began_ns(after_ns).map(|at| at + after_ns)
    }

    /// What is known of each open connection at the last moment before the fault, and what is
    /// predicted of it.
    pub(super) async fn look_at_flows(&mut self, parameters: &Parameters) -> Result<Forecasts> {
        // What passes the proxy by is not what is asked about.
        let is_asked = |flow: &FlowId| self.flows.leg(*flow) != Leg::Past;
        let mut open: Vec<_> = self.flows.open().filter(is_asked).collect();
        // The first that is predicted is told: one that breaks.
        open.sort_by_key(|flow| (self.flows.leg(*flow) != parameters.broken_leg(), *flow));
        let mut options = BTreeMap::new();
        for flow in &open {
            // First, since a descriptor of the socket must not be held across the fault.
            options.insert(*flow, self.look_at_options(*flow).await?);
        }
        let mut forecasts = Forecasts::new();
        for flow in open {
            let Some(ends) = self.flows.ends(flow) else { continue };
            let own = &parameters.of_leg(self.flows.leg(flow));
            let facts = self.facts_of(Some(flow), options.remove(&flow).flatten(), own)?;
            if facts.tcp.is_none() {
                // It has ended just now.
                continue;
            }
            let (local, remote) = ends.seen_from(Side::Server);
            let sampled_at_ns = monotonic_ns();
            let [_, far] = self.parts_of(flow);
            let host = self.namespace(far)?;
            let sample = self.host_mut(far).sockets(&host)?.sample(local, remote)?;
            let is_left = sample.as_ref().is_some_and(|sample| sample.receive_queue > 0);
            let unread = if is_left { Unread::Open } else { Unread::No };
            if let Some(sample) = sample {
                let what = What::Socket(Box::new(sample));
                let event = Event::new(sampled_at_ns, Source::socket(far), what).of(flow);
                self.take(Seen::Event(event, None));
            }
            let observed = Observed { unread, ..Observed::default() };
            let conditional = predict_program(own, &facts, &observed);
            self.tell_facts(flow, &facts);
            let received_ns = self.flows.received_ns(flow);
            if forecasts.is_empty() && self.flows.leg(flow) == parameters.broken_leg() {
                let number = self.plan.number;
                self.report(Message::Facts(number, Box::new(facts.clone())));
                let mut prediction = conditional.prediction.clone();
                let sampled_ns = facts.tcp.as_ref().map(|tcp| tcp.sampled_at_ns);
                if let Some((from, to)) =
                    received_ns.zip(sampled_ns).filter(|_| conditional.from_sample)
                {
                    let since = Duration::from_nanos(to.saturating_sub(from));
                    prediction.recount(|time| time.saturating_add(since));
                }
                self.report(Message::Prediction(number, Box::new(prediction)));
            }
            let forecast = Forecast::new(facts, unread, conditional, true);
            forecasts.insert(flow, Forecast { received_ns, ..forecast });
        }
        Ok(forecasts)
    }

    fn tell_facts(&mut self, flow: FlowId, facts: &Facts) {
        let sampled_at_ns = facts.tcp.as_ref().map_or_else(monotonic_ns, |tcp| tcp.sampled_at_ns);
        let owned = facts.tcp.as_ref().is_some_and(|tcp| tcp.options_set.is_some());
        self.flows.looked_at(flow, sampled_at_ns, owned);
        let what = What::Facts(Box::new(facts.clone()));
        let [near, _] = self.parts_of(flow);
        let event = Event::new(monotonic_ns(), Source::socket(near), what).of(flow);
        self.take(Seen::Event(event, None));
    }

    /// A program has made a call, or something has come that was on its way: what is predicted of the
    /// connection is predicted anew.
    async fn look_again(
        &mut self,
        flow: FlowId,
        parameters: &Parameters,
        forecasts: &mut Forecasts,
    ) -> Result<()> {
        let leg = self.flows.leg(flow);
        if leg == Leg::Past {
            self.flows.looked_at(flow, monotonic_ns(), false);
            return Ok(());
        }
        let parameters = &parameters.of_leg(leg);
        let before = forecasts.get(&flow);
        let unread = before.map_or(Unread::No, |forecast| forecast.unread);
        let was_open = before.is_some_and(|forecast| forecast.was_open);
        let received_ns = before.and_then(|forecast| forecast.received_ns);
        let facts = match before {
            Some(forecast) if !forecast.conditional.from_sample => forecast.facts.clone(),
            _ => {
                let options = self.look_at_options(flow).await?;
                self.facts_of(Some(flow), options, parameters)?
            }
        };
        let observed = Observed {
            calls: self.flows.calls(flow),
            unread,
            behind: self.flows.is_behind(flow),
            heard: self.flows.has_heard(flow),
            ..Observed::default()
        };
        let is_silent = falls_silent(parameters, &facts);
        let is_known = facts.tcp.as_ref().is_some_and(|tcp| tcp.options_set.is_some());
        let can_tell = was_open || is_silent && is_known;
        if let Some(forecast) = forecasts.get_mut(&flow) {
            forecast.clear_at = None;
        }
        if !can_tell || facts.tcp.is_none() {
            // It has ended, or nothing can be said of it.
            self.flows.looked_at(flow, monotonic_ns(), is_known);
            return Ok(());
        }
        if is_silent && is_known {
            self.tell_facts(flow, &facts);
        } else {
            self.flows.looked_at(flow, monotonic_ns(), is_known && is_silent);
        }
        let conditional = predict_program(parameters, &facts, &observed);
        let forecast = Forecast::new(facts, unread, conditional, was_open);
        forecasts.insert(flow, Forecast { received_ns, ..forecast });
        Ok(())
    }

    /// Watches until the client's program and the connections of the moment of the fault have ended,
    /// or the deadline has passed, and ends faults that end.
    async fn watch_commands(
        &mut self,
        parameters: &Parameters,
        fault_at: Instant,
        forecasts: Forecasts,
    ) -> Result<()> {
        let mut watched = Watched {
            whole: parameters.clone(),
            parameters: parameters.clone(),
            fault_at,
            fault_ns: self.flows.fault_ns(),
            acts: Self::later_acts(parameters, fault_at),
            forecasts,
        };
        loop {
            while let Some(asked) = self.waiting.pop_front() {
                self.obey(asked, &mut watched).await?;
            }
            let Watched { forecasts, acts, .. } = &watched;
            let breaks = watched.in_force().is_some();
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
            self.follow_until(next, |trial| {
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
                    Later::Restore => self.restore(&parameters).await?,
                    Later::ChangeSysctls => self.change_sysctls(&parameters)?,
                }
                if act == Later::Restore && watched.is_ordered() {
                    self.is_healed(&mut watched).await?;
                }
            }
        }
        if watched.acts.iter().any(|(_, act)| *act == Later::Restore) {
            self.mark(What::Fault(FaultStep::Outlasted));
        }
        let until = Instant::now() + AFTERMATH;
        if parameters.survivor_accepts() {
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
        let mut open = forecasts.iter().filter(|(_, forecast)| forecast.was_open);
        let client = self.plan.experiment.parameters.part("client");
        (client == Part::Server || self.host(client).has_exited)
            && open.all(|(flow, _)| self.flows.has_ended(*flow))
    }

    /// When the trial ends: by the latest of what is predicted now. What a program orders does not end
    /// it.
    fn deadline_of_commands(&self, watched: &Watched) -> Instant {
        let Watched { whole, fault_at, forecasts, .. } = watched;
        let after = match whole.fault.kind {
            FaultKind::None => whole.deadline.unwrap_or(FOR_EVER),
            _ => self.latest_end(whole, forecasts),
        };
        *fault_at + after
    }

    /// How long after the fault that is.
    fn latest_end(&self, parameters: &Parameters, forecasts: &Forecasts) -> Duration {
        if let Some(exact) = parameters.deadline.filter(|_| !parameters.deadline_extends) {
            return exact;
        }
        let fault_ns = self.flows.fault_ns();
        let deadlines = forecasts.iter().map(|(flow, forecast)| {
            let Forecast { facts, conditional, .. } = forecast;
            let sampled = facts.tcp.as_ref().map(|tcp| tcp.sampled_at_ns);
            let from = match self.flows.calls(*flow).first() {
                _ if conditional.from_sample => sampled,
                call => call.map(|call| call.at_ns),
            };
            let waited = from.map_or(0, |at| at.saturating_sub(fault_ns));
            Duration::from_nanos(waited) + self.deadline(parameters, &conditional.prediction)
        });
        deadlines.max().unwrap_or(self.bench.never)
    }

    /// Ends the programs, and records what follows.
    async fn end_commands(&mut self, parameters: &Parameters) -> Result<()> {
        self.finish_destroying().await?;
        self.look_at_links().await?;
        let count = self.stage.network()?.lost_frames();
        if count > 0 {
            self.mark_as(Source::Instrument, What::Lost { count });
        }
        for part in Part::ALL {
            if let Some(event) = self.host(part).omitted() {
                self.take(Seen::Event(event, None));
            }
        }
        self.client_may_end = true;
        // Of several that are left, the client's first.
        let client = parameters.part("client");
        let last = if client == Part::Third { Part::Client } else { Part::Third };
        for part in
            [Part::Client, Part::Third].into_iter().filter(|part| *part != last).chain([last])
        {
            // It may have ended.
            let Ok(peer) = self.host_mut(part).peer() else { continue };
            let _ = peer.signal(Signal::SIGTERM).await;
            let is_gone = |trial: &Self| trial.host(part).end().is_some();
            self.follow_until(Instant::now() + GRACE, is_gone).await?;
            self.host_mut(part).end_programs().await?;
        }
        let settle = Duration::from_millis(50) + parameters.path.rtt * 3;
        self.follow_until(Instant::now() + settle, |_| false).await?;
        Ok(())
    }
}
