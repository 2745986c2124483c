use super::*;
use crate::layout::{CLIENT, SERVER};
use crate::link::state;
use crate::wiring::{Breakage, Built, Wiring};
use netns::packet::PacketSocket;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use spec::{Addresses, Family, FaultAct, Neighbour, Parameters, Topology};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

/// Needs root, or a user namespace around it.
#[test]
fn trials_at_one_bridge_see_nothing_of_each_other() {
    for (lease, family) in [(8001, Family::Ipv4), (8003, Family::Ipv6)] {
        let parameters = Parameters { family, ..Parameters::default() };
        let [mine, others] = [0, 1].map(|next| Trial::new(lease + next, &parameters));
        let [my_server, other_client, other_server] = [
            watch(&mine.built.server, SERVER),
            watch(&others.built.client, CLIENT),
            watch(&others.built.server, SERVER),
        ];
        assert_eq!(
            switch(&mine).place.namespace().inode(),
            switch(&others).place.namespace().inode()
        );
        mine.connect();
        assert!(heard(&my_server) > 2, "a connection");
        let address = (mine.addresses.client.ip(), 0);
        let udp = mine.built.client.run(|| UdpSocket::bind(address)).unwrap().unwrap();
        udp.set_broadcast(true).unwrap();
        udp.send_to(b"anybody?", all_or_nobody(mine.addresses.server)).unwrap();
        // A server that is gone: what is for it must not be flooded.
        let done = mine.built.wiring.break_by(Breakage::Cut, Some(&mine.built.server)).unwrap();
        assert_eq!(done, FaultAct::PortDown);
        udp.send_to(b"gone", mine.addresses.server).unwrap();
        assert_eq!([heard(&other_client), heard(&other_server)], [0, 0], "{family:?}");
        others.connect();
        assert!(heard(&other_client) >= 2 && heard(&other_server) >= 2, "{family:?}");
    }
}

/// Nobody who may speak to all shares a bridge.
#[test]
fn who_asks_for_addresses_has_a_switch_alone() {
    for (topology, neighbour, shared) in [
        (Topology::Switch, Neighbour::Permanent, true),
        (Topology::Switch, Neighbour::Learned, false),
        (Topology::Router, Neighbour::Permanent, false),
    ] {
        let parameters = Parameters { topology, neighbour, ..Parameters::default() };
        let trial = Trial::new(8005, &parameters);
        assert_eq!(switch(&trial).place.is_shared(), shared, "{topology:?} {neighbour:?}");
        trial.connect();
    }
}

struct Trial {
    built: Built,
    addresses: Addresses,
}

impl Trial {
    fn new(lease: u16, parameters: &Parameters) -> Self {
        let addresses = Addresses::new(lease, parameters.family, parameters.topology, 7001, 7002);
        let built = Wiring::build(&Layout::new(&addresses, parameters)).unwrap();
        Self { built, addresses }
    }

    fn connect(&self) {
        let server = self.addresses.server;
        let listener = self.built.server.run(|| TcpListener::bind(server)).unwrap().unwrap();
        self.built.client.run(|| TcpStream::connect(server)).unwrap().unwrap();
        listener.accept().unwrap();
    }
}

fn switch(trial: &Trial) -> &Switch {
    trial.built.wiring.switch().unwrap()
}

/// What comes in on a host's interface from now on.
fn watch(host: &Namespace, index: Index) -> PacketSocket {
    let mut rtnl = Rtnl::open(host).unwrap();
    assert!(state(&mut rtnl, index).unwrap().is_some_and(|state| state.running));
    let socket = host.run(PacketSocket::open).unwrap().unwrap();
    socket.ignore_outgoing().unwrap();
    socket.bind(index).unwrap();
    socket
}

/// How many frames have come since. A frame that is sent is there when `send` returns, or soon after.
fn heard(socket: &PacketSocket) -> usize {
    std::thread::sleep(Duration::from_millis(50));
    let mut buffer = [0; 2048];
    let frames = std::iter::from_fn(|| {
        match recv(socket.as_fd().as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN) => None,
            frame => Some(frame.unwrap()),
        }
    });
    frames.count()
}

/// The broadcast address of an IPv4 subnet of four; of IPv6 an address that has to be asked for.
fn all_or_nobody(server: SocketAddr) -> SocketAddr {
    match server {
        SocketAddr::V4(server) => SocketAddr::from((server.ip() | Ipv4Addr::new(0, 0, 0, 3), 9)),
        SocketAddr::V6(server) => SocketAddr::from((server.ip() | Ipv6Addr::from(0xff), 9)),
    }
}

/// A host that has gone is not taken for one that comes while its end is waited for.
#[test]
fn a_host_that_has_gone_is_not_one_that_comes() {
    let parameters = Parameters::default();
    let gone = Trial::new(8006, &parameters);
    let number = switch(&gone).last_number(&gone.built.client).unwrap();
    let Built { client, server, wiring, .. } = gone.built;
    wiring.end_client(client, Neighbour::Permanent).unwrap();
    wiring.end_server(server, Neighbour::Permanent).unwrap();
    let switch = wiring.switch().unwrap();
    let mut come = Vec::new();
    // The kernel gives a number away again once it has cleaned up.
    for lease in 8007..8017 {
        come.push(Trial::new(lease, &parameters));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!switch.knows(number).unwrap(), "{} came", come.len());
    }
}
