//! `halfopen audit`: when would the connections on this machine find out that their peers have gone?
//! Looks, and never touches.

use crate::cli::{AuditArgs, AuditFormat};
use crate::output::{self, Exit};
use anyhow::{Context, Result, anyhow};
use lab::sysctl;
use netns::Namespace;
use observe::clock::{hz, jiffy_clock, kernel_release};
use observe::sockets::{Connection, Holder, Place, connections, holders, places};
use report::audit::{self, Audit, Socket};
use spec::Facts;
use spec::facts::{JiffyClock, TcpFacts};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

pub(crate) fn run(arguments: &AuditArgs) -> Exit {
    if let Some(missing) = missing(arguments.pid) {
        return output::fail(Exit::USAGE, &missing);
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
    let is_there = std::path::Path::new(&format!("/proc/{pid}")).exists();
    (!is_there).then(|| anyhow!("there is no process {pid} (or /proc hides it: hidepid)"))
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
}

impl Machine {
    /// This one. The holders of sockets are those of one process, or of all.
    pub(crate) fn look(pid: Option<u32>) -> Self {
        Self { kernel: kernel_release(), hz: hz(), jiffies: jiffy_clock(), holders: holders(pid) }
    }
}

/// A connection of interest, with all that is known of it.
pub(crate) struct Live<'a> {
    pub(crate) socket: Socket,
    pub(crate) facts: &'a Facts,
    pub(crate) holders: &'a [Holder],
    pub(crate) inode: u32,
}

fn look(arguments: &AuditArgs) -> Result<Audit> {
    let machine = Machine::look(arguments.pid);
    let here = || -> Result<BTreeMap<u64, Place>> {
        let namespace = Namespace::of_this_thread()?;
        Ok([(namespace.inode(), Place { namespace, container: None })].into())
    };
    let places = if arguments.all { places() } else { here()? };
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
    };
    for connection in found {
        let holders = machine.holders.get(&connection.sample.inode).map_or(&[][..], Vec::as_slice);
        let ports = [connection.local.port(), connection.remote.port()];
        let wanted =
            port.is_none_or(|port| ports.contains(&port)) && (pid.is_none() || !holders.is_empty());
        if wanted {
            let number = connection.sample.inode;
            let socket = socket(&mut facts, connection, holders, (inode, place));
            take(Live { socket, facts: &facts, holders, inode: number });
        }
    }
    Ok(())
}

fn socket(
    facts: &mut Facts,
    connection: Connection,
    holders: &[Holder],
    (namespace, place): (u64, &Place),
) -> Socket {
    let Connection { local, remote, accepted, at_ns, sample } = connection;
    let options = holders.iter().find_map(|holder| holder.options(sample.inode).ok().flatten());
    facts.tcp =
        sample.facts(at_ns, None).map(|tcp| TcpFacts { options_set: options.clone(), ..tcp });
    let mut owners: Vec<_> =
        holders.iter().map(|holder| (holder.owner.pid, holder.owner.process.clone())).collect();
    owners.sort();
    owners.dedup();
    Socket {
        owners,
        local,
        remote,
        accepted,
        state: sample.state,
        namespace,
        container: place.container.clone(),
        receive_queue: sample.receive_queue,
        send_queue: sample.send_queue,
        options,
        sampled_ns: at_ns,
        outlook: model::outlook(facts),
    }
}
