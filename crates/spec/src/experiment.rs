//! An experiment: one question, and the stimulus that asks it.

use crate::choice::{Family, FaultKind, Neighbour, Program, Reject, Topology, Traffic};
use crate::command::{Command, Requirements};
use crate::duration;
use crate::effect::Ends;
use crate::script::{Script, Step};
use crate::sysctl::Sysctls;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One question to the kernel, with every setting that matters, merged and validated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Experiment {
    /// The stem of its file.
    pub name: String,
    /// The question, one sentence.
    pub question: String,
    /// Ids of the claims it tests.
    pub claims: Vec<String>,
    /// The stimulus.
    pub parameters: Parameters,
}

/// Everything that is done to the connection. What should happen then is the model's business.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    /// How client and server are joined.
    pub topology: Topology,
    /// The address family.
    pub family: Family,
    /// How hosts know each other's link-layer addresses.
    pub neighbour: Neighbour,
    /// How long after the fault the trial ends; `None`: from the prediction.
    pub deadline: Option<Duration>,
    /// Whether the trial may go on beyond its deadline to what is predicted: the file has chosen
    /// the one for settings that the Linux defaults have replaced.
    #[serde(default)]
    pub deadline_extends: bool,
    /// The client.
    pub client: Client,
    /// The server.
    pub server: Server,
    /// The web server, where one of the two is one.
    #[serde(default)]
    pub nginx: Nginx,
    /// The path between them.
    pub path: Path,
    /// What breaks.
    pub fault: Fault,
    /// What is set differently once the fault is there.
    #[serde(default)]
    pub later: Later,
    /// What the user needs of the client.
    #[serde(default)]
    pub require: Requirements,
    /// `net.ipv4.*` in the client's namespace.
    pub sysctl: Sysctls,
    /// `net.ipv4.*` in the server's namespace.
    pub server_sysctl: Sysctls,
}

/// The client program and its socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Which program it is. nginx accepts where others connect: it is the one left behind.
    #[serde(default = "own_program")]
    pub program: Program,
    /// The command, where it is one.
    #[serde(default)]
    pub command: Command,
    /// What it does after the fault.
    pub traffic: Traffic,
    /// For the traffic `script`: its calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<Script>,
    /// Its keepalive.
    pub keepalive: Keepalive,
    /// `TCP_USER_TIMEOUT` (RFC 5482); `None`: not set.
    pub user_timeout: Option<Duration>,
    /// `TCP_RTO_MAX_MS` (Linux 6.15); `None`: not set.
    pub rto_max: Option<Duration>,
    /// `TCP_RTO_MIN_US` (Linux 6.17); `None`: not set.
    #[serde(default)]
    pub rto_min: Option<Duration>,
    /// `TCP_THIN_LINEAR_TIMEOUTS`.
    #[serde(default)]
    pub thin_linear_timeouts: bool,
    /// `SO_LINGER`, set before the traffic `close`; `None`: not set.
    #[serde(default)]
    pub linger: Option<Duration>,
    /// For the traffic `one-write`: from the first write to a second one; `None`: there is none.
    #[serde(default)]
    pub second_write: Option<Duration>,
    /// Whether it writes, before the fault, until the server, which does not read, closes its
    /// window.
    #[serde(default)]
    pub fills_window: bool,
    /// For the traffic `heartbeat`.
    pub heartbeat: Heartbeat,
}

/// RFC 1122 4.2.3.6 keep-alives. An unset time is the sysctl's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keepalive {
    /// `SO_KEEPALIVE`.
    pub enabled: bool,
    /// `TCP_KEEPIDLE`, whole seconds.
    pub idle: Option<Duration>,
    /// `TCP_KEEPINTVL`, whole seconds.
    pub interval: Option<Duration>,
    /// `TCP_KEEPCNT`.
    pub probes: Option<u32>,
}

/// An application-level request and answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// From one request to the next.
    pub interval: Duration,
    /// How long the client waits for an answer before it gives the server up.
    pub deadline: Duration,
}

/// The server program and its sockets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Which program it is.
    #[serde(default = "own_program")]
    pub program: Program,
    /// The command, where it is one.
    #[serde(default)]
    pub command: Command,
    /// The port of halfopen's own server, where the client is a command.
    #[serde(default)]
    pub listen: Option<u16>,
    /// Whether it reads what the client sends once the connection has settled. If it does not,
    /// the client sends 100 bytes just before the fault, and they stay unread.
    pub reads: bool,
    /// `SO_LINGER`; `None`: not set.
    pub linger: Option<Duration>,
    /// Whether a forked child holds the accepted socket too.
    pub inherited: bool,
    /// Whether it writes, before the fault, until its send buffer is full, since the client reads
    /// nothing until after the fault.
    #[serde(default)]
    pub fills_window: bool,
}

