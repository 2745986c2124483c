//! `halfopen predict`: what should happen, without a kernel or privileges.

use crate::catalogue;
use crate::cli;
use crate::output::{self, Exit, Format};
use anyhow::anyhow;
use spec::Experiment;

pub(crate) fn run(arguments: &cli::PredictArgs) -> Exit {
    let settings = &arguments.settings;
    let mut overrides = settings.overrides.clone();
    if !arguments.kernel.is_empty() {
        overrides.push(("kernel".into(), arguments.kernel.join(",")));
    }
    let found = catalogue::find_all(&[&arguments.experiment], settings.defaults, &overrides, false);
    let experiments = match found {
        Ok(experiments) => experiments,
        Err(error) => return output::fail(Exit::USAGE, &error),
    };
    let experiments = at_each_hz(&arguments.hz, experiments);
    for (experiment, hz) in &experiments {
        if let Err((key, why)) = experiment.parameters.validate_at(*hz) {
            return output::fail(Exit::USAGE, &anyhow!("{}: `{key}`: {why}", experiment.name));
        }
    }
    match <[_; 1]>::try_from(experiments) {
        Ok([(experiment, hz)]) => one(arguments, hz, &experiment),
        Err(experiments) => sweep(arguments, experiments),
    }
}

/// Each with the HZ of the kernel that it is predicted for: where several are asked for, it is a setting.
fn at_each_hz(asked: &[u32], experiments: Vec<Experiment>) -> Vec<(Experiment, u32)> {
    let mut all = Vec::new();
    for experiment in experiments {
        let mut of = experiment.parameters.kernel.hz.map_or_else(|| asked.to_vec(), |hz| vec![hz]);
        if of.is_empty() {
            of.push(observe::clock::hz());
        }
        for hz in &of {
            let mut experiment = experiment.clone();
            if of.len() > 1 {
                experiment.parameters.kernel.hz = Some(*hz);
            }
            all.push((experiment, *hz));
        }
    }
    all
}

fn one(arguments: &cli::PredictArgs, hz: u32, experiment: &Experiment) -> Exit {
    let facts = model::nominal_facts(&experiment.parameters, hz);
    let prediction = model::predict(&experiment.parameters, &facts);
    match arguments.output.format {
        Format::Json => output::print(&report::json::predict(experiment, hz, &prediction)),
        Format::Human | Format::Jsonl => {
            let colour = output::colour(&std::io::stdout());
            let table = model::table(&prediction, &experiment.parameters, &facts);
            let text = report::human::predict(experiment, hz, &prediction, &table, colour);
            output::print(text.as_bytes())
        }
    }
}

/// Each point of a sweep.
fn sweep(arguments: &cli::PredictArgs, experiments: Vec<(Experiment, u32)>) -> Exit {
    let predicted = |(experiment, hz): (Experiment, u32)| {
        let facts = model::nominal_facts(&experiment.parameters, hz);
        let prediction = model::predict(&experiment.parameters, &facts);
        (experiment, hz, prediction)
    };
    let points: Vec<_> = experiments.into_iter().map(predicted).collect();
    match arguments.output.format {
        Format::Json => output::print(&report::json::predictions(&points)),
        Format::Human | Format::Jsonl => {
            let colour = output::colour(&std::io::stdout());
            output::print(report::human::predictions(&points, colour).as_bytes())
        }
    }
}
