//! What the wire and the sockets show of one connection of a program's.

use model::ObservedCall;
use model::command::{Observed, Unread};
use spec::Facts;
use spec::script::Step;
use timeline::classify::{Class, Classifier, Progress};
use timeline::event::{FaultStep, Phase, TcpInfo};
use timeline::{Event, FlowId, Side, Source, Timeline, What};

/// What the wire and the server's socket show of one connection.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) observed: Observed,
    /// When it was asked for, if that was after the fault.
    pub(super) connected_ns: Option<u64>,
    /// The earliest write that was not acknowledged at the fault.
    pub(super) unacknowledged_ns: Option<u64>,
    /// The first FIN that the client sent after the fault.
    pub(super) fin_ns: Option<u64>,
    /// What the client sent again, and its probes: when, and which.
    sent_again: Vec<(u64, Class)>,
}

impl Seen {
    pub(super) fn of(timeline: &Timeline, id: FlowId, fault_at: u64) -> Self {
        let mut classifier = Classifier::new(Side::Client);
        let mut seen = Self::default();
        let mut peer = PeerSeen::default();
        // Where what was written ends in the sequence space, and when that was.
        let mut out: Vec<(u32, u64)> = Vec::new();
        let mut progress = Progress::default();
        // Where each call after the fault began ends.
        let mut ends: Vec<u32> = Vec::new();
        let complete_at = timeline.fault_step(&FaultStep::Complete).unwrap_or(fault_at);
        // What a program does when it is told to end does not count as its own act.
        let end = timeline.phase_at(Phase::Aftermath).unwrap_or(u64::MAX);
        let about = |event: &&Event| event.flow == Some(id) && event.at_ns < end;
        for event in timeline.events().iter().filter(about) {
            let at_ns = event.at_ns;
            peer.learn(event, fault_at);
            let (What::Segment(segment), Source::ClientWire) = (&event.what, event.source) else {
                continue;
            };
            let class = classifier.feed(Some(id), segment);
            let is_behind = progress.feed(segment, class);
            if !segment.sent {
                let unasked = at_ns >= fault_at && seen.observed.calls.is_empty();
                seen.observed.heard |= unasked && matches!(class, Class::Data { .. });
                let acked = segment.ack;
                let is_left = |end: &u32| acked.wrapping_sub(*end).cast_signed() < 0;
                if at_ns <= complete_at {
                    out.retain(|(end, _)| is_left(end));
                    // What is answered while the fault is being done came before it.
                    let answered = ends.iter().take_while(|end| !is_left(end)).count();
                    seen.observed.calls.drain(..answered);
                    ends.drain(..answered);
                }
                continue;
            }
            match class {
                Class::Data { .. } if at_ns < fault_at => {
                    out.push((segment.seq.wrapping_add(segment.len), at_ns));
                }
                Class::Data { bytes } => {
                    seen.observed.behind |= is_behind;
                    ends.push(segment.seq.wrapping_add(segment.len));
                    seen.observed.calls.push(ObservedCall { at_ns, step: Step::Write(bytes) });
                }
                Class::Syn { n: 1 } if at_ns >= fault_at => seen.connected_ns = Some(at_ns),
                // Where a host answers, this FIN is the program's end: the prediction says what
                // would have come without it.
                Class::Fin { n: 1, .. } if at_ns >= fault_at => seen.fin_ns = Some(at_ns),
                _ => seen.sent_again.push((at_ns, class)),
            }
        }
        seen.unacknowledged_ns = out.first().map(|(_, at_ns)| *at_ns);
        (seen.observed.unread, seen.observed.unsent) = (peer.unread(), peer.unsent);
        seen
    }

    /// Whether the client's program has shut down its direction and still has the socket.
    pub(super) fn half_closed(&self, last_look: &Facts) -> bool {
        let tcp = last_look.tcp.as_ref();
        let owned = tcp.filter(|tcp| tcp.options_set.is_some()).map(|tcp| tcp.sampled_at_ns);
        self.fin_ns.zip(owned).is_some_and(|(fin_ns, at_ns)| fin_ns <= at_ns)
    }