fn own_program() -> Program {
    Program::Halfopen
}

/// A real nginx.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nginx {
    /// Its directive `keepalive_timeout`; `None`: nginx's own default.
    pub keepalive_timeout: Option<Duration>,
}

impl Nginx {
    /// nginx's own default (`ngx_http_core_module`).
    const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(75);

    /// How long it keeps an idle connection.
    pub fn keeps_for(&self) -> Duration {
        self.keepalive_timeout.unwrap_or(Self::KEEPALIVE_TIMEOUT)
    }
}

/// The path between client and server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// Round-trip time added to the path, half each way; zero: none.
    pub rtt: Duration,
    /// The smallest RTO on the client's route to the server (`ip route … rto_min lock`,
    /// `RTAX_RTO_MIN`); `None`: not set.
    #[serde(default)]
    pub rto_min: Option<Duration>,
}

/// Sysctls that are changed while the client waits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Later {
    /// From the fault to the change.
    pub after: Duration,
    /// `net.ipv4.*` in the client's namespace from then on.
    pub sysctl: Sysctls,
}

/// What breaks, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The mechanism.
    pub kind: FaultKind,
    /// From the last exchange to the fault.
    pub after: Duration,
    /// A regular expression: with a command, `after` counts from the first line of a program's
    /// output that it matches.
    #[serde(default)]
    pub on_output: Option<String>,
    /// From the fault to its end, for those that end: `flap`, `reboot`, `process-freeze`.
    pub duration: Option<Duration>,
    /// What the router answers under `reject`.
    pub reject: Reject,
    /// Whether a rebooted host comes back with another MAC address.
    pub new_mac: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            topology: Topology::Switch,
            family: Family::Ipv4,
            neighbour: Neighbour::Permanent,
            deadline: None,
            deadline_extends: false,
            client: Client {
                program: Program::Halfopen,
                command: Command::default(),
                traffic: Traffic::Idle,
                script: None,
                keepalive: Keepalive { enabled: false, idle: None, interval: None, probes: None },
                user_timeout: None,
                rto_max: None,
                rto_min: None,
                thin_linear_timeouts: false,
                linger: None,
                second_write: None,
                fills_window: false,
                heartbeat: Heartbeat {
                    interval: Duration::from_secs(1),
                    deadline: Duration::from_secs(1),
                },
            },
            server: Server {
                program: Program::Halfopen,
                command: Command::default(),
                listen: None,
                reads: true,
                linger: None,
                inherited: false,
                fills_window: false,
            },
            nginx: Nginx::default(),
            path: Path { rtt: Duration::ZERO, rto_min: None },
            fault: Fault {
                kind: FaultKind::None,
                after: Duration::from_millis(200),
                on_output: None,
                duration: None,
                reject: Reject::TcpReset,
                new_mac: false,
            },
            later: Later::default(),
            require: Requirements::default(),
            sysctl: Sysctls::new(),
            server_sysctl: Sysctls::new(),
        }
    }
}

impl Parameters {
    /// Puts sysctls and keepalive times back to the Linux defaults, and nginx's to its own. What
    /// is switched on stays on; the other socket options stay, and a deadline becomes the least.
    pub fn reset_to_linux_defaults(&mut self) {
        self.sysctl.clear();
        self.server_sysctl.clear();
        let keepalive = &mut self.client.keepalive;
        (keepalive.idle, keepalive.interval, keepalive.probes) = (None, None, None);
        self.nginx = Nginx::default();
        self.deadline_extends = self.deadline.is_some();
    }

    /// Makes a deadline that extends long enough for keepalive to have ended a dead connection: on
    /// one that lives, a probe leaves and is answered by then.
    pub(crate) fn hold_keepalive(&mut self) {
        if self.deadline_extends && self.client.keepalive.enabled {
            let takes = self.keepalive_takes();
            let holds = takes.saturating_add(takes / 10);
            self.deadline = self.deadline.map(|deadline| deadline.max(holds));
        }
    }

    /// From the last segment received to keepalive's end of a dead connection, at least: the idle
    /// time and an interval for each probe.
    fn keepalive_takes(&self) -> Duration {
        let (idle, interval, probes) = self.keepalive_in_force();
        idle.saturating_add(interval.saturating_mul(probes))
    }

