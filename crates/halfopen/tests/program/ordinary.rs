//! `exec` as an ordinary user, who has no tracepoints: what a program was told is read from the states of
//! its socket and from the wire.

use crate::common::{for_everybody, show};
use nix::unistd::{Gid, Uid, chown, geteuid};
use serde_json::Value;
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
const WRITES: &str = "time.sleep(1)\ns.sendall(b'x')";
const ABORTS: &str = "time.sleep(1)\ns.setsockopt(1, 13, struct.pack('ii', 1, 0))\ns.close()";
const REJECT: &[&str] = &["--set", "topology=router", "--set", "fault.reject=host-unreachable"];

/// The connection of a trial that ran as an ordinary user.
fn flow(fault: &str, settings: &[&str], does: &str) -> Value {
    let out = TempDir::new().unwrap();
    let mut command = Command::new(for_everybody());
    if geteuid().is_root() {
        chown(out.path(), Some(Uid::from_raw(SOMEBODY)), Some(Gid::from_raw(SOMEBODY))).unwrap();
        command.uid(SOMEBODY).gid(SOMEBODY);
    }
    command.args(["exec", "--listen", "7000", "--fault", fault, "--after", "500ms"]).args(settings);
    command
        .args(["--format", "json", "--out", out.path().to_str().unwrap(), "--"])
        .args(client(does));
    let output = command.current_dir(out.path()).stdin(Stdio::null()).output().unwrap();
    // What a busy machine did late may leave it inconclusive (3).
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", show(&output));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    document["trials"][0]["flows"][0].clone()
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
                let flow = flow(fault, settings, does);
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
