//! The peer processes: started inside their hosts, told what to do, heard.

use crate::output::{self, Exit};
use anyhow::{Context, Result, anyhow, bail};
use netns::Namespace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peer::{Command, Config, Milestone, Report, Role};
use spec::{Plan, Program};
use std::process::Stdio;
use timeline::Event;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

/// The hidden subcommand of a peer.
const PEER: &str = "peer";

/// In a peer, does all that it is there for. There are two for each trial, hundreds in a guest, and
/// they need neither a command line nor a log.
pub(crate) fn run_if_peer() -> Option<std::process::ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let is_peer = arguments.next()? == PEER && arguments.next().is_none();
    is_peer.then(|| std::process::ExitCode::from(run().0))
}

/// Runs a peer to its end.
pub(crate) fn run() -> Exit {
    output::inner(peer::run().map(|()| 0).map_err(Into::into))
}

/// A client or a server, in its host's namespace. It is killed when dropped.
pub(crate) struct Peer {
    name: &'static str,
    program: Program,
    /// The last line of nginx's log.
    said: String,
    child: Child,
    commands: ChildStdin,
    reports: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    /// Starts a peer inside `namespace`.
    pub(crate) async fn start(role: Role, namespace: &Namespace, plan: &Plan) -> Result<Self> {
        let parameters = &plan.experiment.parameters;
        let (name, program) = match role {
            Role::Client => ("client", parameters.client.program),
            Role::Server => ("server", parameters.server.program),
        };
        let runtime = tokio::runtime::Handle::current();
        let mut child = namespace
            .run(|| {
                let _guard = runtime.enter();
                tokio::process::Command::new("/proc/self/exe")
                    .arg0("halfopen")
                    .arg(PEER)
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .kill_on_drop(true)
                    .spawn()
            })
            .with_context(|| format!("entering the namespace of the {name}"))?
            .with_context(|| format!("starting the {name} process"))?;
        let commands = child.stdin.take().expect("standard input is piped");
        let stdout = child.stdout.take().expect("standard output is piped");
        let reports = BufReader::new(stdout).lines();
        let mut peer = Self { name, program, said: String::new(), child, commands, reports };
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
        match (self.program, command) {
            (Program::Halfopen, _) => self.send(&command).await,
            (Program::Nginx, Command::Begin) => Ok(()),
            (Program::Nginx, Command::Finish) => self.signal(Signal::SIGTERM),
            (Program::Nginx, _) => bail!("the {} is nginx, which cannot {command:?}", self.name),
        }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid =
            self.child.id().with_context(|| format!("the {} process has ended", self.name))?;
        kill(Pid::from_raw(pid.cast_signed()), signal)
            .with_context(|| format!("sending {signal} to the {} process", self.name))
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
                Err(_) if self.program == Program::Nginx => {
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
                    let status = self.child.wait().await.context("waiting for a peer")?;
                    let said = if self.said.is_empty() { "" } else { ": " };
                    let last = &self.said;
                    return Err(anyhow!("the {} ended early ({status}){said}{last}", self.name));
                }
            }
        }
    }

    /// SIGKILL, and waits until the kernel has taken the process down.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("killing the {}", self.name))
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
