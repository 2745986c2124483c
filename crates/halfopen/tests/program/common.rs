//! What the tests of the program share. They run the real executable on real namespaces, as root
//! or by way of a user namespace; where neither is to be had they fail and say so.

use nix::unistd::geteuid;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// The program under test, with no colours and no settings of the caller's.
pub(crate) fn halfopen(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_halfopen"));
    command.args(arguments).env_remove("NO_COLOR").env_remove("HALFOPEN_LOG").stdin(Stdio::null());
    command
}

/// Where every user can run it: where it was built, or, if that is below a directory that is closed to
/// others, a copy.
pub(crate) fn for_everybody() -> &'static Path {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    PLACE.get_or_init(|| {
        let built = Path::new(env!("CARGO_BIN_EXE_halfopen"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        if built.ancestors().all(|path| mode(path) & 0o001 != 0) {
            return built.into();
        }
        let place = tempfile::tempdir().unwrap().keep();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(built, place.join("halfopen")).unwrap();
        place.join("halfopen")
    })
}

/// Runs it to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    halfopen(arguments).output().expect("halfopen can be started")
}

/// Runs trials, and returns the JSON document and the exit code.
pub(crate) fn trials(out: &Path, arguments: &[&str]) -> (Value, i32) {
    let out = out.to_str().expect("temporary directories have plain names");
    let mut all = vec!["run", "--format", "json", "--out", out];
    all.extend(arguments);
    let output = run(&all);
    let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("no JSON on standard output ({error}): {}", show(&output));
    });
    (document, output.status.code().expect("it exits by itself"))
}

/// Whether it runs as root of the machine, who may become another user, mount, and look at everybody's
/// processes. Root of a user namespace may not. Without it a test says what it leaves out and why.
pub(crate) fn is_root_here(left_out: &str) -> bool {
    let is_root = is_real_root();
    if !is_root {
        eprintln!("skipped: {left_out} needs root of the machine");
    }
    is_root
}

/// As [`is_root_here`], and says nothing.
pub(crate) fn is_real_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    let is_initial = map.split_whitespace().eq(["0", "0", "4294967295"]);
    geteuid().is_root() && is_initial
}

/// Everything it said.
pub(crate) fn show(output: &Output) -> String {
    format!(
        "{}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Whether this program is missing, in which case a test says so and leaves out what needs it.
pub(crate) fn has_no(program: &str) -> bool {
    let is_missing = peer::find(program).is_none();
    if is_missing {
        eprintln!("skipped: {program} is not installed");
    }
    is_missing
}

/// Whether this command succeeds. If it does not, a test says so and leaves out what needs the tool.
pub(crate) fn is_there(tool: &str, check: &[&str]) -> bool {
    let found = Command::new(tool).args(check).output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("skipped: {tool} {} does not succeed", check.join(" "));
    }
    found
}

/// Whether there is an nginx to test with. Without one a test says so and ends; in CI, where it is
/// to be installed, that is a failure.
pub(crate) fn has_nginx() -> bool {
    let found = peer::find("nginx").is_some();
    assert!(found || std::env::var_os("CI").is_none(), "CI has no nginx: install nginx-light");
    if !found {
        eprintln!("skipped: nginx is not installed (apt-get install nginx-light)");
    }
    found
}
