//! The examples, rehearsed: their own lines are run.

use crate::common::{is_there, show};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The one line of a file with this in it, from `halfopen` on.
fn line(text: &str, with: &str) -> String {
    let line = line_of(text, with);
    line[line.find("halfopen").expect("it is a command")..].to_owned()
}

/// The one line of a file with this in it, without a prompt.
fn line_of(text: &str, with: &str) -> String {
    let found = text.lines().find(|line| line.contains(with));
    let line = found.unwrap_or_else(|| panic!("no line with `{with}`"));
    line.trim_start_matches("$ ").to_owned()
}

/// A shell in `directory`, which finds the program under test.
fn shell(directory: &Path, script: &str, environment: &[(&str, String)]) -> Output {
    let mut path = PathBuf::from(env!("CARGO_BIN_EXE_halfopen"));
    path.pop();
    let paths = format!("{}:{}", path.display(), std::env::var("PATH").unwrap_or_default());
    Command::new("/bin/sh")
        .args(["-c", script])
        .current_dir(directory)
        .env("PATH", paths)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .output()
        .expect("there is a shell")
}

/// Four trials, each in one part, joined and judged again.
fn is_whole(merged: &Output) {
    let said = String::from_utf8_lossy(&merged.stdout);
    assert!(merged.status.success(), "{}", show(merged));
    assert!(said.contains("4 agree"), "{}", show(merged));
}

#[test]
fn a_sweep_on_several_runners_of_github() {
    let directory = tempfile::tempdir().unwrap();
    let text = example("sweep/github-actions.yml");
    let run = line(&text, "--partition");
    let parts: Vec<_> =
        ["1", "2", "3"].map(|part| run.replace("${{ matrix.part }}", part) + " &").into();
    let output = shell(directory.path(), &(parts.join("\n") + "\nwait"), &[]);
    assert!(output.status.success(), "{}", show(&output));
    is_whole(&shell(directory.path(), &line(&text, "halfopen merge"), &[]));
}

#[test]
fn a_sweep_as_an_indexed_job() {
    let directory = tempfile::tempdir().unwrap();
    let results = directory.path().display().to_string();
    let text = example("sweep/kubernetes-job.yaml").replace("/results/", &format!("{results}/"));
    for index in 0..3 {
        let environment = [("JOB_COMPLETION_INDEX", index.to_string())];
        let output = shell(directory.path(), &line(&text, "--partition"), &environment);
        assert!(output.status.success(), "{}", show(&output));
    }
    is_whole(&shell(directory.path(), &line(&text, "halfopen merge"), &[]));
}

#[test]
fn a_sweep_with_xargs() {
    let directory = tempfile::tempdir().unwrap();
    is_whole(&shell(directory.path(), &example("sweep/parallel.sh"), &[]));
}

/// The shell of a step of `action.yml`, by its name.
fn step(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../action.yml");
    let action = std::fs::read_to_string(path).unwrap();
    let (_, step) = action.split_once(&format!("- name: {name}\n")).expect("it has the step");
    let (_, script) = step.split_once("      run: |\n").expect("the step has a script");
    let lines = script.lines().take_while(|line| line.starts_with("        "));
    lines.map(|line| line.trim_start_matches("        ").to_owned() + "\n").collect()
}

/// Runs the step with these inputs; its output, and the step summary.
fn act(inputs: &[(&str, &str)]) -> (Output, String) {
    let directory = tempfile::tempdir().unwrap();
    let summary = directory.path().join("summary.md");
    let defaults = [("RUN", ""), ("EXEC", ""), ("OPTIONS", ""), ("OUT", "results"), ("SUDO", "")];
    let all = defaults.iter().chain(inputs);
    let mut environment: Vec<_> = all.map(|(name, value)| (*name, (*value).to_owned())).collect();
    environment.push(("GITHUB_STEP_SUMMARY", summary.display().to_string()));
    let script = format!("set -eu\n{}\n{}", step("install"), step("run"));
    let output = shell(directory.path(), &script, &environment);
    (output, std::fs::read_to_string(summary).unwrap_or_default())
}

