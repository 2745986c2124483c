//! Judged trials as rules see them.

use crate::claims::Settings;
use crate::measure::{Measured, reference_at, since_reference};
use crate::verdict::{Verdict, Word};
use model::{Prediction, StepKind};
use spec::{Facts, Outcome, Parameters};
use timeline::classify::{Class, classified};
use timeline::event::Phase;
use timeline::{Segment, Source, Timeline};

/// One judged trial that bears on a claim.
#[derive(Debug, Clone, Copy)]
pub struct Exhibit<'a> {
    /// What claims call it.
    pub label: &'a str,
    /// With which settings it was made.
    pub settings: Settings,
    /// What was done.
    pub parameters: &'a Parameters,
    /// What was measured before the fault.
    pub facts: Option<&'a Facts>,
    /// What was predicted before the fault.
    pub prediction: Option<&'a Prediction>,
    /// Its verdict.
    pub verdict: &'a Verdict,
    /// What happened.
    pub timeline: &'a Timeline,
}

/// An exhibit that can be relied on: its fault is proved, and nothing disturbed it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sound<'a> {
    exhibit: Exhibit<'a>,
    pub(super) facts: &'a Facts,
    pub(super) measured: &'a Measured,
}

/// All exhibits.
#[derive(Debug, Clone)]
pub struct Bench<'a> {
    exhibits: Vec<Exhibit<'a>>,
}

impl<'a> Bench<'a> {
    /// The exhibits of both clocks.
    pub fn new(exhibits: Vec<Exhibit<'a>>) -> Self {
        Self { exhibits }
    }

    /// The sound exhibits of this label, those at the defaults first.
    ///
    /// # Errors
    /// Why there are none.
    pub(super) fn all(&self, label: &str) -> Result<Vec<Sound<'a>>, String> {
        let (mut sound, mut lacks) = (Vec::new(), Vec::new());
        for exhibit in self.exhibits.iter().filter(|exhibit| exhibit.label == label) {
            match exhibit.sound() {
                Ok(exhibit) => sound.push(exhibit),
                Err(why) => lacks.push(why),
            }
        }
        sound.sort_by_key(|exhibit| exhibit.exhibit.settings == Settings::Short);
        match (sound.is_empty(), lacks.first()) {
            (false, _) => Ok(sound),
            (true, Some(why)) => Err(format!("{label}: {why}")),
            (true, None) => Err(format!("{label} was not run on this clock")),
        }
    }

    /// The best exhibit of this label: at the defaults if there is one.
    pub(super) fn best(&self, label: &str) -> Result<Sound<'a>, String> {
        self.all(label).map(|all| all[0])
    }

    /// The sound exhibits of this label, in the order of their kernels' HZ.
    pub(super) fn by_hz(&self, label: &str) -> Vec<Sound<'a>> {
        let mut exhibits = self.all(label).unwrap_or_default();
        exhibits.sort_by_key(|exhibit| exhibit.facts.hz);
        exhibits
    }

    /// The exhibit at the Linux defaults.
    pub(super) fn at_defaults(&self, label: &str) -> Result<Sound<'a>, String> {
        let exhibit = self.best(label)?;
        match exhibit.exhibit.settings {
            Settings::Defaults => Ok(exhibit),
            Settings::Short => Err(format!(
                "{label} ran with short settings only, and this needs the defaults: build the \
                 virtual kernel with `halfopen kernel build`"
            )),
        }
    }
}

impl<'a> Exhibit<'a> {
    fn sound(self) -> Result<Sound<'a>, String> {
        let verdict = self.verdict;
        let (Some(facts), Some(measured)) = (self.facts, &verdict.measured) else {
            return Err(verdict.reason.clone());
        };
        let unpredicted = self.prediction.is_some_and(|prediction| prediction.unknown.is_some());
        let usable = match verdict.word {
            Word::Agrees | Word::Disagrees => true,
            // What the model cannot predict was measured all the same.
            Word::Inconclusive => unpredicted && verdict.proof.holds(),
            Word::Skipped => false,
        };
        if usable {
            Ok(Sound { exhibit: self, facts, measured })
        } else {
            Err(verdict.reason.clone())
        }
    }
}

/// A retransmission, or a probe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sent {
    /// Seconds after the reference.
    pub(super) at_s: f64,
    /// Bytes that it carries.
    pub(super) len: u32,
    /// Its sequence number, counted from the next byte that the client would send.
    pub(super) before_next: i32,
}

