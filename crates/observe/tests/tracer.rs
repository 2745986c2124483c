//! The kernel's tracepoints on a real connection whose server falls silent, held against a tap.
//! Needs root.

mod support;

use libtest_mimic::{Arguments, Trial};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::sockopt;
use observe::{Captured, Tap, Tracer, clock};
use socket2::{SockRef, TcpKeepalive};
use spec::{Errno, Family};
use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{INTERFACE, Pair};
use timeline::event::{Side, Timer, Trace};
use timeline::{Event, FlowTable, Source, What};

/// Tracepoints belong to root: an ordinary user, also one that is root in a user namespace, sees
/// these tests ignored, with the reason.
fn main() {
    let arguments = Arguments::from_args();
    let tests: [(&str, fn()); 8] = [
        ("a_lost_server_as_the_kernel_sees_it", a_lost_server_as_the_kernel_sees_it),
        ("the_same_on_ipv6", the_same_on_ipv6),
        (
            "keepalive_timers_are_told_from_others_and_sockets_found_late",
            keepalive_timers_are_told_from_others_and_sockets_found_late,
        ),
        ("no_end_is_lost_while_others_come_and_go", no_end_is_lost_while_others_come_and_go),
        ("what_killed_processes_left_is_removed", what_killed_processes_left_is_removed),
        ("resets_of_both_sides", resets_of_both_sides),
        (
            "connections_of_one_process_are_flows_on_the_wire_and_in_tracepoints",
            connections_of_one_process_are_flows_on_the_wire_and_in_tracepoints,
        ),
        (
            "the_descriptor_wakes_an_edge_triggered_poll_for_every_error",
            the_descriptor_wakes_an_edge_triggered_poll_for_every_error,
        ),
    ];
    let root = is_root_of_the_machine();
    if !root && !arguments.list {
        println!("ignored: tracepoints need root (sudo), which this user is not");
    }
    let mut trials: Vec<Trial> =
        tests.into_iter().map(|(name, test)| trial(name, test).with_ignored_flag(!root)).collect();
    // A measurement, not a check.
    trials.push(trial("costs", costs).with_ignored_flag(true));
    libtest_mimic::run(&arguments, trials).exit();
}

fn trial(name: &str, test: fn()) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}

/// Whether this is root outside any user namespace.
fn is_root_of_the_machine() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
    whole && nix::unistd::geteuid().is_root()
}

/// A tracer, in a mount namespace of the calling thread's own.
fn tracer() -> Tracer {
    unshare(CloneFlags::CLONE_NEWNS).expect("tracing needs root");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    let tracer = Tracer::open(Some(Path::new("/sys/kernel/tracing"))).unwrap();
    assert_eq!(tracer.missing(), [], "this kernel offers everything");
    tracer
}

fn drain(tracer: &mut Tracer) -> Vec<(usize, Event)> {
    let mut events = Vec::new();
    tracer.drain(&mut |key, _, event| events.push((key, event)));
    events
}

/// The error that the connection ends with, and everything traced until then.
fn error_of(
    mut stream: &TcpStream,
    tracer: &mut Tracer,
    events: &mut Vec<(usize, Event)>,
) -> Errno {
    stream.set_nonblocking(true).unwrap();
    let error = loop {
        tracer.drain(&mut |key, _, event| events.push((key, event)));
        match stream.read(&mut [0; 1]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => break result.unwrap_err(),
        }
    };
    tracer.drain(&mut |key, _, event| events.push((key, event)));
    Errno(error.raw_os_error().unwrap())
}

