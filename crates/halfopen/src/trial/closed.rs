//! When a server closes the socket of a connection that has ended.

use super::Trial;
use super::forecast::Forecasts;
use crate::instruments::Seen;
use anyhow::Result;
use observe::clock::monotonic_ns;
use spec::CallName;
use std::time::Duration;
use timeline::event::Call;
use timeline::{Event, FlowId, Source, What};
use tokio::time::Instant;

/// What ended within this time is what a trial has just waited for.
const JUST_NOW_NS: u64 = 5_000_000;

impl Trial {
    /// A server does not end with its connection. That it closes a socket which has ended nobody tells:
    /// its descriptors show it.
    pub(super) async fn see_closed(&mut self, forecasts: &Forecasts, until: Instant) -> Result<()> {
        let now_ns = monotonic_ns();
        let just_ended = |flow: FlowId| {
            self.flows.ended_ns(flow).is_some_and(|at_ns| now_ns - at_ns.min(now_ns) <= JUST_NOW_NS)
        };
        let held = forecasts.iter().filter(|(flow, _)| just_ended(**flow));
        let mut held: Vec<_> =
            held.filter_map(|(flow, forecast)| Some((*flow, forecast.inode()?))).collect();
        let mut step = Duration::from_micros(500);
        while !held.is_empty() && Instant::now() < until {
            let look = until.min(Instant::now() + step);
            self.follow_until(look, |trial| trial.client.end().is_some()).await?;
            step *= 2;
            let began_ns = monotonic_ns();
            let mut processes = Vec::new();
            for host in [&mut self.client, &mut self.third] {
                if let Ok(peer) = host.peer() {
                    processes.extend(peer.processes().await?);
                }
            }
            let is_held =
                |(_, inode): &(FlowId, u32)| observe::options::is_held(*inode, &processes);
            let (still, closed) = held.into_iter().partition(is_held);
            held = still;
            for (flow, _) in closed as Vec<(FlowId, u32)> {
                let detail = "its descriptors show it".into();
                let call = Call { name: CallName::Close, detail, result: Ok(0), began_ns };
                let [near, _] = self.parts_of(flow);
                let event = Event::new(began_ns, Source::socket(near), What::Call(call)).of(flow);
                self.take(Seen::Event(event, None));
            }
        }
        Ok(())
    }
}
