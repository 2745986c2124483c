//! The server's host or the path to it is gone: only the client's own timers can tell, or whatever
//! answers in the server's place.

use crate::closing;
use crate::course::Courses;
use crate::hop::{self, Hop, Icmp, Limit};
use crate::keepalive::{self, Known, Seen};
use crate::kernel::Kernel;
use crate::predict::{conclude, lives_on, reference, unknown};
use crate::prediction::{Prediction, StepKind, Window};
use crate::purpose::Purpose;
use crate::retransmit::{self, Answer, HopKind, WayBack};
use crate::rto;
use crate::tick::Phase;
use crate::wheel::Context;
use spec::facts::TcpFacts;
use spec::{
    Errno, Facts, Family, FaultKind, Neighbour, Outcome, Parameters, Reject, Topology, Traffic,
};
use std::time::Duration;

/// Every fault of the path or of the server's host.
pub(crate) fn predict(
    parameters: &Parameters,
    facts: &Facts,
    first_write_ns: Option<u64>,
) -> Prediction {
    let kernel = Kernel::new(parameters, facts);
    if let Some(reason) = unsettled(&kernel, parameters, facts) {
        return unknown(parameters, reason);
    }
    match parameters.client.traffic {
        Traffic::Idle => idle(&kernel, parameters, facts),
        _ => sending(&kernel, parameters, facts, first_write_ns),
    }
}

/// Why the connection cannot be predicted that has hardly begun.
pub(crate) fn unsettled(kernel: &Kernel, parameters: &Parameters, facts: &Facts) -> Option<String> {
    let tcp = facts.tcp.as_ref()?;
    let fresh = tcp.rto_us >= FRESH_RTO_US
        && parameters.path.rtt < Duration::from_millis(300)
        && kernel.rto_min < kernel.hz.from_msecs(900);
    fresh.then(|| {
        format!(
            "the RTO before the fault is {} ms: the connection has not settled",
            tcp.rto_us / 1000
        )
    })
}

/// An RTO from this on, on a short path, is the initial one: `TCP_TIMEOUT_INIT`.
const FRESH_RTO_US: u32 = 990_000;

