//! What host and guest have in common: a tmpfs.

use super::Error;
use rustix::fs::{Mode, OFlags, fchmod, openat};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A tmpfs that is attached nowhere on the host, and at the kernel's /dev/shm; the program in the
/// guest finds it at [`super::init::EXCHANGE`]. Whoever runs the guest can write it.
#[derive(Debug)]
pub struct Exchange {
    root: OwnedFd,
}

impl Exchange {
    /// A new one, empty. Takes the privilege to mount.
    ///
    /// # Errors
    /// [`Error::Sandbox`].
    pub fn create() -> Result<Self, Error> {
        let root = sandbox::private_tmpfs().map_err(Error::of("mounting a private tmpfs"))?;
        Ok(Self { root })
    }

    /// Writes a new file, which the guest can read and write.
    ///
    /// # Errors
    /// [`Error::Sandbox`].
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        self.file(name, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY)
            .and_then(|mut file| {
                fchmod(&file, Mode::from_raw_mode(0o666))?;
                file.write_all(content)
            })
            .map_err(Error::of(format!("writing {name}")))
    }

    /// Opens a file for reading and writing, at its beginning.
    ///
    /// # Errors
    /// [`Error::Sandbox`].
    pub fn open(&self, name: &str) -> Result<File, Error> {
        self.file(name, OFlags::RDWR).map_err(Error::of(format!("opening {name}")))
    }

    /// The exit code that the program has left, if it has.
    pub(super) fn status(&self) -> Option<u8> {
        let mut text = String::new();
        self.file(super::init::STATUS, OFlags::RDONLY).ok()?.read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    }

    /// Links are the guest's doing, and not followed.
    fn file(&self, name: &str, flags: OFlags) -> std::io::Result<File> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(File::from(openat(&self.root, name, flags, Mode::from_raw_mode(0o666))?))
    }
}

impl AsFd for Exchange {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}
