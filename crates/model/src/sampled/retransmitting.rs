//! A socket with something unacknowledged: a SYN, data, a FIN.

use super::{IfIt, Look, Sampled, armed_before, overdue, slots, thinned};
use crate::allowance;
use crate::kernel::Kernel;
use crate::prediction::{Prediction, Window};
use crate::rto;
use crate::sock::{Armed, Carries, Pending, Segment, Sock, Stamps, State, Timer};
use crate::wheel::Context;
use crate::width::Cause;
use spec::facts::TcpFacts;
use spec::{Errno, Outcome};
use std::collections::BTreeSet;
use std::time::Duration;

/// `TCP_THIN_LINEAR_RETRIES` (include/net/tcp.h).
const THIN_LINEAR_RETRIES: u32 = 6;

pub(super) fn sockets(
    cfg: &Kernel,
    tcp: &TcpFacts,
    sock: &Sock,
    look: Look,
    if_it: IfIt,
) -> Vec<Sampled> {
    let mut sock = sock.clone();
    let sent = look.jiffy.saturating_sub(cfg.hz.whole_in_msecs(tcp.last_data_sent_ms.into()));
    let out = tcp.unacked.max(1);
    let carries = match sock.state {
        State::SynSent => Carries::Syn,
        State::FinSent if out == 1 => Carries::Fin,
        _ => Carries::Data,
    };
    sock.rto_base = rto_base(cfg, tcp, sock.rto);
    // What was small has been gathered.
    let segment = Segment {
        carries,
        sent_ns: sent * cfg.hz.tick_ns(),
        first_sent_ns: 0,
        resent: tcp.retrans > 0,
        bytes: cfg.mss,
        writes: 1,
        merged: false,
    };
    sock.queue = vec![segment; out as usize];
    sock.waiting = tcp.notsent_bytes > 0;
    sock.timeouts = tcp.retransmits.into();
    sock.backoff = tcp.backoff.into();
    sock.retrans_out = tcp.retransmits > 0;
    if tcp.retransmits > 0 {
        again(cfg, tcp, &sock, sent, look)
    } else {
        let first = first(cfg, tcp, &sock, sent, look.jiffy);
        first.iter().flat_map(|sampled| open(cfg, tcp, sampled, look, if_it)).collect()
    }
}

/// `__tcp_set_rto`, jiffies: the RTO without its doublings, or if these have brought it to its longest,
/// what round trips make it where none varied much.
fn rto_base(cfg: &Kernel, tcp: &TcpFacts, rto: u64) -> u64 {
    let backoff = u32::from(tcp.backoff);
    if ![cfg.rto_max, cfg.hz.tcp_rto_max()].contains(&rto) || backoff == 0 {
        return (rto >> backoff.min(63)).max(1);
    }
    let variance_us = cfg.hz.to_usecs(cfg.rto_min).max(u64::from(tcp.rttvar_us) * 4);
    rto::from_estimate(cfg, u64::from(tcp.srtt_us), variance_us)
}

/// Nothing has timed out yet: the tail loss probe is yet to come, or out.
fn first(cfg: &Kernel, tcp: &TcpFacts, sock: &Sock, sent: u64, sampled: u64) -> Vec<Sampled> {
    let expires = sock.stamps.expires;
    let syn = sock.state == State::SynSent;
    let probe = rto::probe_timeout(cfg, sock.srtt_us, sock.queue.len()).min(sock.rto);
    // In loss recovery there is none.
    let probes = cfg.tail_loss_probe && !syn && tcp.retrans == 0;
    let fits = |timeout: u64| (sent + timeout).abs_diff(expires) <= 1;
    let may_be_rto = !probes || may_be_out(tcp, sock) || expires > sampled + sock.rto.min(probe);
    // A route's or a socket's own `rto_min` shows in the RTO alone.
    let by_rto_min = sock.rto > cfg.hz.from_usecs(sock.srtt_us) + cfg.rto_min + 1;
    let timers = [
        (Pending::LossProbe, probe, probes),
        (Pending::LossProbe, sock.rto, probes && by_rto_min && sock.queue.len() == 1),
        (Pending::Retransmission, sock.rto, may_be_rto),
    ];
    let timers = timers
        .into_iter()
        .filter(|(_, timeout, possible)| *possible && expires <= sampled + timeout);
    let fitting: Vec<_> = timers.clone().filter(|(_, timeout, _)| fits(*timeout)).collect();
    let mut timers = if fitting.is_empty() { timers.collect() } else { fitting };
    if timers.is_empty() {
        timers.push((Pending::Retransmission, expires - sampled, true));
    }
    let mut all = Vec::new();
    for (pending, timeout, _) in timers {
        let armed = expires.saturating_sub(timeout);
        // A FIN or a SYN is not data: `tcpi_last_data_sent` does not tell of it.
        let sent_ns =
            if sock.queue[0].carries == Carries::Data { sent } else { armed } * cfg.hz.tick_ns();
        // A SYN is stamped when it is sent.
        let retrans_stamp = syn.then_some(armed * cfg.hz.tick_ns());
        let fires = if armed <= sampled && (fits(timeout) || sock.queue.len() == 1) {
            [Context::Call, Context::Handler]
                .map(|context| cfg.wheel.fires_at(armed, timeout, context))
                .into()
        } else {
            slots(cfg, expires, sampled, timeout.max(expires - sampled))
        };
        for fires in fires {
            let mut sock = sock.clone();
            sock.write_timer = Some((pending, Armed { fires, timeout }));
            sock.tlp_out = (pending == Pending::Retransmission && !syn).then(|| sock.next_number());
            sock.queue.iter_mut().for_each(|segment| segment.sent_ns = sent_ns);
            let stamps = Stamps { retrans_stamp, ..sock.stamps };
            all.push((sock, vec![stamps]));
        }
    }
    all
}

