//! The settings by their written keys: one table serves files, `--set`, and what is shown.

use crate::choice::{Choice, Program};
use crate::command::{self, Exits};
use crate::duration;
use crate::effect::{HostFate, PathFate};
use crate::experiment::Parameters;
use crate::script::Script;
use crate::sysctl;
use std::collections::BTreeMap;
use std::time::Duration;

/// One setting: its key, what it accepts, how it is written into and read from [`Parameters`].
pub struct Setting {
    /// The dotted key, as in `--set KEY=VALUE`.
    pub key: &'static str,
    /// What it accepts, for error messages and the manual.
    pub accepts: &'static str,
    set: fn(&mut Parameters, &str) -> Result<(), String>,
    get: fn(&Parameters) -> Option<String>,
}

/// The longest a trial can be told to take.
const LONGEST_TRIAL: Duration = Duration::from_secs(365 * 86_400);
const KEEPALIVE_TIME: &str = "whole seconds from `1s` to `32767s`, or `off` for the sysctl's value";
const UP_TO_A_YEAR: &str = "a duration up to `365d`";
const YES_OR_NO: &str = "`true` or `false`";
const COMMAND: &str = "a list of words, or a line that is split into words as a shell does";
const LINGER: &str = "whole seconds from `0s` to `32767s`, or `off`";

