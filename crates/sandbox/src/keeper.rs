//! The keeper: process 1 of a program's PID namespace. It starts the program, reaps, carries out
//! orders, and ends everything in the namespace by its own end.
#![expect(unsafe_code, reason = "clone and fork have no safe wrapper")]

use crate::control::{KeeperOrder, Word, read_line, write_line};
use crate::{Error, Identity, Launch, mounts};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::sys::personality::{self, Persona};
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, UsageWho, getrusage, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, setsid};
use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;

/// The descriptors of a launch.
pub(crate) struct Request {
    pub(crate) control: UnixStream,
    pub(crate) stdio: [OwnedFd; 3],
    pub(crate) network: Option<OwnedFd>,
    pub(crate) shm: Option<OwnedFd>,
}

/// Forks a keeper into namespaces of its own. `descriptors` is the program's limit on descriptors.
pub(crate) fn start(
    request: Request,
    identity: &Identity,
    descriptors: (u64, u64),
    own: fn() -> u8,
) -> Result<(), Error> {
    // Without a signal for its end, [`reap`] waits for keepers and for no other child.
    let flags = libc::c_long::from(libc::CLONE_NEWPID | libc::CLONE_NEWNS);
    let null = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: as fork(2), since neither a stack nor CLONE_VM is given: the child runs on a copy of
    // this memory. This process has one thread (see `Launcher::start`), so that no lock is held.
    match unsafe { libc::syscall(libc::SYS_clone, flags, null, null, null, 0) } {
        -1 => Err(Error::of("starting a keeper")(io::Error::last_os_error())),
        0 => {
            close_all_but(&request);
            let mut keeper = Keeper { control: BufReader::new(request.control), main: None };
            let Request { stdio, network, shm, .. } = request;
            if let Err(error) = keeper.keep(stdio, network, shm, identity, descriptors, own) {
                keeper.say(&failure(&error));
            }
            std::process::exit(0)
        }
        _ => Ok(()),
    }
}

struct Keeper {
    control: BufReader<UnixStream>,
    /// The program, until it has ended.
    main: Option<Pid>,
}

impl Keeper {
    fn keep(
        &mut self,
        stdio: [OwnedFd; 3],
        network: Option<OwnedFd>,
        shm: Option<OwnedFd>,
        identity: &Identity,
        descriptors: (u64, u64),
        own: fn() -> u8,
    ) -> Result<(), Error> {
        let launch: Launch = read_line(&mut self.control)
            .and_then(|line| line.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()))
            .map_err(Error::of("reading what to launch"))?;
        let mut children = SigSet::empty();
        children.add(Signal::SIGCHLD);
        children.thread_block().map_err(Error::of("holding SIGCHLD back"))?;
        // By this /proc, which is the worker's, a process can be told its number there.
        let outer = File::open("/proc").map_err(Error::of("opening /proc"))?;
        let root = own_number(&outer).map_err(Error::of("reading /proc/self"))?;
        let null = File::options().read(true).write(true).open("/dev/null");
        let null = null.map_err(Error::of("opening /dev/null"))?;
        if let Some(network) = network {
            setns(network, CloneFlags::CLONE_NEWNET)
                .map_err(Error::of("entering the host's network namespace"))?;
        }
        if launch.layer {
            mounts::cover()?;
        }
        mounts::make_own(shm.as_ref().map(AsFd::as_fd), launch.read_only)?;
        drop(shm);
        mounts::replace(&launch.files)?;
        adjust(&launch, descriptors)?;
        launch.identity.as_ref().unwrap_or(identity).give_up_privileges(None)?;
        set_dumpable(false).map_err(Error::of("forbidding to be traced"))?;

