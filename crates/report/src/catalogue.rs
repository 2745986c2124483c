//! The order in which experiments are listed.

use spec::{Experiment, FaultKind};

/// Experiments by what breaks in them, in the order of [`FaultKind::ALL`].
pub(crate) fn by_fault<'a>(
    experiments: impl IntoIterator<Item = &'a Experiment>,
) -> Vec<(FaultKind, Vec<&'a Experiment>)> {
    let all: Vec<_> = experiments.into_iter().collect();
    let of = |kind: &FaultKind| {
        let is_of = |experiment: &&&Experiment| experiment.parameters.fault.kind == *kind;
        (*kind, all.iter().filter(is_of).copied().collect::<Vec<_>>())
    };
    FaultKind::ALL.iter().map(of).filter(|(_, members)| !members.is_empty()).collect()
}
