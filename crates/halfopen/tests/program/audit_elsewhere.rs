//! `halfopen audit` where not everything may be seen: other users, hidepid, seccomp, PID namespaces,
//! containers; and whose sockets are not one process's.

use crate::common::{for_everybody, is_root_here, show};
use crate::machines::{HALFOPEN, apply};
use nix::unistd::geteuid;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};

/// Runs as an ordinary user, who has nothing of what root has.
const NOBODY: &str = "setpriv --reuid 54320 --regid 54320 --clear-groups";

/// A connection of this process over loopback, and its accepted end.
struct Connection {
    own: TcpStream,
    _accepted: TcpStream,
}

impl Connection {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Self { own, _accepted: listener.accept().unwrap().0 }
    }

    fn local(&self) -> String {
        self.own.local_addr().unwrap().to_string()
    }

    fn port(&self) -> String {
        self.own.local_addr().unwrap().port().to_string()
    }
}

fn is_root() -> bool {
    let root = geteuid().is_root();
    if !root {
        eprintln!("skipped: rebuilding a machine needs root");
    }
    root
}

/// A shell script in a mount namespace of its own; `$H` is the program, `$P` a port.
fn on(script: &str, port: &str) -> Output {
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).env("H", for_everybody()).env("P", port);
    command.env("PID", std::process::id().to_string()).output().expect("util-linux is there")
}

fn document(output: &Output) -> Value {
    assert!(output.status.success(), "{}", show(output));
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", show(output)))
}

/// The socket with this local end.
fn socket<'a>(document: &'a Value, local: &str) -> &'a Value {
    let sockets = document["sockets"].as_array().unwrap();
    sockets.iter().find(|socket| socket["local"] == local).unwrap_or_else(|| panic!("{document}"))
}

/// Nothing can be said of whose it is, and what follows is said.
fn is_unseen(document: &Value, connection: &Connection) {
    let socket = socket(document, &connection.local());
    assert_eq!((&socket["held_by"], &socket["pid"]), (&"unseen".into(), &Value::Null), "{socket}");
    assert_eq!(
        (&socket["source"], &socket["options"]["keepalive"]),
        (&"sock-diag".into(), &Value::Null)
    );
    let why = socket["why"].as_str().unwrap();
    assert!(why.contains("no process that has it may be seen"), "{why}");
    assert_eq!(socket["if_idle"]["outcome"], "none", "{socket}");
}

#[test]
fn another_user_sees_connections_and_not_whose_they_are() {
    if !is_root_here("becoming another user") {
        return;
    }
    let connection = Connection::new();
    let audit =
        |arguments: &str| on(&format!("exec {NOBODY} $H audit {arguments}"), &connection.port());
    let output = audit("--port $P --format json");
    is_unseen(&document(&output), &connection);
    let output = audit("--port $P");
    let text = show(&output);
    assert!(text.contains("without a process that may be seen: 2 connections"), "{text}");
    assert!(text.contains("options of 2 connections could not be read: no process"), "{text}");
    let output = audit("--all --port $P");
    assert!(output.status.success(), "{}", show(&output));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("processes may not be seen: that takes root"), "{}", show(&output));
    let output = audit("--pid $PID");
    assert_eq!(output.status.code(), Some(4), "{}", show(&output));
    assert!(show(&output).contains("root with CAP_SYS_PTRACE"), "{}", show(&output));
}

#[test]
fn hidepid_hides_processes_and_is_named() {
    if !is_root_here("becoming another user") {
        return;
    }
    let connection = Connection::new();
    let hide = "mount -t proc -o hidepid=invisible proc /proc";
    let script = format!("{hide} && exec {NOBODY} $H audit --port $P --format json");
    is_unseen(&document(&on(&script, &connection.port())), &connection);
    let output = on(&format!("{hide} && exec {NOBODY} $H audit --pid $PID"), &connection.port());
    assert_eq!(output.status.code(), Some(2), "{}", show(&output));
    assert!(show(&output).contains("hidepid"), "{}", show(&output));
}

#[test]
fn a_pid_namespace_of_its_own_hides_what_is_outside() {
    if !is_root() {
        return;
    }
    let connection = Connection::new();
    let script = "exec unshare --pid --fork --mount-proc $H audit --port $P --format json";
    is_unseen(&document(&on(script, &connection.port())), &connection);
}

