//! The published JSON Schemas (`docs/schema`) are those of the documents that are printed. Here a field
//! that a schema does not name is a failure; to others it says that fields may be added.

use crate::common::{run, show};
use serde_json::Value;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;

/// A schema by the name in a document's `schema`, which allows no other fields.
fn schema(document: &Value) -> Value {
    let name = document["schema"].as_str().and_then(|name| name.split('/').nth(1));
    let name = name.unwrap_or_else(|| panic!("a document without a schema: {document:#}"));
    let file = format!("../../docs/schema/{name}.schema.json");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut schema = serde_json::from_slice(&text).unwrap();
    close(&mut schema);
    schema
}

/// Every file of JSON that trials left in a directory, and in those in it, is as published.
fn are_as_published(directory: &Path) {
    let mut trials = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            are_as_published(&path);
        } else if name == "timeline.jsonl" {
            trials += 1;
            let text = fs::read_to_string(&path).unwrap();
            let mut lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
            let first: Value = lines.next().unwrap();
            is_as_published(&first);
            let validator = validator(&first);
            lines.for_each(|event| holds(&validator, &event, name));
        } else if path.extension().is_some_and(|extension| extension == "json") {
            is_as_published(&serde_json::from_slice(&fs::read(&path).unwrap()).unwrap());
        }
    }
    // One that was skipped has no facts and no prediction.
    let files = ["experiment", "trial", "verdict"];
    let whole = |file: &str| directory.join(format!("{file}.json")).is_file();
    assert!(trials == 0 || files.into_iter().all(whole), "{}", directory.display());
}

/// Forbids fields that are not named.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("properties").is_some_and(Value::is_object) {
                fields.entry("additionalProperties").or_insert(false.into());
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

fn validator(document: &Value) -> jsonschema::Validator {
    jsonschema::validator_for(&schema(document)).expect("it is a schema")
}

fn is_as_published(document: &Value) {
    holds(&validator(document), document, document["schema"].as_str().unwrap());
}

fn holds(validator: &jsonschema::Validator, document: &Value, what: &str) {
    let wrong: Vec<_> = validator
        .iter_errors(document)
        .map(|error| format!("{}: {error:.300}", error.instance_path()))
        .collect();
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
}

fn printed(arguments: &[&str]) -> Value {
    let output = run(arguments);
    let parsed = serde_json::from_slice(&output.stdout);
    parsed.unwrap_or_else(|error| panic!("{arguments:?}: {error}\n{}", show(&output)))
}

fn check(arguments: &[&str]) {
    is_as_published(&printed(&[arguments, &["--format", "json"]].concat()));
}

#[test]
fn what_needs_no_trial() {
    check(&["list"]);
    check(&["doctor"]);
    check(&["keys"]);
    check(&["explain", "client.user_timeout"]);
    check(&["explain", "B1"]);
    check(&["predict", "--set", "sysctl.tcp_retries2=3,5"]);
    check(&["advise", "--detect", "10s", "--survive", "3s", "--for", "all", "--no-prove"]);
    check(&["advise", "--detect", "1s", "--survive", "3s", "--no-prove"]);
    check(&["advise", "--detect", "10s", "--survive", "20s", "--no-prove"]);
    check(&["advise", "--explain", "keepalive=60/10/6,user_timeout=30s"]);
    check(&["advise", "--review", "postgres://db/x?keepalives_idle=60&tcp_user_timeout=5000"]);
}

#[test]
fn every_prediction() {
    let list = printed(&["list", "--format", "json"]);
    for experiment in list["experiments"].as_array().unwrap() {
        check(&["predict", experiment["name"].as_str().unwrap()]);
    }
}

#[test]
fn trials_of_experiments_and_of_programs() {
    let out = tempfile::tempdir().unwrap();
    let out = out.path().to_str().unwrap();
    let required = ["--set", "require.noticed_within=1ms", "--out", out];
    let names = ["run", "process-crash-idle", "process-crash-unread", "connect-closed-port"];
    check(&[&names[..], &required].concat());
    let fault = ["exec", "--listen", "7000", "--fault", "process-crash", "--out", out];
    let client = ["--format", "json", "--", "python3", "-c", CLIENT];
    is_as_published(&printed(&[&fault[..], &client].concat()));
    let lines = run(&[&names[..], &required, &["--format", "jsonl"]].concat());
    let lines = String::from_utf8(lines.stdout).unwrap();
    assert_eq!(lines.lines().count(), 3, "{lines}");
    lines.lines().for_each(|line| is_as_published(&serde_json::from_str(line).unwrap()));
    let part = ["run", "process-crash-idle", "--partition", "1/1", "--out", out];
    assert!(run(&part).status.success());
    are_as_published(Path::new(out));
    check(&["judge", out]);
    check(&["clocks", "process-crash-idle", "--out", out]);
}

const CLIENT: &str = "import socket\n\
    s = socket.create_connection(('server', 7000)); s.sendall(b'x'); s.recv(1); s.recv(1)";

#[test]
fn sockets_of_this_machine() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let _accepted = listener.accept().unwrap();
    check(&["audit"]);
    let pid = std::process::id().to_string();
    let port = own.local_addr().unwrap().port().to_string();
    for also in [&[][..], &["--yes"]] {
        let what = ["setsockopt", "--pid", &pid, "--port", &port, "keepalive=30/5/3"];
        check(&[&what[..], also].concat());
    }
}

#[test]
fn results_that_are_kept() {
    for directory in ["article", "6.18.44-fc-v657-real", "6.12.117-halfopen-virtual"] {
        let path = format!("{}/../../results/{directory}/article.json", env!("CARGO_MANIFEST_DIR"));
        is_as_published(&serde_json::from_slice(&fs::read(path).unwrap()).unwrap());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../results");
    for directory in ["programs", "proxies"] {
        for entry in fs::read_dir(root.join(directory)).unwrap() {
            let path = entry.unwrap().path().join("mends.json");
            is_as_published(&serde_json::from_slice(&fs::read(path).unwrap()).unwrap());
        }
    }
    let virtual_ones = ["validation", "validation-hz100", "validation-hz300", "validation-hz1000"];
    for name in virtual_ones {
        let path = format!("../../results/6.12.117-halfopen-virtual/{name}.json");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        is_as_published(&serde_json::from_slice(&fs::read(path).unwrap()).unwrap());
    }
}

#[test]
#[ignore = "needs the virtual kernel: just test-virtual"]
fn every_experiment_at_the_defaults() {
    let list = printed(&["list", "--format", "json"]);
    let names = list["experiments"].as_array().unwrap().iter();
    let names = names.map(|experiment| experiment["name"].as_str().unwrap());
    let out = tempfile::tempdir().unwrap();
    let mut arguments = vec!["run", "--clock", "virtual", "--defaults"];
    arguments.extend(["--format", "json", "--out", out.path().to_str().unwrap()]);
    // Chance may take a year of virtual time there.
    arguments.extend(names.filter(|name| *name != "path-loses-a-third"));
    is_as_published(&printed(&arguments));
    are_as_published(out.path());
}
