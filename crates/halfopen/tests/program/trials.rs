//! Trials on the real kernel: each experiment's question, asked with short settings, answered as
//! the model predicted and by the way it should be.

use crate::common::{halfopen, has_nginx, show, trials};
use serde_json::{Value, json};
use std::path::Path;
use tempfile::tempdir;

/// What must hold for every trial, whatever it asks: it agrees. On a machine that is busy with
/// other things it may be inconclusive, if that is the recorded reason; never may it disagree.
fn check_trial(trial: &Value) {
    let reason = trial["reason"].as_str().unwrap();
    let disturbed = [
        "the machine was busy",
        "the kernel ran",
        // The host came back later than it should, while the client was sending.
        "the fault is not proved: the fault was over",
    ]
    .iter()
    .any(|start| reason.starts_with(start));
    if trial["verdict"] == "inconclusive" && disturbed {
        eprintln!("disturbed: {reason}");
    } else {
        assert_eq!(trial["verdict"], "agrees", "{trial:#}");
        assert_eq!(reason, "");
    }
    let measured = &trial["measured"];
    // Before a client connects, there is no connection to look at.
    if trial["parameters"]["client.traffic"] != "connect" {
        let rto = measured["rto_ms_at_fault"].as_u64().expect("the RTO is known before the fault");
        assert!((200..1000).contains(&rto), "{rto}");
    }
    let directory = std::path::Path::new(trial["artifacts"].as_str().unwrap());
    for file in [
        "experiment.json",
        "facts.json",
        "prediction.json",
        "timeline.jsonl",
        "verdict.json",
        "trial.json",
        "capture.pcapng",
    ] {
        assert!(directory.join(file).is_file(), "{file} of {}", directory.display());
    }
    check_flow(directory);
    check_options(trial, directory);
}

/// Every event about the one connection names it, and one says that it has appeared.
fn check_flow(directory: &std::path::Path) {
    let text = std::fs::read_to_string(directory.join("timeline.jsonl")).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_kind =
        |kind: &'static str| events.iter().filter(move |event| !event["what"][kind].is_null());
    for kind in ["flow", "segment", "socket", "trace", "call"] {
        let unnamed = of_kind(kind).find(|event| event["flow"] != 0);
        assert_eq!(unnamed, None, "{kind} in {}", directory.display());
    }
    // Without tracepoints a connection appears with its first segment.
    let has_appeared = of_kind("segment").chain(of_kind("trace")).next().is_some();
    assert_eq!(of_kind("flow").count(), usize::from(has_appeared), "{}", directory.display());
}

/// The options of the client's socket, as read from its process, are what the experiment sets.
fn check_options(trial: &Value, directory: &std::path::Path) {
    let parameters = &trial["parameters"];
    if parameters["client.traffic"] == "connect" {
        return; // there is no connection yet
    }
    let text = std::fs::read_to_string(directory.join("facts.json")).unwrap();
    let facts: Value = serde_json::from_str(&text).unwrap();
    let options = &facts["tcp"]["options_set"];
    let enabled = parameters["client.keepalive.enabled"] == true;
    assert_eq!(options["keepalive"], enabled, "{options} of {parameters:#}");
    assert_eq!(options["nodelay"], true, "{options}");
    for (key, unit, option) in [
        ("client.keepalive.idle", 1, "keepidle_s"),
        ("client.keepalive.interval", 1, "keepintvl_s"),
        ("client.user_timeout", 1000, "user_timeout_ms"),
        ("client.rto_max", 1000, "rto_max_ms"),
    ] {
        // Those of whole seconds.
        let set = parameters[key].as_str().and_then(|text| text.strip_suffix('s')?.parse().ok());
        let Some(set) = set.map(|seconds: u64| seconds * unit) else { continue };
        if enabled || !key.contains("keepalive") {
            assert_eq!(options[option], set, "{key}: {options} of {parameters:#}");
        }
    }
    if enabled {
        assert_eq!(options["keepcnt"], parameters["client.keepalive.probes"], "{options}");
    }
}

