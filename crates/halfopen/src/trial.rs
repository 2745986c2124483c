//! One trial, from the first link to the last: build, connect, settle, predict, break, watch,
//! take down.

mod build;
mod closed;
mod commands;
mod connection;
mod facts;
mod fault;
mod flows;
mod forecast;
mod host;
mod options;
mod orders;
mod progress;
mod ready;
mod stage;
mod thinning;
mod tree;
mod watch;
mod watched;

use crate::channel::{Ending, Message};
use crate::command::Ground;
use crate::control::Asked;
use crate::instruments::{Seen, Shared, Sink};
use crate::program::Surroundings;
use anyhow::{Context, Result};
use flows::Flows;
use host::{Gone, TrialHost};
use model::Prediction;
use netns::Namespace;
use observe::clock::hz;
use peer::{Instruction, Milestone};
use report::Clock;
use sandbox::Launcher;
use spec::{Facts, FaultKind, Parameters, Part, Plan};
use stage::Stage;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use thinning::Thinning;
use timeline::event::Phase;
use timeline::{Source, What};
use tokio::sync::{Semaphore, mpsc, watch as told};
use tokio::time::{Instant, sleep};
use watch::Pace;

/// What all trials of a run share.
pub(crate) struct Bench {
    pub(crate) reports: mpsc::UnboundedSender<Message>,
    pub(crate) shared: Shared,
    pub(crate) clock: Clock,
    /// Whether sockets are looked at at random moments too.
    pub(crate) samples: bool,
    pub(crate) jobs: usize,
    /// For a prediction of 'never', how long to wait.
    pub(crate) never: Duration,
    /// Starts the programs.
    pub(crate) launcher: Launcher,
    /// What commands have from the caller.
    pub(crate) surroundings: Surroundings,
    /// Building and connecting is work for the processor: only so many at once.
    pub(crate) builders: Semaphore,
    pub(crate) stop: told::Receiver<bool>,
}

impl Bench {
    /// What is needed to start commands on a trial's hosts.
    pub(crate) fn ground(&self, plan: &Plan) -> Ground<'_> {
        let Self { launcher, surroundings, clock, .. } = self;
        let parameters = &plan.experiment.parameters;
        let address = |part| plan.addresses.of(part).map(|address| address.ip());
        let hosts = parameters.hosts().into_iter().zip(Part::ALL.map(address));
        let hosts = hosts.filter_map(|(name, address)| Some((name, address?))).collect();
        Ground { launcher, surroundings, hosts, clock: *clock, control: None }
    }
}

/// After the client knows, how long its connection's aftermath is recorded.
const AFTERMATH: Duration = Duration::from_millis(200);
/// How long the programs may take to do as they are told: far more than they need.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long connecting and settling may take, for each second of round-trip time and at least.
const SETTLING_MOST: u32 = 60;

/// Runs one trial and reports how it ended. Whatever happens, its network is taken down.
pub(crate) async fn run(bench: Arc<Bench>, mut plan: Plan) -> Ending {
    for part in Part::ALL {
        let port = plan.experiment.parameters.peer(part).listen;
        if let (Some(port), Some(address)) = (port, plan.addresses.of_mut(part)) {
            address.set_port(port);
        }
    }
    let number = plan.number;
    let mut trial = Trial::new(bench.clone(), plan);
    let mut stop = bench.stop.clone();
    let outcome = tokio::select! {
        outcome = trial.story() => outcome,
        _ = stop.wait_for(|stop| *stop) => {
            trial.mark(What::Phase(Phase::Interrupted));
            Ok(Ending::Interrupted)
        }
    };
    let ending = outcome.unwrap_or_else(|error| match error.downcast_ref::<Gone>() {
        // Somebody else has ended it: no defect, and no evidence.
        Some(gone) => Ending::Disturbed(gone.to_string()),
        None => Ending::Failed(format!("{error:#}")),
    });
    let removed = trial.take_down().await;
    bench.shared.leave(number);
    trial.mark(What::Phase(Phase::Done));
    trial.forward();
    trial.release();
    if let Some(what) = trial.thinning.as_ref().and_then(Thinning::omitted) {
        trial.mark_as(Source::Instrument, what);
    }
    match (ending, removed) {
        (Ending::Complete, Err(error)) => Ending::Failed(format!("{error:#}")),
        (ending, _) => ending,
    }
}

