//! Nothing is written: keepalive probes, if anything.

use crate::conclude::{conclude, lives_on, unknown};
use crate::dead_path::{healed, icmp_of, round_trip_ns};
use crate::entry;
use crate::hop::Hop;
use crate::keepalive::{self, Known};
use crate::kernel::Kernel;
use crate::laboratory::{SLOP_NS, looked_at_ns, nanos};
use crate::prediction::{Prediction, StepKind, Window};
use crate::rto;
use crate::start;
use crate::tick::JiffyPhase;
use crate::way::{self, Meets};
use crate::wheel::Context;
use crate::windows::{Counted, windows};
use crate::world::Answer;
use spec::counted;
use spec::facts::TcpFacts;
use spec::{Errno, Facts, FaultKind, Neighbour, Outcome, Parameters, Reject, Topology};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

pub(crate) fn predict(kernel: &Kernel, parameters: &Parameters, facts: &Facts) -> Prediction {
    let fault = &parameters.fault;
    let enabled = parameters.client.keepalive.enabled;
    let mended = fault.after.saturating_add(parameters.fault_duration().unwrap_or_default());
    let scenes = match scenes(kernel, parameters, facts, false) {
        Ok(Some(scenes)) => scenes,
        Ok(None) => return lives_on(parameters, NOTHING_SENT.into()),
        Err(reason) => return unknown(parameters, reason),
    };
    let ends = match start::keepalive_ends(kernel, &scenes) {
        Ok(ends) => ends,
        Err(reason) => return unknown(parameters, reason),
    };
    let counted = Counted {
        while_it_lives: true,
        keepalive_probes: true,
        early_ns: kernel.reference_late_ns(),
        ..Counted::default()
    };
    let prediction = conclude(parameters, windows(&ends, &counted, kernel.hz), |prediction| {
        match &prediction.windows[0] {
            window if window.outcome == Outcome::None && !enabled => NOTHING_SENT.into(),
            window => why_keepalive(kernel, prediction, window),
        }
    });
    let late = prediction.hull().is_some_and(|(_, latest)| latest > mended);
    if is_unfinished(kernel, parameters) && late {
        return unknown(parameters, UNFINISHED.into());
    }
    prediction
}

/// What an idle client may meet, and its timer, if that is known.
pub(crate) type Idle = (keepalive::Scene, Option<Known>);

/// Everything that an idle client may meet; `None`: nothing that it could be told.
pub(crate) fn scenes(
    kernel: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
    always: bool,
) -> Result<Option<Vec<Idle>>, String> {
    let fault = &parameters.fault;
    let mended = fault.after.saturating_add(parameters.fault_duration().unwrap_or_default());
    let healed = healed(parameters, facts, nanos(mended));
    let enabled = parameters.client.keepalive.enabled;
    let none_is_due = facts.tcp.as_ref().is_some_and(|tcp| tcp.acknowledged == Some(true));
    let acknowledges = parameters.server.reads && !none_is_due && fault.after < DELAYED_ACK;
    let is_reset = acknowledges && healed.is_some_and(|healed| healed.with == Answer::Reset);
    if !enabled && !is_reset && !always {
        return Ok(None);
    }
    let rtt_ns = round_trip_ns(parameters, facts);
    // A reference before the fault, and a cycle of probes that repeats itself until then.
    let cycle = kernel.hz.duration(kernel.keepalive_time.max(kernel.keepalive_interval));
    let after = fault.after.min(cycle.saturating_mul(CYCLES_MOST));
    let armed_before_ns = if parameters.server.reads {
        (rtt_ns, rtt_ns + EXCHANGE_NS)
    } else {
        // The unread bytes are sent, and acknowledged when the server's kernel decides.
        (2 * rtt_ns, 2 * rtt_ns + kernel.hz.tick_ns() * delayed_ack(kernel) + SLOP_NS)
    };
    let later = Kernel::later(parameters, facts)?;
    let known = known_timers(kernel, parameters, facts, armed_before_ns);
    // Each timer that it may be, or none that is known, with where its probes may end.
    let known: Vec<_> = known.into_iter().map(Some).collect();
    let known = if known.is_empty() { vec![None] } else { known };
    let mut starts = Vec::new();
    for known in known {
        let hops = hops(kernel, parameters, facts, known.as_ref())?;
        starts.push((known, hops));
    }
    let lasts = nanos(parameters.fault_duration().unwrap_or_default());
    // The smoothed round trip still holds what the first segments took.
    let least_ns = nanos(parameters.path.rtt);
    let is_one = rtt_ns - least_ns < kernel.hz.tick_ns() / 2;
    let round_trips = if is_one { vec![rtt_ns] } else { vec![least_ns, rtt_ns] };
    let scene = |fault_ns: u64, hop: &Hop, rtt_ns: u64| keepalive::Scene {
        armed_before_ns,
        meets: Meets {
            hop: hop.clone(),
            memory: way::memory(kernel, parameters, 0),
            losses: way::losses(kernel, parameters, fault_ns),
            ..Meets::new(
                kernel,
                (parameters, facts),
                (fault_ns, rtt_ns),
                later.as_ref(),
                healed.map(|healed| healed.from(fault_ns.saturating_add(lasts))),
            )
        },
        delayed_ack: (parameters.server.reads && !none_is_due).then(|| delayed_ack(kernel)),
        delayed_ack_error: delayed_ack_error(parameters),
        enabled,
    };
    let mut scenes = Vec::new();
    // The fault comes some time after the facts are taken; the network some time after its
    // restoration.
    for slop_ns in [0, SLOP_NS / 2, SLOP_NS] {
        for (known, hops) in &starts {
            // The fault comes right after the sample.
            let least_ns = known.map_or(nanos(after), |known| {
                known.sampled_ns.saturating_sub((known.received + 1) * kernel.hz.tick_ns())
            });
            let fault_ns = least_ns.saturating_add(slop_ns);
            for (hop, rtt_ns) in
                hops.iter().flat_map(|hop| round_trips.iter().map(move |ns| (hop, *ns)))
            {
                scenes.push((scene(fault_ns, hop, rtt_ns), *known));
            }
        }
    }
    Ok(Some(scenes))
}

