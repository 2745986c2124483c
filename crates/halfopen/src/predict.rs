//! `halfopen predict`: what should happen, without a kernel or privileges.

use crate::catalogue;
use crate::cli;
use crate::output::{self, Exit, Format};
use anyhow::anyhow;

pub(crate) fn run(arguments: &cli::PredictArgs) -> Exit {
    let settings = &arguments.settings;
    let found =
        catalogue::find_all(&[&arguments.experiment], settings.defaults, &settings.overrides);
    let experiment = match found {
        Ok(experiments) => experiments.into_iter().next().expect("one for the one name"),
        Err(error) => return output::fail(Exit::USAGE, &error),
    };
    let hz = arguments.hz.unwrap_or_else(observe::clock::hz);
    if let Err((key, why)) = experiment.parameters.validate_at(hz) {
        return output::fail(Exit::USAGE, &anyhow!("{}: `{key}`: {why}", experiment.name));
    }
    let facts = model::nominal_facts(&experiment.parameters, hz);
    let prediction = model::predict(&experiment.parameters, &facts);
    match arguments.output.format {
        Format::Json => output::print(&report::json::predict(&experiment, hz, &prediction)),
        Format::Human | Format::Jsonl => {
            let colour = output::colour(&std::io::stdout());
            let table = model::table(&experiment.parameters, &facts);
            let text = report::human::predict(&experiment, hz, &prediction, &table, colour);
            output::print(text.as_bytes())
        }
    }
}
