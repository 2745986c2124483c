//! The trial's connections: numbered as they appear, and told to whoever follows them.

use crate::instruments::Followed;
use spec::Plan;
use timeline::{Ends, Event, FlowId, FlowTable, Source};
use tokio::sync::watch;

/// The connections of one trial.
pub(super) struct Flows {
    table: FlowTable,
    /// The one between halfopen's own peers, or between one of them and another program.
    own: FlowId,
    followed: watch::Sender<Vec<(FlowId, Ends)>>,
}

impl Flows {
    /// The flow of halfopen's own peers is known beforehand: they use the ports of the plan.
    pub(super) fn new(plan: &Plan) -> Self {
        let mut table = FlowTable::default();
        let own =
            table.expect(Ends { client: plan.addresses.client, server: plan.addresses.server });
        let (followed, _) = watch::channel(table.latest());
        Self { table, own, followed }
    }

    /// The flow of halfopen's own peers.
    pub(super) fn own(&self) -> FlowId {
        self.own
    }

    /// Whoever samples sockets listens here.
    pub(super) fn followed(&self) -> Followed {
        self.followed.subscribe()
    }

    /// Has an event name its connection, if it is about one. Returns the event that says of a new
    /// one that it has appeared.
    pub(super) fn name(&mut self, event: &mut Event, ends: Option<Ends>) -> Option<Event> {
        if let Some(ends) = ends {
            let opened = self.table.name(event, ends);
            if opened.is_some() {
                self.followed.send_replace(self.table.latest());
            }
            return opened;
        }
        // A peer of ours has one connection, and says nothing of others.
        if matches!(event.source, Source::ClientProgram | Source::ServerProgram) {
            event.flow = Some(self.own);
        }
        None
    }
}
