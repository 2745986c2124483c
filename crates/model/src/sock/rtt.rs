//! What round trips make of the RTO: `tcp_ack_update_rtt`, `tcp_rtt_estimator`, `tcp_set_rto`
//! (net/ipv4/tcp_input.c).

use super::{Segment, Sock};
use crate::kernel::Kernel;
use crate::rto::{self, Estimator};
use crate::step::Step;

/// What time stamps tell round trips in (`tcp_rtt_tsopt_us`).
const TSOPT_US: u64 = 1_000;

/// After so many round trips that are alike, one more changes nothing.
const SETTLED_AFTER: u64 = 150;

/// How an estimator takes a round trip.
type Sample = fn(&mut Estimator, i64, i64);

/// What the round trips before have come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RttRange {
    /// With the least and the most variance that the RTO in whole jiffies leaves open.
    pub(crate) estimates: [Estimator; 2],
    /// Whether segments carry time stamps: only then one that was sent again gives a round trip,
    /// and takes the doublings of the RTO back.
    pub(crate) timestamps: bool,
    /// What they took before the fault, microseconds.
    pub(crate) usual_us: u64,
}

impl RttRange {
    /// `icsk_rto` once an acknowledgement has given one more round trip by `sample`, of which the least and
    /// the most are known: the least and the most, jiffies.
    fn sample(&mut self, cfg: &Kernel, rtt_us: (u64, u64), sample: Sample) -> (u64, u64) {
        let rto_min_us = cfg.hz.to_usecs(cfg.rto_min) as i64;
        let after = |estimate: &mut Estimator, rtt_us: u64| {
            let rtt_us = i64::try_from(rtt_us).unwrap_or(i64::MAX).min(i64::MAX >> 8);
            sample(estimate, rtt_us, rto_min_us);
            rto::from_estimate(cfg, estimate.srtt_us(), estimate.variance_us())
        };
        let [least, most] = &mut self.estimates;
        let least = after(least, rtt_us.0);
        (least, after(most, rtt_us.1).max(least))
    }
}

impl Sock {
    /// What so many more round trips, as they were before the fault, make of the RTO.
    pub(crate) fn settle(&mut self, cfg: &Kernel, times: u64) {
        let Some(rtt) = &mut self.rtt else { return };
        let usual_us = (rtt.usual_us, rtt.usual_us);
        for _ in 0..times.min(SETTLED_AFTER) {
            rtt.sample(cfg, usual_us, Estimator::sample);
        }
        let mut settled = *rtt;
        settled.estimates[1] = settled.estimates[0];
        for _ in 0..SETTLED_AFTER {
            settled.sample(cfg, usual_us, Estimator::sample);
        }
        let timeouts = |estimate: &Estimator| {
            let (srtt_us, variance_us) = (estimate.srtt_us(), estimate.variance_us());
            let probe = rto::probe_timeout(cfg, srtt_us.max(1), 2);
            (rto::from_estimate(cfg, srtt_us, variance_us), probe)
        };
        let is_settled = |estimate| timeouts(estimate) == timeouts(&settled.estimates[0]);
        if times > 0 && rtt.estimates.iter().all(is_settled) {
            *rtt = settled;
        }
    }

    /// `tcp_ack_update_rtt`. Without time stamps what was sent again tells nothing, and the RTO stays
    /// doubled (Karn's algorithm).
    pub(super) fn tcp_ack_update_rtt(
        &mut self,
        step: &mut Step<'_>,
        acked: &[Segment],
        echoed_ns: u64,
    ) {
        let resent = acked.iter().any(|segment| segment.resent);
        if resent && self.rtt.is_some_and(|rtt| !rtt.timestamps) {
            return;
        }
        let sent_ns = if resent { echoed_ns } else { acked[0].sent_ns };
        self.round_trip(step, sent_ns, TSOPT_US, Estimator::sample);
    }

    /// `tcp_rtt_estimator`, `tcp_set_rto`: what was sent then has come, give or take `within_us`.
    pub(super) fn round_trip(
        &mut self,
        step: &mut Step<'_>,
        sent_ns: u64,
        within_us: u64,
        sample: Sample,
    ) {
        let Some(rtt) = &mut self.rtt else {
            (self.rto, self.backoff) = (self.rto_base, 0);
            return;
        };
        let (first_ns, last_ns) = step.arrival_ns();
        let since_us = |ns: u64| ns.saturating_sub(sent_ns) / 1_000;
        let least_us = since_us(first_ns).saturating_sub(within_us);
        let most_us = since_us(last_ns).saturating_add(within_us);
        let (least, most) = rtt.sample(step.cfg, (least_us, most_us), sample);
        self.srtt_us = rtt.estimates[1].srtt_us().max(1);
        self.rto = (least..most).find(|_| step.either()).unwrap_or(most);
        (self.rto_base, self.backoff) = (self.rto, 0);
    }
}
