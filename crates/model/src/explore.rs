//! Goes through everything that cannot be known: phases of the clock, handlers that run a jiffy late,
//! what comes first of two things at the same time, and choices within a step. The one place that
//! forks, merges and gives up.
//!
//! **Lateness.** A handler may run a jiffy after its timer is due (`allowance`). What it arms is then
//! a jiffy late; where that falls into a slot of eight jiffies or more, the slot takes the jiffy up,
//! unless it was the last before the next slot. Each handler is gone through both ways, and runs that
//! are alike from there on are one again. Where time is virtual, nothing runs late.

mod alike;
mod cycle;
mod end;
mod event;
mod handle;
mod phase;
mod standing;

pub(crate) use end::End;

use crate::choices::Choices;
use crate::kernel::Kernel;
use crate::prediction::COUNTED_MOST;
use crate::program::{Call, Calls};
use crate::run::{Called, Fired, Live, Past, Runs};
use crate::sock::{Decides, Stamps, Timer};
use crate::tick::EPOCH;
use crate::world::Arrival;
use alike::{alike, merge, skip_alike, skip_answered, skip_writes};
use event::{Event, next};
use phase::{asks_for, asks_to_fire};
use standing::Standing;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// No more steps than this are gone through.
const STEPS_MOST: u64 = 600_000;
/// After so many steps, those of all explorers of a prediction together, no handler runs late any
/// more. By then, a jiffy more or less has led to more phases than are told apart.
const LATE_STEPS: u64 = 40_000;
/// The same where so many runs are on their way that ICMP errors meet, or twice as many as began: they
/// are of as many phases.
const LATE_BESIDE: usize = 128;
/// When a peer that stays has answered so often, one answer is like the other.
const ANSWERS_MOST: u32 = 32;
/// The same where each probe is answered before the next is sent.
const ANSWERS_FEW: u32 = 4;

/// After so many answers, chance has not ended a connection that may be ended so.
const CHANCES_MOST: u32 = 1_000;
const FAR_BY_CHANCE: &str = "a thousand keepalive probes are answered before chance ends the \
                             connection, if it does: say `deadline`";

/// What came of a past where a handler ran on time: what it led to then, a late one leads to within
/// the allowance.
#[derive(Debug, Clone, Copy, Default)]
struct OnTime {
    /// It may end.
    ends: bool,
    /// It may go on.
    goes_on: bool,
    /// Something was sent that is answered.
    sends: bool,
}

impl OnTime {
    fn add(&mut self, other: Self) {
        self.ends |= other.ends;
        self.goes_on |= other.goes_on;
        self.sends |= other.sends;
    }
}

/// How a socket's stamps decide, and whether its handler sends on time.
type Decision = ([u64; 3], bool);

/// Explores runs.
pub(crate) struct Explorer<'a> {
    cfg: &'a Kernel,
    later: Option<&'a Kernel>,
    calls: &'a Calls,
    frontier: BTreeMap<u64, Runs>,
    pending: Option<(Live, Vec<Past>)>,
    pub(crate) ends: Vec<End>,
    /// The longest timer that fired of those whose phases are gone through from the beginning, jiffies.
    pub(crate) longest: u64,
    on_their_way: usize,
    /// How many runs began.
    began: usize,
    steps: u64,
    late_steps: u64,
    standing: Standing,
    unknown: Option<String>,
    /// Up to which slot the step that was just gone through asks for the phase of the clock, where that
    /// is not known: it has not been.
    asks_for: Option<u64>,
}

impl<'a> Explorer<'a> {
    pub(crate) fn new(cfg: &'a Kernel, later: Option<&'a Kernel>, calls: &'a Calls) -> Self {
        Self {
            cfg,
            later,
            calls,
            frontier: BTreeMap::new(),
            pending: None,
            ends: Vec::new(),
            longest: 0,
            on_their_way: 0,
            began: 0,
            steps: 0,
            late_steps: LATE_STEPS,
            standing: Standing::default(),
            unknown: None,
            asks_for: None,
        }
    }

