//! How far one connection is, and what an event says of that.

use super::options::OptionsDue;
use model::ObservedCall;
use timeline::event::{Timer, Trace};
use timeline::{Event, Side, Source, What, classify};

/// More calls than these are not kept: what is predicted does not depend on them.
pub(super) const CALLS_MOST: usize = 100;

/// How far a connection is.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    pub(super) opened_by: Option<Side>,
    /// Whether the host that is asked is the one that accepts.
    pub(super) accepts: bool,
    /// Whether it is a connection of the client's host: times before the fault count from those.
    pub(super) is_clients: bool,
    pub(super) opened_ns: u64,
    pub(super) established: bool,
    /// Its end, as the client's kernel sees it, and when that was seen.
    pub(super) ended: bool,
    pub(super) ended_ns: u64,
    /// A tracepoint has shown it.
    pub(super) end_traced: bool,
    /// What the client has sent after the fault that was new, up to [`CALLS_MOST`].
    pub(super) calls: Vec<ObservedCall>,
    /// When its socket was last stirred by a call or by its peer: what was known of it is outdated.
    pub(super) stirred_ns: u64,
    /// When it was last looked at.
    pub(super) looked_ns: u64,
    /// The client has sent its FIN, or is about to.
    pub(super) fin_sent: bool,
    /// Its program has the socket still, though its direction is shut down.
    pub(super) half_closed: bool,
    /// When the client last began to probe a closed window.
    pub(super) window_probed_ns: Option<u64>,
    /// When it last received a segment.
    pub(super) received_ns: Option<u64>,
    /// Where the last data that it received ends, and up to where it has acknowledged.
    pub(super) received: Option<u32>,
    pub(super) acknowledged: Option<u32>,
    pub(super) sent: classify::Progress,
    /// New data were sent after the fault while others were not acknowledged.
    pub(super) is_behind: bool,
    /// Data were received after the fault before any were sent.
    pub(super) has_heard: bool,
    /// When its options matter next.
    pub(super) options_due: OptionsDue,
}

impl Progress {
    /// Whether its kernel has reported the end, or its program has closed it.
    pub(super) const fn has_ended(&self) -> bool {
        self.ended || self.fin_sent && !self.half_closed
    }
}

/// Whose socket an event shows in which state.
pub(super) fn state_of(event: &Event) -> Option<(Side, &str)> {
    match (&event.what, event.source) {
        (What::Trace(Trace::SetState { side, new, .. }), _) => Some((*side, new)),
        (What::Socket(sample), Source::ClientSocket) => Some((Side::Client, &sample.state)),
        (What::Socket(sample), Source::ServerSocket) => Some((Side::Server, &sample.state)),
        _ => None,
    }
}

/// Whether an event is the kernel's word that the client's connection has ended. One that its
/// program has closed ends when the kernel has no socket for it any more.
pub(super) fn says_ended(event: &Event, lets_go: bool) -> bool {
    match &event.what {
        What::SocketGone => event.source == Source::ClientSocket,
        _ if lets_go => false,
        What::Trace(Trace::ErrorReport { side: Side::Client, .. }) => true,
        _ => state_of(event).is_some_and(|(side, state)| side == Side::Client && ends(state)),
    }
}

/// Whether an event shows that the client's program has closed its socket.
pub(super) fn says_closed(event: &Event) -> bool {
    match (&event.what, event.source) {
        (What::Segment(segment), Source::ClientWire) => segment.sent && segment.flags.fin,
        _ => state_of(event).is_some_and(|(side, state)| {
            side == Side::Client && matches!(state, "FIN_WAIT1" | "FIN_WAIT2")
        }),
    }
}

/// Whether an event about the survivor's socket may be that its program has written, where no segment
/// shows it.
pub(super) fn says_sends(event: &Event) -> bool {
    match (&event.what, event.source) {
        (What::Trace(Trace::TimerStart { side: Side::Client, timer, .. }), _) => {
            *timer == Timer::Write
        }
        (What::Socket(sample), Source::ClientSocket) => sample.send_queue > 0,
        _ => false,
    }
}

fn ends(state: &str) -> bool {
    matches!(state, "CLOSE_WAIT" | "CLOSE" | "TIME_WAIT" | "LAST_ACK" | "CLOSING")
}
