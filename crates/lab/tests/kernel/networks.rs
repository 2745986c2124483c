//! Networks on the real kernel: each carries a connection, and each fault stops it in its own way.

use crate::support::{A_WHILE, build, lease, parameters};
use lab::network::{Error, Network};
use rstest::rstest;
use spec::Family::{self, Ipv4, Ipv6};
use spec::Neighbour::{self, Learned, Permanent};
use spec::Topology::{self, Direct, Router, Switch};

#[rstest]
#[tokio::test]
async fn a_network_carries_a_connection_and_removes_itself(
    #[values(Switch, Router, Direct)] topology: Topology,
    #[values(Ipv4, Ipv6)] family: Family,
    #[values(Permanent, Learned)] neighbour: Neighbour,
) {
    let trial = build(&parameters(topology, family, neighbour)).await;
    let connection = trial.connect();
    for link in trial.network.links().await.unwrap() {
        assert!(link.exists && link.up && link.carrier, "{link:?}");
    }
    drop(connection);
    trial.network.remove().await.unwrap();
}

#[rstest]
#[tokio::test]
async fn a_cut_stops_everything_and_the_client_keeps_its_carrier(
    #[values(Switch, Router)] topology: Topology,
    #[values(Ipv4, Ipv6)] family: Family,
    #[values(Permanent, Learned)] neighbour: Neighbour,
) {
    let mut trial = build(&parameters(topology, family, neighbour)).await;
    let mut connection = trial.connect();
    trial.network.cut().await.unwrap();
    assert!(connection.is_silent());
    trial.assert_client_has_carrier().await;
    assert!(!trial.link("server").await.carrier);
    assert!(!trial.link("switch port to server").await.up);
    if topology == Router {
        assert!(trial.link("router port to server").await.carrier);
    }

    trial.network.restore().await.unwrap();
    assert!(trial.link("server").await.carrier);
    connection.assert_recovers();
    trial.connect();
}

#[rstest]
#[tokio::test]
async fn a_black_hole_swallows_frames_and_all_carriers_stay(
    #[values(Switch, Router)] topology: Topology,
    #[values(Ipv4, Ipv6)] family: Family,
    #[values(Permanent, Learned)] neighbour: Neighbour,
) {
    let mut trial = build(&parameters(topology, family, neighbour)).await;
    let mut connection = trial.connect();
    trial.network.blackhole(None).await.unwrap();
    assert!(connection.is_silent());
    for link in trial.network.links().await.unwrap() {
        assert!(link.carrier, "{link:?}");
    }
    trial.network.restore().await.unwrap();
    drop(connection);
    trial.connect();
}

#[rstest]
#[tokio::test]
async fn a_destroyed_server_is_really_gone_and_can_boot_again(
    #[values(Switch, Router)] topology: Topology,
    #[values(Ipv4, Ipv6)] family: Family,
    #[values(Permanent, Learned)] neighbour: Neighbour,
    #[values(false, true)] new_mac: bool,
) {
    let mut trial = build(&parameters(topology, family, neighbour)).await;
    let connection = trial.connect();
    trial.network.cut().await.unwrap();
    // The server's program dies, and leaves an orphan that would speak for a minute and a half.
    let client = connection.client;
    drop(connection.server);
    trial.network.destroy_server().await.unwrap();
    assert!(trial.network.server().is_none());
    assert!(!trial.link("server").await.exists);
    assert!(!trial.link("switch port to server").await.exists);
    trial.assert_client_has_carrier().await;

    trial.network.boot_server(new_mac).await.unwrap();
    let link = trial.link("server").await;
    assert!(link.up && !link.carrier, "{link:?}");
    trial.network.connect_server().await.unwrap();
    let link = trial.link("server").await;
    assert!(link.up && link.carrier, "{link:?}");
    drop(client);
    if new_mac && topology == Switch && neighbour == Permanent {
        // The client's pinned entry still has the old address.
        assert!(!trial.can_connect(A_WHILE));
        return;
    }
    // A neighbour that has learned the old address would send there for a while; it learns the
    // new one when the server speaks first.
    trial.server_speaks_first();
    trial.connect();
}

