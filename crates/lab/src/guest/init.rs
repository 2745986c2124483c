//! The guest's side: what the program does that a virtual kernel starts as its
//! init (PID 1), on the host's file system.
//!
//! ```no_run
//! # fn real_work(_: &[std::ffi::OsString]) -> u8 { 0 }
//! use lab::guest::init;
//!
//! if init::is_guest() {
//!     let code = match init::enter() {
//!         Ok(entry) => entry.run_self(),
//!         Err(error) => {
//!             eprintln!("{error}");
//!             5
//!         }
//!     };
//!     init::power_off(code);
//! }
//! ```
//!
//! Things that are different in here: CPU work takes no time, so a loop that
//! waits for another process without sleeping never ends; and two things done
//! at once happen at the very same nanosecond.
#![expect(unsafe_code, reason = "SIOCSIFFLAGS has no safe wrapper")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The kernel parameter, and so init's environment variable, that names the
/// host directory through which launcher and program talk.
pub(super) const EXCHANGE_VARIABLE: &str = "HALFOPEN_GUEST";

/// Where [`enter`] mounts that directory. `/dev` is the guest's own, so that
/// names can be made in it.
pub const EXCHANGE: &str = "/dev/halfopen";

/// The file in which the program leaves its exit code.
pub(super) const STATUS: &str = "status";

/// How many descriptors a process may have in the guest.
const DESCRIPTORS_MAX: u64 = 65_536;

/// What the launcher asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The arguments given to [`super::Guest::arg`].
    pub arguments: Vec<OsString>,
    /// The variables given to [`super::Guest::env`].
    pub environment: Vec<(OsString, OsString)>,
}

/// A step of the guest's start that failed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} in the virtual kernel: {source}")]
pub struct EnterError {
    operation: String,
    source: io::Error,
}

/// Whether this process is the init of a virtual kernel that a
/// [`Guest`](super::Guest) started.
pub fn is_guest() -> bool {
    std::process::id() == 1 && std::env::var_os(EXCHANGE_VARIABLE).is_some()
}

/// Makes the guest habitable: mounts `/proc`, `/sys`, tracefs, `/dev/shm`, `/dev/pts`,
/// `/tmp` and the exchange, brings the loopback interface up, and raises
/// the limit on descriptors. Reads what the launcher asked for.
///
/// `/tmp` is empty in here, whatever the host has in its own.
pub fn enter() -> Result<Entry, EnterError> {
    let none = None::<&str>;
    // Where the host's user is not root, its programs belong to the user nobody as seen from
    // here, and a set-user-ID one (`mount`) would run as nobody.
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
    mount(none, "/", none, flags, none)
        .map_err(io::Error::from)
        .map_err(failed(|| "remounting / read-only and nosuid".into()))?;
    attach("proc", "/proc", "proc", MsFlags::MS_NOSUID, none)?;
    attach("sysfs", "/sys", "sysfs", MsFlags::MS_NOSUID, none)?;
    // A kernel built without the mount has the host's /dev here, read-only.
    if !Path::new(EXCHANGE).exists() && fs::create_dir(EXCHANGE).is_err() {
        attach("devtmpfs", "/dev", "devtmpfs", MsFlags::MS_NOSUID, none)?;
        directory(EXCHANGE)?;
    }
    directory("/dev/shm")?;
    attach("shm", "/dev/shm", "tmpfs", MsFlags::MS_NOSUID, Some("mode=1777"))?;
    directory("/dev/pts")?;
    attach("devpts", "/dev/pts", "devpts", MsFlags::MS_NOSUID, Some("ptmxmode=666"))?;
    attach("tmp", "/tmp", "tmpfs", MsFlags::MS_NOSUID, Some("mode=1777"))?;
    // A kernel without tracepoints has no such directory; the instrument that wants them
    // finds out for itself.
    if Path::new("/sys/kernel/tracing").is_dir() {
        attach("tracefs", "/sys/kernel/tracing", "tracefs", MsFlags::MS_NOSUID, none)?;
    }
    let exchange = std::env::var(EXCHANGE_VARIABLE).map_err(|_| EnterError {
        operation: format!("reading {EXCHANGE_VARIABLE}"),
        source: io::ErrorKind::NotFound.into(),
    })?;
    attach_host(&exchange, Path::new(EXCHANGE))?;
    let read = |name: &str| {
        let path = Path::new(EXCHANGE).join(name);
        fs::read(&path)
            .map(|bytes| decode(&bytes))
            .map_err(failed(|| format!("reading {}", path.display())))
    };
    loopback_up().map_err(failed(|| "bringing the loopback interface up".into()))?;
    // The kernel's own default of 1,024 descriptors is too few for many pairs.
    setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS_MAX, DESCRIPTORS_MAX)
        .map_err(io::Error::from)
        .map_err(failed(|| "raising the limit on descriptors".into()))?;
    Ok(Entry {
        arguments: read("arguments")?,
        environment: read("environment")?.into_iter().map(|line| split_variable(&line)).collect(),
    })
}

