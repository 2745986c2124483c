//! One case of the file: facts and settings, and what was predicted.

use crate::common::parameters;
use model::{Prediction, Window};
use spec::Parameters;
use spec::facts::{Facts, JiffyClock, NeighbourFacts, TcpFacts};
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Facts and settings, and what is predicted from them.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) facts: Facts,
    /// The first write after the fault, where it is known.
    pub(crate) first_write_ns: Option<u64>,
    /// The settings that differ from the defaults.
    pub(crate) sets: Vec<(String, String)>,
    /// As the facts are; and, where they are of a real clock, as if it were virtual.
    pub(crate) frozen: Vec<Frozen>,
    /// Whether the frozen model took long to predict it.
    pub(crate) is_slow: bool,
}

/// What of a prediction is frozen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frozen {
    /// Nothing could be said.
    Unknown,
    /// Windows, in order of their times; and how many steps the schedule has.
    Known { reference: String, windows: Vec<Window>, steps: usize },
}

impl Case {
    pub(crate) fn new(
        facts: Facts,
        first_write_ns: Option<u64>,
        sets: Vec<(String, String)>,
    ) -> Self {
        Self { facts, first_write_ns, sets, frozen: Vec::new(), is_slow: false }
    }

    pub(crate) fn parameters(&self) -> Parameters {
        parameters(&self.sets)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.sets.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    pub(crate) fn is_unknown(&self) -> bool {
        self.frozen.contains(&Frozen::Unknown)
    }

    /// What the model says now: as the facts are, then as if their clock were virtual if it is not.
    pub(crate) fn predict(&self) -> Vec<Frozen> {
        let parameters = self.parameters();
        let predict = |facts: &Facts| {
            Frozen::from(match self.first_write_ns {
                Some(write_ns) => model::predict_after(&parameters, facts, write_ns),
                None => model::predict(&parameters, facts),
            })
        };
        let mut all = vec![predict(&self.facts)];
        if !self.facts.virtual_time {
            all.push(predict(&Facts { virtual_time: true, ..self.facts.clone() }));
        }
        all
    }

    pub(crate) fn freeze(&mut self) {
        let begun = Instant::now();
        self.frozen = self.predict();
        self.is_slow = begun.elapsed() > Duration::from_millis(150);
    }

    /// Facts and settings, as they stand in the file.
    pub(crate) fn input(&self) -> String {
        let sets: Vec<_> = self.sets.iter().map(|(key, value)| format!("{key}={value}")).collect();
        format!("{} | {}", show_facts(&self.facts, self.first_write_ns), sets.join(" "))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.input())?;
        for (index, frozen) in self.frozen.iter().enumerate() {
            if index > 0 && *frozen == self.frozen[0] {
                formatter.write_str(" | same")?;
            } else {
                write!(formatter, " | {frozen}")?;
            }
        }
        formatter.write_str("\n")
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut parts = line.split('|').map(str::trim);
        let mut part = || parts.next().ok_or_else(|| format!("a part is missing: {line}"));
        let (facts, sets) = (part()?, part()?);
        let sets: Vec<_> = sets
            .split_whitespace()
            .map(|set| set.split_once('=').ok_or_else(|| format!("not KEY=VALUE: {set}")))
            .map(|set| set.map(|(key, value)| (key.to_owned(), value.to_owned())))
            .collect::<Result<_, _>>()?;
        let (facts, first_write_ns) = read_facts(facts, &parameters(&sets))?;
        let mut frozen: Vec<Frozen> = Vec::new();
        for text in parts {
            frozen.push(match text {
                "same" => frozen.first().ok_or("the same as what?")?.clone(),
                _ => text.parse()?,
            });
        }
        Ok(Self { frozen, ..Self::new(facts, first_write_ns, sets) })
    }
}

impl From<Prediction> for Frozen {
    fn from(prediction: Prediction) -> Self {
        if prediction.unknown.is_some() {
            return Self::Unknown;
        }
        let mut windows: Vec<_> = prediction
            .windows
            .into_iter()
            .map(|window| Window { width: vec![], ..window })
            .collect();
        windows.sort_by_key(|window| (window.span, window.outcome.to_string(), window.retransmits));
        Self::Known {
            reference: prediction.reference.to_string(),
            windows,
            steps: prediction.schedule.len(),
        }
    }
}

impl fmt::Display for Frozen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Known { reference, windows, steps } = self else {
            return formatter.write_str("unknown");
        };
        write!(formatter, "{reference} {steps} steps")?;
        for window in windows {
            write!(formatter, ", {}", show_window(window))?;
        }
        Ok(())
    }
}

/// `ETIMEDOUT 3328000000+8000000 r4`: outcome, times, and counts where they apply.
pub(crate) fn show_window(window: &Window) -> String {
    let mut text = window.outcome.to_string();
    if let Some((earliest, latest)) = window.span {
        text += &format!(" {}+{}", earliest.as_nanos(), latest.saturating_sub(earliest).as_nanos());
    }
    for (letter, count) in
        [('r', window.retransmits), ('k', window.keepalive_probes), ('w', window.window_probes)]
    {
        text += &count.map_or_else(String::new, |count| format!(" {letter}{count}"));
    }
    text
}

impl FromStr for Frozen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "unknown" {
            return Ok(Self::Unknown);
        }
        let mut parts = text.split(", ");
        let head: Vec<_> = parts.next().unwrap_or_default().split(' ').collect();
        let [reference, steps, "steps"] = head[..] else { return Err(format!("no head: {text}")) };
        let steps = steps.parse().map_err(|_| format!("not a number of steps: {steps}"))?;
        let windows = parts.map(read_window).collect::<Result<_, _>>()?;
        Ok(Self::Known { reference: reference.into(), windows, steps })
    }
}

