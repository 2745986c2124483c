//! Facts without a measurement: what a connection on this path would settle at.

use crate::kernel::{Kernel, NEWEST_READ};
use crate::rto::{self, Estimator};
use spec::Parameters;
use spec::facts::{Facts, TcpFacts};

/// What a round trip costs on a path of veth pairs without added delay.
const OWN_RTT_US: i64 = 60;

/// The facts of an imagined machine with this HZ, the experiment's kernel or the newest that was read, Linux's
/// default sysctls and those the experiment sets: for `halfopen predict`, which needs no kernel.
pub fn nominal_facts(parameters: &Parameters, hz: u32) -> Facts {
    let mut facts = Facts {
        kernel: parameters.kernel.version.clone().unwrap_or_else(|| {
            let (major, minor) = NEWEST_READ;
            format!("{major}.{minor}")
        }),
        hz,
        sysctl: parameters.sysctl.clone(),
        server_sysctl: parameters.server_sysctl.clone(),
        tcp: None,
        jiffies: None,
        virtual_time: false,
        neighbour: None,
        server_tcp: None,
    };
    let kernel = Kernel::new(parameters, &facts);
    let [client, server] = settle(&kernel, parameters);
    (facts.tcp, facts.server_tcp) = (Some(tcp(&kernel, client)), Some(tcp(&kernel, server)));
    facts
}

fn tcp(kernel: &Kernel, (estimate, rto): (Estimator, u64)) -> TcpFacts {
    let us = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    TcpFacts {
        rto_us: us(kernel.hz.to_usecs(rto)),
        srtt_us: us(estimate.srtt_us()),
        rttvar_us: us(estimate.variance_us()) / 4,
        snd_mss: kernel.mss,
        snd_cwnd: 10,
        options: if kernel.tail_loss_probe { 7 } else { 5 },
        ..TcpFacts::default()
    }
}

/// Exchanges as the client makes them: until the RTO has not changed for five, forty at most. What the client's
/// estimate and RTO are then, and the server's, whose last answer is acknowledged late.
fn settle(kernel: &Kernel, parameters: &Parameters) -> [(Estimator, u64); 2] {
    let rtt_us = i64::try_from(parameters.path.rtt.as_micros()).unwrap_or(i64::MAX >> 8);
    let rtt_us = rtt_us.min(i64::MAX >> 8) + OWN_RTT_US;
    let rto_min_us = kernel.hz.to_usecs(kernel.rto_min) as i64;
    let mut estimate = Estimator::default();
    estimate.sample(rtt_us, rto_min_us); // the handshake
    let (mut rto, mut unchanged, mut exchanges) = (0, 0, 0);
    while unchanged < 5 && exchanges < 39 {
        estimate.sample(rtt_us, rto_min_us);
        let now = rto::from_estimate(kernel, estimate.srtt_us(), estimate.variance_us());
        unchanged = if now == rto { unchanged + 1 } else { 0 };
        rto = now;
        exchanges += 1;
    }
    let held_back_us = kernel.hz.to_usecs(rto::delayed_ack(kernel.hz, kernel.rto_min)) as i64;
    // The last exchange, after keepalive is switched on.
    [0, held_back_us].map(|later_us| {
        let mut estimate = estimate;
        estimate.sample(rtt_us + later_us, rto_min_us);
        let rto = rto::from_estimate(kernel, estimate.srtt_us(), estimate.variance_us());
        (estimate, rto)
    })
}
