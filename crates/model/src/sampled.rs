//! Any live socket, in whatever trouble it is: when and how it ends from here, if its peer has
//! fallen silent. It starts from what `struct tcp_info`, sock_diag's timer and the socket's options
//! show (net/ipv4/inet_diag.c, `tcp_get_info`). What a sample cannot tell (the phase of the clock,
//! for how long the pending timer was armed and so its slot, when the first retransmission or
//! window probe was sent) is gone through, and shows in the window.

mod probing;
mod retransmitting;

use crate::conclude::unknown;
use crate::explore::Explorer;
use crate::hop::Hop;
use crate::kernel::Kernel;
use crate::prediction::Prediction;
use crate::program::{Call, Calls, Program};
use crate::run::{Live, Past};
use crate::scripted;
use crate::sock::{Armed, Sock, Stamps, State, Timer};
use crate::tick::{EPOCH, Hz, JiffyPhase};
use crate::wheel::Context;
use crate::windows::{Counted, windows};
use crate::world::{Moment, Peer, World};
use spec::facts::TcpFacts;
use spec::{Facts, FaultKind, Parameters, Reference, SocketOptions, TcpState};
use std::collections::BTreeSet;
use std::time::Duration;

/// What a socket's program does from the sample on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfIt {
    /// It makes no call.
    StaysIdle,
    /// It writes at the moment of the sample.
    WritesNow,
    /// The socket is in trouble already, and goes on.
    StaysAsItIs,
}

/// How many phases of the clock are looked at where none is known.
const PHASES_MOST: u64 = 128;
/// How long sampling a socket takes where that was not measured.
const LOOK_NS: u64 = 200_000;

/// What a socket's kernel will report, and when, if its peer is silent from now on. Times count
/// from the sample (the reference says `last-activity`, for want of a better name).
///
/// An ICMP error that came before the sample and took no doubling of the RTO back is not in it: the
/// kernel then reports that error at the same time, where this says ETIMEDOUT.
pub fn predict_socket(facts: &Facts, if_it: IfIt) -> Prediction {
    let parameters = parameters(facts);
    let mut cfg = Kernel::new(&parameters, facts);
    let Some(tcp) = &facts.tcp else {
        return unknown(&parameters, "the socket was not sampled".into());
    };
    if let Some(retries) = options(facts).syncnt.filter(|retries| *retries > 0) {
        cfg.syn_retries = retries;
    }
    let calls = match if_it {
        IfIt::WritesNow => Calls::one(Call::Write(1)),
        IfIt::StaysIdle | IfIt::StaysAsItIs => Calls::none(),
    };
    let (begun, explorer) = match go(&cfg, tcp, facts, &calls, if_it) {
        Ok(gone) => gone,
        Err(reason) => return unknown(&parameters, reason),
    };
    let counted = Counted {
        keepalive_probes: tcp.timer == TcpFacts::TIMER_KEEPALIVE && if_it != IfIt::WritesNow,
        window_probes: tcp.timer == TcpFacts::TIMER_PROBE0,
        ..Counted::default()
    };
    let (windows, schedule) = windows(&explorer.ends, &counted, Hz::new(facts.hz));
    let prediction = Prediction::of(Reference::LastActivity, windows, "");
    let mut prediction = Prediction { schedule, ..prediction };
    prediction.why = scripted::why(&cfg, &prediction);
    if retransmitting::reverted(&cfg, tcp) {
        let socks = begun.iter().flat_map(|(look, socks)| socks.iter().map(|s| (*look, s)));
        retransmitting::open_to_icmp(&mut prediction, &cfg, socks, explorer.longest);
    }
    prediction
}

fn options(facts: &Facts) -> SocketOptions {
    facts.tcp.as_ref().and_then(|tcp| tcp.options_set.clone()).unwrap_or_default()
}

/// The experiment that this socket would be in: its options, and a peer that falls silent.
fn parameters(facts: &Facts) -> Parameters {
    let mut parameters = Parameters::default();
    let options = options(facts);
    let ms = |ms: u32| Duration::from_millis(ms.into());
    let secs = |secs: u32| Duration::from_secs(secs.into());
    let by_timer = facts.tcp.as_ref().is_some_and(|tcp| tcp.timer == TcpFacts::TIMER_KEEPALIVE);
    let client = &mut parameters.client;
    client.keepalive.enabled = options.keepalive.unwrap_or(by_timer);
    client.keepalive.idle = options.keepidle_s.map(secs);
    client.keepalive.interval = options.keepintvl_s.map(secs);
    client.keepalive.probes = options.keepcnt;
    client.user_timeout = options.user_timeout_ms.filter(|ms| *ms > 0).map(ms);
    client.rto_max = options.rto_max_ms.map(ms);
    client.thin_linear_timeouts = options.thin_linear_timeouts.unwrap_or(false);
    parameters.fault.kind = FaultKind::PowerOff;
    parameters.fault.after = Duration::ZERO;
    parameters
}

