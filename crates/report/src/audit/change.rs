//! What changes from one look to the next, and what a change of options makes of a connection.

use super::table::{brief_options, owner, times};
use super::{Audit, Socket, name_of};
use model::Found;
use std::collections::BTreeMap;

/// A connection before and after its options changed: what differs, and when it would find out.
pub fn change(before: &Socket, after: &Socket) -> String {
    let mut text = format!("{}\n", named(before));
    let mut line = |what: &str, (from, to): (String, String)| {
        let change = if from == to { from } else { format!("{from} → {to}") };
        text += &format!("  {what:<17} {change}\n");
    };
    line("options", (brief_options(before), brief_options(after)));
    let idle = |socket: &Socket| times(&[socket.outlook.if_idle], "");
    line("if it stays idle", (idle(before), idle(after)));
    let writes = |socket: &Socket| {
        socket.outlook.if_it_writes.map_or_else(|| "-".to_owned(), |found| times(&[found], ""))
    };
    line("if it writes now", (writes(before), writes(after)));
    text
}

/// The connections that came (`+`), that went (`-`), and those that are not as they were (`~`), a line
/// each; nothing where nothing has changed.
pub fn changes(before: &Audit, now: &Audit) -> String {
    let by_ends = |audit: &Audit| -> BTreeMap<_, Socket> {
        let sockets = audit.sockets.iter().cloned();
        sockets.map(|socket| ((socket.namespace, socket.local, socket.remote), socket)).collect()
    };
    let (before, now) = (by_ends(before), by_ends(now));
    let mut lines = Vec::new();
    for (ends, socket) in &now {
        match before.get(ends) {
            None => lines.push(format!("+ {}", described(socket))),
            Some(old) if kind(old) != kind(socket) => {
                lines.push(format!("~ {}, was {}", described(socket), state(old)));
            }
            Some(_) => {}
        }
    }
    let gone = before.iter().filter(|(ends, _)| !now.contains_key(*ends));
    lines.extend(gone.map(|(_, socket)| format!("- {}", named(socket))));
    lines.into_iter().map(|line| line + "\n").collect()
}

/// What is worth a line when it changes: times alone pass with the clock.
fn kind(socket: &Socket) -> (String, String, [Option<bool>; 2]) {
    let is_never = |found: Found| found == Found::Never;
    let outlook = &socket.outlook;
    let never = [Some(is_never(outlook.if_idle)), outlook.if_it_writes.map(is_never)];
    (state(socket), brief_options(socket), never)
}

fn state(socket: &Socket) -> String {
    let state = socket.state.replace('_', "-");
    format!("{state}, {}, {}", name_of(socket.outlook.doing), brief_options(socket))
}

fn named(socket: &Socket) -> String {
    format!("{} {} → {}", owner(socket), socket.local, socket.remote)
}

fn described(socket: &Socket) -> String {
    let idle = times(&[socket.outlook.if_idle], "");
    format!("{}: {}; if it stays idle {idle}", named(socket), state(socket))
}