/// Runs one experiment with short settings and checks outcome, reference and what else matters.
fn ask(arguments: &[&str], expected: &Value) -> Value {
    let out = tempdir().unwrap();
    let (document, code) = trials(out.path(), arguments);
    assert_eq!(document["schema"], "halfopen/run/1");
    assert_eq!(document["trials"].as_array().unwrap().len(), 1);
    let trial = document["trials"][0].clone();
    check_trial(&trial);
    assert_eq!(code, if trial["verdict"] == "agrees" { 0 } else { 3 });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&trial["measured"][key], value, "{key}: {trial:#}");
    }
    trial
}

#[test]
fn a_killed_process_is_said_goodbye_for_by_its_kernel() {
    ask(
        &["process-crash-idle"],
        &json!({"outcome": "EOF", "reference": "fault", "fin_from_server": true,
                "rst_from_server": false, "client_state": "CLOSE_WAIT"}),
    );
}

#[test]
fn unread_data_turns_the_goodbye_into_a_reset() {
    ask(
        &["process-crash-unread"],
        &json!({"outcome": "ECONNRESET", "reference": "fault", "fin_from_server": false,
                "rst_from_server": true, "client_state": "CLOSE"}),
    );
}

#[test]
fn a_client_that_goes_on_sending_to_a_killed_process_is_told_at_once() {
    ask(
        &["process-crash-sending"],
        &json!({"outcome": "EOF", "reference": "fault", "fin_from_server": true}),
    );
}

#[test]
fn keepalive_finds_a_host_without_power() {
    let trial = ask(
        &[
            "host-crash-idle-keepalive",
            "--set",
            "client.keepalive.idle=2s",
            "--set",
            "client.keepalive.probes=2",
        ],
        &json!({"outcome": "ETIMEDOUT", "reference": "last-activity", "retransmits_on_wire": 0,
                "keepalive_probes_on_wire": 2, "fin_from_server": false, "rst_from_server": false,
                "client_state": "CLOSE", "server_state": "gone"}),
    );
    let detected = trial["measured"]["detected_s"].as_f64().unwrap();
    assert!(detected >= 4.0, "two seconds idle and two probes take four seconds: {detected}");
}

#[test]
fn an_idle_client_without_keepalive_is_told_nothing() {
    ask(
        &["host-crash-idle-no-keepalive", "--set", "deadline=2s"],
        &json!({"outcome": "none", "detected_s": null, "noticed_s": null,
                "client_state": "ESTABLISHED", "server_state": "gone"}),
    );
}

#[test]
fn a_sending_client_gives_up_at_the_first_timeout_past_the_threshold() {
    let trial = ask(
        &["host-crash-sending", "--set", "sysctl.tcp_retries2=3"],
        &json!({"outcome": "ETIMEDOUT", "reference": "first-write", "fin_from_server": false}),
    );
    let detected = trial["measured"]["detected_s"].as_f64().unwrap();
    assert!(detected >= 3.0, "tcp_retries2 = 3 is a threshold of 3 s: {detected}");
}

#[test]
fn the_user_timeout_takes_the_place_of_retries2() {
    ask(
        &["host-crash-sending-user-timeout", "--set", "client.user_timeout=1s"],
        &json!({"outcome": "ETIMEDOUT", "reference": "first-write"}),
    );
}

#[test]
fn keepalive_leaves_a_live_peer_alone() {
    ask(
        &["host-alive-keepalive", "--set", "deadline=3s"],
        &json!({"outcome": "none", "client_state": "ESTABLISHED", "server_state": "ESTABLISHED"}),
    );
}

#[test]
fn a_firewall_that_drops_is_like_a_host_without_power() {
    ask(
        &["firewall-drop-sending", "--set", "sysctl.tcp_retries2=2"],
        &json!({"outcome": "ETIMEDOUT", "server_state": "ESTABLISHED"}),
    );
}

