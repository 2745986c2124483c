//! The phase of the clock that cannot be known: it is gone through when a timer asks for it. A slot of the
//! wheel makes of every phase within it the same, and finer timers do not tell coarser phases apart: until a
//! coarser timer is armed, one run stands for all of them.

use super::Explorer;
use crate::kernel::Kernel;
use crate::run::{Live, Past};
use crate::step::Effects;

/// Up to which slot of the wheel a step asks for the phase of the clock, jiffies: for the timers that it
/// has armed, but for keepalive's, whose phases are gone through from the beginning.
pub(super) fn asks_for(before: &Live, after: &Live, effects: &Effects, cfg: &Kernel) -> u64 {
    let write = |live: &Live| live.sock.write_timer.map(|(_, armed)| armed);
    let acknowledges = |live: &Live| live.world.peer.acknowledges_ns();
    let timeouts = [
        write(after).filter(|_| write(after) != write(before)).map(|armed| armed.timeout),
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

impl Explorer<'_> {
    /// Goes through the phases of the clock up to a slot: the same run in each of them.
    pub(super) fn part(&mut self, live: &Live, pasts: &[Past], slot: u64) {
        let phases = slot / live.world.phase;
        self.began += phases as usize - 1;
        for phase in 0..phases {
            let jiffies = phase * live.world.phase;
            let by_ns = jiffies * self.cfg.hz.tick_ns();
            let mut live = live.clone();
            live.put_off(jiffies, by_ns);
            live.world.phase = slot;
            let mut pasts = pasts.to_vec();
            for past in &mut pasts {
                past.put_off(jiffies, by_ns);
            }
            self.push(live, pasts);
        }
    }
}
