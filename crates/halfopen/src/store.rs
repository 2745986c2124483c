//! The one place that writes files.

use anyhow::{Context, Result};
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use sandbox::Identity;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The directory that results go to.
#[derive(Debug)]
pub(crate) struct Store {
    directory: Directory,
    /// Directories that were made for it, the outermost first.
    made: Vec<PathBuf>,
    /// Whether trials leave files.
    keeps: bool,
}

/// Under sudo: becomes the user who called it, for good. Whatever is written is written with that
/// user's rights; the privileges are the laboratory's processes', which are started by then.
pub(crate) fn become_the_caller() -> Result<()> {
    match Identity::under_sudo() {
        Some(caller) => caller.assume().context("writing results as the user who called sudo"),
        None => Ok(()),
    }
}

impl Store {
    /// Makes `directory` where it is missing, and tries whether files can be written in it, before
    /// anything else is done. The path may lead over links; below it none is followed.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        anyhow::ensure!(
            !directory.is_file(),
            "the output directory {} is a file, not a directory",
            directory.display()
        );
        let made = missing(directory);
        let opened = fs::create_dir_all(directory)
            .and_then(|()| tempfile::tempfile_in(directory))
            // As much as a trial writes: a full disk shows now, not after the trial.
            .and_then(|mut file| file.write_all(&vec![0; 256 * 1024]))
            .and_then(|()| Directory::open(directory));
        let operation = || {
            let directory = directory.display();
            format!("writing to the output directory {directory} (--out chooses another)")
        };
        Ok(Self { directory: opened.with_context(operation)?, made, keeps: true })
    }

    /// No place for results: only for what is needed while trials run, in files without names.
    pub(crate) fn unkept() -> Result<Self> {
        let mut store = Self::open(&std::env::temp_dir())?;
        store.keeps = false;
        Ok(store)
    }

    /// Whether trials leave files.
    pub(crate) fn keeps(&self) -> bool {
        self.keeps
    }

    /// A fresh directory of this name inside, as a place for results of its own.
    pub(crate) fn fresh_inside(&self, name: &str) -> Result<Self> {
        let (directory, _) = self.fresh(name, 1)?;
        Ok(Self { made: vec![directory.path.clone()], directory, keeps: true })
    }

    /// The directory of this name inside, whatever it holds already.
    pub(crate) fn inside(&self, name: &str) -> Result<Self> {
        let path = self.directory.path.join(name);
        let made = if path.exists() { Vec::new() } else { vec![path.clone()] };
        let directory = match self.directory.make(name) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => self.directory.enter(name),
            made => made,
        };
        let directory = directory.with_context(|| format!("opening {}", path.display()))?;
        Ok(Self { directory, made, keeps: true })
    }

    /// Where it is.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory.path
    }

    /// Writes files that belong together into the directory itself.
    pub(crate) fn write_files(&self, files: &[(impl AsRef<Path>, Vec<u8>)]) -> Result<()> {
        for (file, content) in files {
            let file = file.as_ref();
            self.directory
                .write(file, content)
                .with_context(|| format!("writing {}", self.directory.path.join(file).display()))?;
        }
        Ok(())
    }

    /// A fresh directory of this name inside, with this number or the next that is free; and the
    /// number.
    pub(crate) fn fresh(&self, of: &str, number: usize) -> Result<(Directory, usize)> {
        for number in number.max(1).. {
            let name = name(of, number);
            match self.directory.make(&name) {
                Ok(made) => return Ok((made, number)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => {
                    let path = self.directory.path.join(name);
                    return Err(error).with_context(|| format!("making {}", path.display()));
                }
            }
        }
        unreachable!("there are more numbers than directories")
    }

    /// How many directories of this name are there, numbered without a gap.
    pub(crate) fn taken(&self, of: &str) -> usize {
        let mut count = 0;
        while self.keeps && self.directory.path.join(name(of, count + 1)).exists() {
            count += 1;
        }
        count
    }
}

/// An open directory. Files are written where it was when it was opened, even if another process
/// renames or replaces what its path leads over, and through no link in it.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    descriptor: OwnedFd,
}

