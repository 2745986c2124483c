//! The server: what it does, and its socket.

use super::Setting;
use super::value::{COMMAND, LINGER, YES_OR_NO, choose, flag, linger, shown, whole_millis};
use crate::choice::Program;
use crate::command;
use crate::duration;

pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        key: "server.program",
        about: "What runs on the server's host.",
        default: Some("halfopen"),
        example: "nginx",
        accepts: "`halfopen` or `nginx`; `command` by `client.command` or `server.command`",
        set: |p, text| choose(&mut p.server.program, text),
        get: |p| (p.server.program != Program::Halfopen).then(|| p.server.program.to_string()),
    },
    Setting {
        key: "server.command",
        about: "A command as the server. `{client}` and `{server}` stand for the hosts' addresses.",
        default: None,
        example: "redis-server --bind {server}",
        accepts: COMMAND,
        set: |p, text| {
            p.server.program = Program::Command;
            command::split(text).map(|words| p.server.command.words = words)
        },
        get: |p| shown(&p.server.command.words),
    },
    Setting {
        key: "server.ready",
        about: "A command on the client's host that succeeds once the server is ready; without it the server is ready when it listens.",
        default: None,
        example: "nc -z server 6379",
        accepts: COMMAND,
        set: |p, text| command::split(text).map(|words| p.server.command.ready = words),
        get: |p| shown(&p.server.command.ready),
    },
    Setting {
        key: "server.user",
        about: "The user whose rights the server's command has; only root may choose.",
        default: None,
        example: "postgres",
        accepts: "the name of a user",
        set: |p, text| {
            p.server.command.user = Some(text.into());
            Ok(())
        },
        get: |p| p.server.command.user.clone(),
    },
    Setting {
        key: "server.cwd",
        about: "The working directory of the server's command; without it the caller's.",
        default: None,
        example: "/srv",
        accepts: "a directory",
        set: |p, text| {
            p.server.command.directory = Some(text.into());
            Ok(())
        },
        get: |p| p.server.command.directory.clone(),
    },
    Setting {
        key: "server.stdin",
        about: "What the server's command reads on its standard input.",
        default: None,
        example: "PING",
        accepts: "a text",
        set: |p, text| {
            p.server.command.stdin = text.into();
            Ok(())
        },
        get: |p| Some(p.server.command.stdin.clone()).filter(|text| !text.is_empty()),
    },
    Setting {
        key: "server.listen",
        about: "The port of halfopen's own server, where the client is a command; without a client, the port that halfopen's own client connects to.",
        default: None,
        example: "8080",
        accepts: "a port from 1 to 65535",
        set: |p, text| match text.parse() {
            Ok(port @ 1..) => {
                p.server.listen = Some(port);
                Ok(())
            }
            _ => Err(format!("`{text}` is not a port")),
        },
        get: |p| p.server.listen.map(|port| port.to_string()),
    },
    Setting {
        key: "server.linger",
        about: "SO_LINGER of the server's socket.",
        default: Some("off"),
        example: "0s",
        accepts: LINGER,
        set: |p, text| linger(text).map(|t| p.server.linger = t),
        get: |p| p.server.linger.map(duration::show),
    },
    Setting {
        key: "server.fills_window",
        about: "Before the fault the server writes until the client, which does not read, has closed its window.",
        default: Some("false"),
        example: "true",
        accepts: YES_OR_NO,
        set: |p, text| flag(&mut p.server.fills_window, text),
        get: |p| p.server.fills_window.then(|| "true".into()),
    },
    Setting {
        key: "nginx.keepalive_timeout",
        about: "nginx's directive of this name: how long it keeps an idle connection.",
        default: Some("off"),
        example: "10s",
        // One that is kept for an hour is closed for that (`keepalive_time`).
        accepts: "whole milliseconds from `1s` to `30m`, or `off` for nginx's own",
        set: |p, text| whole_millis(text, 1_000, 1_800_000).map(|t| p.nginx.keepalive_timeout = t),
        get: |p| p.has_web_server().then(|| duration::show(p.nginx.keeps_for())),
    },
];

/// The program that is lost, where it is halfopen's own.
pub(super) const LOST: &[Setting] = &[
    Setting {
        key: "server.reads",
        about: "Whether the program reads what comes once the connection has settled; if not, 100 bytes stay unread.",
        default: Some("true"),
        example: "false",
        accepts: YES_OR_NO,
        set: |p, text| flag(&mut p.server.reads, text),
        get: |p| Some(p.server.reads.to_string()),
    },
    Setting {
        key: "server.inherited",
        about: "Whether a forked child of the program holds the socket too.",
        default: Some("false"),
        example: "true",
        accepts: YES_OR_NO,
        set: |p, text| flag(&mut p.server.inherited, text),
        get: |p| Some(p.server.inherited.to_string()),
    },
    Setting {
        key: "server.restart",
        about: "Whether the command starts again after a `reboot` of its host.",
        default: Some("true"),
        example: "false",
        accepts: YES_OR_NO,
        set: |p, text| {
            let mut again = true;
            flag(&mut again, text)?;
            p.server.command.stays_away = !again;
            Ok(())
        },
        get: |p| p.server.command.stays_away.then(|| "false".into()),
    },
];
