//! `halfopen advise`: what it chooses is proven, and reaches a socket as it is written for it.

use crate::audit::lines;
use crate::common::{run, show, trials};
use serde_json::Value;
use std::fs::{self, DirEntry};
use std::path::Path;

pub(crate) fn advise(arguments: &[&str]) -> (Value, i32) {
    let mut all = vec!["advise", "--format", "json"];
    all.extend(arguments);
    let output = run(&all);
    let document = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("no JSON ({error}): {}", show(&output)));
    (document, output.status.code().expect("it exits by itself"))
}

#[test]
fn the_document_has_what_the_contract_names() {
    let (document, code) =
        advise(&["--detect", "10s", "--survive", "3s", "--no-prove", "--for", "all"]);
    assert_eq!(code, 0);
    assert_eq!(document["schema"], "halfopen/advise/1");
    assert_eq!(document["possible"], true);
    let options = &document["options"];
    for key in ["keepidle_s", "keepintvl_s", "keepcnt", "user_timeout_ms"] {
        assert!(options[key].is_u64(), "{options}");
    }
    for (key, most) in [("idle_s", 10.0), ("sending_s", 10.0)] {
        assert!(document["worst"][key].as_f64().is_some_and(|worst| worst <= most), "{document}");
        assert!(
            document["survived"][key].as_f64().is_some_and(|longest| longest >= 3.0),
            "{document}"
        );
    }
    assert!(document["cost"]["probes_per_hour_idle"].as_f64().is_some_and(|n| n > 0.0));
    assert_eq!(document["proof"], Value::Array(Vec::new()));
    // node's interval and probes are fixed: ten seconds alone.
    assert_eq!(document["snippets"]["node"], "", "{document}");
    let snippets = document["snippets"].as_object().unwrap();
    assert!(snippets.len() >= 20, "{snippets:?}");
    let placeholder = |text: &Value| {
        text.as_str().is_some_and(|text| text.contains("_s}") || text.contains("_ms}"))
    };
    assert!(!snippets.values().any(placeholder), "{snippets:?}");
}

#[test]
fn what_no_option_can_do_has_a_nearest() {
    let (document, code) = advise(&["--detect", "5s", "--survive", "3s", "--traffic", "idle"]);
    assert_eq!((code, &document["possible"]), (4, &Value::Bool(false)));
    assert!(document["nearest"]["detect_s"].as_f64().is_some_and(|s| s > 5.0), "{document}");
    assert!(document["nearest"]["survive_s"].as_f64().is_some_and(|s| s < 3.0), "{document}");
    assert!(document["why"].as_str().is_some_and(|why| why.contains("seconds")), "{document}");
}

#[test]
fn the_path_and_the_kernel_matter() {
    let of =
        |settings: &[&str]| advise(&[&["--no-prove", "--detect", "10s"][..], settings].concat()).0;
    // TCP_RTO_MAX_MS is of Linux 6.15.
    let sending = ["--survive", "7s", "--traffic", "sending", "--kernel"];
    assert_eq!(of(&[&sending[..], &["6.12"]].concat())["possible"], false);
    let newer = of(&[&sending[..], &["6.15"]].concat());
    assert_eq!(newer["options"]["rto_max_ms"], 1000, "{newer}");
    assert_eq!(newer["sysctl"], serde_json::json!({}));
    // Where a program cannot set it, a sysctl can.
    let newer = of(&[&sending[..], &["6.15", "--for", "rust,java"]].concat());
    assert_eq!(newer["sysctl"]["tcp_rto_max_ms"], 1000, "{newer}");
    assert!(newer["sysctl"]["tcp_retries2"].is_u64(), "{newer}");
    assert_eq!(newer["ecosystems"]["rust"]["sysctl"], serde_json::json!({"tcp_rto_max_ms": 1000}));

    let any = |more: &[&str]| of(&[&["--survive", "3s", "--kernel", "6.12"][..], more].concat());
    let (near, far) = (any(&["--hz", "250"]), any(&["--hz", "250", "--rtt", "1s"]));
    let timeout_ms = |document: &Value| document["options"]["user_timeout_ms"].as_u64().unwrap();
    assert!(timeout_ms(&far) + 1000 < timeout_ms(&near), "{near} {far}");
    let worst_s = |document: &Value| document["worst"]["idle_s"].as_f64().unwrap();
    // The wheel's slots are coarser.
    assert!(worst_s(&any(&["--hz", "1000"])) + 0.05 < worst_s(&any(&["--hz", "100"])));
}

