//! The worker: runs trials side by side inside the sandbox and reports on standard output.

use crate::channel::{Ending, Message, Orders, Task};
use crate::instruments::Shared;
use crate::supervisor;
use crate::trial::{self, Bench};
use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use observe::clock::{hz, kernel_release};
use report::Clock;
use sandbox::Launcher;
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};

/// Reads its orders from standard input, runs the trials, and reports. A second line on standard
/// input stops the trials in good order.
pub(crate) fn run() -> Result<i32> {
    let mut orders = String::new();
    let mut stdin = std::io::stdin().lock();
    stdin.read_line(&mut orders).context("reading the orders")?;
    drop(stdin);
    if orders.is_empty() {
        // The parent has ended, and has said why.
        return Ok(1);
    }
    let task = serde_json::from_str(&orders).context("understanding the orders")?;
    check(&task).context("checking the orders")?;
    match task {
        Task::Run(orders) => work(orders, std::io::stdout(), wait_for_stop),
        Task::RunVirtual(orders, kernel) => crate::guest::run(&orders, &kernel, wait_for_stop),
        Task::Program(sole) => crate::sole::work(&sole, std::io::stdout()),
        Task::ProgramVirtual(sole, kernel) => crate::guest::run_sole(sole, &kernel, wait_for_stop),
        Task::Examine => {
            for check in crate::doctor::examine()? {
                let mut line = serde_json::to_vec(&Message::Check(check)).context("reporting")?;
                line.push(b'\n');
                std::io::stdout().write_all(&line).context("reporting")?;
            }
            Ok(0)
        }
    }
}

/// Takes nothing on trust: this side has privileges, and the one that gives the orders may have none.
/// Names and values of sysctls are checked where they are set. Paths are of what runs without
/// privileges.
fn check(task: &Task) -> Result<()> {
    let plans = match task {
        Task::Run(orders) | Task::RunVirtual(orders, _) => &orders.plans,
        Task::Program(sole) | Task::ProgramVirtual(sole, _) => return sole.check(),
        Task::Examine => return Ok(()),
    };
    for plan in plans {
        let (parameters, addresses) = (&plan.experiment.parameters, &plan.addresses);
        if let Err((key, why)) = parameters.validate() {
            bail!("trial {}: `{key}`: {why}", plan.number);
        }
        let leased = addresses.are_leased(parameters.family, parameters.topology);
        anyhow::ensure!(leased, "trial {}: {addresses:?} are no lease", plan.number);
    }
    Ok(())
}