    /// The same as one of so many explorers of a prediction.
    pub(crate) fn one_of(self, explorers: usize) -> Self {
        Self { late_steps: LATE_STEPS / explorers.max(1) as u64, ..self }
    }

    /// The same where nothing is late.
    pub(crate) fn on_time(self) -> Self {
        Self { late_steps: 0, ..self }
    }

    /// A run that begins. Those that come one after the other and are alike are one.
    pub(crate) fn start(&mut self, mut live: Live, past: Past) {
        live.sock.stamps = Stamps::default();
        self.forget(&mut live);
        match &mut self.pending {
            Some((last, pasts)) if *last == live => match pasts.last_mut() {
                Some(before) if before.is_one_with(&past, self.cfg.hz.tick_ns()) => {
                    before.merge(past);
                }
                _ => pasts.push(past),
            },
            pending => {
                if let Some((last, pasts)) = pending.replace((live, vec![past])) {
                    self.push(last, pasts);
                }
            }
        }
    }

    /// Forgets of a run what cannot matter any more; says when something happens to it next.
    fn forget(&self, live: &mut Live) -> Option<u64> {
        if live.sock.is_sending() && live.world.never_answers() {
            // It is silent for as long as something is out.
            live.sock.keepalive_timer = None;
            let mut calls = live.program.to_come(self.calls);
            if calls.all(|call| matches!(call, Call::Shutdown | Call::Close)) {
                live.sock.forget_sent(live.world.hop.icmp());
            }
            let mut calls = live.program.to_come(self.calls);
            if live.sock.holds_fin_back()
                && !live.world.hop.is_local()
                && calls.all(|call| call == Call::Shutdown)
            {
                // Its FIN stays where it is, and changes nothing.
                live.program.next = None;
            }
        }
        if live.program.next.is_none() && live.program.answer_due.is_none() {
            live.sock.forget_estimates();
        }
        let (at_ns, _) = next(live, self.cfg)?;
        // Nothing happens until then.
        live.world.age(at_ns);
        if live.program.next.is_none() {
            live.world.in_jiffies();
        }
        let jiffy = at_ns / self.cfg.hz.tick_ns();
        live.world.peer.forget(jiffy, self.cfg.hz.tick_ns());
        live.world.hop.forget(jiffy);
        // Only a SYN's timer asks for it.
        live.world.hop_armed_last &= live.sock.state == crate::sock::State::SynSent;
        Some(at_ns)
    }

