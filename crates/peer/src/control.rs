//! What the laboratory tells a peer, and what a peer reports.

use crate::Error;
use serde::{Deserialize, Serialize};
use spec::{Addresses, CallName, Errno, Parameters};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use timeline::event::{Call, LATE_LEAST_NS};
use timeline::{Event, Source, What};

pub(crate) use netns::monotonic_ns as now_ns;

/// Which of the two a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Connects, and finds out.
    Client,
    /// Accepts, and answers until it is gone.
    Server,
}

/// The first line a peer reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    /// Which peer.
    pub role: Role,
    /// Both ends of the connection.
    pub addresses: Addresses,
    /// What the client does, how the server behaves.
    pub parameters: Parameters,
}

impl Config {
    /// Reads it from a JSON document.
    ///
    /// # Errors
    /// [`Error::Control`].
    pub fn read(json: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(json)
            .map_err(|error| Error::Control(format!("the configuration: {error}")))
    }
}

/// What the laboratory tells a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Instruction {
    /// To the server: stop reading, so that what comes next stays unread.
    StopReading,
    /// To the client: send 100 bytes that the server will not read.
    SendUnread,
    /// To the side that fills the other's window: write until nothing more is taken.
    FillWindow,
    /// To the client: the fault has been injected; begin the traffic.
    Begin,
    /// Close the connection and end.
    Finish,
}

/// What a peer reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Report {
    /// A system call, for the timeline.
    Event(Event),
    /// How far it is.
    Reached(Milestone),
}

/// How far a peer is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Milestone {
    /// The server accepts connections.
    Listening,
    /// The client has a socket, and will connect when it is told to begin.
    Ready,
    /// The connection is established.
    Connected,
    /// The RTO has settled after this many exchanges, and keepalive is on if it is wanted.
    Settled {
        /// How many exchanges it took.
        exchanges: u32,
        /// Whether the RTO was still moving at the last one.
        moving: bool,
    },
    /// The server no longer reads; the client's unread bytes are on their way.
    Unread,
    /// The send buffer takes nothing more.
    Filled,
    /// A process that holds the server's socket was started.
    Child,
    /// The client's program knows that the connection has ended.
    Ended,
    /// The connection is closed and the peer ends.
    Finished,
}

/// Standard input and output, and what has been read but not used.
pub(crate) struct Control {
    source: Source,
    pending: Vec<u8>,
    ended: bool,
    /// Nobody listens.
    mute: bool,
}

impl Control {
    pub(crate) fn from_stdio() -> Self {
        Self { source: Source::ClientProgram, pending: Vec::new(), ended: false, mute: false }
    }

    /// Of a program that reports nothing.
    pub(crate) fn mute() -> Self {
        Self { mute: true, ..Self::from_stdio() }
    }

    /// The configuration: the first line.
    pub(crate) fn config(&mut self) -> Result<Config, Error> {
        let line = self.line()?.ok_or_else(|| Error::Control("no configuration came".into()))?;
        Config::read(&line)
    }

    /// What is reported from now on is of this peer.
    pub(crate) fn speak_as(&mut self, role: Role) {
        self.source = match role {
            Role::Client => Source::ClientProgram,
            Role::Server => Source::ServerProgram,
        };
    }

    /// The next command; waits for it. The end of standard input is [`Instruction::Finish`].
    pub(crate) fn command(&mut self) -> Result<Instruction, Error> {
        match self.line()? {
            None => Ok(Instruction::Finish),
            Some(line) => serde_json::from_slice(&line)
                .map_err(|error| Error::Control(format!("a command: {error}"))),
        }
    }

    /// Reports a call of this peer that has just returned.
    pub(crate) fn call<T: Copy + Into<i64>>(
        &self,
        name: CallName,
        detail: impl Into<String>,
        began_ns: u64,
        result: &io::Result<T>,
    ) -> Result<(), Error> {
        let result = match result {
            Ok(value) => Ok((*value).into()),
            Err(error) => Err(Errno(error.raw_os_error().unwrap_or(0))),
        };
        let call = Call { name, detail: detail.into(), result, began_ns };
        let event = Event::new(now_ns(), self.source, What::Call(call));
        self.report(&Report::Event(event))
    }

    /// Reports by how much this peer ran later than it meant to, if that is worth it.
    pub(crate) fn late(&self, by_ns: u64) -> Result<(), Error> {
        if by_ns < LATE_LEAST_NS {
            return Ok(());
        }
        self.report(&Report::Event(Event::new(now_ns(), self.source, What::Late { by_ns })))
    }

    pub(crate) fn reached(&self, milestone: Milestone) -> Result<(), Error> {
        self.report(&Report::Reached(milestone))
    }

    fn report(&self, report: &Report) -> Result<(), Error> {
        if self.mute {
            return Ok(());
        }
        let mut line = serde_json::to_vec(report).expect("a report is always JSON");
        line.push(b'\n');
        let mut stdout = io::stdout().lock();
        stdout.write_all(&line).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Error::Orphaned,
            _ => Error::Control(format!("writing a report: {error}")),
        })
    }

    fn line(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let rest = self.pending.split_off(end + 1);
                return Ok(Some(std::mem::replace(&mut self.pending, rest)));
            }
            if self.ended {
                return Ok(None);
            }
            let mut buffer = [0; 4096];
            // Not `io::stdin()`: its own buffer would hide from `poll` what has arrived.
            match rustix::io::read(stdin(), &mut buffer) {
                Ok(0) => self.ended = true,
                Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::Control(format!("reading commands: {errno}"))),
            }
        }
    }
}

/// Standard input, for `poll`.
pub(crate) fn stdin() -> BorrowedFd<'static> {
    static STDIN: std::sync::LazyLock<io::Stdin> = std::sync::LazyLock::new(io::stdin);
    STDIN.as_fd()
}