/// Nothing is written: keepalive probes, if anything.
fn idle(kernel: &Kernel, parameters: &Parameters, facts: &Facts) -> Prediction {
    if !parameters.client.keepalive.enabled {
        return lives_on(
            parameters,
            "an idle connection without keepalive sends nothing, so nothing can be missed".into(),
        );
    }
    let fault = &parameters.fault;
    let rtt_ns = round_trip_ns(parameters, facts);
    let healed_ns = |reset| {
        let after = fault.after.saturating_add(parameters.fault_duration().unwrap_or_default());
        let after_ns = rtt_ns.saturating_mul(round_trips(parameters));
        Some(keepalive::Healed { at_ns: nanos(after), reset, after_ns })
    };
    let healed = match fault.kind {
        FaultKind::Flap => healed_ns(false),
        FaultKind::Reboot if !moves(parameters) => healed_ns(true),
        FaultKind::Reboot if parameters.neighbour == Neighbour::Learned => {
            return unknown(parameters, NEW_MAC.into());
        }
        FaultKind::Reject if fault.reject == Reject::TcpReset => {
            // The router is next door: what delays the path lies behind it.
            Some(keepalive::Healed { at_ns: nanos(fault.after), reset: true, after_ns: 0 })
        }
        _ => None,
    };
    let cut = matches!(fault.kind, FaultKind::PowerOff | FaultKind::Reboot | FaultKind::Flap);
    let hop = if parameters.topology == Topology::Router && cut {
        let icmp = Icmp { error: Errno::EHOSTUNREACH, reverts: false };
        Hop::Asks(hop::Neighbour::of_router(), Limit::none(), icmp)
    } else {
        Hop::Silent
    };
    let patience = kernel.user_timeout_ms.map_or(0, |ms| kernel.hz.from_msecs(ms));
    if hop.has_timer() && patience / kernel.keepalive_interval.max(1) > PROBES_MOST {
        let reason = "so many probes behind a router are more than this model goes through";
        return unknown(parameters, reason.into());
    }
    // A reference before the fault, and a cycle of probes that repeats itself until then.
    let cycle = kernel.hz.duration(kernel.keepalive_time.max(kernel.keepalive_interval));
    let after = fault.after.min(cycle.saturating_mul(CYCLES_MOST));
    let skipped_ns = nanos(fault.after.saturating_sub(after));
    let armed_before_ns = if parameters.server.reads {
        (rtt_ns, rtt_ns + EXCHANGE_NS)
    } else {
        // The unread bytes are sent, and acknowledged, at some time before the fault.
        (rtt_ns, rtt_ns + nanos(after) + SLOP_NS)
    };
    let seen = match (fault.kind, parameters.neighbour) {
        (FaultKind::Unplug, _) => Seen::None,
        (_, Neighbour::Learned)
            if parameters.topology != Topology::Router
                && kernel.hz.duration(longest(kernel)) > NEIGHBOUR_LIVES =>
        {
            Seen::Unknown
        }
        _ => Seen::All,
    };
    let mut courses = Courses::default();
    // What delays the path lies behind the router, so that answers meet its faults as well.
    let at_router = parameters.topology == Topology::Router && !cut;
    let later = match Kernel::later(parameters, facts) {
        Ok(later) => later,
        Err(reason) => return unknown(parameters, reason),
    };
    // The fault comes some time after the facts are taken; the network some time after its
    // restoration.
    for slop_ns in [0, SLOP_NS / 2, SLOP_NS] {
        let scene = keepalive::Scene {
            armed_before_ns,
            fault_after_ns: Some(nanos(after).saturating_add(slop_ns)),
            healed: healed.map(|healed| keepalive::Healed {
                at_ns: (healed.at_ns - skipped_ns.min(healed.at_ns)).saturating_add(slop_ns),
                ..healed
            }),
            rtt_ns,
            later: later.clone().map(|kernel| {
                let at_ns = nanos(fault.after.saturating_add(parameters.later.after));
                (at_ns.saturating_sub(skipped_ns).saturating_add(slop_ns), kernel)
            }),
            exposed_ns: if at_router { rtt_ns } else { rtt_ns / 2 },
            hop: hop.clone(),
            seen,
        };
        let known = known_timers(kernel, facts, rtt_ns);
        if known.is_empty() {
            keepalive::courses(kernel, &scene, &mut courses);
        }
        for known in known {
            // The fault comes right after the sample.
            let since_ns = kernel.hz.tick_ns() * (known.sampled - known.received);
            let fault_ns = since_ns.saturating_add(slop_ns);
            let moved =
                |at_ns: u64| fault_ns.saturating_add(at_ns.saturating_sub(nanos(fault.after)));
            let scene = keepalive::Scene {
                fault_after_ns: Some(fault_ns),
                healed: healed
                    .map(|healed| keepalive::Healed { at_ns: moved(healed.at_ns), ..healed }),
                later: later.clone().map(|kernel| {
                    (moved(nanos(fault.after.saturating_add(parameters.later.after))), kernel)
                }),
                ..scene.clone()
            };
            keepalive::courses_at(kernel, &scene, known, &mut courses);
        }
    }
    let mut prediction = conclude(parameters, facts, courses, |prediction| {
        why_keepalive(kernel, prediction, &prediction.windows[0])
    });
    if let Some(error) = delayed_ack_error(parameters) {
        let timed_out = prediction.windows.iter().filter(|w| w.outcome == Outcome::TIMED_OUT);
        let other = timed_out.map(|w| Window { outcome: Outcome::Errno(error), ..w.clone() });
        let other: Vec<_> = other.collect();
        prediction.windows.extend(other);
    }
    prediction
}

/// How many round trips the answer to a probe takes once the path is back: a router has to ask for
/// the server first, and a server that has just booted for the way back.
pub(crate) fn round_trips(parameters: &Parameters) -> u64 {
    let router_asks = parameters.topology == Topology::Router;
    let server_asks = way_back(parameters) != WayBack::Known;
    1 + u64::from(router_asks) + u64::from(server_asks)
}

