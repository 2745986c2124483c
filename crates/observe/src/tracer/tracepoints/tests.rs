//! Formats and records of Linux 6.18.44 on `x86_64`; the records are those of perf, which pads
//! them.

use super::*;
use proptest::prelude::*;

fn text(kind: Kind) -> &'static str {
    match kind {
        Kind::SetState => include_str!("../fixtures/inet_sock_set_state.format"),
        Kind::ErrorReport => include_str!("../fixtures/inet_sk_error_report.format"),
        Kind::Retransmit => include_str!("../fixtures/tcp_retransmit_skb.format"),
        Kind::SendReset => include_str!("../fixtures/tcp_send_reset.format"),
        Kind::ReceiveReset => include_str!("../fixtures/tcp_receive_reset.format"),
        Kind::TimerStart => include_str!("../fixtures/timer_start.format"),
        Kind::TimerExpire => include_str!("../fixtures/timer_expire_entry.format"),
    }
}

fn reader(kind: Kind) -> Reader {
    Reader::new(kind, &Format::parse(text(kind)).unwrap()).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4) | pair[1]).collect()
}

fn saw(kind: Kind, hex: &str) -> Saw {
    reader(kind).read(&bytes(hex)).unwrap().saw
}

fn socket(socket: u64, local: &str, remote: &str, did: SocketDid) -> Saw {
    Saw::Socket { socket, local: local.parse().unwrap(), remote: remote.parse().unwrap(), did }
}

#[test]
fn a_state_change() {
    let record = "ef080001a757000080dc45048188ffff0a000000070000006d1b0000020006000a6302020000000000\
                  000000000000000000ffff0a63020200000000000000000000ffff0000000000000000";
    let expected = socket(
        0xffff_8881_0445_dc80,
        "10.99.2.2:7021",
        "0.0.0.0:0",
        SocketDid::SetState { old: 10, new: 7 },
    );
    assert_eq!(saw(Kind::SetState, record), expected);
    assert_eq!(reader(Kind::SetState).read(&bytes(record)).unwrap().pid, 0x57a7);
}

#[test]
fn an_error_on_ipv4_and_on_ipv6() {
    let record = "ee083402a75400006e000000efbb070002000600c613faf1c613faf200000000000000000000ffff\
                  c613faf100000000000000000000ffffc613faf2";
    let ends = ("198.19.250.241:48111", "198.19.250.242:7");
    let did = SocketDid::ReportError { error: libc::ETIMEDOUT };
    assert_eq!(saw(Kind::ErrorReport, record), socket(0, ends.0, ends.1, did));

    let record = "ee081003b956000068000000f4bb07000a0006007f0000060000000020010002000\
                  03f6800000000000000012001000200003f680000000000000002";
    let ends = ("[2001:2:0:3f68::1]:48116", "[2001:2:0:3f68::2]:7");
    let did = SocketDid::ReportError { error: libc::ECONNRESET };
    assert_eq!(saw(Kind::ErrorReport, record), socket(0, ends.0, ends.1, did));
}

#[test]
fn a_retransmission_with_and_without_its_result() {
    let record = "e90834029d5700000076a32d8188ffff8037c7108188ffff040000005f1bfb6502000a6302020a63\
                  010100000000000000000000ffff0a63020200000000000000000000ffff0a63010100008fffffff\
                  00000000";
    let with = |err| {
        socket(
            0xffff_8881_10c7_3780,
            "10.99.2.2:7007",
            "10.99.1.1:26107",
            SocketDid::Retransmit { err },
        )
    };
    assert_eq!(saw(Kind::Retransmit, record), with(Some(-libc::EHOSTUNREACH)));

    let older = include_str!("../fixtures/tcp_retransmit_skb.format").replace("int err;", "int x;");
    let reader = Reader::new(Kind::Retransmit, &Format::parse(&older).unwrap()).unwrap();
    assert_eq!(reader.read(&bytes(record)).unwrap().saw, with(None));
}