/// Every setting but the sysctls.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "topology",
        accepts: "`switch`, `router` or `direct`",
        set: |p, text| choose(&mut p.topology, text),
        get: |p| Some(p.topology.to_string()),
    },
    Setting {
        key: "family",
        accepts: "`ipv4` or `ipv6`",
        set: |p, text| choose(&mut p.family, text),
        get: |p| Some(p.family.to_string()),
    },
    Setting {
        key: "neighbour",
        accepts: "`permanent` or `learned`",
        set: |p, text| choose(&mut p.neighbour, text),
        get: |p| Some(p.neighbour.to_string()),
    },
    Setting {
        key: "deadline",
        accepts: "a duration from `100ms` to `365d`",
        set: |p, text| {
            time(text, Duration::from_millis(100), LONGEST_TRIAL).map(|t| p.deadline = Some(t))
        },
        get: |p| p.deadline.map(duration::show),
    },
    Setting {
        key: "client.program",
        accepts: "`halfopen` or `nginx`; `command` by `client.command` or `server.command`",
        set: |p, text| choose(&mut p.client.program, text),
        get: |p| (p.client.program != Program::Halfopen).then(|| p.client.program.to_string()),
    },
    Setting {
        key: "client.command",
        accepts: COMMAND,
        set: |p, text| {
            p.client.program = Program::Command;
            command::split(text).map(|words| p.client.command.words = words)
        },
        get: |p| shown(&p.client.command.words),
    },
    Setting {
        key: "client.cwd",
        accepts: "a directory",
        set: |p, text| {
            p.client.command.directory = Some(text.into());
            Ok(())
        },
        get: |p| p.client.command.directory.clone(),
    },
    Setting {
        key: "client.stdin",
        accepts: "a text",
        set: |p, text| {
            p.client.command.stdin = text.into();
            Ok(())
        },
        get: |p| Some(p.client.command.stdin.clone()).filter(|text| !text.is_empty()),
    },
    Setting {
        key: "client.traffic",
        accepts: "`idle`, `one-write`, `stream`, `heartbeat`, `connect`, `close`, `shutdown` or `script`",
        set: |p, text| choose(&mut p.client.traffic, text),
        get: |p| Some(p.client.traffic.to_string()),
    },
    Setting {
        key: "client.script",
        accepts: Script::ACCEPTS,
        set: |p, text| text.parse().map(|script| p.client.script = Some(script)),
        get: |p| p.client.script.as_ref().map(Script::to_string),
    },
    Setting {
        key: "client.keepalive.enabled",
        accepts: YES_OR_NO,
        set: |p, text| flag(&mut p.client.keepalive.enabled, text),
        get: |p| Some(p.client.keepalive.enabled.to_string()),
    },
    Setting {
        key: "client.keepalive.idle",
        accepts: KEEPALIVE_TIME,
        set: |p, text| whole_seconds(text).map(|t| p.client.keepalive.idle = t),
        get: |p| p.client.keepalive.idle.map(duration::show),
    },
    Setting {
        key: "client.keepalive.interval",
        accepts: KEEPALIVE_TIME,
        set: |p, text| whole_seconds(text).map(|t| p.client.keepalive.interval = t),
        get: |p| p.client.keepalive.interval.map(duration::show),
    },
    Setting {
        key: "client.keepalive.probes",
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
        accepts: "whole milliseconds from `1ms` to `2147483647ms` (24 days), or `off`",
        set: |p, text| whole_millis(text, 1, i32::MAX as u64).map(|t| p.client.user_timeout = t),
        get: |p| p.client.user_timeout.map(duration::show),
    },
    Setting {
        key: "client.rto_max",
        accepts: "whole milliseconds from `1s` to `2m`, or `off`",
        set: |p, text| whole_millis(text, 1_000, 120_000).map(|t| p.client.rto_max = t),
        get: |p| p.client.rto_max.map(duration::show),
    },
    Setting {
        key: "client.rto_min",
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
        accepts: YES_OR_NO,
        set: |p, text| flag(&mut p.client.thin_linear_timeouts, text),
        get: |p| p.client.thin_linear_timeouts.then(|| "true".into()),
    },
    Setting {
        key: "client.linger",
        accepts: LINGER,
        set: |p, text| linger(text).map(|t| p.client.linger = t),
        get: |p| p.client.linger.map(duration::show),
    },
    Setting {
        key: "client.second_write",
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
        key: "client.fills_window",
        accepts: YES_OR_NO,
        set: |p, text| flag(&mut p.client.fills_window, text),
        get: |p| p.client.fills_window.then(|| "true".into()),
    },
    Setting {
        key: "client.heartbeat.interval",
        accepts: "a duration from `10ms` to `365d`",
        set: |p, text| {
            time(text, Duration::from_millis(10), LONGEST_TRIAL)
                .map(|t| p.client.heartbeat.interval = t)
        },
        get: |p| Some(duration::show(p.client.heartbeat.interval)),
    },
    Setting {
        key: "client.heartbeat.deadline",
        accepts: "a duration from `10ms` to `365d`",
        set: |p, text| {
            time(text, Duration::from_millis(10), LONGEST_TRIAL)
                .map(|t| p.client.heartbeat.deadline = t)
        },
        get: |p| Some(duration::show(p.client.heartbeat.deadline)),
    },
    Setting {
        key: "server.program",
        accepts: "`halfopen` or `nginx`; `command` by `client.command` or `server.command`",
        set: |p, text| choose(&mut p.server.program, text),
        get: |p| (p.server.program != Program::Halfopen).then(|| p.server.program.to_string()),
    },
    Setting {
        key: "server.command",
        accepts: COMMAND,
        set: |p, text| {
            p.server.program = Program::Command;
            command::split(text).map(|words| p.server.command.words = words)
        },
        get: |p| shown(&p.server.command.words),
    },
    Setting {
        key: "server.ready",
        accepts: COMMAND,
        set: |p, text| command::split(text).map(|words| p.server.command.ready = words),
        get: |p| shown(&p.server.command.ready),
    },
    Setting {
        key: "server.restart",
        accepts: YES_OR_NO,
        set: |p, text| {
            let mut again = true;
            flag(&mut again, text)?;
            p.server.command.stays_away = !again;
            Ok(())
        },
        get: |p| p.server.command.stays_away.then(|| "false".into()),
    },
    Setting {
        key: "server.cwd",
        accepts: "a directory",
        set: |p, text| {
            p.server.command.directory = Some(text.into());
            Ok(())
        },
        get: |p| p.server.command.directory.clone(),
    },
    Setting {
        key: "server.stdin",
        accepts: "a text",
        set: |p, text| {
            p.server.command.stdin = text.into();
            Ok(())
        },
        get: |p| Some(p.server.command.stdin.clone()).filter(|text| !text.is_empty()),
    },
    Setting {
        key: "server.listen",
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
        key: "server.reads",
        accepts: YES_OR_NO,
        set: |p, text| flag(&mut p.server.reads, text),
        get: |p| Some(p.server.reads.to_string()),
    },
    Setting {
        key: "server.linger",
        accepts: LINGER,
        set: |p, text| linger(text).map(|t| p.server.linger = t),
        get: |p| p.server.linger.map(duration::show),
    },
    Setting {
        key: "server.inherited",
        accepts: YES_OR_NO,
        set: |p, text| flag(&mut p.server.inherited, text),
        get: |p| Some(p.server.inherited.to_string()),
    },
    Setting {
        key: "server.fills_window",
        accepts: YES_OR_NO,
        set: |p, text| flag(&mut p.server.fills_window, text),
        get: |p| p.server.fills_window.then(|| "true".into()),
    },
    Setting {
        key: "nginx.keepalive_timeout",
        // One that is kept for an hour is closed for that (`keepalive_time`).
        accepts: "whole milliseconds from `1s` to `30m`, or `off` for nginx's own",
        set: |p, text| whole_millis(text, 1_000, 1_800_000).map(|t| p.nginx.keepalive_timeout = t),
        get: |p| p.has_web_server().then(|| duration::show(p.nginx.keeps_for())),
    },
    Setting {
        key: "path.rtt",
        accepts: "a duration from `0s` to `10s`",
        set: |p, text| time(text, Duration::ZERO, Duration::from_secs(10)).map(|t| p.path.rtt = t),
        get: |p| Some(duration::show(p.path.rtt)),
    },
    Setting {
        key: "path.rto_min",
        accepts: "whole milliseconds from `1ms` to `2m`, or `off`",
        set: |p, text| whole_millis(text, 1, 120_000).map(|t| p.path.rto_min = t),
        get: |p| p.path.rto_min.map(duration::show),
    },
    Setting {
        key: "fault.kind",
        accepts: "`none`, `process-crash`, `process-freeze`, `power-off`, `reboot`, `blackhole`, `reject`, `forget`, `unplug` or `flap`",
        set: |p, text| choose(&mut p.fault.kind, text),
        get: |p| Some(p.fault.kind.to_string()),
    },
    Setting {
        key: "fault.after",
        accepts: UP_TO_A_YEAR,
        set: |p, text| time(text, Duration::ZERO, LONGEST_TRIAL).map(|t| p.fault.after = t),
        get: |p| Some(duration::show(p.fault.after)),
    },
    Setting {
        key: "fault.on_output",
        accepts: "a regular expression",
        set: |p, text| {
            if let Err(error) = regex::Regex::new(text) {
                return Err(format!("`{text}` cannot be understood: {error}"));
            }
            p.fault.on_output = Some(text.into());
            Ok(())
        },
        get: |p| p.fault.on_output.clone(),
    },
    Setting {
        key: "fault.duration",
        accepts: "a duration from `1ms` to `365d`",
        set: |p, text| {
            time(text, Duration::from_millis(1), LONGEST_TRIAL).map(|t| p.fault.duration = Some(t))
        },
        get: |p| p.fault_duration().map(duration::show),
    },
    Setting {
        key: "fault.reject",
        accepts: "`tcp-reset`, `host-unreachable`, `net-unreachable`, `port-unreachable` or `admin-prohibited`",
        set: |p, text| choose(&mut p.fault.reject, text),
        get: |p| {
            (p.fault.kind.effect().path == PathFate::Rejected).then(|| p.fault.reject.to_string())
        },
    },
    Setting {
        key: "fault.idle",
        accepts: "whole seconds from `1s` to `2000000s`",
        set: |p, text| {
            let least = Duration::from_secs(1);
            let idle = time(text, least, Duration::from_secs(2_000_000))?;
            if idle.subsec_nanos() != 0 {
                return Err(format!("`{text}` is not whole seconds"));
            }
            p.fault.idle = Some(idle);
            Ok(())
        },
        get: |p| p.fault.idle.map(duration::show),
    },
    Setting {
        key: "fault.answer",
        accepts: "`silent` or `tcp-reset`",
        set: |p, text| choose(&mut p.fault.answer, text),
        get: |p| {
            (p.fault.kind.effect().path == PathFate::Forgotten).then(|| p.fault.answer.to_string())
        },
    },
    Setting {
        key: "fault.new_mac",
        accepts: YES_OR_NO,
        set: |p, text| flag(&mut p.fault.new_mac, text),
        get: |p| {
            let replaced = p.fault.kind.effect().host == HostFate::Replaced;
            replaced.then(|| p.fault.new_mac.to_string())
        },
    },
    Setting {
        key: "require.noticed_within",
        accepts: UP_TO_A_YEAR,
        set: |p, text| {
            time(text, Duration::ZERO, LONGEST_TRIAL).map(|t| p.require.noticed_within = Some(t))
        },
        get: |p| p.require.noticed_within.map(duration::show),
    },
    Setting {
        key: "require.survives",
        accepts: YES_OR_NO,
        set: |p, text| flag(p.require.survives.get_or_insert_default(), text),
        get: |p| p.require.survives.map(|survives| survives.to_string()),
    },
    Setting {
        key: "require.exits",
        accepts: "an exit code from 0 to 255, or a signal's name such as `SIGTERM`",
        set: |p, text| text.parse().map(|exits: Exits| p.require.exits = Some(exits)),
        get: |p| p.require.exits.as_ref().map(ToString::to_string),
    },
    Setting {
        key: "later.after",
        accepts: UP_TO_A_YEAR,
        set: |p, text| time(text, Duration::ZERO, LONGEST_TRIAL).map(|t| p.later.after = t),
        get: |p| (!p.later.sysctl.is_empty()).then(|| duration::show(p.later.after)),
    },
];

