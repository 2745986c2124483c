//! What is known at the last moment before the fault.

use super::Trial;
use crate::instruments::Seen;
use anyhow::Result;
use lab::sysctl;
use observe::clock::{hz, kernel_release, monotonic_ns};
use observe::options::Found;
use report::Clock;
use spec::facts::NeighbourFacts;
use spec::{Facts, Neighbour, Parameters, Part, SocketOptions};
use timeline::event::Owner;
use timeline::{Ends, Event, FlowId, Side, Source, What};
use tokio::time::Instant;

impl Trial {
    /// Waits `fault.after`, and looks at the connection at the last moment.
    pub(super) async fn wait_for_fault(&mut self, parameters: &Parameters) -> Result<Facts> {
        let fault_at = Instant::now() + parameters.fault.after;
        self.follow_until(fault_at, |_| false).await?;
        let main = self.flows.main();
        // First, since a descriptor of a socket must not be held across the fault.
        let mut options = None;
        for flow in self.flows.open().collect::<Vec<_>>() {
            let found = self.look_at_options(flow).await?;
            if Some(flow) == main {
                options = found;
            }
        }
        self.facts_of(main, options, parameters)
    }

    /// The host of a connection whose kernel is asked, and the other.
    pub(super) fn parts_of(&self, flow: FlowId) -> [Part; 2] {
        self.plan.experiment.parameters.parts(self.flows.leg(flow))
    }

    /// What is known of a connection of the client's host, where `parameters` are the trial's as the
    /// connection has them.
    pub(super) fn facts_of(
        &mut self,
        flow: Option<FlowId>,
        options: Option<SocketOptions>,
        parameters: &Parameters,
    ) -> Result<Facts> {
        let [near, far] = flow.map_or([Part::Client, Part::Server], |flow| self.parts_of(flow));
        let client = self.namespace(near)?;
        let neighbour = if parameters.neighbour == Neighbour::Learned {
            let sampled_at_ns = monotonic_ns();
            let known = self.stage.network()?.knows_server()?;
            known.map(|known| NeighbourFacts { sampled_at_ns, ..known })
        } else {
            None
        };
        let look = match flow.and_then(|flow| self.flows.ends(flow)) {
            Some(ends) => {
                Some(self.host_mut(near).sockets(&client)?.look(ends.client, ends.server)?)
            }
            None => None,
        };
        let server_sysctl = match self.namespace(far) {
            Ok(server) => sysctl::read_tcp(&server, parameters.server_sysctl.keys())?,
            // It is gone, or on its way out.
            Err(_) => spec::sysctl::Sysctls::new(),
        };
        let probed_ns = flow.and_then(|flow| self.flows.window_probed_ns(flow));
        let tcp = look.and_then(|look| look.sample?.facts(look.began_ns, probed_ns));
        let acknowledged = flow.and_then(|flow| self.flows.acknowledged(flow));
        Ok(Facts {
            kernel: kernel_release(),
            hz: hz(),
            sysctl: sysctl::read_tcp(&client, parameters.sysctl.keys())?,
            server_sysctl,
            tcp: tcp.map(|tcp| spec::facts::TcpFacts { options_set: options, acknowledged, ..tcp }),
            jiffies: self.bench.shared.jiffy_clock(self.bench.clock),
            virtual_time: self.bench.clock == Clock::Virtual,
            neighbour,
            server_tcp: None,
        })
    }

    /// Reads the options of the client's socket from the process that has it, and says whose it is.
    pub(super) async fn look_at_options(&mut self, flow: FlowId) -> Result<Option<SocketOptions>> {
        let Some(Ends { client, server }) = self.flows.ends(flow) else { return Ok(None) };
        let [near, _] = self.parts_of(flow);
        let namespace = self.namespace(near)?;
        let host = self.host_mut(near);
        let inode = host.sockets(&namespace)?.inode(client, server)?;
        let Some(inode) = inode else { return Ok(None) };
        let Some(found) = self.read_options(near, inode).await? else { return Ok(None) };
        let options = found.options.clone();
        self.mark_options(flow, found.owner, found.options);
        Ok(Some(options))
    }

    /// The same of the socket with this inode, which may be of a connection that has ended.
    pub(super) async fn read_options(&mut self, near: Part, inode: u32) -> Result<Option<Found>> {
        // It may have ended.
        let Ok(program) = self.host_mut(near).peer() else { return Ok(None) };
        let processes = program.processes().await?;
        let found = observe::options::read(inode, processes);
        if let Err(error) = &found {
            let whose = self.host(near).name();
            let why = format!("the options of the {whose}'s socket cannot be read: {error}");
            let instrument = "socket options".to_owned();
            self.mark_as(Source::socket(near), What::InstrumentMissing { instrument, why });
        }
        Ok(found.unwrap_or_default())
    }

    pub(super) fn mark_options(&mut self, flow: FlowId, owner: Owner, options: SocketOptions) {
        let what = What::Options { side: Side::Client, owner, options: Box::new(options) };
        let [near, _] = self.parts_of(flow);
        let event = Event::new(monotonic_ns(), Source::socket(near), what).of(flow);
        self.take(Seen::Event(event, None));
    }
}
