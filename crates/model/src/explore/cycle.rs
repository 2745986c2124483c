//! Retransmissions that are all alike: each draws its ICMP error, which takes the doubling back, so that
//! the next comes at the same distance. They are skipped, to the last but a few before something changes.
//!
//! A handler that runs late puts off what follows by a slot of the wheel, or by nothing where the slot
//! takes it up. After so many timeouts any number of them may have run late: each is a run of its own.

use super::alike::merge;
use super::{Event, Explorer};
use crate::kernel::Kernel;
use crate::prediction::COUNTED_MOST;
use crate::run::{Live, Past};
use crate::sock::{Stamps, Timer};
use std::collections::{BTreeMap, HashMap};

/// So many timeouts before something changes are gone through one by one.
const LAST: u64 = 2;

/// A run that goes on by so many timeouts that are all alike.
struct Alike {
    live: Live,
    pasts: Vec<Past>,
    /// When the first of them is due, nanoseconds.
    at_ns: u64,
    count: u64,
}

/// Which of them have led to a run, and whether by a timeout that ran late.
type From = Vec<(usize, bool)>;

impl Explorer<'_> {
    /// Goes on by all timeouts that are like the next one; says whether there are several.
    pub(super) fn skip_timeouts(&mut self, live: &Live, pasts: &[Past], at_ns: u64) -> bool {
        let alone = live.world.in_flight.is_empty()
            && live.program.next.is_none()
            && live.program.answer_due.is_none()
            && !live.world.hop.has_timer();
        if !alone || live.world.is_silent() {
            return false;
        }
        let cfg = self.cfg_at(live, at_ns);
        let Some(gap) = self.gap(live, pasts, cfg, (at_ns, at_ns)) else { return false };
        let late_ns = if cfg.virtual_time { at_ns } else { at_ns + cfg.hz.tick_ns() };
        let Some(latest) = self.gap(live, pasts, cfg, (at_ns, late_ns)) else { return false };
        let count = |live: &Live, pasts: &[Past], at_ns: u64| {
            let room_ns = Self::changes_at(live, pasts, cfg, at_ns)?.saturating_sub(at_ns);
            let room = (room_ns / (latest * cfg.hz.tick_ns())).saturating_sub(LAST);
            Some(live.sock.timeouts_alike().min(room)).filter(|count| *count >= LAST)
        };
        let Some(first) = count(live, pasts, at_ns) else { return false };
        let mut alike =
            vec![Alike { live: live.clone(), pasts: pasts.to_vec(), at_ns, count: first }];
        for (live, pasts, at_ns) in self.take_alike(live, at_ns, latest) {
            match count(&live, &pasts, at_ns) {
                Some(count) => alike.push(Alike { live, pasts, at_ns, count }),
                None => self.push(live, pasts),
            }
        }
        self.skip_all(cfg, &alike, (gap, latest));
        true
    }

    /// Takes the runs out that are like this one but for their time, up to the one that follows it.
    fn take_alike(&mut self, live: &Live, at_ns: u64, gap: u64) -> Vec<(Live, Vec<Past>, u64)> {
        let tick_ns = self.cfg.hz.tick_ns();
        let until_ns = at_ns + gap * tick_ns;
        let mut alike = Vec::new();
        for (at_ns, lives) in self.frontier.range_mut(at_ns..until_ns) {
            let (taken, left) = std::mem::take(lives).into_iter().partition(|(other, _)| {
                let mut other = other.clone();
                other.sock.timeouts = live.sock.timeouts;
                if let (Some((_, armed)), Some((_, like))) =
                    (&mut other.sock.write_timer, live.sock.write_timer)
                {
                    armed.fires = like.fires;
                }
                *other == *live
            });
            *lives = left;
            let taken: Vec<(Box<Live>, _)> = taken;
            self.on_their_way -= taken.len();
            alike.extend(
                taken.into_iter().map(|(live, pasts)| (*live, merge(pasts, tick_ns), *at_ns)),
            );
        }
        alike
    }

    /// Goes on by so many timeouts of each: by all runs that may come of it, by how many timeouts ran
    /// late.
    fn skip_all(&mut self, cfg: &Kernel, alike: &[Alike], (gap, latest): (u64, u64)) {
        let mut led: BTreeMap<_, (Live, From)> = BTreeMap::new();
        for (index, Alike { live, count, .. }) in alike.iter().enumerate() {
            for late in 0..=if latest > gap { *count } else { 0 } {
                let mut next = live.clone();
                next.sock.skip(Timer::Write, *count as u32, count * gap + late * (latest - gap));
                let place = (next.sock.fires(Timer::Write).unwrap_or(0), next.sock.timeouts);
                led.entry(place).or_insert((next, Vec::new())).1.push((index, late > 0));
            }
        }
        let mut pasts_of: HashMap<From, Vec<Past>> = HashMap::new();
        for (next, from) in led.into_values() {
            let pasts = pasts_of.entry(from).or_insert_with_key(|from| {
                let all = from.iter().flat_map(|(index, late)| {
                    let run = &alike[*index];
                    run.pasts.iter().map(|past| skipped(past, cfg, run, (gap, latest, *late)))
                });
                merge(all.collect(), cfg.hz.tick_ns())
            });
            self.push(next, pasts.clone());
        }
    }

    /// When something changes for the first of these pasts, nanoseconds.
    fn changes_at(live: &Live, pasts: &[Past], cfg: &Kernel, at_ns: u64) -> Option<u64> {
        let mut sock = live.sock.clone();
        let lingers_ns = sock.orphaned_ns.filter(|ns| *ns >= at_ns);
        let keepalive_ns = sock.fires(Timer::Keepalive).map(|fires| fires * cfg.hz.tick_ns());
        let all = [live.world.next_change(), lingers_ns, keepalive_ns];
        let mut first_ns = all.into_iter().flatten().min().unwrap_or(u64::MAX);
        for past in pasts {
            sock.stamps = past.stamps;
            first_ns = first_ns.min(sock.over_ns(cfg, at_ns)?);
        }
        Some(first_ns)
    }

    /// How long after this timeout the next one comes, jiffies, if that is the same again.
    fn gap(
        &self,
        live: &Live,
        pasts: &[Past],
        cfg: &Kernel,
        (due_ns, now_ns): (u64, u64),
    ) -> Option<u64> {
        let mut next = live.clone();
        next.sock.stamps = pasts.first()?.stamps;
        let timeout = Event::Expiry(Timer::Write);
        let (progress, ..) = self.handle(&mut next, timeout, cfg, (due_ns, now_ns));
        if progress.is_err() || std::mem::take(&mut next.world.choices).next() {
            return None;
        }
        next.world.take_seen();
        next.sock.stamps = Stamps::default();
        self.forget(&mut next);
        let (fires, (_, armed)) = (live.sock.fires(Timer::Write)?, next.sock.write_timer.as_mut()?);
        let gap = armed.fires - fires;
        armed.fires = fires;
        next.sock.timeouts = live.sock.timeouts;
        (next == *live).then_some(gap)
    }
}

/// What has led to a run, after so many more timeouts.
fn skipped(past: &Past, cfg: &Kernel, run: &Alike, (gap, latest, late): (u64, u64, bool)) -> Past {
    let Alike { live, at_ns, count, .. } = run;
    let (at_ns, count) = (*at_ns, *count);
    let mut past = past.clone();
    let timeout = live.sock.armed(Timer::Write).map_or(0, |armed| armed.timeout);
    let timeout_ns = timeout * cfg.hz.tick_ns();
    let seen = if live.world.unseen { 0 } else { count as u32 };
    let shown = COUNTED_MOST.saturating_sub(live.sock.timeouts).min(count as u32);
    let kind = (live.sock.sends_again(), live.world.unseen);
    let [gap_ns, latest_ns] =
        [gap, if late { latest } else { gap }].map(|gap| gap * cfg.hz.tick_ns());
    past.push_alike(kind, shown, at_ns, (gap_ns, latest_ns), timeout_ns);
    past.late |= late;
    // Nothing asks for it before the timer fires.
    past.stamps.expires = 0;
    past.slots += count * cfg.wheel.slot(timeout);
    past.skip(Timer::Write, count * timeout_ns, seen);
    past
}
