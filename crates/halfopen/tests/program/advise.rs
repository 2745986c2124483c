//! `halfopen advise`: what it chooses is proven, and reaches a socket as it is written for it.

use crate::common::{run, show};
use serde_json::Value;
use std::path::Path;

fn advise(arguments: &[&str]) -> (Value, i32) {
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

/// What is written for an ecosystem is what a socket there then has. What is not installed is left out,
/// and said; C and Python are always there.
#[test]
fn snippets_reach_sockets() {
    let names = "c,python,curl,libpq,node,java";
    let demand =
        ["--detect", "20s", "--survive", "2s", "--no-prove", "--kernel", "6.12", "--for", names];
    let (document, _) = advise(&demand);
    let written = |name: &str| document["snippets"][name].as_str().unwrap().to_owned();
    let out = tempfile::tempdir().unwrap();
    for (name, tool) in [
        ("c", "cc"),
        ("python", "python3"),
        ("curl", "curl"),
        ("libpq", "psql"),
        ("node", "node"),
        ("java", "java"),
    ] {
        if peer::find(tool).is_none() {
            assert!(!matches!(name, "c" | "python"), "{tool} is not installed");
            eprintln!("skipped: {tool} is not installed");
            continue;
        }
        let command = client(name, &written(name), out.path());
        let options = options_of(&out.path().join(name), &command);
        let set = |key: &str| options[key].clone();
        assert_eq!(set("keepalive"), true, "{name}: {options}");
        // Some can only say the idle time.
        let idle = set("keepidle_s").as_u64().unwrap();
        assert!(written(name).contains(&idle.to_string()), "{name}: {options}");
        let can: &[&str] = match name {
            "c" | "python" | "libpq" => {
                &["keepidle_s", "keepintvl_s", "keepcnt", "user_timeout_ms"]
            }
            "java" => &["keepidle_s", "keepintvl_s", "keepcnt"],
            _ => &[],
        };
        for key in can {
            assert_eq!(options[*key], document["options"][*key], "{name}, {key}: {options}");
        }
    }
}

/// A client that connects to a silent server with what is written for its ecosystem.
fn client(name: &str, written: &str, directory: &Path) -> Vec<String> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    match name {
        "c" => {
            let program = format!(
                "#include <arpa/inet.h>\n#include <netinet/tcp.h>\n#include <stdlib.h>\n\
                 #include <sys/socket.h>\n#include <unistd.h>\nint main(void) {{\n\
                 struct sockaddr_in to = {{.sin_family = AF_INET, .sin_port = htons(7000)}};\n\
                 inet_pton(AF_INET, getenv(\"HALFOPEN_SERVER\"), &to.sin_addr);\n\
                 int fd = socket(AF_INET, SOCK_STREAM, 0);\n{written}\n\
                 return connect(fd, (struct sockaddr *)&to, sizeof to) || sleep(5);\n}}\n"
            );
            let (source, binary) = (directory.join("client.c"), directory.join("client"));
            std::fs::write(&source, program).unwrap();
            let built =
                std::process::Command::new("cc").arg(&source).arg("-o").arg(&binary).status();
            assert!(built.unwrap().success(), "{written}");
            words(&[binary.to_str().unwrap()])
        }
        "python" => words(&[
            "python3",
            "-c",
            &format!(
                "import socket, time\nsock = socket.create_connection(('server', 7000))\n{written}\n\
                 time.sleep(5)\n"
            ),
        ]),
        "curl" => {
            let mut command: Vec<_> = written.split(' ').map(str::to_owned).collect();
            command.extend(words(&["-s", "http://server:7000/"]));
            command
        }
        "libpq" => words(&["psql", &format!("host=server port=7000 user=u dbname=d {written}")]),
        "node" => words(&[
            "node",
            "-e",
            &format!(
                "const socket = require('net').connect(7000, 'server', () => {{ {written} }});"
            ),
        ]),
        _ => {
            let program = format!(
                "import java.net.*;\npublic class Client {{ public static void main(String[] a) throws \
                 Exception {{\nSocket socket = new Socket(\"server\", 7000);\n{written}\n\
                 Thread.sleep(5000); }} }}\n"
            );
            let source = directory.join("Client.java");
            std::fs::write(&source, program).unwrap();
            words(&["java", source.to_str().unwrap()])
        }
    }
}

/// The options of a client's socket just before its server's host loses power.
fn options_of(out: &Path, client: &[String]) -> Value {
    let server = "python3 -c 'import socket, time; s = socket.create_server((\"0.0.0.0\", 7000)); c = s.accept(); time.sleep(60)'";
    let mut all = vec![
        "exec",
        "--format",
        "json",
        "--server",
        server,
        "--fault",
        "power-off",
        "--after",
        "300ms",
        "--deadline",
        "1s",
        "--out",
        out.to_str().unwrap(),
        "--",
    ];
    all.extend(client.iter().map(String::as_str));
    let output = run(&all);
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("no JSON ({error}): {}", show(&output)));
    let options = document["trials"][0]["flows"][0]["options"].clone();
    assert!(options.is_object(), "{client:?}: {document}");
    options
}

#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn what_is_chosen_is_proven() {
    for demand in [
        &["--detect", "10s", "--survive", "3s"][..],
        &["--detect", "4s", "--survive", "3s", "--traffic", "sending", "--kernel", "6.12"],
        &["--detect", "10m", "--behind", "azure", "--traffic", "idle"],
        &["--detect", "30s", "--survive", "5s", "--rtt", "100ms"],
    ] {
        let out = tempfile::tempdir().unwrap();
        let mut all = demand.to_vec();
        all.extend(["--hz", "250", "--out", out.path().to_str().unwrap()]);
        let (document, code) = advise(&all);
        assert_eq!(code, 0, "{demand:?}: {document}");
        let proof = document["proof"].as_array().unwrap();
        assert!(proof.len() >= 2, "{demand:?}: {document}");
        for trial in proof {
            assert_eq!(trial["verdict"], "agrees", "{demand:?}: {trial}");
            assert_eq!(trial["requirements"][0]["met"], true, "{demand:?}: {trial}");
        }
    }
}
