//! Laboratories that have been started while there were privileges, and the place for results,
//! opened without them.

use crate::batch::Trials;
use crate::store::{self, Store};
use crate::supervisor;
use anyhow::Result;
use std::path::Path;
use std::process::Child;

/// What a command that runs trials works with.
pub(crate) struct Session {
    /// One for each batch. Trials on the real clock suffer from a busy machine, so they are to
    /// conduct one after the other.
    pub(crate) laboratories: Vec<Laboratory>,
    pub(crate) store: Store,
}

/// A started laboratory and the trials that it is to run.
pub(crate) struct Laboratory {
    pub(crate) trials: Trials,
    pub(crate) process: Child,
}

impl Laboratory {
    /// The same for one batch.
    pub(crate) fn open(trials: Trials, out: Option<&Path>) -> Result<(Self, Store)> {
        let Session { mut laboratories, store } = Session::open(vec![trials], out)?;
        Ok((laboratories.remove(0), store))
    }
}

impl Session {
    /// Starts a laboratory for each batch; then becomes the caller for good; then opens `out`, or
    /// nothing that is kept.
    ///
    /// Only in this order: a laboratory needs privileges that nothing after it must have, and
    /// starts before any thread, since it ends with the one that started it.
    pub(crate) fn open(batches: Vec<Trials>, out: Option<&Path>) -> Result<Self> {
        let start = |trials| Ok(Laboratory { trials, process: supervisor::start()? });
        let laboratories = batches.into_iter().map(start).collect::<Result<_>>()?;
        store::become_the_caller()?;
        Ok(Self { laboratories, store: out.map_or_else(Store::unkept, Store::open)? })
    }
}
