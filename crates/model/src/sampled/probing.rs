//! A socket whose peer has closed its window. When its first probe was sent (`icsk_probes_tstamp`) is
//! not in a sample, and matters only to `TCP_USER_TIMEOUT`, which counts from then.

use super::{Sampled, armed_before, overdue, slots};
use crate::kernel::Kernel;
use crate::sock::{Armed, Pending, Sock, Stamps, probe0_when};
use crate::wheel::Context;
use spec::facts::TcpFacts;
use std::collections::BTreeSet;

pub(super) fn sockets(cfg: &Kernel, tcp: &TcpFacts, sock: &Sock, sampled: u64) -> Vec<Sampled> {
    let mut sock = sock.clone();
    sock.window_closed = true;
    sock.waiting = true;
    sock.backoff = tcp.backoff.into();
    sock.probes_out = tcp.probes.into();
    let expires = sock.stamps.expires;
    let whole = probe0_when(cfg, sock.rto, sock.backoff);
    let timer = |fires, timeout| Some((Pending::WindowProbe, Armed { fires, timeout }));
    let context = if sock.probes_out > 0 { Context::Handler } else { Context::Call };
    let armed = expires.saturating_sub(whole);
    let fires = cfg.wheel.fires_at(armed, whole, context);
    let uncut = Sock { write_timer: timer(fires, whole), ..sock.clone() };
    let Some(ms) = cfg.user_timeout_ms.filter(|_| sock.backoff > 0) else {
        let probes_tstamp = (sock.backoff > 0).then_some(0);
        return vec![(uncut, vec![Stamps { probes_tstamp, ..sock.stamps }])];
    };
    let patience = cfg.hz.from_msecs(ms);
    let stamps = |first| Stamps { probes_tstamp: Some(first), ..sock.stamps };
    let mut all = Vec::new();
    if armed <= sampled {
        let rtt = rtt(cfg, tcp);
        let overdue = overdue(cfg, tcp, whole);
        let firsts = firsts(cfg, &sock, &(armed.saturating_sub(overdue)..=armed).collect(), rtt);
        let lasts = |first: &u64| first + patience + overdue >= expires;
        let lasting = firsts.into_iter().filter(lasts);
        all.push((uncut, lasting.map(stamps).collect()));
    }
    // `tcp_clamp_probe0_to_user_timeout` has cut it: it ends when the timeout is over.
    let first = expires.saturating_sub(patience);
    if expires <= sampled + whole && first <= sampled {
        for fires in slots(cfg, expires, sampled, whole.min(patience)) {
            let cut = Sock { write_timer: timer(fires, expires - sampled), ..sock.clone() };
            all.push((cut, vec![stamps(first)]));
        }
    }
    all
}

/// A round trip, jiffies: the least and the most.
fn rtt(cfg: &Kernel, tcp: &TcpFacts) -> [u64; 2] {
    let most = cfg.hz.from_usecs(tcp.srtt_us.into());
    [most.saturating_sub(1), most]
}

/// When the first probe may have been sent, if the timer was armed at one of these jiffies: by the
/// last probe's handler, or by its answer.
fn firsts(cfg: &Kernel, sock: &Sock, armed: &BTreeSet<u64>, rtt: [u64; 2]) -> BTreeSet<u64> {
    // An answer that comes in the jiffy of its probe sets the timer for the same jiffy again.
    let sent = |armed: &BTreeSet<u64>, may_be_answered: bool| -> BTreeSet<u64> {
        let answered = armed.iter().flat_map(|at| rtt.map(|rtt| at.saturating_sub(rtt)));
        let silent = armed.iter().copied();
        if may_be_answered { silent.chain(answered).collect() } else { silent.collect() }
    };
    let mut unanswered = sock.probes_out;
    let mut at = sent(armed, unanswered == 0);
    for backoff in (1..sock.backoff).rev() {
        unanswered = unanswered.saturating_sub(1);
        let timers = armed_before(cfg, &at, probe0_when(cfg, sock.rto, backoff));
        at = sent(&timers, unanswered == 0);
    }
    at
}
