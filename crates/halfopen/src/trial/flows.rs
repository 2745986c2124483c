//! The trial's connections: numbered as they appear, reported to the instruments, and how far each
//! is by what the kernel shows.

use super::progress::{CALLS_MOST, Progress, says_closed, says_ended, says_sends, state_of};
use crate::instruments::Followed;
use model::ObservedCall;
use spec::script::Step;
use spec::{Addresses, Leg, Parameters, Plan, Topology};
use std::collections::{BTreeMap, BTreeSet};
use timeline::classify::{Class, Classifier};
use timeline::event::SocketSample;
use timeline::{Ends, Event, Flow, FlowId, FlowTable, Side, Source, What};
use tokio::sync::watch;

/// Of more connections than these, only those that have not ended are sampled.
const CROWD: usize = 200;

/// What is known of an event once its connection is.
pub(super) struct Named {
    /// The event that says that its connection has appeared, if it is the first.
    pub(super) opened: Option<Event>,
    /// What a segment is, at the client's tap.
    pub(super) class: Option<Class>,
}

/// The connections of one trial.
pub(super) struct Flows {
    table: FlowTable,
    /// The one of halfopen's own peers, which use the ports of the plan; `None` where neither
    /// program is ours.
    own: Option<FlowId>,
    /// Whether connections are predicted anew, from what is seen of them.
    anew: bool,
    /// The trial's hosts.
    addresses: Addresses,
    parameters: Parameters,
    /// Whether nothing that the survivor sends passes its tap once the fault is there.
    unseen: bool,
    /// Connections to ignore (readiness checks), and whether new ones are to be ignored.
    ignored: BTreeSet<Ends>,
    ignoring: bool,
    /// When the first connection was established, and when the host that connected first received
    /// data.
    established_ns: Option<u64>,
    data_ns: Option<u64>,
    /// When data last passed the client's interface.
    last_data_ns: Option<u64>,
    /// When the fault began.
    fault_ns: Option<u64>,
    /// Those that were open when the fault began, and our own: the trial follows them to their end.
    watched: Vec<FlowId>,
    /// Whether the client's program closes by itself: its connection has ended when the kernel has
    /// no socket for it any more.
    lets_go: bool,
    followed: watch::Sender<Vec<(FlowId, Ends)>>,
    /// Those that are sampled.
    sampled: BTreeMap<FlowId, Ends>,
    /// The first that the client has asked for since the fault.
    next: Option<FlowId>,
    progress: BTreeMap<FlowId, Progress>,
    /// What the segments at the client's tap are.
    classifier: Classifier,
}

impl Flows {
    /// The flow of halfopen's own peers is known beforehand.
    pub(super) fn new(plan: &Plan) -> Self {
        let mut table = FlowTable::default();
        let Parameters { client, server, .. } = &plan.experiment.parameters;
        let commands = plan.experiment.parameters.runs_command();
        let anew = plan.experiment.parameters.predicts_anew();
        let ours =
            !commands && [client.program, server.program].iter().any(|p| p.description().reports);
        let Addresses { client, server, .. } = plan.addresses;
        let own = ours.then(|| table.expect(Ends { client, server }));
        let sampled: BTreeMap<_, _> = table.latest().into_iter().collect();
        let (followed, _) = watch::channel(table.latest());
        Self {
            table,
            own,
            anew,
            addresses: plan.addresses.clone(),
            parameters: plan.experiment.parameters.clone(),
            unseen: anew && plan.experiment.parameters.topology == Topology::Direct,
            ignored: BTreeSet::new(),
            ignoring: false,
            established_ns: None,
            data_ns: None,
            last_data_ns: None,
            fault_ns: None,
            watched: own.into_iter().collect(),
            lets_go: plan.experiment.parameters.client_lets_go(),
            followed,
            sampled,
            next: None,
            progress: BTreeMap::new(),
            classifier: Classifier::new(Side::Client),
        }
    }

