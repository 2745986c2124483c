//! `halfopen clocks`: the same experiments with the same settings on both clocks, side by side.

use crate::batch::Batch;
use crate::conducted::Conducted;
use crate::output::{self, Exit, Format};
use crate::session::Session;
use crate::{catalogue, cli, kernels};
use anyhow::Result;
use report::Clock;
use report::clocks::{Clocks, document, markdown, terminal};
use spec::{Experiment, VirtualKernel};
use std::sync::Arc;

pub(crate) fn run(arguments: &cli::ClocksArgs) -> Exit {
    let colour = output::colour(&std::io::stderr());
    let mut names: Vec<&str> = arguments.experiments.iter().map(String::as_str).collect();
    if names.is_empty() {
        names.extend(catalogue::BUILT_IN.iter().map(|(name, _)| name));
    }
    let find = |name: &&str| catalogue::find(name, false, &arguments.overrides, colour);
    let experiments: Vec<_> = match names.iter().map(find).collect() {
        Ok(experiments) => experiments,
        Err(error) => return output::fail(Exit::USAGE, &error),
    };
    let chosen = arguments.kernel.only().and_then(|kernel| {
        kernels::check(Clock::Virtual, &kernel)?;
        Ok(kernel)
    });
    let kernel = match chosen {
        Ok(kernel) => kernel,
        Err(error) => return output::fail(Exit::USAGE, &error),
    };
    carry_out(&arguments.results, &experiments, &kernel)
        .unwrap_or_else(|error| output::fail(Exit::INTERNAL, &error))
}

fn carry_out(
    results: &cli::ResultsArgs,
    experiments: &[Experiment],
    kernel: &VirtualKernel,
) -> Result<Exit> {
    let format = results.output.format;
    let mut ready = Vec::new();
    // The one that may be missing is looked for first.
    for clock in [Clock::Virtual, Clock::Real] {
        let batch = Batch {
            experiments: experiments.to_vec(),
            repeat: 1,
            phases: None,
            clock,
            kernel: kernel.clone(),
            jobs: None,
            samples: false,
            defaults: false,
        };
        match batch.prepare()? {
            Ok(trials) => ready.push(trials),
            Err((trials, why)) => return Ok(Conducted::skipped(trials, format, &why)?.conclude()),
        }
    }

    let Session { laboratories, store } = Session::open(ready, &results.out)?;
    let store = store.fresh_inside("clocks")?;
    let (mut runs, mut exit) = (Vec::new(), Exit::AGREES);
    for laboratory in laboratories {
        let inside = store.fresh_inside(&laboratory.trials.setup.clock.to_string())?;
        let mut conducted = laboratory.conduct(Arc::new(inside), format)?;
        conducted.tell_missing();
        exit = exit.and(conducted.exit());
        if !conducted.is_whole() {
            // Half the trials cannot be compared.
            return Ok(exit);
        }
        runs.push(conducted.into_run()?);
    }
    let [simulated, real] = <[_; 2]>::try_from(runs).expect("one for each clock");
    let clocks = Clocks { real, simulated };
    store.write_files(&[
        ("clocks.md", markdown(&clocks).into_bytes()),
        ("clocks.json", document(&clocks)),
    ])?;
    let written = match format {
        Format::Json => output::print(&document(&clocks)),
        Format::Human | Format::Jsonl => output::print(
            format!("\n{}results: {}\n", terminal(&clocks), store.directory().display()).as_bytes(),
        ),
    };
    Ok(exit.and(written))
}
