//! `halfopen exec`: programs of which nothing is known, under faults. Python stands for all of them:
//! it is there wherever this is tested.

use crate::common::{halfopen, show};
use serde_json::Value;
use std::fs;
use std::process::Output;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A client that sets keepalive or not, asks once, does what it is told, and says what came of it. What it does
/// `later` comes long after a fault, which a busy machine does seconds late: once in a gate, over three.
const CLIENT: &str = r#"
import socket, sys, time
later = 5
def connect(keepalive):
    s = socket.create_connection(("server", 7000))
    if keepalive:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
    s.sendall(b"hello\n")
    print("answer", s.recv(100), flush=True)
    return s
def wait(s):
    try:
        print("then", s.recv(100), flush=True)
    except OSError as error:
        print("error", error, file=sys.stderr, flush=True)
        sys.exit(7)
what = sys.argv[1]
s = connect(what in ("keepalive", "two", "gives-up"))
if what == "two":
    other = connect(True)
    print("both", flush=True)
if what == "writes-soon":
    s.sendall(b"again\n")
if what == "writes":
    time.sleep(later)
    s.sendall(b"again\n")
if what == "writes-thrice":
    time.sleep(later)
    for _ in range(3):
        s.sendall(b"again\n")
        time.sleep(0.5)
if what == "shuts-down":
    time.sleep(later)
    s.sendall(b"last\n")
    s.shutdown(socket.SHUT_WR)
if what == "keeps-alive-later":
    time.sleep(later)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 1)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
if what == "waits-less":
    time.sleep(later)
    s.sendall(b"again\n")
    time.sleep(0.5)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000)
if what == "streams":
    try:
        while True:
            s.sendall(b"x" * 100)
            time.sleep(0.01)
    except OSError:
        sys.exit(7)
if what in ("gives-up", "connects-anew"):
    s.settimeout(2)
if what == "connects-anew":
    try: s.recv(100)
    except OSError: pass
    s = connect(False)
if what == "spams":
    for _ in range(40000): print("x" * 100)
    print("that was all", flush=True)
wait(s)
"#;

/// Runs the client against halfopen's own server, with these options.
fn exec(options: &[&str], what: &str) -> (Output, TempDir) {
    let out = tempfile::tempdir().unwrap();
    let directory = out.path().to_str().unwrap().to_owned();
    let mut arguments = vec!["exec", "--listen", "7000", "--format", "json", "--out", &directory];
    arguments.extend(options);
    arguments.extend(["--", "python3", "-c", CLIENT, what]);
    let output = halfopen(&arguments).output().unwrap();
    (output, out)
}

fn the_trial(output: &Output) -> Value {
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("no JSON ({error}): {}", show(output)));
    assert_eq!(document["trials"].as_array().map(Vec::len), Some(1), "{}", show(output));
    document["trials"][0].clone()
}