const NOTHING_SENT: &str =
    "an idle connection without keepalive sends nothing, so nothing can be missed";

/// Where probes may end after the fault, in jiffies after the last segment received.
fn hops(
    kernel: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
    known: Option<&Known>,
) -> Result<Vec<Hop>, String> {
    if let Some(hop) = way::without_entry(parameters) {
        return Ok(vec![hop]);
    }
    let from = known.map(|known| known.received);
    // The acknowledgement of the last data confirms the entry with what the client sends next
    // (`sk_dst_confirm`): its delayed acknowledgement of the answer or, without one, the first probe.
    let reads = parameters.server.reads;
    let confirms = known.filter(|known| !known.answered).map(|known| {
        if reads {
            kernel.wheel.fires_at(known.received, delayed_ack(kernel), Context::Call)
        } else {
            first_probe(kernel, known)
        }
    });
    let confirms = confirms.filter(|at| {
        known
            .is_some_and(|known| known.probes == 0 && *at * kernel.hz.tick_ns() >= known.sampled_ns)
    });
    let probes_every = kernel.keepalive_time.min(kernel.keepalive_interval);
    entry::hops(kernel, parameters, facts, from, confirms.as_slice(), probes_every)
}

/// When the timer that nothing has touched since the last exchange sends its first probe.
fn first_probe(kernel: &Kernel, known: &Known) -> u64 {
    let mut fires = known.fires(kernel);
    while let Some(left) = (known.received + kernel.keepalive_time).checked_sub(fires)
        && left > 0
    {
        fires = kernel.wheel.fires_at(fires, left, Context::Handler);
    }
    fires
}

/// How long the client holds an acknowledgement back, jiffies.
pub(crate) fn delayed_ack(kernel: &Kernel) -> u64 {
    rto::delayed_ack(kernel.hz, kernel.rto_min)
}

/// The error that the last exchange's acknowledgement may draw if it is still being delayed when the
/// fault comes (`TCP_DELACK_MIN`, 40 ms). Unlike a probe's it lies within the window, so that the
/// connection remembers the result (`tcp_v4_err`, net/ipv4/tcp_ipv4.c).
fn delayed_ack_error(parameters: &Parameters) -> Option<Errno> {
    let fault = &parameters.fault;
    let routed = parameters.topology == Topology::Router;
    match fault.kind {
        FaultKind::Reject if fault.reject != Reject::TcpReset => {
            Some(icmp_of(parameters.family, fault.reject).error)
        }
        // A router that still believes its entry does not ask.
        FaultKind::PowerOff | FaultKind::Reboot | FaultKind::Takeover | FaultKind::Flap
            if routed && parameters.neighbour == Neighbour::Permanent =>
        {
            Some(Errno::EHOSTUNREACH)
        }
        FaultKind::Unplug if parameters.neighbour == Neighbour::Learned => {
            Some(Errno::EHOSTUNREACH)
        }
        _ => None,
    }
}

/// Whether the link goes away, to come back, before the server's kernel knows that its last answer
/// has come.
fn is_unfinished(kernel: &Kernel, parameters: &Parameters) -> bool {
    let delayed = kernel.hz.duration(delayed_ack(kernel)) + SETTLES;
    parameters.fault.kind == FaultKind::Flap
        && parameters.server.reads
        && parameters.fault.after < parameters.path.rtt / 2 + delayed
}

