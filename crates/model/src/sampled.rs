//! Any live socket, in whatever trouble it is: when and how it ends from here, if its peer has fallen
//! silent. It starts from what `struct tcp_info`, sock_diag's timer and the socket's options show. What
//! a sample cannot tell (for how long the pending timer was armed, and so its slot; when the first
//! retransmission was stamped; the phase of the clock) is gone through, and shows in the window.

use crate::conclude::unknown;
use crate::explore::Explorer;
use crate::hop::Hop;
use crate::kernel::Kernel;
use crate::prediction::Prediction;
use crate::program::{Call, Calls, Program};
use crate::rto;
use crate::run::{Live, Past};
use crate::sock::{Armed, Carries, Pending, Segment, Sock, State, Timer};
use crate::tick::{Hz, Phase};
use crate::wheel::Context;
use crate::windows::{Counted, windows};
use crate::world::{Moment, Peer, World};
use crate::{closed_window, scripted, start};
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
const PHASES_MOST: u64 = 512;
/// From the time stamp of a sample of socket diagnostics to the kernel's look at the socket.
const SAMPLE_NS: u64 = 200_000;
/// More moments of a first retransmission than these are thinned out.
const STAMPS_MOST: usize = 128;

/// What a socket's kernel will report, and when, if its peer is silent from now on. Times count from the
/// sample (the reference says `last-activity`, for want of a better name).
pub fn predict_socket(facts: &Facts, if_it: IfIt) -> Prediction {
    let parameters = parameters(facts);
    let mut cfg = Kernel::new(&parameters, facts);
    if let Some(retries) = options(facts).syncnt.filter(|retries| *retries > 0) {
        cfg.syn_retries = retries;
    }
    let Some(tcp) = &facts.tcp else {
        return unknown(&parameters, "nobody has looked at the socket".into());
    };
    let calls = match if_it {
        IfIt::WritesNow => Calls::one(Call::Write(1)),
        IfIt::StaysIdle | IfIt::StaysAsItIs => Calls::none(),
    };
    let mut explorer = Explorer::new(&cfg, None, &calls);
    let begun = if tcp.timer == TcpFacts::TIMER_PROBE0 {
        window_probes(&mut explorer, &cfg, &parameters, facts, &calls)
    } else {
        others(&mut explorer, &cfg, tcp, facts, &calls, if_it)
    };
    if let Err(reason) = begun.and_then(|()| explorer.go()) {
        return unknown(&parameters, reason);
    }
    let counted = Counted {
        keepalive_probes: tcp.timer == TcpFacts::TIMER_KEEPALIVE && if_it != IfIt::WritesNow,
        window_probes: tcp.timer == TcpFacts::TIMER_PROBE0,
        ..Counted::default()
    };
    let (windows, schedule) = windows(&explorer.ends, &counted, Hz::new(facts.hz));
    let reference = Reference::LastActivity;
    let mut prediction =
        Prediction { reference, windows, schedule, why: String::new(), unknown: None };
    prediction.why = scripted::why(&cfg, &prediction);
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
    client.fills_window = facts.tcp.as_ref().is_some_and(|tcp| tcp.timer == TcpFacts::TIMER_PROBE0);
    parameters.server.reads = !client.fills_window;
    parameters.fault.kind = FaultKind::PowerOff;
    parameters.fault.after = Duration::ZERO;
    parameters
}

/// A closed window: what of it can be known is known as for an experiment.
fn window_probes(
    explorer: &mut Explorer<'_>,
    cfg: &Kernel,
    parameters: &Parameters,
    facts: &Facts,
    calls: &Calls,
) -> Result<(), String> {
    let tick_ns = cfg.hz.tick_ns();
    for (scene, start) in closed_window::scenes(cfg, parameters, facts)? {
        if scene.reference_until_ns > 0 {
            // There is no laboratory that takes its time.
            continue;
        }
        let (mut run, _) = start::window_run(cfg, &scene, &start, 0);
        run.world.reference_until = Moment::Past;
        run.program = Program::new(calls, start.sampled_ns, 0);
        let sampled = (start.sampled_ns, start.sampled_ns + SAMPLE_NS);
        let mut past = Past::new(sampled, start.sampled_ns, run.sock.stamps);
        past.due(Timer::Write, start.expires * tick_ns);
        explorer.start(run, past);
    }
    Ok(())
}

