//! The peer processes: started inside their hosts, told what to do, heard.

use crate::command::{Ground, Outputs};
use crate::heard::Heard;
use crate::output;
use crate::program::RunningProgram;
use anyhow::{Context, Result, bail};
use netns::Namespace;
use nix::sys::signal::Signal;
use peer::{Config, Instruction, Report, Role};
use sandbox::{Launch, Stdio};
use spec::program::{Description, Finish};
use spec::{Parameters, Part, Plan};
use std::io;
use std::os::fd::AsFd;
use timeline::{Event, Source};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// Runs a peer to its end, on the standard streams. Returns its exit code.
pub(crate) fn run() -> u8 {
    end(peer::run())
}

/// The same for a peer with this configuration, a JSON document.
pub(crate) fn prepared(config: &[u8]) -> Box<dyn FnOnce() -> u8> {
    let config = Config::read(config);
    Box::new(|| end(config.and_then(peer::run_configured)))
}

fn end(ended: Result<(), peer::Error>) -> u8 {
    let result = match ended {
        // Whoever ended the laboratory has nothing to be told by its programs.
        Ok(()) | Err(peer::Error::Orphaned) => Ok(0),
        Err(error) => Err(error.into()),
    };
    output::inner(result).0
}

/// A client or a server, on its host. It is killed when dropped.
pub(crate) struct PeerProcess {
    name: &'static str,
    description: &'static Description,
    program: RunningProgram,
    voice: Voice,
}

/// How reports are received from a program, and commands sent to it.
enum Voice {
    /// A peer of ours, or what it has become.
    Own(Own),
    /// A command.
    Outputs(Outputs),
}

struct Own {
    /// The last line that a program without reports has written.
    said: String,
    /// It has closed its standard output.
    is_silent: bool,
    commands: OwnedWriteHalf,
    reports: Lines<BufReader<OwnedReadHalf>>,
}

impl PeerProcess {
    /// Starts a host's program inside `namespace`.
    pub(crate) async fn start(
        ground: Ground<'_>,
        part: Part,
        namespace: &Namespace,
        plan: &Plan,
    ) -> Result<Self> {
        let parameters = &plan.experiment.parameters;
        let spec::experiment::Peer { program: kind, command, .. } = parameters.peer(part);
        let (name, source) = (parameters.hosts()[part as usize], Source::program(part));
        let ours = passive(part, plan).or_else(|| forwarder(part, plan));
        if let Some(command) =
            ours.as_ref().or((*kind == spec::Program::Command).then_some(command))
        {
            let description = spec::Program::Command.description();
            let (program, mut outputs) = ground.start(name, source, namespace, command)?;
            if parameters.fault.on_output.is_some() {
                outputs.is_awaited();
            }
            return Ok(Self { name, description, program, voice: Voice::Outputs(outputs) });
        }
        let description = kind.description();
        let starting = || format!("starting the {name} process");
        let (ours, theirs) = UnixStream::pair().with_context(starting)?;
        let theirs = theirs.into_std().with_context(starting)?;
        // A peer waits for its commands.
        theirs.set_nonblocking(false).with_context(starting)?;
        let error = std::io::stderr();
        let stdio = Stdio { input: theirs.as_fd(), output: theirs.as_fd(), error: error.as_fd() };
        let network = namespace.as_fd();
        // What executes something needs files.
        let executes =
            *kind != spec::Program::Halfopen || parameters.server.inherited && part == Part::Server;
        let config = config(part, plan);
        let control = if executes {
            ground.launcher.launch(&Launch::default(), stdio, Some(network), None)
        } else {
            let config = serde_json::to_vec(&config).expect("a configuration is always JSON");
            ground.launcher.launch_alone(&config, stdio, network)
        };
        let control = control.with_context(starting)?;
        let (reports, commands) = ours.into_split();
        let mut peer = Self {
            name,
            description,
            program: RunningProgram::new(name, control)?,
            voice: Voice::Own(Own {
                said: String::new(),
                is_silent: false,
                commands,
                reports: BufReader::new(reports).lines(),
            }),
        };
        if executes {
            peer.send(&config).await?;
        }
        Ok(peer)
    }

    /// Tells it something. A program that takes no commands begins by itself, and finishes on a
    /// signal.
    pub(crate) async fn tell(&mut self, instruction: Instruction) -> Result<()> {
        match (self.description.finish, instruction) {
            (Finish::Command, _) => self.send(&instruction).await,
            (Finish::Terminate, Instruction::Begin) => Ok(()),
            (Finish::Terminate, Instruction::Finish) => {
                self.program.signal_main(Signal::SIGTERM).await
            }
            (Finish::Terminate, _) => {
                bail!(
                    "the {}'s program takes no instructions, and {instruction:?} is one",
                    self.name
                )
            }
        }
    }

    /// Whether it reports its calls.
    pub(crate) const fn reports_calls(&self) -> bool {
        self.description.reports
    }

    /// Sends a signal to every process of it.
    pub(crate) async fn signal(&mut self, signal: Signal) -> Result<()> {
        self.program.signal(signal).await
    }

