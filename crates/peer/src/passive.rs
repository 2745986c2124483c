//! halfopen's own client beside a server that is a command: it connects, says nothing, reads what
//! comes, and ends when the connection does.

use crate::control::Control;
use crate::{Error, socket};
use serde::{Deserialize, Serialize};
use socket2::Socket;
use spec::Parameters;
use std::io::{self, Read};
use std::net::SocketAddr;

/// What it is told on standard input.
#[derive(Serialize, Deserialize)]
struct Told {
    to: SocketAddr,
    parameters: Parameters,
}

/// What [`run`] is to read: where to connect, and the options of its socket.
pub fn told(to: SocketAddr, parameters: &Parameters) -> String {
    let told = Told { to, parameters: parameters.clone() };
    serde_json::to_string(&told).expect("settings are always JSON")
}

/// Runs it. What becomes of the connection is said on standard output.
///
/// # Errors
/// If it cannot connect, or the connection fails.
pub fn run() -> Result<(), Error> {
    // Its name would be `exe` otherwise: it is shown as the owner of its connection.
    let _ = std::fs::write("/proc/self/comm", "halfopen");
    let mut line = Vec::new();
    io::stdin().read_to_end(&mut line).map_err(Error::call("reading where to connect"))?;
    let Told { to, parameters } = serde_json::from_slice(&line)
        .map_err(|error| Error::Control(format!("where to connect: {error}")))?;
    let domain = socket2::Domain::for_address(to);
    let mut connection = Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))
        .map_err(Error::call("opening a TCP socket"))?;
    let connecting = format!("connecting to {to}");
    connection.connect(&to.into()).map_err(Error::call(connecting))?;
    let control = Control::mute();
    socket::prepare_client(&connection, &parameters, &control)?;
    if parameters.client.keepalive.enabled {
        socket::enable_keepalive(&connection, &parameters.client.keepalive, &control)?;
    }
    println!("connected to {to}");
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match connection.read(&mut buffer) {
            Ok(0) => {
                println!("the server has closed the connection");
                return Ok(());
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::call("reading from the server")(error)),
        }
    }
}
