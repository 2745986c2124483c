//! The client: settles the connection, then does its traffic, and reports how it ended.

use crate::calls::{Calls, nanos};
use crate::control::{Config, Control, Instruction, Milestone, now_ns, stdin};
use crate::dialogue::{Dialogue, Unsent};
use crate::exchange::SIZE;
use crate::{Error, server, socket};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::{SockAddr, Socket};
use spec::script::Step;
use spec::{Addresses, CallName, LostHost, Parameters, Traffic};
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::time::Duration;

/// The exchanges before the fault go on until `tcpi_rto` has not changed for this many.
const SETTLED_AFTER: u32 = 5;
/// And no longer than this many.
const EXCHANGES_MOST: u32 = 40;

/// A wait of less than this is late by no more than the kernel's slack for any timer.
const SHORT_NS: u64 = 10_000_000;

pub(crate) fn run(config: &Config, control: &mut Control) -> Result<(), Error> {
    let mut client = if config.parameters.client.traffic == Traffic::Connect {
        let client = Client::new(config)?;
        socket::prepare_client(&client.socket, &config.parameters, control)?;
        let keepalive = &config.parameters.client.keepalive;
        if keepalive.enabled {
            socket::enable_keepalive(&client.socket, keepalive, control)?;
        }
        control.reached(Milestone::Ready)?;
        client
    } else {
        let connected = if config.parameters.fault.host == LostHost::Client {
            Client::accept(config, control)?
        } else {
            Some(Client::connect(config, control)?)
        };
        let Some(mut client) = connected else { return Ok(()) };
        client.settle(control)?;
        client
    };
    loop {
        match control.command()? {
            Instruction::SendUnread => {
                client.write(control)?;
                control.reached(Milestone::Unread)?;
            }
            Instruction::FillWindow => {
                client.fill_window()?;
                control.reached(Milestone::Filled)?;
            }
            Instruction::Begin => return client.traffic(control),
            Instruction::Finish => return client.finish(control),
            Instruction::StopReading => {
                return Err(Error::Control("only a server can stop reading".into()));
            }
        }
    }
}

struct Client<'a> {
    parameters: &'a Parameters,
    server: SockAddr,
    socket: Socket,
    dialogue: Dialogue,
    told: bool,
}

/// What a read found.
enum State {
    Open,
    Eof,
    Failed,
}

/// How far a call of a script has come.
enum Sent {
    All,
    Blocked(Unsent),
    Failed,
}

impl<'a> Client<'a> {
    fn new(config: &'a Config) -> Result<Self, Error> {
        Ok(Self {
            parameters: &config.parameters,
            server: config.addresses.server.into(),
            socket: socket::bound(config.addresses.client)?,
            dialogue: Dialogue::new(&config.parameters, config.addresses.server),
            told: false,
        })
    }

    fn connect(config: &'a Config, control: &Control) -> Result<Self, Error> {
        let client = Self::new(config)?;
        client
            .call_connect(control)?
            .map_err(Error::call(format!("connecting to {}", config.addresses.server)))?;
        // After the handshake, which is not the question: a user timeout may be shorter than it.
        socket::prepare_client(&client.socket, &config.parameters, control)?;
        control.reached(Milestone::Connected)?;
        Ok(client)
    }

    /// The client is called the server, and the other one connects. `None`: nobody did.
    fn accept(config: &'a Config, control: &mut Control) -> Result<Option<Self>, Error> {
        let Addresses { client, server, .. } = config.addresses;
        let listener = server::listen(client, 1, control)?;
        let Some(socket) = server::accept(&listener, control)? else { return Ok(None) };
        socket::prepare_client(&socket, &config.parameters, control)?;
        control.reached(Milestone::Connected)?;
        Ok(Some(Self {
            parameters: &config.parameters,
            server: server.into(),
            socket,
            dialogue: Dialogue::new(&config.parameters, server),
            told: false,
        }))
    }

    fn call_connect(&self, control: &Control) -> Result<io::Result<i64>, Error> {
        let began = now_ns();
        let result = self.socket.connect(&self.server).map(|()| 0_i64);
        let server = self.server.as_socket().map_or_else(String::new, |server| server.to_string());
        control.call(CallName::Connect, server, began, &result)?;
        Ok(result)
    }

