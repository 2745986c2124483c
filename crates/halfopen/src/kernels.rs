//! The kernels of virtual time that this machine has.

use anyhow::{Result, bail};
use lab::guest::built_kernel;
use nix::unistd::{Uid, User};
use report::Clock;
use std::path::{Path, PathBuf};

/// Timer interrupts a second of the kernels that `just kernel` builds.
pub(crate) const HZ: [u32; 4] = [100, 250, 300, 1000];
/// What most distributions have, and what is taken unless something else is asked for.
pub(crate) const HZ_DEFAULT: u32 = 250;
/// The virtual kernel with this HZ, if it was built, or the one of unknown HZ that the environment
/// names, which comes before any other.
///
/// # Errors
/// What to do to have one.
pub(crate) fn find(hz: u32) -> Result<PathBuf, String> {
    if let Some(path) = ready() {
        let problem = format!("HALFOPEN_UML is {}, which is not a file", path.display());
        return if path.is_file() { Ok(path) } else { Err(problem) };
    }
    let candidates: Vec<PathBuf> =
        cache_homes().iter().map(|cache| built_kernel(cache, hz)).collect();
    candidates.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
        let looked: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
        format!(
            "there is no virtual kernel with HZ {hz} ({}): build it with `{}`, or name one in \
             HALFOPEN_UML",
            looked.join(", "),
            how_to_build(hz)
        )
    })
}

/// The HZ of a batch: what was asked for, or the usual one.
///
/// # Errors
/// For a person: on the real clock nothing can, and the environment may have named a kernel.
pub(crate) fn chosen_hz(asked: Option<u32>, clock: Clock) -> Result<u32> {
    if asked.is_some() && clock == Clock::Real {
        bail!(
            "--hz needs --clock virtual: a kernel's HZ is decided when it is built \
             (`halfopen predict --hz` says what another one would do)"
        );
    }
    if asked.is_some() && ready().is_some() {
        bail!(
            "--hz chooses between the kernels that `just kernel` builds, and HALFOPEN_UML names one \
             already: leave one of the two out"
        );
    }
    Ok(asked.unwrap_or(HZ_DEFAULT))
}

/// The kernel that the environment names.
pub(crate) fn ready() -> Option<PathBuf> {
    std::env::var_os("HALFOPEN_UML").map(PathBuf::from)
}

/// The command that builds a kernel.
pub(crate) fn how_to_build(hz: u32) -> String {
    if hz == HZ_DEFAULT { "just kernel".into() } else { format!("just kernel --hz {hz}") }
}

/// Where users keep what can be built again: this user's, and under sudo the caller's.
fn cache_homes() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let caller = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok());
    let caller = caller.and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok().flatten());
    [
        variable("XDG_CACHE_HOME").map(PathBuf::from),
        variable("HOME").map(|home| Path::new(&home).join(".cache")),
        caller.map(|user| user.dir.join(".cache")),
    ]
    .into_iter()
    .flatten()
    .collect()
}
