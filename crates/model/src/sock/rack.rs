//! Segments that the peer misses, by what it has of those after them: `tcp_rack_detect_loss`,
//! `tcp_rack_reo_timeout` (net/ipv4/tcp_recovery.c), `tcp_xmit_retransmit_queue`.

use super::{Pending, Segment, Sock};
use crate::hop::Number;
use crate::rto::Estimator;
use crate::step::{Progress, Stamp, Step};

/// `TCP_FASTRETRANS_THRESH`.
const DUPTHRESH: Number = 3;
/// `TCP_TIMEOUT_MIN_US`.
const TIMEOUT_MIN_US: u64 = 2_000;

impl Sock {
    /// The peer has segments from `seen` on, of which `came` is new, and misses some before: these are lost
    /// at once, or after what packets that overtake each other would need.
    pub(crate) fn missing(&mut self, step: &mut Step<'_>, seen: Number, came: Number) -> Progress {
        self.received(step);
        let sacked = self.next_number().saturating_sub(seen);
        if !step.cfg.sack && sacked < DUPTHRESH {
            return Ok(());
        }
        self.sacked_from = seen;
        let newest = came.checked_sub(self.first).and_then(|place| self.queue.get(place));
        if let Some(&Segment { sent_ns, resent: false, .. }) = newest
            && step.cfg.sack
        {
            // `first_sackt` (`tcp_sacktag_one`).
            self.round_trip(step, sent_ns, 0, Estimator::sample_within);
        }
        // `tcp_rack_reo_wnd`.
        let window_us = (step.cfg.min_rtt_us / 4).min(self.srtt_us);
        let recovers = self.stamps.retrans_stamp.is_some() || sacked >= DUPTHRESH;
        if recovers || window_us == 0 {
            return self.tcp_rack_reo_timeout(step);
        }
        let timeout = step.cfg.hz.from_usecs(window_us + TIMEOUT_MIN_US);
        self.reset_xmit_timer(step, Pending::Reordering, timeout);
        Ok(())
    }

    /// `tcp_rack_reo_timeout`.
    pub(super) fn tcp_rack_reo_timeout(&mut self, step: &mut Step<'_>) -> Progress {
        // `tcp_init_cwnd_reduction`.
        self.tlp_out = None;
        if self.stamps.retrans_stamp.is_none() {
            self.stamp(step, Stamp::Retransmission(Some(step.now_ns)));
        }
        if self.sacked_from > self.first + 1 && step.world.peer.rtt_ns >= step.tick_ns() {
            // One at first, and more with each acknowledgement (`tcp_cwnd_reduction`).
            self.comes_again_slowly(step);
        }
        self.resend(step, self.sacked_from)
    }
}
