//! A command of the user's as the program of a host: how it is started, what it writes, how it ends.

use crate::control::ControlSocket;
use crate::heard::Heard;
use crate::program::{ProgramEnd, RunningProgram, Surroundings, belong_to};
use anyhow::{Context, Result, bail};
use netns::Namespace;
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::unistd::{AccessFlags, User, access};
use observe::clock::monotonic_ns;
use report::Clock;
use sandbox::{Identity, Launch, Launcher, Stdio};
use spec::Parameters;
use spec::command::Command;
use std::collections::VecDeque;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use timeline::event::Stream;
use timeline::{Event, Source, What};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

/// So many bytes of a program's output are kept in a file.
const BYTES_KEPT: u64 = 64 * 1024 * 1024;
/// So many lines are kept as events.
const LINES_KEPT: u64 = 10_000;
/// So much is read at once.
const READ_MOST: usize = 16 * 1024;
/// What is longer is several lines.
const LINE_MOST: usize = 4_096;

/// Whether the commands of a trial can be executed here, as far as that can be known beforehand.
///
/// # Errors
/// For a person: which cannot be found.
pub(crate) fn check(parameters: &Parameters) -> Result<()> {
    let Parameters { client, server, third, .. } = parameters;
    for (key, command, words) in [
        ("client.command", &client.command, &client.command.words),
        ("server.command", &server.command, &server.command.words),
        ("third.command", &third.command, &third.command.words),
        ("client.ready", &client.command, &client.command.ready),
        ("server.ready", &server.command, &server.command.ready),
        ("third.ready", &third.command, &third.command.ready),
    ] {
        let key = parameters.named(key);
        let Some(executable) = words.first() else { continue };
        if let Some(user) = &command.user {
            let key = key.split('.').next().unwrap_or_default();
            let is_root = nix::unistd::geteuid().is_root() && Identity::under_sudo().is_none();
            if !is_root {
                bail!("`{key}.user`: only root can run a command as another user ({user})");
            }
            if Identity::of_user(user).is_none() {
                bail!("`{key}.user`: there is no user `{user}`");
            }
        }
        let elsewhere = command.environment.contains_key("PATH") || executable.contains('{');
        let directory = Path::new(command.directory.as_deref().unwrap_or("."));
        if let Some(named) = command.directory.as_ref().filter(|_| !directory.is_dir()) {
            bail!("`{key}`: there is no directory {named} to run it in");
        }
        let path = directory.join(executable);
        if path.is_file() && executable.contains('/') && access(&path, AccessFlags::X_OK).is_err() {
            bail!(
                "`{key}`: {executable} may not be executed: `chmod +x` it, or name its interpreter"
            );
        }
        let is_there = if executable.contains('/') {
            path.is_file()
        } else {
            peer::find(executable).is_some()
        };
        // What is needed and not there is said by the trial, which is skipped.
        let is_needed = parameters.needs.contains_key(executable);
        if !is_there && !elsewhere && !is_needed {
            bail!("`{key}`: there is no executable `{executable}`: is it installed, and in PATH?");
        }
    }
    Ok(())
}

/// What is needed to start commands on a trial's hosts.
#[derive(Clone)]
pub(crate) struct Ground<'a> {
    pub(crate) launcher: &'a Launcher,
    pub(crate) surroundings: &'a Surroundings,
    /// The hosts' names and addresses.
    pub(crate) hosts: Vec<(&'static str, IpAddr)>,
    pub(crate) clock: Clock,
    /// By which its programs order faults.
    pub(crate) control: Option<&'a ControlSocket>,
}

