//! `halfopen predict`: what should happen, without a kernel or privileges.

use crate::catalogue;
use crate::cli;
use crate::output::{self, Exit, Format};
use anyhow::anyhow;
use spec::Experiment;

pub(crate) fn run(arguments: &cli::PredictArgs) -> Exit {
    let settings = &arguments.settings;
    let found =
        catalogue::find_all(&[&arguments.experiment], settings.defaults, &settings.overrides);
    let experiments = match found {
        Ok(experiments) => experiments,
        Err(error) => return output::fail(Exit::USAGE, &error),
    };
    let hz = arguments.hz.unwrap_or_else(observe::clock::hz);
    for experiment in &experiments {
        if let Err((key, why)) = experiment.parameters.validate_at(hz) {
            return output::fail(Exit::USAGE, &anyhow!("{}: `{key}`: {why}", experiment.name));
        }
    }
    match <[_; 1]>::try_from(experiments) {
        Ok([experiment]) => one(arguments, hz, &experiment),
        Err(experiments) => sweep(arguments, hz, experiments),
    }
}

fn one(arguments: &cli::PredictArgs, hz: u32, experiment: &Experiment) -> Exit {
    let facts = model::nominal_facts(&experiment.parameters, hz);
    let prediction = model::predict(&experiment.parameters, &facts);
    match arguments.output.format {
        Format::Json => output::print(&report::json::predict(experiment, hz, &prediction)),
        Format::Human | Format::Jsonl => {
            let colour = output::colour(&std::io::stdout());
            let table = model::table(&experiment.parameters, &facts);
            let text = report::human::predict(experiment, hz, &prediction, &table, colour);
            output::print(text.as_bytes())
        }
    }
}

/// Each point of a sweep.
fn sweep(arguments: &cli::PredictArgs, hz: u32, experiments: Vec<Experiment>) -> Exit {
    let predicted = |experiment: Experiment| {
        let facts = model::nominal_facts(&experiment.parameters, hz);
        let prediction = model::predict(&experiment.parameters, &facts);
        (experiment, prediction)
    };
    let points: Vec<_> = experiments.into_iter().map(predicted).collect();
    match arguments.output.format {
        Format::Json => output::print(&report::json::predictions(&points, hz)),
        Format::Human | Format::Jsonl => {
            let colour = output::colour(&std::io::stdout());
            output::print(report::human::predictions(&points, hz, colour).as_bytes())
        }
    }
}
