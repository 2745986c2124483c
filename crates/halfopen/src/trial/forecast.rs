//! What is predicted of each connection, and predicted anew as calls are seen.

use super::Trial;
use crate::channel::Message;
use crate::instruments::Seen;
use anyhow::Result;
use model::command::{
    Conditional, Observed, Unread, falls_silent, predict_from_all, predict_in_sequence,
    predict_program,
};
use model::{ObservedCall, Prediction};
use observe::clock::monotonic_ns;
use spec::facts::TcpFacts;
use spec::{Facts, Leg, Parameters, Reference, SocketOptions};
use std::collections::BTreeMap;
use std::time::Duration;
use timeline::event::TcpInfo;
use timeline::{Event, FlowId, Side, Source, What};
use tokio::time::Instant;

/// What is predicted of a connection, and from what.
pub(super) struct Forecast {
    pub(super) facts: Facts,
    unread: Unread,
    pub(super) conditional: Conditional,
    /// The options that the socket was last seen to have.
    pub(super) options: Option<SocketOptions>,
    /// Whether it was open when the fault came.
    pub(super) was_open: bool,
    /// Whether it is made from as many calls as are kept, so that others make no difference.
    has_all_calls: bool,
    /// When something was last received before the fault.
    received_ns: Option<u64>,
    /// When the timer will have expired of which it is unknown whether it is that of a loss probe
    /// or of a retransmission; afterwards it can be told.
    pub(super) clear_at: Option<Instant>,
}

impl Forecast {
    fn new(facts: Facts, unread: Unread, conditional: Conditional, was_open: bool) -> Self {
        // A loss probe's, or that of a retransmission which is overdue: either is sooner than the
        // RTO.
        let is_unclear = |tcp: &&TcpFacts| {
            let sooner = u64::from(tcp.timer_expires_ms) * 2_000 < u64::from(tcp.rto_us);
            tcp.timer == 1 && tcp.unacked > 1 && tcp.retransmits == 0 && sooner
        };
        let tcp = facts.tcp.as_ref().filter(|_| conditional.from_sample).filter(is_unclear);
        let expired = |tcp: &TcpFacts| {
            Instant::now() + Duration::from_millis(tcp.timer_expires_ms.into()) + EXPIRED
        };
        let clear_at = tcp.map(expired);
        let options = facts.tcp.as_ref().and_then(|tcp| tcp.options_set.clone());
        let (has_all_calls, received_ns) = (false, None);
        Self { facts, unread, conditional, options, was_open, has_all_calls, received_ns, clear_at }
    }

    /// That of its socket.
    pub(super) fn inode(&self) -> Option<u32> {
        self.facts.tcp.as_ref().and_then(|tcp| tcp.inode)
    }

    /// What is predicted.
    pub(super) const fn prediction(&self) -> &Prediction {
        &self.conditional.prediction
    }

    /// From which moment its times count, nanoseconds of `CLOCK_MONOTONIC`; `None` where that is not
    /// known.
    pub(super) fn counts_from_ns(&self, fault_ns: u64, calls: &[ObservedCall]) -> Option<u64> {
        if self.conditional.from_sample {
            return self.facts.tcp.as_ref().map(|tcp| tcp.sampled_at_ns);
        }
        match self.conditional.prediction.reference {
            Reference::Fault => Some(fault_ns),
            Reference::FirstWrite => calls.first().map(|call| call.at_ns),
            Reference::LastActivity => self.received_ns,
            Reference::Connect | Reference::Close | Reference::LastRequest => None,
        }
    }

    pub(super) fn is_clear(&self, now: Instant) -> bool {
        self.clear_at.is_some_and(|at| at <= now)
    }
}

/// Two ticks at HZ 100, and a slot: by then a short timer has expired.
const EXPIRED: Duration = Duration::from_millis(30);

pub(super) type Forecasts = BTreeMap<FlowId, Forecast>;

