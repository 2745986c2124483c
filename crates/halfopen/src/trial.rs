//! One trial, from the first link to the last: build, connect, settle, predict, break, watch,
//! take down.

mod connection;
mod fault;
mod flows;

use crate::channel::{Ending, Message};
use crate::instruments::{Pace, Running, Seen, Shared, Sink, start_sampler, start_tap};
use crate::peers::Peer;
use crate::trial::flows::Flows;
use anyhow::{Context, Result};
use lab::network::Network;
use lab::sysctl;
use model::{Prediction, Window};
use nix::sys::signal::Signal;
use observe::SocketDiag;
use observe::clock::{hz, jiffy_clock, kernel_release, monotonic_ns};
use peer::{Command, Milestone, Report};
use report::Clock;
use sandbox::Launcher;
use spec::facts::NeighbourFacts;
use spec::{Facts, FaultAct, Neighbour, Outcome, Parameters, Plan};
use std::sync::Arc;
use std::time::Duration;
use timeline::classify::{Class, Classifier};
use timeline::event::{Phase, Side, Trace};
use timeline::{Ends, Event, Source, What};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep, sleep_until};

/// What all trials of a run share.
pub(crate) struct Bench {
    pub(crate) reports: mpsc::UnboundedSender<Message>,
    pub(crate) shared: Shared,
    pub(crate) clock: Clock,
    pub(crate) jobs: usize,
    /// For a prediction of 'never', how long to wait.
    pub(crate) never: Duration,
    /// Starts the programs.
    pub(crate) launcher: Launcher,
    /// Building and connecting is work for the processor: only so many at once.
    pub(crate) builders: Semaphore,
    pub(crate) stop: watch::Receiver<bool>,
}

/// After the client knows, how long its connection's aftermath is recorded.
const AFTERMATH: Duration = Duration::from_millis(200);
/// How long a connection is watched after a fault is over, where nothing is predicted to happen.
const AFTER_FAULT: Duration = Duration::from_secs(2);
/// How long the peers may take to do as they are told: far more than they need.
const PATIENCE: Duration = Duration::from_secs(20);
/// What to do where there is no nginx.
pub(crate) const NO_NGINX: &str = "nginx is not installed: apt-get install nginx-light";
/// How long connecting and settling may take, for each second of round-trip time and at least.
const SETTLING_MOST: u32 = 60;

/// Runs one trial and reports how it ended. Whatever happens, its network is taken down.
pub(crate) async fn run(bench: Arc<Bench>, plan: Plan) -> Ending {
    let number = plan.number;
    let (sink, seen) = mpsc::unbounded_channel();
    bench.shared.join(number, &plan.addresses, sink.clone());
    let flows = Flows::new(&plan);
    let mut trial = Trial {
        bench: bench.clone(),
        plan,
        sink,
        seen,
        ended: Ended::default(),
        finishing: false,
        network: None,
        destroying: None,
        client_host: None,
        client: None,
        server: None,
        crashed: None,
        client_side: Vec::new(),
        server_side: Vec::new(),
        flows,
        classifier: Classifier::new(Side::Client),
        window_probed: None,
        stirred: Default::default(),
    };
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
    match (ending, removed) {
        (Ending::Complete, Err(error)) => Ending::Failed(format!("{error:#}")),
        (ending, _) => ending,
    }
}

struct Trial {
    bench: Arc<Bench>,
    plan: Plan,
    sink: Sink,
    seen: mpsc::UnboundedReceiver<Seen>,
    ended: Ended,
    /// The client was told to end.
    finishing: bool,
    network: Option<Network>,
    /// The server's host on its way out, and the network that it is taken from.
    destroying: Option<JoinHandle<(Network, Result<FaultAct, lab::network::Error>)>>,
    /// The client's host, while the network is there.
    client_host: Option<netns::Namespace>,
    client: Option<Peer>,
    server: Option<Peer>,
    /// What is left of a server whose main process was killed: its child holds the connection.
    crashed: Option<Peer>,
    client_side: Vec<Running>,
    server_side: Vec<Running>,
    /// The connections that have appeared.
    flows: Flows,
    /// What the client's segments are, and when it last began to probe a closed window.
    classifier: Classifier,
    window_probed: Option<u64>,
    /// Wakes the samplers: something happened to the connection.
    stirred: [Arc<Notify>; 2],
}