    /// Goes on to the end of all.
    ///
    /// # Errors
    /// Why that is not possible.
    pub(crate) fn go(&mut self) -> Result<(), String> {
        if let Some((last, pasts)) = self.pending.take() {
            self.push(last, pasts);
        }
        self.began = self.on_their_way;
        while let Some((at_ns, lives)) = self.frontier.pop_first() {
            self.on_their_way -= lives.len();
            for (mut live, pasts) in alike(lives) {
                self.steps += 1;
                if self.steps > STEPS_MOST {
                    return Err(format!(
                        "some {STEPS_MOST} retransmissions and probes are more than this model goes \
                         through"
                    ));
                }
                let pasts = merge(pasts, self.cfg.hz.tick_ns());
                self.advance(&mut live, &pasts, at_ns);
                if let Some(slot) = self.asks_for.take() {
                    self.part(&live, &pasts, slot);
                }
                if let Some(reason) = self.unknown.take() {
                    return Err(reason);
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, mut live: Live, mut pasts: Vec<Past>) {
        // Each past has its own.
        live.sock.stamps = Stamps::default();
        let uncounted = live.sock.timeouts > COUNTED_MOST && live.world.hop.has_timer();
        if uncounted && (live.stands || (!self.cfg.virtual_time && !self.is_late_explored(&live))) {
            if !live.stands && !self.stands(&live, &pasts) {
                return;
            }
            live.stands = true;
        }
        match self.forget(&mut live).filter(|at_ns| !live.world.is_over(*at_ns)) {
            Some(at_ns) => {
                if live.sock.keepalive_timer.is_none() {
                    // Nothing else asks for it.
                    for past in &mut pasts {
                        past.stamps.rcv_tstamp = 0;
                    }
                }
                self.on_their_way += 1;
                self.frontier.entry(at_ns).or_default().push((Box::new(live), pasts));
            }
            None => {
                self.live_on(&live, pasts, 0);
            }
        }
    }

    /// Whether handlers may run late.
    fn is_late_explored(&self, live: &Live) -> bool {
        !self.cfg.virtual_time
            && self.steps < self.late_steps
            && (live.world.is_silent() || self.on_their_way < LATE_BESIDE.max(2 * self.began))
    }

    /// The settings in force at a moment.
    fn cfg_at(&self, live: &Live, at_ns: u64) -> &'a Kernel {
        self.later.filter(|_| live.world.later.is_past(at_ns)).unwrap_or(self.cfg)
    }

    fn advance(&mut self, live: &mut Live, pasts: &[Past], at_ns: u64) {
        let tick_ns = self.cfg.hz.tick_ns();
        let Some((_, event)) = next(live, self.cfg) else { return };
        if !matches!(event, Event::Expiry(_) | Event::Hop) {
            self.step(live, &Past::parts(pasts, tick_ns), event, (at_ns, at_ns), None);
            return;
        }
        if event == Event::Expiry(Timer::Keepalive)
            && let Some(slot) = asks_to_fire(live, self.cfg)
        {
            self.part_to_fire(live, pasts, slot);
            return;
        }
        if event == Event::Expiry(Timer::Write) && self.skip_timeouts(live, pasts, at_ns) {
            return;
        }
        let is_late_explored = self.is_late_explored(live);
        if is_late_explored {
            self.overtake(live, pasts, at_ns);
        }
        let late_ns = if is_late_explored { at_ns + tick_ns } else { at_ns };
        let pasts = self.parts(live, pasts, event, [at_ns, late_ns]);
        let ended = self.step(live, &pasts, event, (at_ns, at_ns), None);
        // That an acknowledgement goes a jiffy later makes no difference.
        if is_late_explored && event != Event::Expiry(Timer::DelayedAck) {
            self.step(live, &pasts, event, (at_ns, late_ns), Some(&ended));
        }
    }

    /// These pasts, blocks parted by what the socket makes of their stamps at these moments.
    fn parts<'p>(
        &self,
        live: &mut Live,
        pasts: &'p [Past],
        event: Event,
        moments: [u64; 2],
    ) -> Cow<'p, [Past]> {
        if pasts.iter().all(Past::is_one) {
            return Cow::Borrowed(pasts);
        }
        let ways = moments.map(|now_ns| {
            let cfg = self.cfg_at(live, now_ns);
            (cfg, decides(live, event, cfg), now_ns)
        });
        let mut apart = Vec::new();
        for past in pasts {
            let mut by_stamps = |stamps| {
                live.sock.stamps = stamps;
                ways.map(|(cfg, decides, now_ns)| live.sock.by_stamps(decides, cfg, now_ns))
            };
            past.part(self.cfg.hz.tick_ns(), &mut by_stamps, &mut apart);
        }
        Cow::Owned(apart)
    }

    /// What comes within a timer's lateness may come before it. A call does not more than once: each
    /// time takes another timer that runs as late as that.
    fn overtake(&mut self, live: &mut Live, pasts: &[Past], due_ns: u64) {
        let late_ns = self.cfg.late_ns();
        let pasts = || Past::parts(pasts, self.cfg.hz.tick_ns());
        let held = !live.world.hop.held().is_empty();
        if let Some((at_ns, _)) = live.program.next
            && at_ns < due_ns + late_ns
            && !live.overtaken
            && (live.sock.probes_anew(self.cfg, held) || live.sock.keepalive_timer.is_some())
        {
            let mut live = Live { overtaken: true, ..live.clone() };
            self.step(&mut live, &pasts(), Event::Call, (at_ns, at_ns), None);
        }
        if let Some(packet) = live.world.in_flight.first()
            && packet.at_ns.saturating_sub(packet.sooner_ns) < due_ns + late_ns
        {
            self.step(live, &pasts(), Event::Arrival, (packet.at_ns, packet.at_ns), None);
        }
    }

