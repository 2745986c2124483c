//! What `halfopen advise` writes for an ecosystem is what a socket there then has. What is not installed is
//! left out, and said; C and Python are always there.

use crate::advise::advise;
use crate::common::{for_everybody, is_root_here, run, show};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The options that an ecosystem can set.
const ALL: &[&str] = &["keepidle_s", "keepintvl_s", "keepcnt", "user_timeout_ms"];
const TIMES: &[&str] = &["keepidle_s", "keepintvl_s", "keepcnt"];
/// Where one can only say the idle time.
const IDLE: &[&str] = &["keepidle_s"];

fn is_installed(tool: &str) -> bool {
    let found = peer::find(tool).is_some();
    assert!(found || !matches!(tool, "cc" | "python3"), "{tool} is not installed");
    if !found {
        eprintln!("skipped: {tool} is not installed");
    }
    found
}

/// Advice in the words of these ecosystems.
fn written(names: &str) -> Value {
    let demand = ["--detect", "20s", "--survive", "2s", "--no-prove", "--kernel", "6.12", "--for"];
    advise(&[&demand[..], &[names]].concat()).0
}

fn text<'a>(document: &'a Value, name: &str) -> &'a str {
    document["snippets"][name].as_str().unwrap_or_else(|| panic!("{name}: {document}"))
}

/// Options are on, and those that it can set are as written: its own numbers, where it has some fixed.
fn holds(document: &Value, name: &str, can: &[&str], options: &Value) {
    assert_eq!(options["keepalive"], true, "{name}: {options}");
    for key in can {
        let value = options[*key].as_u64().unwrap_or_else(|| panic!("{name}, {key}: {options}"));
        assert!(text(document, name).contains(&value.to_string()), "{name}, {key}: {options}");
        // Without TCP_USER_TIMEOUT keepalive is another.
        if can == ALL {
            assert_eq!(options[*key], document["options"][*key], "{name}, {key}: {options}");
        }
    }
}

#[test]
fn snippets_reach_the_sockets_of_clients() {
    let document = written("rust,c,python,curl,libpq,node,java");
    let out = tempfile::tempdir().unwrap();
    for (name, tool, can) in [
        ("c", "cc", ALL),
        ("rust", "cargo", ALL),
        ("python", "python3", ALL),
        ("curl", "curl", IDLE),
        ("libpq", "psql", ALL),
        ("node", "node", IDLE),
        ("java", "java", TIMES),
    ] {
        if !is_installed(tool) {
            continue;
        }
        let command = client(name, text(&document, name), out.path());
        let options = options_of(&["--server", SILENT], &out.path().join(name), &command);
        holds(&document, name, can, &options);
    }
}

/// Listens, and says nothing.
const SILENT: &str = "python3 -c 'import socket, time; s = socket.create_server((\"0.0.0.0\", 7000)); \
                      c = s.accept(); time.sleep(60)'";

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A client that connects to a silent server with what is written for its ecosystem.
fn client(name: &str, written: &str, directory: &Path) -> Vec<String> {
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
            fs::write(&source, program).unwrap();
            let built = Command::new("cc").arg(&source).arg("-o").arg(&binary).status();
            assert!(built.unwrap().success(), "{written}");
            words(&[binary.to_str().unwrap()])
        }
        "rust" => rust(written, directory),
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
            fs::write(&source, program).unwrap();
            words(&["java", source.to_str().unwrap()])
        }
    }
}

/// A crate of its own, built of what the workspace has fetched.
fn rust(written: &str, directory: &Path) -> Vec<String> {
    let package = directory.join("package");
    fs::create_dir_all(package.join("src")).unwrap();
    let manifest = "[package]\nname = \"client\"\nedition = \"2024\"\n[workspace]\n\
                    [dependencies]\nsocket2 = { version = \"0.6\", features = [\"all\"] }\n";
    fs::write(package.join("Cargo.toml"), manifest).unwrap();
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
    fs::copy(lock, package.join("Cargo.lock")).unwrap();
    let program = format!(
        "use std::net::TcpStream;\nuse std::time::Duration;\nfn main() -> std::io::Result<()> {{\n\
         let stream = TcpStream::connect((\"server\", 7000))?;\n{written}\n\
         std::thread::sleep(Duration::from_secs(5));\nOk(())\n}}\n"
    );
    fs::write(package.join("src/main.rs"), program).unwrap();
    let built = Command::new("cargo")
        .args(["build", "--offline", "--quiet"])
        .current_dir(&package)
        .env("CARGO_TARGET_DIR", package.join("target"))
        .output()
        .unwrap();
    assert!(built.status.success(), "{written}: {}", show(&built));
    words(&[package.join("target/debug/client").to_str().unwrap()])
}

