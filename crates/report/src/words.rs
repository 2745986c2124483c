//! Sentences that every renderer shares.

use crate::span::{self, Digits};
use model::width::Cause;
use model::{Prediction, StepKind, Window};
use spec::experiment::Fault;
use spec::{
    Answer, Drops, Errno, FaultAct, FaultKind, Neighbour, Outcome, Parameters, Reference, Topology,
    Traffic,
};
use spec::{command, counted};
use std::time::Duration;
use timeline::Source;
use verdict::DetectedBy;

/// What a time counts from, after the time: `5.091 s` `after the last segment received`.
pub(crate) fn after_reference(reference: Reference, parameters: &Parameters) -> &'static str {
    match reference {
        Reference::Fault => "after the fault",
        Reference::FirstWrite => "after the first write",
        Reference::LastActivity => "after the last segment received",
        Reference::LastRequest => "after the last request",
        Reference::Connect => "after the call of connect",
        Reference::Close if !parameters.client_lets_go() => "after the shutdown",
        Reference::Close => "after the program's close",
    }
}

/// What the two hosts are called: the one that is watched, and the other. Where a web server is
/// the one left behind, the other is its client.
pub(crate) fn hosts(parameters: &Parameters) -> [&'static str; 2] {
    match parameters.client.program.description().name {
        None => parameters.names(),
        Some(name) => [name, "client"],
    }
}

/// A sentence of a verdict: where a web server is the survivor, with its name.
pub(crate) fn by_name(parameters: &Parameters, sentence: &str) -> String {
    match parameters.client.program.description().name {
        None => sentence.to_owned(),
        Some(name) => {
            let watched = sentence.replace("the client", name).replace("client", name);
            watched.replace("server", "client")
        }
    }
}

/// What the laboratory did, with the names of [`hosts`].
pub(crate) fn act(parameters: &Parameters, act: FaultAct) -> String {
    let text = match act {
        FaultAct::Nothing => "nothing: the peer lives",
        FaultAct::Killed => "the server process killed (SIGKILL)",
        FaultAct::Stopped => "the server process stopped (SIGSTOP)",
        FaultAct::PortDown => "the switch's port to the server is down",
        FaultAct::CableDead => "the server's cable behind the router is dead",
        FaultAct::CableDeadAndForgotten => {
            "the server's cable behind the router is dead, and the router has forgotten the \
             server's link-layer address"
        }
        FaultAct::CableAlive => "the server's cable is alive again",
        FaultAct::SwitchDrops => "the switch drops every frame between its ports",
        FaultAct::DropsSome => {
            let (dropped, _) = dropped(&parameters.fault);
            return named(parameters, &format!("the path drops {dropped}"));
        }
        FaultAct::SwitchForwards => "the switch forwards again",
        FaultAct::RouterDrops => "the router drops every packet for either host",
        FaultAct::RouterRejects => {
            let with = parameters.fault.reject;
            return format!("the router answers every packet it is to forward with {with}");
        }
        FaultAct::RouterForgets => {
            let idle = span::exact(parameters.fault.idle.unwrap_or_default());
            return format!(
                "the router forgets a flow that is idle for {idle}, as it has from the start"
            );
        }
        FaultAct::RouterForwards => "the router forwards again",
        FaultAct::Unplugged => "the server's end of the cable is down",
        FaultAct::HostDestroyed => "the server's host is destroyed",
        FaultAct::Announced => "the new server host has said that it has the address",
        FaultAct::HostReplaced if parameters.fault.moves() => {
            "a fresh server host, with a new MAC address, is on the network"
        }
        FaultAct::HostReplaced => {
            "a fresh server host, with the same MAC address, is on the network"
        }
    };
    named(parameters, text)
}

/// What is said of the client, which is watched, and the server, with the names of [`hosts`].
pub(crate) fn named(parameters: &Parameters, text: &str) -> String {
    parameters.named(&by_name(parameters, text))
}

/// Who saw an event, with the host's name.
pub(crate) fn source(parameters: &Parameters, source: Source) -> Source {
    source.by_name(parameters)
}

/// A window: `ETIMEDOUT 5.000–5.160 s`.
pub(crate) fn window(window: &Window) -> String {
    window_to(window, Digits::default())
}

