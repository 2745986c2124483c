//! The trial's connections: numbered as they appear, told to whoever follows them, and how far each
//! is by what the kernel shows.

use crate::instruments::Followed;
use spec::{Addresses, Parameters, Plan};
use std::collections::BTreeMap;
use timeline::classify::{Class, Classifier};
use timeline::event::{SocketSample, Trace};
use timeline::{Ends, Event, Flow, FlowId, FlowTable, Side, Source, What};
use tokio::sync::watch;

/// The connections of one trial.
pub(super) struct Flows {
    table: FlowTable,
    /// The one of halfopen's own peers, which use the ports of the plan; `None` where neither
    /// program is ours.
    own: Option<FlowId>,
    /// Those that were open when the fault began, and our own: the trial follows them to their end.
    watched: Vec<FlowId>,
    /// Whether the client's program closes by itself: its connection has ended when the kernel has
    /// no socket for it any more.
    lets_go: bool,
    followed: watch::Sender<Vec<(FlowId, Ends)>>,
    progress: BTreeMap<FlowId, Progress>,
    /// What the segments at the client's tap are.
    classifier: Classifier,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    opened_by: Option<Side>,
    established: bool,
    /// Its end, as the client's kernel sees it.
    ended: bool,
    /// A tracepoint has shown it.
    end_traced: bool,
    /// When the client last began to probe a closed window.
    window_probed_ns: Option<u64>,
}

impl Flows {
    /// The flow of halfopen's own peers is known beforehand.
    pub(super) fn new(plan: &Plan) -> Self {
        let mut table = FlowTable::default();
        let Parameters { client, server, .. } = &plan.experiment.parameters;
        let ours = [client.program, server.program].iter().any(|p| p.description().reports);
        let Addresses { client, server, .. } = plan.addresses;
        let own = ours.then(|| table.expect(Ends { client, server }));
        let (followed, _) = watch::channel(table.latest());
        Self {
            table,
            own,
            watched: own.into_iter().collect(),
            lets_go: plan.experiment.parameters.client_lets_go(),
            followed,
            progress: BTreeMap::new(),
            classifier: Classifier::new(Side::Client),
        }
    }

    /// The fault begins: what is open now is followed to its end.
    pub(super) fn fault_begins(&mut self) {
        self.watched = self.own.into_iter().chain(self.open()).collect();
        self.watched.sort_unstable();
        self.watched.dedup();
    }

    /// The flow that a prediction is about: that of our own peers, or else the first that is open.
    pub(super) fn main(&self) -> Option<FlowId> {
        self.own.or_else(|| self.open().next())
    }

    /// The flows that are open now.
    pub(super) fn open(&self) -> impl Iterator<Item = FlowId> {
        let open = |progress: &Progress| progress.established && !progress.ended;
        self.progress.iter().filter(move |(_, progress)| open(progress)).map(|(flow, _)| *flow)
    }

    /// The ends of a flow.
    pub(super) fn ends(&self, flow: FlowId) -> Option<Ends> {
        self.table.ends(flow)
    }

    /// Whoever samples sockets listens here.
    pub(super) fn followed(&self) -> Followed {
        self.followed.subscribe()
    }

    /// Whether a connection is established for the host that connected.
    pub(super) fn any_is_established(&self) -> bool {
        self.progress.values().any(|progress| progress.established)
    }

    /// Whether every connection that the trial follows has ended for the client's kernel.
    pub(super) fn have_ended(&self) -> bool {
        let has_ended = |flow: &FlowId| self.progress.get(flow).is_some_and(|p| p.ended);
        !self.watched.is_empty() && self.watched.iter().all(has_ended)
    }

    /// How many connections have ended without a tracepoint that says so, though tracepoints are on:
    /// those records must have been lost. Where the program closes by itself, a mini-socket can live
    /// on, whose end no tracepoint tells.
    pub(super) fn untraced_ends(&self) -> usize {
        let ended = self.watched.iter().filter_map(|flow| self.progress.get(flow));
        ended.filter(|p| !self.lets_go && p.ended && !p.end_traced).count()
    }

    /// When the client began to probe its peer's closed window, nanoseconds: a user timeout counts
    /// from it.
    pub(super) fn window_probed_ns(&self, flow: FlowId) -> Option<u64> {
        self.progress.get(&flow).and_then(|progress| progress.window_probed_ns)
    }

    /// Has an event name its connection, if it is about one, and learns from it. Returns the event
    /// that says of a new connection that it has appeared.
    pub(super) fn name(&mut self, event: &mut Event, ends: Option<Ends>) -> Option<Event> {
        let opened = ends.and_then(|ends| self.table.name(event, ends));
        // A peer of ours has one connection, and says nothing of others.
        if matches!(event.source, Source::ClientProgram | Source::ServerProgram) {
            event.flow = self.own;
        }
        if let Some(Event { flow: Some(id), what: What::Flow(Flow { opened_by, .. }), .. }) = opened
        {
            self.progress.entry(id).or_default().opened_by = Some(opened_by);
            self.followed.send_replace(self.table.latest());
        }
        if let Some(flow) = event.flow {
            self.learn(flow, event);
        }
        opened
    }

    fn learn(&mut self, flow: FlowId, event: &Event) {
        let progress = self.progress.entry(flow).or_default();
        let opener = progress.opened_by.unwrap_or(Side::Client);
        progress.established |= state_of(event) == Some((opener, "ESTABLISHED"));
        let says_ended = says_ended(event, self.lets_go);
        progress.ended |= says_ended;
        progress.end_traced |= says_ended && event.source == Source::Tracepoint;
        if event.source == Source::ClientWire
            && let What::Segment(segment) = &event.what
            && let Class::WindowProbe { since_closed: 1, .. } =
                self.classifier.feed(Some(flow), segment)
        {
            progress.window_probed_ns = Some(event.at_ns);
        }
    }
}

/// Whose socket an event shows in which state.
fn state_of(event: &Event) -> Option<(Side, &str)> {
    match (&event.what, event.source) {
        (What::Trace(Trace::SetState { side, new, .. }), _) => Some((*side, new)),
        (What::Socket(sample), Source::ClientSocket) => Some((Side::Client, &sample.state)),
        (What::Socket(sample), Source::ServerSocket) => Some((Side::Server, &sample.state)),
        _ => None,
    }
}

/// Whether an event is the kernel's word that the client's connection has ended. One that its
/// program has closed ends when the kernel has no socket for it any more.
fn says_ended(event: &Event, lets_go: bool) -> bool {
    match &event.what {
        What::SocketGone => event.source == Source::ClientSocket,
        _ if lets_go => false,
        What::Trace(Trace::ErrorReport { side: Side::Client, .. }) => true,
        _ => state_of(event).is_some_and(|(side, state)| side == Side::Client && ends(state)),
    }
}

fn ends(state: &str) -> bool {
    matches!(state, "CLOSE_WAIT" | "CLOSE" | "TIME_WAIT" | "LAST_ACK" | "CLOSING")
}

/// Whether a socket has nothing outstanding and probes its peer's closed window.
pub(super) fn probes_closed_window(sample: &SocketSample) -> bool {
    sample.timer == spec::facts::TcpFacts::TIMER_PROBE0
        && sample.info.as_ref().is_some_and(|info| info.unacked == 0 && info.snd_wnd == 0)
}
