//! Following what happens: every event passes here on its way to the front.

use super::host::Gone;
use super::thinning::is_ordinary;
use super::{AFTERMATH, Trial};
use crate::channel::{Capture, Message};
use crate::heard::Heard;
use crate::instruments::{Seen, polled};
use anyhow::{Context, Result};
use model::{Prediction, Window};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use observe::clock::monotonic_ns;
use peer::Milestone;
use spec::{Outcome, Parameters, Part};
use std::time::Duration;
use timeline::event::Trace;
use timeline::{Event, FlowId, Source, What};
use tokio::time::{Instant, sleep_until};

/// How long a connection is watched after a fault is over, where nothing is predicted to happen.
const AFTER_FAULT: Duration = Duration::from_secs(2);

/// For so long everything is taken before something breaks.
const CLOSELY: Duration = Duration::from_millis(10);

/// How much the taps take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// Nothing is broken, and everything is taken.
    Peace,
    /// Nothing is broken, and programs exchange without a pause: that is left out.
    Sparse,
    /// Something is broken, or about to be: everything is taken.
    Close,
}

impl Trial {
    /// Follows everything that happens until `until`, or until `enough`. Says whether it was.
    pub(super) async fn follow_until(
        &mut self,
        until: Instant,
        enough: impl Fn(&Self) -> bool,
    ) -> Result<bool> {
        let timer = async {
            sleep_until(until).await;
            Ok(())
        };
        self.follow(timer, enough).await
    }

    /// The same, to the moment: tokio's timers count whole milliseconds, and end with the next one. The
    /// laboratory acts then, and a program that writes every so often must not come before it.
    pub(super) async fn follow_exactly_until(
        &mut self,
        until: Instant,
        enough: impl Fn(&Self) -> bool,
    ) -> Result<bool> {
        self.follow(alarm(until), enough).await
    }

    async fn follow(
        &mut self,
        timer: impl Future<Output = Result<()>>,
        enough: impl Fn(&Self) -> bool,
    ) -> Result<bool> {
        tokio::pin!(timer);
        loop {
            if enough(self) {
                return Ok(true);
            }
            tokio::select! {
                done = self.stage.destroyed() => self.server_is_destroyed(done?).await?,
                over = &mut timer => return over.map(|()| false),
                Some(seen) = self.seen.recv() => self.take(seen),
                Some(asked) = self.asked.recv() => self.waiting.push_back(asked),
                heard = self.client.hear() => self.heard(Part::Client, heard?)?,
                heard = self.server.hear() => self.heard(Part::Server, heard?)?,
                heard = self.third.hear() => self.heard(Part::Third, heard?)?,
            }
        }
    }

    /// Waits for something that a host's program is to do, or its kernel to show. `what` is the
    /// error if it does not come in time, or if the program ends.
    pub(super) async fn wait_for(
        &mut self,
        side: Part,
        most: Duration,
        what: &str,
        is_so: impl Fn(&Self) -> bool,
    ) -> Result<()> {
        let until = Instant::now() + most;
        self.follow_until(until, |trial| is_so(trial) || trial.host(side).end().is_some()).await?;
        if is_so(self) { Ok(()) } else { Err(self.host(side).fails_to(what)) }
    }

    /// Waits until a program of ours reports how far it is.
    pub(super) async fn reach(
        &mut self,
        side: Part,
        milestone: &Milestone,
        most: Duration,
        what: &str,
    ) -> Result<()> {
        self.wait_for(side, most, what, |trial| trial.host(side).reports(milestone)).await?;
        self.host_mut(side).forget(milestone);
        Ok(())
    }

