//! The subcommands that no person calls, in the order of the processes.

pub(crate) const SANDBOX: &str = "__sandbox";
pub(crate) const INIT: &str = "__init";
pub(crate) const WORKER: &str = "__worker";
/// Starts the programs of the hosts.
pub(crate) const LAUNCHER: &str = "__launcher";
/// The worker inside the guest.
pub(crate) const GUEST: &str = "__guest";
/// One command as the program of a host.
pub(crate) const PROGRAM: &str = "__program";