/// A router that forgets is proved by every segment.
fn thins_out(parameters: &Parameters) -> bool {
    parameters.runs_command() && parameters.fault.kind != FaultKind::Forget
}

struct Trial {
    bench: Arc<Bench>,
    plan: Plan,
    sink: Sink,
    seen: mpsc::UnboundedReceiver<Seen>,
    stage: Stage,
    client: TrialHost,
    server: TrialHost,
    third: TrialHost,
    flows: Flows,
    /// What is kept of programs that may exchange without a pause.
    thinning: Option<Thinning>,
    pace: Pace,
    /// Whether the client's program may end: it is not connected yet, or was told to finish.
    client_may_end: bool,
    /// Whether our own client was told to begin.
    has_begun: bool,
    /// What a line of a command's output must be like for the fault to come.
    pattern: Option<regex::Regex>,
    /// When one was.
    matched_ns: Option<u64>,
    /// Of faults that follow one another: the trial up to the last that came, and the facts before the first.
    came: Option<(Parameters, Facts)>,
    /// What the programs ask for, by their control sockets.
    orders: mpsc::Sender<Asked>,
    asked: mpsc::Receiver<Asked>,
    /// What they have asked for, and was not done yet.
    waiting: VecDeque<Asked>,
}

impl Trial {
    /// A trial that is known to the instruments, and of which nothing is built.
    fn new(bench: Arc<Bench>, plan: Plan) -> Self {
        let [survivor, lost, third] = plan.experiment.parameters.hosts();
        let (sink, seen) = mpsc::unbounded_channel();
        let (orders, asked) = mpsc::channel(1);
        bench.shared.join(plan.number, &plan.addresses, sink.clone());
        Self {
            bench,
            flows: Flows::new(&plan),
            thinning: thins_out(&plan.experiment.parameters).then(Thinning::default),
            pace: Pace::Peace,
            plan,
            sink,
            seen,
            stage: Stage::Empty,
            client: TrialHost::new(survivor),
            server: TrialHost::new(lost),
            third: TrialHost::new(third),
            client_may_end: true,
            has_begun: false,
            pattern: None,
            matched_ns: None,
            came: None,
            orders,
            asked,
            waiting: VecDeque::new(),
        }
    }

    async fn story(&mut self) -> Result<Ending> {
        let parameters = self.plan.experiment.parameters.clone();
        self.mark(What::Phase(Phase::Building));
        if let Some(phase) = self.plan.phase {
            sleep(phase.delay(hz())).await;
        }
        let bench = self.bench.clone();
        let turn = bench.builders.acquire().await.context("waiting to build")?;
        if let Some(ending) = self.build(&parameters).await? {
            return Ok(ending);
        }
        if parameters.runs_command() {
            return self.story_of_commands(&parameters, turn).await;
        }
        self.connect(&parameters).await?;
        drop(turn);
        if parameters.predicts_anew() {
            self.follow_until(Instant::now() + parameters.fault.after, |_| false).await?;
            let forecasts = self.look_at_flows(&parameters).await?;
            let fault_at = self.break_first(&parameters).await?;
            self.mark(What::Phase(Phase::Watching));
            self.watch_anew(&parameters, fault_at, forecasts).await?;
        } else {
            let prediction = self.predict(&parameters).await?;
            let turns = self.turns(&parameters).await?;
            let fault_at = self.break_first(&parameters).await?;
            self.mark(What::Phase(Phase::Watching));
            self.watch(&parameters, fault_at, self.deadline(&parameters, &prediction)).await?;
            self.mark_turns(&turns);
        }
        self.mark(What::Phase(Phase::Aftermath));
        self.aftermath(&parameters).await?;
        Ok(Ending::Complete)
    }

