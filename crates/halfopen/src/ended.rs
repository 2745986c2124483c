//! A trial that has ended: judged, and its files written.

use crate::channel::{Capture, Ending};
use crate::files::{self, Circumstances};
use crate::judging;
use crate::output::Exit;
use crate::store::Store;
use anyhow::Result;
use report::{Digest, Identity, Machine, Trial};
use spec::{Experiment, Facts};
use timeline::{Event, Timeline};

/// What was recorded of a trial so far.
pub(crate) struct Record {
    pub(crate) machine: Machine,
    pub(crate) events: Vec<Event>,
    pub(crate) captures: Vec<Capture>,
    pub(crate) facts: Option<Facts>,
    pub(crate) prediction: Option<model::Prediction>,
    /// What commands wrote, by host.
    pub(crate) outputs: [Vec<u8>; 3],
}

impl Record {
    /// Of a trial that has begun on this kernel.
    pub(crate) fn on(machine: Machine) -> Self {
        Self {
            machine,
            events: Vec::new(),
            captures: Vec::new(),
            facts: None,
            prediction: None,
            outputs: Default::default(),
        }
    }
}

/// A trial that has ended.
pub(crate) struct Ended {
    /// Its place among all trials of its run, from 0.
    pub(crate) position: usize,
    /// Its number is the first to be tried.
    pub(crate) identity: Identity,
    pub(crate) experiment: Experiment,
    pub(crate) record: Record,
    pub(crate) ending: Ending,
}

/// What is left of it.
pub(crate) struct Concluded {
    /// Without its timeline.
    pub(crate) trial: Trial,
    pub(crate) digest: Digest,
    pub(crate) exit: Exit,
    /// The kernel's refusal of a setting: a mistake that leaves nothing but its explanation.
    pub(crate) refusal: Option<String>,
}

impl Ended {
    /// Judges it and writes its files. What goes wrong in that is this trial's failure.
    pub(crate) fn conclude(self, store: &Store) -> Concluded {
        let Self { position, identity, experiment, record, ending } = self;
        let timeline = Timeline::new(record.events);
        let verdict = judging::verdict(
            &ending,
            &experiment.parameters,
            record.facts.as_ref(),
            record.prediction.as_ref(),
            &timeline,
        );
        // Of several connections, it is about the one that decides.
        let decided = verdict.deciding();
        let facts = decided.map_or(record.facts, |flow| flow.facts.clone());
        let prediction = decided.map_or(record.prediction, |flow| flow.prediction.clone());
        let mut trial = Trial {
            identity,
            machine: record.machine,
            experiment,
            facts,
            prediction,
            verdict,
            failure: judging::failure(&ending),
            timeline,
            artifacts: None,
            directory: None,
        };
        let refusal = match &ending {
            Ending::Refused(why) => Some(format!("{}: {why}", trial.experiment.name)),
            _ => None,
        };
        if refusal.is_none()
            && store.keeps()
            && let Err(error) = write(&mut trial, &record.captures, record.outputs, &ending, store)
        {
            trial.failure = Some(format!("{error:#}"));
            (trial.artifacts, trial.directory) = (None, None);
        }
        let digest = Digest::new(position, &trial);
        let exit = judging::exit(&ending, &trial);
        trial.timeline = Timeline::default();
        Concluded { trial, digest, exit, refusal }
    }
}

/// The file of what a host's command wrote.
fn output_file(host: &'static str) -> &'static str {
    match host {
        "client" => "client.out",
        "proxy" => "proxy.out",
        _ => "server.out",
    }
}

/// Writes its files into a directory of its own, whose number becomes the trial's.
fn write(
    trial: &mut Trial,
    captures: &[Capture],
    outputs: [Vec<u8>; 3],
    ending: &Ending,
    store: &Store,
) -> Result<()> {
    let (directory, number) = store.fresh(&trial.experiment.name, trial.identity.number)?;
    trial.identity.number = number;
    trial.artifacts = Some(directory.path().display().to_string());
    let circumstances = Circumstances::new(trial, ending);
    let absolute = std::path::absolute(directory.path());
    trial.directory = absolute.ok().map(|directory| directory.display().to_string());
    let mut files = files::of(trial, captures, &circumstances)?;
    if trial.experiment.parameters.runs_command() {
        let parameters = &trial.experiment.parameters;
        let names = parameters.hosts().map(output_file);
        let count = if parameters.third_there() { 3 } else { 2 };
        files.extend(names.into_iter().zip(outputs).take(count));
    }
    directory.fill(&files)
}
