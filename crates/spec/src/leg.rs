//! Which two hosts a connection joins, and what the trial is to it.

use crate::choice::{FaultKind, Program};
use crate::experiment::Parameters;
use crate::names::{self, HOSTS, Part};
use serde::{Deserialize, Serialize};

/// Which two hosts a connection joins.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Leg {
    /// Client and server, where there are no others.
    #[default]
    Whole,
    /// Client and proxy.
    Downstream,
    /// Proxy and server.
    Upstream,
    /// Client and server, past the proxy.
    Past,
}

impl Leg {
    /// The leg between two hosts of a trial with a proxy, by their names.
    pub fn between(hosts: [&str; 2]) -> Self {
        let [client, proxy, server] = HOSTS;
        match [hosts.contains(&client), hosts.contains(&proxy), hosts.contains(&server)] {
            [true, true, _] => Self::Downstream,
            [false, true, _] => Self::Upstream,
            [_, false, _] => Self::Past,
        }
    }

    /// Its hosts: the one that connects first.
    pub const fn hosts(self) -> [&'static str; 2] {
        let [client, proxy, server] = HOSTS;
        match self {
            Self::Whole | Self::Past => [client, server],
            Self::Downstream => [client, proxy],
            Self::Upstream => [proxy, server],
        }
    }
}

impl Parameters {
    /// The leg between the survivor and the lost host.
    pub fn broken_leg(&self) -> Leg {
        if self.third_there() { Leg::between(self.names()) } else { Leg::Whole }
    }

    /// Whether there is a third host.
    pub fn third_there(&self) -> bool {
        self.topology == crate::choice::Topology::Proxy
    }

    /// The host whose program has to find out: the client, or where that breaks the survivor.
    pub fn asked(&self) -> &'static str {
        let [survivor, lost] = self.names();
        if lost == "client" || !self.third_there() { survivor } else { "client" }
    }

    /// Whether a leg is one of the host whose program has to find out.
    pub fn is_of_asked(&self, leg: Leg) -> bool {
        let [near, _] = self.parts(leg);
        self.hosts()[near as usize] == self.asked()
    }

    /// The host of a leg whose kernel and program are asked, and the other: the third, or the survivor.
    pub fn parts(&self, leg: Leg) -> [Part; 2] {
        if leg == Leg::Whole {
            return [Part::Client, Part::Server];
        }
        let mut parts = leg.hosts().map(|host| self.part(host));
        let rank = |part: &Part| match part {
            Part::Third => 0,
            Part::Client => 1,
            Part::Server => 2,
        };
        parts.sort_by_key(rank);
        parts
    }

    /// Whether the host of a leg whose kernel is asked is the one that accepts.
    pub fn asked_accepts(&self, leg: Leg) -> bool {
        if leg == Leg::Whole {
            return self.survivor_accepts();
        }
        let [near, far] = self.parts(leg).map(|part| self.hosts()[part as usize]);
        names::place(near) > names::place(far)
    }

    /// Whether the host at the other end of a leg is the one that breaks.
    pub fn breaks(&self, leg: Leg) -> bool {
        self.parts(leg).contains(&Part::Server)
    }

    /// The trial's settings as a connection of this leg has them: the one whose kernel is asked is the
    /// client, and the other the server. Where that is not the one that breaks, nothing does.
    #[must_use]
    pub fn of_leg(&self, leg: Leg) -> Self {
        let [near, far] = self.parts(leg);
        if !self.third_there() {
            return self.clone();
        }
        let other = Part::ALL.into_iter().find(|part| ![near, far].contains(part));
        let parts = [near, far, other.unwrap_or(Part::Third)];
        let peer = |part| match part {
            Part::Client => (&self.client, &self.sysctl),
            Part::Server => (&self.server, &self.server_sysctl),
            Part::Third => (&self.third, &self.third_sysctl),
        };
        let [(client, sysctl), (server, server_sysctl), (third, third_sysctl)] = parts.map(peer);
        let names = self.hosts();
        let mut own = Self {
            client: client.clone(),
            server: server.clone(),
            third: third.clone(),
            sysctl: sysctl.clone(),
            server_sysctl: server_sysctl.clone(),
            third_sysctl: third_sysctl.clone(),
            called: Some(parts.map(|part| names[part as usize])),
            ..self.clone()
        };
        // None of them reports its calls, halfopen's own included.
        (own.client.program, own.server.program) = (Program::Command, Program::Command);
        if !self.breaks(leg) {
            own.fault.kind = FaultKind::None;
            own.fault.duration = None;
        }
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choice::{LostHost, Topology};

    fn with(host: LostHost) -> Parameters {
        let mut parameters = Parameters { topology: Topology::Proxy, ..Parameters::default() };
        parameters.fault.kind = FaultKind::PowerOff;
        parameters.fault.host = host;
        parameters
    }

    #[test]
    fn each_leg_has_a_host_that_is_asked_and_one_that_breaks_or_lives() {
        use LostHost::{Client, Proxy, Server};
        for (host, leg, names, breaks, accepts) in [
            (Server, Leg::Upstream, ["proxy", "server"], true, false),
            (Server, Leg::Downstream, ["client", "proxy"], false, false),
            (Client, Leg::Downstream, ["proxy", "client"], true, true),
            (Client, Leg::Upstream, ["server", "proxy"], false, true),
            (Proxy, Leg::Downstream, ["client", "proxy"], true, false),
            (Proxy, Leg::Upstream, ["server", "proxy"], true, true),
        ] {
            let own = with(host).of_leg(leg);
            assert_eq!(own.names(), names, "{host} {leg:?}");
            assert_eq!(own.fault.kind == FaultKind::PowerOff, breaks, "{host} {leg:?}");
            assert_eq!(own.survivor_accepts(), accepts, "{host} {leg:?}");
            let has_to_find_out = with(host).is_of_asked(leg);
            assert_eq!(has_to_find_out, leg == Leg::Downstream, "{host} {leg:?}");
            assert!(!own.client.program.description().reports, "{host} {leg:?}");
        }
    }
}
