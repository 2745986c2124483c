//! A connection of any program: what happens if the program makes no other call.

pub use crate::crash::Farewell;

use crate::conclude::unknown;
use crate::hop::Hop;
use crate::kernel::Kernel;
use crate::predict::{predict, predict_alone};
use crate::prediction::StepKind;
use crate::scene::HopKind;
use crate::{
    IfIt, ObservedCall, Prediction, crash, dead_path, predict_after, predict_socket, predict_with,
};
use spec::effect::{Cable, PathFate};
use spec::facts::TcpFacts;
use spec::script::{Script, Step};
use spec::{Facts, FaultKind, Parameters, SocketOptions, TcpState, Topology, Traffic};
use std::time::Duration;

/// What was observed of a program's connection, beside the facts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// The calls after the fault that the wire shows, in order.
    pub calls: Vec<ObservedCall>,
    /// Whether something that it had sent before was not read by the other program at the fault.
    pub unread: Unread,
    /// Whether the other host's kernel still had something to send at the fault.
    pub unsent: bool,
    /// Whether a segment of new data left after the fault while another was not acknowledged.
    pub behind: bool,
    /// Whether the other program has sent something since the fault that nothing of this one's came before.
    pub heard: bool,
    /// How the other host's kernel was seen to end the connection: times count from that moment.
    pub farewell: Option<Farewell>,
}

/// What is known of what a program had not read when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unread {
    /// It had read everything.
    #[default]
    No,
    /// Something lay there that it did not read.
    Yes,
    /// Something came just before, and whether it was read then nobody saw.
    Open,
}

impl Observed {
    /// When the program first wrote something new after the fault, `CLOCK_MONOTONIC`, nanoseconds.
    pub fn first_write_ns(&self) -> Option<u64> {
        let write = self.calls.iter().find(|call| matches!(call.step, Step::Write(_)));
        write.map(|call| call.at_ns)
    }
}

/// A prediction, and what its times count from.
#[derive(Debug, Clone, PartialEq)]
pub struct Conditional {
    /// What happens if the program makes no other call.
    pub prediction: Prediction,
    /// Times and counts begin with the sample of the socket (`TcpFacts::sampled_at_ns`), and not with
    /// the prediction's reference.
    pub from_sample: bool,
}

/// The settings of the trial as this connection has them: its socket's options, and what was
/// observed, take the place of what our own client is told.
pub fn parameters(trial: &Parameters, facts: &Facts, observed: &Observed) -> Parameters {
    let mut own = trial.clone();
    let options = facts.tcp.as_ref().and_then(|tcp| tcp.options_set.clone()).unwrap_or_default();
    let SocketOptions { keepalive, keepidle_s, keepintvl_s, keepcnt, .. } = options;
    let seconds = |value: Option<u32>| value.map(|value| Duration::from_secs(value.into()));
    let millis = |value: Option<u32>| {
        value.filter(|value| *value > 0).map(|value| Duration::from_millis(value.into()))
    };
    let is_crash = trial.fault.kind == FaultKind::ProcessCrash;
    own.client.traffic = match &observed.calls[..] {
        _ if facts.tcp.as_ref().is_some_and(is_connecting) => Traffic::Connect,
        _ if falls_silent(trial, facts) => Traffic::Script,
        _ if streams(trial) => Traffic::Stream,
        [] => Traffic::Idle,
        _ if is_crash => Traffic::OneWrite,
        _ => Traffic::Script,
    };
    own.client.script = Some(Script {
        steps: observed.calls.iter().map(|call| call.step).collect(),
        repeats: false,
    });
    own.client.keepalive.enabled = keepalive == Some(true);
    own.client.keepalive.idle = seconds(keepidle_s);
    own.client.keepalive.interval = seconds(keepintvl_s);
    own.client.keepalive.probes = keepcnt;
    own.client.user_timeout = millis(options.user_timeout_ms);
    // Where the socket has no value of its own this is the sysctl's, which says the same.
    own.client.rto_max = options.rto_max_ms.map(|ms| Duration::from_millis(ms.into()));
    if let Some(tcp) = &facts.tcp {
        let exchanged_ms = tcp.last_data_recv_ms.min(tcp.last_data_sent_ms);
        own.fault.after = Duration::from_millis(exchanged_ms.into());
    }
    own.client.thin_linear_timeouts = options.thin_linear_timeouts == Some(true);
    own.server.reads = observed.unread != Unread::Yes;
    own
}

