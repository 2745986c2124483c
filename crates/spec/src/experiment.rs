//! An experiment: one question, and the stimulus that asks it.

use crate::choice::{
    Answer, Direction, Family, FaultKind, LostHost, Neighbour, Program, Reject, Topology, Traffic,
};
use crate::command::{Command, Requirements};
use crate::effect::{Effect, Ends, PathFate};
use crate::mend::Mend;
use crate::script::{Script, Step};
use crate::sysctl::Sysctls;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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
    /// What its user can set to find out sooner, where the file says so.
    #[serde(default)]
    pub mend: Option<Mend>,
}

/// Everything that is done to the connection. What should happen then is the model's business.
///
/// From here on the host that is left is the client, whatever it is called: where `fault.host` is
/// `client`, it is the server, and [`crate::settings`] and reports know the names.
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
    /// The survivor: the client, or the server where the client's host breaks (`fault.host`).
    pub client: Peer,
    /// The one that is lost: the server, or the client.
    pub server: Peer,
    /// On the topology `proxy`, the third host; see [`Self::hosts`].
    #[serde(default)]
    pub third: Peer,
    /// The web server, where one of the two is one.
    #[serde(default)]
    pub nginx: Nginx,
    /// The path between them.
    pub path: Path,
    /// What breaks.
    pub fault: Fault,
    /// What breaks after that: each counts its `after` from the beginning of the fault before it, and has
    /// the first one's host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further: Vec<Fault>,
    /// What is set differently once the fault is there.
    #[serde(default)]
    pub later: Later,
    /// Executables that commands need, each with how it is installed.
    #[serde(default)]
    pub needs: BTreeMap<String, String>,
    /// What the user needs of the client.
    #[serde(default)]
    pub require: Requirements,
    /// The virtual kernel that it runs on.
    #[serde(default)]
    pub kernel: VirtualKernel,
    /// `net.ipv4.*` in the survivor's namespace.
    pub sysctl: Sysctls,
    /// `net.ipv4.*` in the namespace of the other.
    pub server_sysctl: Sysctls,
    /// `net.ipv4.*` in the namespace of the third.
    #[serde(default)]
    pub third_sysctl: Sysctls,
    /// What the hosts are called, where these are the settings of a connection beside the one between
    /// the survivor and the lost host ([`Self::of_leg`]).
    #[serde(skip)]
    pub called: Option<[&'static str; 3]>,
}

/// Which kernel of virtual time a trial runs on.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VirtualKernel {
    /// Its version, such as `6.12`; `None`: the one that was built last.
    pub version: Option<String>,
    /// Its timer interrupts a second; `None`: what most distributions have.
    pub hz: Option<u32>,
}

impl VirtualKernel {
    /// The timer frequencies that a kernel can be configured with.
    pub const HZ: [u32; 4] = [100, 250, 300, 1000];

    /// What one of these says, and `other` where it says nothing.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        let version = self.version.clone().or_else(|| other.version.clone());
        Self { version, hz: self.hz.or(other.hz) }
    }
}

/// A host's program and its socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Peer {
    /// Which program it is. nginx accepts where others connect: it is the one left behind.
    pub program: Program,
    /// The command, where it is one.
    pub command: Command,
    /// What it does after the fault.
    pub traffic: Traffic,
    /// For the traffic `script`: its calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<Script>,
    /// Its keepalive.
    pub keepalive: Keepalive,
    /// `TCP_USER_TIMEOUT` (RFC 5482); `None`: not set.
    pub user_timeout: Option<Duration>,
    /// `TCP_RTO_MAX_MS` (Linux 6.15); `None`: not set.
    pub rto_max: Option<Duration>,
    /// `TCP_RTO_MIN_US` (Linux 6.17); `None`: not set.
    pub rto_min: Option<Duration>,
    /// `TCP_THIN_LINEAR_TIMEOUTS`.
    pub thin_linear_timeouts: bool,
    /// `SO_LINGER`, of the survivor set before it closes; `None`: not set.
    pub linger: Option<Duration>,
    /// For the traffic `one-write`: from the first write to a second one; `None`: there is none.
    pub second_write: Option<Duration>,
    /// Whether it writes, before the fault, until the other, which does not read, closes its
    /// window.
    pub fills_window: bool,
    /// For the traffic `heartbeat`.
    pub heartbeat: Heartbeat,
    /// The port of halfopen's own server, where the other program is a command; of halfopen's own
    /// client, the port that it connects to.
    pub listen: Option<u16>,
    /// Of the lost host: whether it reads what is sent once the connection has settled. If
    /// it does not, the survivor sends 100 bytes just before the fault, and they stay unread.
    pub reads: bool,
    /// Of the lost host: whether a forked child holds its socket too.
    pub inherited: bool,
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