/// What the laboratory does while it watches.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// It ends the fault.
    Restore,
    /// It changes sysctls.
    Change,
}

/// Who has said that the client's connection has ended.
#[derive(Debug, Default)]
struct Ended {
    kernel: bool,
    program: bool,
    /// The client program has said its last word.
    reports: bool,
}

impl Trial {
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
        self.connect(&parameters).await?;
        drop(turn);
        let facts = self.wait_for_fault(&parameters).await?;
        let prediction = model::predict(&parameters, &facts);
        let number = self.plan.number;
        self.report(Message::Facts(number, Box::new(facts)));
        self.report(Message::Prediction(number, Box::new(prediction.clone())));
        self.mark(What::Phase(Phase::Connected));
        self.look_at_links().await?;

        let fault_at = Instant::now();
        self.inject(&parameters).await?;
        self.mark(What::Phase(Phase::Watching));
        self.watch(&parameters, fault_at, self.deadline(&parameters, &prediction)).await?;

        self.mark(What::Phase(Phase::Aftermath));
        self.aftermath(&parameters).await?;
        Ok(Ending::Complete)
    }

    /// Builds the network and starts looking at it. Says how the trial ends if this kernel cannot.
    async fn build(&mut self, parameters: &Parameters) -> Result<Option<Ending>> {
        let addresses = self.plan.addresses.clone();
        let network = match Network::build(&addresses, parameters).await {
            Ok(network) => network,
            Err(error) if error.is_unsupported() => {
                return Ok(Some(Ending::Skipped(error.to_string())));
            }
            Err(lab::network::Error::Sysctl(error)) => return Ok(Some(refused(&error))),
            Err(error) => return Err(error).context("building the network"),
        };
        let network = self.network.insert(network);
        let client = network.client().clone();
        if parameters.client.rto_max.is_some() && !sysctl::exists(&client, "tcp_rto_max_ms")? {
            let why = "this kernel has no TCP_RTO_MAX_MS (Linux 6.15)";
            return Ok(Some(Ending::Skipped(why.into())));
        }
        if let Some(least) = parameters.client.rto_min
            && let Err(error) = peer::try_rto_min(least)
        {
            return Ok(Some(no_rto_min(parameters, least, &error)));
        }
        if parameters.has_nginx() && peer::find_nginx().is_none() {
            return Ok(Some(Ending::Skipped(NO_NGINX.into())));
        }
        self.client_side = self.look_at(
            &client,
            Network::CLIENT_INTERFACE,
            (Source::ClientWire, Source::ClientSocket),
        )?;
        self.look_at_server()?;
        Ok(None)
    }

    fn look_at_server(&mut self) -> Result<()> {
        let network = self.network.as_ref().context("the network is gone")?;
        let server = network.server().context("the server is gone")?.clone();
        self.server_side = self.look_at(
            &server,
            Network::SERVER_INTERFACE,
            (Source::ServerWire, Source::ServerSocket),
        )?;
        Ok(())
    }

    /// A tap and a sampler on one host.
    fn look_at(
        &self,
        namespace: &netns::Namespace,
        interface: &str,
        (wire, socket): (Source, Source),
    ) -> Result<Vec<Running>> {
        let stirred = &self.stirred[usize::from(wire == Source::ServerWire)];
        let pace = Pace::new(self.bench.clock, self.bench.shared.traced(), self.bench.jobs);
        let addresses = &self.plan.addresses;
        let sink = || self.sink.clone();
        Ok(vec![
            start_tap(namespace, interface, wire, addresses, sink(), stirred.clone())?,
            start_sampler(namespace, socket, self.flows.followed(), pace, sink(), stirred.clone())?,
        ])
    }

    /// Waits `fault.after`, and looks at the connection at the last moment.
    async fn wait_for_fault(&mut self, parameters: &Parameters) -> Result<Facts> {
        let fault_at = Instant::now() + parameters.fault.after;
        self.follow_until(fault_at, |_| false).await?;
        let network = self.network.as_ref().context("the network is gone")?;
        let addresses = &self.plan.addresses;
        let mut diag = SocketDiag::open(network.client())?;
        let neighbour = if parameters.neighbour == Neighbour::Learned {
            let sampled_at_ns = monotonic_ns();
            let known = network.knows_server()?;
            known.map(|known| NeighbourFacts { sampled_at_ns, ..known })
        } else {
            None
        };
        let sampled_at_ns = monotonic_ns();
        let sample = diag.sample(addresses.client, addresses.server)?;
        let server_sysctl = match network.server() {
            Some(server) => sysctl::read_tcp(server)?,
            None => spec::sysctl::Sysctls::new(),
        };
        Ok(Facts {
            kernel: kernel_release(),
            hz: hz(),
            sysctl: sysctl::read_tcp(network.client())?,
            server_sysctl,
            tcp: sample.and_then(|sample| sample.facts(sampled_at_ns, self.window_probed)),
            jiffies: jiffy_clock(),
            virtual_time: self.bench.clock == Clock::Virtual,
            neighbour,
        })
    }

    /// How long after the fault the trial ends.
    fn deadline(&self, parameters: &Parameters, prediction: &Prediction) -> Duration {
        // A fault that ends is watched beyond its end, and as long as something is to be counted.
        let counts =
            |window: &Window| window.outcome == Outcome::None && window.retransmits.is_some();
        let counted = prediction.schedule.last().filter(|_| prediction.windows.iter().any(counts));
        let counted = counted.map_or(Duration::ZERO, |step| step.latest);
        let ends = parameters
            .fault_duration()
            .map_or(Duration::ZERO, |after| after.max(counted) + AFTER_FAULT);
        // And a script is watched beyond its last step.
        let script = parameters.script().map_or(Duration::ZERO, |script| script.takes());
        let never = self.bench.never.max(ends).max(script + AFTER_FAULT);
        match parameters.deadline {
            Some(least) if parameters.deadline_extends => {
                default_deadline(prediction, ends.max(least)).max(least)
            }
            Some(deadline) => deadline,
            None => default_deadline(prediction, never),
        }
    }

    /// Records what follows the end: the client's writes into a closed connection, its close.
    async fn aftermath(&mut self, parameters: &Parameters) -> Result<()> {
        if self.ended.any() {
            self.follow_until(Instant::now() + AFTERMATH, |_| false).await?;
        }
        self.finish_destroying().await?;
        self.look_at_links().await?;
        let count = self.network()?.lost_frames();
        if count > 0 {
            self.mark_as(Source::Instrument, What::Lost { count });
        }
        self.finishing = true;
        self.client()?.tell(Command::Finish).await?;
        let settle = Duration::from_millis(50) + parameters.path.rtt * 3;
        // Its last report, the check of what came back, is part of the evidence.
        self.follow_until(Instant::now() + PATIENCE, |ended| ended.reports).await?;
        self.follow_until(Instant::now() + settle, |_| false).await?;
        Ok(())
    }

    /// Follows everything that happens until `until`, or until `enough` is said. Says whether it
    /// was.
    async fn follow_until(
        &mut self,
        until: Instant,
        enough: impl Fn(&Ended) -> bool,
    ) -> Result<bool> {
        let timer = sleep_until(until);
        tokio::pin!(timer);
        loop {
            if enough(&self.ended) {
                return Ok(true);
            }
            let (client, server) = (self.client.as_mut(), self.server.as_mut());
            tokio::select! {
                result = end_of(&mut self.destroying) => {
                    self.destroying = None;
                    self.destroyed(result).await?;
                }
                () = &mut timer => return Ok(false),
                seen = self.seen.recv() => {
                    if let Some(seen) = seen {
                        self.take(seen);
                    }
                }
                report = next_report(client) => match report? {
                    Some(Report::Event(event)) => self.take(Seen::Event(event, None)),
                    Some(Report::Reached(Milestone::Ended)) => self.ended.program = true,
                    Some(Report::Reached(Milestone::Finished)) => self.ended.reports = true,
                    Some(Report::Reached(_)) => {}
                    None => self.client_gone()?,
                },
                report = next_report(server) => match report? {
                    Some(Report::Event(event)) => self.take(Seen::Event(event, None)),
                    Some(Report::Reached(_)) => {}
                    None => self.server = None,
                },
            }
        }
    }

    fn client_gone(&mut self) -> Result<()> {
        self.client = None;
        self.ended.reports = true;
        if self.finishing { Ok(()) } else { Err(Gone("client").into()) }
    }

    /// One thing that was seen: it names its connection, goes on to the front, and may say that
    /// the connection ended.
    fn take(&mut self, seen: Seen) {
        let number = self.plan.number;
        match seen {
            Seen::Event(mut event, ends) => {
                self.name(&mut event, ends);
                let lets_go = self.plan.experiment.parameters.client_lets_go();
                let is_own = event.flow == Some(self.flows.own());
                self.ended.kernel |= is_own && says_ended(&event, lets_go);
                if let What::Trace(Trace::SetState { .. }) = event.what {
                    self.stirred.iter().for_each(|stirred| stirred.notify_one());
                }
                self.report(Message::Event(number, event));
            }
            Seen::Capture(mut capture, ends) => {
                self.name(&mut capture.event, ends);
                self.look_for_window_probe(&capture.event);
                self.report(Message::Captured(number, capture));
            }
        }
    }

    /// Has an event name its connection, and reports one that is new.
    fn name(&mut self, event: &mut Event, ends: Option<Ends>) {
        if let Some(opened) = self.flows.name(event, ends) {
            self.report(Message::Event(self.plan.number, opened));
        }
    }

    /// Remembers the first zero-window probe: a user timeout counts from it.
    fn look_for_window_probe(&mut self, event: &Event) {
        if event.source == Source::ClientWire
            && let What::Segment(segment) = &event.what
            && let Class::WindowProbe { since_closed: 1, .. } =
                self.classifier.feed(event.flow, segment)
            && event.flow == Some(self.flows.own())
        {
            self.window_probed = Some(event.at_ns);
        }
    }

    /// Everything that is still in the channel.
    fn forward(&mut self) {
        while let Ok(seen) = self.seen.try_recv() {
            self.take(seen);
        }
    }

    /// Ends the peers and the instruments, and takes the network down: all of it, whatever goes
    /// wrong on the way; the first thing that did is returned.
    async fn take_down(&mut self) -> Result<()> {
        let mut first = Ok(());
        let peers = [self.client.take(), self.server.take(), self.crashed.take()];
        for mut peer in peers.into_iter().flatten() {
            first = first.and(peer.kill().await);
        }
        let instruments = std::mem::take(&mut self.client_side)
            .into_iter()
            .chain(std::mem::take(&mut self.server_side));
        for instrument in instruments {
            instrument.stop().await;
        }
        if self.destroying.is_some() {
            self.network = end_of(&mut self.destroying).await.ok().map(|(network, _)| network);
            self.destroying = None;
        }
        match self.network.take() {
            Some(network) => first.and(network.remove().await.context("taking the network down")),
            None => first,
        }
    }

    async fn signal_server(&mut self, signal: Signal) -> Result<()> {
        self.server()?.signal(signal).await
    }

    async fn look_at_links(&mut self) -> Result<()> {
        let network = self.network.as_ref().context("the network is gone")?;
        for link in network.links().await? {
            self.mark(What::Link {
                interface: link.interface,
                exists: link.exists,
                up: link.up,
                carrier: link.carrier,
            });
        }
        Ok(())
    }

    fn client(&mut self) -> Result<&mut Peer> {
        Ok(self.client.as_mut().ok_or(Gone("client"))?)
    }

    fn server(&mut self) -> Result<&mut Peer> {
        Ok(self.server.as_mut().ok_or(Gone("server"))?)
    }

    fn network(&mut self) -> Result<&mut Network> {
        self.network.as_mut().context("the network is gone")
    }

    /// An event of the laboratory, now.
    fn mark(&mut self, what: What) {
        self.mark_as(Source::Lab, what);
    }

    fn mark_as(&mut self, source: Source, what: What) {
        self.take(Seen::Event(Event::new(monotonic_ns(), source, what), None));
    }

    fn report(&self, message: Message) {
        // Nobody listens only when the whole program is ending.
        let _ = self.bench.reports.send(message);
    }
}

