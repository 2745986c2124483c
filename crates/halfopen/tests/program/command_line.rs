//! The command line as a contract: what it prints, what it refuses, its exit codes.

use crate::common::{halfopen, run, show, trials};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use tempfile::tempdir;

/// Runs it, expects a refusal with exit code 2 that says all of `complaints`, and nothing else.
fn refused(arguments: &[&str], complaints: &[&str]) {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", show(&output));
    assert!(output.stdout.is_empty(), "{}", show(&output));
    let said = String::from_utf8_lossy(&output.stderr);
    for complaint in complaints {
        assert!(said.contains(complaint), "{arguments:?} does not say {complaint:?}: {said}");
    }
}

/// In a user namespace that allows no further namespaces: what a machine looks like that forbids
/// them.
#[test]
fn where_namespaces_are_forbidden_trials_are_skipped_with_the_remedy() {
    let out = tempdir().unwrap();
    let forbid = "echo 0 >/proc/sys/user/max_user_namespaces && \
                  echo 0 >/proc/sys/user/max_net_namespaces && exec \"$@\"";
    let program = env!("CARGO_BIN_EXE_halfopen");
    let forbidden = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "sh", "-c", forbid, "sh", program]);
        command.args(arguments).output().expect("unshare (util-linux) can be started")
    };
    let place = out.path().to_str().unwrap();
    let names = ["host-crash-sending", "host-reboot-sending"];
    let output =
        forbidden(&[&["run", "--format", "json", "--out", place], names.as_slice()].concat());
    assert_eq!(output.status.code(), Some(4), "{}", show(&output));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for trial in document["trials"].as_array().unwrap() {
        assert_eq!(trial["verdict"], "skipped", "{trial:#}");
        assert!(
            trial["reason"].as_str().unwrap().contains("user.max_user_namespaces"),
            "{trial:#}"
        );
    }
    assert_eq!(document["trials"].as_array().unwrap().len(), names.len());
    let output = forbidden(&["doctor"]);
    assert_eq!(output.status.code(), Some(4), "{}", show(&output));
}

#[test]
fn every_experiment_has_a_recipe_of_its_name_and_is_listed() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let justfile = fs::read_to_string(format!("{root}/justfile")).unwrap();
    let listed = String::from_utf8(run(&["list"]).stdout).unwrap();
    let mut names = 0;
    for entry in fs::read_dir(format!("{root}/experiments")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue; // programs: `just programs` runs them all
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        names += 1;
        let recipe =
            format!("\n{name} *arguments: build\n    @scripts/halfopen run {name} \"$@\"\n");
        assert!(justfile.contains(&recipe), "justfile has no recipe {name}");
        let line = listed.lines().find(|line| line.split_whitespace().next() == Some(name));
        assert!(
            line.is_some_and(|line| line.ends_with('?')),
            "{name} is not listed with its question"
        );
    }
    let all = listed.lines().filter(|line| line.starts_with("  ")).count();
    assert_eq!(all, names, "nothing else is listed");
}

#[test]
fn mistakes_are_named_with_what_is_accepted() {
    refused(&["run", "host-crash-idle-keepalve"], &["host-crash-idle-keepalive"]);
    refused(&["run", "qwertyuiop"], &["qwertyuiop", "halfopen list"]);
    refused(&["run", "no/such/file.toml"], &["no/such/file.toml"]);
    refused(&["run"], &["NAME|FILE"]);
    refused(&["run", "host-crash"], &["`host-crash-sending`", "halfopen list"]);
    refused(&["host-crash-sending"], &["halfopen run host-crash-sending"]);
    refused(&["predict", "--clock", "virtual"], &["--clock", "predict", "--hz", "`run`"]);
    for (option, given) in [
        ("--repeat", "0"),
        ("--jobs", "0"),
        ("--jobs", "-1"),
        ("--repeat", "x"),
        ("--jobs", "5000"),
    ] {
        let said = [option, &format!("'{given}'"), "from 1 to 4000"];
        refused(&["run", "process-crash-idle", option, given], &said);
    }
    refused(&["predict", "--hz", "x"], &["--hz", "'x'", "from 1 to 10000"]);
    refused(
        &["predict", "--hz", "250", "--set", "client.rto_min=4ms"],
        &["client.rto_min", "4ms", "HZ 250", "up to 200ms"],
    );
    refused(&["run", "process-crash-idle", "--clock", "sundial"], &["sundial", "virtual"]);
    let set = |setting: &'static str, complaints: &[&str]| {
        refused(&["run", "host-crash-sending", "--set", setting], complaints);
        refused(&["predict", "host-crash-sending", "--set", setting], complaints);
    };
    set("client.trafic=idle", &["client.trafic", "client.traffic"]);
    set("client.traffic=loud", &["client.traffic", "loud", "one-write"]);
    set("deadline=5", &["deadline", "no unit"]);
    set("deadline=-5s", &["deadline", "negative"]);
    set("client.user_timeout=1000000h", &["client.user_timeout", "1000000h"]);
    set("sysctl.tcp_retires2=5", &["tcp_retires2", "tcp_retries2"]);
    set("sysctl.tcp_retries2=many", &["sysctl.tcp_retries2", "many", "0 to 255"]);
    set("fault.kind=unplug", &["unplug", "switch", "direct"]);
    set("novalue", &["novalue", "KEY=VALUE"]);
    refused(
        &["run", "host-crash-sending", "--set", "deadline=5s", "--set", "deadline=6s"],
        &["deadline", "given twice", "5s", "6s"],
    );
    refused(&["predict", "--format", "jsonl"], &["jsonl", "json", "human"]);
}

