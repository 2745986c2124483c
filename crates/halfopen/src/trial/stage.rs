//! The network, through the life of the server's host.

use anyhow::{Context, Result};
use lab::network::Network;
use netns::Namespace;
use spec::FaultAct;
use tokio::task::JoinHandle;

type Destroyed = (Box<Network>, Result<FaultAct, lab::network::Error>);

/// What there is of the network.
pub(super) enum Stage {
    /// Nothing: it is not built yet, or taken down.
    Empty,
    /// The network. The server's host is there, or destroyed, or booted again: it knows.
    Standing(Box<Network>),
    /// The server's host is on its way out. The kernel takes its time, and the client goes on.
    Destroying { client: Namespace, third: Option<Namespace>, task: JoinHandle<Destroyed> },
}

impl Stage {
    /// The network, while nothing is being destroyed.
    pub(super) fn network(&self) -> Result<&Network> {
        match self {
            Self::Standing(network) => Ok(network),
            Self::Empty | Self::Destroying { .. } => anyhow::bail!("the network is gone"),
        }
    }

    /// The same, to act on it.
    pub(super) fn network_mut(&mut self) -> Result<&mut Network> {
        match self {
            Self::Standing(network) => Ok(network),
            Self::Empty | Self::Destroying { .. } => anyhow::bail!("the network is gone"),
        }
    }

    /// The client's host, which is there as long as the network is.
    pub(super) fn client(&self) -> Result<Namespace> {
        match self {
            Self::Standing(network) => Ok(network.client().clone()),
            Self::Destroying { client, .. } => Ok(client.clone()),
            Self::Empty => anyhow::bail!("the network is gone"),
        }
    }

    /// The third host, which is there as long as the network is.
    pub(super) fn third(&self) -> Result<Namespace> {
        let third = match self {
            Self::Standing(network) => network.third().cloned(),
            Self::Destroying { third, .. } => third.clone(),
            Self::Empty => None,
        };
        third.context("there is no third host")
    }

    /// The server's host.
    pub(super) fn server(&self) -> Result<Namespace> {
        self.network()?.server().cloned().context("the server is gone")
    }

    /// Begins to destroy the server's host. Its processes must have ended.
    pub(super) fn destroy_server(&mut self) -> Result<()> {
        match std::mem::replace(self, Self::Empty) {
            Self::Standing(mut network) => {
                let (client, third) = (network.client().clone(), network.third().cloned());
                let task = tokio::spawn(async move {
                    let done = network.destroy_server().await;
                    (network, done)
                });
                *self = Self::Destroying { client, third, task };
                Ok(())
            }
            other => {
                *self = other;
                anyhow::bail!("the network is gone")
            }
        }
    }

    /// Whether the server's host is on its way out.
    pub(super) fn is_destroying(&self) -> bool {
        matches!(self, Self::Destroying { .. })
    }

    /// Waits until the server's host is gone; for ever if it is not on its way out.
    pub(super) async fn destroyed(&mut self) -> Result<FaultAct> {
        let Self::Destroying { task, .. } = self else { return std::future::pending().await };
        let ended = task.await;
        *self = Self::Empty;
        let (network, done) = ended.context("destroying the server's host")?;
        *self = Self::Standing(network);
        Ok(done?)
    }

    /// Takes the network down.
    pub(super) async fn take_down(&mut self) -> Result<()> {
        if self.is_destroying() {
            // What went wrong there shows below: what is left is removed all the same.
            let _ = self.destroyed().await;
        }
        match std::mem::replace(self, Self::Empty) {
            Self::Standing(network) => network.remove().await.context("taking the network down"),
            Self::Empty | Self::Destroying { .. } => Ok(()),
        }
    }
}
