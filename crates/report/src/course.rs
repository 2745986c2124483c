//! The schedule of a trial: what was predicted step by step, beside what the wire showed.

use crate::trial::Trial;
use crate::words;
use model::{Step, StepKind};
use spec::Reference;
use std::collections::VecDeque;
use timeline::{Class, Segment, Source, classified};
use verdict::since_reference;

/// One step, predicted, measured, or both. Times are seconds after the reference.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Leg {
    /// `retransmission 3`.
    pub(crate) name: String,
    /// The prediction, if there was one.
    pub(crate) step: Option<Step>,
    /// When it happened, if it did.
    pub(crate) measured_s: Option<f64>,
}

impl Leg {
    /// Whether it was both predicted and measured, and the two do not agree.
    pub(crate) fn misses(&self) -> bool {
        match (&self.step, self.measured_s) {
            (Some(step), Some(at_s)) => {
                // A microsecond is what seconds in floating point may be off by here.
                at_s + 1e-6 < step.earliest.as_secs_f64() || at_s - 1e-6 > step.latest.as_secs_f64()
            }
            _ => false,
        }
    }
}

/// The moment that times count from; `None` if the fault was never injected.
pub(crate) fn reference_ns(trial: &Trial) -> Option<u64> {
    trial.timeline.fault_at()?;
    if let Some(flow) = trial.verdict.deciding() {
        return flow.part(&trial.timeline).map(|(_, reference_ns)| reference_ns);
    }
    Some(verdict::reference_at(&trial.timeline, reference(trial)?))
}

/// What times count from.
fn reference(trial: &Trial) -> Option<Reference> {
    let measured = trial.verdict.measured.as_ref().map(|measured| measured.reference);
    measured.or(trial.prediction.as_ref().map(|p| p.reference))
}

/// The last segment that the client received before the fault.
pub(crate) fn last_received(trial: &Trial) -> Option<(u64, &Segment)> {
    let fault_ns = trial.timeline.fault_at()?;
    let received = trial.timeline.segments(Source::ClientWire).filter(|(_, segment)| !segment.sent);
    received.take_while(|(at_ns, _)| *at_ns < fault_ns).last()
}

/// Each step of the prediction with its measurement, then what happened beyond the prediction.
pub(crate) fn course(trial: &Trial) -> Vec<Leg> {
    let Some((reference, reference_ns)) = reference(trial).zip(reference_ns(trial)) else {
        return Vec::new();
    };
    let detected_s = trial.verdict.measured.as_ref().and_then(|measured| measured.detected_s);
    let mut sights = Sights::new(trial, (reference, reference_ns), detected_s);
    let schedule = trial.prediction.as_ref().map_or(&[][..], |prediction| &prediction.schedule);
    let mut legs: Vec<Leg> = schedule
        .iter()
        .map(|step| Leg {
            name: name(step),
            step: Some(step.clone()),
            measured_s: match step.kind {
                StepKind::GiveUp => detected_s,
                _ if step.held => None,
                // What it sends again is the newest segment, which can be a FIN.
                StepKind::TailLossProbe if sights.resends.is_empty() => sights.fins.pop_front(),
                kind => sights.of(kind).and_then(VecDeque::pop_front),
            },
        })
        .collect();
    legs.extend(sights.rest(schedule));
    legs
}

fn name(step: &Step) -> String {
    let held = if step.held { ", held" } else { "" };
    match step.kind {
        StepKind::GiveUp => words::step(step.kind).into(),
        StepKind::TailLossProbe => format!("{}{held}", words::step(step.kind)),
        kind => format!("{} {}{held}", words::step(kind), step.n),
    }
}

/// When the wire showed what, by kind.
#[derive(Default)]
struct Sights {
    resends: VecDeque<f64>,
    keepalive_probes: VecDeque<f64>,
    window_probes: VecDeque<f64>,
    syns: VecDeque<f64>,
    fins: VecDeque<f64>,
}

