//! The virtual kernel: User Mode Linux with time travel, run as a sandboxed
//! child of this process.
//!
//! [`Guest`] says what to run; [`Guest::run`] boots the kernel, waits until it
//! has powered off, and tells how it [`End`]ed. Inside, the init executable
//! finds its side of the bargain in [`init`].
//!
//! # What holds
//!
//! - **The guest writes nothing of the host but the output directory**, also
//!   when the user is root. The kernel runs in a mount namespace of its own in
//!   which every mount is read-only, `nosuid` and `nodev` (`mount_setattr`,
//!   recursive); the output directory is the one writable bind mount, and a
//!   private tmpfs holds the guest's memory and UML's bookkeeping. `/proc` is a
//!   fresh one that shows the guest's own processes only, so that no
//!   `/proc/PID/root` leads out of the namespace. Capabilities are dropped down
//!   to those about file ownership, `no_new_privs` is set, and there is no
//!   network.
//! - **Nothing survives this process.** The kernel runs under a *keeper*, PID 1
//!   of a PID namespace. The keeper dies with the thread that called
//!   [`Guest::run`] (`PR_SET_PDEATHSIG`) and when a pipe held by this process
//!   closes, whichever is first; its death ends everything in the namespace.
//! - **No privilege is needed** where the kernel allows user namespaces: one is
//!   added when the other namespaces are refused without it.
//! - A guest that hangs is killed by a wall-clock watchdog.
//!
//! The calling thread blocks until the guest has ended; call it from a thread
//! that may (`spawn_blocking`).

mod after_fork;
mod console;
pub mod init;
mod keeper;
mod record;
mod sandbox;
#[cfg(test)]
mod tests;

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sandbox::{Ending, Launch, Sandbox};

/// A kernel, a program to run as its init, and the one host directory that
/// the program can write.
#[derive(Debug, Clone)]
pub struct Guest {
    kernel: PathBuf,
    init: PathBuf,
    output: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    memory_mib: u32,
    watchdog: Duration,
    epoch: Option<Duration>,
    seed: Option<u64>,
}

impl Guest {
    /// Memory given to a guest unless asked otherwise. The host pays only for
    /// what the guest touches: some 20 MiB for one trial, 65 for 500 connections.
    pub const DEFAULT_MEMORY_MIB: u32 = 256;

    /// Wall time after which a guest is taken for hung unless asked otherwise.
    pub const DEFAULT_WATCHDOG: Duration = Duration::from_secs(120);

    /// A guest that boots `kernel`, a User Mode Linux binary, runs `init` as
    /// its PID 1, and can write `output`, an existing directory.
    pub fn new(
        kernel: impl Into<PathBuf>,
        init: impl Into<PathBuf>,
        output: impl Into<PathBuf>,
    ) -> Self {
        Self {
            kernel: kernel.into(),
            init: init.into(),
            output: output.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            memory_mib: Self::DEFAULT_MEMORY_MIB,
            watchdog: Self::DEFAULT_WATCHDOG,
            epoch: None,
            seed: None,
        }
    }

    /// Adds an argument for the program, which finds it in
    /// [`init::Entry::arguments`] (not in its own argument vector: the kernel
    /// puts things of its own there).
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments, as [`Guest::arg`] does.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds an environment variable, which the program finds in
    /// [`init::Entry::environment`]. Nothing of this process's own environment
    /// is passed on.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Sets the guest's memory, in MiB.
    #[must_use]
    pub fn memory_mib(mut self, memory_mib: u32) -> Self {
        self.memory_mib = memory_mib;
        self
    }

    /// Sets the wall time after which the guest is killed.
    #[must_use]
    pub fn watchdog(mut self, watchdog: Duration) -> Self {
        self.watchdog = watchdog;
        self
    }

