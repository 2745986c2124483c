//! The kernel's tracepoints on a real connection whose server falls silent, held against a tap.
//! Needs root, and fails without.

mod support;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use observe::{Captured, Tap, Tracer, clock};
use socket2::{SockRef, TcpKeepalive};
use spec::{Errno, Family};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;
use support::{INTERFACE, Pair};
use timeline::event::{Side, Timer, Trace};
use timeline::{Event, Source, What};

/// A tracer, in a mount namespace of the calling thread's own.
fn tracer() -> Tracer {
    open(Tracer::open)
}

fn open(open: fn(Option<&Path>) -> Result<Tracer, observe::Error>) -> Tracer {
    unshare(CloneFlags::CLONE_NEWNS).expect("tracing needs root");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    let tracer = open(Some(Path::new("/sys/kernel/tracing"))).unwrap();
    assert_eq!(tracer.missing(), [], "this kernel offers everything");
    tracer
}

fn drain(tracer: &mut Tracer) -> Vec<(usize, Event)> {
    let mut events = Vec::new();
    tracer.drain(&mut |key, event| events.push((key, event)));
    events
}

fn traces(events: &[(usize, Event)], key: usize, wanted: Side) -> Vec<(u64, Trace)> {
    events
        .iter()
        .filter(|(of, _)| *of == key)
        .map(|(_, event)| {
            assert_eq!(event.source, Source::Tracepoint);
            match &event.what {
                What::Trace(trace) => (event.at_ns, trace.clone()),
                other => panic!("{other:?}"),
            }
        })
        .filter(|(_, trace)| side(trace) == wanted)
        .collect()
}

fn side(trace: &Trace) -> Side {
    match *trace {
        Trace::SetState { side, .. }
        | Trace::ErrorReport { side, .. }
        | Trace::Retransmit { side, .. }
        | Trace::SendReset { side }
        | Trace::ReceiveReset { side }
        | Trace::TimerStart { side, .. }
        | Trace::TimerCancel { side, .. }
        | Trace::TimerExpire { side, .. } => side,
    }
}

fn states(traces: &[(u64, Trace)]) -> Vec<String> {
    traces
        .iter()
        .filter_map(|(_, trace)| match trace {
            Trace::SetState { old, new, .. } => Some(format!("{old} {new}")),
            _ => None,
        })
        .collect()
}

