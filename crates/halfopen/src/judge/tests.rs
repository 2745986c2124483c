//! Recorded trials come from anybody, whatever their files hold.

use super::*;
use proptest::prelude::*;
use serde_json::Value;
use std::fs;

const RECORDED: [&str; 10] = [
    "exec-writes",
    "host-alive-keepalive",
    "host-crash-idle-keepalive",
    "host-crash-sending-user-timeout",
    "host-reboot-idle-late",
    "host-reboot-sending",
    "process-crash-idle",
    "process-crash-unread",
    "script-write-then-close",
    "zero-window-alive",
];
const FILES: [&str; 6] = [
    "experiment.json",
    "facts.json",
    "prediction.json",
    "timeline.jsonl",
    "trial.json",
    "verdict.json",
];

/// A file of a recorded trial, where it has one.
fn recorded(trial: &str, file: &str) -> Option<String> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../verdict/tests/recorded");
    let found = fs::read_to_string(Path::new(directory).join(trial).join(file)).ok();
    let complete = || r#"{"clock": "real", "ending": "complete"}"#.to_owned();
    found.or_else(|| (file == "trial.json").then(complete))
}

/// A recorded trial, the name of one of its files, and what that holds instead.
fn foreign() -> impl Strategy<Value = (&'static str, &'static str, String)> {
    (prop::sample::select(&RECORDED[..]), prop::sample::select(&FILES[..])).prop_flat_map(
        |(trial, file)| {
            let sample = recorded(trial, file).unwrap_or_else(|| "{}".into());
            let altered = if file == "timeline.jsonl" {
                let lines = sample.lines().map(|line| serde_json::from_str(line).unwrap());
                damage::document(Value::Array(lines.collect()))
                    .prop_map(|lines| one_a_line(&lines))
                    .boxed()
            } else {
                let document = serde_json::from_str(&sample).unwrap();
                damage::document(document).prop_map(|document| document.to_string()).boxed()
            };
            let damaged = prop_oneof![3 => altered, 1 => damage::text(sample)];
            (Just(trial), Just(file), damaged)
        },
    )
}

fn one_a_line(lines: &Value) -> String {
    let lines = lines.as_array().map(Vec::as_slice).unwrap_or_default();
    lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n")
}

proptest! {
    #[test]
    fn foreign_trials_are_judged_or_refused((trial, file, content) in foreign()) {
        let directory = tempfile::tempdir().unwrap();
        for name in FILES {
            if let Some(original) = recorded(trial, name) {
                fs::write(directory.path().join(name), original).unwrap();
            }
        }
        fs::write(directory.path().join(file), content).unwrap();
        match judge(directory.path()) {
            Ok(judged) => {
                human::verdict(&judged.trial, true);
                Digest::new(0, &judged.trial).line();
                report::html::picture(&judged.trial, Theme::Light);
                report::perfetto::trace(&judged.trial);
            }
            Err(why) => prop_assert!(format!("{why:#}").contains(file), "{why:#}"),
        }
    }
}
