//! What trials leave: streamed, numbered, grouped, and each by itself.

use crate::common::{halfopen, run, show, trials};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use tempfile::tempdir;

/// The same trials give the same lines as the document has objects.
#[test]
fn each_trial_is_a_line_as_it_ends() {
    let out = tempdir().unwrap();
    let output = halfopen(&["run", "process-crash-idle", "process-crash-unread", "--out"])
        .arg(out.path())
        .args(["--repeat", "2", "--format", "jsonl"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4, "{}", show(&output));
    let document = fs::read(out.path().join("run/run.json")).unwrap();
    let document: Value = serde_json::from_slice(&document).unwrap();
    for line in &lines {
        let mut line = line.clone();
        let trial = line.as_object_mut().unwrap();
        assert_eq!(trial.remove("schema").unwrap(), document["schema"]);
        for key in ["kernel", "hz", "clock"] {
            assert_eq!(trial[key], document[key], "{key}");
        }
        assert!(document["trials"].as_array().unwrap().contains(&line), "{line:#}");
    }

    let judged = run(&["judge", "--format", "jsonl", out.path().to_str().unwrap()]);
    assert_eq!(judged.status, output.status, "{}", show(&judged));
    let again: BTreeSet<_> = String::from_utf8_lossy(&judged.stdout)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap().to_string())
        .collect();
    assert_eq!(again, lines.iter().map(Value::to_string).collect::<BTreeSet<_>>());
}

