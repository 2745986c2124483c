//! `exec` as an ordinary user, who has no tracepoints: what a program was told is read from the states of
//! its socket and from the wire.

use crate::common::{for_everybody, is_real_root, show};
use nix::unistd::{Gid, Uid, chown};
use serde_json::Value;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use tempfile::TempDir;

const SOMEBODY: u32 = 54_322;

/// Connects, exchanges a byte, does something, and waits to be told.
fn client(does: &str) -> [String; 3] {
    let program = format!(
        "import socket, struct, time\ns = socket.create_connection(('server', 7000))\n\
         s.sendall(b'a')\ns.recv(100)\n{does}\ntry:\n    s.recv(100)\nexcept OSError:\n    pass\n\
         time.sleep(1)\n"
    );
    ["python3".into(), "-c".into(), program]
}

const KEEPALIVE: &str = "s.setsockopt(1, 9, 1)\nfor option, value in (4, 1), (5, 1), (6, 2): s.setsockopt(6, option, value)";
// Long after the fault, which a busy machine does late.
const WRITES: &str = "time.sleep(3)\ns.sendall(b'x')";
const ABORTS: &str = "time.sleep(3)\ns.setsockopt(1, 13, struct.pack('ii', 1, 0))\ns.close()";
const REJECT: &[&str] = &["--set", "topology=router", "--set", "fault.reject=host-unreachable"];

/// The connections of a trial that ran as an ordinary user, whose client is this command.
fn flows(fault: &str, settings: &[&str], client: &[String]) -> Vec<Value> {
    let out = TempDir::new().unwrap();
    let mut command = Command::new(for_everybody());
    if is_real_root() {
        chown(out.path(), Some(Uid::from_raw(SOMEBODY)), Some(Gid::from_raw(SOMEBODY))).unwrap();
        command.uid(SOMEBODY).gid(SOMEBODY);
    }
    command.args(["exec", "--listen", "7000", "--fault", fault, "--after", "500ms"]);
    // On a machine that is too busy for the client to write before the fault.
    command.args(["--deadline", "30s"]).args(settings);
    command.args(["--format", "json", "--out", out.path().to_str().unwrap(), "--"]).args(client);
    let output = command.current_dir(out.path()).stdin(Stdio::null()).output().unwrap();
    // What a busy machine did late may leave it inconclusive (3).
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", show(&output));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    document["trials"][0]["flows"].as_array().unwrap().clone()
}

#[test]
fn what_a_program_was_told_is_known_without_tracepoints() {
    let retries = ["--set", "sysctl.tcp_retries2=3"];
    let rejected = [REJECT, &retries].concat();
    let cases: [(&str, &[&str], &str, [&str; 2]); 7] = [
        ("power-off", &[], KEEPALIVE, ["ETIMEDOUT", "keepalive"]),
        ("power-off", &["--set", "family=ipv6"], KEEPALIVE, ["ETIMEDOUT", "keepalive"]),
        // An ICMP error about a keepalive probe is about nothing that is outstanding.
        ("reject", REJECT, KEEPALIVE, ["ETIMEDOUT", "keepalive"]),
        ("reject", &rejected, WRITES, ["EHOSTUNREACH", "icmp"]),
        ("power-off", &retries, WRITES, ["ETIMEDOUT", "retransmission"]),
        ("process-crash", &[], "", ["EOF", "fin"]),
        ("power-off", &[], ABORTS, ["none", "program"]),
    ];
    std::thread::scope(|scope| {
        let trials = cases.map(|(fault, settings, does, [outcome, ended_by])| {
            scope.spawn(move || {
                let flow = &flows(fault, settings, &client(does))[0];
                let measured = &flow["measured"];
                assert_eq!(measured["outcome"], outcome, "{fault}: {flow:#}");
                assert_eq!(measured["ended_by"], ended_by, "{fault}: {flow:#}");
                let source = (outcome != "none").then_some("sock-diag");
                assert_eq!(measured["detected_by"].as_str(), source, "{fault}: {flow:#}");
            })
        });
        for trial in trials {
            trial.join().unwrap();
        }
    });
}

/// What halfopen's own proxy and its client are told, neither of which reports its calls.
#[test]
fn what_is_told_through_a_proxy_is_known_without_tracepoints() {
    let keepalive = ["enabled=true", "idle=1s", "interval=1s", "probes=2"]
        .map(|setting| format!("proxy.keepalive.{setting}"));
    let mut settings = vec!["--set", "topology=proxy"];
    settings.extend(keepalive.iter().flat_map(|setting| ["--set", setting]));
    let command = client("").map(|word| word.replace("'server'", "'proxy'"));
    let flows = flows("power-off", &settings, &command);
    let told = |leg: &str| {
        let flow = flows.iter().find(|flow| flow["leg"] == leg).unwrap();
        let measured = &flow["measured"];
        (measured["outcome"].clone(), measured["ended_by"].clone())
    };
    assert_eq!(told("upstream"), ("ETIMEDOUT".into(), "keepalive".into()), "{flows:#?}");
    assert_eq!(told("downstream"), ("EOF".into(), "fin".into()), "{flows:#?}");
}

/// Its groups cannot be changed, and JSON does not know the directory's name.
#[test]
fn who_is_root_in_a_user_namespace_alone_and_in_an_odd_directory_runs_programs() {
    let place = TempDir::new().unwrap();
    let odd = place.path().join(OsStr::from_bytes(b"odd \xff"));
    std::fs::create_dir(&odd).unwrap();
    let mut command = Command::new("unshare");
    command.arg("-r").arg(for_everybody()).args(["exec", "--listen", "7000", "--no-save"]);
    command.args(["--fault", "process-crash", "--deadline", "30s", "--"]).args(client(""));
    let output = command.current_dir(&odd).stdin(Stdio::null()).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", show(&output));
}
