//! `halfopen clocks`: the same experiments with the same settings on both clocks, side by side.

use crate::cli::{self, Format};
use crate::output::{self, Exit};
use crate::run::Batch;
use crate::store::{self, Store};
use crate::{catalogue, guest, supervisor};
use anyhow::Result;
use report::Clock;
use report::clocks::{Clocks, document, markdown, terminal};
use spec::Experiment;

pub(crate) fn run(arguments: &cli::Clocks) -> Exit {
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
    if let Err(error) = guest::check_hz(arguments.hz) {
        return output::fail(Exit::USAGE, &error);
    }
    carry_out(arguments, &experiments).unwrap_or_else(|error| output::fail(Exit::INTERNAL, &error))
}

fn carry_out(arguments: &cli::Clocks, experiments: &[Experiment]) -> Result<Exit> {
    let format = arguments.output.format;
    let mut ready = Vec::new();
    // The one that may be missing is looked for first.
    for clock in [Clock::Virtual, Clock::Real] {
        let batch = Batch {
            experiments,
            repeat: 1,
            phases: None,
            clock,
            hz: arguments.hz.unwrap_or(guest::HZ_DEFAULT),
            jobs: None,
            defaults: false,
        };
        match batch.prepare()? {
            Ok(prepared) => ready.push(prepared),
            Err((orders, why)) => return Ok(crate::run::skip_all(format, &orders, &why)),
        }
    }

    // While there are privileges, and before any thread: see `run`.
    let laboratories: Vec<_> = ready.iter().map(|_| supervisor::start()).collect::<Result<_>>()?;
    store::become_the_caller(&arguments.out)?;
    let store = Store::open(&arguments.out)?.fresh_inside("clocks")?;
    let (mut runs, mut exit) = (Vec::new(), Exit::AGREES);
    // One after the other: trials on the real clock suffer from a busy machine.
    for (prepared, laboratory) in ready.iter().zip(laboratories) {
        let inside = store.fresh_inside(&prepared.clock().to_string())?;
        let conducted = prepared.conduct(laboratory, &inside, format)?;
        exit = exit.and(conducted.exit);
        if conducted.interrupted {
            return Ok(exit);
        }
        runs.push(conducted.run);
    }
    let [simulated, real] = <[_; 2]>::try_from(runs).expect("one for each clock");
    let clocks = Clocks { real, simulated };
    store.write_files(&[
        ("clocks.md", markdown(&clocks).into_bytes()),
        ("clocks.json", document(&clocks)),
    ])?;
    let written = match format {
        Format::Json => output::print(&document(&clocks)),
        Format::Human => output::print(
            format!("\n{}results: {}\n", terminal(&clocks), store.directory().display()).as_bytes(),
        ),
    };
    Ok(exit.and(written))
}