/// A moment at which the kernel may have looked at the socket. Times are nanoseconds of one clock,
/// whose jiffy 0 is a multiple of every slot of the wheel.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// The jiffy.
    jiffy: u64,
    /// What times count from: the time stamp of the sample.
    at_ns: u64,
    /// By how much sooner and later than computed that may be.
    between_ns: u64,
    /// How long the look may have been before or after its time stamp.
    within_ns: u64,
    /// `CLOCK_MONOTONIC` at `at_ns`.
    monotonic_ns: u64,
}

/// The moments to go through: one for each jiffy in which the kernel may have looked, or where the
/// jiffy clock is not known, one for each phase of so many jiffies.
fn looks(cfg: &Kernel, tcp: &TcpFacts, facts: &Facts, period: u64) -> Vec<Look> {
    let tick_ns = cfg.hz.tick_ns();
    let within_ns = if tcp.sampled_within_ns > 0 { tcp.sampled_within_ns } else { LOOK_NS };
    let monotonic_ns = tcp.sampled_at_ns;
    let known = facts.jiffies.and_then(|clock| JiffyPhase::new(cfg.hz, clock).of(monotonic_ns));
    if let Some(at_ns) = known {
        let jiffies = (at_ns - within_ns) / tick_ns..=(at_ns + within_ns) / tick_ns;
        return jiffies
            .map(|jiffy| Look { jiffy, at_ns, between_ns: 0, within_ns, monotonic_ns })
            .collect();
    }
    let stride = period.div_ceil(PHASES_MOST);
    let look = |phase| {
        let jiffy = EPOCH + phase;
        let (at_ns, between_ns) = (jiffy * tick_ns + tick_ns / 2, stride * tick_ns);
        Look { jiffy, at_ns, between_ns, within_ns, monotonic_ns }
    };
    (0..period).step_by(stride as usize).map(look).collect()
}

/// A look, and the sockets that it may be of.
type Begun = (Look, Vec<Sampled>);

/// Goes through every state the socket may have had, at every moment at which the kernel may have
/// sampled it.
///
/// # Errors
/// Why that is not possible.
fn go<'a>(
    cfg: &'a Kernel,
    tcp: &TcpFacts,
    facts: &Facts,
    calls: &'a Calls,
    if_it: IfIt,
) -> Result<(Vec<Begun>, Explorer<'a>), String> {
    let mut period = 1;
    loop {
        let looks = looks(cfg, tcp, facts, period);
        let is_known = looks.iter().all(|look| look.between_ns == 0);
        let mut explorer = Explorer::new(cfg, None, calls);
        let mut begun = Vec::new();
        for look in looks {
            let sockets = sockets(cfg, tcp, look, if_it)?;
            for (sock, stamps) in &sockets {
                for stamps in stamps {
                    let (run, past) = run(cfg, calls, look, sock, *stamps);
                    explorer.start(run, past);
                }
            }
            begun.push((look, sockets));
        }
        explorer.go()?;
        // Slots of coarser timers than those that fire make no difference.
        let needed = cfg.wheel.slot(explorer.longest);
        if is_known || needed <= period {
            return Ok((begun, explorer));
        }
        period = needed;
    }
}

/// A run of a socket.
fn run(cfg: &Kernel, calls: &Calls, look: Look, sock: &Sock, stamps: Stamps) -> (Live, Past) {
    let mut world = World::new(cfg, Peer::new(0, 0), Hop::Silent);
    world.lost = Moment::Past;
    let start = (look.at_ns - look.between_ns, look.at_ns + look.between_ns);
    let mut past = Past::new(start, look.at_ns, stamps);
    for timer in [Timer::Write, Timer::Keepalive] {
        past.due(timer, sock.fires(timer).unwrap_or(0) * cfg.hz.tick_ns());
    }
    if sock.window_closed {
        past.counts.window_probes = sock.probes_out;
    }
    let program = Program::new(calls, look.at_ns, 0);
    let sock = Sock { stamps, ..sock.clone() };
    (Live::new(sock, world, program), past)
}

/// A socket, and the stamps that it may have.
type Sampled = (Sock, Vec<Stamps>);

