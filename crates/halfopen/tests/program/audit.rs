//! `halfopen audit`, held against the laboratory: a client audits its own connections at random moments
//! after the fault, and every prediction is compared with what the kernel then did.

use crate::common::{halfopen, is_root_here, show};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What both clients begin with.
const BEGIN: &str = r#"
import ctypes, json, os, random, socket, subprocess, sys, time
# Where only descendants may be looked at (yama), the auditor may too.
ctypes.CDLL(None).prctl(0x59616d61, ctypes.c_ulong(2**64 - 1), 0, 0, 0)
random.seed(7)
def say(**what):
    print(json.dumps(what), flush=True)
def connect(keepalive, timeout):
    s = socket.create_connection(("server", 7000))
    if keepalive:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in zip((4, 5, 6), keepalive):
            s.setsockopt(socket.IPPROTO_TCP, option, value)
    if timeout:
        s.setsockopt(socket.IPPROTO_TCP, 18, timeout)
    for _ in range(8):
        s.sendall(b"hello\n")
        s.recv(100)
    s.setblocking(False)
    return s
def fill(sockets):
    for s in sockets:
        s.send(b"stop\n")
    time.sleep(0.2)
    for s in sockets:
        try:
            while True:
                s.send(b"x" * 65536)
        except BlockingIOError:
            pass
def port(s):
    return str(s.getsockname()[1])
def run(*arguments, of=None):
    done = subprocess.run([sys.argv[1], *arguments, "--format", "json"], capture_output=True)
    if done.returncode != 0 and not (of and ended(of)):
        say(failed=done.stderr.decode())
    return json.loads(done.stdout or "null")
"#;

/// Opens connections with options of all kinds; after the fault it audits them at random moments. Just
/// after an audit it writes to some, closes and shuts others down, and opens new ones. The window of some
/// is closed before, and others have been closed by their peer.
const CLIENT: &str = r#"
keys = ("local", "state", "sampled_monotonic_s", "doing", "source", "options", "if_idle",
        "if_it_writes", "now", "pid")
def audit():
    return [{key: s[key] for key in keys} for s in run("audit")["sockets"]]
def did(sockets, act):
    # On a busy machine some have ended before their turn comes: they are as they were left.
    done = []
    for s in sockets:
        local = port(s)
        try:
            act(s)
            done.append(local)
        except OSError:
            pass
    return done
kinds = [(None, 0), (None, 2500), ((1, 1, 2), 0), ((2, 1, 3), 0), ((1, 2, 1), 3000), ((3, 1, 2), 0)]
idle = [connect(*kind) for kind in kinds for _ in range(2)]
writers = [connect(*kind) for kind in kinds[:4] for _ in range(2)]
closed = [connect(*kind) for kind in kinds[:3] for _ in range(2)]
left, shut = [[connect(*kind) for kind in kinds[:3]] for _ in range(2)]
# Nobody can see whether a socket that its program has closed has a user timeout: some of these have one.
late, closers = [[connect(*kind) for kind in kinds] for _ in range(2)]
for s in left + late:
    s.send(b"bye\n")
fill(closed)
time.sleep(0.4)
say(ready=True)
time.sleep(1)
for turn in range(16):
    time.sleep(random.uniform(0.05, 0.6))
    found = audit()
    wrote, acted = [], []
    if turn == 2:
        wrote = did(writers, lambda s: s.send(b"again\n"))
        acted = did(shut, lambda s: s.shutdown(socket.SHUT_WR))
        acted += did(closers + late, socket.socket.close)
        new = [socket.socket() for _ in range(3)]
        for s in new:
            s.setblocking(False)
            s.connect_ex((writers[0].getpeername()[0], 7000))
    say(audit=found, wrote=wrote, acted=acted)
time.sleep(9)
"#;

/// Changes options of live sockets, before the fault and after it, and asks before what would be: of some
/// it changes nothing, and what was said of them as they are must come true.
const CHANGER: &str = r#"
def ended(s):
    return s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 7
def change(s, *wanted):
    words = ("setsockopt", "--pid", str(os.getpid()), "--port", port(s), *wanted)
    return [run(*words, of=s), run(*words, "--yes", of=s)]
