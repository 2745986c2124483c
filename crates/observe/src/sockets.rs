//! The TCP connections that live on this machine, and the processes that have them.

use crate::Error;
use crate::diag::sample_of;
use crate::options::{self, Read};
use netns::Namespace;
use netns::sock_diag::SockDiag;
use spec::SocketOptions;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::rc::Rc;
use timeline::event::{Owner, SocketSample};

/// A connection as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Its own end.
    pub local: SocketAddr,
    /// Its peer's end.
    pub remote: SocketAddr,
    /// Whether something listens at its own port: it was accepted.
    pub accepted: bool,
    /// When the kernel looked, `CLOCK_MONOTONIC`, nanoseconds, to within `sample.within_ns`.
    pub at_ns: u64,
    /// It is a subflow of MPTCP, as far as may be seen: the kernel tells root alone.
    pub is_mptcp: bool,
    /// What it showed.
    pub sample: SocketSample,
}

/// The connections of a namespace. Listeners, requests that are being answered and what is left of
/// connections that are over (TIME_WAIT, and FIN_WAIT2 as a mini-socket) are left out.
///
/// # Errors
/// [`Error::Namespace`] if it cannot be entered, [`Error::System`], [`Error::Malformed`].
pub fn connections(namespace: &Namespace) -> Result<Vec<Connection>, Error> {
    let mut diag = SockDiag::open(namespace)?;
    let mut listening = HashSet::new();
    for ipv6 in [false, true] {
        let listeners = diag.list(ipv6, netns::sock_diag::LISTEN)?;
        listening.extend(listeners.iter().map(|listener| listener.local.port()));
    }
    let mut found = Vec::new();
    for ipv6 in [false, true] {
        found.extend(diag.look(ipv6, CONNECTED)?.into_iter().map(|looked| Connection {
            local: looked.socket.local,
            remote: looked.socket.remote,
            accepted: listening.contains(&looked.socket.local.port()),
            at_ns: looked.at_ns,
            is_mptcp: looked.socket.is_mptcp,
            sample: SocketSample { within_ns: looked.within_ns, ..sample_of(&looked.socket) },
        }));
    }
    found.retain(|connection| connection.sample.info.is_some());
    Ok(found)
}

/// ESTABLISHED, SYN_SENT, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING (include/net/tcp_states.h).
const CONNECTED: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;

/// A process's descriptor of a socket.
#[derive(Debug, Clone)]
pub struct Holder {
    process: Rc<Process>,
    number: RawFd,
}

#[derive(Debug)]
struct Process {
    owner: Owner,
    /// What stays this process when its number is another's; `None` where there are none (before Linux
    /// 5.3), or no more.
    pidfd: Option<OwnedFd>,
}

impl Holder {
    /// The process.
    pub fn owner(&self) -> &Owner {
        &self.process.owner
    }

    /// The options of the socket with this inode, by a duplicate that is closed at once. `None`: the
    /// process no longer has it there.
    ///
    /// # Errors
    /// [`io::Error`]: EPERM without the right to trace the process (`ptrace(2)`), ENOSYS before Linux 5.6.
    pub fn options(&self, inode: u32) -> io::Result<Option<Read>> {
        options::of(self.pidfd()?, self.number, inode)
    }

    /// Sets those options of it that are `Some`, likewise. Says whether the process has it there still.
    /// This changes the socket: nothing that only looks may call it.
    ///
    /// # Errors
    /// As for [`Self::options`]; EINVAL for a value that the kernel does not take.
    pub fn set(&self, inode: u32, wanted: &SocketOptions) -> io::Result<bool> {
        options::set(self.pidfd()?, self.number, inode, wanted)
    }

    fn pidfd(&self) -> io::Result<BorrowedFd<'_>> {
        let pidfd = self.process.pidfd.as_ref().map(AsFd::as_fd);
        pidfd.ok_or_else(|| io::ErrorKind::Unsupported.into())
    }
}

/// The descriptors of sockets, by inode, of every process whose descriptors may be seen, or of one.
/// Processes of other users are not seen without root, nor any that `hidepid` hides, nor those outside
/// this one's PID namespace.
pub fn holders(only: Option<u32>) -> HashMap<u32, Vec<Holder>> {
    let mut found: HashMap<u32, Vec<Holder>> = HashMap::new();
    for pid in only.map_or_else(processes, |pid| vec![pid]) {
        let Some((process, sockets)) = sockets(pid) else { continue };
        for (number, inode) in sockets {
            found.entry(inode).or_default().push(Holder { process: process.clone(), number });
        }
    }
    found
}