impl Trial {
    /// What is known of each open connection at the last moment before the fault, and what is
    /// predicted of it.
    pub(super) async fn look_at_flows(&mut self, parameters: &Parameters) -> Result<Forecasts> {
        // What passes the proxy by is not what is asked about.
        let is_asked = |flow: &FlowId| self.flows.leg(*flow) != Leg::Past;
        let mut open: Vec<_> = self.flows.open().filter(is_asked).collect();
        // The first that is predicted is told: one that breaks.
        open.sort_by_key(|flow| (self.flows.leg(*flow) != parameters.broken_leg(), *flow));
        let mut options = BTreeMap::new();
        for flow in &open {
            // First, since a descriptor of the socket must not be held across the fault.
            options.insert(*flow, self.look_at_options(*flow).await?);
        }
        let mut forecasts = Forecasts::new();
        for flow in open {
            let Some(ends) = self.flows.ends(flow) else { continue };
            let own = &parameters.of_leg(self.flows.leg(flow));
            let mut facts = self.facts_of(Some(flow), options.remove(&flow).flatten(), own)?;
            if facts.tcp.is_none() {
                // It has ended just now.
                continue;
            }
            let (local, remote) = ends.seen_from(Side::Server);
            let sampled_at_ns = monotonic_ns();
            let [_, far] = self.parts_of(flow);
            let host = self.namespace(far)?;
            let sample = self.host_mut(far).sockets(&host)?.sample(local, remote)?;
            let is_left = sample.as_ref().is_some_and(|sample| sample.receive_queue > 0);
            let unread = if is_left { Unread::Open } else { Unread::No };
            let info = sample.as_ref().and_then(|sample| sample.info.as_ref());
            if own.fault.still.is_some() {
                facts.server_tcp =
                    sample.as_ref().and_then(|sample| sample.facts(sampled_at_ns, None));
            }
            let unsent = info.is_some_and(TcpInfo::has_unsent);
            if let Some(sample) = sample {
                let what = What::Socket(Box::new(sample));
                let event = Event::new(sampled_at_ns, Source::socket(far), what).of(flow);
                self.take(Seen::Event(event, None));
            }
            let observed = Observed { unread, unsent, ..Observed::default() };
            let conditional = if self.came.is_none() && own.follows_program() {
                // As it will be predicted from all faults.
                let prediction = model::predict(&own.up_to_fault(0), &facts);
                Conditional { prediction, from_sample: false }
            } else {
                predict_program(own, &facts, &observed)
            };
            self.tell_facts(flow, &facts);
            let received_ns = self.flows.received_ns(flow);
            if forecasts.is_empty() && self.flows.leg(flow) == parameters.broken_leg() {
                let number = self.plan.number;
                self.report(Message::Facts(number, Box::new(facts.clone())));
                let mut prediction = conditional.prediction.clone();
                let sampled_ns = facts.tcp.as_ref().map(|tcp| tcp.sampled_at_ns);
                if let Some((from, to)) =
                    received_ns.zip(sampled_ns).filter(|_| conditional.from_sample)
                {
                    let since = Duration::from_nanos(to.saturating_sub(from));
                    prediction.recount(|time| time.saturating_add(since));
                }
                let is_told = prediction.unknown.is_none() && !own.client_says_goodbye();
                if is_told || self.came.is_none() {
                    self.report(Message::Prediction(number, Box::new(prediction)));
                }
            }
            let forecast = Forecast::new(facts, unread, conditional, true);
            forecasts.insert(flow, Forecast { received_ns, ..forecast });
        }
        Ok(forecasts)
    }

