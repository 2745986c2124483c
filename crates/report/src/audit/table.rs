//! The table for people, in the order of the columns of `ss`.

use super::advice::advice;
use super::{Audit, HeldBy, Socket, name_of};
use crate::human::paint::Paint;
use model::{Doing, Found};
use spec::{Outcome, SocketOptions};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::time::Duration;

/// More connections than these that differ in one end alone are one line.
const ALIKE_MOST: usize = 3;
/// The columns of `ss -t`, then what is this program's own.
const HEAD: [&str; 9] = [
    "State",
    "Recv-Q",
    "Send-Q",
    "Local Address:Port",
    "Peer Address:Port",
    "Process",
    "Options",
    "If it stays idle",
    "If it writes now",
];

/// The table, the worst first, then a line a program.
pub fn human(audit: &Audit, colour: bool) -> String {
    if audit.sockets.is_empty() {
        return "no TCP connections\n".into();
    }
    let paint = Paint(colour);
    let mut rows: Vec<([String; 9], [Found; 2])> = Vec::new();
    let mut groups: Vec<Vec<&Socket>> = Vec::new();
    let mut places: HashMap<Vec<String>, usize> = HashMap::new();
    for socket in audit.sorted() {
        let at = *places.entry(alike(socket)).or_insert(groups.len());
        match groups.get_mut(at) {
            Some(group) => group.push(socket),
            None => groups.push(vec![socket]),
        }
    }
    for group in &groups {
        if group.len() > ALIKE_MOST {
            rows.push(row(group));
        } else {
            rows.extend(group.iter().map(|socket| row(&[*socket])));
        }
    }
    let width = |column: usize| {
        let cells = rows.iter().map(|(cells, _)| cells[column].chars().count());
        cells.chain([HEAD[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: [&str; 9], paints: &dyn Fn(usize, String) -> String| {
        let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            let right = (1..=2).contains(&column);
            let padded = if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
            paints(column, padded)
        });
        let line = padded.collect::<Vec<_>>().join("  ");
        writeln!(text, "{}", line.trim_end()).expect("a String takes all");
    };
    line(HEAD, &|_, cell| paint.strong(&cell));
    for (cells, found) in &rows {
        line(cells.each_ref().map(String::as_str), &|column, cell| match column {
            7 | 8 => marked(paint, found[column - 7], &cell),
            _ => cell,
        });
    }
    text.push('\n');
    for line in programs(audit) {
        writeln!(text, "{line}").expect("a String takes all");
    }
    for line in unread(audit) {
        writeln!(text, "{}", paint.warning(&line)).expect("a String takes all");
    }
    let Audit { kernel, hz, sockets } = audit;
    let count = counted(sockets.len());
    let told = format!(
        "{count} · kernel {kernel} · HZ {hz} · times count from now, if the peer has just gone\n\
         ! is over a minute, !! never; what programs do by timers of their own is not seen\n"
    );
    text += &paint.quiet(&told);
    if let Some(taken) = model::newer_than_read(spec::facts::version(kernel)) {
        writeln!(text, "{taken}").expect("a String takes all");
    }
    text
}

/// How many connections' options could not be read, and why, a line a reason.
fn unread(audit: &Audit) -> Vec<String> {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for socket in audit.sockets.iter().filter(|socket| socket.held_by() != HeldBy::Orphaned) {
        if let Some(why) = socket.unread {
            *reasons.entry(why).or_default() += 1;
        }
    }
    let line = |(why, count): (&str, usize)| {
        format!(
            "options of {} could not be read: {why}; each is taken to have set none, and its times have a ~",
            counted(count)
        )
    };
    reasons.into_iter().map(line).collect()
}

/// The processes that have them, all of one name, and where.
fn owner_of_all(group: &[&Socket]) -> String {
    let first = |socket: &&Socket| socket.owners.first().map(|(pid, _)| *pid);
    let pids: BTreeSet<u32> = group.iter().filter_map(first).collect();
    if pids.len() < 2 {
        return owner(group[0]);
    }
    format!("{} ({} processes){}", group[0].process(), pids.len(), place(group[0]))
}

fn place(socket: &Socket) -> String {
    socket.container.as_ref().map_or_else(String::new, |container| format!(" in {container}"))
}

/// The processes that have it, and where.
pub(super) fn owner(socket: &Socket) -> String {
    let Some((pid, process)) = socket.owners.first() else { return socket.held_by().word().into() };
    let others = match socket.owners.len() {
        1 => String::new(),
        count => format!(",+{}", count - 1),
    };
    format!("{process} pid={pid}{others}{}", place(socket))
}

fn counted(connections: usize) -> String {
    if connections == 1 { "1 connection".into() } else { format!("{connections} connections") }
}

/// What makes connections one line: all but the end that each has for itself, and the times.
fn alike(socket: &Socket) -> Vec<String> {
    let port = if socket.accepted { socket.local } else { socket.remote };
    let at = if socket.accepted { port.port().to_string() } else { port.to_string() };
    let doing = name_of(socket.outlook.doing).to_owned();
    let owner = format!("{}{:?}", socket.process(), socket.held_by());
    let never = (socket.outlook.worst() == Found::Never).to_string();
    let place = socket.namespace.to_string();
    vec![owner, socket.state.clone(), brief_options(socket), doing, at, never, place]
}

fn row(group: &[&Socket]) -> ([String; 9], [Found; 2]) {
    let first = group[0];
    let many = (group.len() > 1).then(|| format!("({} connections)", group.len()));
    let (mut local, mut remote) = (first.local.to_string(), first.remote.to_string());
    if let Some(many) = many {
        if first.accepted {
            local = format!("*:{}", first.local.port());
            remote = many;
        } else {
            local = many;
        }
    }
    let process = owner_of_all(group);
    let sum = |queue: fn(&Socket) -> u32| {
        group.iter().map(|socket| u64::from(queue(socket))).sum::<u64>().to_string()
    };
    let idle: Vec<_> = group.iter().map(|socket| socket.outlook.if_idle).collect();
    let writes: Vec<_> = group.iter().filter_map(|socket| socket.outlook.if_it_writes).collect();
    let none = Found::Within(Outcome::None, Duration::ZERO, Duration::ZERO);
    let worst = |of: &[Found]| of.iter().copied().reduce(Found::or_worse).unwrap_or(none);
    let trouble = match first.outlook.doing {
        _ if !first.outlook.in_trouble => "",
        Doing::Idle => "",
        Doing::Unacknowledged if first.state == "SYN_SENT" => "connecting, ends in ",
        Doing::Unacknowledged => "retransmitting, ends in ",
        Doing::Probing => "probing, ends in ",
        Doing::ClosedWindow => "window closed, ends in ",
        Doing::Closing => "closing, gone in ",
    };
    // What is not known is assumed.
    let about = if first.options.is_none() { "~" } else { "" };
    let cells = [
        first.state.replace('_', "-"),
        sum(|socket| socket.receive_queue),
        sum(|socket| socket.send_queue),
        local,
        remote,
        process,
        brief_options(first),
        times(&idle, &format!("{trouble}{about}")),
        if writes.is_empty() { "-".into() } else { times(&writes, about) },
    ];
    (cells, [worst(&idle), worst(&writes)])
}

/// From the earliest to the latest of these.
pub(super) fn times(found: &[Found], before: &str) -> String {
    match found.iter().copied().reduce(Found::or_worse) {
        None | Some(Found::Unknown) => "? not known".into(),
        Some(Found::Never) => "!! never".into(),
        Some(Found::Within(outcome, earliest, latest)) => {
            let earliest = found.iter().fold(earliest, |least, found| match found {
                Found::Within(_, earliest, _) => least.min(*earliest),
                Found::Unknown | Found::Never => least,
            });
            let named = match outcome {
                Outcome::TIMED_OUT | Outcome::Released => String::new(),
                outcome => format!(" {outcome}"),
            };
            let mark = if latest >= MINUTE { "! " } else { "" };
            format!("{mark}{before}{}{named}", brief(earliest, latest))
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// A window in one unit, short: `8.0–8.2 s`, `15.4–15.7 min`, `2.19–2.22 h`.
fn brief(earliest: Duration, latest: Duration) -> String {
    let (unit, name, digits) = match latest.as_secs() {
        0..120 => (1.0, "s", 1),
        120..7200 => (60.0, "min", 1),
        7200..172_800 => (3600.0, "h", 2),
        _ => (86_400.0, "d", 1),
    };
    let shown = |time: Duration| format!("{:.digits$}", time.as_secs_f64() / unit);
    let (from, to) = (shown(earliest), shown(latest));
    if from == to { format!("{to} {name}") } else { format!("{from}–{to} {name}") }
}

fn marked(paint: Paint, found: Found, cell: &str) -> String {
    match found {
        Found::Never | Found::Unknown => paint.bad(cell),
        Found::Within(_, _, latest) if latest >= MINUTE => paint.warning(cell),
        Found::Within(..) => cell.to_owned(),
    }
}

/// Its options in a few words.
pub(super) fn brief_options(socket: &Socket) -> String {
    let Some(options) = &socket.options else { return "not readable".into() };
    let number = |value: Option<u32>| value.map_or_else(|| "?".into(), |v: u32| v.to_string());
    let mut text = match options.keepalive {
        Some(true) => {
            let SocketOptions { keepidle_s, keepintvl_s, keepcnt, .. } = options;
            let times = [*keepidle_s, *keepintvl_s, *keepcnt].map(number);
            format!("keepalive {}", times.join("/"))
        }
        Some(false) => "no keepalive".into(),
        None => "keepalive ?".into(),
    };
    if let Some(ms) = options.user_timeout_ms.filter(|ms| *ms > 0) {
        let timeout = crate::span::exact(Duration::from_millis(ms.into()));
        text += &format!(", user timeout {timeout}");
    }
    text
}

/// A line for each program, the worst first, and what to do about it.
fn programs(audit: &Audit) -> Vec<String> {
    let mut programs: BTreeMap<(HeldBy, &str), Vec<&Socket>> = BTreeMap::new();
    for socket in &audit.sockets {
        programs.entry((socket.held_by(), socket.process())).or_default().push(socket);
    }
    let mut lines: Vec<_> = programs
        .into_iter()
        .map(|((held_by, name), sockets)| {
            let worst = sockets.iter().map(|socket| socket.outlook.worst());
            let worst = worst.reduce(Found::or_worse).unwrap_or(Found::Unknown);
            let mut lines = vec![program(held_by, name, &sockets, worst)];
            if held_by == HeldBy::Processes {
                lines.extend(advice(name, &sockets).into_iter().map(|line| format!("    {line}")));
            }
            (std::cmp::Reverse(worst.badness()), lines.join("\n"))
        })
        .collect();
    lines.sort();
    lines.into_iter().map(|(_, line)| line).collect()
}

fn program(held_by: HeldBy, name: &str, sockets: &[&Socket], worst: Found) -> String {
    let name = match held_by {
        HeldBy::Processes => name,
        HeldBy::Orphaned => "closed by their programs",
        HeldBy::Backlog => "not accepted yet",
        HeldBy::Unseen => "without a process that may be seen",
    };
    let count = counted(sockets.len());
    let of_worst: Vec<_> = sockets.iter().filter(|s| s.outlook.worst() == worst).collect();
    let some = match of_worst.len() {
        all if all == sockets.len() => String::new(),
        some => format!("{some} of them "),
    };
    let first = of_worst[0];
    match worst {
        Found::Never => {
            let reason = first.reason();
            format!("{name}: {count}, {some}would never find out while idle: {reason}")
        }
        Found::Unknown => {
            let reason = first.outlook.unknown.as_deref().unwrap_or_default();
            format!("{name}: {count}, {some}not known: {reason}")
        }
        Found::Within(_, _, latest) => {
            format!("{name}: {count}, would find out after {} at the latest", brief(latest, latest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Outlook;

    fn socket(pid: Option<u32>, port: u16, latest_s: u64) -> Socket {
        let seconds = Duration::from_secs(latest_s);
        Socket {
            owners: pid.map(|pid| (pid, "postgres".to_owned())).into_iter().collect(),
            local: ([127, 0, 0, 1], 5432).into(),
            remote: ([127, 0, 0, 1], port).into(),
            accepted: true,
            state: "ESTABLISHED".into(),
            namespace: 1,
            container: None,
            inode: 7,
            receive_queue: 0,
            send_queue: 0,
            options: pid.map(|_| SocketOptions { keepalive: Some(true), ..Default::default() }),
            unread: pid.is_none().then_some("no process that has it may be seen"),
            sampled_ns: 0,
            outlook: Outlook {
                doing: Doing::Idle,
                if_idle: Found::Within(Outcome::TIMED_OUT, seconds, seconds),
                if_it_writes: Some(Found::Never),
                in_trouble: false,
                why: String::new(),
                unknown: None,
            },
        }
    }

    #[test]
    fn processes_of_one_name_are_one_line_and_what_is_assumed_is_marked() {
        let mut sockets: Vec<_> = (1..=5).map(|pid| socket(Some(pid), 40_000, 30)).collect();
        sockets.push(socket(None, 50_000, 90));
        let audit = Audit { kernel: "6.18".into(), hz: 250, sockets };
        let text = human(&audit, false);
        assert!(!text.contains("is taken to be"), "{text}");
        let newer = human(&Audit { kernel: "7.99.1".into(), ..audit.clone() }, false);
        assert!(newer.ends_with("model was read from\n"), "{newer}");
        let line = |what: &str| text.lines().find(|line| line.contains(what)).unwrap_or_default();
        assert!(line("postgres (5 processes)").contains("*:5432"), "{text}");
        assert!(line("postgres (5 processes)").contains("  30.0 s  "), "{text}");
        assert!(line("(not seen)").contains("! ~90.0 s"), "{text}");
        assert!(line("could not be read").contains("options of 1 connection "), "{text}");
        assert!(text.contains("without a process that may be seen: 1 connection"), "{text}");
    }
}
