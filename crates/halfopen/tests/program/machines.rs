//! Machines that cannot, rebuilt by hand: skipped with the reason and a remedy, never a failure.

use crate::common::show;
use nix::unistd::geteuid;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};
use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::thread;
use tempfile::tempdir;

pub(crate) const HALFOPEN: &str = env!("CARGO_BIN_EXE_halfopen");
/// The capabilities of docker's containers by default. podman's have fewer, and none besides.
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
    check_skipped(script, complaints, || on(script));
}

fn check_skipped(script: &str, complaints: &[&str], run: impl FnOnce() -> Output) {
    if !geteuid().is_root() {
        eprintln!("skipped: rebuilding a machine needs root");
        return;
    }
    let output = run();
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

/// The kernel says 2.6 to a process of this personality, and it is one that runs here.
#[test]
fn a_kernel_before_the_floor_is_named() {
    before_the_floor(&["doctor", "run process-crash-idle", "exec --listen 7000 -- true"]);
}

#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn a_kernel_before_the_floor_is_named_in_virtual_time() {
    before_the_floor(&["run process-crash-idle --clock virtual", "clocks process-crash-idle"]);
}

fn before_the_floor(commands: &[&str]) {
    let complaints = ["trials need Linux 5.12 or later", "this is Linux 2.6."];
    for command in commands {
        is_skipped(&format!("cd $D; exec setarch --uname-2.6 $H {command}"), &complaints);
    }
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

/// A system call that a profile denies, and the errno that it gives.
pub(crate) type Denied = (libc::c_long, libc::c_int);

/// What docker's default profile denies of what a laboratory may call: what needs CAP_SYS_ADMIN there
/// (moby, profiles/seccomp/default.json). `clone` is denied for namespaces alone.
const DOCKER: &[Denied] = &[
    (libc::SYS_bpf, libc::EPERM),
    (libc::SYS_clone3, libc::ENOSYS),
    (libc::SYS_fsconfig, libc::EPERM),
    (libc::SYS_fsmount, libc::EPERM),
    (libc::SYS_fsopen, libc::EPERM),
    (libc::SYS_mount, libc::EPERM),
    (libc::SYS_mount_setattr, libc::EPERM),
    (libc::SYS_move_mount, libc::EPERM),
    (libc::SYS_open_tree, libc::EPERM),
    (libc::SYS_perf_event_open, libc::EPERM),
    (libc::SYS_pivot_root, libc::EPERM),
    (libc::SYS_setns, libc::EPERM),
    (libc::SYS_umount2, libc::EPERM),
    (libc::SYS_unshare, libc::EPERM),
];

/// podman's lets namespaces and mounts be made, and knows no newer calls
/// (containers/common, pkg/seccomp/seccomp.json: ENOSYS is its default).
const PODMAN: &[Denied] = &[
    (libc::SYS_bpf, libc::EPERM),
    (libc::SYS_mount_setattr, libc::ENOSYS),
    (libc::SYS_perf_event_open, libc::EPERM),
    (libc::SYS_ptrace, libc::EPERM),
];

/// The filters that deny these calls, and docker's of `clone`: one for each errno.
fn filters(denied: &[Denied], no_namespaces: bool) -> Vec<BpfProgram> {
    let mut by_errno: BTreeMap<libc::c_int, BTreeMap<i64, Vec<SeccompRule>>> = BTreeMap::new();
    for (call, errno) in denied {
        by_errno.entry(*errno).or_default().insert(*call, Vec::new());
    }
    let flags = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ];
    let of_clone = flags.map(|flag| {
        let flag = u64::try_from(flag).unwrap();
        let has = SeccompCmpOp::MaskedEq(flag);
        let condition = SeccompCondition::new(0, SeccompCmpArgLen::Qword, has, flag).unwrap();
        SeccompRule::new(vec![condition]).unwrap()
    });
    if no_namespaces {
        by_errno.entry(libc::EPERM).or_default().insert(libc::SYS_clone, of_clone.into());
    }
    let filter = |(errno, calls): (libc::c_int, _)| {
        let deny = SeccompAction::Errno(errno.try_into().unwrap());
        let machine = std::env::consts::ARCH.try_into().unwrap();
        SeccompFilter::new(calls, SeccompAction::Allow, deny, machine).unwrap().try_into().unwrap()
    };
    by_errno.into_iter().map(filter).collect()
}

/// Puts such filters on this thread and on what it starts.
pub(crate) fn apply(denied: &[Denied], no_namespaces: bool) {
    for filter in filters(denied, no_namespaces) {
        apply_filter(&filter).unwrap();
    }
}

/// As [`is_skipped`], in a container with such filters.
fn is_skipped_in(denied: &'static [Denied], no_namespaces: bool, complaints: &'static [&str]) {
    for command in ["doctor", "run process-crash-idle --out $D"] {
        let script = format!("exec setpriv --bounding-set {CONTAINER} $H {command}");
        // A filter stays on the thread that it was put on, and on what that starts.
        let contained = move || {
            let directory = tempdir().unwrap();
            apply(denied, no_namespaces);
            check_skipped(&script, complaints, || {
                let mut shell = Command::new("sh");
                shell.args(["-c", &script]).env("H", HALFOPEN).env("D", directory.path());
                shell.output().unwrap()
            });
        };
        thread::spawn(contained).join().unwrap();
    }
}

#[test]
fn docker_s_default_profile_is_a_reason_to_skip() {
    is_skipped_in(DOCKER, true, &["seccomp filter", "--privileged"]);
}

#[test]
fn podman_s_default_profile_is_a_reason_to_skip() {
    is_skipped_in(PODMAN, false, &["mount_setattr", "seccomp filter", "--privileged"]);
}