#[test]
fn an_argument_that_is_not_utf_8_is_named() {
    let output = halfopen(&["predict"]).arg(OsStr::from_bytes(b"f\xff")).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", show(&output));
    assert!(show(&output).contains("`f\u{fffd}` is not UTF-8"), "{}", show(&output));
}

#[test]
fn a_bad_file_is_shown_with_its_line() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("mine.toml");
    fs::write(&file, "question = \"x?\"\n[client]\nkeepalive = { enabled = true, idle = \"5\" }\n")
        .unwrap();
    let path = file.to_str().unwrap();
    refused(
        &["run", path],
        &["client.keepalive.idle", &format!("{path}:3"), "^^^", "whole seconds"],
    );
    fs::write(&file, "question = \"x?\"\n[client\n").unwrap();
    refused(&["run", path], &[&format!("{path}:2")]);
}

#[test]
fn an_unusable_output_directory_is_told_before_anything_runs() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    for out in [file.as_path(), &file.join("below"), "/proc/halfopen".as_ref()] {
        let started = std::time::Instant::now();
        let output = run(&["run", "host-crash-idle-keepalive", "--out", out.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(5), "{}", show(&output));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(out.to_str().unwrap()), "{said}");
        assert!(output.stdout.is_empty(), "nothing was run: {}", show(&output));
        assert!(started.elapsed().as_secs() < 5, "it was told before the trial, not after");
    }
}

#[test]
fn an_output_directory_may_exist_and_keeps_what_it_holds() {
    let directory = tempdir().unwrap();
    fs::write(directory.path().join("mine.txt"), "mine").unwrap();
    for _ in 0..2 {
        let (_, code) = trials(directory.path(), &["process-crash-idle"]);
        // A killed process runs late on a busy machine (3).
        assert!(matches!(code, 0 | 3), "{code}");
    }
    assert_eq!(fs::read_to_string(directory.path().join("mine.txt")).unwrap(), "mine");
    assert!(directory.path().join("process-crash-idle/verdict.json").is_file());
    assert!(directory.path().join("process-crash-idle-2/verdict.json").is_file());
}

#[test]
fn a_value_that_only_the_kernel_can_judge_is_bad_usage_too() {
    let directory = tempdir().unwrap();
    let out = directory.path().to_str().unwrap();
    let output = run(&["run", "process-crash-idle", "--set", "sysctl.tcp_rmem=abc", "--out", out]);
    assert_eq!(output.status.code(), Some(2), "{}", show(&output));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("sysctl.tcp_rmem") && said.contains("`abc`"), "{said}");
    assert_eq!(fs::read_dir(out).unwrap().count(), 0, "nothing half-made");
}

#[test]
fn a_deadline_before_the_fault_ends_is_refused_and_one_just_after_it_decides_nothing() {
    let directory = tempdir().unwrap();
    for command in ["run", "predict"] {
        let output = run(&[command, "path-flap-sending", "--set", "deadline=1s"]);
        assert_eq!(output.status.code(), Some(2), "{}", show(&output));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("`deadline`") && said.contains("the fault ends at 2s"), "{said}");
    }
    let settings = ["path-flap-sending", "--set", "deadline=2030ms"];
    let (document, code) = trials(directory.path(), &settings);
    assert_eq!(code, 3, "{document:#}");
    assert_eq!(document["trials"][0]["verdict"], "inconclusive");
}