    /// Sets what the guest's wall clock says at boot, as time since the Unix
    /// epoch. Without it the guest's starts where the host's is, and wall-clock
    /// time stamps differ from run to run.
    #[must_use]
    pub fn epoch(mut self, since_unix_epoch: Duration) -> Self {
        self.epoch = Some(since_unix_epoch);
        self
    }

    /// Sets the seed of all randomness in the guest: port numbers, sequence
    /// numbers, MAC addresses, timers that are spread at random. With the same
    /// seed and the same [`Guest::epoch`] a run is repeated to the nanosecond.
    /// Without it randomness comes from the host.
    ///
    /// A kernel that `scripts/build-uml.sh` did not build may ignore it.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Boots the guest and waits for its end.
    ///
    /// An error means that no kernel ran. Whatever happens after it has started
    /// is an [`End`], with what the console said.
    pub fn run(&self) -> Result<Report, Error> {
        let started = Instant::now();
        let sandbox = self.sandbox()?;
        let finished = sandbox::run(&sandbox, started + self.watchdog)?;
        let end = match finished.ending {
            Ending::Watchdog => End::Hung { watchdog: self.watchdog },
            Ending::Kernel { status, code } => End::of_kernel(status, code, &finished.console),
            Ending::KeeperKilled => End::Killed,
        };
        Ok(Report {
            end,
            console: finished.console,
            console_dropped_bytes: finished.console_dropped_bytes,
            wall: started.elapsed(),
            peak_rss_kib: finished.peak_rss_kib,
            proc_hidden: finished.proc_hidden,
        })
    }

    fn sandbox(&self) -> Result<Sandbox, Error> {
        let kernel = existing(&self.kernel, What::Kernel)?;
        let init = existing(&self.init, What::Init)?;
        let output = existing(&self.output, What::Output)?;
        if output == Path::new("/") {
            return Err(Error::OutputIsRoot);
        }
        let scratch = scratch_directory(&[&kernel, &init, &output])?;
        let c = |bytes: &[u8]| {
            CString::new(bytes).map_err(|_| {
                Error::Unusable(String::from_utf8_lossy(bytes).into_owned(), "contains a NUL byte")
            })
        };
        let in_scratch = |name: &str| c(scratch.join(name).as_os_str().as_bytes());

        let mut command_line: Vec<Vec<u8>> = vec![
            kernel.as_os_str().as_bytes().to_vec(),
            format!("mem={}M", self.memory_mib).into_bytes(),
        ];
        command_line.extend(
            [
                "time-travel=inf-cpu",
                "root=none",
                "rootfstype=hostfs",
                "rootflags=/",
                "ro",
                "con=null",
                "con0=null,fd:1",
                "ssl=null",
                "quiet",
                "panic=-1",
                // Without it a guest that reboots would start over for ever.
                "noreboot",
                "norandmaps",
                // All of it is looked through every two minutes, also of 30 days.
                "nf_conntrack.hashsize=1024",
                "umid=guest",
            ]
            .map(|word| word.as_bytes().to_vec()),
        );
        // Whoever lists sockets walks through all of this table. It is to be small, and yet so large
        // that as many connections as fit into the memory may be orphans (half of it at most).
        let buckets = self.memory_mib.saturating_mul(2).next_power_of_two();
        command_line.push(format!("thash_entries={buckets}").into_bytes());
        if let Some(epoch) = self.epoch {
            command_line.push(format!("time-travel-start={}", epoch.as_nanos()).into_bytes());
        }
        command_line.push([b"uml_dir=", scratch.join("uml").as_os_str().as_bytes()].concat());
        command_line.push(quoted("init", &init)?);
        command_line.push(quoted(init::EXCHANGE_VARIABLE, &scratch.join("exchange"))?);

        let mut environment = vec![
            // A static UML binary dies at start where glibc registers rseq.
            c(b"GLIBC_TUNABLES=glibc.pthread.rseq=0")?,
            c(b"PATH=/usr/bin:/bin")?,
            c(&[b"HOME=", scratch.as_os_str().as_bytes()].concat())?,
            c(&[b"TMPDIR=", scratch.as_os_str().as_bytes()].concat())?,
        ];
        if let Some(seed) = self.seed {
            environment.push(c(format!("HALFOPEN_SEED={seed}").as_bytes())?);
        }

        Ok(Sandbox {
            kernel: c(kernel.as_os_str().as_bytes())?,
            output: c(output.as_os_str().as_bytes())?,
            scratch: c(scratch.as_os_str().as_bytes())?,
            scratch_uml: in_scratch("uml")?,
            exchange: in_scratch("exchange")?,
            exchange_files: vec![
                (in_scratch("exchange/arguments")?, init::encode(self.arguments.iter().cloned())),
                (
                    in_scratch("exchange/environment")?,
                    init::encode(self.environment.iter().map(|(name, value)| {
                        let mut line = name.clone();
                        line.push("=");
                        line.push(value);
                        line
                    })),
                ),
                (in_scratch("exchange/output")?, init::encode([output.clone().into_os_string()])),
            ],
            status: in_scratch("exchange/status")?,
            arguments: command_line.iter().map(|word| c(word)).collect::<Result<_, _>>()?,
            environment,
        })
    }
}