/// The same with at least these digits after the second.
pub(crate) fn window_to(window: &Window, digits: Digits) -> String {
    match (window.outcome, window.span) {
        (Outcome::None, _) => "nothing: the client is not told".into(),
        (Outcome::Released, Some((earliest, latest))) => {
            format!("the kernel lets go {}", span::range_to(earliest, latest, digits))
        }
        (outcome, Some((earliest, latest))) => {
            format!("{outcome} {}", span::range_to(earliest, latest, digits))
        }
        (outcome, None) => outcome.to_string(),
    }
}

/// That a deadline comes before the connection may have ended; `None` if it does not.
pub(crate) fn deadline_before(parameters: &Parameters, prediction: &Prediction) -> Option<String> {
    let (deadline, (earliest, latest)) = (parameters.deadline?, prediction.hull()?);
    let before_fault = match prediction.reference {
        Reference::LastActivity | Reference::LastRequest => parameters.fault.after,
        Reference::Fault | Reference::FirstWrite | Reference::Connect | Reference::Close => {
            Duration::ZERO
        }
    };
    let end = deadline.saturating_add(before_fault);
    let what = match () {
        () if end < earliest => "before the earliest predicted time",
        () if end < latest => "possibly before the predicted end",
        () => return None,
    };
    Some(format!("the trial ends {} after the fault, {what}", span::exact(deadline)))
}

/// The windows of a prediction; those of the outcome that was measured do not repeat it.
pub(crate) fn windows(prediction: &Prediction, measured: Outcome, digits: Digits) -> Vec<String> {
    let short = |w: &Window| match (w.outcome, w.span) {
        (Outcome::None, _) => "nothing".into(),
        (outcome, Some((earliest, latest))) if outcome == measured => {
            span::range_to(earliest, latest, digits)
        }
        _ => window_to(w, digits),
    };
    let shown: Vec<_> = prediction.windows.iter().map(short).collect();
    if shown.is_empty() { vec!["no outcome".into()] } else { shown }
}

/// What decides between the windows of a prediction; `None` if there is only one. All of it is
/// what the model lets run from every possible value.
pub(crate) fn choice(parameters: &Parameters, prediction: &Prediction) -> Option<String> {
    let [first, others @ ..] = &prediction.windows[..] else { return None };
    if others.is_empty() {
        return None;
    }
    let mut unknown = vec!["the phase of the timer wheel"];
    if parameters.neighbour == Neighbour::Learned {
        unknown.push("the random lifetime of a neighbour entry");
    }
    if parameters.fault_duration().is_some() {
        unknown.push("the exact moment at which the fault ends");
    }
    let by_lateness = others.iter().all(|other| other.differs_in_time_only(first))
        && first.outcome != Outcome::Errno(Errno::ECONNRESET);
    if by_lateness {
        unknown.insert(0, "whether a timer runs a jiffy late and misses its slot");
    }
    let what = if by_lateness {
        "which it is depends on"
    } else if others.iter().any(|other| other.outcome != first.outcome) {
        "which outcome it is depends on"
    } else if first.outcome == Outcome::Errno(Errno::ECONNRESET) {
        "each window is that of a different segment being the first to get through; which one \
         depends on"
    } else {
        "each window is that of a different timeout being the first past the threshold; which one \
         depends on"
    };
    let last = unknown.pop().unwrap_or_default();
    let unknown =
        if unknown.is_empty() { last.into() } else { format!("{} and {last}", unknown.join(", ")) };
    Some(format!("{what} {unknown}, not known before the fault"))
}

/// What makes the widest window as wide as it is: `kernel timer rounding 260 ms and the clocks of
/// two instruments 500 µs`.
pub(crate) fn width(prediction: &Prediction) -> Option<String> {
    let wide = || prediction.windows.iter().filter(|window| !window.width.is_empty());
    let window =
        wide().max_by_key(|window| window.span.map(|(from, to)| to.saturating_sub(from)))?;
    let whose = if wide().count() > 1 { "the widest: " } else { "" };
    let mut parts: Vec<_> = CAUSES
        .iter()
        .map(|(causes, what)| (causes.iter().map(|cause| window.share(*cause)).sum(), what))
        .filter(|(by, _): &(Duration, _)| !by.is_zero())
        .map(|(by, what)| format!("{what} {}", span::measured(by.as_secs_f64())))
        .collect();
    let last = parts.pop()?;
    Some(if parts.is_empty() {
        format!("{whose}{last}")
    } else {
        format!("{whose}{} and {last}", parts.join(", "))
    })
}

