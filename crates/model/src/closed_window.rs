//! A client whose last data the server's closed window holds back, before the fault: every state of
//! its probe timer that agrees with what was measured, and what its probes may meet.

use crate::dead_path::healed;
use crate::entry;
use crate::hop::Hop;
use crate::kernel::Kernel;
use crate::laboratory::{SLOP_NS, looked_at_ns, nanos};
use crate::rto::{self, Estimator};
use crate::sock::probe0_when;
use crate::tick::{EPOCH, JiffyPhase};
use crate::way::{self, Meets};
use crate::wheel::Context;
use spec::facts::{JiffyClock, TcpFacts};
use spec::{Facts, Parameters};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Everything that it may meet, and the timer at the moment of the sample.
pub(crate) fn scenes(
    kernel: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
) -> Result<Vec<(Meets, Start)>, String> {
    let fault = &parameters.fault;
    let looked = facts.tcp.as_ref().is_some_and(|tcp| tcp.sampled_at_ns > 0);
    let rtt = nanos(parameters.path.rtt) / kernel.hz.tick_ns();
    let bases = bases(kernel, parameters, facts.tcp.as_ref());
    let starts = starts(kernel, facts.tcp.as_ref(), facts.jiffies, (rtt, bases))?;
    let later = Kernel::later(parameters, facts)?;
    // Where it was not sampled, the window closes `fault.after` before the fault.
    let ahead_ns = if looked { 0 } else { nanos(fault.after.min(PROBED_MOST)) };
    let mut all = Vec::new();
    for start in &starts {
        let hops = hops(kernel, parameters, facts, start)?;
        // The fault comes some time after the sample, and its end some time after it is due: perhaps just after a
        // probe that is so still answered.
        let probed_ns =
            (armed(kernel, start).1 * kernel.hz.tick_ns()).saturating_sub(start.sampled_ns);
        let answered_ns = probed_ns + way::exposed_ns(parameters, nanos(parameters.path.rtt)) + 1;
        let answered_ns = Some(answered_ns).filter(|slop_ns| looked && *slop_ns < SLOP_NS);
        for slop_ns in [0, SLOP_NS].into_iter().chain(answered_ns) {
            let fault_ns = ahead_ns.saturating_add(slop_ns);
            let lasts = nanos(parameters.fault_duration().unwrap_or_default());
            let healed = healed(parameters, facts, fault_ns.saturating_add(lasts));
            // The smoothed round-trip time still holds what filling the window cost.
            let times = (fault_ns, nanos(parameters.path.rtt));
            let meets = Meets::new(kernel, (parameters, facts), times, later.as_ref(), healed);
            let met = |hop: &Hop| (Meets { hop: hop.clone(), ..meets.clone() }, start.clone());
            all.extend(hops.iter().map(met));
        }
    }
    Ok(all)
}

/// Where probes may end after the fault, in jiffies after the sample.
fn hops(
    kernel: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
    start: &Start,
) -> Result<Vec<Hop>, String> {
    way::without_entry(parameters).map_or_else(
        || {
            // The first probe passes on the last acknowledgement of data.
            let first = if start.first_probe.is_none() { &[start.expires][..] } else { &[] };
            let sampled = start.sampled_ns / kernel.hz.tick_ns();
            let often = kernel.hz.from_secs(OFTEN_SECS);
            entry::hops(kernel, parameters, facts, Some(sampled), first, often)
        },
        |hop| Ok(vec![hop]),
    )
}

/// The timer at the moment of the sample. Jiffies are those of one clock.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    /// `tcp_probe0_base`.
    pub(crate) base: u64,
    /// When the sample was taken, nanoseconds of the same clock.
    pub(crate) sampled_ns: u64,
    /// When the last segment was received: `rcv_tstamp`.
    pub(crate) received: u64,
    /// For when the timer is set: `timer->expires`.
    pub(crate) expires: u64,
    /// `icsk_backoff`.
    pub(crate) backoff: u32,
    /// `icsk_probes_out`.
    pub(crate) unanswered: u32,
    /// `icsk_probes_tstamp`.
    pub(crate) first_probe: Option<u64>,
    /// When the peer last answered a probe: `last_oow_ack_time`.
    pub(crate) answered: Option<u64>,
    /// Up to which slot of the wheel the phase of the clock is known.
    pub(crate) phase: u64,
}