impl Entry {
    /// Runs this executable again, as an ordinary process with the arguments
    /// and the environment asked for, while this process remains init and reaps
    /// what is orphaned. Returns the code to power off with: the program's own,
    /// or 128 plus the signal that killed it.
    ///
    /// PID 1 is not quite an ordinary process (signals without a handler pass
    /// it by), which is why the work is better done in another.
    pub fn run_self(&self) -> u8 {
        let child = Command::new("/proc/self/exe")
            .args(&self.arguments)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(EXCHANGE)
            .spawn();
        match child {
            Ok(child) => wait_and_reap(Pid::from_raw(child.id().cast_signed())),
            Err(error) => {
                eprintln!("starting the program in the virtual kernel: {error}");
                126
            }
        }
    }
}

/// Leaves the code for the launcher, flushes, and switches the guest off.
pub fn power_off(code: u8) -> ! {
    let status = Path::new(EXCHANGE).join(STATUS);
    if let Err(error) = fs::write(&status, code.to_string()) {
        eprintln!("writing {}: {error}", status.display());
    }
    nix::unistd::sync();
    let error = reboot(RebootMode::RB_POWER_OFF);
    // Only without the right to do it, which init has. The kernel panics when
    // init ends, and the launcher says so.
    panic!("switching the virtual kernel off: {error:?}");
}

fn wait_and_reap(program: Pid) -> u8 {
    loop {
        match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == program => {
                return u8::try_from(code & 0xff).unwrap_or(u8::MAX);
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => {
                let status = ExitStatus::from_raw(signal as i32);
                eprintln!("the program in the virtual kernel ended: {status}");
                return 128_u8.saturating_add(signal as u8);
            }
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => {
                eprintln!("waiting for the program in the virtual kernel: {error}");
                return 126;
            }
        }
    }
}

fn attach(
    source: &str,
    target: &str,
    kind: &str,
    flags: MsFlags,
    data: Option<&str>,
) -> Result<(), EnterError> {
    mount(Some(source), target, Some(kind), flags, data)
        .map_err(io::Error::from)
        .map_err(failed(|| format!("mounting {target} ({kind})")))
}

/// Mounts a directory of the host.
fn attach_host(host: impl AsRef<OsStr>, target: &Path) -> Result<(), EnterError> {
    let host = host.as_ref();
    mount(
        Some("hostfs"),
        target,
        Some("hostfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(host),
    )
    .map_err(io::Error::from)
    .map_err(failed(|| format!("mounting the host's {} (hostfs)", Path::new(host).display())))
}

fn directory(path: impl AsRef<Path>) -> Result<(), EnterError> {
    let path = path.as_ref();
    fs::create_dir_all(path).map_err(failed(|| format!("creating {}", path.display())))
}

fn failed(operation: impl FnOnce() -> String) -> impl FnOnce(io::Error) -> EnterError {
    |source| EnterError { operation: operation(), source }
}

fn loopback_up() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
    // SAFETY: zero is a valid value of this plain structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *slot = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the kernel reads the interface's name and flags from a structure
    // of the type that this request takes.
    if unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as libc::Ioctl, &raw const request)
    } < 0
    {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A list of strings as bytes: each ended by a NUL, which no argument and no
/// path contains.
pub(super) fn encode(strings: impl IntoIterator<Item = OsString>) -> Vec<u8> {
    strings
        .into_iter()
        .flat_map(|string| {
            let mut bytes = string.into_vec();
            bytes.push(0);
            bytes
        })
        .collect()
}

fn decode(bytes: &[u8]) -> Vec<OsString> {
    bytes
        .split_inclusive(|byte| *byte == 0)
        .map(|string| OsString::from_vec(string.strip_suffix(b"\0").unwrap_or(string).to_vec()))
        .collect()
}

fn split_variable(line: &OsStr) -> (OsString, OsString) {
    let mut parts = line.as_bytes().splitn(2, |byte| *byte == b'=');
    let mut part = || OsString::from_vec(parts.next().unwrap_or_default().to_vec());
    (part(), part())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_every_kind_pass_the_exchange() {
        let strings: Vec<OsString> = vec!["--set".into(), "".into(), "a b\nc".into()];
        assert_eq!(decode(&encode(strings.clone())), strings);
        assert!(decode(b"").is_empty());
    }

    #[test]
    fn a_variable_may_contain_an_equals_sign() {
        assert_eq!(split_variable(OsStr::new("A=b=c")), ("A".into(), "b=c".into()));
        assert_eq!(split_variable(OsStr::new("A")), ("A".into(), "".into()));
    }
}