const CAUSES: [(&[Cause], &str); 10] = [
    (&[Cause::WheelSlot, Cause::EarlierSlots], "kernel timer rounding"),
    (&[Cause::LateTimers], "earlier timers that run late"),
    (&[Cause::Rto], "the unknown RTO"),
    (&[Cause::RoundTrip], "the round trip"),
    (&[Cause::ProcessExit], "the end of the killed process"),
    (&[Cause::ProgramTimer], "the program's own timer"),
    (&[Cause::Call], "time until the next call or fault step"),
    (&[Cause::Undetermined], "steps that are not modelled to the jiffy"),
    (&[Cause::Tick, Cause::Slice], "tick and scheduling"),
    (&[Cause::Clocks], "clocks"),
];

/// The digits with which the measured times can be compared with the predicted windows.
pub(crate) fn digits<'a>(
    windows: impl IntoIterator<Item = &'a Window>,
    measured: &[f64],
) -> Digits {
    let spans: Vec<_> = windows.into_iter().filter_map(|window| window.span).collect();
    Digits::comparing(&spans, measured)
}

/// `6 retransmissions, no keepalive probes`; what does not apply is left out.
pub(crate) fn counts(
    retransmits: Option<u32>,
    keepalive_probes: Option<u32>,
    window_probes: Option<u32>,
) -> String {
    let or_none = |count: u32, what: &str| match count {
        0 => format!("no {what}s"),
        _ => counted(count, what),
    };
    let parts = [
        (retransmits, "retransmission"),
        (keepalive_probes, "keepalive probe"),
        (window_probes, "window probe"),
    ]
    .into_iter()
    .filter_map(|(count, what)| Some(or_none(count?, what)));
    parts.collect::<Vec<_>>().join(", ")
}

/// The network and the socket, in one line.
pub(crate) fn setting(parameters: &Parameters) -> String {
    let Parameters { topology, family, client, path, sysctl, .. } = parameters;
    let [watched, other] = hosts(parameters);
    let topology = match topology {
        Topology::Switch => format!("{watched}, switch, {other}"),
        Topology::Router => format!("{watched}, router, {other}"),
        Topology::Direct => format!("{watched} and {other} on one cable"),
        Topology::Proxy => "client, proxy and server on a switch".into(),
    };
    let mut parts = vec![topology, family.to_string().replace("ipv", "IPv")];
    if !path.rtt.is_zero() {
        parts.push(format!("RTT {} added", span::exact(path.rtt)));
    }
    if client.keepalive.enabled {
        let (idle, interval, probes) = parameters.keepalive_in_force();
        let unit = if probes == 1 { "probe" } else { "probes" };
        parts.push(format!(
            "keepalive {} / {} / {probes} {unit}",
            span::exact(idle),
            span::exact(interval),
        ));
    } else if !parameters.runs_command() {
        parts.push("no keepalive".into());
    }
    if let Some(timeout) = client.user_timeout {
        parts.push(format!("TCP_USER_TIMEOUT {}", span::exact(timeout)));
    }
    if let Some(most) = client.rto_max {
        parts.push(format!("TCP_RTO_MAX_MS {}", span::exact(most)));
    }
    if let Some(least) = client.rto_min {
        parts.push(format!("TCP_RTO_MIN_US {}", span::exact(least)));
    }
    if let Some(least) = path.rto_min {
        parts.push(format!("rto_min {} on the route", span::exact(least)));
    }
    if client.thin_linear_timeouts {
        parts.push("TCP_THIN_LINEAR_TIMEOUTS".into());
    }
    parts.extend(sysctl.iter().map(|(name, value)| format!("{name} = {value}")));
    parts.join(" · ")
}

/// What a path drops, with its verb: the hosts' names are those of the survivor as the client.
fn dropped(fault: &Fault) -> (String, &'static str) {
    let Some(sieve) = fault.sieve() else { return ("frames".into(), "are") };
    let way = match (sieve.to_lost, sieve.to_survivor) {
        (true, true) | (false, false) => "",
        (true, false) => " to the server",
        (false, true) => " to the client",
    };
    match sieve.drops {
        Drops::All => (format!("all frames{way}"), "are"),
        Drops::Next(1) => (format!("the next TCP packet{way}"), "is"),
        Drops::Next(packets) => (format!("the next {packets} TCP packets{way}"), "are"),
        Drops::Longer(mtu) => (format!("IP packets of more than {mtu} bytes{way}"), "are"),
        Drops::Share(loss, seed) => {
            let percent = f64::from(loss) / 100.0;
            (format!("{percent}% of all TCP packets{way} (seed {seed})"), "are")
        }
    }
}