/// A process and its sockets. What is read by its number is its own if it runs still when all is read:
/// else another process may have the number by then, and nothing is said of either.
fn sockets(pid: u32) -> Option<(Rc<Process>, Vec<Numbered>)> {
    let pidfd = options::opened(pid).ok().flatten();
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let sockets: Vec<_> =
        descriptors.flatten().filter_map(|descriptor| socket(&descriptor.path())).collect();
    if sockets.is_empty() {
        return None;
    }
    let owner = Owner { pid, process: options::name(pid) };
    let is_same = pidfd.as_ref().is_none_or(|pidfd| options::runs(pidfd.as_fd()));
    is_same.then(|| (Rc::new(Process { owner, pidfd }), sockets))
}

/// A descriptor's number and the inode of its socket.
type Numbered = (RawFd, u32);

/// What a descriptor is, if it is a socket's.
fn socket(path: &Path) -> Option<Numbered> {
    let target = fs::read_link(path).ok()?;
    let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
    Some((path.file_name()?.to_str()?.parse().ok()?, inode.parse().ok()?))
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// A network namespace that processes are in.
#[derive(Debug, Clone)]
pub struct Place {
    /// The namespace.
    pub namespace: Namespace,
    /// Its container, as the control group of a process in it is named, or its name of `ip netns`.
    pub container: Option<String>,
}

/// Every network namespace that a process is in whose `/proc/PID/ns` may be seen, or that `ip netns` keeps,
/// by inode; and of how many processes it may not be seen.
pub fn places() -> (BTreeMap<u64, Place>, usize) {
    let mut found = BTreeMap::new();
    let mut hidden = 0;
    for pid in processes() {
        let namespace = match Namespace::at(Path::new(&format!("/proc/{pid}/ns/net"))) {
            Ok(namespace) => namespace,
            Err(netns::Error::Open(why)) if why.kind() == io::ErrorKind::PermissionDenied => {
                hidden += 1;
                continue;
            }
            // It has ended.
            Err(_) => continue,
        };
        let inode = namespace.inode();
        let place = found.entry(inode).or_insert(Place { namespace, container: None });
        if place.container.is_none() {
            place.container = container(pid);
        }
    }
    // Those that `ip netns` keeps may have no process, and have a name.
    for kept in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let Ok(namespace) = Namespace::at(&kept.path()) else { continue };
        let place = found.entry(namespace.inode()).or_insert(Place { namespace, container: None });
        place
            .container
            .get_or_insert_with(|| options::printable(kept.file_name().as_encoded_bytes()));
    }
    (found, hidden)
}

/// `/system.slice/docker-<id>.scope`, `/docker/<id>`, `…/cri-containerd-<id>.scope`, `…/libpod-<id>.scope`,
/// `/kubepods/…/<id>`, `/lxc/<name>`, `/machine.slice/machine-<name>.scope`: the engine and the name.
fn container(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let groups = text.lines().filter_map(|line| line.rsplit_once(':').map(|(_, path)| path));
    groups
        .flat_map(|path| path.split('/').zip(path.split('/').skip(1)))
        .find_map(name_of)
        .map(|name| options::printable(name.as_bytes()))
}

fn name_of((above, part): (&str, &str)) -> Option<String> {
    let short = |id: &str| id.chars().take(12).collect::<String>();
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let prefixed = ["docker-", "cri-containerd-", "crio-", "libpod-", "machine-"]
        .into_iter()
        .find_map(|prefix| Some((prefix, part.strip_prefix(prefix)?)));
    match (prefixed, above) {
        (Some(("machine-", name)), _) => Some(name.to_owned()),
        (Some((_, id)), _) if !id.contains("conmon") => Some(short(id)),
        _ if part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Some(short(part))
        }
        (_, "docker") => Some(short(part)),
        (_, "lxc" | "lxc.payload") => Some(part.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_process_that_has_ended_nothing_is_said() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let opened = options::opened(child.id()).unwrap().unwrap();
        assert!(options::runs(opened.as_fd()));
        child.kill().unwrap();
        let end = [rustix::event::PollFlags::IN];
        let mut polled = end.map(|flags| rustix::event::PollFd::new(&opened, flags));
        rustix::event::poll(&mut polled, None).unwrap();
        // Not even before it is waited for: its number is free at any moment then.
        assert!(!options::runs(opened.as_fd()));
        assert!(sockets(child.id()).is_none());
        child.wait().unwrap();
        assert!(options::opened(child.id()).unwrap().is_none());
    }

    #[test]
    fn containers_are_named_by_their_control_groups() {
        for (path, expected) in [
            (("system.slice", "docker-0123456789abcdef.scope"), Some("0123456789ab")),
            (("docker", "0123456789abcdef"), Some("0123456789ab")),
            (("x.slice", "cri-containerd-0123456789abcdef.scope"), Some("0123456789ab")),
            (("machine.slice", "machine-web.scope"), Some("web")),
            (("lxc", "web"), Some("web")),
            (("pod1234", &"0123456789abcdef".repeat(4)), Some("0123456789ab")),
            (("system.slice", "ssh.service"), None),
        ] {
            assert_eq!(name_of(path).as_deref(), expected, "{path:?}");
        }
    }
}
