//! Before the fault: the peers are started, connect and settle, and a window is closed.

use super::{PATIENCE, SETTLING_MOST, Trial};
use crate::instruments::Seen;
use crate::peers::Peer;
use anyhow::{Context, Result, anyhow};
use observe::SocketDiag;
use peer::{Command, Milestone, Role};
use spec::facts::TcpFacts;
use spec::{Addresses, Parameters, Program, Traffic};
use std::time::Duration;
use timeline::What;
use timeline::event::{Phase, Side, SocketSample};
use tokio::time::{Instant, sleep, timeout};

impl Trial {
    /// Starts both peers, connects them, and lets the RTO settle.
    pub(super) async fn connect(&mut self, parameters: &Parameters) -> Result<()> {
        self.mark(What::Phase(Phase::Connecting));
        let network = self.network.as_ref().context("the network is gone")?;
        let server = network.server().context("the server is gone")?;
        // nginx accepts wherever it is, and then the other host's peer connects.
        let is_left_behind = parameters.client.program == Program::Nginx;
        let (first, second) = if is_left_behind {
            ((Role::Client, network.client()), (Role::Server, server))
        } else {
            ((Role::Server, server), (Role::Client, network.client()))
        };
        let mut accepting = Peer::start(&self.bench.launcher, first.0, first.1, &self.plan).await?;
        // Its reports are read where its milestones matter; its events until then wait in the
        // pipe, with their times.
        let sink = self.sink.clone();
        let tell = |event| {
            let _ = sink.send(Seen::Event(event, None));
        };
        timeout(PATIENCE, accepting.reach(|m| *m == Milestone::Listening, tell))
            .await
            .context("the server does not listen")??;
        let mut connecting =
            Peer::start(&self.bench.launcher, second.0, second.1, &self.plan).await?;
        if parameters.client.traffic == Traffic::Connect {
            timeout(PATIENCE, connecting.reach(|m| *m == Milestone::Ready, tell))
                .await
                .context("the client does not start")??;
            (self.client, self.server) = (Some(connecting), Some(accepting));
            return Ok(());
        }
        let most = Duration::from_secs(10) + parameters.path.rtt * SETTLING_MOST;
        timeout(most, connecting.reach(|m| *m == Milestone::Connected, tell))
            .await
            .context("the client does not connect")??;
        self.mark(What::Phase(Phase::Settling));
        timeout(most, connecting.reach(|m| matches!(m, Milestone::Settled { .. }), tell))
            .await
            .context("the connection does not settle")??;
        let (mut client, mut server) =
            if is_left_behind { (accepting, connecting) } else { (connecting, accepting) };
        if parameters.server.inherited {
            timeout(PATIENCE, server.reach(|m| *m == Milestone::Child, tell))
                .await
                .context("the server's child does not start")??;
        }
        if !parameters.server.reads {
            server.tell(Command::StopReading).await?;
            timeout(PATIENCE, server.reach(|m| *m == Milestone::Unread, tell))
                .await
                .context("the server does not stop reading")??;
            client.tell(Command::SendUnread).await?;
            timeout(PATIENCE, client.reach(|m| *m == Milestone::Unread, tell))
                .await
                .context("the client does not send")??;
            self.wait_for(Side::Client, most, |sample| sample.send_queue == 0).await.context(
                "the server's kernel does not acknowledge what its program leaves unread",
            )?;
        }
        for (fills, side, peer) in [
            (parameters.client.fills_window, Side::Client, &mut client),
            (parameters.server.fills_window, Side::Server, &mut server),
        ] {
            if fills {
                self.fill_window(side, peer, most).await?;
            }
        }
        (self.client, self.server) = (Some(client), Some(server));
        Ok(())
    }

    /// Has one of the two write until the other's window is closed. As acknowledgements come in,
    /// its send buffer takes more.
    pub(super) async fn fill_window(
        &self,
        side: Side,
        peer: &mut Peer,
        most: Duration,
    ) -> Result<()> {
        let closed = |sample: &SocketSample| {
            sample.timer == TcpFacts::TIMER_PROBE0
                && sample.info.as_ref().is_some_and(|info| info.unacked == 0 && info.snd_wnd == 0)
        };
        let until = Instant::now() + most;
        while Instant::now() < until {
            peer.tell(Command::FillWindow).await?;
            let sink = self.sink.clone();
            let tell = |event| {
                let _ = sink.send(Seen::Event(event, None));
            };
            timeout(PATIENCE, peer.reach(|m| *m == Milestone::Filled, tell))
                .await
                .context("nobody fills the window")??;
            let turn = Duration::from_millis(100) + self.plan.experiment.parameters.path.rtt;
            if self.wait_for(side, turn, closed).await.is_ok() {
                return Ok(());
            }
        }
        Err(anyhow!("the window does not close"))
    }

    /// Waits until one side's socket is as it should be.
    pub(super) async fn wait_for(
        &self,
        side: Side,
        most: Duration,
        is_so: impl Fn(&SocketSample) -> bool,
    ) -> Result<()> {
        let network = self.network.as_ref().context("the network is gone")?;
        let Addresses { client, server, .. } = self.plan.addresses;
        let (host, local, remote) = match side {
            Side::Client => (Some(network.client()), client, server),
            Side::Server => (network.server(), server, client),
        };
        let mut diag = SocketDiag::open(host.context("the host is gone")?)?;
        let until = Instant::now() + most;
        while Instant::now() < until {
            let sample = diag.sample(local, remote)?;
            if sample.is_some_and(|sample| is_so(&sample)) {
                return Ok(());
            }
            sleep(Duration::from_millis(1)).await;
        }
        Err(anyhow!("waited {most:?} for it"))
    }
}
