//! The kernels of virtual time that this machine has.

use crate::output::{self, Exit};
use anyhow::{Context, Result, bail};
use lab::guest::built_kernel;
use nix::unistd::{Uid, User};
use report::Clock;
use spec::VirtualKernel;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What most distributions have, and what is taken unless something else is asked for.
pub(crate) const HZ_DEFAULT: u32 = 250;

/// A virtual kernel, if it was built, or the one of unknown version and HZ that the environment names,
/// which comes before any other.
///
/// # Errors
/// What to do to have one.
pub(crate) fn find(wanted: &VirtualKernel) -> Result<PathBuf, String> {
    if let Some(path) = ready() {
        return match path.metadata() {
            Ok(found) if found.is_file() => Ok(path),
            Ok(_) => Err(format!("HALFOPEN_UML is {}, which is not a file", path.display())),
            Err(why) => Err(format!("HALFOPEN_UML is {}: {why}", path.display())),
        };
    }
    let hz = wanted.hz.unwrap_or(HZ_DEFAULT);
    let version = wanted.version.as_deref();
    let candidates: Vec<PathBuf> =
        cache_homes().iter().map(|cache| built_kernel(cache, version, hz)).collect();
    candidates.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
        let mut looked: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
        if looked.is_empty() {
            looked.push("neither XDG_CACHE_HOME nor HOME is set".into());
        }
        let of = version.map_or_else(String::new, |version| format!(" {version}"));
        format!(
            "there is no virtual kernel{of} with HZ {hz} ({}): build it with `{}`, or name one in \
             HALFOPEN_UML",
            looked.join(", "),
            how_to_build(wanted)
        )
    })
}

/// Whether a kernel can be chosen.
///
/// # Errors
/// For a person: on the real clock none can, and the environment may have named one.
pub(crate) fn check(clock: Clock, wanted: &VirtualKernel) -> Result<()> {
    if *wanted == VirtualKernel::default() {
        return Ok(());
    }
    if clock == Clock::Real {
        bail!(
            "--kernel and --hz need --clock virtual: they choose between kernels that were built \
             (`halfopen predict --hz` says what another HZ would do)"
        );
    }
    if ready().is_some() {
        bail!(
            "--kernel and --hz choose between the kernels that `halfopen kernel build` builds, and HALFOPEN_UML \
             names one already: leave one of the two out"
        );
    }
    Ok(())
}

/// The versions, such as `6.12`, of the kernels that were built, each with its HZ.
pub(crate) fn built() -> BTreeMap<String, BTreeSet<u32>> {
    let mut all = BTreeMap::<_, BTreeSet<_>>::new();
    for directory in cache_homes()
        .iter()
        .filter_map(|cache| built_kernel(cache, None, HZ_DEFAULT).parent().map(Path::to_owned))
    {
        for file in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            let parts = name.strip_prefix("linux-").and_then(|rest| rest.split_once("-hz"));
            if let Some((version, hz)) = parts
                && let Ok(hz) = hz.parse()
                && file.path().is_file()
            {
                all.entry(version.to_owned()).or_default().insert(hz);
            }
        }
    }
    all
}

/// A kernel with this HZ, of the version that was built last.
pub(crate) fn with_hz(hz: u32) -> VirtualKernel {
    VirtualKernel { hz: Some(hz), version: None }
}

/// The kernel that the environment names.
pub(crate) fn ready() -> Option<PathBuf> {
    std::env::var_os("HALFOPEN_UML").map(PathBuf::from)
}

/// The command that builds a kernel.
pub(crate) fn how_to_build(wanted: &VirtualKernel) -> String {
    let version = wanted.version.iter().map(|version| format!(" --kernel {version}"));
    let hz = wanted.hz.filter(|hz| *hz != HZ_DEFAULT).map(|hz| format!(" --hz {hz}"));
    version.chain(hz).fold("halfopen kernel build".into(), |command, argument| command + &argument)
}

/// What builds a virtual kernel, in one directory.
const BUILDER: [(&str, &str); 2] = [
    ("build-uml.sh", include_str!("../../../scripts/build-uml.sh")),
    ("uml.config", include_str!("../../../scripts/uml.config")),
];

/// `halfopen kernel build`: what it is built by is in this executable.
pub(crate) fn build(arguments: &[OsString]) -> Exit {
    match run_builder(arguments) {
        Ok(true) => Exit::AGREES,
        Ok(false) => Exit::SKIPPED,
        Err(error) => output::fail(Exit::INTERNAL, &error),
    }
}

/// Whether it was built; the script says why not.
fn run_builder(arguments: &[OsString]) -> Result<bool> {
    let directory = tempfile::tempdir().context("creating a directory for the build's script")?;
    for (name, text) in BUILDER {
        let path = directory.path().join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    let script = directory.path().join(BUILDER[0].0);
    let mut bash = std::process::Command::new("bash");
    bash.env("CALLED_AS", "halfopen kernel build").arg(script).args(arguments);
    Ok(bash.status().context("starting bash")?.success())
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
