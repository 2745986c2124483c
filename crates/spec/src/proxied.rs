//! Which settings go together with a program in the middle.

use crate::choice::{Direction, FaultKind, LostHost, Neighbour, Program, Topology, Traffic};
use crate::experiment::{Parameters, Peer};
use crate::settings;

impl Parameters {
    /// Combinations with the topology `proxy`, with the hosts by their names.
    pub(crate) fn validate_proxied(&self) -> Result<(), (&'static str, String)> {
        if self.topology != Topology::Proxy {
            let why = "`proxy` needs the topology `proxy`: there is no program in the middle";
            return match self.fault.host {
                LostHost::Proxy => Err(("fault.host", why.into())),
                LostHost::Server | LostHost::Client => Ok(()),
            };
        }
        self.validate_all_frames()?;
        if self.neighbour == Neighbour::Learned {
            let why = "with the topology `proxy` it is `permanent`";
            return Err(("neighbour", why.into()));
        }
        if self.path.rto_min.is_some() {
            let why = "it is for a route between two hosts, and the topology `proxy` has three";
            return Err(("path.rto_min", why.into()));
        }
        let mut named = self.clone();
        named.by_name();
        let Self { client, server, third: proxy, require, .. } = &named;
        for (key, command_key, peer) in [
            ("client.program", "client.command", client),
            ("server.program", "server.command", server),
            ("proxy.command", "proxy.command", proxy),
        ] {
            let has_command = !peer.command.words.is_empty();
            match peer.program {
                Program::Nginx => {
                    let why = "with the topology `proxy` give nginx as a command";
                    return Err((key, why.into()));
                }
                Program::Command | Program::Halfopen => {}
            }
            if (peer.program == Program::Command) != has_command {
                let why = "the program is `command` where a command is given, and only there";
                return Err((command_key, why.into()));
            }
            refuse_what_is_of_own_peers(peer, command_key)?;
        }
        match (server.program, server.listen) {
            (Program::Halfopen, None) => {
                let why = "halfopen's own server needs a port; or give `server.command`";
                return Err(("server.listen", why.into()));
            }
            (Program::Command, Some(_)) => {
                let why = "`server.command` chooses its port itself: leave one of the two out";
                return Err(("server.listen", why.into()));
            }
            _ => {}
        }
        if proxy.program == Program::Command && proxy.listen.is_some() {
            let why = "`proxy.command` chooses its port itself: leave one of the two out";
            return Err(("proxy.listen", why.into()));
        }
        if require.exits.is_some() && client.program != Program::Command {
            return Err((
                "require.exits",
                "it is about `client.command`, and there is none".into(),
            ));
        }
        Ok(())
    }

    /// What a blackhole between three hosts drops.
    pub(crate) fn validate_all_frames(&self) -> Result<(), (&'static str, String)> {
        let Self { topology, fault, .. } = self;
        if *topology != Topology::Proxy || fault.kind != FaultKind::Blackhole {
            return Ok(());
        }
        let given = [
            ("fault.direction", fault.direction != Direction::Both),
            ("fault.packets", fault.packets.is_some()),
            ("fault.loss", fault.loss.is_some()),
        ];
        let Some((key, _)) = given.into_iter().find(|(_, given)| *given) else { return Ok(()) };
        let why = "with the topology `proxy` the path drops all frames both ways: leave it out, or use the \
                   topology `switch` or `router`";
        Err((key, why.into()))
    }
}

/// Refuses what is about halfopen's own client and server without a program in the middle, and options of
/// sockets that halfopen does not open.
fn refuse_what_is_of_own_peers(
    peer: &Peer,
    command_key: &'static str,
) -> Result<(), (&'static str, String)> {
    let given = [
        ("traffic", peer.traffic != Traffic::Idle),
        ("script", peer.script.is_some()),
        ("linger", peer.linger.is_some()),
        ("second_write", peer.second_write.is_some()),
        ("fills_window", peer.fills_window),
        ("reads", !peer.reads),
        ("inherited", peer.inherited),
    ];
    let options = [
        ("keepalive.enabled", peer.keepalive.enabled),
        ("user_timeout", peer.user_timeout.is_some()),
        ("rto_max", peer.rto_max.is_some()),
        ("rto_min", peer.rto_min.is_some()),
        ("thin_linear_timeouts", peer.thin_linear_timeouts),
    ];
    let first = |settings: &[(&'static str, bool)]| {
        settings.iter().find_map(|(key, given)| given.then_some(*key))
    };
    let (key, why) = if let Some(key) = first(&given) {
        let why = format!(
            "with the topology `proxy` halfopen's own programs connect, exchange, and then stay idle: leave it \
             out, or give a program of yours as `{command_key}`"
        );
        (key, why)
    } else if let Some(key) = first(&options).filter(|_| peer.program == Program::Command) {
        let why = format!(
            "it applies to halfopen's own programs: have your program set it, or leave `{command_key}` out"
        );
        (key, why)
    } else {
        return Ok(());
    };
    let host = command_key.strip_suffix(".command").unwrap_or(command_key);
    let full = format!("{host}.{key}");
    let named = settings::find(&full).map_or(command_key, |setting| setting.key);
    Err((named, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each is told by the name by which it was given, with what is accepted.
    #[test]
    fn what_does_not_go_with_a_proxy_is_refused_by_its_own_name() {
        const IDLE: &str = "stay idle: leave it out, or give a program of yours as `";
        const ALL: &str = "drops all frames both ways: leave it out, or use the topology `switch`";
        for (settings, key, complaint) in [
            (&[("client.traffic", "one-write")][..], "client.traffic", IDLE),
            (&[("client.script", "close")], "client.script", IDLE),
            (&[("client.second_write", "1s")], "client.second_write", IDLE),
            (&[("server.linger", "0s")], "server.linger", IDLE),
            (&[("server.reads", "false")], "server.reads", IDLE),
            (&[("fault.host", "client"), ("server.traffic", "stream")], "server.traffic", IDLE),
            (
                &[("client.command", "cat"), ("client.user_timeout", "2s")],
                "client.user_timeout",
                "leave `client.command` out",
            ),
            (
                &[("proxy.command", "cat"), ("proxy.keepalive.enabled", "true")],
                "proxy.keepalive.enabled",
                "leave `proxy.command` out",
            ),
            (&[("fault.direction", "to-server")], "fault.direction", ALL),
            (&[("fault.packets", "3")], "fault.packets", ALL),
            (&[("fault.loss", "5%")], "fault.loss", ALL),
            (
                &[("fault.2.kind", "blackhole"), ("fault.2.packets", "3"), ("fault.2.after", "2s")],
                "fault.2.kind",
                "of `blackhole`, `fault.2.packets`: with the topology `proxy` the path drops all",
            ),
            (&[("fault.kind", "mtu"), ("fault.mtu", "600")], "fault.kind", "not available with"),
        ] {
            let mut parameters = Parameters::default();
            let base =
                [("topology", "proxy"), ("server.listen", "80"), ("fault.kind", "blackhole")];
            for (key, value) in base.iter().chain(settings) {
                settings::apply(&mut parameters, key, value).unwrap();
            }
            let (blamed, why) = parameters.validate().unwrap_err();
            assert!(blamed == key && why.contains(complaint), "{settings:?}: {blamed}: {why}");
        }
    }
}