#[test]
fn resets() {
    let sent = "e8080001b956000000000000000000008093da108188ffff070000000b0000000a00000700000000200\
                1000200003f680000000000000002000000000a00bbf4000000002001000200003f68000000000000000\
                10000000000000000";
    let ends = ("[2001:2:0:3f68::2]:7", "[2001:2:0:3f68::1]:48116");
    let expected = socket(0xffff_8881_10da_9380, ends.0, ends.1, SocketDid::SendReset);
    assert_eq!(saw(Kind::SendReset, sent), expected);

    let v4 = "e80800016b570000000000000000000000a5d6028188ffff070000000e0000000200c8d17f000d4f000000\
              00000000000000000000000000000000000200a47d7f000d4f00000000000000000000000000000000000\
              0000000000000";
    let ends = ("127.0.13.79:51409", "127.0.13.79:42109");
    let expected = socket(0xffff_8881_02d6_a500, ends.0, ends.1, SocketDid::SendReset);
    assert_eq!(saw(Kind::SendReset, v4), expected);

    let received = "e7081003b9560000c089da108188fffff4bb07000a007f000006000000002001000200003f6800000\
                    000000000012001000200003f6800000000000000020000cb0000000000000000000000";
    let ends = ("[2001:2:0:3f68::1]:48116", "[2001:2:0:3f68::2]:7");
    let expected = socket(0xffff_8881_10da_89c0, ends.0, ends.1, SocketDid::ReceiveReset);
    assert_eq!(saw(Kind::ReceiveReset, received), expected);
}

#[test]
fn timers_and_kernels_without_their_slot() {
    let start = "d2010102a757000010c5d6028188ffffe0d10282fffffffffd030b0001000000fe030b0001000000\
                 c9030b00010000000100800f0000000000000000";
    let did = |bucket| TimerDid::Start {
        function: 0xffff_ffff_8202_d1e0,
        now: 0x1_000b_03c9,
        expires: 0x1_000b_03fd,
        bucket,
    };
    let timer = 0xffff_8881_02d6_c510;
    let expected = Saw::Timer { timer, did: did(Some(0x1_000b_03fe)) };
    assert_eq!(saw(Kind::TimerStart, start), expected);

    let older = include_str!("../fixtures/timer_start.format").replace("bucket_expiry", "x");
    let reader = Reader::new(Kind::TimerStart, &Format::parse(&older).unwrap()).unwrap();
    let expected = Saw::Timer { timer, did: did(None) };
    assert_eq!(reader.read(&bytes(start)).unwrap().saw, expected);

    let expire = "d10134017f570000d09645048188ffffc8030b0001000000e0d10282ffffffffc8030b0001000000\
                  00000000";
    let did = TimerDid::Expire { function: 0xffff_ffff_8202_d1e0, now: 0x1_000b_03c8 };
    assert_eq!(saw(Kind::TimerExpire, expire), Saw::Timer { timer: 0xffff_8881_0445_96d0, did });
}

#[test]
fn a_format_that_lacks_what_is_needed_is_refused() {
    let text = include_str!("../fixtures/timer_start.format").replace("expires", "x");
    assert!(Reader::new(Kind::TimerStart, &Format::parse(&text).unwrap()).is_none());
}

proptest! {
    #[test]
    fn foreign_records_are_read(record in prop::collection::vec(any::<u8>(), 0..120)) {
        for kind in Kind::ALL {
            let _ = reader(kind).read(&record);
        }
    }

    #[test]
    fn foreign_formats_are_read(
        (kind, format) in prop::sample::select(Kind::ALL.to_vec())
            .prop_flat_map(|kind| (Just(kind), damage::text(text(kind)))),
        record in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        if let Some(reader) = Format::parse(&format).and_then(|format| Reader::new(kind, &format)) {
            let _ = reader.read(&record);
        }
    }
}