#[test]
fn the_action_runs_experiments_and_commands_and_fails_by_exit_code() {
    // Nothing that a busy machine does late changes this one.
    let options = ("OPTIONS", "--repeat 2 --set deadline=1s");
    let (output, summary) = act(&[("RUN", "host-crash-idle-no-keepalive"), options]);
    assert!(output.status.success(), "{}", show(&output));
    assert!(summary.contains("2 agree") && summary.contains("exit code 0"), "{summary}");

    let unmet = [("RUN", "process-crash-idle"), ("OPTIONS", "--set require.survives=true")];
    let (output, summary) = act(&unmet);
    assert_eq!(output.status.code(), Some(6), "{}", show(&output));
    assert!(summary.contains("exit code 6"), "{summary}");

    let exec = [("EXEC", "--listen 7000 -- sh -c 'echo \"from the client\"'")];
    let (output, _) = act(&exec);
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("from the client"),
        "{}",
        show(&output)
    );
}

#[test]
fn the_nightly_workflow_has_every_part_of_the_recipe_and_no_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let parts = |file: &str, before: &str| -> BTreeSet<String> {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        let (_, parts) = text.split_once(before).unwrap_or_else(|| panic!("{file}: no {before}"));
        let words = parts
            .lines()
            .next()
            .unwrap()
            .split(|c: char| !(c.is_alphanumeric() || "-.".contains(c)));
        // Their arguments are numbers.
        words.filter(|word| word.starts_with(char::is_alphabetic)).map(String::from).collect()
    };
    let recipe = parts("justfile", "\nnightly: ");
    assert_eq!(parts(".github/workflows/nightly.yml", " part: "), recipe);
    assert!(recipe.len() > 3, "{recipe:?}");
}

/// An example of a test suite, as its README calls it: by the line with `with` in it.
fn suite(with: &str, clock: &str) {
    suite_as(with, clock, |run| run);
}

fn suite_as(with: &str, clock: &str, changed: impl FnOnce(String) -> String) {
    let directory = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let run = changed(line(&example("control/README.md"), with));
    let exec = format!("halfopen exec --clock {clock} --out {}", directory.path().display());
    let script = format!("cd {} && {}", root.display(), run.replacen("halfopen exec", &exec, 1));
    let output = shell(directory.path(), &script, &[]);
    assert!(output.status.success(), "{}", show(&output));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("ordered by a program"), "{}", show(&output));
}

#[test]
fn a_shell_orders_faults() {
    if is_there("curl", &["--version"]) {
        suite("shell.sh", "real");
    }
}

#[test]
fn pytest_orders_faults() {
    if is_there("python3", &["-m", "pytest", "--version"]) {
        suite("-m pytest", "real");
    }
}

#[test]
fn node_orders_faults() {
    if is_there("node", &["--version"]) {
        suite("node.test.mjs", "real");
    }
}

#[test]
fn java_orders_faults() {
    if is_there("java", &["--version"]) {
        suite("Outage.java", "real");
    }
}

#[test]
fn cargo_test_orders_faults() {
    if !is_there("cargo", &["--version"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/control/rust");
    let runner = format!("halfopen exec --out {} --listen 7000 --", directory.path().display());
    let triple = if cfg!(target_arch = "aarch64") { "AARCH64" } else { "X86_64" };
    let environment = [
        (&*format!("CARGO_TARGET_{triple}_UNKNOWN_LINUX_GNU_RUNNER"), runner),
        ("CARGO_TARGET_DIR", directory.path().join("target").display().to_string()),
    ];
    let output = shell(&root, "cargo test --quiet --test outage", &environment);
    assert!(output.status.success(), "{}", show(&output));
}

#[test]
fn go_test_orders_faults() {
    if is_there("go", &["version"]) {
        let directory = tempfile::tempdir().unwrap();
        let test = line_of(&example("control/README.md"), "go test");
        let exec = format!("halfopen exec --out {}", directory.path().display());
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/control/go");
        let output = shell(&root, &test.replacen("halfopen exec", &exec, 1), &[]);
        assert!(output.status.success(), "{}", show(&output));
    }
}

/// Tests beside each other take turns; each finds the path whole.
#[test]
fn pytest_orders_faults_in_two_processes() {
    if is_there("python3", &["-c", "import pytest, xdist"]) {
        suite_as("-m pytest", "real", |run| format!("{run} -n 2"));
    }
}

#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn suites_order_faults_in_virtual_time() {
    suite("shell.sh", "virtual");
    if is_there("node", &["--version"]) {
        suite("node.test.mjs", "virtual");
    }
    if is_there("python3", &["-m", "pytest", "--version"]) {
        suite("-m pytest", "virtual");
    }
}