#[test]
fn the_pulled_cable_is_something_else() {
    let out = tempdir().unwrap();
    let (document, _) = trials(out.path(), &["unplug-sending", "--set", "sysctl.tcp_retries2=2"]);
    let measured = &document["trials"][0]["measured"];
    assert_eq!(measured["retransmits_on_wire"], 0, "nothing leaves a client without carrier");
    assert_ne!(measured["outcome"], "none", "{document:#}");
}

#[test]
fn a_rebooted_host_answers_with_a_reset() {
    ask(
        &["host-reboot-idle-keepalive", "--set", "client.keepalive.idle=2s"],
        &json!({"outcome": "ECONNRESET", "reference": "last-activity", "server_state": "gone",
                "keepalive_probes_on_wire": 1, "rst_from_server": true}),
    );
    ask(
        &["host-reboot-sending", "--set", "fault.duration=500ms"],
        &json!({"outcome": "ECONNRESET", "reference": "first-write", "rst_from_server": true}),
    );
}

#[test]
fn a_hung_process_is_not_noticed() {
    ask(
        &["process-freeze-idle-keepalive", "--set", "deadline=3s"],
        &json!({"outcome": "none", "client_state": "ESTABLISHED", "server_state": "ESTABLISHED",
                "fin_from_server": false, "rst_from_server": false}),
    );
}

#[test]
fn a_firewall_that_rejects_is_believed_by_a_busy_client() {
    for (kind, outcome) in [
        ("tcp-reset", "ECONNRESET"),
        ("host-unreachable", "EHOSTUNREACH"),
        ("net-unreachable", "ENETUNREACH"),
        ("port-unreachable", "ECONNREFUSED"),
        ("admin-prohibited", "EHOSTUNREACH"),
    ] {
        let setting = format!("fault.reject={kind}");
        ask(
            &["firewall-reject-sending", "--set", &setting, "--set", "sysctl.tcp_retries2=2"],
            &json!({"outcome": outcome, "server_state": "ESTABLISHED"}),
        );
    }
}

#[test]
fn an_idle_client_ignores_what_a_firewall_says() {
    ask(
        &[
            "firewall-reject-sending",
            "--set",
            "client.traffic=idle",
            "--set",
            "client.keepalive.enabled=true",
            "--set",
            "client.keepalive.idle=1s",
            "--set",
            "client.keepalive.interval=1s",
            "--set",
            "client.keepalive.probes=1",
        ],
        &json!({"outcome": "ETIMEDOUT"}),
    );
}

/// Runs a trial with the settings of its file: this is measured, and stands in the proof of its fault.
fn proves(name: &str, measured: &Value, proof: &str) {
    let trial = ask(&[name], measured);
    assert!(trial["proof"].to_string().contains(proof), "{trial:#}");
}

#[test]
fn a_router_that_forgets_is_met_by_what_comes_after() {
    for (name, outcome, proof) in [
        ("nat-forgets-idle", "ETIMEDOUT", "did not pass the router after that"),
        ("nat-forgets-keepalive-late", "ETIMEDOUT", "did not pass the router after that"),
        ("nat-forgets-keepalive-saves", "none", "0 did not"),
        ("nat-forgets-reset", "ECONNRESET", "which sent 1 resets"),
    ] {
        proves(name, &json!({"outcome": outcome, "server_state": "ESTABLISHED"}), proof);
    }
}

#[test]
fn a_host_that_takes_the_address_over_knows_no_connection() {
    for (name, outcome, proof) in [
        ("takeover-sending", "ECONNRESET", "the other host said that it has the address"),
        ("takeover-idle-keepalive", "ECONNRESET", "the other host said that it has the address"),
        ("takeover-pinned", "ETIMEDOUT", "the other host said that it has the address"),
    ] {
        proves(name, &json!({"outcome": outcome}), proof);
    }
}

