//! The keeper: PID 1 of the guest's PID namespace.
//!
//! It builds the mount namespace, starts the kernel in it, and waits. It is a
//! fork of a process that may have many threads, and never becomes another
//! program: it may call only what is async-signal-safe. So everything it needs
//! is prepared beforehand, as C strings, and it neither allocates, nor takes
//! locks, nor panics.
#![expect(unsafe_code, reason = "clone and the code after it have no safe wrapper")]

use std::borrow::Cow;
use std::ffi::CStr;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::after_fork::{
    attach, check, detached_copy, drop_capabilities, errno, keep_only, mount, mount_attributes,
    read_code, write_file,
};
use super::record::{Record, Tag};
use super::sandbox::Sandbox;

/// The keeper's own view. Everything here is borrowed from before the fork.
pub(super) struct Keeper<'a> {
    pub(super) sandbox: &'a Sandbox,
    pub(super) argv: &'a [*const libc::c_char],
    pub(super) envp: &'a [*const libc::c_char],
    /// User and group to map, when there is a user namespace.
    pub(super) user_namespace: Option<IdMap>,
    pub(super) null: RawFd,
    pub(super) console: RawFd,
    pub(super) report: RawFd,
    pub(super) lifeline: RawFd,
}

pub(super) struct IdMap {
    uid: Vec<u8>,
    gid: Vec<u8>,
}

/// A result, or the step that failed and its errno.
pub(super) type Stepped<T> = Result<T, (Step, i32)>;

