//! Sysctls below `net.ipv4`, each namespace's own.

use netns::Namespace;
use spec::sysctl::Sysctls;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What can go wrong with a sysctl. Names are below `net.ipv4`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This kernel has no such sysctl: the trial is skipped.
    #[error("this kernel has no sysctl net.ipv4.{name}{}", since(.name))]
    Missing {
        /// The sysctl.
        name: String,
    },
    /// The kernel does not take this value.
    #[error("setting net.ipv4.{name}={value}: the kernel refuses the value: {source}")]
    Refused {
        /// The sysctl.
        name: String,
        /// What was to be its value.
        value: String,
        /// EINVAL, ERANGE; ENOENT for a congestion control that is not there.
        source: io::Error,
    },
    /// It may not be written: no privilege in this namespace, or /proc/sys is mounted read-only.
    #[error("setting net.ipv4.{name}={value}: {source}{}", permission(source))]
    Denied {
        /// The sysctl.
        name: String,
        /// What was to be its value.
        value: String,
        /// EACCES, EPERM or EROFS.
        source: io::Error,
    },
    /// Something else.
    #[error("{doing}: {source}")]
    Io {
        /// The operation and its object.
        doing: String,
        /// What it failed with.
        source: io::Error,
    },
    /// The namespace could not be entered.
    #[error("for sysctls: {0}")]
    Namespace(#[from] netns::Error),
}

/// What to do where /proc/sys cannot be written.
pub(crate) const READ_ONLY: &str = ": /proc/sys is mounted read-only, as in a container: start it \
    with --privileged, or with --security-opt systempaths=unconfined (docker) or --security-opt \
    unmask=/proc/sys (podman)";

fn permission(source: &io::Error) -> &'static str {
    if source.raw_os_error() == Some(libc::EROFS) {
        READ_ONLY
    } else {
        ": it needs root, or a user namespace"
    }
}

/// Sets sysctls in a namespace, in the order of their names.
///
/// # Errors
/// The first one that could not be set; those before it are set.
pub fn apply(namespace: &Namespace, sysctls: &Sysctls) -> Result<(), Error> {
    if sysctls.is_empty() {
        return Ok(());
    }
    namespace.run(|| sysctls.iter().try_for_each(|(name, value)| set(name, value)))?
}

/// The TCP sysctls in force in a namespace in which these were set, and no others: every `tcp_*`
/// that can be read and is the namespace's own, values with single spaces. Those that were set are
/// read there; the others, which are the same in every fresh namespace, once in this process.
///
/// # Errors
/// [`Error::Io`] if /proc/sys/net/ipv4 cannot be listed.
pub fn read_tcp<'a>(
    namespace: &Namespace,
    set: impl IntoIterator<Item = &'a String>,
) -> Result<Sysctls, Error> {
    static FRESH: OnceLock<Sysctls> = OnceLock::new();
    let mut sysctls = if let Some(fresh) = FRESH.get() {
        fresh.clone()
    } else {
        let fresh = read_all(&Namespace::create()?)?;
        FRESH.get_or_init(|| fresh).clone()
    };
    let mut buffer = [0; 4096];
    namespace.run(|| {
        for name in set {
            if let Some(value) = sysctls.get_mut(name) {
                let path = path(name);
                let now = read_at_once(&path, &mut buffer).map_err(|source| Error::Io {
                    doing: format!("reading {}", path.display()),
                    source,
                })?;
                *value = words(now);
            }
        }
        Ok::<_, Error>(())
    })??;
    Ok(sysctls)
}

/// All TCP sysctls in force in a namespace, whatever set them.
///
/// # Errors
/// [`Error::Io`] if /proc/sys/net/ipv4 cannot be listed.
pub fn read_all(namespace: &Namespace) -> Result<Sysctls, Error> {
    namespace.run(|| {
        let listing = fs::read_dir(ROOT).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries =
            listing.map_err(|source| Error::Io { doing: format!("listing {ROOT}"), source })?;
        let names = entries.iter().filter_map(|entry| entry.file_name().into_string().ok());
        let mut buffer = [0; 4096];
        Ok(names
            .filter(|name| name.starts_with("tcp_") && !MACHINE_WIDE.contains(&name.as_str()))
            .filter_map(|name| {
                // tcp_fastopen_key is for root of the first namespace only.
                let value = words(read_at_once(&path(&name), &mut buffer).ok()?);
                Some((name, value))
            })
            .collect())
    })?
}

fn words(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a sysctl says: the kernel gives all of it to one `read`. [`fs::read_to_string`] would ask
/// for its size and read on to its end besides.
fn read_at_once<'a>(path: &Path, buffer: &'a mut [u8]) -> io::Result<&'a str> {
    let count = fs::File::open(path)?.read(buffer)?;
    std::str::from_utf8(&buffer[..count])
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Whether this kernel has the sysctl, as seen from a namespace.
///
/// # Errors
/// [`Error::Namespace`].
pub fn exists(namespace: &Namespace, name: &'static str) -> Result<bool, Error> {
    Ok(namespace.run(|| path(name).exists())?)
}

const ROOT: &str = "/proc/sys/net/ipv4";

/// Names that say nothing about this namespace's timers: the machine's memory and hash tables.
const MACHINE_WIDE: &[&str] = &[
    "tcp_available_congestion_control",
    "tcp_available_ulp",
    "tcp_allowed_congestion_control",
    "tcp_child_ehash_entries",
    "tcp_ehash_entries",
    "tcp_fastopen_key",
    "tcp_max_orphans",
    "tcp_mem",
];

/// Writes a file below /proc/sys/net in the calling thread's namespace. `false` if there is no such
/// file.
pub(crate) fn write_if_present(below_net: &str, value: &str) -> io::Result<bool> {
    let path = Path::new("/proc/sys/net").join(below_net);
    match open(&path) {
        Ok(mut file) => file.write_all(value.as_bytes()).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn set(name: &str, value: &str) -> Result<(), Error> {
    let (name, value) = (name.to_owned(), value.to_owned());
    // This side has the privileges: it takes no name on trust, which could lead out of net.ipv4.
    if let Err(why) = spec::sysctl::check(&name, &value) {
        let source = io::Error::new(io::ErrorKind::InvalidInput, why);
        return Err(Error::Refused { name, value, source });
    }
    let mut file = match open(&path(&name)) {
        Ok(file) => file,
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            return Err(Error::Missing { name });
        }
        Err(source) => return Err(classify(name, value, source)),
    };
    file.write_all(value.as_bytes()).map_err(|source| classify(name, value, source))
}

fn classify(name: String, value: String, source: io::Error) -> Error {
    match source.raw_os_error() {
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => Error::Denied { name, value, source },
        Some(libc::EINVAL | libc::ERANGE | libc::ENOENT | libc::EOPNOTSUPP | libc::EBUSY) => {
            Error::Refused { name, value, source }
        }
        _ => Error::Io { doing: format!("setting net.ipv4.{name}={value}"), source },
    }
}

fn open(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().write(true).open(path)
}

fn path(name: &str) -> PathBuf {
    Path::new(ROOT).join(name.replace('.', "/"))
}

/// When sysctls came that an experiment is likely to ask for.
fn since(name: &str) -> &'static str {
    match name {
        "tcp_rto_max_ms" => " (Linux 6.15 and later)",
        "tcp_rto_min_us" => " (Linux 6.11 and later)",
        "tcp_syn_linear_timeouts" => " (Linux 6.5 and later)",
        _ => "",
    }
}
