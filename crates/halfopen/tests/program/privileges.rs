//! What a program of a trial can do that its caller may not: nothing. A copy of this very test
//! program runs as a program of a host, and tries.

mod kernel;

use crate::common::{is_real_root, show};
use crate::nothing_left::{CLIENT, descendant, read_until, start};
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Gid, Pid, Uid, chown, chroot, geteuid, sethostname, setuid};
use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Set in the environment of the one inside: the directory with what it tries its hands on.
const PLACE: &str = "HALFOPEN_TEST_INSIDE";
/// Set in the environment of a set-user-ID copy: it says who it is.
const WHO: &str = "HALFOPEN_TEST_WHO";
/// An ordinary user, and another one.
const NOBODY: u32 = 54_320;
const SOMEBODY: u32 = 54_321;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// Root itself.
    Root,
    /// An ordinary user by way of sudo.
    Sudo,
    /// An ordinary user.
    Ordinary,
}

#[test]
fn nothing_is_gained_by_a_program_of_roots() {
    try_everything(Caller::Root, "real");
}

#[test]
fn nothing_is_gained_by_a_program_of_the_one_who_called_sudo() {
    try_everything(Caller::Sudo, "real");
}

#[test]
fn nothing_is_gained_by_a_program_of_an_ordinary_user() {
    try_everything(Caller::Ordinary, "real");
}

#[test]
#[ignore = "needs the virtual kernel: just kernel"]
fn nothing_is_gained_in_virtual_time() {
    for caller in [Caller::Root, Caller::Sudo, Caller::Ordinary] {
        try_everything(caller, "virtual");
    }
}

