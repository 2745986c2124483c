//! Made-up trials with realistic times, for the tests of this crate.

mod tape;

use crate::article::{Article, Missing};
use crate::tally::Run;
use crate::trial::{Clock, Identity, Machine, Trial};
use model::width::{Cause, Share};
use model::{Prediction, Step, StepKind, Window};
use spec::{
    CallName, Errno, Experiment, Facts, FaultAct, FaultKind, Outcome, Parameters, Reference,
    Traffic,
};
use std::time::Duration;
use tape::{ACK, DATA, FIN, RST, Tape};
use timeline::event::{Call, FaultStep, Frame, FrameKind, Phase, SocketSample, TcpInfo, Trace};
use timeline::{Event, Flags, Segment, Side, Source, Timeline, What};
use verdict::claims::Claim;
use verdict::findings::{Finding, Standing, Table};
use verdict::{DetectedBy, Evidence, Measured, Proof, Verdict, Word};

pub(crate) const START_NS: u64 = 1_000_000_000_000;
const TRANSIT_US: u64 = 12;

/// Four trials of three experiments.
pub(crate) fn run() -> Run {
    let trials = vec![keepalive(), sending(), crash(), late(), skipped()];
    let machine = Machine { kernel: "6.18.44".into(), hz: 250, clock: Clock::Real };
    Run { machine, wall_s: 13.961_234_567, trials }
}

/// An idle client, keepalive 5 s, 1 s, 3 probes; the server's host loses power.
pub(crate) fn keepalive() -> Trial {
    let mut tape = Tape::connected(true);
    tape.fault(450_000, &[FaultAct::PortDown, FaultAct::HostDestroyed]);
    for (n, at_us) in [(1, 5_248_913), (2, 6_272_904), (3, 7_296_911)] {
        tape.client_sends(at_us, ACK, tape.client_next - 1, 0);
        tape.socket(at_us + 9_000, Source::ClientSocket, "ESTABLISHED", 2, n);
    }
    tape.client_sends(8_320_899, RST | ACK, tape.client_next, 0);
    tape.told(8_320_907, Errno::ETIMEDOUT);
    tape.phase(8_321_000, Phase::Aftermath);
    let schedule = [4.996, 6.02, 7.044]
        .into_iter()
        .zip(1..)
        .map(|(at, n)| {
            let timeout = if n == 1 { 5.0 } else { 1.0 };
            step(StepKind::KeepaliveProbe, n, timeout, 4.0 + f64::from(n), (at, at + 0.068))
        })
        .chain([step(StepKind::GiveUp, 1, 1.0, 8.0, (8.02, 8.152))])
        .collect();
    let prediction = Prediction {
        reference: Reference::LastActivity,
        windows: vec![window(Outcome::TIMED_OUT, (8.02, 8.152), None, Some(3))],
        schedule,
        why: "three probes 1 s apart go unanswered after 5 s of silence, and the timer wheel adds \
              up to a slot to each"
            .into(),
        unknown: None,
    };
    let measured = Measured {
        keepalive_probes_on_wire: Some(3),
        ..measured(Outcome::TIMED_OUT, 8.110_847, Reference::LastActivity)
    };
    trial("host-crash-idle-keepalive", prediction, measured, tape)
}

/// One write after the server's host lost power, with `tcp_retries2` = 5.
pub(crate) fn sending() -> Trial {
    let mut tape = Tape::connected(false);
    tape.fault(450_000, &[FaultAct::PortDown, FaultAct::HostDestroyed]);
    let written_us = 512_000;
    tape.call(written_us, Source::ClientProgram, CallName::Write, "", Ok(100));
    let seq = tape.client_next;
    tape.client_sends(written_us + 8, DATA, seq, 100);
    let resends = [0.206, 0.414, 0.826, 1.658, 3.322, 6.65];
    for (n, after) in (0_u8..).zip(resends) {
        let at_us = written_us + (after * 1e6) as u64;
        tape.client_sends(at_us, DATA, seq, 100);
        tape.socket(at_us + 7_000, Source::ClientSocket, "ESTABLISHED", 1, n);
    }
    tape.told(written_us + 13_310_420, Errno::ETIMEDOUT);
    tape.phase(written_us + 13_311_000, Phase::Aftermath);
    let mut schedule = vec![step(StepKind::TailLossProbe, 1, 0.2, 0.2, (0.204, 0.208))];
    let (mut nominal, mut timeout) = (0.4, 0.204);
    for (after, n) in resends[1..].iter().zip(1..) {
        schedule.push(step(
            StepKind::Retransmission,
            n,
            timeout,
            nominal,
            (after - 0.01, after + 0.09),
        ));
        timeout *= 2.0;
        nominal += 0.2 * f64::from(1 << n);
    }
    schedule.push(step(StepKind::GiveUp, 1, timeout, 13.0, (13.2, 13.568)));
    let prediction = Prediction {
        reference: Reference::FirstWrite,
        windows: vec![window(Outcome::TIMED_OUT, (13.2, 13.568), Some(6), None)],
        schedule,
        why: "the 6th timeout, at 13.3 s, is the first past 12.6 s".into(),
        unknown: None,
    };
    let measured = Measured {
        retransmits_on_wire: Some(6),
        ..measured(Outcome::TIMED_OUT, 13.310_42, Reference::FirstWrite)
    };
    trial("host-crash-sending", prediction, measured, tape)
}

