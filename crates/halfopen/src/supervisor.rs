//! The processes that make sure nothing is left behind.
//!
//! ```text
//! halfopen            talks to people, writes files; no more privileges than the user has
//! └─ sandbox          makes namespaces for users, mounts, networks and processes
//!    └─ init          process 1 of the PID namespace: reaps, and dies when halfopen does
//!       └─ worker     builds networks, breaks them, watches
//!          └─ launcher   starts the programs, which have no privileges (the crate `sandbox`)
//! ```
//!
//! When `halfopen` ends, however it ends, the pipe to `init` closes; `init` exits, and the kernel
//! kills every process of the namespace, which ends every network namespace that only they held.

use crate::channel::{Message, write_line};
use crate::hidden::{INIT, LAUNCHER, SANDBOX, WORKER};
use crate::obstacle::{self, Machine, Obstacle};
use crate::output::Exit;
use crate::{peers, program};
use anyhow::{Context, Result, anyhow, bail};
use netns::Namespace;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, getegid, geteuid};
use sandbox::{Identity, Launcher, Own};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The environment variable that says where the executable lies. What runs from a mount of its own
/// cannot tell.
const EXECUTABLE: &str = "HALFOPEN_EXECUTABLE";

/// Starts the worker in its sandbox. Its standard input is the lifeline: what it is to do comes
/// first, and when it closes everything ends.
pub(crate) fn start() -> Result<Child> {
    this_program(SANDBOX)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // Ctrl-C at the terminal is for the parent, which ends the trials in good order.
        .process_group(0)
        .spawn()
        .context("starting the laboratory's process")
}

/// The process that enters fresh namespaces and starts `init` in them.
pub(crate) fn sandbox() -> Result<i32> {
    set_pdeathsig(Signal::SIGKILL).context("asking to be ended with the parent process")?;
    let (caller, uid, gid) = (Identity::of_caller(), geteuid(), getegid());
    let caller = match enter_namespaces() {
        Ok(false) => caller,
        // A user namespace knows no other user.
        Ok(true) => {
            Identity { uid: uid.as_raw(), gid: gid.as_raw(), groups: Vec::new(), mapped: true }
        }
        // Not a defect: the front skips the trials.
        Err(why) => return cannot(&format!("{why:#}")),
    };
    // What runs from here on runs from a read-only mount: no program can write the executable by way
    // of its /proc/self/exe. A file that is there no more needs no protection.
    let executable = fs::read_link("/proc/self/exe").context("finding this executable")?;
    let copy = executable.exists().then(|| sandbox::read_only_copy(&executable)).transpose();
    let copy = match copy {
        Ok(copy) => copy,
        Err(error) => {
            let what = "mounting the executable read-only (mount_setattr)";
            return match Machine::read().filtered_call(what, &error) {
                Some(Obstacle { why, remedy }) => cannot(&format!("{why}; {remedy}")),
                None => Err(error).context(what),
            };
        }
    };
    let path = copy
        .as_ref()
        .map_or("/proc/self/exe".into(), |copy| format!("/proc/self/fd/{}", copy.as_raw_fd()));
    let status = Command::new(path)
        .arg0("halfopen")
        .arg(INIT)
        .env(program::CALLER, serde_json::to_string(&caller)?)
        .env(EXECUTABLE, executable)
        .status()
        .context("starting the sandbox's init process")?;
    // `init` does it too, unless it was killed.
    observe::tracer::remove_stale_instances();
    Ok(exit_code(status))
}

/// Says that this machine cannot do what every trial needs.
pub(crate) fn cannot(why: &str) -> Result<i32> {
    write_line(&mut std::io::stdout(), &Message::Cannot(why.to_owned()))?;
    Ok(i32::from(Exit::SKIPPED.0))
}

/// Inside the sandbox: where the executable lies.
pub(crate) fn executable() -> Result<PathBuf> {
    std::env::var_os(EXECUTABLE).map(PathBuf::from).with_context(|| format!("reading {EXECUTABLE}"))
}

/// Starts the launcher of programs.
pub(crate) fn start_launcher() -> Result<Launcher, sandbox::Error> {
    Launcher::start(this_program(LAUNCHER))
}

/// The launcher's life.
pub(crate) fn launcher() -> Result<i32> {
    let own = Own { kept: peers::run, alone: peers::prepared };
    sandbox::serve(&program::caller()?, own)?;
    Ok(0)
}

