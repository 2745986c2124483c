//! The client's host breaks, and the server is the one that finds out.

use crate::common::{halfopen, show, trials};
use serde_json::{Value, json};
use std::fs;

const SERVER: &str = r#"
question = "The client is lost: when does the server find out?"
[server]
keepalive = { enabled = true, idle = "1s", interval = "1s", probes = 1 }
[fault]
kind = "power-off"
host = "client"
"#;

/// A server that sets keepalive of its own, greets, and waits.
const GREETS: &str = r#"python3 -c '
import socket
c = socket.create_server(("", 7000)).accept()[0]
for option, value in (TCP_KEEPIDLE, 1), (TCP_KEEPINTVL, 1), (TCP_KEEPCNT, 2): c.setsockopt(socket.IPPROTO_TCP, option, value)
c.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
c.sendall(b"hello")
c.recv(100)'"#;

fn greets() -> String {
    ["TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"]
        .iter()
        .fold(GREETS.to_owned(), |line, name| line.replace(name, &format!("socket.{name}")))
}

#[test]
fn the_server_is_the_survivor_for_every_fault() {
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("lost.toml");
    fs::write(&file, SERVER).unwrap();
    let file = file.to_str().unwrap();
    let (document, code) = trials(
        out.path(),
        &[
            file,
            "--set",
            "fault.kind=power-off,blackhole,process-crash",
            "--set",
            "family=ipv4,ipv6",
        ],
    );
    assert_eq!(code, 0, "{document:#}");
    let all = document["trials"].as_array().unwrap();
    assert_eq!(all.len(), 6);
    for trial in all {
        assert_eq!((&trial["survivor"], &trial["lost_host"]), (&json!("server"), &json!("client")));
        assert_eq!(trial["parameters"]["server.keepalive.idle"], "1s");
        assert!(trial["parameters"].get("client.keepalive.idle").is_none(), "{trial:#}");
        let crash = trial["parameters"]["fault.kind"] == "process-crash";
        let (outcome, state) = if crash { ("EOF", "CLOSE_WAIT") } else { ("ETIMEDOUT", "CLOSE") };
        let measured = &trial["measured"];
        assert_eq!(
            (&measured["outcome"], &measured["server_state"]),
            (&json!(outcome), &json!(state))
        );
        assert_eq!(measured["fin_from_lost"], crash);
        assert_eq!(measured["fin_from_server"], Value::Null);
    }
    // Names in the files are the hosts' own; judged again, they are understood.
    let directory = all[0]["artifacts"].as_str().unwrap();
    let timeline = fs::read_to_string(format!("{directory}/timeline.jsonl")).unwrap();
    let ends = timeline.lines().find(|line| line.contains("error-report")).unwrap_or_default();
    assert!(ends.is_empty() || ends.contains("\"side\":\"server\""), "{ends}");
    let again = halfopen(&["judge", directory, "--format", "json"]).output().unwrap();
    let again: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(again["trials"][0]["measured"], all[0]["measured"]);
    assert_eq!(again["trials"][0]["proof"], all[0]["proof"]);
    let proof = all[0]["proof"].to_string();
    assert!(proof.contains("the switch's port to the client is gone"), "{proof}");
}

#[test]
fn a_server_of_the_user_s_is_told_with_halfopen_s_own_client() {
    let out = tempfile::tempdir().unwrap();
    let directory = out.path().to_str().unwrap();
    let server = greets();
    let arguments = ["exec", "--server", &server, "--fault", "power-off", "--after", "300ms"];
    let arguments = [&arguments[..], &["--format", "json", "--out", directory]].concat();
    let output = halfopen(&arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let trial = &document["trials"][0];
    assert_eq!((&trial["survivor"], &trial["verdict"]), (&json!("server"), &json!("agrees")));
    assert_eq!(trial["flows"][0]["measured"]["ended_by"], "keepalive");
    assert!(trial["flows"][0]["local"].as_str().unwrap().ends_with(":7000"));
    // It closes its socket, or ends, once it is told.
    assert!(trial["measured"]["noticed_s"].is_f64(), "{trial:#}");
    assert_eq!(trial["programs"]["client"], Value::Null);
    let written = trial["programs"]["server"]["output"].as_str().unwrap();
    let written = fs::read_to_string(written).unwrap();
    assert!(written.contains("TimeoutError"), "{written}");

    // The same server breaks, and halfopen's own client is told.
    let crash = ["--fault-host", "server", "--fault", "process-crash", "--after", "300ms"];
    let arguments = [&["exec", "--server", &server], &crash[..], &["--out", directory]].concat();
    let output = halfopen(&arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    assert!(show(&output).contains("the server has closed the connection"), "{}", show(&output));
}

#[test]
fn what_cannot_matter_is_refused() {
    let server = greets();
    for (arguments, complaint) in [
        (
            &["run", "host-crash-sending", "--set", "server.traffic=stream"][..],
            "fault.host = client",
        ),
        (
            &["run", "client-power-off-idle", "--set", "client.traffic=stream"],
            "`client.traffic` matters only with `fault.host = server`",
        ),
        (&["run", "client-power-off-idle", "--set", "server.traffic=connect"], "server.traffic"),
        (
            &["run", "client-power-off-idle", "--set", "server.keepalive.idle=2s"],
            "`server.keepalive.enabled",
        ),
        (&["exec", "--server", &server, "--fault-host", "both"], "`both` is unknown"),
        (&["exec", "--listen", "7000"], "no program of yours"),
        (
            &["exec", "--server", &server, "--fault", "power-off", "--set", "require.exits=0"],
            "require.exits",
        ),
    ] {
        let output = halfopen(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", show(&output));
        assert!(show(&output).contains(complaint), "{arguments:?}: {}", show(&output));
    }
}