    /// One step of a run, from all its pasts, at `now_ns`, for a timer that was due at `due_ns`. Says
    /// what came of each past; `on_time` is that where the handler ran on time.
    fn step(
        &mut self,
        live: &mut Live,
        pasts: &[Past],
        event: Event,
        (due_ns, now_ns): (u64, u64),
        on_time: Option<&[OnTime]>,
    ) -> Vec<OnTime> {
        let mut result = vec![OnTime::default(); pasts.len()];
        if self.asks_for.is_some() {
            return result;
        }
        if let Some(hops) = live.world.hop.believed_or_not(now_ns / self.cfg.hz.tick_ns()) {
            for hop in hops {
                let mut live = live.clone();
                live.world.hop = hop;
                let came = self.step(&mut live, pasts, event, (due_ns, now_ns), on_time);
                result.iter_mut().zip(came).for_each(|(all, came)| all.add(came));
            }
            return result;
        }
        let cfg = self.cfg_at(live, now_ns);
        let decides = decides(live, event, cfg);
        let mut groups: Vec<(Decision, Vec<usize>)> = Vec::new();
        for (index, past) in pasts.iter().enumerate() {
            if on_time.is_some_and(|on_time| !on_time[index].goes_on) {
                continue;
            }
            live.sock.stamps = past.stamps;
            let sends = on_time.is_some_and(|on_time| on_time[index].sends);
            let key = (live.sock.by_stamps(decides, cfg, now_ns), sends);
            match groups.iter_mut().rev().find(|(other, _)| *other == key) {
                Some((_, group)) => group.push(index),
                None => groups.push((key, vec![index])),
            }
        }
        let timer = match event {
            Event::Expiry(timer) => live.sock.armed(timer).map(|armed| (timer, armed.timeout)),
            _ => None,
        };
        let timeout = timer.filter(|_| live.world.phase == EPOCH);
        self.longest = self.longest.max(timeout.map_or(0, |(_, timeout)| timeout));
        let fired = Fired { timer, due_ns, now_ns };
        let called = match event {
            Event::Call => live.program.next.and_then(|(_, index)| match self.calls.all[index].1 {
                Call::Write(_) | Call::Request(..) => Some(Called::Write),
                Call::Shutdown => Some(Called::Shutdown),
                Call::Close => Some(Called::Close),
                Call::Connect => None,
            }),
            Event::AnswerDue if self.calls.heartbeats_within.is_none() => Some(Called::Close),
            _ => None,
        };
        for ((_, sends), group) in groups {
            let mut choices = Choices::default();
            loop {
                let mut next = live.clone();
                next.sock.stamps = pasts[group[0]].stamps;
                next.world.age(now_ns);
                next.world.late = (now_ns - due_ns, sends);
                next.world.choices = choices;
                let (progress, effects, packet) =
                    self.handle(&mut next, event, cfg, (due_ns, now_ns));
                let slot = asks_for(live, &next, &effects, cfg);
                if slot > live.world.phase {
                    self.asks_for = Some(slot);
                    return result;
                }
                next.world.late = (0, false);
                choices = std::mem::take(&mut next.world.choices);
                let seen = next.world.take_seen();
                if let Some(reason) = next.world.unknown {
                    self.unknown = Some(reason.into());
                    return result;
                }
                let is_window = next.sock.window_closed;
                let is_new =
                    matches!(event, Event::Arrival) && next.world.reference_until.ahead().is_some();
                let mut children = Vec::new();
                for index in &group {
                    let mut past = pasts[*index].clone();
                    past.late |= on_time.is_some();
                    if let Some(called) = called {
                        past.called(called, now_ns);
                    }
                    past.take(&effects, fired, cfg.hz, cfg.keepalive_time);
                    if is_window {
                        past.counts.window_probes += seen;
                    } else {
                        past.counts.probes += seen;
                    }
                    // Of writes between two faults, those that are answered are over.
                    let is_over = is_new && next.sock.queue.is_empty();
                    past.called.take_if(|called| is_over && *called == Called::Write);
                    if let Some(first) = next.sock.queue.first().filter(|_| is_new) {
                        past.written(first.first_sent_ns);
                    }
                    if is_new && past.called.is_none() {
                        past.begin_anew(now_ns);
                        if is_window && let Some(armed) = next.sock.armed(Timer::Write) {
                            past.due(Timer::Write, now_ns + armed.timeout * cfg.hz.tick_ns());
                        }
                    }
                    result[*index].sends |= next.world.in_flight.len() > live.world.in_flight.len();
                    if progress.is_ok() {
                        result[*index].goes_on = true;
                        children.push(past);
                    } else {
                        result[*index].ends = true;
                        if on_time.is_none_or(|on_time| !on_time[*index].ends) {
                            self.told(&next, &past, &effects, packet, (event, now_ns - due_ns));
                        }
                    }
                }
                if progress.is_ok() {
                    if let Event::Expiry(timer) = event {
                        skip_alike(&mut next, &mut children, timer, cfg, (due_ns, now_ns));
                    }
                    self.go_on(next, children, event, now_ns);
                }
                if !choices.next() {
                    break;
                }
            }
        }
        result
    }

