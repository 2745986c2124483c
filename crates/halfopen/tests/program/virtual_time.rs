//! The virtual clock: the kernel's defaults in seconds, the same every time, and nothing written
//! but the results. The tests that need the virtual kernel are ignored until `just kernel` has
//! built it: `cargo test --test program -- --ignored`.

use crate::common::{halfopen, show, trials};
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::tempdir;

#[test]
fn without_its_kernel_the_virtual_clock_is_skipped_with_the_remedy() {
    let out = tempdir().unwrap();
    let home = tempdir().unwrap();
    let run = ["run", "host-crash-sending", "--clock", "virtual", "--out"];
    let output = without_kernels(&run, home.path()).arg(out.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", show(&output));
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("halfopen kernel build"),
        "{}",
        show(&output)
    );
}

/// A command that finds no virtual kernel.
fn without_kernels(arguments: &[&str], home: &Path) -> Command {
    let mut command = halfopen(arguments);
    command
        .env("HOME", home)
        .env_remove("XDG_CACHE_HOME")
        .env_remove("HALFOPEN_UML")
        .env_remove("SUDO_UID");
    command
}

#[test]
fn a_kernel_of_another_hz_has_a_command_of_its_own() {
    let home = tempdir().unwrap();
    let run = ["run", "host-crash-sending", "--clock", "virtual", "--hz", "1000"];
    let output = without_kernels(&run, home.path()).current_dir(&home).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", show(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("halfopen kernel build --hz 1000"), "{}", show(&output));
}

#[test]
fn the_article_says_for_each_kernel_that_is_missing_how_to_build_it() {
    let home = tempdir().unwrap();
    let article = ["article", "--clock", "virtual"];
    let output = without_kernels(&article, home.path()).current_dir(&home).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", show(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    for said in [
        "virtual clock: skipped: there is no virtual kernel with HZ 250",
        "`halfopen kernel build`",
        "virtual clock, HZ 100: skipped: there is no virtual kernel",
        "`halfopen kernel build --hz 100`",
        "`halfopen kernel build --hz 300`",
        "`halfopen kernel build --hz 1000`",
    ] {
        assert!(text.contains(said), "{said}: {}", show(&output));
    }
}

#[test]
fn the_real_clock_has_the_hz_that_it_has() {
    let output = halfopen(&["run", "host-crash-sending", "--hz", "1000"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", show(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--clock virtual"));
    let other = ["run", "host-crash-sending", "--clock", "virtual", "--hz", "200"];
    let output = halfopen(&other).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", show(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("100, 250, 300 or 1000"));
    let both = ["run", "host-crash-sending", "--clock", "virtual", "--hz", "250"];
    let output = halfopen(&both).env("HALFOPEN_UML", "/bin/true").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", show(&output));
}

#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn the_defaults_agree_at_every_hz_that_is_built() {
    let doctor = halfopen(&["doctor"]).output().unwrap();
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    let line = doctor.lines().find(|line| line.contains("virtual kernel")).unwrap();
    let built = line.split("HZ ").nth(1).unwrap().split(';').next().unwrap();
    let built: Vec<&str> = built.trim().split(", ").collect();
    assert!(built.contains(&"250"), "{line}");
    for hz in built {
        let out = tempdir().unwrap();
        let (document, code) = trials(
            out.path(),
            &[
                "host-crash-idle-keepalive",
                "host-crash-sending",
                "--defaults",
                "--clock",
                "virtual",
                "--hz",
                hz,
            ],
        );
        assert_eq!(code, 0, "{document:#}");
        assert_eq!(document["hz"].to_string(), hz);
        for trial in document["trials"].as_array().unwrap() {
            assert_eq!(trial["verdict"], "agrees", "{trial:#}");
        }
    }
}