impl Ground<'_> {
    /// Starts a command in a host.
    fn launch(
        &self,
        name: &'static str,
        namespace: &Namespace,
        words: &[String],
        command: &Command,
        stdio: Stdio,
    ) -> Result<RunningProgram> {
        let placed = |word: &String| {
            let address = |word: String, (host, address): &(&str, IpAddr)| {
                word.replace(&format!("{{{host}}}"), &address.to_string())
            };
            self.hosts.iter().fold(word.clone(), address).into()
        };
        let words: Vec<std::ffi::OsString> = words.iter().map(placed).collect();
        let mut launched = self.surroundings.command(&words)?;
        let identity = command.user.as_deref().map(identity_of).transpose()?;
        if let Some(Ok(Some(user))) = command.user.as_deref().map(User::from_name) {
            belong_to(&mut launched.environment, user);
        }
        let variable = |(host, address): &(&str, IpAddr)| {
            (format!("HALFOPEN_{}", host.to_uppercase()), address.to_string())
        };
        let own = self.hosts.iter().map(variable);
        let control = self.control.map(|_| ControlSocket::variable());
        for (name, value) in own.chain(control).chain(command.environment.clone()) {
            launched.environment.retain(|(other, _)| *other != *name);
            launched.environment.push((name.into(), value.into()));
        }
        if let Some(directory) = &command.directory {
            launched.directory = Path::new(&launched.directory).join(directory).into();
        }
        let launch = Launch {
            command: Some(launched),
            identity,
            layer: self.clock == Clock::Virtual,
            files: self.names(),
            ..Launch::default()
        };
        let control = self
            .launcher
            .launch(&launch, stdio, Some(namespace.as_fd()), self.control.map(AsFd::as_fd))
            .with_context(|| format!("starting the {name}"))?;
        RunningProgram::new(name, control)
    }

    /// The files that resolve the hosts' names; no name server is asked for others.
    fn names(&self) -> Vec<(std::path::PathBuf, String)> {
        let machine = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let mut hosts = format!(
            "127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.1.1 {}\n",
            machine.filter(|name| !name.is_empty()).unwrap_or_else(|| "host".into()),
        );
        for (host, address) in &self.hosts {
            hosts += &format!("{address} {host}\n");
        }
        let resolver = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n".to_owned();
        vec![("/etc/hosts".into(), hosts), ("/etc/resolv.conf".into(), resolver)]
    }

    /// Starts a host's program.
    pub(crate) fn start(
        &self,
        name: &'static str,
        source: Source,
        namespace: &Namespace,
        command: &Command,
    ) -> Result<(RunningProgram, Outputs)> {
        let preparing = || format!("preparing the {name}'s standard streams");
        if command.terminal {
            let (ours, theirs) = terminal(&command.stdin).with_context(preparing)?;
            let theirs = theirs.as_fd();
            let stdio = Stdio { input: theirs, output: theirs, error: theirs };
            let program = self.launch(name, namespace, &command.words, command, stdio)?;
            let streams =
                [Reading::of(Stream::Output, Some(ours)), Reading::of(Stream::Error, None)];
            return Ok((program, Outputs::new(name, source, streams)));
        }
        let (output, theirs) = stream().with_context(preparing)?;
        let (error, their_error) = stream().with_context(preparing)?;
        let input: OwnedFd = if command.stdin.is_empty() {
            File::open("/dev/null").with_context(preparing)?.into()
        } else {
            fed(&command.stdin).with_context(preparing)?
        };
        let stdio =
            Stdio { input: input.as_fd(), output: theirs.as_fd(), error: their_error.as_fd() };
        let program = self.launch(name, namespace, &command.words, command, stdio)?;
        let streams = [(Stream::Output, output), (Stream::Error, error)];
        let streams = streams.map(|(kind, pipe)| Reading::of(kind, Some(pipe)));
        Ok((program, Outputs::new(name, source, streams)))
    }

    /// Runs a command to its end, without a word. Says whether it succeeded.
    pub(crate) async fn succeeds(
        &self,
        namespace: &Namespace,
        words: &[String],
        command: &Command,
        most: Duration,
    ) -> Result<bool> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let stdio = Stdio { input: null.as_fd(), output: null.as_fd(), error: null.as_fd() };
        let mut program = self.launch("ready check", namespace, words, command, stdio)?;
        match tokio::time::timeout(most, program.end()).await {
            Ok(status) => Ok(status?.success()),
            Err(_) => Ok(false),
        }
    }
}

