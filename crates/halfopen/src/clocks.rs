//! `halfopen clocks`: the same experiments with the same settings on both clocks, or on several kernels,
//! side by side.

use crate::batch::Batch;
use crate::conducted::Conducted;
use crate::output::{self, Exit, Format};
use crate::session::Session;
use crate::store::Store;
use crate::{catalogue, cli, kernels};
use anyhow::Result;
use report::Clock;
use report::clocks::{Clocks, document, markdown, terminal};
use spec::{Experiment, VirtualKernel};
use std::sync::Arc;

pub(crate) fn run(arguments: &cli::ClocksArgs) -> Exit {
    let mut names: Vec<&str> = arguments.experiments.iter().map(String::as_str).collect();
    if names.is_empty() {
        names.extend(catalogue::BUILT_IN.iter().map(|(name, _)| name));
    }
    let experiments = match catalogue::find_all(&names, false, &arguments.overrides, false) {
        Ok(experiments) => experiments,
        Err(error) => return output::fail(Exit::USAGE, &error),
    };
    let chosen = arguments.kernel.all().and_then(|all| {
        all.iter().try_for_each(|kernel| kernels::check(Clock::Virtual, kernel)).map(|()| all)
    });
    let kernels = match chosen {
        Ok(kernels) => kernels,
        Err(error) => return output::fail(Exit::USAGE, &error),
    };
    carry_out(arguments, &experiments, kernels)
        .unwrap_or_else(|error| output::fail(Exit::INTERNAL, &error))
}

fn carry_out(
    arguments: &cli::ClocksArgs,
    experiments: &[Experiment],
    kernels: Vec<VirtualKernel>,
) -> Result<Exit> {
    let results = &arguments.results;
    let format = results.output.format;
    let virtual_ones = kernels.into_iter().map(|kernel| (Clock::Virtual, kernel));
    let (mut ready, mut names) = (Vec::new(), Vec::new());
    for (clock, kernel) in [(Clock::Real, VirtualKernel::default())].into_iter().chain(virtual_ones)
    {
        names.push(name(clock, &kernel));
        let batch = Batch {
            experiments: experiments.to_vec(),
            repeat: 1,
            phases: None,
            clock,
            kernel,
            jobs: None,
            samples: false,
            defaults: false,
        };
        match batch.prepare()? {
            Ok(trials) => ready.push(trials),
            Err((trials, why)) => return Ok(Conducted::skipped(trials, format, &why)?.conclude()),
        }
    }

    let Session { laboratories, store } = Session::open(ready, Some(&results.out))?;
    let store = store.fresh_inside("clocks")?;
    let (mut runs, mut exit) = (Vec::new(), Exit::AGREES);
    for (laboratory, name) in laboratories.into_iter().zip(names) {
        let inside = store.fresh_inside(&name)?;
        let mut conducted = laboratory.conduct(Arc::new(inside), format)?;
        conducted.tell_missing();
        exit = exit.and(conducted.exit());
        if !conducted.is_whole() {
            // Half the trials cannot be compared.
            return Ok(exit);
        }
        runs.push(conducted.into_run()?);
    }
    let clocks = Clocks { runs };
    let table = ("clocks.md", markdown(&clocks).into_bytes());
    if let Some(directory) = &arguments.reference {
        Store::open(directory)?.write_files(std::slice::from_ref(&table))?;
    }
    store.write_files(&[table, ("clocks.json", document(&clocks))])?;
    let written = match format {
        Format::Json => output::print(&document(&clocks)),
        Format::Human | Format::Jsonl => output::print(
            format!("\n{}results: {}\n", terminal(&clocks), store.directory().display()).as_bytes(),
        ),
    };
    Ok(exit.and(written))
}

/// The directory of what runs on a kernel.
fn name(clock: Clock, kernel: &VirtualKernel) -> String {
    let version = kernel.version.iter().map(|version| format!("-{version}"));
    let hz = kernel.hz.map(|hz| format!("-hz{hz}"));
    version.chain(hz).fold(clock.to_string(), |name, part| name + &part)
}