    /// A program has said something, or ended.
    fn heard(&mut self, side: Part, heard: Heard) -> Result<()> {
        self.host_mut(side).has_news = true;
        match heard {
            Heard::Event(event) => {
                // halfopen's own server speaks as the server, whichever host it is on.
                let source = event.source.on(side);
                self.take(Seen::Event(Event { source, ..event }, None));
            }
            Heard::Reached(milestone) => self.host_mut(side).has_reached(milestone),
            Heard::Line => {}
            Heard::Said(event, kept) => {
                if let (What::Output { line, .. }, Some(pattern)) = (&event.what, &self.pattern)
                    && pattern.is_match(line)
                {
                    self.matched_ns.get_or_insert(event.at_ns);
                }
                if kept {
                    self.take(Seen::Event(event, None));
                }
            }
            Heard::Wrote(stream, bytes) => {
                self.report(Message::Wrote(self.plan.number, side, stream, bytes));
            }
            Heard::Exited(event) => {
                self.host_mut(side).has_exited = true;
                // What it is told to do does not count as its own act.
                if !self.client_may_end {
                    self.take(Seen::Event(event, None));
                }
            }
            Heard::Ended(how) => {
                let early =
                    side == Part::Client && !self.client_may_end && self.client.reports_calls();
                self.host_mut(side).has_ended(how);
                if early {
                    return Err(Gone(self.plan.experiment.parameters.names()[0]).into());
                }
            }
        }
        Ok(())
    }

    /// Whether the client's kernel has told the end, and whether its program knows. One that does
    /// not report knows when it ends.
    fn told(&self) -> (bool, bool) {
        let program = self.client.reports(&Milestone::Ended) || self.client.end().is_some();
        (self.flows.have_ended(), program)
    }

    /// Whether the kernel or the program has told the end.
    pub(super) fn is_told(&self) -> bool {
        let (kernel, program) = self.told();
        kernel || program
    }

    /// Follows the connection until its end is told, or the deadline. The kernel and the program do
    /// not speak at the same moment: both are heard.
    pub(super) async fn follow_to_the_end(&mut self, deadline: Instant) -> Result<()> {
        if self.follow_until(deadline, Self::is_told).await? {
            let both = |trial: &Self| trial.told() == (true, true);
            self.follow_until(Instant::now() + AFTERMATH, both).await?;
        }
        Ok(())
    }

    /// How long after the fault the trial ends.
    pub(super) fn deadline(&self, parameters: &Parameters, prediction: &Prediction) -> Duration {
        // A fault that ends is watched beyond its end, and as long as something is to be counted.
        let counts =
            |window: &Window| window.outcome == Outcome::None && window.retransmits.is_some();
        let counted = prediction.schedule.last().filter(|_| prediction.windows.iter().any(counts));
        let counted = counted.map_or(Duration::ZERO, |step| step.latest);
        let ends = parameters
            .fault_duration()
            .map_or(Duration::ZERO, |after| after.max(counted) + AFTER_FAULT);
        // A script is watched beyond its last step, and times may count from that.
        let script = &parameters.client.script;
        let script = script.as_ref().map_or(Duration::ZERO, spec::Script::takes);
        let never = self.bench.never.max(ends);
        match parameters.deadline {
            Some(least) if parameters.deadline_extends => {
                (script + default_deadline(prediction, ends.max(least))).max(least)
            }
            Some(deadline) => deadline,
            None => script + default_deadline(prediction, never),
        }
    }

    /// One thing that was seen: it names its connection, and goes on to the front.
    pub(super) fn take(&mut self, seen: Seen) {
        let number = self.plan.number;
        let (Seen::Event(_, ends) | Seen::Capture(_, ends)) = &seen;
        if ends.is_some_and(|ends| self.flows.ignores(ends)) {
            return;
        }
        let (mut event, ends, frame) = match seen {
            Seen::Event(event, ends) => (event, ends, None),
            Seen::Capture(capture, ends) => {
                let Capture { event, wall_ns, wire_len, frame } = capture;
                (event, ends, Some((wall_ns, wire_len, frame)))
            }
        };
        if ends.is_some_and(|ends| self.flows.is_elsewhere(&event, ends)) {
            return;
        }
        let named = self.flows.name(&mut event, ends);
        if let Some(opened) = named.opened {
            self.tell(opened.flow, Message::Event(number, opened), false);
        }
        if let What::Trace(Trace::SetState { .. }) = event.what {
            for host in [&self.client, &self.server, &self.third] {
                host.stirred.notify_one();
            }
        }
        let (flow, is_ordinary) = (event.flow, is_ordinary(&event, named.class));
        let message = match frame {
            None => Message::Event(number, event),
            Some((wall_ns, wire_len, frame)) => {
                Message::Captured(number, Capture { event, wall_ns, wire_len, frame })
            }
        };
        self.tell(flow, message, is_ordinary);
    }