/// Runs the trials of `orders`, writing reports to `output`. `stop` blocks until the operator
/// wants no more.
pub(crate) fn work(
    orders: Orders,
    output: impl Write + Send + 'static,
    stop: impl FnOnce() + Send + 'static,
) -> Result<i32> {
    // Before the limits of this process are raised, which programs would inherit.
    let launcher = match supervisor::start_launcher() {
        Ok(launcher) => launcher,
        Err(error) => return supervisor::cannot(&error.to_string()),
    };
    let at_once = orders.plans.len().min(orders.jobs);
    raise_descriptor_limit(DESCRIPTORS_OF_OUR_OWN + DESCRIPTORS_A_TRIAL * at_once as u64)
        .with_context(|| format!("{at_once} trials at once: run fewer with --jobs"))?;
    let mut builder = match orders.clock {
        Clock::Real => tokio::runtime::Builder::new_multi_thread(),
        // A guest has one processor, where system calls cost more than anything: more threads would
        // only wake one another.
        Clock::Virtual => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = builder
        .enable_all()
        // A thread that has worked is kept for the next to come: hours are nothing in virtual time.
        .thread_keep_alive(Duration::from_secs(365 * 86_400))
        .build()
        .context("starting the runtime")?;
    let (reports, queue) = mpsc::unbounded_channel();
    let write = write_reports(queue, output);
    let writer = match orders.clock {
        // Whoever listens may be slow, and nothing else is to wait for that.
        Clock::Real => {
            let handle = runtime.handle().clone();
            runtime.spawn_blocking(move || handle.block_on(write))
        }
        Clock::Virtual => runtime.spawn(write),
    };
    let (order, stopped) = watch::channel(false);
    std::thread::Builder::new()
        .name("stop".into())
        .spawn(move || {
            stop();
            let _ = order.send(true);
        })
        .context("starting the thread that listens")?;
    let written = runtime.block_on(async {
        run_all(orders, launcher, reports, stopped).await;
        writer.await
    });
    // Threads that wait for the operator or watch the machine end with the process.
    runtime.shutdown_background();
    written.context("reporting")?.context("reporting")?;
    Ok(0)
}

async fn run_all(
    orders: Orders,
    launcher: Launcher,
    reports: mpsc::UnboundedSender<Message>,
    stop: watch::Receiver<bool>,
) {
    let _ = reports.send(Message::Machine { kernel: kernel_release(), hz: hz() });
    let bench = Arc::new(Bench {
        reports: reports.clone(),
        shared: Shared::start(orders.clock),
        clock: orders.clock,
        jobs: orders.jobs.min(orders.plans.len()),
        never: orders.never,
        launcher,
        builders: Semaphore::new(2),
        stop,
    });
    let slots = Arc::new(Semaphore::new(orders.jobs));
    let mut trials = tokio::task::JoinSet::new();
    for plan in orders.plans {
        let (bench, slots, reports) = (bench.clone(), slots.clone(), reports.clone());
        trials.spawn(async move {
            let number = plan.number;
            let Ok(_slot) = slots.acquire().await else { return };
            let ending = if *bench.stop.borrow() {
                Ending::Interrupted
            } else {
                let _ = reports.send(Message::Started(number));
                // On a task of its own, so that a panic ends one trial and not the run.
                match tokio::spawn(trial::run(bench, plan)).await {
                    Ok(ending) => ending,
                    Err(error) => Ending::Failed(format!("a defect in halfopen: {error}")),
                }
            };
            let _ = reports.send(Message::Ended(number, ending));
        });
    }
    while trials.join_next().await.is_some() {}
    let _ = reports.send(Message::Finished);
}

/// Writes every message as a line; as many at once as there are.
async fn write_reports(
    mut queue: mpsc::UnboundedReceiver<Message>,
    mut output: impl Write,
) -> std::io::Result<()> {
    let mut lines = Vec::new();
    while let Some(message) = queue.recv().await {
        let mut next = Some(message);
        while let Some(message) = next {
            serde_json::to_writer(&mut lines, &message)?;
            lines.push(b'\n');
            next = queue.try_recv().ok();
        }
        output.write_all(&lines)?;
        output.flush()?;
        lines.clear();
    }
    Ok(())
}

fn wait_for_stop() {
    let mut line = String::new();
    // The end of standard input is the end of the parent: `init` ends everything then.
    while !matches!(std::io::stdin().lock().read_line(&mut line), Ok(count) if count > 0) {
        std::thread::park();
    }
}

/// File descriptors a trial holds at its busiest, and what the worker needs for itself.
const DESCRIPTORS_A_TRIAL: u64 = 40;
const DESCRIPTORS_OF_OUR_OWN: u64 = 100;

/// How many trials at once a limit on file descriptors allows.
pub(crate) fn trials_within(limit: u64) -> u64 {
    limit.saturating_sub(DESCRIPTORS_OF_OUR_OWN) / DESCRIPTORS_A_TRIAL
}

/// Raises the soft limit on file descriptors to what is needed.
pub(crate) fn raise_descriptor_limit(wanted: u64) -> Result<()> {
    let (soft, hard) =
        getrlimit(Resource::RLIMIT_NOFILE).context("reading the descriptor limit")?;
    if soft >= wanted {
        return Ok(());
    }
    anyhow::ensure!(
        hard >= wanted,
        "{wanted} file descriptors are needed, and this user may have {hard}: raise the limit \
         (ulimit -n {wanted})"
    );
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).context("raising the descriptor limit")
}
