//! `halfopen validate`: the model held against this kernel on many settings.

use crate::batch::Batch;
use crate::output::{self, Exit, Format};
use crate::session::Laboratory;
use crate::store::Store;
use crate::{article, catalogue, cli, kernels};
use anyhow::{Context, Result, anyhow};
use model::IfIt;
use report::Clock;
use report::sampled::{self, Row, Sampled};
use report::validation::{Case, Validation, document, is_gross, markdown, terminal};
use spec::file::parse_override;
use spec::{Experiment, VirtualKernel};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use verdict::samples::samples;

/// The settings, by part of the model and experiment.
const SETTINGS: &str = include_str!("../validation.toml");

pub(crate) fn run(arguments: &cli::ValidateArgs) -> Exit {
    let (clock, kernel) = match arguments.time.chosen() {
        Ok(chosen) => chosen,
        Err(error) => return output::fail(Exit::USAGE, &error),
    };
    carry_out(arguments, clock, kernel).unwrap_or_else(|error| output::fail(Exit::INTERNAL, &error))
}

fn carry_out(arguments: &cli::ValidateArgs, clock: Clock, kernel: VirtualKernel) -> Result<Exit> {
    let other_hz = kernel.hz.filter(|hz| *hz != kernels::HZ_DEFAULT);
    let (mut settings, experiments) = settings()?;
    let batch = Batch {
        experiments,
        repeat: arguments.repeat,
        phases: None,
        clock,
        kernel,
        jobs: Some(arguments.jobs),
        samples: arguments.samples,
        defaults: false,
    };
    let trials = match batch.prepare()? {
        Ok(trials) => trials,
        Err((_, why)) => return Ok(output::fail(Exit::SKIPPED, &anyhow!(why))),
    };
    let (laboratory, store) = Laboratory::open(trials, Some(&arguments.results.out))?;
    let store = Arc::new(store.fresh_inside("validation")?);
    let mut conducted = laboratory.conduct(store.clone(), arguments.results.output.format)?;
    conducted.tell_missing();
    let exit = conducted.exit();
    if !conducted.is_whole() {
        // A table of a part would look like one of all.
        return Ok(exit);
    }
    let repeat = arguments.repeat as usize;
    for (index, setting) in settings.iter_mut().enumerate() {
        setting.trials = (index * repeat..(index + 1) * repeat).collect();
    }
    let validation = Validation {
        command: article::command_line(),
        date: article::now(),
        run: conducted.into_run()?,
        settings,
    };
    let mut texts = vec![
        ("validation", "md", markdown(&validation).into_bytes()),
        ("validation", "json", document(&validation)),
    ];
    if arguments.samples {
        let sampled = sampled(&validation);
        texts.push(("samples", "md", sampled::markdown(&sampled).into_bytes()));
        texts.push(("samples", "json", sampled::document(&sampled)));
    }
    let files = |end: &str| -> Vec<(String, Vec<u8>)> {
        let named = texts.iter().map(|(stem, kind, text)| (format!("{stem}{end}.{kind}"), text));
        named.map(|(name, text)| (name, text.clone())).collect()
    };
    store.write_files(&files(""))?;
    if let Some(directory) = &arguments.reference {
        let name = format!("{}-{}", validation.run.machine.kernel, validation.run.machine.clock);
        let end = other_hz.map_or_else(String::new, |hz| format!("-hz{hz}"));
        Store::open(directory)?.inside(&name)?.write_files(&files(&end))?;
    }
    let written = match arguments.results.output.format {
        Format::Json => output::print(&document(&validation)),
        Format::Human | Format::Jsonl => {
            let place = store.directory().join("validation.md");
            let text = format!("\n{}table: {}\n", terminal(&validation), place.display());
            output::print(text.as_bytes())
        }
    };
    let timers = if is_gross(&validation) { Exit::DISAGREES } else { Exit::AGREES };
    Ok(exit.and(timers).and(written))
}

