//! The client's calls after the fault, each at its time.

use spec::script::Step;
use spec::{Parameters, Script, Traffic};
use std::time::Duration;

/// A script that is being carried out.
#[derive(Debug)]
pub(crate) struct Calls {
    script: Script,
    /// The step that comes next.
    next: usize,
    /// When it does; `None`: none comes, or the program is in a call.
    due_ns: Option<u64>,
    /// When the step before it was due.
    last_ns: u64,
}

impl Calls {
    /// From now on. A heartbeat is a write at every interval, whatever was answered.
    pub(crate) fn new(parameters: &Parameters, now_ns: u64) -> Self {
        let client = &parameters.client;
        let script = match client.traffic {
            Traffic::Heartbeat => Script {
                steps: vec![Step::Write(0), Step::Wait(client.heartbeat.interval)],
                repeats: true,
            },
            _ => parameters.script().unwrap_or_default(),
        };
        let mut calls = Self { script, next: 0, due_ns: None, last_ns: now_ns };
        calls.plan();
        calls
    }

    /// The call that is to be made now. No other is until [`Self::go_on`] or [`Self::answered`].
    pub(crate) fn due(&mut self, now_ns: u64) -> Option<Step> {
        let at_ns = self.due_ns.filter(|at_ns| *at_ns <= now_ns)?;
        (self.due_ns, self.last_ns) = (None, at_ns);
        self.next += 1;
        self.script.steps.get(self.next - 1).copied()
    }

    /// The call has returned. Times count from when it was due; but after a long pause (the machine
    /// slept, the program was stopped, the send buffer was full) there is no burst of overdue calls.
    pub(crate) fn go_on(&mut self, now_ns: u64) {
        self.plan();
        self.due_ns = self.due_ns.map(|due_ns| due_ns.max(now_ns));
    }

    /// The call has returned, and times count from now.
    pub(crate) fn answered(&mut self, now_ns: u64) {
        self.last_ns = now_ns;
        self.plan();
    }

    /// No more calls are made.
    pub(crate) fn stop(&mut self) {
        (self.due_ns, self.next) = (None, self.script.steps.len());
        self.script.repeats = false;
    }

    /// When the next call is to be made.
    pub(crate) fn wake(&self) -> Option<u64> {
        self.due_ns
    }

    /// Passes over the waits before the next call.
    fn plan(&mut self) {
        let mut due_ns = self.last_ns;
        loop {
            match self.script.steps.get(self.next) {
                Some(Step::Wait(time)) => {
                    due_ns = due_ns.saturating_add(nanos(*time));
                    self.next += 1;
                }
                Some(_) => break self.due_ns = Some(due_ns),
                None if self.script.repeats => self.next = 0,
                None => break self.due_ns = None,
            }
        }
    }
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::settings;

    const SECOND: u64 = 1_000_000_000;

    fn calls(sets: &[(&str, &str)]) -> Calls {
        let mut parameters = Parameters::default();
        for (key, value) in sets {
            settings::apply(&mut parameters, key, value).unwrap();
        }
        Calls::new(&parameters, 0)
    }

    #[test]
    fn waits_count_from_when_a_call_was_due() {
        let script = "wait 1s; write 5; wait 2s; wait 1s; shutdown; wait 1s";
        let mut calls = calls(&[("client.traffic", "script"), ("client.script", script)]);
        assert_eq!((calls.wake(), calls.due(SECOND - 1)), (Some(SECOND), None));
        assert_eq!(calls.due(SECOND + 70), Some(Step::Write(5)));
        assert_eq!((calls.wake(), calls.due(9 * SECOND)), (None, None));
        calls.go_on(SECOND + 90);
        assert_eq!(calls.wake(), Some(4 * SECOND));
        // The machine slept: the next is overdue, and what comes after it waits its time.
        assert_eq!(calls.due(60 * SECOND), Some(Step::Shutdown));
        calls.go_on(60 * SECOND);
        assert_eq!((calls.wake(), calls.due(99 * SECOND)), (None, None));
    }

    #[test]
    fn after_an_answer_times_count_from_it() {
        let script = "request 5 3s; wait 2s; close";
        let mut calls = calls(&[("client.traffic", "script"), ("client.script", script)]);
        assert_eq!(calls.due(0), Some(Step::Request(5, Duration::from_secs(3))));
        calls.answered(SECOND);
        assert_eq!(calls.wake(), Some(3 * SECOND));
        calls.stop();
        assert_eq!((calls.wake(), calls.due(9 * SECOND)), (None, None));
    }

    #[test]
    fn a_stream_begins_again_and_does_not_catch_up() {
        let mut calls = calls(&[("client.traffic", "stream")]);
        for (now_ns, next_ns) in [(0, 50_000_000), (50_000_040, 100_000_000), (SECOND, SECOND)] {
            assert_eq!(calls.due(now_ns), Some(Step::Write(100)), "{now_ns}");
            calls.go_on(now_ns);
            assert_eq!(calls.wake(), Some(next_ns));
        }
    }
}
