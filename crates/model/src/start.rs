//! Where runs begin: from every phase of the clock that cannot be known, or from the one that is.

use crate::closed_window;
use crate::explore::{End, Explorer};
use crate::hop::Hop;
use crate::keepalive::{self, Known};
use crate::kernel::Kernel;
use crate::program::{Call, Calls, Program};
use crate::purpose::Purpose;
use crate::run::{Live, Past};
use crate::scene::Scene;
use crate::sock::{Armed, Pending, Sock, Timer};
use crate::tick::EPOCH;
use crate::way::Meets;
use crate::wheel::Context;
use crate::world::{Arrival, Healed, InFlight, Moment, Peer, Sent, World};

/// Into how many parts a jiffy is divided where the phase within it matters.
const PARTS: u64 = 4;
/// No more phases than this are looked at; where there are more, windows are widened by what lies
/// between.
const PHASES_MOST: u64 = 1 << 13;
/// How many steps all runs together may have where each phase has many.
const STEPS_IN_ALL: u64 = 1 << 20;

fn calls(scene: &Scene) -> Calls {
    let call = match scene.purpose {
        Purpose::Data => Call::Write(spec::experiment::BLOCK),
        Purpose::HalfClose { .. } => Call::Shutdown,
        Purpose::Syn => Call::Connect,
        Purpose::Fin(_) => Call::Close,
    };
    let mut calls = Calls::one(call);
    if let Purpose::Fin(farewell) = scene.purpose {
        calls.lingers = Some(farewell.lingers).filter(|lingers| *lingers > 0);
    }
    match (scene.write_interval_ns, scene.writes_most) {
        (Some(interval_ns), 2) => {
            calls.all.push((interval_ns, Call::Write(spec::experiment::BLOCK)));
        }
        (interval_ns, _) => calls.repeats_after = interval_ns,
    }
    calls
}

fn live(
    cfg: &Kernel,
    scene: &Scene,
    calls: &Calls,
    hop: Hop,
    start: (u64, u64),
    first: bool,
) -> Live {
    let (start_ns, lag_ns) = start;
    let mut sock = match scene.purpose {
        Purpose::Syn => Sock::unconnected(cfg),
        _ => Sock::settled(scene.rto, scene.srtt_us, scene.cwnd as u32),
    };
    if let Purpose::Fin(farewell) = scene.purpose {
        sock.rtt = Some(farewell.rtt);
    }
    let delayed_ack = scene.purpose.acknowledged_after().unwrap_or(0);
    let peer = Peer { delayed_ack, ..Peer::new(0, 0) };
    let mut world = World::new(cfg, peer, hop);
    world.lost = Moment::Past;
    world.hop_first = first;
    world.icmp_ns = scene.icmp_ns;
    world.unseen = scene.unseen;
    world.losses.clone_from(&scene.losses);
    world.recovery = scene.healed.map(|healed| healed.recovery(start_ns, true));
    if let Some((at_ns, _)) = &scene.later {
        world.later = Moment::At(start_ns.saturating_add(*at_ns));
    }
    let program = Program::new(calls, start_ns, lag_ns);
    Live::new(sock, world, program)
}

/// Starts everything that begins with a first call at `begins_ns`, or as much sooner and later as
/// `start` says.
fn begin(
    explorer: &mut Explorer<'_>,
    cfg: &Kernel,
    scene: &Scene,
    calls: &Calls,
    (begins_ns, start): (u64, (u64, u64)),
) {
    let either = scene.has_timer() && !scene.purpose.is_syn();
    let orders: &[bool] = if either { &[false, true] } else { &[false] };
    for hop in scene.hop.hops(cfg, begins_ns / cfg.hz.tick_ns()) {
        for first in orders {
            for lag_ns in scene.lates_ns(cfg) {
                let live = live(cfg, scene, calls, hop.clone(), (begins_ns, *lag_ns), *first);
                let past = Past::new(start, begins_ns, live.sock.stamps);
                explorer.start(live, past);
            }
        }
    }
}

