//! The process inside the sandbox that takes orders on standard input: trials on this machine's
//! clock or in virtual time, or an examination of the machine.

use crate::channel::{Message, Setup, Start, Task, WorkerOrder, write_line};
use crate::guest::{self, Shares};
use crate::worker::{self, Starts};
use crate::{examine, sole};
use anyhow::{Context, Result, anyhow};
use std::io::{BufRead, stdin, stdout};
use std::path::PathBuf;
use tokio::sync::{mpsc, watch};

/// Reads its task and its orders, and reports on standard output.
pub(crate) fn run() -> Result<i32> {
    let Some(task) = next_line()? else {
        // The parent has ended, and has said why.
        return Ok(1);
    };
    let task = serde_json::from_str(&task).context("understanding the task")?;
    check(&task).context("checking the task")?;
    match task {
        Task::Run(setup) => {
            let (told, starts) = mpsc::channel(1);
            let stopped = listen(Some(told))?;
            worker::work(setup, Starts::Told(starts), stdout(), stopped)
        }
        Task::RunVirtual(setup, kernels) => run_virtual(&setup, &kernels),
        Task::Program(sole) => sole::work(&sole, stdout()),
        Task::ProgramVirtual(sole, kernel) => guest::run_sole(sole, &kernel, &listen(None)?),
        Task::Examine => {
            for check in examine::examine()? {
                write_line(&mut stdout(), &Message::Check(check)).context("reporting")?;
            }
            Ok(0)
        }
    }
}

/// Checks every order: this side has privileges, and its caller may have none.
/// Names and values of sysctls are checked where they are set, addresses where a trial is started.
/// Paths are of what runs without privileges.
fn check(task: &Task) -> Result<()> {
    match task {
        Task::Run(setup) | Task::RunVirtual(setup, _) => {
            setup.experiments.iter().try_for_each(|experiment| {
                let valid = experiment.parameters.validate();
                valid.map_err(|(key, why)| anyhow!("{}: `{key}`: {why}", experiment.name))
            })
        }
        Task::Program(sole) | Task::ProgramVirtual(sole, _) => sole.check(),
        Task::Examine => Ok(()),
    }
}

/// All orders first: a running guest cannot be given any more.
fn run_virtual(setup: &Setup, kernels: &[PathBuf]) -> Result<i32> {
    let mut shares = Shares::new(kernels.len());
    loop {
        match next_order()? {
            Some(WorkerOrder::Start(start)) => shares.deal(start)?,
            Some(WorkerOrder::NoMore) => return guest::run(setup, shares, kernels, &listen(None)?),
            Some(WorkerOrder::Stop) | None => {
                write_line(&mut stdout(), &Message::Finished).context("reporting")?;
                return Ok(0);
            }
        }
    }
}

/// Passes orders on as they come, and returns whether to stop. The end of standard input is the end
/// of the parent: `init` ends everything then.
fn listen(mut starts: Option<mpsc::Sender<Start>>) -> Result<watch::Receiver<bool>> {
    let (stop, stopped) = watch::channel(false);
    let pass_on = move || {
        loop {
            match next_order() {
                // Nobody takes it where all is being stopped.
                Ok(Some(WorkerOrder::Start(start))) => {
                    let _ = starts.as_ref().map(|starts| starts.blocking_send(start).is_ok());
                }
                Ok(Some(WorkerOrder::NoMore)) => starts = None,
                Ok(Some(WorkerOrder::Stop)) => {
                    let _ = stop.send(true);
                }
                Ok(None) | Err(_) => std::thread::park(),
            }
        }
    };
    std::thread::Builder::new()
        .name("orders".into())
        .spawn(pass_on)
        .context("starting the thread that listens")?;
    Ok(stopped)
}

fn next_order() -> Result<Option<WorkerOrder>> {
    let Some(line) = next_line()? else { return Ok(None) };
    serde_json::from_str(&line).map(Some).context("understanding an order")
}

fn next_line() -> Result<Option<String>> {
    let mut line = String::new();
    let read = stdin().lock().read_line(&mut line).context("reading the orders")?;
    Ok((read > 0).then_some(line))
}
