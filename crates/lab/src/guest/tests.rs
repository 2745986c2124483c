//! The sandbox, with a shell script in the kernel's place: what holds for the
//! script holds for a kernel.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::*;

/// A directory with an output directory in it, removed at the end. One at a
/// time: a script cannot be executed while a keeper that another test has just
/// forked still holds the descriptor through which it was written.
struct Place(PathBuf, #[expect(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl Place {
    fn new() -> Self {
        static ONE: Mutex<()> = Mutex::new(());
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("halfopen-guest-{}", std::process::id());
        let place = Self(std::env::temp_dir().join(name), one);
        fs::create_dir_all(place.output()).unwrap();
        place
    }

    fn output(&self) -> PathBuf {
        self.0.join("output")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A guest whose kernel is this script. `$place` and `$exchange` are set.
    fn guest(&self, script: &str) -> Guest {
        let kernel = self.file("kernel");
        let place = self.0.display();
        let text = format!("#!/bin/sh\nplace='{place}' exchange=$TMPDIR/exchange\n{script}\n");
        fs::write(&kernel, text).unwrap();
        fs::set_permissions(&kernel, fs::Permissions::from_mode(0o755)).unwrap();
        Guest::new(&kernel, "/bin/sh", self.output()).watchdog(Duration::from_secs(30))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn only_the_output_directory_can_be_written() {
    let place = Place::new();
    let victim = place.file("victim");
    fs::write(&victim, "untouched").unwrap();
    let script = "
        try() { if (eval \"$1\") 2>/dev/null; then echo \"done: $1\"; fi; }
        try 'echo x > $place/victim'
        try 'echo x > $place/new'
        try 'rm $place/victim'
        try 'chmod 777 $place/victim'
        try 'touch $place/victim'
        try 'mount -o remount,rw /'
        try 'echo x > /etc/halfopen-test'
        try 'echo 15 > /proc/sys/net/ipv4/tcp_retries2'
        try 'echo x > /proc/1/root/etc/halfopen-test'
        try 'mknod $place/output/device c 1 3 && echo x > $place/output/device'
        echo x > $place/output/written
        echo 0 > $exchange/status";
    let report = place.guest(script).run().unwrap();
    assert_eq!(report.console_text(), "");
    assert_eq!(report.end, End::PoweredOff(0));
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert!(!place.file("new").exists());
    assert!(!Path::new("/etc/halfopen-test").exists());
    assert!(place.output().join("written").exists());
}

#[test]
fn what_was_asked_for_and_the_code_pass_the_exchange() {
    let place = Place::new();
    let script = "
        tr '\\0' '|' < $exchange/arguments; echo
        tr '\\0' '|' < $exchange/environment; echo
        echo 42 > $exchange/status";
    let report = place.guest(script).args(["run", "a b"]).env("NAME", "v=1").run().unwrap();
    assert_eq!(report.console_text(), "run|a b|\nNAME=v=1|\n");
    assert_eq!(report.end, End::PoweredOff(42));
}

#[test]
fn nothing_of_this_process_is_passed_on() {
    let place = Place::new();
    let report = place.guest("ls /proc/self/fd | wc -l; env | grep -c ^CARGO; true").run().unwrap();
    // Standard streams, and the one with which `ls` reads the directory.
    assert_eq!(report.console_text().split_whitespace().collect::<Vec<_>>(), ["4", "0"]);
    assert_eq!(report.end, End::NoCode);
}

#[test]
fn a_guest_that_hangs_is_ended_with_all_that_it_started() {
    let place = Place::new();
    let mark = format!("{}.0625", std::process::id());
    let script = format!("echo before; setsid sleep {mark} & sleep {mark}");
    let report = place.guest(&script).watchdog(Duration::from_millis(300)).run().unwrap();
    assert_eq!(report.end, End::Hung { watchdog: Duration::from_millis(300) });
    assert_eq!(report.console_text(), "before\n");
    assert!(!any_process_with(&mark));
}

#[test]
fn what_the_guest_left_running_ends_with_it() {
    let place = Place::new();
    let mark = format!("{}.125", std::process::id());
    let report = place.guest(&format!("setsid sleep {mark} & exit 3")).run().unwrap();
    assert_eq!(report.end, End::Died("the kernel's process exited with 3".into()));
    assert!(!any_process_with(&mark));
}

#[test]
fn a_kernel_that_cannot_be_executed_is_an_error_that_names_it() {
    let place = Place::new();
    let guest = place.guest("");
    fs::set_permissions(place.file("kernel"), fs::Permissions::from_mode(0o644)).unwrap();
    let error = guest.run().unwrap_err().to_string();
    assert!(error.starts_with("executing ") && error.contains("kernel"), "{error}");
}

#[test]
fn a_path_with_a_space_is_quoted_as_a_whole_word() {
    assert_eq!(quoted("init", Path::new("/a/b")).unwrap(), b"init=/a/b");
    assert_eq!(quoted("init", Path::new("/a b")).unwrap(), b"\"init=/a b\"");
    assert!(quoted("init", Path::new("/a\"b")).is_err());
}

#[test]
fn the_scratch_directory_hides_nothing_that_is_needed() {
    let chosen = scratch_directory(&[Path::new("/dev/shm/out")]).unwrap();
    assert_ne!(chosen, Path::new("/dev/shm"));
}

#[test]
fn an_exit_code_counts_only_after_an_orderly_end() {
    const ABORTED: i32 = libc::SIGABRT;
    assert_eq!(End::of_kernel(0, Some(3), b""), End::PoweredOff(3));
    assert_eq!(End::of_kernel(0, None, b""), End::NoCode);
    assert_eq!(
        End::of_kernel(ABORTED, Some(0), b"x\nKernel panic - not syncing: y\n"),
        End::Panicked { reason: "Kernel panic - not syncing: y".into() }
    );
    assert!(matches!(End::of_kernel(1 << 8, None, b""), End::Died(_)));
}

fn any_process_with(argument: &str) -> bool {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .any(|line| line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes()))
}
