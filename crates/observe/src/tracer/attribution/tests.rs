use super::*;
use spec::{Family, Topology};

const WRITE: TimerPlace = TimerPlace { function: 0xa, offset: 0x450 };
const KEEPALIVE: TimerPlace = TimerPlace { function: 0xb, offset: 0x1e0 };
const SOCKET: u64 = 0xffff_8881_0000_0000;
const KEY: usize = 5;

fn addresses() -> Addresses {
    Addresses::new(3, Family::Ipv4, Topology::Switch, 40_000, 7)
}

fn ends_of_trial() -> Ends {
    Ends { client: addresses().client, server: addresses().server }
}

fn attribution() -> Attribution {
    let mut attribution = Attribution::default();
    attribution.set_places(TimerPlaces { write: WRITE, keepalive: KEEPALIVE });
    attribution.watch(KEY, &addresses());
    attribution
}

fn take(attribution: &mut Attribution, at_ns: u64, saw: Saw) -> Vec<(u64, Trace)> {
    let mut traces = Vec::new();
    attribution.take(at_ns, Sighting { pid: 1, saw }, &mut |key, ends, event| {
        assert_eq!((key, ends), (KEY, Some(ends_of_trial())));
        let What::Trace(trace) = event.what else { panic!("{event:?}") };
        traces.push((event.at_ns, trace));
    });
    traces
}

fn client_did(socket: u64, did: SocketDid) -> Saw {
    Saw::Socket { socket, local: addresses().client, remote: addresses().server, did }
}

fn start(place: TimerPlace, socket: u64) -> Saw {
    let did = TimerDid::Start { function: place.function, now: 1, expires: 2, bucket: Some(3) };
    Saw::Timer { timer: socket + place.offset, did }
}

fn started(timer: Timer) -> Trace {
    Trace::TimerStart { side: Side::Client, timer, now: 1, expires: 2, bucket: Some(3) }
}

const CONNECTING: SocketDid = SocketDid::SetState { old: 7, new: 2 };
const CLOSING: SocketDid = SocketDid::SetState { old: 1, new: 7 };

#[test]
fn timers_of_a_known_socket() {
    let mut attribution = attribution();
    take(&mut attribution, 1, client_did(SOCKET, CONNECTING));
    let traces = take(&mut attribution, 2, start(WRITE, SOCKET));
    assert_eq!(traces, [(2, started(Timer::Write))]);
    let traces = take(&mut attribution, 3, start(KEEPALIVE, SOCKET));
    assert_eq!(traces, [(3, started(Timer::Keepalive))]);
    assert_eq!(take(&mut attribution, 5, start(WRITE, SOCKET + 0x980)), [], "a neighbour's");
    let elsewhere = TimerPlace { function: 0xc, ..WRITE };
    assert_eq!(take(&mut attribution, 6, start(elsewhere, SOCKET)), [], "another function");
}

#[test]
fn timers_of_a_socket_that_becomes_known_later() {
    let mut attribution = attribution();
    assert_eq!(take(&mut attribution, 1, start(KEEPALIVE, SOCKET)), []);
    assert_eq!(take(&mut attribution, 2, start(WRITE, SOCKET + 64)), []);
    let traces = take(&mut attribution, 9, client_did(SOCKET, SocketDid::Retransmit { err: None }));
    let retransmit = Trace::Retransmit { side: Side::Client, err: None };
    assert_eq!(traces, [(1, started(Timer::Keepalive)), (9, retransmit)]);
    let again = take(&mut attribution, 10, client_did(SOCKET, SocketDid::SendReset));
    assert_eq!(again, [(10, Trace::SendReset { side: Side::Client })], "told once");
}