/// How all these scenes end: from every phase of the clock, or from a known one.
///
/// # Errors
/// Why they cannot be gone through.
pub(crate) fn ends(cfg: &Kernel, scenes: &[Scene], known_ns: &[u64]) -> Result<Vec<End>, String> {
    let mut all = Vec::new();
    for scene in scenes {
        let calls = calls(scene);
        let later = scene.later.as_ref().map(|(_, later)| later);
        let explorer = || Explorer::new(cfg, later, &calls).one_of(scenes.len());
        let explore = |mut explorer: Explorer<'_>, begins: &mut dyn FnMut(&mut Explorer<'_>)| {
            begins(&mut explorer);
            explorer.go().map(|()| (explorer.ends, explorer.longest))
        };
        if !known_ns.is_empty() {
            let (ends, _) = explore(explorer(), &mut |explorer| {
                for at_ns in known_ns {
                    begin(explorer, cfg, scene, &calls, (*at_ns, (*at_ns, *at_ns)));
                }
            })?;
            all.extend(ends);
            continue;
        }
        if let Some(starts) = scene.starts(cfg) {
            let (ends, _) = explore(explorer(), &mut |explorer| {
                over_phases(explorer, cfg, scene, &calls, starts, scenes.len() as u64);
            })?;
            all.extend(ends);
            continue;
        }
        // Slots of coarser timers than those that fire make no difference: the phases are gone
        // through up to the coarsest that do. A first look without lateness says how coarse they are
        // at least.
        let from_phases = |explorer: Explorer<'_>, period| {
            explore(explorer, &mut |explorer| {
                over_phases(explorer, cfg, scene, &calls, (EPOCH, period), scenes.len() as u64);
            })
        };
        let needed = |longest: u64| cfg.wheel.slot(longest.max(scene.other_timers(cfg)));
        let mut period = needed(from_phases(explorer().on_time(), 1)?.1);
        loop {
            let (ends, longest) = from_phases(explorer(), period)?;
            let needed = needed(longest);
            if needed <= period {
                all.extend(ends);
                break;
            }
            period = needed;
        }
    }
    Ok(all)
}

/// Starts from each phase of so many jiffies from the `first` on.
fn over_phases(
    explorer: &mut Explorer<'_>,
    cfg: &Kernel,
    scene: &Scene,
    calls: &Calls,
    (first, period): (u64, u64),
    scenes: u64,
) {
    let tick_ns = cfg.hz.tick_ns();
    let stride = if scene.is_finer_than_jiffies() {
        let steps = scene.events(cfg) * scenes;
        let variants = PARTS * scene.lates_ns(cfg).len() as u64;
        period.div_ceil((STEPS_IN_ALL / (steps * variants)).max(16))
    } else {
        period.div_ceil(PHASES_MOST)
    };
    let block_ns = (stride - 1) * tick_ns;
    for phase in (0..period).step_by(stride as usize) {
        let begins_ns = (first + phase + stride - 1) * tick_ns;
        if scene.is_finer_than_jiffies() {
            for part in 0..PARTS {
                // The middle of its part: an earlier call has a longer run, a later one a shorter.
                let at_ns = begins_ns + (part * tick_ns + tick_ns / 2) / PARTS;
                let half_ns = block_ns + tick_ns / PARTS / 2;
                let start = (at_ns - half_ns, at_ns + half_ns);
                begin(explorer, cfg, scene, calls, (at_ns, start));
            }
            continue;
        }
        // Within a jiffy the phase does not matter to a single write: its timers count from the
        // jiffy. Only a user timeout of `connect` counts from the call, by its millisecond.
        let counts_from_call = scene.purpose.is_syn() && cfg.user_timeout_ms.is_some();
        let part_ns = match counts_from_call {
            false => tick_ns,
            true if tick_ns.is_multiple_of(1_000_000) => 1_000_000,
            // No more than the jitter that the socket reckons with.
            true => 300_000.min(tick_ns),
        };
        for part in 1..=tick_ns.div_ceil(part_ns) {
            let at_ns = begins_ns + (part * part_ns).min(tick_ns) - 1;
            let start = (at_ns - (block_ns + part_ns - 1), at_ns + block_ns);
            begin(explorer, cfg, scene, calls, (at_ns, start));
        }
    }
}

