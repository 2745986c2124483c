//! What the worker and a keeper tell one another: JSON documents, one a line.

use crate::Error;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// What a keeper is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeeperOrder {
    /// Send a signal to every process of the program, at once (`kill(-1)`). It is answered with
    /// [`Word::Done`]; SIGKILL when all of them have ended.
    SignalAll(i32),
    /// Send a signal to the process that was started, and to none of its children. It is answered
    /// likewise.
    SignalMain(i32),
}

/// What a keeper says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// The program runs. Both are numbers in the worker's PID namespace.
    Started {
        /// The process that was started.
        main: u32,
        /// The process from which all of the program's descend: its keeper, or itself.
        root: u32,
    },
    /// The program could not be started: the step that failed, and the error number.
    Failed(String, i32),
    /// The process that was started has ended.
    Ended {
        /// Its exit code.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
        /// The most memory that any of the program's processes had, in KiB; 0 if it is alone.
        peak_rss_kib: u64,
    },
    /// The last order has been carried out.
    Done,
}

impl Word {
    /// A failure as an error.
    ///
    /// # Errors
    /// [`Word::Failed`].
    pub fn checked(self) -> Result<Self, Error> {
        match self {
            Self::Failed(operation, errno) => {
                Err(Error { operation, source: io::Error::from_raw_os_error(errno) })
            }
            word => Ok(word),
        }
    }
}

/// The worker's end of a keeper's control. Closing it ends the program, all of it.
#[derive(Debug)]
pub struct KeeperControl {
    stream: BufReader<UnixStream>,
}

impl KeeperControl {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    /// The next word; `None` when the keeper has ended, and with it every process of the program.
    ///
    /// # Errors
    /// What reading from a socket fails with; `InvalidData`.
    pub fn word(&mut self) -> io::Result<Option<Word>> {
        read_line(&mut self.stream)
    }

    /// Gives an order.
    ///
    /// # Errors
    /// `BrokenPipe` if the program has ended.
    pub fn order(&mut self, order: KeeperOrder) -> io::Result<()> {
        write_line(self.stream.get_mut(), &order)
    }

    /// The socket, for those who wait without blocking. Nothing has been read from it before the
    /// first [`KeeperControl::word`].
    pub fn into_stream(self) -> UnixStream {
        self.stream.into_inner()
    }
}

impl AsFd for KeeperControl {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.get_ref().as_fd()
    }
}

/// For how long a process has waited for a processor so far, nanoseconds (`run_delay`,
/// kernel/sched/stats.h). `None` if there is no such process, or this kernel does not count.
pub fn waited_ns(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    // Processor time comes first: without it no process can end.
    let ran = numbers.next()?.ok()?;
    numbers.next()?.ok().filter(|_| ran > 0)
}

pub(crate) fn read_line<T: for<'a> Deserialize<'a>>(
    reader: &mut impl BufRead,
) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    match reader.read_until(b'\n', &mut line) {
        // The keeper has ended with orders unread.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        Err(error) => Err(error),
        Ok(_) if !line.ends_with(b"\n") => Ok(None),
        Ok(_) => Ok(Some(serde_json::from_slice(&line)?)),
    }
}

pub(crate) fn write_line(mut writer: impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    writer.write_all(&line)
}