#[test]
fn an_address_that_is_used_again_belongs_to_the_new_socket() {
    let mut attribution = attribution();
    // Somebody's timer, whose socket closes; ours then gets the address.
    take(&mut attribution, 1, start(WRITE, SOCKET));
    let traces = take(&mut attribution, 2, client_did(SOCKET, CONNECTING));
    assert_eq!(traces.len(), 1, "not the timer from before: {traces:?}");
    take(&mut attribution, 3, client_did(SOCKET, CLOSING));
    // Then it is somebody else's.
    let did = CONNECTING;
    let (local, remote) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap());
    take(&mut attribution, 5, Saw::Socket { socket: SOCKET, local, remote, did });
    assert_eq!(take(&mut attribution, 6, start(WRITE, SOCKET)), []);
}

#[test]
fn nothing_is_attributed_without_places_or_without_a_watcher() {
    let mut attribution = attribution();
    take(&mut attribution, 1, client_did(SOCKET, CONNECTING));
    attribution.unwatch(KEY);
    assert_eq!(take(&mut attribution, 2, start(WRITE, SOCKET)), []);
    assert_eq!(take(&mut attribution, 3, client_did(SOCKET, CLOSING)), []);
    assert_eq!(attribution.keys().count(), 0);

    let mut unmeasured = Attribution::default();
    unmeasured.watch(KEY, &addresses());
    take(&mut unmeasured, 1, client_did(SOCKET, CONNECTING));
    assert_eq!(take(&mut unmeasured, 2, start(WRITE, SOCKET)), []);
}

#[test]
fn strays_are_bounded() {
    let mut attribution = attribution();
    for at_ns in 0..(STRAYS as u64 + 10) {
        take(&mut attribution, at_ns, start(WRITE, SOCKET));
    }
    assert_eq!(attribution.strays.len(), STRAYS);
}

#[test]
fn both_sides_and_their_errors() {
    let mut attribution = attribution();
    let Addresses { client, server, .. } = addresses();
    let did = SocketDid::ReportError { error: libc::ETIMEDOUT };
    let saw = Saw::Socket { socket: 0, local: server, remote: client, did };
    let report = Trace::ErrorReport { side: Side::Server, error: Errno::ETIMEDOUT };
    assert_eq!(take(&mut attribution, 1, saw), [(1, report)]);
    let traces = take(&mut attribution, 2, client_did(SOCKET, CONNECTING));
    let Trace::SetState { side: Side::Client, old, new } = &traces[0].1 else { panic!() };
    assert_eq!((old.as_str(), new.as_str()), ("CLOSE", "SYN_SENT"));
}

#[test]
fn sockets_on_ports_that_nobody_knew_are_told_apart() {
    let mut attribution = attribution();
    let (from, to) = (addresses().client, addresses().server);
    let local = |port| SocketAddr::new(from.ip(), port);
    let mut seen = Vec::new();
    let mut take = |at_ns, saw| {
        attribution.take(at_ns, Sighting { pid: 1, saw }, &mut |_, ends, event| {
            let What::Trace(trace) = event.what else { panic!("{event:?}") };
            seen.push((event.at_ns, ends.unwrap().client.port(), trace));
        });
    };
    let other = SOCKET + 0x980;
    let saw = |socket, port, did| Saw::Socket { socket, local: local(port), remote: to, did };
    // The kernel chooses ports after the sockets have entered SYN_SENT.
    take(1, saw(SOCKET, 0, CONNECTING));
    take(2, saw(other, 0, CONNECTING));
    take(3, start(WRITE, other));
    take(4, saw(other, 50_002, SocketDid::SetState { old: 2, new: 1 }));
    take(5, saw(SOCKET, 50_001, SocketDid::SetState { old: 2, new: 1 }));
    take(6, start(WRITE, SOCKET));
    let moved = |old: &str, new: &str| Trace::SetState {
        side: Side::Client,
        old: old.into(),
        new: new.into(),
    };
    let (begins, opens) = (moved("CLOSE", "SYN_SENT"), moved("SYN_SENT", "ESTABLISHED"));
    let expected = [
        (2, 50_002, begins.clone()),
        (3, 50_002, started(Timer::Write)),
        (4, 50_002, opens.clone()),
        (1, 50_001, begins),
        (5, 50_001, opens),
        (6, 50_001, started(Timer::Write)),
    ];
    assert_eq!(seen, expected);
}
