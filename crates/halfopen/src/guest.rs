//! Virtual time: the same worker inside a kernel whose clock jumps to the next timer.
//!
//! On the host the worker of the sandbox boots the guest and passes on what it reports; in the
//! guest the same executable runs the trials. Orders and reports go through files on a private
//! tmpfs, which ends with the guest.

mod relay;
mod wall;

use crate::channel::{Ending, Message, Setup, Sole, Start, Task, WorkerOrder, write_line};
use crate::hidden::GUEST;
use crate::worker::Starts;
use crate::{program, supervisor};
use anyhow::{Context, Result, anyhow, bail};
use lab::guest::{Exchange, Guest, Pulse, init};
use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu};
use nix::unistd::Pid;
use relay::Relay;
use sandbox::Identity;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write, stdout};
use std::iter::{repeat, zip};
use std::path::{Path, PathBuf};
use std::thread::ScopedJoinHandle;
use std::time::Duration;
use tokio::sync::watch;

const TASK: &str = "task.json";
const ORDERS: &str = "orders.jsonl";
const MESSAGES: &str = "messages.jsonl";
/// So long of real time a guest's clock may stand still: thirty days take it some seconds, the start of
/// a Java program a minute.
const WATCHDOG: Duration = Duration::from_secs(300);
/// The variable that says otherwise, a duration.
const WATCHDOG_VARIABLE: &str = "HALFOPEN_WATCHDOG";
/// Memory for the two peers of a trial and their network; the host pays for what is touched.
const MIB_A_TRIAL: u32 = 8;
/// Memory for the commands of a trial and for the files that they write. A guest without any left
/// stands still.
const MIB_OF_COMMANDS: u32 = 192;
/// All the memory of a guest, at most.
const MIB_MOST: u32 = 8192;
/// What the guest's wall clock says at boot: the same in every run, so that runs can be compared.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);
const SEED: u64 = 1;

/// Inside a guest this does everything and never returns; outside it does nothing.
pub(crate) fn take_over_if_guest() {
    if !init::is_guest() {
        return;
    }
    let code = match init::enter() {
        Ok(entry) => entry.run_self(),
        Err(error) => {
            eprintln!("error: {error}");
            5
        }
    };
    init::power_off(code)
}

/// The trials dealt out to guests: of each kernel, one for each processor.
pub(crate) struct Shares {
    processors: usize,
    /// How many trials each kernel has.
    dealt: Vec<usize>,
    /// By kernel.
    guests: Vec<Vec<Share>>,
}

struct Share {
    exchange: Exchange,
    orders: BufWriter<File>,
}

impl Share {
    fn new() -> Result<Self> {
        let exchange = Exchange::create()?;
        exchange.write(ORDERS, b"")?;
        exchange.write(MESSAGES, b"")?;
        let orders = BufWriter::new(exchange.open(ORDERS)?);
        Ok(Self { exchange, orders })
    }
}

impl Shares {
    pub(crate) fn new(kernels: usize) -> Self {
        let guests = (0..kernels).map(|_| Vec::new()).collect();
        Self { processors: processors().len(), dealt: vec![0; kernels], guests }
    }

    /// Has the next guest of its kernel start a trial.
    pub(crate) fn deal(&mut self, start: Start) -> Result<()> {
        let kernel = start.kernel;
        let dealt = self.dealt.get_mut(kernel).context("there is no such kernel")?;
        let next = *dealt % self.processors;
        *dealt += 1;
        let guests = &mut self.guests[kernel];
        if next == guests.len() {
            guests.push(Share::new()?);
        }
        write_line(&mut guests[next].orders, &WorkerOrder::Start(start))
    }
}

/// On the host, in the sandbox: runs the trials in their guests.
pub(crate) fn run(
    setup: &Setup,
    shares: Shares,
    kernels: &[PathBuf],
    stopped: &watch::Receiver<bool>,
) -> Result<i32> {
    let all: usize = shares.guests.iter().map(Vec::len).sum();
    let guests = all.max(1);
    let jobs = setup.jobs.div_ceil(guests);
    let jobs = if runs_commands(setup) { jobs.min(room(guests)) } else { jobs };
    let mut tasks = Vec::new();
    for (kernel, share) in zip(kernels, shares.guests).flat_map(|(k, all)| zip(repeat(k), all)) {
        let task = Task::Run(Setup { jobs, ..setup.clone() });
        tasks.push((task, share.exchange, kernel.as_path()));
    }
    boot(tasks, stopped)
}

fn runs_commands(setup: &Setup) -> bool {
    setup.experiments.iter().any(|experiment| experiment.parameters.runs_command())
}

/// For the commands of how many trials at once each of so many guests has memory.
fn room(guests: usize) -> usize {
    let most = available_mib().unwrap_or(MIB_MOST) / guests as u32;
    let most = most.min(MIB_MOST).saturating_sub(Guest::DEFAULT_MEMORY_MIB);
    (most / MIB_OF_COMMANDS).max(1) as usize
}

/// What the machine can spare (`MemAvailable`, proc(5)).
fn available_mib() -> Option<u32> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    u32::try_from(kib / 1024).ok()
}

