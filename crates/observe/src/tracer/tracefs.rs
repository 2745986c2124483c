//! Finding tracefs, and what it says about tracepoints.

use super::format::Format;
use super::tracepoints::{Kind, Reader};
use crate::Error;
use nix::mount::{MsFlags, mount};
use std::fs;
use std::path::{Path, PathBuf};

/// Where tracefs is mounted; if nowhere, it is mounted at `mount_point`.
pub(super) fn find_or_mount(mount_point: Option<&Path>) -> Result<PathBuf, Error> {
    if let Some(found) = find() {
        return Ok(found);
    }
    let Some(mount_point) = mount_point else {
        return Err(Error::NoTracefs { why: "it is mounted nowhere".into() });
    };
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tracefs"), mount_point, Some("tracefs"), flags, None::<&str>).map_err(|errno| {
        Error::NoTracefs { why: format!("mounting it at {}: {errno}", mount_point.display()) }
    })?;
    Ok(mount_point.to_path_buf())
}

/// Where tracefs usually is (Documentation/trace/ftrace.rst).
const USUAL: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// A mounted tracefs whose events can be read.
pub(super) fn find() -> Option<PathBuf> {
    let is_tracefs = |path: &PathBuf| path.join("events").is_dir();
    // Of this thread: a mount namespace can be one thread's.
    match fs::read_to_string("/proc/thread-self/mountinfo") {
        Ok(mounts) => tracefs_mounts(&mounts).find(is_tracefs),
        // The /proc here may be that of another PID namespace, which does not show this thread.
        Err(_) => USUAL.map(PathBuf::from).into_iter().find(is_tracefs),
    }
}

/// `36 35 98:0 / /sys/kernel/tracing rw,nosuid - tracefs tracefs rw`
fn tracefs_mounts(mountinfo: &str) -> impl Iterator<Item = PathBuf> {
    mountinfo.lines().filter_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let is_tracefs = file_system.split(' ').next() == Some("tracefs");
        let path = mount.split(' ').nth(4)?;
        is_tracefs.then(|| PathBuf::from(unescape(path)))
    })
}

/// Spaces and the like are written in octal: `\040`.
fn unescape(path: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .into_iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(path.to_string(), |path, (written, meant)| path.replace(written, meant))
}

/// Reads a tracepoint's number and layout.
pub(super) fn reader(tracefs: &Path, kind: Kind) -> Result<Reader, String> {
    let path = tracefs.join("events").join(kind.path()).join("format");
    let text = fs::read_to_string(&path)
        .map_err(|error| format!("reading {}: {error}", path.display()))?;
    Format::parse(&text)
        .and_then(|format| Reader::new(kind, &format))
        .ok_or_else(|| format!("{} lacks a field that is needed", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounted_tracefs_are_found() {
        let mountinfo = "36 35 98:0 / /sys rw,nosuid shared:1 - sysfs sysfs rw\n\
            37 36 0:12 / /sys/kernel/tracing rw,nosuid shared:2 master:3 - tracefs tracefs rw\n\
            38 36 0:12 / /tmp/my\\040trace rw - tracefs none rw\n\
            39 36 0:13 / /tracefs rw - tmpfs tracefs rw\n";
        let found: Vec<_> = tracefs_mounts(mountinfo).collect();
        assert_eq!(found, [Path::new("/sys/kernel/tracing"), Path::new("/tmp/my trace")]);
    }
}