/// The server process is killed.
pub(crate) fn crash() -> Trial {
    let mut tape = Tape::connected(false);
    tape.fault(450_000, &[FaultAct::Killed]);
    tape.cut = false;
    tape.server_sends(450_310, FIN, tape.server_next, 0);
    tape.server_next += 1;
    tape.trace(
        450_330,
        Trace::SetState { side: Side::Client, old: "ESTABLISHED".into(), new: "CLOSE_WAIT".into() },
    );
    tape.call(450_401, Source::ClientProgram, CallName::Read, "POLLIN POLLRDHUP", Ok(0));
    tape.client_sends(451_020, ACK, tape.client_next, 0);
    tape.phase(452_000, Phase::Aftermath);
    tape.call(460_000, Source::ClientProgram, CallName::Close, "", Ok(0));
    tape.client_sends(460_020, FIN, tape.client_next, 0);
    tape.client_next += 1;
    tape.server_sends(460_041, ACK, tape.server_next, 0);
    let prediction = Prediction {
        reference: Reference::Fault,
        windows: vec![window(Outcome::Eof, (0.0, 0.05), None, None)],
        schedule: vec![],
        why: "the kernel closes what a dead process leaves open, and nothing was unread".into(),
        unknown: None,
    };
    let measured = Measured {
        fin_from_server: true,
        client_state: "CLOSE_WAIT".into(),
        server_state: "FIN_WAIT2".into(),
        ..measured(Outcome::Eof, 0.000_33, Reference::Fault)
    };
    trial("process-crash-idle", prediction, measured, tape)
}

/// A program that asks for answers gives a dead host up by its own timer; its kernel has told it
/// nothing by then.
pub(crate) fn heartbeat() -> Trial {
    let mut tape = Tape::connected(false);
    tape.fault(450_000, &[FaultAct::PortDown, FaultAct::HostDestroyed]);
    let asked_us = 512_000;
    tape.call(asked_us, Source::ClientProgram, CallName::Write, "", Ok(100));
    tape.client_sends(asked_us + 8, DATA, tape.client_next, 100);
    let gives_up = "no answer within 1s: gives up";
    tape.call(asked_us + 1_001_000, Source::ClientProgram, CallName::Heartbeat, gives_up, Ok(0));
    tape.phase(asked_us + 1_202_000, Phase::Aftermath);
    let nothing = Window::new(Outcome::None, None);
    let prediction = Prediction {
        reference: Reference::FirstWrite,
        windows: vec![nothing],
        schedule: vec![],
        why: "the program gives up long before its kernel does".into(),
        unknown: None,
    };
    let measured = Measured {
        detected_s: None,
        noticed_s: Some(1.001),
        detected_by: None,
        client_state: "ESTABLISHED".into(),
        ..measured(Outcome::None, 0.0, Reference::FirstWrite)
    };
    trial("heartbeat-host-crash", prediction, measured, tape)
}

/// Behind a router: client and router, router and server ask who the other is before the first
/// segment comes to them.
pub(crate) fn routed() -> Trial {
    let mut trial = crash();
    trial.experiment.parameters.topology = spec::Topology::Router;
    let frame = |at_us: u64, source, sent, kind| {
        Event::new(START_NS + at_us * 1000, source, What::Frame(Frame { sent, kind }))
    };
    let [router, server] = ["198.18.0.1", "198.18.0.6"].map(|ip| ip.parse().unwrap());
    let (request, reply) = (FrameKind::NeighbourRequest, FrameKind::NeighbourReply);
    let mut events = trial.timeline.events().to_vec();
    events.extend([
        frame(5_900, Source::ClientWire, true, request(router)),
        frame(5_950, Source::ClientWire, false, reply(router)),
        frame(6_006, Source::ServerWire, false, request(server)),
        frame(6_009, Source::ServerWire, true, reply(server)),
    ]);
    trial.timeline = Timeline::new(events);
    trial
}

