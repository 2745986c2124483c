//! What the two programs and their kernels said.

use super::{ACTING, Evidence, Scene, asks, span};
use spec::{CallName, Parameters, Traffic, counted};
use timeline::classify::classified;
use timeline::event::FaultStep;
use timeline::{Segment, Source, What};

impl<'a> Scene<'a> {
    /// The last segment from the server that reached the client: the path worked until then.
    pub(super) fn last_exchange(&self) -> Evidence {
        let last = self
            .timeline
            .segments(Source::ClientWire)
            .rfind(|(at, segment)| *at < self.began && !segment.sent);
        match last {
            Some((at, _)) => Evidence {
                finding: format!(
                    "the last segment from the server came {} before the fault",
                    span(self.began.saturating_sub(at))
                ),
                holds: true,
            },
            None => Evidence {
                finding: "no segment from the server was captured before the fault".into(),
                holds: false,
            },
        }
    }

    pub(super) fn farewells(&self) -> impl Iterator<Item = (u64, &'a Segment)> {
        let (began, until) = (self.began, self.until);
        self.timeline.segments(Source::ClientWire).filter(move |(at, segment)| {
            (began..until).contains(at) && !segment.sent && (segment.flags.fin || segment.flags.rst)
        })
    }

    /// No FIN and no RST came.
    pub(super) fn nothing_ended(&self) -> (bool, String) {
        match self.farewells().next() {
            None => (true, "neither FIN nor RST came from the server".into()),
            Some((at, segment)) => {
                (false, format!("{} came {} after the fault", segment.flags, span(at - self.began)))
            }
        }
    }

    /// If the connection was closed, the web server closed it: no RST, and its program runs on.
    pub(super) fn closed_by_itself(&self) -> (bool, String) {
        let resets = self.farewells().filter(|(_, segment)| segment.flags.rst).count();
        let text = match self.farewells().next() {
            Some((at, segment)) => {
                format!("{} came {} after the fault", segment.flags, span(at - self.began))
            }
            None => "neither FIN nor RST came from the server".into(),
        };
        (resets == 0, text)
    }

    /// The kernel closed the dead process's connection, or did not where a child holds it.
    pub(super) fn said_goodbye(&self, parameters: &Parameters) -> (bool, String) {
        let first = self.farewells().next();
        match (first, parameters.server.inherited) {
            (Some((at, segment)), false) => {
                (true, format!("{} came {} after the kill", segment.flags, span(at - self.began)))
            }
            (None, false) => {
                (false, "neither FIN nor RST came from the dead process's kernel".into())
            }
            (None, true) => {
                (true, "neither FIN nor RST came: the child still holds the connection".into())
            }
            (Some((_, segment)), true) => {
                (false, format!("{} came although a child holds the connection", segment.flags))
            }
        }
    }

    /// How often keepalive probed a host that lives: a trial that is over before its
    /// first probe says nothing about keepalive.
    pub(super) fn kept_alive(&self, parameters: &Parameters) -> Option<Evidence> {
        let client = &parameters.client;
        if !client.keepalive.enabled || client.traffic != Traffic::Idle {
            return None;
        }
        let probes = classified(self.timeline, Source::ClientWire)
            .filter(|(at, segment, class)| {
                (self.began..self.end).contains(at) && segment.sent && class.is_keepalive_probe()
            })
            .count();
        let finding = match probes {
            0 => {
                "no keepalive probe was due before the trial ended: keepalive was not tried".into()
            }
            1 => "1 keepalive probe left the client".to_owned(),
            _ => format!("{probes} keepalive probes left the client"),
        };
        Some(Evidence { finding, holds: true })
    }

    /// Every process of the program was killed or stopped, or the one alone that others `inherit` from.
    pub(super) fn met_processes(&self, how: &str, inherit: bool) -> Option<Evidence> {
        self.timeline.events().iter().find_map(|event| {
            let What::Fault(FaultStep::Processes { met, left }) = event.what else { return None };
            let were = if met == 1 { "was" } else { "were" };
            let process = counted(met, "process");
            let finding = format!("{process} of the server's program {were} {how}, {left} left");
            Some(Evidence { finding, holds: met > 0 && (left > 0) == inherit })
        })
    }

    /// A stopped program sends no data; its kernel still acknowledges.
    pub(super) fn nothing_said(&self) -> (bool, String) {
        let data = self.arrived(Source::ClientWire, Source::ServerWire);
        let data = data.filter(|segment| segment.len > 0).count();
        (data == 0, format!("{} with data came from the stopped program", counted(data, "segment")))
    }

    /// Something was put to the test: if the client sent nothing while it lived, then its closing
    /// FIN, which the laboratory has it send for that.
    pub(super) fn tried(&self) -> (bool, String) {
        let from = self.done;
        let count = |tap, sent| {
            let segments = self.timeline.segments(tap);
            segments.filter(|(at, segment)| *at >= from && segment.sent == sent).count()
        };
        // A segment that waits for a link-layer address has left as a question.
        let asked = self.timeline.events().iter().filter(|event| {
            event.at_ns >= from
                && event.source == Source::ClientWire
                && matches!(&event.what, What::Frame(frame) if asks(frame))
        });
        let left = count(Source::ClientWire, true) + asked.count();
        (
            left > 0,
            format!(
                "{} left the client, its closing FIN and its requests for link-layer addresses \
                 included",
                counted(left, "segment")
            ),
        )
    }

    /// A web server that was stopped and runs again acts at once on a timer that has ended: it must
    /// run again when it should.
    pub(super) fn ran_again(&self, parameters: &Parameters) -> Option<Evidence> {
        let due = parameters.fault.after + parameters.fault_duration()?;
        let segments = self.timeline.segments(Source::ClientWire);
        let (last, _) = segments.take_while(|(at, _)| *at < self.began).last()?;
        let ran = self.timeline.fault_step(&FaultStep::Restored)?;
        let late = (ran - last).saturating_sub(due.as_nanos() as u64);
        Some(Evidence {
            finding: format!("the server process ran again, {} later than planned", span(late)),
            holds: late <= ACTING.as_nanos() as u64,
        })
    }

    /// The client's own check of the answers, if it came to that.
    pub(super) fn data_intact(&self) -> Option<Evidence> {
        self.timeline.events().iter().find_map(|event| match &event.what {
            // Where nothing was sent, nothing could come back.
            What::Call(call) if call.name == CallName::Check && call.result != Ok(0) => {
                Some(match call.result {
                    Ok(bytes) => Evidence {
                        finding: format!("{} came back as sent", counted(bytes, "byte")),
                        holds: true,
                    },
                    Err(_) => Evidence {
                        finding:
                            "what came back is not what was sent: bytes were lost or came twice"
                                .into(),
                        holds: false,
                    },
                })
            }
            _ => None,
        })
    }
}