/// Where `scripts/build-uml.sh` leaves the kernel it built last for a timer
/// frequency. `cache_home` is the user's cache directory: `$XDG_CACHE_HOME`, or
/// else `~/.cache`. (`$HALFOPEN_UML` names a ready kernel instead.)
pub fn built_kernel(cache_home: &Path, hz: u32) -> PathBuf {
    cache_home.join(format!("halfopen/uml/linux-hz{hz}"))
}

/// What became of a guest.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// How it ended.
    pub end: End,
    /// What the kernel and the programs wrote to the console: the last 256 KiB
    /// of it.
    pub console: Vec<u8>,
    /// Bytes of console output before `console` that were not kept.
    pub console_dropped_bytes: u64,
    /// Wall time from start to end.
    pub wall: Duration,
    /// Peak resident memory of the kernel's process, in KiB, the part of the
    /// guest's memory that was touched included. 0 where it was killed.
    pub peak_rss_kib: u64,
    /// The host's `/proc` could not be replaced by a private one (some
    /// containers forbid it) and was covered by an empty directory instead.
    pub proc_hidden: bool,
}

impl Report {
    /// The console as text, with broken UTF-8 replaced and carriage returns
    /// removed.
    pub fn console_text(&self) -> String {
        String::from_utf8_lossy(&self.console).replace('\r', "")
    }
}

/// How a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The program ended the guest through [`init::power_off`] with this code.
    PoweredOff(u8),
    /// The guest powered off, but the program left no code.
    NoCode,
    /// The kernel panicked: also what it does when its init dies.
    Panicked {
        /// The panic's own line, from the console.
        reason: String,
    },
    /// The kernel's process ended in another way, described here. Most often it
    /// could not start; the console says why.
    Died(String),
    /// The wall-clock watchdog ended it.
    Hung {
        /// The time it had.
        watchdog: Duration,
    },
    /// Somebody else killed it.
    Killed,
}

impl End {
    fn of_kernel(status: i32, code: Option<u8>, console: &[u8]) -> Self {
        let exited = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
        let signal = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
        let panic = String::from_utf8_lossy(console)
            .lines()
            .find(|line| line.contains("Kernel panic"))
            .map(|line| line.trim().to_owned());
        match (exited, signal, code, panic) {
            (Some(0), _, Some(code), _) => Self::PoweredOff(code),
            (_, _, _, Some(reason)) => Self::Panicked { reason },
            (Some(0), _, None, None) => Self::NoCode,
            (Some(status), ..) => Self::Died(format!("the kernel's process exited with {status}")),
            (_, Some(libc::SIGKILL), ..) => Self::Killed,
            (_, Some(signal), ..) => {
                Self::Died(format!("the kernel's process died of signal {signal}"))
            }
            _ => Self::Died(format!("the kernel's process ended with wait status {status:#x}")),
        }
    }
}

