//! The launcher's side of a guest: starts the keeper, listens, and ends it in
//! time.
//!
//! Three processes: this one; the keeper, PID 1 of the guest's PID namespace;
//! and the kernel, its child.

use std::borrow::Cow;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::console::Console;
use super::keeper::{Keeper, Step};
use super::record::{Records, Tag};

/// How much of the end of the console is kept.
const CONSOLE_BYTES_MAX: usize = 256 * 1024;

/// Everything the keeper needs, in the form in which it needs it.
pub(super) struct Sandbox {
    pub(super) kernel: CString,
    pub(super) output: CString,
    /// Where the private tmpfs goes.
    pub(super) scratch: CString,
    /// UML's own directory, below `scratch`.
    pub(super) scratch_uml: CString,
    /// The directory through which guest and keeper talk, below `scratch`.
    pub(super) exchange: CString,
    /// Files to be there when the guest starts.
    pub(super) exchange_files: Vec<(CString, Vec<u8>)>,
    /// The file in which the program leaves its exit code.
    pub(super) status: CString,
    pub(super) arguments: Vec<CString>,
    pub(super) environment: Vec<CString>,
}

/// What is known of a guest after its end.
pub(super) struct Finished {
    pub(super) ending: Ending,
    pub(super) console: Vec<u8>,
    pub(super) console_dropped_bytes: u64,
    pub(super) peak_rss_kib: u64,
    pub(super) proc_hidden: bool,
}

pub(super) enum Ending {
    /// The kernel's process ended with this wait status; the program had left
    /// this exit code.
    Kernel { status: i32, code: Option<u8> },
    /// The deadline passed.
    Watchdog,
    /// The keeper went without a word: only a SIGKILL does that.
    KeeperKilled,
}

pub(super) enum Failure {
    /// `clone` refused the namespaces.
    Namespaces(io::Error),
    /// A later step failed.
    Step(Launch),
}

/// A step of the launch that failed.
pub(super) struct Launch {
    pub(super) operation: Cow<'static, str>,
    pub(super) source: io::Error,
}

/// Runs a kernel in its sandbox until it ends or the deadline passes.
pub(super) fn run(sandbox: &Sandbox, deadline: Instant) -> Result<Finished, Failure> {
    let step = |operation: &'static str| {
        move |errno: Errno| {
            Failure::Step(Launch { operation: operation.into(), source: errno.into() })
        }
    };
    let pipe = || nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(step("creating a pipe"));
    let (console_read, console_write) = pipe()?;
    let (report_read, report_write) = pipe()?;
    let (lifeline_read, lifeline_write) = pipe()?;
    let null = File::options().read(true).write(true).open("/dev/null").map_err(|source| {
        Failure::Step(Launch { operation: "opening /dev/null".into(), source })
    })?;
    let argv = pointers(&sandbox.arguments);
    let envp = pointers(&sandbox.environment);
    let keeper = Keeper {
        sandbox,
        argv: &argv,
        envp: &envp,
        user_namespace: None,
        null: null.as_raw_fd(),
        console: console_write.as_raw_fd(),
        report: report_write.as_raw_fd(),
        lifeline: lifeline_read.as_raw_fd(),
    };
    let pidfd = keeper.start().map_err(Failure::Namespaces)?;
    // The keeper has its own copies of these.
    drop((console_write, report_write, lifeline_read, null));

    let (console, mut records, expired) = watch(&pidfd, console_read, report_read, deadline);
    if expired {
        kill(&pidfd);
    }
    reap(&pidfd);
    drop(lifeline_write);

    let proc_hidden = records.take(Tag::ProcHidden).is_some();
    if let Some(failure) = records.take(Tag::Failure) {
        return Err(Failure::Step(Launch {
            operation: Step::describe(failure.values[0], sandbox),
            source: io::Error::from_raw_os_error(failure.values[1] as i32),
        }));
    }
    let ended = records.take(Tag::Ended);
    let (console, console_dropped_bytes) = console.into_parts();
    Ok(Finished {
        ending: match ended {
            Some(record) => Ending::Kernel {
                status: record.values[0] as i32,
                code: u8::try_from(record.values[1]).ok(),
            },
            None if expired => Ending::Watchdog,
            None => Ending::KeeperKilled,
        },
        console,
        console_dropped_bytes,
        peak_rss_kib: ended.map_or(0, |record| u64::try_from(record.values[2]).unwrap_or(0)),
        proc_hidden,
    })
}

/// Collects console and records until the keeper has ended or the deadline has
/// passed. The last value tells which.
fn watch(
    pidfd: &OwnedFd,
    console_read: OwnedFd,
    report_read: OwnedFd,
    deadline: Instant,
) -> (Console, Records, bool) {
    let mut console = Console::new(CONSOLE_BYTES_MAX);
    let mut records = Records::default();
    let mut console_read = Some(File::from(console_read));
    let mut report_read = Some(File::from(report_read));
    let mut buffer = [0; 16 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return (console, records, true);
        }
        // A poll lasts at most this long, and is then repeated.
        let timeout = PollTimeout::from(u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX));
        let mut fds = vec![PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        fds.extend(
            [&console_read, &report_read]
                .into_iter()
                .flatten()
                .map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)),
        );
        if matches!(poll(&mut fds, timeout), Err(Errno::EINTR) | Ok(0)) {
            continue;
        }
        let ended = fds[0].any().unwrap_or(false);
        let ready: Vec<bool> = fds[1..].iter().map(|fd| fd.any().unwrap_or(false)).collect();
        let mut ready = ready.into_iter();
        for (pipe, is_console) in [(&mut console_read, true), (&mut report_read, false)] {
            let Some(file) = pipe.as_mut() else { continue };
            if !ready.next().unwrap_or(false) {
                continue;
            }
            match file.read(&mut buffer) {
                Ok(0) => *pipe = None,
                Ok(length) if is_console => console.push(&buffer[..length]),
                Ok(length) => records.push(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => *pipe = None,
            }
        }
        // The pipes are read to their ends first: everything that could write
        // to them has ended with the keeper, or soon will have.
        if ended && console_read.is_none() && report_read.is_none() {
            return (console, records, false);
        }
    }
}

/// Kills the keeper, and so all that it keeps. It cannot fail: the keeper is our
/// child and not yet reaped.
fn kill(pidfd: &OwnedFd) {
    let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
}

fn reap(pidfd: &OwnedFd) {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    while waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED) == Err(Errno::EINTR) {}
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}
