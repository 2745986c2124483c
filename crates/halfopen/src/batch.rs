//! Which trials a command runs, in order, and what the laboratory must be told about them.

use crate::channel::{Setup, Task};
use crate::part::{self, Earlier};
use crate::program::Surroundings;
use crate::{descriptors, kernels};
use anyhow::Result;
use report::{Clock, Machine};
use spec::{Experiment, Stagger, VirtualKernel};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

/// How long to wait where nothing is predicted to happen.
const NEVER: Duration = Duration::from_secs(10);
/// The same at the Linux defaults in virtual time.
const NEVER_VIRTUAL: Duration = Duration::from_secs(30 * 86_400);
/// How many trials run side by side unless `--jobs` says otherwise.
const JOBS: usize = 32;

/// Trials to be run together on one clock.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) experiments: Vec<Experiment>,
    pub(crate) repeat: u32,
    /// So many start phases of the timer wheel instead of repetitions.
    pub(crate) phases: Option<u32>,
    pub(crate) clock: Clock,
    /// In virtual time: the kernel of those that do not say which.
    pub(crate) kernel: VirtualKernel,
    pub(crate) jobs: Option<u32>,
    /// Whether sockets are looked at at random moments too.
    pub(crate) samples: bool,
    /// Whether the experiments were loaded with the Linux defaults.
    pub(crate) defaults: bool,
}

/// A batch whose every trial has its place.
#[derive(Debug)]
pub(crate) struct Trials {
    pub(crate) setup: Setup,
    /// In virtual time: those that they run on.
    kernels: Vec<PathBuf>,
    /// For each experiment: which of these.
    kernel_of: Vec<usize>,
    /// The kernel of those that do not say which.
    kernel: VirtualKernel,
    /// How many of each experiment.
    each: usize,
    phases: bool,
    /// For each experiment: how many trials come before its first, among those with the same
    /// settings, and among those with the same name.
    before: Vec<(usize, usize)>,
    /// The positions of those that are run.
    positions: Vec<usize>,
    /// Those that had ended before.
    pub(crate) earlier: Vec<Earlier>,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// From 0, among the trials that are run.
    pub(crate) position: usize,
    /// The place of its experiment.
    pub(crate) experiment: usize,
    /// From 1, among those of its experiment with the same settings.
    pub(crate) turn: usize,
    /// From 1, among those of its experiment's name.
    pub(crate) number: usize,
    pub(crate) phase: Option<Stagger>,
    /// In virtual time: which of the kernels it runs on.
    pub(crate) kernel: usize,
}

impl Batch {
    /// Gives each trial its place. The inner error says why this machine cannot run them.
    pub(crate) fn prepare(self) -> Result<Result<Trials, (Trials, String)>> {
        let has_commands =
            self.experiments.iter().any(|experiment| experiment.parameters.runs_command());
        let surroundings =
            if has_commands { Surroundings::of_caller()? } else { Surroundings::default() };
        let each = self.phases.unwrap_or(self.repeat) as usize;
        let (mut settings, mut names) = (BTreeMap::new(), BTreeMap::new());
        let before = self.experiments.iter().map(|experiment| {
            let shown = spec::settings::all(&experiment.parameters);
            let alike = settings.entry((experiment.name.clone(), shown)).or_insert(0);
            let of_name = names.entry(experiment.name.clone()).or_insert(0);
            let before = (*alike, *of_name);
            *alike += each;
            *of_name += each;
            before
        });
        let before = before.collect();
        let total = each * self.experiments.len();
        let jobs = self.jobs.map_or(JOBS, |jobs| jobs as usize).clamp(1, total.max(1));
        let wanted = |experiment: &Experiment| experiment.parameters.kernel.or(&self.kernel);
        let wanted: Vec<_> = self.experiments.iter().map(wanted).collect();
        let (none, kernel) = ((Vec::new(), vec![0; wanted.len()]), self.kernel.clone());
        let found = match self.clock {
            Clock::Real => Ok(none.clone()),
            Clock::Virtual => each_once(&wanted),
        };
        let setup = Setup {
            experiments: self.experiments,
            surroundings,
            jobs,
            clock: self.clock,
            samples: self.samples,
            never: match self.clock {
                Clock::Virtual if self.defaults => NEVER_VIRTUAL,
                _ => NEVER,
            },
        };
        if self.clock == Clock::Real {
            descriptors::raise_for_leases(jobs)?;
        }
        let phases = self.phases.is_some();
        let positions = (0..total).collect();
        let trials = |(kernels, kernel_of)| Trials {
            setup,
            kernels,
            kernel_of,
            kernel,
            each,
            phases,
            before,
            positions,
            earlier: Vec::new(),
        };
        Ok(match found {
            Ok(found) => Ok(trials(found)),
            Err(why) => Err((trials(none), why)),
        })
    }
}

