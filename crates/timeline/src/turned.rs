//! An event with the two hosts exchanged. Within the program the survivor is the client; where it
//! is called the server, files have it by its name.

use crate::event::{Event, Source, Trace, What};
use crate::flow::{Ends, Flow, Side};

impl Source {
    /// The same on the other host.
    #[must_use]
    pub const fn turned(self) -> Self {
        match self {
            Self::ClientProgram => Self::ServerProgram,
            Self::ServerProgram => Self::ClientProgram,
            Self::ClientWire => Self::ServerWire,
            Self::ServerWire => Self::ClientWire,
            Self::ClientSocket => Self::ServerSocket,
            Self::ServerSocket => Self::ClientSocket,
            Self::Lab | Self::Tracepoint | Self::Instrument => self,
        }
    }
}

impl Event {
    /// The same event with the hosts exchanged.
    #[must_use]
    pub fn turned(mut self) -> Self {
        self.source = self.source.turned();
        match &mut self.what {
            What::Flow(Flow { ends: Ends { client, server }, opened_by }) => {
                std::mem::swap(client, server);
                *opened_by = opened_by.other();
            }
            What::Options { side, .. } => *side = side.other(),
            What::Trace(trace) => {
                let side: &mut Side = trace.side_mut();
                *side = side.other();
            }
            What::Link { interface, .. } => {
                let (client, server) = ("client", "server");
                *interface = if interface.ends_with(client) {
                    interface.replace(client, server)
                } else {
                    interface.replace(server, client)
                };
            }
            What::Phase(_)
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
    use spec::Errno;

    #[test]
    fn what_is_of_one_host_is_of_the_other() {
        let link = |interface: &str| What::Link {
            interface: interface.into(),
            exists: true,
            up: true,
            carrier: true,
        };
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
            let (one, two) = (Event::new(5, source, what), Event::new(5, other_source, other));
            assert_eq!((one.clone().turned(), two.clone().turned()), (two, one));
        }
    }
}
