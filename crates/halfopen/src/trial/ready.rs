//! Whether a server or a proxy that is a command is ready.

use super::Trial;
use super::commands::READY_MOST;
use anyhow::Result;
use spec::{Parameters, Part, Program};
use std::time::Duration;
use tokio::time::Instant;

/// How often it is looked whether a command listens.
const LOOK: Duration = Duration::from_millis(10);
/// From one readiness check to the next.
const AGAIN: Duration = Duration::from_millis(100);

impl Trial {
    /// Waits until the server, or the proxy, listens, and until its check succeeds. Returns why that does not
    /// happen.
    pub(super) async fn wait_until_ready(
        &mut self,
        parameters: &Parameters,
        serving: Part,
    ) -> Result<Option<String>> {
        let peer = parameters.peer(serving);
        let name = parameters.hosts()[serving as usize];
        if peer.program != Program::Command {
            self.wait_for_listener(serving).await?;
            return Ok(None);
        }
        let ip = self.address(serving)?.ip();
        let until = Instant::now() + READY_MOST;
        let server = self.namespace(serving)?;
        loop {
            self.host_mut(serving).has_news = false;
            let sockets = self.host_mut(serving).sockets(&server)?;
            if let Some(port) = sockets.listener(ip, peer.listen)? {
                // halfopen's own client or proxy connects there.
                if let Some(address) = self.plan.addresses.of_mut(serving) {
                    address.set_port(port);
                }
                break;
            }
            if let Some(how) = self.host(serving).end() {
                return Ok(Some(format!("the {name} does not listen: {how}")));
            }
            if Instant::now() >= until {
                let port = peer.listen.map_or_else(String::new, |port| format!(", port {port},"));
                return Ok(Some(format!(
                    "the {name} did not listen at its address {ip}{port} within {} s (`{{{name}}}` \
                     in its command stands for the address)",
                    READY_MOST.as_secs()
                )));
            }
            let look = until.min(Instant::now() + LOOK);
            self.follow_until(look, |trial| trial.host(serving).has_news).await?;
        }
        let command = &peer.command;
        if command.ready.is_empty() {
            return Ok(None);
        }
        let client = self.namespace(parameters.part("client"))?;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let bench = self.bench.clone();
            let ground = bench.ground(&self.plan);
            if ground.succeeds(&client, &command.ready, command, left).await? {
                return Ok(None);
            }
            if let Some(how) = self.host(serving).end() {
                return Ok(Some(format!("the {name} does not become ready: {how}")));
            }
            if Instant::now() >= until {
                return Ok(Some(format!(
                    "`{name}.ready` did not succeed within {} s",
                    READY_MOST.as_secs()
                )));
            }
            self.follow_until(Instant::now() + AGAIN, |_| false).await?;
        }
    }
}
