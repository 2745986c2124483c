//! The virtual kernel: User Mode Linux with time travel, run as a program without privileges.
//!
//! [`Guest`] says what to run; [`Guest::run`] boots the kernel, waits until it has powered off, and
//! tells how it [`End`]ed. Inside, the init executable finds its side in [`init`].
//!
//! # What holds
//!
//! - **The guest writes nothing of the host** but its [`Exchange`], a private tmpfs:
//!   every mount of the kernel's process is read-only ([`Launch::read_only`]). Of the host's files it
//!   reads those that the caller may read, since it has the caller's identity and no capability.
//! - **Nothing survives this process**: see the crate `sandbox`.
//! - A guest that makes no progress ([`Pulse`]) is killed by a wall-clock watchdog.
//!
//! The calling thread blocks until the guest has ended.

mod console;
mod exchange;
pub mod init;
mod watch;

pub use exchange::Exchange;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sandbox::{Execve, Launch, Launcher};
use watch::Ending;

/// A kernel, and a program to run as its init.
#[derive(Debug, Clone)]
pub struct Guest {
    kernel: PathBuf,
    init: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    memory_mib: u32,
    watchdog: Duration,
    pulse: Pulse,
    epoch: Option<Duration>,
    seed: Option<u64>,
    processor: Option<usize>,
}

impl Guest {
    /// Memory given to a guest unless asked otherwise. The host pays only for
    /// what the guest touches: some 20 MiB for one trial, 65 for 500 connections.
    pub const DEFAULT_MEMORY_MIB: u32 = 256;

    /// Wall time since the last beat of its [`Pulse`] after which a guest is taken for hung unless
    /// asked otherwise.
    pub const DEFAULT_WATCHDOG: Duration = Duration::from_secs(120);

