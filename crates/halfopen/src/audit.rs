//! `halfopen audit`: when would the connections on this machine find out that their peers have gone?
//! Looks, and never touches.

use crate::cli::{AuditArgs, AuditFormat};
use crate::output::{self, Exit};
use anyhow::{Context, Result, anyhow};
use lab::sysctl;
use model::Outlook;
use netns::Namespace;
use observe::clock::{hz, jiffy_clock, kernel_release};
use observe::options::Read;
use observe::sockets::{Connection, Holder, Place, connections, holders, places};
use report::audit::{self, Audit, Socket};
use spec::facts::{JiffyClock, TcpFacts};
use spec::{Facts, counted};
use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

pub(crate) fn run(arguments: &AuditArgs) -> Exit {
    if let Some(missing) = missing(arguments.pid) {
        return output::fail(Exit::USAGE, &missing);
    }
    if let Some(hidden) = arguments.pid.and_then(hidden) {
        return output::fail(Exit::SKIPPED, &hidden);
    }
    let first = match look(arguments) {
        Ok(audit) => audit,
        Err(error) => return output::fail(Exit::SKIPPED, &error),
    };
    let told = tell(arguments, &first);
    match arguments.watch {
        Some(every) => watch(arguments, first, every),
        None => told,
    }
}

/// That there is no such process.
pub(crate) fn missing(pid: Option<u32>) -> Option<anyhow::Error> {
    let pid = pid?;
    let is_there = Path::new(&format!("/proc/{pid}")).exists();
    (!is_there).then(|| anyhow!("there is no process {pid} (or /proc hides it: hidepid)"))
}

/// Who may look into a process.
const WHO_MAY: &str =
    "its own user may, unless it forbids to be traced, and root with CAP_SYS_PTRACE";

/// That its descriptors may not be looked at.
pub(crate) fn hidden(pid: u32) -> Option<anyhow::Error> {
    let error = std::fs::read_dir(format!("/proc/{pid}/fd")).err()?;
    Some(anyhow!("looking at the descriptors of process {pid}: {error}; {WHO_MAY}"))
}

/// Looks again and again, and says what has changed, until a signal ends it or nobody reads.
fn watch(arguments: &AuditArgs, first: Audit, every: Duration) -> Exit {
    let mut before = first;
    loop {
        std::thread::sleep(every);
        let now = match look(arguments) {
            Ok(audit) => audit,
            Err(error) => return output::fail(Exit::SKIPPED, &error),
        };
        let written = match arguments.format {
            AuditFormat::Human => output::print(audit::changes(&before, &now).as_bytes()),
            _ => tell(arguments, &now),
        };
        if written == Exit::INTERNAL {
            return written;
        }
        before = now;
    }
}

fn tell(arguments: &AuditArgs, audit: &Audit) -> Exit {
    let written = match arguments.format {
        AuditFormat::Human => {
            let colour = output::colour(&std::io::stdout());
            output::print(audit::human(audit, colour).as_bytes())
        }
        AuditFormat::Json => output::print(&audit::json(audit)),
        AuditFormat::Csv => output::print(&audit::csv(audit)),
        AuditFormat::Openmetrics => output::print(&audit::openmetrics(audit)),
    };
    let over = |limit| audit.sockets.iter().any(|socket| socket.is_over(limit));
    let exit = if arguments.over.is_some_and(over) { Exit::DISAGREES } else { Exit::AGREES };
    exit.and(written)
}

/// What does not change from one connection to the next.
pub(crate) struct Machine {
    kernel: String,
    hz: u32,
    jiffies: Option<JiffyClock>,
    holders: HashMap<u32, Vec<Holder>>,
    /// Why a process may not be traced, if one may not.
    no_tracing: &'static str,
}

impl Machine {
    /// This one. The holders of sockets are those of one process, or of all.
    pub(crate) fn look(pid: Option<u32>) -> Self {
        // Each process that has sockets takes a descriptor.
        crate::descriptors::raise_as_far_as_may_be();
        let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok();
        Self {
            kernel: kernel_release(),
            hz: hz(),
            jiffies: jiffy_clock(),
            holders: holders(pid),
            no_tracing: no_tracing(scope.as_deref().map(str::trim)),
        }
    }

    /// `uname -r`.
    pub(crate) fn kernel(&self) -> &str {
        &self.kernel
    }

    /// Timer interrupts a second.
    pub(crate) fn hz(&self) -> u32 {
        self.hz
    }
}

/// Why a process may not be traced, by `kernel.yama.ptrace_scope` (Documentation/admin-guide/LSM/Yama.rst).
fn no_tracing(scope: Option<&str>) -> &'static str {
    match scope {
        Some("1") => {
            "kernel.yama.ptrace_scope is 1: it takes root with CAP_SYS_PTRACE, or to have started the process"
        }
        Some("2") => "kernel.yama.ptrace_scope is 2: it takes root with CAP_SYS_PTRACE",
        Some("3") => "kernel.yama.ptrace_scope is 3: nobody may, until the next boot",
        _ => {
            "it takes root with CAP_SYS_PTRACE, and a seccomp filter (of a container) that allows \
             pidfd_getfd"
        }
    }
}

/// A connection of interest, with all that is known of it.
pub(crate) struct Live<'a> {
    pub(crate) socket: Socket,
    pub(crate) facts: &'a Facts,
    pub(crate) holders: &'a [Holder],
    pub(crate) is_mptcp: bool,
}