/// Two names of one kernel are two kernels to a sweep: each trial says which one it ran on.
#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn kernels_are_an_axis_of_a_sweep() {
    let built = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/build-uml.sh"))
        .arg("--print")
        .output()
        .unwrap();
    let built = String::from_utf8_lossy(&built.stdout).trim().to_owned();
    let (cache, out) = (tempdir().unwrap(), tempdir().unwrap());
    let kernels = cache.path().join("halfopen/uml");
    fs::create_dir_all(&kernels).unwrap();
    for name in ["linux-6.1-hz250", "linux-6.12-hz250"] {
        fs::copy(&built, kernels.join(name)).unwrap();
    }
    let kernel = ["--clock", "virtual", "--kernel", "6.1,6.12", "--hz", "250", "--format", "jsonl"];
    let mut run = halfopen(&["run", "host-crash-sending", "--set", "sysctl.tcp_retries2=3,4"]);
    run.args(kernel).args(["--out", out.path().to_str().unwrap()]);
    let output = run.env("XDG_CACHE_HOME", cache.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let trials: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut points: Vec<_> = trials
        .iter()
        .map(|trial| {
            assert_eq!((&trial["hz"], &trial["parameters"]["hz"]), (&250.into(), &250.into()));
            let of = |key: &str| trial["parameters"][key].to_string();
            (of("kernel"), of("sysctl.tcp_retries2"))
        })
        .collect();
    points.sort();
    assert_eq!(
        points,
        [("6.1", "3"), ("6.1", "4"), ("6.12", "3"), ("6.12", "4")]
            .map(|(kernel, retries)| (format!("\"{kernel}\""), retries.to_owned()))
    );
    let table = fs::read_to_string(out.path().join("run/run.csv")).unwrap();
    assert!(table.lines().next().unwrap().contains("kernel"), "{table}");

    let missing = ["run", "host-crash-sending", "--clock", "virtual", "--kernel", "6.12,5.15"];
    let output = halfopen(&missing).env("XDG_CACHE_HOME", cache.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", show(&output));
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("halfopen kernel build --kernel 5.15")
    );
    let output = halfopen(&["run", "host-crash-sending", "--kernel", "six"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", show(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("`six` is not a version"));
}

/// The file's deadline is for its keepalive of a second.
#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn with_the_defaults_a_living_server_is_asked_once() {
    let out = tempdir().unwrap();
    let experiments = ["host-alive-keepalive", "process-freeze-idle-keepalive"];
    let settings = [&experiments[..], &["--defaults", "--clock", "virtual"]].concat();
    let (document, code) = trials(out.path(), &settings);
    assert_eq!(code, 0, "{document:#}");
    for trial in document["trials"].as_array().unwrap() {
        assert_eq!(trial["parameters"]["deadline"], "2h24m22s500ms");
        assert_eq!(trial["measured"]["keepalive_probes_on_wire"], 1, "{trial:#}");
    }
}

/// Its program writes every 50 ms, and the laboratory acts to the moment: no write comes between the
/// moment at which a fault is to end and its end.
#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn a_fault_ends_before_what_is_written_then() {
    let out = tempdir().unwrap();
    let settings = [
        "path-flap-sending",
        "--set",
        "fault.kind=flap,reboot,takeover",
        "--set",
        "fault.duration=50ms,100ms",
        "--set",
        "topology=switch,router",
        "--set",
        "neighbour=learned",
        "--clock",
        "virtual",
    ];
    let (document, code) = trials(out.path(), &settings);
    assert_eq!(code, 0, "{document:#}");
}

/// What several sources tell of one moment, each in its own time, is shown in the order of time.
#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn the_timeline_is_in_the_order_of_time() {
    for experiment in ["connect-host-down", "close-host-crash", "web-server-client-lost"] {
        if experiment.starts_with("web") && !crate::common::has_nginx() {
            continue;
        }
        let out = tempdir().unwrap();
        let place = out.path().to_str().unwrap();
        let output = halfopen(&["run", experiment, "--clock", "virtual", "--out", place]);
        let output = { output }.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", show(&output));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut before = 0.0;
        let mut rows = 0;
        for line in text.lines() {
            if line.contains("times count from") || line.contains("t = 0 is") {
                before = f64::MIN; // from here on they count from another moment
            }
            let time = line.split_whitespace().next().and_then(|word| word.parse::<f64>().ok());
            if let Some(time) = time {
                assert!(time >= before, "{line}\n{text}");
                before = time;
                rows += 1;
            }
        }
        assert!(rows > 10, "{text}");
        let line = |wanted: &str| text.lines().position(|line| line.contains(wanted)).unwrap();
        assert!(line("TCP_NODELAY") < line("predicted"), "{text}");
        assert!(line("predicted") < line("fault: power-off"), "{text}");
    }
}