        // SAFETY: this process has one thread.
        match unsafe { fork() }.map_err(Error::of("starting the program"))? {
            ForkResult::Child => {
                let control = self.control.get_ref();
                let code = match become_program(&launch, &stdio, (root, &outer), control, own) {
                    Ok(code) => i32::from(code),
                    Err(error) => {
                        self.say(&failure(&error));
                        127
                    }
                };
                std::process::exit(code)
            }
            ForkResult::Parent { child } => self.main = Some(child),
        }
        // The program alone holds its streams.
        drop((stdio, outer));
        stand_in([&null; 3]).map_err(Error::of("letting go of the program's streams"))?;
        drop(null);
        self.outlive(&children)
    }

    /// Reaps and obeys until no process of the program is left, or the worker lets go.
    fn outlive(&mut self, children: &SigSet) -> Result<(), Error> {
        let signals =
            SignalFd::with_flags(children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
                .map_err(Error::of("watching the program"))?;
        while self.reap(WaitPidFlag::WNOHANG) {
            let mut fds = [
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.control.get_ref().as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                result => result.map_err(Error::of("watching the program"))?,
            };
            let ordered = fds[1].any().unwrap_or(true);
            while signals.read_signal().is_ok_and(|signal| signal.is_some()) {}
            if !ordered {
                continue;
            }
            let Ok(Some(order)) = read_line(&mut self.control) else { return Ok(()) };
            self.obey(order);
        }
        Ok(())
    }

    fn obey(&mut self, order: KeeperOrder) {
        let (whom, number) = match order {
            // Every process that this one may signal, but for itself: all of the namespace.
            KeeperOrder::SignalAll(number) => (Some(Pid::from_raw(-1)), number),
            KeeperOrder::SignalMain(number) => (self.main, number),
        };
        if let (Some(whom), Ok(signal)) = (whom, Signal::try_from(number)) {
            // It may have ended just now.
            let _ = kill(whom, signal);
            if signal == Signal::SIGKILL {
                let all = matches!(order, KeeperOrder::SignalAll(_));
                while (all || self.main.is_some()) && self.reap(WaitPidFlag::empty()) {}
            }
        }
        self.say(&Word::Done);
    }

    /// Takes the status of children that have ended: all that have with WNOHANG, else of the next
    /// that does. Says whether any child is left.
    fn reap(&mut self, flags: WaitPidFlag) -> bool {
        loop {
            match waitpid(None, Some(flags | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::StillAlive) => return true,
                Err(Errno::EINTR) => continue,
                Err(_) => return false,
                Ok(WaitStatus::Exited(pid, code)) => self.ended(pid, Some(code), None),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.ended(pid, None, Some(signal as i32));
                }
                Ok(_) => {}
            }
            if flags.is_empty() {
                return true;
            }
        }
    }

    fn ended(&mut self, pid: Pid, code: Option<i32>, signal: Option<i32>) {
        if self.main == Some(pid) {
            self.main = None;
            let usage = getrusage(UsageWho::RUSAGE_CHILDREN).map(|usage| usage.max_rss());
            let peak_rss_kib = u64::try_from(usage.unwrap_or(0)).unwrap_or(0);
            self.say(&Word::Ended { code, signal, peak_rss_kib });
        }
    }

    fn say(&self, word: &Word) {
        // If the pipe is closed, the worker is gone, and this process ends too.
        let _ = write_line(self.control.get_ref(), word);
    }
}

pub(crate) fn failure(error: &Error) -> Word {
    Word::Failed(error.operation.clone(), error.source.raw_os_error().unwrap_or(libc::EIO))
}

/// What a process passes on to its children and only few launches ask for.
fn adjust(launch: &Launch, (soft, hard): (u64, u64)) -> Result<(), Error> {
    if let Some(processor) = launch.processor {
        let mut one = CpuSet::new();
        // Where it is not allowed the program is slower, and the same in all else.
        let _ = one.set(processor).and_then(|()| sched_setaffinity(Pid::from_raw(0), &one));
    }
    if launch.fixed_addresses {
        personality::get()
            .and_then(|persona| personality::set(persona | Persona::ADDR_NO_RANDOMIZE))
            .map_err(Error::of("fixing addresses"))?;
    }
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard)
        .map_err(Error::of("limiting the number of descriptors"))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(Error::of("forbidding core files"))
}

