//! Which settings go together with a program in the middle.

use crate::choice::{LostHost, Neighbour, Program, Topology, Traffic};
use crate::experiment::{Parameters, Peer};

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
        if self.fault.sieve().is_some() {
            let why = "with the topology `proxy` the path drops all frames both ways, or none: leave \
                       `fault.direction`, `fault.packets` and `fault.loss` out";
            return Err(("fault.kind", why.into()));
        }
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
            if let Some(key) = only_of_own_peers(peer) {
                let why = format!("`{key}` does not go with the topology `proxy`");
                return Err((command_key, why));
            }
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
}

/// What is about halfopen's own client and server, without a program in the middle.
fn only_of_own_peers(peer: &Peer) -> Option<&'static str> {
    let given = [
        ("traffic", peer.traffic != Traffic::Idle),
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
    let options = options.into_iter().filter(|_| peer.program == Program::Command);
    given.into_iter().chain(options).find_map(|(key, given)| given.then_some(key))
}