/// Whether a tail loss probe may be out already, as new data or as the last segment again: only that is
/// counted, and not apart from other retransmissions of the connection's life.
fn may_be_out(tcp: &TcpFacts, sock: &Sock) -> bool {
    sock.queue.len() > 1 || tcp.total_retrans.is_none_or(|count| count > 0)
}

/// What a look at such a socket does not show: whether a probe is out although another is pending, which
/// new data have armed and which sends nothing (`tlp_high_seq`), and when the first segment was sent.
fn open(
    cfg: &Kernel,
    tcp: &TcpFacts,
    (sock, stamps): &Sampled,
    look: Look,
    if_it: IfIt,
) -> Vec<Sampled> {
    let is_probe = matches!(sock.write_timer, Some((Pending::LossProbe, _)));
    let is_out = (is_probe && may_be_out(tcp, sock))
        .then(|| Sock { tlp_out: Some(sock.next_number()), ..sock.clone() });
    let both = std::iter::once(sock.clone()).chain(is_out);
    let sampled = both.flat_map(|sock| {
        // Who asks how long its RTO lasts.
        let asks = match if_it {
            IfIt::WritesNow => Some(look.jiffy),
            _ if is_probe && sock.tlp_out.is_some() => sock.fires(Timer::Write),
            IfIt::StaysIdle | IfIt::StaysAsItIs => None,
        };
        let heads = heads(cfg, &sock, asks, look);
        heads.into_iter().map(move |head_ns| {
            let mut sock = sock.clone();
            sock.queue[0].sent_ns = head_ns;
            (sock, stamps.clone())
        })
    });
    sampled.collect()
}

/// When the first segment may have been sent, nanoseconds, as far as that makes a difference to who asks at a
/// jiffy what is left of its RTO (`tcp_rto_delta_us`): with the last segment, or before it.
fn heads(cfg: &Kernel, sock: &Sock, asks: Option<u64>, look: Look) -> Vec<u64> {
    let tick_ns = cfg.hz.tick_ns();
    let last_ns = sock.queue[0].sent_ns;
    let Some(at) = asks.filter(|_| sock.queue[0].carries == Carries::Data) else {
        return vec![last_ns];
    };
    let last = last_ns / tick_ns;
    let ends_ns = |jiffy| (jiffy + 1) * tick_ns - 1;
    // The loss probe that the last segment has armed comes no later than an RTO that was not over yet.
    let expires = sock.stamps.expires;
    let by_last = sock.write_timer.is_some_and(|(pending, armed)| {
        pending == Pending::LossProbe && (last + armed.timeout).abs_diff(expires) <= 1
    });
    let may_be = |sent: &u64| !(last + 1..expires).contains(&(sent + 1 + sock.rto)) || !by_last;
    let over = at.saturating_sub(sock.rto + 1).min(last);
    let earliest = over.min(last.saturating_sub(sock.rto + 1));
    let earliest = if sock.queue.len() > 1 { earliest } else { last };
    let before: BTreeSet<_> = (earliest..last).filter(may_be).map(|sent| sent.max(over)).collect();
    // Looks that stand for several jiffies do so here too.
    let stride = (look.between_ns / tick_ns).max(1);
    let before = before.into_iter().step_by(stride as usize).map(ends_ns);
    before.chain([last_ns, ends_ns(last).min(look.at_ns)]).collect()
}

