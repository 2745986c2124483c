//! The one place that writes files.

use anyhow::{Context, Result, ensure};
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, Gid, Uid, access, setgid, setgroups, setuid};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The directory that results go to.
#[derive(Debug)]
pub(crate) struct Store {
    directory: PathBuf,
}

impl Store {
    /// Looks whether results can be written to `directory`, before anything is done. Makes
    /// nothing.
    pub(crate) fn check(directory: &Path) -> Result<Self> {
        let standing = nearest_existing(directory);
        let place = || format!("the output directory {}", directory.display());
        ensure!(standing.is_dir(), "{}: {} is not a directory", place(), standing.display());
        access(&standing, AccessFlags::W_OK | AccessFlags::X_OK).with_context(|| {
            format!("{}: no file can be made in {}", place(), standing.display())
        })?;
        let space = statvfs(&standing).with_context(place)?;
        ensure!(
            space.blocks_available() > 0 || space.blocks() == 0,
            "{}: the file system of {} is full",
            place(),
            standing.display()
        );
        Ok(Self { directory: directory.to_owned() })
    }

    /// Under sudo: becomes the user who called it, for good, if the results go into that user's
    /// tree. The privileges are needed by the laboratory's processes, which are started by then.
    pub(crate) fn become_the_caller(&self) -> Result<()> {
        let id = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
        let (Some(uid), Some(gid)) = (id("SUDO_UID"), id("SUDO_GID")) else { return Ok(()) };
        let owner = fs::metadata(nearest_existing(&self.directory)).map(|standing| standing.uid());
        if !nix::unistd::geteuid().is_root() || owner.ok() != Some(uid) {
            return Ok(());
        }
        let operation = "writing results as the user who called sudo";
        setgroups(&[Gid::from_raw(gid)]).context(operation)?;
        setgid(Gid::from_raw(gid)).context(operation)?;
        setuid(Uid::from_raw(uid)).context(operation)
    }

    /// Writes a trial's files into a directory of its own, named after the experiment, with a
    /// number where that name is taken. All of them, or none.
    pub(crate) fn write_trial(&self, name: &str, files: &[(&str, Vec<u8>)]) -> Result<PathBuf> {
        fs::create_dir_all(&self.directory)
            .with_context(|| format!("making the output directory {}", self.directory.display()))?;
        let directory = self.fresh(name)?;
        for (file, content) in files {
            let path = directory.join(file);
            if let Err(error) = fs::write(&path, content) {
                // What cannot be kept whole is not kept.
                let _ = fs::remove_dir_all(&directory);
                return Err(error).with_context(|| format!("writing {}", path.display()));
            }
        }
        Ok(directory)
    }

    /// Writes one file of the whole run beside the trials.
    pub(crate) fn write_file(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.directory.join(name);
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    fn fresh(&self, name: &str) -> Result<PathBuf> {
        for number in 1_u32.. {
            let path = match number {
                1 => self.directory.join(name),
                _ => self.directory.join(format!("{name}-{number}")),
            };
            match fs::create_dir(&path) {
                Ok(()) => return Ok(path),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("making {}", path.display()));
                }
            }
        }
        unreachable!("four thousand million directories of one name")
    }
}

/// The path itself if it exists, or the nearest directory above it that does.
fn nearest_existing(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/")).to_owned()
}
