//! Experiment files, settings and scripts come from anybody: whatever they hold, the answer is an experiment
//! or a sentence. `just fuzz` tries more.

use proptest::prelude::*;
use spec::Parameters;
use spec::file::{load, matrix};
use spec::settings::{apply, settings};
use spec::sweep::Axis;

const FILE: &str = include_str!("../../../experiments/host-crash-idle-keepalive.toml");

/// Reads a file as `halfopen run FILE` does.
fn read(text: &str) {
    let _ = matrix("x.toml", text).map_err(|error| error.render(true));
    if let Err(error) = load("x", "x.toml", text, true, &[]) {
        assert!(!error.render(false).is_empty());
    }
}

#[test]
fn a_byte_order_mark_is_passed_over() {
    read("\u{feff}");
    let marked = format!("\u{feff}{FILE}");
    assert_eq!(load("x", "x.toml", &marked, false, &[]), load("x", "x.toml", FILE, false, &[]));
    assert!(load("x", "x.toml", FILE, false, &[]).is_ok());
}

fn key() -> impl Strategy<Value = &'static str> {
    prop::sample::select(settings().map(|setting| setting.key).collect::<Vec<_>>())
}

/// What values look like, and what they do not.
fn value() -> impl Strategy<Value = String> {
    let near = r"-?[0-9]{0,20}(ms|us|s|m|h|d|%|\.\.|,|/|;| )?[0-9a-z]{0,6}";
    prop_oneof![near, ".{0,40}", Just("off".to_owned()), Just("\0".to_owned())]
}

proptest! {
    #[test]
    fn foreign_text_is_read(text in ".{0,200}") {
        read(&text);
    }

    #[test]
    fn foreign_files_with_a_hole_or_something_in_them_are_read(
        at in 0..FILE.len(), length in 0..40_usize, with in ".{0,20}",
    ) {
        let mut bytes = FILE.as_bytes().to_vec();
        let end = (at + length).min(bytes.len());
        bytes.splice(at..end, with.into_bytes());
        read(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn foreign_values_are_taken_or_refused(key in key(), value in value()) {
        let mut parameters = Parameters::default();
        let answer = apply(&mut parameters, key, &value);
        prop_assert!(answer.err().is_none_or(|why| !why.is_empty()));
        let _ = Axis::read(key, &value);
        read(&format!("question = \"?\"\n{key} = {value:?}\n[fault]\nkind = \"power-off\"\n"));
    }
}
