//! What the tests of networks share.

use lab::network::{LinkState, Network};
use netns::Namespace;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use spec::{Addresses, Family, Neighbour, Parameters, Topology};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// Long enough for a frame to arrive if it arrives at all, on a machine that is busy.
pub(crate) const A_WHILE: Duration = Duration::from_millis(400);
const GENEROUS: Duration = Duration::from_secs(10);

/// One plan, and the network built to it.
pub(crate) struct Trial {
    pub(crate) network: Network,
    pub(crate) addresses: Addresses,
}

/// Parameters of a trial without delay.
pub(crate) fn parameters(topology: Topology, family: Family, neighbour: Neighbour) -> Parameters {
    Parameters { topology, family, neighbour, ..Parameters::default() }
}

/// Builds a network at addresses of its own.
pub(crate) async fn build(parameters: &Parameters) -> Trial {
    let addresses = lease(parameters);
    let network = Network::build(&addresses, parameters).await.unwrap_or_else(|error| {
        panic!("{error}\n(these tests need root, or a user namespace: `unshare -Urnm cargo test`)")
    });
    Trial { network, addresses }
}

/// Addresses that no other test of this process uses.
pub(crate) fn lease(parameters: &Parameters) -> Addresses {
    static NEXT: AtomicU16 = AtomicU16::new(7000);
    let lease = NEXT.fetch_add(1, Ordering::Relaxed);
    Addresses::new(lease, parameters.family, parameters.topology, 0, 7)
}

/// A TCP connection across the network.
pub(crate) struct Connection {
    pub(crate) client: TcpStream,
    pub(crate) server: TcpStream,
}

impl Trial {
    pub(crate) fn server(&self) -> &Namespace {
        self.network.server().expect("the server is there")
    }

    /// Connects, and proves it with an exchange.
    pub(crate) fn connect(&self) -> Connection {
        let mut connection = self.connect_far(GENEROUS);
        assert!(connection.carries(), "a fresh connection carries data");
        connection
    }

    /// Connects across a path so long that no exchange would be done in a while.
    pub(crate) fn connect_far(&self, patience: Duration) -> Connection {
        let address = self.addresses.server;
        let listener = self.server().run(|| TcpListener::bind(address)).unwrap().unwrap();
        let client = self
            .network
            .client()
            .run(|| TcpStream::connect_timeout(&address, patience))
            .unwrap()
            .expect("the network carries a connection");
        let (server, from) = listener.accept().unwrap();
        assert_eq!(from.ip(), self.addresses.client.ip());
        Connection { client, server }
    }

    /// Whether a connection comes about in this time.
    pub(crate) fn can_connect(&self, patience: Duration) -> bool {
        let address = self.addresses.server;
        let _listener = self.server().run(|| TcpListener::bind(address)).unwrap().unwrap();
        let connect = || TcpStream::connect_timeout(&address, patience).is_ok();
        self.network.client().run(connect).unwrap()
    }

    /// The server asks for the client's link-layer address, and so tells its own.
    pub(crate) fn server_speaks_first(&self) {
        let mut nobody = self.addresses.client;
        nobody.set_port(9);
        let refused = self
            .server()
            .run(|| TcpStream::connect_timeout(&nobody, GENEROUS))
            .unwrap()
            .unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
    }

    /// The beginnings of the frames that pass the hosts' interfaces.
    pub(crate) async fn listen(&self, time: Duration) -> Vec<Vec<u8>> {
        let open = || {
            let all = Some(SockProtocol::EthAll);
            socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_NONBLOCK, all)
        };
        let taps =
            [self.network.client(), self.server()].map(|host| host.run(open).unwrap().unwrap());
        tokio::time::sleep(time).await;
        let mut frames = Vec::new();
        for tap in &taps {
            let mut buffer = [0; 80];
            while let Ok(len) = nix::unistd::read(tap, &mut buffer) {
                frames.push(buffer[..len].to_vec());
            }
        }
        frames
    }

    pub(crate) async fn link(&self, name: &str) -> LinkState {
        let links = self.network.links().await.unwrap();
        links
            .iter()
            .find(|link| link.interface == name)
            .unwrap_or_else(|| panic!("{links:?}"))
            .clone()
    }

    pub(crate) async fn assert_client_has_carrier(&self) {
        let link = self.link("client").await;
        assert!(link.exists && link.up && link.carrier, "{link:?}");
    }
}

impl Connection {
    /// Whether data pass now, both ways.
    pub(crate) fn carries(&mut self) -> bool {
        passes(&mut self.client, &mut self.server) && passes(&mut self.server, &mut self.client)
    }

    /// What [`Self::is_silent`] sent in vain arrives: retransmitted, once, both ways.
    pub(crate) fn assert_recovers(&mut self) {
        for stream in [&mut self.client, &mut self.server] {
            stream.set_read_timeout(Some(GENEROUS)).unwrap();
            assert_eq!(stream.read(&mut [0; 64]).unwrap(), 1);
        }
    }

    /// Whether data pass in neither direction.
    pub(crate) fn is_silent(&mut self) -> bool {
        !passes(&mut self.client, &mut self.server) && !passes(&mut self.server, &mut self.client)
    }
}

fn passes(from: &mut TcpStream, to: &mut TcpStream) -> bool {
    to.set_read_timeout(Some(A_WHILE)).unwrap();
    if from.write_all(b"x").is_err() {
        return false;
    }
    let mut buffer = [0; 64];
    match to.read(&mut buffer) {
        Ok(count) => count > 0,
        Err(error) => {
            assert!(
                matches!(
                    error.kind(),
                    ErrorKind::WouldBlock
                        | ErrorKind::HostUnreachable
                        | ErrorKind::NetworkUnreachable
                        | ErrorKind::ConnectionReset
                        | ErrorKind::ConnectionRefused
                ),
                "{error}"
            );
            false
        }
    }
}
