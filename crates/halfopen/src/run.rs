//! `halfopen run`: plans the trials, follows the laboratory's process, judges, writes, tells.

use crate::channel::{Capture, Circumstances, Ending, Message, Orders, Task};
use crate::cli::{self, Format};
use crate::output::{self, Exit};
use crate::screen::Screen;
use crate::store::{self, Store};
use crate::{catalogue, guest, lease, supervisor, worker};
use anyhow::{Context, Result, anyhow, bail};
use report::html::File;
use report::pcapng::Packet;
use report::{Clock, Run, Trial};
use spec::{Experiment, Facts, Phase, Plan};
use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};
use timeline::{Event, Timeline};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::signal::unix::{Signal, SignalKind, signal};
use verdict::{Verdict, Word};

/// How long to wait where nothing is predicted to happen.
const NEVER: Duration = Duration::from_secs(10);
/// The same at the Linux defaults in virtual time.
const NEVER_VIRTUAL: Duration = Duration::from_secs(30 * 86_400);
/// Descriptors for everything else.
const LEEWAY: u64 = 64;
/// How many trials run side by side unless `--jobs` says otherwise.
const JOBS: usize = 32;

pub(crate) fn run(arguments: &cli::Run) -> Exit {
    let colour = output::colour(&std::io::stderr());
    let mut experiments = Vec::new();
    for name in &arguments.experiments {
        let settings = &arguments.settings;
        match catalogue::find(name, settings.defaults, &settings.overrides, colour) {
            Ok(experiment) => experiments.push(experiment),
            Err(error) => return output::fail(Exit::USAGE, &error),
        }
    }
    if arguments.phases.is_some() && arguments.clock != cli::ClockName::Virtual {
        return output::fail(Exit::USAGE, &anyhow!(PHASES_ARE_VIRTUAL));
    }
    if let Err(error) = check_hz(arguments.hz, arguments.clock) {
        return output::fail(Exit::USAGE, &error);
    }
    match carry_out(arguments, &experiments) {
        Ok(exit) => exit,
        Err(error) => output::fail(Exit::INTERNAL, &error),
    }
}

/// Whether HZ can be chosen.
///
/// # Errors
/// Why not.
pub(crate) fn check_hz(hz: Option<u32>, clock: cli::ClockName) -> Result<()> {
    if hz.is_some() && clock != cli::ClockName::Virtual {
        bail!(HZ_IS_VIRTUAL);
    }
    guest::check_hz(hz)
}

/// The phases of the real clock's wheel cannot be chosen without waiting minutes for them.
const PHASES_ARE_VIRTUAL: &str = "--phases needs --clock virtual: the timer wheel's longest slot is \
    over a minute of real time";

/// This machine's kernel has the HZ that it was built with.
const HZ_IS_VIRTUAL: &str = "--hz needs --clock virtual: a kernel's HZ is decided when it is built \
    (`halfopen predict --hz` says what another one would do)";

fn carry_out(arguments: &cli::Run, experiments: &[Experiment]) -> Result<Exit> {
    let batch = Batch {
        experiments,
        repeat: arguments.repeat,
        phases: arguments.phases,
        clock: Clock::from(arguments.clock),
        hz: arguments.hz.unwrap_or(guest::HZ_DEFAULT),
        jobs: arguments.jobs,
        defaults: arguments.settings.defaults,
    };
    let format = arguments.output.format;
    let prepared = match batch.prepare()? {
        Ok(prepared) => prepared,
        Err((orders, why)) => return Ok(skip_all(format, &orders, &why)),
    };

    // Before the runtime's threads: the laboratory ends with the thread that started it.
    let laboratory = supervisor::start()?;
    store::become_the_caller(&arguments.out)?;
    let store = Store::open(&arguments.out)?;
    prepared.conduct(laboratory, &store, format)?.conclude()
}

/// Trials to be run together on one clock.
pub(crate) struct Batch<'a> {
    pub(crate) experiments: &'a [Experiment],
    pub(crate) repeat: u32,
    /// So many start phases of the timer wheel instead of repetitions.
    pub(crate) phases: Option<u32>,
    pub(crate) clock: Clock,
    /// In virtual time, of which kernel.
    pub(crate) hz: u32,
    pub(crate) jobs: Option<u32>,
    /// Whether the experiments were loaded with the Linux defaults.
    pub(crate) defaults: bool,
}

/// A batch that can run here, with addresses of its own.
pub(crate) struct Prepared {
    orders: Orders,
    task: Task,
    /// Nobody else has the addresses as long as these live.
    _leases: Vec<lease::Lease>,
}