impl Keeper<'_> {
    /// Forks the keeper into its namespaces, a user namespace only where it
    /// cannot be done without. Returns its pidfd.
    pub(super) fn start(mut self) -> io::Result<OwnedFd> {
        let namespaces =
            libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWNET;
        match self.fork(namespaces) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                // The identity: the guest's files keep their owner's number,
                // and `exec` drops the namespace's capabilities by itself
                // (unless the number is 0).
                let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
                self.user_namespace = Some(IdMap {
                    uid: format!("{uid} {uid} 1").into_bytes(),
                    gid: format!("{gid} {gid} 1").into_bytes(),
                });
                self.fork(namespaces | libc::CLONE_NEWUSER)
            }
            other => other,
        }
    }

    fn fork(&self, namespaces: i32) -> io::Result<OwnedFd> {
        let mut pidfd: RawFd = -1;
        let flags = namespaces | libc::CLONE_PIDFD | libc::SIGCHLD;
        // SAFETY: as fork(2), since no stack and no CLONE_VM are given: the
        // child runs on a copy of this memory. It calls only `keep`, which
        // keeps to what is async-signal-safe and never returns.
        let pid = unsafe {
            libc::syscall(
                libc::SYS_clone,
                libc::c_long::from(flags),
                ptr::null_mut::<libc::c_void>(),
                &raw mut pidfd,
                ptr::null_mut::<libc::c_void>(),
                0_usize,
            )
        };
        match pid {
            -1 => Err(io::Error::last_os_error()),
            0 => self.keep(),
            // SAFETY: the kernel has just given us this descriptor.
            _ => Ok(unsafe { OwnedFd::from_raw_fd(pidfd) }),
        }
    }

    /// The keeper's life.
    fn keep(&self) -> ! {
        if let Err((step, errno)) = self.keep_to_the_end() {
            self.say(Tag::Failure, [step as i64, i64::from(errno), 0]);
        }
        // SAFETY: ends the process at once; nothing of the parent's is run.
        unsafe { libc::_exit(0) }
    }

    fn keep_to_the_end(&self) -> Stepped<()> {
        // SAFETY: plain system calls. The handlers that this process inherited
        // belong to the parent, and write to pipes that it shares.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::setsid();
            for signal in 1..=64 {
                libc::signal(signal, libc::SIG_DFL);
            }
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        }
        // Among what is closed is the other end of the lifeline.
        keep_only([self.null, self.console, self.report, self.lifeline]);
        self.map_user()?;
        self.build_mounts()?;
        self.fill_exchange()?;
        for (from, to) in [(self.null, 0), (self.console, 1), (self.console, 2)] {
            // SAFETY: plain system calls on open descriptors.
            check(Step::Standard, unsafe { libc::dup2(from, to) }.into())?;
        }

        let kernel = self.start_kernel()?;

        // From here on the kernel alone holds the console's other end.
        for to in [1, 2] {
            // SAFETY: as above.
            check(Step::Standard, unsafe { libc::dup2(self.null, to) }.into())?;
        }
        // SAFETY: closes a descriptor that is used no more.
        unsafe { libc::close(self.console) };
        self.outlive(kernel)
    }

    fn map_user(&self) -> Stepped<()> {
        let Some(ids) = &self.user_namespace else {
            return Ok(());
        };
        write_file(Step::UserMap, c"/proc/self/setgroups", b"deny", false)?;
        write_file(Step::UserMap, c"/proc/self/uid_map", &ids.uid, false)?;
        write_file(Step::UserMap, c"/proc/self/gid_map", &ids.gid, false)
    }

    fn build_mounts(&self) -> Stepped<()> {
        const LOCKED: u64 =
            libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
        mount(Step::Private, None, c"/", None, libc::MS_REC | libc::MS_PRIVATE, None)?;
        // Taken before everything becomes read-only, put back after.
        let output = detached_copy(Step::Output, &self.sandbox.output)?;
        let null = detached_copy(Step::Null, c"/dev/null")?;
        mount_attributes(Step::ReadOnly, c"/", LOCKED, libc::AT_RECURSIVE)?;

        // Only what lives in this PID namespace is seen in it.
        let quiet = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC | libc::MS_RDONLY;
        if mount(Step::Proc, Some(c"proc"), c"/proc", Some(c"proc"), quiet, None).is_err() {
            mount(Step::Proc, Some(c"none"), c"/proc", Some(c"tmpfs"), quiet, None)?;
            self.say(Tag::ProcHidden, [0; 3]);
        }
        // Executable: the guest's memory is mapped from a file in it.
        mount(
            Step::Scratch,
            Some(c"halfopen"),
            &self.sandbox.scratch,
            Some(c"tmpfs"),
            libc::MS_NOSUID | libc::MS_NODEV,
            Some(c"mode=700"),
        )?;
        attach(Step::OutputBack, output, &self.sandbox.output)?;
        mount_attributes(
            Step::OutputBack,
            &self.sandbox.output,
            libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
            libc::AT_RECURSIVE,
        )?;
        attach(Step::NullBack, null, c"/dev/null")?;
        // SAFETY: a plain system call. It leaves whatever directory of the
        // host's own mounts the parent was in.
        check(Step::Private, unsafe { libc::chdir(c"/".as_ptr()) }.into())?;
        Ok(())
    }

    fn fill_exchange(&self) -> Stepped<()> {
        for directory in [&self.sandbox.scratch_uml, &self.sandbox.exchange] {
            // SAFETY: a plain system call with a valid C string.
            let result = unsafe { libc::mkdir(directory.as_ptr(), 0o700) };
            check(Step::Exchange, result.into())?;
        }
        for (path, content) in &self.sandbox.exchange_files {
            write_file(Step::Exchange, path, content, true)?;
        }
        Ok(())
    }

    fn start_kernel(&self) -> Stepped<libc::pid_t> {
        // SAFETY: as in `fork`: the child has a copy of this memory, calls only
        // what is async-signal-safe, and never returns.
        let pid = check(Step::Fork, unsafe {
            libc::syscall(
                libc::SYS_clone,
                libc::c_long::from(libc::SIGCHLD),
                ptr::null_mut::<libc::c_void>(),
                ptr::null_mut::<libc::c_void>(),
                ptr::null_mut::<libc::c_void>(),
                0_usize,
            )
        })?;
        if pid == 0 {
            let (step, errno) = self.become_kernel();
            self.say(Tag::Failure, [step as i64, i64::from(errno), 0]);
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(127) }
        }
        Ok(pid as libc::pid_t)
    }

    /// Replaces this process by the kernel; returns only if that failed.
    fn become_kernel(&self) -> (Step, i32) {
        let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: plain system calls; `argv` and `envp` are null-terminated
        // arrays of C strings that outlive the call. The keeper ends the
        // namespace when it dies; the signal is for good measure. Descriptors
        // above the standard ones are closed at `execve`, the report only
        // then, so that its failure can still be told.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core);
            // The same addresses every time: some of the kernel's hash tables
            // are ordered by them.
            libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong);
            stay_on_this_processor();
            libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed());
        }
        if let Err(failure) = drop_capabilities() {
            return failure;
        }
        // SAFETY: see above.
        unsafe {
            libc::execve(self.sandbox.kernel.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr());
        }
        (Step::Exec, errno())
    }

    /// Waits for the kernel's end, or for the launcher's.
    fn outlive(&self, kernel: libc::pid_t) -> Stepped<()> {
        // SAFETY: a plain system call; `kernel` is a child not yet waited for.
        let pidfd =
            check(Step::Watch, unsafe { libc::syscall(libc::SYS_pidfd_open, kernel, 0) })? as RawFd;
        let watched = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut fds = [watched(pidfd), watched(self.lifeline)];
        while fds[0].revents == 0 && fds[1].revents == 0 {
            // SAFETY: `fds` is an array of two initialised pollfd.
            unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) };
        }
        if fds[1].revents != 0 {
            // The launcher is gone. Our end is the end of everything here.
            return Ok(());
        }
        let mut status = 0;
        // SAFETY: zero is a valid value of this plain structure; the pointers
        // are to local variables.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::wait4(kernel, &raw mut status, 0, &raw mut usage);
            usage
        };
        let code = read_code(&self.sandbox.status).map_or(-1, i64::from);
        self.say(Tag::Ended, [i64::from(status), code, usage.ru_maxrss]);
        Ok(())
    }

    fn say(&self, tag: Tag, values: [i64; 3]) {
        let bytes = Record { tag: tag as i64, values }.encode();
        // SAFETY: writes from a local array. If nobody listens any more, the
        // launcher is gone and so will be this process.
        unsafe { libc::write(self.report, bytes.as_ptr().cast(), bytes.len()) };
    }
}