fn look(arguments: &AuditArgs) -> Result<Audit> {
    let machine = Machine::look(arguments.pid);
    let one = || -> Result<BTreeMap<u64, Place>> {
        let namespace = match arguments.pid {
            Some(pid) => of_process(pid)?,
            None => Namespace::of_this_thread()?,
        };
        Ok([(namespace.inode(), Place { namespace, container: None })].into())
    };
    let (places, hidden) = if arguments.all { places() } else { (one()?, 0) };
    if hidden > 0 {
        eprintln!(
            "the network namespaces of {} may not be seen: that takes root, outside of containers",
            counted(hidden, "process")
        );
    }
    let mut sockets = Vec::new();
    for (inode, place) in places {
        let (pid, port) = (arguments.pid, arguments.port);
        let found =
            of_place(&machine, inode, &place, (pid, port), |live| sockets.push(live.socket));
        match found {
            Ok(()) => {}
            // A namespace can end meanwhile, or belong to another user.
            Err(error) if arguments.all => tracing::warn!("network namespace {inode}: {error:#}"),
            Err(error) => return Err(error),
        }
    }
    Ok(Audit { kernel: machine.kernel, hz: machine.hz, sockets })
}

/// The network namespace of a process.
pub(crate) fn of_process(pid: u32) -> Result<Namespace> {
    Namespace::at(Path::new(&format!("/proc/{pid}/ns/net")))
        .map_err(|error| anyhow!("looking at process {pid}: {error}; {WHO_MAY}"))
}

/// Hands over the connections of a namespace, of one process and with one port where these are given.
pub(crate) fn of_place(
    machine: &Machine,
    inode: u64,
    place: &Place,
    (pid, port): (Option<u32>, Option<u16>),
    mut take: impl FnMut(Live),
) -> Result<()> {
    let found = connections(&place.namespace).context("listing TCP connections")?;
    let mut facts = Facts {
        kernel: machine.kernel.clone(),
        hz: machine.hz,
        sysctl: sysctl::read_all(&place.namespace).context("reading sysctls")?,
        server_sysctl: BTreeMap::new(),
        tcp: None,
        jiffies: machine.jiffies,
        virtual_time: false,
        neighbour: None,
        server_tcp: None,
    };
    for connection in found {
        let holders = machine.holders.get(&connection.sample.inode).map_or(&[][..], Vec::as_slice);
        let ports = [connection.local.port(), connection.remote.port()];
        let wanted =
            port.is_none_or(|port| ports.contains(&port)) && (pid.is_none() || !holders.is_empty());
        if wanted {
            let (socket, is_mptcp) =
                socket(machine, &mut facts, connection, holders, (inode, place));
            take(Live { socket, facts: &facts, holders, is_mptcp });
        }
    }
    Ok(())
}

/// Whatever its subflows come to.
const MPTCP: &str = "it is a subflow of MPTCP: what its program is told, and when, is up to MPTCP, which is \
                     not modelled";

fn socket(
    machine: &Machine,
    facts: &mut Facts,
    connection: Connection,
    holders: &[Holder],
    (namespace, place): (u64, &Place),
) -> (Socket, bool) {
    let Connection { local, remote, accepted, at_ns, is_mptcp, sample } = connection;
    let read = read(machine, holders, sample.inode);
    let is_mptcp = is_mptcp || read.as_ref().is_ok_and(|read| read.is_mptcp);
    let (options, unread) = match read {
        Ok(read) => (Some(read.options), None),
        Err(why) => (None, Some(why)),
    };
    facts.tcp =
        sample.facts(at_ns, None).map(|tcp| TcpFacts { options_set: options.clone(), ..tcp });
    let mut owners: Vec<_> =
        holders.iter().map(|holder| (holder.owner().pid, holder.owner().process.clone())).collect();
    owners.sort();
    owners.dedup();
    let outlook = outlook(facts, is_mptcp);
    // A socket that no process has cannot be asked for its options.
    let outlook = if sample.inode == 0 { outlook.or_sooner() } else { outlook };
    let socket = Socket {
        owners,
        local,
        remote,
        accepted,
        state: sample.state,
        namespace,
        container: place.container.clone(),
        inode: sample.inode,
        receive_queue: sample.receive_queue,
        send_queue: sample.send_queue,
        options,
        unread,
        sampled_ns: at_ns,
        outlook,
    };
    (socket, is_mptcp)
}

/// What is to come of a socket.
pub(crate) fn outlook(facts: &Facts, is_mptcp: bool) -> Outlook {
    let outlook = model::outlook(facts);
    if is_mptcp { outlook.unknown(MPTCP) } else { outlook }
}

/// What a descriptor of the socket shows, or why none does.
fn read(machine: &Machine, holders: &[Holder], inode: u32) -> Result<Read, &'static str> {
    let mut why = if inode == 0 {
        "no process has it"
    } else {
        "no process that has it may be seen (root sees more)"
    };
    for holder in holders {
        match holder.options(inode) {
            Ok(Some(read)) => return Ok(read),
            Ok(None) => why = "its process has closed it meanwhile",
            Err(error) if error.kind() == ErrorKind::PermissionDenied => why = machine.no_tracing,
            Err(_) => why = "that takes pidfd_getfd (Linux 5.6), and a descriptor for each process",
        }
    }
    Err(why)
}

#[cfg(test)]
mod tests {
    use super::no_tracing;

    #[test]
    fn a_ptrace_scope_is_named_with_its_remedy() {
        for (scope, named) in [
            (None, "CAP_SYS_PTRACE"),
            (Some("0"), "pidfd_getfd"),
            (Some("1"), "to have started the process"),
            (Some("2"), "root with CAP_SYS_PTRACE"),
            (Some("3"), "nobody may"),
        ] {
            assert!(no_tracing(scope).contains(named), "{scope:?}");
        }
    }
}