    /// Reports what was seen, or holds it back where there is too much of it.
    fn tell(&mut self, flow: Option<FlowId>, message: Message, is_ordinary: bool) {
        let reports = &self.bench.reports;
        // Nobody listens only when the whole program is ending.
        let mut report = |message| drop(reports.send(message));
        match (flow, &mut self.thinning) {
            (Some(flow), Some(thinning)) => {
                let has_ended = self.flows.has_ended(flow);
                thinning.take(flow, message, is_ordinary, has_ended, &mut report);
                if thinning.is_spent() && self.pace == Pace::Peace {
                    self.pace(Pace::Sparse);
                }
            }
            _ => report(message),
        }
    }

    /// From now on the taps take as much as this pace says. What they cannot be told they do not do: they
    /// take everything.
    fn pace(&mut self, pace: Pace) {
        let leave_out = pace == Pace::Sparse;
        if leave_out != (self.pace == Pace::Sparse) {
            for host in [&self.client, &self.server, &self.third] {
                if let Err(error) = host.leave_out_exchanges(leave_out) {
                    tracing::warn!("{error:#}");
                }
            }
        }
        self.pace = pace;
    }

    /// Something is about to break: everything is taken again, and what is said meanwhile is seen.
    pub(super) async fn look_closely(&mut self) -> Result<()> {
        let was_sparse = self.pace == Pace::Sparse;
        self.pace(Pace::Close);
        if was_sparse {
            self.follow_until(Instant::now() + CLOSELY, |_| false).await?;
        }
        Ok(())
    }

    /// Nothing is broken.
    pub(super) fn is_at_peace(&mut self) {
        self.pace(Pace::Peace);
    }

    /// The fault changes, or the trial ends: what was held back is reported.
    pub(super) fn release(&mut self) {
        let reports = &self.bench.reports;
        if let Some(thinning) = &mut self.thinning {
            thinning.release(&mut |message| drop(reports.send(message)));
        }
    }

    /// Everything that is still in the channel.
    pub(super) fn forward(&mut self) {
        while let Ok(seen) = self.seen.try_recv() {
            self.take(seen);
        }
    }

    /// An event of the laboratory, now.
    pub(super) fn mark(&mut self, what: What) {
        self.mark_as(Source::Lab, what);
    }

    pub(super) fn mark_as(&mut self, source: Source, what: What) {
        self.take(Seen::Event(Event::new(monotonic_ns(), source, what), None));
    }
}

/// Sleeps until a moment, to the nanosecond as far as the kernel can.
async fn alarm(until: Instant) -> Result<()> {
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).context("making a timer")?;
    let left = until.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        let once = Expiration::OneShot(left.into());
        timer.set(once, TimerSetTimeFlags::empty()).context("setting a timer")?;
        let timer = polled(timer).context("waiting for a timer")?;
        drop(timer.readable().await.context("waiting for a timer")?);
    }
    Ok(())
}

/// The latest prediction and a tenth more, at least two seconds; for a prediction of 'never',
/// `never`.
fn default_deadline(prediction: &Prediction, never: Duration) -> Duration {
    let latest =
        prediction.windows.iter().filter_map(|window| window.span).map(|(_, latest)| latest).max();
    match latest {
        // Long enough for most outcomes, where no outcome is predicted.
        None if prediction.unknown.is_some() => never.max(Duration::from_secs(60)),
        Some(latest) => latest + (latest / 10).max(Duration::from_secs(2)),
        None => never,
    }
}
