//! The phase of the clock that cannot be known: it is gone through when a timer asks for it. A slot of the
//! wheel makes of every phase within it the same, and finer timers do not tell coarser phases apart: until a
//! coarser timer is armed, one run stands for all of them.

use super::Explorer;
use crate::kernel::Kernel;
use crate::run::{Live, Past};
use crate::sock::Armed;
use crate::step::Effects;

/// How many phases of the clock are looked at where keepalive's timer asks, and something else is planned.
const PHASES_MOST: u64 = 512;

/// Up to which slot of the wheel a step asks for the phase of the clock, jiffies: for the timers that it
/// has armed, but for keepalive's, which asks when it may fire.
pub(super) fn asks_for(before: &Live, after: &Live, effects: &Effects, cfg: &Kernel) -> u64 {
    let write = |live: &Live| live.sock.write_timer.map(|(_, armed)| armed);
    let keepalive = |live: &Live| live.sock.keepalive_timer;
    let acknowledges = |live: &Live| live.world.peer.acknowledges_ns();
    let timeouts = [
        write(after).filter(|_| write(after) != write(before)).map(|armed| armed.timeout),
        // Where it is armed makes a difference.
        keepalive(after)
            .filter(|armed| cfg.wheel.is_edge(armed.timeout) && keepalive(before) != Some(*armed))
            .map(|armed| armed.timeout),
        after.sock.delack_timer.filter(|_| before.sock.delack_timer.is_none()).map(|a| a.timeout),
        after
            .world
            .hop
            .fires()
            .filter(|at| before.world.hop.fires() != Some(*at))
            .map(|_| after.world.hop.timeout(cfg)),
        acknowledges(after)
            .filter(|at| acknowledges(before) != Some(*at))
            .map(|_| after.world.peer.delayed_ack),
        Some(effects.waits),
    ];
    timeouts.into_iter().flatten().map(|timeout| cfg.wheel.slot(timeout)).max().unwrap_or(1)
}

/// Up to which slot keepalive's timer asks for the phase of the clock when it may fire.
pub(super) fn asks_to_fire(live: &Live, cfg: &Kernel) -> Option<u64> {
    let slot = cfg.wheel.slot(live.sock.keepalive_timer?.timeout);
    (slot > live.world.phase).then_some(slot)
}

impl Explorer<'_> {
    /// Goes through the phases of the clock up to a slot: the same run in each of them.
    pub(super) fn part(&mut self, live: &Live, pasts: &[Past], slot: u64) {
        let tick_ns = self.cfg.hz.tick_ns();
        self.began += (slot / live.world.phase) as usize - 1;
        for jiffies in (0..slot).step_by(live.world.phase as usize) {
            let mut later = put_off(live, (jiffies, tick_ns), slot);
            if let Some(asked) = asks_to_fire(live, self.cfg).filter(|asked| *asked <= slot)
                && let Some(armed) = &mut later.sock.keepalive_timer
            {
                armed.fires = armed.fires.next_multiple_of(asked);
            }
            let pasts = pasts.iter().map(|past| put_past_off(past, (jiffies, 0), tick_ns));
            self.push(later, pasts.collect());
        }
    }

    /// The same where keepalive's timer asks, which may fire: at the end of the same slot in all phases, in
    /// another part of which it was armed in each.
    pub(super) fn part_to_fire(&mut self, live: &Live, pasts: &[Past], slot: u64) {
        let Some(armed) = live.sock.keepalive_timer else { return };
        let tick_ns = self.cfg.hz.tick_ns();
        let known = live.world.phase;
        let fires = armed.fires.next_multiple_of(slot) + slot;
        let firing = |jiffies| {
            let mut later = put_off(live, (jiffies, tick_ns), slot);
            later.sock.keepalive_timer = Some(Armed { fires, ..armed });
            later
        };
        let from = (fires - slot + 1 - armed.fires).next_multiple_of(known);
        let to = from + slot - known;
        let run = firing(from);
        if run != firing(to) {
            // Something else is planned: each phase is another run.
            for (jiffies, less) in some(from, to, known) {
                let pasts = pasts.iter().map(|past| put_past_off(past, (jiffies, less), tick_ns));
                self.push(firing(jiffies), pasts.collect());
                self.began += 1;
            }
            return;
        }
        let mut all = Vec::new();
        for past in pasts {
            // Once it was idle for long enough it does not matter for how long, but to a user timeout.
            let idle = fires.saturating_sub(past.stamps.rcv_tstamp + self.cfg.keepalive_time);
            let alike =
                idle.min(to).checked_sub(from).filter(|_| self.cfg.user_timeout_ms.is_none());
            let alike = alike.map(|jiffies| jiffies / known * known);
            let rest = alike.map_or(from, |jiffies| from + jiffies + known);
            let alike = alike.map(|jiffies| (from + jiffies, jiffies));
            let put_off = alike.into_iter().chain(some(rest, to, known));
            all.extend(put_off.map(|jiffies| put_past_off(past, jiffies, tick_ns)));
        }
        self.push(run, all);
    }
}

/// Some of these phases, a number of jiffies apart: each with how many jiffies there are to the first of those
/// that it stands for.
fn some(from: u64, to: u64, apart: u64) -> impl Iterator<Item = (u64, u64)> {
    let all = (to + apart).saturating_sub(from) / apart;
    let stride = (all.div_ceil(PHASES_MOST) * apart).max(1);
    (from..=to).step_by(stride as usize).map(move |first| {
        let last = (first + stride - apart).min(to);
        (last, last - first)
    })
}

/// A run that is put off by so many jiffies, of which the phase of the clock is known up to a slot.
fn put_off(live: &Live, (jiffies, tick_ns): (u64, u64), slot: u64) -> Live {
    let mut live = live.clone();
    live.put_off(jiffies, jiffies * tick_ns);
    live.world.phase = slot;
    live
}

/// What has led to it, and to those that are put off by up to so many less.
fn put_past_off(past: &Past, (jiffies, less): (u64, u64), tick_ns: u64) -> Past {
    let mut past = past.clone();
    past.put_off(jiffies, jiffies * tick_ns);
    past.open(less * tick_ns);
    past
}
