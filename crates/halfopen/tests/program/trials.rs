//! Trials on the real kernel: each experiment's question, asked with short settings, answered as
//! the model predicted and by the way it should be.

use crate::common::trials;
use serde_json::{Value, json};
use tempfile::tempdir;

/// What must hold for every trial that agrees, whatever it asks.
fn check_trial(trial: &Value) {
    assert_eq!(trial["verdict"], "agrees", "{trial:#}");
    assert_eq!(trial["reason"], "", "{trial:#}");
    let measured = &trial["measured"];
    let rto = measured["rto_ms_at_fault"].as_u64().expect("the RTO is known before the fault");
    assert!((200..1000).contains(&rto), "{rto}");
    let directory = std::path::Path::new(trial["artifacts"].as_str().unwrap());
    for file in [
        "experiment.json",
        "facts.json",
        "prediction.json",
        "timeline.jsonl",
        "verdict.json",
        "capture.pcapng",
    ] {
        assert!(directory.join(file).is_file(), "{file} of {}", directory.display());
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
    assert_eq!(code, 0);
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
