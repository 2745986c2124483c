//! A program on a host of a trial: started by the launcher without privileges, signalled and ended
//! by its keeper.

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};
use sandbox::{Execve, Identity, KeeperControl, KeeperOrder, Word};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// In the environment from the sandbox on: whose rights programs have, as JSON.
pub(crate) const CALLER: &str = "HALFOPEN_CALLER";

/// Inside the sandbox: whose rights programs have.
pub(crate) fn caller() -> Result<Identity> {
    let text = std::env::var(CALLER).with_context(|| format!("reading {CALLER}"))?;
    serde_json::from_str(&text).with_context(|| format!("understanding {CALLER}"))
}

/// What a command has from the caller.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Surroundings {
    environment: Vec<(OsString, OsString)>,
    /// JSON has no path that is not UTF-8.
    directory: OsString,
}

impl Surroundings {
    /// The working directory and the environment of this process, under sudo with what tells the
    /// caller from root.
    pub(crate) fn of_caller() -> Result<Self> {
        Ok(Self {
            environment: environment(),
            directory: std::env::current_dir().context("finding the working directory")?.into(),
        })
    }

    /// Whether the caller has an executable of this name or, with a slash in it, a file at this path.
    pub(crate) fn has(&self, needed: &str) -> bool {
        if needed.contains('/') {
            Path::new(&self.directory).join(needed).is_file()
        } else {
            peer::find(needed).is_some()
        }
    }

    /// A command as the caller would run it.
    pub(crate) fn command(&self, words: &[OsString]) -> Result<Execve> {
        let (program, _) = words.split_first().context("a command has at least one word")?;
        Ok(Execve {
            program: program.clone(),
            arguments: words.to_vec(),
            environment: self.environment.clone(),
            directory: self.directory.clone(),
        })
    }
}

fn environment() -> Vec<(OsString, OsString)> {
    let mut environment: Vec<_> = std::env::vars_os().collect();
    let caller = Identity::under_sudo().map(|caller| User::from_uid(Uid::from_raw(caller.uid)));
    if let Some(Ok(Some(user))) = caller {
        belong_to(&mut environment, user);
    }
    environment
}

/// Puts what tells a user from others into an environment.
pub(crate) fn belong_to(environment: &mut Vec<(OsString, OsString)>, user: User) {
    let own: [(&str, OsString); 4] = [
        ("HOME", user.dir.into()),
        ("USER", user.name.clone().into()),
        ("LOGNAME", user.name.into()),
        ("SHELL", user.shell.into()),
    ];
    environment.retain(|(name, _)| own.iter().all(|(other, _)| name != other));
    environment.extend(own.map(|(name, value)| (name.into(), value)));
}

/// An end that a program comes to.
pub(crate) enum ProgramEnd {
    /// The process that was started has ended.
    Main(ExitStatus),
    /// No process of it is left.
    All,
}

/// A running program, with every process that it starts. All of them end when it is dropped.
pub(crate) struct RunningProgram {
    name: &'static str,
    control: BufReader<UnixStream>,
    line: Vec<u8>,
    /// The process that was started, in this PID namespace.
    main: Option<Pid>,
    /// The process from which all of it descend.
    root: Option<u32>,
    /// Whether the end of that process has been told.
    is_told: bool,
    ended: Option<ExitStatus>,
}

impl RunningProgram {
    /// Takes charge of a program that is being started.
    pub(crate) fn new(name: &'static str, control: KeeperControl) -> Result<Self> {
        let stream = control.into_stream();
        stream
            .set_nonblocking(true)
            .and_then(|()| UnixStream::from_std(stream))
            .map(|stream| Self {
                name,
                control: BufReader::new(stream),
                line: Vec::new(),
                main: None,
                root: None,
                is_told: false,
                ended: None,
            })
            .with_context(|| format!("taking charge of the {name}"))
    }

    /// Sends a signal to every process of the program.
    pub(crate) async fn signal(&mut self, signal: Signal) -> Result<()> {
        // The one that was started may have ended, and left others.
        let _ = self.signal_at_once(signal).await;
        self.order(KeeperOrder::SignalAll(signal as i32)).await
    }

    /// Sends a signal to the process that was started, and not to its children. After SIGKILL it
    /// has ended.
    pub(crate) async fn signal_main(&mut self, signal: Signal) -> Result<()> {
        self.order(KeeperOrder::SignalMain(signal as i32)).await
    }

    /// A crash: SIGKILL to every process of the program, or to the one that was started alone. Waits
    /// until the kernel has taken them down.
    pub(crate) async fn crash(&mut self, with_children: bool) -> Result<()> {
        self.started().await?;
        if with_children { self.kill().await } else { self.kill_main().await }
    }