/// The sockets that it may be a sample of.
fn sockets(cfg: &Kernel, tcp: &TcpFacts, look: Look, if_it: IfIt) -> Result<Vec<Sampled>, String> {
    let sampled = look.jiffy;
    let whole = |ms: u32| cfg.hz.whole_in_msecs(u64::from(ms));
    // `TCP_RTO_MAX_MS` may have been made shorter since the pending timer was armed: it stays as it is.
    let rto = cfg.hz.from_usecs(u64::from(tcp.rto_us)).max(1);
    let cwnd = if tcp.snd_cwnd == 0 { 10 } else { tcp.snd_cwnd };
    let mut sock = Sock::settled(rto, u64::from(tcp.srtt_us.max(1)), cwnd);
    sock.state = match tcp.state {
        None | Some(TcpState::Established | TcpState::CloseWait) => State::Open,
        Some(TcpState::FinWait1 | TcpState::Closing | TcpState::LastAck) => State::FinSent,
        Some(TcpState::FinWait2) => State::FinWait2,
        Some(TcpState::SynSent) => State::SynSent,
        Some(other) => return Err(format!("a socket in state {other} is not modelled")),
    };
    // A connection that no process has accepted yet has no inode either, but has not been closed.
    sock.closed = tcp.inode == Some(0) && matches!(sock.state, State::FinSent | State::FinWait2);
    sock.orphaned_ns = sock.closed.then_some(0);
    let received = sampled.saturating_sub(whole(tcp.last_ack_recv_ms.min(tcp.last_data_recv_ms)));
    sock.stamps.rcv_tstamp = received;
    sock.stamps.expires = sampled + whole(tcp.timer_expires_ms);
    let only = |sock: Sock| (sock.clone(), vec![sock.stamps]);
    match tcp.timer {
        0 => Ok(vec![only(sock)]),
        TcpFacts::TIMER_KEEPALIVE if if_it == IfIt::WritesNow => Ok(vec![only(sock)]),
        TcpFacts::TIMER_KEEPALIVE => {
            sock.keepopen = !sock.closed;
            sock.probes_out = tcp.probes.into();
            let longest = match (sock.closed, tcp.probes) {
                (true, _) => cfg.fin_timeout,
                (_, 0) => cfg.keepalive_time,
                _ => cfg.keepalive_interval,
            };
            let expires = sock.stamps.expires;
            let longest = longest.max(expires - sampled);
            let socks = slots(cfg, expires, sampled, longest).into_iter().map(|fires| {
                let timer = Armed { fires, timeout: longest };
                only(Sock { keepalive_timer: Some(timer), ..sock.clone() })
            });
            Ok(socks.collect())
        }
        TcpFacts::TIMER_PROBE0 => Ok(probing::sockets(cfg, tcp, &sock, sampled)),
        1 if tcp.snd_wnd == 0 && sock.state == State::Open && tcp.inode.is_some() => Err(
            "the peer closed its window while data were unacknowledged: retransmissions are probes \
             then, which is not modelled"
                .into(),
        ),
        1 => Ok(retransmitting::sockets(cfg, tcp, &sock, look, if_it)),
        other => Err(format!("a timer of kind {other} is not modelled")),
    }
}

/// The jiffies at which a timer for `expires` may fire that was armed before the sample for `longest`
/// jiffies at most: one for each slot that it may be in.
fn slots(cfg: &Kernel, expires: u64, sampled: u64, longest: u64) -> BTreeSet<u64> {
    let mut fires = BTreeSet::new();
    let mut delay = expires - sampled;
    while delay < longest {
        fires.insert(cfg.wheel.fires_at(expires - delay, delay, Context::Handler));
        delay = (delay * 8).max(1);
    }
    fires.insert(cfg.wheel.fires_at(expires.saturating_sub(longest), longest, Context::Handler));
    fires
}

/// By how much the moment that a timer of so many jiffies was set for may lie before the sample:
/// where it is over and its slot is not, `idiag_expires` is 0 (`jiffies_delta_to_msecs`).
fn overdue(cfg: &Kernel, tcp: &TcpFacts, timeout: u64) -> u64 {
    if tcp.timer_expires_ms == 0 { cfg.wheel.slot(timeout) } else { 0 }
}

/// More moments of a first retransmission or probe than these are thinned out.
const MOMENTS_MOST: usize = 128;

/// Some of these, the first and the last among them.
fn thinned(moments: &BTreeSet<u64>) -> BTreeSet<u64> {
    let stride = moments.len().div_ceil(MOMENTS_MOST).max(1);
    let ends = [moments.first().copied(), moments.last().copied()];
    moments.iter().copied().step_by(stride).chain(ends.into_iter().flatten()).collect()
}

/// When timers may have been armed that were armed for so many jiffies, and whose handlers ran at
/// one of these.
fn armed_before(cfg: &Kernel, ran: &BTreeSet<u64>, timeout: u64) -> BTreeSet<u64> {
    let slot = cfg.wheel.slot(timeout);
    let late = u64::from(!cfg.virtual_time);
    let mut before = BTreeSet::new();
    for next in ran {
        let latest = next.saturating_sub(timeout);
        before.extend((latest.saturating_sub(slot + late)..=latest).filter(|armed| {
            [Context::Call, Context::Handler].into_iter().any(|context| {
                let fires = cfg.wheel.fires_at(*armed, timeout, context);
                fires == *next || fires + late == *next
            })
        }));
    }
    if before.is_empty() {
        // Something else has moved it.
        before.extend(ran.iter().map(|next| next.saturating_sub(timeout)));
        before.extend(ran.iter().map(|next| next.saturating_sub(timeout + slot)));
    }
    thinned(&before)
}
