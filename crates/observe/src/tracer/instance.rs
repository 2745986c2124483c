//! Tracepoints through a tracefs instance: for the virtual kernel, which has no perf events. An
//! instance outlives its maker if that is killed; inside the virtual kernel nothing does.

use super::pages;
use super::tracepoints::{Kind, Reader};
use crate::Error;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// More than any sub-buffer there is; one read gives one sub-buffer.
const PAGE_MAX: usize = 64 << 10;
const BUFFER_KB: usize = 1024;

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
        let directory = Directory::create(tracefs)?;
        directory.write("trace_clock", "mono")?;
        directory.write("buffer_size_kb", &BUFFER_KB.to_string())?;
        // Wake on the first record. Before Linux 5.0 there is no choice.
        let _ = directory.write("buffer_percent", "0");
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(|errno| Error::system("making an epoll descriptor", errno))?;
        let pipes = directory.pipes()?;
        for pipe in &pipes {
            epoll
                .add(pipe, EpollEvent::new(EpollFlags::EPOLLIN, 0))
                .map_err(|errno| Error::system("watching a trace pipe", errno))?;
        }
        // Cancelled timers have no function to filter by: the whole kernel's would be recorded, and
        // each wakes the reader. In virtual time that costs more than everything else together.
        for reader in readers.iter().filter(|reader| reader.kind != Kind::TimerCancel) {
            directory.write(&format!("events/{}/enable", reader.kind.path()), "1")?;
        }
        Ok(Self { epoll, pipes, page: vec![0; PAGE_MAX], directory })
    }

    /// From now on, only the timers with these functions.
    pub(super) fn restrict(&self, readers: &[Reader], functions: &[u64]) -> Result<(), Error> {
        let terms: Vec<_> =
            functions.iter().map(|address| format!("function == {address:#x}")).collect();
        for reader in readers.iter().filter(|reader| reader.function_offset().is_some()) {
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

impl Directory {
    fn create(tracefs: &Path) -> Result<Self, Error> {
        let path = tracefs.join(format!("instances/halfopen-{}", std::process::id()));
        fs::create_dir(&path)
            .map_err(|error| Error::system(format!("creating {}", path.display()), error))?;
        Ok(Self { path })
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
        if let Err(error) = fs::remove_dir(&self.path) {
            tracing::warn!("removing {}: {error}", self.path.display());
        }
    }
}