    /// A run goes on, unless one answer is like the other from here.
    fn go_on(&mut self, mut live: Live, mut pasts: Vec<Past>, event: Event, now_ns: u64) {
        if event == Event::Arrival && live.world.is_chance() {
            live.world.heard += 1;
            if live.world.heard > CHANCES_MOST {
                self.unknown = Some(FAR_BY_CHANCE.into());
                return;
            }
        }
        if event == Event::Arrival && live.sock.window_closed {
            skip_answered(&mut live, &mut pasts, self.cfg, now_ns);
        }
        if event == Event::Arrival {
            skip_writes(&mut live, self.cfg, self.calls, now_ns);
        }
        if event == Event::Arrival
            && live.world.stays(now_ns)
            && live.world.later.ahead().is_none()
            && live.world.reference_until.ahead().is_none()
            && live.program.answer_due.is_none()
            && (live.sock.queue.is_empty() || self.calls.repeats_after.is_some())
            && (!live.sock.closed || live.sock.window_closed)
            && live.program.next.is_none_or(|_| self.calls.repeats_after.is_some())
        {
            live.world.heard += 1;
            let patient = self.cfg.user_timeout_ms.is_some() && live.sock.window_closed;
            let probed = live.sock.keepalive_timer.is_some()
                || live.sock.window_closed
                || live.world.forgets_within(self.calls.repeats_after.unwrap_or(0));
            let is_back = live.world.recovery.is_some() && !live.sock.window_closed;
            let interval = self.cfg.keepalive_time.min(self.cfg.keepalive_interval);
            let alike = !live.sock.window_closed && live.world.answers_each(interval);
            let most = if alike { ANSWERS_FEW } else { ANSWERS_MOST };
            if !patient && (!probed || is_back || live.world.heard > most) {
                return self.live_on(&live, pasts, now_ns);
            }
        }
        self.push(live, pasts);
    }
}

/// Which stamps decide what comes of an event.
fn decides(live: &Live, event: Event, cfg: &Kernel) -> Decides {
    match event {
        Event::Expiry(timer) => Decides::Expiry(timer),
        Event::Arrival if live.world.in_flight[0].what == Arrival::ProbeAck => Decides::Arrival,
        Event::Hop if live.world.hop.fails_next(cfg) && !live.sock.queue.is_empty() => {
            Decides::Icmp
        }
        Event::Hop | Event::Resolved => Decides::Nothing,
        Event::Arrival | Event::Call | Event::AnswerDue => Decides::Anything,
    }
}
