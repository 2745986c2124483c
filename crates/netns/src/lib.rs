//! A nameless network namespace, held by a file descriptor and by nothing else: when the last
//! descriptor, socket and process of it are gone, so is the namespace, with every interface in it.
//!
//! Besides, what more than one room asks of the kernel: packet sockets, socket diagnostics, the
//! monotonic clock.

pub mod packet;
pub mod sock_diag;

use nix::sched::{CloneFlags, setns, unshare};
use nix::time::{ClockId, clock_gettime};
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// What can go wrong with a namespace, by the system call that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `unshare(CLONE_NEWNET)`: EPERM without privileges, ENOSPC past `user.max_net_namespaces`.
    #[error("creating a network namespace: {0}")]
    Create(#[source] io::Error),
    /// `/proc/thread-self/ns/net` could not be opened: no /proc, or no file descriptors left.
    #[error("opening a network namespace: {0}")]
    Open(#[source] io::Error),
    /// `setns`: EPERM if the namespace belongs to another user namespace.
    #[error("entering a network namespace: {0}")]
    Enter(#[source] io::Error),
}

/// A network namespace. Clones share the descriptor; the namespace ends when the last is dropped
/// and no socket or process is left in it.
#[derive(Debug, Clone)]
pub struct Namespace {
    file: Arc<File>,
    inode: u64,
}

impl Namespace {
    /// A fresh namespace, with nothing but a loopback interface that is down.
    ///
    /// # Errors
    /// [`Error::Create`] or [`Error::Open`].
    pub fn create() -> Result<Self, Error> {
        Self::create_with(|| ()).map(|(fresh, ())| fresh)
    }

    /// The same, and runs `work` inside it before anything else does, as [`Self::run`].
    ///
    /// # Errors
    /// As for [`Self::create`].
    pub fn create_with<T>(work: impl FnOnce() -> T) -> Result<(Self, T), Error> {
        let back = Back::here()?;
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Create(errno.into()))?;
        let fresh = Self::of_this_thread()?;
        INSIDE.set(Some(fresh.clone()));
        let done = work();
        drop(back);
        Ok((fresh, done))
    }

    /// The namespace that the calling thread is in.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn of_this_thread() -> Result<Self, Error> {
        Self::at(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace that this file refers to, such as `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn at(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::Open)?;
        let inode = file.metadata().map_err(Error::Open)?.ino();
        Ok(Self { file: Arc::new(file), inode })
    }

    /// Runs `work` inside the namespace: whatever it opens (sockets, files below /proc/sys/net)
    /// belongs there. The calling thread is in the namespace for that long, and no other is. It must
    /// not start threads, which would stay there.
    ///
    /// # Errors
    /// [`Error::Open`] or [`Error::Enter`].
    ///
    /// # Panics
    /// If `work` panics. A thread that cannot go back to its own namespace ends the process: nothing
    /// that runs on it later would be where it belongs.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> Result<T, Error> {
        if self.inode == current()?.inode {
            // Nobody needs a privilege to stay.
            return Ok(work());
        }
        let back = Back::here()?;
        enter(self)?;
        INSIDE.set(Some(self.clone()));
        let done = work();
        drop(back);
        Ok(done)
    }

    /// The inode number, which tells namespaces apart.
    pub fn inode(&self) -> u64 {
        self.inode
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

fn enter(namespace: &Namespace) -> Result<(), Error> {
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Enter(errno.into()))
}

thread_local! {
    /// The namespace that [`Namespace::run`] has taken this thread to.
    static INSIDE: RefCell<Option<Namespace>> = const { RefCell::new(None) };
}

/// Takes the thread back to where it was.
struct Back {
    outer: Option<Namespace>,
    home: Namespace,
}

impl Back {
    /// To the namespace that the thread is in now.
    fn here() -> Result<Self, Error> {
        Ok(Self { outer: INSIDE.with_borrow(Clone::clone), home: current()? })
    }
}

/// The namespace that the thread is in: this process's own, but inside `run`.
fn current() -> Result<Namespace, Error> {
    static HOME: OnceLock<Namespace> = OnceLock::new();
    match (INSIDE.with_borrow(Clone::clone), HOME.get()) {
        (Some(namespace), _) => Ok(namespace),
        (None, Some(namespace)) => Ok(namespace.clone()),
        (None, None) => {
            let here = Namespace::of_this_thread()?;
            Ok(HOME.get_or_init(|| here).clone())
        }
    }
}

impl Drop for Back {
    fn drop(&mut self) {
        INSIDE.set(self.outer.take());
        if enter(&self.home).is_err() {
            std::process::abort();
        }
    }
}
