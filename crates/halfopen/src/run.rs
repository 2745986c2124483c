//! `halfopen run`.

use crate::batch::{self, Batch};
use crate::conducted::Conducted;
use crate::output::{self, Exit};
use crate::session::Laboratory;
use crate::{catalogue, cli, command, kernels, parts};
use anyhow::{Result, anyhow};
use report::Clock;
use spec::{Experiment, VirtualKernel};
use std::sync::Arc;

pub(crate) fn run(arguments: &cli::RunArgs) -> Exit {
    let settings = &arguments.trials.settings;
    let overrides = arguments.trials.overrides();
    let found = catalogue::find_all(&arguments.experiments, settings.defaults, &overrides, true);
    let mut experiments = match found {
        Ok(experiments) => experiments,
        Err(error) => return output::fail(Exit::USAGE, &error),
    };
    for experiment in &experiments {
        if let Err(error) = command::check(&experiment.parameters) {
            return output::fail(Exit::USAGE, &error.context(experiment.name.clone()));
        }
    }
    if arguments.phases.is_some() && arguments.trials.time.clock != cli::ClockName::Virtual {
        return output::fail(Exit::USAGE, &anyhow!(PHASES_ARE_VIRTUAL));
    }
    if arguments.worst {
        let clock = arguments.trials.time.clock.into();
        experiments = match worst(clock, &experiments) {
            Ok(experiments) => experiments,
            Err(error) => return output::fail(Exit::USAGE, &error),
        };
    }
    conduct(&arguments.trials, experiments, arguments.phases, &arguments.parts)
}

/// Each at the moments of its fault that the model finds worst.
fn worst(clock: Clock, experiments: &[Experiment]) -> Result<Vec<Experiment>> {
    const MOMENTS: usize = 3;
    let mut all = Vec::new();
    for experiment in experiments {
        let hz = match clock {
            Clock::Virtual => experiment.parameters.kernel.hz.unwrap_or(kernels::HZ_DEFAULT),
            Clock::Real => observe::clock::hz(),
        };
        let found = advice::worst(experiment, hz, MOMENTS)
            .map_err(|why| anyhow!("{}: {why}", experiment.name))?;
        all.extend(found);
    }
    Ok(all)
}

/// The phases of the real clock's wheel cannot be chosen without waiting minutes for them.
const PHASES_ARE_VIRTUAL: &str = "--phases needs --clock virtual: the timer wheel's longest slot is \
    over a minute of real time";

/// Runs trials of these experiments.
pub(crate) fn conduct(
    arguments: &cli::TrialsArgs,
    experiments: Vec<Experiment>,
    phases: Option<u32>,
    parts: &cli::PartsArgs,
) -> Exit {
    let clock = arguments.time.clock.into();
    for experiment in &experiments {
        if let Err(error) = kernels::check(clock, &experiment.parameters.kernel) {
            return output::fail(Exit::USAGE, &error);
        }
    }
    let batch = Batch {
        experiments,
        repeat: arguments.repeat,
        phases,
        clock,
        kernel: VirtualKernel::default(),
        jobs: arguments.jobs,
        samples: false,
        defaults: arguments.settings.defaults,
    };
    carry_out(arguments, batch, parts).unwrap_or_else(|error| output::fail(Exit::INTERNAL, &error))
}

fn carry_out(arguments: &cli::TrialsArgs, batch: Batch, chosen: &cli::PartsArgs) -> Result<Exit> {
    let format = arguments.output.format;
    let mut trials = match batch.prepare()? {
        Ok(trials) => trials,
        Err((trials, why)) => return Ok(Conducted::skipped(trials, format, &why)?.conclude()),
    };
    let plan = parts::plan(&trials);
    if let Some(part) = chosen.partition {
        parts::partition(&mut trials, part);
    }
    if let Some(hint) = batch::hint(&trials).filter(|_| !output::is_quiet()) {
        eprintln!("{hint}");
    }
    let (mut laboratory, store) = Laboratory::open(trials, arguments.place())?;
    if chosen.partition.is_some() || chosen.resume {
        store.write_files(&[plan])?;
    }
    if chosen.resume {
        parts::resume(&mut laboratory.trials, &arguments.out)?;
        let (left, ended) = (laboratory.trials.total(), laboratory.trials.earlier.len());
        eprintln!("{} ended before, {left} left", spec::counted(ended, "trial"));
    }
    let conducted = laboratory.conduct(Arc::new(store), format)?;
    if let Some(directory) = &chosen.reference {
        conducted.keep(directory)?;
    }
    Ok(conducted.conclude())
}
