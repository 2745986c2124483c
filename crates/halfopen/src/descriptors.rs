//! File descriptors: how many trials need, and how many there may be.

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// File descriptors a trial holds at its busiest (11 were counted of 60 trials on a switch; a router and
/// a relay take more), and what the worker needs for itself.
const A_TRIAL: u64 = 24;
const OF_OUR_OWN: u64 = 100;

/// How many trials at once a limit on file descriptors allows.
pub(crate) fn trials_within(limit: u64) -> u64 {
    limit.saturating_sub(OF_OUR_OWN) / A_TRIAL
}

/// In the worker: raises the soft limit to what so many trials at once need.
pub(crate) fn raise_for_trials(at_once: usize) -> Result<()> {
    raise(OF_OUR_OWN + A_TRIAL * at_once as u64)
        .with_context(|| format!("{at_once} trials at once: run fewer with --jobs"))
}

/// Where the addresses of trials are leased, a descriptor each: the same for so many at once.
pub(crate) fn raise_for_leases(at_once: usize) -> Result<()> {
    raise(OF_OUR_OWN + at_once as u64).with_context(|| {
        format!("{at_once} trials at once, each with a descriptor to keep its addresses")
    })
}

/// As many as there may be: what goes without is said where it is missing.
pub(crate) fn raise_as_far_as_may_be() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn raise(wanted: u64) -> Result<()> {
    let (soft, hard) =
        getrlimit(Resource::RLIMIT_NOFILE).context("reading the descriptor limit")?;
    if soft >= wanted {
        return Ok(());
    }
    anyhow::ensure!(
        hard >= wanted,
        "{wanted} file descriptors are needed, and this user may have {hard}: raise the limit \
         (ulimit -n {wanted})"
    );
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).context("raising the descriptor limit")
}
