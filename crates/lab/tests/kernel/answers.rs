//! What the router answers, on the real kernel: to rejected packets, and for a server that is off.

use crate::support::{A_WHILE, Trial, build, parameters};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use rstest::rstest;
use spec::Family::{self, Ipv4, Ipv6};
use spec::Neighbour::{Learned, Permanent};
use spec::Reject;
use spec::Topology::Router;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// An ICMP error as a socket gets it.
#[derive(Debug, PartialEq)]
struct Answer {
    kind: u8,
    code: u8,
    from: IpAddr,
}

#[rstest]
#[case(Reject::HostUnreachable, (3, 1), (1, 3))]
#[case(Reject::NetUnreachable, (3, 0), (1, 0))]
#[case(Reject::PortUnreachable, (3, 3), (1, 4))]
#[case(Reject::AdminProhibited, (3, 13), (1, 1))]
#[tokio::test]
async fn a_rejection_is_answered_with_its_own_icmp_code(
    #[case] kind: Reject,
    #[case] in_ipv4: (u8, u8),
    #[case] in_ipv6: (u8, u8),
    #[values(Ipv4, Ipv6)] family: Family,
) {
    let mut trial = build(&parameters(Router, family, Permanent)).await;
    let mut connection = trial.connect();
    trial.network.reject(kind).await.unwrap();
    let (kind, code) = if family == Ipv4 { in_ipv4 } else { in_ipv6 };
    let expected = Answer { kind, code, from: trial.addresses.client_gateway.unwrap() };
    assert_eq!(ask(&trial, A_WHILE), Some(expected));
    assert!(connection.is_silent());
    trial.assert_client_has_carrier().await;

    trial.network.restore().await.unwrap();
    trial.connect();
}

#[rstest]
#[tokio::test]
async fn a_rejection_by_reset_ends_a_connection_on_both_sides(
    #[values(Ipv4, Ipv6)] family: Family,
) {
    let mut trial = build(&parameters(Router, family, Permanent)).await;
    let mut connection = trial.connect();
    trial.network.reject(Reject::TcpReset).await.unwrap();
    for end in [&mut connection.client, &mut connection.server] {
        end.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        end.write_all(b"x").unwrap();
        let error = end.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
}

#[rstest]
#[tokio::test]
async fn the_router_tells_that_a_server_is_off_once_it_cannot_be_resolved(
    #[values(Ipv4, Ipv6)] family: Family,
) {
    let mut trial = build(&parameters(Router, family, Permanent)).await;
    let _connection = trial.connect();
    trial.network.cut().await.unwrap();
    let (kind, code) = if family == Ipv4 { (3, 1) } else { (1, 3) };
    let expected = Answer { kind, code, from: trial.addresses.client_gateway.unwrap() };
    let began = Instant::now();
    assert_eq!(ask(&trial, Duration::from_secs(6)), Some(expected));
    // Three requests a second apart: net.*.neigh.*.mcast_solicit and retrans_time_ms.
    let took = began.elapsed();
    assert!(took > Duration::from_millis(2900) && took < Duration::from_secs(5), "{took:?}");
}

#[rstest]
#[tokio::test]
async fn a_router_that_has_learned_its_neighbours_is_silent_at_first(
    #[values(Ipv4, Ipv6)] family: Family,
) {
    let mut trial = build(&parameters(Router, family, Learned)).await;
    let _connection = trial.connect();
    trial.network.cut().await.unwrap();
    assert_eq!(ask(&trial, Duration::from_secs(4)), None);
}

#[rstest]
#[tokio::test]
async fn a_black_hole_behind_a_router_has_no_answer(#[values(Ipv4, Ipv6)] family: Family) {
    let mut trial = build(&parameters(Router, family, Permanent)).await;
    let _connection = trial.connect();
    trial.network.blackhole(None).await.unwrap();
    assert_eq!(ask(&trial, Duration::from_secs(4)), None);
}

/// Sends the server a datagram from the client, and returns the ICMP error that comes back.
fn ask(trial: &Trial, patience: Duration) -> Option<Answer> {
    let mut here = trial.addresses.client;
    here.set_port(0);
    let socket = trial.network.client().run(|| UdpSocket::bind(here)).unwrap().unwrap();
    if here.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true).unwrap();
    } else {
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true).unwrap();
    }
    socket.connect(trial.addresses.server).unwrap();
    socket.send(b"is anybody there?").unwrap();
    let began = Instant::now();
    while began.elapsed() < patience {
        if let Some(answer) = read_error(&socket) {
            return Some(answer);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

fn read_error(socket: &UdpSocket) -> Option<Answer> {
    let mut control = vec![0; 512];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut [], Some(&mut control), flags).ok()?;
    message.cmsgs().unwrap().find_map(|message| match message {
        ControlMessageOwned::Ipv4RecvErr(error, Some(from)) => Some(Answer {
            kind: error.ee_type,
            code: error.ee_code,
            from: IpAddr::from(from.sin_addr.s_addr.to_ne_bytes()),
        }),
        ControlMessageOwned::Ipv6RecvErr(error, Some(from)) => Some(Answer {
            kind: error.ee_type,
            code: error.ee_code,
            from: IpAddr::from(from.sin6_addr.s6_addr),
        }),
        _ => None,
    })
}