/// A program that ended though nobody of this trial ended it.
#[derive(Debug)]
struct Gone(&'static str);

impl std::fmt::Display for Gone {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "the {} process was ended from outside", self.0)
    }
}

impl std::error::Error for Gone {}

impl Ended {
    fn any(&self) -> bool {
        self.kernel || self.program
    }

    fn all(&self) -> bool {
        self.kernel && self.program
    }
}

/// The latest prediction and a tenth more, at least two seconds; for a prediction of 'never',
/// `never`.
fn default_deadline(prediction: &Prediction, never: Duration) -> Duration {
    let latest =
        prediction.windows.iter().filter_map(|window| window.span).map(|(_, latest)| latest).max();
    match latest {
        // Long enough for most of what can happen, where nobody can say what will.
        None if prediction.unknown.is_some() => never.max(Duration::from_secs(60)),
        Some(latest) => latest + (latest / 10).max(Duration::from_secs(2)),
        None => never,
    }
}

/// How a trial ends whose `TCP_RTO_MIN_US` the kernel does not take.
fn no_rto_min(parameters: &Parameters, least: Duration, error: &std::io::Error) -> Ending {
    if error.kind() != std::io::ErrorKind::InvalidInput {
        return Ending::Skipped("this kernel has no TCP_RTO_MIN_US (Linux 6.17)".into());
    }
    if let Err((key, why)) = parameters.validate_at(hz()) {
        return Ending::Refused(format!("`{key}`: {why}"));
    }
    let least = spec::duration::show(least);
    Ending::Refused(format!("`client.rto_min`: the kernel does not take {least}: {error}"))
}

