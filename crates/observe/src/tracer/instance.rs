//! Tracepoints through a tracefs instance, which has buffers of its own. An instance outlives its
//! maker if that is killed: the next maker removes it, and so does the maker's supervisor.

use super::pages;
use super::tracepoints::Reader;
use crate::Error;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// More than any sub-buffer there is; one read gives one sub-buffer.
const PAGE_MAX: usize = 64 << 10;
/// For each processor.
const BUFFER_KB: usize = 4096;

/// An instance with buffers of its own, removed when dropped.
#[derive(Debug)]
pub(super) struct Instance {
    epoll: Epoll,
    pipes: Vec<File>,
    page: Vec<u8>,
    directory: Directory,
}

impl Instance {
    /// Makes an instance and switches the tracepoints on in it.
    pub(super) fn open(tracefs: &Path, readers: &[Reader]) -> Result<Self, Error> {
        const ATTEMPTS: usize = 10;
        remove_stale(tracefs);
        let mut attempts = 0;
        loop {
            attempts += 1;
            match Self::make(tracefs, readers) {
                // Another process took it for stale before its pipes were open: its files are gone
                // (ENOENT), or open no longer, although they still have names (ENODEV).
                Err(Error::System { source, .. })
                    if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
                        && attempts < ATTEMPTS => {}
                made => return made,
            }
        }
    }

    fn make(tracefs: &Path, readers: &[Reader]) -> Result<Self, Error> {
        let directory = Directory::create(tracefs)?;
        // An instance whose pipes are open cannot be removed: from now on it is not taken for
        // stale.
        let pipes = directory.pipes()?;
        directory.write("trace_clock", "mono")?;
        directory.write("buffer_size_kb", &BUFFER_KB.to_string())?;
        // Wake on the first record. Before Linux 5.0 there is no choice.
        let _ = directory.write("buffer_percent", "0");
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(|errno| Error::system("making an epoll descriptor", errno))?;
        for pipe in &pipes {
            epoll
                .add(pipe, EpollEvent::new(EpollFlags::EPOLLIN, 0))
                .map_err(|errno| Error::system("watching a trace pipe", errno))?;
        }
        for reader in readers {
            directory.write(&format!("events/{}/enable", reader.kind.path()), "1")?;
        }
        Ok(Self { epoll, pipes, page: vec![0; PAGE_MAX], directory })
    }

    /// From now on, only the timers with these functions.
    pub(super) fn restrict(&self, readers: &[Reader], functions: &[u64]) -> Result<(), Error> {
        let terms: Vec<_> =
            functions.iter().map(|address| format!("function == {address:#x}")).collect();
        for reader in readers.iter().filter(|reader| reader.has_function()) {
            let filter = format!("events/{}/filter", reader.kind.path());
            self.directory.write(&filter, &terms.join(" || "))?;
        }
        Ok(())
    }

    /// Hands over every record that is waiting with its time, processor by processor; returns how
    /// many were lost.
    pub(super) fn drain(&mut self, sink: &mut dyn FnMut(u64, &[u8])) -> Result<u64, Error> {
        let _ = self.epoll.wait(&mut [EpollEvent::empty(); 16], 0u8);
        let mut lost = 0;
        for pipe in &mut self.pipes {
            loop {
                match pipe.read(&mut self.page) {
                    Ok(0) => break,
                    Ok(len) => lost += pages::read(&self.page[..len], sink),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => {
                        let path = self.directory.path.display();
                        return Err(Error::system(format!("reading trace pipes of {path}"), error));
                    }
                }
            }
        }
        Ok(lost)
    }
}

impl AsFd for Instance {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

#[derive(Debug)]
struct Directory {
    path: PathBuf,
}

/// What the names of our instances begin with; the number of the maker's PID namespace follows, by
/// which a person can tell whose it is, and a number that makes it unique.
const PREFIX: &str = "halfopen-";

/// Removes every instance of ours that no process has open.
pub(super) fn remove_stale(tracefs: &Path) {
    let instances = fs::read_dir(tracefs.join("instances")).into_iter().flatten().flatten();
    for instance in instances {
        if instance.file_name().to_string_lossy().starts_with(PREFIX) {
            // EBUSY: it is in use.
            let _ = fs::remove_dir(instance.path());
        }
    }
}

impl Directory {
    /// Makes a directory with a name of its own.
    fn create(tracefs: &Path) -> Result<Self, Error> {
        let namespace = fs::metadata("/proc/self/ns/pid").map_or(0, |file| file.ino());
        for number in 0_u64.. {
            let path = tracefs.join(format!("instances/{PREFIX}{namespace}-{number}"));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    return Err(Error::TracingForbidden { source: error });
                }
                Err(error) => {
                    return Err(Error::system(format!("creating {}", path.display()), error));
                }
            }
        }
        unreachable!("there are more numbers than instances")
    }

    fn write(&self, file: &str, value: &str) -> Result<(), Error> {
        let path = self.path.join(file);
        fs::write(&path, value).map_err(|error| {
            Error::system(format!("writing `{value}` to {}", path.display()), error)
        })
    }

    fn pipes(&self) -> Result<Vec<File>, Error> {
        let failed =
            |error| Error::system(format!("opening pipes of {}", self.path.display()), error);
        let mut pipes = Vec::new();
        for processor in fs::read_dir(self.path.join("per_cpu")).map_err(failed)? {
            let path = processor.map_err(failed)?.path().join("trace_pipe_raw");
            let mut options = OpenOptions::new();
            pipes.push(
                options.read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?,
            );
        }
        Ok(pipes)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.path)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!("removing {}: {error}", self.path.display());
        }
    }
}