/// Whether a program of halfopen's own goes on writing, from one fault to the next: all its calls are known.
fn streams(trial: &Parameters) -> bool {
    !trial.runs_command() && trial.client.traffic == Traffic::Stream
}

fn is_connecting(tcp: &TcpFacts) -> bool {
    tcp.state == Some(TcpState::SynSent)
}

/// What its kernel will report, and when, if the program makes no other call than those observed.
///
/// Where no host answers any more, the socket's own state tells: `facts` may be of after the
/// fault, and
/// hold what the observed calls have left. Elsewhere they are of just before the fault.
pub fn predict_program(trial: &Parameters, facts: &Facts, observed: &Observed) -> Conditional {
    let own = parameters(trial, facts, observed);
    let from_sample = falls_silent(trial, facts);
    if let Some(farewell) = observed.farewell {
        let prediction = crash::farewell(&own, facts.hz, farewell);
        return Conditional { prediction, from_sample };
    }
    let prediction = match why_unknown(trial, facts, observed, from_sample) {
        Some(reason) => unknown(&own, reason.into()),
        None if from_sample => from_socket(trial, facts),
        None if trial.fault.kind == FaultKind::ProcessCrash && observed.unread == Unread::Open => {
            either(&own, facts)
        }
        None if streams(trial) => match observed.first_write_ns() {
            Some(at_ns) => predict_after(&own, facts, at_ns),
            None => predict_alone(&own, facts),
        },
        None if own.client.traffic == Traffic::Script => predict_with(&own, facts, &observed.calls),
        None => predict_alone(&own, facts),
    };
    Conditional { prediction, from_sample }
}

/// The same of halfopen's own program where faults follow one another: what the last fault and the socket at
/// it do not tell is predicted from `came`, the trial up to that fault, and the facts before the first. Of a
/// program that closes or shuts down the socket tells too little: no process may have it any more.
pub fn predict_in_sequence(
    trial: &Parameters,
    facts: &Facts,
    observed: &Observed,
    came: (&Parameters, &Facts),
) -> Conditional {
    let mut conditional = predict_program(trial, facts, observed);
    let errors_drawn = may_have_drawn_errors(came.0);
    let is_known = conditional.prediction.unknown.is_none();
    if is_known && !errors_drawn && !came.0.client_says_goodbye() {
        return conditional;
    }
    if is_known && errors_drawn {
        conditional.prediction = unknown(trial, ERRORS_DRAWN.into());
    }
    predict_from_all(trial, facts, came).unwrap_or(conditional)
}

const ERRORS_DRAWN: &str = "the router may have sent ICMP errors for the fault before, less than six seconds ago: how \
                            many its limit still lets it send, the socket does not tell";

/// Whether a router may have sent ICMP errors for an earlier fault just before the last: it sends six, and then one
/// a second (`inet_peer_xrlim_allow`, net/ipv4/inetpeer.c), which no look at the socket shows.
fn may_have_drawn_errors(whole: &Parameters) -> bool {
    const FULL_AFTER: Duration = Duration::from_secs(6);
    let is_silent = |kind| {
        let silent = [FaultKind::Blackhole, FaultKind::ProcessCrash, FaultKind::ProcessFreeze];
        silent.contains(&kind)
    };
    let mut earlier = (0..whole.further.len()).map(|place| {
        // From when it began to when the last did.
        let since: Duration = whole.further[place..].iter().map(|fault| fault.after).sum();
        (whole.with_fault(place), since)
    });
    whole.topology == Topology::Router
        && earlier.any(|(own, since)| {
            let lasted = own.fault_duration().unwrap_or(since);
            !is_silent(own.fault.kind) && since.saturating_sub(lasted) < FULL_AFTER
        })
}

