//! Many trials at once come to the verdicts that they come to one at a time.

use crate::common::trials;
use std::collections::HashSet;
use tempfile::tempdir;

#[test]
fn thirty_trials_side_by_side_agree_and_share_nothing() {
    let out = tempdir().unwrap();
    let (document, code) = trials(
        out.path(),
        &[
            "host-crash-sending-user-timeout",
            "process-crash-idle",
            "process-crash-unread",
            "--set",
            "client.user_timeout=1s",
            "--repeat",
            "10",
            "--jobs",
            "30",
        ],
    );
    let trials = document["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 30);
    let directories: HashSet<_> =
        trials.iter().map(|trial| trial["artifacts"].as_str().unwrap()).collect();
    assert_eq!(directories.len(), 30, "every trial has a directory of its own");
    for (index, trial) in trials.iter().enumerate() {
        let name = trial["experiment"].as_str().unwrap();
        let directory = match index % 10 + 1 {
            1 => name.to_owned(),
            turn => format!("{name}-{turn}"),
        };
        let artifacts = trial["artifacts"].as_str().unwrap();
        assert!(artifacts.ends_with(&format!("/{directory}")), "{index}: {artifacts}");
        let expected = match trial["experiment"].as_str().unwrap() {
            "process-crash-idle" => "EOF",
            "process-crash-unread" => "ECONNRESET",
            _ => "ETIMEDOUT",
        };
        assert_eq!(trial["measured"]["outcome"], expected, "{trial:#}");
        // A shared machine may disturb a trial, which is then inconclusive; it may not make one
        // disagree.
        assert_ne!(trial["verdict"], "disagrees", "{trial:#}");
    }
    assert!([0, 3].contains(&code), "{code}");
}