#[test]
fn contradictions_are_refused_with_the_key_and_what_to_do() {
    for (arguments, complaints) in [
        (
            &["host-crash-idle-no-keepalive", "--set", "client.keepalive.idle=5s"][..],
            &["`client.keepalive.idle` matters only with `client.keepalive.enabled = true`"][..],
        ),
        (
            &["path-flap-sending", "--set", "fault.duration=12s", "--set", "deadline=2s"],
            &["`deadline`", "12s"],
        ),
        (&["host-crash-sending", "--set", "client.heartbeat.interval=2s"], &["`heartbeat`"]),
        (&["host-crash-sending", "--set", "client.linger=2s"], &["`close`"]),
        (&["host-crash-sending", "--set", "fault.new_mac=true"], &["`reboot`"]),
        (&["host-crash-sending", "--set", "fault.kind=poweroff"], &["is it `power-off`?"]),
        (&["host-crash-sending", "--set", "traffic=idle"], &["is it `client.traffic`?"]),
    ] {
        let output = run(&[&["run"], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", show(&output));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(complaints.iter().all(|complaint| said.contains(complaint)), "{said}");
    }
}

#[test]
fn files_that_contradict_themselves_are_refused() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("mine.toml");
    for (text, complaint) in [
        ("question = \"x\"\n[client]\ntraffic = \"idle\"\n", "names no fault"),
        ("question = \"x\"\n[client]\ntraffic = idle\n", "needs quotes: `\"idle\"`"),
        ("question = \"x\"\nclaims = [\"B11\"]\n[fault]\nkind = \"none\"\n", "no claim `B11`"),
        (
            "question = \"x\"\n[client]\nkeepalive = { idle = \"5s\" }\n[fault]\nkind = \"power-off\"\n",
            "`client.keepalive.enabled = true`",
        ),
    ] {
        fs::write(&file, text).unwrap();
        let output = run(&["run", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{text}: {}", show(&output));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(complaint), "{text}: {said}");
    }
}

#[test]
fn a_full_standard_output_is_an_unwritable_output() {
    let directory = tempdir().unwrap();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = crate::common::halfopen(&["run", "process-crash-idle", "--out"])
        .arg(directory.path())
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", show(&output));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.matches("standard output").count(), 1, "{said}");
}

#[test]
fn a_pipe_gets_plain_lines() {
    let directory = tempdir().unwrap();
    let out = directory.path().to_str().unwrap();
    // A killed process would run late on a busy machine.
    let output =
        run(&["run", "host-crash-idle-no-keepalive", "--set", "deadline=1s", "--out", out]);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains('\x1b') && !text.contains('\r'), "{text:?}");
    for part in [
        "predicted",
        "nothing told",
        "client",
        "wire",
        "server",
        "SYN",
        "agrees",
        "host-crash-idle-no-keepalive",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn recorded_trials_are_judged_again_without_privileges() {
    let directory = tempdir().unwrap();
    let (document, code) =
        trials(directory.path(), &["process-crash-idle", "process-crash-unread"]);
    let output = run(&["judge", directory.path().to_str().unwrap(), "--format", "json"]);
    assert_eq!(output.status.code(), Some(code), "{}", show(&output));
    let again: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for (number, trial) in again["trials"].as_array().unwrap().iter().enumerate() {
        let name = &trial["experiment"];
        let first = document["trials"].as_array().unwrap();
        let first = first.iter().find(|first| first["experiment"] == *name).unwrap();
        for key in ["verdict", "reason", "measured", "prediction", "parameters"] {
            assert_eq!(trial[key], first[key], "{key} of trial {number}");
        }
    }

    // A prediction of something else is not agreed with.
    let path = directory.path().join("process-crash-idle/prediction.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"EOF\"", "\"ETIMEDOUT\"")).unwrap();
    let output = run(&["judge", directory.path().join("process-crash-idle").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));

    refused(&["judge", "/nowhere"], &["/nowhere"]);
    fs::write(directory.path().join("process-crash-unread/timeline.jsonl"), "{}\n").unwrap();
    let broken = directory.path().join("process-crash-unread");
    refused(&["judge", broken.to_str().unwrap()], &["timeline.jsonl", "line 1"]);
}

/// Trials as `run` leaves them, of both clocks, the middle one damaged.
#[test]
fn one_damaged_trial_among_those_of_several_kernels_is_named_and_the_others_are_judged() {
    let directory = tempdir().unwrap();
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("../verdict/tests/recorded");
    for (name, clock, kernel) in [
        ("host-reboot-sending", "real", "6.18.44"),
        ("process-crash-idle", "real", "6.18.44"),
        ("process-crash-unread", "virtual", "6.12.90"),
    ] {
        let trial = directory.path().join(name);
        fs::create_dir(&trial).unwrap();
        for file in fs::read_dir(recorded.join(name)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), trial.join(file.file_name())).unwrap();
        }
        let ran = serde_json::json!({
            "clock": clock, "kernel": kernel, "hz": 250, "ending": "complete"
        });
        fs::write(trial.join("trial.json"), ran.to_string()).unwrap();
    }
    let judge =
        |format: &str| run(&["judge", directory.path().to_str().unwrap(), "--format", format]);
    let whole = judge("human");
    let text = String::from_utf8(whole.stdout.clone()).unwrap();
    assert_eq!(whole.status.code(), Some(0), "{}", show(&whole));
    let both = "kernel 6.18.44 · HZ 250 · real clock, kernel 6.12.90 · HZ 250 · virtual clock";
    assert!(text.contains(both), "{text}");

    fs::write(directory.path().join("process-crash-idle/timeline.jsonl"), "{}\n").unwrap();
    let output = judge("json");
    assert_eq!(output.status.code(), Some(2), "{}", show(&output));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("process-crash-idle/timeline.jsonl"), "{said}");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let trials = document["trials"].as_array().unwrap().iter();
    let ran_on: Vec<_> = trials.map(|t| [&t["experiment"], &t["kernel"], &t["clock"]]).collect();
    assert_eq!(
        ran_on,
        [
            ["host-reboot-sending", "6.18.44", "real"],
            ["process-crash-unread", "6.12.90", "virtual"]
        ]
    );
    assert_eq!(document["lost"]["trials"], 1, "{document:#}");
    let shown = judge("human");
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(text.contains("process-crash-unread") && text.contains("2 agree"), "{text}");
    assert_eq!(shown.status.code(), Some(2), "{}", show(&shown));
}