/// The error that the last exchange's acknowledgement draws if it is still being delayed when the
/// fault comes (`TCP_DELACK_MIN`, 40 ms). Unlike a probe's it lies within the window, so that the
/// connection remembers what came of it (`tcp_v4_err`, net/ipv4/tcp_ipv4.c).
fn delayed_ack_error(parameters: &Parameters) -> Option<Errno> {
    let fault = &parameters.fault;
    if fault.after >= DELAYED_ACK || parameters.client.fills_window {
        return None;
    }
    let routed = parameters.topology == Topology::Router;
    match fault.kind {
        FaultKind::Reject if fault.reject != Reject::TcpReset => {
            Some(icmp_of(parameters.family, fault.reject).error)
        }
        FaultKind::PowerOff | FaultKind::Reboot | FaultKind::Flap if routed => {
            Some(Errno::EHOSTUNREACH)
        }
        FaultKind::Unplug if parameters.neighbour == Neighbour::Learned => {
            Some(Errno::EHOSTUNREACH)
        }
        _ => None,
    }
}

/// How long an acknowledgement is delayed, and a jiffy or two.
const DELAYED_ACK: Duration = Duration::from_millis(60);

/// The keepalive timer, as far as a sample of it and the jiffy clock tell; two of them if the sample
/// was taken at the edge of a jiffy. Empty if they do not.
///
/// It was armed for the idle time with the last exchange; or by its own handler: for the interval
/// when a probe was sent, for the rest of the idle time when it saw the answer to that.
fn known_timers(kernel: &Kernel, facts: &Facts, rtt_ns: u64) -> Vec<Known> {
    let (Some(tcp), Some(clock)) = (&facts.tcp, facts.jiffies) else { return Vec::new() };
    // A timer that is due and waits for the end of its slot no longer says when it was armed.
    if tcp.timer != TcpFacts::TIMER_KEEPALIVE || tcp.timer_expires_ms == 0 {
        return Vec::new();
    }
    let phase = Phase::new(kernel.hz, clock);
    let whole = |ms: u32| kernel.hz.whole_in_msecs(u64::from(ms));
    let sampled = |late_ns: u64| {
        let now = phase.of(tcp.sampled_at_ns.saturating_add(late_ns))? / kernel.hz.tick_ns();
        let expires = now + whole(tcp.timer_expires_ms);
        let received = now.checked_sub(whole(tcp.last_ack_recv_ms.min(tcp.last_data_recv_ms)))?;
        let known = |armed: u64, context| {
            let delay = expires.checked_sub(armed)?;
            (armed <= now && received <= now).then_some(Known {
                armed,
                delay,
                context,
                received,
                probes: tcp.probes.into(),
                sampled: now,
            })
        };
        if tcp.probes > 0 {
            return known(expires.checked_sub(kernel.keepalive_interval)?, Context::Handler);
        }
        let exchange = (rtt_ns + EXCHANGE_NS) / kernel.hz.tick_ns() + 2;
        let initial = expires.checked_sub(kernel.keepalive_time)?;
        if (initial..=initial + exchange).contains(&received) {
            return known(initial, Context::Call);
        }
        let probed = expires.checked_sub(kernel.keepalive_interval)?;
        if (probed..=probed + exchange).contains(&received) {
            return known(probed, Context::Handler);
        }
        // Armed for the rest: when the interval after the last probe was over.
        let probed = received.checked_sub(rtt_ns / kernel.hz.tick_ns())?;
        let interval = kernel.keepalive_interval;
        known(kernel.wheel.fires_at(probed, interval, Context::Handler), Context::Handler)
    };
    let mut known: Vec<_> = [0, SAMPLE_NS].into_iter().filter_map(sampled).collect();
    known.dedup();
    known
}

/// From the time stamp of a sample of socket diagnostics to the kernel's look at the socket.
pub(crate) const SAMPLE_NS: u64 = 200_000;

/// How many probes are gone through where a router's own timer makes no two alike.
const PROBES_MOST: u64 = 5_000;
/// How many answered probes before the fault are gone through.
const CYCLES_MOST: u32 = 20;
/// A neighbour entry is believed for half of `base_reachable_time` (30 s) at least, and a probe may
/// still pass for `delay_first_probe_time` (5 s) and three questions after that.
pub(crate) const NEIGHBOUR_LIVES: Duration = Duration::from_secs(15);