/// Applies one setting.
///
/// # Errors
/// A sentence: an unknown key (with the nearest), an unknown sysctl, or a value that is not
/// accepted, with what is.
pub fn apply(parameters: &mut Parameters, key: &str, value: &str) -> Result<(), String> {
    for (prefix, sysctls) in [
        ("sysctl.", &mut parameters.sysctl),
        ("server.sysctl.", &mut parameters.server_sysctl),
        ("later.sysctl.", &mut parameters.later.sysctl),
    ] {
        if let Some(name) = key.strip_prefix(prefix) {
            // As sysctl(8) writes it.
            let name = name.strip_prefix("net.ipv4.").unwrap_or(name);
            sysctl::check(name, value)?;
            sysctls.insert(name.into(), value.trim().into());
            return Ok(());
        }
    }
    for (prefix, command) in [
        ("client.env.", &mut parameters.client.command),
        ("server.env.", &mut parameters.server.command),
    ] {
        if let Some(name) = key.strip_prefix(prefix) {
            command.environment.insert(name.into(), value.into());
            return Ok(());
        }
    }
    let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
        let keys = || SETTINGS.iter().map(|setting| setting.key);
        if ["sysctl", "server.sysctl", "later.sysctl"].contains(&key) {
            return Err(format!(
                "`{key}` is a group of settings: `{key}.NAME` is net.ipv4.NAME, such as \
                 `{key}.tcp_retries2`"
            ));
        }
        if sysctl::check(key, value).is_ok() {
            return Err(format!("there is no setting `{key}`: is it `sysctl.{key}`?"));
        }
        if let Some(first) =
            keys().find(|known| known.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
        {
            return Err(format!("`{key}` is a group of settings: is it `{first}`?"));
        }
        if let Some(meant) = by_last_part(key) {
            return Err(format!("there is no setting `{key}`: is it {meant}?"));
        }
        let hint = sysctl::nearest(key, keys()).map_or_else(
            || {
                let all: Vec<_> = keys().collect();
                format!(
                    "the keys are {}, `sysctl.NAME`, `server.sysctl.NAME` and `later.sysctl.NAME`",
                    all.join(", ")
                )
            },
            |near| format!("is it `{near}`?"),
        );
        return Err(format!("there is no setting `{key}`: {hint}"));
    };
    (setting.set)(parameters, value)
        .map_err(|problem| format!("{problem} (accepted: {})", setting.accepts))
}

