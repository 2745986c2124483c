//! One command as the program of a host, on a network in which nothing breaks: what a program of a
//! trial may and may not do, tried out. `halfopen __program -- COMMAND`, on either clock.

use crate::channel::{Message, Sole, Task, order};
use crate::cli::{self, ClockName};
use crate::output::{self, Exit};
use crate::program::{RunningProgram, Surroundings};
use crate::{kernels, lease, supervisor};
use anyhow::{Context, Result, bail};
use lab::network::Network;
use report::Clock;
use sandbox::{Launch, Stdio};
use spec::{Parameters, VirtualKernel};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// Runs the command and passes its output on. The exit code is the command's own, or 128 and the
/// number of the signal that ended it.
pub(crate) fn run(arguments: &cli::ProgramArgs) -> Exit {
    carry_out(arguments).unwrap_or_else(|error| output::fail(Exit::INTERNAL, &error))
}

fn carry_out(arguments: &cli::ProgramArgs) -> Result<Exit> {
    let Parameters { family, topology, .. } = Parameters::default();
    let lease = lease::Lease::take(family, topology)?;
    let command = Surroundings::of_caller()?.command(&arguments.command)?;
    let clock = Clock::from(arguments.clock);
    let sole = Sole { command, addresses: lease.addresses.clone(), clock };
    let task = match arguments.clock {
        ClockName::Real => Task::Program(sole),
        ClockName::Virtual => match kernels::find(&VirtualKernel::default()) {
            Ok(kernel) => Task::ProgramVirtual(sole, kernel),
            Err(why) => return Ok(output::fail(Exit::SKIPPED, &anyhow::Error::msg(why))),
        },
    };
    let mut laboratory = supervisor::start()?;
    order(laboratory.stdin.as_mut().context("the lifeline is piped")?, &task)?;
    let stdout = laboratory.stdout.take().context("standard output is piped")?;
    let mut exit = None;
    for line in BufReader::new(stdout).lines() {
        match serde_json::from_str(&line?)? {
            Message::Output(bytes) => {
                output::print(&bytes);
            }
            Message::Exited(code) => exit = Some(Exit(code)),
            Message::Cannot(why) => bail!(why),
            _ => {}
        }
    }
    drop(laboratory.stdin.take());
    let status = laboratory.wait()?;
    exit.with_context(|| format!("the laboratory's process ended early ({status})"))
}

/// In the worker, on either clock: runs the command on the client's host.
pub(crate) fn work(sole: &Sole, mut output: impl Write) -> Result<i32> {
    let launcher = match supervisor::start_launcher() {
        Ok(launcher) => launcher,
        Err(error) => return supervisor::cannot(&error.to_string()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut say = |message: &Message| -> Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        output.write_all(&line).and_then(|()| output.flush()).context("reporting")
    };
    runtime.block_on(async {
        let network = Network::build(&sole.addresses, &Parameters::default()).await?;
        let null = File::open("/dev/null").context("opening /dev/null")?;
        let null = null.as_fd();
        // Somebody is on the other host, too: halfopen's own peer, who is told nothing.
        let (quiet, _told) = std::io::pipe()?;
        let stdio = Stdio { input: quiet.as_fd(), output: null, error: null };
        let other = network.server().map(AsFd::as_fd);
        let server = launcher.launch(&Launch::default(), stdio, other, None)?;

        let (sender, mut receiver) = pipe::pipe()?;
        let sender: OwnedFd = sender.into_blocking_fd()?;
        let launch = Launch {
            command: Some(sole.command.clone()),
            layer: sole.clock == Clock::Virtual,
            ..Launch::default()
        };
        let stdio = Stdio { input: null, output: sender.as_fd(), error: sender.as_fd() };
        let client = Some(network.client().as_fd());
        let mut program =
            RunningProgram::new("program", launcher.launch(&launch, stdio, client, None)?)?;
        drop(sender);
        let (mut bytes, mut status) = (vec![0; 16 * 1024], None);
        loop {
            tokio::select! {
                count = receiver.read(&mut bytes) => match count? {
                    0 => break,
                    count => say(&Message::Output(bytes[..count].to_vec()))?,
                },
                ended = program.end(), if status.is_none() => {
                    status = Some(ended?);
                    program.kill().await?;
                }
            }
        }
        let status = match status {
            Some(status) => status,
            None => program.end().await?,
        };
        drop((program, server));
        network.remove().await?;
        let code = status.code().unwrap_or(128 + status.signal().unwrap_or(0));
        say(&Message::Exited(u8::try_from(code).unwrap_or(u8::MAX)))
    })?;
    Ok(0)
}
