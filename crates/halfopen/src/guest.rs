//! Virtual time: the same worker inside a kernel whose clock jumps to the next timer.
//!
//! On the host the worker of the sandbox boots the guest and passes on what it reports; in the
//! guest the same executable runs the trials. Orders and reports go through files on a tmpfs that
//! nobody else sees, and that ends with the guest.

mod wall;

use crate::channel::{Ending, Message, Orders, Task};
use crate::sole::Sole;
use crate::supervisor;
use anyhow::{Context, Result, anyhow, bail};
use lab::guest::{End, Exchange, Guest, Report, built_kernel, init};
use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu};
use nix::unistd::{Pid, Uid, User};
use sandbox::Identity;
use spec::Plan;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Duration;
use wall::WallTime;

/// The hidden subcommand that runs the trials inside the guest.
pub(crate) const GUEST: &str = "__guest";

const ORDERS: &str = "orders.json";
const MESSAGES: &str = "messages.jsonl";
/// Timer interrupts a second of the kernels that `just kernel` builds.
pub(crate) const HZ: [u32; 4] = [100, 250, 300, 1000];
/// What most distributions have, and what is taken unless something else is asked for.
pub(crate) const HZ_DEFAULT: u32 = 250;
/// Wall time after which a guest is taken for hung. Thirty days take some seconds.
const WATCHDOG: Duration = Duration::from_secs(300);
/// Memory for the two peers of a trial and their network; the host pays for what is touched.
const MIB_A_TRIAL: u32 = 8;
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

/// The virtual kernel with this HZ, if it was built, or the one of unknown HZ that the environment
/// names, which comes before any other.
///
/// # Errors
/// What to do to have one.
pub(crate) fn find_kernel(hz: u32) -> Result<PathBuf, String> {
    if let Some(path) = ready_kernel() {
        let problem = format!("HALFOPEN_UML is {}, which is not a file", path.display());
        return if path.is_file() { Ok(path) } else { Err(problem) };
    }
    let candidates: Vec<PathBuf> =
        cache_homes().iter().map(|cache| built_kernel(cache, hz)).collect();
    candidates.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
        let looked: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
        format!(
            "there is no virtual kernel with HZ {hz} ({}): build it with `{}`, or name one in \
             HALFOPEN_UML",
            looked.join(", "),
            how_to_build(hz)
        )
    })
}

/// Whether the HZ that was asked for can be chosen.
///
/// # Errors
/// For a person: the environment has named a kernel already.
pub(crate) fn check_hz(asked: Option<u32>) -> Result<()> {
    if asked.is_some() && ready_kernel().is_some() {
        bail!(
            "--hz chooses between the kernels that `just kernel` builds, and HALFOPEN_UML names one \
             already: leave one of the two out"
        );
    }
    Ok(())
}

/// The kernel that the environment names.
pub(crate) fn ready_kernel() -> Option<PathBuf> {
    std::env::var_os("HALFOPEN_UML").map(PathBuf::from)
}

/// The command that builds a kernel.
pub(crate) fn how_to_build(hz: u32) -> String {
    if hz == HZ_DEFAULT { "just kernel".into() } else { format!("just kernel --hz {hz}") }
}