fn a_lost_server(mut tracer: Tracer, lease: u16, family: Family) {
    let pair = Pair::new(lease, family);
    support::sysctl(&pair.client, "net/ipv4/tcp_retries2", "2");
    tracer.watch(7, &pair.addresses);
    let mut tap = Tap::open(&pair.client, INTERFACE, Source::ClientWire, &pair.addresses).unwrap();
    let listener = pair.listen();
    let mut stream = pair.connect();
    let (mut accepted, _) = listener.accept().unwrap();
    stream.write_all(b"hello").unwrap();
    accepted.read_exact(&mut [0; 5]).unwrap();
    pair.silence_server();
    let silenced_ns = clock::monotonic_ns();
    stream.write_all(&[0; 100]).unwrap();
    let error = stream.read(&mut [0; 1]).unwrap_err();
    let noticed_ns = clock::monotonic_ns();
    assert_eq!(error.raw_os_error(), Some(Errno::ETIMEDOUT.0));
    let events = drain(&mut tracer);
    let mut captured = Vec::new();
    tap.finish(&mut captured).unwrap();

    let client = traces(&events, 7, Side::Client);
    let expected = ["CLOSE SYN_SENT", "SYN_SENT ESTABLISHED", "ESTABLISHED CLOSE"];
    assert_eq!(states(&client), expected);
    let server = traces(&events, 7, Side::Server);
    assert!(states(&server).contains(&"SYN_RECV ESTABLISHED".to_string()), "{server:#?}");

    // The error, a moment before the program noticed.
    let errors: Vec<_> =
        client.iter().filter(|(_, trace)| matches!(trace, Trace::ErrorReport { .. })).collect();
    let [(error_ns, Trace::ErrorReport { error: Errno::ETIMEDOUT, .. })] = errors[..] else {
        panic!("{errors:#?}")
    };
    assert!((silenced_ns..noticed_ns).contains(error_ns));
    assert!(noticed_ns - error_ns < 50_000_000, "{} ns", noticed_ns - error_ns);

    // Every retransmission is on the wire too, within a moment.
    let retransmissions: Vec<_> = client
        .iter()
        .filter_map(|(at, trace)| match trace {
            Trace::Retransmit { err, .. } => Some((*at, *err)),
            _ => None,
        })
        .collect();
    let sent = says_whether_sent().then_some(0);
    assert!(retransmissions.iter().all(|(_, err)| *err == sent), "{retransmissions:?}");
    let sent_again = sent_again(&captured, silenced_ns);
    assert_eq!(retransmissions.len(), sent_again.len(), "{client:#?}");
    for ((traced_ns, _), wire_ns) in retransmissions.iter().zip(&sent_again) {
        let apart_ns = traced_ns.abs_diff(*wire_ns);
        println!("retransmission: {apart_ns} ns between tap and tracepoint");
        assert!(apart_ns < 2_000_000, "{apart_ns} ns");
    }

    // The timer was armed for each, in the slot that the wheel gives, and expired in it.
    assert_wheel(&client, Timer::Write);
    let jiffies = clock::jiffy_clock().expect("root reads /proc/timer_list");
    let tick_ns = 1_000_000_000 / u64::from(clock::hz());
    let in_jiffy = |at_ns: u64, now: u64| lateness(jiffies, tick_ns, at_ns, now);
    let late: Vec<_> = client
        .iter()
        .filter_map(|(at_ns, trace)| match trace {
            Trace::TimerStart { now, .. } => Some(in_jiffy(*at_ns, *now)),
            _ => None,
        })
        .collect();
    println!("timers were armed so long after the beginning of their jiffy: {late:?} ns");
    assert!(late.iter().all(|late| (0..i128::from(tick_ns) * 2).contains(late)), "{late:?}");
    let estimate = tracer.jiffy_clock().unwrap();
    let apart_ns = in_jiffy(estimate.at_ns, estimate.jiffies);
    println!("jiffies by trace records begin {apart_ns} ns after those by /proc/timer_list");
    assert!((0..i128::from(tick_ns) / 2).contains(&apart_ns), "{apart_ns} ns");

    tracer.unwatch(7);
    drop(stream);
    assert_eq!(drain(&mut tracer), []);
}

/// `tcp_retransmit_skb` says what sending gave since Linux 6.13.
fn says_whether_sent() -> bool {
    let release = clock::kernel_release();
    let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(13))
}

/// How long after the beginning of jiffy `now` it was `at_ns`.
fn lateness(clock: spec::facts::JiffyClock, tick_ns: u64, at_ns: u64, now: u64) -> i128 {
    let ticks = i128::from(now) - i128::from(clock.jiffies);
    i128::from(at_ns) - (i128::from(clock.at_ns) + ticks * i128::from(tick_ns))
}

/// The times of the data that a tap saw sent after the first of its kind.
fn sent_again(captured: &[Captured], from_ns: u64) -> Vec<u64> {
    captured
        .iter()
        .filter(|captured| captured.event.at_ns > from_ns)
        .filter(
            |captured| matches!(&captured.event.what, What::Segment(s) if s.sent && s.len == 100),
        )
        .skip(1)
        .map(|captured| captured.event.at_ns)
        .collect()
}

/// Each expiry is of the slot that the last arming was put in.
fn assert_wheel(traces: &[(u64, Trace)], wanted: Timer) {
    let mut slot = None;
    let mut expiries = 0;
    for (_, trace) in traces {
        match *trace {
            Trace::TimerStart { timer, now, expires, bucket, .. } if timer == wanted => {
                let bucket = bucket.unwrap();
                assert!(bucket > expires && expires > now, "{trace:?}");
                slot = Some(bucket);
            }
            Trace::TimerExpire { timer, now, .. } if timer == wanted => {
                let late = now - slot.expect("armed before it expires");
                assert!(late <= 2, "{late} jiffies late");
                expiries += 1;
            }
            _ => {}
        }
    }
    assert!(expiries >= 2, "{expiries}: {traces:#?}");
}

