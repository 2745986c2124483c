//! What can go wrong with a network.

use crate::sysctl;
use spec::Topology;
use std::io;
use std::time::Duration;

/// What can go wrong with a network: the operation, its object, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A namespace could not be made or entered.
    #[error("{doing}: {source}{}", privilege(.source))]
    Namespace {
        /// The operation.
        doing: &'static str,
        /// What it failed with.
        source: netns::Error,
    },
    /// The kernel refused a request.
    #[error("{doing}: {source}{}{}", words(.says.as_deref()), remedy(.source))]
    Kernel {
        /// The operation and its object.
        doing: String,
        /// The error number.
        source: io::Error,
        /// What the kernel said beside it (netlink's extended acknowledgement).
        says: Option<String>,
    },
    /// A sysctl could not be set.
    #[error(transparent)]
    Sysctl(#[from] sysctl::Error),
    /// This machine or kernel cannot do it: the trial is skipped.
    #[error("{what} is not available here: {remedy}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// Why not, and what to do about it.
        remedy: String,
    },
    /// The kernel did not get something done in time.
    #[error("gave up waiting for {what} after {waited:?}: is the machine overloaded?")]
    Late {
        /// What did not happen.
        what: String,
        /// How long it was given.
        waited: Duration,
    },
    /// A namespace does not end because something is left in it.
    #[error(
        "the {host}'s namespace (net:[{inode}]) is still there after {waited:?}: {holders}: \
         kill the processes in it, and close every socket and descriptor of it, first"
    )]
    Pinned {
        /// Whose namespace.
        host: &'static str,
        /// Its inode number, as /proc/PID/ns/net shows it.
        inode: u64,
        /// How long it was given.
        waited: Duration,
        /// Who holds it, as far as /proc tells.
        holders: String,
    },
    /// The fault does not exist on this topology.
    #[error("{operation}: not possible with topology `{topology}`")]
    Topology {
        /// What was asked for.
        operation: &'static str,
        /// The topology.
        topology: Topology,
    },
    /// There is no server to do it to: it was destroyed.
    #[error("{operation}: the server has been destroyed already")]
    NoServer {
        /// What was asked for.
        operation: &'static str,
    },
    /// The server's place is taken: it was not destroyed before it was booted again.
    #[error("booting the server: the previous one was not destroyed")]
    ServerPresent,
    /// Nothing was broken that could be restored, or it is broken already.
    #[error("{operation}: {why}")]
    Sequence {
        /// What was asked for.
        operation: &'static str,
        /// Why not now.
        why: &'static str,
    },
}

impl Error {
    /// Whether it means that this machine or kernel cannot do what was asked, so that the trial
    /// is skipped and not failed.
    pub fn is_unsupported(&self) -> bool {
        match self {
            Self::Unsupported { .. } | Self::Sysctl(sysctl::Error::Missing { .. }) => true,
            Self::Kernel { source, .. } => matches!(
                source.raw_os_error(),
                Some(
                    libc::EOPNOTSUPP
                        | libc::EPROTONOSUPPORT
                        | libc::EAFNOSUPPORT
                        | libc::ENOSYS
                        | libc::EROFS
                )
            ),
            // No privileges, or past `user.max_net_namespaces`.
            Self::Namespace { source: netns::Error::Create(source), .. } => {
                matches!(source.raw_os_error(), Some(libc::EPERM | libc::ENOSPC))
            }
            _ => false,
        }
    }

    pub(crate) fn kernel(doing: impl Into<String>, source: io::Error) -> Self {
        Self::Kernel { doing: doing.into(), source, says: None }
    }
}

fn words(says: Option<&str>) -> String {
    says.map_or_else(String::new, |says| format!(" (the kernel says: {says})"))
}

fn privilege(error: &netns::Error) -> &'static str {
    match error {
        netns::Error::Create(source) | netns::Error::Enter(source) => remedy(source),
        netns::Error::Open(_) => "",
    }
}

fn remedy(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            ": run as root or in a user namespace of your own (`unshare -Ur`)"
        }
        Some(libc::EMFILE) => ": raise the limit of open files (`ulimit -n`)",
        Some(libc::ENOSPC) => ": raise user.max_net_namespaces",
        Some(libc::EROFS) => sysctl::READ_ONLY,
        Some(libc::EOPNOTSUPP) => ": this kernel was built without it, or its module is not loaded",
        _ => "",
    }
}