fn others(
    explorer: &mut Explorer<'_>,
    cfg: &Kernel,
    tcp: &TcpFacts,
    facts: &Facts,
    calls: &Calls,
    if_it: IfIt,
) -> Result<(), String> {
    let tick_ns = cfg.hz.tick_ns();
    let known = facts.jiffies.and_then(|clock| Phase::new(cfg.hz, clock).of(tcp.sampled_at_ns));
    let (moments, between_ns): (Vec<u64>, u64) = if let Some(at_ns) = known {
        (vec![at_ns, at_ns + SAMPLE_NS], 0)
    } else {
        let period = cfg.wheel.slot(cfg.rto_max.max(cfg.keepalive_time));
        let stride = period.div_ceil(PHASES_MOST);
        let phases = (0..period).step_by(stride as usize);
        let moments = phases.map(|phase| (start::EPOCH + phase) * tick_ns + tick_ns / 2);
        (moments.collect(), stride * tick_ns)
    };
    for sampled_ns in moments {
        for (sock, stamps) in sockets(cfg, tcp, sampled_ns / tick_ns, if_it)? {
            let peer = Peer {
                rtt_ns: 0,
                exposed_ns: 0,
                delayed_ack: 0,
                invalid_ratelimit: 0,
                last_oow_ack: None,
                replies: false,
            };
            let mut world = World::new(cfg, peer, Hop::Silent);
            world.lost = Moment::Past;
            let program = Program::new(calls, sampled_ns, 0);
            for stamp in stamps {
                let sampled = (sampled_ns - between_ns, sampled_ns + between_ns);
                let mut sock = sock.clone();
                sock.stamps.retrans_stamp = stamp.map(|jiffy| jiffy * tick_ns);
                let mut past = Past::new(sampled, sampled_ns, sock.stamps);
                for timer in [Timer::Write, Timer::Keepalive] {
                    past.due(timer, sock.fires(timer).unwrap_or(0) * tick_ns);
                }
                let run =
                    Live { sock, world: world.clone(), program: program.clone(), overtaken: false };
                explorer.start(run, past);
            }
        }
    }
    Ok(())
}

/// A socket, and the jiffies at which its first retransmission may have been stamped.
type Sampled = (Sock, Vec<Option<u64>>);

