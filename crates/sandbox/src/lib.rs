//! Runs a program without privileges, in a PID namespace and a mount namespace of its own.
//!
//! ```text
//! worker          has the privileges; holds the Launcher
//! └─ launcher     one process of one thread: its mounts are those that every program starts with
//!    ├─ keeper    process 1 of the program's PID namespace: reaps, signals, ends with the worker
//!    │  └─ program
//!    └─ program   one that is alone ([`Launcher::launch_alone`]): process 1 itself
//! ```
//!
//! # What holds for a program
//!
//! - It has the caller's identity ([`Identity`]), no capability in any set, and `no_new_privs`:
//!   a set-user-ID executable gives it nothing.
//! - It has its standard streams, and no other descriptor.
//! - It sees the processes of its own PID namespace only.
//! - /proc/sys, what else in /proc user 0 could write to, and /sys are read-only; /dev is one of its
//!   own without any disk; no other file system honours device nodes or set-user-ID bits.
//! - Other files it sees as the caller does, unless they are all made read-only
//!   ([`Launch::read_only`]) or lie under a layer ([`Launch::layer`]).
//! - When the keeper ends, the kernel kills every process of the namespace. The keeper ends when the
//!   other end of its [`KeeperControl`] closes.
//! - One that is alone sees no file at all: its root directory is empty and read-only. It has no
//!   keeper, and is killed when the other end of its [`KeeperControl`] closes.
//!
//! The keeper itself has no more privileges than the program by the time that the program starts,
//! and cannot be traced by it.

mod alone;
mod control;
mod identity;
mod keeper;
mod launcher;
mod mounts;

pub use control::{KeeperControl, KeeperOrder, Word, waited_ns};
pub use identity::Identity;
pub use launcher::{Launcher, Own, Stdio, serve};
pub use mounts::{private_tmpfs, read_only_copy};

use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

/// What to run, and how.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Launch {
    /// The command; `None` for the launcher's own function (see [`serve`]), which costs a fork only.
    pub command: Option<Execve>,
    /// Whose rights it has; `None`: those of the caller that the launcher serves.
    pub identity: Option<Identity>,
    /// Every file system is read-only but /dev/shm.
    pub read_only: bool,
    /// What is written goes to a layer over the root's file system, which ends with the program. Only
    /// where this process is root of a machine of its own (the virtual kernel).
    pub layer: bool,
    /// Files that the program sees instead of those at these paths, where there are such, with their
    /// text. They are read-only.
    pub files: Vec<(PathBuf, String)>,
    /// The one processor to run on.
    pub processor: Option<usize>,
    /// The same addresses in every run (`ADDR_NO_RANDOMIZE`).
    pub fixed_addresses: bool,
}

/// A command with everything that `execve` takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Execve {
    /// The executable: a path, or a name to be looked for in the environment's `PATH`.
    pub program: OsString,
    /// Its arguments, from `argv[0]` on.
    pub arguments: Vec<OsString>,
    /// Its whole environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Its working directory.
    pub directory: OsString,
}

/// A step of a launch that failed.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {source}")]
pub struct Error {
    /// What was being done, and to what.
    pub operation: String,
    /// What the system said.
    pub source: io::Error,
}

impl Error {
    /// For `map_err`.
    fn of<E: Into<io::Error>>(operation: impl Into<String>) -> impl FnOnce(E) -> Self {
        let operation = operation.into();
        move |source| Self { operation, source: source.into() }
    }
}
