//! What to do about connections that never find out: in the words of the program where it is a known one
//! (`advice`'s knobs), else the socket option; and what does not help.

use super::Socket;
use model::Found;

/// What to do about these connections of one program, a line each; nothing where all find out.
pub(super) fn advice(process: &str, sockets: &[&Socket]) -> Vec<String> {
    let never: Vec<_> = sockets
        .iter()
        .filter(|socket| socket.outlook.if_idle == Found::Never)
        .filter(|socket| socket.state == "ESTABLISHED")
        .collect();
    let known = advice::of_process(process);
    let mut lines = Vec::new();
    for (accepted, which) in [(true, "that it accepted"), (false, "that it opened")] {
        if !never.iter().any(|socket| socket.accepted == accepted) {
            continue;
        }
        let own = known.iter().map(|one| (one, one.within_a_minute(accepted)));
        let Some((ecosystem, own)) = own.into_iter().find(|(_, own)| !own.is_empty()) else {
            lines.push(format!(
                "for connections {which}: SO_KEEPALIVE with TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, set \
                 by the program"
            ));
            continue;
        };
        let place =
            ecosystem.place.as_ref().map_or_else(String::new, |place| format!(", in {place}"));
        lines.push(format!("for connections {which}, to find out within a minute{place}:"));
        lines.extend(own.into_iter().map(|line| format!("    {line}")));
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