#[test]
fn what_is_asked_wrongly_is_named() {
    for (arguments, named) in [
        (&["--detect", "0s"][..], "longer than 0 s"),
        (&["--detect", "10s", "--for", "pythn"], "is it `python`?"),
        (&["--detect", "10s", "--behind", "aws"], "aws-nlb"),
        (&["--detect", "10s", "--kernel", "new"], "6.12"),
        (&["--explain", "keepalive=1/2"], "IDLE/INTERVAL/PROBES"),
        (&["--explain", "user_timeout=5s,user_timeout=6s"], "twice"),
        (&["--review", "nothing"], "libpq"),
        (&[], "--detect"),
    ] {
        let mut all = vec!["advise"];
        all.extend(arguments);
        let output = run(&all);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", show(&output));
        assert!(said.contains(named), "{arguments:?}: {said}");
    }
}

#[test]
fn a_setting_is_explained_and_reviewed() {
    let (document, code) = advise(&["--explain", "keepalive=5/2/3,user_timeout=4s"]);
    assert_eq!(code, 0);
    assert!(document["idle"]["latest_s"].as_f64().is_some_and(|s| s > 7.0), "{document}");
    let (document, code) = advise(&["--review", "postgres://h/d?keepalives=0&tcp_user_timeout=5"]);
    assert_eq!(code, 0);
    let libpq = &document["readings"][0];
    assert_eq!(libpq["options"]["user_timeout_ms"], 5, "{document}");
    let findings = libpq["findings"].as_array().unwrap();
    assert!(findings.iter().any(|f| f["kind"] == "dangerous"), "{document}");
    assert_eq!(document["readings"][1]["options"]["user_timeout_ms"], 5000, "{document}");
}

/// What a review finds is what a trial shows: its commands run, and agree.
#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn what_a_review_finds_can_be_shown() {
    let mut shown = 0;
    for text in [
        "postgres://h/d?keepalives=0&tcp_user_timeout=5",
        "postgres://h/d?keepalives_idle=5&keepalives_interval=2&tcp_user_timeout=11000",
        "postgres://h/d?tcp_user_timeout=5000",
        "listen 443 so_keepalive=30m::10;",
        "option srvtcpka\nsrvtcpka-idle 10s\nserver a b tcp-ut 30s",
        "tcp-keepalive 60",
        "ClientAliveInterval 15",
        "tcp_keepidle = 5\ntcp_user_timeout = 100",
        "jdbc:mysql://h/d?tcpKeepAlive=false",
    ] {
        let (document, code) = advise(&["--behind", "350s", "--hz", "250", "--review", text]);
        assert_eq!(code, 0, "{text}: {document}");
        for reading in document["readings"].as_array().unwrap() {
            for finding in reading["findings"].as_array().unwrap() {
                let Some(command) = finding["shown_by"].as_str() else { continue };
                let words: Vec<_> = command.split(' ').skip(2).collect();
                let out = tempfile::tempdir().unwrap();
                let (document, code) = trials(out.path(), &words);
                assert_eq!(code, 0, "{text}: {finding}: {document}");
                assert_eq!(document["trials"][0]["verdict"], "agrees", "{finding}: {document}");
                shown += 1;
            }
        }
    }
    assert!(shown >= 15, "{shown}");
}

