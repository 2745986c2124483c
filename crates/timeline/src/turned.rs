//! Events with the hosts by their parts, by their names, or as one leg sees them. Within the program
//! the survivor is the client, and of a connection of the third host that is; files have the hosts by
//! their names, and say client and server of a connection as it was made.

use crate::event::{Event, Source, Trace, What};
use crate::flow::{Ends, Flow, FlowId, Side};
use crate::log::Timeline;
use spec::{HOSTS, Leg, Parameters, Part};
use std::collections::HashMap;

impl Event {
    fn seen_by(self, hosts: [Part; 2]) -> Self {
        Self { source: self.source.seen_by(hosts), ..self }
    }

    /// The other way round: the source is that of the host.
    #[must_use]
    fn placed(self, [near, far]: [Part; 2]) -> Self {
        let source = match self.source.part() {
            Some(Part::Client) => self.source.on(near),
            Some(Part::Server) => self.source.on(far),
            Some(Part::Third) | None => self.source,
        };
        Self { source, ..self }
    }

    /// The same event with the two ends of its connection exchanged.
    #[must_use]
    fn turned(mut self) -> Self {
        match &mut self.what {
            What::Flow(Flow { ends: Ends { client, server }, opened_by, .. }) => {
                std::mem::swap(client, server);
                *opened_by = opened_by.other();
            }
            What::Options { side, .. } => *side = side.other(),
            What::Trace(trace) => {
                let side: &mut Side = trace.side_mut();
                *side = side.other();
            }
            What::Link { .. }
            | What::Phase(_)
            | What::Fault(_)
            | What::Call(_)
            | What::Segment(_)
            | What::Frame(_)
            | What::Socket(_)
            | What::Facts(_)
            | What::Output { .. }
            | What::OutputOmitted { .. }
            | What::Exited { .. }
            | What::SocketGone
            | What::InstrumentMissing { .. }
            | What::Lost { .. }
            | What::Thinned { .. }
            | What::Late { .. }
            | What::Suspended { .. }
            | What::WallClockSet { .. }
            | What::Ordered { .. }
            | What::Sysctl { .. } => {}
        }
        self
    }

    /// With the host whose part this is by another part, and links by these words for the hosts.
    fn moved(mut self, to: [Part; 3], words: ([&str; 3], [&str; 3])) -> Self {
        if let Some(part) = self.source.part() {
            self.source = self.source.on(to[part as usize]);
        }
        if let What::Link { interface, .. } = &mut self.what {
            let host = words.0.iter().position(|host| interface.ends_with(host));
            if let Some(host) = host {
                let before = interface.len() - words.0[host].len();
                *interface = format!("{}{}", &interface[..before], words.1[host]);
            }
        }
        self
    }
}

/// The words for the hosts by their parts.
const PARTS: [&str; 3] = ["client", "server", "third"];

/// Where names go: sources of the hosts called client, server and proxy.
fn named(parameters: &Parameters) -> [Part; 3] {
    parameters.hosts().map(|host| match host {
        "client" => Part::Client,
        "server" => Part::Server,
        _ => Part::Third,
    })
}

impl Source {
    /// The source of an event of a connection between these hosts, as that sees it: what is seen on the
    /// first is seen by the client.
    #[must_use]
    pub fn seen_by(self, [near, far]: [Part; 2]) -> Self {
        match self.part() {
            Some(part) if part == near => self.on(Part::Client),
            Some(part) if part == far => self.on(Part::Server),
            Some(_) | None => self,
        }
    }

    /// That of the host by its name: `client` and `server`, and the third for the proxy.
    #[must_use]
    pub fn by_name(self, parameters: &Parameters) -> Self {
        self.part().map_or(self, |part| self.on(named(parameters)[part as usize]))
    }
}

impl Timeline {
    /// With the hosts by their names, as files have them.
    #[must_use]
    pub fn by_name(&self, parameters: &Parameters) -> Self {
        let (legs, to) = (self.legs(), named(parameters));
        let words = (PARTS, parameters.hosts());
        let by_name = |event: &Event| {
            let mut event = event.clone();
            if let Some(leg) = event.flow.and_then(|flow| legs.get(&flow)) {
                event = event.placed(parameters.parts(*leg));
            }
            event = if is_turned(parameters, &event, &legs) { event.turned() } else { event };
            event.moved(to, words)
        };
        Self::new(self.events().iter().map(by_name).collect())
    }

    /// Undoes [`Self::by_name`].
    #[must_use]
    pub fn by_part(&self, parameters: &Parameters) -> Self {
        let (legs, to) = (self.legs(), named(parameters));
        let from = Part::ALL.map(|name| {
            let part = to.iter().position(|to| *to == name);
            part.map_or(name, |part| Part::ALL[part])
        });
        let words = (parameters.hosts(), PARTS);
        let by_part = |event: &Event| {
            let mut event = event.clone().moved(from, words);
            event = if is_turned(parameters, &event, &legs) { event.turned() } else { event };
            match event.flow.and_then(|flow| legs.get(&flow)) {
                Some(leg) => event.seen_by(parameters.parts(*leg)),
                None => event,
            }
        };
        Self::new(self.events().iter().map(by_part).collect())
    }

