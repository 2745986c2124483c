//! What to do about connections that find out late: in the words of the program where it is a known one
//! (`advice`'s knobs), else the socket option; and what does not help.

use super::Socket;
use advice::Ecosystem;
use model::Found;
use std::time::Duration;

/// Idle connections that take longer need advice.
const LATE: Duration = Duration::from_secs(3600);

/// What to do about these connections of one program, a line each; nothing where all find out in time.
pub(super) fn advice(process: &str, sockets: &[&Socket]) -> Vec<String> {
    let late: Vec<_> = sockets
        .iter()
        .filter(|socket| is_late(socket.outlook.if_idle) && socket.state == "ESTABLISHED")
        .collect();
    let known = advice::of_process(process);
    let of_side = |accepted| {
        late.iter().any(|socket| socket.accepted == accepted).then(|| own(&known, accepted))
    };
    let mut lines = match [true, false].map(of_side) {
        [Some(accepted), Some(opened)] if accepted == opened => told("its connections", &accepted),
        [accepted, opened] => {
            let of = |lines: Option<Own>, which: &str| {
                lines.map_or_else(Vec::new, |own| told(which, &own))
            };
            let mut lines = of(accepted, "connections that it accepted");
            lines.extend(of(opened, "connections that it opened"));
            lines
        }
    };
    if late.iter().any(|socket| lacks_keepalive(socket)) {
        lines.push(
            "no help: net.ipv4.tcp_keepalive_* (they count only where SO_KEEPALIVE is set)".into(),
        );
    }
    lines
}

/// Where a program is told, and what.
type Own = (Option<String>, Vec<String>);

/// The program's own words for one side; no lines where it has none.
fn own(known: &[Ecosystem], accepted: bool) -> Own {
    let told = known.iter().map(|one| (one.place.clone(), one.within_a_minute(accepted)));
    told.into_iter().find(|(_, lines)| !lines.is_empty()).unwrap_or_default()
}

fn told(which: &str, (place, lines): &Own) -> Vec<String> {
    if lines.is_empty() {
        return vec![format!(
            "for {which}: SO_KEEPALIVE with TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, set by the program"
        )];
    }
    let place = place.as_ref().map_or_else(String::new, |place| format!(", in {place}"));
    let head = format!("for {which}, to find out within a minute{place}:");
    std::iter::once(head).chain(lines.iter().map(|line| format!("    {line}"))).collect()
}

fn is_late(found: Found) -> bool {
    match found {
        Found::Never => true,
        Found::Within(_, _, latest) => latest > LATE,
        Found::Unknown => false,
    }
}

fn lacks_keepalive(socket: &Socket) -> bool {
    socket.options.as_ref().is_none_or(|options| options.keepalive != Some(true))
}