impl<'a> Sound<'a> {
    pub(super) fn parameters(&self) -> &'a Parameters {
        self.exhibit.parameters
    }

    /// Segments at the client after the reference, with their classes, until the kernel gave up.
    fn wire(&self) -> impl Iterator<Item = (f64, &'a Segment, Class)> {
        let timeline = self.exhibit.timeline;
        let from = reference_at(timeline, self.measured.reference);
        let end_s = self.measured.detected_s.unwrap_or(f64::INFINITY);
        since_reference(timeline, self.measured.reference)
            .map(move |(at, segment, class)| ((at as f64 - from as f64) / 1e9, segment, class))
            .filter(move |(at_s, ..)| *at_s <= end_s)
    }

    /// Data that was sent again.
    pub(super) fn resends(&self) -> Vec<f64> {
        let again = |class: Class| class.is_data_again();
        self.wire().filter(|(_, s, class)| s.sent && again(*class)).map(|(at, ..)| at).collect()
    }

    /// Data that was sent again on timeout: without the tail loss probe that comes before.
    pub(super) fn resends_on_timeout(&self) -> Vec<f64> {
        let mut resends = self.resends();
        if self.has_tail_loss_probe() && !resends.is_empty() {
            resends.remove(0);
        }
        resends
    }

    /// Whether the first time that data is sent again is a tail loss probe.
    pub(super) fn has_tail_loss_probe(&self) -> bool {
        self.exhibit.prediction.is_some_and(|prediction| {
            prediction.schedule.iter().any(|step| step.kind == StepKind::TailLossProbe)
        })
    }

    /// The keepalive probes.
    pub(super) fn probes(&self) -> Vec<Sent> {
        let mut next = 0_u32;
        let timeline = self.exhibit.timeline;
        let from = reference_at(timeline, self.measured.reference);
        let end_s = self.measured.detected_s.unwrap_or(f64::INFINITY);
        let mut probes = Vec::new();
        let since = since_reference(timeline, self.measured.reference).count();
        let before = timeline.segments(Source::ClientWire).count() - since;
        for (index, (at, segment, class)) in classified(timeline, Source::ClientWire).enumerate() {
            let at_s = (at as f64 - from as f64) / 1e9;
            if !segment.sent || segment.flags.rst {
                continue;
            }
            if class.is_keepalive_probe() {
                let before_next = segment.seq.wrapping_sub(next).cast_signed();
                if index >= before && at_s <= end_s {
                    probes.push(Sent { at_s, len: segment.len, before_next });
                }
            } else {
                next = segment.end();
            }
        }
        probes
    }

    /// When the peer answered probes.
    pub(super) fn answers(&self) -> usize {
        self.wire().filter(|(_, s, class)| !s.sent && *class == Class::ProbeAnswer).count()
    }

    /// How many zero-window probes went out.
    pub(super) fn window_probes(&self) -> usize {
        let probe = |class: &Class| matches!(class, Class::WindowProbe { .. });
        self.wire().filter(|(_, s, class)| s.sent && probe(class)).count()
    }

    /// Segments at the client's tap from the fault on: time after it, and the segment.
    pub(super) fn after_fault(&self) -> impl Iterator<Item = (f64, &'a Segment)> {
        let fault_at = self.exhibit.timeline.fault_at().unwrap_or(u64::MAX);
        self.exhibit
            .timeline
            .segments(Source::ClientWire)
            .filter(move |(at, _)| *at >= fault_at)
            .map(move |(at, segment)| ((at - fault_at) as f64 / 1e9, segment))
    }

    /// How long the connection was watched after the reference, seconds.
    pub(super) fn watched_s(&self) -> f64 {
        let timeline = self.exhibit.timeline;
        let ended = timeline.phase_at(Phase::Aftermath).or(timeline.phase_at(Phase::Done));
        let from = reference_at(timeline, self.measured.reference);
        ended.unwrap_or(from).saturating_sub(from) as f64 / 1e9
    }

    /// From the earliest to the latest time that could have been predicted without knowing the
    /// phase of the timer wheel, seconds.
    pub(super) fn whatever_the_phase(&self) -> Option<(f64, f64)> {
        let facts = Facts { jiffies: None, ..self.facts.clone() };
        let (earliest, latest) = model::predict(self.exhibit.parameters, &facts).hull()?;
        Some((earliest.as_secs_f64(), latest.as_secs_f64()))
    }

    /// `ETIMEDOUT after 13.312 s`, or `nothing within 30 d`.
    pub(super) fn told(&self) -> String {
        match (self.measured.outcome, self.measured.detected_s) {
            (Outcome::None, _) => format!("nothing within {}", lasting(self.watched_s())),
            (outcome, Some(at_s)) => format!("{outcome} after {}", time(at_s)),
            (outcome, None) => outcome.to_string(),
        }
    }

    /// Where this was: `Linux 6.12, tcp_retries2 = 15`.
    pub(super) fn kernel(&self) -> String {
        let (major, minor) = self.facts.version();
        format!("Linux {major}.{minor}, HZ {}", self.facts.hz)
    }

    /// A sysctl of the client's namespace, as a number.
    pub(super) fn sysctl(&self, name: &str) -> Option<u32> {
        self.facts.sysctl.get(name)?.trim().parse().ok()
    }

    /// `tcpi_rto` before the fault, seconds.
    pub(super) fn rto_s(&self) -> f64 {
        f64::from(self.facts.tcp.as_ref().map_or(0, |tcp| tcp.rto_us)) / 1e6
    }

    /// `tcpi_rtt` before the fault, seconds.
    pub(super) fn srtt_s(&self) -> f64 {
        f64::from(self.facts.tcp.as_ref().map_or(0, |tcp| tcp.srtt_us)) / 1e6
    }
}

/// A time for people: `45 µs`, `204 ms`, `13.312 s`, `7926.8 s (2 h 12 min 7 s)`, `12 h`, `30 d`.
pub(super) fn time(seconds: f64) -> String {
    match seconds {
        s if s < 0.001 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 100.0 => format!("{s:.3} s"),
        s if s < 3600.0 => format!("{s:.1} s"),
        s if s < 10_800.0 => format!("{s:.1} s ({})", hours(s)),
        s if s < 86_400.0 => hours(s),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

/// How long something was watched: minutes and hours are enough.
pub(super) fn lasting(seconds: f64) -> String {
    match seconds {
        s if (3600.0..86_400.0).contains(&s) => hours(s),
        s => time(s),
    }
}

fn hours(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    let parts = [(whole / 3600, "h"), (whole / 60 % 60, "min"), (whole % 60, "s")];
    let shown = parts.iter().filter(|(count, _)| *count > 0);
    shown.map(|(count, unit)| format!("{count} {unit}")).collect::<Vec<_>>().join(" ")
}

/// `200 ms, 408 ms, 824 ms`.
pub(super) fn times(all: impl IntoIterator<Item = f64>) -> String {
    let all: Vec<_> = all.into_iter().map(time).collect();
    all.join(", ")
}
