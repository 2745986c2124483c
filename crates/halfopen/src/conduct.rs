//! Follows a laboratory through its trials: starts them as there is room, and hands each on to be
//! judged and written when it has ended.

use crate::batch::{Place, Trials};
use crate::channel::{Ending, Message, Start, WorkerOrder, order};
use crate::conducted::Conducted;
use crate::ended::{Concluded, Ended, Record};
use crate::lease::{self, Lease};
use crate::output::Format;
use crate::screen::Screen;
use crate::session::Laboratory;
use crate::store::Store;
use anyhow::{Context, Result};
use report::{Clock, Identity, Lost, key};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Child, ChildStdin, ExitStatus};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinError, JoinSet};

/// So many trials that have ended may wait to be judged and written; then nothing more is read.
const WAITING_MOST: usize = 8;

impl Laboratory {
    /// Runs its trials; what they leave goes into `store`.
    pub(crate) fn conduct(self, store: Arc<Store>, format: Format) -> Result<Conducted> {
        let Self { trials, mut process } = self;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // Threads that judge and write: they take no processor from what is being measured.
            .on_thread_start(|| {
                let _ = rustix::process::nice(10);
            })
            .build()
            .context("starting the runtime")?;
        let screen = Screen::new(format, &trials);
        let nothing = trials.total() == 0;
        let conducted = Conducted::new(trials, Some(store.clone()), screen, format)?;
        if nothing {
            drop(process.stdin.take());
            process.wait().context("waiting for the laboratory's process")?;
            return Ok(conducted);
        }
        let mut conductor = Conductor::new(conducted, store);
        // Its end closes the lifeline, which ends whatever is left of the laboratory.
        let followed = runtime.block_on(conductor.follow(&mut process));
        let status = process.wait().context("waiting for the laboratory's process")?;
        followed?;
        Ok(conductor.finish(status))
    }
}

struct Conductor {
    conducted: Conducted,
    store: Arc<Store>,
    /// How many trials there are already of each experiment's name, in the store.
    taken: BTreeMap<String, usize>,
    /// The position of the next trial to start.
    next: usize,
    /// On this machine's clock: the addresses of the trials that were told to start.
    leases: BTreeMap<usize, Lease>,
    /// The trials that have started and not ended.
    running: BTreeMap<usize, Record>,
    /// Those that have ended and are being judged and written.
    waiting: JoinSet<Concluded>,
    stopping: bool,
    /// No more messages will come.
    over: bool,
    finished: bool,
    /// Why there are trials whose end is unknown.
    broken: Option<String>,
    /// A line that is no message: the last of a worker that died, or a defect.
    unreadable: Option<String>,
    /// Trials whose judging is a defect.
    unjudged: usize,
}

impl Conductor {
    fn new(conducted: Conducted, store: Arc<Store>) -> Self {
        Self {
            conducted,
            store,
            taken: BTreeMap::new(),
            next: 0,
            leases: BTreeMap::new(),
            running: BTreeMap::new(),
            waiting: JoinSet::new(),
            stopping: false,
            over: false,
            finished: false,
            broken: None,
            unreadable: None,
            unjudged: 0,
        }
    }

    fn trials(&self) -> &Trials {
        &self.conducted.trials
    }

    /// Gives the orders and takes every message, until the last trial is written. A signal asks for
    /// an end in good order; a second one does not ask.
    async fn follow(&mut self, laboratory: &mut Child) -> Result<()> {
        let mut signals = Signals::listen()?;
        let mut commands = laboratory.stdin.take().context("the lifeline is piped")?;
        order(&mut commands, &self.trials().task())?;
        let stdout = laboratory.stdout.take().context("standard output is piped")?;
        let stdout = tokio::process::ChildStdout::from_std(stdout)?;
        let mut messages = BufReader::new(stdout).lines();
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        loop {
            self.start_more(&mut commands)?;
            if self.over && self.waiting.is_empty() {
                return Ok(());
            }
            let has_room = self.waiting.len() < WAITING_MOST;
            tokio::select! {
                line = messages.next_line(), if has_room && !self.over => match line {
                    Ok(Some(line)) => self.hear(&line)?,
                    Ok(None) => self.over = true,
                    Err(error) => self.end_for(format!("listening to the sandbox: {error}")),
                },
                Some(concluded) = self.waiting.join_next() => self.conclude(concluded),
                _ = tick.tick() => self.conducted.screen.tick(observe::clock::monotonic_ns()),
                () = signals.any(), if !self.over => self.stop(&mut commands)?,
            }
        }
    }