/// As docker's profile has it for containers without CAP_SYS_PTRACE.
#[test]
fn a_filter_that_denies_pidfd_getfd_leaves_options_unknown() {
    let connection = Connection::new();
    let port = connection.port();
    let output = std::thread::spawn(move || {
        apply(&[(libc::SYS_pidfd_getfd, libc::EPERM)], false);
        let audit =
            Command::new(HALFOPEN).args(["audit", "--port", &port, "--format", "json"]).output();
        let change = ["setsockopt", "--pid", &std::process::id().to_string(), "keepalive=on"];
        (audit.unwrap(), Command::new(HALFOPEN).args(change).output().unwrap())
    });
    let (audit, change) = output.join().unwrap();
    let document = document(&audit);
    let socket = socket(&document, &connection.local());
    assert_eq!(socket["pid"], std::process::id(), "{socket}");
    assert_eq!(
        (&socket["held_by"], &socket["options"]["keepalive"]),
        (&"processes".into(), &Value::Null)
    );
    assert!(socket["why"].as_str().unwrap().contains("could not be read"), "{socket}");
    assert_eq!(change.status.code(), Some(4), "{}", show(&change));
    assert!(show(&change).contains("cannot be reached"), "{}", show(&change));
}

/// A Python program that has connections, says a line of JSON about them, and waits. It ends with this.
struct Program(Child, Value);

impl Program {
    fn start(command: &str, source: &str) -> Self {
        let mut words = command.split_whitespace().chain(["python3", "-c", source]);
        let mut child = Command::new(words.next().unwrap())
            .args(words)
            .env("H", for_everybody())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        Self(child, said)
    }

