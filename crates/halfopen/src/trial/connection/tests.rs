use super::*;
use crate::instruments::Shared;
use crate::lease::Lease;
use crate::program::Surroundings;
use crate::trial::Bench;
use netns::Namespace;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
use report::Clock;
use sandbox::Launcher;
use spec::{Addresses, Experiment, Family, Plan, Topology};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::thread::sleep;
use tokio::sync::{Semaphore, mpsc, watch};

/// No peer of ours is there to say anything: what taps and sockets show decides.
#[tokio::test(flavor = "multi_thread")]
async fn programs_that_say_nothing_have_settled_when_nothing_passes_any_more() {
    const TIMES: u32 = 8;
    let apart = QUIET / 10;
    let began = Instant::now();
    let settled = settle(TIMES, apart, PATIENCE).await;
    assert!(settled.is_ok(), "{settled:?}");
    assert!(began.elapsed() >= apart * (TIMES - 1) + QUIET, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_on_exchanging_does_not_settle() {
    let error = settle(12, QUIET / 4, QUIET * 2).await.unwrap_err();
    assert!(error.to_string().contains("does not settle"), "{error:#}");
}

/// Has two programs exchange a byte each way so many times, and a trial wait until they have settled.
async fn settle(times: u32, apart: Duration, most: Duration) -> Result<()> {
    let lease = Lease::take(Family::Ipv4, Topology::Switch).unwrap();
    let (reports, _listens) = mpsc::unbounded_channel();
    let (_stops, stop) = watch::channel(false);
    // Nobody is to start a program: the test's own threads are the programs.
    let mut launcher = Command::new("sh");
    launcher.args(["-c", "printf ready >&0; exec sleep 100"]);
    let bench = Arc::new(Bench {
        reports,
        shared: Shared::default(),
        clock: Clock::Real,
        samples: false,
        jobs: 1,
        never: Duration::from_secs(10),
        launcher: Launcher::start(launcher).unwrap(),
        surroundings: Surroundings::of_caller().unwrap(),
        builders: Semaphore::new(1),
        stop,
    });
    let parameters = Parameters { topology: Topology::Switch, ..Parameters::default() };
    let (name, question) = ("silent".to_owned(), "?".to_owned());
    let experiment =
        Experiment { name, question, claims: vec![], parameters: parameters.clone(), mend: None };
    let addresses = lease.addresses.clone();
    let mut trial = Trial::new(bench, Plan { number: 0, experiment, addresses, phase: None });
    assert!(trial.build(&parameters).await.unwrap().is_none());

    let hosts = [trial.namespace(Part::Client).unwrap(), trial.namespace(Part::Server).unwrap()];
    let addresses = lease.addresses.clone();
    let programs = std::thread::spawn(move || exchange(&hosts, &addresses, times, apart));
    let settled = trial.wait_until_settled(Part::Client, most).await;
    programs.join().unwrap();
    trial.take_down().await.unwrap();
    settled
}

fn exchange([client, server]: &[Namespace; 2], at: &Addresses, times: u32, apart: Duration) {
    let listener = server.run(|| TcpListener::bind(at.server)).unwrap().unwrap();
    let near = client.run(|| connected(at.client, at.server)).unwrap();
    let (far, _) = listener.accept().unwrap();
    for _ in 0..times {
        for (mut from, mut to) in [(&near, &far), (&far, &near)] {
            from.write_all(b"x").unwrap();
            to.read_exact(&mut [0]).unwrap();
        }
        sleep(apart);
    }
    // Both ends stay until the trial has had the time to see that nothing passes.
    sleep(QUIET * 2);
}

fn connected(from: SocketAddr, to: SocketAddr) -> TcpStream {
    let stream =
        socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(stream.as_raw_fd(), &SockaddrStorage::from(from)).unwrap();
    connect(stream.as_raw_fd(), &SockaddrStorage::from(to)).unwrap();
    stream.into()
}
