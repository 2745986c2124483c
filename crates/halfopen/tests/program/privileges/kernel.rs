//! What else could be asked of the kernel: system calls, sockets, files, keys.
#![expect(unsafe_code, reason = "most of these system calls have no safe wrapper")]

use super::{NOBODY, denied};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::unistd::{Uid, chown};
use std::ffi::{CStr, CString, c_long};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Set in the environment of the one inside: a key in the session keyring of who called sudo's root.
pub(super) const KEY: &str = "HALFOPEN_TEST_KEY";

/// Tries all of it. `place` is a directory in which this user may write.
pub(super) fn try_all(place: &Path) {
    system_calls();
    of_another_process();
    rights(place);
    namespaces();
    network();
    files();
    terminal();
    if let Some(key) = std::env::var(KEY).ok().and_then(|key| key.parse().ok()) {
        let mut secret = [0_u8; 16];
        let [at, len] = [secret.as_mut_ptr() as usize, secret.len()];
        denied(
            "reading a key of the session that called sudo",
            call(libc::SYS_keyctl, [KEYCTL_READ, key, at, len]),
        );
    }
}

/// Puts a key into a session keyring of its own, which what this thread starts inherits; `None`: this
/// kernel has no keys.
pub(super) fn leave_a_key() -> Option<usize> {
    call(libc::SYS_keyctl, [KEYCTL_JOIN_SESSION_KEYRING, 0]).ok()?;
    let [kind, name, secret] = [c"user", c"halfopen", c"secret"].map(text);
    let keyring = KEY_SPEC_SESSION_KEYRING.cast_unsigned();
    Some(call(libc::SYS_add_key, [kind, name, secret, 6, keyring]).unwrap())
}

const KEYCTL_JOIN_SESSION_KEYRING: usize = 1;
const KEYCTL_READ: usize = 11;
const KEY_SPEC_SESSION_KEYRING: isize = -3;

