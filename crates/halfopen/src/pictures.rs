//! The guide's pictures of predictions, made by `just reference`.

use crate::catalogue;
use anyhow::{Context, Result};
use report::html::{Forecast, Theme, TimeAxis, forecast};
use spec::file::parse_override;

/// A picture, before its predictions are made.
struct Picture {
    name: &'static str,
    axis: TimeAxis,
    /// What times count from.
    zero: &'static str,
    /// A label, and what `halfopen predict` would be told: an experiment and its settings.
    rows: &'static [(&'static str, &'static str)],
}

/// The kernel of the guide's examples, unless a row says otherwise.
const HZ: u32 = 250;

const PICTURES: &[Picture] = &[
    Picture {
        name: "lost-idle",
        axis: TimeAxis::Logarithmic,
        zero: "from the last segment received",
        rows: &[
            ("The process dies", "host-crash-idle-keepalive --defaults fault.kind=process-crash"),
            ("The process hangs", "host-crash-idle-keepalive --defaults fault.kind=process-freeze"),
            ("The host reboots", "host-crash-idle-keepalive --defaults fault.kind=reboot"),
            ("The host loses power", "host-crash-idle-keepalive --defaults"),
            ("The same, without keepalive", "host-crash-idle-no-keepalive --defaults"),
        ],
    },
    Picture {
        name: "lost-sending",
        axis: TimeAxis::Logarithmic,
        zero: "from the first write",
        rows: &[
            ("The process dies", "host-crash-sending --defaults fault.kind=process-crash"),
            ("The process hangs", "host-crash-sending --defaults fault.kind=process-freeze"),
            ("The host reboots", "host-crash-sending --defaults fault.kind=reboot"),
            ("The host loses power", "host-crash-sending --defaults"),
        ],
    },
    Picture {
        name: "retries2",
        axis: TimeAxis::Linear,
        zero: "from the first write",
        rows: &[
            ("tcp_retries2 = 15", "host-crash-sending --defaults"),
            ("15, round trip 1 s", "host-crash-sending --defaults path.rtt=1s"),
            ("tcp_retries2 = 8", "host-crash-sending --defaults sysctl.tcp_retries2=8"),
        ],
    },
    Picture {
        name: "keepalive",
        axis: TimeAxis::Linear,
        zero: "from the last segment received",
        rows: &[
            (
                "10 s idle, every 5 s, 3 probes",
                "host-crash-idle-keepalive client.keepalive.idle=10s client.keepalive.interval=5s",
            ),
            (
                "10 s idle, every 1 s, 3 probes",
                "host-crash-idle-keepalive client.keepalive.idle=10s",
            ),
            (
                "5 s idle, every 1 s, 10 probes",
                "host-crash-idle-keepalive client.keepalive.probes=10",
            ),
            ("No keepalive", "host-crash-idle-no-keepalive"),
        ],
    },
    Picture {
        name: "user-timeout",
        axis: TimeAxis::Linear,
        zero: "from the last segment received",
        rows: &[
            (
                "No user timeout",
                "host-crash-idle-keepalive client.keepalive.idle=60s client.keepalive.interval=10s \
                 client.keepalive.probes=6",
            ),
            (
                "User timeout 30 s",
                "host-crash-idle-keepalive client.keepalive.idle=60s client.keepalive.interval=10s \
                 client.keepalive.probes=6 client.user_timeout=30s",
            ),
            (
                "User timeout 65 s",
                "host-crash-idle-keepalive client.keepalive.idle=60s client.keepalive.interval=10s \
                 client.keepalive.probes=6 client.user_timeout=65s",
            ),
            (
                "User timeout 120 s",
                "host-crash-idle-keepalive client.keepalive.idle=60s client.keepalive.interval=10s \
                 client.keepalive.probes=6 client.user_timeout=120s",
            ),
        ],
    },
    Picture {
        name: "closed-windows",
        axis: TimeAxis::Linear,
        zero: "from the last segment received",
        rows: &[
            ("The peer lives", "zero-window-alive --defaults"),
            ("The peer has gone", "zero-window-host-crash --defaults"),
            (
                "The peer lives, user timeout 10 min",
                "zero-window-user-timeout --defaults client.user_timeout=10m",
            ),
        ],
    },
    Picture {
        name: "neighbours",
        axis: TimeAxis::Linear,
        zero: "from the first write",
        rows: &[
            ("Nothing answers", "host-crash-sending --defaults"),
            ("On a LAN: ARP fails", "host-crash-sending-lan --defaults"),
            ("A router answers by ICMP", "host-crash-sending-behind-router --defaults"),
        ],
    },
    Picture {
        name: "timer-wheel",
        axis: TimeAxis::Ends,
        zero: "from the first write",
        rows: &[
            ("HZ 100", "host-crash-sending --defaults hz=100"),
            ("HZ 250", "host-crash-sending --defaults hz=250"),
            ("HZ 300", "host-crash-sending --defaults hz=300"),
            ("HZ 1000", "host-crash-sending --defaults hz=1000"),
        ],
    },
];

/// The pictures' files, each for a light and a dark page.
pub(crate) fn all() -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for Picture { name, axis, zero, rows } in PICTURES {
        let rows: Vec<_> = rows.iter().map(predicted).collect::<Result<_>>()?;
        for (theme, page) in [(Theme::Light, "light"), (Theme::Dark, "dark")] {
            files.push((format!("{name}-{page}.svg"), forecast(&rows, *axis, zero, theme)));
        }
    }
    Ok(files)
}

fn predicted((label, command): &(&str, &str)) -> Result<Forecast> {
    let mut words = command.split_whitespace();
    let name = words.next().context("a row has an experiment")?;
    let (flags, settings): (Vec<_>, Vec<_>) = words.partition(|word| *word == "--defaults");
    let settings: Result<Vec<_>, _> = settings.into_iter().map(parse_override).collect();
    let settings = settings.map_err(anyhow::Error::msg)?;
    let parameters = catalogue::find(name, !flags.is_empty(), &settings, false)?.parameters;
    let facts = model::nominal_facts(&parameters, parameters.kernel.hz.unwrap_or(HZ));
    let prediction = model::predict(&parameters, &facts);
    Ok(Forecast { label: (*label).to_owned(), prediction })
}
