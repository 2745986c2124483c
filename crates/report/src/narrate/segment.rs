//! Names of TCP segments.

use crate::narrate::Tone;
use model::{Step, StepKind};
use spec::counted;
use timeline::{Class, Segment, Side};

/// What the schedule says about data that is sent again: which time is the tail loss probe.
#[derive(Debug, Clone, Default)]
pub(super) struct Resends {
    expected: Vec<(StepKind, u32)>,
}

impl Resends {
    pub(super) fn expect(&mut self, schedule: &[Step]) {
        self.expected = schedule
            .iter()
            .filter(|s| matches!(s.kind, StepKind::TailLossProbe | StepKind::Retransmission))
            .map(|step| (step.kind, step.n))
            .collect();
    }

    /// The name of the `n`th time that data is sent again.
    fn name(&self, n: u32, oldest: bool) -> String {
        if !oldest {
            return "tail loss probe".into();
        }
        match self.expected.get(n as usize - 1) {
            Some((StepKind::TailLossProbe, _)) => "tail loss probe".into(),
            Some((_, n)) => format!("retransmission {n}"),
            None => {
                let is_probe = |(kind, _): &&_| *kind == StepKind::TailLossProbe;
                let probes = self.expected.iter().filter(is_probe).count();
                format!("retransmission {}", n - (probes as u32).min(n - 1))
            }
        }
    }
}

pub(super) fn describe(
    class: Class,
    segment: &Segment,
    sender: Side,
    probes: Option<u32>,
    resends: &Resends,
) -> (String, Tone) {
    let times = |what: &str, n: u32| match n {
        1 => what.to_owned(),
        _ => format!("{what}, sent again {}", n - 1),
    };
    match class {
        Class::Syn { n } => (times("SYN", n), Tone::Step),
        Class::SynAck { n } => (times("SYN-ACK", n), Tone::Step),
        Class::Data { bytes } => (format!("data {}", counted(bytes, "byte")), Tone::Ordinary),
        Class::Retransmission { n, oldest, .. } if sender == Side::Client => {
            (resends.name(n, oldest), Tone::Step)
        }
        Class::Retransmission { n, oldest, .. } => (Resends::default().name(n, oldest), Tone::Step),
        Class::KeepaliveProbe { n } => match probes.filter(|_| sender == Side::Client) {
            Some(all) if n <= all => (format!("keepalive probe {n} of {all}"), Tone::Step),
            _ => (format!("keepalive probe {n}"), Tone::Step),
        },
        Class::WindowProbe { n, since_closed } if n < since_closed => {
            (format!("window probe {n} ({since_closed} in all)"), Tone::Step)
        }
        Class::WindowProbe { n, .. } => (format!("window probe {n}"), Tone::Step),
        Class::ProbeAnswer => ("answer to the probe".into(), Tone::Step),
        Class::Ack if segment.window == 0 => ("ACK, window closed".into(), Tone::Step),
        Class::Ack => ("ACK".into(), Tone::Ordinary),
        Class::Fin { n, data_again } => {
            let data = if segment.len > 0 {
                format!(" with {}", counted(segment.len, "byte"))
            } else {
                String::new()
            };
            let again = if data_again && n == 1 { " of old data" } else { "" };
            (times(&format!("FIN{data}{again}"), n), Tone::Step)
        }
        Class::Reset => ("reset".into(), Tone::End),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use timeline::Flags;

    #[test]
    fn window_probes_are_numbered_since_the_peer_was_heard() {
        let segment = Segment {
            sent: true,
            source_port: 40_000,
            destination_port: 7,
            seq: 200,
            ack: 1,
            flags: Flags::from_bits(0x10),
            window: 502,
            len: 0,
        };
        let text = |n, since_closed| {
            let class = Class::WindowProbe { n, since_closed };
            describe(class, &segment, Side::Client, None, &Resends::default()).0
        };
        assert_eq!(text(2, 2), "window probe 2");
        assert_eq!(text(1, 7), "window probe 1 (7 in all)");
    }
    use std::time::Duration;

    fn step(kind: StepKind, n: u32) -> Step {
        let zero = Duration::ZERO;
        Step {
            n,
            kind,
            earliest: zero,
            latest: zero,
            nominal: zero,
            timeout: zero,
            late: zero,
            held: false,
        }
    }

    #[test]
    fn the_schedule_tells_the_tail_loss_probe_from_the_first_retransmission() {
        let mut resends = Resends::default();
        assert_eq!(resends.name(1, true), "retransmission 1");
        assert_eq!(resends.name(1, false), "tail loss probe");
        resends.expect(&[
            step(StepKind::TailLossProbe, 1),
            step(StepKind::Retransmission, 1),
            step(StepKind::Retransmission, 2),
            step(StepKind::GiveUp, 1),
        ]);
        let names: Vec<_> = (1..=4).map(|n| resends.name(n, true)).collect();
        let expected =
            ["tail loss probe", "retransmission 1", "retransmission 2", "retransmission 3"];
        assert_eq!(names, expected);
    }
}
