//! The states of the two sockets, and the timers that ran, as spans of time.

use spec::CallName;
use timeline::event::{Side, Trace};
use timeline::{Event, Source, Timeline, What};

/// Something that lasted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span<T> {
    pub(crate) from_ns: u64,
    pub(crate) to_ns: u64,
    pub(crate) what: T,
}

impl<T: Clone> Span<T> {
    /// The part of it before `end_ns`.
    pub(crate) fn until(&self, end_ns: u64) -> Self {
        let [from_ns, to_ns] = [self.from_ns, self.to_ns].map(|at_ns| at_ns.min(end_ns));
        Self { from_ns, to_ns, what: self.what.clone() }
    }
}

/// The states of one side's socket.
pub(crate) fn states(timeline: &Timeline, side: Side) -> Vec<Span<String>> {
    let sample = if side == Side::Client { Source::ClientSocket } else { Source::ServerSocket };
    let program = if side == Side::Client { Source::ClientProgram } else { Source::ServerProgram };
    let opening = if side == Side::Client { CallName::Connect } else { CallName::Accept };
    let state = |event: &Event| match &event.what {
        What::Socket(socket) if event.source == sample => Some(socket.state.clone()),
        What::SocketGone if event.source == sample => Some("CLOSE".into()),
        What::Trace(Trace::SetState { side: whose, new, .. }) if *whose == side => {
            Some(new.clone())
        }
        What::Call(call)
            if event.source == program && call.name == opening && call.result.is_ok() =>
        {
            Some("ESTABLISHED".into())
        }
        _ => None,
    };
    spans(timeline, state)
}

/// The timers of one side's socket, by the kernel's number, as socket diagnostics show them.
pub(crate) fn timers(timeline: &Timeline, side: Side) -> Vec<Span<u8>> {
    let sample = if side == Side::Client { Source::ClientSocket } else { Source::ServerSocket };
    let timer = |event: &Event| match &event.what {
        What::Socket(socket) if event.source == sample => Some(socket.timer),
        What::SocketGone if event.source == sample => Some(0),
        What::Trace(Trace::SetState { side: whose, new, .. })
            if *whose == side && new == "CLOSE" =>
        {
            Some(0)
        }
        _ => None,
    };
    spans(timeline, timer)
}

/// The spans between the changes of something that events tell.
fn spans<T: PartialEq>(timeline: &Timeline, tell: impl Fn(&Event) -> Option<T>) -> Vec<Span<T>> {
    let end_ns = timeline.events().last().map_or(0, |event| event.at_ns);
    let mut spans: Vec<Span<T>> = Vec::new();
    for event in timeline.events() {
        let Some(what) = tell(event) else { continue };
        match spans.last_mut() {
            Some(last) if last.what == what => {}
            Some(last) => {
                last.to_ns = event.at_ns;
                spans.push(Span { from_ns: event.at_ns, to_ns: end_ns, what });
            }
            None => spans.push(Span { from_ns: event.at_ns, to_ns: end_ns, what }),
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn states_and_timers_are_spans_without_gaps() {
        let trial = samples::keepalive();
        let states = states(&trial.timeline, Side::Client);
        let names: Vec<_> = states.iter().map(|span| span.what.as_str()).collect();
        assert_eq!(names, ["ESTABLISHED", "CLOSE"]);
        assert_eq!(states[0].to_ns, states[1].from_ns);
        let timers: Vec<_> =
            timers(&trial.timeline, Side::Client).into_iter().map(|span| span.what).collect();
        assert_eq!(timers, [2, 0]);
    }
}
