//! What the hosts are called. Within the program the survivor is the client, the host that is lost the
//! server, and the other one, which only the topology `proxy` has, the third.
//!
//! | `fault.host` | topology | client | server | third |
//! |---|---|---|---|---|
//! | `server` | | client | server | |
//! | `client` | | server | client | |
//! | `server` | `proxy` | proxy | server | client |
//! | `client` | `proxy` | proxy | client | server |
//! | `proxy` | `proxy` | client | proxy | server |

use crate::choice::{LostHost, Topology};
use crate::experiment::{Parameters, Peer};
use serde::{Deserialize, Serialize};

/// The hosts by their names, in the order in which a connection is made.
pub const HOSTS: [&str; 3] = ["client", "proxy", "server"];

/// A host by its part in a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The survivor.
    Client,
    /// The one that is lost.
    Server,
    /// The other one, on the topology `proxy`.
    Third,
}

impl Part {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Client, Self::Server, Self::Third];
}

impl Parameters {
    /// A sentence or a key about the hosts by their parts, with their names.
    pub fn named(&self, text: &str) -> String {
        exchanged(text, |word| {
            let part = PARTS.iter().position(|part| *part == word)?;
            Some(self.hosts()[part])
        })
    }

    /// A key with the hosts by their names, by their parts.
    pub(crate) fn parted(&self, key: &str) -> String {
        let hosts = self.hosts();
        exchanged(key, |word| {
            let part = hosts.iter().position(|host| *host == word)?;
            Some(PARTS[part])
        })
    }

    /// What the survivor and the lost host are called.
    pub const fn names(&self) -> [&'static str; 2] {
        let [survivor, lost, _] = self.hosts();
        [survivor, lost]
    }

    /// What the hosts are called, by their parts.
    pub const fn hosts(&self) -> [&'static str; 3] {
        let [client, proxy, server] = HOSTS;
        if let Some(called) = self.called {
            return called;
        }
        match (self.fault.host, self.topology) {
            (LostHost::Server, Topology::Proxy) => [proxy, server, client],
            (LostHost::Client, Topology::Proxy) => [proxy, client, server],
            (LostHost::Proxy, _) => [client, proxy, server],
            (LostHost::Server, Topology::Switch | Topology::Router | Topology::Direct) => {
                [client, server, proxy]
            }
            (LostHost::Client, Topology::Switch | Topology::Router | Topology::Direct) => {
                [server, client, proxy]
            }
        }
    }

    /// The part of the host with this name.
    pub fn part(&self, host: &str) -> Part {
        let part = self.hosts().iter().position(|name| *name == host);
        part.map_or(Part::Third, |part| Part::ALL[part])
    }

    /// A host's program and its socket.
    pub const fn peer(&self, part: Part) -> &Peer {
        match part {
            Part::Client => &self.client,
            Part::Server => &self.server,
            Part::Third => &self.third,
        }
    }

    /// Whether the survivor accepts connections, and the other's program connects.
    pub fn survivor_accepts(&self) -> bool {
        let [survivor, lost] = self.names();
        place(survivor) > place(lost) || self.client.program.description().accepts
    }

    /// Has the fields of each host be those of the host with its part's name: until then the client,
    /// the server and the third are the hosts that are called client, server and proxy.
    pub(crate) fn by_part(&mut self) {
        let [client, proxy, server] = HOSTS;
        self.move_hosts([client, server, proxy], self.hosts());
    }

    /// Undoes [`Self::by_part`].
    pub(crate) fn by_name(&mut self) {
        let [client, proxy, server] = HOSTS;
        self.move_hosts(self.hosts(), [client, server, proxy]);
    }

    fn move_hosts(&mut self, from: [&str; 3], to: [&str; 3]) {
        let peers = [&self.client, &self.server, &self.third].map(Clone::clone);
        let sysctls = [&self.sysctl, &self.server_sysctl, &self.third_sysctl].map(Clone::clone);
        let find = |name: &str| from.iter().position(|other| *other == name).unwrap_or_default();
        let [client, server, third] = to.map(find);
        self.client.clone_from(&peers[client]);
        self.server.clone_from(&peers[server]);
        self.third.clone_from(&peers[third]);
        self.sysctl.clone_from(&sysctls[client]);
        self.server_sysctl.clone_from(&sysctls[server]);
        self.third_sysctl.clone_from(&sysctls[third]);
    }
}

/// The words for the parts of hosts, in the order of [`Part::ALL`].
const PARTS: [&str; 3] = ["client", "server", "third"];

/// Where a host is on the way from the client to the server.
pub(crate) fn place(host: &str) -> Option<usize> {
    HOSTS.iter().position(|name| *name == host)
}

/// The text with some words exchanged for others. `redis-server` is one word.
fn exchanged(text: &str, other: impl Fn(&str) -> Option<&'static str>) -> String {
    let is_part = |c: char| c.is_alphanumeric() || "-_".contains(c);
    let mut exchanged = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_word = is_part(first);
        let end = rest.find(|c| is_part(c) != is_word).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        exchanged.push_str(other(piece).unwrap_or(piece));
        rest = after;
    }
    exchanged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings;

    fn with(topology: Topology, host: LostHost) -> Parameters {
        let mut parameters = Parameters { topology, ..Parameters::default() };
        parameters.fault.host = host;
        parameters
    }

    #[test]
    fn whole_words_change_places() {
        let turned = with(Topology::Switch, LostHost::Client);
        for (text, other) in [
            ("the server's host is destroyed", "the client's host is destroyed"),
            ("`client.keepalive.idle` at the server", "`server.keepalive.idle` at the client"),
            ("redis-server and clients", "redis-server and clients"),
            ("", ""),
        ] {
            assert_eq!((turned.named(text), turned.named(other)), (other.into(), text.into()));
        }
    }

    #[test]
    fn with_a_proxy_three_words_change_places() {
        let parameters = with(Topology::Proxy, LostHost::Client);
        let named = parameters.named("the client saw the server go; the third did not");
        assert_eq!(named, "the proxy saw the client go; the server did not");
        assert_eq!(parameters.parted("proxy.command"), "client.command");
        assert_eq!(parameters.part("server"), Part::Third);
    }

    #[test]
    fn settings_are_kept_by_part_whichever_order_they_come_in() {
        let settings = [
            ("topology", "proxy"),
            ("fault.host", "client"),
            ("client.command", "c"),
            ("proxy.command", "p"),
            ("server.command", "s"),
            ("server.sysctl.tcp_retries2", "3"),
        ];
        for shift in 0..settings.len() {
            let mut parameters = Parameters::default();
            let (after, before) = settings.split_at(shift);
            for (key, value) in before.iter().chain(after) {
                settings::apply(&mut parameters, key, value).unwrap();
            }
            let peers = [&parameters.client, &parameters.server, &parameters.third];
            assert_eq!(peers.map(|peer| peer.command.words[0].clone()), ["p", "c", "s"]);
            assert_eq!(parameters.third_sysctl["tcp_retries2"], "3");
            let shown = settings::all(&parameters);
            assert!(settings.iter().all(|(key, value)| shown[*key] == *value), "{shown:?}");
        }
    }
}
