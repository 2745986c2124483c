//! README shows what this program prints.

use crate::common::{halfopen, show};
use tempfile::tempdir;

const README: &str = include_str!("../../../../README.md");

/// What README shows below a command.
fn below(command: &str) -> &'static str {
    let (_, rest) = README.split_once(command).expect("README has the command");
    rest.trim_start_matches('\n').split("```").next().unwrap()
}

#[test]
fn the_schedule_of_the_defaults_is_what_is_printed() {
    let output = halfopen(&["predict", "--defaults", "--hz", "250"]).output().unwrap();
    let printed = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(printed, below("$ halfopen predict --defaults\n"), "{}", show(&output));
}

/// Times differ from run to run, and so does the order of what two instruments see. The words do not:
/// before the trial, on the wire, and of the verdict.
#[test]
fn the_first_screen_is_what_is_printed() {
    let out = tempdir().unwrap();
    let command = ["run", "host-crash-idle-keepalive", "--out"];
    let output = halfopen(&command).arg(out.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let printed = words(&String::from_utf8_lossy(&output.stdout));
    let shown = words(below("$ sudo just host-crash-idle-keepalive\n"));
    assert!(shown.len() > 20, "{shown:#?}");
    assert_eq!(printed, shown);
}

/// The lines without their numbers.
fn words(text: &str) -> Vec<String> {
    let is_said = |line: &&str| {
        let label = line.split_whitespace().next().unwrap_or_default();
        let is_event = label.parse::<f64>().is_ok();
        !line.trim().is_empty() && label != "evidence" && (!is_event || line.contains("──"))
    };
    let without_numbers = |line: &str| {
        let mut words: Vec<_> = line.split(['─', ' ']).filter(|word| !word.is_empty()).collect();
        words.retain(|word| !["ms", "µs", "s"].contains(word));
        words.join(" ").replace(|c: char| c.is_ascii_digit(), "").replace('.', "")
    };
    text.lines().filter(is_said).map(without_numbers).collect()
}