#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn the_defaults_take_hours_of_virtual_time() {
    let out = tempdir().unwrap();
    let (document, code) = trials(
        out.path(),
        &["host-crash-idle-keepalive", "host-crash-sending", "--defaults", "--clock", "virtual"],
    );
    assert_eq!(code, 0, "{document:#}");
    assert_eq!(document["clock"], "virtual");
    let detected: Vec<f64> = document["trials"]
        .as_array()
        .unwrap()
        .iter()
        .map(|trial| trial["measured"]["detected_s"].as_f64().unwrap())
        .collect();
    assert!(detected[0] >= 7875.0, "2 h 11 min 15 s is the least: {detected:?}");
    assert!(detected[1] >= 924.6, "{detected:?}");
}

/// The guest has a directory of its own in the place of /tmp, where this program may lie.
#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn virtual_time_repeats_itself_byte_for_byte_wherever_the_program_lies() {
    let elsewhere = tempfile::Builder::new().prefix("a place").tempdir_in("/tmp").unwrap();
    let copy = elsewhere.path().join("halfopen");
    fs::copy(env!("CARGO_BIN_EXE_halfopen"), &copy).unwrap();
    let names = ["host-crash-sending", "process-crash-inherited-socket"];
    let timelines = [Path::new(env!("CARGO_BIN_EXE_halfopen")), &copy].map(|program| {
        let out = tempdir().unwrap();
        let run = ["--clock", "virtual", "--out"];
        let output = Command::new(program)
            .arg("run")
            .args(names)
            .args(run)
            .arg(out.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", show(&output));
        names.map(|name| fs::read_to_string(out.path().join(name).join("timeline.jsonl")).unwrap())
    });
    assert_eq!(timelines[0], timelines[1]);
}

#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn a_guest_that_dies_is_inconclusive_and_says_why() {
    let out = tempdir().unwrap();
    // Not a kernel at all: it ends at once, without a word.
    let output = halfopen(&["run", "host-crash-sending", "--clock", "virtual", "--out"])
        .arg(out.path())
        .env("HALFOPEN_UML", "/bin/true")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", show(&output));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("virtual kernel ended"),
        "{}",
        show(&output)
    );
}

#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn phases_show_the_range_of_the_default_keepalive() {
    let out = tempdir().unwrap();
    let experiment = "host-crash-idle-keepalive";
    let settings = [experiment, "--defaults", "--clock", "virtual", "--phases", "8"];
    let (document, code) = trials(out.path(), &settings);
    assert_eq!(code, 0, "{document:#}");
    let detected: Vec<f64> = document["trials"]
        .as_array()
        .unwrap()
        .iter()
        .map(|trial| trial["measured"]["detected_s"].as_f64().unwrap())
        .collect();
    let (least, most) =
        (detected.iter().copied().reduce(f64::min), detected.iter().copied().reduce(f64::max));
    // A slot of 131 s at HZ 250; eight multiples of the golden section leave a quarter of it at most.
    assert!(most.unwrap() - least.unwrap() > 95.0, "{detected:?}");
}

#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn both_clocks_show_the_same() {
    let out = tempdir().unwrap();
    let experiments = ["host-crash-idle-keepalive", "host-reboot-sending", "process-crash-unread"];
    let output = halfopen(&["clocks", "--format", "json", "--out"])
        .arg(out.path())
        .args(experiments)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["runs"][0]["clock"], "real");
    assert_eq!(document["runs"][1]["clock"], "virtual");
    let compared = document["compared"].as_array().unwrap();
    assert_eq!(compared.len(), experiments.len());
    for (pair, name) in compared.iter().zip(experiments) {
        assert_eq!(pair["experiment"], name);
        assert_eq!(pair["likeness"], "same", "{pair:#}");
    }
    let table = fs::read_to_string(out.path().join("clocks/clocks.md")).unwrap();
    assert!(table.contains("3 of 3 the same"), "{table}");
}