/// A server that finds its port taken.
const TAKEN: &str = "python3 -c 'import socket
first = socket.create_server((\"\", 7000)); second = socket.create_server((\"\", 7000))'";
/// A client that connects to its own host.
const ELSEWHERE: &str = "import socket, time
there = socket.create_server((\"127.0.0.1\", 9)); here = socket.create_connection((\"127.0.0.1\", 9))
time.sleep(1000)";

const POWER_OFF: [&str; 4] = ["--fault", "power-off", "--after", "300ms"];

#[test]
fn an_idle_client_with_keepalive_of_its_own_is_predicted_from_its_socket() {
    let (output, out) = exec(&POWER_OFF, "keepalive");
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let trial = the_trial(&output);
    assert_eq!(trial["experiment"], "exec");
    assert_eq!(trial["verdict"], "agrees");
    assert_eq!(trial["measured"]["outcome"], "ETIMEDOUT");
    assert_eq!(trial["measured"]["keepalive_probes_on_wire"], 2);
    let flow = &trial["flows"][0];
    assert_eq!(flow["id"], 0);
    assert_eq!(flow["options"]["keepalive"], true);
    assert_eq!(flow["options"]["keepcnt"], 2);
    assert_eq!(flow["measured"]["ended_by"], "keepalive");
    assert!(flow["remote"].as_str().unwrap().ends_with(":7000"));
    assert!(flow["opened_s"].as_f64().unwrap() < 0.0);
    assert!(flow["owner"].as_str().unwrap().starts_with("python"));
    let client = &trial["programs"]["client"];
    assert_eq!((&client["exit"], &client["signal"]), (&Value::from(7), &Value::Null));
    assert_eq!(client["command"][0], "python3");
    assert_eq!(trial["programs"]["server"], Value::Null);
    let written = fs::read_to_string(client["output"].as_str().unwrap()).unwrap();
    assert!(written.contains("hello") && written.contains("timed out"), "{written}");
    assert!(client["output"].as_str().unwrap().starts_with('/'));

    let directory = out.path().join("exec");
    let again = halfopen(&["judge", directory.to_str().unwrap()]).output().unwrap();
    assert_eq!(again.status.code(), Some(0), "{}", show(&again));
}

/// A connection of a command has its facts and prediction in its verdict: there are no files of these.
#[test]
fn its_page_leads_only_to_files_that_are_there() {
    let (_, out) = exec(&["--fault", "process-crash", "--deadline", "1s"], "idle");
    let directory = out.path().join("exec");
    let page = fs::read_to_string(directory.join("report.html")).unwrap();
    let links = page.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let files: Vec<_> = links.filter(|target| !target.starts_with('#')).collect();
    assert!(files.contains(&"capture.pcapng") && files.contains(&"trial.json"), "{files:?}");
    for file in files {
        assert!(directory.join(file).is_file(), "{file} is not there");
    }
}

#[test]
fn an_idle_client_without_keepalive_is_told_nothing() {
    let (output, _out) = exec(&[&POWER_OFF[..], &["--deadline", "1s"]].concat(), "idle");
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let trial = the_trial(&output);
    assert_eq!(trial["measured"]["outcome"], "none");
    assert_eq!(trial["flows"][0]["options"]["keepalive"], false);
    assert_eq!(trial["flows"][0]["measured"]["ended_by"], Value::Null);
    assert_eq!(trial["programs"]["client"]["exited_s"], Value::Null, "it was ended");
}

#[test]
fn what_it_writes_after_the_fault_is_predicted_anew() {
    let retries = ["--set", "sysctl.tcp_retries2=2"];
    let (output, _out) = exec(&[&POWER_OFF[..], &retries].concat(), "writes");
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let trial = the_trial(&output);
    assert_eq!(trial["measured"]["outcome"], "ETIMEDOUT");
    assert_eq!(trial["measured"]["reference"], "first-write");
    assert_eq!(trial["flows"][0]["measured"]["ended_by"], "retransmission");
}

#[test]
fn whatever_it_does_after_the_fault_is_predicted_from_its_socket() {
    let retries = ["--set", "sysctl.tcp_retries2=2"];
    for what in ["writes-thrice", "shuts-down", "streams"] {
        let (output, _out) = exec(&[&POWER_OFF[..], &retries].concat(), what);
        assert_eq!(output.status.code(), Some(0), "{what}: {}", show(&output));
        let trial = the_trial(&output);
        assert_eq!(trial["measured"]["outcome"], "ETIMEDOUT", "{what}");
        assert_eq!(trial["measured"]["reference"], "first-write", "{what}");
        assert_eq!(trial["flows"][0]["measured"]["ended_by"], "retransmission", "{what}");
        assert_eq!(trial["programs"]["client"]["exit"], 7, "{what}");
    }
}

#[test]
fn what_it_opens_after_the_fault_is_predicted_from_its_syn() {
    let retries =
        ["--set", "sysctl.tcp_syn_retries=1", "--set", "sysctl.tcp_syn_linear_timeouts=0"];
    let (output, _out) = exec(&[&POWER_OFF[..], &retries].concat(), "connects-anew");
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let trial = the_trial(&output);
    let anew = &trial["flows"][1];
    assert!(anew["opened_s"].as_f64().unwrap() > 0.0);
    assert_eq!(anew["verdict"], "agrees");
    assert_eq!(anew["measured"]["outcome"], "ETIMEDOUT");
    assert_eq!(anew["measured"]["reference"], "connect");
    // The trial's own is the one that was open when the fault came.
    assert_eq!(trial["flows"][0]["measured"]["ended_by"], "program");
    assert_eq!(trial["measured"]["outcome"], "none");
}

#[test]
fn options_that_it_changes_after_the_fault_are_predicted_from() {
    for (what, ended_by) in [("keeps-alive-later", "keepalive"), ("waits-less", "user-timeout")] {
        let (output, _out) = exec(&POWER_OFF, what);
        assert_eq!(output.status.code(), Some(0), "{}", show(&output));
        let flow = &the_trial(&output)["flows"][0];
        assert_eq!(flow["measured"]["outcome"], "ETIMEDOUT", "{flow}");
        assert_eq!(flow["measured"]["ended_by"], ended_by, "{flow}");
        assert_eq!(flow["options"]["keepalive"], what == "keeps-alive-later", "{flow}");
    }
}

#[test]
fn options_that_it_changes_where_a_host_answers_leave_nothing_to_agree_with() {
    let reboot = ["--fault", "reboot", "--after", "300ms", "--deadline", "8s"];
    let (output, _out) = exec(&reboot, "keeps-alive-later");
    assert_eq!(output.status.code(), Some(3), "{}", show(&output));
    let trial = the_trial(&output);
    assert_eq!(trial["flows"][0]["measured"]["outcome"], "ECONNRESET", "{trial}");
    let reason = trial["reason"].as_str().unwrap();
    assert!(reason.contains("changed SO_KEEPALIVE, TCP_KEEPIDLE"), "{reason}");
}

#[test]
fn several_faults_are_several_trials() {
    let faults = ["--fault", "power-off,process-crash", "--after", "100ms", "--deadline", "500ms"];
    let (output, out) = exec(&faults, "idle");
    // A killed process runs late on a busy machine (3).
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", show(&output));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let kind = |index: usize| document["trials"][index]["parameters"]["fault.kind"].clone();
    assert_eq!((kind(0), kind(1)), ("power-off".into(), "process-crash".into()));
    let outcome = |index: usize| document["trials"][index]["measured"]["outcome"].clone();
    assert_eq!((outcome(0), outcome(1)), ("none".into(), "EOF".into()), "{}", show(&output));
    assert!(out.path().join("exec-2/verdict.json").exists());
}

#[test]
fn a_sweep_has_a_row_for_each_point() {
    let out = tempfile::tempdir().unwrap();
    let arguments = [
        &["exec", "--listen", "7000", "--set", "sysctl.tcp_retries2=1,2", "--out"][..],
        &[out.path().to_str().unwrap()],
        &POWER_OFF,
        &["--", "python3", "-c", CLIENT, "writes"],
    ]
    .concat();
    let output = halfopen(&arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let rows = fs::read_to_string(out.path().join("run/run.csv")).unwrap();
    let values: Vec<_> = rows.lines().map(|row| row.split(',').nth(2).unwrap()).collect();
    assert_eq!(values, ["sysctl.tcp_retries2", "1", "2"], "{rows}");
    assert!(out.path().join("run/report.html").exists());
}

#[test]
fn a_person_sees_what_the_client_writes() {
    let out = tempfile::tempdir().unwrap();
    let directory = out.path().to_str().unwrap();
    let script = "printf 'no \\001 line end'; echo of its own >&2";
    let arguments = ["exec", "--listen", "7000", "--out", directory, "--", "sh", "-c", script];
    let output = halfopen(&arguments).output().unwrap();
    assert!(output.stdout.windows(13).any(|part| part == b"no \x01 line end"), "{}", show(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("of its own"));
}

#[test]
fn a_client_that_gives_up_by_itself_does_not_disagree() {
    let required = ["--set", "require.exits=7", "--set", "require.noticed_within=5s"];
    let (output, _out) = exec(&[&POWER_OFF[..], &required].concat(), "gives-up");
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let trial = the_trial(&output);
    assert_eq!(trial["flows"][0]["measured"]["ended_by"], "program");
    assert_eq!(trial["verdict"], "agrees");
    assert!(trial["prediction"]["latest_s"].as_f64().unwrap() > 3.0);
    let met = |index: usize| trial["requirements"][index]["met"].as_bool();
    assert_eq!((met(0), met(1)), (Some(true), Some(true)));
}

#[test]
fn a_requirement_that_is_not_met_is_exit_6_and_no_disagreement() {
    let required = ["--set", "require.noticed_within=100ms"];
    let (output, out) = exec(&[&POWER_OFF[..], &required].concat(), "gives-up");
    assert_eq!(output.status.code(), Some(6), "{}", show(&output));
    let trial = the_trial(&output);
    assert_eq!(trial["verdict"], "agrees");
    let requirement = &trial["requirements"][0];
    assert_eq!(requirement["key"], "require.noticed_within");
    assert_eq!((&requirement["wanted"], &requirement["met"]), (&"100ms".into(), &false.into()));
    drop(out);
}

#[test]
fn every_connection_is_judged_by_itself() {
    // On a busy machine the second takes longer than until the fault: its words would wait for 15 minutes.
    let once_both = ["--set", "fault.on_output=both"];
    let (output, _out) = exec(&[&POWER_OFF[..], &once_both].concat(), "two");
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let trial = the_trial(&output);
    let flows = trial["flows"].as_array().unwrap();
    assert_eq!(flows.len(), 2);
    for (id, flow) in flows.iter().enumerate() {
        assert_eq!(flow["id"], id);
        assert_eq!(flow["verdict"], "agrees");
    }
}

#[test]
fn a_server_that_is_killed_says_goodbye() {
    let server = r#"python3 -c 'import socket
s = socket.create_server(("0.0.0.0", 7000))
c = s.accept()[0]
while True: c.sendall(c.recv(100))'"#;
    let out = tempfile::tempdir().unwrap();
    let arguments = [
        "exec",
        "--server",
        server,
        "--fault",
        "process-crash",
        "--after",
        "300ms",
        "--format",
        "json",
        "--out",
        out.path().to_str().unwrap(),
        "--",
        "python3",
        "-c",
        CLIENT,
        "idle",
    ];
    let output = halfopen(&arguments).output().unwrap();
    // A killed process runs late on a busy machine (3).
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", show(&output));
    let trial = the_trial(&output);
    assert_eq!(trial["measured"]["outcome"], "EOF");
    assert_eq!(trial["flows"][0]["measured"]["ended_by"], "fin");
    assert_eq!(trial["programs"]["server"]["signal"], "SIGKILL");
}

/// A server whose first process has ended: three wait for connections, and each connection has one of
/// its own.
const FORKS: &str = "python3 -c 'import os, socket, time
l = socket.create_server((\"\", 7000))
if os.fork(): os._exit(0)
os.setsid()
for _ in range(3):
    if os.fork() == 0:
        c = l.accept()[0]
        if os.fork() == 0:
            while True: c.sendall(c.recv(100))
        time.sleep(1e6)
time.sleep(1e6)'";

#[test]
fn every_process_of_a_server_is_killed_or_stopped_its_parent_gone_or_not() {
    for (fault, outcome, how) in
        [("process-crash", "EOF", "killed"), ("process-freeze", "none", "stopped")]
    {
        let out = tempfile::tempdir().unwrap();
        let arguments = [
            &["exec", "--server", FORKS, "--fault", fault, "--after", "300ms", "--format", "json"]
                [..],
            &["--deadline", "2s", "--out", out.path().to_str().unwrap()],
            &["--", "python3", "-c", CLIENT, "idle"],
        ]
        .concat();
        let output = halfopen(&arguments).output().unwrap();
        let trial = the_trial(&output);
        // So many processes may take longer to end on a busy machine than a FIN is predicted to.
        let reason = trial["reason"].as_str().unwrap();
        let code = if reason.starts_with("the machine was busy") { 3 } else { 0 };
        assert_eq!(output.status.code(), Some(code), "{fault}: {}", show(&output));
        assert_eq!(trial["measured"]["outcome"], outcome, "{fault}");
        let proof = trial["proof"].to_string();
        let (met, _) = proof.split_once(" processes of the server's program").unwrap();
        let met: u32 = met.rsplit('"').next().unwrap().parse().unwrap();
        assert!(met >= 5 && proof.contains(&format!("were {how}, 0 left")), "{proof}");
    }
}

/// The path comes back before the server dies, for programs of the user as for halfopen's own.
#[test]
fn a_fault_that_was_planned_follows_another() {
    let out = tempfile::tempdir().unwrap();
    let arguments =
        [
            &[
                "exec", "--listen", "7000", "--fault", "flap", "--after", "300ms", "--format",
                "json",
            ][..],
            &["--set", "fault.duration=500ms", "--set", "fault.2.kind=process-crash"],
            &["--set", "fault.2.after=1s", "--out", out.path().to_str().unwrap()],
            &["--", "python3", "-c", CLIENT, "idle"],
        ]
        .concat();
    let output = halfopen(&arguments).output().unwrap();
    // A killed process runs late on a busy machine (3).
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", show(&output));
    let trial = the_trial(&output);
    assert_eq!(trial["measured"]["outcome"], "EOF");
    let proof = trial["proof"].to_string();
    assert!(
        proof.contains("fault 1 (flap)") && proof.contains("fault 2 (process-crash)"),
        "{proof}"
    );
}

/// The path stays away when the server dies: what its kernel says is lost, and the client's own timers tell.
#[test]
fn a_process_that_dies_behind_a_dead_path_is_not_heard() {
    let crash = ["--set", "fault.2.kind=process-crash", "--set", "fault.2.after=1s"];
    let options = [&["--fault", "blackhole"][..], &crash].concat();
    let (output, _out) = exec(&options, "keepalive");
    let trial = the_trial(&output);
    assert_eq!(trial["measured"]["outcome"], "ETIMEDOUT", "{trial}");
    assert_eq!(trial["verdict"], "agrees", "{trial}");
}

/// A server that reads once, and then nothing more.
const READS_ONCE: &str = "python3 -c 'import socket, time
c = socket.create_server((\"\", 7000)).accept()[0]; c.sendall(c.recv(100)); time.sleep(1000)'";

#[test]
fn a_server_that_is_killed_with_unread_data_resets() {
    let out = tempfile::tempdir().unwrap();
    let arguments = [
        &["exec", "--server", READS_ONCE, "--fault", "process-crash", "--after", "1500ms"][..],
        &["--format", "json", "--out", out.path().to_str().unwrap()],
        &["--", "python3", "-c", CLIENT, "writes-soon"],
    ]
    .concat();
    let output = halfopen(&arguments).output().unwrap();
    // A killed process runs late on a busy machine (3).
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", show(&output));
    let trial = the_trial(&output);
    assert_eq!(trial["measured"]["outcome"], "ECONNRESET");
    assert_eq!(trial["flows"][0]["prediction"]["windows"].as_array().unwrap().len(), 1);
}

/// A server that says when it starts.
const SAYS: &str = "python3 -u -c 'import socket
print(\"starts\"); l = socket.create_server((\"\", 7000))
while True:
    c = l.accept()[0]; c.sendall(c.recv(100))'";

#[test]
fn a_server_is_started_again_after_a_reboot_unless_it_is_not_to_be() {
    for (restart, starts) in [("true", 2), ("false", 1)] {
        let out = tempfile::tempdir().unwrap();
        let restart = format!("server.restart={restart}");
        let arguments = [
            &["exec", "--server", SAYS, "--fault", "reboot", "--after", "300ms"][..],
            &["--set", &restart, "--set", "fault.duration=500ms", "--deadline", "3s"],
            &["--out", out.path().to_str().unwrap(), "--", "python3", "-c", CLIENT, "idle"],
        ]
        .concat();
        let output = halfopen(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", show(&output));
        let written = fs::read_to_string(out.path().join("exec/server.out")).unwrap();
        assert_eq!(written.matches("starts").count(), starts, "{restart}");
    }
}

#[test]
fn output_without_an_end_is_cut() {
    let client = "import socket, sys
s = socket.create_connection((\"server\", 7000)); s.sendall(b\"hello\"); s.recv(100)
while True: sys.stdout.write((\"x\" * 99 + \"\\n\") * 1000)";
    let out = tempfile::tempdir().unwrap();
    let arguments =
        [
            &[
                "exec",
                "--listen",
                "7000",
                "--deadline",
                "1s",
                "--out",
                out.path().to_str().unwrap(),
            ][..],
            &["--format", "json"],
            &POWER_OFF,
            &["--", "python3", "-c", client],
        ]
        .concat();
    let output = halfopen(&arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let size = fs::metadata(out.path().join("exec/client.out")).unwrap().len();
    assert!((1..=64 << 20).contains(&size), "{size}");
    let timeline = fs::read_to_string(out.path().join("exec/timeline.jsonl")).unwrap();
    assert!(timeline.contains("output-omitted"));
    assert!(timeline.matches("\"output\":{").count() <= 10_000);
}

#[test]
fn gigabytes_of_output_are_counted_and_not_kept() {
    const WRITTEN: u64 = 2 << 30;
    let client = format!("head -c {WRITTEN} /dev/zero");
    let out = tempfile::tempdir().unwrap();
    let directory = out.path().to_str().unwrap();
    let arguments = ["exec", "--listen", "7000", "--format", "json", "--out", directory, "--"];
    let output = halfopen(&[&arguments[..], &["sh", "-c", &client]].concat()).output().unwrap();
    // Nothing was connected, and the verdict says so.
    assert_eq!(output.status.code(), Some(3), "{}", show(&output));
    let size = |name: &str| fs::metadata(out.path().join("exec").join(name)).unwrap().len();
    let kept = size("client.out");
    assert!(kept <= 64 << 20, "{kept}");
    assert!(size("timeline.jsonl") < 256 << 20);
    let timeline = fs::read_to_string(out.path().join("exec/timeline.jsonl")).unwrap();
    let omitted = timeline.lines().rfind(|line| line.contains("output-omitted")).unwrap();
    assert!(omitted.contains(&format!("\"bytes\":{}", WRITTEN - kept)), "{omitted}");
}

#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn a_program_that_spins_is_ended_with_its_reason() {
    for client in ["s.recv(100)\nwhile True: pass", "while s.recv(100): s.sendall(b'x')"] {
        let script = format!(
            "import socket; s = socket.create_connection(('server', 7000)); s.sendall(b'x')\n{client}"
        );
        let out = tempfile::tempdir().unwrap();
        let arguments = [
            &["exec", "--clock", "virtual", "--listen", "7000", "--out"][..],
            &[out.path().to_str().unwrap(), "--format", "json"],
            &POWER_OFF,
            &["--", "python3", "-c", &script],
        ]
        .concat();
        let began = Instant::now();
        let output = halfopen(&arguments).env("HALFOPEN_WATCHDOG", "5s").output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{}", show(&output));
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
        let trial = the_trial(&output);
        assert_eq!(trial["verdict"], "inconclusive");
        let told = trial["reason"].as_str().unwrap();
        assert!(told.contains("stood still for 5 s"), "{told}");
        assert!(told.contains("busy loop") && told.contains("path.rtt=1ms"), "{told}");
    }
}

#[test]
fn the_host_that_breaks_is_said_once() {
    let with = |options: &[&str]| {
        let crash = ["--fault", "process-crash", "--after", "300ms", "--deadline", "2s"];
        let (output, _out) = exec(&[&crash[..], options].concat(), "idle");
        output
    };
    for same in [&["--fault-host", "client"][..], &["--set", "fault.host=client"]] {
        let output = with(same);
        let trial = the_trial(&output);
        assert_eq!(trial["programs"]["client"]["signal"], "SIGKILL", "{same:?}: {}", show(&output));
    }
    let both = with(&["--fault-host", "server", "--set", "fault.host=client"]);
    assert_eq!(both.status.code(), Some(2), "{}", show(&both));
    assert!(show(&both).contains("contradicts"), "{}", show(&both));
}

#[test]
fn the_fault_follows_a_line_of_output() {
    let options = [
        "--fault",
        "power-off",
        "--after",
        "0s",
        "--on-output",
        "^answer .*hello",
        "--deadline",
        "200ms",
    ];
    let (output, _out) = exec(&options, "idle");
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    assert_eq!(the_trial(&output)["measured"]["outcome"], "none");
}

#[test]
fn what_cannot_be_tried_is_said_in_a_word() {
    for (options, client, code, complaint) in [
        (&["--listen", "7000"][..], &["no-such-program"][..], 2, "no executable `no-such-program`"),
        (&[][..], &["true"], 2, "--listen"),
        (&["--listen", "7000", "--fault-host", "both"], &["true"], 2, "--fault-host"),
        (&["--listen", "7000", "--fault", "powr-off"], &["true"], 2, "powr-off"),
        (&["--listen", "7000", "--set", "client.traffic=stream"], &["true"], 2, "client.traffic"),
        (&["--listen", "7000", "--on-output", "("], &["true"], 2, "fault.on_output"),
        (&["--listen", "7000", "--fault", "power-off"], &["false"], 3, "had no connection"),
        (&["--server", "false", "--fault", "power-off"], &["true"], 3, "does not listen"),
        (&["--listen", "7000"], &["false"], 6, "require.exits"),
        (&["--server", TAKEN], &["true"], 3, "Address already in use"),
        (&["--listen", "7000"], &["/etc/passwd"], 2, "may not be executed"),
        (&["--listen", "7000", "--set", "client.user=no-such-user"], &["true"], 2, "client.user"),
    ] {
        let out = tempfile::tempdir().unwrap();
        let mut arguments = vec!["exec", "--out", out.path().to_str().unwrap()];
        arguments.extend(options);
        arguments.push("--");
        arguments.extend(client);
        let output = halfopen(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", show(&output));
        assert!(show(&output).contains(complaint), "{arguments:?}: {}", show(&output));
    }
}

#[test]
fn much_output_is_counted_and_the_trial_goes_on() {
    let options = ["--on-output", "^that was all", "--fault", "power-off", "--after", "0s"];
    let (output, out) = exec(&[&options[..], &["--deadline", "300ms"]].concat(), "spams");
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let timeline = fs::read_to_string(out.path().join("exec/timeline.jsonl")).unwrap();
    assert!(timeline.contains("output-omitted"));
    assert!(timeline.matches("\"output\":{").count() <= 10_000);
}

#[test]
fn a_file_with_commands_is_an_experiment() {
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("mine.toml");
    fs::write(
        &file,
        "question = \"What does this program do?\"\n[client]\ncommand = [\"sh\", \"-c\", \
         \"echo $WORD; read line; echo $line; exit 3\"]\nenv = { WORD = \"hello\" }\nstdin = \
         \"there\\n\"\n[server]\nlisten = 7000\n[fault]\nkind = \"none\"\n[require]\nexits = 3\n",
    )
    .unwrap();
    let arguments =
        ["run", file.to_str().unwrap(), "--out", out.path().to_str().unwrap(), "--format", "json"];
    let output = halfopen(&arguments).output().unwrap();
    // Nothing was connected, and the verdict says so; the requirement is met.
    assert_eq!(output.status.code(), Some(3), "{}", show(&output));
    let trial = the_trial(&output);
    assert_eq!(trial["flows"].as_array().map(Vec::len), Some(0));
    assert_eq!(trial["requirements"][0]["met"], true);
    assert_eq!(trial["measured"]["outcome"], Value::Null);
    let written = fs::read_to_string(out.path().join("mine/client.out")).unwrap();
    assert_eq!(written, "hello\nthere\n");
}

#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn the_same_command_line_runs_in_virtual_time() {
    let (output, _out) = exec(&[&POWER_OFF[..], &["--clock", "virtual"]].concat(), "keepalive");
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let trial = the_trial(&output);
    assert_eq!(trial["measured"]["outcome"], "ETIMEDOUT");
    assert_eq!(trial["flows"][0]["measured"]["ended_by"], "keepalive");
    assert_eq!(trial["programs"]["client"]["exit"], 7);
}

#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn what_does_not_come_is_said_in_a_word() {
    let fault = ["--fault", "power-off", "--clock", "virtual"];
    for (server, client, complaint) in [
        (&["--server", "sleep 1000"][..], &["true"][..], "did not listen at its address"),
        (&["--listen", "7000"], &["sleep", "1000"], "had no connection with the server's host"),
        (&["--listen", "7000"], &["python3", "-c", ELSEWHERE], "had no connection with"),
        (&["--server", "sleep 1000", "--ready", "false"], &["true"], "did not listen"),
    ] {
        let out = tempfile::tempdir().unwrap();
        let directory = ["--out", out.path().to_str().unwrap(), "--"];
        let arguments = [&["exec"], &fault[..], server, &directory, client].concat();
        let output = halfopen(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {}", show(&output));
        assert!(show(&output).contains(complaint), "{arguments:?}: {}", show(&output));
    }
}

#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn programs_that_fork_away_or_do_not_care_for_signals_are_followed() {
    let server = "python3 -c 'import socket, time
l = socket.create_server((\"\", 7000)); c = l.accept()[0]; c.sendall(c.recv(100)); time.sleep(1e6)' &";
    let client =
        format!("trap \"\" TERM; (trap \"\" TERM; python3 -c '{CLIENT}' keepalive) & exit 0");
    let out = tempfile::tempdir().unwrap();
    let arguments = [
        &["exec", "--clock", "virtual", "--server", server, "--format", "json"][..],
        &["--out", out.path().to_str().unwrap()],
        &POWER_OFF,
        &["--", "sh", "-c", &client],
    ]
    .concat();
    let output = halfopen(&arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let trial = the_trial(&output);
    assert_eq!(trial["measured"]["outcome"], "ETIMEDOUT");
    assert_eq!(trial["programs"]["client"]["exit"], 0);
}

#[test]
fn a_client_that_ignores_sigterm_is_killed() {
    let script = format!("trap '' TERM; python3 -c '{CLIENT}' idle; sleep 1000000");
    let out = tempfile::tempdir().unwrap();
    let arguments = [
        &["exec", "--listen", "7000", "--deadline", "300ms", "--out"][..],
        &[out.path().to_str().unwrap()],
        &POWER_OFF,
        &["--", "sh", "-c", &script],
    ]
    .concat();
    let output = halfopen(&arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
}

#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn a_client_can_have_a_terminal_in_virtual_time() {
    with_a_terminal(&["--clock", "virtual"]);
}

#[test]
fn a_client_can_have_a_terminal() {
    with_a_terminal(&[]);
}

fn with_a_terminal(clock: &[&str]) {
    let out = tempfile::tempdir().unwrap();
    let script = "test -t 0 && test -t 2 && echo it is one; read word; echo read $word; exec 3>/dev/tty \
                  && echo controls >&3";
    let arguments = [
        &["exec", "--listen", "7000", "--tty", "--set", "client.stdin=typed"][..],
        &["--format", "json", "--out", out.path().to_str().unwrap()],
        clock,
        &["--", "sh", "-c", script],
    ]
    .concat();
    let output = halfopen(&arguments).output().unwrap();
    // Nothing was connected, and the verdict says so.
    assert_eq!(output.status.code(), Some(3), "{}", show(&output));
    let written = fs::read_to_string(out.path().join("exec/client.out")).unwrap();
    // The terminal shows what is typed when it is typed: before the program's first words or after them.
    let typed = written.replacen("typed\r\n", "", 1);
    assert_eq!(typed, "it is one\r\nread typed\r\ncontrols\r\n", "{written:?}");
    assert!(
        written.starts_with("typed") || written.starts_with("it is one\r\ntyped"),
        "{written:?}"
    );
}
