//! The settings of the host that is left, and of the other, where `fault.host` is `client`: what is the
//! client's otherwise is the server's then, and the other way round.

use super::{Setting, client, server};
use crate::choice::LostHost;
use crate::experiment::Parameters;

pub(super) const SETTINGS: &[Setting] = &[
    of_server::<0>("server.traffic"),
    of_server::<1>("server.script"),
    of_server::<2>("server.keepalive.enabled"),
    of_server::<3>("server.keepalive.idle"),
    of_server::<4>("server.keepalive.interval"),
    of_server::<5>("server.keepalive.probes"),
    of_server::<6>("server.user_timeout"),
    of_server::<7>("server.rto_max"),
    of_server::<8>("server.rto_min"),
    of_server::<9>("server.thin_linear_timeouts"),
    of_server::<10>("server.second_write"),
    of_server::<11>("server.heartbeat.interval"),
    of_server::<12>("server.heartbeat.deadline"),
    of_client::<0>("client.reads"),
    of_client::<1>("client.inherited"),
    of_client::<2>("client.restart"),
];

/// A setting of the client's socket as the server's.
const fn of_server<const INDEX: usize>(key: &'static str) -> Setting {
    let Setting { about, accepts, default, example, .. } = client::SOCKET[INDEX];
    let set = |p: &mut Parameters, text: &str| turned(p, text, client::SOCKET[INDEX].set);
    let get = |p: &Parameters| shown(p, client::SOCKET[INDEX].get);
    Setting { key, about, accepts, default, example, set, get }
}

/// A setting of the server that is lost as the client's.
const fn of_client<const INDEX: usize>(key: &'static str) -> Setting {
    let Setting { about, accepts, default, example, .. } = server::LOST[INDEX];
    let set = |p: &mut Parameters, text: &str| turned(p, text, server::LOST[INDEX].set);
    let get = |p: &Parameters| shown(p, server::LOST[INDEX].get);
    Setting { key, about, accepts, default, example, set, get }
}

fn turned(
    parameters: &mut Parameters,
    text: &str,
    set: fn(&mut Parameters, &str) -> Result<(), String>,
) -> Result<(), String> {
    parameters.turn();
    let result = set(parameters, text);
    parameters.turn();
    result
}

fn shown(parameters: &Parameters, get: fn(&Parameters) -> Option<String>) -> Option<String> {
    if parameters.fault.host != LostHost::Client {
        return None;
    }
    let mut parameters = parameters.clone();
    parameters.turn();
    get(&parameters)
}