/// How long the whole of the probes takes at most, in jiffies.
fn longest(kernel: &Kernel) -> u64 {
    let probes = u64::from(kernel.keepalive_probes);
    let by_count = probes.saturating_mul(kernel.keepalive_interval);
    let by_time = kernel.user_timeout_ms.map(|ms| kernel.hz.from_msecs(ms));
    kernel.keepalive_time.saturating_add(by_time.unwrap_or(by_count))
}

pub(crate) const NEW_MAC: &str =
    "when the client's neighbour entry gives up the old MAC address is random";

/// From the setting of SO_KEEPALIVE to the end of the last exchange, beside the round trip.
const EXCHANGE_NS: u64 = 3_000_000;
/// From a moment that an experiment sets to the moment the laboratory acts.
pub(crate) const SLOP_NS: u64 = 100_000_000;

fn why_keepalive(kernel: &Kernel, prediction: &Prediction, window: &Window) -> String {
    let probes = window.keepalive_probes.unwrap_or(0);
    match window.outcome {
        Outcome::None => "a keepalive probe is answered before their number is used up".into(),
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
            match kernel.user_timeout_ms {
                Some(ms) => format!(
                    "the first keepalive timer at or past the user timeout of {} s, after at least \
                     one probe, ends it at {end:.1} s: {probes} probes fit",
                    ms as f64 / 1000.0
                ),
                None => format!(
                    "{idle} s idle, then {probes} probes, {interval} s apart and each rounded up to a \
                     slot of the timer wheel: nobody has answered by {end:.1} s"
                ),
            }
        }
    }
}

/// Data is outstanding: the write timer decides, and keepalive is silent.
fn sending(
    kernel: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
    first_write_ns: Option<u64>,
) -> Prediction {
    if parameters.fault.kind == FaultKind::Reject && parameters.fault.reject == Reject::TcpReset {
        return reset_at_once(parameters, facts);
    }
    let courses = scenes(kernel, parameters, facts)
        .and_then(|scenes| courses(kernel, facts, &scenes, first_write_ns));
    let courses = match courses {
        Ok(courses) => courses,
        Err(reason) => return unknown(parameters, reason),
    };
    let prediction = conclude(parameters, facts, courses, |prediction| {
        let why = why_sending(kernel, prediction);
        if parameters.later.sysctl.is_empty() {
            return why;
        }
        let after = spec::duration::show(parameters.later.after);
        format!("each timer goes by what is set when it fires, and that changes after {after}")
    });
    let prediction = until_program_gives_up(parameters, prediction);
    match asks_again_and_again(parameters, &prediction) {
        Some(reason) => unknown(parameters, reason),
        None => prediction,
    }
}

/// What these scenes lead to: from every phase of the clock, or from the one that is known.
pub(crate) fn courses(
    kernel: &Kernel,
    facts: &Facts,
    scenes: &[retransmit::Scene],
    first_write_ns: Option<u64>,
) -> Result<Courses, String> {
    let mut courses = Courses::default();
    let starts: Vec<u64> = facts
        .jiffies
        .zip(first_write_ns)
        .into_iter()
        .flat_map(|(clock, at_ns)| {
            [at_ns, at_ns.saturating_add(WRITE_NS)].map(|at_ns| (clock, at_ns))
        })
        .filter_map(|(clock, at_ns)| Phase::new(kernel.hz, clock).of(at_ns))
        .collect();
    if starts.is_empty() {
        retransmit::courses(kernel, scenes, &mut courses)?;
    }
    for start_ns in starts {
        retransmit::courses_at(kernel, scenes, start_ns, &mut courses)?;
    }
    Ok(courses)
}

/// Why the client's own neighbour discovery makes the end uncertain, if it does.
pub(crate) fn asks_again_and_again(
    parameters: &Parameters,
    prediction: &Prediction,
) -> Option<String> {
    let asks_itself = parameters.family == Family::Ipv6
        && parameters.neighbour == Neighbour::Learned
        && parameters.topology != Topology::Router;
    let latest = prediction.hull().map_or(Duration::ZERO, |(_, latest)| latest);
    let twice = if parameters.fault.kind == FaultKind::Unplug {
        FAILS_TWICE
    } else {
        NEIGHBOUR_LIVES + FAILS_TWICE
    };
    let cut =
        matches!(parameters.fault.kind, FaultKind::PowerOff | FaultKind::Reboot | FaultKind::Flap);
    let router_learned =
        parameters.topology == Topology::Router && parameters.neighbour == Neighbour::Learned;
    let believed = NEIGHBOUR_LIVES.saturating_sub(parameters.fault.after) + ASKS_BOTH_WAYS;
    if router_learned && cut && latest > believed {
        return Some(
            "when the router's entry for the server gives up is random, and with it when its ICMP \
             comes"
                .into(),
        );
    }
    (asks_itself && latest > twice).then(|| {
        "the client's own neighbour discovery fails again and again: after the second time, Linux \
         6.18 no longer takes the backoff back, and why is not understood"
            .into()
    })
}