#[test]
fn predict_needs_no_privileges_and_gives_data() {
    let output = run(&["predict", "--defaults", "--hz", "250", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["schema"], "halfopen/predict/1");
    assert_eq!(document["hz"], 250);
    assert!(document["prediction"]["earliest_s"].as_f64().unwrap() >= 924.6);
    let steps = document["schedule"].as_array().unwrap();
    assert!(steps.len() >= 16, "a tail loss probe and fifteen retransmissions: {}", steps.len());
}

#[test]
fn a_sweep_is_every_combination() {
    let sweep = ["--set", "sysctl.tcp_retries2=3..5", "--set", "client.user_timeout=5s,off"];
    let output = run(&[&["predict", "--hz", "250", "--format", "json"], &sweep[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let points = document["points"].as_array().unwrap();
    let retries = |point: &serde_json::Value| point["parameters"]["sysctl.tcp_retries2"].as_u64();
    let all: Vec<_> = points.iter().map(|point| retries(point).unwrap()).collect();
    assert_eq!(all, [3, 3, 4, 4, 5, 5]);
    let output = run(&["predict", "--set", "fault.after=1s..2s"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("has no step"), "{}", show(&output));
}

#[test]
fn a_matrix_in_a_file_is_swept_and_what_is_asked_for_comes_first() {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    let text = "question = \"?\"\n[fault]\nkind = \"power-off\"\n[client]\ntraffic = \
                \"one-write\"\n[matrix]\nsysctl.tcp_retries2 = \"1..3\"\nclient.user_timeout = \
                [\"off\", \"4s\"]\n";
    std::fs::write(file.path(), text).unwrap();
    let path = file.path().to_str().unwrap();
    let points = |more: &[&str]| {
        let output = run(&[&["predict", path, "--format", "json"], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", show(&output));
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        document["points"].as_array().unwrap().len()
    };
    assert_eq!(points(&[]), 6);
    assert_eq!(points(&["--set", "sysctl.tcp_retries2=7"]), 2);
}

#[test]
fn doctor_finds_this_machine_able() {
    let output = run(&["doctor"]);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["kernel", "sandbox", "switch, ipv4", "packet sockets", "socket diagnostics"] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn a_file_and_a_key_are_shown_and_a_wrong_one_is_told_what_it_may_mean() {
    let shown = run(&["show", "host-crash-sending"]);
    let file = include_bytes!("../../../../experiments/host-crash-sending.toml");
    assert_eq!(shown.stdout, file, "{}", show(&shown));
    let explained = run(&["explain", "client.user_timeout"]);
    let text = String::from_utf8(explained.stdout).unwrap();
    assert!(text.contains("TCP_USER_TIMEOUT") && text.contains("from `1ms`"), "{text}");
    for (command, meant) in [
        (["show", "host-crash-sendin"], "is it `host-crash-sending`?"),
        (["explain", "client.user_timout"], "is it `client.user_timeout`?"),
    ] {
        let output = run(&command);
        assert_eq!(output.status.code(), Some(2), "{}", show(&output));
        assert!(show(&output).contains(meant), "{}", show(&output));
    }
}