/// A system call with these arguments, and zeros.
fn call<const N: usize>(number: c_long, arguments: [usize; N]) -> io::Result<usize> {
    let mut all = [0; 6];
    all[..N].copy_from_slice(&arguments);
    // SAFETY: where an argument is an address, it is that of memory that the caller has.
    let result = unsafe { libc::syscall(number, all[0], all[1], all[2], all[3], all[4], all[5]) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn text(text: &'static CStr) -> usize {
    text.as_ptr() as usize
}

/// What acts on the whole machine.
fn system_calls() {
    const CLONE: usize = libc::OPEN_TREE_CLONE as usize;
    const HERE: usize = libc::AT_FDCWD as usize;
    let zeros = [0_u64; 64];
    let nothing = zeros.as_ptr() as usize;
    let map = [2_u32, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let writable = [0_u64, libc::MOUNT_ATTR_RDONLY, 0, 0];
    // PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_CLOCK.
    let clock =
        [1_u32, 112, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let set_offset =
        [1_u64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let highest = 1_i32;
    let all = usize::MAX;
    let (proc, root) = (text(c"/proc"), text(c"/"));
    for (what, number, arguments) in [
        ("another kernel (kexec_load)", libc::SYS_kexec_load, [0; 5]),
        ("restarting the machine", libc::SYS_reboot, [0xfee1_dead, 672_274_793, 0, 0, 0]),
        ("a module", libc::SYS_init_module, [nothing, 1, text(c""), 0, 0]),
        ("a BPF map", libc::SYS_bpf, [0, map.as_ptr() as usize, size_of_val(&map), 0, 0]),
        (
            "making /proc/sys writable (mount_setattr)",
            libc::SYS_mount_setattr,
            [HERE, text(c"/proc/sys"), 0, writable.as_ptr() as usize, size_of_val(&writable)],
        ),
        ("a copy of a mount (open_tree)", libc::SYS_open_tree, [HERE, proc, CLONE, 0, 0]),
        ("a file system (fsopen)", libc::SYS_fsopen, [text(c"proc"), 0, 0, 0, 0]),
        ("a file system's settings (fspick)", libc::SYS_fspick, [HERE, root, 0, 0, 0]),
        ("another root (pivot_root)", libc::SYS_pivot_root, [root, root, 0, 0, 0]),
        ("a file by its handle", libc::SYS_open_by_handle_at, [HERE, nothing, 0, 0, 0]),
        ("setting the clock", libc::SYS_clock_settime, [0, nothing, 0, 0, 0]),
        ("adjusting the clock", libc::SYS_adjtimex, [set_offset.as_ptr() as usize, 0, 0, 0, 0]),
        ("a swap file", libc::SYS_swapon, [text(c"/dev/null"), 0, 0, 0, 0]),
        ("accounting", libc::SYS_acct, [text(c"/dev/null"), 0, 0, 0, 0]),
        ("clearing the kernel's log", libc::SYS_syslog, [5, 0, 0, 0, 0]),
        ("hanging the terminal up", libc::SYS_vhangup, [0; 5]),
        (
            "counting events of the whole machine (perf_event_open)",
            libc::SYS_perf_event_open,
            [clock.as_ptr() as usize, all, 0, all, 0],
        ),
        (
            "SCHED_FIFO, which starves the machine",
            libc::SYS_sched_setscheduler,
            [0, 1, &raw const highest as usize, 0, 0],
        ),
        ("a higher priority", libc::SYS_setpriority, [0, 0, -5_isize as usize, 0, 0]),
        ("the real-time class of a disk", libc::SYS_ioprio_set, [1, 0, 1 << 13, 0, 0]),
        #[cfg(target_arch = "x86_64")]
        ("I/O ports", libc::SYS_iopl, [3, 0, 0, 0, 0]),
    ] {
        denied(what, call(number, arguments));
    }
    let userfaultfd = call(libc::SYS_userfaultfd, [0]);
    let restricted = fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd");
    if restricted.is_ok_and(|value| value.trim() == "0") {
        denied("holding the kernel up at a page fault (userfaultfd)", userfaultfd);
    }
}

/// The keeper, which is process 1 here.
fn of_another_process() {
    let mut bytes = [0_u8; 8];
    let own = [bytes.as_mut_ptr() as usize, bytes.len()];
    let theirs = [0x40_0000_usize, 8];
    let vectors = [own.as_ptr() as usize, theirs.as_ptr() as usize];
    for (what, number, arguments) in [
        (
            "tracing the keeper (ptrace)",
            libc::SYS_ptrace,
            [libc::PTRACE_ATTACH as usize, 1, 0, 0, 0],
        ),
        ("seizing the keeper", libc::SYS_ptrace, [libc::PTRACE_SEIZE as usize, 1, 0, 0, 0]),
        (
            "the keeper's memory by a call",
            libc::SYS_process_vm_readv,
            [1, vectors[0], 1, vectors[1], 1],
        ),
        ("comparing with the keeper (kcmp)", libc::SYS_kcmp, [1, 2, 0, 0, 0]),
    ] {
        denied(what, call(number, arguments));
    }
    let keeper = call(libc::SYS_pidfd_open, [1]).expect("who may be seen has one");
    for number in 0..10 {
        let taken = call(libc::SYS_pidfd_getfd, [keeper, number]);
        denied(&format!("descriptor {number} of the keeper (pidfd_getfd)"), taken);
    }
    let network = libc::CLONE_NEWNET as usize;
    denied("the keeper's network by its pidfd", call(libc::SYS_setns, [keeper, network]));
    for entry in ["root", "cwd", "environ", "map_files", "stack", "syscall", "auxv"] {
        let path = Path::new("/proc/1").join(entry);
        let seen = if path.is_dir() || entry == "map_files" {
            fs::read_dir(&path).and_then(|mut entries| entries.next().transpose()).map(|_| ())
        } else {
            File::open(&path).and_then(|mut file| file.read(&mut [0; 1])).map(|_| ())
        };
        denied(&format!("/proc/1/{entry}"), seen);
    }
}

/// What a process could give itself, or its files.
fn rights(place: &Path) {
    const SYS_ADMIN: u32 = 1 << 21;
    let header = [0x2008_0522_u32, 0];
    let data = [SYS_ADMIN, SYS_ADMIN, 0, 0, 0, 0];
    let root = 0_u32;
    let raise = libc::PR_CAP_AMBIENT_RAISE as usize;
    for (what, number, arguments) in [
        (
            "a capability (capset)",
            libc::SYS_capset,
            [header.as_ptr() as usize, data.as_ptr() as usize, 0],
        ),
        ("no no_new_privs", libc::SYS_prctl, [libc::PR_SET_NO_NEW_PRIVS as usize, 0, 0]),
        ("other secure bits", libc::SYS_prctl, [libc::PR_SET_SECUREBITS as usize, 0x2f, 0]),
        ("an ambient capability", libc::SYS_prctl, [libc::PR_CAP_AMBIENT as usize, raise, 21]),
        ("root's group", libc::SYS_setgroups, [1, &raw const root as usize, 0]),
        ("becoming somebody else", libc::SYS_setresuid, [54_321, 54_321, 54_321]),
    ] {
        denied(what, call(number, arguments));
    }
    let own = place.join("own");
    fs::write(&own, "x").unwrap();
    denied("giving a file away", chown(&own, Some(Uid::from_raw(NOBODY + 7)), None));
    // VFS_CAP_REVISION_2, effective: CAP_SYS_ADMIN.
    let attribute = [0x0200_0001_u32, SYS_ADMIN, 0, 0, 0];
    let path = CString::new(own.to_str().unwrap()).unwrap();
    let named = [path.as_ptr() as usize, text(c"security.capability")];
    let value = [attribute.as_ptr() as usize, size_of_val(&attribute)];
    denied(
        "a file with a capability",
        call(libc::SYS_setxattr, [named[0], named[1], value[0], value[1], 0]),
    );
    let less = File::options().write(true).open("/proc/self/oom_score_adj");
    denied("being spared when memory is short", less.and_then(|mut file| file.write_all(b"-500")));
}

/// Those that this process is in, and who owns them.
fn namespaces() {
    /// `ioctl_ns(2)`: the parent; the next mount namespace (6.11).
    const NS_GET_PARENT: usize = 0xb702;
    const NS_MNT_GET_NEXT: usize = 0x8010_b70b;
    let ask = |name: &str, request: usize| {
        let file = File::open(Path::new("/proc/self/ns").join(name))?;
        call(libc::SYS_ioctl, [file.as_raw_fd() as usize, request, 0])
    };
    denied("the PID namespace around", ask("pid", NS_GET_PARENT));
    denied("the user namespace around", ask("user", NS_GET_PARENT));
    denied("another mount namespace, by the order of all", ask("mnt", NS_MNT_GET_NEXT));
}

/// The network that the laboratory has made.
fn network() {
    const SIOCSIFFLAGS: usize = 0x8914;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut request = [0_u8; 40];
    request[..4].copy_from_slice(b"eth0");
    let descriptor = socket.as_raw_fd() as usize;
    denied(
        "taking eth0 down (ioctl)",
        call(libc::SYS_ioctl, [descriptor, SIOCSIFFLAGS, request.as_ptr() as usize]),
    );
    // struct ifinfomsg: family, type, index, flags, those to change (IFF_UP).
    let link = |index: u32| -> Vec<u8> { [0, index, 0, 1].map(u32::to_ne_bytes).concat() };
    denied("taking an interface down (RTM_SETLINK)", netlink(0, 19, &link(1)));
    denied("removing an interface (RTM_DELLINK)", netlink(0, 17, &link(2)));
    // struct rtmsg: all of the main table.
    denied(
        "removing a route (RTM_DELROUTE)",
        netlink(0, 25, &[2, 0, 0, 0, 254, 0, 0, 0, 0, 0, 0, 0]),
    );
    // NFNL_MSG_BATCH_BEGIN of nf_tables.
    denied("a packet filter (nf_tables)", netlink(12, 16, &[0, 0, 0, 10]));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_be_bytes();
    // struct inet_diag_req_v2: family, protocol, states; ports; addresses; interface, cookie (none).
    let any = [0_u8; 16];
    let mut socket = vec![2, 6, 0, 0, 0xff, 0xff, 0xff, 0xff, port[0], port[1], 0, 0, 127, 0, 0, 1];
    socket.extend([&any[..12], &any, &any[..4], &[0xff; 8]].concat());
    denied("destroying a socket (SOCK_DESTROY)", netlink(4, 21, &socket));
    for (what, level, option) in [
        ("TCP_REPAIR", libc::SOL_TCP, libc::TCP_REPAIR),
        ("IP_TRANSPARENT", libc::SOL_IP, libc::IP_TRANSPARENT),
        ("SO_MARK", libc::SOL_SOCKET, libc::SO_MARK),
        ("SO_RCVBUFFORCE", libc::SOL_SOCKET, libc::SO_RCVBUFFORCE),
    ] {
        let value = 1_i32;
        let at = &raw const value as usize;
        let [socket, level, option] = [listener.as_raw_fd(), level, option].map(|n| n as usize);
        denied(what, call(libc::SYS_setsockopt, [socket, level, option, at, 4]));
    }
    // SAFETY: three numbers.
    let raw = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP) };
    denied("a raw socket", usize::try_from(raw).map_err(|_| io::Error::last_os_error()));
    let sockets = fs::read_to_string("/proc/net/unix").unwrap();
    let strange = sockets.lines().filter(|line| line.contains('@')).count();
    denied("an abstract socket of another's", strange.checked_sub(1).ok_or("there is none"));
}

/// Has a netlink request of this type carried out, and returns the kernel's word.
fn netlink(protocol: i32, kind: u16, body: &[u8]) -> io::Result<()> {
    const NLM_F_REQUEST_ACK: u16 = 5;
    const NLMSG_ERROR: u16 = 2;
    // SAFETY: three numbers; the descriptor is nobody else's.
    let socket = unsafe {
        let socket = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol);
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(socket)
    };
    let mut request = (16 + body.len() as u32).to_ne_bytes().to_vec();
    request.extend([kind, NLM_F_REQUEST_ACK].map(u16::to_ne_bytes).concat());
    request.extend([1_u32, 0].map(u32::to_ne_bytes).concat());
    request.extend(body);
    send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut answer = [0; 256];
    recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    assert_eq!(u16::from_ne_bytes([answer[4], answer[5]]), NLMSG_ERROR);
    match i32::from_ne_bytes(answer[16..20].try_into().unwrap()) {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(-errno)),
    }
}

/// Whatever belongs to the machine, and not to a process.
fn files() {
    let mut open = Vec::new();
    for top in ["/proc", "/sys"] {
        find_writable(Path::new(top), &mut open);
    }
    let what = "opening a file of the machine in /proc or /sys for writing";
    let found = open.first().map(|path| format!("{what}: {}", path.display()));
    denied(found.as_deref().unwrap_or(what), open.first().ok_or("none can be opened"));
    denied("the machine's memory (/proc/kcore)", File::open("/proc/kcore"));
}

fn find_writable(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let is_process = name.to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        // Anybody may ask to be woken there; a link leads to a process.
        let is_left_out = directory == Path::new("/proc") && (is_process || name == "pressure");
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && !is_left_out => find_writable(&path, found),
            Ok(kind) if kind.is_file() => {
                let is_claimed =
                    entry.metadata().is_ok_and(|data| data.permissions().mode() & 0o222 != 0);
                if is_claimed && File::options().write(true).open(&path).is_ok() {
                    found.push(path);
                }
            }
            _ => {}
        }
    }
}

/// What somebody types at the terminal of who called halfopen.
fn terminal() {
    denied("the caller's terminal", File::options().read(true).write(true).open("/dev/tty"));
    for stream in 0..3_usize {
        let typed = call(libc::SYS_ioctl, [stream, libc::TIOCSTI as usize, c"x".as_ptr() as usize]);
        denied(&format!("typing at stream {stream} (TIOCSTI)"), typed);
    }
}