#[rstest]
#[tokio::test]
async fn an_unplugged_cable_takes_the_clients_carrier_too(#[values(Ipv4, Ipv6)] family: Family) {
    let mut trial = build(&parameters(Direct, family, Permanent)).await;
    let mut connection = trial.connect();
    trial.network.unplug().await.unwrap();
    assert!(connection.is_silent());
    let link = trial.link("client").await;
    assert!(link.up && !link.carrier, "{link:?}");
}

#[tokio::test]
async fn a_namespace_that_is_held_is_reported_with_its_holder() {
    let mut trial = build(&parameters(Switch, Ipv4, Permanent)).await;
    let held = trial.server().clone();
    trial.network.cut().await.unwrap();
    let error = trial.network.destroy_server().await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Pinned { host: "server", .. }), "{text}");
    assert!(text.contains(&format!("process {} ", std::process::id())), "{text}");
    assert!(text.contains(&held.inode().to_string()), "{text}");
}

#[tokio::test]
async fn a_namespace_that_a_socket_holds_is_not_taken_for_gone() {
    let mut trial = build(&parameters(Switch, Ipv4, Permanent)).await;
    let listen = || std::net::TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let _socket = trial.server().run(listen).unwrap();
    trial.network.cut().await.unwrap();
    let error = trial.network.destroy_server().await.unwrap_err();
    assert!(matches!(error, Error::Pinned { host: "server", .. }), "{error}");
    assert!(error.to_string().contains("a socket holds it"), "{error}");
}

#[tokio::test]
async fn faults_that_a_topology_does_not_have_are_refused() {
    let mut direct = build(&parameters(Direct, Ipv4, Permanent)).await;
    for result in [
        direct.network.cut().await,
        direct.network.blackhole(None).await,
        direct.network.destroy_server().await,
    ] {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Topology { .. }), "{error}");
        assert!(error.to_string().contains("`direct`"), "{error}");
    }
    let mut switch = build(&parameters(Switch, Ipv4, Permanent)).await;
    let error = switch.network.unplug().await.unwrap_err();
    assert!(error.to_string().contains("`switch`"), "{error}");
    let error = switch.network.restore().await.unwrap_err();
    assert!(error.to_string().contains("nothing is broken"), "{error}");
    let error = switch.network.connect_server().await.unwrap_err();
    assert!(error.to_string().contains("no server has booted"), "{error}");
    let error = switch.network.boot_server(false).await.unwrap_err();
    assert!(matches!(error, Error::ServerPresent), "{error}");
}

#[tokio::test]
async fn a_network_that_cannot_be_finished_leaves_nothing() {
    let mut parameters = parameters(Switch, Ipv4, Permanent);
    parameters.sysctl.insert("conf.nosuch.rp_filter".into(), "1".into());
    let error = Network::build(&lease(&parameters), &parameters).await.unwrap_err();
    assert!(error.is_unsupported(), "{error}");
    assert!(error.to_string().contains("no sysctl net.ipv4.conf.nosuch.rp_filter"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_networks_at_once() {
    let builds: Vec<_> = (0..100)
        .map(|_| tokio::spawn(async { build(&parameters(Switch, Ipv4, Permanent)).await }))
        .collect();
    let mut trials = Vec::new();
    for build in builds {
        trials.push(build.await.unwrap());
    }
    let connections: Vec<_> = trials.iter().map(crate::support::Trial::connect).collect();
    drop(connections);
    let removals: Vec<_> =
        trials.into_iter().map(|trial| tokio::spawn(trial.network.remove())).collect();
    for removal in removals {
        removal.await.unwrap().unwrap();
    }
}

#[rstest]
#[case(Ipv4, std::time::Duration::ZERO)]
// Multicast reports about the hosts' own addresses, and no more.
#[case(Ipv6, std::time::Duration::from_millis(500))]
#[tokio::test]
async fn hosts_say_nothing_by_themselves(
    #[values(Switch, Router, Direct)] topology: Topology,
    #[values(Permanent, Learned)] neighbour: Neighbour,
    #[case] family: Family,
    #[case] after: std::time::Duration,
) {
    let trial = build(&parameters(topology, family, neighbour)).await;
    tokio::time::sleep(after).await;
    let frames = trial.listen(std::time::Duration::from_secs(3)).await;
    assert!(frames.is_empty(), "{frames:x?}");
}