    /// Waits for the moment of the fault, and says what should happen.
    async fn predict(&mut self, parameters: &Parameters) -> Result<Prediction> {
        let facts = self.wait_for_fault(parameters).await?;
        let prediction = model::predict(parameters, &facts);
        let number = self.plan.number;
        self.report(Message::Facts(number, Box::new(facts)));
        self.report(Message::Prediction(number, Box::new(prediction.clone())));
        Ok(prediction)
    }

    /// Breaks what the trial is about. Returns when it began to.
    async fn break_first(&mut self, parameters: &Parameters) -> Result<Instant> {
        self.mark(What::Phase(Phase::Connected));
        self.look_at_links().await?;
        let fault_at = Instant::now();
        self.inject(parameters).await?;
        Ok(fault_at)
    }

    /// Records what follows the end: the client's writes into a closed connection, its close.
    async fn aftermath(&mut self, parameters: &Parameters) -> Result<()> {
        if self.is_told() {
            self.follow_until(Instant::now() + AFTERMATH, |_| false).await?;
        }
        let untraced = self.flows.untraced_ends();
        if untraced > 0 && self.bench.shared.traced() {
            self.mark_as(Source::Tracepoint, What::Lost { count: untraced as u64 });
        }
        self.finish_destroying().await?;
        self.look_at_links().await?;
        let count = self.stage.network()?.lost_frames();
        if count > 0 {
            self.mark_as(Source::Instrument, What::Lost { count });
        }
        self.client_may_end = true;
        self.client.tell(Instruction::Finish).await?;
        let settle = Duration::from_millis(50) + parameters.path.rtt * 3;
        // Its last report, the check of what came back, is part of the evidence.
        let is_finished = |trial: &Self| {
            trial.client.reports(&Milestone::Finished) || trial.client.end().is_some()
        };
        self.follow_until(Instant::now() + PATIENCE, is_finished).await?;
        self.follow_until(Instant::now() + settle, |_| false).await?;
        Ok(())
    }

    /// Ends the programs and the instruments, and takes the network down: all of it, whatever goes
    /// wrong on the way; the first thing that did is returned.
    async fn take_down(&mut self) -> Result<()> {
        let mut first = Ok(());
        for host in [&mut self.client, &mut self.server, &mut self.third] {
            first = first.and(host.end_programs().await);
        }
        for host in [&mut self.client, &mut self.server, &mut self.third] {
            host.stop_instruments().await;
        }
        let down = self.stage.take_down().await;
        first.and(down)
    }

    async fn look_at_links(&mut self) -> Result<()> {
        for link in self.stage.network()?.links().await? {
            self.mark(What::Link {
                interface: link.interface,
                exists: link.exists,
                up: link.up,
                carrier: link.carrier,
            });
        }
        Ok(())
    }

    fn namespace(&self, part: Part) -> Result<Namespace> {
        match part {
            Part::Client => self.stage.client(),
            Part::Server => self.stage.server(),
            Part::Third => self.stage.third(),
        }
    }

    fn host(&self, part: Part) -> &TrialHost {
        match part {
            Part::Client => &self.client,
            Part::Server => &self.server,
            Part::Third => &self.third,
        }
    }

    fn host_mut(&mut self, part: Part) -> &mut TrialHost {
        match part {
            Part::Client => &mut self.client,
            Part::Server => &mut self.server,
            Part::Third => &mut self.third,
        }
    }

    /// A host's address, and the port that its program listens at.
    fn address(&self, part: Part) -> Result<SocketAddr> {
        self.plan.addresses.of(part).context("there is no such host")
    }

    fn report(&self, message: Message) {
        // Nobody listens only when the whole program is ending.
        let _ = self.bench.reports.send(message);
    }
}