/// What all faults lead to that have come: from the trial up to the last, the facts before the first, and the
/// server's socket at the last; `None` where the last alone tells why that is not known.
pub fn predict_from_all(
    trial: &Parameters,
    last: &Facts,
    (whole, first): (&Parameters, &Facts),
) -> Option<Conditional> {
    let facts = Facts { server_tcp: last.server_tcp.clone(), ..first.clone() };
    let prediction = predict(whole, &facts);
    let tells =
        prediction.unknown.is_none() || trial.fault.still.is_some() || whole.client_says_goodbye();
    tells.then_some(Conditional { prediction, from_sample: false })
}

/// What the socket alone tells.
fn from_socket(trial: &Parameters, facts: &Facts) -> Prediction {
    let mut prediction = predict_socket(facts, IfIt::StaysAsItIs);
    if trial.fault.effect().cable != Cable::CarrierLost {
        return prediction;
    }
    // Nothing that is sent leaves the host.
    for window in &mut prediction.windows {
        let counts =
            [&mut window.retransmits, &mut window.keepalive_probes, &mut window.window_probes];
        for count in counts {
            *count = count.map(|_| 0);
        }
    }
    prediction.schedule.iter_mut().for_each(|step| step.held = true);
    prediction
}

/// The end of a process that may have read everything, or not.
fn either(own: &Parameters, facts: &Facts) -> Prediction {
    let mut reset = own.clone();
    reset.server.reads = false;
    let (mut prediction, reset) = (predict_alone(own, facts), predict_alone(&reset, facts));
    prediction.windows.extend(reset.windows);
    prediction.unknown = prediction.unknown.or(reset.unknown);
    prediction.why = own.named(
        "whether the killed process had read what came last is not known: its kernel sends a FIN if it \
         had, and a RST if not",
    );
    prediction
}

fn why_unknown(
    trial: &Parameters,
    facts: &Facts,
    observed: &Observed,
    from_sample: bool,
) -> Option<&'static str> {
    let Some(tcp) = &facts.tcp else {
        return Some("the socket could not be sampled just before the fault");
    };
    if tcp.options_set.is_none() {
        return Some("the socket's options could not be read just before the fault");
    }
    if trial.fault.still.is_some() && !from_sample {
        return Some(
            "the path is away when the process is killed: what its kernel answers once the path is back, the \
             socket does not tell",
        );
    }
    let is_path = !matches!(
        trial.fault.kind,
        FaultKind::None | FaultKind::ProcessCrash | FaultKind::ProcessFreeze
    );
    if trial.fault.kind == FaultKind::ProcessCrash && observed.unsent {
        return Some(
            "the kernel of the killed process still had something to send, or to send again, and its FIN \
             follows that: when, is not known",
        );
    }
    let bytes = |call: &ObservedCall| match call.step {
        Step::Write(bytes) => u64::from(bytes),
        _ => 0,
    };
    let is_timed = tcp.options_set.as_ref().is_some_and(|set| set.user_timeout_ms.unwrap_or(0) > 0);
    if trial.fault.kind == FaultKind::ProcessFreeze
        && is_timed
        && observed.calls.iter().map(bytes).sum::<u64>() > crash::FITS
    {
        return Some(crash::FILLS);
    }
    let is_busy = tcp.unacked > 0 || tcp.notsent_bytes > 0;
    if matches!(trial.fault.kind, FaultKind::None | FaultKind::ProcessFreeze)
        && tcp.retransmits > 0
        && gives_up_next(facts)
    {
        return Some(
            "the kernel gives up at its next timeout, unless what it sent is acknowledged before",
        );
    }
    if !is_path || from_sample {
        return None;
    }
    if has_lost_probes(tcp) || !trial.further.is_empty() && tcp.probes > 0 {
        return Some(
            "a probe was lost before the fault, and how many more are sent depends on when a host answers \
             again",
        );
    }
    if observed.heard && trial.fault.kind == FaultKind::Forget {
        return Some(
            "the other program went on sending, and a flow is idle only once neither sends: when that \
             is nobody knows",
        );
    }
    let gathers = tcp.options_set.as_ref().is_some_and(|options| options.nodelay == Some(false));
    let is_seen = !streams(trial);
    if is_seen && observed.behind && gathers {
        return Some(
            "without TCP_NODELAY, what a program writes while something is not acknowledged is gathered \
             (Nagle's algorithm, RFC 1122, 4.2.3.4), and no segment shows when it was written",
        );
    }
    if is_seen && observed.behind && observed.calls.len() > tcp.snd_cwnd.max(1) as usize {
        return Some(
            "what a program writes while the congestion window is full waits for it, and no segment shows when \
             it was written",
        );
    }
    if is_busy {
        return Some(
            "data were unacknowledged at the moment of the fault, and a host may answer them later",
        );
    }
    let is_known = facts.jiffies.is_some() || is_armed_by_exchange(tcp);
    (!observed.calls.is_empty() && !is_known).then_some(
        "keepalive was set some time before the last exchange, so that without the kernel's jiffies it is \
         not known when its timer fires, and the program made calls that a host answers after the fault",
    )
}

