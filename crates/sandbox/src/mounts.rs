//! What a program sees of the file system.
//!
//! The launcher's mount namespace is the pattern ([`prepare`]): every program's is a copy of it, in
//! which only what is the program's own is mounted anew ([`make_own`]).
#![expect(unsafe_code, reason = "mount_setattr has no safe wrapper")]

use crate::Error;
use rustix::fs::{CWD, Mode, mkdirat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount, mount_bind,
    mount_remount, move_mount, open_tree, unmount,
};
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// The devices of /dev.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Symbolic links of /dev, and where they lead.
const LINKS: [(&str, &str); 5] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// What user 0 could write to in /proc without any capability, and what is not a process's.
const PROC_READ_ONLY: [&str; 14] = [
    "sys",
    "sysrq-trigger",
    "irq",
    "bus",
    "fs",
    "acpi",
    "scsi",
    "asound",
    "driver",
    "dynamic_debug",
    "latency_stats",
    "mtrr",
    "slabinfo",
    // User Mode Linux: how the virtual kernel ends.
    "exitcode",
];

/// Where the pattern keeps read-only copies of those, hidden in every program's namespace by its
/// own /dev/shm.
const KEPT: &str = "/dev/shm";

const QUIET: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);

/// Makes the mounts of this process, which has a mount namespace of its own, the pattern.
pub(crate) fn prepare() -> Result<(), Error> {
    let copies: Vec<_> = DEVICES
        .iter()
        .filter_map(|device| {
            let path = Path::new("/dev").join(device);
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            Some((path.clone(), open_tree(CWD, path, flags).ok()?))
        })
        .collect();
    let locked = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    set_attributes(c"/", locked)
        .map_err(Error::of("making every mount nosuid and nodev (mount_setattr, Linux 5.12)"))?;
    set_attributes(c"/sys", libc::MOUNT_ATTR_RDONLY).map_err(Error::of("making /sys read-only"))?;

    mount("dev", "/dev", "tmpfs", QUIET, Some(c"mode=755")).map_err(Error::of("mounting /dev"))?;
    for (path, copy) in copies {
        let operation = format!("mounting {}", path.display());
        fs::write(&path, "").map_err(Error::of(operation.clone()))?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(copy, "", CWD, &path, flags).map_err(Error::of(operation))?;
    }
    for (name, target) in LINKS {
        symlink(target, Path::new("/dev").join(name)).map_err(Error::of("filling /dev"))?;
    }
    for directory in ["/dev/pts", "/dev/shm"] {
        fs::create_dir(directory).map_err(Error::of("filling /dev"))?;
    }
    mount("kept", KEPT, "tmpfs", QUIET, Some(c"mode=755"))
        .map_err(Error::of("mounting /dev/shm"))?;
    for (name, kept) in read_only_parts() {
        let operation = || format!("making {name} read-only");
        let made =
            if Path::new(&name).is_dir() { fs::create_dir(&kept) } else { fs::write(&kept, "") };
        made.map_err(Error::of(operation()))?;
        mount_bind(&name, &kept).map_err(Error::of(operation()))?;
        let read_only = MountFlags::BIND | MountFlags::RDONLY | QUIET | MountFlags::NODEV;
        mount_remount(&kept, read_only, c"").map_err(Error::of(operation()))?;
    }
    mount_remount("/dev", MountFlags::BIND | MountFlags::RDONLY | QUIET, c"")
        .map_err(Error::of("making /dev read-only"))
}

/// In a copy of the pattern: mounts what is this program's own. `shm` is for /dev/shm instead of an
/// empty tmpfs.
pub(crate) fn make_own(shm: Option<BorrowedFd>, read_only: bool) -> Result<(), Error> {
    if read_only {
        set_attributes(c"/", libc::MOUNT_ATTR_RDONLY)
            .map_err(Error::of("making every file system read-only"))?;
    }
    let quiet = QUIET | MountFlags::NODEV;
    mount("proc", "/proc", "proc", quiet, None).map_err(Error::of("mounting /proc"))?;
    for (name, kept) in read_only_parts() {
        mount_bind(kept, &name).map_err(Error::of(format!("making {name} read-only")))?;
    }
    mount("devpts", "/dev/pts", "devpts", QUIET, Some(c"mode=620,ptmxmode=666"))
        .map_err(Error::of("mounting /dev/pts"))?;
    let operation = || Error::of("mounting /dev/shm");
    let Some(shm) = shm else {
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        return mount("shm", "/dev/shm", "tmpfs", flags, Some(c"mode=1777")).map_err(operation());
    };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(shm, "", CWD, "/dev/shm", flags).map_err(operation())
}