    fn says(&self, key: &str) -> String {
        self.1[key].as_str().unwrap_or_else(|| panic!("{}", self.1)).to_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It reads until its input ends.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn audit(options: &[&str]) -> Value {
    document(
        &Command::new(HALFOPEN).args(["audit", "--format", "json"]).args(options).output().unwrap(),
    )
}

const PAIR: &str = r#"
import ctypes, json, os, socket, subprocess, sys
# Where only descendants may be looked at (yama), the auditor may too.
ctypes.CDLL(None).prctl(0x59616d61, ctypes.c_ulong(2**64 - 1), 0, 0, 0)
listener = socket.create_server(("127.0.0.1", 0))
own = socket.create_connection(listener.getsockname())
accepted, _ = listener.accept()
name = lambda s: "%s:%d" % s[:2]
def wait(**said):
    print(json.dumps(dict(local=name(own.getsockname()), port=str(own.getsockname()[1]),
                          pid=os.getpid(), **said)), flush=True)
    sys.stdin.read()
"#;

#[test]
fn a_socket_of_several_processes_has_them_all() {
    let shared = format!(
        "{PAIR}\nos.set_inheritable(own.fileno(), True)\n\
         child = subprocess.Popen(['sleep', '60'], close_fds=False)\n\
         wait(child=child.pid)\nchild.kill()\nchild.wait()"
    );
    let program = Program::start("", &shared);
    let found = audit(&["--port", &program.says("port")]);
    let own = socket(&found, &program.says("local"));
    let mut pids = vec![program.1["pid"].clone(), program.1["child"].clone()];
    pids.sort_by_key(Value::as_u64);
    assert_eq!(own["pids"], Value::Array(pids), "{own}");
    assert_eq!(own["held_by"], "processes");
    // Of one of them alone.
    let child = program.1["child"].to_string();
    let found = audit(&["--pid", &child]);
    assert_eq!(socket(&found, &program.says("local"))["pids"].as_array().unwrap().len(), 1);
}

#[test]
fn an_inherited_socket_is_its_heir_s() {
    let left = format!(
        "{PAIR}\nos.set_inheritable(own.fileno(), True)\n\
         child = subprocess.Popen(['sleep', '60'], close_fds=False)\n\
         port = str(own.getsockname()[1])\nlocal = name(own.getsockname())\nos.close(own.detach())\n\
         print(json.dumps(dict(local=local, port=port, child=child.pid)), flush=True)\n\
         sys.stdin.read()\nchild.kill()\nchild.wait()"
    );
    let program = Program::start("", &left);
    let found = audit(&["--port", &program.says("port")]);
    let own = socket(&found, &program.says("local"));
    assert_eq!((&own["pid"], &own["process"]), (&program.1["child"], &"sleep".into()), "{own}");
}

#[test]
fn a_process_s_name_commands_no_terminal() {
    let named = format!("open('/proc/self/comm', 'w').write('a\\x1b[31mb')\n{PAIR}\nwait()");
    let program = Program::start("", &named);
    let output = Command::new(HALFOPEN).args(["audit", "--port", &program.says("port")]).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(!text.contains('\x1b') && text.contains("a\u{fffd}[31mb pid="), "{text}");
}

#[test]
fn a_process_of_a_pid_namespace_is_seen_from_outside() {
    if !is_root() {
        return;
    }
    let program = Program::start("unshare --pid --fork", &format!("{PAIR}\nwait()"));
    let found = audit(&["--port", &program.says("port")]);
    let own = socket(&found, &program.says("local"));
    // It calls itself 1.
    assert_eq!(program.1["pid"], 1);
    assert!(own["pid"].as_u64().is_some_and(|pid| pid > 1), "{own}");
    assert_eq!(own["source"], "getsockopt", "{own}");
}

/// In a network namespace, and what it audits itself.
const ODD: &str = r#"
def audit():
    done = subprocess.run([os.environ["H"], "audit", "--format", "json"], capture_output=True)
    return json.loads(done.stdout)["sockets"]
def of(found, s):
    ends = (name(s.getsockname()), name(s.getpeername()))
    return next(one for one in found if (one["local"], one["remote"]) == ends)
said = {}
queued = socket.create_connection(listener.getsockname())
said["backlog"] = next(one for one in audit() if one["remote"] == name(queued.getsockname()))
dual = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
mapped = socket.create_connection(("127.0.0.1", dual.getsockname()[1]))
answer, _ = dual.accept()
said["mapped"] = next(one for one in audit() if one["remote"] == name(mapped.getsockname()))
six = socket.create_connection(("::1", dual.getsockname()[1]))
said["six"] = next(one for one in audit() if one["local"] == "[::1]:%d" % six.getsockname()[1])
try:
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
    server.bind(("127.0.0.1", 0))
    server.listen()
    client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
    client.connect(server.getsockname())
    client_ends = server.accept()
    said["mptcp"] = of(audit(), client)
except OSError as error:
    said["no_mptcp"] = str(error)
"#;

fn odd(as_whom: &str) -> Program {
    let up = "ip link set lo up && exec $0 \"$@\"".replace("$0", as_whom);
    let source = format!("{PAIR}{ODD}\nwait(**said)");
    let mut child = Command::new("unshare")
        .args(["-n", "sh", "-c", &up, "sh", "python3", "-c", &source])
        .env("H", for_everybody())
        // One that everybody may run.
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let said = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    Program(child, said)
}

#[test]
fn odd_connections_are_called_what_they_are() {
    if !is_root() {
        return;
    }
    for as_whom in ["env", NOBODY] {
        if as_whom == NOBODY && !is_root_here("becoming another user") {
            continue;
        }
        let program = odd(as_whom);
        let said = &program.1;
        let backlog = &said["backlog"];
        assert_eq!(
            (&backlog["held_by"], &backlog["pid"]),
            (&"backlog".into(), &Value::Null),
            "{backlog}"
        );
        let mapped = &said["mapped"];
        assert!(mapped["local"].as_str().unwrap().starts_with("127.0.0.1:"), "{mapped}");
        assert_eq!(
            (&mapped["source"], &mapped["pid"]),
            (&"getsockopt".into(), &said["pid"]),
            "{mapped}"
        );
        assert_eq!(said["six"]["source"], "getsockopt", "{said}");
        if said["no_mptcp"].is_string() {
            eprintln!("skipped: this kernel has no MPTCP: {}", said["no_mptcp"]);
            continue;
        }
        let mptcp = &said["mptcp"];
        assert!(
            mptcp["unknown"].as_str().is_some_and(|why| why.contains("MPTCP")),
            "{as_whom}: {mptcp}"
        );
        assert_eq!((&mptcp["if_idle"], &mptcp["if_it_writes"]), (&Value::Null, &Value::Null));
        assert_eq!(mptcp["pid"], said["pid"], "{as_whom}: {mptcp}");
    }
}

#[test]
fn an_orphan_is_nobody_s_and_ends() {
    if !is_root() {
        return;
    }
    let source = format!(
        "{PAIR}{ODD}\nends = (name(own.getsockname()), name(own.getpeername()))\n\
         subprocess.run(['ip', 'link', 'set', 'lo', 'down'], check=True)\nown.close()\n\
         orphan = next(one for one in audit() if (one['local'], one['remote']) == ends)\n\
         print(json.dumps(orphan), flush=True)"
    );
    let output = Command::new("unshare")
        .args(["-n", "sh", "-c", "ip link set lo up && exec python3 -c \"$0\"", &source])
        .env("H", for_everybody())
        .output()
        .unwrap();
    let orphan = document(&output);
    assert_eq!(
        (&orphan["held_by"], &orphan["state"]),
        (&"orphaned".into(), &"FIN_WAIT1".into()),
        "{orphan}"
    );
    assert_eq!((&orphan["doing"], &orphan["pid"]), (&"closing".into(), &Value::Null));
    assert_eq!(orphan["now"]["outcome"], "released", "{orphan}");
    assert!(orphan["now"]["latest_s"].as_f64().is_some_and(|s| s < 200.0), "{orphan}");
}

#[test]
fn every_namespace_has_its_own_sysctls_and_its_container_s_name() {
    if !is_root() {
        return;
    }
    let here = Connection::new();
    let source = format!(
        "import subprocess\nsubprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)\n\
         open('/proc/sys/net/ipv4/tcp_retries2', 'w').write('3')\n\
         open('/proc/sys/net/ipv4/tcp_keepalive_time', 'w').write('30')\n{PAIR}\n\
         own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)\nwait()"
    );
    let program = Program::start("unshare -n", &source);
    let directory = tempfile::tempdir().unwrap();
    let group = directory.path().join("cgroup");
    fs::write(&group, "0::/system.slice/docker-0123456789abcdef0123.scope\n").unwrap();
    let script = format!(
        "mount --bind {} /proc/{}/cgroup && exec $H audit --all --format json",
        group.display(),
        program.1["pid"]
    );
    let found = document(&on(&script, ""));
    let there = socket(&found, &program.says("local"));
    assert_eq!(there["container"], "0123456789ab", "{there}");
    assert_eq!(there["options"]["keepidle_s"], 30, "{there}");
    let idle_s = there["if_idle"]["latest_s"].as_f64().unwrap();
    // 30 s, then 9 probes at 75 s.
    assert!((700.0..720.0).contains(&idle_s), "{there}");
    let writes_s = |socket: &Value| socket["if_it_writes"]["latest_s"].as_f64().unwrap();
    assert!(writes_s(there) < 10.0, "{there}");
    let ours = socket(&found, &here.local());
    assert_ne!(ours["namespace"], there["namespace"]);
    let retries = fs::read_to_string("/proc/sys/net/ipv4/tcp_retries2").unwrap();
    assert!(retries.trim() != "15" || writes_s(ours) > 900.0, "{ours}");
    // Of that process alone, from outside of its namespace.
    let found = audit(&["--pid", &program.1["pid"].to_string()]);
    assert_eq!(socket(&found, &program.says("local"))["namespace"], there["namespace"]);
}

#[test]
fn a_kept_namespace_is_called_by_its_name() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program.py");
    let source = format!(
        "{PAIR}\nfound = subprocess.run([os.environ['H'], 'audit', '--all', '--format', 'json'],\n    \
         capture_output=True).stdout\nends = (name(own.getsockname()), name(own.getpeername()))\n\
         print(json.dumps([one for one in json.loads(found)['sockets']\n    \
         if (one['local'], one['remote']) == ends][0]))"
    );
    fs::write(&program, source).unwrap();
    let script = format!(
        "mount -t tmpfs none /run && ip netns add shop && ip -n shop link set lo up && \
         exec ip netns exec shop python3 {}",
        program.display()
    );
    let own = document(&on(&script, ""));
    assert_eq!(own["container"], "shop", "{own}");
    assert_eq!(own["source"], "getsockopt", "{own}");
}

#[test]
fn connections_and_processes_may_end_meanwhile() {
    let source = format!(
        "{PAIR}\nimport threading, time\nuntil = time.monotonic() + 4\ndef churn():\n    \
         while time.monotonic() < until:\n        \
         c = socket.create_connection(listener.getsockname())\n        \
         listener.accept()[0].close()\n        c.close()\ndef fork():\n    \
         while time.monotonic() < until:\n        subprocess.run(['true'], close_fds=False)\n\
         os.set_inheritable(own.fileno(), True)\n\
         for work in (churn, churn, fork, fork): threading.Thread(target=work).start()\nwait()"
    );
    let program = Program::start("", &source);
    for _ in 0..12 {
        let found = audit(&["--port", &program.says("port")]);
        let own = socket(&found, &program.says("local"));
        // Its own, whoever else may have it for a moment.
        let pids = own["pids"].as_array().unwrap();
        assert!(pids.contains(&program.1["pid"]), "{own}");
        assert_eq!(own["source"], "getsockopt", "{own}");
    }
}