impl Batch<'_> {
    /// Plans the trials. The inner error says why this machine cannot run them.
    pub(crate) fn prepare(&self) -> Result<Result<Prepared, (Orders, String)>> {
        if self.clock == Clock::Real {
            let trials = self.experiments.len() as u64 * u64::from(self.repeat);
            worker::raise_descriptor_limit(trials + LEEWAY).with_context(|| {
                format!("each of {trials} trials takes a descriptor to keep its addresses")
            })?;
        }
        let mut leases = Vec::new();
        let mut plans = Vec::new();
        for experiment in self.experiments {
            for turn in 0..self.phases.unwrap_or(self.repeat) {
                let number = plans.len();
                let parameters = &experiment.parameters;
                let addresses = match self.clock {
                    // A kernel of its own shares no addresses, and repeats itself with the same ones.
                    Clock::Virtual => lease::fixed(number, parameters.family, parameters.topology),
                    Clock::Real => {
                        let lease = lease::Lease::take(parameters.family, parameters.topology)?;
                        let addresses = lease.addresses.clone();
                        leases.push(lease);
                        addresses
                    }
                };
                let phase = self.phases.map(|_| Phase { number: turn });
                plans.push(Plan { number, experiment: experiment.clone(), addresses, phase });
            }
        }
        let jobs = self.jobs.map_or(JOBS, |jobs| jobs as usize).clamp(1, plans.len().max(1));
        let orders = Orders {
            plans,
            jobs,
            clock: self.clock,
            never: match self.clock {
                Clock::Virtual if self.defaults => NEVER_VIRTUAL,
                _ => NEVER,
            },
        };
        let task = match self.clock {
            Clock::Real => Task::Run(orders.clone()),
            Clock::Virtual => match guest::find_kernel(self.hz) {
                Ok(kernel) => Task::RunVirtual(orders.clone(), kernel),
                Err(why) => return Ok(Err((orders, why))),
            },
        };
        Ok(Ok(Prepared { orders, task, _leases: leases }))
    }
}

impl Prepared {
    /// Whose time the trials will have.
    pub(crate) fn clock(&self) -> Clock {
        self.orders.clock
    }

    /// Runs the trials, judges them, and writes down each as it ends.
    pub(crate) fn conduct<'a>(
        &self,
        mut laboratory: std::process::Child,
        store: &'a Store,
        format: Format,
    ) -> Result<Conducted<'a>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting the runtime")?;
        let mut front = Front::new(format, &self.orders, store);
        let followed = runtime.block_on(front.follow(&mut laboratory, &self.task));
        // Closing the lifeline ends whatever is left of the laboratory.
        drop(laboratory.stdin.take());
        let status = laboratory.wait().context("waiting for the laboratory's process")?;
        followed?;
        if !front.finished {
            bail!("the laboratory's process ended early ({status}); what it said is above");
        }
        Ok(front.conducted())
    }
}

/// Gives the laboratory its task.
pub(crate) fn give(commands: &mut impl Write, task: &Task) -> Result<()> {
    let mut line = serde_json::to_vec(task).context("writing the orders")?;
    line.push(b'\n');
    // It may have died already, and has said why on standard error.
    let _ = commands.write_all(&line);
    Ok(())
}

/// What became of one trial so far.
#[derive(Default)]
struct Record {
    events: Vec<Event>,
    captures: Vec<Capture>,
    facts: Option<Facts>,
    prediction: Option<model::Prediction>,
}

struct Front<'a> {
    format: Format,
    plans: BTreeMap<usize, Plan>,
    records: BTreeMap<usize, Record>,
    store: &'a Store,
    screen: Screen,
    machine: (String, u32),
    clock: Clock,
    trials: Vec<Trial>,
    exit: Exit,
    finished: bool,
    interrupted: bool,
    started: Instant,
}

impl<'a> Front<'a> {
    fn new(format: Format, orders: &Orders, store: &'a Store) -> Self {
        let plans: BTreeMap<_, _> =
            orders.plans.iter().map(|plan| (plan.number, plan.clone())).collect();
        Self {
            format,
            records: plans.keys().map(|number| (*number, Record::default())).collect(),
            screen: Screen::new(format, orders.clock, &orders.plans),
            plans,
            store,
            machine: (observe::clock::kernel_release(), observe::clock::hz()),
            clock: orders.clock,
            trials: Vec::new(),
            exit: Exit::AGREES,
            finished: false,
            interrupted: false,
            started: Instant::now(),
        }
    }

