use super::*;

const SOCKET: u64 = 0x1000;
const WRITE: TimerPlace = TimerPlace { function: 0xa, offset: 0x450 };
const KEEPALIVE: TimerPlace = TimerPlace { function: 0xb, offset: 0x1e0 };

fn ends() -> (SocketAddr, SocketAddr) {
    ("127.1.2.3:1000".parse().unwrap(), "127.1.2.3:2000".parse().unwrap())
}

fn state(pid: i32, new: u32) -> (u64, Sighting) {
    let (local, remote) = ends();
    let did = SocketDid::SetState { old: 7, new };
    (0, Sighting { pid, saw: Saw::Socket { socket: SOCKET, local, remote, did } })
}

fn armed(pid: i32, function: u64, timer: u64) -> (u64, Sighting) {
    let did = TimerDid::Start { function, now: 0, expires: 0, bucket: None };
    (0, Sighting { pid, saw: Saw::Timer { timer, did } })
}

#[test]
fn the_first_timer_is_for_retransmission_and_the_other_for_keepalive() {
    let sightings = [
        armed(1, WRITE.function, SOCKET + 0x10), // before
        state(1, STATE_SYN_SENT),
        armed(2, KEEPALIVE.function, SOCKET + 0x20), // another thread's
        armed(1, WRITE.function, SOCKET - 0x20),     // another socket's
        armed(1, WRITE.function, SOCKET + WRITE.offset),
        armed(1, WRITE.function, SOCKET + WRITE.offset),
        armed(1, KEEPALIVE.function, SOCKET + KEEPALIVE.offset),
        state(1, STATE_CLOSE),
    ];
    let found = Some(TimerPlaces { write: WRITE, keepalive: KEEPALIVE });
    assert_eq!(places(&sightings, ends()), found);
    let (from, to) = ends();
    assert_eq!(places(&sightings, (to, from)), None, "no such connection");
    assert_eq!(places(&sightings[..6], ends()), None, "no keepalive timer");
}

#[test]
fn a_minority_decides_nothing() {
    let right = TimerPlaces { write: WRITE, keepalive: KEEPALIVE };
    let wrong = TimerPlaces { write: KEEPALIVE, keepalive: WRITE };
    assert_eq!(agreed([right, wrong, right, right].into_iter()), Some(right));
    assert_eq!(agreed([right, right].into_iter()), None);
    assert_eq!(agreed([right, wrong, right, wrong, right, wrong].into_iter()), None);
}