/// It has timed out so often, and its handler armed the timer when it last sent.
fn again(cfg: &Kernel, tcp: &TcpFacts, sock: &Sock, sent: u64, look: Look) -> Vec<Sampled> {
    let (expires, sampled) = (sock.stamps.expires, look.jiffy);
    let tick_ns = cfg.hz.tick_ns();
    let uncut = expires.saturating_sub(sock.rto);
    let expiring = |armed: u64, fires: u64, firsts: BTreeSet<u64>| {
        let timer = Armed { fires, timeout: expires - armed };
        let sock = Sock { write_timer: Some((Pending::Retransmission, timer)), ..sock.clone() };
        let stamps = |first| Stamps { retrans_stamp: Some(first * tick_ns), ..sock.stamps };
        let stamps: Vec<_> = firsts.into_iter().map(stamps).collect();
        (sock, stamps)
    };
    let chains = chains(cfg, tcp, sock, look);
    let overdue = overdue(cfg, tcp, sock.rto);
    let last = uncut.saturating_sub(overdue)..=uncut;
    let lasts = |first: u64| cut_at(cfg, first).is_none_or(|over| over + 1 + overdue >= expires);
    let is_cut = |first: u64| cut_at(cfg, first).is_some_and(|over| over <= expires + 1);
    let fires = cfg.wheel.fires_at(uncut, sock.rto, Context::Handler);
    if let Some(chains) = &chains {
        let whole = chains
            .iter()
            .filter(|(first, ran)| ran.range(last.clone()).next().is_some() && lasts(*first));
        let mut all = vec![expiring(uncut, fires, whole.map(|(first, _)| *first).collect())];
        // `tcp_clamp_rto_to_user_timeout` has cut it: it ends when the timeout is over.
        for (first, ran) in chains.iter().filter(|(first, _)| is_cut(*first)) {
            all.extend(ran.range(uncut + 1..=sampled).map(|armed| {
                let fires = cfg.wheel.fires_at(*armed, expires - armed, Context::Handler);
                expiring(*armed, fires, [*first].into())
            }));
        }
        if all.iter().any(|(_, stamps)| !stamps.is_empty()) {
            return all;
        }
    }
    // Nothing tells of the first timeout, or it has not gone by the clock since then.
    let firsts = match chains {
        Some(chains) => chains.into_iter().map(|(first, _)| first).collect(),
        // The first timeout came after the last acknowledgement, and each at least an RTO later.
        None if reverted(cfg, tcp) => {
            let least_ago = u64::from(sock.timeouts - 1) * sock.rto_base;
            [sock.stamps.rcv_tstamp, uncut.saturating_sub(least_ago)].into()
        }
        None => firsts(cfg, sock, last.collect()),
    };
    let mut all = Vec::new();
    if uncut <= sampled {
        let lasting = firsts.iter().copied().filter(|first| lasts(*first));
        all.push(expiring(uncut, fires, lasting.collect()));
    }
    if let Some(patience) = cut_at(cfg, 0) {
        let known = sock.queue[0].carries == Carries::Data && (uncut..=sampled).contains(&sent);
        let longest = if known { expires - sent } else { sock.rto };
        let slots = slots(cfg, expires, sampled, longest.max(expires - sampled));
        let first = expires.saturating_sub(patience);
        all.extend(slots.into_iter().map(|fires| expiring(sampled, fires, [first].into())));
    }
    if all.iter().all(|(_, stamps)| stamps.is_empty()) {
        all.push(expiring(uncut, fires, firsts));
    }
    all
}

/// The first timeouts that there may have been, by the milliseconds since then
/// (`tcpi_total_rto_time`, Linux 6.7), where it is the connection's first: when the retransmission
/// was stamped (of a SYN: the SYN itself), and when the last of the timeouts so far came; jiffies.
fn chains(
    cfg: &Kernel,
    tcp: &TcpFacts,
    sock: &Sock,
    look: Look,
) -> Option<Vec<(u64, BTreeSet<u64>)>> {
    let (least_ns, most_ns) = first_timeout(cfg, tcp, look)?;
    let tick_ns = cfg.hz.tick_ns();
    let late = u64::from(!cfg.virtual_time);
    let mut all = Vec::new();
    // A handler that ran late was stamped late.
    for first in least_ns / tick_ns..=most_ns / tick_ns {
        let ran = (1..sock.timeouts).fold(BTreeSet::from([first]), |ran, after| {
            let timeout = timeout_after(cfg, sock, after);
            let fires = |at: &u64| {
                let fires = cfg.wheel.fires_at(*at, timeout, Context::Handler);
                fires..=fires + late
            };
            thinned(&ran.iter().flat_map(fires).collect())
        });
        if sock.state == State::SynSent {
            let syns = armed_before(cfg, &[first].into(), timeout_after(cfg, sock, 0));
            all.extend(syns.into_iter().map(|syn| (syn, ran.clone())));
        } else {
            all.push((first, ran));
        }
    }
    Some(all)
}

/// `icsk_rto` after so many timeouts, jiffies. No longest one that is shorter than the last was in force.
fn timeout_after(cfg: &Kernel, sock: &Sock, timeouts: u32) -> u64 {
    let linear = sock.timeouts.saturating_sub(sock.backoff);
    let doubled = sock.rto_base.checked_shl(timeouts.saturating_sub(linear));
    let most = cfg.rto_max.max(sock.rto);
    doubled.map_or(most, |rto| rto.min(most))
}