/// Keeps this process, and what it will start, on the processor that it is on. A guest's kernel and
/// its programs are processes of the host that take turns at every system call (ptrace): waking the
/// next one on another processor takes longer than the call itself. Where it is not allowed the
/// guest is slower, and the same in all else.
fn stay_on_this_processor() {
    // SAFETY: plain system calls on a local variable; CPU_SET keeps within it.
    unsafe {
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        let here = libc::sched_getcpu();
        if let Ok(here) = usize::try_from(here)
            && here < libc::CPU_SETSIZE as usize
        {
            libc::CPU_SET(here, &mut one);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const one);
        }
    }
}

/// The steps of the keeper, for error messages.
#[derive(Debug, Clone, Copy)]
#[repr(i64)]
pub(super) enum Step {
    UserMap = 1,
    Private,
    Output,
    Null,
    ReadOnly,
    Proc,
    Scratch,
    OutputBack,
    NullBack,
    Exchange,
    Standard,
    Fork,
    Capabilities,
    Exec,
    Watch,
}

impl Step {
    const ALL: [Self; 15] = [
        Self::UserMap,
        Self::Private,
        Self::Output,
        Self::Null,
        Self::ReadOnly,
        Self::Proc,
        Self::Scratch,
        Self::OutputBack,
        Self::NullBack,
        Self::Exchange,
        Self::Standard,
        Self::Fork,
        Self::Capabilities,
        Self::Exec,
        Self::Watch,
    ];

    /// What was being done, and to what.
    pub(super) fn describe(number: i64, sandbox: &Sandbox) -> Cow<'static, str> {
        let Some(step) = Self::ALL.into_iter().find(|step| *step as i64 == number) else {
            return "setting up the sandbox".into();
        };
        let on = |what: &str, path: &CStr| Cow::Owned(format!("{what} {}", path.to_string_lossy()));
        match step {
            Self::UserMap => "mapping the user into its user namespace".into(),
            Self::Private => "making the mount namespace private".into(),
            Self::Output => on("binding the output directory", &sandbox.output),
            Self::Null | Self::NullBack => "binding /dev/null".into(),
            Self::ReadOnly => {
                "making the host's file systems read-only (mount_setattr, Linux 5.12)".into()
            }
            Self::Proc => "covering /proc".into(),
            Self::Scratch => on("mounting a private tmpfs on", &sandbox.scratch),
            Self::OutputBack => on("mounting the output directory", &sandbox.output),
            Self::Exchange => on("filling", &sandbox.exchange),
            Self::Standard => "redirecting the standard streams".into(),
            Self::Fork => "starting the process".into(),
            Self::Capabilities => "dropping capabilities".into(),
            Self::Exec => on("executing", &sandbox.kernel),
            Self::Watch => "watching the process".into(),
        }
    }
}