/// halfopen's own peers have even less: no file, no other process, and no descriptor but their
/// standard streams and the connection.
#[test]
fn a_peer_of_ours_has_a_connection_and_nothing_else() {
    let out = tempfile::tempdir().unwrap();
    let mark = format!("{}-peer", std::process::id());
    let mut child = start(&mark, out.path(), &["host-crash-idle-no-keepalive"]);
    read_until(&mut child, "fault: power-off");
    let client = PathBuf::from(format!("/proc/{}", descendant(child.id(), CLIENT)));
    let status = fs::read_to_string(client.join("status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("{name}: {status}")).split_whitespace().collect::<Vec<_>>()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(field("NoNewPrivs"), ["1"]);
    assert_eq!(field("NSpid").last(), Some(&"1"));
    assert_eq!(fs::read_dir(client.join("root")).unwrap().count(), 0, "it sees a file");
    let made = File::create(client.join("root/made")).map_err(|error| error.kind());
    assert_eq!(made.err(), Some(std::io::ErrorKind::ReadOnlyFilesystem));
    let descriptors: BTreeSet<_> = fs::read_dir(client.join("fd"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(descriptors, ["0", "1", "2", "3"].map(String::from).into());
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Has a program of this caller's try everything, and lists what it tried.
fn try_everything(caller: Caller, clock: &str) {
    let is_root = is_real_root();
    if !is_root && caller != Caller::Ordinary {
        eprintln!("skipped: only root can be a caller like {caller:?}");
        return;
    }
    let place = prepare(caller, is_root);
    let halfopen = place.path().join("halfopen");
    let mut command = Command::new(&halfopen);
    command
        .args(["__program", "--clock", clock, "--"])
        .arg(place.path().join("inside"))
        .args(["--exact", "privileges::from_inside", "--ignored", "--nocapture"])
        .arg("--test-threads=1")
        .env(PLACE, place.path())
        .env("HALFOPEN_UML", place.path().join("linux"))
        .current_dir(place.path());
    for name in ["SUDO_UID", "SUDO_GID"] {
        command.env_remove(name);
        if caller == Caller::Sudo {
            command.env(name, NOBODY.to_string());
        }
    }
    if caller == Caller::Ordinary && is_root {
        command.uid(NOBODY).gid(NOBODY);
    }
    if clock == "real" {
        command.env_remove("HALFOPEN_UML");
        if let Some(key) = (caller == Caller::Sudo).then(kernel::leave_a_key).flatten() {
            command.env(kernel::KEY, key.to_string());
        }
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{caller:?}, {clock} clock:\n{text}");
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    assert!(!text.contains("ESCAPED"), "{text}");
    let tried = text.lines().filter(|line| line.starts_with("denied")).count();
    assert!(tried >= 100, "it tried {tried} things: {}", show(&output));
    assert!(text.contains("allowed: a file in the working directory"), "{text}");
    let left = place.path().join("made-inside").exists();
    assert_eq!(left, clock == "real", "in virtual time what is written is thrown away");
    let foreign = fs::read_to_string(place.path().join("foreign"));
    assert!(!is_root || foreign.unwrap() == "untouched");
}

/// A directory of the caller's, with copies of the programs, a set-user-ID one, a disk, and a file
/// of somebody else's.
fn prepare(caller: Caller, is_root: bool) -> TempDir {
    let place = tempfile::tempdir_in("/tmp").unwrap();
    let copy = |from: &Path, name: &str| {
        let path = place.path().join(name);
        fs::copy(from, &path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    };
    copy(Path::new(env!("CARGO_BIN_EXE_halfopen")), "halfopen");
    let inside = std::env::current_exe().unwrap();
    copy(&inside, "inside");
    let built = std::env::var_os("HOME")
        .map(|home| lab::guest::built_kernel(&Path::new(&home).join(".cache"), None, 250));
    let ready = std::env::var_os("HALFOPEN_UML").map(Into::into);
    if let Some(kernel) = ready.or(built).filter(|kernel: &std::path::PathBuf| kernel.exists()) {
        copy(&kernel, "linux");
    }
    fs::write(place.path().join("foreign"), "untouched").unwrap();
    fs::set_permissions(place.path(), Permissions::from_mode(0o755)).unwrap();
    if is_root {
        let (user, group) = (Uid::from_raw(SOMEBODY), Gid::from_raw(SOMEBODY));
        let foreign = place.path().join("foreign");
        chown(&foreign, Some(user), Some(group)).unwrap();
        fs::set_permissions(&foreign, Permissions::from_mode(0o600)).unwrap();
        let raised = copy(&inside, "raised");
        // To an ordinary user root would be something to become, and to root somebody else.
        let owner = if caller == Caller::Root { SOMEBODY } else { 0 };
        chown(&raised, Some(Uid::from_raw(owner)), None).unwrap();
        fs::set_permissions(&raised, Permissions::from_mode(0o4755)).unwrap();
        let disk = place.path().join("disk");
        mknod(&disk, SFlag::S_IFBLK, Mode::from_bits_truncate(0o666), makedev(1, 0)).unwrap();
        fs::set_permissions(&disk, Permissions::from_mode(0o666)).unwrap();
        let owner = if caller == Caller::Root { 0 } else { NOBODY };
        chown(place.path(), Some(Uid::from_raw(owner)), None).unwrap();
    }
    place
}

/// What was tried must have failed.
fn denied<T, E: ToString>(what: &str, result: Result<T, E>) {
    match result {
        Ok(_) => println!("ESCAPED: {what}"),
        Err(error) => println!("denied: {what}: {}", error.to_string()),
    }
}

/// The one inside. Run by hand it does nothing.
#[test]
#[ignore = "runs inside a trial, by the other tests here"]
fn from_inside() {
    println!();
    if std::env::var_os(WHO).is_some() {
        println!("user {}", geteuid());
        return;
    }
    let Some(place) = std::env::var_os(PLACE) else { return };
    let place = Path::new(&place);
    let root = geteuid().is_root();
    let by_root = place.join("raised").exists();
    let write = |path: &Path| File::options().write(true).open(path);

    // The caller's own.
    fs::write("made-inside", "x").unwrap();
    println!("allowed: a file in the working directory");
    TcpListener::bind("0.0.0.0:80").unwrap();
    println!("allowed: port 80");

    // Files and devices.
    if by_root {
        denied("writing somebody else's file", write(&place.join("foreign")));
        denied("reading somebody else's file", File::open(place.join("foreign")));
        denied("reading a disk by a device node that is there", File::open(place.join("disk")));
    }
    denied("making a file in /proc/sys", File::create("/proc/sys/new"));
    denied("making a file in /dev", File::create("/dev/new"));
    denied("writing this program by /proc/self/exe", write(Path::new("/proc/self/exe")));
    denied("writing halfopen by /proc/1/exe", write(Path::new("/proc/1/exe")));
    if !root {
        denied("reading /etc/shadow", fs::read("/etc/shadow"));
        denied("making a file in /etc", File::create("/etc/halfopen-escape"));
        denied("becoming root", setuid(Uid::from_raw(0)));
    }
    for (kind, name) in [(SFlag::S_IFBLK, "block"), (SFlag::S_IFCHR, "character")] {
        for directory in ["/dev/shm", "/tmp"] {
            let node = Path::new(directory).join(format!("halfopen-node-{}", std::process::id()));
            let made = mknod(&node, kind, Mode::from_bits_truncate(0o600), makedev(1, 1));
            denied(&format!("making a {name} device in {directory}"), made);
        }
    }
    for device in ["vda", "sda", "nvme0n1", "mem", "kmsg", "loop-control", "fuse", "net/tun"] {
        denied(&format!("opening /dev/{device}"), File::open(Path::new("/dev").join(device)));
    }
    denied("reading /proc/kmsg", File::open("/proc/kmsg"));

    // The kernel's settings.
    for sysctl in ["net/ipv4/tcp_retries2", "kernel/core_pattern", "vm/overcommit_memory"] {
        let path = Path::new("/proc/sys").join(sysctl);
        denied(&format!("changing {sysctl}"), write(&path));
        let path = Path::new("/proc/1/root/proc/sys").join(sysctl);
        denied(&format!("changing {sysctl} by /proc/1/root"), write(&path));
    }
    denied("opening /proc/sysrq-trigger", write(Path::new("/proc/sysrq-trigger")));
    let sys = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let open_ones = sys.lines().filter(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        fields[4].starts_with("/sys") && !fields[5].split(',').any(|option| option == "ro")
    });
    denied(
        "finding a mount below /sys that can be written",
        open_ones.count().checked_sub(1).ok_or("none"),
    );

    // Privileges.
    let nothing = None::<&str>;
    denied("mounting", mount(Some("x"), "/mnt", Some("tmpfs"), MsFlags::empty(), nothing));
    denied("unmounting", umount2("/proc/sys", MntFlags::MNT_DETACH));
    let again = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    denied("making /proc/sys writable", mount(nothing, "/proc/sys", nothing, again, nothing));
    denied("changing the root", chroot("/tmp"));
    denied("changing the host's name", sethostname("escaped"));
    let raw = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None);
    denied("a packet socket", raw);
    denied("another mount namespace", unshare(CloneFlags::CLONE_NEWNS));
    let other = File::open("/proc/1/ns/net").map_err(|error| error.to_string());
    denied("the keeper's namespaces", other);
    let own = File::open("/proc/self/ns/mnt").unwrap();
    denied("entering a namespace", setns(own, CloneFlags::CLONE_NEWNS));
    if by_root {
        let who = Command::new(place.join("raised"))
            .args(["--exact", "privileges::from_inside", "--ignored", "--nocapture"])
            .env(WHO, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&who.stdout).into_owned();
        let same = text.contains(&format!("user {}", geteuid()));
        denied(
            "becoming another by a set-user-ID program",
            if same { Err("no change") } else { Ok(()) },
        );
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let held = status
        .lines()
        .filter(|line| line.starts_with("Cap") && !line.ends_with("0000000000000000"));
    denied("having a capability in any set", held.count().checked_sub(1).ok_or("none"));

    // Descriptors and processes.
    let open_ones: Vec<_> = fs::read_dir("/proc/self/fd").unwrap().map(|fd| fd.unwrap()).collect();
    let more = open_ones.len().checked_sub(5).ok_or("0, 1, 2 and that of the directory");
    denied("finding a descriptor beyond the standard ones", more);
    let strangers: Vec<_> = numbers("/proc").into_iter().filter(|pid| *pid > 2).collect();
    denied("seeing other processes", strangers.first().ok_or("none"));
    let parent = Pid::from_raw(1);
    let theirs = (0..10).find(|fd| File::open(format!("/proc/1/fd/{fd}")).is_ok());
    denied("the keeper's descriptors, and the lifeline", theirs.ok_or("none can be opened"));
    denied("the keeper's memory", open("/proc/1/mem", OFlag::O_RDWR, Mode::empty()));
    let threads = numbers("/proc/self/task");
    let mut alive =
        (2..70_000).filter(|pid| !threads.contains(pid) && kill(Pid::from_raw(*pid), None).is_ok());
    denied(
        "signalling the worker, the launcher or another program",
        alive.next().ok_or("there is none"),
    );
    for signal in [Signal::SIGKILL, Signal::SIGSTOP, Signal::SIGTERM] {
        let _ = kill(parent, signal);
    }
    let state = fs::read_to_string("/proc/1/stat").map_err(|error| error.to_string());
    let state = state.unwrap_or_default();
    denied("stopping the keeper", if state.contains(") T") { Ok(()) } else { Err("it goes on") });

    kernel::try_all(place);

    // A user namespace of one's own, where there may be one: root in it is root of nothing else.
    let as_another_root = |script: &str| {
        let output = Command::new("unshare").args(["-Urm", "sh", "-c", script]).output();
        output.map_err(|error| error.to_string()).and_then(|output| {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            if output.status.success() { Ok(()) } else { Err(said) }
        })
    };
    if as_another_root("true").is_ok() {
        for script in [
            "umount /proc/sys",
            "mount -o remount,bind,rw /proc/sys",
            "mount -t proc p /proc",
            "unshare -pf mount -t proc p /proc",
            "umount -l /proc; unshare -pf mount -t proc p /proc",
            "unshare -n mount -t sysfs s /sys",
            "mount -t tracefs t /mnt",
            "mount --rbind /proc /mnt && umount /mnt/sys",
            "mount -o remount,bind,rw /sys",
            "mknod /dev/shm/disk b 1 0",
            "echo 1 > /proc/sys/net/ipv4/tcp_retries2",
            "ip link set eth0 down",
            "nsenter -t 1 -n true",
            "cat /proc/1/maps",
        ] {
            denied(
                &format!("as root of another user namespace: {script}"),
                as_another_root(script),
            );
        }
    }
}

/// The entries of a directory that are numbers.
fn numbers(directory: &str) -> Vec<i32> {
    let entries = fs::read_dir(directory).unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}
