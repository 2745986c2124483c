//! Options that changed after what a prediction is made from.

use crate::verdict::Word;
use spec::{Facts, Parameters};
use timeline::{Event, FlowId, Side, Timeline, What};

/// What is known of a change.
pub(super) struct Changed {
    /// When it was seen.
    at_ns: u64,
    names: Vec<&'static str>,
}

impl Changed {
    /// The first change of a connection's options after those that its prediction is made from.
    pub(super) fn of(
        trial: &Parameters,
        facts: &Facts,
        timeline: &Timeline,
        id: FlowId,
    ) -> Option<Self> {
        let tcp = facts.tcp.as_ref()?;
        let before = tcp.options_set.as_ref()?;
        let change = |event: &Event| {
            let What::Options { side: Side::Client, options, .. } = &event.what else {
                return None;
            };
            let changed = options.changed_from(before, &trial.later.sysctl);
            let names: Vec<_> = changed.into_iter().map(|(name, _)| name).collect();
            (!names.is_empty()).then_some(Self { at_ns: event.at_ns, names })
        };
        let events = timeline.events().iter();
        let mut later =
            events.filter(|event| event.flow == Some(id) && event.at_ns > tcp.sampled_at_ns);
        later.find_map(change)
    }

    /// What is to be said of a verdict, where a change may have decided: one that was seen before the end
    /// has made another prediction necessary, one that was seen after it may have.
    pub(super) fn excuses(
        &self,
        verdict: &Result<(), (Word, String)>,
        fault_at: u64,
        ended_s: Option<f64>,
    ) -> Option<(Word, String)> {
        let at_s = super::since(fault_at, self.at_ns);
        let names = self.names.join(", ");
        let before_the_end = ended_s.is_none_or(|ended_s| at_s < ended_s);
        let reason = match verdict {
            Ok(()) | Err((Word::Disagrees, _)) if before_the_end => format!(
                "the program changed {names} after the fault (seen after {at_s:.3} s), which the \
                 prediction does not know of"
            ),
            Err((Word::Disagrees, why)) => format!(
                "the program changed {names} after the fault, perhaps before the connection's end \
                 ({why})"
            ),
            Ok(()) | Err((Word::Agrees | Word::Inconclusive | Word::Skipped, _)) => return None,
        };
        Some((Word::Inconclusive, reason))
    }
}