/// From the doubt about an entry to the first packet that is given up: `delay_first_probe_time`,
/// three direct questions, and three to all.
const ASKS_BOTH_WAYS: Duration = Duration::from_secs(11);
/// When neighbour discovery can have failed three times, at three seconds each.
const FAILS_TWICE: Duration = Duration::from_secs(9);

/// From the time stamp of a write, the program's or the tap's, to the arming of its timer.
const WRITE_NS: u64 = 100_000;

/// Everything that one experiment may come to for the write timer, apart from the clock's phase.
pub(crate) fn scenes(
    kernel: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
) -> Result<Vec<retransmit::Scene>, String> {
    let client = &parameters.client;
    let closes = matches!(client.traffic, Traffic::Close | Traffic::Shutdown);
    if closes && is_unfinished(kernel, parameters, facts) {
        return Err(UNFINISHED.into());
    }
    let fallback = TcpFacts::default();
    let tcp = facts.tcp.as_ref().unwrap_or(&fallback);
    let healed = healed(parameters, facts);
    // The first write comes within 100 ms of the fault, and so the path heals that much earlier,
    // seen from there; and the restoration takes its time.
    let later = Kernel::later(parameters, facts)?;
    let moves = healed.is_some() || later.is_some();
    let earlier = earlier(moves);
    let mut scenes = Vec::new();
    for hop in hops(kernel, parameters, facts)? {
        for rto in possible_rtos(kernel, parameters, facts) {
            for (earlier_ns, icmp_ns) in earlier
                .iter()
                .flat_map(|earlier_ns| icmp_times(&hop, tcp).map(move |ns| (earlier_ns, ns)))
            {
                scenes.push(retransmit::Scene {
                    purpose: match client.traffic {
                        Traffic::Close => {
                            Purpose::Fin(closing::farewell(kernel, parameters, facts))
                        }
                        Traffic::Shutdown => Purpose::HalfClose {
                            acknowledged_after: closing::held_back(kernel, parameters, facts),
                        },
                        _ => Purpose::Data,
                    },
                    rto,
                    srtt_us: u64::from(tcp.srtt_us.max(1)),
                    cwnd: if tcp.snd_cwnd == 0 { 10 } else { tcp.snd_cwnd as usize },
                    write_interval_ns: match client.traffic {
                        Traffic::Stream => Some(50_000_000),
                        Traffic::Heartbeat => Some(nanos(client.heartbeat.interval)),
                        Traffic::OneWrite => client.second_write.map(nanos),
                        _ => None,
                    },
                    writes_most: match client.traffic {
                        Traffic::OneWrite => 1 + usize::from(client.second_write.is_some()),
                        _ => usize::MAX,
                    },
                    later: later_from(parameters, later.as_ref(), *earlier_ns),
                    hop: hop.clone(),
                    healed: healed.map(|healed| retransmit::Healed {
                        at_ns: healed.at_ns.saturating_sub(*earlier_ns),
                        ..healed
                    }),
                    icmp_ns,
                    unseen: parameters.fault.kind == FaultKind::Unplug,
                });
            }
        }
    }
    Ok(scenes)
}

/// By how much what the laboratory does after the fault may come earlier, seen from the client's
/// first call, which comes within 100 ms of the fault; nothing if it does nothing.
pub(crate) fn earlier(moves: bool) -> &'static [u64] {
    if moves { &[SLOP_NS, SLOP_NS / 2, 0] } else { &[0] }
}

