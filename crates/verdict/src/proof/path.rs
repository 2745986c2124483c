//! What happened on the path: silence, carriers, the router.

use super::{ASKING, Evidence, QUEUEING, Scene, WATCHED_AFTER, asks, span};
use crate::measure::server_is_gone;
use spec::{Answer, CallName, FaultAct, Parameters, Reject, Topology, counted};
use std::collections::BTreeMap;
use std::ops::Range;
use timeline::event::{FaultStep, Frame, FrameKind, Side, Trace};
use timeline::{Segment, Source, What};

impl Scene<'_> {
    /// While the fault lasts, nothing that the client sends arrives, and nothing comes from the
    /// server's address.
    pub(super) fn silence(&self) -> (bool, String) {
        let left = self.during(Source::ClientWire, true).count();
        let arrived = self.arrived(Source::ServerWire, Source::ClientWire).count();
        let came = self.arrived(Source::ClientWire, Source::ServerWire);
        let (came, ended) = came.fold((0, 0), |(came, ended), segment| {
            (came + 1, ended + u32::from(segment.flags.fin || segment.flags.rst))
        });
        let finding = format!(
            "{} left the client and {arrived} arrived at the server; {came} came from \
             it, {ended} with FIN or RST among them",
            counted(left, "segment")
        );
        (arrived == 0 && came == 0, finding)
    }

    /// After a path came back to a client that had sent something, something came back to it.
    pub(super) fn path_is_back(&self) -> Option<Evidence> {
        let restored = self.timeline.fault_step(&FaultStep::Restored)?;
        let sent = self.during(Source::ClientWire, true).count();
        let ended = self.timeline.events().iter().any(|event| {
            matches!(event.what, What::Trace(Trace::ErrorReport { side: Side::Client, .. }))
                || event.source == Source::ClientProgram
                    && matches!(&event.what, What::Call(call) if call.name == CallName::Read && call.result.is_err())
                // A program that has given up waits for nothing more.
                || event.source == Source::ClientProgram
                    && matches!(&event.what, What::Call(call) if call.name == CallName::Heartbeat)
                // A program that has closed is told nothing.
                || event.at_ns < self.end
                    && event.source == Source::ClientSocket
                    && event.what == What::SocketGone
        });
        if sent == 0 || ended {
            return None;
        }
        let segments = self.timeline.segments(Source::ClientWire);
        let came = segments.filter(|(at, s)| (restored..self.end).contains(at) && !s.sent).count();
        // What is sent too late is not answered before the trial ends; and where nothing is sent,
        // nothing can come.
        let answerable = self.end.saturating_sub(self.transit * 3);
        let tried = self.timeline.events().iter().any(|event| {
            (restored..answerable).contains(&event.at_ns)
                && event.source == Source::ClientWire
                && match &event.what {
                    What::Segment(segment) => segment.sent,
                    What::Frame(frame) => asks(frame),
                    _ => false,
                }
        });
        let watched = self.end.saturating_sub(restored);
        if came == 0 && !tried {
            // A retransmission can be far off; but who looks away at once has seen nothing.
            let finding = format!("the trial ended {} after the path was back", span(watched));
            let too_soon = watched < WATCHED_AFTER.as_nanos() as u64;
            return too_soon.then_some(Evidence { finding, holds: false });
        }
        let finding =
            format!("{} came from the server once the path was back", counted(came, "segment"));
        Some(Evidence { finding, holds: came > 0 })
    }

    /// Whether a host's carrier is as it must be at the end, or when the fault began to be undone.
    pub(super) fn carrier(&self, interface: &str, wanted: bool) -> (bool, String) {
        match self.link(interface, self.until.min(self.end)) {
            Some((exists, up, carrier)) => {
                let state = match (exists, up && carrier) {
                    (false, _) => "no longer exists",
                    (_, true) => "kept its carrier",
                    (_, false) => "lost its carrier",
                };
                (
                    exists && (up && carrier) == wanted,
                    format!("the {interface}'s interface {state}"),
                )
            }
            None => (false, format!("the {interface}'s interface was not watched")),
        }
    }

    /// The last look at an interface after the fault and before `until`.
    pub(super) fn link(&self, name: &str, until: u64) -> Option<(bool, bool, bool)> {
        self.timeline
            .events()
            .iter()
            .filter(|event| (self.done..=until).contains(&event.at_ns))
            .filter_map(|event| match &event.what {
                What::Link { interface, exists, up, carrier } if interface == name => {
                    Some((*exists, *up, *carrier))
                }
                _ => None,
            })
            .next_back()
    }

    /// The server's port of the switch is down, or gone with the server. Behind a router that switch is the
    /// server's cable.
    pub(super) fn port_down(&self, topology: Topology) -> (bool, String) {
        let (port, [up, down]) = match topology {
            Topology::Router => ("the server's cable behind the router", ["alive", "dead"]),
            _ => ("the switch's port to the server", ["up", "down"]),
        };
        match self.link("switch port to server", self.until) {
            Some((true, is_up, _)) => {
                (!is_up, format!("{port} is {}", if is_up { up } else { down }))
            }
            Some((false, ..)) => (true, format!("{port} is gone with the server")),
            None => (false, format!("{port} was not watched")),
        }
    }

    pub(super) fn destroyed(&self) -> (bool, String) {
        if server_is_gone(self.timeline) {
            (true, "the server's host is gone, with its processes, sockets and interface".into())
        } else {
            (false, "the server's host was not destroyed".into())
        }
    }

    /// A fault that ends did end when it was due, unless the trial ended before. Undoing it takes
    /// a moment, and on a busy machine more: that matters if the client sent something meanwhile.
    pub(super) fn restored(&self, parameters: &Parameters) -> (bool, String) {
        if let Some(at) = self.timeline.fault_step(&FaultStep::Restored) {
            let due = self.began
                + parameters.fault_duration().map_or(0, |duration| duration.as_nanos() as u64);
            let missed = self
                .timeline
                .segments(Source::ClientWire)
                .filter(|(sent, segment)| (due..at).contains(sent) && segment.sent)
                .count();
            let mut finding =
                format!("the fault was over {} after it began", span(at - self.began));
            if missed > 0 {
                finding += &format!(
                    ", {} later than planned: {} lost meanwhile",
                    span(at - due),
                    counted(missed, "segment")
                );
            }
            (missed == 0, finding)
        } else if self.timeline.fault_step(&FaultStep::Outlasted).is_some() {
            (true, "the deadline passed before the fault was scheduled to end".into())
        } else {
            (false, "the fault was not undone before the trial ended".into())
        }
    }

    /// The other host says that it has the address, if it is to: in a question or an answer that
    /// nobody asked for.
    pub(super) fn announced(&self, wanted: bool) -> Option<Evidence> {
        self.timeline.fault_step(&FaultStep::Restored)?;
        let restoring = self.timeline.fault_step(&FaultStep::Restoring)?;
        let says = self.timeline.fault_step(&FaultStep::Done(FaultAct::Announced));
        let mut frames = self.timeline.events().iter().filter(|event| {
            event.at_ns >= restoring
                && event.source == Source::ServerWire
                && matches!(
                    event.what,
                    What::Frame(Frame {
                        sent: true,
                        kind: FrameKind::NeighbourRequest(_) | FrameKind::NeighbourReply(_)
                    })
                )
        });
        let (holds, finding) = match (says, frames.next()) {
            (Some(_), Some(first)) => {
                let after = span(first.at_ns - restoring);
                (wanted, format!("the other host said that it has the address, within {after}"))
            }
            (Some(_), None) => (false, "the other host said nothing".into()),
            (None, _) => (!wanted, "the other host did not say that it has the address".into()),
        };
        Some(Evidence { finding, holds })
    }

    /// Nothing of the connection passes the router any more, which answers what it rejects.
    /// `tested`: something of it must have been sent.
    pub(super) fn rejected(&self, kind: Reject, tested: bool) -> (bool, String) {
        // The closing FIN included: an idle client sends nothing else.
        let sent = self
            .timeline
            .segments(Source::ClientWire)
            .filter(|(at, segment)| *at >= self.done && segment.sent)
            .count();
        let passed = self.arrived(Source::ServerWire, Source::ClientWire);
        let arrived = passed.filter(|segment| !segment.flags.rst).count();
        let answers = if kind == Reject::TcpReset {
            let came = self.timeline.segments(Source::ClientWire);
            came.filter(|(at, s)| *at >= self.began && !s.sent && s.flags.rst).count()
        } else {
            self.icmp_answers()
        };
        let finding = format!(
            "{} left the client, {arrived} passed the router, which answered {} ({kind})",
            counted(sent, "segment"),
            counted(answers, "time")
        );
        // A RST draws no answer.
        let asks = self.timeline.segments(Source::ClientWire);
        let asks = asks.filter(|(at, s)| *at >= self.done && s.sent && !s.flags.rst).count();
        (arrived == 0 && (answers > 0 || (asks == 0 && (sent > 0 || !tested))), finding)
    }

    /// What came to the router before a flow had been idle for so long passed it, and nothing of that flow
    /// after that.
    pub(super) fn forgot(&self, parameters: &Parameters) -> (bool, String) {
        let remembers = parameters.fault.idle.unwrap_or_default().as_nanos() as u64;
        let slack = QUEUEING.as_nanos() as u64;
        // When each flow last passed, and for how long it had been idle when it was forgotten.
        let mut flows: BTreeMap<(u16, u16), (Option<u64>, Option<u64>)> = BTreeMap::new();
        let (mut passed, mut lost, mut wrong, mut resets) = (0, 0, 0, 0);
        for (at, segment) in self.timeline.segments(Source::ClientWire) {
            let ports = (segment.source_port, segment.destination_port);
            let ports = if segment.sent { ports } else { (ports.1, ports.0) };
            let (before, forgotten) = flows.entry(ports).or_default();
            if segment.sent && segment.flags.syn {
                // Another connection with the same ports.
                (*before, *forgotten) = (None, None);
            }
            let idle = before.map_or(0, |before| at - before);
            if !segment.sent {
                resets += u32::from(forgotten.is_some() && segment.flags.rst);
                *before = Some(at).filter(|_| forgotten.is_none()).or(*before);
                continue;
            }
            // The first of all wait until the router knows the server's link-layer address.
            let waits = if at < self.began { ASKING.as_nanos() as u64 } else { 0 };
            let arrived = self.has_come(segment, at..at + self.transit + waits);
            if forgotten.is_none() && idle >= remembers {
                *forgotten = Some(idle);
            }
            let near =
                forgotten.is_none_or(|idle| idle < remembers + slack) && idle + slack >= remembers;
            wrong += u32::from(arrived == forgotten.is_some() && !near);
            (passed, lost) = (passed + u32::from(arrived), lost + u32::from(!arrived));
            *before = Some(at).filter(|_| arrived).or(*before);
        }
        let forgotten = flows.into_values().find_map(|(_, forgotten)| forgotten);
        let answered = parameters.fault.answer == Answer::TcpReset;
        let holds = wrong == 0 && (lost == 0 || answered == (resets > 0));
        let finding = match forgotten {
            Some(idle) => format!(
                "the flow was idle for {}: {lost} segments did not pass the router after that, which \
                 sent {resets} resets; {passed} had passed before",
                span(idle)
            ),
            None => format!(
                "the flow was never idle for {}: {passed} segments passed the router, {lost} did not",
                span(remembers)
            ),
        };
        (holds, finding)
    }

    /// Whether a segment that left the client came to the server meanwhile, in one piece or cut into several
    /// by what is between them.
    fn has_come(&self, left: &Segment, within: Range<u64>) -> bool {
        let came = self.timeline.segments(Source::ServerWire);
        let mut came = came.filter(|(at, other)| within.contains(at) && !other.sent);
        let after = |number: u32, start: u32| number.wrapping_sub(start);
        let length = after(left.end(), left.seq);
        if length == 0 {
            return came.any(|(_, other)| Segment { sent: true, ..*other } == *left);
        }
        let ports = |segment: &Segment| (segment.source_port, segment.destination_port);
        let reached = came.filter(|(_, other)| ports(other) == ports(left)).fold(
            left.seq,
            |next, (_, other)| {
                let has_next = after(next, other.seq) < after(other.end(), other.seq);
                if has_next { other.end() } else { next }
            },
        );
        after(reached, left.seq) >= length
    }

    pub(super) fn icmp_answers(&self) -> usize {
        self.timeline
            .events()
            .iter()
            .filter(|event| event.at_ns >= self.done)
            .filter(|event| event.source == Source::ClientWire)
            .filter(|event| {
                matches!(
                    event.what,
                    What::Frame(Frame {
                        sent: false,
                        kind: FrameKind::Icmp { about_connection: true, .. }
                    })
                )
            })
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::{FaultAct, FaultKind};
    use std::time::Duration;
    use timeline::{Event, Flags, Timeline};

    /// A router that forgets nothing, 10 ms away: 2856 bytes in one frame leave the client, and these
    /// come to the server, each with the offset of its first byte.
    fn forgot(parts: &[(u32, u32)]) -> (bool, String) {
        let mut parameters = Parameters { topology: Topology::Router, ..Parameters::default() };
        parameters.path.rtt = Duration::from_millis(10);
        parameters.fault.kind = FaultKind::Forget;
        parameters.fault.idle = Some(Duration::from_secs(3));
        let ms = |ms: u64| ms * 1_000_000;
        let lab = |at, step| Event::new(ms(at), Source::Lab, What::Fault(step));
        // The sequence numbers begin anew amid the data.
        let sent = Segment {
            sent: true,
            source_port: 40_000,
            destination_port: 7,
            seq: 1_000_u32.wrapping_neg(),
            ack: 1,
            flags: Flags::from_bits(0x18),
            window: 502,
            len: 2_856,
        };
        let came = parts.iter().map(|(offset, len)| {
            let part =
                Segment { sent: false, seq: sent.seq.wrapping_add(*offset), len: *len, ..sent };
            Event::new(ms(1_105), Source::ServerWire, What::Segment(part))
        });
        let mut events = vec![
            lab(1_000, FaultStep::Begin),
            lab(1_001, FaultStep::Done(FaultAct::PortDown)),
            lab(1_002, FaultStep::Complete),
            Event::new(ms(1_100), Source::ClientWire, What::Segment(sent)),
        ];
        events.extend(came);
        Scene::new(&parameters, &Timeline::new(events)).unwrap().forgot(&parameters)
    }

    #[test]
    fn what_is_down_is_the_switch_s_port_or_the_cable_behind_the_router() {
        let lab = |at, what| Event::new(at, Source::Lab, what);
        for (topology, exists, said) in [
            (Topology::Switch, true, "the switch's port to the server is down"),
            (Topology::Switch, false, "the switch's port to the server is gone with the server"),
            (Topology::Router, true, "the server's cable behind the router is dead"),
            (
                Topology::Router,
                false,
                "the server's cable behind the router is gone with the server",
            ),
        ] {
            let interface = "switch port to server".into();
            let timeline = Timeline::new(vec![
                lab(1_000, What::Fault(FaultStep::Begin)),
                lab(1_001, What::Fault(FaultStep::Done(FaultAct::PortDown))),
                lab(1_002, What::Fault(FaultStep::Complete)),
                lab(1_003, What::Link { interface, exists, up: false, carrier: false }),
            ]);
            let parameters = Parameters { topology, ..Parameters::default() };
            let told = Scene::new(&parameters, &timeline).unwrap().port_down(topology);
            assert_eq!(told, (true, said.to_owned()));
        }
    }

    #[test]
    fn a_segment_that_is_cut_on_its_way_has_passed_once_all_of_it_came() {
        for parts in [&[(0, 2_856)][..], &[(0, 1_428), (1_428, 1_428)]] {
            let (holds, finding) = forgot(parts);
            assert!(holds && finding.contains("1 segments passed"), "{parts:?}: {finding}");
        }
        for parts in [&[][..], &[(0, 1_428)], &[(1_428, 1_428)]] {
            let (holds, finding) = forgot(parts);
            assert!(!holds && finding.contains("0 segments passed"), "{parts:?}: {finding}");
        }
    }
}
