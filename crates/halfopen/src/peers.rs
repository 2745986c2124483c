//! The peer processes: started inside their hosts, told what to do, heard.

use crate::output;
use crate::program::Program;
use anyhow::{Context, Result, anyhow, bail};
use netns::Namespace;
use nix::sys::signal::Signal;
use peer::{Command, Config, Milestone, Report, Role};
use sandbox::{Launch, Launcher, Stdio};
use spec::Plan;
use std::os::fd::AsFd;
use timeline::Event;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// Runs a peer to its end, on the standard streams. Returns its exit code.
pub(crate) fn run() -> u8 {
    let result = match peer::run() {
        // Whoever ended the laboratory has nothing to be told by its programs.
        Ok(()) | Err(peer::Error::Orphaned) => Ok(0),
        Err(error) => Err(error.into()),
    };
    output::inner(result).0
}

/// A client or a server, on its host. It is killed when dropped.
pub(crate) struct Peer {
    name: &'static str,
    kind: spec::Program,
    /// The last line of nginx's log.
    said: String,
    program: Program,
    commands: OwnedWriteHalf,
    reports: Lines<BufReader<OwnedReadHalf>>,
}

impl Peer {
    /// Starts a peer inside `namespace`.
    pub(crate) async fn start(
        launcher: &Launcher,
        role: Role,
        namespace: &Namespace,
        plan: &Plan,
    ) -> Result<Self> {
        let parameters = &plan.experiment.parameters;
        let (name, kind) = match role {
            Role::Client => ("client", parameters.client.program),
            Role::Server => ("server", parameters.server.program),
        };
        let starting = || format!("starting the {name} process");
        let (ours, theirs) = UnixStream::pair().with_context(starting)?;
        let theirs = theirs.into_std().with_context(starting)?;
        // A peer waits for its commands.
        theirs.set_nonblocking(false).with_context(starting)?;
        let error = std::io::stderr();
        let stdio = Stdio { input: theirs.as_fd(), output: theirs.as_fd(), error: error.as_fd() };
        let control = launcher
            .launch(&Launch::default(), stdio, Some(namespace.as_fd()), None)
            .with_context(starting)?;
        let (reports, commands) = ours.into_split();
        let mut peer = Self {
            name,
            kind,
            said: String::new(),
            program: Program::new(name, control)?,
            commands,
            reports: BufReader::new(reports).lines(),
        };
        let config = Config {
            role,
            addresses: plan.addresses.clone(),
            parameters: plan.experiment.parameters.clone(),
        };
        peer.send(&config).await?;
        Ok(peer)
    }

    /// Tells it something. nginx takes signals, and needs nobody to begin.
    pub(crate) async fn tell(&mut self, command: Command) -> Result<()> {
        match (self.kind, command) {
            (spec::Program::Halfopen, _) => self.send(&command).await,
            (spec::Program::Nginx, Command::Begin) => Ok(()),
            (spec::Program::Nginx, Command::Finish) => {
                self.program.signal_main(Signal::SIGTERM).await
            }
            (spec::Program::Nginx, _) => {
                bail!("the {} is nginx, which cannot {command:?}", self.name)
            }
        }
    }

    /// Sends a signal to every process of it.
    pub(crate) async fn signal(&mut self, signal: Signal) -> Result<()> {
        self.program.signal(signal).await
    }

    /// The next report; `None` when the process has ended.
    pub(crate) async fn report(&mut self) -> Result<Option<Report>> {
        loop {
            let line = self.reports.next_line().await;
            let Some(line) = line.with_context(|| format!("listening to the {}", self.name))?
            else {
                return Ok(None);
            };
            match serde_json::from_str(&line) {
                Ok(report) => return Ok(Some(report)),
                Err(_) if self.kind == spec::Program::Nginx => {
                    tracing::debug!("{}: {line}", self.name);
                    if peer::nginx_listens(&line) {
                        return Ok(Some(Report::Reached(Milestone::Listening)));
                    }
                    self.said = line;
                }
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!("the {} said something unreadable: {line}", self.name)
                    });
                }
            }
        }
    }

    /// Waits for a milestone; events on the way go to `sink`.
    pub(crate) async fn reach(
        &mut self,
        wanted: impl Fn(&Milestone) -> bool,
        mut sink: impl FnMut(Event),
    ) -> Result<Milestone> {
        loop {
            match self.report().await? {
                Some(Report::Event(event)) => sink(event),
                Some(Report::Reached(milestone)) if wanted(&milestone) => return Ok(milestone),
                Some(Report::Reached(_)) => {}
                None => {
                    let status = self.program.end().await?;
                    let said = if self.said.is_empty() { "" } else { ": " };
                    let last = &self.said;
                    return Err(anyhow!("the {} ended early ({status}){said}{last}", self.name));
                }
            }
        }
    }

    /// SIGKILL to all of it, and waits until the kernel has taken it down.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.program.kill().await
    }

    /// SIGKILL to the process that was started alone. What it has started goes on until this is
    /// dropped.
    pub(crate) async fn kill_main(&mut self) -> Result<()> {
        self.program.kill_main().await
    }

    async fn send(&mut self, message: &impl serde::Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(message).expect("commands are always JSON");
        line.push(b'\n');
        self.commands
            .write_all(&line)
            .await
            .with_context(|| format!("talking to the {} process", self.name))
    }
}