/// The jiffy at which a user timeout is over that counts from a jiffy.
fn cut_at(cfg: &Kernel, first: u64) -> Option<u64> {
    Some(first + cfg.hz.from_msecs(cfg.user_timeout_ms?))
}

/// When the connection's only first timeout came: the earliest and the latest, nanoseconds.
fn first_timeout(cfg: &Kernel, tcp: &TcpFacts, look: Look) -> Option<(u64, u64)> {
    const MS: u64 = 1_000_000;
    if tcp.rto_recoveries != 1 {
        return None;
    }
    let stamp_ms = |looked_ns: u64| (looked_ns / MS).saturating_sub(tcp.rto_time_ms.into());
    let here = |monotonic_ns: u64| {
        let since = i128::from(monotonic_ns) - i128::from(look.monotonic_ns);
        u64::try_from(i128::from(look.at_ns) + since).unwrap_or(0)
    };
    let (from, to) = (look.monotonic_ns - look.within_ns, look.monotonic_ns + look.within_ns);
    let between_ns = if look.between_ns > 0 { cfg.hz.tick_ns() } else { 0 };
    let least_ns = here(stamp_ms(from) * MS).saturating_sub(between_ns);
    Some((least_ns, here(stamp_ms(to) * MS + MS - 1) + between_ns))
}

/// When the first retransmission may have been stamped (of a SYN: the SYN itself), if the last of
/// them was sent at one of these jiffies: each was `icsk_rto` of then before the next, and the slot
/// that this falls into, and a jiffy if its handler ran late.
fn firsts(cfg: &Kernel, sock: &Sock, last: BTreeSet<u64>) -> BTreeSet<u64> {
    let first = u32::from(sock.state != State::SynSent);
    (first..sock.timeouts)
        .rev()
        .fold(last, |at, after| armed_before(cfg, &at, timeout_after(cfg, sock, after)))
}

/// Whether ICMP errors have taken doublings of the RTO back (`tcp_ld_RTO_revert`).
pub(super) fn reverted(cfg: &Kernel, tcp: &TcpFacts) -> bool {
    let timeouts = u32::from(tcp.retransmits);
    let linear = match tcp.state {
        Some(spec::TcpState::SynSent) => cfg.syn_linear_timeouts,
        _ if cfg.thin_linear_timeouts => THIN_LINEAR_RETRIES,
        _ => 0,
    };
    tcp.timer == 1 && u32::from(tcp.backoff) < timeouts.saturating_sub(linear)
}

/// Each of the retransmissions to come may draw an ICMP error again, or not: it ends with the first
/// timeout once the patience is over, which comes no later than the longest timeout after that.
pub(super) fn open_to_icmp<'a>(
    prediction: &mut Prediction,
    cfg: &Kernel,
    sockets: impl Iterator<Item = (Look, &'a Sampled)>,
    longest: u64,
) {
    let tick_ns = cfg.hz.tick_ns();
    let slack = longest + cfg.wheel.slot(longest) + u64::from(!cfg.virtual_time);
    let spans = sockets.flat_map(|(look, (sock, stamps))| {
        stamps.iter().filter_map(move |stamps| {
            let sock = Sock { stamps: *stamps, ..sock.clone() };
            let over_ns = sock.over_ns(cfg, look.at_ns)?.max(sock.stamps.expires * tick_ns);
            let latest_ns = over_ns + slack * tick_ns;
            Some((
                over_ns.saturating_sub(look.at_ns + look.between_ns),
                (latest_ns + look.between_ns).saturating_sub(look.at_ns),
            ))
        })
    });
    let Some((least_ns, most_ns)) = spans.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) else {
        return;
    };
    let (earliest, latest) = (Duration::from_nanos(least_ns), Duration::from_nanos(most_ns));
    let span =
        (earliest.saturating_sub(allowance::EARLY), latest.saturating_add(allowance::late(cfg.hz)));
    let released = prediction.windows.iter().any(|window| window.outcome == Outcome::Released);
    let outcomes = if released {
        vec![Outcome::Released]
    } else {
        [Errno::EHOSTUNREACH, Errno::ENETUNREACH].map(Outcome::Errno).into()
    };
    prediction.windows = outcomes
        .into_iter()
        .map(|outcome| {
            Window::new(outcome, Some(span))
                .because([(Cause::Undetermined, latest.saturating_sub(earliest))])
        })
        .collect();
    prediction.schedule.clear();
    prediction.why = "ICMP errors have come back, which keep the timeouts short; when the patience is \
                      over, the next timeout ends it with the last of them. Which error that is, and \
                      whether more will come, is not in a sample"
        .into();
}
