//! When the program that has to find out has done so.

use crate::measure::reference_at;
use crate::verdict::{FlowVerdict, Verdict};
use spec::Parameters;
use timeline::Timeline;

impl Verdict {
    /// Of the connections of the host whose program has to find out, as far as they were open at the
    /// fault, the one that this acted on last, or not at all.
    ///
    /// A program with several connections has found out when it has acted on each. A proxy's connections
    /// to its server are not the client's.
    pub fn last_noticed(&self, trial: &Parameters) -> Option<&FlowVerdict> {
        let own = |flow: &&FlowVerdict| flow.is_open_at_fault() && trial.is_of_asked(flow.leg);
        let noticed = |flow: &FlowVerdict| flow.noticed_s().unwrap_or(f64::INFINITY);
        // The first of those at the same time.
        let own = self.flows.iter().filter(own).rev();
        own.max_by(|a, b| noticed(a).total_cmp(&noticed(b))).or_else(|| self.deciding())
    }

    /// When that program acted on it, seconds after the fault.
    pub fn noticed_s(&self, trial: &Parameters, timeline: &Timeline) -> Option<f64> {
        if let Some(flow) = self.last_noticed(trial) {
            return flow.noticed_s();
        }
        let measured = self.measured.as_ref()?;
        let from = reference_at(timeline, measured.reference);
        Some(measured.noticed_s? + (from as f64 - timeline.fault_at()? as f64) / 1e9)
    }
}

impl FlowVerdict {
    /// When its program acted on it, seconds after the fault.
    fn noticed_s(&self) -> Option<f64> {
        Some(self.measured.as_ref()?.noticed_s? + self.reference_s?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Measured;
    use crate::verdict::Word;
    use spec::{Leg, Outcome, Reference, Topology};
    use timeline::FlowId;

    fn flow(id: u32, leg: Leg, noticed_s: Option<f64>) -> FlowVerdict {
        let measured = Measured {
            outcome: Outcome::None,
            detected_s: None,
            noticed_s,
            reference: Reference::LastActivity,
            detected_by: None,
            resolution_s: 0.0,
            retransmits_on_wire: None,
            keepalive_probes_on_wire: None,
            window_probes_on_wire: None,
            fin_from_server: false,
            rst_from_server: false,
            client_state: String::new(),
            server_state: String::new(),
            rto_ms_at_fault: None,
        };
        let end = "198.18.0.1:1".parse().unwrap();
        FlowVerdict {
            id: FlowId(id),
            leg,
            paired_with: None,
            why_unpaired: None,
            local: end,
            remote: end,
            owner: None,
            opened_s: Some(-1.0),
            options: None,
            facts: Some(model::nominal_facts(&Parameters::default(), 250)),
            prediction: None,
            measured: Some(measured),
            ended_by: None,
            ended_s: Some(100.0),
            reference_s: Some(-2.0),
            word: Some(Word::Agrees),
            reason: String::new(),
        }
    }

    #[test]
    fn a_program_has_found_out_when_it_has_acted_on_each_of_its_connections() {
        let trial = Parameters { topology: Topology::Proxy, ..Parameters::default() };
        let noticed_s = |flows: &[FlowVerdict]| {
            let mut verdict = Verdict::without_measurement(Word::Agrees, "");
            verdict.flows = flows.to_vec();
            verdict.noticed_s(&trial, &Timeline::default())
        };
        let early = flow(0, Leg::Downstream, Some(5.0));
        let late = flow(1, Leg::Downstream, Some(7.0));
        let never = flow(2, Leg::Downstream, None);
        let of_proxy = flow(3, Leg::Upstream, Some(90.0));
        assert_eq!(noticed_s(&[late.clone(), early.clone(), of_proxy]), Some(5.0));
        assert_eq!(noticed_s(&[early.clone(), never, late.clone()]), None);
        let opened_since = FlowVerdict { opened_s: Some(1.0), ..late };
        assert_eq!(noticed_s(&[early, opened_since]), Some(3.0));
    }
}
