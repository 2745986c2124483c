//! The one place that writes files.

use anyhow::{Context, Result};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The directory that results go to.
#[derive(Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    /// Directories that were made for it, the outermost first.
    made: Vec<PathBuf>,
}

/// Under sudo: becomes the user who called it, for good, if `directory` is in that user's tree.
/// The privileges are the laboratory's processes', which are started by then.
pub(crate) fn become_the_caller(directory: &Path) -> Result<()> {
    let id = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let (Some(uid), Some(gid)) = (id("SUDO_UID"), id("SUDO_GID")) else { return Ok(()) };
    let owner = fs::metadata(nearest_existing(directory)).map(|standing| standing.uid());
    if !nix::unistd::geteuid().is_root() || owner.ok() != Some(uid) {
        return Ok(());
    }
    let operation = "writing results as the user who called sudo";
    setgroups(&[Gid::from_raw(gid)]).context(operation)?;
    setgid(Gid::from_raw(gid)).context(operation)?;
    setuid(Uid::from_raw(uid)).context(operation)
}

impl Store {
    /// Makes `directory` where it is missing, and tries whether files can be written in it, before
    /// anything else is done.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        anyhow::ensure!(
            !directory.is_file(),
            "the output directory {} is a file, not a directory",
            directory.display()
        );
        let made = missing(directory);
        let store = Self { directory: directory.to_owned(), made };
        let written = fs::create_dir_all(directory)
            .and_then(|()| tempfile::tempfile_in(directory))
            // As much as a trial writes: a full disk shows now, not after the trial.
            .and_then(|mut file| file.write_all(&vec![0; 256 * 1024]));
        match written {
            Ok(()) => Ok(store),
            Err(error) => Err(error).with_context(|| {
                format!("writing to the output directory {}", directory.display())
            }),
        }
    }

    /// A fresh directory of this name inside, as a place for results of its own.
    pub(crate) fn fresh_inside(&self, name: &str) -> Result<Self> {
        let (directory, _) = self.fresh(name, 1)?;
        Ok(Self { made: vec![directory.clone()], directory })
    }

    /// The directory of this name inside, whatever it holds already.
    pub(crate) fn inside(&self, name: &str) -> Result<Self> {
        Self::open(&self.directory.join(name))
    }

    /// Where it is.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes files that belong together into the directory itself.
    pub(crate) fn write_files(&self, files: &[(impl AsRef<Path>, Vec<u8>)]) -> Result<()> {
        for (file, content) in files {
            let path = self.directory.join(file);
            fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    /// A fresh directory of this name inside, with this number or the next that is free; and the
    /// number.
    pub(crate) fn fresh(&self, of: &str, number: usize) -> Result<(PathBuf, usize)> {
        for number in number.max(1).. {
            let path = self.directory.join(name(of, number));
            match fs::create_dir(&path) {
                Ok(()) => return Ok((path, number)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("making {}", path.display()));
                }
            }
        }
        unreachable!("there are more numbers than directories")
    }

    /// How many directories of this name are there, numbered without a gap.
    pub(crate) fn taken(&self, of: &str) -> usize {
        let mut count = 0;
        while self.directory.join(name(of, count + 1)).exists() {
            count += 1;
        }
        count
    }
}

/// A directory's name: the first of a name bears no number.
pub(crate) fn name(of: &str, number: usize) -> String {
    if number == 1 { of.to_owned() } else { format!("{of}-{number}") }
}

/// Writes a file into a directory piece by piece.
pub(crate) fn write_by(
    directory: &Path,
    file: &str,
    write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let path = directory.join(file);
    fs::File::create(&path)
        .map(io::BufWriter::new)
        .and_then(|mut output| write(&mut output).and_then(|()| output.flush()))
        .with_context(|| format!("writing {}", path.display()))
}

/// Writes files that belong together into a fresh directory. All of them, or none.
pub(crate) fn fill(directory: &Path, files: &[(&str, Vec<u8>)]) -> Result<()> {
    for (file, content) in files {
        let path = directory.join(file);
        if let Err(error) = fs::write(&path, content) {
            // What cannot be kept whole is not kept.
            let _ = fs::remove_dir_all(directory);
            return Err(error).with_context(|| format!("writing {}", path.display()));
        }
    }
    Ok(())
}

impl Drop for Store {
    /// Directories that were made, and that nothing was put into, go again.
    fn drop(&mut self) {
        for directory in self.made.iter().rev() {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// The path itself if it exists, or the nearest directory above it that does.
fn nearest_existing(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/")).to_owned()
}

/// The directories of the path that do not exist, the outermost first.
fn missing(path: &Path) -> Vec<PathBuf> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut missing: Vec<_> = absolute
        .ancestors()
        .take_while(|ancestor| !ancestor.exists())
        .map(Path::to_owned)
        .collect();
    missing.reverse();
    missing
}
