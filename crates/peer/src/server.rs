//! The server: accepts one connection and answers every request until it is gone.

use crate::control::{Config, Control, Instruction, Milestone, now_ns, stdin};
use crate::exchange::{Pattern, SIZE};
use crate::{Error, socket};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use socket2::Socket;
use spec::{Addresses, CallName, LostHost};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::{Command as Process, Stdio};

pub(crate) fn run(config: &Config, control: &mut Control) -> Result<(), Error> {
    let Addresses { client, server, .. } = config.addresses;
    let connection = if config.parameters.fault.host == LostHost::Client {
        connect(server, client, control)?
    } else {
        let listener = listen(server, 1, control)?;
        let Some(connection) = accept(&listener, control)? else { return Ok(()) };
        connection
    };
    if let Some(linger) = config.parameters.server.linger {
        socket::set_linger(&connection, linger, control)?;
    }
    if config.parameters.server.inherited {
        start_holder(&connection)?;
        control.reached(Milestone::Child)?;
    }
    serve(&connection, control)
}

/// So many connections wait to be accepted.
const BACKLOG: i32 = 128;

/// Listens at an address, and says so.
pub(crate) fn listen(
    address: SocketAddr,
    backlog: i32,
    control: &Control,
) -> Result<Socket, Error> {
    let listener = socket::bound(address)?;
    listener.listen(backlog).map_err(Error::call("listening"))?;
    control.reached(Milestone::Listening)?;
    Ok(listener)
}

/// Connects to the survivor, which has accepted before it is told to do anything.
fn connect(from: SocketAddr, to: SocketAddr, control: &Control) -> Result<Socket, Error> {
    let connection = socket::bound(from)?;
    let began = now_ns();
    let result = connection.connect(&to.into()).map(|()| 0_i64);
    control.call(CallName::Connect, to.to_string(), began, &result)?;
    result.map_err(Error::call(format!("connecting to {to}")))?;
    Ok(connection)
}

/// Sends back whatever comes, on any number of connections.
pub(crate) fn answer_everyone(address: SocketAddr, control: &mut Control) -> Result<(), Error> {
    // It is shown as the owner of its connections.
    let _ = rustix::thread::set_name(c"halfopen");
    let listener = listen(address, BACKLOG, control)?;
    let mut connections: Vec<Socket> = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let mut fds = vec![
            PollFd::from_borrowed_fd(stdin(), PollFlags::IN),
            PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
        ];
        let arriving = |socket| PollFd::from_borrowed_fd(socket, PollFlags::IN);
        fds.extend(connections.iter().map(|connection| arriving(connection.as_fd())));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::call("waiting for clients")(errno.into())),
        }
        let ready: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if ready[0] && control.command()? == Instruction::Finish {
            return control.reached(Milestone::Finished);
        }
        let mut arrived = ready[2..].iter();
        connections.retain(|connection| {
            !arrived.next().copied().unwrap_or_default() || sends_back(connection, &mut buffer)
        });
        if ready[1] {
            let (connection, _) =
                listener.accept().map_err(Error::call("accepting a connection"))?;
            connections.push(connection);
        }
    }
}

/// Reads what has come and sends it back. Says whether more can come.
fn sends_back(mut connection: &Socket, buffer: &mut [u8]) -> bool {
    match connection.read(buffer) {
        Ok(count @ 1..) => connection.write_all(&buffer[..count]).is_ok(),
        _ => false,
    }
}

/// Waits for whoever connects; `None` if the laboratory has no more use for a server (a rebooted host
/// waits for clients that never come).
pub(crate) fn accept(listener: &Socket, control: &mut Control) -> Result<Option<Socket>, Error> {
    loop {
        let (arrived, commanded) = wait(Some(listener))?;
        if arrived {
            let began = now_ns();
            let result = listener.accept();
            let (connection, peer) = result.map_err(Error::call("accepting the connection"))?;
            let peer = peer.as_socket().map_or_else(String::new, |peer| peer.to_string());
            control.call(CallName::Accept, peer, began, &Ok(0_i64))?;
            return Ok(Some(connection));
        }
        if commanded && control.command()? == Instruction::Finish {
            control.reached(Milestone::Finished)?;
            return Ok(None);
        }
    }
}

/// Answers requests until the client or the laboratory ends it.
fn serve(connection: &Socket, control: &mut Control) -> Result<(), Error> {
    let mut received = Pattern::default();
    // What it writes on its own goes on where its answers ended.
    let mut written: Option<Pattern> = None;
    let mut reading = true;
    loop {
        let (arrived, commanded) = wait(reading.then_some(connection))?;
        if commanded {
            match control.command()? {
                Instruction::StopReading => {
                    reading = false;
                    control.reached(Milestone::Unread)?;
                }
                Instruction::FillWindow => {
                    let written = written.get_or_insert_with(|| received.clone());
                    connection
                        .set_nonblocking(true)
                        .and_then(|()| written.fill(connection, usize::MAX))
                        .map_err(Error::call("filling the client's window"))?;
                    control.reached(Milestone::Filled)?;
                }
                _ => return control.reached(Milestone::Finished),
            }
        } else if arrived {
            reading = answer(connection, &mut received, control)?;
        }
    }
}

/// Reads what has come and sends back what is to be answered. Says whether more can come.
fn answer(connection: &Socket, received: &mut Pattern, control: &Control) -> Result<bool, Error> {
    let mut buffer = [0; 16 * SIZE];
    let began = now_ns();
    let mut stream: &Socket = connection;
    let outcome = match stream.read(&mut buffer) {
        Ok(0) => {
            control.call(CallName::Read, "", began, &Ok(0_i64))?;
            return Ok(false);
        }
        Ok(count) => match received.answer(&buffer[..count]) {
            Ok(answer) if answer.is_empty() => Ok(()),
            Ok(answer) => stream.write_all(&answer),
            Err(offset) => {
                let lost: io::Result<i64> = Err(io::Error::from_raw_os_error(libc::EIO));
                let detail = format!("byte {offset} is not the one sent");
                control.call(CallName::Read, detail, began, &lost)?;
                return Ok(false);
            }
        },
        Err(error) => Err(error),
    };
    if let Err(error) = outcome {
        control.call(CallName::Read, "", began, &Err::<i64, _>(error))?;
        return Ok(false);
    }
    Ok(true)
}

/// Starts a child that holds the connection open, whatever becomes of this process.
fn start_holder(connection: &Socket) -> Result<(), Error> {
    let operation = "starting a child that inherits the connection";
    let inherited = connection.try_clone().map_err(Error::call(operation))?;
    // Not by its name: in the guest the directory that it lies in may be hidden.
    Process::new("/proc/self/exe")
        .args(["peer", "--hold"])
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(inherited)))
        .stdout(Stdio::null())
        .spawn()
        .map_err(Error::call(operation))?;
    Ok(())
}

fn wait(socket: Option<&Socket>) -> Result<(bool, bool), Error> {
    let mut fds = vec![PollFd::from_borrowed_fd(stdin(), PollFlags::IN)];
    if let Some(socket) = socket {
        fds.push(PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN));
    }
    match poll(&mut fds, None) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(Error::call("waiting for the client")(errno.into())),
    }
    let ready = |fd: Option<&PollFd>| fd.is_some_and(|fd| !fd.revents().is_empty());
    Ok((ready(fds.get(1)), ready(fds.first())))
}
