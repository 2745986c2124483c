//! Which settings go together.

use crate::choice::{Direction, FaultKind, LostHost, Neighbour, Program, Topology, Traffic};
use crate::duration;
use crate::experiment::Parameters;
use crate::script::Script;
use crate::settings;
use std::time::Duration;

impl Parameters {
    /// Checks what no single setting can know: combinations.
    ///
    /// # Errors
    /// The key to blame and a sentence that says what was given and what is accepted.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        self.validate_proxied()?;
        self.validate_turned().and_then(|()| self.validate_sequence()).map_err(|(key, why)| {
            let named = settings::settings().find(|setting| setting.key == self.named(key));
            (named.map_or(key, |setting| setting.key), self.named(&why))
        })
    }

    /// The same, where the client is the survivor.
    pub(crate) fn validate_turned(&self) -> Result<(), (&'static str, String)> {
        let Self { topology, fault, client, .. } = self;
        let topologies: &[Topology] = match fault.kind {
            FaultKind::None | FaultKind::ProcessCrash | FaultKind::ProcessFreeze => Topology::ALL,
            FaultKind::PowerOff
            | FaultKind::Reboot
            | FaultKind::Takeover
            | FaultKind::Flap
            | FaultKind::Blackhole => &[Topology::Switch, Topology::Router, Topology::Proxy],
            FaultKind::Mtu => &[Topology::Switch, Topology::Router],
            FaultKind::Reject | FaultKind::Forget => &[Topology::Router],
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
        if fault.packets.is_some() && fault.loss.is_some() {
            let why =
                "it is a number of packets or a share: leave `fault.packets` or `fault.loss` out";
            return Err(("fault.packets", why.into()));
        }
        if fault.kind == FaultKind::Mtu && fault.mtu.is_none() {
            let why = "the fault `mtu` needs it: how long is a packet that still passes?";
            return Err(("fault.mtu", why.into()));
        }
        if fault.kind == FaultKind::Forget && fault.idle.is_none() {
            let why = "the fault `forget` needs it: how long is a flow idle before the router \
                       forgets it?";
            return Err(("fault.idle", why.into()));
        }
        if fault.kind == FaultKind::Forget && client.traffic == Traffic::Connect {
            let why = "with the traffic `connect` there is no flow that could be forgotten";
            return Err(("client.traffic", why.into()));
        }
        if *topology == Topology::Direct && !self.path.rtt.is_zero() {
            return Err(("path.rtt", "a direct cable has no place to add delay: it needs the topology `switch` or `router`".into()));
        }
        self.validate_deadline()?;
        if fault.host == LostHost::Client {
            self.validate_survivor_accepts()?;
        }
        self.validate_traffic()?;
        self.validate_web_server()?;
        if self.topology != Topology::Proxy {
            self.validate_commands()?;
        }
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
            && fault.effect().kills()
            && self.server.inherited
        {
            return Err((
                "server.inherited",
                format!("the child that inherits the socket does not answer {asks}"),
            ));
        }
        Ok(())
    }

    /// Combinations with a survivor that has accepted the connection, and is called `server`.
    fn validate_survivor_accepts(&self) -> Result<(), (&'static str, String)> {
        if self.client.traffic == Traffic::Connect {
            let why = "the survivor accepts connections, and does not connect";
            return Err(("client.traffic", why.into()));
        }
        if self.has_web_server() {
            let why = "it is not for nginx: the host that nginx is on says which one breaks";
            return Err(("fault.host", why.into()));
        }
        if self.require.exits.is_some() {
            let why = "it applies to the client's program, and `fault.host` takes that away";
            return Err(("require.exits", why.into()));
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
                    "the kernel does not take {}, which is no more than a jiffy at HZ {hz} \
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
        if server.fills_window && !self.fault.effect().peer_kernel_answers() {
            let why = "what the path does to data that the client reads late is not modelled: it \
            needs the fault `none`, `process-crash` or `process-freeze`";
            return Err(("server.fills_window", why.into()));
        }
        if server.fills_window && (!server.reads || server.inherited) {
            let why = "it needs `server.reads = true` and `server.inherited = false`";
            return Err(("server.fills_window", why.into()));
        }
        if client.fills_window && server.fills_window {
            let why = "only one of the two can fill the other's window";
            return Err(("server.fills_window", why.into()));
        }
        Ok(())
    }

    /// Combinations with a web server.
    fn validate_web_server(&self) -> Result<(), (&'static str, String)> {
        let Self { client, server, fault, .. } = self;
        if [client.program, server.program].contains(&Program::Command) {
            return Ok(());
        }
        let [left_behind, serves] =
            [client.program, server.program].map(|program| program.description().is_web_server);
        let (key, faults, traffics): (_, &[FaultKind], &[Traffic]) = match (left_behind, serves) {
            (false, false) => return Ok(()),
            (true, true) => {
                let why = "only one host can be a web server: the other sends it requests";
                return Err(("server.program", why.into()));
            }
            (false, true) => (
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
            (true, false) => {
                ("client.program", &[FaultKind::PowerOff, FaultKind::Blackhole], &[Traffic::Idle])
            }
        };
        let program = if serves { server.program } else { client.program };
        if !faults.contains(&fault.kind) {
            return Err((
                key,
                format!("with {program} the fault is {}, not `{}`", any_of(faults), fault.kind),
            ));
        }
        if !traffics.contains(&client.traffic) {
            return Err((
                key,
                format!(
                    "with {program} the traffic is {}, not `{}`",
                    any_of(traffics),
                    client.traffic
                ),
            ));
        }
        let settings = [
            ("server.reads", !server.reads),
            ("server.linger", server.linger.is_some()),
            ("server.inherited", server.inherited),
            ("server.fills_window", server.fills_window),
            ("client.fills_window", client.fills_window),
            ("client.second_write", client.second_write.is_some()),
            ("fault.direction", fault.direction != Direction::Both),
            ("fault.packets", fault.packets.is_some()),
            ("fault.loss", fault.loss.is_some()),
        ];
        let sockets = [
            ("client.keepalive.enabled", client.keepalive.enabled),
            ("client.user_timeout", client.user_timeout.is_some()),
            ("client.rto_max", client.rto_max.is_some()),
            ("client.rto_min", client.rto_min.is_some()),
            ("client.thin_linear_timeouts", client.thin_linear_timeouts),
        ];
        // The sockets' options are the client's, which is the web server or not.
        let sockets = sockets.into_iter().filter(|_| left_behind);
        if let Some((key, _)) = settings.into_iter().chain(sockets).find(|(_, set)| *set) {
            let why = format!("it applies to halfopen's own programs, not to {program}");
            return Err((key, why));
        }
        if left_behind && self.neighbour == Neighbour::Learned {
            let why = format!(
                "it needs `permanent`: {program} closes some time after the fault, and what its \
                 kernel still knows of its neighbour then is random"
            );
            return Err(("neighbour", why));
        }
        let keeps_for = self.nginx.keeps_for();
        if fault.after + self.path.rtt + SETTLED >= keeps_for {
            return Err((
                "fault.after",
                format!(
                    "{program} closes an idle connection after {}: the fault must come {} before \
                     that at least",
                    duration::show(keeps_for),
                    duration::show(SETTLED + self.path.rtt)
                ),
            ));
        }
        Ok(())
    }

    /// Combinations with a command.
    fn validate_commands(&self) -> Result<(), (&'static str, String)> {
        let Self { client, server, fault, require, .. } = self;
        for (key, command, program) in [
            ("client.command", &client.command, client.program),
            ("server.command", &server.command, server.program),
        ] {
            if (program == Program::Command) == command.words.is_empty() {
                let why = "the program is `command` where a command is given, and only there";
                return Err((key, why.into()));
            }
        }
        if !self.runs_command() {
            let only_with_command = [
                ("server.listen", server.listen.or(client.listen).is_some()),
                ("fault.on_output", fault.on_output.is_some()),
                ("require.exits", require.exits.is_some()),
            ];
            return match only_with_command.into_iter().find(|(_, given)| *given) {
                Some((key, _)) => {
                    let why = "it applies to commands only: give `client.command` or `server.command` \
                               too, or leave it out";
                    Err((key, why.into()))
                }
                None => Ok(()),
            };
        }
        let (key, asks, [program_key, listen_key]) = match fault.host {
            LostHost::Server | LostHost::Proxy => {
                ("server", client, ["server.program", "server.listen"])
            }
            LostHost::Client => ("client", server, ["client.program", "client.listen"]),
        };
        let serves = if fault.host == LostHost::Client { client } else { server };
        match (asks.program, serves.program, serves.listen) {
            (Program::Command, Program::Command, None)
            | (Program::Command, Program::Halfopen, Some(_))
            | (Program::Halfopen, Program::Command | Program::Halfopen, _) => {}
            (Program::Command, Program::Command, Some(_)) => {
                let why =
                    format!("`{key}.command` chooses its port itself: leave one of the two out");
                return Err((listen_key, why));
            }
            (Program::Command, Program::Halfopen, None) => {
                let why = format!(
                    "halfopen's own server needs a port where the other program is a command; or \
                     give `{key}.command`"
                );
                return Err((listen_key, why));
            }
            (Program::Nginx, ..) | (_, Program::Nginx, _) => {
                let why = "where one program is a command, give nginx as a command too".to_owned();
                return Err((program_key, why));
            }
        }
        if require.exits.is_some() && asks.program != Program::Command {
            let why = "it is about `client.command`, and there is none";
            return Err(("require.exits", why.into()));
        }
        self.validate_only_commands()
    }

    /// Refuses what is about halfopen's own peers, and does not go with a command as the other.
    fn validate_only_commands(&self) -> Result<(), (&'static str, String)> {
        let Self { client, server, fault, .. } = self;
        let traffic = [
            ("client.traffic", client.traffic != Traffic::Idle),
            ("client.linger", client.linger.is_some()),
            ("client.second_write", client.second_write.is_some()),
            ("client.fills_window", client.fills_window),
            ("server.reads", !server.reads),
            ("server.linger", server.linger.is_some()),
            ("server.inherited", server.inherited),
            ("server.fills_window", server.fills_window),
        ];
        let socket = [
            ("client.keepalive.enabled", client.keepalive.enabled),
            ("client.keepalive.idle", client.keepalive.idle.is_some()),
            ("client.keepalive.interval", client.keepalive.interval.is_some()),
            ("client.keepalive.probes", client.keepalive.probes.is_some()),
            ("client.user_timeout", client.user_timeout.is_some()),
            ("client.rto_max", client.rto_max.is_some()),
            ("client.rto_min", client.rto_min.is_some()),
            ("client.thin_linear_timeouts", client.thin_linear_timeouts),
        ];
        let is_own = client.program == Program::Halfopen;
        // halfopen's own client has the options that it is told to.
        let is_own_client = is_own && fault.host == LostHost::Server;
        let socket = socket.into_iter().filter(|_| !is_own_client);
        if let Some((key, _)) = traffic.into_iter().chain(socket).find(|(_, set)| *set) {
            let why = if is_own && fault.host == LostHost::Client {
                // Said of the survivor, which is the server here.
                "halfopen's own client sets no options on the connection of a command: give a command \
                 of yours as the client, or leave the server's out"
            } else {
                "it applies to halfopen's own programs, not to commands"
            };
            return Err((key, why.into()));
        }
        let is_own_server = server.program == Program::Halfopen;
        let replaced = matches!(fault.kind, FaultKind::Reboot | FaultKind::Takeover);
        if is_own_server && replaced && server.command.stays_away {
            let why = "it applies to `server.command` only: give that too, or leave it out";
            return Err(("server.restart", why.into()));
        }
        Ok(())
    }
}

/// From the last exchange to the fault the laboratory takes this much time of its own at most.
const SETTLED: Duration = Duration::from_millis(200);

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
            (vec![nginx, ("client.program", "nginx")], "server.program", "only one host"),
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