/// A pipe: ours to read from, and the program's end.
fn stream() -> std::io::Result<(pipe::Receiver, OwnedFd)> {
    let (sender, receiver) = pipe::pipe()?;
    Ok((receiver, sender.into_blocking_fd()?))
}

/// A terminal of 80 columns on which a text is typed: ours to read from, and the program's end.
fn terminal(typed: &str) -> std::io::Result<(pipe::Receiver, OwnedFd)> {
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let OpenptyResult { master, slave } = openpty(&size, None)?;
    rustix::fs::fcntl_setfl(&master, rustix::fs::OFlags::NONBLOCK)?;
    let mut keys = pipe::Sender::from_owned_fd_unchecked(master.try_clone()?)?;
    let mut typed = typed.to_owned();
    if !typed.is_empty() && !typed.ends_with('\n') {
        // Enter.
        typed.push('\n');
    }
    tokio::spawn(async move {
        let _ = keys.write_all(typed.as_bytes()).await;
    });
    Ok((pipe::Receiver::from_owned_fd_unchecked(master)?, slave))
}

/// Whose rights a command has that is not to have the caller's.
fn identity_of(user: &str) -> Result<Identity> {
    let caller = crate::program::caller()?;
    if caller.uid != 0 || caller.mapped {
        bail!("only root can run a command as another user ({user})");
    }
    Identity::of_user(user).with_context(|| format!("there is no user `{user}`"))
}

/// A pipe that a text is written into, as it is read.
fn fed(text: &str) -> std::io::Result<OwnedFd> {
    let (mut sender, receiver) = pipe::pipe()?;
    let text = text.to_owned();
    tokio::spawn(async move {
        // A program that does not read it has ended, or does not care.
        let _ = sender.write_all(text.as_bytes()).await;
    });
    receiver.into_blocking_fd()
}

/// What a command writes, on its way to the trial.
pub(crate) struct Outputs {
    name: &'static str,
    source: Source,
    streams: [Reading; 2],
    heard: VecDeque<Heard>,
    /// The last line.
    said: String,
    /// Whether the fault waits for a line.
    is_awaited: bool,
    lines: u64,
    lines_omitted: u64,
    bytes: u64,
    bytes_omitted: u64,
    status: Option<std::process::ExitStatus>,
    /// No process of it is left.
    is_gone: bool,
}

struct Reading {
    kind: Stream,
    /// `None`: closed.
    pipe: Option<pipe::Receiver>,
    /// What was read last.
    buffer: Vec<u8>,
    /// The line that has begun.
    pending: Vec<u8>,
}

impl Reading {
    fn of(kind: Stream, pipe: Option<pipe::Receiver>) -> Self {
        Self { kind, pipe, buffer: vec![0; READ_MOST], pending: Vec::new() }
    }

    /// Reads once; for ever where nothing can come. Nothing is lost if this is dropped.
    async fn read(&mut self) -> std::io::Result<usize> {
        match &mut self.pipe {
            Some(pipe) => match pipe.read(&mut self.buffer).await {
                // A terminal that no process holds open any more.
                Err(error) if error.raw_os_error() == Some(nix::Error::EIO as i32) => Ok(0),
                count => count,
            },
            None => std::future::pending().await,
        }
    }
}

impl Outputs {
    fn new(name: &'static str, source: Source, streams: [Reading; 2]) -> Self {
        Self {
            name,
            source,
            streams,
            heard: VecDeque::new(),
            said: String::new(),
            is_awaited: false,
            lines: 0,
            lines_omitted: 0,
            bytes: 0,
            bytes_omitted: 0,
            status: None,
            is_gone: false,
        }
    }