    /// How many of these were sent between two moments.
    pub(super) fn count(&self, from: u64, to: u64, wanted: fn(Class) -> bool) -> u32 {
        // What is sent in the moment of the reference is before it: where time is virtual, a probe and its
        // answer have one moment.
        let within = |at: u64| from < at && at < to;
        let sent = self.sent_again.iter().filter(|(at, class)| within(*at) && wanted(*class));
        u32::try_from(sent.count()).unwrap_or(u32::MAX)
    }
}

/// What was seen of the other program's socket up to its end.
#[derive(Debug, Default)]
struct PeerSeen {
    /// Since when something has lain there unread, as far as looks before the fault show, and how much
    /// had been read then.
    unread_since_ns: Option<u64>,
    read: Option<u64>,
    /// The last look before the fault.
    looked_ns: u64,
    /// When something last came before the socket was closed.
    came_ns: u64,
    closed: bool,
    unsent: bool,
}

impl PeerSeen {
    fn learn(&mut self, event: &Event, fault_at: u64) {
        match (&event.what, event.source) {
            (What::Socket(sample), Source::ServerSocket) if event.at_ns <= fault_at => {
                let info = sample.info.as_ref();
                let received = info.map(|info| info.bytes_received);
                let read = received.map(|bytes| bytes.saturating_sub(sample.receive_queue.into()));
                // What a program reads in turns is not what lay there before.
                let reads = std::mem::replace(&mut self.read, read) != read;
                let since_ns = self.unread_since_ns.filter(|_| !reads).unwrap_or(event.at_ns);
                self.unread_since_ns = (sample.receive_queue > 0).then_some(since_ns);
                self.looked_ns = event.at_ns;
                self.unsent = info.is_some_and(TcpInfo::has_unsent);
            }
            (What::Segment(segment), Source::ServerWire) if segment.sent => {
                let is_over = event.at_ns >= fault_at && (segment.flags.fin || segment.flags.rst);
                self.closed |= is_over;
            }
            (What::Segment(segment), Source::ServerWire) if segment.len > 0 && !self.closed => {
                self.came_ns = event.at_ns;
            }
            _ => {}
        }
    }

    const fn unread(&self) -> Unread {
        match self.unread_since_ns {
            Some(since_ns) if self.looked_ns - since_ns >= AT_ONCE_NS => Unread::Yes,
            None if self.came_ns + LOOK_NS < self.looked_ns => Unread::No,
            Some(_) | None => Unread::Open,
        }
    }
}

/// What comes within this time of a look may not be in it.
const LOOK_NS: u64 = 1_000_000;
/// A program that reads what comes has read it by then.
const AT_ONCE_NS: u64 = 20_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use timeline::event::{SocketSample, TcpInfo};

    /// Looks at the other program's socket: when, milliseconds, how much it has received and what lies
    /// there unread. The fault comes after them.
    fn unread(looks: &[(u64, u64, u32)]) -> Unread {
        let mut peer = PeerSeen::default();
        for (at_ms, bytes_received, receive_queue) in looks {
            let info = TcpInfo { bytes_received: *bytes_received, ..TcpInfo::default() };
            let sample = SocketSample {
                state: "ESTABLISHED".into(),
                receive_queue: *receive_queue,
                info: Some(info),
                ..SocketSample::default()
            };
            let what = What::Socket(Box::new(sample));
            peer.learn(&Event::new(at_ms * 1_000_000, Source::ServerSocket, what), u64::MAX);
        }
        peer.unread()
    }

    #[test]
    fn what_a_program_reads_in_turns_does_not_lie_there() {
        assert_eq!(unread(&[(10, 50, 50), (40, 50, 50)]), Unread::Yes);
        assert_eq!(unread(&[(10, 50, 50), (40, 100, 50)]), Unread::Open, "other bytes");
        assert_eq!(unread(&[(10, 50, 50), (40, 100, 100)]), Unread::Yes, "more bytes");
        assert_eq!(unread(&[(10, 50, 50), (40, 50, 0)]), Unread::No);
    }
}
