//! The fault: what is broken, destroyed, booted again and restored, and when.

use super::{AFTERMATH, Act, Ended, PATIENCE, Trial, end_of};
use crate::peers::Peer;
use anyhow::{Context, Result};
use lab::network::Network;
use lab::sysctl;
use nix::sys::signal::Signal;
use peer::{Command, Milestone, Role};
use spec::effect::HostFate;
use spec::{FaultAct, FaultKind, Parameters};
use std::time::Duration;
use timeline::What;
use timeline::event::FaultStep;
use tokio::task::JoinError;
use tokio::time::{Instant, timeout};

impl Trial {
    pub(super) async fn inject(&mut self, parameters: &Parameters) -> Result<()> {
        self.mark(What::Fault(FaultStep::Begin));
        let begun = match parameters.fault.kind {
            FaultKind::None => FaultAct::Nothing,
            FaultKind::ProcessCrash => {
                let mut server = self.server.take().ok_or(super::Gone("server"))?;
                if parameters.server.inherited {
                    server.kill_main().await?;
                    self.crashed = Some(server);
                } else {
                    server.kill().await?;
                }
                FaultAct::Killed
            }
            FaultKind::ProcessFreeze => {
                self.signal_server(Signal::SIGSTOP).await?;
                FaultAct::Stopped
            }
            FaultKind::PowerOff | FaultKind::Reboot | FaultKind::Flap => {
                self.network()?.cut().await?
            }
            FaultKind::Blackhole => self.network()?.blackhole().await?,
            FaultKind::Reject => self.network()?.reject(parameters.fault.reject).await?,
            FaultKind::Unplug => self.network()?.unplug().await?,
        };
        self.mark(What::Fault(FaultStep::Done(begun)));
        // The client goes on at once: what is destroyed behind a dead cable it cannot see.
        self.client()?.tell(Command::Begin).await?;
        if parameters.fault.kind.effect().destroys_host() {
            self.look_at_links().await?;
            return self.destroy_server().await;
        }
        self.mark(What::Fault(FaultStep::Complete));
        self.look_at_links().await
    }

    /// Ends everything in the server's host, and begins to end the host itself. The kernel takes
    /// its time for that, and the client does not wait: it goes on while [`Self::follow_until`]
    /// follows it.
    pub(super) async fn destroy_server(&mut self) -> Result<()> {
        for mut server in [self.server.take(), self.crashed.take()].into_iter().flatten() {
            server.kill().await?;
        }
        for instrument in std::mem::take(&mut self.server_side) {
            instrument.stop().await;
        }
        let mut network = self.network.take().context("the network is gone")?;
        self.client_host = Some(network.client().clone());
        self.destroying = Some(tokio::spawn(async move {
            let done = network.destroy_server().await;
            (network, done)
        }));
        Ok(())
    }

    /// Waits until the server's host is gone, if it is on its way out.
    pub(super) async fn finish_destroying(&mut self) -> Result<()> {
        if self.destroying.is_none() {
            return Ok(());
        }
        let result = end_of(&mut self.destroying).await;
        self.destroying = None;
        self.destroyed(result).await
    }

    pub(super) async fn destroyed(
        &mut self,
        result: Result<(Network, Result<FaultAct, lab::network::Error>), JoinError>,
    ) -> Result<()> {
        let (network, done) = result.context("destroying the server's host")?;
        self.network = Some(network);
        self.client_host = None;
        self.mark(What::Fault(FaultStep::Done(done?)));
        self.mark(What::Fault(FaultStep::Complete));
        self.look_at_links().await?;
        let fault = &self.plan.experiment.parameters.fault;
        if fault.kind.effect().host == HostFate::Replaced {
            let new_mac = fault.new_mac;
            self.boot_server(new_mac).await?;
        }
        Ok(())
    }

    /// Boots the server again, up to its listening program, behind a cable that is dead still: what
    /// is left to do when its time comes is quickly done.
    pub(super) async fn boot_server(&mut self, new_mac: bool) -> Result<()> {
        self.network()?.boot_server(new_mac).await?;
        self.look_at_server()?;
        let network = self.network.as_ref().context("the network is gone")?;
        let server = network.server().context("the server is gone")?;
        let mut server =
            Peer::start(&self.bench.launcher, Role::Server, server, &self.plan).await?;
        timeout(PATIENCE, server.reach(|m| *m == Milestone::Listening, |_| {}))
            .await
            .context("the rebooted server does not listen")??;
        self.server = Some(server);
        Ok(())
    }

    /// Watches until the client knows or the deadline has passed, and ends faults that end.
    pub(super) async fn watch(
        &mut self,
        parameters: &Parameters,
        fault_at: Instant,
        deadline: Duration,
    ) -> Result<()> {
        let deadline = fault_at + deadline;
        let later = &parameters.later;
        let change = (!later.sysctl.is_empty()).then_some((fault_at + later.after, Act::Change));
        let restore = parameters.fault_duration().map(|after| (fault_at + after, Act::Restore));
        let mut acts: Vec<_> = change.into_iter().chain(restore).collect();
        acts.sort_by_key(|(at, _)| *at);
        for (at, act) in acts {
            let ended = self.follow_until(at.min(deadline), Ended::any).await?;
            match act {
                Act::Restore if ended || at > deadline => {
                    self.mark(What::Fault(FaultStep::Outlasted));
                }
                Act::Restore => self.restore(parameters).await?,
                Act::Change if ended || at > deadline => {}
                Act::Change => self.change_sysctls(parameters)?,
            }
        }
        if self.follow_until(deadline, Ended::any).await? {
            // The kernel and the program do not speak at the same moment: hear both.
            self.follow_until(Instant::now() + AFTERMATH, Ended::all).await?;
        }
        Ok(())
    }

    pub(super) fn change_sysctls(&mut self, parameters: &Parameters) -> Result<()> {
        let network = self.network.as_ref().map(Network::client);
        let client = network.or(self.client_host.as_ref()).context("the network is gone")?.clone();
        for (name, value) in &parameters.later.sysctl {
            let one = spec::sysctl::Sysctls::from([(name.clone(), value.clone())]);
            sysctl::apply(&client, &one)?;
            self.mark(What::Sysctl { name: name.clone(), value: value.clone() });
        }
        Ok(())
    }

    pub(super) async fn restore(&mut self, parameters: &Parameters) -> Result<()> {
        self.mark(What::Fault(FaultStep::Restoring));
        match parameters.fault.kind {
            FaultKind::ProcessFreeze => self.signal_server(Signal::SIGCONT).await?,
            FaultKind::Flap => {
                let done = self.network()?.restore().await?;
                self.mark(What::Fault(FaultStep::Done(done)));
            }
            FaultKind::Reboot => {
                self.finish_destroying().await?;
                let done = self.network()?.connect_server().await?;
                self.mark(What::Fault(FaultStep::Done(done)));
            }
            FaultKind::None
            | FaultKind::ProcessCrash
            | FaultKind::PowerOff
            | FaultKind::Blackhole
            | FaultKind::Reject
            | FaultKind::Unplug => {}
        }
        self.mark(What::Fault(FaultStep::Restored));
        Ok(())
    }
}
