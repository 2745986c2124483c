//! A tap and socket diagnostics on a real connection whose server falls silent. Needs root, or a
//! user namespace around it (`unshare -rn`), and fails without.

mod support;

use observe::{Captured, SocketDiag, Tap, clock};
use socket2::{SockRef, TcpKeepalive};
use spec::Family;
use std::io::{ErrorKind, Read, Write};
use std::time::Duration;
use support::{INTERFACE, Pair};
use timeline::event::{FrameKind, SocketSample};
use timeline::{Ends, Event, FlowTable, Segment, Side, Source, What};

fn segments(captured: &[Captured]) -> Vec<(u64, Segment)> {
    captured
        .iter()
        .filter_map(|captured| match captured.event.what {
            What::Segment(segment) => Some((captured.event.at_ns, segment)),
            _ => None,
        })
        .collect()
}

fn a_lost_server(lease: u16, family: Family) {
    let pair = Pair::new(lease, family);
    support::sysctl(&pair.client, "net/ipv4/tcp_retries2", "2");
    let began_ns = clock::monotonic_ns();
    let mut tap =
        Tap::open(&pair.client, INTERFACE, Source::ClientWire, &pair.addresses, true).unwrap();
    let mut server_tap =
        Tap::open(&pair.server, INTERFACE, Source::ServerWire, &pair.addresses, true).unwrap();
    let mut client_diag = SocketDiag::open(&pair.client).unwrap();
    let mut server_diag = SocketDiag::open(&pair.server).unwrap();
    let (client, server) = (pair.addresses.client, pair.addresses.server);
    assert_eq!(client_diag.sample(client, server).unwrap(), None, "not connected yet");

    let listener = pair.listen();
    assert_eq!(server_diag.sample(server, client).unwrap(), None, "the listener is not it");
    let mut stream = pair.connect();
    let (mut accepted, _) = listener.accept().unwrap();
    stream.write_all(b"hello").unwrap();
    accepted.read_exact(&mut [0; 5]).unwrap();
    accepted.write_all(b"hello").unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();

    let of_server = server_diag.sample(server, client).unwrap().unwrap();
    assert_eq!(of_server.state, "ESTABLISHED");
    let before = client_diag.sample(client, server).unwrap().unwrap();
    assert_eq!((before.state.as_str(), before.send_queue, before.timer), ("ESTABLISHED", 0, 0));
    let info = before.info.unwrap();
    assert!((200_000..210_000).contains(&info.rto_us), "{info:?}");
    assert_eq!(info.bytes_received, 5);

    pair.silence_server();
    let silenced_ns = clock::monotonic_ns();
    stream.write_all(&[0; 100]).unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut captured = Vec::new();
    let mut samples: Vec<SocketSample> = Vec::new();
    let error = loop {
        tap.drain(&mut captured).unwrap();
        samples.extend(client_diag.sample(client, server).unwrap());
        match stream.read(&mut [0; 1]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            result => break result.unwrap_err(),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let noticed_ns = clock::monotonic_ns();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(client_diag.sample(client, server).unwrap(), None, "closed");
    tap.finish(&mut captured).unwrap();

    // The socket's own account: the retransmission timer, counted up. While its handler runs it is
    // not pending (`tcp_write_timer_handler`), and nobody locks the socket to look at it.
    let all = samples.len();
    samples.retain(|sample| sample.timer != 0);
    assert!(samples.len() * 10 > all * 9, "{} of {all} samples show a timer", samples.len());
    let running = |sample: &SocketSample| sample.state == "ESTABLISHED" && sample.timer == 1;
    assert!(samples.iter().all(running), "{samples:#?}");
    assert!(samples.iter().all(|sample| sample.send_queue == 100), "{samples:#?}");
    assert!(samples.iter().all(|sample| sample.timer_expires_ms <= 2_000), "{samples:#?}");
    let last = samples.last().unwrap();
    assert!(last.timer_count >= 2, "{last:?}");

    // The wire's: the handshake, the exchange, the write and its retransmissions.
    let on_wire = segments(&captured);
    assert!(on_wire[0].1.flags.syn && on_wire[0].1.sent, "{on_wire:?}");
    assert!(on_wire[1].1.flags.syn && on_wire[1].1.flags.ack && !on_wire[1].1.sent, "{on_wire:?}");
    // The acknowledgement of the server's last words may be delayed past the silence.
    let unanswered: Vec<_> =
        on_wire.iter().filter(|(at, segment)| *at > silenced_ns && segment.len > 0).collect();
    let again = |segment: &Segment| segment.sent && segment.len == 100;
    assert!(unanswered.iter().all(|(_, segment)| again(segment)), "{on_wire:?}");
    let retransmissions = unanswered.len() as u32 - 1;
    assert_eq!(last.info.as_ref().unwrap().total_retrans, retransmissions);
    assert!(on_wire.iter().all(|(at, _)| (began_ns..noticed_ns).contains(at)), "in monotonic time");
    assert!(on_wire.is_sorted_by_key(|(at, _)| *at));

    // The other end saw the same segments, a moment later or earlier.
    let mut captured = Vec::new();
    server_tap.drain(&mut captured).unwrap();
    let at_server = segments(&captured);
    assert_eq!(at_server.len(), on_wire.len(), "everything passes this cable");
    for ((left_ns, left), (right_ns, right)) in on_wire.iter().zip(&at_server) {
        assert_eq!((left.seq, left.sent), (right.seq, !right.sent));
        assert!(left_ns.abs_diff(*right_ns) < 50_000_000, "{left_ns} {right_ns}");
    }
}

#[test]
fn a_lost_server_is_seen_on_the_wire_and_in_the_socket() {
    a_lost_server(8101, Family::Ipv4);
}

#[test]
fn the_same_on_ipv6() {
    a_lost_server(8102, Family::Ipv6);
}

/// The ends of connections, by their client's sockets.
fn ends_of(connections: &[(std::net::TcpStream, std::net::TcpStream)]) -> Vec<Ends> {
    let ends = |client: &std::net::TcpStream| Ends {
        client: client.local_addr().unwrap(),
        server: client.peer_addr().unwrap(),
    };
    connections.iter().map(|(client, _)| ends(client)).collect()
}

#[test]
fn connections_on_ports_that_nobody_knew_are_flows_in_the_order_of_their_syn() {
    let pair = Pair::new(8106, Family::Ipv4);
    let mut taps = [(&pair.server, Source::ServerWire), (&pair.client, Source::ClientWire)]
        .map(|(host, source)| Tap::open(host, INTERFACE, source, &pair.addresses, true).unwrap());
    let connections = pair.connect_anywhere(3);
    let ends = ends_of(&connections);
    let mut flows = FlowTable::default();
    let mut opened: Vec<Event> = Vec::new();
    // The server's tap is asked first: what the client's shows later is the same.
    for tap in &mut taps {
        let mut captured = Vec::new();
        tap.drain(&mut captured).unwrap();
        let mut segments = [0; 3];
        for Captured { mut event, ends, .. } in captured {
            if let Some(ends) = ends {
                opened.extend(flows.name(&mut event, ends));
                segments[event.flow.unwrap().0 as usize] += 1;
            }
        }
        assert!(segments.iter().all(|count| *count >= 3), "a handshake each: {segments:?}");
    }
    let found: Vec<_> = opened
        .iter()
        .map(|event| match &event.what {
            What::Flow(flow) => (event.flow.unwrap().0, flow.ends, flow.opened_by),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected: Vec<_> = (0..).zip(ends).map(|(id, ends)| (id, ends, Side::Client)).collect();
    assert_eq!(found, expected);

    let mut diag = SocketDiag::open(&pair.client).unwrap();
    for (_, ends) in flows.latest() {
        let sample = diag.sample(ends.client, ends.server).unwrap().unwrap();
        assert_eq!(sample.state, "ESTABLISHED");
    }
}

#[test]
fn the_options_of_a_socket_are_read_through_its_owner_and_its_close_is_not_held_up() {
    let pair = Pair::new(8107, Family::Ipv4);
    let connections = pair.connect_anywhere(2);
    let ends = ends_of(&connections);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    let socket = SockRef::from(&connections[1].0);
    socket.set_tcp_keepalive(&keepalive).unwrap();
    socket.set_tcp_user_timeout(Some(Duration::from_millis(12_345))).unwrap();
    socket.set_tcp_nodelay(true).unwrap();

    let mut diag = SocketDiag::open(&pair.client).unwrap();
    let own = std::process::id();
    let mut read = |ends: &Ends, processes: Vec<u32>| {
        let inode = diag.inode(ends.client, ends.server).unwrap().unwrap();
        observe::options::read(inode, processes).unwrap()
    };
    assert_eq!(read(&ends[1], vec![1]), None, "another process does not have it");
    let found = read(&ends[1], observe::options::family(own)).unwrap();
    assert_eq!(found.owner.pid, own);
    assert!(found.owner.process.starts_with("wire_and_socket"), "{:?}", found.owner);
    assert!(found.still_owned);
    let options = &found.options;
    assert_eq!(options.keepalive, Some(true));
    assert_eq!(
        (options.keepidle_s, options.keepintvl_s, options.keepcnt),
        (Some(15), Some(5), Some(3))
    );
    assert_eq!((options.user_timeout_ms, options.nodelay), (Some(12_345), Some(true)));
    assert_eq!((options.syncnt, options.linger2_s), (Some(6), Some(60)), "the sysctls'");
    let plain = read(&ends[0], vec![own]).unwrap().options;
    assert_eq!((plain.keepalive, plain.keepidle_s), (Some(false), Some(7200)));
    assert_eq!((plain.user_timeout_ms, plain.nodelay), (Some(0), Some(false)));

    // Nothing holds the socket any more: its owner's close is the end of the stream.
    let (client, mut server) = connections.into_iter().nth(1).unwrap();
    drop(client);
    server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn listeners_and_connections_are_found_by_their_addresses() {
    let pair = Pair::new(8108, Family::Ipv6);
    let (client, server) = (pair.addresses.client.ip(), pair.addresses.server.ip());
    let mut diag = SocketDiag::open(&pair.server).unwrap();
    assert_eq!(diag.listener(server, None).unwrap(), None);
    let listener = pair.listen();
    let port = pair.addresses.server.port();
    for wanted in [Some(port), None] {
        assert_eq!(diag.listener(server, wanted).unwrap(), Some(port));
    }
    assert_eq!(diag.listener(server, Some(port + 1)).unwrap(), None);
    assert_eq!(diag.connections(server, client).unwrap(), []);
    let _stream = pair.connect();
    let _accepted = listener.accept().unwrap();
    let ends = (pair.addresses.server, pair.addresses.client);
    assert_eq!(diag.connections(server, client).unwrap(), [ends]);
    assert_eq!(diag.connections(client, server).unwrap(), []);
}

#[test]
fn a_tap_survives_its_interface_and_tells_neighbours_and_losses() {
    let pair = Pair::new(8103, Family::Ipv4);
    let mut tap =
        Tap::open(&pair.client, INTERFACE, Source::ClientWire, &pair.addresses, true).unwrap();
    let mut captured = Vec::new();
    support::ip(&pair.client, &format!("link set {INTERFACE} down\n"));
    tap.drain(&mut captured).unwrap();
    support::ip(&pair.client, &format!("link set {INTERFACE} up\nneighbour flush nud all\n"));
    support::await_carrier(&pair.client);
    captured.clear();
    let listener = pair.listen();
    let _stream = pair.connect();
    drop(listener);
    tap.drain(&mut captured).unwrap();
    let kinds: Vec<_> = captured.iter().map(|captured| &captured.event.what).collect();
    let server = pair.addresses.server.ip();
    let asked = |kind: &FrameKind| {
        kinds.iter().any(|what| matches!(what, What::Frame(frame) if frame.kind == *kind))
    };
    assert!(asked(&FrameKind::NeighbourRequest(server)), "{kinds:#?}");
    assert!(asked(&FrameKind::NeighbourReply(server)), "{kinds:#?}");
    assert!(!segments(&captured).is_empty());
    assert!(captured.iter().all(|captured| captured.wire_len as usize >= captured.frame.len()));
}

#[test]
fn a_missing_interface_is_named() {
    let namespace = netns::Namespace::create().unwrap();
    let addresses = spec::Addresses::new(8104, Family::Ipv4, spec::Topology::Direct, 1, 2);
    let error = Tap::open(&namespace, "eth7", Source::ClientWire, &addresses, true).unwrap_err();
    assert!(error.to_string().contains("eth7"), "{error}");
}

/// Prints what sampling and draining cost: `cargo test -p observe --release -- --ignored costs
/// --nocapture`.
#[test]
#[ignore = "a measurement, not a check"]
fn costs() {
    const ROUNDS: u32 = 20_000;
    let pair = Pair::new(8105, Family::Ipv4);
    let mut tap =
        Tap::open(&pair.client, INTERFACE, Source::ClientWire, &pair.addresses, true).unwrap();
    let mut diag = SocketDiag::open(&pair.client).unwrap();
    let listener = pair.listen();
    let mut stream = pair.connect();
    let (mut accepted, _) = listener.accept().unwrap();
    let (client, server) = (pair.addresses.client, pair.addresses.server);
    let per_round = |name: &str, work: &mut dyn FnMut()| {
        let began_ns = clock::monotonic_ns();
        (0..ROUNDS).for_each(|_| work());
        let each_ns = (clock::monotonic_ns() - began_ns) / u64::from(ROUNDS);
        println!("{name}: {each_ns} ns");
    };
    per_round("sample of a live socket", &mut || {
        assert!(diag.sample(client, server).unwrap().is_some());
    });
    per_round("sample of no socket", &mut || {
        assert!(diag.sample(server, client).unwrap().is_none());
    });
    let mut captured = Vec::new();
    tap.drain(&mut captured).unwrap();
    per_round("drain of nothing", &mut || tap.drain(&mut captured).unwrap());
    for _ in 0..5_000 {
        stream.write_all(&[0; 100]).unwrap();
        accepted.read_exact(&mut [0; 100]).unwrap();
    }
    captured.clear();
    let began_ns = clock::monotonic_ns();
    tap.drain(&mut captured).unwrap();
    let took_ns = clock::monotonic_ns() - began_ns;
    let lost = captured.iter().any(|c| matches!(c.event.what, What::Lost { .. }));
    println!(
        "drain of {} frames: {} ns each, lost: {lost}",
        captured.len(),
        took_ns / captured.len() as u64
    );
}

/// What a tap sees of a connection on which it is to leave out exchanges, but for the first and the last.
fn left_out(lease: u16, family: Family) {
    let pair = Pair::new(lease, family);
    let mut tap =
        Tap::open(&pair.client, INTERFACE, Source::ClientWire, &pair.addresses, true).unwrap();
    let listener = pair.listen();
    let mut stream = pair.connect();
    let (mut accepted, _) = listener.accept().unwrap();
    let mut exchange = |bytes: usize| {
        stream.write_all(&vec![1; bytes]).unwrap();
        accepted.read_exact(&mut vec![0; bytes]).unwrap();
    };
    let filter = tap.filter().unwrap();
    exchange(1);
    filter.leave_out_exchanges(true).unwrap();
    exchange(2);
    filter.leave_out_exchanges(false).unwrap();
    filter.leave_out_exchanges(false).unwrap();
    exchange(3);
    filter.leave_out_exchanges(true).unwrap();
    exchange(4);
    drop(stream);
    drop(accepted);
    std::thread::sleep(Duration::from_millis(50));
    let mut captured = Vec::new();
    tap.finish(&mut captured).unwrap();
    let seen = segments(&captured);
    let data: Vec<_> = seen.iter().map(|(_, segment)| segment.len).filter(|len| *len > 0).collect();
    assert_eq!(data, [1, 3]);
    assert!(seen[0].1.flags.syn && seen[1].1.flags.syn);
    assert_eq!(seen.iter().filter(|(_, segment)| segment.flags.fin).count(), 2);
}

#[test]
fn a_tap_leaves_out_exchanges_when_it_is_told_to() {
    left_out(8150, Family::Ipv4);
    left_out(8151, Family::Ipv6);
}
