//! A trial whose client is a command: from the server's readiness to the end of the programs.

use super::Trial;
use super::forecast::Forecasts;
use crate::channel::Ending;
use crate::instruments::Seen;
use anyhow::Result;
use nix::sys::signal::Signal;
use observe::clock::monotonic_ns;
use spec::{FaultKind, Parameters, Part};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use timeline::event::Phase;
use timeline::{Ends, Source, What};
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

/// How long a server may take until it is ready, and a client until it is connected.
pub(super) const READY_MOST: Duration = Duration::from_secs(60);
/// How long a program's output is waited for that the fault is to follow.
const OUTPUT_MOST: Duration = Duration::from_secs(3600);
/// How long a program may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(1);
/// How long a tap may take to show what has passed.
const SHOWN_MOST: Duration = Duration::from_millis(200);
/// What a program did that has ended is shown by then.
const SHOWN: Duration = Duration::from_millis(10);

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
            fault_at = self.break_first(parameters).await?;
            self.start(asking).await?;
        } else {
            self.start(asking).await?;
            if let Some(why) = self.wait_for_moment(parameters, asking).await? {
                return Ok(Ending::Disturbed(why));
            }
            forecasts = self.look_at_flows(parameters).await?;
            fault_at = self.break_first(parameters).await?;
        }
        self.mark(What::Phase(Phase::Watching));
        self.watch_anew(parameters, fault_at, forecasts).await?;
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
                        "its connections ended before the fault (`--after` says when it comes)"
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
