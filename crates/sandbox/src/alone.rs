//! Programs of one process: process 1 of its PID namespace, watched by the launcher itself. Such a
//! program sees no file. It costs one process and no mount, where others cost two and a dozen.
#![expect(unsafe_code, reason = "clone has no safe wrapper")]

use crate::control::{KeeperOrder, Word, read_line, write_line};
use crate::keeper::{Request, close_the_rest, failure, stand_in};
use crate::{Error, Identity};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::{set_dumpable, set_pdeathsig};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::setsid;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::process::{
    Signal as AnySignal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_send_signal, waitid,
};
use std::collections::BTreeMap;
use std::io::{self, BufReader};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// An empty directory of the launcher's, which is read-only: the root of these programs.
const ROOT: &str = "/dev/pts";

/// What the launcher waits for: requests, and whatever concerns the programs that it watches.
pub(crate) struct Watch {
    epoll: OwnedFd,
    programs: BTreeMap<u32, Program>,
    events: Vec<epoll::Event>,
}

/// A program that runs.
struct Program {
    control: BufReader<UnixStream>,
    /// A pidfd.
    process: OwnedFd,
    /// It was told to send SIGKILL.
    killed: bool,
}

/// The event of the socket that requests come from. Those of the program with the number n are 2n,
/// for its control, and 2n + 1, for its end.
const REQUEST: u64 = 0;

impl Watch {
    /// Waits for requests at `requests`.
    pub(crate) fn new(requests: BorrowedFd) -> Result<Self, Error> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(Error::of("waiting for requests"))?;
        let watch = Self { epoll, programs: BTreeMap::new(), events: Vec::with_capacity(64) };
        watch.add(requests, REQUEST)?;
        Ok(watch)
    }

    /// Waits once, and sees to the programs. Says whether there is a request.
    pub(crate) fn wait(&mut self) -> Result<bool, Error> {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
            Err(rustix::io::Errno::INTR) => {}
            waited => drop(waited.map_err(Error::of("waiting for requests"))?),
        }
        let mut is_requested = false;
        for event in &events {
            let event = event.data.u64();
            let number = u32::try_from(event / 2).unwrap_or(0);
            match event {
                REQUEST => is_requested = true,
                _ if event % 2 == 0 => self.obey(number),
                _ => self.bury(number),
            }
        }
        self.events = events;
        Ok(is_requested)
    }

    /// Starts a program in a fork of this process.
    pub(crate) fn start(
        &mut self,
        request: Request,
        identity: &Identity,
        run: Box<dyn FnOnce() -> u8>,
    ) -> Result<(), Error> {
        let operation = "starting a program";
        let mut process: libc::c_int = -1;
        let flags = libc::c_long::from(libc::CLONE_NEWPID | libc::CLONE_PIDFD | libc::SIGCHLD);
        let null = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: as fork(2), since neither a stack nor CLONE_VM is given: the child runs on a copy
        // of this memory. This process has one thread (see `Launcher::start`), so that no lock is
        // held. The kernel writes a pidfd to `process`.
        let number =
            unsafe { libc::syscall(libc::SYS_clone, flags, null, &raw mut process, null, 0) };
        match u32::try_from(number) {
            Err(_) => Err(Error::of(operation)(io::Error::last_os_error())),
            Ok(0) => {
                let control = request.control;
                let code = match become_alone(request.stdio, request.network, identity) {
                    Ok(()) => i32::from(run()),
                    Err(error) => {
                        // If the worker is gone, no report is needed.
                        let _ = write_line(&control, &failure(&error));
                        127
                    }
                };
                // SAFETY: it ends this process, and runs nothing of it: what was to be said has been
                // written, and handlers of libraries would cost a page fault each.
                unsafe { libc::_exit(code) }
            }
            Ok(number) => {
                // SAFETY: the kernel has just made this descriptor, and nothing else has it.
                let process = unsafe { OwnedFd::from_raw_fd(process) };
                let control = BufReader::new(request.control);
                self.add(control.get_ref().as_fd(), u64::from(number) * 2)?;
                self.add(process.as_fd(), u64::from(number) * 2 + 1)?;
                let program = Program { control, process, killed: false };
                program.say(&Word::Started { main: number, root: number });
                self.programs.insert(number, program);
                Ok(())
            }
        }
    }

    fn add(&self, descriptor: BorrowedFd, event: u64) -> Result<(), Error> {
        epoll::add(&self.epoll, descriptor, EventData::new_u64(event), EventFlags::IN)
            .map_err(Error::of("watching a program"))
    }

    /// Carries an order out. A worker that lets go of the control ends the program.
    fn obey(&mut self, number: u32) {
        let Some(program) = self.programs.get_mut(&number) else { return };
        let signal = match read_line(&mut program.control) {
            Ok(Some(KeeperOrder::SignalAll(signal) | KeeperOrder::SignalMain(signal))) => signal,
            Ok(None) | Err(_) => {
                let _ = epoll::delete(&self.epoll, program.control.get_ref());
                libc::SIGKILL
            }
        };
        if let Some(signal) = AnySignal::from_named_raw(signal) {
            // It may have ended just now.
            let _ = pidfd_send_signal(&program.process, signal);
        }
        program.killed = signal == libc::SIGKILL;
        if !program.killed {
            program.say(&Word::Done);
        }
    }

    /// Tells the worker that a program has ended.
    fn bury(&mut self, number: u32) {
        let Some(program) = self.programs.remove(&number) else { return };
        // A program that was forked just now has copies of the descriptors for a moment: closing
        // these would not end their events.
        let _ = epoll::delete(&self.epoll, &program.process);
        let _ = epoll::delete(&self.epoll, program.control.get_ref());
        let status = waitid(WaitId::PidFd(program.process.as_fd()), WaitIdOptions::EXITED);
        let status = status.ok().flatten();
        program.say(&Word::Ended {
            code: status.as_ref().and_then(WaitIdStatus::exit_status),
            signal: status.as_ref().and_then(WaitIdStatus::terminating_signal),
            peak_rss_kib: 0,
        });
        if program.killed {
            program.say(&Word::Done);
        }
        let _ = program.control.get_ref().shutdown(Shutdown::Both);
    }
}

impl Program {
    fn say(&self, word: &Word) {
        // If the worker is gone, the program ends.
        let _ = write_line(self.control.get_ref(), word);
    }
}

/// Takes everything from this process but its standard streams.
fn become_alone(
    [input, output, error]: [OwnedFd; 3],
    network: Option<OwnedFd>,
    identity: &Identity,
) -> Result<(), Error> {
    let operation = "preparing the program's process";
    if let Some(network) = network {
        setns(network, CloneFlags::CLONE_NEWNET)
            .map_err(Error::of("entering the host's network namespace"))?;
    }
    setsid().map_err(Error::of(operation))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(Error::of("forbidding core files"))?;
    identity.give_up_privileges(Some(ROOT))?;
    set_dumpable(false).map_err(Error::of("forbidding to be traced"))?;
    set_pdeathsig(Signal::SIGKILL).map_err(Error::of(operation))?;
    stand_in([&input, &output, &error]).map_err(Error::of(operation))?;
    close_the_rest();
    // They are closed already.
    std::mem::forget([input, output, error]);
    Ok(())
}