/// Whether nothing is sent again before the kernel gives up.
fn gives_up_next(facts: &Facts) -> bool {
    let prediction = predict_socket(facts, IfIt::StaysAsItIs);
    prediction.schedule.first().is_some_and(|step| step.kind == StepKind::GiveUp)
}

/// Whether a keepalive probe went unanswered for longer than a round trip takes.
fn has_lost_probes(tcp: &TcpFacts) -> bool {
    let interval_s = tcp.options_set.as_ref().and_then(|options| options.keepintvl_s).unwrap_or(0);
    let sent_ms_ago = (u64::from(interval_s) * 1000).saturating_sub(tcp.timer_expires_ms.into());
    let round_trip_ms = u64::from(tcp.srtt_us) / 1000;
    let is_keepalive = tcp.timer == TcpFacts::TIMER_KEEPALIVE && tcp.probes > 0;
    is_keepalive && sent_ms_ago > 2 * round_trip_ms + EXCHANGE_MS
}

/// Whether the keepalive timer, if it runs, was armed as our own client does it: with the last
/// exchange.
fn is_armed_by_exchange(tcp: &TcpFacts) -> bool {
    let idle_ms = tcp.options_set.as_ref().and_then(|options| options.keepidle_s).unwrap_or(0);
    let since_ms = tcp.last_ack_recv_ms.min(tcp.last_data_recv_ms);
    let armed_for_ms = u64::from(tcp.timer_expires_ms) + u64::from(since_ms);
    let late_ms = (u64::from(idle_ms) * 1000).abs_diff(armed_for_ms);
    tcp.timer != TcpFacts::TIMER_KEEPALIVE || late_ms <= EXCHANGE_MS
}

/// How long an exchange takes, and a tick at each end, milliseconds.
const EXCHANGE_MS: u64 = 12;

/// Whether no host answers from the fault on, neither the server nor one in its place, so that
/// the
/// socket's own timers alone tell.
pub fn falls_silent(trial: &Parameters, facts: &Facts) -> bool {
    let effect = trial.fault.effect();
    // The server's host may still send something that arrives.
    if trial.fault.sieve().is_some_and(|sieve| !sieve.to_survivor) {
        return false;
    }
    let is_lost = effect.cable != Cable::Up || effect.path == PathFate::Silent;
    let stays = trial.fault_duration().is_none() && trial.later.sysctl.is_empty();
    let kernel = Kernel::new(trial, facts);
    let hops = dead_path::hops(&kernel, trial, facts);
    is_lost && stays && matches!(hops.as_deref(), Ok([HopKind::Fixed(Hop::Silent)]))
}