#[test]
fn a_path_that_drops_some_packets_is_met_by_those() {
    for (name, outcome, proof) in [
        ("one-lost-probe-kills", "ETIMEDOUT", "of 2 segments to the server 1 did not arrive"),
        ("one-lost-probe-survived", "none", "to the server 1 did not arrive"),
        ("path-one-way-to-server", "ETIMEDOUT", "of 6 segments to the server 6 did not arrive"),
        ("path-one-way-to-client", "ETIMEDOUT", "of 6 segments to the server 0 did not arrive"),
        ("path-one-way-keepalive", "ETIMEDOUT", "of 3 segments to the client 3 did not arrive"),
        ("mtu-large-write", "ETIMEDOUT", "too long for a path of 1400 bytes and 1 not"),
        ("mtu-small-request", "none", "to the server, 0 too long for a path of 1400 bytes"),
        ("path-loses-a-few", "none", "to the server 4 did not arrive"),
        ("path-loses-a-third", "ETIMEDOUT", "of 10 segments to the server 4 did not arrive"),
    ] {
        proves(name, &json!({"outcome": outcome}), proof);
    }
}

#[test]
fn a_path_that_comes_back_loses_nothing() {
    let trial = ask(
        &["path-flap-sending", "--set", "fault.duration=1s", "--set", "deadline=4s"],
        &json!({"outcome": "none", "client_state": "ESTABLISHED", "server_state": "ESTABLISHED"}),
    );
    let proof = trial["proof"].to_string();
    assert!(proof.contains("bytes came back as sent"), "{proof}");
}

/// Each of several faults is told, proved and predicted from; what is told is the last one's.
#[test]
fn faults_follow_one_another() {
    let trial = ask(
        &["path-then-process-crash", "--set", "fault.2.after=3s"],
        &json!({"outcome": "EOF", "reference": "fault"}),
    );
    let parameters = &trial["parameters"];
    assert_eq!(parameters["fault.kind"], "flap");
    assert_eq!(parameters["fault.2.kind"], "process-crash");
    assert_eq!(parameters["fault.2.after"], "3s");
    let ended_s = trial["flows"][0]["measured"]["ended_s"].as_f64().unwrap();
    assert!(ended_s > 2.9, "counted from the first fault: {trial}");
    let proof = trial["proof"].to_string();
    for said in
        ["fault 1 (flap): the fault was over", "1 process of the server's program was killed"]
    {
        assert!(proof.contains(said), "{said}: {proof}");
    }
    let trial = ask(
        &["path-flaps-twice", "--set", "fault.2.after=3s", "--set", "deadline=8s"],
        &json!({"outcome": "none", "client_state": "ESTABLISHED"}),
    );
    let proof = trial["proof"].to_string();
    for said in ["fault 1 (flap): the fault was over", "fault 2 (flap): the fault was over"] {
        assert!(proof.contains(said), "{said}: {proof}");
    }
}

/// The path first, then the process: nothing comes from its kernel while the path is away, which comes back when
/// it should.
#[test]
fn a_process_dies_while_the_path_is_away() {
    let trial = ask(
        &["path-away-process-crash", "--set", "fault.duration=2500ms"],
        &json!({"outcome": "EOF"}),
    );
    let ended_s = trial["flows"][0]["measured"]["ended_s"].as_f64().unwrap();
    assert!(ended_s > 2.5, "{trial}");
    let proof = trial["proof"].to_string();
    for said in [
        "fault 1 (flap): the fault was over 2.5",
        "fault 2 (process-crash): 0 segments left the client and 0 arrived at the server; 0 came from it",
        "1 process of the server's program was killed",
    ] {
        assert!(proof.contains(said), "{said}: {proof}");
    }
    let write = ["--set", "client.traffic=one-write", "--set", "fault.duration=3s"];
    ask(
        &[&["path-away-process-crash"][..], &write].concat(),
        &json!({"outcome": "ECONNRESET", "reference": "first-write"}),
    );
}

