//! The network is built and looked at; or it turns out that this machine or kernel cannot.

use super::Trial;
use super::stage::Stage;
use crate::channel::Ending;
use crate::instruments::{Pace, start_sampler, start_tap};
use anyhow::{Context, Result};
use lab::network::Network;
use lab::sysctl;
use observe::clock::hz;
use spec::{Parameters, Part};
use std::time::Duration;
use timeline::Source;

impl Trial {
    /// Builds the network and starts looking at it. Says how the trial ends if this kernel cannot.
    pub(super) async fn build(&mut self, parameters: &Parameters) -> Result<Option<Ending>> {
        let network = match Network::build(&self.plan.addresses, parameters).await {
            Ok(network) => network,
            Err(error) if error.is_unsupported() => {
                return Ok(Some(Ending::Skipped(error.to_string())));
            }
            Err(lab::network::Error::Sysctl(error)) => return Ok(Some(refused(&error))),
            Err(error) => return Err(error).context("building the network"),
        };
        let client = network.client().clone();
        self.stage = Stage::Standing(Box::new(network));
        if parameters.client.rto_max.is_some() && !sysctl::exists(&client, "tcp_rto_max_ms")? {
            let why = "this kernel has no TCP_RTO_MAX_MS (Linux 6.15)";
            return Ok(Some(Ending::Skipped(why.into())));
        }
        if let Some(least) = parameters.client.rto_min
            && let Err(error) = peer::try_rto_min(least)
        {
            return Ok(Some(no_rto_min(parameters, least, &error)));
        }
        for program in [parameters.client.program, parameters.server.program] {
            if let Some(install) = program.description().install
                && peer::find(install.executable).is_none()
            {
                let why = format!("{} is not installed: {}", install.executable, install.remedy);
                return Ok(Some(Ending::Skipped(why)));
            }
        }
        let is_missing = |(needed, _): &(&String, &String)| !self.bench.surroundings.has(needed);
        if let Some((needed, install)) = parameters.needs.iter().find(is_missing) {
            let why = format!("{needed} is not installed: {install}");
            return Ok(Some(Ending::Skipped(why)));
        }
        self.look_at(Part::Client)?;
        self.look_at(Part::Server)?;
        if parameters.third_there() {
            self.look_at(Part::Third)?;
        }
        Ok(None)
    }

    /// Starts a tap and a sampler on one host.
    pub(super) fn look_at(&mut self, side: Part) -> Result<()> {
        let (namespace, interface) = (self.namespace(side)?, Network::INTERFACE);
        let (wire, socket) = (Source::wire(side), Source::socket(side));
        let traced = self.bench.shared.traced();
        let pace =
            Pace::new(self.bench.clock, traced, self.bench.jobs).at_random(self.bench.samples);
        let (addresses, sink) = (&self.plan.addresses, || self.sink.clone());
        let (followed, stirred) = (self.flows.followed(), || self.host(side).stirred.clone());
        let instruments = vec![
            start_tap(&namespace, interface, wire, addresses, self.bench.clock, sink(), stirred())?,
            start_sampler(&namespace, socket, addresses, followed, pace, sink(), stirred())?,
        ];
        self.host_mut(side).instruments = instruments;
        Ok(())
    }
}

/// How a trial ends whose `TCP_RTO_MIN_US` the kernel does not take.
fn no_rto_min(parameters: &Parameters, least: Duration, error: &std::io::Error) -> Ending {
    if error.kind() != std::io::ErrorKind::InvalidInput {
        return Ending::Skipped("this kernel has no TCP_RTO_MIN_US (Linux 6.17)".into());
    }
    if let Err((key, why)) = parameters.validate_at(hz()) {
        return Ending::Refused(format!("`{key}`: {why}"));
    }
    let least = spec::duration::show(least);
    Ending::Refused(format!("`client.rto_min`: the kernel does not take {least}: {error}"))
}

/// How a trial ends whose sysctl the kernel does not take.
fn refused(error: &sysctl::Error) -> Ending {
    match error {
        // A congestion control that this kernel does not have.
        sysctl::Error::Refused { name, value, source }
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            Ending::Skipped(format!("this kernel has no {value} for net.ipv4.{name}"))
        }
        sysctl::Error::Refused { name, value, source } => Ending::Refused(format!(
            "`sysctl.{name}`: `{value}` is not a value that the kernel accepts for net.ipv4.{name} \
             ({source}; `sysctl net.ipv4.{name}` shows one)"
        )),
        // What the host allows binds its namespaces too, and root in them.
        sysctl::Error::Denied { name, value, source }
            if name == "tcp_congestion_control"
                && source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            Ending::Skipped(format!(
                "the host does not allow the congestion control {value}; as root of the host: \
                 sysctl -w net.ipv4.tcp_allowed_congestion_control=\"$(sysctl -n \
                 net.ipv4.tcp_allowed_congestion_control) {value}\""
            ))
        }
        denied @ sysctl::Error::Denied { .. } => Ending::Skipped(denied.to_string()),
        other => Ending::Failed(other.to_string()),
    }
}