/// On the host, in the sandbox: runs one command in a guest.
pub(crate) fn run_sole(sole: Sole, kernel: &Path, stopped: &watch::Receiver<bool>) -> Result<i32> {
    boot(vec![(Task::Program(sole), Share::new()?.exchange, kernel)], stopped)
}

/// Boots a guest for each task, and passes on everything that they report.
fn boot(tasks: Vec<(Task, Exchange, &Path)>, stopped: &watch::Receiver<bool>) -> Result<i32> {
    let launcher = match supervisor::start_launcher() {
        Ok(launcher) => launcher,
        Err(error) => return supervisor::cannot(&error.to_string()),
    };
    let executable = supervisor::executable()?;
    let watchdog = watchdog()?;
    // The guest's root knows every user by the number that it has outside.
    let caller = Identity { mapped: false, ..program::caller()? };
    let caller = serde_json::to_string(&caller)?;
    std::thread::scope(|scope| {
        let mut guests = Vec::new();
        for ((task, exchange, kernel), processor) in zip(tasks, processors().into_iter().cycle()) {
            let (jobs, commands) = match &task {
                Task::Run(setup) => (setup.jobs, runs_commands(setup)),
                _ => (1, false),
            };
            let each = if commands { MIB_OF_COMMANDS } else { MIB_A_TRIAL };
            let memory = each.saturating_mul(jobs as u32).saturating_add(Guest::DEFAULT_MEMORY_MIB);
            exchange
                .write(TASK, &serde_json::to_vec(&task).context("writing the guest's task")?)?;
            let messages = exchange.open(MESSAGES)?;
            let pulse = Pulse::default();
            let guest = Guest::new(kernel, &executable)
                .arg(GUEST)
                .env(
                    "HALFOPEN_LOG",
                    std::env::var("HALFOPEN_LOG").unwrap_or_else(|_| "warn".into()),
                )
                .env(program::CALLER, &caller)
                .watchdog(watchdog)
                .pulse(pulse.clone())
                .memory_mib(memory.min(MIB_MOST))
                .processor(processor)
                .epoch(EPOCH)
                .seed(SEED);
            let launcher = &launcher;
            let running = std::thread::Builder::new()
                .name("guest".into())
                .spawn_scoped(scope, move || guest.run(launcher, &exchange))?;
            guests.push((Relay::new(messages, pulse), Some(running)));
        }
        let mut failed = Ok(());
        while guests.iter().any(|(_, running)| running.is_some()) {
            for (relay, running) in &mut guests {
                let ended = running.as_ref().is_some_and(ScopedJoinHandle::is_finished);
                relay.pass_on()?;
                let Some(running) = running.take_if(|_| ended) else { continue };
                let ended = running.join().map_err(|_| anyhow!("a defect in halfopen"))?;
                failed = failed.and(relay.conclude(ended));
            }
            if *stopped.borrow() {
                for (relay, running) in &mut guests {
                    if running.is_some() {
                        relay.end(&Ending::Interrupted)?;
                    }
                }
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        failed?;
        say([Message::Finished])?;
        // Guests that still run end with this process.
        std::process::exit(0)
    })
}

/// How long a guest's clock may stand still.
fn watchdog() -> Result<Duration> {
    std::env::var(WATCHDOG_VARIABLE).map_or(Ok(WATCHDOG), |text| {
        spec::duration::parse(&text).map_err(|why| anyhow!("{WATCHDOG_VARIABLE}: {why}"))
    })
}

/// The processors that this process may run on, from the one that it is on onwards: several
/// halfopen at once do not all begin with the same.
fn processors() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    let mut processors: Vec<usize> =
        (0..CpuSet::count()).filter(|number| allowed.is_set(*number).unwrap_or(false)).collect();
    let here = sched_getcpu().unwrap_or(0);
    if let Some(at) = processors.iter().position(|number| *number == here) {
        processors.rotate_left(at);
    }
    if processors.is_empty() { vec![here] } else { processors }
}

/// Reports.
fn say(messages: impl IntoIterator<Item = Message>) -> Result<()> {
    let mut stdout = stdout().lock();
    messages.into_iter().try_for_each(|message| write_line(&mut stdout, &message))
}

/// [`Message::Finished`], as a line.
const FINISHED: &[u8] = b"\"Finished\"";

/// In the guest: does the task.
pub(crate) fn work() -> Result<i32> {
    let task = std::fs::read(TASK).context("reading the task")?;
    let messages = File::options().append(true).open(MESSAGES).context("opening the reports")?;
    match serde_json::from_slice(&task).context("understanding the task")? {
        Task::Run(setup) => {
            let orders = BufReader::new(File::open(ORDERS).context("opening the orders")?);
            // Nobody stops a guest in good order: it ends with its host.
            let (_stop, stopped) = watch::channel(false);
            crate::worker::work(setup, Starts::Written(orders.lines()), messages, stopped)
        }
        Task::Program(sole) => {
            let code = crate::sole::work(&sole, &messages)?;
            (&messages).write_all(&[FINISHED, b"\n"].concat()).context("reporting")?;
            Ok(code)
        }
        _ => bail!("a guest runs trials or a program"),
    }
}
