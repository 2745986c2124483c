//! What to do about connections that never find out: the program's own configuration option where it is a
//! known one (`advice.toml`), else the socket option; and what does not help.

use super::{Latest, Socket};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Programs {
    program: Vec<Program>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Program {
    process: Vec<String>,
    accepted: Option<String>,
    opened: Option<String>,
    #[expect(dead_code, reason = "for whoever maintains the data")]
    source: String,
}

fn known() -> Vec<Program> {
    let programs: Programs = toml::from_str(include_str!("advice.toml")).expect("a test reads it");
    programs.program
}

/// What to do about these connections of one program, a line each; nothing where all find out.
pub(super) fn advice(process: &str, sockets: &[&Socket]) -> Vec<String> {
    let never: Vec<_> = sockets
        .iter()
        .filter(|socket| Latest::of(&socket.outlook.if_idle) == Latest::Never)
        .filter(|socket| socket.state == "ESTABLISHED")
        .collect();
    if never.is_empty() || process == "-" {
        return Vec::new();
    }
    let program =
        known().into_iter().find(|known| known.process.iter().any(|name| name == process));
    let mut lines = Vec::new();
    for (accepted, which) in [(true, "that it accepted"), (false, "that it opened")] {
        if !never.iter().any(|socket| socket.accepted == accepted) {
            continue;
        }
        let own = program
            .as_ref()
            .and_then(|known| if accepted { known.accepted.clone() } else { known.opened.clone() });
        let own = own.unwrap_or_else(|| {
            "SO_KEEPALIVE with TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, set by the program".into()
        });
        lines.push(format!("for connections {which}: {own}"));
    }
    if never.iter().any(|socket| lacks_keepalive(socket)) {
        lines.push(
            "no help: net.ipv4.tcp_keepalive_* (they count only where SO_KEEPALIVE is set)".into(),
        );
    }
    lines
}

fn lacks_keepalive(socket: &Socket) -> bool {
    socket.options.as_ref().is_none_or(|options| options.keepalive != Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_can_be_read_and_says_something_of_each() {
        for program in known() {
            assert!(!program.process.is_empty());
            assert!(
                program.accepted.is_some() || program.opened.is_some(),
                "{:?}",
                program.process
            );
        }
    }
}