    /// The fault begins: what is open now is followed to its end.
    pub(super) fn fault_begins(&mut self, at_ns: u64) {
        (self.fault_ns, self.next) = (Some(at_ns), None);
        self.watched = self.own.into_iter().chain(self.open()).collect();
        for progress in self.progress.values_mut() {
            progress.calls.clear();
            (progress.is_behind, progress.has_heard) = (false, false);
        }
        self.watched.sort_unstable();
        self.watched.dedup();
    }

    /// From now on, new connections are ignored, or not.
    pub(super) fn ignore(&mut self, ignoring: bool) {
        self.ignoring = ignoring;
    }

    /// Whether to ignore the connection with these ends.
    pub(super) fn ignores(&mut self, ends: Ends) -> bool {
        if self.ignoring {
            self.ignored.insert(ends);
        }
        self.ignored.contains(&ends)
    }

    /// Whether an event tells of a connection of two other hosts: a switch that has not learned where a
    /// host is floods its frames.
    pub(super) fn is_elsewhere(&self, event: &Event, ends: Ends) -> bool {
        let hosts = ends.hosts(&self.addresses).filter(|_| self.parameters.third_there());
        hosts.zip(event.source.part()).is_some_and(|(hosts, part)| !hosts.contains(&part))
    }

    /// Whether a connection that the kernel has was seen to be established, or is not to be looked at.
    pub(super) fn shows(&self, ends: Ends) -> bool {
        let is_shown = |flow: &FlowId| {
            let progress = self.progress.get(flow);
            progress.is_some_and(|progress| progress.established || progress.has_ended())
        };
        self.ignored.contains(&ends) || self.table.between(ends).iter().any(is_shown)
    }

    /// From which moment a time before the fault counts: the host that connected first received
    /// data, or, where it received none within that time, the first connection was established.
    pub(super) fn began_ns(&self, within_ns: u64) -> Option<u64> {
        match (self.established_ns, self.data_ns) {
            (Some(established), Some(data)) if data > established + within_ns => Some(established),
            (established, data) => data.or(established),
        }
    }

    /// When data last passed the client's interface, if any did.
    pub(super) fn last_data_ns(&self) -> Option<u64> {
        self.last_data_ns
    }

    /// When the fault began.
    pub(super) fn fault_ns(&self) -> u64 {
        self.fault_ns.unwrap_or_default()
    }

    /// The connections of which something is known that is outdated: those open at the fault, and the
    /// first one that the client has asked for since.
    pub(super) fn outdated(&self) -> Vec<FlowId> {
        let is_outdated = |flow: &FlowId| {
            self.progress.get(flow).is_some_and(|p| !p.ended && p.stirred_ns > p.looked_ns)
        };
        self.looked_after().filter(is_outdated).collect()
    }

    fn looked_after(&self) -> impl Iterator<Item = FlowId> {
        self.watched.iter().copied().chain(self.next)
    }

    /// When the options of one of these are to be read again, nanoseconds; 0: at once.
    pub(super) fn options_due_ns(&self) -> Option<u64> {
        let progress = self.looked_after().filter_map(|flow| self.progress.get(&flow));
        progress.filter_map(|progress| progress.options_due.next_ns()).min()
    }

    /// Those whose options are to be read now.
    pub(super) fn options_due(&mut self, now_ns: u64) -> Vec<FlowId> {
        let mut flows: Vec<_> = self.looked_after().collect();
        flows.retain(|flow| {
            let progress = self.progress.get_mut(flow);
            progress.is_some_and(|progress| progress.options_due.take(now_ns))
        });
        flows
    }

    /// It was looked at, and whether a process had it.
    pub(super) fn looked_at(&mut self, flow: FlowId, at_ns: u64, owned: bool) {
        let progress = self.progress.entry(flow).or_default();
        progress.looked_ns = at_ns;
        progress.half_closed = owned && progress.fin_sent;
    }

    /// What the client has sent on a connection after the fault that was new.
    pub(super) fn calls(&self, flow: FlowId) -> Vec<ObservedCall> {
        self.progress.get(&flow).map(|progress| progress.calls.clone()).unwrap_or_default()
    }