/// An outage of 4 s that an idle connection survives at one moment, and not at the worst.
fn worst_moment(clock: &str) {
    let run = |moment: &[&str]| {
        let out = tempfile::tempdir().unwrap();
        let outage = [
            "path-flap-sending",
            "--set",
            "client.traffic=idle",
            "--set",
            "client.keepalive.enabled=true",
            "--set",
            "client.keepalive.idle=4s",
            "--set",
            "client.keepalive.interval=1s",
            "--set",
            "client.keepalive.probes=3",
            "--set",
            "fault.duration=4s",
            "--set",
            "require.survives=true",
            "--clock",
            clock,
        ];
        let (document, code) = trials(out.path(), &[&outage[..], moment].concat());
        let all = document["trials"].as_array().unwrap();
        assert!(all.iter().all(|trial| trial["verdict"] != "disagrees"), "{document}");
        (document, code, longest_outage_s(out.path()))
    };
    // A machine whose interfaces are busy ends it late.
    let (document, code, lasted) = run(&["--set", "fault.after=200ms"]);
    assert_eq!(code, if lasted < 6.7 { 0 } else { 6 }, "{lasted} s: {document}");
    let (document, code, lasted) = run(&["--worst"]);
    assert_eq!(code, 6, "{lasted} s: {document}");
    let all = document["trials"].as_array().unwrap();
    let unmet = all.iter().find(|trial| trial["requirements"][0]["met"] == false).unwrap();
    assert_eq!(unmet["measured"]["outcome"], "ETIMEDOUT", "{unmet}");
}

/// How long the longest outage of all trials below a directory was in force, seconds.
fn longest_outage_s(out: &Path) -> f64 {
    let lasted = |trial: DirEntry| {
        let events = lines(&trial.path().join("timeline.jsonl"));
        let at_ns = |what: &str| {
            let event = events.iter().find(|event| event["what"]["fault"] == what);
            event.unwrap_or_else(|| panic!("no {what}: {events:?}"))["at_ns"].as_f64().unwrap()
        };
        (at_ns("restored") - at_ns("complete")) / 1e9
    };
    let found = fs::read_dir(out).unwrap().map(Result::unwrap);
    found
        .filter(|entry| entry.path().join("timeline.jsonl").exists())
        .map(lasted)
        .fold(0.0, f64::max)
}

#[test]
fn the_worst_moment_of_an_outage_is_found() {
    worst_moment("real");
}

#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn the_worst_moment_of_an_outage_is_found_in_virtual_time() {
    worst_moment("virtual");
}

#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn what_is_chosen_is_proven() {
    for demand in [
        &["--detect", "10s", "--survive", "3s"][..],
        &["--detect", "4s", "--survive", "3s", "--traffic", "sending", "--kernel", "6.12"],
        &["--detect", "10m", "--behind", "azure", "--traffic", "idle"],
        &["--detect", "30s", "--survive", "5s", "--rtt", "100ms"],
        // By sysctls, where these cannot.
        &["--detect", "20s", "--survive", "2s", "--kernel", "6.12", "--for", "redis,jdbc"],
        // No tcp_retries2 can: that is said, and not tried.
        &["--detect", "6s", "--survive", "2s", "--kernel", "6.12", "--for", "java"],
    ] {
        let out = tempfile::tempdir().unwrap();
        let mut all = demand.to_vec();
        all.extend(["--hz", "250", "--out", out.path().to_str().unwrap()]);
        let (document, code) = advise(&all);
        assert_eq!(code, 0, "{demand:?}: {document}");
        let proof = document["proof"].as_array().unwrap();
        assert!(proof.len() >= 2, "{demand:?}: {document}");
        for (name, value) in document["sysctl"].as_object().unwrap() {
            let key = format!("sysctl.{name}");
            let is_proven = |trial: &Value| trial["parameters"][&key] == *value;
            assert!(proof.iter().any(is_proven), "{demand:?}, {key}: {document}");
        }
        for trial in proof {
            assert_eq!(trial["verdict"], "agrees", "{demand:?}: {trial}");
            assert_eq!(trial["requirements"][0]["met"], true, "{demand:?}: {trial}");
        }
    }
}