/// Turns this process into the program. Returns the exit code of the launcher's own function, or why
/// a command cannot be executed.
fn become_program(
    launch: &Launch,
    stdio: &[OwnedFd; 3],
    (root, outer): (u32, &File),
    control: &UnixStream,
    own: fn() -> u8,
) -> Result<u8, Error> {
    let operation = "preparing the program's process";
    setsid().map_err(Error::of(operation))?;
    SigSet::all().thread_unblock().map_err(Error::of(operation))?;
    let main = own_number(outer).map_err(Error::of(operation))?;
    write_line(control, &Word::Started { main, root }).map_err(Error::of(operation))?;
    let [input, output, error] = stdio;
    stand_in([input, output, error]).map_err(Error::of(operation))?;
    // Where its input is a terminal, that is its controlling one.
    let _ = rustix::process::ioctl_tiocsctty(input);
    let Some(command) = &launch.command else {
        close_the_rest();
        return Ok(own());
    };
    // Directories below what is the program's own, such as /dev/shm, are not there for it.
    let entering = format!("entering its working directory {}", command.directory.display());
    std::env::set_current_dir(&command.directory).map_err(Error::of(entering))?;
    // Everything else is closed by `execve`. It also gives SIGPIPE back its meaning.
    let error = std::process::Command::new(&command.program)
        .arg0(command.arguments.first().unwrap_or(&command.program))
        .args(command.arguments.iter().skip(1))
        .env_clear()
        .envs(command.environment.iter().map(|(name, value)| (name, value)))
        .exec();
    Err(Error::of(format!("executing {}", command.program.display()))(error))
}

/// This process's number in the PID namespace of a /proc.
fn own_number(proc: &File) -> io::Result<u32> {
    let number = rustix::fs::readlinkat(proc, "self", Vec::new())?;
    let number = number.to_str().ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Makes descriptors the standard streams.
pub(crate) fn stand_in([input, output, error]: [&impl AsFd; 3]) -> io::Result<()> {
    rustix::stdio::dup2_stdin(input)?;
    rustix::stdio::dup2_stdout(output)?;
    rustix::stdio::dup2_stderr(error)?;
    Ok(())
}

/// Closes every descriptor but the standard streams and those of a request.
fn close_all_but(request: &Request) {
    let [input, output, error] = &request.stdio;
    let streams = [input.as_raw_fd(), output.as_raw_fd(), error.as_raw_fd()];
    let others = [&request.network, &request.shm].into_iter().flatten().map(AsRawFd::as_raw_fd);
    let mut kept: Vec<_> = streams.into_iter().chain(others).collect();
    kept.push(request.control.as_raw_fd());
    kept.sort_unstable();
    let mut next = 3;
    for kept in kept {
        if kept > next {
            close_range(next, kept - 1, 0);
        }
        next = kept + 1;
    }
    close_range(next, RawFd::MAX, 0);
}

/// `close_range(2)`, which musl has no function for. Its callers go on with what needs none of these
/// descriptors, and end without dropping any.
fn close_range(first: RawFd, last: RawFd, flags: libc::c_uint) {
    // SAFETY: three numbers; see above for what is closed.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
}

/// Takes the status of keepers that have ended.
pub(crate) fn reap() {
    let keepers = WaitPidFlag::WNOHANG | WaitPidFlag::__WCLONE;
    while matches!(
        waitpid(None, Some(keepers)),
        Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..))
    ) {}
}

/// Closes every descriptor but the standard streams.
pub(crate) fn close_the_rest() {
    close_range(3, RawFd::MAX, 0);
}

/// Has every descriptor closed by `execve` but the standard streams: halfopen may have been started
/// with others.
pub(crate) fn close_the_rest_on_exec() {
    close_range(3, RawFd::MAX, libc::CLOSE_RANGE_CLOEXEC);
}