/// Runs a trial whose one host loses power, and returns it.
fn trial(settings: &[&str], out: &Path, client: &[String]) -> Value {
    let mut all = vec!["exec", "--format", "json", "--fault", "power-off", "--after", "300ms"];
    all.extend(["--out", out.to_str().unwrap()]);
    all.extend(settings);
    all.push("--");
    all.extend(client.iter().map(String::as_str));
    let output = run(&all);
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("no JSON ({error}): {}", show(&output)));
    let trial = document["trials"][0].clone();
    assert!(trial["flows"][0]["options"].is_object(), "{client:?}: {document}");
    trial
}

/// The options of the survivor's socket just before the other host loses power.
fn options_of(settings: &[&str], out: &Path, client: &[String]) -> Value {
    trial(&[settings, &["--deadline", "1s"]].concat(), out, client)["flows"][0]["options"].clone()
}

/// Connects to a port, and waits.
fn caller(port: u16) -> Vec<String> {
    let host = if port == 7000 { "server" } else { "localhost" };
    let program = format!(
        "import socket, time\nuntil = time.monotonic() + 5\nwhile True:\n    try:\n        \
         s = socket.create_connection(('{host}', {port}))\n        break\n    \
         except OSError:\n        assert time.monotonic() < until\n        time.sleep(0.05)\n\
         s.sendall(b'GET / HTTP/1.0\\r\\n')\ntime.sleep(5)\n"
    );
    words(&["python3", "-c", &program])
}

/// A program in the middle, and one that calls it, on one host.
fn beside(proxy: &str) -> Vec<String> {
    let mut command = words(&["sh", "-c", &format!("({proxy}) & exec \"$@\""), "sh"]);
    command.extend(caller(8000));
    command
}

#[test]
fn snippets_reach_the_sockets_of_nginx() {
    if !crate::common::has_nginx() {
        return;
    }
    let document = written("nginx");
    let out = tempfile::tempdir().unwrap();
    let nginx = peer::find("nginx").unwrap();
    let start = |name: &str, server: &str| {
        let configuration = format!(
            "daemon off;\nmaster_process off;\nuser root root;\npid /dev/shm/pid;\n\
             error_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n\
             client_body_temp_path /dev/shm/a;\nproxy_temp_path /dev/shm/b;\n\
             fastcgi_temp_path /dev/shm/c;\nuwsgi_temp_path /dev/shm/d;\nscgi_temp_path /dev/shm/e;\n\
             server {{ {server}\n}} }}\n"
        );
        let path = out.path().join(name);
        fs::write(&path, configuration).unwrap();
        format!("{} -c {}", nginx.display(), path.display())
    };
    let text = text(&document, "nginx");
    let server = start("accepts", &text.replace("listen 80 ", "listen 7000 "));
    let lost = ["--server", &server, "--fault-host", "client"];
    let options = options_of(&lost, &out.path().join("a"), &caller(7000));
    holds(&document, "nginx", TIMES, &options);
    let to = format!(
        "{}\nlocation / {{ proxy_pass http://server:7000; }}",
        text.replace("listen 80 ", "listen 8000 ")
    );
    let proxy = start("opens", &to);
    // Its header is not whole before the fault, so that nginx calls nobody: the whole request is sent.
    let client: Vec<_> =
        beside(&proxy).iter().map(|word| word.replace("1.0\\r\\n'", "1.0\\r\\n\\r\\n'")).collect();
    let options = options_of(&["--server", SILENT], &out.path().join("o"), &client);
    holds(&document, "nginx", &[], &options);
}

#[test]
fn snippets_reach_the_sockets_of_haproxy() {
    if !is_installed("haproxy") {
        return;
    }
    let document = written("haproxy");
    let out = tempfile::tempdir().unwrap();
    let haproxy = peer::find("haproxy").unwrap();
    let text = text(&document, "haproxy");
    let bind = text.lines().find_map(|line| line.strip_prefix("# on each bind line: ")).unwrap();
    let start = |name: &str, mode: &str, port: u16, to: &str| {
        let configuration = format!(
            "defaults\n mode {mode}\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n{text}\n\
             frontend f\n bind :{port} {bind}\n default_backend b\nbackend b\n server s {to}\n"
        );
        let path = out.path().join(name);
        fs::write(&path, configuration).unwrap();
        // It takes tcp-ut for addresses alone.
        format!(
            "sed \"s/server:7000/$HALFOPEN_SERVER:7000/\" {} > /dev/shm/ha; {} -f /dev/shm/ha",
            path.display(),
            haproxy.display()
        )
    };
    let server = start("accepts", "http", 7000, "127.0.0.1:1");
    let lost = ["--server", &server, "--fault-host", "client"];
    let options = options_of(&lost, &out.path().join("a"), &caller(7000));
    holds(&document, "haproxy", ALL, &options);
    let each = text.lines().find_map(|line| line.strip_prefix("# on each server line: ")).unwrap();
    let proxy = start("opens", "tcp", 8000, &format!("server:7000 {each}"));
    let options = options_of(&["--server", SILENT], &out.path().join("o"), &beside(&proxy));
    holds(&document, "haproxy", ALL, &options);
}

