//! The program in the middle, on the topology `proxy`: what it is, and its sockets.

use super::value::{COMMAND, shown};
use super::{Setting, client, server};
use crate::choice::Program;
use crate::command;
use crate::experiment::Parameters;

pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        key: "proxy.command",
        about: "A command as the program in the middle, with the topology `proxy`; without it halfopen's own forwards. `{client}`, `{proxy}` and `{server}` stand for the hosts' addresses.",
        default: None,
        example: "socat TCP-LISTEN:8080,bind={proxy},fork TCP:server:8080",
        accepts: COMMAND,
        set: |p, text| {
            p.third.program = Program::Command;
            command::split(text).map(|words| p.third.command.words = words)
        },
        get: |p| shown(&p.third.command.words),
    },
    of_server::<2>(
        "proxy.ready",
        "A command on the client's host that succeeds once the proxy is ready; without it the proxy is ready when it listens.",
    ),
    of_server::<3>(
        "proxy.user",
        "The user whose rights the proxy's command has; only root may choose.",
    ),
    of_server::<4>(
        "proxy.cwd",
        "The working directory of the proxy's command; without it the caller's.",
    ),
    of_server::<5>("proxy.stdin", "What the proxy's command reads on its standard input."),
    of_server::<6>(
        "proxy.listen",
        "The port of halfopen's own proxy; without it the one that the server listens at.",
    ),
    of_client::<2>(
        "proxy.keepalive.enabled",
        "SO_KEEPALIVE of halfopen's own proxy, at both its sockets.",
    ),
    of_client::<3>("proxy.keepalive.idle", "TCP_KEEPIDLE of halfopen's own proxy."),
    of_client::<4>("proxy.keepalive.interval", "TCP_KEEPINTVL of halfopen's own proxy."),
    of_client::<5>("proxy.keepalive.probes", "TCP_KEEPCNT of halfopen's own proxy."),
    of_client::<6>(
        "proxy.user_timeout",
        "TCP_USER_TIMEOUT of halfopen's own proxy, at both its sockets.",
    ),
];

/// A setting of the server's as the proxy's.
const fn of_server<const INDEX: usize>(key: &'static str, about: &'static str) -> Setting {
    let Setting { accepts, default, example, .. } = server::SETTINGS[INDEX];
    let set = |p: &mut Parameters, text: &str| {
        std::mem::swap(&mut p.server, &mut p.third);
        let result = (server::SETTINGS[INDEX].set)(p, text);
        std::mem::swap(&mut p.server, &mut p.third);
        result
    };
    let get = |p: &Parameters| {
        let own = Parameters { server: p.third.clone(), ..p.clone() };
        (server::SETTINGS[INDEX].get)(&own).filter(|_| p.third_there())
    };
    Setting { key, about, accepts, default, example, set, get }
}

/// A setting of the client's socket as the proxy's.
const fn of_client<const INDEX: usize>(key: &'static str, about: &'static str) -> Setting {
    let Setting { accepts, default, example, .. } = client::SOCKET[INDEX];
    let set = |p: &mut Parameters, text: &str| {
        std::mem::swap(&mut p.client, &mut p.third);
        let result = (client::SOCKET[INDEX].set)(p, text);
        std::mem::swap(&mut p.client, &mut p.third);
        result
    };
    let get = |p: &Parameters| {
        let own = Parameters { client: p.third.clone(), ..p.clone() };
        (client::SOCKET[INDEX].get)(&own).filter(|_| p.third_there())
    };
    Setting { key, about, accepts, default, example, set, get }
}