/// Runs of an idle client's keepalive.
pub(crate) fn keepalive_ends(
    cfg: &Kernel,
    scenes: &[(keepalive::Scene, Option<Known>)],
) -> Result<Vec<End>, String> {
    let calls = Calls::none();
    let mut all = Vec::new();
    for (scene, known) in scenes {
        let later = scene.meets.later.as_ref().map(|(_, later)| later);
        let mut explorer = Explorer::new(cfg, later, &calls).one_of(scenes.len());
        match known {
            Some(known) => from_known_keepalive(&mut explorer, cfg, scene, known),
            None => from_any_keepalive(&mut explorer, cfg, scene),
        }
        explorer.go()?;
        all.append(&mut explorer.ends);
    }
    Ok(all)
}

/// Of more slots of the clock than this, divided by the phases that matter in each, some are looked
/// at, and the windows widened by what lies between them.
const CELLS_MOST: u64 = 1 << 10;
/// All phases of no longer slot than this are looked at one by one.
const SLOT_MOST: u64 = 4096;
/// Without keepalive: the longest slot of a neighbour entry's timers, jiffies.
const OTHERS_SLOT: u64 = 512;
/// No more phases at the end of a slot than this are looked at.
const MARGIN_MOST: u64 = 32;
/// Where a user timeout decides, a path that is back after more probes than this is not looked at phase by
/// phase.
const PROBES_MOST: u64 = 64;

fn from_any_keepalive(explorer: &mut Explorer<'_>, cfg: &Kernel, scene: &keepalive::Scene) {
    let tick_ns = cfg.hz.tick_ns();
    let slot = |timeout| if scene.enabled { cfg.wheel.slot(timeout) } else { OTHERS_SLOT };
    let first = slot(cfg.keepalive_time);
    let period = first.max(slot(cfg.keepalive_interval));
    // Within a slot of the first timer, all runs have the same jiffies from there on; only the
    // phases at its end may find the idle time not yet over.
    let (least, most) = scene.armed_before_ns;
    let margin = (most / tick_ns + 2).min(first).min(MARGIN_MOST);
    // Where the fault comes while the first timer may fire, or the path is back once it may have fired,
    // each phase is another story.
    let first_fires = cfg.keepalive_time..=cfg.keepalive_time + 2 * first + margin;
    let fault = scene.meets.fault_after_ns.map(|fault_ns| fault_ns / tick_ns);
    let back = scene.meets.healed.map(|healed| healed.at_ns / tick_ns);
    let lives = cfg.keepalive_time..=first_fires.end() + probed_for(cfg);
    let back = back.filter(|back| lives.contains(back) && Some(*back) > fault);
    let margin = match fault.filter(|fault| first_fires.contains(fault)).or(back) {
        _ if !scene.enabled => first,
        // Each is idle for another time.
        _ if scene.meets.memory.is_some() && first <= SLOT_MOST => first,
        Some(_) if first <= SLOT_MOST => first,
        _ => margin,
    };
    let cells = period / first;
    let stride = cells.div_ceil((CELLS_MOST / margin).max(8));
    // What lies between the cells that are looked at.
    let between_ns = (stride - 1) * first * tick_ns;
    for cell in (0..cells).step_by(stride as usize) {
        // The first jiffy of a phase whose timer fires at the end of the next slot.
        let base = EPOCH + cell * first - cfg.keepalive_time % first;
        let mut add = |armed_ns: u64, longer_ns: u64| {
            for before_ns in [least, most] {
                let exchange_ns = armed_ns + before_ns;
                let armed = armed_ns / tick_ns;
                let fires = cfg.wheel.fires_at(armed, cfg.keepalive_time, Context::Call);
                let timer = Armed { fires, timeout: cfg.keepalive_time };
                let start = (exchange_ns - longer_ns - between_ns, exchange_ns + between_ns);
                let mut run = idle(cfg, scene, exchange_ns, timer, true);
                if let Some(memory) = &mut run.world.memory {
                    memory.open += longer_ns / tick_ns;
                }
                let slots = most - least;
                keepalive_variants(explorer, cfg, scene, &run, start, exchange_ns, slots);
            }
        };
        // All but the last phases of a slot: the later armed, the shorter.
        if margin < first {
            let length_ns = (first - margin) * tick_ns;
            add(base * tick_ns + length_ns - 1, length_ns - 1);
        }
        for phase in first - margin..first {
            for part in 1..=PARTS {
                add((base + phase) * tick_ns + part * tick_ns / PARTS - 1, tick_ns / PARTS);
            }
        }
    }
}

