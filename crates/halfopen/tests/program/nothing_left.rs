//! Whatever happens to `halfopen`, nothing of it is left: no process, interface, mount or changed
//! sysctl; and no namespace, since these have no names, and only its processes held them.

use crate::common::{halfopen, has_nginx, is_real_root, run, show};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use tempfile::tempdir;

/// Every process that `halfopen` starts inherits this variable, and can be told by it.
const MARK: &str = "HALFOPEN_TEST_MARK";

/// What a machine has, beside processes, that a trial could leave behind.
#[derive(Debug, PartialEq, Eq)]
struct Machine {
    interfaces: BTreeSet<String>,
    mounts: String,
    sysctls: Vec<(String, String)>,
}

impl Machine {
    fn look() -> Self {
        let names = |directory: &str| -> BTreeSet<String> {
            fs::read_dir(directory)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect()
        };
        let sysctls = names("/proc/sys/net/ipv4")
            .into_iter()
            .filter(|name| name.starts_with("tcp_") || name.starts_with("ip_"))
            .filter_map(|name| {
                let value = fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok()?;
                Some((name, value))
            })
            .collect();
        Self {
            interfaces: names("/sys/class/net"),
            mounts: fs::read_to_string("/proc/self/mountinfo").unwrap(),
            sysctls,
        }
    }
}

fn processes() -> impl Iterator<Item = std::path::PathBuf> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let path = entry.ok()?.path();
        path.file_name()?.to_str()?.parse::<u32>().ok()?;
        Some(path)
    })
}

/// The processes that carry the mark, with their command lines.
fn marked(mark: &str) -> Vec<String> {
    let wanted = format!("{MARK}={mark}");
    processes()
        .filter(|process| {
            fs::read(process.join("environ")).is_ok_and(|environment| {
                environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
            })
        })
        .map(|process| {
            let command = fs::read(process.join("cmdline")).unwrap_or_default();
            format!(
                "{}: {}",
                process.display(),
                String::from_utf8_lossy(&command).replace('\0', " ")
            )
        })
        .collect()
}

