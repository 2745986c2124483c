//! The options of another process's socket.
//!
//! Its descriptor is duplicated (`pidfd_getfd(2)`, Linux 5.6), asked, and closed at once. While the
//! duplicate is open, its owner's `close` or end does not end the connection: so nothing here may
//! last across a fault, and whether the owner still has the socket is looked at once more afterwards.
//! `SO_ERROR` is never read: that would take the error away from the owner.

#![expect(unsafe_code, reason = "no safe binding reads and sets all of these options")]

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use spec::SocketOptions;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use timeline::event::Owner;

/// `TCP_RTO_MAX_MS` (include/uapi/linux/tcp.h, Linux 6.15); not in libc 0.2.
const TCP_RTO_MAX_MS: libc::c_int = 44;
/// `TCP_THIN_LINEAR_TIMEOUTS`.
const TCP_THIN_LINEAR_TIMEOUTS: libc::c_int = 16;

/// A socket's options, and the process that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The process; where several have the socket, the first of those that were looked at.
    pub owner: Owner,
    /// Its options; each is `None` where this kernel does not have it.
    pub options: SocketOptions,
    /// Whether the owner still had the socket when it was no longer looked at. If not, it closed the
    /// socket meanwhile, and what its kernel then sent was sent a moment later.
    pub still_owned: bool,
}

/// Looks for the process, among these, that has the socket with this inode
/// ([`crate::SocketDiag::inode`]), and reads the socket's options. `None`: none of them has it.
///
/// # Errors
/// [`io::Error`] of `pidfd_open` or `pidfd_getfd`: EPERM without the right to trace the process
/// (`ptrace(2)`), ENOSYS before Linux 5.6.
pub fn read(inode: u32, processes: impl IntoIterator<Item = u32>) -> io::Result<Option<Found>> {
    let wanted = PathBuf::from(format!("socket:[{inode}]"));
    for pid in processes {
        let Some(number) = descriptor(pid, &wanted) else { continue };
        let owner = Owner { pid, process: name(pid) };
        let Some(process) = opened(pid)? else { continue };
        let Some(socket) = duplicate(process.as_fd(), number)? else { continue };
        let options = options(&socket);
        drop(socket);
        let again = fs::read_link(format!("/proc/{pid}/fd/{number}"));
        let still_owned = again.is_ok_and(|target| target == wanted);
        return Ok(Some(Found { owner, options, still_owned }));
    }
    Ok(None)
}

/// Whether one of these processes has the socket with this inode.
pub fn is_held(inode: u32, processes: &[u32]) -> bool {
    let wanted = PathBuf::from(format!("socket:[{inode}]"));
    processes.iter().any(|pid| descriptor(*pid, &wanted).is_some())
}

/// What a duplicate of a descriptor shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The socket's options.
    pub options: SocketOptions,
    /// It is a socket of MPTCP (`SO_PROTOCOL`), and the connection one of its subflows.
    pub is_mptcp: bool,
}

/// `IPPROTO_MPTCP` (include/uapi/linux/in.h).
const IPPROTO_MPTCP: libc::c_int = 262;

/// The options of the socket with this inode, of which a process has this descriptor, by a duplicate that
/// is closed at once; `None`: it no longer has it there.
pub(crate) fn of(process: BorrowedFd<'_>, number: RawFd, inode: u32) -> io::Result<Option<Read>> {
    let read = |socket: OwnedFd| Read {
        options: options(&socket),
        is_mptcp: self::number(socket.as_fd(), libc::SOL_SOCKET, libc::SO_PROTOCOL)
            == Some(IPPROTO_MPTCP),
    };
    Ok(same(process, number, inode)?.map(read))
}

/// A duplicate of a process's descriptor, if it is of this socket: the process may have opened something
/// else there meanwhile.
fn same(process: BorrowedFd<'_>, number: RawFd, inode: u32) -> io::Result<Option<OwnedFd>> {
    let Some(socket) = duplicate(process, number)? else { return Ok(None) };
    let is_same = rustix::fs::fstat(&socket)?.st_ino == u64::from(inode);
    Ok(is_same.then_some(socket))
}

