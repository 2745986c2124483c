//! The fixtures are answers of Linux 6.18.44 on `x86_64`.

use super::*;
use proptest::prelude::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4) | pair[1]).collect()
}

fn found(message: &[u8], sequence: u32) -> TcpSocket {
    match messages(message, sequence).next().unwrap().unwrap() {
        Message::Socket(found) => *found,
        answer => panic!("{answer:?}"),
    }
}

#[test]
fn a_socket_whose_keepalive_probes_go_unanswered() {
    let socket = found(&bytes(include_str!("fixtures/keepalive.hex")), 1);
    assert_eq!(socket.local.to_string(), "198.19.253.97:48150");
    assert_eq!(socket.remote.to_string(), "198.19.253.98:7");
    assert_eq!((socket.state, socket.timer, socket.timer_count), (1, 2, 2));
    assert_eq!(socket.timer_expires_ms, 536);
    assert_eq!((socket.receive_queue, socket.send_queue), (300, 0));
    assert_eq!(socket.tcp_info.unwrap().len(), 280);
}

#[test]
fn a_socket_that_retransmits_on_ipv6() {
    let socket = found(&bytes(include_str!("fixtures/retransmission_ipv6.hex")), 1);
    assert_eq!(socket.remote.to_string(), "[2001:2:0:3fae::2]:7");
    assert_eq!((socket.timer, socket.timer_count, socket.timer_expires_ms), (1, 2, 660));
    assert_eq!((socket.receive_queue, socket.send_queue), (300, 100));
}

#[test]
fn a_socket_in_time_wait_has_no_tcp_info_and_no_process() {
    let socket = found(&bytes(include_str!("fixtures/time_wait.hex")), 2);
    assert_eq!((socket.state, socket.timer, socket.timer_expires_ms), (6, 3, 57_500));
    assert_eq!((socket.tcp_info, socket.inode), (None, 0));
}

#[test]
fn a_listener_has_other_ends_than_a_connection() {
    let socket = found(&bytes(include_str!("fixtures/listener.hex")), 1);
    assert_eq!(1 << socket.state, LISTEN);
    assert_eq!(socket.remote.to_string(), "0.0.0.0:0");
}

#[test]
fn a_dual_stack_socket_shows_its_ipv4_addresses() {
    let mut message = bytes(include_str!("fixtures/time_wait.hex"));
    message[NLMSGHDR_LEN] = AF_INET6;
    for (offset, last) in [(24, 1), (40, 2)] {
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 18, 0, last];
        message[offset..offset + 16].copy_from_slice(&mapped);
    }
    let socket = found(&message, 2);
    assert_eq!(socket.local.to_string(), "198.18.0.1:48150");
    assert_eq!(socket.remote.to_string(), "198.18.0.2:7");
}

/// An `NLMSG_ERROR` in answer to question 5.
fn error(errno: i32) -> Vec<u8> {
    let mut message = vec![0; 36];
    message[0] = 36;
    message[4] = 2;
    message[8] = 5;
    message[16..20].copy_from_slice(&(-errno).to_ne_bytes());
    message
}

#[test]
fn errors_acknowledgements_and_answers_to_earlier_questions() {
    let first = |bytes: &[u8], sequence| messages(bytes, sequence).next().map(Result::unwrap);
    assert_eq!(first(&error(libc::ENOENT), 5), Some(Message::Refused(Errno::ENOENT)));
    assert_eq!(first(&error(0), 5), Some(Message::Done));
    assert_eq!(first(&error(libc::ENOENT), 6), None);
    let whole = bytes(include_str!("fixtures/keepalive.hex"));
    for len in 0..whole.len() {
        // Whatever it gives, it does not panic.
        messages(&whole[..len], 1).for_each(drop);
    }
}

#[test]
fn a_datagram_of_several_messages() {
    let mut listing = bytes(include_str!("fixtures/keepalive.hex"));
    listing.extend(bytes(include_str!("fixtures/listener.hex")));
    let sockets = messages(&listing, 1).filter(|m| matches!(m, Ok(Message::Socket(_)))).count();
    assert_eq!(sockets, 2);
}

#[test]
fn a_socket_that_was_listed_is_asked_for_with_its_cookie() {
    let message = bytes(include_str!("fixtures/keepalive.hex"));
    let socket = found(&message, 1);
    let id = message[NLMSGHDR_LEN + 4..NLMSGHDR_LEN + 4 + ID_LEN].to_vec();
    assert_ne!(id[40..], [0xff; 8]);
    let question = Request { family: socket.family, info: false, states: 0, id: socket.id };
    assert_eq!(question.sealed(SOCK_DESTROY, NLM_F_ACK, 9)[24..], id);
    assert_eq!(id_of(socket.local, socket.remote)[..36], id[..36]);
}

/// What the kernel answered, damaged, or anything at all; and the question that it answers.
fn foreign() -> impl Strategy<Value = Vec<u8>> {
    let answers = [
        include_str!("fixtures/keepalive.hex"),
        include_str!("fixtures/retransmission_ipv6.hex"),
        include_str!("fixtures/time_wait.hex"),
        include_str!("fixtures/listener.hex"),
    ]
    .map(bytes);
    prop_oneof![
        damage::bytes(answers.concat()),
        damage::bytes(answers[1].clone()),
        damage::bytes(error(libc::EPERM)),
        prop::collection::vec(any::<u8>(), 0..200),
    ]
}

proptest! {
    #[test]
    fn foreign_answers_are_read_to_their_end(answer in foreign(), sequence in 0..6_u32) {
        let read: Vec<_> = messages(&answer, sequence).collect();
        prop_assert!(read.len() <= answer.len() / NLMSGHDR_LEN + 1, "{read:?}");
        for error in read.into_iter().filter_map(Result::err) {
            prop_assert!(error.to_string().contains("socket diagnostics: it") || error.to_string().contains("family"));
        }
    }
}
