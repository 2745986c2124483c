//! Runs that are alike are one, and steps that are alike are skipped.

use crate::kernel::Kernel;
use crate::program::Calls;
use crate::run::{Live, Past, Runs, STEPS_SHOWN};
use crate::sock::Timer;
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

/// From the longest timeout on, one is like the other, and so is one keepalive interval without an
/// answer: goes to the last but a few before something changes.
pub(super) fn skip_alike(
    live: &mut Live,
    pasts: &mut [Past],
    timer: Timer,
    cfg: &Kernel,
    (due_ns, now_ns): (u64, u64),
) {
    let tick_ns = cfg.hz.tick_ns();
    let alone = (timer == Timer::Keepalive || live.world.is_silent())
        && live.world.in_flight.is_empty()
        && live.program.next.is_none()
        && !live.world.is_reached(now_ns)
        && pasts.iter().all(|past| past.steps > STEPS_SHOWN);
    let Some(fires) = live.sock.fires(timer).filter(|_| alone) else { return };
    let over_ns = pasts.iter().filter_map(|past| {
        live.sock.stamps = past.stamps;
        live.sock.gives_up_at(timer, cfg, now_ns)
    });
    let Some(over_ns) = over_ns.min() else { return };
    let next_ns = live.world.next_change().unwrap_or(u64::MAX).min(over_ns);
    let step_ns = (fires * tick_ns).saturating_sub(due_ns);
    let Some(cycle) = live.world.repeats_after(cfg, due_ns / tick_ns, step_ns / tick_ns) else {
        return;
    };
    let cycles = next_ns.saturating_sub(now_ns) / (step_ns * cycle).max(1);
    let steps = cycles.saturating_sub(3) * cycle;
    if steps == 0 {
        return;
    }
    live.world.skip(steps * step_ns / tick_ns);
    let count = u32::try_from(steps).unwrap_or(u32::MAX);
    let timeout_ns = live.sock.skip(timer, count, steps * step_ns / tick_ns) * tick_ns;
    let seen = if live.world.unseen { 0 } else { count };
    for past in pasts {
        past.skip(timer, steps * timeout_ns, seen);
    }
}

/// From the longest timeout on, one answered probe of a closed window is like the other: goes to the
/// last but a few before something changes, or before the user timeout cuts one.
pub(super) fn skip_answered(live: &mut Live, pasts: &mut [Past], cfg: &Kernel, now_ns: u64) {
    let tick_ns = cfg.hz.tick_ns();
    let Some(armed) = live.sock.armed(Timer::Write) else { return };
    let alike = armed.timeout == cfg.rto_max
        && live.world.stays(now_ns)
        && live.world.in_flight.is_empty()
        && live.world.reference_until.ahead().is_none()
        && live.program.next.is_none()
        && pasts.iter().all(|past| past.steps > PROBES_BEFORE);
    let cut = pasts.iter().filter_map(|past| {
        let (first, ms) = past.stamps.probes_tstamp.zip(cfg.user_timeout_ms)?;
        Some((first + cfg.hz.from_msecs(ms).saturating_sub(cfg.rto_max)) * tick_ns)
    });
    let Some(next_ns) = cut.chain(live.world.next_change()).min().filter(|_| alike) else { return };
    // The probe was sent at the end of a slot.
    let slot = cfg.wheel.slot(armed.timeout);
    let sent = now_ns.saturating_sub(live.world.peer.rtt_ns) / tick_ns / slot * slot;
    let cycle = armed.fires.saturating_sub(sent);
    let steps = (next_ns.saturating_sub(now_ns) / (cycle * tick_ns).max(1)).saturating_sub(4);
    if steps == 0 {
        return;
    }
    let count = u32::try_from(steps).unwrap_or(u32::MAX);
    let seen = if live.world.unseen { 0 } else { count };
    if let Some((_, armed)) = &mut live.sock.write_timer {
        armed.fires += steps * cycle;
    }
    live.world.peer.last_oow_ack = None;
    for past in pasts {
        past.skip(Timer::Write, steps * armed.timeout * tick_ns, 0);
        past.counts.window_probes = past.counts.window_probes.saturating_add(seen);
        past.stamps.expires = 0;
    }
}

/// Between two faults, one answered write of a program that goes on writing is like the other: goes to the last
/// but a few before something changes, or a timer fires.
pub(super) fn skip_writes(live: &mut Live, cfg: &Kernel, calls: &Calls, now_ns: u64) {
    let Some((every_ns, (at_ns, _))) = calls.repeats_after.zip(live.program.next) else { return };
    let Live { sock, world, program, .. } = live;
    let settled = sock.queue.is_empty()
        && !sock.waiting
        && program.answer_due.is_none()
        && world.in_flight.is_empty()
        && world.is_settled(now_ns)
        && calls.all.len() == 1;
    let timers = sock.next_timer().map(|(fires, _)| fires * cfg.hz.tick_ns());
    let until = world.reference_until.ahead().into_iter().chain(timers);
    let Some(next_ns) = until.chain(world.next_change()).min().filter(|_| settled) else { return };
    let left_ns = WRITES_BEFORE * every_ns + world.peer.rtt_ns;
    let writes = next_ns.saturating_sub(at_ns).saturating_sub(left_ns) / every_ns;
    program.skip(writes * every_ns);
    sock.settle(cfg, writes);
    // Only what comes next is told apart by its number.
    (sock.first, sock.tlp_out, world.peer.next) = (0, None, 0);
}

/// Before something changes, so many writes are gone through.
const WRITES_BEFORE: u64 = 1;

/// So many probes have come to the longest timeout: more than there are doublings.
const PROBES_BEFORE: u32 = 40;

/// Runs that are alike are one.
pub(super) fn alike(lives: Runs) -> Runs {
    if lives.len() < 2 {
        return lives;
    }
    let hasher = BuildHasherDefault::<Fx>::default;
    let mut places: HashMap<u64, usize, _> =
        HashMap::with_capacity_and_hasher(lives.len(), hasher());
    let mut merged = Runs::with_capacity(lives.len());
    for (live, pasts) in lives {
        // Two that share a hash by chance stay two, which does no harm.
        let place = *places.entry(hasher().hash_one(&live)).or_insert(merged.len());
        match merged.get_mut(place) {
            Some((same, others)) if *same == live => others.extend(pasts),
            _ => merged.push((live, pasts)),
        }
    }
    merged
}

/// Pasts that nothing tells apart are one, and those that follow each other by jiffies a block.
pub(super) fn merge(mut pasts: Vec<Past>, tick_ns: u64) -> Vec<Past> {
    if pasts.len() < 2 {
        return pasts;
    }
    pasts.sort_by_cached_key(|past| (past.key(), past.start));
    let mut merged = joined(pasts, |last, next| last.is_one_with(next, tick_ns));
    if merged.len() > 1 {
        merged.sort_by_cached_key(|past| (past.block_key(), past.start));
        merged = joined(merged, |last, next| last.is_followed_by(next, tick_ns));
    }
    merged
}

fn joined(pasts: Vec<Past>, are_one: impl Fn(&Past, &Past) -> bool) -> Vec<Past> {
    let mut joined: Vec<Past> = Vec::with_capacity(pasts.len());
    for past in pasts {
        match joined.last_mut() {
            Some(last) if are_one(last, &past) => last.merge(past),
            _ => joined.push(past),
        }
    }
    joined
}

/// A hash for states: fast, since no attacker chooses them to collide.
#[derive(Default)]
struct Fx(u64);

impl Hasher for Fx {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64((*byte).into());
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value as u64);
    }
}
