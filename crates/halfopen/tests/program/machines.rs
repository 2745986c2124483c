//! Machines that cannot, rebuilt by hand: skipped with the reason and a remedy, never a failure.

use crate::common::show;
use nix::unistd::geteuid;
use std::process::{Command, Output};
use tempfile::tempdir;

const HALFOPEN: &str = env!("CARGO_BIN_EXE_halfopen");
/// The capabilities of a container by default (docker, podman).
const CONTAINER: &str = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,\
    +net_bind_service,+net_raw,+sys_chroot,+mknod,+audit_write,+setfcap";

/// Runs a shell script in a mount namespace of its own; `$H` is the program, `$D` a directory.
fn on(script: &str) -> Output {
    let directory = tempdir().unwrap();
    Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .env("H", HALFOPEN)
        .env("D", directory.path())
        .output()
        .expect("unshare (util-linux) can be started")
}

fn is_skipped(script: &str, complaints: &[&str]) {
    if !geteuid().is_root() {
        eprintln!("skipped: rebuilding a machine needs root");
        return;
    }
    let output = on(script);
    assert_eq!(output.status.code(), Some(4), "{script}: {}", show(&output));
    let said = show(&output);
    assert!(complaints.iter().all(|complaint| said.contains(complaint)), "{script}: {said}");
    assert!(!said.contains("see `halfopen doctor`") && !said.contains("sudo"), "{said}");
}

#[test]
fn root_without_capabilities_is_not_told_to_be_root() {
    let bare = "setpriv --inh-caps=-all --ambient-caps=-all --bounding-set=-all $H";
    let complaints = ["root without capabilities", "run halfopen with root's capabilities"];
    is_skipped(&format!("{bare} run process-crash-idle --out $D"), &complaints);
    is_skipped(&format!("{bare} doctor"), &complaints);
}

#[test]
fn no_user_namespaces_are_named_with_their_sysctl() {
    let script = format!(
        "unshare -Ur sh -c 'echo 0 > /proc/sys/user/max_user_namespaces; \
         setpriv --bounding-set {CONTAINER} $H doctor'"
    );
    is_skipped(&script, &["user.max_user_namespaces is 0", "sysctl -w user.max_user_namespaces"]);
}

#[test]
fn sysctls_that_a_container_mounts_read_only_are_a_reason_to_skip() {
    let script = format!(
        "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys && \
         exec setpriv --bounding-set {CONTAINER} $H run host-crash-sending --out $D"
    );
    is_skipped(&script, &["read-only", "--privileged"]);
}

#[test]
fn a_congestion_control_that_the_host_does_not_allow_is_a_reason_to_skip() {
    let read = |name: &str| {
        std::fs::read_to_string(format!("/proc/sys/net/ipv4/tcp_{name}_congestion_control"))
            .unwrap_or_default()
    };
    let allowed = read("allowed");
    let Some(other) =
        read("available").split_whitespace().find(|name| !allowed.contains(name)).map(String::from)
    else {
        eprintln!("skipped: this host allows every congestion control that it has");
        return;
    };
    let script =
        format!("$H run host-crash-sending --set sysctl.tcp_congestion_control={other} --out $D");
    is_skipped(&script, &["tcp_allowed_congestion_control", &other]);
}