/// The same as [`keepalive`], but later than predicted.
pub(crate) fn late() -> Trial {
    let mut trial = keepalive();
    let measured = trial.verdict.measured.as_mut().unwrap();
    measured.detected_s = Some(9.104_9);
    measured.noticed_s = Some(9.105_2);
    trial.artifacts = Some("results/runs/host-crash-idle-keepalive-2".into());
    (trial.identity.number, trial.identity.turn) = (2, 2);
    trial.verdict.word = Word::Disagrees;
    trial.verdict.reason = "the client was told 953 ms after the latest predicted time".into();
    trial
}

/// A client that writes every 50 ms to a server that is gone.
pub(crate) fn stream() -> Trial {
    let mut trial = sending();
    let mut tape = Tape::connected(false);
    tape.fault(450_000, &[FaultAct::PortDown]);
    for write in 0..40 {
        let at_us = 500_000 + 50_000 * write;
        tape.client_sends(at_us, DATA, tape.client_next, 100);
        tape.call(at_us + 9, Source::ClientProgram, CallName::Write, "", Ok(100));
        tape.client_next = tape.client_next.wrapping_add(100);
    }
    trial.timeline = Timeline::new(tape.events);
    trial
}

/// Five trials of one experiment, one of which disagrees, and one of another.
pub(crate) fn repeated() -> Run {
    let mut trials: Vec<_> = [0.0, 0.012, 0.004, 0.031]
        .into_iter()
        .map(|later| {
            let mut trial = keepalive();
            let measured = trial.verdict.measured.as_mut().unwrap();
            measured.detected_s = measured.detected_s.map(|s| s + later);
            measured.noticed_s = measured.noticed_s.map(|s| s + later * 1.001);
            trial
        })
        .collect();
    trials.push(late());
    for (number, trial) in trials.iter_mut().enumerate().skip(1) {
        let name = &trial.experiment.name;
        trial.artifacts = Some(format!("results/runs/{name}-{}", number + 1));
        (trial.identity.number, trial.identity.turn) = (number + 1, number + 1);
    }
    trials.push(crash());
    Run { trials, ..run() }
}

/// Three claims with evidence on one clock; the other was not available.
pub(crate) fn article() -> Article {
    let claim = |id: &str, says: &str, evidence: &[&str]| Claim {
        id: id.into(),
        says: says.into(),
        source: "the article".into(),
        evidence: evidence.iter().map(|label| (*label).to_owned()).collect(),
        untested: None,
    };
    let finding = |standing, text: &str| Finding { standing, text: text.into(), table: None };
    let table = Table {
        head: ["HZ", "first timeout"].map(str::to_owned).into(),
        rows: vec![vec!["100".into(), "210 ms".into()], vec!["1000".into(), "201 ms".into()]],
    };
    Article {
        command: "halfopen article --clock real".into(),
        date: "2026-11-22 14:00 UTC".into(),
        runs: vec![run()],
        missing: vec![
            Missing { clock: Clock::Virtual, hz: None, why: "there is no virtual kernel".into() },
            Missing { clock: Clock::Virtual, hz: Some(100), why: "nor one of this HZ".into() },
        ],
        claims: vec![
            (
                claim(
                    "E2",
                    "A dead peer is reported after the probes.",
                    &["host-crash-idle-keepalive"],
                ),
                finding(
                    Standing::HoldsWithACondition,
                    "3 probes, and ETIMEDOUT after 8.111 s. Not sooner.",
                ),
            ),
            (
                claim("C7", "It takes 12.6 s.", &["host-crash-sending"]),
                Finding {
                    table: Some(table),
                    ..finding(
                        Standing::DoesNotHold,
                        "The program was told ETIMEDOUT after 13.310 s.",
                    )
                },
            ),
            (
                claim("F2", "A web server closes.", &[]),
                finding(Standing::NotTested, "there is no experiment yet"),
            ),
        ],
    }
}

/// A kernel without `tcp_rto_max_ms`.
pub(crate) fn skipped() -> Trial {
    let trial = sending();
    Trial {
        experiment: Experiment { name: "host-crash-sending-rto-max".into(), ..trial.experiment },
        facts: None,
        prediction: None,
        verdict: Verdict {
            word: Word::Skipped,
            reason: "kernel 6.12.94 has no net.ipv4.tcp_rto_max_ms: it came with 6.15".into(),
            measured: None,
            proof: Proof { evidence: vec![] },
            flows: Vec::new(),
            requirements: Vec::new(),
        },
        timeline: Timeline::default(),
        artifacts: None,
        directory: None,
        ..trial
    }
}