/// What a fault does, in a few words.
fn broken(parameters: &Parameters) -> String {
    let fault = &parameters.fault;
    // A program that is not ours, where it is watched.
    let left_behind = parameters.client.program.description().name;
    let lasting = parameters
        .fault_duration()
        .map_or_else(String::new, |duration| format!(" for {}", span::exact(duration)));
    match fault.kind {
        FaultKind::None => "nothing breaks".to_owned(),
        FaultKind::ProcessCrash => "the server process is killed".into(),
        FaultKind::ProcessFreeze => format!("the server process is stopped{lasting}"),
        FaultKind::PowerOff => match left_behind {
            Some(name) => format!("the host of {name}'s client loses power"),
            None => "the server's host loses power".into(),
        },
        FaultKind::Reboot => format!("the server's host loses power{lasting} and comes back"),
        FaultKind::Takeover => {
            let says = if fault.announce { "and says so" } else { "and does not say so" };
            let after = parameters.fault_duration().map(span::exact).unwrap_or_default();
            format!(
                "the server's host loses power, and another has its address after {after}, {says}"
            )
        }
        FaultKind::Blackhole | FaultKind::Mtu => {
            let (dropped, are) = dropped(fault);
            format!("{dropped} {are} dropped silently in the middle{lasting}")
        }
        FaultKind::Reject => format!("the router answers everything with {}", fault.reject),
        FaultKind::Forget => format!(
            "the router forgets a flow that is idle for {}, and {}",
            span::exact(fault.idle.unwrap_or_default()),
            match fault.answer {
                Answer::Silent => "then drops its packets",
                Answer::TcpReset => "then answers its packets with a reset",
            }
        ),
        FaultKind::Unplug => "the cable is pulled: the client loses its own carrier too".into(),
        FaultKind::Flap => format!("the server's link is down{lasting}"),
    }
}

/// What is done to the connection, in one line.
pub(crate) fn stimulus(parameters: &Parameters) -> String {
    let Parameters { client, server, fault, later, .. } = parameters;
    // A program that is not ours, where it is watched, and where it is asked.
    let left_behind = client.program.description().name;
    let asked = server.program.description().name;
    let after = span::exact(fault.after);
    let further = parameters.further.iter().enumerate().map(|(index, next)| {
        let next_is = broken(&parameters.with_fault(index + 1));
        format!("; {} later {next_is}", span::exact(next.after))
    });
    let fault = broken(parameters) + &further.collect::<String>();
    let unread = match (server.reads, client.fills_window, server.fills_window) {
        (_, true, _) => ", with the server's window closed",
        (_, _, true) => ", with the client's window closed",
        (false, ..) => ", with unread data at the server",
        _ => "",
    };
    if parameters.runs_command() {
        return commands(parameters, &parameters.named(&fault));
    }
    let traffic = match client.traffic {
        _ if left_behind.is_some() => {
            format!("{} is the survivor", left_behind.unwrap_or_default())
        }
        Traffic::Idle if server.fills_window => "the client reads".into(),
        Traffic::Idle => match asked {
            None => "the client stays idle".to_owned(),
            Some(name) => format!("the client of {name} stays idle"),
        },
        Traffic::OneWrite => match client.second_write {
            None if asked.is_some() => {
                format!("the client makes another request to {}", asked.unwrap_or_default())
            }
            None => "the client writes 100 bytes, once".into(),
            Some(later) => {
                format!("the client writes 100 bytes, and again {} later", span::exact(later))
            }
        },
        Traffic::Stream => "the client writes 100 bytes every 50 ms".into(),
        Traffic::Heartbeat => "the client asks for answers and waits for each".into(),
        Traffic::Connect => "the client connects".into(),
        Traffic::Close => match client.linger {
            None => "the client closes the connection".into(),
            Some(linger) => {
                format!("the client closes the connection, SO_LINGER {}", span::exact(linger))
            }
        },
        Traffic::Shutdown => "the client shuts down its direction of the connection".into(),
        Traffic::Script => match &client.script {
            Some(script) => format!("the client runs `{script}`"),
            None => "the client has no script".into(),
        },
    };
    let later = if later.sysctl.is_empty() {
        String::new()
    } else {
        let changes: Vec<_> =
            later.sysctl.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        format!("; {} later, {}", span::exact(later.after), changes.join(", "))
    };
    if client.traffic == Traffic::Connect {
        format!("{fault}; {traffic}{later}")
    } else {
        let said = format!("{after} after the last exchange{unread}, {fault}; {traffic}{later}");
        parameters.named(&said)
    }
}