/// A user whom both ends know: neither works for root without its capabilities.
const SOMEBODY: &str = "54320";

/// A trial of that user's, whose name stands in a list of users of its own.
fn trial_of_somebody(settings: &[&str], place: &Path, client: &str) -> Value {
    let out = place.join(format!("out-{}", settings.len()));
    let script = format!(
        "mount --bind {place}/passwd /etc/passwd && exec setpriv --reuid {SOMEBODY} --regid {SOMEBODY} \
         --clear-groups {} exec --format json --fault power-off --after 1s --deadline 25s --out {} \
         \"$@\" -- {client}",
        for_everybody().display(),
        out.display(),
        place = place.display(),
    );
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &script, "sh"])
        .args(settings)
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
        .env("HOME", place)
        .output()
        .unwrap();
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("no JSON ({error}): {}", show(&output)));
    let trial = document["trials"][0].clone();
    // TCP keepalive is on, with the times of the sysctls, as the note says.
    let options = &trial["flows"][0]["options"];
    assert_eq!(
        (&options["keepalive"], &options["keepidle_s"]),
        (&true.into(), &7200.into()),
        "{trial}"
    );
    trial
}

/// ssh and sshd have timers of their own: each gives a dead peer up as early as it was asked to.
#[test]
fn snippets_end_connections_of_ssh_in_time() {
    if !is_root_here("a user of its own") {
        return;
    }
    if !is_installed("ssh") || !is_installed("sshd") {
        return;
    }
    let detect_s = 16.0;
    let document = advise(&["--detect", "16s", "--no-prove", "--for", "ssh,sshd"]).0;
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let user = format!("somebody:x:{SOMEBODY}:{SOMEBODY}::{}:/bin/sh\n", place.display());
    fs::write(place.join("passwd"), users + &user).unwrap();
    let key = "ssh-keygen -q -t ed25519 -N '' -f";
    let script = format!(
        "cd {} && {key} host && {key} key && cp key.pub authorized && chown -R {SOMEBODY} . && chmod 755 .",
        place.display()
    );
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    let server = |lines: &str| {
        let p = place.display();
        let configuration = format!(
            "Port 7000\nHostKey {p}/host\nAuthorizedKeysFile {p}/authorized\nStrictModes no\nUsePAM no\n\
             PidFile none\n{lines}\n"
        );
        fs::write(place.join("sshd_config"), configuration).unwrap();
        format!("{} -D -e -f {p}/sshd_config", peer::find("sshd").unwrap().display())
    };
    let client = |lines: &str| {
        fs::write(place.join("ssh_config"), lines).unwrap();
        let p = place.display();
        format!(
            "ssh -F {p}/ssh_config -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -i {p}/key \
             -p 7000 -N somebody@server"
        )
    };
    let in_time = |end_s: Option<f64>, trial: &Value| {
        assert!(end_s.is_some_and(|end_s| (6.0..=detect_s).contains(&end_s)), "{end_s:?}: {trial}");
    };
    let trial =
        trial_of_somebody(&["--server", &server("")], place, &client(text(&document, "ssh")));
    in_time(trial["programs"]["client"]["exited_s"].as_f64(), &trial);
    let lost = ["--server", &server(text(&document, "sshd")), "--fault-host", "client"];
    let trial = trial_of_somebody(&lost, place, &client(""));
    in_time(said_s(&trial, "Timeout, client not responding"), &trial);
}

/// When a program said this, seconds from the fault.
fn said_s(trial: &Value, what: &str) -> Option<f64> {
    let timeline = Path::new(trial["artifacts"].as_str()?).join("timeline.jsonl");
    let text = fs::read_to_string(timeline).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let at_s = |is_it: &dyn Fn(&Value) -> bool| {
        events.iter().find(|event| is_it(&event["what"]))?["at_ns"].as_f64().map(|ns| ns / 1e9)
    };
    let fault_s = at_s(&|happened| happened["fault"] == "complete")?;
    let said = |happened: &Value| {
        happened["output"]["line"].as_str().is_some_and(|line| line.contains(what))
    };
    Some(at_s(&said)? - fault_s)
}
