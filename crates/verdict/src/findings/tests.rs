use super::*;
use crate::claims::{Catalogue, Claim, Settings};
use crate::measure::Measured;
use crate::proof::Proof;
use crate::verdict::{Verdict, Word};
use spec::facts::TcpFacts;
use spec::{Errno, Facts, Outcome, Parameters, Reference};
use timeline::event::{FaultStep, Phase};
use timeline::{Event, Flags, Segment, Source, Timeline, What};

const SECOND: f64 = 1e9;
const START_NS: u64 = 1_000_000_000;
const CLIENT_NEXT: u32 = 1000;
const SERVER_NEXT: u32 = 5000;
const ACK: u8 = 0x10;
const FIN: u8 = 0x11;
const DATA: u8 = 0x18;

/// A made-up trial: whatever a rule may look at.
struct Made {
    label: &'static str,
    settings: Settings,
    parameters: Parameters,
    facts: Facts,
    verdict: Verdict,
    events: Vec<Event>,
}

impl Made {
    fn new(label: &'static str, outcome: Outcome, detected_s: Option<f64>) -> Self {
        let tcp = TcpFacts { rto_us: 204_000, srtt_us: 40, ..TcpFacts::default() };
        let measured = Measured {
            outcome,
            detected_s,
            resolution_s: 0.0,
            noticed_s: detected_s,
            reference: Reference::Fault,
            detected_by: None,
            retransmits_on_wire: None,
            keepalive_probes_on_wire: None,
            window_probes_on_wire: None,
            fin_from_server: false,
            rst_from_server: false,
            client_state: "ESTABLISHED".into(),
            server_state: "gone".into(),
            rto_ms_at_fault: Some(204),
        };
        Self {
            label,
            settings: Settings::Defaults,
            parameters: Parameters::default(),
            facts: Facts {
                kernel: "6.12.1".into(),
                hz: 250,
                sysctl: [("tcp_retries2".to_owned(), "15".to_owned())].into(),
                server_sysctl: [].into(),
                tcp: Some(tcp),
                jiffies: None,
                virtual_time: false,
                neighbour: None,
                server_tcp: None,
            },
            verdict: Verdict {
                word: Word::Agrees,
                reason: String::new(),
                measured: Some(measured),
                proof: Proof { evidence: vec![] },
                flows: Vec::new(),
                requirements: Vec::new(),
            },
            events: vec![Event::lab(START_NS, What::Fault(FaultStep::Begin))],
        }
        .client(-0.2, DATA, CLIENT_NEXT - 100, 100)
        .server(-0.1, ACK, 0)
    }

    fn at(mut self, at_s: f64, sent: bool, bits: u8, (seq, ack): (u32, u32), len: u32) -> Self {
        let segment = Segment {
            sent,
            source_port: if sent { 1 } else { 2 },
            destination_port: if sent { 2 } else { 1 },
            seq,
            ack,
            flags: Flags::from_bits(bits),
            window: 100,
            len,
        };
        let moment = (START_NS as f64 + at_s * SECOND) as u64;
        let what = What::Segment(segment);
        self.events.push(Event::new(moment, Source::ClientWire, what));
        self
    }

    fn client(self, at_s: f64, bits: u8, seq: u32, len: u32) -> Self {
        self.at(at_s, true, bits, (seq, SERVER_NEXT), len)
    }

    fn server(self, at_s: f64, bits: u8, len: u32) -> Self {
        self.at(at_s, false, bits, (SERVER_NEXT, CLIENT_NEXT), len)
    }

    /// One segment of data at the fault, and again at each of these times.
    fn data_again(self, times: &[f64]) -> Self {
        let first = self.client(0.0, DATA, CLIENT_NEXT, 100);
        times.iter().fold(first, |made, at_s| made.client(*at_s, DATA, CLIENT_NEXT, 100))
    }

    fn measured(mut self, change: impl FnOnce(&mut Measured)) -> Self {
        change(self.verdict.measured.as_mut().unwrap());
        self
    }

    fn watched(mut self, seconds: f64) -> Self {
        let at_ns = (START_NS as f64 + seconds * SECOND) as u64;
        self.events.push(Event::lab(at_ns, What::Phase(Phase::Aftermath)));
        self
    }
}

