//! `halfopen audit`: the connections of a machine, and when each would find out that its peer has gone.

mod advice;
mod change;
mod metrics;
mod table;

use crate::json;
use model::{Doing, Found, Outlook};
use serde::Serialize;
use spec::{Outcome, SocketOptions};
use std::net::SocketAddr;
use std::time::Duration;

pub use change::{change, changes};
pub use metrics::openmetrics;
pub use table::human;

/// The document's schema.
const SCHEMA: &str = "halfopen/audit/1";

/// One connection.
#[derive(Debug, Clone)]
pub struct Socket {
    /// The processes that have it, each with its name.
    pub owners: Vec<(u32, String)>,
    /// Its own end.
    pub local: SocketAddr,
    /// Its peer's end.
    pub remote: SocketAddr,
    /// Whether it was accepted: something listens at its own port.
    pub accepted: bool,
    /// Its state, without the prefix `TCP_`.
    pub state: String,
    /// The inode of its network namespace.
    pub namespace: u64,
    /// Its container.
    pub container: Option<String>,
    /// The number of its inode; 0 where no process has it.
    pub inode: u32,
    /// Bytes received and not read.
    pub receive_queue: u32,
    /// Bytes written and not acknowledged.
    pub send_queue: u32,
    /// Its options; `None` where they could not be read.
    pub options: Option<SocketOptions>,
    /// Why they could not be read.
    pub unread: Option<&'static str>,
    /// When it was sampled, `CLOCK_MONOTONIC`, nanoseconds.
    pub sampled_ns: u64,
    /// What is predicted of it.
    pub outlook: Outlook,
}

/// All of them.
#[derive(Debug, Clone)]
pub struct Audit {
    /// `uname -r`.
    pub kernel: String,
    /// Timer interrupts a second.
    pub hz: u32,
    /// The connections.
    pub sockets: Vec<Socket>,
}

/// Who has a connection's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeldBy {
    /// Processes that may be seen.
    Processes,
    /// Nobody any more: its program has closed it, and the kernel ends it.
    Orphaned,
    /// Nobody yet: it waits to be accepted.
    Backlog,
    /// The kernel, or a process that may not be seen.
    Unseen,
}

impl HeldBy {
    /// In a word, where there is no process to name.
    fn word(self) -> &'static str {
        match self {
            Self::Processes => "",
            Self::Orphaned => "(closed)",
            Self::Backlog => "(not accepted)",
            Self::Unseen => "(not seen)",
        }
    }
}

impl Socket {
    /// Whether it takes longer than this, or the model cannot say that it does not.
    pub fn is_over(&self, limit: Duration) -> bool {
        !self.outlook.worst().by(limit)
    }

    /// Who has it.
    pub fn held_by(&self) -> HeldBy {
        match (self.owners.is_empty(), self.inode, self.outlook.doing) {
            (false, ..) => HeldBy::Processes,
            (true, 0, Doing::Closing) => HeldBy::Orphaned,
            (true, 0, _) => HeldBy::Backlog,
            (true, ..) => HeldBy::Unseen,
        }
    }

    fn process(&self) -> &str {
        self.owners.first().map_or(self.held_by().word(), |(_, process)| process)
    }

    /// Why it finds out when it does.
    fn reason(&self) -> &str {
        if self.outlook.if_idle != Found::Never {
            return &self.outlook.why;
        }
        match self.options.as_ref().and_then(|options| options.keepalive) {
            Some(true) => "nothing is sent that could be missed",
            Some(false) => "SO_KEEPALIVE is not set",
            None => "no keepalive timer runs",
        }
    }

    /// The same, and what is not known.
    fn why(&self) -> String {
        let mut why = self.reason().to_owned();
        if let Some(unread) = self.unread {
            why += &format!("; its options could not be read ({unread}): {TAKEN}");
        }
        why
    }
}

impl Audit {
    /// The worst first.
    fn sorted(&self) -> Vec<&Socket> {
        let mut sockets: Vec<&Socket> = self.sockets.iter().collect();
        let by = |socket: &&Socket| {
            let pid = socket.owners.first().map(|(pid, _)| *pid);
            let worst = std::cmp::Reverse(socket.outlook.worst().badness());
            (worst, socket.process().to_owned(), pid, socket.remote)
        };
        sockets.sort_by_cached_key(by);
        sockets
    }
}

/// What follows for a socket whose options are not known.
const TAKEN: &str = "it is taken to have set none, so that the sysctls' times count; a TCP_USER_TIMEOUT \
                     would end it earlier or later";

/// A window, counted from the sample.
#[derive(Serialize)]
struct WindowDocument {
    outcome: Outcome,
    earliest_s: Option<f64>,
    latest_s: Option<f64>,
}

/// `None` where nothing can be said.
fn window(found: Found) -> Option<WindowDocument> {
    let seconds = |time: Duration| Some((time.as_secs_f64() * 1e6).round() / 1e6);
    let (outcome, earliest_s, latest_s) = match found {
        Found::Unknown => return None,
        Found::Never => (Outcome::None, None, None),
        Found::Within(outcome, earliest, latest) => (outcome, seconds(earliest), seconds(latest)),
    };
    Some(WindowDocument { outcome, earliest_s, latest_s })
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    kernel: &'a str,
    hz: u32,
    #[serde(serialize_with = "each")]
    sockets: Vec<&'a Socket>,
}

