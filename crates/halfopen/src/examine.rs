//! Inside the sandbox: tries what trials need, for `halfopen doctor`.

use crate::channel::Check;
use crate::instruments::TRACEFS;
use anyhow::Result;
use lab::network::Network;
use observe::{SocketDiag, Tap, Tracer};
use spec::{Addresses, Family, Parameters, Topology};
use std::path::Path;
use timeline::Source;

/// Tries, inside the sandbox, what a trial needs.
pub(crate) fn examine() -> Result<Vec<Check>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        let mut checks = Vec::new();
        for (topology, family) in [
            (Topology::Direct, Family::Ipv4),
            (Topology::Switch, Family::Ipv4),
            (Topology::Router, Family::Ipv4),
            (Topology::Switch, Family::Ipv6),
        ] {
            checks.extend(try_network(topology, family).await);
        }
        checks.push(try_tracepoints());
        checks
    }))
}

async fn try_network(topology: Topology, family: Family) -> Vec<Check> {
    let addresses = Addresses::new(0, family, topology, 40_000, 7);
    let parameters = Parameters { topology, family, ..Parameters::default() };
    let built = Network::build(&addresses, &parameters).await;
    let needs = match topology {
        Topology::Direct => "veth (modprobe veth)",
        Topology::Switch | Topology::Proxy => "veth and bridge (modprobe veth bridge)",
        Topology::Router => "veth, bridge and IP forwarding (modprobe veth bridge)",
    };
    let mut checks = vec![Check {
        name: format!("{topology}, {family}"),
        needed: topology == Topology::Switch && family == Family::Ipv4,
        result: match &built {
            Ok(_) => Ok("built".into()),
            Err(error) => Err(error.to_string()),
        },
        remedy: match &built {
            // It says itself what to do.
            Err(error) if error.is_unsupported() => String::new(),
            _ => format!("the kernel must have {needs}"),
        },
    }];
    let Ok(network) = built else { return checks };
    if topology == Topology::Switch && family == Family::Ipv4 {
        let client = network.client();
        let tap = Tap::open(client, Network::INTERFACE, Source::ClientWire, &addresses, true);
        checks.push(Check {
            name: "packet sockets".into(),
            needed: true,
            result: tap.map(|_| "work".into()).map_err(|error| error.to_string()),
            remedy: "the kernel must have CONFIG_PACKET (modprobe af_packet)".into(),
        });
        let sample = SocketDiag::open(client)
            .and_then(|mut diag| diag.sample(addresses.client, addresses.server));
        checks.push(Check {
            name: "socket diagnostics".into(),
            needed: true,
            result: sample.map(|_| "work".into()).map_err(|error| error.to_string()),
            remedy: "the kernel must have CONFIG_INET_DIAG (modprobe tcp_diag)".into(),
        });
    }
    if let Err(error) = network.remove().await {
        checks.push(Check {
            name: format!("{topology}, {family}: taking down"),
            needed: true,
            result: Err(error.to_string()),
            remedy: String::new(),
        });
    }
    checks
}

fn try_tracepoints() -> Check {
    let tracer = Tracer::open(Some(Path::new(TRACEFS)));
    let result = match &tracer {
        Ok(tracer) if tracer.missing().is_empty() => {
            Ok("tell when the kernel reports an error (Linux 5.14)".into())
        }
        Ok(tracer) => {
            let missing: Vec<_> =
                tracer.missing().iter().map(|m| format!("{}: {}", m.instrument, m.why)).collect();
            Err(format!("not all: {}", missing.join("; ")))
        }
        Err(error) => Err(error.to_string()),
    };
    let remedy = "they need root of the host; without them, socket diagnostics tell it within some \
                  milliseconds";
    Check { name: "tracepoints".into(), needed: false, result, remedy: remedy.into() }
}