#[test]
fn a_lost_server_as_the_kernel_sees_it() {
    a_lost_server(tracer(), 8111, Family::Ipv4);
}

#[test]
fn the_same_on_ipv6() {
    a_lost_server(tracer(), 8112, Family::Ipv6);
}

#[test]
fn the_same_through_a_tracefs_instance() {
    a_lost_server(open(Tracer::open_instance), 8113, Family::Ipv4);
}

#[test]
fn keepalive_timers_are_told_from_others_and_sockets_found_late() {
    let pair = Pair::new(8114, Family::Ipv4);
    let other = Pair::new(8115, Family::Ipv4);
    let mut tracer = tracer();
    tracer.watch(1, &other.addresses);
    let listener = pair.listen();
    let stream = pair.connect();
    let (accepted, _) = listener.accept().unwrap();
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(1))
        .with_interval(Duration::from_secs(1))
        .with_retries(1);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive).unwrap();
    assert_eq!(drain(&mut tracer), [], "nobody watches this one");

    // Watched only now: the timers' records wait for the first that names the socket.
    tracer.watch(2, &pair.addresses);
    pair.silence_server();
    let error = (&stream).read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::ETIMEDOUT.0));
    let events = drain(&mut tracer);
    assert!(events.iter().all(|(key, _)| *key == 2), "{events:#?}");
    let mut client = traces(&events, 2, Side::Client);
    client.sort_by_key(|(at_ns, _)| *at_ns);
    assert_wheel(&client, Timer::Keepalive);
    assert!(client.iter().any(|(_, trace)| *trace == Trace::SendReset { side: Side::Client }));
    drop(accepted);
}

#[test]
fn resets_of_both_sides() {
    let pair = Pair::new(8116, Family::Ipv6);
    let mut tracer = tracer();
    tracer.watch(3, &pair.addresses);
    let listener = pair.listen();
    let mut stream = pair.connect();
    let (accepted, _) = listener.accept().unwrap();
    stream.write_all(&[0; 10]).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    drop(accepted); // with unread data
    let error = stream.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::ECONNRESET.0));
    let events = drain(&mut tracer);
    let client = traces(&events, 3, Side::Client);
    let server = traces(&events, 3, Side::Server);
    let has = |traces: &[(u64, Trace)], wanted: &Trace| traces.iter().any(|(_, t)| t == wanted);
    assert!(has(&client, &Trace::ReceiveReset { side: Side::Client }), "{client:#?}");
    assert!(has(&server, &Trace::SendReset { side: Side::Server }), "{server:#?}");
    let error = Trace::ErrorReport { side: Side::Client, error: Errno::ECONNRESET };
    assert!(has(&client, &error), "{client:#?}");
}

#[test]
fn the_descriptor_wakes_an_edge_triggered_poll_for_every_error() {
    use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
    let mut tracer = tracer();
    let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
    epoll.add(&tracer, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0)).unwrap();
    let pair = Pair::new(8117, Family::Ipv4);
    tracer.watch(4, &pair.addresses);
    let listener = pair.listen();
    let woken = |timeout_ms: u16| epoll.wait(&mut [EpollEvent::empty()], timeout_ms).unwrap() == 1;
    for round in 0..5 {
        let stream = pair.connect();
        let (accepted, _) = listener.accept().unwrap();
        assert!(woken(1_000), "round {round}");
        assert!(!drain(&mut tracer).is_empty(), "round {round}");
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(stream);
        assert!(woken(1_000), "round {round}: closing");
        assert!(!drain(&mut tracer).is_empty(), "round {round}: closing");
        drop(accepted);
    }
}