    /// A guest that boots `kernel`, a User Mode Linux binary, and runs `init` as its PID 1.
    pub fn new(kernel: impl Into<PathBuf>, init: impl Into<PathBuf>) -> Self {
        Self {
            kernel: kernel.into(),
            init: init.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            memory_mib: Self::DEFAULT_MEMORY_MIB,
            watchdog: Self::DEFAULT_WATCHDOG,
            pulse: Pulse::default(),
            epoch: None,
            seed: None,
            processor: None,
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

    /// Sets the wall time since the last beat of its pulse after which the guest is killed.
    #[must_use]
    pub fn watchdog(mut self, watchdog: Duration) -> Self {
        self.watchdog = watchdog;
        self
    }

    /// What the guest's watchdog counts from: whoever sees it make progress lets this beat.
    #[must_use]
    pub fn pulse(mut self, pulse: Pulse) -> Self {
        self.pulse = pulse;
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

    /// Keeps the guest on one processor. Its kernel and its programs are processes of the host that
    /// take turns at every system call (ptrace): waking the next one on another processor takes
    /// longer than the call itself.
    #[must_use]
    pub fn processor(mut self, number: usize) -> Self {
        self.processor = Some(number);
        self
    }

    /// Boots the guest and waits for its end. Host and guest talk through `exchange`.
    ///
    /// An error means that no kernel ran. Whatever happens after it has started
    /// is an [`End`], with what the console said.
    pub fn run(&self, launcher: &Launcher, exchange: &Exchange) -> Result<Report, Error> {
        let started = Instant::now();
        let launch = self.launch(exchange)?;
        self.pulse.beat();
        let deadline = || self.pulse.last() + self.watchdog;
        let finished = watch::run(launcher, &launch, exchange, deadline)?;
        let end = match finished.ending {
            Ending::Watchdog => End::Hung { watchdog: self.watchdog },
            Ending::Kernel { code, signal } => {
                End::of_kernel(code, signal, exchange.status(), &finished.console)
            }
            Ending::Killed => End::Killed,
        };
        Ok(Report {
            end,
            console: finished.console,
            console_dropped_bytes: finished.console_dropped_bytes,
            wall: started.elapsed(),
            peak_rss_kib: finished.peak_rss_kib,
        })
    }

    fn launch(&self, exchange: &Exchange) -> Result<Launch, Error> {
        let kernel = existing(&self.kernel, What::Kernel)?;
        let init = existing(&self.init, What::Init)?;
        exchange.write("arguments", &init::encode(self.arguments.iter().cloned()))?;
        let variables = self.environment.iter().map(|(name, value)| {
            let mut line = name.clone();
            line.push("=");
            line.push(value);
            line
        });
        exchange.write("environment", &init::encode(variables))?;

        let mut arguments: Vec<OsString> =
            vec![kernel.clone().into(), format!("mem={}M", self.memory_mib).into()];
        arguments.extend(
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
            .map(OsString::from),
        );
        // Whoever lists sockets walks through all of this table. It is to be small, and yet so large
        // that as many connections as fit into the memory may be orphans (half of it at most).
        let buckets = self.memory_mib.saturating_mul(2).next_power_of_two();
        arguments.push(format!("thash_entries={buckets}").into());
        if let Some(epoch) = self.epoch {
            arguments.push(format!("time-travel-start={}", epoch.as_nanos()).into());
        }
        arguments.push(format!("uml_dir={SCRATCH}/uml").into());
        // The kernel's random numbers begin with this line (`random_init_early`): wherever the program
        // lies, it is the same.
        let directory = init.parent().unwrap_or(Path::new("/"));
        let name = init.file_name().unwrap_or_default();
        arguments.push(quoted("init", &Path::new("/proc/self/cwd").join(name))?);
        arguments.push(quoted(init::EXCHANGE_VARIABLE, Path::new(SCRATCH))?);

        let mut environment = vec![
            // A static UML binary dies at start where glibc registers rseq.
            ("GLIBC_TUNABLES".into(), "glibc.pthread.rseq=0".into()),
            ("PATH".into(), "/usr/bin:/bin".into()),
            ("HOME".into(), SCRATCH.into()),
            ("TMPDIR".into(), SCRATCH.into()),
        ];
        if let Some(seed) = self.seed {
            environment.push(("HALFOPEN_SEED".into(), seed.to_string().into()));
        }
        Ok(Launch {
            command: Some(Execve {
                program: kernel.into(),
                arguments,
                environment,
                directory: directory.into(),
            }),
            identity: None,
            read_only: true,
            layer: false,
            files: Vec::new(),
            processor: self.processor,
            // Some of the kernel's hash tables are ordered by addresses.
            fixed_addresses: true,
        })
    }
}

/// When a guest last made progress. Its clones are one.
#[derive(Debug, Clone)]
pub struct Pulse(Arc<Mutex<Instant>>);

impl Default for Pulse {
    /// Progress just now.
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Pulse {
    /// It makes progress now.
    pub fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The program's own tmpfs: what the guest's memory is mapped from, UML's bookkeeping, and the
/// exchange.
const SCRATCH: &str = "/dev/shm";

/// Where `scripts/build-uml.sh` leaves kernels: the one of a version (such as
/// `6.1`) and a timer frequency, or the one that was built last for that
/// frequency. `cache_home` is the user's cache directory: `$XDG_CACHE_HOME`, or
/// else `~/.cache`. (`$HALFOPEN_UML` names a ready kernel instead.)
pub fn built_kernel(cache_home: &Path, version: Option<&str>, hz: u32) -> PathBuf {
    let version = version.map_or_else(String::new, |version| format!("-{version}"));
    cache_home.join(format!("halfopen/uml/linux{version}-hz{hz}"))
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
        /// For how long it made no progress.
        watchdog: Duration,
    },
    /// Somebody else killed it.
    Killed,
}

impl End {
    fn of_kernel(
        exited: Option<i32>,
        signal: Option<i32>,
        left: Option<u8>,
        console: &[u8],
    ) -> Self {
        let panic = String::from_utf8_lossy(console)
            .lines()
            .find(|line| line.contains("Kernel panic"))
            .map(|line| line.trim().to_owned());
        match (exited, signal, left, panic) {
            (Some(0), _, Some(code), _) => Self::PoweredOff(code),
            (_, _, _, Some(reason)) => Self::Panicked { reason },
            (Some(0), _, None, None) => Self::NoCode,
            (Some(status), ..) => Self::Died(format!("the kernel's process exited with {status}")),
            (_, Some(libc::SIGKILL), ..) => Self::Killed,
            (_, signal, ..) => Self::Died(format!(
                "the kernel's process died of signal {}",
                signal.unwrap_or_default()
            )),
        }
    }
}

/// Why no kernel ran.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel or the init executable is not there.
    #[error("{what} {}: {source}", path.display())]
    Missing {
        /// Which of the two.
        what: What,
        /// Where it was expected.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A path that cannot be handed to the kernel.
    #[error("{0:?} cannot be given to the virtual kernel: it {1}")]
    Unusable(String, &'static str),
    /// A step of the launch failed.
    #[error("{operation} for the virtual kernel: {source}")]
    Sandbox {
        /// What was being done, and to what.
        operation: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    fn of<E: Into<io::Error>>(operation: impl Into<String>) -> impl FnOnce(E) -> Self {
        let operation = operation.into();
        move |source| Self::Sandbox { operation, source: source.into() }
    }
}

impl From<sandbox::Error> for Error {
    fn from(sandbox::Error { operation, source }: sandbox::Error) -> Self {
        Self::Sandbox { operation, source }
    }
}

/// The two files that a guest is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The User Mode Linux binary.
    Kernel,
    /// The program.
    Init,
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kernel => "virtual kernel",
            Self::Init => "init executable",
        })
    }
}

fn existing(path: &Path, what: What) -> Result<PathBuf, Error> {
    let missing = |source| Error::Missing { what, path: path.to_owned(), source };
    let canonical = path.canonicalize().map_err(missing)?;
    if canonical.metadata().map_err(missing)?.is_dir() {
        return Err(missing(io::ErrorKind::IsADirectory.into()));
    }
    if canonical.starts_with("/dev") {
        let path = canonical.display().to_string();
        return Err(Error::Unusable(path, "lies in /dev, of which the kernel has its own"));
    }
    Ok(canonical)
}

/// `name=path` as one word of a kernel command line, quoted where the kernel's
/// parser needs it (lib/cmdline.c, `next_arg`).
fn quoted(name: &str, path: &Path) -> Result<OsString, Error> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.contains(&b'"') {
        let path = path.display().to_string();
        return Err(Error::Unusable(path, "contains a double quote"));
    }
    let word = [name.as_bytes(), b"=", bytes].concat();
    let quote: &[u8] = if bytes.iter().any(u8::is_ascii_whitespace) { b"\"" } else { b"" };
    Ok(OsStr::from_bytes(&[quote, &word, quote].concat()).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_a_space_is_quoted_as_a_whole_word() {
        assert_eq!(quoted("init", Path::new("/a/b")).unwrap(), "init=/a/b");
        assert_eq!(quoted("init", Path::new("/a b")).unwrap(), "\"init=/a b\"");
        assert!(quoted("init", Path::new("/a\"b")).is_err());
    }

    #[test]
    fn what_the_kernel_would_not_see_is_refused() {
        let error = existing(Path::new("/dev/null"), What::Kernel).unwrap_err().to_string();
        assert!(error.contains("/dev/null") && error.contains("its own"), "{error}");
    }

    #[test]
    fn an_exit_code_counts_only_after_an_orderly_end() {
        let of = End::of_kernel;
        assert_eq!(of(Some(0), None, Some(3), b""), End::PoweredOff(3));
        assert_eq!(of(Some(0), None, None, b""), End::NoCode);
        assert_eq!(
            of(None, Some(libc::SIGABRT), Some(0), b"x\nKernel panic - not syncing: y\n"),
            End::Panicked { reason: "Kernel panic - not syncing: y".into() }
        );
        assert_eq!(of(None, Some(libc::SIGKILL), None, b""), End::Killed);
        assert!(matches!(of(Some(1), None, None, b""), End::Died(_)));
    }
}
