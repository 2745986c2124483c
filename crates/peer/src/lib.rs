//! The client and server programs: blocking sockets, no async runtime, since the survivor's errno
//! and time stamp are the measurement. Where the client's host breaks, the survivor is the server: it
//! does then what a client does otherwise, on the connection that it has accepted.
//!
//! A peer is a process of its own, started inside its host's network namespace. It reads its
//! [`Config`], unless it was started with one, and then [`Instruction`]s from standard input, one JSON
//! document a line, and writes
//! [`Report`]s to standard output. It ends when standard input does. One that is to be nginx
//! becomes that: it then takes signals for commands, and its log is on standard output.

mod calls;
mod client;
mod control;
mod dialogue;
mod exchange;
mod forward;
mod http;
mod nginx;
mod passive;
mod server;
mod socket;

use spec::{Parameters, Program};
use std::path::PathBuf;

use control::Control;
pub use control::{Config, Instruction, Milestone, Report, Role};
pub use forward::{run as run_forward, told as told_forward};
pub use passive::{run as run_passive, told as told_passive};

/// Sets the socket option `TCP_RTO_MIN_US` (Linux 6.17) on a socket that is for nothing else.
///
/// # Errors
/// `ENOPROTOOPT` if this kernel does not have it, `EINVAL` if it does not take this value.
pub fn try_rto_min(least: std::time::Duration) -> std::io::Result<()> {
    socket::try_rto_min(least)
}

/// An executable, where `PATH` or a system directory has one. An ordinary user's `PATH` may lack the
/// latter.
pub fn find(executable: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    find_in(executable, std::env::split_paths(&path).chain(system))
}

fn find_in(executable: &str, directories: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    let mut programs = directories.into_iter().map(|directory| directory.join(executable));
    programs.find(|program| program.is_absolute() && program.is_file())
}

/// Runs a peer on this process's standard input and output until it is told to finish.
///
/// # Errors
/// What went wrong outside the measurement, for a person: a bad configuration, a refused socket
/// option. What the measured connection does is reported, not returned.
pub fn run() -> Result<(), Error> {
    let mut control = Control::from_stdio();
    let config = control.config()?;
    run_as(config, control)
}

/// The same for a peer whose configuration is known: nothing but commands comes to its standard input.
///
/// # Errors
/// As for [`run`].
pub fn run_configured(config: Config) -> Result<(), Error> {
    run_as(config, Control::from_stdio())
}

fn run_as(mut config: Config, mut control: Control) -> Result<(), Error> {
    let control = &mut control;
    control.speak_as(config.role);
    let Parameters { client, server, .. } = &config.parameters;
    let (own, other, address) = match config.role {
        Role::Client => (client.program, server.program, config.addresses.client),
        Role::Server => (server.program, client.program, config.addresses.server),
    };
    match (own, config.role) {
        (Program::Nginx, _) => nginx::become_nginx(address, &config.parameters),
        (Program::Halfopen, _) if config.parameters.runs_command() => {
            server::answer_everyone(address, control)
        }
        (Program::Halfopen, Role::Client) => client::run(&config, control),
        (Program::Halfopen, Role::Server) if other.description().accepts => {
            // The one that asks is on the server's host, and goes with it.
            let addresses = &mut config.addresses;
            std::mem::swap(&mut addresses.client, &mut addresses.server);
            client::run(&config, control)
        }
        (Program::Halfopen, Role::Server) => server::run(&config, control),
        (Program::Command, _) => {
            Err(Error::Control("a command is started as itself, not as a peer".into()))
        }
    }
}

/// Keeps standard input (a socket that it inherited) open until it is killed: the forked child of
/// a server that died.
pub fn hold() -> ! {
    loop {
        std::thread::park();
    }
}

/// What ends a peer, other than the connection it measures.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A line on standard input was not what it should be, or reports cannot be written.
    #[error("talking to the laboratory: {0}")]
    Control(String),
    /// The laboratory has ended, and takes no more reports.
    #[error("the laboratory has ended")]
    Orphaned,
    /// A system call failed before the fault.
    #[error("{operation}: {error}")]
    Call {
        /// What was tried, and on what.
        operation: String,
        /// What the kernel said.
        #[source]
        error: std::io::Error,
    },
}

impl Error {
    fn call(operation: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let operation = operation.into();
        move |error| Self::Call { operation, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_found_where_nothing_is() {
        assert_eq!(find_in("nginx", ["/proc/self/ns".into(), "relative".into()]), None);
        assert!(find("sh").is_some());
    }
}
