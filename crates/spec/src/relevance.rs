//! When a setting matters. One table: for what is refused, and for what is shown.

use crate::choice::{FaultKind, Program, Traffic};
use crate::effect::{Ends, PathFate, Processes};
use crate::experiment::Parameters;
use crate::names::{HOSTS, Part};
use crate::script::{Script, Step};
use crate::{sequence, settings};

/// What a setting needs to have any effect.
pub struct Need {
    /// The keys, or the beginning of all of them, which then ends with a dot.
    keys: &'static [&'static str],
    /// What must be so, for a person: it follows "matters only with".
    pub with: &'static str,
    /// The switch that, when it is explicitly off, says that the setting is known not to matter.
    switch: Option<&'static str>,
    holds: fn(&Parameters) -> bool,
}

const fn need(
    keys: &'static [&'static str],
    with: &'static str,
    holds: fn(&Parameters) -> bool,
) -> Need {
    Need { keys, with, switch: None, holds }
}

const KEEPALIVE_OPTIONS: &[&str] =
    &["client.keepalive.idle", "client.keepalive.interval", "client.keepalive.probes"];

/// Of a setting with several needs, the first that does not hold is told. The client is the survivor.
const NEEDS: &[Need] = &[
    need(
        &[
            "server.traffic",
            "server.script",
            "server.keepalive.",
            "server.user_timeout",
            "server.rto_max",
            "server.rto_min",
            "server.thin_linear_timeouts",
            "server.second_write",
            "server.heartbeat.",
            "client.reads",
            "client.inherited",
            "client.restart",
        ],
        "`fault.host = client`",
        |_| false,
    ),
    need(&["proxy."], "the topology `proxy`", Parameters::third_there),
    // A SYN's timeout is a second, whatever the least (`tcp_timeout_init`); thin streams and
    // keepalive (`tcp_keepalive_timer`) are for what is established.
    need(
        &["client.keepalive.", "client.rto_min", "path.rto_min", "client.thin_linear_timeouts"],
        "a traffic other than `connect`, which has no connection before the fault",
        |p| p.client.traffic != Traffic::Connect,
    ),
    Need {
        keys: KEEPALIVE_OPTIONS,
        with: "`client.keepalive.enabled = true`",
        switch: Some("client.keepalive.enabled"),
        holds: |p| p.client.keepalive.enabled,
    },
    need(&["client.heartbeat."], "the traffic `heartbeat`", |p| {
        p.client.traffic == Traffic::Heartbeat
    }),
    need(&["client.second_write"], "the traffic `one-write`", |p| {
        p.client.traffic == Traffic::OneWrite
    }),
    need(&["client.linger"], "the traffic `close`, or a script that closes", |p| {
        p.client.traffic == Traffic::Close || p.script().as_ref().is_some_and(closes)
    }),
    need(
        &["server.linger"],
        "the fault `process-crash`, or a client that closes or shuts down: then the server closes",
        |p| {
            let ends = |script: &Script| closes(script) || script.steps.contains(&Step::Shutdown);
            kills(p) || p.script().as_ref().is_some_and(ends)
        },
    ),
    need(&["server.reads"], "any traffic but `connect`: there is a connection then", |p| {
        p.client.traffic != Traffic::Connect
    }),
    need(&["server.inherited"], "the fault `process-crash`", kills),
    need(&["nginx."], "`client.program` or `server.program` = `nginx`", Parameters::has_web_server),
    need(
        &["fault.duration"],
        "the fault `flap`, `reboot`, `takeover`, `mtu` or `process-freeze`",
        |p| p.fault.effect().ends != Ends::Never,
    ),
    need(&["fault.reject"], "the fault `reject`", |p| p.fault.effect().path == PathFate::Rejected),
    need(&["fault.idle", "fault.answer"], "the fault `forget`", |p| {
        p.fault.effect().path == PathFate::Forgotten
    }),
    need(&["fault.direction"], "the fault `blackhole` or `mtu`", |p| {
        matches!(p.fault.kind, FaultKind::Blackhole | FaultKind::Mtu)
    }),
    need(&["fault.packets", "fault.loss"], "the fault `blackhole`", |p| {
        p.fault.kind == FaultKind::Blackhole
    }),
    need(&["fault.mtu"], "the fault `mtu`", |p| p.fault.kind == FaultKind::Mtu),
    need(&["fault.seed"], "`fault.loss`", |p| p.fault.loss.is_some()),
    need(&["fault.new_mac"], "the fault `reboot`", |p| p.fault.kind == FaultKind::Reboot),
    need(&["fault.announce"], "the fault `takeover`", |p| p.fault.kind == FaultKind::Takeover),
    need(&["later.after"], "a sysctl that changes then: `later.sysctl.NAME`", |p| {
        !p.later.sysctl.is_empty()
    }),
];

/// What settings of a command need, without the host that they begin with, which is the client here.
static OF_COMMANDS: Need = need(
    &["user", "tty", "cwd", "stdin", "env.", "ready", "restart"],
    "a command as its host's program",
    |p| p.client.program == Program::Command,
);

fn kills(parameters: &Parameters) -> bool {
    parameters.faults().any(|fault| fault.effect().processes == Processes::Killed)
}

fn closes(script: &Script) -> bool {
    script.steps.contains(&Step::Close)
}

impl Need {
    /// What must be so for this key, with the hosts' names.
    pub fn named(&self, key: &str, parameters: &Parameters) -> String {
        names_in(self.with, key, parameters)
    }