fn trial(name: &str, prediction: Prediction, measured: Measured, mut tape: Tape) -> Trial {
    let end_ns = tape.events.iter().map(|event| event.at_ns).max().unwrap_or(START_NS);
    tape.phase((end_ns - START_NS) / 1000 + 200_000, Phase::Done);
    let artifacts = Some(format!("results/runs/{name}"));
    let timeline = Timeline::new(tape.events);
    Trial {
        identity: Identity { number: 1, turn: 1, phase: None, key: "0123456789abcdef".into() },
        machine: Machine { kernel: "6.18.44".into(), hz: 250, clock: Clock::Real },
        experiment: experiment(name),
        facts: Some(facts()),
        prediction: Some(prediction),
        verdict: Verdict {
            word: Word::Agrees,
            reason: String::new(),
            measured: Some(measured),
            proof: Proof {
                evidence: vec![
                    evidence(
                        "the last frame that passed came to the server 240 ms before the fault",
                    ),
                    evidence("4 segments left the client after the fault; none came to the server"),
                    evidence("no FIN and no RST came from the server"),
                ],
            },
            flows: Vec::new(),
            requirements: Vec::new(),
        },
        failure: None,
        timeline,
        artifacts,
        directory: None,
    }
}

fn evidence(finding: &str) -> Evidence {
    Evidence { finding: finding.into(), holds: true }
}

pub(crate) fn experiment(name: &str) -> Experiment {
    let mut parameters = Parameters::default();
    parameters.fault.kind = FaultKind::PowerOff;
    let question = match name {
        "host-crash-idle-keepalive" => {
            let keepalive = &mut parameters.client.keepalive;
            keepalive.enabled = true;
            keepalive.idle = Some(Duration::from_secs(5));
            keepalive.interval = Some(Duration::from_secs(1));
            keepalive.probes = Some(3);
            "The server's host loses power while the connection is idle: when does keepalive tell?"
        }
        "process-crash-idle" => {
            parameters.fault.kind = FaultKind::ProcessCrash;
            "The server process is killed while the connection is idle: what does the client read?"
        }
        _ => {
            parameters.client.traffic = Traffic::OneWrite;
            parameters.sysctl.insert("tcp_retries2".into(), "5".into());
            "The server's host loses power and the client writes once: how long does it try?"
        }
    };
    Experiment {
        name: name.into(),
        question: question.into(),
        claims: vec!["B2".into()],
        parameters,
        mend: None,
    }
}

fn facts() -> Facts {
    Facts {
        kernel: "6.18.44".into(),
        hz: 250,
        sysctl: [("tcp_retries2".to_owned(), "5".to_owned())].into(),
        server_sysctl: [].into(),
        tcp: Some(spec::facts::TcpFacts { rto_us: 204_000, srtt_us: 41, ..Default::default() }),
        jiffies: None,
        virtual_time: false,
        neighbour: None,
        server_tcp: None,
    }
}

fn measured(outcome: Outcome, detected_s: f64, reference: Reference) -> Measured {
    Measured {
        outcome,
        detected_s: Some(detected_s),
        resolution_s: 0.0,
        noticed_s: Some(detected_s + 0.000_045),
        reference,
        detected_by: Some(DetectedBy::Tracepoint),
        retransmits_on_wire: None,
        keepalive_probes_on_wire: None,
        window_probes_on_wire: None,
        fin_from_server: false,
        rst_from_server: false,
        client_state: "CLOSE".into(),
        server_state: "gone".into(),
        rto_ms_at_fault: Some(204),
    }
}

fn window(
    outcome: Outcome,
    (earliest, latest): (f64, f64),
    retransmits: Option<u32>,
    keepalive_probes: Option<u32>,
) -> Window {
    let (earliest, latest) = (Duration::from_secs_f64(earliest), Duration::from_secs_f64(latest));
    let [tick, slice] = [4000, 2800].map(Duration::from_micros);
    let slots = latest.saturating_sub(earliest + tick + slice);
    let width = vec![
        Share { cause: Cause::WheelSlot, by: slots },
        Share { cause: Cause::Tick, by: tick },
        Share { cause: Cause::Slice, by: slice },
    ];
    let window = Window::new(outcome, Some((earliest, latest)));
    Window { retransmits, keepalive_probes, width, ..window }
}

fn step(
    kind: StepKind,
    n: u32,
    timeout: f64,
    nominal: f64,
    (earliest, latest): (f64, f64),
) -> Step {
    let [timeout, nominal, earliest, latest] =
        [timeout, nominal, earliest, latest].map(Duration::from_secs_f64);
    Step { n, kind, earliest, latest, nominal, timeout, late: Duration::ZERO, held: false }
}