/// How a trial ends whose sysctl the kernel does not take.
fn refused(error: &sysctl::Error) -> Ending {
    match error {
        // A congestion control that this kernel does not have.
        sysctl::Error::Refused { name, value, source }
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            Ending::Skipped(format!("this kernel has no {value} for net.ipv4.{name}"))
        }
        sysctl::Error::Refused { name, value, source } => Ending::Refused(format!(
            "`sysctl.{name}`: `{value}` is not a value that the kernel accepts for net.ipv4.{name} \
             ({source}; `sysctl net.ipv4.{name}` shows one)"
        )),
        other => Ending::Failed(other.to_string()),
    }
}

/// Whether an event is the kernel's word that the client's connection has ended. One that its
/// program has closed ends when the kernel has no socket for it any more.
fn says_ended(event: &Event, lets_go: bool) -> bool {
    match &event.what {
        What::SocketGone => event.source == Source::ClientSocket,
        _ if lets_go => false,
        What::Socket(sample) => event.source == Source::ClientSocket && ends(&sample.state),
        What::Trace(Trace::ErrorReport { side: Side::Client, .. }) => true,
        What::Trace(Trace::SetState { side: Side::Client, new, .. }) => ends(new),
        _ => false,
    }
}

fn ends(state: &str) -> bool {
    matches!(state, "CLOSE_WAIT" | "CLOSE" | "TIME_WAIT" | "LAST_ACK" | "CLOSING")
}

async fn end_of<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

async fn next_report(peer: Option<&mut Peer>) -> Result<Option<Report>> {
    match peer {
        Some(peer) => peer.report().await,
        None => std::future::pending().await,
    }
}