/// The settings that change while the client waits, seen from such a call.
pub(crate) fn later_from(
    parameters: &Parameters,
    later: Option<&Kernel>,
    earlier_ns: u64,
) -> Option<(u64, Kernel)> {
    let at_ns = nanos(parameters.later.after).saturating_sub(earlier_ns);
    later.map(|kernel| (at_ns, kernel.clone()))
}

/// What an ICMP error takes to come back: it decides whether a timeout that is begun anew has spent
/// a jiffy already. One that a neighbour's timer makes comes at the jiffy at which the segment was
/// sent, give or take; and where time is virtual, nothing takes any.
fn icmp_times(hop: &HopKind, tcp: &TcpFacts) -> impl Iterator<Item = u64> + use<> {
    let reverts = |icmp: Option<Icmp>| icmp.is_some_and(|icmp| icmp.reverts);
    let none = match hop {
        HopKind::Fixed(hop @ Hop::Asks(..)) => reverts(hop.icmp()),
        HopKind::Fixed(hop) => reverts(hop.icmp()) && tcp.srtt_us < NO_TIME_US,
        HopKind::Neighbour { icmp, .. } | HopKind::Router { icmp, .. } => icmp.reverts,
    };
    none.then_some(0).into_iter().chain([retransmit::ICMP_NS])
}

/// No round trip is that short, in microseconds, where time passes while a kernel works.
const NO_TIME_US: u32 = 10;

/// Who answers after the fault, and when.
pub(crate) fn healed(parameters: &Parameters, facts: &Facts) -> Option<retransmit::Healed> {
    let fault = &parameters.fault;
    let with = match fault.kind {
        FaultKind::Flap => Answer::Ack,
        FaultKind::Reboot => Answer::Reset,
        _ => return None,
    };
    let moved = moves(parameters);
    if moved && parameters.neighbour == Neighbour::Permanent {
        return None;
    }
    let after = parameters.fault_duration()?;
    Some(retransmit::Healed {
        at_ns: nanos(after),
        with,
        after_ns: round_trip_ns(parameters, facts),
        sooner_ns: sooner_ns(parameters, facts),
        moved,
        back: way_back(parameters),
    })
}

/// Whether the host comes back with another link-layer address than the one that whoever sends to
/// it still believes. A router has forgotten the old one, unless it learned it.
fn moves(parameters: &Parameters) -> bool {
    let forgotten =
        parameters.topology == Topology::Router && parameters.neighbour == Neighbour::Permanent;
    parameters.fault.kind == FaultKind::Reboot && parameters.fault.new_mac && !forgotten
}

/// Whether the server's host knows the way back: one that is new, or that has lost its carrier
/// (`neigh_carrier_down`, net/core/neighbour.c), has learned nothing.
pub(crate) fn way_back(parameters: &Parameters) -> WayBack {
    let fresh = parameters.client.traffic == Traffic::Connect
        || matches!(parameters.fault.kind, FaultKind::Flap | FaultKind::Reboot);
    if parameters.neighbour == Neighbour::Permanent || !fresh {
        return WayBack::Known;
    }
    // A router asks from its link-local address (`ndisc_solicit`, net/ipv6/ndisc.c), which is not
    // the one that the server's route leads to.
    if parameters.topology == Topology::Router && parameters.family == Family::Ipv6 {
        WayBack::AlwaysAsks
    } else {
        WayBack::Asks
    }
}

/// Whether the link goes away before the server's kernel knows that its last answer has come, so
/// that it sends that again when it likes, and with consequences: it asks for the way back, or
/// makes the client forget an ICMP error.
fn is_unfinished(kernel: &Kernel, parameters: &Parameters, facts: &Facts) -> bool {
    let held_back = kernel.hz.duration(closing::held_back(kernel, parameters, facts));
    let matters =
        parameters.neighbour == Neighbour::Learned || parameters.topology == Topology::Router;
    matters
        && parameters.fault.kind == FaultKind::Flap
        && !parameters.path.rtt.is_zero()
        && parameters.fault.after < parameters.path.rtt + held_back + SETTLES
}

/// What an acknowledgement may be late by, beside its delay.
const SETTLES: Duration = Duration::from_millis(100);
const UNFINISHED: &str = "the link goes away before the last answer is acknowledged: the server's \
                          kernel sends it again, and when that comes through changes what follows";

