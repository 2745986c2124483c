//! A nameless network namespace, held by a file descriptor and by nothing else: when the last
//! descriptor, socket and process of it are gone, so is the namespace, with every interface in it.
//!
//! Besides, what more than one room asks of the kernel: packet sockets, socket diagnostics, the
//! monotonic clock.

pub mod packet;
pub mod sock_diag;

use nix::sched::{CloneFlags, setns, unshare};
use nix::time::{ClockId, clock_gettime};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// What can go wrong with a namespace, by the system call that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `unshare(CLONE_NEWNET)`: EPERM without privileges, ENOSPC past `user.max_net_namespaces`.
    #[error("creating a network namespace: {0}")]
    Create(#[source] io::Error),
    /// `/proc/thread-self/ns/net` could not be opened: no /proc, or no file descriptors left.
    #[error("opening the network namespace of a thread: {0}")]
    Open(#[source] io::Error),
    /// `setns`: EPERM if the namespace belongs to another user namespace.
    #[error("entering a network namespace: {0}")]
    Enter(#[source] io::Error),
    /// No thread could be made to work in the namespace.
    #[error("starting a thread for a network namespace: {0}")]
    Thread(#[source] io::Error),
}

/// A network namespace. Clones share the descriptor; the namespace ends when the last is dropped
/// and no socket or process is left in it.
#[derive(Debug, Clone)]
pub struct Namespace {
    file: Arc<File>,
}

impl Namespace {
    /// A fresh namespace, with nothing but a loopback interface that is down.
    ///
    /// # Errors
    /// [`Error::Create`], [`Error::Open`] or [`Error::Thread`].
    pub fn create() -> Result<Self, Error> {
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Create(errno.into()))?;
            Self::of_this_thread()
        })
    }

    /// The namespace that the calling thread is in.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn of_this_thread() -> Result<Self, Error> {
        let file = File::open("/proc/thread-self/ns/net").map_err(Error::Open)?;
        Ok(Self { file: Arc::new(file) })
    }

    /// The namespace that this file refers to, such as `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn at(path: &Path) -> Result<Self, Error> {
        Ok(Self { file: Arc::new(File::open(path).map_err(Error::Open)?) })
    }

    /// Runs `work` on a short-lived thread inside the namespace: whatever it opens (sockets, files
    /// below /proc/sys/net) or starts (processes) belongs there. No other thread is moved.
    ///
    /// # Errors
    /// [`Error::Enter`] or [`Error::Thread`].
    ///
    /// # Panics
    /// If `work` panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        on_a_thread(|| {
            setns(&*self.file, CloneFlags::CLONE_NEWNET)
                .map_err(|errno| Error::Enter(errno.into()))?;
            Ok(work())
        })
    }

    /// The inode number, which tells namespaces apart.
    ///
    /// # Errors
    /// [`Error::Open`] when the descriptor cannot be looked at.
    pub fn inode(&self) -> Result<u64, Error> {
        self.file.metadata().map(|metadata| metadata.ino()).map_err(Error::Open)
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Namespace {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// `CLOCK_MONOTONIC`, nanoseconds.
///
/// # Panics
/// Never on Linux, which has this clock.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock");
    now.tv_sec().cast_unsigned() * 1_000_000_000 + now.tv_nsec().cast_unsigned()
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, work)
            .map_err(Error::Thread)?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
