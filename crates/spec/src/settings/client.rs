//! The client: what it does, and its socket.

use super::Setting;
use super::value::{
    COMMAND, KEEPALIVE_TIME, LINGER, LONGEST_TRIAL, YES_OR_NO, choose, flag, linger, shown, time,
    whole_millis, whole_seconds,
};
use crate::choice::Program;
use crate::command;
use crate::duration;
use crate::script::Script;
use std::time::Duration;

pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        key: "client.program",
        about: "What runs on the client's host.",
        default: Some("halfopen"),
        example: "nginx",
        accepts: "`halfopen` or `nginx`; `command` by `client.command` or `server.command`",
        set: |p, text| choose(&mut p.client.program, text),
        get: |p| (p.client.program != Program::Halfopen).then(|| p.client.program.to_string()),
    },
    Setting {
        key: "client.command",
        about: "A command as the client. `{client}` and `{server}` stand for the hosts' addresses.",
        default: None,
        example: "redis-cli -h server SUBSCRIBE news",
        accepts: COMMAND,
        set: |p, text| {
            p.client.program = Program::Command;
            command::split(text).map(|words| p.client.command.words = words)
        },
        get: |p| shown(&p.client.command.words),
    },
    Setting {
        key: "client.user",
        about: "The user whose rights the client's command has; only root may choose.",
        default: None,
        example: "postgres",
        accepts: "the name of a user",
        set: |p, text| {
            p.client.command.user = Some(text.into());
            Ok(())
        },
        get: |p| p.client.command.user.clone(),
    },
    Setting {
        key: "client.tty",
        about: "Whether the standard streams of the client's command are a terminal.",
        default: Some("false"),
        example: "true",
        accepts: YES_OR_NO,
        set: |p, text| flag(&mut p.client.command.terminal, text),
        get: |p| p.client.command.terminal.then(|| "true".into()),
    },
    Setting {
        key: "client.cwd",
        about: "The working directory of the client's command; without it the caller's.",
        default: None,
        example: "/srv",
        accepts: "a directory",
        set: |p, text| {
            p.client.command.directory = Some(text.into());
            Ok(())
        },
        get: |p| p.client.command.directory.clone(),
    },
    Setting {
        key: "client.stdin",
        about: "What the client's command reads on its standard input.",
        default: None,
        example: "PING",
        accepts: "a text",
        set: |p, text| {
            p.client.command.stdin = text.into();
            Ok(())
        },
        get: |p| Some(p.client.command.stdin.clone()).filter(|text| !text.is_empty()),
    },
    Setting {
        key: "client.linger",
        about: "SO_LINGER of the client's socket, set before it closes.",
        default: Some("off"),
        example: "0s",
        accepts: LINGER,
        set: |p, text| linger(text).map(|t| p.client.linger = t),
        get: |p| p.client.linger.map(duration::show),
    },
    Setting {
        key: "client.fills_window",
        about: "Before the fault the client writes until the server, which does not read, has closed its window.",
        default: Some("false"),
        example: "true",
        accepts: YES_OR_NO,
        set: |p, text| flag(&mut p.client.fills_window, text),
        get: |p| p.client.fills_window.then(|| "true".into()),
    },
];

