use super::*;
use proptest::prelude::*;

/// `struct tcp_info` of a socket whose keepalive probes go unanswered: the last 280 bytes of the
/// answer of Linux 6.18.44 on `x86_64` that holds it.
fn tcp_info() -> Vec<u8> {
    let hex = include_str!("fixtures/tcp_info.hex");
    let digits: Vec<u8> =
        hex.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4) | pair[1]).collect()
}

#[test]
fn tcp_info_of_a_socket_whose_keepalive_probes_go_unanswered() {
    let info = parse_tcp_info(&tcp_info());
    assert_eq!(info.probes, 2);
    assert_eq!((info.rto_us, info.rtt_us, info.rttvar_us), (204_000, 40, 22));
    assert_eq!((info.last_data_recv_ms, info.last_ack_recv_ms), (2504, 2504));
    assert_eq!((info.bytes_acked, info.bytes_received), (6, 300));
    assert_eq!((info.segs_out, info.segs_in, info.snd_wnd), (6, 3, 65_536));
}

#[test]
fn an_older_kernel_gives_less_of_tcp_info() {
    let older = parse_tcp_info(&tcp_info()[..104]); // up to tcpi_total_retrans: 2.6.x to 3.14
    assert_eq!((older.rto_us, older.bytes_received, older.snd_wnd), (204_000, 0, 0));
}

#[test]
fn states_have_the_kernels_names() {
    assert_eq!(state_name(1), "ESTABLISHED");
    assert_eq!(state_name(8), "CLOSE_WAIT");
    assert_eq!(state_name(12), "NEW_SYN_RECV");
    assert_eq!(state_name(99), "STATE_99");
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

proptest! {
    #[test]
    fn foreign_tcp_info_is_read(info in damage::bytes(tcp_info()), state in any::<u32>()) {
        parse_tcp_info(&info);
        prop_assert!(!state_name(state).is_empty());
    }
}