/// For how long an idle connection is probed in vain, jiffies: of a long user timeout, as far as its probes
/// are gone through phase by phase.
fn probed_for(cfg: &Kernel) -> u64 {
    let interval = cfg.keepalive_interval + 2 * cfg.wheel.slot(cfg.keepalive_interval);
    let user_timeout = cfg.user_timeout_ms.map_or(0, |ms| cfg.hz.from_msecs(ms) + interval);
    (u64::from(cfg.keepalive_probes) * interval).max(user_timeout.min(PROBES_MOST * interval))
}

fn from_known_keepalive(
    explorer: &mut Explorer<'_>,
    cfg: &Kernel,
    scene: &keepalive::Scene,
    known: &Known,
) {
    let (run, received_ns) = known_keepalive(cfg, scene, known);
    let start = (received_ns - (cfg.hz.tick_ns() - 1), received_ns);
    keepalive_variants(explorer, cfg, scene, &run, start, received_ns, 0);
}

/// An idle socket whose keepalive timer is known, and when it received its last segment,
/// nanoseconds.
pub(crate) fn known_keepalive(
    cfg: &Kernel,
    scene: &keepalive::Scene,
    known: &Known,
) -> (Live, u64) {
    let tick_ns = cfg.hz.tick_ns();
    let received_ns = (known.received + 1) * tick_ns - 1;
    let timer = Armed { fires: known.fires(cfg), timeout: known.delay };
    let mut run = idle(cfg, scene, received_ns, timer, !known.answered);
    run.sock.probes_out = known.probes;
    let peer = &mut run.world.peer;
    if known.answered {
        peer.last_oow_ack =
            Some(known.received - (scene.meets.rtt_ns / 2 / tick_ns).min(known.received));
    }
    for probe in sent_before(cfg, known) {
        let probe_ns = probe * tick_ns;
        run.world.pass_router(Sent::KeepaliveProbe, probe_ns);
        if run.world.is_answered(probe_ns) {
            run.world.in_flight.push(InFlight {
                at_ns: probe_ns + scene.meets.rtt_ns,
                what: Arrival::ProbeAck,
                open_ns: (0, 0),
                sooner_ns: 0,
                late_ns: 0,
                also_on_time: false,
            });
            let there = probe + scene.meets.rtt_ns / 2 / tick_ns;
            run.world.peer.last_oow_ack = run.world.peer.last_oow_ack.max(Some(there));
        }
    }
    (run, received_ns)
}

/// When the probes that are out were sent, jiffies: the last one armed the timer, and those before it came
/// an interval and its slot earlier each.
fn sent_before(cfg: &Kernel, known: &Known) -> Vec<u64> {
    let before = |probe: &u64| {
        let latest = probe.saturating_sub(known.delay);
        let slot = cfg.wheel.slot(known.delay);
        let armed = (latest.saturating_sub(slot)..=latest)
            .rev()
            .find(|at| cfg.wheel.fires_at(*at, known.delay, Context::Handler) == *probe);
        Some(armed.unwrap_or(latest))
    };
    let sent = std::iter::successors(Some(known.armed), before);
    let mut sent: Vec<_> = sent.take(known.probes as usize).collect();
    sent.reverse();
    sent
}

/// An idle socket after its last exchange.
pub(crate) fn idle(
    cfg: &Kernel,
    scene: &keepalive::Scene,
    exchange_ns: u64,
    timer: Armed,
    delays_ack: bool,
) -> Live {
    let tick_ns = cfg.hz.tick_ns();
    let mut sock = Sock::settled(1, 1, 10);
    sock.keepopen = scene.enabled;
    sock.keepalive_timer = scene.enabled.then_some(timer);
    sock.stamps.rcv_tstamp = exchange_ns / tick_ns;
    sock.delack_timer = scene.delayed_ack.filter(|_| delays_ack).map(|timeout| Armed {
        fires: cfg.wheel.fires_at(exchange_ns / tick_ns, timeout, Context::Call),
        timeout,
    });
    let world = scene.meets.world(cfg, exchange_ns);
    Live::new(sock, world, Program::new(&Calls::none(), 0, 0))
}