/// The socket of halfopen's own program and what that does after the fault, where it is left.
pub(super) const SOCKET: &[Setting] = &[
    Setting {
        key: "client.traffic",
        about: "What halfopen's own program does after the fault.",
        default: Some("idle"),
        example: "one-write",
        accepts: "`idle`, `one-write`, `stream`, `heartbeat`, `connect`, `close`, `shutdown` or `script`",
        set: |p, text| choose(&mut p.client.traffic, text),
        get: |p| Some(p.client.traffic.to_string()),
    },
    Setting {
        key: "client.script",
        about: "For the traffic `script`: the program's calls from the fault on. The first error ends it; after the last step the program waits in `read`.",
        default: None,
        example: "wait 45s; write 100",
        accepts: Script::ACCEPTS,
        set: |p, text| text.parse().map(|script| p.client.script = Some(script)),
        get: |p| p.client.script.as_ref().map(Script::to_string),
    },
    Setting {
        key: "client.keepalive.enabled",
        about: "SO_KEEPALIVE (RFC 1122, 4.2.3.6).",
        default: Some("false"),
        example: "true",
        accepts: YES_OR_NO,
        set: |p, text| flag(&mut p.client.keepalive.enabled, text),
        get: |p| Some(p.client.keepalive.enabled.to_string()),
    },
    Setting {
        key: "client.keepalive.idle",
        about: "TCP_KEEPIDLE: from the last segment received to the first probe.",
        default: Some("off"),
        example: "5s",
        accepts: KEEPALIVE_TIME,
        set: |p, text| whole_seconds(text).map(|t| p.client.keepalive.idle = t),
        get: |p| p.client.keepalive.idle.map(duration::show),
    },
    Setting {
        key: "client.keepalive.interval",
        about: "TCP_KEEPINTVL: from one probe to the next.",
        default: Some("off"),
        example: "1s",
        accepts: KEEPALIVE_TIME,
        set: |p, text| whole_seconds(text).map(|t| p.client.keepalive.interval = t),
        get: |p| p.client.keepalive.interval.map(duration::show),
    },
    Setting {
        key: "client.keepalive.probes",
        about: "TCP_KEEPCNT: how many unanswered probes end the connection.",
        default: Some("off"),
        example: "3",
        accepts: "a whole number from 1 to 127, or `off` for the sysctl's value",
        set: |p, text| {
            p.client.keepalive.probes = match text {
                "off" => None,
                _ => match text.parse() {
                    Ok(count @ 1..=127) => Some(count),
                    _ => return Err(format!("`{text}` is not a number of probes")),
                },
            };
            Ok(())
        },
        get: |p| p.client.keepalive.probes.map(|count| count.to_string()),
    },
    Setting {
        key: "client.user_timeout",
        about: "TCP_USER_TIMEOUT (RFC 5482): how long data may stay unacknowledged, or keepalive probes unanswered.",
        default: Some("off"),
        example: "30s",
        accepts: "whole milliseconds from `1ms` to `2147483647ms` (24 days), or `off`",
        set: |p, text| whole_millis(text, 1, i32::MAX as u64).map(|t| p.client.user_timeout = t),
        get: |p| p.client.user_timeout.map(duration::show),
    },
    Setting {
        key: "client.rto_max",
        about: "TCP_RTO_MAX_MS (Linux 6.15): the longest retransmission timeout.",
        default: Some("off"),
        example: "10s",
        accepts: "whole milliseconds from `1s` to `2m`, or `off`",
        set: |p, text| whole_millis(text, 1_000, 120_000).map(|t| p.client.rto_max = t),
        get: |p| p.client.rto_max.map(duration::show),
    },
    Setting {
        key: "client.rto_min",
        about: "TCP_RTO_MIN_US (Linux 6.17): the shortest retransmission timeout.",
        default: Some("off"),
        example: "50ms",
        accepts: "whole microseconds up to `200ms` and of two jiffies at least, or `off`",
        set: |p, text| {
            p.client.rto_min = match text {
                "off" => None,
                _ => match duration::parse(text)? {
                    t if t.subsec_nanos() % 1_000 == 0
                        && (1..=200_000).contains(&t.as_micros()) =>
                    {
                        Some(t)
                    }
                    _ => return Err(format!("`{text}` is out of range")),
                },
            };
            Ok(())
        },
        get: |p| p.client.rto_min.map(duration::show),
    },
    Setting {
        key: "client.thin_linear_timeouts",
        about: "TCP_THIN_LINEAR_TIMEOUTS: the first timeouts of a stream with few segments out do not double.",
        default: Some("false"),
        example: "true",
        accepts: YES_OR_NO,
        set: |p, text| flag(&mut p.client.thin_linear_timeouts, text),
        get: |p| p.client.thin_linear_timeouts.then(|| "true".into()),
    },
    Setting {
        key: "client.second_write",
        about: "For the traffic `one-write`: the time from the first write to a second one.",
        default: Some("off"),
        example: "5s",
        accepts: "a duration from `1ms` to `365d`, or `off`",
        set: |p, text| {
            p.client.second_write = match text {
                "off" => None,
                _ => Some(time(text, Duration::from_millis(1), LONGEST_TRIAL)?),
            };
            Ok(())
        },
        get: |p| p.client.second_write.map(duration::show),
    },
    Setting {
        key: "client.heartbeat.interval",
        about: "For the traffic `heartbeat`: from one request to the next.",
        default: Some("1s"),
        example: "500ms",
        accepts: "a duration from `10ms` to `365d`",
        set: |p, text| {
            time(text, Duration::from_millis(10), LONGEST_TRIAL)
                .map(|t| p.client.heartbeat.interval = t)
        },
        get: |p| Some(duration::show(p.client.heartbeat.interval)),
    },
    Setting {
        key: "client.heartbeat.deadline",
        about: "For the traffic `heartbeat`: how long the program waits for an answer before it closes.",
        default: Some("1s"),
        example: "3s",
        accepts: "a duration from `10ms` to `365d`",
        set: |p, text| {
            time(text, Duration::from_millis(10), LONGEST_TRIAL)
                .map(|t| p.client.heartbeat.deadline = t)
        },
        get: |p| Some(duration::show(p.client.heartbeat.deadline)),
    },
];
