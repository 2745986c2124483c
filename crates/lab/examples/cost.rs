//! What building and removing networks costs: one, and a hundred at once.
//!
//! ```text
//! cargo run --release -p lab --example cost [switch|router|direct] [ipv4|ipv6]
//! ```

use lab::network::{Error, Network};
use spec::{Addresses, Parameters};
use std::time::{Duration, Instant};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut parameters = Parameters::default();
    let mut arguments = std::env::args().skip(1);
    if let Some(topology) = arguments.next() {
        parameters.topology = topology.parse()?;
    }
    if let Some(family) = arguments.next() {
        parameters.family = family.parse()?;
    }
    println!("{} {}", parameters.topology, parameters.family);

    let mut builds = Vec::new();
    let mut removals = Vec::new();
    for lease in 0..50 {
        let (took, network) = timed(build(lease, &parameters)).await;
        builds.push(took);
        let (took, removed) = timed(network?.remove()).await;
        removed?;
        removals.push(took);
    }
    show("one by one: build ", &mut builds);
    show("            remove", &mut removals);

    let (took, networks) = timed(async {
        let mut networks = Vec::new();
        for lease in 100..200 {
            networks.push(build(lease, &parameters).await?);
        }
        Ok::<_, Error>(networks)
    })
    .await;
    println!("100 by one builder: {took:?}");
    let (took, ()) = timed(remove_all(networks?)).await;
    println!("  removed at once: {took:?}");

    let (took, networks) = timed(async {
        let builds: Vec<_> = (200..300)
            .map(|lease| {
                let parameters = parameters.clone();
                tokio::spawn(async move { build(lease, &parameters).await })
            })
            .collect();
        let mut networks = Vec::new();
        for build in builds {
            networks.push(build.await.expect("a build does not panic")?);
        }
        Ok::<_, Error>(networks)
    })
    .await;
    println!("100 at once: {took:?}");
    let (took, ()) = timed(remove_all(networks?)).await;
    println!("  removed at once: {took:?}");
    Ok(())
}

async fn build(lease: u16, parameters: &Parameters) -> Result<Network, Error> {
    let addresses = Addresses::new(lease, parameters.family, parameters.topology, 1, 7);
    Network::build(&addresses, parameters).await
}

async fn remove_all(networks: Vec<Network>) {
    let removals: Vec<_> =
        networks.into_iter().map(|network| tokio::spawn(network.remove())).collect();
    for removal in removals {
        if let Err(error) = removal.await.expect("a removal does not panic") {
            eprintln!("{error}");
        }
    }
}

async fn timed<T>(work: impl Future<Output = T>) -> (Duration, T) {
    let began = Instant::now();
    let result = work.await;
    (began.elapsed(), result)
}

fn show(what: &str, times: &mut [Duration]) {
    times.sort();
    let (least, middle, most) = (times[0], times[times.len() / 2], times[times.len() - 1]);
    println!("{what} median {middle:?} ({least:?} to {most:?})");
}