/// Where the client's segments end.
pub(crate) fn hops(
    kernel: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
) -> Result<Vec<HopKind>, String> {
    let fault = &parameters.fault;
    let ipv4 = parameters.family == Family::Ipv4;
    // `icmp_ratelimit` of the router: a second, the default.
    let limit = Limit::of_router(kernel, parameters.family);
    let unreachable = Icmp { error: Errno::EHOSTUNREACH, reverts: ipv4 };
    // What the client's own kernel says of its own neighbour (`dst_link_failure`) takes the backoff
    // back for IPv6 too, as measured on Linux 6.18.
    let unresolved = Icmp { error: Errno::EHOSTUNREACH, reverts: true };
    let cut = matches!(fault.kind, FaultKind::PowerOff | FaultKind::Reboot | FaultKind::Flap);
    if fault.kind == FaultKind::Reject {
        let icmp = icmp_of(parameters.family, fault.reject);
        return Ok(vec![HopKind::Fixed(Hop::Rejects(limit, icmp))]);
    }
    if parameters.topology == Topology::Router {
        return Ok(match parameters.neighbour {
            _ if !cut => vec![HopKind::Fixed(Hop::Silent)],
            // The router no longer knows the server's link-layer address, and asks in vain.
            Neighbour::Permanent => {
                vec![HopKind::Fixed(Hop::Asks(hop::Neighbour::of_router(), limit, unreachable))]
            }
            // It has learned it when the client connected, and believes it still.
            Neighbour::Learned => believed(kernel, parameters.fault.after)
                .map(|believed| HopKind::Router {
                    believed,
                    limit: limit.clone(),
                    icmp: unreachable,
                })
                .collect(),
        });
    }
    match (fault.kind, parameters.neighbour) {
        (_, Neighbour::Permanent) => Ok(vec![HopKind::Fixed(Hop::Silent)]),
        // Without a carrier the client's entry is thrown away (`neigh_carrier_down`).
        (FaultKind::Unplug, Neighbour::Learned) => {
            Ok(vec![HopKind::Neighbour { believed: 0, icmp: unresolved }])
        }
        (_, Neighbour::Learned) => {
            if parameters
                .sysctl
                .keys()
                .chain(facts.sysctl.keys())
                .any(|name| name.starts_with("neigh."))
            {
                return Err("a neighbour table with settings of its own is not modelled".into());
            }
            Ok(believed(kernel, Duration::ZERO)
                .map(|believed| HopKind::Neighbour { believed, icmp: unresolved })
                .collect())
        }
    }
}

/// For how many jiffies after the first write a neighbour entry may be believed that was learned or
/// confirmed `age` before.
fn believed(kernel: &Kernel, age: Duration) -> impl Iterator<Item = u64> {
    let seconds = |secs: u64| kernel.hz.from_secs(secs);
    let first = seconds(BELIEVED_SECS.0.saturating_sub(age.as_secs()).max(1));
    let last = seconds(BELIEVED_SECS.1) + kernel.wheel.slot(seconds(BELIEVED_SECS.1));
    let step = seconds(BELIEVED_STEP_SECS).max(1);
    (first..last + step).step_by(step as usize)
}

/// How long a neighbour entry is believed after the first write, which confirms it with the last
/// acknowledgement: between half and one and a half of `base_reachable_time`, 30 s, at random
/// (`neigh_rand_reach_time`, net/core/neighbour.c).
const BELIEVED_SECS: (u64, u64) = (15, 45);
/// In steps that no two retransmissions fit into, once they are so far apart.
const BELIEVED_STEP_SECS: u64 = 5;

/// The ICMP error by which a router rejects, and what it means to a connection: `icmp_err_convert`
/// (net/ipv4/icmp.c), `tab_unreach` and `icmpv6_err_convert` (net/ipv6/icmp.c).
pub(crate) fn icmp_of(family: Family, reject: Reject) -> Icmp {
    let (error, reverts) = match (family, reject) {
        (Family::Ipv4, Reject::HostUnreachable) => (Errno::EHOSTUNREACH, true),
        (_, Reject::NetUnreachable) => (Errno::ENETUNREACH, true),
        (_, Reject::PortUnreachable) => (Errno::ECONNREFUSED, false),
        (Family::Ipv6, Reject::AdminProhibited) => (Errno::EACCES, false),
        (Family::Ipv6, Reject::HostUnreachable)
        | (Family::Ipv4, Reject::AdminProhibited)
        | (_, Reject::TcpReset) => (Errno::EHOSTUNREACH, false),
    };
    Icmp { error, reverts }
}