/// Predictions from samples of each trial's socket, drawn at random, held against what happened.
fn sampled(validation: &Validation) -> Sampled {
    const OF_EACH_TRIAL: usize = 4;
    let mut rows = Vec::new();
    for setting in &validation.settings {
        for (place, trial) in setting
            .trials
            .iter()
            .filter_map(|place| Some((*place, validation.run.trials.get(*place)?)))
        {
            let parameters = &trial.experiment.parameters;
            let (Some(facts), Some(measured)) = (&trial.facts, &trial.verdict.measured) else {
                continue;
            };
            let mut samples = samples(parameters, facts, measured, &trial.timeline);
            let mut dice = place as u64;
            while samples.len() > OF_EACH_TRIAL {
                // Knuth's linear congruential generator (MMIX).
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                samples.swap_remove((dice >> 33) as usize % samples.len());
            }
            rows.extend(samples.iter().map(|sample| {
                let prediction = model::predict_socket(&sample.facts, IfIt::StaysAsItIs);
                let seconds =
                    |span: (Duration, Duration)| (span.0.as_secs_f64(), span.1.as_secs_f64());
                let windows = prediction.windows.iter();
                Row {
                    setting: format!("{} {}", setting.experiment, setting.set).trim().into(),
                    fault: parameters.fault.kind.to_string(),
                    doing: sample.doing(),
                    after_fault_s: sample.after_fault_ns as f64 / 1e9,
                    outcome: sample.outcome,
                    ended_s: sample.ended_s,
                    windows: windows.map(|w| (w.outcome, w.span.map(seconds))).collect(),
                    came: sample.compare(&prediction),
                }
            }));
        }
    }
    let run = &validation.run;
    Sampled {
        schema: "halfopen/samples/1",
        kernel: run.machine.kernel.clone(),
        hz: run.machine.hz,
        clock: run.machine.clock,
        drawn: sampled::DRAWN,
        rows,
    }
}

/// What is to be tried.
fn settings() -> Result<(Vec<Case>, Vec<Experiment>)> {
    type Parts = BTreeMap<String, BTreeMap<String, Vec<String>>>;
    let parts: Parts = toml::from_str(SETTINGS).context("the settings of the validation")?;
    let mut all = (Vec::new(), Vec::new());
    for (part, experiments) in parts {
        for (name, lines) in experiments {
            for set in lines {
                let overrides = set
                    .split_whitespace()
                    .map(|text| parse_override(text).map_err(|problem| anyhow!(problem)))
                    .collect::<Result<Vec<_>>>()?;
                all.1.push(catalogue::find(&name, false, &overrides, false)?);
                all.0.push(Case {
                    part: part.clone(),
                    experiment: name.clone(),
                    set,
                    trials: Vec::new(),
                });
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn there_are_enough_settings_and_no_two_are_the_same() {
        let (settings, experiments) = settings().unwrap();
        assert!(settings.len() >= 120, "{}", settings.len());
        let distinct: BTreeSet<_> =
            experiments.iter().map(|e| serde_json::to_string(&e.parameters).unwrap()).collect();
        assert_eq!(distinct.len(), experiments.len());
    }

    #[test]
    fn no_window_is_wider_than_its_timers_slots_and_what_is_stated() {
        let (settings, experiments) = settings().unwrap();
        for (setting, experiment) in settings.iter().zip(&experiments) {
            for hz in [100, 250, 300, 1000] {
                let facts = model::nominal_facts(&experiment.parameters, hz);
                let prediction = model::predict(&experiment.parameters, &facts);
                assert_eq!(prediction.unknown, None, "{} {}", setting.experiment, setting.set);
                for window in prediction.windows {
                    let open = window.share(model::width::Cause::Undetermined);
                    assert!(open.is_zero(), "{} {}: {window:?}", setting.experiment, setting.set);
                }
            }
        }
    }
}