    /// Gives the orders and takes every message, until the last. A signal asks for an end in good
    /// order; a second one does not ask.
    async fn follow(&mut self, laboratory: &mut std::process::Child, task: &Task) -> Result<()> {
        let mut signals = Signals::listen()?;
        let commands = laboratory.stdin.as_mut().context("the lifeline is piped")?;
        give(commands, task)?;
        let stdout = laboratory.stdout.take().context("standard output is piped")?;
        let stdout = tokio::process::ChildStdout::from_std(stdout)?;
        let mut messages = BufReader::new(stdout).lines();
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        let mut stopping = false;
        loop {
            tokio::select! {
                line = messages.next_line() => {
                    let Some(line) = line.context("listening to the laboratory's process")? else {
                        return Ok(());
                    };
                    let message = serde_json::from_str(&line)
                        .with_context(|| format!("the laboratory said something unreadable: {line}"))?;
                    self.take(message)?;
                    if self.finished {
                        return Ok(());
                    }
                }
                _ = tick.tick() => self.screen.tick(observe::clock::monotonic_ns()),
                () = signals.any() => {
                    if stopping {
                        bail!("stopped by a second signal: what was recorded is lost");
                    }
                    stopping = true;
                    self.interrupted = true;
                    self.screen.say("stopping: what was recorded so far is kept (again to stop at once)");
                    let _ = commands.write_all(b"stop\n");
                }
            }
        }
    }

    fn take(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Machine { kernel, hz } => self.machine = (kernel, hz),
            Message::Started(number) => self.screen.started(&self.plans[&number]),
            Message::Event(number, event) => {
                self.screen.event(number, &event);
                self.record(number)?.events.push(event);
            }
            Message::Captured(number, capture) => {
                self.screen.event(number, &capture.event);
                let record = self.record(number)?;
                record.events.push(capture.event.clone());
                record.captures.push(capture);
            }
            Message::Facts(number, facts) => self.record(number)?.facts = Some(*facts),
            Message::Prediction(number, prediction) => {
                self.screen.predicted(&self.plans[&number], &prediction);
                self.record(number)?.prediction = Some(*prediction);
            }
            Message::Ended(number, ending) => self.end(number, &ending)?,
            Message::Finished => self.finished = true,
            Message::Cannot(why) => {
                let ending = Ending::Skipped(why);
                let left: Vec<_> = self.records.keys().copied().collect();
                left.into_iter().try_for_each(|number| self.end(number, &ending))?;
                self.finished = true;
            }
            Message::Check(_) | Message::Output(_) | Message::Exited(_) => {}
        }
        Ok(())
    }

    fn record(&mut self, number: usize) -> Result<&mut Record> {
        self.records.get_mut(&number).ok_or_else(|| anyhow!("there is no trial {number}"))
    }

    /// Judges a trial that has ended, and writes everything down.
    fn end(&mut self, number: usize, ending: &Ending) -> Result<()> {
        let record = self.records.remove(&number).context("a trial ended twice")?;
        let plan = self.plans[&number].clone();
        let timeline = Timeline::new(record.events);
        let (facts, prediction) = (record.facts.as_ref(), record.prediction.as_ref());
        let parameters = &plan.experiment.parameters;
        let verdict = ending.verdict(parameters, facts, prediction, &timeline);
        let exit = match ending {
            Ending::Failed(_) => Exit::INTERNAL,
            Ending::Refused(_) => Exit::USAGE,
            _ => Exit::of(verdict.word),
        };
        self.exit = self.exit.and(exit);
        let mut trial = Trial {
            number,
            experiment: plan.experiment,
            facts: record.facts,
            prediction: record.prediction,
            verdict,
            timeline,
            artifacts: None,
        };
        if let Ending::Refused(why) = ending {
            // A mistake in the settings leaves nothing but its explanation.
            self.screen.say(&format!("error: {}: {why}", trial.experiment.name));
            self.trials.push(trial);
            return Ok(());
        }
        let circumstances = Circumstances { clock: self.clock, ending: ending.clone() };
        let mut files = artifacts(&trial, &record.captures)?;
        files.push(("trial.json", report::json::pretty(&circumstances)));
        let directory = self.store.fresh(&trial.experiment.name, self.turn(number))?;
        trial.artifacts = Some(directory.display().to_string());
        files.push((
            "report.html",
            report::html::trial_page(&self.run(Vec::new()), &trial, &beside()),
        ));
        store::fill(&directory, &files)?;
        self.screen.ended(&trial);
        self.trials.push(trial);
        Ok(())
    }

    /// Which of the trials of its experiment it is, from 1, in whatever order they end.
    fn turn(&self, number: usize) -> usize {
        let name = &self.plans[&number].experiment.name;
        let until = self.plans.range(..=number);
        until.filter(|(_, plan)| plan.experiment.name == *name).count()
    }

    fn conducted(mut self) -> Conducted<'a> {
        let mut trials = std::mem::take(&mut self.trials);
        trials.sort_by_key(|trial| trial.number);
        let run = self.run(trials);
        Conducted {
            run,
            exit: self.exit,
            interrupted: self.interrupted,
            format: self.format,
            store: self.store,
            screen: self.screen,
        }
    }

    fn run(&self, trials: Vec<Trial>) -> Run {
        let (kernel, hz) = self.machine.clone();
        Run { kernel, hz, clock: self.clock, wall_s: self.started.elapsed().as_secs_f64(), trials }
    }
}

