//! `halfopen audit`, held against the laboratory: a client audits its own connections at random moments
//! after the fault, and every prediction is compared with what the kernel then did.

use crate::common::{halfopen, show};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Opens connections with options of all kinds; after the fault it audits them at random moments, and
/// writes to some of them just after an audit. The window of some is closed before.
const CLIENT: &str = r#"
import ctypes, json, random, socket, subprocess, sys, time
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
def audit():
    done = subprocess.run([sys.argv[1], "audit", "--format", "json"], capture_output=True)
    if done.returncode != 0:
        say(failed=done.stderr.decode())
    keys = ("local", "state", "sampled_monotonic_s", "doing", "source", "options", "if_idle",
            "if_it_writes", "now", "pid")
    return [{key: s[key] for key in keys} for s in json.loads(done.stdout)["sockets"]]
kinds = [(None, 0), (None, 2500), ((1, 1, 2), 0), ((2, 1, 3), 0), ((1, 2, 1), 3000), ((3, 1, 2), 0)]
idle = [connect(*kind) for kind in kinds for _ in range(2)]
writers = [connect(*kind) for kind in kinds[:4] for _ in range(2)]
closed = [connect(*kind) for kind in kinds[:3] for _ in range(2)]
for s in closed:
    s.send(b"stop\n")
time.sleep(0.2)
for s in closed:
    try:
        while True:
            s.send(b"x" * 65536)
    except BlockingIOError:
        pass
time.sleep(0.4)
say(ready=True)
time.sleep(1)
for turn in range(16):
    time.sleep(random.uniform(0.05, 0.6))
    found = audit()
    if turn == 2:
        for s in writers:
            s.send(b"again\n")
    say(audit=found, wrote=[":%d" % s.getsockname()[1] for s in writers] if turn == 2 else [])
time.sleep(9)
"#;

/// Answers each line, until it is told to stop reading.
const SERVER: &str = r#"
import socket, threading, time
def serve(s):
    while True:
        data = s.recv(100)
        if data == b"stop\n":
            time.sleep(1000)
        s.sendall(data)
listener = socket.create_server(("0.0.0.0", 7000), backlog=100)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

/// How comparisons came out.
#[derive(Debug, Default)]
struct Compared {
    inside: usize,
    by_doing: BTreeMap<String, usize>,
    if_it_writes: usize,
    outside: Vec<String>,
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Runs the client, and compares what it was told with what the tracepoints showed.
fn compare(clock: &str) -> Compared {
    let out = tempfile::tempdir().unwrap();
    let server = out.path().join("server.py");
    fs::write(&server, SERVER).unwrap();
    let server = format!("python3 {}", server.display());
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
        "--deadline",
        "30s",
        "--clock",
        clock,
        "--format",
        "json",
        "--out",
        out.path().to_str().unwrap(),
        "--",
        "python3",
        "-c",
        CLIENT,
        env!("CARGO_BIN_EXE_halfopen"),
    ];
    let output = halfopen(&arguments).output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("no JSON ({error}): {}", show(&output)));
    let directory = out.path().join("exec");
    let events = lines(&directory.join("timeline.jsonl"));
    let fault_s = events
        .iter()
        .find(|event| event["what"]["fault"] == "complete")
        .and_then(|event| event["at_ns"].as_f64())
        .unwrap_or_else(|| panic!("no fault: {}", show(&output)))
        / 1e9;
    let mut ends: BTreeMap<u64, (f64, String)> = BTreeMap::new();
    for event in &events {
        let report = &event["what"]["trace"]["error-report"];
        if report["side"] == "client" {
            let at_s = event["at_ns"].as_f64().unwrap() / 1e9;
            let error = report["error"].as_str().unwrap().to_owned();
            ends.entry(event["flow"].as_u64().unwrap()).or_insert((at_s, error));
        }
    }
    let flows: BTreeMap<String, u64> = document["trials"][0]["flows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|flow| (flow["local"].as_str().unwrap().to_owned(), flow["id"].as_u64().unwrap()))
        .collect();
    let mut compared = Compared::default();
    let turns = lines(&directory.join("client.out"));
    assert!(turns.iter().all(|turn| turn["failed"].is_null()), "{turns:?}");
    let wrote = |turn: &Value, local: &str| {
        let ports = turn["wrote"].as_array().into_iter().flatten();
        ports.filter_map(Value::as_str).any(|port| local.ends_with(port))
    };
    for (index, turn) in turns.iter().enumerate() {
        for socket in turn["audit"].as_array().into_iter().flatten() {
            let local = socket["local"].as_str().unwrap();
            let sampled_s = socket["sampled_monotonic_s"].as_f64().unwrap();
            let Some(flow) = flows.get(local).filter(|_| sampled_s > fault_s) else { continue };
            assert_eq!(socket["source"], "getsockopt", "{socket}");
            let writes_now = wrote(turn, local);
            // Where time does not stand still, the write comes a while after the audit.
            let key = match () {
                () if writes_now && clock == "virtual" => "if_it_writes",
                () if turns[index..].iter().any(|turn| wrote(turn, local)) => continue,
                () => "if_idle",
            };
            let window = &socket[key];
            let end = ends.get(flow).filter(|(at_s, _)| *at_s > sampled_s);
            let inside = match end {
                None => window["outcome"] == "none",
                Some((at_s, error)) => {
                    let after_s = at_s - sampled_s;
                    window["outcome"] == error.as_str()
                        && window["earliest_s"].as_f64().is_some_and(|from| after_s >= from)
                        && window["latest_s"].as_f64().is_some_and(|to| after_s <= to)
                }
            };
            if inside {
                compared.inside += 1;
                compared.if_it_writes += usize::from(key == "if_it_writes");
                let doing = socket["doing"].as_str().unwrap().to_owned();
                *compared.by_doing.entry(doing).or_default() += 1;
            } else {
                let after_s = end.map(|(at_s, _)| at_s - sampled_s);
                compared.outside.push(format!("{key} {after_s:?} {end:?} {socket}"));
            }
        }
    }
    compared
}

fn check(clock: &str) {
    let compared = compare(clock);
    eprintln!("{clock} clock: {} comparisons, {:?}", compared.inside, compared.by_doing);
    assert!(compared.outside.is_empty(), "{compared:#?}");
    assert!(compared.inside >= 150, "{compared:?}");
    for doing in ["idle", "unacknowledged", "probing", "closed-window"] {
        assert!(compared.by_doing.contains_key(doing), "{compared:?}");
    }
    assert_eq!(compared.if_it_writes, if clock == "virtual" { 8 } else { 0 });
}

#[test]
fn every_prediction_of_an_audit_comes_true() {
    check("real");
}

#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn every_prediction_of_an_audit_comes_true_in_virtual_time() {
    check("virtual");
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