/// What the delayed acknowledgement may be late by.
const SETTLES: Duration = Duration::from_millis(20);
const UNFINISHED: &str = "the link goes away before the last answer is acknowledged: the server's \
                          kernel sends it again once the link is back, and from then on keepalive \
                          waits anew";

/// How long an acknowledgement is delayed, and a jiffy or two.
const DELAYED_ACK: Duration = Duration::from_millis(60);

/// The keepalive timer, as far as a sample of it and the jiffy clock tell: every state of it that
/// agrees with them, two if the sample was taken at the edge of a jiffy. Empty if none does.
fn known_timers(
    kernel: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
    exchanged_ns: (u64, u64),
) -> Vec<Known> {
    let (Some(tcp), Some(clock)) = (&facts.tcp, facts.jiffies) else { return Vec::new() };
    let enabled = parameters.client.keepalive.enabled;
    if enabled && tcp.timer != TcpFacts::TIMER_KEEPALIVE {
        return Vec::new();
    }
    let phase = JiffyPhase::new(kernel.hz, clock);
    let tick_ns = kernel.hz.tick_ns();
    let whole = |ms: u32| kernel.hz.whole_in_msecs(u64::from(ms));
    let mut known = Vec::new();
    for at_ns in looked_at_ns(tcp, tick_ns) {
        let sampled_ns = phase.of(at_ns);
        let sampled = sampled_ns.map(|ns| ns / tick_ns);
        let received = sampled.and_then(|now| {
            now.checked_sub(whole(tcp.last_ack_recv_ms.min(tcp.last_data_recv_ms)))
        });
        let Some((sampled_ns, (sampled, received))) = sampled_ns.zip(sampled.zip(received)) else {
            continue;
        };
        if !enabled {
            // What is known is when the last exchange ended.
            known.push(Known {
                armed: received,
                delay: kernel.keepalive_time,
                context: Context::Call,
                received,
                answered: false,
                probes: 0,
                sampled_ns,
            });
            continue;
        }
        let expires = sampled + whole(tcp.timer_expires_ms);
        // A timer that is due waits for the end of its slot, and no longer says since when.
        let longest = kernel.keepalive_time.max(kernel.keepalive_interval);
        let due = if tcp.timer_expires_ms == 0 { kernel.wheel.slot(longest) } else { 0 };
        let rtt = nanos(parameters.path.rtt) / tick_ns;
        let exchanged = (exchanged_ns.0.min(nanos(parameters.path.rtt)), exchanged_ns.1);
        let exchanged = exchanged.0 / tick_ns..=exchanged.1 / tick_ns + 2;
        let answered = rtt..=(round_trip_ns(parameters, facts) + EXCHANGE_NS) / tick_ns + 2;
        // No probe is answered within a second of the exchange: half of it is room for a busy
        // machine.
        let waited =
            (nanos(parameters.fault.after) / tick_ns).saturating_sub(kernel.hz.from_msecs(500));
        let mut fires = BTreeSet::new();
        for expires in expires.saturating_sub(due)..=expires {
            let sample = Sample {
                sampled,
                sampled_ns,
                received,
                expires,
                probes: tcp.probes.into(),
                set_at_any_time: parameters.predicts_anew(),
                heard_at_any_time: !parameters.further.is_empty(),
            };
            let timers = sample.timers(kernel, (exchanged.clone(), answered.clone()), waited);
            known.extend(timers.into_iter().filter(|timer| fires.insert(timer.fires(kernel))));
        }
    }
    known.dedup();
    known
}

/// What was looked at before the fault, jiffies of one clock.
struct Sample {
    sampled: u64,
    sampled_ns: u64,
    /// When the last segment was received.
    received: u64,
    /// For when the timer is set: `timer->expires`.
    expires: u64,
    probes: u32,
    /// Whether keepalive was set by a program that does as it likes, and not with the last exchange.
    set_at_any_time: bool,
    /// Whether what came last may have been held up by an earlier fault.
    heard_at_any_time: bool,
}

