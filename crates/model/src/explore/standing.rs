//! Runs that stand for others where too many differ in time alone.

use super::{End, Explorer, event::next};
use crate::run::{Live, Past};
use crate::step::Told;
use std::collections::HashMap;

/// Of runs that stand for others, how many there are in the time of one timeout.
const STANDING: u64 = 8;

/// The runs that stand for others. Where ICMP errors come, a retransmission may follow the other at
/// the same distance for long, and each may be a jiffy late: once they have come to every phase
/// ([`super::LATE_STEPS`]), those beyond [`COUNTED_MOST`], which are no longer counted, are a few runs, and each
/// end of theirs is open by what lies between it and the next.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// When the last of them came so far, nanoseconds, by how far it had doubled and how much waited at its hop.
    came: HashMap<(u32, usize), u64>,
    /// From the reference to `retrans_stamp`, at least and at most, nanoseconds.
    to_stamp_ns: Option<(u64, u64)>,
    /// How far apart they are at most, nanoseconds.
    apart_ns: u64,
}

impl Explorer<'_> {
    /// Whether a run that has come to so many timeouts stands for others.
    pub(super) fn stands(&mut self, live: &Live, pasts: &[Past]) -> bool {
        for past in pasts {
            let Some(stamp_ns) = past.stamps.retrans_stamp else { continue };
            let (least, most) = self.standing.to_stamp_ns.unwrap_or((u64::MAX, 0));
            self.standing.to_stamp_ns = Some((
                least.min(stamp_ns.saturating_sub(past.start.1)),
                most.max(stamp_ns.saturating_sub(past.start.0)),
            ));
        }
        let Some((at_ns, _)) = next(live, self.cfg) else { return true };
        let apart_ns = live.sock.rto * self.cfg.hz.tick_ns() / STANDING;
        self.standing.apart_ns = self.standing.apart_ns.max(apart_ns);
        let came = &mut self.standing.came;
        let last_ns = came.entry((live.sock.backoff, live.world.hop.waiting())).or_default();
        let stands = at_ns >= *last_ns + apart_ns;
        if stands {
            *last_ns = at_ns;
        }
        stands
    }

    /// The end of a run that stands for others.
    pub(super) fn stood_for(&self, live: &Live, past: Past, told: &Told, gave_up: bool) -> End {
        let apart_ns = self.standing.apart_ns + self.cfg.hz.tick_ns();
        let start = match (self.standing.to_stamp_ns, past.stamps.retrans_stamp) {
            (Some((least, most)), Some(stamp_ns)) => {
                (stamp_ns.saturating_sub(most), stamp_ns.saturating_sub(least))
            }
            _ => past.start,
        };
        let mut sock = live.sock.clone();
        sock.stamps = past.stamps;
        let cfg = self.cfg_at(live, told.at_ns);
        let open_ns = match sock.over_ns(cfg, told.at_ns).filter(|_| gave_up) {
            Some(over_ns) => (told.at_ns.saturating_sub(over_ns).min(apart_ns), apart_ns),
            None => (apart_ns, apart_ns),
        };
        End { start, ..End::new(live, past, told.outcome, told.at_ns, open_ns, None) }
    }
}