/// Process 1 of the sandbox.
pub(crate) fn init() -> Result<i32> {
    // The parent's death must not kill it outright: it has to clean up first.
    let mut parent_died = SigSet::empty();
    parent_died.add(Signal::SIGTERM);
    parent_died.thread_block().context("holding a signal back")?;
    set_pdeathsig(Signal::SIGTERM).context("asking to be told of the parent's death")?;
    let end_with_parent = move || {
        let _ = parent_died.wait();
        end_everything();
    };
    std::thread::Builder::new().name("parent".into()).spawn(end_with_parent)?;
    std::thread::Builder::new().name("lifeline".into()).spawn(end_with_lifeline)?;
    // A /proc that shows this PID namespace only. Containers may forbid it; the old one serves.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if let Err(errno) = mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>) {
        tracing::debug!("a fresh /proc is not permitted here ({errno}); the old one stays");
    }
    let worker = this_program(WORKER).spawn().context("starting the worker")?;
    let worker = Pid::from_raw(worker.id().cast_signed());
    loop {
        match waitpid(None, None).context("waiting for the worker")? {
            WaitStatus::Exited(pid, code) if pid == worker => return Ok(code),
            WaitStatus::Signaled(pid, ..) if pid == worker && ENDING.load(Ordering::Relaxed) => {
                while waitpid(None, None).is_ok() {}
                // `end_everything` cleans up, and then ends the process.
                loop {
                    std::thread::park();
                }
            }
            WaitStatus::Signaled(pid, signal, _) if pid == worker => {
                return tell_death(signal).map(|()| i32::from(Exit::INTERNAL.0));
            }
            _orphan => {}
        }
    }
}

/// Tells the parent how the worker died. What that wrote last may be half a line.
fn tell_death(signal: Signal) -> Result<()> {
    let mut stdout = std::io::stdout();
    stdout.write_all(b"\n").context("reporting")?;
    write_line(&mut stdout, &Message::Died(format!("the worker was killed by {signal}")))
}

/// Enters namespaces of our own: with root's privileges directly, otherwise by way of a user
/// namespace, in which this user is root. Says whether it took one.
fn enter_namespaces() -> Result<bool> {
    let rest = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC;
    let (uid, gid) = (geteuid(), getegid());
    if let Some(why) = obstacle::too_old() {
        bail!(why);
    }
    // In a user namespace it has every capability.
    let machine = Machine::read();
    let direct = uid.is_root().then(|| unshare(rest));
    let mapped = direct != Some(Ok(()));
    if mapped {
        let refused = |errno| {
            let first = direct.and_then(Result::err);
            let Obstacle { why, remedy } = machine.refusal(first, errno);
            anyhow!("{why}; {remedy}")
        };
        unshare(CloneFlags::CLONE_NEWUSER).map_err(refused)?;
        let maps = [
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("0 {uid} 1")),
            ("gid_map", format!("0 {gid} 1")),
        ];
        for (file, content) in maps {
            std::fs::write(format!("/proc/self/{file}"), content).map_err(|error| {
                let Obstacle { why, remedy } = machine.unmapped(file, &error);
                anyhow!("{why}; {remedy}")
            })?;
        }
        unshare(rest).map_err(refused)?;
    }
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .context("making the mounts of the sandbox private")?;
    Ok(mapped)
}

/// Set when the worker is killed on purpose.
static ENDING: AtomicBool = AtomicBool::new(false);

fn end_with_lifeline() {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let stdin = std::io::stdin();
    loop {
        // Nothing is asked for: only the hang-up of the other end is reported. What is written to
        // it is for the worker, which reads the same pipe.
        let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::empty())];
        if poll(&mut fds, PollTimeout::NONE) != Err(nix::errno::Errno::EINTR) {
            break;
        }
    }
    end_everything();
}

/// Kills every process of the sandbox, then the connections that they leave behind, and ends: an
/// orphaned socket sends its FIN again and again, and would keep its namespace for a minute and a
/// half.
fn end_everything() -> ! {
    /// What cleaning up may take.
    const END_MOST: Duration = Duration::from_secs(6);
    ENDING.store(true, Ordering::Relaxed);
    // Cleaning up must not stand in the way of the end.
    std::thread::spawn(|| {
        std::thread::sleep(END_MOST);
        std::process::exit(1);
    });
    let namespaces = namespaces_in_use();
    // In a PID namespace of its own, -1 is every process but this one.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    let alive = || {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        processes.filter(|process| is_process(&process.path())).count()
    };
    // The main thread reaps them. On a busy machine the last to die still holds the trace pipes, with
    // which their instance cannot be removed. /proc may be that of the outer namespace, which shows none.
    let until = Instant::now() + END_MOST / 2;
    while alive() > 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(2));
    }
    for namespace in namespaces {
        let _ = lab::network::destroy_sockets(&namespace);
    }
    observe::tracer::remove_stale_instances();
    std::process::exit(1)
}

/// The network namespaces that a process of this sandbox is in or holds by a descriptor.
fn namespaces_in_use() -> Vec<Namespace> {
    let mut found = BTreeMap::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    for process in processes.filter(|path| is_process(path)) {
        let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        let links = descriptors.map(|entry| entry.path()).chain([process.join("ns/net")]);
        for link in links {
            let target = fs::read_link(&link).unwrap_or_default();
            let name = target.to_string_lossy();
            if name.starts_with("net:[")
                && !found.contains_key(name.as_ref())
                && let Ok(namespace) = Namespace::at(&link)
            {
                found.insert(name.into_owned(), namespace);
            }
        }
    }
    found.into_values().collect()
}

/// Whether a path is a process's directory in a /proc of this PID namespace, and not our own.
fn is_process(path: &Path) -> bool {
    let number = path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    number.is_some_and(|number| number != std::process::id())
        && fs::read_link("/proc/self").is_ok_and(|own| own == Path::new("1"))
}

fn this_program(subcommand: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("halfopen").arg(subcommand);
    command
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or(1)
}