/// A batch that has run.
pub(crate) struct Conducted<'a> {
    pub(crate) run: Run,
    /// By the gravest verdict.
    pub(crate) exit: Exit,
    /// Whether the operator stopped it.
    pub(crate) interrupted: bool,
    format: Format,
    store: &'a Store,
    screen: Screen,
}

impl Conducted<'_> {
    /// Writes and shows what is to be said about all trials together.
    fn conclude(mut self) -> Result<Exit> {
        let run = &self.run;
        if run.trials.len() > 1 {
            let directory = self.store.write_directory("run", &run_files(run)?)?;
            self.screen.say_where(&directory);
        }
        let written = match self.format {
            Format::Json => output::print(&report::json::run(run)),
            Format::Human => self.screen.conclude(run),
        };
        Ok(self.exit.and(written))
    }
}

/// The files about all trials of a run together.
fn run_files(run: &Run) -> Result<Vec<(&'static str, Vec<u8>)>> {
    // The trials' directories stand beside the run's.
    let page = |trial: &Trial| {
        let directory = std::path::Path::new(trial.artifacts.as_ref()?).file_name()?.to_str()?;
        Some(format!("../{directory}/report.html"))
    };
    Ok(vec![
        ("run.json", report::json::run(run)),
        ("report.html", report::html::run_page(run, page)),
        ("summary.md", report::markdown::summary(run, page).into_bytes()),
        ("junit.xml", report::junit::report(run).context("writing the JUnit report")?),
    ])
}

/// What lies beside a trial's page.
fn beside() -> Vec<File> {
    [
        ("capture.pcapng", "the packets at both hosts, with comments, for Wireshark"),
        ("timeline.jsonl", "every event"),
        ("facts.json", "what was measured before the fault"),
        ("prediction.json", "what was predicted before the fault"),
        ("verdict.json", "the measurement, the proof of the fault, the verdict"),
        ("experiment.json", "what was done"),
        ("trial.json", "the clock, and how the trial ended"),
    ]
    .map(|(name, what)| File { name: name.into(), what: what.into() })
    .into()
}

/// The files of one trial: everything that `halfopen judge` needs, and the capture.
fn artifacts(trial: &Trial, captures: &[Capture]) -> Result<Vec<(&'static str, Vec<u8>)>> {
    use report::json::pretty;
    let mut files = vec![("experiment.json", pretty(&trial.experiment))];
    if let Some(facts) = &trial.facts {
        files.push(("facts.json", pretty(facts)));
    }
    if let Some(prediction) = &trial.prediction {
        files.push(("prediction.json", pretty(prediction)));
    }
    let timeline = trial.timeline.to_jsonl().context("writing the timeline")?;
    files.push(("timeline.jsonl", timeline.into_bytes()));
    files.push(("verdict.json", pretty(&trial.verdict)));
    let frames: Vec<_> = captures.iter().map(|capture| unhex(&capture.frame)).collect();
    let packets: Vec<_> = captures
        .iter()
        .zip(&frames)
        .map(|(Capture { event, wall_ns, wire_len, .. }, frame)| Packet {
            event,
            wall_ns: *wall_ns,
            frame,
            wire_len: *wire_len,
        })
        .collect();
    files.push(("capture.pcapng", report::pcapng::capture(trial, &packets)));
    Ok(files)
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks_exact(2)
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

pub(crate) fn skip_all(format: Format, orders: &Orders, why: &str) -> Exit {
    let trials = orders.plans.iter().map(|plan| Trial {
        number: plan.number,
        experiment: plan.experiment.clone(),
        facts: None,
        prediction: None,
        verdict: Verdict::without_measurement(Word::Skipped, why),
        timeline: Timeline::default(),
        artifacts: None,
    });
    let run = Run {
        kernel: observe::clock::kernel_release(),
        hz: observe::clock::hz(),
        clock: orders.clock,
        wall_s: 0.0,
        trials: trials.collect(),
    };
    let written = match format {
        Format::Json => output::print(&report::json::run(&run)),
        Format::Human => output::print(format!("skipped  {why}\n").as_bytes()),
    };
    Exit::SKIPPED.and(written)
}

/// The signals that end a run.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("listening for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