/// Where users keep what can be built again: this user's, and under sudo the caller's.
fn cache_homes() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let caller = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok());
    let caller = caller.and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok().flatten());
    [
        variable("XDG_CACHE_HOME").map(PathBuf::from),
        variable("HOME").map(|home| Path::new(&home).join(".cache")),
        caller.map(|user| user.dir.join(".cache")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// On the host, in the sandbox: runs the trials in guests, one for each processor.
pub(crate) fn run(
    orders: &Orders,
    kernel: &Path,
    stop: impl FnOnce() + Send + 'static,
) -> Result<i32> {
    let shares = share(orders, processors().len());
    let tasks: Vec<_> = shares.into_iter().map(Task::Run).collect();
    boot(&tasks, kernel, stop)
}

/// On the host, in the sandbox: runs one command in a guest.
pub(crate) fn run_sole(
    sole: Sole,
    kernel: &Path,
    stop: impl FnOnce() + Send + 'static,
) -> Result<i32> {
    boot(&[Task::Program(sole)], kernel, stop)
}

/// Boots a guest for each task, and passes on everything that they report.
fn boot(tasks: &[Task], kernel: &Path, stop: impl FnOnce() + Send + 'static) -> Result<i32> {
    let launcher = match supervisor::start_launcher() {
        Ok(launcher) => launcher,
        Err(error) => return supervisor::cannot(&error.to_string()),
    };
    let executable = supervisor::executable()?;
    let stopped = Arc::new(AtomicBool::new(false));
    let flag = stopped.clone();
    std::thread::Builder::new().name("stop".into()).spawn(move || {
        stop();
        flag.store(true, Ordering::Relaxed);
    })?;
    // The guest's root knows every user by the number that it has outside.
    let caller = Identity { mapped: false, ..supervisor::caller()? };
    let caller = serde_json::to_string(&caller)?;
    std::thread::scope(|scope| {
        let mut guests = Vec::new();
        for (task, processor) in tasks.iter().zip(processors()) {
            let exchange = Exchange::create()?;
            let text = serde_json::to_vec(task).context("writing the guest's orders")?;
            let (plans, jobs) = match task {
                Task::Run(orders) => (&*orders.plans, orders.jobs),
                _ => (&[][..], 1),
            };
            exchange.write(ORDERS, &text)?;
            exchange.write(MESSAGES, b"")?;
            let messages = exchange.open(MESSAGES)?;
            let guest = Guest::new(kernel, &executable)
                .arg(GUEST)
                .env(
                    "HALFOPEN_LOG",
                    std::env::var("HALFOPEN_LOG").unwrap_or_else(|_| "warn".into()),
                )
                .env(supervisor::CALLER, &caller)
                .watchdog(WATCHDOG)
                .memory_mib(Guest::DEFAULT_MEMORY_MIB + MIB_A_TRIAL * jobs as u32)
                .processor(processor)
                .epoch(EPOCH)
                .seed(SEED);
            let launcher = &launcher;
            let running = std::thread::Builder::new()
                .name("guest".into())
                .spawn_scoped(scope, move || guest.run(launcher, &exchange))?;
            guests.push((Relay::new(plans, messages), Some(running)));
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
            if stopped.load(Ordering::Relaxed) {
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
        say(&[Message::Finished])?;
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

/// Deals the trials out, as evenly as can be.
fn share(orders: &Orders, most: usize) -> Vec<Orders> {
    let count = most.min(orders.plans.len()).max(1);
    (0..count)
        .map(|share| Orders {
            plans: orders.plans.iter().skip(share).step_by(count).cloned().collect(),
            jobs: orders.jobs.div_ceil(count),
            ..*orders
        })
        .collect()
}

/// Reports.
fn say(messages: &[Message]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    for message in messages {
        serde_json::to_writer(&mut stdout, message).context("reporting")?;
        stdout.write_all(b"\n").context("reporting")?;
    }
    stdout.flush().context("reporting")
}

/// Passes on a guest's messages, line by line.
struct Relay {
    messages: File,
    /// The trials that have not ended.
    missing: BTreeSet<usize>,
    pending: Vec<u8>,
    finished: bool,
    wall_time: Option<WallTime>,
}

impl Relay {
    fn new(plans: &[Plan], messages: File) -> Self {
        Self {
            messages,
            missing: plans.iter().map(|plan| plan.number).collect(),
            pending: Vec::new(),
            finished: false,
            wall_time: WallTime::is_wanted().then(WallTime::start),
        }
    }

    fn pass_on(&mut self) -> Result<()> {
        self.messages.read_to_end(&mut self.pending).context("reading the guest's reports")?;
        let Some(last) = self.pending.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(());
        };
        let rest = self.pending.split_off(last + 1);
        let whole = std::mem::replace(&mut self.pending, rest);
        for line in whole.split(|byte| *byte == b'\n') {
            // Only the ends of trials matter here; everything else goes by unread.
            if line.starts_with(b"{\"Ended\"")
                && let Ok(Message::Ended(number, _)) = serde_json::from_slice(line)
            {
                self.missing.remove(&number);
            }
            self.finished |= line == FINISHED;
            if let Some(wall_time) = &mut self.wall_time {
                wall_time.take(line);
            }
        }
        // Said once, when every guest has ended.
        let now = match whole.strip_suffix(b"\n") {
            Some(lines) if self.finished => lines.strip_suffix(FINISHED).unwrap_or(&whole),
            _ => &whole,
        };
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(now).and_then(|()| stdout.flush()).context("reporting")
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
            End::PoweredOff(code) => format!("the guest's worker ended early with code {code}"),
            End::NoCode => "the guest ended without a word".into(),
            End::Panicked { reason } => format!("the guest's kernel panicked: {reason}"),
            End::Died(how) => format!("the guest's kernel died: {how}"),
            End::Hung { watchdog } => {
                format!("the guest did nothing for {} s of wall time", watchdog.as_secs())
            }
            End::Killed => "the guest was killed".into(),
        };
        eprintln!("{why}; its console:\n{}", report.console_text());
        self.end(&Ending::Disturbed(why))
    }

    /// Ends every trial that the guest did not.
    fn end(&mut self, ending: &Ending) -> Result<()> {
        let missing = std::mem::take(&mut self.missing);
        let ends: Vec<_> =
            missing.into_iter().map(|number| Message::Ended(number, ending.clone())).collect();
        say(&ends)
    }
}

/// [`Message::Finished`], as a line.
const FINISHED: &[u8] = b"\"Finished\"";

/// In the guest: does the task.
pub(crate) fn work() -> Result<i32> {
    let text = std::fs::read(ORDERS).context("reading the orders")?;
    let messages = File::options().append(true).open(MESSAGES).context("opening the reports")?;
    match serde_json::from_slice(&text).context("understanding the orders")? {
        // Nobody stops a guest in good order: it ends with its host.
        Task::Run(orders) => crate::worker::work(orders, messages, || {
            loop {
                std::thread::park();
            }
        }),
        Task::Program(sole) => {
            let code = crate::sole::work(&sole, &messages)?;
            (&messages).write_all(&[FINISHED, b"\n"].concat()).context("reporting")?;
            Ok(code)
        }
        _ => bail!("a guest runs trials or a program"),
    }
}
