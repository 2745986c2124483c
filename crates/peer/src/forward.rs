//! halfopen's own program in the middle: it accepts connections, opens one to the server for each, and
//! copies what comes both ways. The end of what one side sends is passed on as `shutdown`; where a
//! connection fails, both are closed.

use crate::control::Control;
use crate::{Error, socket};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use spec::Parameters;
use spec::experiment::Peer;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::thread;

/// What it is told on standard input.
#[derive(Serialize, Deserialize)]
struct Told {
    at: SocketAddr,
    to: SocketAddr,
    sockets: Peer,
}

/// What [`run`] is to read: where to listen, where to connect, and the options of its sockets.
pub fn told(at: SocketAddr, to: SocketAddr, sockets: &Peer) -> String {
    let told = Told { at, to, sockets: sockets.clone() };
    serde_json::to_string(&told).expect("settings are always JSON")
}

/// Runs it, until it is killed. What ends connections is said on standard output.
///
/// # Errors
/// If it cannot listen.
pub fn run() -> Result<(), Error> {
    // Its name would be `exe` otherwise: it is shown as the owner of its connections.
    let _ = std::fs::write("/proc/self/comm", "halfopen");
    let mut line = Vec::new();
    io::stdin().read_to_end(&mut line).map_err(Error::call("reading where to connect"))?;
    let Told { at, to, sockets } = serde_json::from_slice(&line)
        .map_err(|error| Error::Control(format!("where to connect: {error}")))?;
    let listener = open(at)?;
    listener.set_reuse_address(true).map_err(Error::call("setting SO_REUSEADDR"))?;
    listener.bind(&at.into()).map_err(Error::call(format!("binding to {at}")))?;
    listener.listen(128).map_err(Error::call(format!("listening at {at}")))?;
    let sockets = Arc::new(sockets);
    loop {
        let (downstream, from) = listener.accept().map_err(Error::call("accepting"))?;
        let (sockets, from) = (sockets.clone(), from.as_socket());
        thread::spawn(move || {
            let from = from.map_or_else(String::new, |from| from.to_string());
            if let Err(error) = forward(&downstream, to, &sockets) {
                println!("the connection from {from} is closed: {error}");
            }
        });
    }
}

fn open(at: SocketAddr) -> Result<Socket, Error> {
    Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))
        .map_err(Error::call("opening a TCP socket"))
}

/// Serves one connection to its end.
fn forward(downstream: &Socket, to: SocketAddr, sockets: &Peer) -> Result<(), Error> {
    prepare(downstream, sockets)?;
    let upstream = open(to)?;
    upstream.connect(&to.into()).map_err(Error::call(format!("connecting to {to}")))?;
    prepare(&upstream, sockets)?;
    let upstream = &upstream;
    thread::scope(|scope| {
        let there = scope.spawn(move || pass_on(downstream, "the client", upstream, "the server"));
        let back = pass_on(upstream, "the server", downstream, "the client");
        // A thread that panicked has passed nothing on.
        let there = there.join().unwrap_or(Ok(()));
        back.and(there)
    })
}

fn prepare(socket: &Socket, sockets: &Peer) -> Result<(), Error> {
    let control = Control::mute();
    let parameters = Parameters { client: sockets.clone(), ..Parameters::default() };
    socket::prepare_client(socket, &parameters, &control)?;
    if sockets.keepalive.enabled {
        socket::enable_keepalive(socket, &sockets.keepalive, &control)?;
    }
    Ok(())
}

/// Copies what comes from one socket to the other, to its end. If either fails, both are shut down, so
/// that the other direction ends too, and both are closed.
fn pass_on(
    mut from: &Socket,
    from_name: &str,
    mut to: &Socket,
    to_name: &str,
) -> Result<(), Error> {
    let mut buffer = vec![0; 64 * 1024];
    let failed = loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => {
                let _ = to.shutdown(Shutdown::Write);
                return Ok(());
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => break Error::call(format!("reading from {from_name}"))(error),
        };
        if let Err(error) = to.write_all(&buffer[..count]) {
            break Error::call(format!("writing to {to_name}"))(error);
        }
    };
    for socket in [from, to] {
        let _ = socket.shutdown(Shutdown::Both);
    }
    Err(failed)
}