def ask(s):
    return [run("setsockopt", "--pid", str(os.getpid()), "--port", port(s), "keepalive=7/7/7", of=s)]
def all(turn, sockets, *wanted):
    done = [change(s, *wanted) for s in sockets]
    # On a busy machine some have ended before it is their turn.
    say(turn=turn, changed=[both for both in done if None not in both])
off, timed = (None, 0), (None, 4000)
never, first, sooner, fewer = [[connect(*kind) for _ in range(2)] for kind in
                               (off, off, ((60, 1, 9), 0), ((1, 1, 40), 0))]
writers, slower, quick = [[connect(*kind) for _ in range(2)] for kind in (off, timed, off)]
closed, capped, late = [[connect(*off) for _ in range(2)] for _ in range(3)]
off_again = [connect((9, 1, 2), 0) for _ in range(2)]
fill(closed)
time.sleep(0.3)
all("on", first, "keepalive=5/1/3")
all("sooner", sooner, "keepalive=7/1/2")
all("off", off_again, "keepalive=off")
say(ready=True)
time.sleep(2.1)
for s in writers + slower + quick + capped + late:
    s.send(b"again\n")
time.sleep(random.uniform(0.5, 0.9))
all("fewer", fewer, "keepcnt=5")
all("closed", closed, "user_timeout=6s")
all("writers", writers, "user_timeout=3s")
all("slower", slower, "user_timeout=7s")
try:
    capped[0].getsockopt(socket.IPPROTO_TCP, 44)
    all("capped", capped, "rto_max=1s")
    # A timer that waits longer than that already is left as it is.
    time.sleep(3)
    all("capped late", late, "rto_max=1s")
except OSError:
    pass  # TCP_RTO_MAX_MS is of Linux 6.15
say(turn="asked", asked=[one for one in [ask(s) for s in never + quick] if None not in one])
time.sleep(12)
"#;

/// Answers each line, until it is told to stop reading.
const SERVER: &str = r#"
import socket, threading, time
def serve(s):
    while True:
        data = s.recv(100)
        if data == b"stop\n":
            time.sleep(1000)
        if data == b"bye\n":
            s.close()
            return
        s.sendall(data)
listener = socket.create_server(("0.0.0.0", 7000), backlog=100)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

pub(crate) fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

const TRACED: &str = "knowing by tracepoints when connections end";

/// What a client said, and what the tracepoints showed of its connections.
struct Watched {
    said: Vec<Value>,
    fault_s: f64,
    /// When each local end's connection ended by its kernel, while the client ran, and by what.
    ends: BTreeMap<String, (f64, String)>,
}

/// Runs a client whose server's host loses power 300 ms after it is ready.
fn watch(client: &str, clock: &str) -> Watched {
    let out = tempfile::tempdir().unwrap();
    let server = out.path().join("server.py");
    fs::write(&server, SERVER).unwrap();
    let server = format!("python3 {}", server.display());
    let client = format!("{BEGIN}{client}");
    let arguments = [
        "exec",
        "--server",
        &server,
        "--fault",
        "power-off",
        "--after",
        "300ms",
        "--on-output",
        "ready",
        "--set",
        "sysctl.tcp_retries2=3",
        "--set",
        "sysctl.tcp_syn_retries=2",
        "--set",
        "sysctl.tcp_orphan_retries=3",
        "--deadline",
        "90s",
        "--clock",
        clock,
        "--format",
        "json",
        "--out",
        out.path().to_str().unwrap(),
        "--",
        "python3",
        "-c",
        &client,
        env!("CARGO_BIN_EXE_halfopen"),
    ];
    let output = halfopen(&arguments).output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("no JSON ({error}): {}", show(&output)));
    let directory = out.path().join("exec");
    let trial = &document["trials"][0];
    let said = lines(&directory.join("client.out"));
    assert!(said.iter().all(|line| line["failed"].is_null()), "{said:?}");
    assert_eq!(trial["programs"]["client"]["exit"], 0, "{trial}");
    let events = lines(&directory.join("timeline.jsonl"));
    let at_s = |is: fn(&Value) -> bool| {
        let event = events.iter().find(|event| is(&event["what"]));
        let at_ns = event.and_then(|event| event["at_ns"].as_f64());
        at_ns.unwrap_or_else(|| panic!("a moment is missing: {}", show(&output))) / 1e9
    };
    let fault_s = at_s(|what| what["fault"] == "complete");
    let exited_s = at_s(|what| what["exited"]["code"] == 0);
    let mut reported: BTreeMap<u64, (f64, String)> = BTreeMap::new();
    let mut let_go = BTreeMap::new();
    for event in &events {
        // The first line names the schema.
        let Some(at_s) = event["at_ns"].as_f64().map(|at_ns| at_ns / 1e9) else { continue };
        let trace = &event["what"]["trace"];
        let Some(flow) = event["flow"].as_u64().filter(|_| at_s < exited_s) else { continue };
        if trace["error-report"]["side"] == "client" {
            let error = trace["error-report"]["error"].as_str().unwrap().to_owned();
            reported.entry(flow).or_insert((at_s, error));
        }
        if trace["set-state"]["side"] == "client" && trace["set-state"]["new"] == "CLOSE" {
            let_go.entry(flow).or_insert((at_s, "released".to_owned()));
        }
    }
    let flows = trial["flows"].as_array().unwrap().iter();
    let ends = flows.filter_map(|flow| {
        let id = flow["id"].as_u64().unwrap();
        let end = reported.get(&id).or(let_go.get(&id))?;
        Some((flow["local"].as_str().unwrap().to_owned(), end.clone()))
    });
    Watched { said, fault_s, ends: ends.collect() }
}