    /// Exchanges until the RTO has settled; keepalive goes on just before the last exchange.
    fn settle(&mut self, control: &Control) -> Result<(), Error> {
        let (mut rto_us, mut unchanged, mut exchanges) = (0, 0, 0);
        while unchanged < SETTLED_AFTER && exchanges < EXCHANGES_MOST - 1 {
            self.exchange()?;
            exchanges += 1;
            let now = socket::rto_us(&self.socket)?;
            unchanged = if now == rto_us { unchanged + 1 } else { 0 };
            rto_us = now;
        }
        if self.parameters.client.keepalive.enabled {
            socket::enable_keepalive(&self.socket, &self.parameters.client.keepalive, control)?;
        }
        self.exchange()?;
        let moving = unchanged < SETTLED_AFTER;
        control.reached(Milestone::Settled { exchanges: exchanges + 1, moving })
    }

    /// Writes until neither the server's window nor the send buffer takes any more; before a
    /// script, whose writes need room there, some segments.
    fn fill_window(&mut self) -> Result<(), Error> {
        let script = self.parameters.client.traffic == Traffic::Script;
        let writes_most = if script { 1 } else { usize::MAX };
        self.socket
            .set_nonblocking(true)
            .and_then(|()| self.dialogue.fill(&self.socket, writes_most))
            .map_err(Error::call("filling the server's window"))
    }