#[expect(clippy::needless_pass_by_value, reason = "trials are made where they are judged")]
fn found(id: &str, trials: Vec<Made>) -> Finding {
    let timelines: Vec<_> = trials.iter().map(|made| Timeline::new(made.events.clone())).collect();
    let exhibits = trials.iter().zip(&timelines).map(|(made, timeline)| Exhibit {
        label: made.label,
        settings: made.settings,
        parameters: &made.parameters,
        facts: Some(&made.facts),
        prediction: None,
        verdict: &made.verdict,
        timeline,
    });
    let claim = Claim {
        id: id.into(),
        says: String::new(),
        source: String::new(),
        evidence: vec!["some".into()],
        untested: None,
    };
    find(&claim, &Bench::new(exhibits.collect()))
}

fn timed_out(label: &'static str, at_s: f64) -> Made {
    Made::new(label, Outcome::TIMED_OUT, Some(at_s))
}

#[test]
fn every_claim_that_is_tested_has_a_rule_and_every_rule_a_claim() {
    let catalogue = Catalogue::built_in();
    let tested = catalogue.claims.iter().filter(|claim| claim.untested.is_none());
    let tested: Vec<_> = tested.map(|claim| claim.id.as_str()).collect();
    let ruled: Vec<_> = RULES.iter().map(|(id, _)| *id).collect();
    assert_eq!(tested, ruled, "and in the same order");
}

#[test]
fn without_evidence_nothing_is_claimed() {
    for (id, _) in RULES {
        assert_eq!(found(id, vec![]).standing, Standing::NotTested, "{id}");
    }
    let mut skipped = timed_out("host-crash-sending", 938.8);
    skipped.verdict = Verdict::without_measurement(Word::Skipped, "no such kernel");
    let finding = found("C7", vec![skipped]);
    assert_eq!(finding.standing, Standing::NotTested);
    assert!(finding.text.contains("no such kernel"), "{}", finding.text);
}

#[test]
fn a_disturbed_trial_is_no_evidence() {
    let mut disturbed = timed_out("host-crash-sending", 938.8);
    disturbed.verdict.word = Word::Inconclusive;
    disturbed.verdict.reason = "the machine was busy".into();
    assert_eq!(found("C7", vec![disturbed]).standing, Standing::NotTested);
}

#[test]
fn short_settings_say_nothing_about_the_defaults() {
    let mut short = timed_out("host-crash-sending", 13.3);
    short.settings = Settings::Short;
    assert_eq!(found("C7", vec![short]).standing, Standing::NotTested);
}

#[test]
fn a_fin_is_not_all_that_a_kernel_may_send() {
    let plain = || {
        Made::new("process-crash-idle", Outcome::Eof, Some(0.001))
            .server(0.001, FIN, 0)
            .measured(|m| m.fin_from_server = true)
    };
    assert_eq!(found("A1", vec![plain()]).standing, Standing::Holds);
    let reset = Made::new("process-crash-unread", Outcome::Errno(Errno::ECONNRESET), Some(0.002));
    let finding = found("A1", vec![plain(), reset]);
    assert_eq!(finding.standing, Standing::HoldsWithACondition);
    assert!(finding.text.contains("ECONNRESET after 2 ms"), "{}", finding.text);
    let none = Made::new("process-crash-idle", Outcome::None, None);
    assert_eq!(found("A1", vec![none]).standing, Standing::DoesNotHold);
}

#[test]
fn four_steps_need_all_four() {
    let begun = |state: &str| {
        let state = state.to_owned();
        Made::new("process-crash-idle", Outcome::Eof, Some(0.001))
            .server(0.001, FIN, 0)
            .at(0.04, true, ACK, (CLIENT_NEXT, SERVER_NEXT + 1), 0)
            .measured(|m| m.client_state = state)
    };
    assert_eq!(found("A2", vec![begun("CLOSE_WAIT")]).standing, Standing::DoesNotHold);
    let closed = |made: Made| {
        made.at(0.2, true, FIN, (CLIENT_NEXT, SERVER_NEXT + 1), 0).at(
            0.21,
            false,
            ACK,
            (SERVER_NEXT + 1, CLIENT_NEXT + 1),
            0,
        )
    };
    let finding = found("A2", vec![closed(begun("CLOSE_WAIT"))]);
    assert_eq!(finding.standing, Standing::HoldsWithACondition);
    assert!(finding.text.contains("1 ms, 40 ms, 200 ms and 210 ms"), "{}", finding.text);
    assert_eq!(found("A2", vec![closed(begun("CLOSE"))]).standing, Standing::Holds);
}