/// No process has the socket when the second fault is over, and its FIN is acknowledged then.
#[test]
fn a_client_closes_while_the_path_is_away_for_the_second_time() {
    let close = ["--set", "client.traffic=script", "--set", "client.script=wait 5500ms; close"];
    let soon = ["--set", "sysctl.tcp_fin_timeout=2", "--set", "deadline=14s"];
    ask(
        &[&["path-flaps-twice"][..], &close, &soon].concat(),
        &json!({"outcome": "released", "reference": "close"}),
    );
}

#[test]
fn a_router_speaks_for_a_dead_server() {
    ask(
        &["host-crash-sending-behind-router", "--set", "sysctl.tcp_retries2=3"],
        &json!({"outcome": "EHOSTUNREACH", "reference": "first-write", "server_state": "gone"}),
    );
}

#[test]
fn ipv6_is_no_different() {
    let six = "family=ipv6";
    ask(
        &["host-crash-idle-keepalive", "--set", six, "--set", "client.keepalive.idle=1s"],
        &json!({"outcome": "ETIMEDOUT", "keepalive_probes_on_wire": 3}),
    );
    ask(&["process-crash-idle", "--set", six], &json!({"outcome": "EOF"}));
    ask(
        &["host-crash-sending", "--set", six, "--set", "sysctl.tcp_retries2=2"],
        &json!({"outcome": "ETIMEDOUT"}),
    );
}

#[test]
fn a_long_path_is_measured_by_the_client_itself() {
    let out = tempdir().unwrap();
    let (document, _) = trials(
        out.path(),
        &[
            "host-crash-sending-high-rtt",
            "--set",
            "path.rtt=100ms",
            "--set",
            "sysctl.tcp_retries2=2",
        ],
    );
    let trial = &document["trials"][0];
    check_trial(trial);
    let facts = out.path().join("host-crash-sending-high-rtt/facts.json");
    let facts: Value = serde_json::from_slice(&std::fs::read(facts).unwrap()).unwrap();
    let srtt_us = facts["tcp"]["srtt_us"].as_u64().unwrap();
    assert!((100_000..150_000).contains(&srtt_us), "{srtt_us}");
}

#[test]
fn connecting_and_closing_end_as_predicted() {
    let out = tempdir().unwrap();
    let expected = [
        ("close-frozen-server", json!({"outcome": "released", "reference": "close"})),
        ("close-frozen-server-61", json!({"outcome": "released", "server_state": "CLOSE_WAIT"})),
        ("close-host-crash", json!({"outcome": "released", "retransmits_on_wire": 5})),
        ("close-linger", json!({"outcome": "released", "retransmits_on_wire": 5})),
        (
            "connect-closed-port",
            json!({"outcome": "ECONNREFUSED", "reference": "fault", "rst_from_server": true}),
        ),
        (
            "connect-host-down",
            json!({"outcome": "ETIMEDOUT", "reference": "connect", "retransmits_on_wire": 5}),
        ),
        ("connect-no-such-neighbour", json!({"outcome": "EHOSTUNREACH", "retransmits_on_wire": 0})),
        ("connect-rejected", json!({"outcome": "EHOSTUNREACH", "retransmits_on_wire": 1})),
        ("connect-user-timeout", json!({"outcome": "ETIMEDOUT", "retransmits_on_wire": 1})),
        (
            "shutdown-host-crash",
            json!({"outcome": "ETIMEDOUT", "reference": "close", "retransmits_on_wire": 5}),
        ),
    ];
    let names: Vec<&str> = expected.iter().map(|(name, _)| *name).collect();
    let (document, _) = trials(out.path(), &names);
    for ((name, expected), trial) in expected.iter().zip(document["trials"].as_array().unwrap()) {
        assert_eq!(trial["experiment"], *name);
        check_trial(trial);
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&trial["measured"][key], value, "{name}, {key}: {trial:#}");
        }
    }
}