    fn is_of(&self, key: &str) -> bool {
        self.keys.iter().any(|own| key == *own || (own.ends_with('.') && key.starts_with(own)))
    }
}

/// A text about a key: with a program in the middle each host's switches are its own.
fn names_in(text: &str, key: &str, parameters: &Parameters) -> String {
    match of_host(key) {
        Some((host, _)) if parameters.third_there() && text.contains("client.keepalive") => {
            text.replace("client.", &format!("{host}."))
        }
        _ => parameters.named(text),
    }
}

/// What a setting needs, in every experiment.
pub fn needs(key: &str) -> impl Iterator<Item = &'static Need> {
    let of_commands = of_host(key).is_some_and(|(_, rest)| OF_COMMANDS.is_of(rest));
    NEEDS.iter().filter(move |need| need.is_of(key)).chain(of_commands.then_some(&OF_COMMANDS))
}

/// A host's setting: the host's name, and the rest of the key.
fn of_host(key: &str) -> Option<(&str, &str)> {
    key.split_once('.').filter(|(host, _)| HOSTS.contains(host))
}

/// What a setting lacks here; `None` if it matters.
pub fn lacks(key: &str, parameters: &Parameters) -> Option<&'static Need> {
    if let Some((number, first)) = sequence::of_further(key) {
        return lacks(&first, &parameters.with_fault(number.saturating_sub(1)));
    }
    let lacks = |key: &str, parameters: &Parameters| {
        NEEDS.iter().find(|need| need.is_of(key) && !(need.holds)(parameters))
    };
    let Some((host, rest)) = of_host(key) else { return lacks(key, parameters) };
    let is_proxy = host == "proxy";
    if is_proxy && !parameters.third_there() {
        return lacks(key, parameters);
    }
    let client = parameters.peer(parameters.part(host)).clone();
    let own = Parameters { client, ..parameters.clone() };
    if OF_COMMANDS.is_of(rest) && !(OF_COMMANDS.holds)(&own) {
        return Some(&OF_COMMANDS);
    }
    // The proxy's sockets are set as a client's are, whichever host breaks, and so are those of the host
    // whose own kernel is asked too.
    let is_third = parameters.third_there() && parameters.part(host) == Part::Third;
    let as_client = ["keepalive.", "heartbeat."].iter().any(|group| rest.starts_with(group));
    if is_proxy || is_third && as_client {
        lacks(&format!("client.{rest}"), &own)
    } else {
        lacks(&parameters.parted(key), parameters)
    }
}

/// Whether a setting that was given is a mistake: it cannot matter, is not itself switched off, and
/// the switch that it needs is not explicitly off. Says what it lacks.
pub(crate) fn contradicts<'a>(
    key: &str,
    value: &str,
    parameters: &Parameters,
    mut given: impl Iterator<Item = (&'a str, &'a str)>,
) -> Option<&'static Need> {
    // A switch that is on by itself says something where it is off.
    let is_off = |key: &str, value: &str| {
        matches!(value, "off" | "false")
            && settings::find(key).is_some_and(|setting| setting.default == Some(value))
    };
    let need = lacks(key, parameters).filter(|_| !is_off(key, value))?;
    let is_known = need.switch.is_some_and(|switch| {
        let switch = names_in(switch, key, parameters);
        given.any(|(other, value)| other == switch && is_off(other, value))
    });
    (!is_known).then_some(need)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings;

    #[test]
    fn every_key_of_the_table_is_a_setting() {
        for need in NEEDS {
            for key in need.keys {
                let is_of =
                    |known: &str| known == *key || (key.ends_with('.') && known.starts_with(key));
                assert!(settings::settings().any(|setting| is_of(setting.key)), "{key}");
            }
        }
    }

    #[test]
    fn each_need_is_told_where_it_does_not_hold() {
        let mut parameters = Parameters::default();
        for (key, with) in [
            ("client.keepalive.probes", "client.keepalive.enabled = true"),
            ("client.heartbeat.deadline", "`heartbeat`"),
            ("client.second_write", "`one-write`"),
            ("client.linger", "`close`"),
            ("server.linger", "`process-crash`"),
            ("server.inherited", "`process-crash`"),
            ("nginx.keepalive_timeout", "`nginx`"),
            ("fault.duration", "`flap`, `reboot`, `takeover`, `mtu` or `process-freeze`"),
            ("fault.reject", "`reject`"),
            ("fault.idle", "`forget`"),
            ("fault.answer", "`forget`"),
            ("fault.direction", "`blackhole`"),
            ("fault.packets", "`blackhole`"),
            ("fault.loss", "`blackhole`"),
            ("fault.seed", "`fault.loss`"),
            ("fault.mtu", "`mtu`"),
            ("fault.new_mac", "`reboot`"),
            ("fault.announce", "`takeover`"),
            ("later.after", "`later.sysctl.NAME`"),
        ] {
            let lacking = lacks(key, &parameters).map(|need| need.with);
            assert!(lacking.is_some_and(|told| told.contains(with)), "{key}: {lacking:?}");
        }
        assert!(lacks("sysctl.tcp_keepalive_time", &parameters).is_none(), "an experiment");
        assert!(lacks("client.keepalive.enabled", &parameters).is_none());
        settings::apply(&mut parameters, "client.traffic", "connect").unwrap();
        assert!(lacks("client.keepalive.enabled", &parameters).is_some());
    }
}