/// The sockets that it may be a sample of, each with the jiffies at which its first retransmission may
/// have been stamped.
fn sockets(
    cfg: &Kernel,
    tcp: &TcpFacts,
    sampled: u64,
    if_it: IfIt,
) -> Result<Vec<Sampled>, String> {
    let whole = |ms: u32| cfg.hz.whole_in_msecs(u64::from(ms));
    let rto = cfg.hz.from_usecs(u64::from(tcp.rto_us)).clamp(1, cfg.rto_max);
    let cwnd = if tcp.snd_cwnd == 0 { 10 } else { tcp.snd_cwnd };
    let mut sock = Sock::settled(rto, u64::from(tcp.srtt_us.max(1)), cwnd);
    sock.rto_base = rto >> tcp.backoff.min(31);
    sock.state = match tcp.state {
        None | Some(TcpState::Established | TcpState::CloseWait) => State::Open,
        Some(TcpState::FinWait1 | TcpState::Closing | TcpState::LastAck) => State::FinSent,
        Some(TcpState::FinWait2) => State::FinWait2,
        Some(TcpState::SynSent) => State::SynSent,
        Some(other) => return Err(format!("what a socket in {other} waits for is not modelled")),
    };
    let received = sampled.saturating_sub(whole(tcp.last_ack_recv_ms.min(tcp.last_data_recv_ms)));
    sock.stamps.rcv_tstamp = received;
    let expires = sampled + whole(tcp.timer_expires_ms);
    sock.stamps.expires = expires;
    match tcp.timer {
        0 => Ok(vec![(sock, vec![None])]),
        TcpFacts::TIMER_KEEPALIVE if if_it == IfIt::WritesNow => Ok(vec![(sock, vec![None])]),
        TcpFacts::TIMER_KEEPALIVE => {
            sock.keepopen = true;
            sock.probes_out = tcp.probes.into();
            let longest = if tcp.probes > 0 { cfg.keepalive_interval } else { cfg.keepalive_time };
            let longest = longest.max(expires - sampled);
            let socks = slots(cfg, expires, sampled, longest).into_iter().map(|fires| {
                let timer = Armed { fires, timeout: longest };
                (Sock { keepalive_timer: Some(timer), ..sock.clone() }, vec![None])
            });
            Ok(socks.collect())
        }
        1 => Ok(retransmitting(cfg, tcp, sock, sampled)),
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

/// Something is out, and nobody has acknowledged it.
fn retransmitting(cfg: &Kernel, tcp: &TcpFacts, mut sock: Sock, sampled: u64) -> Vec<Sampled> {
    let tick_ns = cfg.hz.tick_ns();
    let expires = sock.stamps.expires;
    let sent = sampled.saturating_sub(cfg.hz.whole_in_msecs(tcp.last_data_sent_ms.into()));
    let out = tcp.unacked.max(1);
    let carries = match sock.state {
        State::SynSent => Carries::Syn,
        State::FinSent if out == 1 => Carries::Fin,
        _ => Carries::Data,
    };
    let segment = Segment { carries, sent_ns: sent * tick_ns, writes: 1 };
    sock.queue = vec![segment; out as usize];
    sock.waiting = tcp.notsent_bytes > 0;
    sock.timeouts = tcp.retransmits.into();
    sock.backoff = tcp.backoff.into();
    sock.retrans_out = tcp.retransmits > 0;
    let armed = expires.saturating_sub(sock.rto);
    if tcp.retransmits == 0 {
        // The tail loss probe is yet to come, or out; and a SYN is stamped when it is sent.
        let stamp = (sock.state == State::SynSent).then_some(armed);
        let mut all = Vec::new();
        let probe = rto::probe_timeout(cfg, sock.srtt_us, sock.queue.len());
        for (pending, timeout) in [(Pending::LossProbe, probe), (Pending::Retransmission, sock.rto)]
        {
            let near = (sent + timeout).abs_diff(expires) <= 1;
            let other = (sent + if timeout == probe { sock.rto } else { probe }).abs_diff(expires);
            let is_probe = pending == Pending::LossProbe;
            let impossible = is_probe && (!cfg.tail_loss_probe || stamp.is_some());
            if impossible || (!near && other <= 1) {
                continue;
            }
            for fires in slots(cfg, expires, sampled, timeout.max(expires - sampled)) {
                let timer = (pending, Armed { fires, timeout });
                let sock = Sock { write_timer: Some(timer), tlp_out: !is_probe, ..sock.clone() };
                all.push((sock, vec![stamp]));
            }
        }
        return all;
    }
    // Its handler armed it when it last sent.
    let armed = if cfg.user_timeout_ms.is_some() { sent.min(expires) } else { armed };
    let fires = cfg.wheel.fires_at(armed, expires - armed, Context::Handler);
    sock.write_timer = Some((Pending::Retransmission, Armed { fires, timeout: expires - armed }));
    let stamps = stamps(cfg, &sock, armed);
    vec![(sock, stamps.into_iter().map(Some).collect())]
}

/// When the first retransmission may have been stamped, if the last of them was sent at jiffy `last`:
/// each was `icsk_rto` of then before the next, and the slot that this falls into, and a jiffy if its
/// handler ran late.
fn stamps(cfg: &Kernel, sock: &Sock, last: u64) -> Vec<u64> {
    let linear = if sock.state == State::SynSent { cfg.syn_linear_timeouts } else { 0 };
    // A SYN's stamp is that of the SYN itself.
    let first = u32::from(sock.state != State::SynSent);
    let timeouts = (first..sock.timeouts).rev().map(|nth| {
        sock.rto_base
            .checked_shl(nth.saturating_sub(linear))
            .map_or(cfg.rto_max, |rto| rto.min(cfg.rto_max))
    });
    let late = u64::from(!cfg.virtual_time);
    let mut at = BTreeSet::from([last]);
    for timeout in timeouts {
        let slot = cfg.wheel.slot(timeout);
        let mut before = BTreeSet::new();
        for next in &at {
            let latest = next.saturating_sub(timeout);
            for armed in latest.saturating_sub(slot + late)..=latest {
                let fires = cfg.wheel.fires_at(armed, timeout, Context::Handler);
                if fires == *next || fires + late == *next {
                    before.insert(armed);
                }
            }
        }
        if before.is_empty() {
            // Something else has moved it.
            before.extend(at.iter().map(|next| next.saturating_sub(timeout)));
            before.extend(at.iter().map(|next| next.saturating_sub(timeout + slot)));
        }
        let stride = before.len().div_ceil(STAMPS_MOST).max(1);
        let ends = [before.first().copied(), before.last().copied()];
        at = before.into_iter().step_by(stride).chain(ends.into_iter().flatten()).collect();
    }
    at.into_iter().collect()
}
