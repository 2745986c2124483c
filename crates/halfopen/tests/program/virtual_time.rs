//! The virtual clock: the kernel's defaults in seconds, the same every time, and nothing written
//! but the results. The tests that need the virtual kernel are ignored until `just kernel` has
//! built it: `cargo test --test program -- --ignored`.

use crate::common::{halfopen, show, trials};
use std::fs;
use tempfile::tempdir;

#[test]
fn without_its_kernel_the_virtual_clock_is_skipped_with_the_remedy() {
    let out = tempdir().unwrap();
    let home = tempdir().unwrap();
    let output = halfopen(&["run", "host-crash-sending", "--clock", "virtual", "--out"])
        .arg(out.path())
        .env("HOME", home.path())
        .env_remove("XDG_CACHE_HOME")
        .env_remove("HALFOPEN_UML")
        .env_remove("SUDO_UID")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", show(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("just kernel"), "{}", show(&output));
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

#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn virtual_time_repeats_itself_byte_for_byte() {
    let timelines = [(); 2].map(|()| {
        let out = tempdir().unwrap();
        let (_, code) = trials(out.path(), &["host-crash-sending", "--clock", "virtual"]);
        assert_eq!(code, 0);
        fs::read_to_string(out.path().join("host-crash-sending/timeline.jsonl")).unwrap()
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
    assert!(String::from_utf8_lossy(&output.stderr).contains("guest"), "{}", show(&output));
}

#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn phases_show_the_range_of_the_default_keepalive() {
    let out = tempdir().unwrap();
    let experiment = "host-crash-idle-keepalive";
    let settings = [experiment, "--defaults", "--clock", "virtual", "--phases", "4"];
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
    // A slot of 131 s at HZ 250, in four steps.
    assert!(most.unwrap() - least.unwrap() > 90.0, "{detected:?}");
}
