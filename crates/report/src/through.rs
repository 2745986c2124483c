//! Trials with a program in the middle: the connections on both its sides, and who was told by whom.

use crate::span;
use crate::trial::Trial;
use spec::{Errno, Leg, Outcome, Parameters};
use verdict::{EndedBy, FlowVerdict};

impl Trial {
    /// The trial as the connection sees it that decides: with that one's hosts, and no other
    /// connections.
    pub(crate) fn seen(&self) -> Self {
        let parameters = self.seen_parameters();
        let mut seen = self.clone();
        if let Some(flow) = self.verdict.deciding().filter(|_| parameters.third_there()) {
            let whole = &self.experiment.parameters;
            seen.timeline = self.timeline.of_leg(whole, flow.leg).about(flow.id);
            seen.experiment.parameters = parameters;
        }
        seen
    }

    /// Its settings as the connection has them that decides, with the fault as it was.
    pub(crate) fn seen_parameters(&self) -> Parameters {
        let whole = &self.experiment.parameters;
        let leg = self.verdict.deciding().map_or(whole.broken_leg(), |flow| flow.leg);
        Parameters { fault: whole.fault.clone(), ..whole.of_leg(leg) }
    }

    /// With a proxy, who was told by whom: a sentence for each connection of the client's that was open
    /// at the fault.
    pub(crate) fn told_through_proxy(&self) -> Vec<String> {
        let flows = &self.verdict.flows;
        let of_client =
            flows.iter().filter(|flow| flow.leg == Leg::Downstream && flow.facts.is_some());
        let tell = |flow: &FlowVerdict| {
            let other = flows.iter().find(|other| Some(other.id) == flow.paired_with);
            let told = |flow| self.told(flow);
            let unpaired = flow.why_unpaired.clone();
            [told(flow)]
                .into_iter()
                .chain(other.map(told))
                .chain(unpaired)
                .collect::<Vec<_>>()
                .join("; ")
        };
        of_client.map(tell).collect()
    }

    /// What the host was told whose kernel is asked.
    fn told(&self, flow: &FlowVerdict) -> String {
        let parameters = &self.experiment.parameters;
        let [host, other] =
            parameters.parts(flow.leg).map(|part| parameters.hosts()[part as usize]);
        let outcome = flow.measured.as_ref().map_or(Outcome::None, |measured| measured.outcome);
        let when = flow
            .ended_s
            .map_or_else(String::new, |at| format!(" {} after the fault", span::measured(at)));
        match (outcome, flow.ended_by) {
            (_, Some(EndedBy::Program)) => format!("the {host}'s program closed its side{when}"),
            (Outcome::Eof, _) => format!("the {host} was told by the {other}'s FIN{when}"),
            (Outcome::Errno(errno @ (Errno::ECONNRESET | Errno::EPIPE)), _) => {
                format!("the {host} was told {errno} by the {other}'s RST{when}")
            }
            (Outcome::Errno(errno), _) => format!("the {host} was told {errno}{when}"),
            (Outcome::None | Outcome::Released, _) => format!("the {host} was told nothing"),
        }
    }
}