impl Sample {
    /// The timers that it may be a sample of. One was armed for the idle time before the last
    /// exchange; or by its own handler: for the interval when a probe was sent, for the rest of the
    /// idle time when it saw that something had come. `exchanged` is how long before its end the
    /// exchange began, `answered` how long the answer to a probe takes, `waited` how long the fault
    /// waits after the exchange.
    fn timers(
        &self,
        kernel: &Kernel,
        (exchanged, answered): (RangeInclusive<u64>, RangeInclusive<u64>),
        waited: u64,
    ) -> Vec<Known> {
        let (time, interval) = (kernel.keepalive_time, kernel.keepalive_interval);
        // What was received within the time that the fault waits is the answer to a probe.
        let is_exchange = self.sampled - self.received.min(self.sampled) >= waited;
        let known = |armed: u64, context| {
            let delay = self.expires.checked_sub(armed)?;
            let pending = armed <= self.sampled
                && kernel.wheel.fires_at(armed, delay, context) >= self.sampled;
            pending.then_some(Known {
                armed,
                delay,
                context,
                received: self.received,
                answered: !is_exchange,
                probes: self.probes,
                sampled_ns: self.sampled_ns,
            })
        };
        let probed = self.expires.checked_sub(interval);
        if self.probes > 0 {
            let probe = probed.and_then(|armed| known(armed, Context::Handler));
            return probe.into_iter().collect();
        }
        let (first, delay, took) = if is_exchange {
            (self.expires.checked_sub(time), time, exchanged)
        } else {
            (probed, interval, answered)
        };
        let context = if is_exchange { Context::Call } else { Context::Handler };
        let fresh = first
            .filter(|armed| {
                self.received.checked_sub(*armed).is_some_and(|took_it| took.contains(&took_it))
            })
            .and_then(|armed| known(armed, context));
        if let Some(fresh) = fresh.filter(|_| !self.heard_at_any_time) {
            return vec![fresh];
        }
        // Its handler has seen what came after it was armed, and waits for the rest.
        let rest = |took_it| {
            let handled =
                kernel.wheel.fires_at(self.received.checked_sub(took_it)?, delay, context);
            known(handled, Context::Handler).filter(|_| self.expires == self.received + time)
        };
        let mut rest: Vec<_> = fresh.into_iter().chain(took.filter_map(rest)).collect();
        if rest.is_empty() && self.set_at_any_time || self.heard_at_any_time {
            rest.extend(self.armed_at_any_time(time, known));
        }
        rest.dedup();
        rest
    }

    /// The timers that it may be a sample of where keepalive was set some time before the last exchange:
    /// by `SO_KEEPALIVE` for the idle time, or since by its handler for what was left of it. One for each
    /// slot of the wheel.
    fn armed_at_any_time(
        &self,
        time: u64,
        known: impl Fn(u64, Context) -> Option<Known>,
    ) -> Vec<Known> {
        let set = self.expires.checked_sub(time).and_then(|armed| known(armed, Context::Call));
        // Levels of the wheel are a factor of eight apart.
        let left = self.expires.saturating_sub(self.sampled);
        let delays = std::iter::successors(Some(time - 1), |delay| Some(delay / 2));
        let delays = delays.take_while(|delay| *delay > left).chain([left]);
        let armed = delays.filter_map(|delay| self.expires.checked_sub(delay));
        let handled = armed.filter_map(|armed| known(armed, Context::Handler));
        set.into_iter().chain(handled).collect()
    }
}

/// How many answered probes before the fault are gone through.
const CYCLES_MOST: u32 = 20;

/// From the setting of SO_KEEPALIVE to the end of the last exchange, beside the round trip.
const EXCHANGE_NS: u64 = 3_000_000;

pub(crate) fn why_keepalive(kernel: &Kernel, prediction: &Prediction, window: &Window) -> String {
    let sent = prediction.schedule.iter().filter(|step| step.kind == StepKind::KeepaliveProbe);
    let (held, out): (Vec<_>, Vec<_>) = sent.partition(|step| step.held);
    let probes = held.len() + out.len();
    match window.outcome {
        Outcome::None => "a keepalive probe is answered before the last one is due".into(),
        Outcome::Errno(Errno::ECONNRESET) if probes == 0 => {
            "the delayed acknowledgement of the last exchange reaches a host that does not know \
             the connection: a RST"
                .into()
        }
        Outcome::Errno(Errno::ECONNRESET) => {
            format!(
                "keepalive probe {probes} meets a host that does not know the connection: a RST"
            )
        }
        _ => {
            let end = prediction.schedule.last().map_or(0.0, |step| step.earliest.as_secs_f64());
            let (idle, interval) = (
                kernel.hz.duration(kernel.keepalive_time).as_secs_f64(),
                kernel.hz.duration(kernel.keepalive_interval).as_secs_f64(),
            );
            let held = match held.len() {
                0 => String::new(),
                _ if out.len() == 1 => ", of which 1 leaves the client's host".to_owned(),
                _ => format!(", of which {} leave the client's host", out.len()),
            };
            match kernel.user_timeout_ms {
                Some(ms) => format!(
                    "TCP_USER_TIMEOUT ({} s) is checked only when a keepalive timer fires after a \
                     probe; the first check past it is at {end:.1} s, after {}{held}",
                    ms as f64 / 1000.0,
                    counted(probes as u32, "probe")
                ),
                None => format!(
                    "{idle} s idle, then {}{held}, {interval} s apart and each rounded up to a slot of \
                     the timer wheel: declared dead no earlier than {end:.1} s",
                    counted(probes as u32, "probe")
                ),
            }
        }
    }
}