/// Which commands run, and what is done to them.
fn commands(parameters: &Parameters, fault: &str) -> String {
    let Parameters { fault: Fault { after, on_output, kind, .. }, .. } = parameters;
    let peer = |host| parameters.peer(parameters.part(host));
    let (client, server) = (peer("client"), peer("server"));
    let line = |words: &[String]| format!("`{}`", in_a_line(words));
    let server = match server.listen.filter(|_| server.command.words.is_empty()) {
        Some(port) => format!("halfopen's own server at port {port}"),
        None => line(&server.command.words),
    };
    let when = match (kind, on_output) {
        (FaultKind::None, _) => String::new(),
        (_, Some(pattern)) => {
            format!("{} after a line of output like `{pattern}`, ", span::exact(*after))
        }
        (_, None) => format!("{} after the client first received data, ", span::exact(*after)),
    };
    let client = match &client.command.words[..] {
        [] => "halfopen's own client".into(),
        words => line(words),
    };
    let through = match &peer("proxy").command.words[..] {
        _ if !parameters.third_there() => String::new(),
        [] => " through halfopen's own proxy".into(),
        words => format!(" through {}", line(words)),
    };
    format!("{client} talks to {server}{through}; {when}{fault}")
}

/// A command as one line, or the beginning of a long one.
fn in_a_line(words: &[String]) -> String {
    let line: String = command::join(words).split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(COMMAND_LETTERS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// The most letters of a command in a sentence.
const COMMAND_LETTERS: usize = 120;

/// How many processes a fault has met.
pub(crate) fn processes(met: u32, left: u32) -> String {
    let met = counted(met, "process");
    if left == 0 { format!("{met} in all") } else { format!("{met}, and {left} were left") }
}

/// Which source told the kernel's side.
pub(crate) fn detected_by(by: DetectedBy, resolution_s: f64) -> String {
    let source = match by {
        DetectedBy::Tracepoint => "the kernel's tracepoints",
        DetectedBy::SockDiag => "socket diagnostics",
        DetectedBy::Peer => "the client program",
    };
    if resolution_s > 0.0 {
        format!("{source}, up to {} late", span::measured(resolution_s))
    } else {
        source.into()
    }
}

/// A step of the schedule.
pub(crate) const fn step(kind: StepKind) -> &'static str {
    match kind {
        StepKind::TailLossProbe => "tail loss probe",
        StepKind::Retransmission => "retransmission",
        StepKind::KeepaliveProbe => "keepalive probe",
        StepKind::WindowProbe => "window probe",
        StepKind::SynRetransmission => "SYN again",
        StepKind::FinRetransmission => "FIN again",
        StepKind::GiveUp => "gives up",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nginx_is_left_behind_the_other_host_is_its_client_s() {
        let mut parameters = Parameters::default();
        let sentence = "4 segments left the client and 0 arrived at the server";
        assert_eq!(by_name(&parameters, sentence), sentence);
        parameters.client.program = spec::Program::Nginx;
        for (made, named) in [
            (sentence, "4 segments left nginx and 0 arrived at the client"),
            ("the client's interface kept its carrier", "nginx's interface kept its carrier"),
            ("the server's host is destroyed", "the client's host is destroyed"),
            ("link switch port to server: gone", "link switch port to client: gone"),
            ("link client: up", "link nginx: up"),
        ] {
            assert_eq!(by_name(&parameters, made), named);
        }
        assert!(setting(&parameters).starts_with("nginx, switch, client"));
    }

    #[test]
    fn a_shutdown_is_no_close() {
        let mut parameters = Parameters::default();
        parameters.client.traffic = Traffic::Close;
        assert_eq!(after_reference(Reference::Close, &parameters), "after the program's close");
        parameters.client.traffic = Traffic::Shutdown;
        assert_eq!(after_reference(Reference::Close, &parameters), "after the shutdown");
    }
}
