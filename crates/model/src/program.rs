//! The client's program: which calls it makes, and when.

use crate::laboratory::nanos;
use spec::Script;
use spec::experiment::{BLOCK, Heartbeat};
use spec::script::Step;

/// A system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// `connect`.
    Connect,
    /// `write`, of so many bytes.
    Write(u32),
    /// The same, and an answer within so many nanoseconds, or else `close`.
    Request(u32, u64),
    /// `shutdown(SHUT_WR)`.
    Shutdown,
    /// `close`.
    Close,
}

/// All calls of a program.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calls {
    /// Each with how long after the one before it, nanoseconds; the first counts from the start.
    pub(crate) all: Vec<(u64, Call)>,
    /// Whether the program starts again after the last, so long after it, nanoseconds.
    pub(crate) repeats_after: Option<u64>,
    /// How long `close` itself waits, jiffies: `SO_LINGER`, if it is set.
    pub(crate) lingers: Option<u64>,
    /// How long it waits for answers while it goes on writing, nanoseconds: then it gives up.
    pub(crate) heartbeats_within: Option<u64>,
}

impl Calls {
    /// No call: the program waits in `read`.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    pub(crate) fn one(call: Call) -> Self {
        Self { all: vec![(0, call)], ..Self::default() }
    }

    /// The calls of a script.
    pub(crate) fn of(script: &Script) -> Self {
        let mut calls = Vec::new();
        let mut after_ns = 0_u64;
        for step in &script.steps {
            let call = match step {
                Step::Wait(time) => {
                    after_ns = after_ns.saturating_add(nanos(*time));
                    continue;
                }
                Step::Write(bytes) => Call::Write(*bytes),
                Step::Request(bytes, deadline) => Call::Request(*bytes, nanos(*deadline)),
                Step::Shutdown => Call::Shutdown,
                Step::Close => Call::Close,
            };
            calls.push((std::mem::take(&mut after_ns), call));
        }
        let first_ns = calls.first().map_or(0, |(after_ns, _)| *after_ns);
        let repeats_after = script.repeats.then(|| after_ns.saturating_add(first_ns));
        Self { all: calls, repeats_after: repeats_after.filter(|ns| *ns > 0), ..Self::default() }
    }

    /// A request each `interval`, whatever is answered; all are to be within the deadline.
    pub(crate) fn heartbeats(heartbeat: &Heartbeat) -> Self {
        Self {
            repeats_after: Some(nanos(heartbeat.interval)),
            heartbeats_within: Some(nanos(heartbeat.deadline)),
            ..Self::one(Call::Write(BLOCK))
        }
    }

    /// When its first write comes, or its first call, nanoseconds after it begins.
    pub(crate) fn writes_after_ns(&self) -> u64 {
        let is_write = |call: &Call| matches!(call, Call::Write(_) | Call::Request(..));
        let at = self.all.iter().position(|(_, call)| is_write(call)).unwrap_or(0);
        self.all.iter().take(at + 1).map(|(after_ns, _)| *after_ns).sum()
    }

    /// Whether there is a second call.
    pub(crate) fn go_on(&self) -> bool {
        self.all.len() > 1 || self.repeats_after.is_some()
    }
}

/// How far a program is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Program {
    /// When the next call comes, nanoseconds, and which.
    pub(crate) next: Option<(u64, usize)>,
    /// By how much later than planned the second call and those after it come, nanoseconds.
    lag_ns: u64,
    /// Until when it waits for an answer, nanoseconds.
    pub(crate) answer_due: Option<u64>,
    /// The call that asked for it.
    asked: usize,
    /// When its next call comes, and which, while what it writes is held back: until something is acknowledged.
    held_back: Option<(u64, usize)>,
}

impl Program {
    /// A program whose calls begin at `start_ns`.
    pub(crate) fn new(calls: &Calls, start_ns: u64, lag_ns: u64) -> Self {
        let next = calls.all.first().map(|(after_ns, _)| (start_ns.saturating_add(*after_ns), 0));
        Self { next, lag_ns, answer_due: None, asked: 0, held_back: None }
    }

    /// Which calls it has still to make, where it waits for nothing.
    pub(crate) fn to_come<'c>(&self, calls: &'c Calls) -> impl Iterator<Item = Call> + use<'c> {
        let from = self.next.map_or(calls.all.len(), |(_, index)| index);
        let again = self.next.and(calls.repeats_after).map(|_| &calls.all[..from]);
        calls.all[from..].iter().chain(again.into_iter().flatten()).map(|(_, call)| *call)
    }

    /// The call that is due is made, and the next planned.
    pub(crate) fn call(&mut self, calls: &Calls) -> Option<Call> {
        let (at_ns, index) = self.next.take()?;
        let call = calls.all[index].1;
        if let Call::Request(_, deadline_ns) = call {
            self.answer_due = Some(at_ns.saturating_add(deadline_ns));
            // What comes next waits for the answer.
            self.asked = index;
            return Some(call);
        }
        if let Some(deadline_ns) = calls.heartbeats_within {
            self.answer_due.get_or_insert(at_ns.saturating_add(deadline_ns));
        }
        self.plan(calls, index, at_ns);
        Some(call)
    }

    /// Plans the call after `index`, which came at `at_ns`.
    fn plan(&mut self, calls: &Calls, index: usize, at_ns: u64) {
        let lag_ns = std::mem::take(&mut self.lag_ns);
        let next = match (calls.all.get(index + 1), calls.repeats_after) {
            (Some((after_ns, _)), _) => Some((*after_ns, index + 1)),
            (None, Some(after_ns)) => Some((after_ns, 0)),
            (None, None) => None,
        };
        self.next = next.map(|(after_ns, index)| {
            (at_ns.saturating_add(after_ns).saturating_add(lag_ns), index)
        });
    }

    /// Puts off what it does next.
    pub(crate) fn put_off(&mut self, by_ns: u64) {
        let calls = self.next.iter_mut().chain(&mut self.held_back);
        calls.for_each(|(at_ns, _)| *at_ns += by_ns);
        self.answer_due.iter_mut().for_each(|at_ns| *at_ns += by_ns);
    }

    /// The answer comes that it waits for.
    pub(crate) fn answered(&mut self, calls: &Calls, now_ns: u64) {
        if self.answer_due.take().is_some() && calls.heartbeats_within.is_none() {
            self.plan(calls, self.asked, now_ns);
        }
    }

    /// Goes on by calls that are all alike.
    pub(crate) fn skip(&mut self, by_ns: u64) {
        self.next.iter_mut().for_each(|(at_ns, _)| *at_ns += by_ns);
    }

    /// What it writes is held back.
    pub(crate) fn hold_back(&mut self) {
        self.held_back = self.next.take();
    }

    /// How many calls of a program that was held back have come by now; the next one is planned.
    pub(crate) fn goes_on(&mut self, calls: &Calls, now_ns: u64) -> u64 {
        let Some((at_ns, index)) = self.held_back.take() else { return 0 };
        let every_ns = calls.repeats_after.unwrap_or(u64::MAX);
        let missed = now_ns.checked_sub(at_ns).map_or(0, |late_ns| late_ns / every_ns + 1);
        self.next = Some((at_ns.saturating_add(missed * every_ns), index));
        missed
    }

    /// No answer has come in time: the program closes.
    pub(crate) fn gives_up(&mut self) {
        self.answer_due = None;
        self.next = None;
    }
}
