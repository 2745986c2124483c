//! Predictions as they were before the model was rewritten as one engine (52d56a9): what was right
//! stays right. `predictions.txt` has one case a line,
//!
//! ```text
//! facts | settings that differ from the defaults | prediction [| prediction where time is virtual]
//! ```
//!
//! with the settings of `halfopen validate` at four HZ first, then generated ones (`generate.rs`).
//! The times of a prediction are whole nanoseconds: `earliest+width`.
//!
//! Where time is virtual a prediction is the same, window by window. On a real clock a window may be
//! narrower than it was, and never wider; and one may be missing only if its end does not exist where
//! time is virtual.
//!
//! `HALFOPEN_FREEZE=predictions cargo test -p model --test frozen` writes the file anew with what the
//! model says now, of the same cases; `HALFOPEN_FREEZE=cases` draws the cases anew besides.

#![expect(clippy::disallowed_methods, reason = "the file is written anew when that is asked for")]

mod case;
#[path = "../common/mod.rs"]
mod common;
mod compare;
mod generate;

use case::Case;
use compare::{Difference, Tally};
use std::thread;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/frozen/predictions.txt");
const PREDICTIONS: &str = include_str!("predictions.txt");

/// Cases that the engine predicts otherwise than the old model, and that nobody has settled one by one
/// yet by a run: `open.txt` says why for each kind.
///
/// None may be added.
const OPEN: &str = include_str!("open.txt");

fn open_cases() -> impl Iterator<Item = &'static str> {
    OPEN.lines().filter(|line| !line.starts_with('#'))
}

/// As many as there are.
const OPEN_MOST: usize = 35;

/// Which cases, and why.
type KnownWrong = (fn(&Case) -> bool, &'static str);

/// What is known to be wrong in the frozen predictions: it may change, and is listed here with why.
const KNOWN_WRONG: &[KnownWrong] = &[FORGETS, BOOTS_BETWEEN];

const BOOTS_BETWEEN: KnownWrong = (
    |case| {
        case.get("fault.kind") == Some("reboot")
            && case.get("client.keepalive.idle") == Some("5s")
            && case.get("fault.duration") == Some("5s500ms")
    },
    "a host that boots between two probes: the old model has the first of them answered, which goes 5.0 to \
     5.6 s after the last segment, and the host is up at 5.7 s",
);

const FORGETS: KnownWrong = (
    |case| {
        let living = ["none", "process-freeze"].contains(&case.get("fault.kind").unwrap_or("none"));
        let idle = case.get("client.traffic").is_none();
        living && idle && case.sets.iter().any(|(key, _)| key.starts_with("later."))
    },
    "a peer whose kernel answers: the old model forgets what is changed later (32 answers heard, and it \
     looked no further)",
);

#[test]
fn what_was_right_stays_right() {
    let anew = std::env::var("HALFOPEN_FREEZE");
    let mut cases: Vec<Case> = match anew.as_deref() {
        Ok("cases") => generate::cases(),
        _ => PREDICTIONS.lines().map(|line| line.parse().unwrap()).collect(),
    };
    if anew.is_ok() {
        in_parallel(&mut cases, Case::freeze);
        // What takes long in the old model is no help in a test that is run often.
        let drawn = anew.as_deref() == Ok("cases");
        cases.retain(|case| !(drawn && case.is_slow));
        let text: String = cases.iter().map(Case::to_string).collect();
        std::fs::write(FILE, text).unwrap();
        return;
    }

    let mut tallies: Vec<(Case, Tally)> =
        cases.into_iter().map(|case| (case, Tally::default())).collect();
    in_parallel(&mut tallies, |(case, tally)| *tally = compare::compare(case));
    let mut total = Tally::default();
    let (mut known_wrong, mut open) = (0, 0);
    let mut failures = Vec::new();
    for (case, tally) in tallies {
        match KNOWN_WRONG.iter().find(|(holds, _)| holds(&case)) {
            Some(_) => known_wrong += usize::from(!tally.differences.is_empty()),
            None if open_cases().any(|line| line == case.input()) => {
                open += usize::from(!tally.differences.is_empty());
                for Difference { clock, what } in &tally.differences {
                    println!("open: {}\n  {clock}: {what}", case.input());
                }
            }
            None => failures.extend(tally.differences.iter().map(|difference| {
                let Difference { clock, what } = difference;
                format!("{}\n  {clock}: {what}\n", case.input())
            })),
        }
        total.add(&tally);
    }
    println!(
        "{total}; {known_wrong} cases known to have been wrong are different now, {open} are open"
    );
    assert!(open_cases().count() <= OPEN_MOST && open <= OPEN_MOST);
    let shown: String = failures.iter().take(100).map(String::as_str).collect();
    assert!(failures.is_empty(), "{} differ:\n{shown}", failures.len());
}

/// The validation's settings at four HZ, and thousands of others, are there.
#[test]
fn the_file_holds_what_it_should() {
    let cases: Vec<Case> = PREDICTIONS.lines().map(|line| line.parse().unwrap()).collect();
    assert!(cases.len() >= 4 * 120 + 2_000, "{}", cases.len());
    let known = cases.iter().filter(|case| !case.is_unknown()).count();
    assert!(known * 10 >= cases.len() * 8, "{known} of {} say something", cases.len());
    for (_, why) in KNOWN_WRONG {
        assert!(!why.is_empty());
    }
}

/// Runs on both halves of the list at once.
fn in_parallel<T: Send>(all: &mut [T], each: impl Fn(&mut T) + Sync) {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut shares: Vec<Vec<&mut T>> = (0..threads).map(|_| Vec::new()).collect();
    for (index, one) in all.iter_mut().enumerate() {
        shares[index % threads].push(one);
    }
    thread::scope(|scope| {
        for share in shares {
            scope.spawn(|| share.into_iter().for_each(&each));
        }
    });
}
