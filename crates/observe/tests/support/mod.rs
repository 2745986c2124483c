//! Two nameless namespaces joined by one veth pair, and a TCP connection between them.

use netns::Namespace;
use nix::errno::Errno;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Socket, Type};
use spec::{Addresses, Family, Topology};
use std::io::{IoSliceMut, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The interface of each host.
pub(crate) const INTERFACE: &str = "eth0";

/// A client and a server, whose neighbour entries are permanent.
pub(crate) struct Pair {
    pub(crate) client: Namespace,
    pub(crate) server: Namespace,
    pub(crate) addresses: Addresses,
    family: Family,
    /// While it is there, packets are stamped.
    _stamping: UdpSocket,
}

impl Pair {
    /// Hosts on the addresses of `lease`.
    pub(crate) fn new(lease: u16, family: Family) -> Self {
        let client_port = 40_000 + lease;
        let addresses = Addresses::new(lease, family, Topology::Direct, client_port, 7);
        let client = Namespace::create().expect("these tests need root, or `unshare -r`");
        let server = Namespace::create().expect("a second namespace");
        let server_path = format!("/proc/{}/fd/{}", std::process::id(), server.as_raw_fd());
        let (client_ip, server_ip, prefix) =
            (addresses.client.ip(), addresses.server.ip(), addresses.prefix_len);
        let nodad = if family == Family::Ipv6 { "nodad" } else { "" };
        let (client_mac, server_mac) = ("02:00:00:00:00:01", "02:00:00:00:00:02");
        sysctl(&client, "net/ipv6/conf/default/accept_ra", "0");
        ip(
            &client,
            &format!(
                "link add {INTERFACE} address {client_mac} type veth \
                 peer name {INTERFACE} address {server_mac} netns {server_path}\n\
                 link set {INTERFACE} up\n"
            ),
        );
        for (host, own, peer, peer_mac) in [
            (&client, client_ip, server_ip, server_mac),
            (&server, server_ip, client_ip, client_mac),
        ] {
            ip(
                host,
                &format!(
                    "link set {INTERFACE} up\n\
                     address add {own}/{prefix} dev {INTERFACE} {nodad}\n\
                     neighbour add {peer} lladdr {peer_mac} dev {INTERFACE} nud permanent\n"
                ),
            );
        }
        await_carrier(&client);
        await_carrier(&server);
        let passes = await_datagram([(&client, client_ip), (&server, server_ip)]);
        Self { client, server, addresses, family, _stamping: passes }
    }

    pub(crate) fn listen(&self) -> TcpListener {
        self.server.run(|| TcpListener::bind(self.addresses.server).unwrap()).unwrap()
    }

    /// The client's end, from its fixed port; blocking.
    pub(crate) fn connect(&self) -> TcpStream {
        let domain = match self.family {
            Family::Ipv4 => Domain::IPV4,
            Family::Ipv6 => Domain::IPV6,
        };
        let socket = self.client.run(|| Socket::new(domain, Type::STREAM, None).unwrap()).unwrap();
        socket.bind(&self.addresses.client.into()).unwrap();
        socket.connect(&self.addresses.server.into()).unwrap();
        socket.set_tcp_nodelay(true).unwrap();
        socket.into()
    }

    /// Connections of this one process, on ports that nobody knows beforehand, one after the other.
    pub(crate) fn connect_anywhere(&self, count: usize) -> Vec<(TcpStream, TcpStream)> {
        let server = (self.addresses.server.ip(), 0);
        let listener = self.server.run(|| TcpListener::bind(server).unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let connect = || {
            let client = self.client.run(|| TcpStream::connect(address).unwrap()).unwrap();
            (client, listener.accept().unwrap().0)
        };
        std::iter::repeat_with(connect).take(count).collect()
    }

    /// The server's host stops answering: its address goes, so that it drops what arrives for it.
    pub(crate) fn silence_server(&self) {
        let Addresses { server, prefix_len, .. } = self.addresses;
        ip(&self.server, &format!("address del {}/{prefix_len} dev {INTERFACE}\n", server.ip()));
    }
}

/// Sends datagrams from one host to the other until one has come, and has the time of its arrival. Until then
/// kworkers have work left: an IPv6 address is not there yet (`addrconf_dad_work`), and nothing is stamped before
/// it is read, whoever wants it (`net_enable_timestamp`).
fn await_datagram([from, to]: [(&Namespace, IpAddr); 2]) -> UdpSocket {
    let [sender, receiver] =
        [from, to].map(|(host, ip)| host.run(|| UdpSocket::bind((ip, 0)).unwrap()).unwrap());
    sender.connect(receiver.local_addr().unwrap()).unwrap();
    setsockopt(&receiver, sockopt::ReceiveTimestampns, &true).unwrap();
    let mut control = nix::cmsg_space!(libc::timespec);
    loop {
        sender.send(&[0]).unwrap();
        std::thread::sleep(Duration::from_millis(1));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let (mut byte, control) = ([0], Some(&mut control[..]));
        let (fd, flags) = (receiver.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        let mut buffers = [IoSliceMut::new(&mut byte)];
        let message = match recvmsg::<()>(fd, &mut buffers, control, flags) {
            Err(Errno::EAGAIN) => continue,
            message => message.unwrap(),
        };
        let is_of_arrival = |control| match control {
            ControlMessageOwned::ScmTimestampns(time) => Duration::from(time) < now,
            _ => false,
        };
        if message.cmsgs().unwrap().any(is_of_arrival) {
            return receiver;
        }
    }
}

/// Until then the kernel drops what is sent, and the first SYN would be sent again after a second.
pub(crate) fn await_carrier(host: &Namespace) {
    let is_running = || {
        nix::ifaddrs::getifaddrs().unwrap().any(|address| {
            address.interface_name == INTERFACE
                && address.flags.contains(InterfaceFlags::IFF_RUNNING)
        })
    };
    let began = Instant::now();
    while !host.run(is_running).unwrap() {
        assert!(began.elapsed() < Duration::from_secs(5), "no carrier");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(2)); // the queue is switched on just after it
}

/// Writes a sysctl of a namespace.
pub(crate) fn sysctl(namespace: &Namespace, path: &str, value: &str) {
    namespace
        .run(|| std::fs::write(format!("/proc/sys/{path}"), value))
        .unwrap()
        .unwrap_or_else(|error| panic!("writing {value} to {path}: {error}"));
}

/// Runs `ip -batch` inside a namespace.
pub(crate) fn ip(namespace: &Namespace, batch: &str) {
    let output = namespace
        .run(|| {
            let mut child = Command::new("ip")
                .args(["-batch", "-"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("these tests need the program `ip` (package iproute2)");
            child.stdin.take().unwrap().write_all(batch.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        })
        .unwrap();
    assert!(output.status.success(), "{batch}{}", String::from_utf8_lossy(&output.stderr));
}
