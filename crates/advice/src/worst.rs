//! The moment of a fault at which a requirement is least likely to be met.

use crate::detection::worst_beginnings;
use spec::{Experiment, Outcome, Parameters, Traffic};
use std::collections::BTreeSet;
use std::time::Duration;

/// The experiment at the moments of its fault at which the model finds its requirements in the most
/// danger, the worst first.
///
/// # Errors
/// For a person: it requires nothing that the moment could decide.
pub fn worst(experiment: &Experiment, hz: u32, most: usize) -> Result<Vec<Experiment>, String> {
    let require = &experiment.parameters.require;
    if require.survives != Some(true) && require.noticed_within.is_none() {
        return Err("--worst needs a requirement: --set require.survives=true, or \
                    --set require.noticed_within=10s"
            .into());
    }
    let at = |after: &Duration| {
        let mut experiment = experiment.clone();
        experiment.parameters.fault.after = *after;
        experiment
    };
    let moments = moments(&experiment.parameters, hz);
    let mut ranked: Vec<_> = moments
        .iter()
        .map(at)
        .filter(|experiment| experiment.parameters.validate().is_ok())
        .map(|experiment| (danger(&experiment.parameters, hz), experiment))
        .collect();
    ranked.sort_by_key(|(danger, _)| std::cmp::Reverse(*danger));
    Ok(ranked.into_iter().map(|(_, experiment)| experiment).take(most).collect())
}

/// When the fault may come: as it is set, before and between keepalive probes.
fn moments(parameters: &Parameters, hz: u32) -> BTreeSet<Duration> {
    const BETWEEN: u32 = 16;
    let mut moments = BTreeSet::from([parameters.fault.after]);
    if !parameters.client.keepalive.enabled || parameters.client.traffic != Traffic::Idle {
        // The phases of the timers are gone through by the model.
        return moments;
    }
    let facts = model::nominal_facts(parameters, hz);
    let [idle, interval] = model::keepalive_times(parameters, &facts);
    let lasts = parameters.fault_duration().unwrap_or_default();
    let whole = |moment: Duration| Duration::from_millis(moment.as_millis() as u64);
    moments.extend(worst_beginnings(idle, lasts).into_iter().map(whole));
    let span = idle + interval;
    moments.extend((1..=BETWEEN).map(|part| whole(span * part / BETWEEN)));
    moments
}

/// What is wrong at a moment, the greater the worse: a requirement that may not be met, then how late the
/// end may be told.
fn danger(parameters: &Parameters, hz: u32) -> (bool, Duration) {
    let facts = model::nominal_facts(parameters, hz);
    let prediction = model::predict(parameters, &facts);
    let require = &parameters.require;
    let dies = prediction.windows.iter().any(|window| window.outcome != Outcome::None);
    let latest = prediction.hull().map(|(_, latest)| latest);
    let late = match (require.noticed_within, latest) {
        (Some(most), Some(latest)) => latest > most,
        (Some(_), None) => true,
        (None, _) => false,
    };
    let unmet = late || require.survives == Some(true) && dies;
    // A fault that comes just after the last segment received is found out the latest after it.
    (unmet, latest.unwrap_or_default().saturating_sub(parameters.fault.after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Case, Moment, Options, Path};

    fn flap(after_ms: u64, lasts_s: u64) -> Experiment {
        let options: Options = "keepalive=4/1/3".parse().unwrap();
        let path = Path { rtt: Duration::ZERO, forgets_after: None, hz: 250, kernel: (6, 12) };
        let moment = Moment::Idle(Duration::from_millis(after_ms));
        let require = Some(("require.survives", "true".to_owned()));
        Case::Outage(moment, Duration::from_secs(lasts_s))
            .experiment(&options, &path, require)
            .unwrap()
    }

    #[test]
    fn an_outage_that_is_survived_at_one_moment_ends_it_at_another() {
        let (harmless, lasts) = (200, 4);
        assert!(!danger(&flap(harmless, lasts).parameters, 250).0);
        let found = worst(&flap(harmless, lasts), 250, 3).unwrap();
        let first = &found[0].parameters;
        assert!(danger(first, 250).0, "{:?}", first.fault.after);
        assert!(first.fault.after > Duration::from_secs(1), "{:?}", first.fault.after);
    }

    #[test]
    fn without_a_requirement_there_is_no_worst() {
        let mut experiment = flap(200, 2);
        experiment.parameters.require.survives = None;
        assert!(worst(&experiment, 250, 3).unwrap_err().contains("require.survives"));
    }
}