/// The keys whose last part this is, or nearly is: `traffic` is `client.traffic`.
fn by_last_part(key: &str) -> Option<String> {
    let last = |key: &'static str| key.rsplit('.').next().unwrap_or(key);
    let keys = || SETTINGS.iter().map(|setting| setting.key).filter(|known| known.contains('.'));
    let near = sysctl::nearest(key, keys().map(last)).filter(|_| !key.contains('.'))?;
    let meant: Vec<_> = keys().filter(|known| last(known) == near).collect();
    Some(meant.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(" or "))
}

/// Every setting that has a value, by key: what a trial was made with.
pub fn all(parameters: &Parameters) -> BTreeMap<String, String> {
    let mut values: BTreeMap<String, String> = SETTINGS
        .iter()
        .filter_map(|setting| Some((setting.key.to_owned(), (setting.get)(parameters)?)))
        .collect();
    for (prefix, sysctls) in [
        ("client.env", &parameters.client.command.environment),
        ("server.env", &parameters.server.command.environment),
        ("sysctl", &parameters.sysctl),
        ("server.sysctl", &parameters.server_sysctl),
        ("later.sysctl", &parameters.later.sysctl),
    ] {
        values.extend(
            sysctls.iter().map(|(name, value)| (format!("{prefix}.{name}"), value.clone())),
        );
    }
    values
}