#[test]
fn the_threshold_is_a_lower_bound() {
    let finding = found("C7", vec![timed_out("host-crash-sending", 938.8)]);
    assert_eq!(finding.standing, Standing::DoesNotHold);
    assert!(finding.text.contains("938.8 s"), "{}", finding.text);
    let finding = found("C7", vec![timed_out("host-crash-sending", 925.0)]);
    assert_eq!(finding.standing, Standing::Holds);
}

#[test]
fn the_threshold_lies_between_the_last_timeouts() {
    let trial = |end| timed_out("host-crash-sending", end).data_again(&[0.4, 0.8, 817.0]);
    assert_eq!(found("C2", vec![trial(938.8)]).standing, Standing::Holds);
    assert_eq!(found("C2", vec![trial(920.0)]).standing, Standing::DoesNotHold);
}

#[test]
fn timeouts_double_from_what_the_first_was() {
    let doubling = [0.204, 0.612, 1.428];
    let trial = |end| timed_out("host-crash-sending", end).data_again(&doubling);
    let finding = found("C3", vec![trial(3.06)]);
    assert_eq!(finding.standing, Standing::HoldsWithACondition);
    assert!(finding.text.contains("204 ms and not 200 ms"), "{}", finding.text);
    assert_eq!(found("C3", vec![trial(2.0)]).standing, Standing::DoesNotHold);
}

/// Timeouts, the longest of so many seconds, on a kernel of this HZ.
fn longest_timeout(label: &'static str, hz: u32, rto_us: u32, longest_s: f64) -> Made {
    let mut made = timed_out(label, 60.0 + longest_s).data_again(&[0.2, 20.0, 60.0]);
    made.facts.hz = hz;
    made.facts.tcp.as_mut().unwrap().rto_us = rto_us;
    made
}

#[test]
fn the_bounds_of_the_timeout_are_the_same_at_every_hz() {
    let trials = |least_us: u32, most_s: f64| {
        let mut far = longest_timeout("host-crash-sending-high-rtt", 250, 804_000, 120.8);
        far.facts.tcp.as_mut().unwrap().srtt_us = 600_000;
        let mut idle = timed_out("host-crash-idle-keepalive-every-hz", 8200.2);
        idle.facts.hz = 100;
        let every = "host-crash-sending-every-hz";
        vec![
            longest_timeout("host-crash-sending", 250, 204_000, 120.8),
            far,
            longest_timeout(every, 1000, least_us, most_s),
            longest_timeout(every, 100, 210_000, 124.5),
            idle,
        ]
    };
    let finding = found("C4", trials(201_000, 123.9));
    assert_eq!(finding.standing, Standing::HoldsWithACondition);
    for said in [
        "they are 200 ms and 120 s at HZ 100, 250 and 1000",
        "to a tick (210 ms, 204 ms and 201 ms)",
        "a slot of the timer wheel (5.120 s, 2.048 s and 4.096 s)",
        "told after 184.5 s, 180.8 s and 183.9 s",
    ] {
        assert!(finding.text.contains(said), "{said}: {}", finding.text);
    }
    let table = finding.table.unwrap();
    let at_100 = ["100", "210 ms", "124.5 s", "5.120 s", "184.5 s", "327.7 s", "8200.2 s"]
        .map(str::to_owned);
    assert_eq!(table.rows[0], at_100);
    assert_eq!(table.rows[1].first().map(String::as_str), Some("1000"));
    assert_eq!(table.rows[1].last().map(String::as_str), Some("–"), "it was not run there");
    assert!(table.rows.iter().all(|row| row.len() == table.head.len()));

    // One kernel that has other bounds is enough.
    for off in [trials(300_000, 123.9), trials(201_000, 130.0), trials(201_000, 60.0)] {
        let finding = found("C4", off);
        assert_eq!(finding.standing, Standing::DoesNotHold);
        assert!(finding.text.contains("At HZ 1000 the first was"), "{}", finding.text);
    }
}

#[test]
fn where_hz_is_1000_the_bounds_may_well_come_from_it() {
    let mut far = longest_timeout("host-crash-sending-high-rtt", 1000, 804_000, 120.8);
    far.facts.tcp.as_mut().unwrap().srtt_us = 600_000;
    let near = longest_timeout("host-crash-sending", 1000, 201_000, 120.8);
    let finding = found("C4", vec![near, far]);
    assert_eq!((finding.standing, finding.table), (Standing::Holds, None));
}

