//! Before the fault: the programs are started, connect and settle, and a window is closed.

#[cfg(test)]
mod tests;

use super::flows::probes_closed_window;
use super::{PATIENCE, SETTLING_MOST, Trial};
use crate::command::Ground;
use crate::control::ControlSocket;
use crate::peers::PeerProcess;
use anyhow::{Context, Result, anyhow};
use peer::{Instruction, Milestone};
use spec::{Parameters, Part, Traffic};
use std::time::Duration;
use timeline::What;
use timeline::event::{Phase, SocketSample};
use tokio::time::Instant;

/// How often it is looked whether a program listens, where nothing says that it may.
const LOOK: Duration = Duration::from_millis(5);

/// Without data for so long, nobody exchanges any more.
const QUIET: Duration = Duration::from_secs(1);

impl Trial {
    /// Starts both programs, connects them, and lets the RTO settle.
    pub(super) async fn connect(&mut self, parameters: &Parameters) -> Result<()> {
        self.mark(What::Phase(Phase::Connecting));
        let accepting = Self::accepting(parameters);
        self.start(accepting).await?;
        self.wait_for_listener(accepting).await?;
        let connecting = if accepting == Part::Client { Part::Server } else { Part::Client };
        self.start(connecting).await?;
        if parameters.client.traffic == Traffic::Connect {
            let what = "the client does not start";
            self.reach(connecting, &Milestone::Ready, PATIENCE, what).await?;
            self.client_may_end = false;
            return Ok(());
        }
        let most = Duration::from_secs(10) + parameters.path.rtt * SETTLING_MOST;
        let is_established = |trial: &Self| trial.flows.any_is_established();
        self.wait_for(connecting, most, "the client does not connect", is_established).await?;
        self.mark(What::Phase(Phase::Settling));
        // A web server is asked by the other.
        let survivor_asks = parameters.client.program.description().reports;
        let asking = if survivor_asks { Part::Client } else { Part::Server };
        self.wait_until_settled(asking, most).await?;
        if parameters.server.inherited {
            let what = "the server's child does not start";
            self.reach(Part::Server, &Milestone::Child, PATIENCE, what).await?;
        }
        if !parameters.server.reads {
            self.leave_unread(most).await?;
        }
        for (fills, side) in [
            (parameters.client.fills_window, Part::Client),
            (parameters.server.fills_window, Part::Server),
        ] {
            if fills {
                self.fill_window(side, most).await?;
            }
        }
        self.client_may_end = false;
        Ok(())
    }

    /// The host whose program accepts connections.
    pub(super) fn accepting(parameters: &Parameters) -> Part {
        if parameters.survivor_accepts() { Part::Client } else { Part::Server }
    }

    /// Waits until nothing more is exchanged and nothing is outstanding, as the kernel shows. A peer
    /// of ours says so at once; without a word, a time without any data does.
    async fn wait_until_settled(&mut self, side: Part, most: Duration) -> Result<()> {
        const SETTLED: Milestone = Milestone::Settled { exchanges: 0, moving: false };
        let quiet = QUIET + self.plan.experiment.parameters.path.rtt * 2;
        let until = Instant::now() + most;
        loop {
            let before = self.flows.last_data_ns();
            let look = until.min(Instant::now() + quiet);
            let says_so = |trial: &Self| trial.host(side).reports(&SETTLED);
            let is_over = |trial: &Self| says_so(trial) || trial.host(side).end().is_some();
            self.follow_until(look, is_over).await?;
            if says_so(self) || before.is_some() && self.flows.last_data_ns() == before {
                break;
            }
            if Instant::now() >= until || self.host(side).end().is_some() {
                return Err(self.host(side).fails_to("the connection does not settle"));
            }
        }
        let nothing_outstanding = |sample: &SocketSample| sample.send_queue == 0;
        self.wait_for_socket(Part::Client, most, nothing_outstanding)
            .await
            .context("the server does not acknowledge what was exchanged")
    }

    /// Starts the program of a host.
    pub(super) async fn start(&mut self, side: Part) -> Result<()> {
        let namespace = self.namespace(side)?;
        let is_command = self.plan.experiment.parameters.runs_command();
        let control = is_command.then(|| ControlSocket::open(self.orders.clone())).transpose()?;
        let ground = Ground { control: control.as_ref(), ..self.bench.ground(&self.plan) };
        let peer = PeerProcess::start(ground, side, &namespace, &self.plan).await?;
        self.host_mut(side).control = control;
        self.host_mut(side).runs(peer);
        Ok(())
    }

    /// Waits until a program listens at the host's address, as its kernel shows.
    pub(super) async fn wait_for_listener(&mut self, side: Part) -> Result<()> {
        let (address, namespace) = (self.address(side)?, self.namespace(side)?);
        let what = format!("the {} does not listen", self.host(side).name());
        let until = Instant::now() + PATIENCE;
        loop {
            // A program that says something may listen now.
            let look = until.min(Instant::now() + LOOK);
            self.follow_until(look, |trial| trial.host(side).has_news).await?;
            self.host_mut(side).has_news = false;
            let sockets = self.host_mut(side).sockets(&namespace)?;
            if sockets.listener(address.ip(), Some(address.port()))?.is_some() {
                return Ok(());
            }
            if Instant::now() >= until || self.host(side).end().is_some() {
                return Err(self.host(side).fails_to(&what));
            }
        }
    }

    /// Has the client send what the server's program does not read.
    async fn leave_unread(&mut self, most: Duration) -> Result<()> {
        self.server.tell(Instruction::StopReading).await?;
        let what = "the server does not stop reading";
        self.reach(Part::Server, &Milestone::Unread, PATIENCE, what).await?;
        self.client.tell(Instruction::SendUnread).await?;
        let what = "the client does not send";
        self.reach(Part::Client, &Milestone::Unread, PATIENCE, what).await?;
        self.wait_for_socket(Part::Client, most, |sample| sample.send_queue == 0)
            .await
            .context("the server's kernel does not acknowledge what its program leaves unread")
    }

    /// Has one of the two write until the other's window is closed. As acknowledgements come in,
    /// its send buffer takes more.
    async fn fill_window(&mut self, side: Part, most: Duration) -> Result<()> {
        let until = Instant::now() + most;
        while Instant::now() < until {
            self.host_mut(side).tell(Instruction::FillWindow).await?;
            let what = "neither side is told to fill the window";
            self.reach(side, &Milestone::Filled, PATIENCE, what).await?;
            let turn = Duration::from_millis(100) + self.plan.experiment.parameters.path.rtt;
            if self.wait_for_socket(side, turn, probes_closed_window).await.is_ok() {
                return Ok(());
            }
        }
        Err(anyhow!("the window does not close"))
    }

    /// Waits until one side's socket is as it should be.
    async fn wait_for_socket(
        &mut self,
        side: Part,
        most: Duration,
        is_so: impl Fn(&SocketSample) -> bool,
    ) -> Result<()> {
        let other = if side == Part::Client { Part::Server } else { Part::Client };
        let (host, local, remote) =
            (self.namespace(side)?, self.address(side)?, self.address(other)?);
        let until = Instant::now() + most;
        while Instant::now() < until {
            let sockets = self.host_mut(side).sockets(&host)?;
            if sockets.sample(local, remote)?.is_some_and(|sample| is_so(&sample)) {
                return Ok(());
            }
            self.follow_until(Instant::now() + Duration::from_millis(1), |_| false).await?;
        }
        Err(anyhow!("waited {most:?} for it"))
    }
}
