//! Trials that have ended: a line for each in a file without a name; memory holds only where each
//! line begins.

use anyhow::{Context, Result};
use report::{Digest, Groups};
use spec::Experiment;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;

/// The trials of a run that have ended.
pub(crate) struct Ledger {
    /// By experiment and settings.
    pub(crate) groups: Groups,
    file: File,
    end: u64,
    lines: Vec<Line>,
    /// Those whose line could not be written.
    kept: BTreeMap<usize, Digest>,
}

/// Where a trial's line begins; `None`: it is kept in memory.
#[derive(Debug, Clone, Copy)]
struct Line {
    position: usize,
    group: usize,
    begins: Option<u64>,
}

impl Ledger {
    /// An empty one, on the file system of `directory`.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(directory)
            .with_context(|| format!("making a temporary file in {}", directory.display()))?;
        Ok(Self {
            groups: Groups::default(),
            file,
            end: 0,
            lines: Vec::new(),
            kept: BTreeMap::new(),
        })
    }

    /// Adds a trial of this experiment. It is there even if the line cannot be written.
    ///
    /// # Errors
    /// Why the line cannot be written.
    pub(crate) fn add(&mut self, experiment: &Experiment, digest: Digest) -> Result<()> {
        let group = self.groups.add(experiment, &digest);
        let position = digest.position;
        let written = self.write(&digest);
        let begins = written.as_ref().ok().copied();
        if begins.is_none() {
            self.kept.insert(position, digest);
        }
        self.lines.push(Line { position, group, begins });
        written.map(|_| ()).context("writing a line about a trial")
    }

    fn write(&mut self, digest: &Digest) -> io::Result<u64> {
        let mut line = serde_json::to_vec(digest)?;
        line.push(b'\n');
        let begins = self.end;
        // What a line before it left half-written is written over.
        self.file.seek(SeekFrom::Start(begins))?;
        self.file.write_all(&line)?;
        self.end += line.len() as u64;
        Ok(begins)
    }

    /// Each trial, in the order of positions, read one by one.
    pub(crate) fn digests(&self) -> impl Iterator<Item = io::Result<Digest>> + '_ {
        self.read(self.lines.clone())
    }

    /// The trials of one group, in the order of positions.
    pub(crate) fn of_group(&self, group: usize) -> impl Iterator<Item = io::Result<Digest>> + '_ {
        self.read(self.lines.iter().filter(|line| line.group == group).copied().collect())
    }

    fn read(&self, mut lines: Vec<Line>) -> impl Iterator<Item = io::Result<Digest>> + '_ {
        lines.sort_by_key(|line| line.position);
        lines.into_iter().map(|line| {
            if let Some(begins) = line.begins {
                return self.read_at(begins);
            }
            let kept = self.kept.get(&line.position);
            Ok(kept.expect("what is not in the file is in memory").clone())
        })
    }

    fn read_at(&self, begins: u64) -> io::Result<Digest> {
        let mut file = BufReader::with_capacity(16 * 1024, &self.file);
        file.seek(SeekFrom::Start(begins))?;
        let mut line = String::new();
        file.read_line(&mut line)?;
        serde_json::from_str(&line).map_err(io::Error::from)
    }
}