/// The most that a look at all sockets takes, seconds: from its stamp to either of its ends.
const LOOK_S: f64 = 0.2;

/// How comparisons came out.
#[derive(Debug, Default)]
struct Compared {
    /// By what was predicted of what: the widths of windows that came true, seconds.
    inside: BTreeMap<String, Vec<f64>>,
    outside: Vec<String>,
}

impl Compared {
    /// Holds a window that counts from `sampled_s` against the end of the connection.
    fn hold(&mut self, watched: &Watched, of: &str, socket: &Value, window: &Value) {
        let sampled_s = socket["sampled_monotonic_s"].as_f64().unwrap();
        let end = watched.ends.get(socket["local"].as_str().unwrap());
        // The stamp is the middle of a look, which takes a while on a busy machine: a socket that ended
        // meanwhile ends at once.
        let end = end.filter(|(at_s, _)| *at_s > sampled_s - LOOK_S);
        let span = window["earliest_s"].as_f64().zip(window["latest_s"].as_f64());
        let inside = match end {
            None => window["outcome"] == "none",
            Some((at_s, error)) => {
                let after_s = (at_s - sampled_s).max(0.0);
                let in_time = span.is_some_and(|(from, to)| after_s >= from && after_s <= to);
                in_time && window["outcome"] == error.as_str()
            }
        };
        if inside {
            let width = span.map_or(0.0, |(from, to)| to - from);
            self.inside.entry(of.to_owned()).or_default().push(width);
        } else {
            let after_s = end.map(|(at_s, error)| (at_s - sampled_s, error));
            self.outside.push(format!("{of}: {after_s:?}, predicted {window}: {socket}"));
        }
    }

    fn count(&self) -> usize {
        self.inside.values().map(Vec::len).sum()
    }

    /// A line for each kind: how many, and how wide their windows.
    fn told(&self, clock: &str) -> String {
        let mut text = format!("{clock} clock: {} came true", self.count());
        for (of, widths) in &self.inside {
            let mut widths = widths.clone();
            widths.sort_by(f64::total_cmp);
            let (median, most) = (widths[widths.len() / 2], widths[widths.len() - 1]);
            text +=
                &format!("\n  {of}: {}, width {median:.3} s, at most {most:.3} s", widths.len());
        }
        text
    }
}