    /// What the program says next. Nothing is lost if this is dropped before it is ready.
    pub(crate) async fn hear(&mut self, program: &mut RunningProgram) -> Result<Heard> {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return Ok(heard);
            }
            if self.is_gone && self.streams.iter().all(|stream| stream.pipe.is_none()) {
                return Ok(Heard::Ended(self.how_it_ended()));
            }
            let [output, error] = &mut self.streams;
            let (index, count) = tokio::select! {
                count = output.read() => (0, count),
                count = error.read() => (1, count),
                ended = program.next_end(), if !self.is_gone => {
                    match ended? {
                        ProgramEnd::Main(status) => self.exited(status),
                        ProgramEnd::All => self.is_gone = true,
                    }
                    continue;
                }
            };
            let count = count.with_context(|| format!("reading what the {} writes", self.name))?;
            self.take(index, count);
        }
    }

    /// A line may have the fault come.
    pub(crate) const fn is_awaited(&mut self) {
        self.is_awaited = true;
    }

    /// What was left out so far, if anything.
    pub(crate) fn omitted(&self) -> Option<Event> {
        let (lines, bytes) = (self.lines_omitted, self.bytes_omitted);
        let what = What::OutputOmitted { lines, bytes };
        (lines + bytes > 0).then(|| Event::new(monotonic_ns(), self.source, what))
    }

    fn how_it_ended(&self) -> String {
        let name = self.name;
        let said = if self.said.is_empty() { "" } else { ": " };
        let how = self.status.map_or_else(|| "killed".into(), |status| status.to_string());
        format!("the {name}'s program ended ({how}){said}{}", self.said)
    }

    fn exited(&mut self, status: std::process::ExitStatus) {
        use std::os::unix::process::ExitStatusExt;
        self.status = Some(status);
        let what = What::Exited { code: status.code(), signal: status.signal() };
        self.heard.push_back(Heard::Exited(Event::new(monotonic_ns(), self.source, what)));
    }

    /// Takes what was read from one of the streams.
    fn take(&mut self, index: usize, count: usize) {
        let buffer = std::mem::take(&mut self.streams[index].buffer);
        let bytes = &buffer[..count];
        let room = BYTES_KEPT.saturating_sub(self.bytes).min(bytes.len() as u64) as usize;
        self.bytes += bytes.len() as u64;
        self.bytes_omitted += (bytes.len() - room) as u64;
        if room > 0 {
            let kind = self.streams[index].kind;
            self.heard.push_back(Heard::Wrote(kind, bytes[..room].to_vec()));
        }
        let stream = &mut self.streams[index];
        let is_over = bytes.is_empty();
        if is_over {
            stream.pipe = None;
        }
        let mut pending = std::mem::take(&mut stream.pending);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match line.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (line, false),
            };
            for piece in text.chunks(LINE_MOST) {
                pending.extend_from_slice(piece);
                if pending.len() >= LINE_MOST {
                    self.line(index, &pending);
                    pending.clear();
                }
            }
            if ends && (text.is_empty() || !pending.is_empty()) {
                self.line(index, &pending);
                pending.clear();
            }
        }
        if is_over && !pending.is_empty() {
            self.line(index, &pending);
            pending.clear();
        }
        self.streams[index].pending = pending;
        self.streams[index].buffer = buffer;
    }

    fn line(&mut self, index: usize, bytes: &[u8]) {
        if self.lines >= LINES_KEPT && !self.is_awaited {
            (self.lines, self.lines_omitted) = (self.lines + 1, self.lines_omitted + 1);
            return;
        }
        let line = String::from_utf8_lossy(bytes).trim_end_matches('\r').to_owned();
        if !line.trim().is_empty() {
            self.said.clone_from(&line);
        }
        let stream = self.streams[index].kind;
        let kept = self.lines < LINES_KEPT;
        self.lines += 1;
        self.lines_omitted += u64::from(!kept);
        let what = What::Output { stream, line };
        let event = Event::new(monotonic_ns(), self.source, what);
        self.heard.push_back(Heard::Said(event, kept));
    }
}
