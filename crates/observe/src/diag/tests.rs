//! The fixtures are answers of Linux 6.18.44 on `x86_64`.

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4) | pair[1]).collect()
}

fn found(hex: &str, sequence: u32) -> Found {
    match parse(&bytes(hex), sequence).unwrap() {
        Answer::Socket(found) => *found,
        answer => panic!("{answer:?}"),
    }
}

#[test]
fn a_socket_whose_keepalive_probes_go_unanswered() {
    let Found { ends, sample } = found(include_str!("fixtures/keepalive.hex"), 1);
    assert_eq!(ends.0.to_string(), "198.19.253.97:48150");
    assert_eq!(ends.1.to_string(), "198.19.253.98:7");
    assert_eq!(sample.state, "ESTABLISHED");
    assert_eq!((sample.timer, sample.timer_count, sample.timer_expires_ms), (2, 2, 536));
    assert_eq!((sample.receive_queue, sample.send_queue), (300, 0));
    let info = sample.info.unwrap();
    assert_eq!(info.probes, 2);
    assert_eq!((info.rto_us, info.rtt_us, info.rttvar_us), (204_000, 40, 22));
    assert_eq!((info.last_data_recv_ms, info.last_ack_recv_ms), (2504, 2504));
    assert_eq!((info.bytes_acked, info.bytes_received), (6, 300));
    assert_eq!((info.segs_out, info.segs_in, info.snd_wnd), (6, 3, 65_536));
}

#[test]
fn a_socket_that_retransmits_on_ipv6() {
    let Found { ends, sample } = found(include_str!("fixtures/retransmission_ipv6.hex"), 1);
    assert_eq!(ends.1.to_string(), "[2001:2:0:3fae::2]:7");
    assert_eq!((sample.timer, sample.timer_count, sample.timer_expires_ms), (1, 2, 660));
    assert_eq!((sample.receive_queue, sample.send_queue), (300, 100));
    let info = sample.info.unwrap();
    assert_eq!((info.retransmits, info.backoff, info.rto_us), (2, 2, 816_000));
    assert_eq!((info.total_retrans, info.bytes_retrans, info.total_rto), (3, 300, 2));
    assert_eq!((info.unacked, info.lost, info.retrans), (1, 1, 1));
    assert_eq!(info.options, 7);
}

#[test]
fn a_socket_in_time_wait_has_no_tcp_info() {
    let Found { sample, .. } = found(include_str!("fixtures/time_wait.hex"), 2);
    assert_eq!((sample.state.as_str(), sample.timer), ("TIME_WAIT", 3));
    assert_eq!(sample.timer_expires_ms, 57_500);
    assert_eq!(sample.info, None);
}

#[test]
fn a_listener_has_other_ends_than_a_connection() {
    let Found { ends, sample } = found(include_str!("fixtures/listener.hex"), 1);
    assert_eq!(sample.state, "LISTEN");
    assert_eq!(ends.1.to_string(), "0.0.0.0:0");
}

#[test]
fn a_dual_stack_socket_shows_its_ipv4_addresses() {
    let mut message = bytes(include_str!("fixtures/time_wait.hex"));
    message[NLMSGHDR_LEN] = AF_INET6;
    for (offset, last) in [(24, 1), (40, 2)] {
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 18, 0, last];
        message[offset..offset + 16].copy_from_slice(&mapped);
    }
    let Answer::Socket(found) = parse(&message, 2).unwrap() else { panic!("not a socket") };
    assert_eq!(found.ends.0.to_string(), "198.18.0.1:48150");
    assert_eq!(found.ends.1.to_string(), "198.18.0.2:7");
}

#[test]
fn an_older_kernel_gives_less_of_tcp_info() {
    let message = bytes(include_str!("fixtures/keepalive.hex"));
    let info = attribute(&message[NLMSGHDR_LEN + DIAG_MSG_LEN..], INET_DIAG_INFO).unwrap();
    assert_eq!(info.len(), 280);
    let older = parse_tcp_info(&info[..104]); // up to tcpi_total_retrans: 2.6.x to 3.14
    assert_eq!((older.rto_us, older.bytes_received, older.snd_wnd), (204_000, 0, 0));
}

#[test]
fn offsets_are_those_of_the_c_library() {
    use std::mem::offset_of;
    type Info = libc::tcp_info;
    assert_eq!(offset_of!(Info, tcpi_options), 5);
    assert_eq!(offset_of!(Info, tcpi_rto), 8);
    assert_eq!(offset_of!(Info, tcpi_last_data_recv), 52);
    assert_eq!(offset_of!(Info, tcpi_snd_cwnd), 80);
    assert_eq!(offset_of!(Info, tcpi_total_retrans), 100);
    assert_eq!(offset_of!(Info, tcpi_bytes_acked), 120);
    assert_eq!(offset_of!(Info, tcpi_min_rtt), 148);
    assert_eq!(offset_of!(Info, tcpi_bytes_retrans), 208);
    assert_eq!(offset_of!(Info, tcpi_snd_wnd), 228);
    assert_eq!(offset_of!(Info, tcpi_total_rto), 240);
}

#[test]
fn errors_and_answers_to_earlier_questions() {
    let error = |errno: i32| {
        let mut message = vec![0; 36];
        message[0] = 36;
        message[4] = 2;
        message[8] = 5;
        message[16..20].copy_from_slice(&(-errno).to_ne_bytes());
        message
    };
    assert_eq!(parse(&error(libc::ENOENT), 5).unwrap(), Answer::Failed(Errno::ENOENT));
    assert_eq!(parse(&error(libc::ENOENT), 6).unwrap(), Answer::Stale);
    let whole = bytes(include_str!("fixtures/keepalive.hex"));
    for len in 0..whole.len() {
        let _ = parse(&whole[..len], 1); // whatever it gives, it does not panic
    }
}