#[test]
fn a_trial_has_one_number_everywhere_and_a_key_of_its_own() {
    let out = tempdir().unwrap();
    let names = ["process-crash-idle", "process-crash-unread", "--repeat", "2"];
    let (document, _) = trials(out.path(), &names);
    // A second run into the same directory goes on counting.
    let (again, _) = trials(out.path(), &names);
    let all = |document: &Value| document["trials"].as_array().unwrap().clone();
    let shown = fs::read_to_string(out.path().join("run-2/junit.xml")).unwrap();
    for (trial, expected) in all(&document).iter().chain(&all(&again)).zip([1, 2, 1, 2, 3, 4, 3, 4])
    {
        assert_eq!(trial["number"], expected, "{trial:#}");
        let name = trial["experiment"].as_str().unwrap();
        let directory = if expected == 1 { name.into() } else { format!("{name}-{expected}") };
        assert!(trial["artifacts"].as_str().unwrap().ends_with(&format!("/{directory}")));
        let path = out.path().join(directory).join("trial.json");
        let file: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        assert_eq!((&file["number"], &file["key"]), (&trial["number"], &trial["key"]));
    }
    assert!(shown.contains("\"trial 3\"") && !shown.contains("\"trial 1\""), "{shown}");
    let keys = |document: &Value| -> Vec<_> {
        all(document).iter().map(|trial| trial["key"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(keys(&document), keys(&again), "a key is the trial's, not the run's");
    assert_eq!(keys(&document).into_iter().collect::<BTreeSet<_>>().len(), 4);

    let judged = run(&["judge", out.path().to_str().unwrap()]);
    let text = String::from_utf8(judged.stdout).unwrap();
    assert!(text.contains("process-crash-idle-4\n"), "each trial has its name: {text}");
    assert!(text.contains("process-crash-idle ×4"), "{text}");
}

#[test]
fn groups_have_their_figures() {
    let out = tempdir().unwrap();
    let (document, _) = trials(out.path(), &["process-crash-idle", "--repeat", "4"]);
    let group = &document["groups"][0];
    assert_eq!(group["trials"], 4, "{group:#}");
    let mut times: Vec<_> = document["trials"]
        .as_array()
        .unwrap()
        .iter()
        .map(|trial| trial["measured"]["detected_s"].as_f64().unwrap())
        .collect();
    times.sort_by(f64::total_cmp);
    let figure = |key: &str| group[key].as_f64().unwrap();
    assert_eq!((figure("least_s"), figure("most_s")), (times[0], times[3]));
    assert!((figure("median_s") - f64::midpoint(times[1], times[2])).abs() < 1e-6, "{group:#}");
    let summary = fs::read_to_string(out.path().join("run/summary.md")).unwrap();
    assert!(summary.contains("median"), "{summary}");
}

/// A file system so small that not every trial's files fit: those that do are there, the others
/// fail one by one, and all are in the document.
#[test]
fn a_trial_that_cannot_be_written_fails_alone() {
    let out = tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=600k tmpfs \"$1\" && exec \"$2\" run process-crash-idle \
                 --repeat 8 --jobs 1 --format json --out \"$1\"";
    let user: &[&str] =
        if nix::unistd::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
    let output = Command::new("unshare")
        .args(user)
        .args(["--mount", "sh", "-c", mount, "sh"])
        .arg(out.path())
        .arg(env!("CARGO_BIN_EXE_halfopen"))
        .output()
        .expect("unshare (util-linux) can be started");
    assert_eq!(output.status.code(), Some(5), "{}", show(&output));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let trials = document["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 8, "{}", show(&output));
    let failed: Vec<_> = trials.iter().filter(|trial| !trial["failure"].is_null()).collect();
    assert!(!failed.is_empty() && failed.len() < 8, "{} of 8 failed", failed.len());
    for trial in failed {
        assert!(trial["failure"].as_str().unwrap().contains("No space left"), "{trial:#}");
        assert!(trial["artifacts"].is_null(), "{trial:#}");
        assert!(!trial["measured"]["outcome"].is_null(), "it was judged all the same: {trial:#}");
    }
    let group = &document["groups"][0];
    let count = |key: &str| group[key].as_u64().unwrap();
    // A machine that is busy with other things may decide nothing about some.
    assert_eq!(count("agree") + count("failed") + count("inconclusive"), 8, "{group:#}");
}

/// Every file of a trial names its schema and has the contract's form; settings are numbers and
/// truth values where they are, and those in force.
#[test]
fn a_trial_s_files_have_schemas_and_one_form() {
    let out = tempdir().unwrap();
    let settings = ["host-alive-keepalive", "--set", "client.keepalive.idle=off"];
    let deadline = ["--set", "deadline=500ms", "--set", "sysctl.tcp_keepalive_time=300"];
    let (document, _) = trials(out.path(), &[&settings[..], &deadline].concat());
    let trial = &document["trials"][0];
    let parameters = &trial["parameters"];
    assert_eq!(parameters["client.keepalive.enabled"], true);
    assert_eq!(parameters["client.keepalive.idle"], "300s", "the sysctl's");
    assert_eq!(parameters["sysctl.tcp_keepalive_time"], 300);
    assert!(parameters["client.heartbeat.interval"].is_null(), "it has no heartbeat");

    let directory = out.path().join("host-alive-keepalive");
    let read = |name: &str| -> Value {
        let text = fs::read_to_string(directory.join(name)).unwrap();
        // The first line of a timeline, all of the others.
        let text = if name == "timeline.jsonl" { text.lines().next().unwrap() } else { &text };
        serde_json::from_str(text).unwrap()
    };
    for name in ["experiment", "facts", "prediction", "verdict", "trial", "timeline"] {
        let ending = if name == "timeline" { "jsonl" } else { "json" };
        let schema = format!("halfopen/{name}/1");
        assert_eq!(read(&format!("{name}.{ending}"))["schema"], schema.as_str());
    }
    let prediction = read("prediction.json");
    assert_eq!(prediction["reference"], trial["prediction"]["reference"]);
    assert_eq!(prediction["windows"][0]["outcome"], "none");
    assert_eq!(read("trial.json")["ending"], "complete");
    assert_eq!(read("experiment.json")["parameters"]["deadline"], "500ms");
}

#[test]
fn the_experiments_are_listed_for_programs_in_the_same_order() {
    let text = String::from_utf8(run(&["list"]).stdout).unwrap();
    let members = text.lines().filter_map(|line| line.strip_prefix("  "));
    let names: Vec<_> = members.filter_map(|line| line.split_whitespace().next()).collect();
    let output = run(&["list", "--format", "json"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["schema"], "halfopen/list/1");
    let listed = document["experiments"].as_array().unwrap();
    assert_eq!(listed.iter().map(|one| one["name"].as_str().unwrap()).collect::<Vec<_>>(), names);
    assert!(listed.iter().all(|one| one["question"].as_str().unwrap().ends_with('?')));
}

/// A sweep that is killed on the way goes on where it was: nothing that has ended is repeated, and
/// what a part lacks is said.
#[test]
fn a_killed_sweep_goes_on_and_its_parts_are_joined() {
    let out = tempfile::tempdir().unwrap();
    let sweep = ["process-crash-idle", "--set", "fault.after=100ms..400ms/100ms", "--repeat", "3"];
    let slowly = [&sweep[..], &["--jobs", "2", "--resume"]].concat();
    let mark = format!("{}-sweep", std::process::id());
    let mut child = crate::nothing_left::start(&mark, out.path(), &slowly);
    let whole = || {
        let entries = std::fs::read_dir(out.path()).unwrap().flatten();
        let trials = entries.map(|entry| entry.path().join("trial.json"));
        trials.filter(|path| path.is_file()).collect::<std::collections::BTreeSet<_>>()
    };
    while whole().len() < 3 {
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = whole();
    assert!(before.len() < 12, "all had ended");
    let path = out.path().to_str().unwrap();

    let merged = run(&["merge", "--format", "json", path]);
    assert_eq!(merged.status.code(), Some(3), "{}", show(&merged));
    let merged: Value = serde_json::from_slice(&merged.stdout).unwrap();
    assert_eq!(merged["not_started"], 12 - before.len());

    let (document, code) = trials(out.path(), &[&sweep[..], &["--resume"]].concat());
    assert!([0, 3].contains(&code), "{code}: {document}");
    assert_eq!(document["trials"].as_array().unwrap().len(), 12);
    let after = whole();
    assert_eq!((after.len(), after.is_superset(&before)), (12, true));

    let merged = run(&["merge", "--format", "json", path]);
    let merged: Value = serde_json::from_slice(&merged.stdout).unwrap();
    assert_eq!(
        (merged["trials"].as_array().unwrap().len(), &merged["not_started"]),
        (12, &Value::from(0))
    );
}

#[test]
fn what_is_not_saved_is_only_printed() {
    let place = tempdir().unwrap();
    let ran = |arguments: &[&str]| {
        let both = ["run", "process-crash-idle", "process-crash-unread", "--no-save"];
        let mut command = halfopen(&[&both[..], arguments].concat());
        command.current_dir(place.path()).env("TMPDIR", place.path()).output().unwrap()
    };
    let output = ran(&["--format", "json"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", show(&output));
    });
    for trial in document["trials"].as_array().unwrap() {
        assert!(trial["measured"].is_object() && trial["artifacts"].is_null(), "{trial:#}");
    }
    assert!(!show(&ran(&[])).contains("evidence"), "there is none to look at");
    for contradiction in [&["--out", "x"][..], &["--resume"], &["--partition", "1/2"]] {
        let output = ran(contradiction);
        assert_eq!(output.status.code(), Some(2), "{}", show(&output));
        assert!(show(&output).contains("--no-save"), "{}", show(&output));
    }
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}
