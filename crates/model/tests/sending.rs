//! Sending clients where neighbours are learned: predictions held against trials. `sending.json` has
//! facts as they were measured before a fault, on Linux 6.18 and in virtual time on Linux 6.12, and
//! what came of it.

mod common;

use common::parameters;
use model::Window;
use serde::Deserialize;
use spec::facts::{Facts, NeighbourFacts};
use std::time::Duration;

#[derive(Deserialize)]
struct Case {
    name: String,
    sets: Vec<(String, String)>,
    facts: Facts,
    outcome: String,
    at_s: f64,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("sending.json")).unwrap()
}

#[test]
fn whoever_has_looked_at_the_neighbour_entry_predicts_one_end() {
    for case in cases() {
        let parameters = parameters(&case.sets);
        let prediction = model::predict(&parameters, &case.facts);
        // Where a timer that runs a jiffy late misses its slot, there are later ends; none did here.
        let [only, later @ ..] = &prediction.windows[..] else {
            panic!("{}: {prediction:#?}", case.name)
        };
        let same = |other: &Window| {
            other.outcome == only.outcome
                && other.retransmits == only.retransmits
                && !case.facts.virtual_time
        };
        assert!(later.iter().all(same), "{}: {prediction:#?}", case.name);
        let (from, to) = only.span.unwrap();
        let measured = Duration::from_secs_f64(case.at_s);
        assert_eq!(only.outcome.to_string(), case.outcome, "{}", case.name);
        assert!(
            from <= measured && measured <= to,
            "{}: {measured:?}, not {from:?}–{to:?}",
            case.name
        );
    }
}

/// Ends that do not depend on the entry, because the client gives up first, are the same either way.
#[test]
fn what_nobody_has_looked_at_leaves_the_end_open() {
    let mut open = 0;
    for mut case in cases() {
        case.facts.neighbour = None;
        let prediction = model::predict(&parameters(&case.sets), &case.facts);
        open += u32::from(prediction.unknown.is_some() || prediction.windows.len() > 1);
    }
    assert!(open >= 10, "{open}");
}

/// An entry is believed for as long as its interface says, and doubted and asked for as its settings
/// say: the end moves with each.
#[test]
fn the_settings_of_the_entry_decide() {
    let found = |case: &Case| case.outcome == "ECONNRESET" && case.name.contains("another address");
    let case = cases().into_iter().find(found).unwrap();
    let parameters = parameters(&case.sets);
    let earliest = |change: fn(&mut NeighbourFacts)| {
        let mut facts = case.facts.clone();
        change(facts.neighbour.as_mut().unwrap());
        let prediction = model::predict(&parameters, &facts);
        assert_eq!(prediction.unknown, None);
        prediction.hull().unwrap().0
    };
    let as_it_was = earliest(|_| {});
    assert!(earliest(|known| known.reachable_ms += 60_000) > as_it_was);
    assert!(earliest(|known| known.direct_questions += 60) > as_it_was);
    assert!(earliest(|known| known.retrans_ms += 60_000) > as_it_was);
    assert!(earliest(|known| known.delay_ms += 60_000) > as_it_was);
}