fn servers() -> LostHost {
    LostHost::Server
}

fn silent() -> Answer {
    Answer::Silent
}

fn both_ways() -> Direction {
    Direction::Both
}

fn first_seed() -> u64 {
    1
}

fn yes() -> bool {
    true
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
    /// Whose host breaks.
    #[serde(default = "servers")]
    pub host: LostHost,
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
    /// How long a flow is idle before the router forgets it, under `forget`.
    #[serde(default)]
    pub idle: Option<Duration>,
    /// What the router does with a forgotten flow's packets.
    #[serde(default = "silent")]
    pub answer: Answer,
    /// Whether a rebooted host comes back with another MAC address.
    pub new_mac: bool,
    /// Whether the host that takes the address over says so (gratuitous ARP, unsolicited neighbour
    /// advertisement).
    #[serde(default = "yes")]
    pub announce: bool,
    /// Which way the path drops packets, under `blackhole` and `mtu`.
    #[serde(default = "both_ways")]
    pub direction: Direction,
    /// How many TCP packets of each flow it drops; `None`: all.
    #[serde(default)]
    pub packets: Option<u32>,
    /// How many of 10,000 TCP packets it drops; `None`: all.
    #[serde(default)]
    pub loss: Option<u16>,
    /// What the order of these losses depends on.
    #[serde(default = "first_seed")]
    pub seed: u64,
    /// The longest IP packet that passes, bytes, under `mtu`.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// What is still broken of the path when it comes, and stays so: of a process that is killed. No
    /// setting: the fault before it says so ([`Parameters::with_fault`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub still: Option<Still>,
}

/// A path that was away before a fault, and is away still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Still {
    /// What took it away.
    pub kind: FaultKind,
    /// How long it lasts from that fault on; `None`: for good.
    pub left: Option<Duration>,
}

impl Fault {
    /// Whether the address is on another link-layer address afterwards.
    pub fn moves(&self) -> bool {
        self.kind == FaultKind::Takeover || (self.kind == FaultKind::Reboot && self.new_mac)
    }

    /// Whether those who know the address are told that it has moved.
    pub fn announces(&self) -> bool {
        self.kind == FaultKind::Takeover && self.announce
    }

    /// What it does, layer by layer.
    pub fn effect(&self) -> Effect {
        let effect = self.kind.effect();
        if let Some(before) = self.still.map(|still| still.kind.effect()) {
            return Effect { cable: before.cable, path: before.path, ..effect };
        }
        let drops_some = self.packets.is_some() || self.loss.is_some();
        match effect.path {
            PathFate::Silent if drops_some => Effect { path: PathFate::Sieved, ..effect },
            _ => effect,
        }
    }
}

impl Default for Fault {
    fn default() -> Self {
        Self {
            kind: FaultKind::None,
            host: servers(),
            after: Duration::from_millis(200),
            on_output: None,
            duration: None,
            reject: Reject::TcpReset,
            idle: None,
            answer: silent(),
            new_mac: false,
            announce: yes(),
            direction: both_ways(),
            packets: None,
            loss: None,
            seed: first_seed(),
            mtu: None,
            still: None,
        }
    }
}