    fn exchange(&mut self) -> Result<(), Error> {
        const OPERATION: &str = "exchanging data before the fault";
        let request = self.dialogue.next();
        (&self.socket).write_all(&request).map_err(Error::call(OPERATION))?;
        while !self.dialogue.all_answered() {
            let mut buffer = [0; 16 * SIZE];
            let result = match (&self.socket).read(&mut buffer) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                result => result,
            };
            let count = result.map_err(Error::call(OPERATION))?;
            self.dialogue.take(&buffer[..count]);
            if self.dialogue.is_broken() {
                return Err(Error::call(OPERATION)(io::ErrorKind::InvalidData.into()));
            }
        }
        if self.parameters.client.program.description().accepts {
            // The RTO that counts is the web server's: its answer is acknowledged at once.
            self.socket.set_tcp_quickack(true).map_err(Error::call(OPERATION))?;
        }
        Ok(())
    }

    /// The traffic after the fault, until the laboratory says that it has seen enough.
    fn traffic(mut self, control: &mut Control) -> Result<(), Error> {
        let client = &self.parameters.client;
        let heartbeat = (client.traffic == Traffic::Heartbeat).then_some(client.heartbeat.deadline);
        self.socket.set_nonblocking(true).map_err(Error::call("making the socket non-blocking"))?;
        let mut connecting =
            client.traffic == Traffic::Connect && self.goes_on_connecting(control)?;
        let mut calls = Calls::new(self.parameters, now_ns());
        let mut unsent: Option<Unsent> = None;
        let mut answer_due: Option<(u64, Duration)> = None;
        let mut watching = !self.told;
        loop {
            let now = now_ns();
            match calls.due(now) {
                Some(Step::Write(_)) if client.traffic != Traffic::Script => {
                    let accepted = self.write(control)?;
                    if accepted {
                        calls.go_on(now);
                        if let Some(deadline) = heartbeat {
                            answer_due.get_or_insert((now + nanos(deadline), deadline));
                        }
                    } else {
                        // The error is delivered once: a read would now look like a clean EOF.
                        watching = false;
                        calls.stop();
                        self.tell(control)?;
                    }
                }
                Some(Step::Write(count)) => unsent = Some(self.dialogue.unanswered(count)),
                Some(Step::Request(count, deadline)) => {
                    unsent = Some(self.dialogue.request(count));
                    answer_due = Some((now + nanos(deadline), deadline));
                }
                Some(Step::Shutdown) => {
                    self.shutdown(control)?;
                    calls.go_on(now);
                }
                Some(Step::Close) => return self.close("", control),
                Some(Step::Wait(_)) | None => {}
            }
            if let Some(bytes) = unsent.take() {
                match self.send(bytes, control)? {
                    Sent::All => {
                        if answer_due.is_none() {
                            calls.go_on(now_ns());
                        }
                    }
                    Sent::Blocked(rest) => unsent = Some(rest),
                    Sent::Failed => {
                        (watching, answer_due) = (false, None);
                        calls.stop();
                        self.tell(control)?;
                    }
                }
            }
            if let Some((_, deadline)) = answer_due.filter(|(due, _)| *due <= now) {
                let detail = format!("no answer within {}", spec::duration::show(deadline));
                if heartbeat.is_none() {
                    return self.close(&detail, control);
                }
                let detail = format!("{detail}: the client gives the server up");
                control.call(CallName::Heartbeat, detail, now, &Ok(0_i64))?;
                answer_due = None;
                calls.stop();
                self.tell(control)?;
            }
            let wake = [calls.wake(), answer_due.map(|(due, _)| due)].into_iter().flatten().min();
            let events = match (watching, connecting) {
                (true, true) => PollFlags::OUT,
                (true, false) => PollFlags::IN | PollFlags::RDHUP,
                (false, _) => PollFlags::empty(),
            };
            let blocked = unsent.as_ref().map_or(PollFlags::empty(), |_| PollFlags::OUT);
            let (socket_events, commanded) = self.wait(events | blocked, wake)?;
            if let Some(by_ns) = wake.and_then(|due_ns| now_ns().checked_sub(due_ns)) {
                control.late(by_ns)?;
            }
            if commanded && control.command()? == Instruction::Finish {
                return self.finish(control);
            }
            // A write that waited takes the error.
            let readable = socket_events.difference(blocked);
            let fails = readable.intersects(PollFlags::ERR) && unsent.is_some();
            if !watching || readable.is_empty() || fails {
                continue;
            }
            if connecting {
                connecting = self.goes_on_connecting(control)?;
                if connecting {
                    self.read_error_queue(control)?;
                }
                watching = !self.told;
                continue;
            }
            match self.read(readable, control)? {
                State::Open => {}
                State::Eof => {
                    watching = false;
                    self.tell(control)?;
                }
                State::Failed => {
                    watching = false;
                    calls.stop();
                    self.tell(control)?;
                }
            }
            if unsent.is_none() && self.dialogue.all_answered() {
                let asked = answer_due.take().is_some();
                // A heartbeat's next request does not wait for the answer.
                if asked && heartbeat.is_none() {
                    calls.answered(now_ns());
                }
            }
        }
    }

    /// Calls `connect`, the first time or to hear what became of it: says whether the kernel is
    /// still at it.
    fn goes_on_connecting(&mut self, control: &Control) -> Result<bool, Error> {
        match self.call_connect(control)? {
            Ok(_) => Ok(false),
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EALREADY)) =>
            {
                Ok(true)
            }
            Err(_) => {
                self.tell(control)?;
                Ok(false)
            }
        }
    }

    /// Takes what announced itself as an error although the kernel is still connecting: an ICMP
    /// error that came while `connect` held the socket (`ip_icmp_error`, net/ipv4/ip_sockglue.c).
    /// As long as it is there, `poll` returns at once.
    fn read_error_queue(&self, control: &Control) -> Result<(), Error> {
        let began = now_ns();
        let mut quoted = [MaybeUninit::uninit(); SIZE];
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        let result = self.socket.recv_with_flags(&mut quoted, flags).map(|count| count as i64);
        if would_block(&result) {
            return Ok(());
        }
        control.call(CallName::Recv, "MSG_ERRQUEUE", began, &result)
    }

    fn shutdown(&self, control: &Control) -> Result<(), Error> {
        let began = now_ns();
        let result = self.socket.shutdown(Shutdown::Write).map(|()| 0_i64);
        // Where the connection has ended already, a read tells how.
        control.call(CallName::Shutdown, "SHUT_WR", began, &result)
    }

    /// Lets go: nothing is told to a program that has closed its socket.
    fn close(self, why: &str, control: &mut Control) -> Result<(), Error> {
        if let Some(linger) = self.parameters.client.linger {
            socket::set_linger(&self.socket, linger, control)?;
        }
        let began = now_ns();
        drop(self.socket);
        control.call(CallName::Close, why, began, &Ok(0_i64))?;
        while control.command()? != Instruction::Finish {}
        control.reached(Milestone::Finished)
    }

    /// Tells the laboratory, once, that the program knows the end.
    fn tell(&mut self, control: &Control) -> Result<(), Error> {
        if !std::mem::replace(&mut self.told, true) {
            control.reached(Milestone::Ended)?;
        }
        Ok(())
    }

    /// Waits for these events of the socket (none: it is not watched), for a command, or until
    /// `wake_ns`; less for longer waits, since a `poll` may be late by a 200th of its timeout
    /// (`select_estimate_accuracy`, fs/select.c), and the caller asks again.
    fn wait(&self, events: PollFlags, wake_ns: Option<u64>) -> Result<(PollFlags, bool), Error> {
        let timeout = wake_ns.map(|due| {
            let left = due.saturating_sub(now_ns());
            let left = if left < SHORT_NS { left } else { left - left / 100 };
            Timespec {
                tv_sec: (left / 1_000_000_000) as i64,
                tv_nsec: (left % 1_000_000_000) as i64,
            }
        });
        let mut fds = [
            PollFd::from_borrowed_fd(stdin(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.socket.as_fd(), events),
        ];
        let count = if events.is_empty() { 1 } else { 2 };
        match poll(&mut fds[..count], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::call("waiting for the connection")(errno.into())),
        }
        let socket = if events.is_empty() { PollFlags::empty() } else { fds[1].revents() };
        Ok((socket, !fds[0].revents().is_empty()))
    }

    /// Reads what `poll` announced.
    fn read(&mut self, events: PollFlags, control: &Control) -> Result<State, Error> {
        loop {
            // What is not read into is not touched: each page would cost a fault.
            let mut buffer: Vec<u8> = Vec::with_capacity(640 * SIZE);
            let began = now_ns();
            let result = rustix::io::read(&self.socket, spare_capacity(&mut buffer))
                .map(|count| count as i64)
                .map_err(io::Error::from);
            if would_block(&result) {
                return Ok(State::Open);
            }
            control.call(CallName::Read, poll_names(events), began, &result)?;
            match result {
                Ok(0) => return Ok(State::Eof),
                Ok(_) => self.dialogue.take(&buffer),
                Err(_) => return Ok(State::Failed),
            }
        }
    }

    /// Writes one block or request, and says whether the connection still takes any. What does not
    /// fit into a full send buffer is sent first the next time.
    fn write(&mut self, control: &Control) -> Result<bool, Error> {
        let block = self.dialogue.next();
        let began = now_ns();
        let result = (&self.socket).write(&block).map(|count| count as i64);
        control.call(CallName::Write, "", began, &result)?;
        self.dialogue.back(block.len() - result.as_ref().map_or(0, |taken| *taken as usize));
        Ok(result.is_ok() || would_block(&result))
    }

    /// Writes until all is taken or the send buffer is full.
    fn send(&self, mut unsent: Unsent, control: &Control) -> Result<Sent, Error> {
        loop {
            let began = now_ns();
            let result = (&self.socket).write(unsent.chunk()).map(|count| count as i64);
            control.call(CallName::Write, "", began, &result)?;
            match result {
                Ok(count) => unsent.took(count as usize),
                Err(_) if would_block(&result) => return Ok(Sent::Blocked(unsent)),
                Err(_) => return Ok(Sent::Failed),
            }
            if unsent.chunk().is_empty() {
                return Ok(Sent::All);
            }
        }
    }

    fn finish(self, control: &Control) -> Result<(), Error> {
        let checked = self
            .dialogue
            .checked()
            .map(|bytes| bytes as i64)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EIO));
        control.call(
            CallName::Check,
            "all bytes that came back are as sent",
            now_ns(),
            &checked,
        )?;
        let began = now_ns();
        drop(self.socket);
        control.call(CallName::Close, "", began, &Ok(0_i64))?;
        control.reached(Milestone::Finished)
    }
}

fn would_block(result: &io::Result<i64>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// The poll events by name: `POLLIN POLLRDHUP`.
fn poll_names(events: PollFlags) -> String {
    let names: Vec<String> = events.iter_names().map(|(name, _)| format!("POLL{name}")).collect();
    names.join(" ")
}