    /// SIGKILL to every process of the program, and waits until the kernel has taken them down.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        // It may have ended already, with its keeper.
        let _ = self.signal_at_once(Signal::SIGKILL).await;
        let _ = self.give(KeeperOrder::SignalAll(Signal::SIGKILL as i32)).await;
        while self.word().await?.is_some() {}
        Ok(())
    }

    /// SIGKILL to the process that was started, and waits until it has ended.
    async fn kill_main(&mut self) -> Result<()> {
        self.signal_at_once(Signal::SIGKILL).await?;
        self.end().await.map(drop)
    }

    /// Signals the process that was started without its keeper, whose turn on a processor may come
    /// late: when a fault happens is a measurement.
    async fn signal_at_once(&mut self, signal: Signal) -> Result<()> {
        self.started().await?;
        match self.main.filter(|_| self.ended.is_none()) {
            // No other process has this number, unless it has ended just now and some 4 million were
            // started since.
            Some(main) => kill(main, signal)
                .with_context(|| format!("sending {signal} to the {} process", self.name)),
            None => bail!("the {} process has ended", self.name),
        }
    }

    /// Waits until it has started, or ended.
    async fn started(&mut self) -> Result<()> {
        while self.main.is_none() && self.ended.is_none() && self.word().await?.is_some() {}
        Ok(())
    }

    /// Waits for the process that was started to end. The error is that it could not be started.
    pub(crate) async fn end(&mut self) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.ended {
                return Ok(status);
            }
            if self.word().await?.is_none() {
                bail!("what started the {} was killed, and the {} with it", self.name, self.name);
            }
        }
    }

    /// The next end: of the process that was started, then of all. Nothing is lost if this is
    /// dropped before it is ready.
    pub(crate) async fn next_end(&mut self) -> Result<ProgramEnd> {
        loop {
            if let Some(status) = self.ended.filter(|_| !self.is_told) {
                self.is_told = true;
                return Ok(ProgramEnd::Main(status));
            }
            if self.word().await?.is_none() {
                return Ok(ProgramEnd::All);
            }
        }
    }

    /// Its processes, by their numbers in this PID namespace: its keeper, if it has one, and all that
    /// descend from it, however they came about.
    pub(crate) async fn processes(&mut self) -> Result<Vec<u32>> {
        while self.root.is_none() {
            if self.word().await?.is_none() {
                bail!("the {} has ended", self.name);
            }
        }
        Ok(self.root.map(observe::options::family).unwrap_or_default())
    }

    /// The same without its keeper.
    pub(crate) async fn members(&mut self) -> Result<Vec<u32>> {
        let mut members = self.processes().await?;
        let main = self.main.map(|main| main.as_raw().cast_unsigned());
        members.retain(|pid| Some(*pid) != self.root || self.root == main);
        Ok(members)
    }

    async fn order(&mut self, order: KeeperOrder) -> Result<()> {
        self.give(order).await.with_context(|| format!("the {} has ended", self.name))?;
        loop {
            match self.word().await? {
                Some(Word::Done) => return Ok(()),
                Some(_) => {}
                None => bail!("the {} has ended", self.name),
            }
        }
    }

    async fn give(&mut self, order: KeeperOrder) -> Result<()> {
        let mut line = serde_json::to_vec(&order).context("writing an order")?;
        line.push(b'\n');
        Ok(self.control.get_mut().write_all(&line).await?)
    }

    /// The keeper's next word; `None` when everything has ended.
    async fn word(&mut self) -> Result<Option<Word>> {
        // What was read before this was cancelled is kept.
        match self.control.read_until(b'\n', &mut self.line).await {
            Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => {
                return Err(error)
                    .with_context(|| format!("listening to the {}'s keeper", self.name));
            }
            _ if !self.line.ends_with(b"\n") => return Ok(None),
            _ => {}
        }
        let word: Word = serde_json::from_slice(&self.line)
            .with_context(|| format!("understanding the {}'s keeper", self.name))?;
        self.line.clear();
        let word = word.checked().with_context(|| format!("starting the {}", self.name))?;
        match word {
            Word::Started { main, root } => {
                self.main = Some(Pid::from_raw(main.cast_signed()));
                self.root = Some(root);
            }
            Word::Ended { code, signal, .. } => {
                let raw = code.map_or_else(|| signal.unwrap_or(0), |code| code << 8);
                self.ended = Some(ExitStatus::from_raw(raw));
            }
            _ => {}
        }
        Ok(Some(word))
    }
}