    /// What it says next. Nothing is lost if this is dropped before it is ready.
    pub(crate) async fn hear(&mut self) -> Result<Heard> {
        let own = match &mut self.voice {
            Voice::Outputs(outputs) => return outputs.hear(&mut self.program).await,
            Voice::Own(own) => own,
        };
        let name = self.name;
        if !own.is_silent {
            // One that ends before it has read all that it was told resets its end.
            let is_reset = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset;
            let line = match own.reports.next_line().await {
                Err(error) if is_reset(&error) => Ok(None),
                line => line,
            };
            match line.with_context(|| format!("listening to the {name}"))? {
                Some(line) => return own.understand(line, name, self.description),
                None => own.is_silent = true,
            }
        }
        let said = if own.said.is_empty() { "" } else { ": " };
        let last = &own.said;
        let status = self.program.end().await?;
        Ok(Heard::Ended(format!("the {name} ended early ({status}){said}{last}")))
    }

    /// What of a command's output was left out so far, if anything.
    pub(crate) fn omitted(&self) -> Option<Event> {
        match &self.voice {
            Voice::Outputs(outputs) => outputs.omitted(),
            Voice::Own(_) => None,
        }
    }

    /// The processes of it, by their numbers in this PID namespace.
    pub(crate) async fn processes(&mut self) -> Result<Vec<u32>> {
        self.program.processes().await
    }

    /// The same without its keeper.
    pub(crate) async fn members(&mut self) -> Result<Vec<u32>> {
        self.program.members().await
    }

    /// SIGKILL to all of it, and waits until the kernel has taken it down.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.program.kill().await
    }

    /// SIGKILL to all of it, or to the process that was started alone: what that has started goes on
    /// until this is dropped.
    pub(crate) async fn crash(&mut self, with_children: bool) -> Result<()> {
        self.program.crash(with_children).await
    }

    async fn send(&mut self, message: &impl serde::Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(message).expect("commands are always JSON");
        line.push(b'\n');
        match &mut self.voice {
            Voice::Own(own) => own.commands.write_all(&line).await,
            Voice::Outputs(_) => bail!("the {}'s program takes no commands", self.name),
        }
        .with_context(|| format!("talking to the {} process", self.name))
    }
}

/// What halfopen's own peer is told to be.
fn config(part: Part, plan: &Plan) -> Config {
    let (mut addresses, mut parameters) =
        (plan.addresses.clone(), plan.experiment.parameters.clone());
    let role = match part {
        Part::Client => Role::Client,
        Part::Server => Role::Server,
        // To itself it is the server.
        Part::Third => {
            addresses.server = addresses.third.unwrap_or(addresses.server);
            std::mem::swap(&mut parameters.server, &mut parameters.third);
            Role::Server
        }
    };
    Config { role, addresses, parameters }
}

/// The command by which halfopen's own client connects to a command; `None`: this is not it.
fn passive(part: Part, plan: &Plan) -> Option<spec::command::Command> {
    let parameters = &plan.experiment.parameters;
    let is_client = parameters.hosts()[part as usize] == "client";
    let own = parameters.peer(part);
    let is_one = is_client && parameters.runs_command() && own.program == spec::Program::Halfopen;
    let next = if parameters.third_there() { "proxy" } else { "server" };
    let to = plan.addresses.of(parameters.part(next)).filter(|_| is_one)?;
    let stdin = if parameters.third_there() {
        let client = own.clone();
        peer::told_passive(to, &Parameters { client, ..parameters.clone() })
    } else {
        peer::told_passive(to, parameters)
    };
    Some(itself("--passive", stdin))
}

/// The command by which halfopen's own proxy forwards; `None`: this is not it.
fn forwarder(part: Part, plan: &Plan) -> Option<spec::command::Command> {
    let parameters = &plan.experiment.parameters;
    let is_proxy = parameters.third_there() && parameters.hosts()[part as usize] == "proxy";
    let own = parameters.peer(part);
    let is_one = is_proxy && own.program == spec::Program::Halfopen;
    let to = plan.addresses.of(parameters.part("server")).filter(|_| is_one)?;
    let at = plan.addresses.of(part)?;
    Some(itself("--forward", peer::told_forward(at, to, own)))
}

/// This program as a command.
fn itself(role: &str, stdin: String) -> spec::command::Command {
    // Not by its name: in the guest the directory that it lies in may be hidden.
    let words = ["/proc/self/exe", "peer", role].map(str::to_owned).into();
    spec::command::Command { words, stdin, ..Default::default() }
}

impl Own {
    fn understand(&mut self, line: String, name: &str, description: &Description) -> Result<Heard> {
        if !description.reports {
            tracing::debug!("{name}: {line}");
            self.said = line;
            return Ok(Heard::Line);
        }
        let report = serde_json::from_str(&line)
            .with_context(|| format!("the {name} said something unreadable: {line}"))?;
        Ok(match report {
            Report::Event(event) => Heard::Event(event),
            Report::Reached(milestone) => Heard::Reached(milestone),
        })
    }
}
