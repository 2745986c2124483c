//! Delay on the path, on the real kernel: by netem where it has that, by the relay elsewhere.

use crate::support::{build, parameters};
use rstest::rstest;
use spec::Family::{self, Ipv4, Ipv6};
use spec::Neighbour::Permanent;
use spec::Parameters;
use spec::Topology::{self, Router, Switch};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

const RTT: Duration = Duration::from_millis(100);

fn delayed(topology: Topology, family: Family) -> Parameters {
    let mut parameters = parameters(topology, family, Permanent);
    parameters.path.rtt = RTT;
    parameters
}

#[rstest]
#[tokio::test]
async fn every_exchange_takes_the_round_trip_time(
    #[values(Switch, Router)] topology: Topology,
    #[values(Ipv4, Ipv6)] family: Family,
) {
    let trial = build(&delayed(topology, family)).await;
    println!("delayed by {:?}", trial.network.delayed_by());
    let mut connection = trial.connect();
    for stream in [&connection.client, &connection.server] {
        stream.set_nodelay(true).unwrap();
    }
    let mut times = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        connection.client.write_all(b"?").unwrap();
        connection.server.read_exact(&mut [0]).unwrap();
        connection.server.write_all(b"!").unwrap();
        connection.client.read_exact(&mut [0]).unwrap();
        times.push(began.elapsed());
    }
    assert!(times.iter().all(|time| *time >= RTT), "{times:?}");
    println!("{times:?}");
    // The machine may be busy, but not each time.
    let least = *times.iter().min().unwrap();
    assert!(least < RTT + Duration::from_millis(5), "{times:?}");
    assert_eq!(trial.network.lost_frames(), 0);
}

#[rstest]
#[tokio::test]
async fn bulk_data_arrive_whole(#[values(Switch, Router)] topology: Topology) {
    let trial = build(&delayed(topology, Ipv4)).await;
    let mut connection = trial.connect();
    let sent: Vec<u8> = (0..400_000_u32).map(|number| (number % 251) as u8).collect();
    let mut received = vec![0; sent.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| connection.client.write_all(&sent).unwrap());
        connection.server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        connection.server.read_exact(&mut received).unwrap();
    });
    assert!(sent == received);
    assert_eq!(trial.network.lost_frames(), 0);
}

#[rstest]
#[tokio::test]
async fn faults_are_the_same_with_delay(
    #[values(Switch, Router)] topology: Topology,
    #[values(false, true)] cut: bool,
) {
    let mut trial = build(&delayed(topology, Ipv4)).await;
    let mut connection = trial.connect();
    if cut {
        trial.network.cut().await.unwrap();
    } else {
        trial.network.blackhole(None).await.unwrap();
    }
    assert!(connection.is_silent());
    trial.assert_client_has_carrier().await;
    trial.network.restore().await.unwrap();
    drop(connection);
    trial.connect();
}

#[rstest]
#[tokio::test]
async fn a_rebooted_server_is_as_far_away_as_before(#[values(Switch, Router)] topology: Topology) {
    let mut trial = build(&delayed(topology, Ipv4)).await;
    drop(trial.connect());
    trial.network.cut().await.unwrap();
    trial.network.destroy_server().await.unwrap();
    trial.network.boot_server(false).await.unwrap();
    trial.network.connect_server().await.unwrap();
    let began = Instant::now();
    trial.connect();
    // SYN and SYN-ACK; half a round trip each for the two bytes of the exchange.
    assert!(began.elapsed() >= 2 * RTT);
    trial.network.remove().await.unwrap();
}

#[tokio::test]
async fn what_is_on_its_way_survives_a_black_hole_behind_it() {
    let mut parameters = delayed(Switch, Ipv6);
    parameters.path.rtt = Duration::from_secs(1);
    let mut trial = build(&parameters).await;
    let mut connection = trial.connect_far(Duration::from_secs(10));
    connection.client.write_all(b"x").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    trial.network.blackhole(None).await.unwrap();
    connection.server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    connection.server.read_exact(&mut [0]).unwrap();
}