/// Holds what a client was told by audits against what happened.
fn check(clock: &str) {
    let watched = watch(CLIENT, clock);
    let mut compared = Compared::default();
    let has = |turn: &Value, key: &str, local: &str| {
        let ports = turn[key].as_array().into_iter().flatten();
        ports.filter_map(Value::as_str).any(|port| local.ends_with(&format!(":{port}")))
    };
    for (index, turn) in watched.said.iter().enumerate() {
        for socket in turn["audit"].as_array().into_iter().flatten() {
            let local = socket["local"].as_str().unwrap();
            let sampled_s = socket["sampled_monotonic_s"].as_f64().unwrap();
            if sampled_s < watched.fault_s {
                continue;
            }
            assert_eq!(socket["source"] == "getsockopt", socket["pid"].is_u64(), "{socket}");
            let later = |key| watched.said[index..].iter().any(|turn| has(turn, key, local));
            let (state, doing) =
                (socket["state"].as_str().unwrap(), socket["doing"].as_str().unwrap());
            // Where time does not stand still, the write comes a while after the audit.
            if has(turn, "wrote", local) && clock == "virtual" {
                compared.hold(&watched, "if it writes", socket, &socket["if_it_writes"]);
            } else if !later("wrote") && !later("acted") {
                let of = format!("{state} {doing}");
                compared.hold(&watched, &of, socket, &socket["if_idle"]);
            }
        }
    }
    eprintln!("{}", compared.told(clock));
    assert!(compared.outside.is_empty(), "{:#?}", compared.outside);
    // On a busy machine audits come late: of sockets that have ended there is nothing to say.
    let least = if clock == "virtual" { 300 } else { 100 };
    assert!(compared.count() >= least, "{}", compared.told(clock));
    for of in [
        "ESTABLISHED idle",
        "ESTABLISHED unacknowledged",
        "ESTABLISHED probing",
        "ESTABLISHED closed-window",
        "CLOSE_WAIT idle",
        "FIN_WAIT1 closing",
        "LAST_ACK closing",
        "SYN_SENT unacknowledged",
    ] {
        assert!(compared.inside.contains_key(of), "{of}: {}", compared.told(clock));
    }
    let writes = compared.inside.get("if it writes").map_or(0, Vec::len);
    assert_eq!(writes, if clock == "virtual" { 8 } else { 0 });
}

/// Holds what `setsockopt` said before and after against what happened.
fn check_changes(clock: &str) {
    let watched = watch(CHANGER, clock);
    let mut compared = Compared::default();
    for line in &watched.said {
        let turn = line["turn"].as_str().unwrap_or_default();
        for documents in line["changed"].as_array().into_iter().flatten() {
            let [asked, done] = [0, 1].map(|at| &documents[at]);
            assert_eq!((&asked["changed"], &done["changed"]), (&false.into(), &true.into()));
            let [would, is] = [asked, done].map(|document| &document["sockets"][0]["after"]);
            compared.hold(&watched, &format!("{turn}, done"), is, &is["if_idle"]);
            // Where time stands still, it is changed in the moment of which it is said.
            if clock == "virtual" {
                compared.hold(&watched, &format!("{turn}, asked"), would, &would["if_idle"]);
            }
            assert_eq!(would["options"], is["options"], "{turn}");
        }
        for asked in line["asked"].as_array().into_iter().flatten() {
            let before = &asked[0]["sockets"][0]["before"];
            compared.hold(&watched, "as it is", before, &before["if_idle"]);
        }
    }
    eprintln!("{}", compared.told(clock));
    assert!(compared.outside.is_empty(), "{:#?}", compared.outside);
    assert!(compared.count() >= if clock == "virtual" { 4 + 14 * 2 } else { 4 + 8 });
}

#[test]
fn every_prediction_of_an_audit_comes_true() {
    if !is_root_here(TRACED) {
        return;
    }
    check("real");
}

#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn every_prediction_of_an_audit_comes_true_in_virtual_time() {
    check("virtual");
}

#[test]
fn what_setsockopt_says_comes_true() {
    if !is_root_here(TRACED) {
        return;
    }
    check_changes("real");
}

#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn what_setsockopt_says_comes_true_in_virtual_time() {
    check_changes("virtual");
}

