//! Virtual time: the same worker inside a kernel whose clock jumps to the next timer.
//!
//! On the host the worker of the sandbox boots the guest and passes on what it reports; in the
//! guest the same executable runs the trials. Orders and reports go through files on a private
//! tmpfs, which ends with the guest.

mod wall;

use crate::channel::{Ending, Message, Order, Setup, Sole, Start, Task, write_line};
use crate::hidden::GUEST;
use crate::worker::Starts;
use crate::{program, supervisor};
use anyhow::{Context, Result, anyhow, bail};
use lab::guest::{End, Exchange, Guest, Report, init};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu};
use nix::unistd::Pid;
use sandbox::Identity;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write, stdout};
use std::iter::{repeat, zip};
use std::path::{Path, PathBuf};
use std::thread::ScopedJoinHandle;
use std::time::Duration;
use tokio::sync::watch;
use wall::WallTime;

const TASK: &str = "task.json";
const ORDERS: &str = "orders.jsonl";
const MESSAGES: &str = "messages.jsonl";
/// Wall time after which a guest is taken for hung. Thirty days take some seconds.
const WATCHDOG: Duration = Duration::from_secs(300);
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
        write_line(&mut guests[next].orders, &Order::Start(start))
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
    let jobs = setup.jobs.div_ceil(all.max(1));
    let mut tasks = Vec::new();
    for (kernel, share) in zip(kernels, shares.guests).flat_map(|(k, all)| zip(repeat(k), all)) {
        let task = Task::Run(Setup { jobs, ..setup.clone() });
        tasks.push((task, share.exchange, kernel.as_path()));
    }
    boot(tasks, stopped)
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
    // The guest's root knows every user by the number that it has outside.
    let caller = Identity { mapped: false, ..program::caller()? };
    let caller = serde_json::to_string(&caller)?;
    std::thread::scope(|scope| {
        let mut guests = Vec::new();
        for ((task, exchange, kernel), processor) in zip(tasks, processors().into_iter().cycle()) {
            let (jobs, commands) = match &task {
                Task::Run(setup) => {
                    let mut all = setup.experiments.iter();
                    (setup.jobs, all.any(|experiment| experiment.parameters.runs_command()))
                }
                _ => (1, false),
            };
            let each = if commands { MIB_OF_COMMANDS } else { MIB_A_TRIAL };
            let memory = each.saturating_mul(jobs as u32).saturating_add(Guest::DEFAULT_MEMORY_MIB);
            exchange
                .write(TASK, &serde_json::to_vec(&task).context("writing the guest's task")?)?;
            let messages = exchange.open(MESSAGES)?;
            let guest = Guest::new(kernel, &executable)
                .arg(GUEST)
                .env(
                    "HALFOPEN_LOG",
                    std::env::var("HALFOPEN_LOG").unwrap_or_else(|_| "warn".into()),
                )
                .env(program::CALLER, &caller)
                .watchdog(WATCHDOG)
                .memory_mib(memory.min(MIB_MOST))
                .processor(processor)
                .epoch(EPOCH)
                .seed(SEED);
            let launcher = &launcher;
            let running = std::thread::Builder::new()
                .name("guest".into())
                .spawn_scoped(scope, move || guest.run(launcher, &exchange))?;
            guests.push((Relay::new(messages), Some(running)));
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

/// Passes on a guest's messages, line by line.
struct Relay {
    messages: File,
    /// How much of it was read, bytes.
    read: u64,
    /// The trials that have started and not ended.
    running: BTreeSet<usize>,
    pending: Vec<u8>,
    finished: bool,
    wall_time: Option<WallTime>,
}

/// How much is read at once, bytes.
const READ_MOST: u64 = 1 << 20;

impl Relay {
    fn new(messages: File) -> Self {
        Self {
            messages,
            read: 0,
            running: BTreeSet::new(),
            pending: Vec::new(),
            finished: false,
            wall_time: WallTime::is_wanted().then(WallTime::start),
        }
    }

    /// Everything that there is so far.
    fn pass_on(&mut self) -> Result<()> {
        while self.pass_on_some()? > 0 {}
        Ok(())
    }

    fn pass_on_some(&mut self) -> Result<usize> {
        let some = (&self.messages).take(READ_MOST).read_to_end(&mut self.pending);
        let some = some.context("reading the guest's reports")?;
        self.forget_what_was_read(some as u64);
        let Some(last) = self.pending.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(some);
        };
        let rest = self.pending.split_off(last + 1);
        let whole = std::mem::replace(&mut self.pending, rest);
        for line in whole.split(|byte| *byte == b'\n') {
            self.look_at(line);
        }
        // Said once, when every guest has ended.
        let now = match whole.strip_suffix(b"\n") {
            Some(lines) if self.finished => lines.strip_suffix(FINISHED).unwrap_or(&whole),
            _ => &whole,
        };
        let mut stdout = stdout().lock();
        stdout.write_all(now).and_then(|()| stdout.flush()).context("reporting")?;
        Ok(some)
    }

    /// Only beginnings and ends of trials matter here; everything else goes by unread.
    fn look_at(&mut self, line: &[u8]) {
        if line.starts_with(b"{\"Started\"") || line.starts_with(b"{\"Ended\"") {
            match serde_json::from_slice(line) {
                Ok(Message::Started(position, _)) => self.running.insert(position),
                Ok(Message::Ended(position, _)) => self.running.remove(&position),
                _ => false,
            };
        }
        self.finished |= line == FINISHED;
        if let Some(wall_time) = &mut self.wall_time {
            wall_time.take(line);
        }
    }

    /// Gives the memory of the file's older part back: a tmpfs has no other place for it. The
    /// guest, which writes at its end, may write its last page again.
    fn forget_what_was_read(&mut self, some: u64) {
        const KEPT: u64 = 1 << 20;
        let before = self.read;
        self.read += some;
        if before / READ_MOST < self.read / READ_MOST
            && let Some(old @ 1..) = self.read.checked_sub(KEPT)
        {
            let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            // Without it more memory is needed, and nothing else changes.
            let _ = fallocate(&self.messages, hole, 0, old as i64);
        }
    }

    /// Takes the end of the guest: what it has left undone is said.
    fn conclude(&mut self, ended: Result<Report, lab::guest::Error>) -> Result<()> {
        self.pass_on()?;
        let report = ended.context("starting the virtual kernel")?;
        if let Some(wall_time) = &self.wall_time {
            wall_time.tell(report.peak_rss_kib);
        }
        let why = match &report.end {
            End::PoweredOff(0) if self.finished => return Ok(()),
            End::PoweredOff(code) => format!(
                "the worker in the virtual kernel ended early with \
            code {code}"
            ),
            End::NoCode => "the virtual kernel ended without a report".into(),
            End::Panicked { reason } => format!("the virtual kernel panicked: {reason}"),
            End::Died(how) => format!("the virtual kernel died: {how}"),
            End::Hung { watchdog } => {
                format!(
                    "the virtual kernel told nothing for {} s of real time: a program that never \
                     waits (a busy loop, output without an end) stops its clock",
                    watchdog.as_secs()
                )
            }
            End::Killed => "the virtual kernel was killed".into(),
        };
        eprintln!("{why}; its console:\n{}", report.console_text());
        self.end(&Ending::Disturbed(why))
    }

    /// Ends every trial that the guest started and did not end.
    fn end(&mut self, ending: &Ending) -> Result<()> {
        let running = std::mem::take(&mut self.running);
        say(running.into_iter().map(|position| Message::Ended(position, ending.clone())))
    }
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
