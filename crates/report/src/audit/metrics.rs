//! OpenMetrics text, for the textfile directory of a node exporter: a few series a program.

use super::{Audit, Socket};
use model::Found;
use std::collections::BTreeMap;
use std::fmt::Write;

/// A gauge: its name, what it is, and its value for the connections of one program.
type Gauge = (&'static str, &'static str, fn(&[&Socket]) -> Option<f64>);

const GAUGES: [Gauge; 6] = [
    ("halfopen_connections", "TCP connections.", |sockets| Some(sockets.len() as f64)),
    (
        "halfopen_connections_never",
        "Connections that would never find out that their peer has gone if they stay idle.",
        |sockets| Some(count(sockets, |s| s.outlook.if_idle == Found::Never)),
    ),
    (
        "halfopen_connections_unknown",
        "Connections of which it cannot be said when they would find out.",
        |sockets| Some(count(sockets, |s| s.outlook.worst() == Found::Unknown)),
    ),
    (
        "halfopen_connections_in_trouble",
        "Connections that wait in vain already: retransmitting, probing, closing.",
        |sockets| Some(count(sockets, |s| s.outlook.in_trouble)),
    ),
    (
        "halfopen_finds_out_idle_seconds",
        "The latest moment at which one of those that find out does if all stay idle.",
        |sockets| latest(sockets, |s| Some(s.outlook.if_idle)),
    ),
    (
        "halfopen_finds_out_writing_seconds",
        "The latest moment at which one of those that find out does if it writes now.",
        |sockets| latest(sockets, |s| s.outlook.if_it_writes),
    ),
];

/// The text, up to and with `# EOF`.
pub fn openmetrics(audit: &Audit) -> Vec<u8> {
    let mut programs: BTreeMap<(&str, u64, Option<&str>), Vec<&Socket>> = BTreeMap::new();
    for socket in &audit.sockets {
        let key = (socket.process(), socket.namespace, socket.container.as_deref());
        programs.entry(key).or_default().push(socket);
    }
    let mut text = String::new();
    for (name, help, value) in GAUGES {
        let unit = if name.ends_with("_seconds") {
            format!("# UNIT {name} seconds\n")
        } else {
            String::new()
        };
        write!(text, "# TYPE {name} gauge\n{unit}# HELP {name} {help}\n")
            .expect("a String takes all");
        for ((process, namespace, container), sockets) in &programs {
            let Some(value) = value(sockets) else { continue };
            let container = container
                .map_or_else(String::new, |name| format!(",container=\"{}\"", escaped(name)));
            let process = escaped(process);
            writeln!(
                text,
                "{name}{{process=\"{process}\",namespace=\"{namespace}\"{container}}} {value}"
            )
            .expect("a String takes all");
        }
    }
    text.push_str("# EOF\n");
    text.into_bytes()
}

fn count(sockets: &[&Socket], is_one: impl Fn(&Socket) -> bool) -> f64 {
    sockets.iter().filter(|socket| is_one(socket)).count() as f64
}

fn latest(sockets: &[&Socket], of: impl Fn(&Socket) -> Option<Found>) -> Option<f64> {
    let found = sockets.iter().filter_map(|socket| of(socket));
    found.filter_map(Found::latest).max().map(|latest| latest.as_secs_f64())
}

/// A label's value: a process chooses its own name.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_breaks_out_of_a_label() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
        let empty = Audit { kernel: String::new(), hz: 250, sockets: Vec::new() };
        let text = String::from_utf8(openmetrics(&empty)).unwrap();
        assert!(text.starts_with("# TYPE halfopen_connections gauge\n"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
