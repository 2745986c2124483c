//! `halfopen audit`: when would the connections on this machine find out that their peers have gone?
//! Looks, and never touches.

use crate::cli::{AuditArgs, AuditFormat};
use crate::output::{self, Exit};
use anyhow::{Context, Result};
use lab::sysctl;
use netns::Namespace;
use observe::clock::{hz, jiffy_clock, kernel_release};
use observe::sockets::{Connection, Holder, Place, connections, holders, places};
use report::audit::{self, Audit, Socket};
use spec::Facts;
use spec::facts::{JiffyClock, TcpFacts};
use std::collections::{BTreeMap, HashMap};

pub(crate) fn run(arguments: &AuditArgs) -> Exit {
    match look(arguments) {
        Ok(audit) => tell(arguments, &audit),
        Err(error) => output::fail(Exit::SKIPPED, &error),
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
    };
    let over = |limit| audit.sockets.iter().any(|socket| socket.is_over(limit));
    let exit = if arguments.over.is_some_and(over) { Exit::DISAGREES } else { Exit::AGREES };
    exit.and(written)
}

/// What does not change from one connection to the next.
struct Machine {
    kernel: String,
    hz: u32,
    jiffies: Option<JiffyClock>,
    holders: HashMap<u32, Vec<Holder>>,
}

fn look(arguments: &AuditArgs) -> Result<Audit> {
    let machine = Machine {
        kernel: kernel_release(),
        hz: hz(),
        jiffies: jiffy_clock(),
        holders: holders(arguments.pid),
    };
    let here = || -> Result<BTreeMap<u64, Place>> {
        let namespace = Namespace::of_this_thread()?;
        Ok([(namespace.inode(), Place { namespace, container: None })].into())
    };
    let places = if arguments.all { places() } else { here()? };
    let mut sockets = Vec::new();
    for (inode, place) in places {
        match of_place(&machine, inode, &place, arguments) {
            Ok(found) => sockets.extend(found),
            // A namespace can end meanwhile, or belong to another user.
            Err(error) if arguments.all => tracing::warn!("network namespace {inode}: {error:#}"),
            Err(error) => return Err(error),
        }
    }
    Ok(Audit { kernel: machine.kernel, hz: machine.hz, sockets })
}

fn of_place(
    machine: &Machine,
    inode: u64,
    place: &Place,
    arguments: &AuditArgs,
) -> Result<Vec<Socket>> {
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
    let mut sockets = Vec::new();
    for connection in found {
        let holders = machine.holders.get(&connection.sample.inode).map_or(&[][..], Vec::as_slice);
        let ports = [connection.local.port(), connection.remote.port()];
        let wanted = arguments.port.is_none_or(|port| ports.contains(&port))
            && (arguments.pid.is_none() || !holders.is_empty());
        if wanted {
            sockets.push(socket(&mut facts, connection, holders, (inode, place)));
        }
    }
    Ok(sockets)
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