    /// Keepalive's idle time, interval and number of probes: the socket's options, else the sysctls.
    /// What nothing sets is Linux's own, which every new namespace has (`TCP_KEEPALIVE_TIME` and its
    /// neighbours, include/net/tcp.h).
    pub fn keepalive_in_force(&self) -> (Duration, Duration, u32) {
        let sysctl = |name: &str, default: u64| {
            self.sysctl.get(name).and_then(|value| value.parse().ok()).unwrap_or(default)
        };
        let seconds = |name, default| Duration::from_secs(sysctl(name, default));
        let keepalive = &self.client.keepalive;
        let idle = keepalive.idle.unwrap_or_else(|| seconds("tcp_keepalive_time", 7200));
        let interval = keepalive.interval.unwrap_or_else(|| seconds("tcp_keepalive_intvl", 75));
        let probes = sysctl("tcp_keepalive_probes", 9);
        let probes = keepalive.probes.unwrap_or(u32::try_from(probes).unwrap_or(u32::MAX));
        (idle, interval, probes)
    }

    /// Whether a web server is one of the two.
    pub fn has_web_server(&self) -> bool {
        [self.client.program, self.server.program]
            .iter()
            .any(|program| program.description().is_web_server)
    }

    /// Whether the client's program closes its socket by itself, or a script may have it do so, and
    /// its kernel then goes on alone until it has forgotten the connection.
    pub fn client_lets_go(&self) -> bool {
        match self.client.traffic {
            _ if self.client.program.description().is_web_server => true,
            Traffic::Close => true,
            Traffic::Script => self.client.script.as_ref().is_some_and(Script::may_close),
            Traffic::Idle
            | Traffic::OneWrite
            | Traffic::Stream
            | Traffic::Heartbeat
            | Traffic::Connect
            | Traffic::Shutdown => false,
        }
    }

    /// The calls of halfopen's own client after the fault. `None`: no sequence of calls says it
    /// (`connect` comes before there is a connection, `heartbeat` does not wait for one answer
    /// before it asks again), or the client is another program.
    pub fn script(&self) -> Option<Script> {
        let write = Step::Write(BLOCK);
        let (steps, repeats) = match self.client.traffic {
            _ if !self.client.program.description().reports => return None,
            Traffic::Connect | Traffic::Heartbeat => return None,
            Traffic::Script => return self.client.script.clone(),
            Traffic::Idle => (vec![], false),
            Traffic::OneWrite => match self.client.second_write {
                None => (vec![write], false),
                Some(later) => (vec![write, Step::Wait(later), write], false),
            },
            Traffic::Stream => (vec![write, Step::Wait(STREAM_INTERVAL)], true),
            Traffic::Close => (vec![Step::Close], false),
            Traffic::Shutdown => (vec![Step::Shutdown], false),
        };
        Some(Script { steps, repeats })
    }

    /// How long a fault lasts that ends by itself, if it does.
    pub fn fault_duration(&self) -> Option<Duration> {
        match self.fault.kind.effect().ends {
            Ends::Never => None,
            Ends::IfDuration => self.fault.duration,
            Ends::Always => Some(self.fault.duration.unwrap_or(Duration::from_millis(500))),
        }
    }