    /// Whether as many of them are kept as ever are: others make no difference.
    pub(super) fn keeps_no_more_calls(&self, flow: FlowId) -> bool {
        self.progress.get(&flow).is_some_and(|progress| progress.calls.len() >= CALLS_MOST)
    }

    /// Whether a connection has ended for the client's kernel, or its program has closed it.
    pub(super) fn has_ended(&self, flow: FlowId) -> bool {
        let progress = self.progress.get(&flow);
        progress.is_some_and(Progress::has_ended)
    }

    /// When the client's kernel was seen to end it, nanoseconds; `None`: it has not.
    pub(super) fn ended_ns(&self, flow: FlowId) -> Option<u64> {
        self.progress.get(&flow).filter(|progress| progress.ended).map(|progress| progress.ended_ns)
    }

    /// The flow that a prediction is about: that of our own peers, or else the first that is open.
    pub(super) fn main(&self) -> Option<FlowId> {
        self.own.or_else(|| self.open().next())
    }

    /// Whether the survivor has acknowledged all data that it received, as far as its tap shows; `None`:
    /// it has received none, or our own peers do as they are expected to.
    pub(super) fn acknowledged(&self, flow: FlowId) -> Option<bool> {
        let progress = self.progress.get(&flow).filter(|_| self.anew)?;
        let left = progress.received?.wrapping_sub(progress.acknowledged?).cast_signed();
        Some(left <= 0)
    }

    /// Whether the survivor has received data after the fault before it sent any.
    pub(super) fn has_heard(&self, flow: FlowId) -> bool {
        self.progress.get(&flow).is_some_and(|progress| progress.has_heard)
    }

    /// Whether the survivor has sent new data after the fault while other data were not acknowledged.
    pub(super) fn is_behind(&self, flow: FlowId) -> bool {
        self.progress.get(&flow).is_some_and(|progress| progress.is_behind)
    }

    /// Every flow.
    pub(super) fn all(&self) -> impl Iterator<Item = FlowId> {
        self.progress.keys().copied()
    }