fn read_window(text: &str) -> Result<Window, String> {
    let bad = || format!("not a window: {text}");
    let mut words = text.split(' ');
    let outcome = words.next().ok_or_else(bad)?;
    let outcome = serde_json::from_value(outcome.into()).map_err(|_| bad())?;
    let mut window = Window::new(outcome, None);
    for word in words {
        let number = |text: &str| text.parse::<u64>().map_err(|_| bad());
        if let Some((earliest, width)) = word.split_once('+') {
            let earliest = number(earliest)?;
            let latest = Duration::from_nanos(earliest + number(width)?);
            window.span = Some((Duration::from_nanos(earliest), latest));
            continue;
        }
        let count = Some(number(&word[1..])? as u32);
        match &word[..1] {
            "r" => window.retransmits = count,
            "k" => window.keepalive_probes = count,
            "w" => window.window_probes = count,
            _ => return Err(bad()),
        }
    }
    Ok(window)
}

/// The facts word by word: what is not there is as `model::nominal_facts` has it, or is not known.
fn show_facts(facts: &Facts, first_write_ns: Option<u64>) -> String {
    let mut words = vec![format!("hz={}", facts.hz), format!("linux={}", facts.kernel)];
    if facts.virtual_time {
        words.push("virtual".into());
    }
    if let Some(clock) = facts.jiffies {
        words.push(format!("jiffies={}@{}", clock.jiffies, clock.at_ns));
    }
    if let Some(tcp) = &facts.tcp {
        words.push(format!("rto={}/{}/{}", tcp.rto_us, tcp.srtt_us, tcp.rttvar_us));
        words.push(format!("cwnd={} options={}", tcp.snd_cwnd, tcp.options));
        if tcp.sampled_at_ns > 0 {
            words.push(format!(
                "sampled={} received={}/{}",
                tcp.sampled_at_ns, tcp.last_data_recv_ms, tcp.last_ack_recv_ms
            ));
            words.push(format!("timer={}/{}", tcp.timer, tcp.timer_expires_ms));
            words.push(format!("probes={}/{}", tcp.probes, tcp.backoff));
        }
        words.extend(tcp.window_probed_at_ns.map(|at| format!("probed={at}")));
    }
    if let Some(n) = facts.neighbour {
        words.push(format!(
            "neighbour={}/{}/{}/{}/{}/{}",
            n.state, n.sampled_at_ns, n.confirmed_ms, n.updated_ms, n.reachable_ms, n.drawn_ms
        ));
    }
    words.extend(first_write_ns.map(|at| format!("write={at}")));
    words.join(" ")
}

fn read_facts(text: &str, parameters: &Parameters) -> Result<(Facts, Option<u64>), String> {
    let mut facts = Facts {
        kernel: String::new(),
        hz: 0,
        sysctl: parameters.sysctl.clone(),
        server_sysctl: parameters.server_sysctl.clone(),
        tcp: None,
        jiffies: None,
        virtual_time: false,
        neighbour: None,
        server_tcp: None,
    };
    let mut first_write_ns = None;
    for word in text.split(' ') {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let numbers: Vec<i64> =
            value.split(['/', '@']).map(|number| number.parse().unwrap_or(-1)).collect();
        let number = |index: usize| {
            let number = numbers.get(index).copied().unwrap_or(-1);
            u64::try_from(number).map_err(|_| format!("not a fact: {word}"))
        };
        let tcp =
            facts.tcp.get_or_insert_with(|| TcpFacts { snd_mss: 1448, ..TcpFacts::default() });
        match name {
            "hz" => facts.hz = number(0)? as u32,
            "linux" => facts.kernel = value.into(),
            "virtual" => facts.virtual_time = true,
            "jiffies" => {
                facts.jiffies = Some(JiffyClock { jiffies: number(0)?, at_ns: number(1)? });
            }
            "rto" => {
                tcp.rto_us = number(0)? as u32;
                tcp.srtt_us = number(1)? as u32;
                tcp.rttvar_us = number(2)? as u32;
            }
            "cwnd" => tcp.snd_cwnd = number(0)? as u32,
            "options" => tcp.options = number(0)? as u8,
            "sampled" => tcp.sampled_at_ns = number(0)?,
            "received" => {
                tcp.last_data_recv_ms = number(0)? as u32;
                tcp.last_ack_recv_ms = number(1)? as u32;
            }
            "timer" => {
                tcp.timer = number(0)? as u8;
                tcp.timer_expires_ms = number(1)? as u32;
            }
            "probes" => {
                tcp.probes = number(0)? as u8;
                tcp.backoff = number(1)? as u8;
            }
            "probed" => tcp.window_probed_at_ns = Some(number(0)?),
            "neighbour" => {
                facts.neighbour = Some(NeighbourFacts {
                    state: number(0)? as u16,
                    sampled_at_ns: number(1)?,
                    confirmed_ms: number(2)?,
                    updated_ms: number(3)?,
                    reachable_ms: number(4)?,
                    drawn_ms: numbers.get(5).copied().unwrap_or_default(),
                    delay_ms: 5_000,
                    retrans_ms: 1_000,
                    direct_questions: 3,
                    questions_to_all: 3,
                });
            }
            "write" => first_write_ns = Some(number(0)?),
            _ => return Err(format!("not a fact: {word}")),
        }
    }
    Ok((facts, first_write_ns))
}
