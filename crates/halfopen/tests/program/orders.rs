//! Faults that a trial's own program orders by the control socket: one after the other, with an end of
//! their own, behind a proxy, and those that are refused.

use crate::common::{halfopen, show};
use serde_json::Value;
use tempfile::tempdir;

/// What every client does first: it connects, exchanges a byte, and can order and ask.
const BEGINS: &str = r#"
import json, os, socket, sys
def ask(method, path, **order):
    control = socket.socket(socket.AF_UNIX)
    control.connect(os.environ["HALFOPEN_CONTROL"])
    body = json.dumps(order)
    head = f"{method} {path} HTTP/1.1\r\nHost: halfopen\r\nConnection: close\r\n"
    control.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    answer = b""
    while chunk := control.recv(65536):
        answer += chunk
    head, _, document = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(document)
def fault(kind, **more):
    status, answer = ask("POST", "/fault", kind=kind, **more)
    assert status == 200, answer
    return answer
def heal():
    status, answer = ask("POST", "/heal")
    assert status == 200, answer
def refused(kind, why, **more):
    status, answer = ask("POST", "/fault", kind=kind, **more)
    assert status == 409 and why in answer["error"], answer
def when():
    status, answer = ask("GET", "/when")
    assert status == 200, answer
    return answer["flows"][0]["prediction"]["windows"][0]["outcome"]
def echo():
    s.sendall(b"x")
    assert s.recv(1) == b"x"
def told(expected):
    try:
        s.recv(1)
        found = "EOF"
    except OSError as error:
        found = type(error).__name__
    assert found == expected, found
s = socket.create_connection((sys.argv[1], 7000))
echo()
"#;

/// Client of halfopen's own server, with these calls after that; it must succeed.
fn trial(settings: &[&str], host: &str, calls: &str) -> Value {
    let out = tempdir().unwrap();
    let mut arguments = vec!["exec", "--listen", "7000", "--format", "json"];
    arguments.extend(["--out", out.path().to_str().unwrap()]);
    arguments.extend(settings);
    let program = format!("{BEGINS}{calls}");
    arguments.extend(["--", "python3", "-c", &program, host]);
    let output = halfopen(&arguments).output().unwrap();
    let written = std::fs::read_to_string(out.path().join("exec/client.out")).unwrap_or_default();
    // A busy machine may decide nothing (3).
    assert!(matches!(output.status.code(), Some(0 | 3)), "{written}{}", show(&output));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let trial = document["trials"][0].clone();
    assert_eq!(trial["programs"]["client"]["exit"], 0, "{written}{}", show(&output));
    trial
}

/// What was ordered, as the proof tells it.
fn ordered(trial: &Value) -> Vec<&str> {
    let findings = trial["proof"].as_array().unwrap().iter();
    let findings = findings.filter_map(|finding| finding["finding"].as_str());
    findings.filter_map(|finding| Some(finding.rsplit_once(": ")?.1)).collect()
}

#[test]
fn an_order_replaces_the_one_before() {
    let calls = "assert 'replaced' not in fault('blackhole')\n\
                 assert fault('process-freeze')['replaced'] == 'blackhole'\n\
                 fault('blackhole')\nheal()\necho()\n\
                 status, answer = ask('POST', '/heal')\nassert status == 409, answer\n";
    let trial = trial(&[], "server", calls);
    let expected = ["blackhole", "healed", "process-freeze", "healed", "blackhole", "healed"];
    assert_eq!(ordered(&trial), expected, "{trial:#}");
    assert_eq!(trial["flows"].as_array().unwrap().len(), 1, "{trial:#}");
}

#[test]
fn what_cannot_be_healed_cannot_be_replaced() {
    let calls = "refused('power-off', 'start the trial with --fault-host client', host='client')\n\
                 fault('power-off')\nrefused('flap', 'is gone')\n\
                 status, answer = ask('POST', '/heal')\n\
                 assert status == 409 and 'cannot be healed' in answer['error'], answer\n";
    let trial = trial(&[], "server", calls);
    assert_eq!(ordered(&trial), ["power-off"], "{trial:#}");
}

/// A program that has ended cannot be killed once more: who orders it is told, and the trial goes on.
/// Its connection is no longer open: `/when` says nothing about it.
#[test]
fn a_program_that_has_ended_is_left_alone() {
    let calls = "refused('flap', '`for`: `5` has no unit', **{'for': 5})\n\
                 fault('process-crash')\ntold('EOF')\n\
                 refused('process-crash', \"the server's program has ended\")\n\
                 refused('process-freeze', \"the server's program has ended\")\n\
                 fault('blackhole')\nheal()\n\
                 status, answer = ask('GET', '/when')\nassert (status, answer['flows']) == (200, [])\n\
                 status, answer = ask('GET', '/flows')\nassert not answer['flows'][0]['open'], answer\n";
    let trial = trial(&[], "server", calls);
    assert_eq!(ordered(&trial), ["process-crash", "blackhole", "healed"], "{trial:#}");
    assert_eq!(trial["flows"][0]["measured"]["outcome"], "EOF", "{trial:#}");
}

const KEEPALIVE: &str = "s.setsockopt(1, 9, 1)\n\
                         for option, value in (4, 1), (5, 1), (6, 2): s.setsockopt(6, option, value)\n";

/// A fault that ends before keepalive gives up changes nothing, one that lasts ends the connection: both
/// are predicted when they come, and come true.
#[test]
fn when_knows_how_long_a_fault_lasts() {
    let calls = format!(
        "{KEEPALIVE}fault('flap', **{{'for': '1s'}})\nassert when() == 'none'\n\
         while ask('POST', '/heal')[0] == 200: pass\necho()\n\
         fault('flap', **{{'for': '60s'}})\nassert when() == 'ETIMEDOUT'\ntold('TimeoutError')\n"
    );
    let trial = trial(&[], "server", &calls);
    let flow = &trial["flows"][0];
    assert_eq!(flow["measured"]["outcome"], "ETIMEDOUT", "{flow:#}");
    assert_eq!(flow["measured"]["ended_by"], "keepalive", "{flow:#}");
}

/// The connection that is asked about is the client's, to the proxy; what is broken is the server's path.
#[test]
fn orders_are_obeyed_behind_a_proxy() {
    let settings = ["--set", "topology=proxy"];
    let calls = "fault('blackhole')\nfault('process-freeze')\nheal()\necho()\n\
                 fault('process-crash')\ntold('EOF')\n";
    let trial = trial(&settings, "proxy", calls);
    let expected = ["blackhole", "healed", "process-freeze", "healed", "process-crash"];
    assert_eq!(ordered(&trial), expected, "{trial:#}");
    for flow in trial["flows"].as_array().unwrap() {
        assert_eq!(flow["measured"]["outcome"], "EOF", "{flow:#}");
    }
}