/// Why no kernel ran.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel, the init executable or the output directory is not there.
    #[error("{what} {}: {source}", path.display())]
    Missing {
        /// Which of the three.
        what: What,
        /// Where it was expected.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The guest would have been able to write the whole host.
    #[error("the output directory of a guest cannot be /")]
    OutputIsRoot,
    /// A path that cannot be handed to the kernel.
    #[error("{0:?} cannot be given to the virtual kernel: it {1}")]
    Unusable(String, &'static str),
    /// No directory to put the private tmpfs on.
    #[error(
        "no directory for the guest's memory: none of {} exists, or each holds the kernel, the \
         program or the output directory",
        SCRATCH_CANDIDATES.join(", ")
    )]
    NoScratch,
    /// Neither root nor a user namespace is to be had.
    #[error(
        "creating namespaces for the virtual kernel: {source} (this user may not create user \
         namespaces: see user.max_user_namespaces, kernel.unprivileged_userns_clone and \
         kernel.apparmor_restrict_unprivileged_userns, or run as root)"
    )]
    Namespaces {
        /// What `clone` said.
        source: io::Error,
    },
    /// A step of the sandbox failed.
    #[error("{operation} for the virtual kernel: {source}")]
    Sandbox {
        /// What was being done, and to what.
        operation: String,
        /// What the system said.
        source: io::Error,
    },
}

/// The three paths a guest is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The User Mode Linux binary.
    Kernel,
    /// The program.
    Init,
    /// The directory that the guest can write.
    Output,
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kernel => "virtual kernel",
            Self::Init => "init executable",
            Self::Output => "output directory",
        })
    }
}

/// Where the private tmpfs may go: directories that exist nearly everywhere and
/// that no program inside the guest misses.
const SCRATCH_CANDIDATES: [&str; 5] = ["/dev/shm", "/mnt", "/media", "/run", "/tmp"];

fn existing(path: &Path, what: What) -> Result<PathBuf, Error> {
    let missing = |source| Error::Missing { what, path: path.to_owned(), source };
    let canonical = path.canonicalize().map_err(missing)?;
    let is_directory = canonical.metadata().map_err(missing)?.is_dir();
    match (what, is_directory) {
        (What::Output, false) => Err(missing(io::ErrorKind::NotADirectory.into())),
        (What::Kernel | What::Init, true) => Err(missing(io::ErrorKind::IsADirectory.into())),
        _ => Ok(canonical),
    }
}

/// The first candidate that exists and hides none of `needed` when something
/// is mounted on it.
fn scratch_directory(needed: &[&Path]) -> Result<PathBuf, Error> {
    SCRATCH_CANDIDATES
        .iter()
        .filter_map(|candidate| Path::new(candidate).canonicalize().ok())
        .find(|candidate| {
            candidate.is_dir() && !needed.iter().any(|path| path.starts_with(candidate))
        })
        .ok_or(Error::NoScratch)
}

/// `name=path` as one word of a kernel command line, quoted where the kernel's
/// parser needs it (lib/cmdline.c, `next_arg`).
fn quoted(name: &str, path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.contains(&b'"') {
        return Err(Error::Unusable(
            OsString::from_vec(bytes.to_vec()).to_string_lossy().into_owned(),
            "contains a double quote",
        ));
    }
    let word = [name.as_bytes(), b"=", bytes].concat();
    if bytes.iter().any(u8::is_ascii_whitespace) {
        return Ok([b"\"".as_slice(), &word, b"\""].concat());
    }
    Ok(word)
}

impl From<sandbox::Failure> for Error {
    fn from(failure: sandbox::Failure) -> Self {
        match failure {
            sandbox::Failure::Namespaces(source) => Self::Namespaces { source },
            sandbox::Failure::Step(Launch { operation, source }) => {
                Self::Sandbox { operation: operation.into_owned(), source }
            }
        }
    }
}
