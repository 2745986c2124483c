//! Any live socket, from one look at it.

mod common;

use common::parameters;
use model::{IfIt, Prediction, StepKind, predict_socket};
use spec::facts::{JiffyClock, TcpFacts};
use spec::{SocketOptions, TcpState};

/// A stream's socket on a path of 62 ms, 2 ms after its eleventh write without an answer (Linux 6.12 in virtual
/// time). The first was 502 ms before the look, and the tail loss probe 215 ms.
fn streaming(if_it: IfIt, known_otherwise: impl FnOnce(&mut TcpFacts)) -> Prediction {
    let mut facts = model::nominal_facts(&parameters(&[("sysctl.tcp_retries2", "2")]), 250);
    facts.virtual_time = true;
    facts.jiffies = Some(JiffyClock { jiffies: 4_294_894_977, at_ns: 10_724_000_000 });
    let tcp = facts.tcp.as_mut().unwrap();
    (tcp.sampled_at_ns, tcp.sampled_within_ns) = (10_727_282_688, 256);
    (tcp.rto_us, tcp.srtt_us, tcp.rttvar_us) = (284_000, 82_428, 23_347);
    (tcp.snd_cwnd, tcp.unacked, tcp.total_retrans) = (11, 11, Some(3));
    (tcp.timer, tcp.timer_expires_ms) = (1, 168);
    (tcp.last_ack_recv_ms, tcp.last_data_recv_ms) = (488, 488);
    (tcp.state, tcp.options_set) = (Some(TcpState::Established), Some(SocketOptions::default()));
    known_otherwise(tcp);
    let prediction = predict_socket(&facts, if_it);
    assert_eq!(prediction.unknown, None);
    prediction
}

/// Whether this comes to pass with so many retransmissions.
fn ends(prediction: &Prediction, retransmits: u32, at_s: f64) -> bool {
    prediction.windows.iter().any(|window| {
        let is_in = window
            .span
            .is_some_and(|(from, to)| (from.as_secs_f64()..=to.as_secs_f64()).contains(&at_s));
        is_in && window.retransmits == Some(retransmits)
    })
}

/// The last write has armed a probe that sends nothing, since one is out: it leaves the rest of the first
/// segment's RTO, which is over.
#[test]
fn a_probe_that_is_out_already_is_the_only_one() {
    let look = streaming(IfIt::StaysAsItIs, |_| {});
    let kinds: Vec<_> = look.schedule.iter().map(|step| step.kind).collect();
    assert_eq!(kinds, [StepKind::Retransmission, StepKind::Retransmission, StepKind::GiveUp]);
    for (step, at_s) in look.schedule.iter().zip([0.176_717, 0.760_717, 1.912_717]) {
        let span = step.earliest.as_secs_f64()..=step.latest.as_secs_f64();
        assert!(span.contains(&at_s), "{step:?}");
    }
    assert!(ends(&look, 2, 1.912_717), "{look:?}");
    // The retransmissions may have been others: then the probe is yet to come, and the RTO after it.
    assert!(ends(&look, 3, 2.204), "{look:?}");
}

/// With no retransmission there was no probe that sent a single segment again.
#[test]
fn a_single_segment_that_was_not_sent_again_is_probed() {
    let single = |total_retrans| {
        streaming(IfIt::StaysAsItIs, |tcp| {
            (tcp.unacked, tcp.total_retrans) = (1, Some(total_retrans));
            (tcp.srtt_us, tcp.timer_expires_ms) = (20_000, 240);
        })
    };
    let never = single(0);
    assert_eq!(never.schedule[0].kind, StepKind::TailLossProbe);
    assert_eq!(never.windows.len(), 1, "{never:?}");
    // One of before may have been the last that was acknowledged.
    assert_eq!(single(1).schedule[0].kind, StepKind::Retransmission);
}

/// What is left of the first segment's RTO, a write finds out: any time, where several are out.
#[test]
fn a_write_behind_a_probe_waits_for_the_first_segment() {
    let first_ms = |unacked| {
        let writes = streaming(IfIt::WritesNow, |tcp| {
            (tcp.unacked, tcp.timer_expires_ms) = (unacked, 284);
        });
        let first = &writes.schedule[0];
        assert_eq!(first.kind, StepKind::Retransmission);
        (first.earliest.as_millis(), first.latest.as_millis())
    };
    assert!(first_ms(6).0 < 20 && first_ms(6).1 >= 284, "{:?}", first_ms(6));
    assert!(first_ms(1).0 >= 284, "{:?}", first_ms(1));
}