/// Every state of the timer that agrees with what was measured before the fault: one for each
/// jiffy that the sample may have been taken in, or one for each phase of the timer's slot where the jiffy
/// clock is not known. A round trip takes `rtt` jiffies.
///
/// # Errors
/// Why there is none: the window is not closed.
fn starts(
    kernel: &Kernel,
    tcp: Option<&TcpFacts>,
    clock: Option<JiffyClock>,
    (rtt, bases): (u64, RangeInclusive<u64>),
) -> Result<Vec<Start>, String> {
    let Some(tcp) = tcp.filter(|tcp| tcp.sampled_at_ns > 0) else {
        // Nobody has looked: the window closes when the times begin.
        let step = (bases.end() - bases.start()).div_ceil(BASES_MOST).max(1);
        let last = *bases.end();
        let bases = bases.step_by(step as usize).chain([last]);
        let starts = bases.flat_map(|base| {
            let timeout = probe0_when(kernel, base, 0);
            let phase = kernel.wheel.slot(timeout);
            (EPOCH..EPOCH + phase).map(move |now| Start {
                base,
                sampled_ns: now * kernel.hz.tick_ns(),
                received: now,
                expires: now + timeout,
                backoff: 0,
                unanswered: 0,
                first_probe: None,
                answered: None,
                phase,
            })
        });
        return Ok(starts.collect());
    };
    if tcp.timer != TcpFacts::TIMER_PROBE0 {
        return Err("the server's window was not closed before the fault".into());
    }
    let tick_ns = kernel.hz.tick_ns();
    let whole = |ms: u32| kernel.hz.whole_in_msecs(u64::from(ms));
    let start = |sampled_ns: u64| {
        let sampled = sampled_ns / tick_ns;
        let received =
            sampled.saturating_sub(whole(tcp.last_ack_recv_ms.min(tcp.last_data_recv_ms)));
        let first_probe = tcp.window_probed_at_ns.map(|at_ns| {
            sampled_ns.saturating_sub(tcp.sampled_at_ns.saturating_sub(at_ns)) / tick_ns
        });
        // The instruments may not have told of a probe that was sent just now.
        let (backoff, unanswered) = (u32::from(tcp.backoff), u32::from(tcp.probes));
        let first_probe = first_probe.or_else(|| match backoff {
            0 => None,
            _ if unanswered >= backoff => {
                let timeout = probe0_when(kernel, *bases.start(), 0);
                Some(kernel.wheel.fires_at(received, timeout, Context::Call))
            }
            _ => Some(received.saturating_sub(rtt)),
        });
        Start {
            base: *bases.start(),
            sampled_ns,
            received,
            expires: sampled + whole(tcp.timer_expires_ms),
            backoff: tcp.backoff.into(),
            unanswered: tcp.probes.into(),
            first_probe,
            answered: first_probe
                .filter(|first| received >= *first)
                .map(|_| received.saturating_sub(rtt / 2)),
            phase: EPOCH,
        }
    };
    let known = clock.map(|clock| JiffyPhase::new(kernel.hz, clock));
    let known: Vec<u64> = known
        .into_iter()
        .flat_map(|phase| looked_at_ns(tcp, tick_ns).filter_map(move |at_ns| phase.of(at_ns)))
        .collect();
    Ok(if known.is_empty() {
        let whole = probe0_when(kernel, *bases.start(), tcp.backoff.into());
        let phase = kernel.wheel.slot(whole.max(armed(kernel, &start(EPOCH * tick_ns)).2));
        let phases = EPOCH..EPOCH + phase;
        phases.map(|now| Start { phase, ..start(now * tick_ns) }).collect()
    } else {
        known.into_iter().map(start).collect()
    })
}

/// `tcp_probe0_base` (include/net/tcp.h): the RTO, at least `TCP_RTO_MIN`; jiffies. Where it was
/// not
/// looked it may be longer than that of a settled connection: what fills a window ends in segments
/// whose acknowledgements are delayed, and each of these round trips counts for an eighth.
pub(crate) fn bases(
    kernel: &Kernel,
    parameters: &Parameters,
    tcp: Option<&TcpFacts>,
) -> RangeInclusive<u64> {
    let rto = tcp.map_or(0, |tcp| kernel.hz.from_usecs(tcp.rto_us.into()));
    let base = |rto: u64| rto.max(kernel.hz.tcp_rto_min());
    let Some(tcp) = tcp.filter(|tcp| tcp.sampled_at_ns == 0) else { return base(rto)..=base(rto) };
    // In one go, or in as many rounds as the path lets it take.
    let delayed = if parameters.path.rtt.is_zero() { 3 } else { 8 };
    let least_us = kernel.hz.to_usecs(kernel.rto_min);
    let mut estimate = Estimator::of(tcp, least_us, least_us as i64);
    let held_back_us = kernel.hz.to_usecs(u64::from(kernel.hz.get() / 25) + 1);
    for _ in 0..delayed {
        estimate.sample(i64::from(tcp.srtt_us) + held_back_us as i64, least_us as i64);
    }
    let longest = rto::from_estimate(kernel, estimate.srtt_us(), estimate.variance_us());
    base(rto)..=base(rto.max(longest))
}

/// The timer of a start: the jiffy at which it was armed, when it fires, and for how long it was
/// armed.
pub(crate) fn armed(kernel: &Kernel, start: &Start) -> (u64, u64, u64) {
    let wanted = |backoff: u32, first: Option<u64>, now: u64| {
        let whole = probe0_when(kernel, start.base, backoff);
        let left = first.zip(kernel.user_timeout_ms).map(|(first, ms)| {
            kernel.hz.from_msecs(ms).saturating_sub(now.saturating_sub(first)).max(LEAST)
        });
        whole.min(left.unwrap_or(u64::MAX))
    };
    // By the answer to a probe, or by the timer's own handler if there was none.
    let (mut at, mut context) = (start.received, Context::Call);
    let mut backoff = start.backoff.saturating_sub(start.unanswered);
    for _ in 0..start.unanswered {
        let first = start.first_probe.filter(|first| *first <= at);
        at = kernel.wheel.fires_at(at, wanted(backoff, first, at), context);
        backoff = (backoff + 1).min(start.backoff);
        context = Context::Handler;
    }
    let at = if at + wanted(start.backoff, start.first_probe, at) == start.expires {
        at
    } else if start.unanswered > 0 {
        // What came last was another segment, or the settings have changed since.
        start.expires.saturating_sub(probe0_when(kernel, start.base, start.backoff))
    } else {
        start.received
    };
    let timeout = start.expires.saturating_sub(at);
    let context = if start.unanswered > 0 { Context::Handler } else { Context::Call };
    (at, kernel.wheel.fires_at(at, timeout, context), timeout)
}

/// `TCP_TIMEOUT_MIN`, jiffies.
const LEAST: u64 = 2;
/// How many values of an RTO that was not sampled, beside the last.
const BASES_MOST: u64 = 4;
/// Of lives of a neighbour entry this near to each other one will do: probes come ever less often.
const OFTEN_SECS: u64 = 5;
/// After this long the probes of a living peer are all alike.
const PROBED_MOST: Duration = Duration::from_secs(3600);