/// In a copy of the pattern: covers the root's file system with a layer that takes what is written,
/// and ends with this mount namespace. Other file systems than /dev and /sys are left behind, so
/// that what they cover is seen.
pub(crate) fn cover() -> Result<(), Error> {
    /// Where the layer and the new root are until that is the root: a directory that is empty.
    const LAYER: &str = "/dev/pts";
    const ROOT: &str = "/dev/pts/root";
    let cover = || -> rustix::io::Result<()> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE;
        let kept =
            [("dev", open_tree(CWD, "/dev", flags)?), ("sys", open_tree(CWD, "/sys", flags)?)];
        let quiet = MountFlags::NOSUID | MountFlags::NODEV;
        mount("layer", LAYER, "tmpfs", quiet, Some(c"mode=755"))?;
        for name in ["upper", "work", "root"] {
            mkdirat(CWD, format!("{LAYER}/{name}"), Mode::from_raw_mode(0o755))?;
        }
        let options = c"lowerdir=/,upperdir=/dev/pts/upper,workdir=/dev/pts/work";
        mount("layer", ROOT, "overlay", quiet, Some(options))?;
        for (name, mount) in kept {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            move_mount(mount, "", CWD, format!("{ROOT}/{name}"), flags)?;
        }
        rustix::process::chdir(ROOT)?;
        // The new root lies upon the old one for a moment (pivot_root(2), "pivot_root(".", ".")").
        rustix::process::pivot_root(".", ".")?;
        unmount(".", UnmountFlags::DETACH)?;
        rustix::process::chdir("/")
    };
    cover().map_err(Error::of("covering the files with a layer"))
}

/// In a copy of the pattern with its own /dev/shm: puts files with these texts over those at these
/// paths. A path that leads to no file stays as it is.
pub(crate) fn replace(files: &[(PathBuf, String)]) -> Result<(), Error> {
    for (path, text) in files.iter().filter(|(path, _)| path.is_file()) {
        let operation = || format!("mounting {}", path.display());
        // It goes on without its name.
        let source = Path::new(KEPT).join("halfopen");
        fs::write(&source, text)
            .and_then(|()| fs::set_permissions(&source, fs::Permissions::from_mode(0o444)))
            .map_err(Error::of(operation()))?;
        mount_bind(&source, path).map_err(Error::of(operation()))?;
        let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        mount_remount(path, flags, c"").map_err(Error::of(operation()))?;
        fs::remove_file(&source).map_err(Error::of(operation()))?;
    }
    Ok(())
}

/// A tmpfs that is attached nowhere, and that anybody may write: for a program's /dev/shm. It takes the
/// privilege to mount.
///
/// # Errors
/// Those of `fsopen` and `fsmount`.
pub fn private_tmpfs() -> io::Result<OwnedFd> {
    let tmpfs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&tmpfs, "mode", "1777")?;
    fsconfig_create(&tmpfs)?;
    // Executable: a guest's memory is mapped from a file in it.
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(fsmount(&tmpfs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A copy of the mount at `path`, attached nowhere and read-only: what is executed from it cannot
/// be written by way of `/proc/self/exe`.
///
/// # Errors
/// `ENOSYS` before Linux 5.12.
pub fn read_only_copy(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let copy = open_tree(CWD, path, flags)?;
    set_attributes_at(copy.as_fd(), c"", libc::MOUNT_ATTR_RDONLY, libc::AT_EMPTY_PATH)?;
    Ok(copy)
}

/// The parts of /proc that are to be read-only, and the pattern's copies of them.
fn read_only_parts() -> impl Iterator<Item = (String, String)> {
    PROC_READ_ONLY
        .iter()
        .map(|name| (format!("/proc/{name}"), format!("{KEPT}/{name}")))
        .filter(|(name, _)| Path::new(name).exists())
}

/// Sets attributes of a mount and all below it.
fn set_attributes(path: &CStr, set: u64) -> io::Result<()> {
    set_attributes_at(CWD, path, set, libc::AT_RECURSIVE)
}

fn set_attributes_at(
    directory: BorrowedFd,
    path: &CStr,
    set: u64,
    flags: libc::c_int,
) -> io::Result<()> {
    // struct mount_attr of linux/mount.h: set, clear, propagation, user namespace.
    let attributes: [u64; 4] = [set, 0, 0, 0];
    // SAFETY: a plain system call with a valid C string and a structure of the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            directory.as_raw_fd(),
            path.as_ptr(),
            flags,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