fn traces(events: &[(usize, Event)], key: usize, wanted: Side) -> Vec<(u64, Trace)> {
    events
        .iter()
        .filter(|(of, _)| *of == key)
        .filter_map(|(_, event)| {
            assert_eq!(event.source, Source::Tracepoint);
            match &event.what {
                What::Trace(trace) => Some((event.at_ns, trace.clone())),
                What::Lost { .. } => None,
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

/// What a lost server looked like to the tracer and to a tap.
struct Story {
    events: Vec<(usize, Event)>,
    captured: Vec<Captured>,
    silenced_ns: u64,
    noticed_ns: u64,
}

impl Story {
    fn record(tracer: &mut Tracer, lease: u16, family: Family) -> Self {
        let pair = Pair::new(lease, family);
        support::sysctl(&pair.client, "net/ipv4/tcp_retries2", "2");
        tracer.watch(KEY, &pair.addresses);
        let mut tap =
            Tap::open(&pair.client, INTERFACE, Source::ClientWire, &pair.addresses, true).unwrap();
        let listener = pair.listen();
        let mut stream = pair.connect();
        let (mut accepted, _) = listener.accept().unwrap();
        stream.write_all(b"hello").unwrap();
        accepted.read_exact(&mut [0; 5]).unwrap();
        pair.silence_server();
        let silenced_ns = clock::monotonic_ns();
        stream.write_all(&[0; 100]).unwrap();
        let mut events = Vec::new();
        let error = error_of(&stream, tracer, &mut events);
        let noticed_ns = clock::monotonic_ns();
        assert_eq!(error, Errno::ETIMEDOUT);
        let mut captured = Vec::new();
        tap.finish(&mut captured).unwrap();
        tracer.unwatch(KEY);
        drop(stream);
        assert_eq!(drain(tracer), []);
        Self { events, captured, silenced_ns, noticed_ns }
    }
}

const KEY: usize = 7;

fn a_lost_server(mut tracer: Tracer, lease: u16, family: Family) {
    let Story { events, captured, silenced_ns, noticed_ns } =
        Story::record(&mut tracer, lease, family);
    let client = traces(&events, KEY, Side::Client);
    let expected = ["CLOSE SYN_SENT", "SYN_SENT ESTABLISHED", "ESTABLISHED CLOSE"];
    if states(&client) != expected {
        for (at, e) in &events {
            println!("{at} {e:?}");
        }
    }
    assert_eq!(states(&client), expected);
    let server = traces(&events, KEY, Side::Server);
    assert!(states(&server).contains(&"SYN_RECV ESTABLISHED".to_string()), "{server:#?}");

    // The error, a moment before the program noticed.
    let errors: Vec<_> =
        client.iter().filter(|(_, trace)| matches!(trace, Trace::ErrorReport { .. })).collect();
    let [(error_ns, Trace::ErrorReport { error: Errno::ETIMEDOUT, .. })] = errors[..] else {
        panic!("{errors:#?}")
    };
    assert!((silenced_ns..noticed_ns).contains(error_ns));
    assert!(noticed_ns - error_ns < 500_000_000, "{} ns", noticed_ns - error_ns);

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
        assert!(apart_ns < 50_000_000, "{apart_ns} ns");
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
    assert!(late.iter().all(|late| (0..i128::from(tick_ns) * 10).contains(late)), "{late:?}");
    let estimate = tracer.jiffy_clock().unwrap();
    let apart_ns = in_jiffy(estimate.at_ns, estimate.jiffies);
    println!("jiffies by trace records begin {apart_ns} ns after those by /proc/timer_list");
    assert!((0..i128::from(tick_ns)).contains(&apart_ns), "{apart_ns} ns");
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

fn is_expiry(trace: &Trace, wanted: Timer) -> bool {
    matches!(trace, Trace::TimerExpire { timer, .. } if *timer == wanted)
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
                assert!(late <= 25, "{late} jiffies late: {traces:#?}");
                expiries += 1;
            }
            _ => {}
        }
    }
    assert!(expiries >= 2, "{expiries}: {traces:#?}");
}

fn a_lost_server_as_the_kernel_sees_it() {
    a_lost_server(tracer(), 8120, Family::Ipv4);
}

fn the_same_on_ipv6() {
    a_lost_server(tracer(), 8124, Family::Ipv6);
}

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
    let mut events = Vec::new();
    assert_eq!(error_of(&stream, &mut tracer, &mut events), Errno::ETIMEDOUT);
    assert!(events.iter().all(|(key, _)| *key == 2), "{events:#?}");
    let mut client = traces(&events, 2, Side::Client);
    client.sort_by_key(|(at_ns, _)| *at_ns);
    assert!(client.iter().any(|(_, trace)| is_expiry(trace, Timer::Keepalive)), "{client:#?}");
    drop(accepted);
}

/// BPF programs on the tracepoints lost one end in 50, all those of one tick; a tracer must see each.
fn no_end_is_lost_while_others_come_and_go() {
    const CONNECTIONS: usize = 100;
    const ROUNDS: u16 = 5;
    let busy = Pair::new(8140, Family::Ipv4);
    let port = busy.listen();
    let stop = AtomicBool::new(false);
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let address = busy.addresses.server;
                    let stream = busy.client.run(|| TcpStream::connect(address).unwrap()).unwrap();
                    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                    drop(port.accept().unwrap());
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        }
        let mut tracer = tracer();
        for round in 0..ROUNDS {
            let pair = Pair::new(8141 + round, Family::Ipv4);
            tracer.watch(KEY, &pair.addresses);
            let listener = pair.listen();
            let streams: Vec<_> = (0..CONNECTIONS)
                .map(|_| {
                    let server = pair.addresses.server;
                    let stream = pair.client.run(|| TcpStream::connect(server).unwrap()).unwrap();
                    nix::sys::socket::setsockopt(&stream, sockopt::TcpUserTimeout, &300).unwrap();
                    (stream, listener.accept().unwrap().0)
                })
                .collect();
            pair.silence_server();
            for (client, _) in &streams {
                let mut client = client;
                client.write_all(&[0; 100]).unwrap();
                // Their ends are to come with many ticks.
                std::thread::sleep(Duration::from_millis(3));
            }
            let (mut ended, mut lost) = (HashSet::new(), 0);
            for _ in 0..300 {
                tracer.drain(&mut |_, ends, event| match event.what {
                    What::Trace(Trace::ErrorReport { side: Side::Client, .. }) => {
                        ended.insert(ends.unwrap().client);
                    }
                    What::Lost { count } => lost += count,
                    _ => {}
                });
                std::thread::sleep(Duration::from_millis(5));
            }
            tracer.unwatch(KEY);
            seen.push((ended.len(), lost));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(seen, [(CONNECTIONS, 0); ROUNDS as usize]);
}

fn what_killed_processes_left_is_removed() {
    let tracer = tracer();
    let left = Path::new("/sys/kernel/tracing/instances/halfopen-left-behind");
    std::fs::create_dir(left).unwrap();
    let instances = || std::fs::read_dir(left.parent().unwrap()).unwrap().count();
    let before = instances();
    observe::tracer::remove_stale_instances();
    assert!(!left.exists());
    assert_eq!(instances(), before - 1, "those in use stay");
    drop(tracer);
}

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

fn connections_of_one_process_are_flows_on_the_wire_and_in_tracepoints() {
    let pair = Pair::new(8119, Family::Ipv4);
    let mut tracer = tracer();
    tracer.watch(5, &pair.addresses);
    let mut tap =
        Tap::open(&pair.client, INTERFACE, Source::ClientWire, &pair.addresses, true).unwrap();
    let connections = pair.connect_anywhere(3);
    let ports: Vec<_> =
        connections.iter().map(|(client, _)| client.local_addr().unwrap().port()).collect();
    let mut records = Vec::new();
    tracer.drain(&mut |_, ends, event| records.push((ends, event)));
    let mut captured = Vec::new();
    tap.drain(&mut captured).unwrap();

    let mut flows = FlowTable::default();
    let mut opened = Vec::new();
    let mut name = |mut event: Event, ends| {
        opened.extend(flows.name(&mut event, ends));
        event
    };
    let events: Vec<_> =
        records.into_iter().map(|(ends, event)| name(event, ends.expect("a socket's"))).collect();
    for captured in captured {
        if let Some(ends) = captured.ends {
            let flow = name(captured.event, ends).flow.unwrap();
            assert_eq!(ports[flow.0 as usize], ends.client.port(), "as the tracepoints number it");
        }
    }
    let found: Vec<_> = opened
        .iter()
        .map(|event| match &event.what {
            What::Flow(flow) => flow.ends.client.port(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(found, ports, "each appears once, in the order of SYNs");
    for id in 0..3 {
        let states: Vec<_> = events
            .iter()
            .filter(|event| event.flow.unwrap().0 == id)
            .filter_map(|event| match &event.what {
                What::Trace(Trace::SetState { side: Side::Client, new, .. }) => Some(new.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(states, ["SYN_SENT", "ESTABLISHED"], "{id}: {events:#?}");
    }
}

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

/// Prints what tracing costs while 100 sockets are busy, and how well the jiffies are known:
/// `cargo test -p observe --release --test tracer -- --ignored costs --nocapture`.
fn costs() {
    const SOCKETS: usize = 100;
    const ROUNDS: usize = 5;
    let pair = Pair::new(8118, Family::Ipv4);
    let listener = pair.listen();
    let connect = || -> Vec<_> {
        let server = pair.addresses.server;
        let connect = || {
            let client = pair.client.run(|| TcpStream::connect(server).unwrap()).unwrap();
            client.set_nodelay(true).unwrap();
            (client, listener.accept().unwrap().0)
        };
        std::iter::repeat_with(connect).take(SOCKETS).collect()
    };
    let began_ns = clock::monotonic_ns();
    let tracer_once = tracer();
    println!("opening took {} us", (clock::monotonic_ns() - began_ns) / 1000);
    let began_ns = clock::monotonic_ns();
    drop(tracer_once);
    println!("closing took {} us", (clock::monotonic_ns() - began_ns) / 1000);

    let (mut untraced_ns, mut traced_ns) = (Vec::new(), Vec::new());
    let (mut events, mut cpu_ns, mut lost) = (0_u64, 0_u64, 0_u64);
    let (mut exact, mut late) = (0_u64, 0_u64);
    let jiffies = clock::jiffy_clock().unwrap();
    let tick_ns = 1_000_000_000 / u64::from(clock::hz());
    for _ in 0..ROUNDS {
        untraced_ns.push(exchange_ns(&connect()));
        let mut tracer = tracer();
        let ends = connect();
        tracer.watch(KEY, &pair.addresses);
        let stop = AtomicBool::new(false);
        traced_ns.push(std::thread::scope(|scope| {
            scope.spawn(|| {
                let cpu_began = thread_cpu_ns();
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(10));
                    tracer.drain(&mut |_, _, event| {
                        events += 1;
                        match event.what {
                            What::Trace(Trace::TimerStart { now, .. }) => {
                                let late_ns = lateness(jiffies, tick_ns, event.at_ns, now);
                                let is_exact = (0..i128::from(tick_ns)).contains(&late_ns);
                                *(if is_exact { &mut exact } else { &mut late }) += 1;
                            }
                            What::Lost { count } => lost += count,
                            _ => {}
                        }
                    });
                }
                cpu_ns += thread_cpu_ns() - cpu_began;
            });
            let each_ns = exchange_ns(&ends);
            stop.store(true, Ordering::Relaxed);
            each_ns
        }));
        let began_ns = clock::monotonic_ns();
        (0..1000).for_each(|_| drop(drain(&mut tracer)));
        println!("a drain of nothing: {} ns", (clock::monotonic_ns() - began_ns) / 1000);
    }
    println!("an exchange: {untraced_ns:?} ns untraced, {traced_ns:?} ns traced");
    println!("{lost} records lost, by what is seen of timers");
    println!("{events} events took the reader {} ns of CPU each", cpu_ns / events);
    let share = cpu_ns * 1000 / (ROUNDS as u64 * SPAN.as_nanos() as u64);
    println!("the reader's share of one processor: {share} per mille");
    println!("jiffies at arming: {exact} as the clock says, {late} an interrupt late");
}

const SPAN: Duration = Duration::from_secs(1);

/// Every connection exchanges 100 bytes as often as it can: how long one exchange takes.
fn exchange_ns(ends: &[(TcpStream, TcpStream)]) -> u64 {
    let began_ns = clock::monotonic_ns();
    let mut count = 0_u64;
    while clock::monotonic_ns() - began_ns < SPAN.as_nanos() as u64 {
        for (mut client, mut server) in ends.iter().map(|(client, server)| (client, server)) {
            client.write_all(&[0; 100]).unwrap();
            server.read_exact(&mut [0; 100]).unwrap();
            server.write_all(&[0; 100]).unwrap();
            client.read_exact(&mut [0; 100]).unwrap();
            count += 1;
        }
    }
    SPAN.as_nanos() as u64 / count
}

fn thread_cpu_ns() -> u64 {
    let spent = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    spent.tv_sec() as u64 * 1_000_000_000 + spent.tv_nsec() as u64
}