    /// What concerns the connections of one leg, as they see it: the host that is asked is the client.
    /// Where the other lives on, what was done to the third does not concern it.
    #[must_use]
    pub fn of_leg(&self, parameters: &Parameters, leg: Leg) -> Self {
        if !parameters.third_there() {
            return self.clone();
        }
        let (legs, parts) = (self.legs(), parameters.parts(leg));
        let breaks = parameters.breaks(leg);
        let concerns = |event: &&Event| match (event.flow, &event.what) {
            (Some(flow), _) => legs.get(&flow) == Some(&leg),
            (None, What::Fault(crate::event::FaultStep::Done(_)) | What::Link { .. }) => breaks,
            (None, _) => event.source.part().is_none_or(|part| parts.contains(&part)),
        };
        let seen = |event: &Event| match event.flow {
            Some(_) => event.clone(),
            None => event.clone().seen_by(parts),
        };
        Self::new(self.events().iter().filter(concerns).map(seen).collect())
    }

    /// Which hosts each connection joins.
    pub fn legs(&self) -> HashMap<FlowId, Leg> {
        let flow = |event: &Event| match (event.flow, &event.what) {
            (Some(id), What::Flow(flow)) => Some((id, flow.leg)),
            _ => None,
        };
        self.events().iter().filter_map(flow).collect()
    }
}

/// Whether the host that is asked is the one that accepts. Where no connection is named, there is one.
fn is_turned(parameters: &Parameters, event: &Event, legs: &HashMap<FlowId, Leg>) -> bool {
    let leg = event.flow.and_then(|flow| legs.get(&flow)).copied().unwrap_or_default();
    let [near, far] = parameters.parts(leg).map(|part| parameters.hosts()[part as usize]);
    let place = |host: &str| HOSTS.iter().position(|name| *name == host);
    place(near) > place(far)
}

impl Trace {
    const fn side_mut(&mut self) -> &mut Side {
        match self {
            Self::SetState { side, .. }
            | Self::ErrorReport { side, .. }
            | Self::Retransmit { side, .. }
            | Self::SendReset { side }
            | Self::ReceiveReset { side }
            | Self::TimerStart { side, .. }
            | Self::TimerCancel { side, .. }
            | Self::TimerExpire { side, .. } => side,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::{Errno, FaultKind, settings};

    fn with(given: &[(&str, &str)]) -> Parameters {
        let mut parameters = Parameters::default();
        for (key, value) in given {
            settings::apply(&mut parameters, key, value).unwrap();
        }
        assert_eq!(parameters.fault.kind, FaultKind::None);
        parameters
    }

    fn link(interface: &str) -> What {
        What::Link { interface: interface.into(), exists: true, up: true, carrier: true }
    }

    fn flow(number: u16, leg: Leg) -> Event {
        let end = |host: u8| format!("198.18.0.{host}:{number}").parse().unwrap();
        let ends = Ends { client: end(1), server: end(2) };
        let flow = Flow { ends, opened_by: Side::Client, leg };
        Event::new(1, Source::ClientWire, What::Flow(flow)).of(FlowId(number.into()))
    }

    #[test]
    fn what_is_of_one_host_is_of_the_other() {
        let turned = with(&[("fault.host", "client")]);
        let report = |side| What::Trace(Trace::ErrorReport { side, error: Errno::ETIMEDOUT });
        for (source, what, other_source, other) in [
            (
                Source::Lab,
                link("switch port to server"),
                Source::Lab,
                link("switch port to client"),
            ),
            (Source::ClientWire, What::SocketGone, Source::ServerWire, What::SocketGone),
            (Source::Tracepoint, report(Side::Client), Source::Tracepoint, report(Side::Server)),
        ] {
            let one = Timeline::new(vec![Event::new(5, source, what)]);
            let two = Timeline::new(vec![Event::new(5, other_source, other)]);
            assert_eq!((one.by_name(&turned), two.by_part(&turned)), (two, one));
        }
    }

    #[test]
    fn files_have_a_proxy_s_connections_by_the_names_of_its_hosts() {
        for (host, [of_client, of_proxy]) in [
            ("server", [Source::ClientWire, Source::ThirdWire]),
            ("client", [Source::ClientWire, Source::ThirdWire]),
            ("proxy", [Source::ClientWire, Source::ThirdWire]),
        ] {
            let parameters = with(&[("topology", "proxy"), ("fault.host", host)]);
            let gone = |at, source, flow| Event::new(at, source, What::SocketGone).of(FlowId(flow));
            let timeline = Timeline::new(vec![
                flow(0, Leg::Downstream),
                flow(1, Leg::Upstream),
                gone(5, Source::ClientWire, 0),
                gone(6, Source::ServerWire, 0),
                gone(7, Source::ClientWire, 1),
                gone(8, Source::ServerWire, 1),
                Event::new(9, Source::ThirdProgram, link("third")),
            ]);
            let named = timeline.by_name(&parameters);
            assert_eq!(named.by_part(&parameters), timeline, "{host}");
            let at = |ns| named.events().iter().find(|event| event.at_ns == ns).unwrap().source;
            let mut downstream = [at(5), at(6)];
            downstream.sort();
            assert_eq!(downstream, [of_client, of_proxy], "{host}");
            let mut upstream = [at(7), at(8)];
            upstream.sort();
            assert_eq!(upstream, [Source::ServerWire, Source::ThirdWire], "{host}");
        }
    }
}