#[test]
fn fewer_is_not_far_fewer() {
    let many: Vec<f64> = (1..=15).map(f64::from).collect();
    let trials = |few: usize| {
        vec![
            timed_out("host-crash-sending", 938.8).data_again(&many),
            timed_out("host-crash-sending-rtt-800ms", 977.5).data_again(&many[..few]),
        ]
    };
    assert_eq!(found("C6", trials(8)).standing, Standing::Holds);
    assert_eq!(found("C6", trials(13)).standing, Standing::HoldsWithACondition);
    assert_eq!(found("C6", trials(15)).standing, Standing::DoesNotHold);
}

#[test]
fn for_ever_ends_with_any_error() {
    let label = "host-crash-idle-no-keepalive";
    let idle = Made::new(label, Outcome::None, None).watched(2_592_000.0);
    let finding = found("D1", vec![idle]);
    assert_eq!(finding.standing, Standing::Holds);
    assert!(finding.text.contains("30 d"), "{}", finding.text);
    assert_eq!(found("D1", vec![timed_out(label, 5.0)]).standing, Standing::DoesNotHold);
}

#[test]
fn a_probe_with_a_byte_is_a_little_data_and_one_without_is_none() {
    let trial = |label, len| timed_out(label, 9.0).client(5.0, ACK, CLIENT_NEXT - 1, len);
    let both =
        |len| vec![trial("host-crash-idle-keepalive", len), trial("host-alive-keepalive", len)];
    assert_eq!(found("E6", both(1)).standing, Standing::Holds);
    let finding = found("E6", both(0));
    assert_eq!(finding.standing, Standing::HoldsWithACondition);
    assert!(finding.text.contains("2 probes carried 0 bytes"), "{}", finding.text);
    assert!(finding.text.contains("snd_nxt − 1"), "{}", finding.text);
}

#[test]
fn a_published_trace_that_contradicts_its_setting_is_shown_with_the_one_that_fits() {
    let probed = |label, probes: u32, end| {
        (0..probes).fold(timed_out(label, end), |made, n| {
            made.client(1.0 + 11.0 * f64::from(n), ACK, CLIENT_NEXT - 1, 0)
        })
    };
    let half = || probed("host-crash-idle-keepalive-user-timeout-30s", 3, 34.2);
    let mut minute = probed("host-crash-idle-keepalive-user-timeout-60s", 6, 67.3);
    minute.parameters.client.user_timeout = Some(std::time::Duration::from_secs(60));
    let finding = found("G-user-timeout-30s", vec![half(), minute]);
    assert_eq!(finding.standing, Standing::DoesNotHold);
    assert!(finding.text.contains("what 60.000 s gives: 6 probes"), "{}", finding.text);
    let as_published = probed("host-crash-idle-keepalive-user-timeout-30s", 6, 67.3);
    assert_eq!(found("G-user-timeout-30s", vec![as_published]).standing, Standing::Holds);
}

#[test]
fn a_web_server_may_close_late_and_not_early() {
    let kept = |label, outcome, at_s| {
        let mut made = Made::new(label, outcome, at_s);
        made.parameters.nginx.keepalive_timeout = Some(std::time::Duration::from_secs(3));
        made
    };
    let trials = |idle_s, again_s| {
        vec![
            kept("web-server-idle", Outcome::Eof, Some(idle_s)),
            kept("web-server-new-request", Outcome::Eof, Some(again_s)),
            kept("web-server-client-lost", Outcome::Released, Some(9.8)).measured(|m| {
                m.noticed_s = Some(3.003);
                m.retransmits_on_wire = Some(5);
            }),
        ]
    };
    let finding = found("F2", trials(3.003, 3.01));
    assert_eq!(finding.standing, Standing::HoldsWithACondition);
    assert!(finding.text.contains("another 6.797 s, sent its FIN again 5 times"), "{finding:?}");
    assert_eq!(found("F2", trials(2.99, 3.003)).standing, Standing::DoesNotHold);
    assert_eq!(found("F2", trials(3.003, 1.5)).standing, Standing::DoesNotHold);
    let mut open = trials(3.003, 3.003);
    open[0] = kept("web-server-idle", Outcome::None, None);
    assert_eq!(found("F2", open).standing, Standing::DoesNotHold);
}