impl Default for Peer {
    fn default() -> Self {
        let second = Duration::from_secs(1);
        Self {
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
            heartbeat: Heartbeat { interval: second, deadline: second },
            listen: None,
            reads: true,
            inherited: false,
        }
    }
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            topology: Topology::Switch,
            family: Family::Ipv4,
            neighbour: Neighbour::Permanent,
            deadline: None,
            deadline_extends: false,
            client: Peer::default(),
            server: Peer::default(),
            third: Peer::default(),
            nginx: Nginx::default(),
            path: Path { rtt: Duration::ZERO, rto_min: None },
            fault: Fault::default(),
            further: Vec::new(),
            later: Later::default(),
            needs: BTreeMap::new(),
            require: Requirements::default(),
            kernel: VirtualKernel::default(),
            sysctl: Sysctls::new(),
            server_sysctl: Sysctls::new(),
            third_sysctl: Sysctls::new(),
            called: None,
        }
    }
}

impl Parameters {
    /// Puts sysctls and keepalive times back to the Linux defaults, and nginx's to its own. What
    /// is switched on stays on; the other socket options stay, and a deadline becomes the least.
    pub fn reset_to_linux_defaults(&mut self) {
        self.sysctl.clear();
        self.server_sysctl.clear();
        self.third_sysctl.clear();
        for peer in [&mut self.client, &mut self.third] {
            let keepalive = &mut peer.keepalive;
            (keepalive.idle, keepalive.interval, keepalive.probes) = (None, None, None);
        }
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

    /// Exchanges the two hosts, the survivor and the other.
    pub(crate) fn turn(&mut self) {
        std::mem::swap(&mut self.client, &mut self.server);
        std::mem::swap(&mut self.sysctl, &mut self.server_sysctl);
    }

    /// Whether programs open connections as they like: one of them is a command of the user's, or is
    /// in the middle.
    pub fn runs_command(&self) -> bool {
        [self.client.program, self.server.program].contains(&Program::Command)
            || self.topology == Topology::Proxy
    }

    /// Whether the program of a host that is rebooted starts again. halfopen's own client does not:
    /// it could have the port of the connection before.
    pub fn starts_again(&self) -> bool {
        let is_own_client = self.survivor_accepts() && self.server.program == Program::Halfopen;
        !self.server.command.stays_away && !is_own_client
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

    /// Whether the client's program closes its socket by itself, or shuts its direction down, or a script may
    /// have it do so.
    pub fn client_says_goodbye(&self) -> bool {
        let shuts = |script: Script| script.steps.contains(&Step::Shutdown);
        self.client_lets_go() || self.script().is_some_and(shuts)
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

    /// How long a flow is idle before a router on the path forgets it, if one does.
    pub fn forgets_after(&self) -> Option<Duration> {
        self.fault.idle.filter(|_| self.fault.effect().path == PathFate::Forgotten)
    }

    /// A host that loses power for some time is rebooted after it.
    pub fn reboot_after_power_off(&mut self) {
        for fault in std::iter::once(&mut self.fault).chain(&mut self.further) {
            if fault.kind == FaultKind::PowerOff && fault.duration.is_some() {
                fault.kind = FaultKind::Reboot;
            }
        }
    }

    /// How long a fault lasts that ends by itself, if it does.
    pub fn fault_duration(&self) -> Option<Duration> {
        if let Some(still) = self.fault.still {
            return still.left;
        }
        match self.fault.effect().ends {
            Ends::Never => None,
            Ends::IfDuration => self.fault.duration,
            Ends::Always => Some(self.fault.duration.unwrap_or(Duration::from_millis(500))),
        }
    }
}

/// What halfopen's own client writes at a time, bytes.
pub const BLOCK: u32 = 100;
/// From one write of `stream` to the next.
const STREAM_INTERVAL: Duration = Duration::from_millis(50);