#[test]
fn a_web_server_closes_when_its_own_timer_ends() {
    if !has_nginx() {
        return;
    }
    let detected = |trial: &Value| trial["measured"]["detected_s"].as_f64().unwrap();
    let short = "nginx.keepalive_timeout=1s";
    let idle = ask(
        &["web-server-idle", "--set", short],
        &json!({"outcome": "EOF", "reference": "last-activity", "fin_from_server": true,
                "rst_from_server": false, "client_state": "CLOSE_WAIT"}),
    );
    assert!(detected(&idle) > 0.999, "{idle:#}");
    let again = ask(
        &["web-server-new-request", "--set", short, "--set", "fault.after=500ms"],
        &json!({"outcome": "EOF", "reference": "first-write", "fin_from_server": true}),
    );
    assert!(detected(&again) > 0.999, "{again:#}");
    let proof = again["proof"].to_string();
    assert!(proof.contains("bytes came back as sent"), "{proof}");
}

#[test]
fn a_web_server_is_killed_and_stopped_like_any_program() {
    if !has_nginx() {
        return;
    }
    ask(
        &["web-server-idle", "--set", "fault.kind=process-crash"],
        &json!({"outcome": "EOF", "reference": "fault", "fin_from_server": true}),
    );
    ask(
        &[
            "web-server-idle",
            "--set",
            "fault.kind=process-freeze",
            "--set",
            "nginx.keepalive_timeout=1s",
            "--set",
            "deadline=2s",
        ],
        &json!({"outcome": "none", "client_state": "ESTABLISHED", "fin_from_server": false}),
    );
}

#[test]
fn a_web_server_whose_client_is_lost_lets_go_and_its_kernel_does_not() {
    if !has_nginx() {
        return;
    }
    let trial = ask(
        &[
            "web-server-client-lost",
            "--set",
            "nginx.keepalive_timeout=1s",
            "--set",
            "sysctl.tcp_orphan_retries=1",
        ],
        &json!({"outcome": "released", "reference": "last-request", "client_state": "CLOSE",
                "server_state": "gone"}),
    );
    let time = |key: &str| trial["measured"][key].as_f64().unwrap();
    assert!(time("noticed_s") > 0.999, "{trial:#}");
    assert!(time("detected_s") > time("noticed_s") + 0.6, "the kernel goes on: {trial:#}");
}

/// The settings change while the server's host is still being taken apart.
#[test]
fn sysctls_change_right_after_the_fault() {
    let trial = ask(
        &["host-crash-sysctl-changed", "--set", "later.after=20ms"],
        &json!({"outcome": "ETIMEDOUT", "reference": "first-write"}),
    );
    assert_eq!(trial["parameters"]["later.after"], "20ms");
}

/// Of the programs that everybody uses nothing is there, a shell apart: each trial says what to type.
#[test]
fn what_is_not_installed_is_skipped_with_the_command_that_installs_it() {
    let (out, bare) = (tempdir().unwrap(), tempdir().unwrap());
    std::os::unix::fs::symlink("/bin/sh", bare.path().join("sh")).unwrap();
    let experiments = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments");
    let directories = ["programs", "proxies"].map(|name| experiments.join(name));
    let entries = directories.iter().flat_map(|path| std::fs::read_dir(path).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    let is_one = |path: &std::path::PathBuf| path.extension().is_some_and(|end| end == "toml");
    let files: Vec<_> = paths.filter(is_one).map(|path| path.display().to_string()).collect();
    let mut arguments = vec!["run", "--format", "json", "--out", out.path().to_str().unwrap()];
    arguments.extend(files.iter().map(String::as_str));
    let output =
        halfopen(&arguments).env("PATH", bare.path()).current_dir(bare.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", show(&output));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let trials = document["trials"].as_array().unwrap();
    assert!(trials.len() > files.len(), "those with their mend too: {}", trials.len());
    let installs = ["apt-get install ", "python3 -m pip install ", "cargo build "];
    for trial in trials {
        assert_eq!(trial["verdict"], "skipped", "{trial:#}");
        let (_, install) =
            trial["reason"].as_str().unwrap().split_once(" is not installed: ").unwrap();
        assert!(installs.iter().any(|start| install.starts_with(start)), "{install}");
    }
}
