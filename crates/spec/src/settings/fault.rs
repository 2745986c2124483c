//! What breaks, how long the trial goes on, and what the user needs.

use super::Setting;
use super::value::{LONGEST_TRIAL, UP_TO_A_YEAR, YES_OR_NO, choose, flag, time};
use crate::choice::{Direction, FaultKind, LostHost};
use crate::command::Exits;
use crate::duration;
use crate::effect::PathFate;
use crate::sieve::EVERY_PACKET;
use std::time::Duration;

pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        key: "deadline",
        about: "When the trial ends, counted from the fault. Without it: the latest prediction and 10 %, at least 2 s more.",
        default: None,
        example: "30s",
        accepts: "a duration from `100ms` to `365d`",
        set: |p, text| {
            time(text, Duration::from_millis(100), LONGEST_TRIAL).map(|t| p.deadline = Some(t))
        },
        get: |p| p.deadline.map(duration::show),
    },
    Setting {
        key: "fault.kind",
        about: "What breaks.",
        default: Some("none"),
        example: "power-off",
        accepts: "`none`, `process-crash`, `process-freeze`, `power-off`, `reboot`, `takeover`, `blackhole`, `mtu`, `reject`, `forget`, `unplug` or `flap`",
        set: |p, text| choose(&mut p.fault.kind, text),
        get: |p| Some(p.fault.kind.to_string()),
    },
    Setting {
        key: "fault.host",
        about: "Whose host or program breaks. Where it is the client's, the server is the survivor: what the client does and is set to otherwise is the server's then. With the topology `proxy` it may be the one in the middle.",
        default: Some("server"),
        example: "client",
        accepts: "`server`, `client` or `proxy`",
        set: |p, text| choose(&mut p.fault.host, text),
        get: |p| (p.fault.host != LostHost::Server).then(|| p.fault.host.to_string()),
    },
    Setting {
        key: "fault.after",
        about: "When it breaks, counted from the last exchange; where the client is a command, from the first data that it receives. A further fault (`fault.2.after`) counts from the beginning of the one before it.",
        default: Some("200ms"),
        example: "2s",
        accepts: UP_TO_A_YEAR,
        set: |p, text| time(text, Duration::ZERO, LONGEST_TRIAL).map(|t| p.fault.after = t),
        get: |p| Some(duration::show(p.fault.after)),
    },
    Setting {
        key: "fault.on_output",
        about: "With commands: `fault.after` counts from the first line of output that matches \
        this.",
        default: None,
        example: "ready",
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
        about: "When the fault ends, counted from its beginning, for those that end. `flap` needs it; a rebooted host is back after 500 ms without it, and so is one that takes over; `power-off` with it is a `reboot`.",
        default: None,
        example: "3s",
        accepts: "a duration from `1ms` to `365d`",
        set: |p, text| {
            time(text, Duration::from_millis(1), LONGEST_TRIAL).map(|t| p.fault.duration = Some(t))
        },
        get: |p| p.fault_duration().filter(|_| p.fault.still.is_none()).map(duration::show),
    },
    Setting {
        key: "fault.reject",
        about: "What the router answers.",
        default: Some("tcp-reset"),
        example: "host-unreachable",
        accepts: "`tcp-reset`, `host-unreachable`, `net-unreachable`, `port-unreachable` or `admin-prohibited`",
        set: |p, text| choose(&mut p.fault.reject, text),
        get: |p| (p.fault.effect().path == PathFate::Rejected).then(|| p.fault.reject.to_string()),
    },
    Setting {
        key: "fault.idle",
        about: "How long a flow is idle before the router forgets it.",
        default: None,
        example: "350s",
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
        about: "What the router does with packets of a flow that it has forgotten: drop them, or answer with a reset.",
        default: Some("silent"),
        example: "tcp-reset",
        accepts: "`silent` or `tcp-reset`",
        set: |p, text| choose(&mut p.fault.answer, text),
        get: |p| (p.fault.effect().path == PathFate::Forgotten).then(|| p.fault.answer.to_string()),
    },
    Setting {
        key: "fault.new_mac",
        about: "Whether the rebooted host has another MAC address.",
        default: Some("false"),
        example: "true",
        accepts: YES_OR_NO,
        set: |p, text| flag(&mut p.fault.new_mac, text),
        get: |p| {
            let replaced = p.fault.kind == FaultKind::Reboot;
            replaced.then(|| p.fault.new_mac.to_string())
        },
    },
    Setting {
        key: "fault.announce",
        about: "Whether the host that takes the address over says so, by gratuitous ARP or an unsolicited neighbour advertisement.",
        default: Some("true"),
        example: "false",
        accepts: YES_OR_NO,
        set: |p, text| flag(&mut p.fault.announce, text),
        get: |p| {
            let takes_over = p.fault.kind == FaultKind::Takeover;
            takes_over.then(|| p.fault.announce.to_string())
        },
    },
    Setting {
        key: "fault.direction",
        about: "Which way the path drops packets.",
        default: Some("both"),
        example: "to-client",
        accepts: "`both`, `to-server` or `to-client`",
        set: |p, text| choose(&mut p.fault.direction, text),
        get: |p| {
            let one_way = p.fault.direction != Direction::Both;
            one_way.then(|| p.fault.direction.to_string())
        },
    },
    Setting {
        key: "fault.mtu",
        about: "The longest IP packet that passes, bytes, headers included: longer ones are dropped, and nobody is told. The hosts' own MTU is 1500.",
        default: None,
        example: "1400",
        accepts: "a number of bytes from `128` to `1499`",
        set: |p, text| {
            let bytes = text.parse().ok().filter(|bytes| (128..=1499).contains(bytes));
            p.fault.mtu = Some(bytes.ok_or_else(|| out_of_range(text))?);
            Ok(())
        },
        get: |p| p.fault.mtu.map(|bytes| bytes.to_string()),
    },
    Setting {
        key: "fault.packets",
        about: "How many TCP packets of each connection the path drops, the next after the fault; then it lets all pass. Without it: every frame.",
        default: None,
        example: "1",
        accepts: "a number from `1` to `1000000`",
        set: |p, text| {
            let packets = text.parse().ok().filter(|count| (1..=1_000_000).contains(count));
            p.fault.packets = Some(packets.ok_or_else(|| out_of_range(text))?);
            Ok(())
        },
        get: |p| p.fault.packets.map(|packets| packets.to_string()),
    },
    Setting {
        key: "fault.loss",
        about: "Which share of the TCP packets the path drops, by chance. Without it: every frame.",
        default: None,
        example: "20%",
        accepts: "a percentage from `0.01%` to `100%`, in steps of `0.01%`",
        set: |p, text| share(text).map(|loss| p.fault.loss = Some(loss)),
        get: |p| p.fault.loss.map(|loss| format!("{}%", f64::from(loss) / 100.0)),
    },
    Setting {
        key: "fault.seed",
        about: "What the order of losses depends on: the same number loses the same packets of a connection.",
        default: Some("1"),
        example: "7",
        accepts: "a number from `0` to `18446744073709551615`",
        set: |p, text| {
            p.fault.seed = text.parse().map_err(|_| out_of_range(text))?;
            Ok(())
        },
        get: |p| p.fault.loss.map(|_| p.fault.seed.to_string()),
    },
    Setting {
        key: "require.noticed_within",
        about: "The longest time from the fault until the client's program acts on it, or, where the client's host breaks, the survivor's; with several connections open at the fault, on each of its own. Not met: exit code 6.",
        default: None,
        example: "10s",
        accepts: UP_TO_A_YEAR,
        set: |p, text| {
            time(text, Duration::ZERO, LONGEST_TRIAL).map(|t| p.require.noticed_within = Some(t))
        },
        get: |p| p.require.noticed_within.map(duration::show),
    },
    Setting {
        key: "require.survives",
        about: "Whether the connection must live at the end of the trial, with everything acknowledged that was sent. Not met: exit code 6.",
        default: None,
        example: "true",
        accepts: YES_OR_NO,
        set: |p, text| flag(p.require.survives.get_or_insert_default(), text),
        get: |p| p.require.survives.map(|survives| survives.to_string()),
    },
    Setting {
        key: "require.exits",
        about: "How the client's command must end. Not met: exit code 6.",
        default: None,
        example: "0",
        accepts: "an exit code from 0 to 255, or a signal's name such as `SIGTERM`",
        set: |p, text| text.parse().map(|exits: Exits| p.require.exits = Some(exits)),
        get: |p| p.require.exits.as_ref().map(ToString::to_string),
    },
    Setting {
        key: "later.after",
        about: "When the sysctls of `later.sysctl.NAME` change, counted from the fault.",
        default: Some("0s"),
        example: "5s",
        accepts: UP_TO_A_YEAR,
        set: |p, text| time(text, Duration::ZERO, LONGEST_TRIAL).map(|t| p.later.after = t),
        get: |p| (!p.later.sysctl.is_empty()).then(|| duration::show(p.later.after)),
    },
];

fn out_of_range(text: &str) -> String {
    format!("`{text}` is not in the accepted range")
}

/// A share of [`EVERY_PACKET`], from a percentage.
fn share(text: &str) -> Result<u16, String> {
    let percent = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    let of_all = percent.map(|percent| percent * f64::from(EVERY_PACKET) / 100.0);
    of_all
        .filter(|share| (1.0..=f64::from(EVERY_PACKET)).contains(share))
        .filter(|share| (share - share.round()).abs() < 1e-6)
        .map(|share| share.round() as u16)
        .ok_or_else(|| out_of_range(text))
}
