//! What the laboratory's process, which has the privileges, tells the one that talks to people and
//! writes files: one JSON document a line.

use crate::sole::Sole;
use serde::{Deserialize, Serialize};
use spec::{Facts, Plan};
use std::path::PathBuf;
use timeline::Event;
use verdict::{Verdict, Word};

/// What the worker is to do: the first line it reads. A second line, any, asks it to stop.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Run trials.
    Run(Orders),
    /// Run trials in virtual time, inside this kernel.
    RunVirtual(Orders, PathBuf),
    /// Run one command as a program of a host.
    Program(Sole),
    /// The same in virtual time, inside this kernel.
    ProgramVirtual(Sole, PathBuf),
    /// Try what this machine can do.
    Examine,
}

/// The trials to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Orders {
    /// The trials, in order.
    pub(crate) plans: Vec<Plan>,
    /// How many at once.
    pub(crate) jobs: usize,
    /// Whether time is virtual: nothing may poll at an interval.
    pub(crate) clock: report::Clock,
    /// For a prediction of 'never', how long to wait.
    pub(crate) never: std::time::Duration,
}

/// What the worker reports.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// The machine that the trials run on.
    Machine {
        /// `uname -r`.
        kernel: String,
        /// Timer interrupts a second.
        hz: u32,
    },
    /// A trial begins.
    Started(usize),
    /// Something happened in a trial.
    Event(usize, Event),
    /// A tap captured a frame; its event, and the frame itself.
    Captured(usize, Capture),
    /// What was measured before the fault.
    Facts(usize, Box<Facts>),
    /// What the model expects, before the fault.
    Prediction(usize, Box<model::Prediction>),
    /// A trial has ended.
    Ended(usize, Ending),
    /// Every trial has ended.
    Finished,
    /// This machine lets nobody do what every trial needs, for this reason.
    Cannot(String),
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
    /// The frame's first bytes, hexadecimal.
    pub(crate) frame: String,
}

/// How a trial ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ending {
    /// It came to its end; the evidence decides.
    Complete,
    /// This machine or kernel cannot.
    Skipped(String),
    /// Something that is not the question went wrong.
    Failed(String),
    /// It was cut short by something that could have changed the verdict.
    Disturbed(String),
    /// The operator stopped it.
    Interrupted,
    /// The kernel refuses a setting that looked right.
    Refused(String),
}

impl Ending {
    /// The verdict on a trial that ended like this.
    pub(crate) fn verdict(
        &self,
        parameters: &spec::Parameters,
        facts: Option<&Facts>,
        prediction: Option<&model::Prediction>,
        timeline: &timeline::Timeline,
    ) -> Verdict {
        let without = Verdict::without_measurement;
        match (self, facts, prediction) {
            (Self::Skipped(why), ..) => without(Word::Skipped, why.clone()),
            (Self::Failed(why) | Self::Refused(why), ..) => {
                without(Word::Inconclusive, format!("the trial failed: {why}"))
            }
            (Self::Disturbed(why), ..) => without(Word::Inconclusive, why.clone()),
            (Self::Complete | Self::Interrupted, Some(facts), Some(prediction)) => {
                let mut verdict = verdict::judge(parameters, facts, prediction, timeline);
                let ended = verdict.measured.as_ref().is_some_and(|m| m.detected_s.is_some());
                // What had ended before the interruption stands; what had not may have yet.
                if *self == Self::Interrupted && !(ended && verdict.word == Word::Agrees) {
                    verdict.word = Word::Inconclusive;
                    verdict.reason = INTERRUPTED.into();
                }
                verdict
            }
            (Self::Interrupted, ..) => without(Word::Inconclusive, INTERRUPTED.into()),
            (Self::Complete, ..) => {
                without(Word::Inconclusive, "the trial left no facts or prediction".into())
            }
        }
    }
}

const INTERRUPTED: &str = "interrupted by the operator";

/// How a trial came about and ended, for those who judge it again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Circumstances {
    pub(crate) clock: report::Clock,
    pub(crate) ending: Ending,
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