    /// What the sockets at a later fault do not tell is predicted from all faults. That takes its time, so the
    /// fault comes first.
    pub(super) fn predict_from_all(&self, own: &Parameters, forecasts: &mut Forecasts) {
        let Some((whole, first)) = &self.came else { return };
        let is_open =
            |one: &&mut Forecast| one.prediction().unknown.is_some() || whole.client_says_goodbye();
        for forecast in forecasts.values_mut().filter(is_open) {
            if let Some(known) = predict_from_all(own, &forecast.facts, (whole, first)) {
                forecast.conditional = known;
            }
            let prediction = Box::new(forecast.prediction().clone());
            self.report(Message::Prediction(self.plan.number, prediction));
        }
    }

    fn conditional(&self, own: &Parameters, facts: &Facts, observed: &Observed) -> Conditional {
        match &self.came {
            Some((whole, first)) => predict_in_sequence(own, facts, observed, (whole, first)),
            None => predict_program(own, facts, observed),
        }
    }

    fn tell_facts(&mut self, flow: FlowId, facts: &Facts) {
        let sampled_at_ns = facts.tcp.as_ref().map_or_else(monotonic_ns, |tcp| tcp.sampled_at_ns);
        let owned = facts.tcp.as_ref().is_some_and(|tcp| tcp.options_set.is_some());
        self.flows.looked_at(flow, sampled_at_ns, owned);
        let what = What::Facts(Box::new(facts.clone()));
        let [near, _] = self.parts_of(flow);
        let event = Event::new(monotonic_ns(), Source::socket(near), what).of(flow);
        self.take(Seen::Event(event, None));
    }

    /// A program has made a call, or something has come that was on its way: what is predicted of the
    /// connection is predicted anew.
    pub(super) async fn look_again(
        &mut self,
        flow: FlowId,
        parameters: &Parameters,
        forecasts: &mut Forecasts,
    ) -> Result<()> {
        let leg = self.flows.leg(flow);
        if leg == Leg::Past {
            self.flows.looked_at(flow, monotonic_ns(), false);
            return Ok(());
        }
        let parameters = &parameters.of_leg(leg);
        let before = forecasts.get(&flow);
        if parameters.follows_program() {
            // All its calls were known beforehand.
            self.flows.looked_at(flow, monotonic_ns(), false);
            return Ok(());
        }
        if self.flows.keeps_no_more_calls(flow)
            && before.is_some_and(|forecast| forecast.has_all_calls)
        {
            self.flows.looked_at(flow, monotonic_ns(), false);
            return Ok(());
        }
        let unread = before.map_or(Unread::No, |forecast| forecast.unread);
        let was_open = before.is_some_and(|forecast| forecast.was_open);
        let received_ns = before.and_then(|forecast| forecast.received_ns);
        let facts = match before {
            Some(forecast) if !forecast.conditional.from_sample => forecast.facts.clone(),
            _ => {
                let options = self.look_at_options(flow).await?;
                self.facts_of(Some(flow), options, parameters)?
            }
        };
        let observed = Observed {
            calls: self.flows.calls(flow),
            unread,
            behind: self.flows.is_behind(flow),
            heard: self.flows.has_heard(flow),
            ..Observed::default()
        };
        let is_silent = falls_silent(parameters, &facts);
        let is_known = facts.tcp.as_ref().is_some_and(|tcp| tcp.options_set.is_some());
        let can_tell = was_open || is_silent && is_known;
        if let Some(forecast) = forecasts.get_mut(&flow) {
            forecast.clear_at = None;
        }
        if !can_tell || facts.tcp.is_none() {
            // It has ended, or nothing can be said of it.
            self.flows.looked_at(flow, monotonic_ns(), is_known);
            return Ok(());
        }
        if is_silent && is_known {
            self.tell_facts(flow, &facts);
        } else {
            self.flows.looked_at(flow, monotonic_ns(), is_known && is_silent);
        }
        let conditional = self.conditional(parameters, &facts, &observed);
        let has_all_calls = self.flows.keeps_no_more_calls(flow) && !conditional.from_sample;
        let forecast = Forecast::new(facts, unread, conditional, was_open);
        forecasts.insert(flow, Forecast { has_all_calls, received_ns, ..forecast });
        Ok(())
    }
}