impl Directory {
    /// Opens the directory at a path, which may lead over links.
    fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let descriptor = nix::fcntl::open(path, flags, Mode::empty())?;
        Ok(Self { path: path.to_owned(), descriptor })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory in it.
    fn make(&self, name: &str) -> io::Result<Self> {
        mkdirat(&self.descriptor, name, Mode::from_bits_truncate(0o777))?;
        self.enter(name)
    }

    /// Opens a directory in it.
    fn enter(&self, name: &str) -> io::Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let descriptor = openat(&self.descriptor, name, flags, Mode::empty())?;
        Ok(Self { path: self.path.join(name), descriptor })
    }

    /// Opens a file in it for writing, empty.
    fn file(&self, name: &Path) -> io::Result<fs::File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC;
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o666);
        Ok(openat(&self.descriptor, name, flags, mode)?.into())
    }

    /// Writes a file that is whole as soon as it is there: a run may be killed at any moment.
    fn write(&self, name: &Path, content: &[u8]) -> io::Result<()> {
        let mut half = name.as_os_str().to_owned();
        half.push(".half");
        let half = Path::new(&half);
        let written = self.file(half).and_then(|mut file| {
            file.write_all(content)?;
            Ok(renameat(&self.descriptor, half, &self.descriptor, name)?)
        });
        if written.is_err() {
            let _ = unlinkat(&self.descriptor, half, UnlinkatFlags::NoRemoveDir);
        }
        written
    }

    /// Writes a file piece by piece.
    pub(crate) fn write_by(
        &self,
        file: &str,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> Result<()> {
        self.file(Path::new(file))
            .map(io::BufWriter::new)
            .and_then(|mut output| write(&mut output).and_then(|()| output.flush()))
            .with_context(|| format!("writing {}", self.path.join(file).display()))
    }

    /// Writes files that belong together into this fresh directory. All of them, or none.
    pub(crate) fn fill(&self, files: &[(&str, Vec<u8>)]) -> Result<()> {
        for (file, content) in files {
            if let Err(error) = self.write(Path::new(file), content) {
                // What cannot be kept whole is not kept.
                for (file, _) in files {
                    let _ = unlinkat(&self.descriptor, *file, UnlinkatFlags::NoRemoveDir);
                }
                let _ = fs::remove_dir(&self.path);
                let path = self.path.join(file);
                return Err(error).with_context(|| format!("writing {}", path.display()));
            }
        }
        Ok(())
    }
}

/// A directory's name: the first of a name bears no number.
pub(crate) fn name(of: &str, number: usize) -> String {
    if number == 1 { of.to_owned() } else { format!("{of}-{number}") }
}

impl Drop for Store {
    /// Directories that were made, and that nothing was put into, go again.
    fn drop(&mut self) {
        for directory in self.made.iter().rev() {
            let _ = fs::remove_dir(directory);
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_path_may_be_a_link_and_nothing_below_it_is_followed() {
        let place = tempfile::tempdir().unwrap();
        let (real, link) = (place.path().join("real"), place.path().join("link"));
        let victim = place.path().join("victim");
        fs::create_dir(&real).unwrap();
        fs::create_dir(&victim).unwrap();
        symlink(&real, &link).unwrap();
        let store = Store::open(&link).unwrap();
        store.write_files(&[("plain", b"x".to_vec())]).unwrap();
        assert_eq!(fs::read(real.join("plain")).unwrap(), b"x");

        fs::write(victim.join("file"), "untouched").unwrap();
        symlink(victim.join("file"), real.join("file")).unwrap();
        symlink(&victim, real.join("inside")).unwrap();
        store.write_files(&[("file", b"x".to_vec())]).unwrap();
        let written = fs::symlink_metadata(real.join("file")).unwrap();
        assert!(written.is_file(), "the link gives way, and what it led to stays as it is");
        assert!(store.inside("inside").is_err());
        let (fresh, number) = store.fresh("inside", 1).unwrap();
        assert_eq!(number, 2, "the first name is taken by a link");

        // Somebody puts a link in the place of a directory that was just made.
        fs::rename(fresh.path(), place.path().join("moved")).unwrap();
        symlink(&victim, fresh.path()).unwrap();
        fresh.fill(&[("file", b"x".to_vec())]).unwrap();
        assert_eq!(fs::read(place.path().join("moved/file")).unwrap(), b"x");
        assert_eq!(fs::read(victim.join("file")).unwrap(), b"untouched");
    }
}