    /// Checks what no single setting can know: combinations.
    ///
    /// # Errors
    /// The key to blame and a sentence that says what was given and what is accepted.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        let Self { topology, fault, client, .. } = self;
        let topologies: &[Topology] = match fault.kind {
            FaultKind::None | FaultKind::ProcessCrash | FaultKind::ProcessFreeze => Topology::ALL,
            FaultKind::PowerOff | FaultKind::Reboot | FaultKind::Flap | FaultKind::Blackhole => {
                &[Topology::Switch, Topology::Router]
            }
            FaultKind::Reject => &[Topology::Router],
            FaultKind::Unplug => &[Topology::Direct],
        };
        if !topologies.contains(topology) {
            let accepted: Vec<_> = topologies.iter().map(|t| format!("`{t}`")).collect();
            return Err((
                "fault.kind",
                format!(
                    "`{}` is not available with topology `{topology}`: use {}",
                    fault.kind,
                    accepted.join(" or ")
                ),
            ));
        }
        if fault.kind == FaultKind::Flap && fault.duration.is_none() {
            return Err((
                "fault.duration",
                "the fault `flap` needs it: when does the link come back?".into(),
            ));
        }
        if *topology == Topology::Direct && !self.path.rtt.is_zero() {
            return Err(("path.rtt", "a direct cable has no place to add delay: it needs the topology `switch` or `router`".into()));
        }
        self.validate_deadline()?;
        self.validate_traffic()?;
        self.validate_nginx()?;
        self.validate_commands()?;
        let asks = match client.traffic {
            Traffic::Heartbeat => Some("heartbeats"),
            Traffic::Script if client.script.as_ref().is_some_and(Script::requests) => {
                Some("requests")
            }
            _ => None,
        };
        if let Some(asks) = asks.filter(|_| !self.server.reads) {
            return Err((
                "server.reads",
                format!("a server that does not read cannot answer {asks}"),
            ));
        }
        if let Some(asks) = asks
            && fault.kind.effect().kills()
            && self.server.inherited
        {
            return Err((
                "server.inherited",
                format!("the child that inherits the socket does not answer {asks}"),
            ));
        }
        Ok(())
    }

    /// A trial that ends before what it is about has happened shows nothing.
    fn validate_deadline(&self) -> Result<(), (&'static str, String)> {
        let Some(deadline) = self.deadline.filter(|_| !self.deadline_extends) else {
            return Ok(());
        };
        let changes = (!self.later.sysctl.is_empty()).then_some(self.later.after);
        for (key, what, at) in [
            ("fault.duration", "the fault ends", self.fault_duration()),
            ("later.after", "sysctls change", changes),
        ] {
            if let Some(at) = at.filter(|at| *at >= deadline) {
                let (deadline, at) = (duration::show(deadline), duration::show(at));
                let why = format!(
                    "the trial would end {deadline} after the fault, before {what} at {at}: it \
                     needs more than `{key}`"
                );
                return Err(("deadline", why));
            }
        }
        Ok(())
    }

    /// Checks what only a kernel's HZ decides: `TCP_RTO_MIN_US` takes two jiffies at least
    /// (`TCP_TIMEOUT_MIN`), once it is rounded up to jiffies (`do_tcp_setsockopt`, net/ipv4/tcp.c).
    /// A route's smallest RTO has no such limit.
    ///
    /// # Errors
    /// As for [`Self::validate`].
    pub fn validate_at(&self, hz: u32) -> Result<(), (&'static str, String)> {
        let jiffy = Duration::from_secs(1) / hz.max(1);
        match self.client.rto_min {
            Some(least) if least <= jiffy => Err((
                "client.rto_min",
                format!(
                    "the kernel does not take {}, which is less than two jiffies at HZ {hz} \
                     (accepted: more than {}, up to 200ms)",
                    duration::show(least),
                    duration::show(jiffy)
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Combinations of what client and server do.
    fn validate_traffic(&self) -> Result<(), (&'static str, String)> {
        let Self { client, server, .. } = self;
        match (client.traffic, &client.script) {
            (Traffic::Script, None) => {
                let why = "the traffic `script` needs it: which calls does the client make?";
                return Err(("client.script", why.into()));
            }
            (traffic, Some(_)) if traffic != Traffic::Script => {
                let why = format!("it needs the traffic `script`, not `{traffic}`");
                return Err(("client.script", why));
            }
            _ => {}
        }
        let connects = client.traffic == Traffic::Connect;
        let needs_connection = [
            ("server.reads", !server.reads),
            ("server.inherited", server.inherited),
            ("server.fills_window", server.fills_window),
            ("client.fills_window", client.fills_window),
        ];
        if let Some((key, _)) = needs_connection.iter().find(|(_, set)| connects && *set) {
            let why = "it is about a connection, and with the traffic `connect` there is none \
                       before the fault";
            return Err((key, why.into()));
        }
        let own: &[Traffic] = &[Traffic::Idle, Traffic::Script];
        for (key, set, accepted) in [
            ("client.fills_window", client.fills_window, own),
            ("server.fills_window", server.fills_window, &own[..1]),
        ] {
            if set && !accepted.contains(&client.traffic) {
                let needs = any_of(accepted);
                return Err((
                    key,
                    format!("it needs the traffic {needs}, not `{}`", client.traffic),
                ));
            }
        }
        if client.fills_window && server.reads {
            let why = "a server that reads does not close its window: it needs \
                       `server.reads = false`";
            return Err(("client.fills_window", why.into()));
        }
        if server.fills_window && !self.fault.kind.effect().peer_kernel_answers() {
            let why = "what the path does to data that the client reads late is another question: \
                       it needs the fault `none`, `process-crash` or `process-freeze`";
            return Err(("server.fills_window", why.into()));
        }
        if server.fills_window && (!server.reads || server.inherited) {
            let why = "it needs a server that reads, and whose socket nobody has inherited";
            return Err(("server.fills_window", why.into()));
        }
        if client.fills_window && server.fills_window {
            let why = "one of the two fills the other's window, not both";
            return Err(("server.fills_window", why.into()));
        }
        Ok(())
    }

    /// Combinations with a web server.
    fn validate_nginx(&self) -> Result<(), (&'static str, String)> {
        let Self { client, server, fault, .. } = self;
        let (key, faults, traffics): (_, &[FaultKind], &[Traffic]) =
            match (client.program, server.program) {
                (Program::Halfopen, Program::Halfopen)
                | (Program::Command, _)
                | (_, Program::Command) => return Ok(()),
                (Program::Nginx, Program::Nginx) => {
                    let why = "one of the two is nginx, and the other asks it; not both";
                    return Err(("server.program", why.into()));
                }
                (Program::Halfopen, Program::Nginx) => (
                    "server.program",
                    &[
                        FaultKind::None,
                        FaultKind::ProcessCrash,
                        FaultKind::ProcessFreeze,
                        FaultKind::PowerOff,
                        FaultKind::Blackhole,
                    ],
                    &[Traffic::Idle, Traffic::OneWrite],
                ),
                (Program::Nginx, Program::Halfopen) => (
                    "client.program",
                    &[FaultKind::PowerOff, FaultKind::Blackhole],
                    &[Traffic::Idle],
                ),
            };
        if !faults.contains(&fault.kind) {
            return Err((
                key,
                format!("with nginx there the fault is {}, not `{}`", any_of(faults), fault.kind),
            ));
        }
        if !traffics.contains(&client.traffic) {
            return Err((
                key,
                format!(
                    "with nginx there the traffic is {}, not `{}`",
                    any_of(traffics),
                    client.traffic
                ),
            ));
        }
        let own = "it is about halfopen's own programs, and nginx goes its own way";
        let settings = [
            ("server.reads", !server.reads),
            ("server.linger", server.linger.is_some()),
            ("server.inherited", server.inherited),
            ("server.fills_window", server.fills_window),
            ("client.fills_window", client.fills_window),
            ("client.second_write", client.second_write.is_some()),
        ];
        let sockets = [
            ("client.keepalive.enabled", client.keepalive.enabled),
            ("client.user_timeout", client.user_timeout.is_some()),
            ("client.rto_max", client.rto_max.is_some()),
            ("client.rto_min", client.rto_min.is_some()),
            ("client.thin_linear_timeouts", client.thin_linear_timeouts),
        ];
        // The sockets' options are the client's, which is nginx or not.
        let sockets = sockets.into_iter().filter(|_| client.program == Program::Nginx);
        if let Some((key, _)) = settings.into_iter().chain(sockets).find(|(_, set)| *set) {
            return Err((key, own.into()));
        }
        if client.program == Program::Nginx && self.neighbour == Neighbour::Learned {
            let why = "it needs `permanent`: nginx closes some time after the fault, and what its \
                       kernel still knows of its neighbour then is random";
            return Err(("neighbour", why.into()));
        }
        let keeps_for = self.nginx.keeps_for();
        if fault.after + self.path.rtt + NGINX_SETTLED >= keeps_for {
            return Err((
                "fault.after",
                format!(
                    "nginx closes an idle connection after {}: the fault must come {} before that \
                     at least",
                    duration::show(keeps_for),
                    duration::show(NGINX_SETTLED + self.path.rtt)
                ),
            ));
        }
        Ok(())
    }
}

/// What halfopen's own client writes at a time, bytes.
const BLOCK: u32 = 100;
/// From one write of `stream` to the next.
const STREAM_INTERVAL: Duration = Duration::from_millis(50);

/// From the last exchange to the fault the laboratory takes this much time of its own at most.
const NGINX_SETTLED: Duration = Duration::from_millis(200);

/// The names of some choices: `` `a`, `b` or `c` ``.
fn any_of<T: std::fmt::Display>(choices: &[T]) -> String {
    let names: Vec<_> = choices.iter().map(|choice| format!("`{choice}`")).collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings;

    fn with(settings: &[(&str, &str)]) -> Parameters {
        let mut parameters = Parameters::default();
        for (key, value) in settings {
            settings::apply(&mut parameters, key, value).unwrap();
        }
        parameters
    }

    /// `usecs_to_jiffies` rounds up: a microsecond more than a jiffy is two.
    #[test]
    fn the_smallest_rto_is_two_jiffies_of_the_kernel_s() {
        for (least, hz, accepted) in [
            ("4ms", 250, false),
            ("4001us", 250, true),
            ("4ms", 1000, true),
            ("1ms", 1000, false),
            ("10ms", 100, false),
            ("11ms", 100, true),
            ("200ms", 100, true),
        ] {
            let result = with(&[("client.rto_min", least)]).validate_at(hz);
            assert_eq!(result.is_ok(), accepted, "{least} at HZ {hz}: {result:?}");
            let names_it = |(key, why): (&str, String)| {
                key == "client.rto_min" && why.contains(least) && why.contains("up to 200ms")
            };
            assert!(result.err().is_none_or(names_it), "{least} at HZ {hz}");
        }
        assert_eq!(with(&[("path.rto_min", "1ms")]).validate_at(100), Ok(()));
    }

    #[test]
    fn a_script_goes_with_its_traffic_and_with_what_its_server_can_do() {
        let traffic = ("client.traffic", "script");
        let script = |text| ("client.script", text);
        let closed = [("client.fills_window", "true"), ("server.reads", "false")];
        for settings in [
            &[traffic, script("wait 45s; write 100")][..],
            &[traffic, script("request 100 2s; close"), ("client.linger", "2s")],
            &[traffic, script("write 100"), closed[0], closed[1]],
        ] {
            assert_eq!(with(settings).validate(), Ok(()), "{settings:?}");
        }
        for (settings, key, complaint) in [
            (&[traffic][..], "client.script", "the traffic `script` needs it"),
            (&[script("write 100")], "client.script", "needs the traffic `script`, not `idle`"),
            (
                &[traffic, script("request 1 2s"), ("server.reads", "false")],
                "server.reads",
                "cannot answer requests",
            ),
            (
                &[traffic, script("write 1"), ("server.fills_window", "true")],
                "server.fills_window",
                "`idle`, not `script`",
            ),
            (
                &[traffic, script("write 1"), ("server.program", "nginx")],
                "server.program",
                "not `script`",
            ),
        ] {
            let (blamed, why) = with(settings).validate().unwrap_err();
            assert!(blamed == key && why.contains(complaint), "{settings:?}: {blamed}: {why}");
        }
        assert!(!with(&[traffic, script("write 1; shutdown")]).client_lets_go());
        assert!(with(&[traffic, script("request 1 1s")]).client_lets_go());
    }

    #[test]
    fn a_web_server_goes_with_what_it_can_do() {
        let nginx = ("server.program", "nginx");
        for settings in [
            &[nginx][..],
            &[nginx, ("client.traffic", "one-write")],
            &[nginx, ("fault.kind", "process-crash")],
            &[nginx, ("fault.kind", "process-freeze"), ("fault.duration", "1s")],
            &[nginx, ("fault.kind", "power-off"), ("client.keepalive.enabled", "true")],
            &[("client.program", "nginx"), ("fault.kind", "power-off")],
        ] {
            assert_eq!(with(settings).validate(), Ok(()), "{settings:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_with_a_web_server_is_refused() {
        let nginx = ("server.program", "nginx");
        let behind = [("client.program", "nginx"), ("fault.kind", "power-off")];
        for (settings, key, complaint) in [
            (vec![nginx, ("client.program", "nginx")], "server.program", "not both"),
            (
                vec![nginx, ("topology", "router"), ("fault.kind", "reject")],
                "server.program",
                "`power-off` or `blackhole`, not `reject`",
            ),
            (vec![nginx, ("client.traffic", "stream")], "server.program", "`idle` or `one-write`"),
            (vec![nginx, ("server.inherited", "true")], "server.inherited", "own programs"),
            (
                vec![nginx, ("nginx.keepalive_timeout", "1s"), ("fault.after", "900ms")],
                "fault.after",
                "closes an idle connection after 1s",
            ),
            (vec![("client.program", "nginx")], "client.program", "not `none`"),
            (
                vec![behind[0], behind[1], ("client.keepalive.enabled", "true")],
                "client.keepalive.enabled",
                "own programs",
            ),
            (vec![behind[0], behind[1], ("neighbour", "learned")], "neighbour", "`permanent`"),
        ] {
            let (blamed, why) = with(&settings).validate().unwrap_err();
            assert!(blamed == key && why.contains(complaint), "{settings:?}: {blamed}: {why}");
        }
    }
}