    /// The flows that are open now.
    pub(super) fn open(&self) -> impl Iterator<Item = FlowId> {
        let open = |progress: &Progress| progress.established && !progress.has_ended();
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

    /// When the survivor last received a segment of the connection, nanoseconds.
    pub(super) fn received_ns(&self, flow: FlowId) -> Option<u64> {
        self.progress.get(&flow).and_then(|progress| progress.received_ns)
    }

    /// Has an event name its connection, if it is about one, and learns from it.
    pub(super) fn name(&mut self, event: &mut Event, ends: Option<Ends>) -> Named {
        let known = ends.or_else(|| event.flow.and_then(|flow| self.table.ends(flow)));
        let leg = known.map_or(Leg::Whole, |ends| self.leg_between(ends));
        if leg != Leg::Whole {
            event.source = event.source.seen_by(self.parameters.parts(leg));
        }
        let mut opened = ends.and_then(|ends| self.table.name(event, ends));
        // A peer of ours has one connection, and says nothing of others.
        if matches!(event.source, Source::ClientProgram | Source::ServerProgram) {
            event.flow = self.own;
        }
        if let Some(Event { flow: Some(id), what: What::Flow(flow), .. }) = &mut opened {
            flow.leg = leg;
            self.begins(*id, *flow, event.at_ns);
        }
        let class = event.flow.and_then(|flow| self.learn(flow, event));
        Named { opened, class }
    }

    /// Which two hosts a connection joins.
    pub(super) fn leg(&self, flow: FlowId) -> Leg {
        self.table.ends(flow).map_or(Leg::Whole, |ends| self.leg_between(ends))
    }

    fn leg_between(&self, ends: Ends) -> Leg {
        let hosts = ends.hosts(&self.addresses).filter(|_| self.parameters.third_there());
        let names = self.parameters.hosts();
        hosts.map_or(Leg::Whole, |hosts| Leg::between(hosts.map(|part| names[part as usize])))
    }

    fn begins(&mut self, id: FlowId, flow: Flow, at_ns: u64) {
        let accepts = self.parameters.asked_accepts(flow.leg);
        let progress = self.progress.entry(id).or_default();
        (progress.accepts, progress.is_clients) = (accepts, flow.leg.hosts()[0] == "client");
        (progress.opened_by, progress.opened_ns) = (Some(flow.opened_by), at_ns);
        progress.stirred_ns = at_ns;
        let is_next = flow.opened_by == Side::Client && !self.watched.contains(&id);
        if is_next && self.fault_ns.is_some_and(|fault_ns| at_ns > fault_ns) {
            self.next.get_or_insert(id);
        }
        let progress = &self.progress;
        let is_crowded = progress.len() > CROWD;
        self.sampled.retain(|other, ends| {
            let is_over = || progress.get(other).is_some_and(Progress::has_ended);
            *ends != flow.ends && !(is_crowded && is_over())
        });
        self.sampled.insert(id, flow.ends);
        self.followed.send_replace(self.sampled.iter().map(|(id, ends)| (*id, *ends)).collect());
    }

    /// Returns what a segment is, at the client's tap.
    fn learn(&mut self, flow: FlowId, event: &Event) -> Option<Class> {
        let progress = self.progress.entry(flow).or_default();
        let opener = progress.opened_by.unwrap_or(Side::Client);
        if state_of(event) == Some((opener, "ESTABLISHED")) {
            progress.established = true;
            if progress.is_clients {
                self.established_ns.get_or_insert(event.at_ns);
            }
        }
        let says_ended = says_ended(event, self.lets_go);
        if says_ended && !progress.ended {
            (progress.ended, progress.ended_ns) = (true, event.at_ns);
            progress.options_due.has_ended();
        }
        if !progress.ended {
            progress.options_due.learn(event);
        }
        if self.unseen && says_sends(event) {
            progress.stirred_ns = event.at_ns;
        }
        if self.anew && says_closed(event) && !progress.fin_sent {
            progress.fin_sent = true;
            progress.stirred_ns = event.at_ns;
        }
        progress.end_traced |= says_ended && event.source == Source::Tracepoint;
        let (What::Segment(segment), Source::ClientWire) = (&event.what, event.source) else {
            return None;
        };
        if segment.sent {
            progress.acknowledged = Some(segment.ack);
        } else {
            progress.received_ns = Some(event.at_ns);
            if segment.len > 0 {
                progress.received = Some(segment.seq.wrapping_add(segment.len));
            }
        }
        let class = self.classifier.feed(Some(flow), segment);
        let is_data = matches!(class, Class::Data { .. });
        let is_broken = self.fault_ns.is_some_and(|fault_ns| event.at_ns >= fault_ns);
        progress.has_heard |= is_broken && is_data && !segment.sent && progress.calls.is_empty();
        progress.is_behind |= progress.sent.feed(segment, class) && is_broken;
        if !segment.sent || is_data {
            progress.stirred_ns = event.at_ns;
        }
        if is_data {
            self.last_data_ns = Some(event.at_ns);
        }
        // What the survivor sends is received where it accepts.
        if is_data && progress.is_clients && segment.sent == progress.accepts {
            self.data_ns.get_or_insert(event.at_ns);
        }
        match class {
            Class::WindowProbe { since_closed: 1, .. } => {
                progress.window_probed_ns = Some(event.at_ns);
            }
            Class::Data { bytes } if segment.sent && is_broken => {
                let call = ObservedCall { at_ns: event.at_ns, step: Step::Write(bytes) };
                progress.calls.extend((progress.calls.len() < CALLS_MOST).then_some(call));
            }
            _ => {}
        }
        Some(class)
    }
}

/// Whether a socket has nothing outstanding and probes its peer's closed window.
pub(super) fn probes_closed_window(sample: &SocketSample) -> bool {
    sample.timer == spec::facts::TcpFacts::TIMER_PROBE0
        && sample.info.as_ref().is_some_and(|info| info.unacked == 0 && info.snd_wnd == 0)
}