impl Sights {
    fn new(
        trial: &Trial,
        (reference, reference_ns): (Reference, u64),
        detected_s: Option<f64>,
    ) -> Self {
        let mut sights = Self::default();
        let flow = trial.verdict.deciding().and_then(|flow| flow.part(&trial.timeline));
        let segments: Vec<_> = match &flow {
            Some((flow, _)) => classified(flow, Source::ClientWire)
                .filter(|(at_ns, ..)| *at_ns >= reference_ns)
                .collect(),
            None => since_reference(&trial.timeline, reference).collect(),
        };
        for (at_ns, segment, class) in segments {
            let at_s = (at_ns as f64 - reference_ns as f64) / 1e9;
            if !segment.sent || detected_s.is_some_and(|end| at_s > end) {
                continue;
            }
            let kind = match class {
                Class::KeepaliveProbe { .. } => StepKind::KeepaliveProbe,
                Class::WindowProbe { .. } => StepKind::WindowProbe,
                class if class.is_syn_again() => StepKind::SynRetransmission,
                class if class.is_data_again() => StepKind::Retransmission,
                class if class.is_fin_again() => StepKind::FinRetransmission,
                _ => continue,
            };
            sights.of(kind).expect("a kind that is seen on the wire").push_back(at_s);
        }
        sights
    }

    fn of(&mut self, kind: StepKind) -> Option<&mut VecDeque<f64>> {
        match kind {
            StepKind::TailLossProbe | StepKind::Retransmission => Some(&mut self.resends),
            StepKind::KeepaliveProbe => Some(&mut self.keepalive_probes),
            StepKind::WindowProbe => Some(&mut self.window_probes),
            StepKind::SynRetransmission => Some(&mut self.syns),
            StepKind::FinRetransmission => Some(&mut self.fins),
            StepKind::GiveUp => None,
        }
    }

    /// What was seen beyond the schedule, numbered on from it.
    fn rest(self, schedule: &[Step]) -> impl Iterator<Item = Leg> {
        let more = |times: VecDeque<f64>, what: &'static str, kinds: &[StepKind]| {
            let before = schedule.iter().filter(|step| kinds.contains(&step.kind)).count();
            times.into_iter().enumerate().map(move |(index, at_s)| Leg {
                name: format!("{what} {}", before + index + 1),
                step: None,
                measured_s: Some(at_s),
            })
        };
        let resends = &[StepKind::TailLossProbe, StepKind::Retransmission];
        more(self.resends, "data again", resends)
            .chain(more(self.keepalive_probes, "keepalive probe", &[StepKind::KeepaliveProbe]))
            .chain(more(self.window_probes, "window probe", &[StepKind::WindowProbe]))
            .chain(more(self.syns, "SYN again", &[StepKind::SynRetransmission]))
            .chain(more(self.fins, "FIN again", &[StepKind::FinRetransmission]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn each_step_meets_its_measurement() {
        for trial in [samples::keepalive(), samples::sending()] {
            let legs = course(&trial);
            assert_eq!(legs.len(), trial.prediction.as_ref().unwrap().schedule.len());
            for leg in legs {
                let (step, at_s) = (leg.step.unwrap(), leg.measured_s.unwrap());
                let (earliest, latest) = (step.earliest.as_secs_f64(), step.latest.as_secs_f64());
                assert!((earliest..=latest).contains(&at_s), "{}: {at_s}", leg.name);
            }
        }
    }

    #[test]
    fn a_tail_loss_probe_can_be_a_fin() {
        let mut trial = samples::sending();
        let is_data = |event: &timeline::Event| matches!(&event.what, timeline::What::Segment(s) if s.len == 100 && s.sent);
        let fault_ns = trial.timeline.fault_at().unwrap();
        let events = trial.timeline.events().iter().cloned().map(|mut event| {
            if let (true, timeline::What::Segment(segment)) =
                (event.at_ns > fault_ns && is_data(&event), &mut event.what.clone())
            {
                (segment.len, segment.flags) = (0, timeline::Flags::from_bits(0x11));
                event.what = timeline::What::Segment(*segment);
            }
            event
        });
        trial.timeline = timeline::Timeline::new(events.collect());
        let schedule = &mut trial.prediction.as_mut().unwrap().schedule;
        let resends = schedule.iter_mut().filter(|s| s.kind == StepKind::Retransmission);
        resends.for_each(|step| step.kind = StepKind::FinRetransmission);
        let legs = course(&trial);
        assert_eq!(legs[0].name, "tail loss probe");
        assert!(legs.iter().all(|leg| leg.step.is_some() && !leg.misses()), "{legs:#?}");
        assert!(legs.iter().all(|leg| leg.measured_s.is_some()), "{legs:#?}");
    }

    #[test]
    fn what_was_not_predicted_comes_last() {
        let mut trial = samples::sending();
        trial.prediction.as_mut().unwrap().schedule.remove(3);
        let last = course(&trial).pop().unwrap();
        assert_eq!((last.name.as_str(), last.step), ("data again 6", None));
    }
}