#[test]
fn an_audit_says_what_takes_too_long() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connection = std::net::TcpStream::connect(address).unwrap();
    let port = connection.local_addr().unwrap().port().to_string();
    let audit = |options: &[&str]| {
        let arguments = [&["audit", "--port", &port], options].concat();
        halfopen(&arguments).output().unwrap()
    };
    let output = audit(&["--over", "60s"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.starts_with("State "), "{text}");
    assert!(text.contains("!! never") && text.contains("SO_KEEPALIVE is not set"), "{text}");
    let output = audit(&["--format", "json"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["schema"], "halfopen/audit/1");
    let sockets = document["sockets"].as_array().unwrap();
    // Both ends are here; one of them nobody has accepted.
    assert_eq!(sockets.len(), 2, "{document}");
    let ours = sockets.iter().find(|s| s["remote"] == address.to_string().as_str()).unwrap();
    assert_eq!(ours["pid"], std::process::id());
    assert_eq!((&ours["state"], &ours["doing"]), (&"ESTABLISHED".into(), &"idle".into()));
    assert_eq!(ours["if_idle"]["outcome"], "none");
    assert!(ours["if_it_writes"]["earliest_s"].as_f64().unwrap() > 0.0);
    assert_eq!(ours["now"], Value::Null);
    let output = audit(&["--format", "csv"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.starts_with("pid,process,local,remote,state"), "{text}");
    drop(connection);
    assert_eq!(halfopen(&["audit", "--over", "soon"]).output().unwrap().status.code(), Some(2));
}

#[test]
fn options_of_live_sockets_change_only_when_told_to_and_can_be_taken_back() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let connection = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let port = connection.local_addr().unwrap().port().to_string();
    let pid = std::process::id().to_string();
    // A descendant may look at this process and change its sockets (yama).
    let _ = rustix::process::set_ptracer(rustix::process::PTracer::Any);
    let options = || {
        let output =
            halfopen(&["audit", "--pid", &pid, "--port", &port, "--format", "json"]).output();
        let document: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        let sockets = document["sockets"].as_array().unwrap();
        let local = connection.local_addr().unwrap().to_string();
        sockets.iter().find(|socket| socket["local"] == local.as_str()).unwrap()["options"].clone()
    };
    let wanted = ["keepalive=30/5/3", "user_timeout=30s"];
    let change = |options: &[&str]| {
        let arguments = [&["setsockopt", "--pid", &pid, "--port", &port], options].concat();
        halfopen(&arguments).output().unwrap()
    };
    let before = options();
    let output = change(&wanted);
    assert!(output.status.success(), "{}", show(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("no keepalive → keepalive 30/5/3, user timeout 30 s"), "{text}");
    assert!(text.contains("!! never → 3") && text.contains("nothing was changed"), "{text}");
    assert_eq!(options(), before);

    let output = change(&[&wanted[..], &["--yes"]].concat());
    assert!(output.status.success(), "{}", show(&output));
    let now = options();
    assert_eq!((&now["keepalive"], &now["keepidle_s"]), (&true.into(), &30.into()));
    assert_eq!((&now["keepintvl_s"], &now["keepcnt"]), (&5.into(), &3.into()));
    assert_eq!(now["user_timeout_ms"], 30_000);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // The accepted end was changed too: each line takes back what belongs to it.
    let lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("  halfopen ")).collect();
    assert!(!lines.is_empty(), "{text}");
    for line in lines {
        let output = halfopen(&line.split(' ').collect::<Vec<_>>()).output().unwrap();
        assert!(output.status.success(), "{}", show(&output));
    }
    assert_eq!(options(), before);

    assert_eq!(change(&["keepalive=often"]).status.code(), Some(2));
    assert_eq!(change(&["linger=1s"]).status.code(), Some(2));
    let nobody = halfopen(&["setsockopt", "--pid", "4194304", "keepalive=on"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(2), "{}", show(&nobody));
}

#[test]
fn an_audit_gives_metrics_and_says_what_has_changed() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let first = std::net::TcpStream::connect(address).unwrap();
    let port = address.port().to_string();
    let output = halfopen(&["audit", "--port", &port, "--format", "openmetrics"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("# TYPE halfopen_connections_never gauge\n"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("halfopen_connections_never{")), "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");

    let mut watch = halfopen(&["audit", "--port", &port, "--watch=100ms"]);
    let mut watch = watch.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(watch.stdout.take().unwrap()));
    let mut until = |what: &str| {
        lines.by_ref().map(Result::unwrap).find(|line| line.contains(what)).expect(what)
    };
    until("times count from now");
    let second = std::net::TcpStream::connect(address).unwrap();
    let local = second.local_addr().unwrap().to_string();
    assert!(until(&local).starts_with("+ "));
    watch.kill().unwrap();
    watch.wait().unwrap();
    drop((first, second));
}