/// The kernels that these are, and which of them each is.
fn each_once(wanted: &[VirtualKernel]) -> Result<(Vec<PathBuf>, Vec<usize>), String> {
    let mut found = Vec::new();
    let mut place = |kernel: &VirtualKernel| {
        let path = kernels::find(kernel)?;
        let known = found.iter().position(|other| *other == path);
        Ok(known.unwrap_or_else(|| {
            found.push(path);
            found.len() - 1
        }))
    };
    let places = wanted.iter().map(&mut place).collect::<Result<_, String>>()?;
    Ok((found, places))
}

impl Trials {
    /// What the laboratory is told first.
    pub(crate) fn task(&self) -> Task {
        let setup = self.setup.clone();
        match setup.clock {
            Clock::Real => Task::Run(setup),
            Clock::Virtual => Task::RunVirtual(setup, self.kernels.clone()),
        }
    }

    /// How many are run.
    pub(crate) fn total(&self) -> usize {
        self.positions.len()
    }

    /// The trial at a position among those that are run.
    pub(crate) fn place(&self, position: usize) -> Place {
        Place { position, ..self.place_of(self.positions[position]) }
    }

    /// Where a trial that is run is among all of the sweep.
    pub(crate) fn overall(&self, position: usize) -> usize {
        self.positions[position]
    }

    /// The trial at a position among all of the sweep.
    pub(crate) fn place_of(&self, position: usize) -> Place {
        let (experiment, turn) = (position / self.each, position % self.each);
        let (alike, named) = self.before[experiment];
        Place {
            position,
            experiment,
            turn: alike + turn + 1,
            number: named + turn + 1,
            phase: self.phases.then_some(Stagger { number: turn as u32 }),
            kernel: self.kernel_of[experiment],
        }
    }

    /// The trials that are to run: the position of each in the sweep, and its key there.
    pub(crate) fn keys(&self) -> Vec<(usize, String)> {
        let key = |position: &usize| {
            let place = self.place_of(*position);
            let phase = place.phase.map(|phase| phase.number + 1);
            let experiment = self.experiment(place);
            let kernel = experiment.parameters.kernel.or(&self.kernel);
            let hz = kernel.hz.unwrap_or(kernels::HZ_DEFAULT);
            part::key_of(experiment, self.setup.clock, hz, place.turn, phase)
        };
        self.positions.iter().map(|position| (*position, key(position))).collect()
    }

    /// Only these positions of the sweep are run.
    pub(crate) fn keep(&mut self, kept: impl Fn(usize) -> bool) {
        self.positions.retain(|position| kept(*position));
    }

    pub(crate) fn experiment(&self, place: Place) -> &Experiment {
        &self.setup.experiments[place.experiment]
    }

    /// What its trials run on, as far as it is known before the laboratory has told.
    pub(crate) fn machine(&self) -> Machine {
        Machine {
            kernel: observe::clock::kernel_release(),
            hz: observe::clock::hz(),
            clock: self.setup.clock,
        }
    }
}

/// Real trials that are predicted to take longer together are announced.
const LONG: Duration = Duration::from_secs(60);

/// What to say before a sweep, and before trials on the real clock that will take long: how many, how
/// long, and what takes seconds.
pub(crate) fn hint(trials: &Trials) -> Option<String> {
    let experiments = &trials.setup.experiments;
    let names: BTreeSet<_> = experiments.iter().map(|experiment| &experiment.name).collect();
    let is_sweep = names.len() < experiments.len();
    let is_real = trials.setup.clock == Clock::Real;
    let takes = if is_real { takes(trials) } else { Duration::ZERO };
    if !is_sweep && takes <= LONG {
        return None;
    }
    let mut parts = Vec::new();
    if is_sweep {
        let points = spec::counted(experiments.len(), "point");
        let all = spec::counted(trials.total(), "trial");
        parts.push(if trials.each == 1 {
            all
        } else {
            format!("{points} × {} = {all}", trials.each)
        });
    }
    if !takes.is_zero() {
        let takes = report::span::measured(takes.as_secs_f64().ceil());
        parts.push(format!("this will take about {takes} on the real clock"));
    }
    let told = parts.join("; ");
    Some(if takes > LONG { format!("{told}; --clock virtual takes seconds") } else { told })
}