    /// Starts trials as long as there is room for more. A guest gets all orders at once: a
    /// running guest cannot be given any more.
    fn start_more(&mut self, commands: &mut ChildStdin) -> Result<()> {
        let total = self.trials().total();
        let setup = &self.trials().setup;
        let (clock, jobs) = (setup.clock, setup.jobs);
        if self.next == total || self.stopping || self.over {
            return Ok(());
        }
        while self.next < total && (clock == Clock::Virtual || self.leases.len() < jobs) {
            let place = self.trials().place(self.next);
            let parameters = &self.trials().experiment(place).parameters;
            let (family, topology) = (parameters.family, parameters.topology);
            let addresses = match clock {
                // A kernel of its own shares no addresses, and repeats itself with the same ones.
                Clock::Virtual => lease::fixed(self.next, family, topology),
                Clock::Real => match Lease::take(family, topology) {
                    Ok(lease) => {
                        let addresses = lease.addresses.clone();
                        self.leases.insert(self.next, lease);
                        addresses
                    }
                    // One will be given back.
                    Err(_) if !self.leases.is_empty() => return Ok(()),
                    Err(error) => return Err(error),
                },
            };
            let Place { position, experiment, phase, kernel, .. } = place;
            let start = Start { position, experiment, addresses, phase, kernel };
            order(commands, &WorkerOrder::Start(start))?;
            self.next += 1;
        }
        if self.next == total {
            order(commands, &WorkerOrder::NoMore)?;
        }
        Ok(())
    }

    fn hear(&mut self, line: &str) -> Result<()> {
        match serde_json::from_str(line) {
            Ok(message) => self.take(message)?,
            Err(error) => {
                self.unreadable =
                    Some(format!("a message from the sandbox cannot be read: {error}"));
            }
        }
        Ok(())
    }

    fn take(&mut self, message: Message) -> Result<()> {
        let screen = &mut self.conducted.screen;
        match message {
            Message::Started(position, machine) => {
                let place = self.conducted.trials.place(position);
                screen.started(self.conducted.trials.experiment(place));
                self.conducted.machine = machine.clone();
                self.running.insert(position, Record::on(machine));
            }
            Message::Event(position, event) => {
                screen.event(&event);
                self.record(position)?.events.push(event);
            }
            Message::Captured(position, capture) => {
                screen.event(&capture.event);
                let record = self.record(position)?;
                record.events.push(capture.event.clone());
                record.captures.push(capture);
            }
            Message::Facts(position, facts) => self.record(position)?.facts = Some(*facts),
            Message::Prediction(position, prediction) => {
                let place = self.conducted.trials.place(position);
                screen.predicted(self.conducted.trials.experiment(place), &prediction);
                self.record(position)?.prediction = Some(*prediction);
            }
            Message::Wrote(position, part, stream, bytes) => {
                screen.pass_on(part, stream, &bytes);
                self.record(position)?.outputs[part as usize].extend(bytes);
            }
            Message::Ended(position, ending) => {
                self.leases.remove(&position);
                let record = self.running.remove(&position).context("a trial ended twice")?;
                self.hand_on(position, record, ending);
            }
            Message::Finished => (self.finished, self.over) = (true, true),
            Message::Cannot(why) => {
                self.conducted.skip_all(&why);
                self.next = self.trials().total();
                (self.finished, self.over) = (true, true);
            }
            Message::Died(how) => self.end_for(format!("the sandbox ended early: {how}")),
            Message::Check(_) | Message::Output(_) | Message::Exited(_) => {}
        }
        Ok(())
    }

    fn record(&mut self, position: usize) -> Result<&mut Record> {
        self.running.get_mut(&position).with_context(|| format!("no trial {position} runs"))
    }

    /// Has a trial judged and written, beside everything else.
    fn hand_on(&mut self, position: usize, record: Record, ending: Ending) {
        let place = self.trials().place(position);
        let experiment = self.trials().experiment(place).clone();
        let phase = place.phase.map(|phase| phase.number + 1);
        let key = key(&experiment, &record.machine, place.turn, phase);
        let store = self.store.clone();
        let taken = self.taken.entry(experiment.name.clone());
        let number = place.number + *taken.or_insert_with(|| store.taken(&experiment.name));
        let identity = Identity { number, turn: place.turn, phase, key };
        let position = self.trials().overall(position);
        let ended = Ended { position, identity, experiment, record, ending };
        self.waiting.spawn_blocking(move || ended.conclude(&store));
    }

    fn conclude(&mut self, concluded: Result<Concluded, JoinError>) {
        match concluded {
            Ok(concluded) => self.conducted.add(concluded),
            Err(error) => {
                self.unjudged += 1;
                self.broken = Some(format!("a defect in halfopen: {error}"));
            }
        }
    }

    fn stop(&mut self, commands: &mut impl Write) -> Result<()> {
        if self.stopping {
            self.end_for("stopped by a second signal".into());
            return Ok(());
        }
        self.stopping = true;
        self.conducted.screen.say(
            "stopping: running trials are ended and written (press Ctrl-C again to stop at \
            once)",
        );
        order(commands, &WorkerOrder::Stop)
    }

    /// Nothing more is read.
    fn end_for(&mut self, why: String) {
        self.broken = Some(why);
        self.over = true;
    }

    /// What is to be said about trials that did not end.
    fn finish(self, status: ExitStatus) -> Conducted {
        let mut conducted = self.conducted;
        conducted.interrupted = self.stopping;
        let ended_early = || format!("the sandbox ended early ({status})");
        let why = match self.broken {
            None if self.finished => self.unreadable,
            None => Some(ended_early()),
            broken => broken,
        };
        if let Some(why) = why {
            conducted.lost = Some(Lost { trials: self.running.len() + self.unjudged, why });
        }
        conducted
    }
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