pub(crate) fn start(mark: &str, out: &Path, arguments: &[&str]) -> Child {
    let out = out.to_str().unwrap();
    halfopen(&["run", "--out", out])
        .args(arguments)
        .env(MARK, mark)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Reads what a person would see until a line has `part` in it.
pub(crate) fn read_until(child: &mut Child, part: &str) {
    let mut seen = String::new();
    let stdout = child.stdout.as_mut().unwrap();
    // Byte by byte, so that nothing is taken that a later reader wants.
    let mut reader = BufReader::with_capacity(1, stdout);
    while !seen.lines().last().is_some_and(|line| line.contains(part)) {
        let read = reader.read_line(&mut seen).unwrap();
        assert_ne!(read, 0, "it ended before it said {part:?}:\n{seen}");
    }
}

fn wait_until_gone(mark: &str) {
    let started = Instant::now();
    loop {
        let left = marked(mark);
        if left.is_empty() {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "still there: {left:#?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The tracefs instances of processes that carry the mark; only root's runs make any.
fn instances_of(mark: &str) -> BTreeSet<String> {
    let wanted = format!("{MARK}={mark}");
    let namespaces: Vec<String> = processes()
        .filter(|process| {
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
        })
        .filter_map(|process| Some(fs::metadata(process.join("ns/pid")).ok()?.ino()))
        .map(|number| format!("halfopen-{number}-"))
        .collect();
    let is_own = |name: &String| namespaces.iter().any(|prefix| name.starts_with(prefix));
    instances().into_iter().filter(is_own).collect()
}

/// Every tracefs instance of the machine, seen through a mount of a thread's own.
fn instances() -> BTreeSet<String> {
    let look = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        let tracefs = tempdir().unwrap();
        let flags = MsFlags::empty();
        mount(Some("tracefs"), tracefs.path(), Some("tracefs"), flags, None::<&str>).unwrap();
        let instances = fs::read_dir(tracefs.path().join("instances")).unwrap();
        let names =
            instances.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        umount2(tracefs.path(), MntFlags::MNT_DETACH).unwrap();
        names
    };
    if is_real_root() { std::thread::spawn(look).join().unwrap() } else { BTreeSet::new() }
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
}

#[test]
fn sigkill_in_any_phase_leaves_nothing() {
    let before = Machine::look();
    let phases = [
        ("building", "host-crash-idle-keepalive"),
        ("connected", "settled after"),
        ("after the fault", "fault: power-off"),
        ("probing", "keepalive probe 1"),
    ];
    for (phase, line) in phases {
        let out = tempdir().unwrap();
        let mark = format!("{}-{phase}", std::process::id());
        let mut child = start(
            &mark,
            out.path(),
            &["host-crash-idle-keepalive", "--set", "client.keepalive.idle=1s"],
        );
        read_until(&mut child, line);
        let alive = marked(&mark);
        assert!(alive.len() > 1, "{phase}: the sandbox should be running: {alive:?}");
        // It is made while the first network is built.
        let mut instances_before = instances_of(&mark);
        for _ in 0..500 {
            if !instances_before.is_empty() || !is_real_root() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
            instances_before = instances_of(&mark);
        }
        assert_eq!(instances_before.len(), usize::from(is_real_root()), "{phase}");
        child.kill().unwrap();
        child.wait().unwrap();
        wait_until_gone(&mark);
        assert!(instances().is_disjoint(&instances_before), "killed while {phase}");
        assert_eq!(Machine::look(), before, "killed while {phase}");
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0, "nothing half-made ({phase})");
    }
}

#[test]
fn sigkill_leaves_no_web_server() {
    if !has_nginx() {
        return;
    }
    let before = Machine::look();
    let temporary = |directory: &str| -> BTreeSet<_> {
        let names = fs::read_dir(directory).unwrap().flatten().map(|entry| entry.path());
        names.filter(|path| path.to_string_lossy().contains("nginx")).collect()
    };
    let places = ["/tmp", "/run", "/var/lib", "/var/log", "/var/lib/nginx", "/var/log/nginx"];
    let files = || places.map(|place| Path::new(place).is_dir().then(|| temporary(place)));
    let files_before = files();
    for (experiment, line) in [
        ("web-server-idle", "no fault"),
        ("web-server-client-lost", "fault: power-off"),
        ("web-server-client-lost", "FIN, sent again 2"),
    ] {
        let out = tempdir().unwrap();
        let mark = format!("{}-{experiment}", std::process::id());
        let mut child = start(&mark, out.path(), &[experiment]);
        read_until(&mut child, line);
        if line != "FIN, sent again 2" {
            let alive = marked(&mark);
            assert!(alive.iter().any(|process| process.contains("nginx")), "{alive:?}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        wait_until_gone(&mark);
        assert_eq!(Machine::look(), before, "{experiment}, {line}");
        assert_eq!(files(), files_before, "{experiment}, {line}");
    }
}

#[test]
fn sigkill_among_many_trials_leaves_nothing() {
    let before = Machine::look();
    let out = tempdir().unwrap();
    let mark = format!("{}-many", std::process::id());
    let mut child = start(
        &mark,
        out.path(),
        &["host-crash-idle-keepalive", "process-crash-inherited-socket", "--repeat", "10"],
    );
    let started = Instant::now();
    while marked(&mark).len() < 12 {
        assert!(started.elapsed() < Duration::from_secs(30), "it never got going");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until_gone(&mark);
    assert_eq!(Machine::look(), before);
}

#[test]
fn any_of_its_processes_can_be_killed() {
    // Each process of the sandbox in turn, from the outermost inwards: the others follow, and
    // halfopen says so.
    for depth in 0..3 {
        let out = tempdir().unwrap();
        let mark = format!("{}-depth-{depth}", std::process::id());
        let mut child = start(&mark, out.path(), &["host-crash-idle-no-keepalive"]);
        read_until(&mut child, "fault: power-off");
        let victim = descendant(child.id(), depth);
        let instances_before = instances_of(&mark);
        kill(Pid::from_raw(victim.cast_signed()), Signal::SIGKILL).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(5), "{}", show(&output));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said.lines().count(), 1, "it is said once: {said}");
        assert!(said.contains("1 trial lost: the sandbox ended early"), "{said}");
        wait_until_gone(&mark);
        assert!(instances().is_disjoint(&instances_before), "depth {depth}");
    }
}

/// What had ended is written and reported; the rest is counted, once.
#[test]
fn the_worker_s_death_loses_only_what_had_not_ended() {
    let out = tempdir().unwrap();
    let mark = format!("{}-worker", std::process::id());
    let names = ["process-crash-idle", "host-crash-idle-no-keepalive", "process-crash-unread"];
    let arguments = [&names[..], &["--jobs", "2", "--format", "json"]].concat();
    let child = start(&mark, out.path(), &arguments);
    let started = Instant::now();
    while !out.path().join("process-crash-unread/verdict.json").exists() {
        assert!(started.elapsed() < Duration::from_secs(30), "the short ones never ended");
        std::thread::sleep(Duration::from_millis(20));
    }
    let worker = descendant(child.id(), 2);
    kill(Pid::from_raw(worker.cast_signed()), Signal::SIGKILL).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", show(&output));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("1 trial lost") && said.contains("SIGKILL"), "{said}");

    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let ended: Vec<_> = document["trials"].as_array().unwrap().iter().collect();
    assert_eq!(ended.len(), 2, "{document:#}");
    assert!(ended.iter().all(|trial| trial["verdict"] != "disagrees"), "{document:#}");
    assert_eq!(document["lost"]["trials"], 1);
    assert_eq!(document["not_started"], 0);
    for file in ["run.json", "report.html", "summary.md", "junit.xml"] {
        assert!(out.path().join("run").join(file).is_file(), "{file}");
    }
    assert!(!out.path().join("host-crash-idle-no-keepalive").exists());
    wait_until_gone(&mark);
}

/// A program that somebody else kills decides nothing: in words and in the exit code, at once and
/// judged again.
#[test]
fn a_client_that_is_killed_from_outside_is_inconclusive() {
    let out = tempdir().unwrap();
    let mark = format!("{}-client", std::process::id());
    let mut child = start(&mark, out.path(), &["host-crash-idle-no-keepalive"]);
    read_until(&mut child, "fault: power-off");
    let client = descendant(child.id(), CLIENT);
    kill(Pid::from_raw(client.cast_signed()), Signal::SIGKILL).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", show(&output));
    let trial = out.path().join("host-crash-idle-no-keepalive");
    let verdict = fs::read_to_string(trial.join("verdict.json")).unwrap();
    assert!(verdict.contains("inconclusive") && verdict.contains("from outside"), "{verdict}");
    let judged = run(&["judge", trial.to_str().unwrap()]);
    assert_eq!(judged.status.code(), Some(3), "{}", show(&judged));
}

/// What never started is counted once, and leaves nothing.
#[test]
fn ctrl_c_among_thousands_writes_only_what_had_started() {
    let out = tempdir().unwrap();
    let mark = format!("{}-thousands", std::process::id());
    let arguments = ["process-crash-idle", "--repeat", "4000", "--jobs", "4"];
    let mut child = start(&mark, out.path(), &arguments);
    read_until(&mut child, "process-crash-idle #");
    signal(&child, Signal::SIGINT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", show(&output));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.matches("not started").count(), 1, "{said}");
    let trials = fs::read_dir(out.path()).unwrap().count() - 1;
    assert!(trials < 100, "{trials} directories");
    let document = fs::read(out.path().join("run/run.json")).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&document).unwrap();
    assert_eq!(document["trials"].as_array().unwrap().len(), trials);
    assert_eq!(document["not_started"].as_u64().unwrap() as usize, 4000 - trials);
    wait_until_gone(&mark);
}

/// How deep halfopen's own client is, which is started after the server: sandbox, init, worker,
/// launcher, and it.
pub(crate) const CLIENT: u32 = 4;

/// The last child of the last child … of a process.
pub(crate) fn descendant(process: u32, depth: u32) -> u32 {
    let path = format!("/proc/{process}/task/{process}/children");
    let children = fs::read_to_string(&path).unwrap();
    let child: u32 = children.split_whitespace().last().unwrap().parse().unwrap();
    if depth == 0 { child } else { descendant(child, depth - 1) }
}

#[test]
fn ctrl_c_ends_in_good_order_and_keeps_what_was_recorded() {
    // The second expects nothing to happen: that it did not until the interruption proves nothing.
    interrupt("host-crash-idle-keepalive");
    interrupt("host-crash-idle-no-keepalive");
}

fn interrupt(experiment: &str) {
    let before = Machine::look();
    let out = tempdir().unwrap();
    let mark = format!("{}-interrupt-{experiment}", std::process::id());
    let mut child = start(&mark, out.path(), &[experiment]);
    read_until(&mut child, "fault: power-off");
    signal(&child, Signal::SIGINT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", show(&output));
    wait_until_gone(&mark);
    assert_eq!(Machine::look(), before);
    let trial = out.path().join(experiment);
    let timeline = fs::read_to_string(trial.join("timeline.jsonl")).unwrap();
    assert!(timeline.contains("\"begin\"") && timeline.contains("interrupted"), "{timeline}");
    let verdict = fs::read_to_string(trial.join("verdict.json")).unwrap();
    assert!(verdict.contains("inconclusive") && verdict.contains("interrupted"), "{verdict}");
    let judged = run(&["judge", trial.to_str().unwrap()]);
    assert_eq!(judged.status.code(), Some(3), "judged again it is no better");
}
