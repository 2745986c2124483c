//! The worker: runs trials side by side and reports them. It runs in the sandbox on this machine's
//! clock, and in the guest in virtual time.

use crate::channel::{Ending, Message, Setup, Start, WorkerOrder};
use crate::descriptors;
use crate::instruments::Shared;
use crate::supervisor;
use crate::trial::{self, Bench};
use anyhow::{Context, Result};
use netns::packet::PacketSocket;
use observe::clock::{hz, kernel_release};
use report::{Clock, Machine};
use sandbox::Launcher;
use spec::{Parameters, Plan};
use std::fs::File;
use std::io::{BufReader, Lines, Write};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};

/// Where the trials to start come from, one after the other.
pub(crate) enum Starts {
    /// Told when there is room for one.
    Told(mpsc::Receiver<Start>),
    /// All written beforehand, a [`WorkerOrder`] a line.
    Written(Lines<BufReader<File>>),
}

impl Starts {
    async fn next(&mut self) -> Result<Option<Start>> {
        match self {
            Self::Told(starts) => Ok(starts.recv().await),
            Self::Written(lines) => {
                let Some(line) = lines.next() else { return Ok(None) };
                let line = line.context("reading the orders")?;
                match serde_json::from_str(&line).context("understanding the orders")? {
                    WorkerOrder::Start(start) => Ok(Some(start)),
                    WorkerOrder::NoMore | WorkerOrder::Stop => Ok(None),
                }
            }
        }
    }
}

/// Runs trials until there are no more, or `stop` says so, and writes what happens to `output`.
pub(crate) fn work(
    setup: Setup,
    starts: Starts,
    output: impl Write + Send + 'static,
    stop: watch::Receiver<bool>,
) -> Result<i32> {
    // Before the limits of this process are raised, which programs would inherit.
    let launcher = match supervisor::start_launcher() {
        Ok(launcher) => launcher,
        Err(error) => return supervisor::cannot(&error.to_string()),
    };
    descriptors::raise_for_trials(setup.jobs)?;
    // The kernel begins to stamp packets when a kworker has run after the first socket that wants it
    // (`net_enable_timestamp`), and until then says when they are read: it is to begin before the first trial.
    let _stamping = PacketSocket::open();
    let mut builder = match setup.clock {
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
    // Its length is bounded: no more than `jobs` trials run, and what starts them waits until
    // earlier ones are written.
    let (reports, queue) = mpsc::unbounded_channel();
    let write = write_reports(queue, output, setup.clock);
    let writer = match setup.clock {
        // Whoever listens may be slow, and nothing else is to wait for that.
        Clock::Real => {
            let handle = runtime.handle().clone();
            runtime.spawn_blocking(move || handle.block_on(write))
        }
        Clock::Virtual => runtime.spawn(write),
    };
    let (ran, written) = runtime.block_on(async {
        let ran = run_all(setup, starts, launcher, reports, stop).await;
        (ran, writer.await)
    });
    // Threads that wait for orders or watch the machine end with the process.
    runtime.shutdown_background();
    written.context("reporting")?.context("reporting")?;
    ran?;
    Ok(0)
}

async fn run_all(
    setup: Setup,
    mut starts: Starts,
    launcher: Launcher,
    reports: mpsc::UnboundedSender<Message>,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let machine = Machine { kernel: kernel_release(), hz: hz(), clock: setup.clock };
    let bench = Arc::new(Bench {
        reports: reports.clone(),
        shared: Shared::start(setup.clock),
        clock: setup.clock,
        samples: setup.samples,
        jobs: setup.jobs,
        never: setup.never,
        launcher,
        surroundings: setup.surroundings,
        builders: Semaphore::new(2),
        stop: stop.clone(),
    });
    let slots = Arc::new(Semaphore::new(setup.jobs));
    let mut trials = tokio::task::JoinSet::new();
    loop {
        let slot = slots.clone().acquire_owned().await.context("waiting for a place")?;
        let start = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => None,
            start = starts.next() => start?,
        };
        let Some(Start { position, experiment, addresses, phase, .. }) = start else { break };
        let experiment =
            setup.experiments.get(experiment).context("there is no such experiment")?.clone();
        let Parameters { family, topology, .. } = experiment.parameters;
        let leased = addresses.are_leased(family, topology);
        anyhow::ensure!(leased, "trial {position}: {addresses:?} are no lease");
        let plan = Plan { number: position, experiment, addresses, phase };
        let (bench, reports) = (bench.clone(), reports.clone());
        let _ = reports.send(Message::Started(position, machine.clone()));
        trials.spawn(async move {
            // On a task of its own, so that a panic ends one trial and not the run.
            let ending = match tokio::spawn(trial::run(bench, plan)).await {
                Ok(ending) => ending,
                Err(error) => Ending::Failed(format!("a defect in halfopen: {error}")),
            };
            let _ = reports.send(Message::Ended(position, ending));
            drop(slot);
        });
        while trials.try_join_next().is_some() {}
    }
    while trials.join_next().await.is_some() {}
    let _ = reports.send(Message::Finished);
    Ok(())
}

/// Writes every message as a line; as many at once as there are. In virtual time, where writing costs
/// more than the wait for the end of a trial, what happened goes with the next that has to be known.
async fn write_reports(
    mut queue: mpsc::UnboundedReceiver<Message>,
    mut output: impl Write,
    clock: Clock,
) -> std::io::Result<()> {
    let mut lines = Vec::new();
    while let Some(message) = queue.recv().await {
        let mut next = Some(message);
        let mut waits = clock == Clock::Virtual;
        while let Some(message) = next {
            waits &= matches!(message, Message::Event(..) | Message::Captured(..));
            serde_json::to_writer(&mut lines, &message)?;
            lines.push(b'\n');
            next = if lines.len() < WRITE_MOST { queue.try_recv().ok() } else { None };
        }
        if !waits || lines.len() >= WRITE_MOST {
            output.write_all(&lines)?;
            output.flush()?;
            lines.clear();
        }
    }
    output.write_all(&lines)?;
    output.flush()
}

/// About as many bytes are written at once.
const WRITE_MOST: usize = 256 * 1024;