/// How long trials on the real clock are predicted to take together.
fn takes(trials: &Trials) -> Duration {
    let hz = observe::clock::hz();
    let takes = |experiment: &Experiment| {
        let parameters = &experiment.parameters;
        let prediction = model::predict(parameters, &model::nominal_facts(parameters, hz));
        let latest = prediction.hull().map(|(_, latest)| latest);
        // The end of the watch, where nothing is predicted to happen.
        let told = match (latest, parameters.deadline) {
            (Some(latest), Some(deadline)) if !parameters.deadline_extends => latest.min(deadline),
            (Some(latest), _) => latest,
            (None, deadline) => deadline.unwrap_or(trials.setup.never),
        };
        parameters.fault.after + told
    };
    // What a command does is not known beforehand.
    let known = |experiment: &&Experiment| !experiment.parameters.predicts_anew();
    let each: Vec<_> = trials.setup.experiments.iter().filter(known).map(takes).collect();
    let longest = each.iter().max().copied().unwrap_or_default();
    let all = each.iter().sum::<Duration>() * trials.each as u32;
    longest.max(all / trials.setup.jobs as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::Parameters;

    fn experiment(name: &str, after: u64) -> Experiment {
        let mut parameters = Parameters::default();
        parameters.fault.after = Duration::from_secs(after);
        let (name, question) = (name.into(), "?".into());
        Experiment { name, question, claims: vec![], parameters, mend: None }
    }

    fn trials(experiments: Vec<Experiment>, repeat: u32) -> Trials {
        let batch = Batch {
            experiments,
            repeat,
            phases: None,
            clock: Clock::Real,
            kernel: VirtualKernel::default(),
            jobs: Some(2),
            samples: false,
            defaults: false,
        };
        batch.prepare().unwrap().unwrap()
    }

    #[test]
    fn long_trials_on_the_real_clock_are_announced() {
        let mut idle = experiment("a", 1);
        idle.parameters.fault.kind = spec::FaultKind::PowerOff;
        idle.parameters.client.keepalive.enabled = true;
        let said = hint(&trials(vec![idle.clone()], 1)).unwrap();
        assert!(said.contains("2 h 1") && said.contains("--clock virtual"), "{said}");
        idle.parameters.client.keepalive.idle = Some(Duration::from_secs(2));
        idle.parameters.client.keepalive.interval = Some(Duration::from_secs(1));
        assert_eq!(hint(&trials(vec![idle.clone()], 1)), None);
        let said = hint(&trials(vec![idle.clone(), experiment("a", 2)], 3)).unwrap();
        assert!(said.starts_with("2 points × 3 = 6 trials; "), "{said}");
        // What commands take is not known.
        let mut commands = [experiment("a", 1), experiment("a", 2)];
        for one in &mut commands {
            one.parameters.client.program = spec::Program::Command;
        }
        assert_eq!(hint(&trials(commands.into(), 1)).unwrap(), "2 trials");
        // Two side by side.
        let said = hint(&trials(vec![idle], 40)).unwrap();
        assert!(said.contains("about 24"), "{said}");
    }

    #[test]
    fn numbers_are_unique_by_name_and_turns_by_settings() {
        let trials = trials(
            vec![experiment("a", 1), experiment("b", 1), experiment("a", 2), experiment("a", 1)],
            3,
        );
        assert_eq!(trials.total(), 12);
        let places: Vec<_> = (0..12).map(|position| trials.place(position)).collect();
        let of = |at: usize| (places[at].experiment, places[at].turn, places[at].number);
        assert_eq!([of(0), of(2), of(3)], [(0, 1, 1), (0, 3, 3), (1, 1, 1)]);
        assert_eq!(of(6), (2, 1, 4), "the same name with other settings");
        assert_eq!(of(11), (3, 6, 9), "the same name with the same settings");
        let directories: BTreeSet<_> =
            places.iter().map(|place| (&trials.experiment(*place).name, place.number)).collect();
        assert_eq!(directories.len(), 12);
    }
}
