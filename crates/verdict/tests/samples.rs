//! Predictions from single samples of sockets, held against what real kernels did. Each line of
//! `recorded/samples.jsonl` is a look at a trial's client after the fault, as `halfopen validate --samples`
//! draws them, and what became of the socket: Linux 6.12 in virtual time and 6.18.

use model::IfIt;
use serde::Deserialize;
use spec::{Facts, Outcome};
use verdict::samples::{Came, Sample};

#[derive(Deserialize)]
struct Line {
    setting: String,
    facts: Facts,
    outcome: Outcome,
    ended_s: f64,
    icmp: bool,
}

/// The recorded samples, each with its setting.
fn recorded() -> Vec<(String, Sample)> {
    let lines = include_str!("recorded/samples.jsonl").lines();
    let sample = |line: &str| {
        let Line { setting, facts, outcome, ended_s, icmp } = serde_json::from_str(line).unwrap();
        let sample = Sample { after_fault_ns: 0, facts, outcome, ended_s, resolution_s: 0.0, icmp };
        (setting, sample)
    };
    lines.map(sample).collect()
}

/// The width of each prediction, seconds; what happened is inside it.
fn widths(known_less: impl Fn(&mut Facts)) -> Vec<f64> {
    let width = |(setting, mut sample): (String, Sample)| {
        known_less(&mut sample.facts);
        let prediction = model::predict_socket(&sample.facts, IfIt::StaysAsItIs);
        let Sample { outcome, ended_s, .. } = sample;
        assert_eq!(
            sample.compare(&prediction),
            Came::Inside,
            "{setting}, {}: {outcome} after {ended_s} s, not {:?}",
            sample.doing(),
            prediction.windows
        );
        prediction.hull().map_or(0.0, |(from, to)| to.saturating_sub(from).as_secs_f64())
    };
    let mut widths: Vec<_> = recorded().into_iter().map(width).collect();
    widths.sort_by(f64::total_cmp);
    widths
}

/// At HZ 250 the kernel's own lateness takes 7 ms.
#[test]
fn a_sample_says_when_the_socket_ends() {
    let widths = widths(|_| {});
    assert!(widths.len() > 200, "{}", widths.len());
    assert!(widths[widths.len() / 2] < 0.01, "median {}", widths[widths.len() / 2]);
    assert!(widths[widths.len() * 9 / 10] < 0.6, "{}", widths[widths.len() * 9 / 10]);
}

/// Without the jiffy clock, which takes root, the slots of the wheel are open.
#[test]
fn the_phase_of_the_clock_need_not_be_known() {
    widths(|facts| facts.jiffies = None);
}

/// What Linux tells from 6.7 on, and what older files do not hold.
#[test]
fn older_kernels_tell_less() {
    let widths = widths(|facts| {
        if let Some(tcp) = &mut facts.tcp {
            (tcp.rto_recoveries, tcp.total_retrans) = (0, None);
        }
    });
    assert!(widths[widths.len() / 2] < 0.04, "median {}", widths[widths.len() / 2]);
}