/// Sets those options that are `Some` on the socket with this inode, in the same way. Says whether the
/// process has it there. Times come before the switch, which arms the keepalive timer.
pub(crate) fn set(
    process: BorrowedFd<'_>,
    number: RawFd,
    inode: u32,
    wanted: &SocketOptions,
) -> io::Result<bool> {
    let Some(socket) = same(process, number, inode)? else { return Ok(false) };
    let values = [
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, wanted.keepidle_s),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, wanted.keepintvl_s),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, wanted.keepcnt),
        (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, wanted.user_timeout_ms),
        (libc::IPPROTO_TCP, TCP_RTO_MAX_MS, wanted.rto_max_ms),
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, wanted.keepalive.map(u32::from)),
    ];
    for (level, name, value) in values {
        let Some(value) = value.and_then(|value| libc::c_int::try_from(value).ok()) else {
            continue;
        };
        set_number(&socket, level, name, value)?;
    }
    Ok(true)
}

/// `/proc/PID/comm`, which a process sets itself.
pub(crate) fn name(pid: u32) -> String {
    let process = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    printable(process.strip_suffix(b"\n").unwrap_or(&process))
}

/// Text that is others' to choose, without what would command a terminal.
pub(crate) fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A process and all that descend from it, as far as they have not ended.
pub fn family(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    found
}

/// The number of the process's descriptor of this file.
fn descriptor(pid: u32, wanted: &std::path::Path) -> Option<RawFd> {
    fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten().find_map(|entry| {
        let is_it = fs::read_link(entry.path()).is_ok_and(|target| target == wanted);
        is_it.then(|| entry.file_name().to_str()?.parse().ok()).flatten()
    })
}

/// The process with this number, which stays the same one; `None`: there is none.
pub(crate) fn opened(pid: u32) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = Pid::from_raw(pid.cast_signed()) else { return Ok(None) };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => Ok(None),
        opened => Ok(Some(opened?)),
    }
}

/// Whether it runs still, so that its number was nobody else's since it was opened.
pub(crate) fn runs(process: BorrowedFd<'_>) -> bool {
    let mut ended = [PollFd::new(&process, PollFlags::IN)];
    poll(&mut ended, Some(&Timespec::default())) == Ok(0)
}

/// A duplicate of a process's descriptor; `None` if it is no longer there.
fn duplicate(process: BorrowedFd<'_>, number: RawFd) -> io::Result<Option<OwnedFd>> {
    match pidfd_getfd(process, number, PidfdGetfdFlags::empty()) {
        Err(rustix::io::Errno::BADF | rustix::io::Errno::SRCH) => Ok(None),
        duplicated => Ok(Some(duplicated?)),
    }
}

fn options(socket: &OwnedFd) -> SocketOptions {
    let socket = socket.as_fd();
    let tcp = |name| number(socket, libc::IPPROTO_TCP, name);
    let unsigned = |name| tcp(name).and_then(|value| u32::try_from(value).ok());
    let switch = |value: Option<libc::c_int>| value.map(|value| value != 0);
    SocketOptions {
        keepalive: switch(number(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE)),
        keepidle_s: unsigned(libc::TCP_KEEPIDLE),
        keepintvl_s: unsigned(libc::TCP_KEEPINTVL),
        keepcnt: unsigned(libc::TCP_KEEPCNT),
        user_timeout_ms: unsigned(libc::TCP_USER_TIMEOUT),
        nodelay: switch(tcp(libc::TCP_NODELAY)),
        rto_max_ms: unsigned(TCP_RTO_MAX_MS),
        syncnt: unsigned(libc::TCP_SYNCNT),
        linger2_s: tcp(libc::TCP_LINGER2),
        thin_linear_timeouts: switch(tcp(TCP_THIN_LINEAR_TIMEOUTS)),
    }
}

fn set_number(
    socket: &OwnedFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the descriptor is open; the kernel reads an int, which lives across the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// An option that is an int; `None` where this kernel does not have it.
fn number(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int) -> Option<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the descriptor is open; the kernel writes at most `len` bytes to `value`, which is
    // that long, lives across the call, and any bytes are valid in.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len)
    };
    (result == 0).then_some(value)
}
