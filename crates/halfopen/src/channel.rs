//! Messages between the front process, which talks to people and writes files, and the
//! laboratory's process, which has the privileges: one JSON document a line.

use crate::hexadecimal;
use crate::program::Surroundings;
use anyhow::{Context, Result};
use report::Machine;
use serde::{Deserialize, Serialize};
use spec::{Addresses, Experiment, Facts, Parameters, Part, Stagger};
use std::io::{self, Write};
use std::path::PathBuf;
use timeline::Event;
use timeline::event::Stream;

/// What the worker is to do: the first line that it reads. After it come [`WorkerOrder`]s.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Run trials.
    Run(Setup),
    /// Run trials in virtual time, inside these kernels.
    RunVirtual(Setup, Vec<PathBuf>),
    /// Run one command as a program of a host.
    Program(Sole),
    /// The same in virtual time, inside this kernel.
    ProgramVirtual(Sole, PathBuf),
    /// Try what this machine can do.
    Examine,
}

/// What all trials of a run have in common.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// What they do; [`Start::experiment`] is a place in it.
    pub(crate) experiments: Vec<Experiment>,
    /// What commands have from the caller, where there are commands.
    pub(crate) surroundings: Surroundings,
    /// How many at once.
    pub(crate) jobs: usize,
    /// Whether time is virtual: nothing may poll at an interval.
    pub(crate) clock: report::Clock,
    /// Whether sockets are looked at at random moments too, for predictions from samples.
    pub(crate) samples: bool,
    /// For a prediction of 'never', how long to wait.
    pub(crate) never: std::time::Duration,
}

/// A line after the first.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum WorkerOrder {
    /// Start this trial.
    Start(Start),
    /// No more trials will come.
    NoMore,
    /// End the trials that run, and start none.
    Stop,
}

/// A trial to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Start {
    /// Its place among all trials of the run, from 0: what messages about it bear.
    pub(crate) position: usize,
    /// The place of its experiment.
    pub(crate) experiment: usize,
    /// Where its hosts live.
    pub(crate) addresses: Addresses,
    /// Where in the timer wheel's longest slot it starts.
    pub(crate) phase: Option<Stagger>,
    /// In virtual time: the place of its kernel.
    pub(crate) kernel: usize,
}

/// One command that is the only program of a host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sole {
    pub(crate) command: sandbox::Execve,
    pub(crate) addresses: Addresses,
    pub(crate) clock: report::Clock,
}

impl Sole {
    /// Checks what the worker is given. The command itself runs without privileges.
    pub(crate) fn check(&self) -> Result<()> {
        let Parameters { family, topology, .. } = Parameters::default();
        anyhow::ensure!(
            self.addresses.are_leased(family, topology),
            "{:?} are no lease",
            self.addresses
        );
        Ok(())
    }
}

/// Writes one line.
pub(crate) fn write_line(output: &mut impl Write, document: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(document).context("writing a line of JSON")?;
    line.push(b'\n');
    output.write_all(&line).and_then(|()| output.flush()).context("writing to another process")
}

/// Orders something of the laboratory. It may have died already, and has said why.
pub(crate) fn order(commands: &mut impl Write, document: &impl Serialize) -> Result<()> {
    match write_line(commands, document) {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        other => other,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    kind == Some(io::ErrorKind::BrokenPipe)
}

/// What the worker reports.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// A trial begins, on this kernel.
    Started(usize, Machine),
    /// Something happened in a trial.
    Event(usize, Event),
    /// A tap captured a frame; its event, and the frame itself.
    Captured(usize, Capture),
    /// What was measured before the fault.
    Facts(usize, Box<Facts>),
    /// What the model expects, before the fault.
    Prediction(usize, Box<model::Prediction>),
    /// What a command wrote.
    Wrote(usize, Part, Stream, #[serde(with = "hexadecimal")] Vec<u8>),
    /// A trial has ended.
    Ended(usize, Ending),
    /// Every trial that started has ended.
    Finished,
    /// This machine cannot run any trial, for this reason.
    Cannot(String),
    /// The worker has died: how.
    Died(String),
    /// What a command of [`Task::Program`] wrote.
    Output(Vec<u8>),
    /// How it ended: its exit code, or 128 and the number of the signal that ended it.
    Exited(u8),
    /// One thing that was tried for [`Task::Examine`].
    Check(Check),
}

/// A captured frame.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    pub(crate) event: Event,
    pub(crate) wall_ns: u64,
    pub(crate) wire_len: u32,
    /// The frame's first bytes.
    #[serde(with = "hexadecimal")]
    pub(crate) frame: Vec<u8>,
}

/// How a trial ended. The aliases are the names in files of before files had schemas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ending {
    /// It came to its end; the evidence decides.
    #[serde(alias = "Complete")]
    Complete,
    /// This machine or kernel cannot.
    #[serde(alias = "Skipped")]
    Skipped(String),
    /// Something that is not the question went wrong.
    #[serde(alias = "Failed")]
    Failed(String),
    /// It was cut short by something that could have changed the verdict.
    #[serde(alias = "Disturbed")]
    Disturbed(String),
    /// The user stopped it (Ctrl-C).
    #[serde(alias = "Interrupted")]
    Interrupted,
    /// The kernel refuses a setting that looked right.
    #[serde(alias = "Refused")]
    Refused(String),
}

/// What came of trying one thing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Check {
    /// What was tried.
    pub(crate) name: String,
    /// Whether trials need it, or only gain by it.
    pub(crate) needed: bool,
    /// What was found, or what went wrong.
    pub(crate) result: Result<String, String>,
    /// What to do if it went wrong.
    pub(crate) remedy: String,
}