/// The same for either order of two timers that fire at the same jiffy, and for the soonest and
/// the latest reply.
fn variants(run: &Live, open: bool) -> Vec<Live> {
    let mut all = Vec::new();
    let orders: &[bool] = if run.world.hop.has_timer() { &[true, false] } else { &[false] };
    for first in orders {
        for late in if open { &[false, true][..] } else { &[false] } {
            let mut run = run.clone();
            run.world.hop_first = *first;
            if let Some(recovery) = &mut run.world.recovery {
                recovery.late = *late;
            }
            all.push(run);
        }
    }
    all
}

fn keepalive_variants(
    explorer: &mut Explorer<'_>,
    cfg: &Kernel,
    scene: &keepalive::Scene,
    run: &Live,
    start: (u64, u64),
    begins_ns: u64,
    before_ns: u64,
) {
    let errors = [None].into_iter().chain(scene.delayed_ack_error.map(Some));
    for run in variants(run, scene.meets.healed.is_some_and(Healed::is_open)) {
        for error in errors.clone() {
            let mut run = run.clone();
            run.sock.delack_draws = error.filter(|_| run.sock.delack_timer.is_some());
            let mut past = Past::new(start, begins_ns, run.sock.stamps);
            past.due(Timer::Keepalive, begins_ns + cfg.keepalive_time * cfg.hz.tick_ns());
            past.slots = if scene.enabled { cfg.wheel.slot(cfg.keepalive_time) } else { 0 };
            past.slots += before_ns.div_ceil(cfg.hz.tick_ns());
            past.counts.probes = run.sock.probes_out;
            explorer.start(run, past);
        }
    }
}

/// Runs of a client whose last data the server's closed window holds back.
pub(crate) fn window_ends(
    cfg: &Kernel,
    scenes: &[(Meets, closed_window::Start)],
) -> Result<Vec<End>, String> {
    let calls = Calls::none();
    let mut all = Vec::new();
    let Some((first, _)) = scenes.first() else { return Ok(all) };
    let later = first.later.as_ref().map(|(_, later)| later);
    let mut explorer = Explorer::new(cfg, later, &calls);
    for (meets, start) in scenes {
        let (run, past) = window_run(cfg, meets, start);
        for run in variants(&run, meets.healed.is_some_and(Healed::is_open)) {
            explorer.start(run, past.clone());
        }
    }
    explorer.go()?;
    all.append(&mut explorer.ends);
    Ok(all)
}

/// The client of a closed window at a start.
pub(crate) fn window_run(
    cfg: &Kernel,
    meets: &Meets,
    start: &closed_window::Start,
) -> (Live, Past) {
    let tick_ns = cfg.hz.tick_ns();
    let calls = Calls::none();
    let (armed, fires, timeout) = closed_window::armed(cfg, start);
    let mut sock = Sock::settled(start.base, 1, 10);
    sock.window_closed = true;
    sock.waiting = true;
    sock.backoff = start.backoff;
    sock.probes_out = start.unanswered;
    sock.write_timer = Some((Pending::WindowProbe, Armed { fires, timeout }));
    sock.stamps.expires = start.expires;
    sock.stamps.rcv_tstamp = start.received;
    sock.stamps.probes_tstamp = start.first_probe;
    let origin_ns = start.sampled_ns;
    let mut world = meets.world(cfg, origin_ns);
    world.phase = start.phase;
    world.peer.last_oow_ack = start.answered;
    if start.unanswered > 0 {
        // The answer to the last probe is still on its way, if it drew one.
        world.draws_before(armed * tick_ns, origin_ns);
    }
    let program = Program::new(&calls, 0, 0);
    let run = Live::new(sock, world, program);
    let received_ns = (start.received + 1) * tick_ns - 1;
    let mut past =
        Past::new((received_ns - (tick_ns - 1), received_ns), received_ns, run.sock.stamps);
    past.due(Timer::Write, start.expires * tick_ns);
    past.counts.window_probes = start.unanswered;
    (run, past)
}