fn shown(words: &[String]) -> Option<String> {
    (!words.is_empty()).then(|| command::join(words))
}

fn choose<T: Choice>(target: &mut T, text: &str) -> Result<(), String> {
    *target = text.parse().map_err(|_| match sysctl::nearest(text, T::names().into_iter()) {
        Some(near) => format!("`{text}` is not one of them: is it `{near}`?"),
        None => format!("`{text}` is not one of them"),
    })?;
    Ok(())
}

fn flag(target: &mut bool, text: &str) -> Result<(), String> {
    *target = text.parse().map_err(|_| format!("`{text}` is neither"))?;
    Ok(())
}

fn time(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let time = duration::parse(text)?;
    if (least..=most).contains(&time) { Ok(time) } else { Err(format!("`{text}` is out of range")) }
}

fn whole_seconds(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    match duration::parse(text)? {
        time if time.subsec_nanos() == 0 && (1..=32_767).contains(&time.as_secs()) => {
            Ok(Some(time))
        }
        _ => Err(format!("`{text}` is out of range")),
    }
}

fn linger(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    match duration::parse(text)? {
        t if t.subsec_nanos() == 0 && t.as_secs() <= 32_767 => Ok(Some(t)),
        _ => Err(format!("`{text}` is out of range")),
    }
}

fn whole_millis(text: &str, least: u64, most: u64) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    let time = duration::parse(text)?;
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    if time.subsec_nanos() % 1_000_000 == 0 && (least..=most).contains(&millis) {
        Ok(Some(time))
    } else {
        Err(format!("`{text}` is out of range"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_set_again() {
        let mut original = Parameters::default();
        for (key, value) in [
            ("topology", "router"),
            ("client.keepalive.enabled", "true"),
            ("client.keepalive.idle", "2s"),
            ("client.user_timeout", "12500ms"),
            ("fault.kind", "flap"),
            ("fault.duration", "1m30s"),
            ("sysctl.tcp_retries2", "5"),
            ("server.sysctl.tcp_fin_timeout", "3"),
        ] {
            apply(&mut original, key, value).unwrap();
        }
        let mut copy = Parameters::default();
        for (key, value) in all(&original) {
            apply(&mut copy, &key, &value).unwrap();
        }
        assert_eq!(copy, original);
    }

    #[test]
    fn a_bad_setting_names_what_was_given_and_what_is_accepted() {
        for (key, value, complaints) in [
            ("client.trafic", "idle", &["is it `client.traffic`?"][..]),
            ("qwertyuiop", "1", &["the keys are topology", "sysctl.NAME"]),
            ("tcp_retries2", "8", &["is it `sysctl.tcp_retries2`?"]),
            ("client.keepalive", "true", &["is it `client.keepalive.enabled`?"]),
            ("server.sysctl", "5", &["`server.sysctl.NAME`", "`server.sysctl.tcp_retries2`"]),
            ("client.traffic", "loud", &["`loud`", "`one-write`"]),
            ("fault.kind", "poweroff", &["`poweroff`", "is it `power-off`?"]),
            ("traffic", "idle", &["is it `client.traffic`?"]),
            ("linger", "1s", &["is it `client.linger` or `server.linger`?"]),
            ("client.keepalive.idle", "1500ms", &["`1500ms`", "whole seconds"]),
            ("client.keepalive.probes", "0", &["`0`", "1 to 127"]),
            ("client.user_timeout", "25d", &["`25d`", "24 days"]),
            ("client.rto_max", "500ms", &["`500ms`", "from `1s`"]),
            ("fault.after", "5", &["no unit", "a duration"]),
            ("sysctl.tcp_retires2", "5", &["tcp_retries2"]),
            ("server.sysctl.tcp_retries2", "five", &["`five`", "0 to 255"]),
            ("deadline", "0s", &["out of range", "100ms"]),
        ] {
            let error = apply(&mut Parameters::default(), key, value).unwrap_err();
            for complaint in complaints {
                assert!(error.contains(complaint), "{key}={value}: {error}");
            }
        }
    }
}