/// One at a time: a document is as large as its socket again.
fn each<S: serde::Serializer>(sockets: &[&Socket], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(sockets.iter().map(|socket| document(socket)))
}

#[derive(Serialize)]
struct SocketDocument<'a> {
    pid: Option<u32>,
    process: Option<&'a str>,
    pids: Vec<u32>,
    held_by: HeldBy,
    local: String,
    remote: String,
    state: &'a str,
    namespace: u64,
    container: Option<&'a str>,
    recv_q: u32,
    send_q: u32,
    options: json::OptionsDocument,
    source: &'static str,
    sampled_monotonic_s: f64,
    doing: Doing,
    if_idle: Option<WindowDocument>,
    if_it_writes: Option<WindowDocument>,
    now: Option<WindowDocument>,
    why: String,
    unknown: Option<&'a str>,
}

fn document(socket: &Socket) -> SocketDocument<'_> {
    let Outlook { doing, if_idle, if_it_writes, in_trouble, why: _, unknown } = &socket.outlook;
    SocketDocument {
        pid: socket.owners.first().map(|(pid, _)| *pid),
        process: socket.owners.first().map(|(_, process)| process.as_str()),
        pids: socket.owners.iter().map(|(pid, _)| *pid).collect(),
        held_by: socket.held_by(),
        local: socket.local.to_string(),
        remote: socket.remote.to_string(),
        state: &socket.state,
        namespace: socket.namespace,
        container: socket.container.as_deref(),
        recv_q: socket.receive_queue,
        send_q: socket.send_queue,
        options: json::OptionsDocument::of(socket.options.as_ref()),
        source: if socket.options.is_some() { "getsockopt" } else { "sock-diag" },
        sampled_monotonic_s: socket.sampled_ns as f64 / 1e9,
        doing: *doing,
        if_idle: window(*if_idle),
        if_it_writes: if_it_writes.and_then(window),
        now: in_trouble.then(|| window(*if_idle)).flatten(),
        why: socket.why(),
        unknown: unknown.as_deref(),
    }
}

/// The document `halfopen/audit/1`, the worst first.
pub fn json(audit: &Audit) -> Vec<u8> {
    json::pretty(&Document {
        schema: SCHEMA,
        kernel: &audit.kernel,
        hz: audit.hz,
        sockets: audit.sorted(),
    })
}

/// Connections before and after their options changed: the document `halfopen/setsockopt/1`, with the
/// commands that take it back.
pub fn changed_json(
    kernel: &str,
    hz: u32,
    changes: &[(Socket, Socket)],
    undo: &[String],
) -> Vec<u8> {
    let change = |(before, after): &(Socket, Socket)| serde_json::json!({"before": document(before), "after": document(after)});
    json::pretty(&serde_json::json!({
        "schema": "halfopen/setsockopt/1",
        "kernel": kernel,
        "hz": hz,
        "changed": !undo.is_empty(),
        "sockets": changes.iter().map(change).collect::<Vec<_>>(),
        "undo": undo,
    }))
}

/// A line a connection, the worst first, after a line of names: those of the document.
pub fn csv(audit: &Audit) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let head = [
        "pid",
        "process",
        "local",
        "remote",
        "state",
        "namespace",
        "container",
        "recv_q",
        "send_q",
        "keepalive",
        "keepidle_s",
        "keepintvl_s",
        "keepcnt",
        "user_timeout_ms",
        "source",
        "sampled_monotonic_s",
        "doing",
        "if_idle_outcome",
        "if_idle_earliest_s",
        "if_idle_latest_s",
        "if_it_writes_outcome",
        "if_it_writes_earliest_s",
        "if_it_writes_latest_s",
        "in_trouble",
        "why",
    ];
    writer.write_record(head).expect("a Vec takes all");
    for socket in audit.sorted() {
        let document = document(socket);
        let options = socket.options.clone().unwrap_or_default();
        let mut row = vec![
            text(document.pid),
            text(document.process),
            document.local,
            document.remote,
            document.state.to_owned(),
            document.namespace.to_string(),
            text(document.container),
            document.recv_q.to_string(),
            document.send_q.to_string(),
            text(options.keepalive),
            text(options.keepidle_s),
            text(options.keepintvl_s),
            text(options.keepcnt),
            text(options.user_timeout_ms),
            document.source.to_owned(),
            document.sampled_monotonic_s.to_string(),
            name_of(document.doing).to_owned(),
        ];
        for window in [document.if_idle, document.if_it_writes] {
            row.push(text(window.as_ref().map(|window| window.outcome)));
            row.push(text(window.as_ref().and_then(|window| window.earliest_s)));
            row.push(text(window.as_ref().and_then(|window| window.latest_s)));
        }
        row.extend([socket.outlook.in_trouble.to_string(), document.why]);
        writer.write_record(row).expect("a Vec takes all");
    }
    writer.into_inner().expect("a Vec takes all")
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn name_of(doing: Doing) -> &'static str {
    match doing {
        Doing::Idle => "idle",
        Doing::Unacknowledged => "unacknowledged",
        Doing::Probing => "probing",
        Doing::ClosedWindow => "closed-window",
        Doing::Closing => "closing",
    }
}