/// The RTO as it was measured; without that, what a settled connection may have.
pub(crate) fn possible_rtos(kernel: &Kernel, parameters: &Parameters, facts: &Facts) -> Vec<u64> {
    if let Some(tcp) = &facts.tcp {
        return vec![kernel.hz.from_usecs(u64::from(tcp.rto_us)).clamp(1, kernel.rto_max)];
    }
    let rtt_us = parameters.path.rtt.as_micros() as u64;
    let least = rto::from_estimate(kernel, rtt_us + 1, kernel.hz.to_usecs(kernel.rto_min));
    vec![least, least + 1]
}

fn reset_at_once(parameters: &Parameters, facts: &Facts) -> Prediction {
    let rtt = Duration::from_nanos(round_trip_ns(parameters, facts));
    let hz = crate::tick::Hz::new(facts.hz);
    Prediction {
        reference: reference(parameters),
        windows: vec![Window {
            retransmits: Some(0),
            ..Window::new(
                Outcome::Errno(Errno::ECONNRESET),
                Some((Duration::ZERO, rtt + crate::allowance::late(hz))),
            )
        }],
        schedule: Vec::new(),
        why: "the router answers the first segment with a RST".into(),
        unknown: None,
    }
}

fn why_sending(kernel: &Kernel, prediction: &Prediction) -> String {
    let Some(window) = prediction.windows.first() else { return String::new() };
    if window.outcome == Outcome::None {
        return "a retransmission gets through before the kernel gives up".into();
    }
    if window.outcome == Outcome::Errno(Errno::ECONNRESET) {
        return "a retransmission meets a host that does not know the connection: a RST".into();
    }
    let timeouts =
        prediction.schedule.iter().filter(|step| step.kind != StepKind::TailLossProbe).count();
    let end = window.span.map_or(0.0, |(earliest, _)| earliest.as_secs_f64());
    let (patience_ms, name) = match kernel.user_timeout_ms {
        Some(ms) => (ms, "user timeout"),
        None => (rto::model_timeout_ms(kernel, kernel.retries2), "threshold of tcp_retries2"),
    };
    format!(
        "timeout {timeouts}, at {end:.1} s, is the first that comes {} s (the {name}) or more after \
         the first retransmission on timeout",
        patience_ms as f64 / 1000.0
    )
}

/// A heartbeat's program closes the connection by itself when its deadline passes.
fn until_program_gives_up(parameters: &Parameters, mut prediction: Prediction) -> Prediction {
    if parameters.client.traffic != Traffic::Heartbeat || prediction.unknown.is_some() {
        return prediction;
    }
    let deadline = parameters.client.heartbeat.deadline;
    prediction
        .windows
        .retain(|window| window.span.is_some_and(|(earliest, _)| earliest <= deadline));
    let certain = prediction
        .windows
        .iter()
        .any(|window| window.span.is_some_and(|(_, latest)| latest < deadline));
    if !certain {
        if prediction.windows.is_empty() {
            prediction.schedule.retain(|step| step.earliest <= deadline);
            prediction.why = format!(
                "the client program gives the server up {} after its request, before its kernel does",
                spec::duration::show(deadline)
            );
        }
        prediction.windows.push(Window::new(Outcome::None, None));
    }
    prediction
}

pub(crate) fn round_trip_ns(parameters: &Parameters, facts: &Facts) -> u64 {
    let measured = facts.tcp.as_ref().map_or(0, |tcp| u64::from(tcp.srtt_us) * 1_000);
    measured.max(nanos(parameters.path.rtt))
}

/// By how much sooner than the smoothed round trip an answer may come, nanoseconds.
pub(crate) fn sooner_ns(parameters: &Parameters, facts: &Facts) -> u64 {
    let path_ns = nanos(parameters.path.rtt);
    round_trip_ns(parameters, facts).saturating_sub(path_ns).min(SLOP_NS)
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}
