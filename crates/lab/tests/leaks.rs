//! Networks that are dropped leave nothing behind. One test in a process of its own: it counts
//! descriptors and threads. Needs root, or a user namespace around it (`unshare -Urnm`).

use lab::network::Network;
use netlink_sys::{Socket, SocketAddr};
use netns::Namespace;
use spec::{Addresses, Family, Parameters, Topology};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

#[tokio::test]
async fn whatever_is_dropped_ends() {
    let witness = Witness::new();
    // The runtime's own threads and descriptors stay: have them there first.
    tokio::task::spawn_blocking(|| ()).await.unwrap();
    let before = Holdings::of_this_process();
    let mut lease = 6000;
    for topology in [Topology::Switch, Topology::Router, Topology::Direct] {
        for family in [Family::Ipv4, Family::Ipv6] {
            for rtt in [Duration::ZERO, Duration::from_millis(5)] {
                if topology == Topology::Direct && !rtt.is_zero() {
                    continue;
                }
                let mut parameters = Parameters { topology, family, ..Parameters::default() };
                parameters.path.rtt = rtt;
                let addresses = Addresses::new(lease, family, topology, 0, 7);
                lease += 1;
                break_and_drop(&witness, &addresses, &parameters).await;
                give_up_halfway(&addresses, &parameters).await;
                fail_halfway(&addresses, parameters).await;
            }
        }
    }
    let began = Instant::now();
    loop {
        let (left, now) = (witness.namespaces(), Holdings::of_this_process());
        if left == 0 && now == before {
            return;
        }
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{left} namespaces are left; before: {before:?}, now: {now:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A network dropped in the midst of a fault, with a connection whose ends are orphans.
async fn break_and_drop(witness: &Witness, addresses: &Addresses, parameters: &Parameters) {
    let mut network = Network::build(addresses, parameters).await.expect("these tests need root");
    let server = network.server().unwrap();
    witness.watch(network.client());
    witness.watch(server);
    assert!(witness.namespaces() >= 2, "the witness sees them");
    let listener = server.run(|| TcpListener::bind(addresses.server)).unwrap().unwrap();
    let client = network.client().run(|| TcpStream::connect(addresses.server)).unwrap().unwrap();
    let (server, _) = listener.accept().unwrap();
    if parameters.topology == Topology::Direct {
        network.unplug().await.unwrap();
    } else {
        network.cut().await.unwrap();
    }
    drop((client, server, listener));
}

/// A build whose caller has lost patience.
async fn give_up_halfway(addresses: &Addresses, parameters: &Parameters) {
    let build = Network::build(addresses, parameters);
    tokio::time::timeout(Duration::from_micros(500), build).await.ok();
}

/// A build that fails.
async fn fail_halfway(addresses: &Addresses, mut parameters: Parameters) {
    parameters.server_sysctl.insert("tcp_no_such_thing".into(), "1".into());
    Network::build(addresses, &parameters).await.unwrap_err();
}

/// What this process holds. A namespace that no descriptor, thread or socket of it holds any more
/// is not its doing.
#[derive(Debug, PartialEq)]
struct Holdings {
    descriptors: usize,
    relays: usize,
}

impl Holdings {
    fn of_this_process() -> Self {
        let list = |path| std::fs::read_dir(path).unwrap().filter_map(Result::ok);
        let is_relay = |task: &std::fs::DirEntry| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "relay\n")
        };
        Self {
            descriptors: list("/proc/self/fd").count(),
            relays: list("/proc/self/task").filter(is_relay).count(),
        }
    }
}

/// A namespace that knows others by number: the kernel forgets a number when, and only when, the
/// namespace has ended (`unhash_nsid`, net/core/net_namespace.c).
struct Witness {
    netlink: Socket,
}

// include/uapi/linux/rtnetlink.h, net_namespace.h
const RTM_NEWNSID: u16 = 88;
const RTM_GETNSID: u16 = 90;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;

impl Witness {
    fn new() -> Self {
        let here = Namespace::create().expect("these tests need root");
        let netlink = here.run(|| Socket::new(libc::NETLINK_ROUTE as isize)).unwrap().unwrap();
        Self { netlink }
    }

    fn watch(&self, namespace: &Namespace) {
        let attribute = |kind: u16, value: i32| {
            [&8u16.to_ne_bytes()[..], &kind.to_ne_bytes(), &value.to_ne_bytes()].concat()
        };
        // Any number will do.
        let attributes =
            [attribute(NETNSA_NSID, -1), attribute(NETNSA_FD, namespace.as_raw_fd())].concat();
        let answer = self.ask(RTM_NEWNSID, libc::NLM_F_ACK, &attributes);
        let error = i32::from_ne_bytes(answer[16..20].try_into().unwrap());
        assert_eq!(error, 0, "{}", std::io::Error::from_raw_os_error(-error));
    }

    /// How many of those that it watches are left.
    fn namespaces(&self) -> usize {
        let mut answer = self.ask(RTM_GETNSID, libc::NLM_F_DUMP, &[]);
        let mut count = 0;
        loop {
            let mut rest = answer.as_slice();
            while rest.len() >= 16 {
                let len = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
                match u16::from_ne_bytes(rest[4..6].try_into().unwrap()) {
                    RTM_NEWNSID => count += 1,
                    _ => return count,
                }
                rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
            }
            answer = self.netlink.recv_from_full().unwrap().0;
        }
    }

    fn ask(&self, kind: u16, flags: i32, attributes: &[u8]) -> Vec<u8> {
        // struct nlmsghdr; struct rtgenmsg: family, padded.
        let len = (20 + attributes.len()) as u32;
        let flags = (flags | libc::NLM_F_REQUEST) as u16;
        let mut message =
            [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes()].concat();
        message.resize(20, 0);
        message.extend_from_slice(attributes);
        self.netlink.send_to(&message, &SocketAddr::new(0, 0), 0).unwrap();
        self.netlink.recv_from_full().unwrap().0
    }
}
