//! What is said of a trial: its verdict, with everything that it rests on.

use crate::measure::Measured;
use crate::proof::Proof;
use model::Prediction;
use serde::{Deserialize, Serialize};
use spec::{Facts, Leg, Parameters, SocketOptions};
use std::fmt;
use std::net::SocketAddr;
use timeline::event::Owner;
use timeline::{FlowId, Timeline};

/// One trial's verdict, with everything it rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The word.
    pub word: Word,
    /// Why, if it does not agree; empty otherwise.
    pub reason: String,
    /// What was measured; `None` if the trial never came to its fault.
    pub measured: Option<Measured>,
    /// The evidence for the fault.
    pub proof: Proof,
    /// Its connections one by one, where the client is a command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flows: Vec<FlowVerdict>,
    /// What the user needs, and whether it is so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requirements: Vec<Requirement>,
}

/// The four words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Word {
    /// Measured as predicted.
    Agrees,
    /// Not as predicted.
    Disagrees,
    /// Scheduling delay or lost evidence could have changed the verdict.
    Inconclusive,
    /// This machine or kernel cannot.
    Skipped,
}

impl fmt::Display for Word {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Agrees => "agrees",
            Self::Disagrees => "disagrees",
            Self::Inconclusive => "inconclusive",
            Self::Skipped => "skipped",
        })
    }
}

impl Verdict {
    /// A verdict about a trial that could not be held against anything.
    pub fn without_measurement(word: Word, reason: impl Into<String>) -> Self {
        Self {
            word,
            reason: reason.into(),
            measured: None,
            proof: Proof { evidence: Vec::new() },
            flows: Vec::new(),
            requirements: Vec::new(),
        }
    }

    /// Has what it says of the survivor and the other call them by their names.
    pub(crate) fn named(mut self, trial: &Parameters) -> Self {
        self.proof = self.proof.named(trial);
        self.reason = trial.named(&self.reason);
        self
    }

    /// The flow whose measurement is the trial's: of those open at the fault the one that ended last.
    pub fn deciding(&self) -> Option<&FlowVerdict> {
        let end = |flow: &FlowVerdict| flow.ended_s.unwrap_or(f64::INFINITY);
        let open = self.flows.iter().filter(|flow| flow.is_open_at_fault());
        // The first of those that end at the same time.
        open.rev().max_by(|a, b| end(a).total_cmp(&end(b))).or(self.flows.first())
    }
}

/// One connection of a trial whose client is a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowVerdict {
    /// Its number.
    pub id: FlowId,
    /// Which two hosts it joins.
    #[serde(default, skip_serializing_if = "is_whole")]
    pub leg: Leg,
    /// The one on the proxy's other side that belongs to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paired_with: Option<FlowId>,
    /// Why that is not known, where several connections come into question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_unpaired: Option<String>,
    /// The end on the client's host.
    pub local: SocketAddr,
    /// The end on the server's host.
    pub remote: SocketAddr,
    /// The process that had the client's socket just before the fault.
    pub owner: Option<Owner>,
    /// When the first of it was seen, seconds after the fault.
    pub opened_s: Option<f64>,
    /// The client's socket's options just before the fault, or those that it was given since, where the
    /// prediction is made from these.
    pub options: Option<SocketOptions>,
    /// What was known of it when the prediction in force was made: just before the fault, or after the
    /// program's last call; `None`: nothing is predicted.
    pub facts: Option<Facts>,
    /// The prediction that was in force at its end.
    pub prediction: Option<Prediction>,
    /// What was measured.
    pub measured: Option<Measured>,
    /// What ended it.
    pub ended_by: Option<EndedBy>,
    /// When that was, seconds after the fault.
    pub ended_s: Option<f64>,
    /// The moment that times of the prediction and the measurement count from, seconds after the fault.
    #[serde(default)]
    pub reference_s: Option<f64>,
    /// The verdict; `None`: nothing was predicted.
    pub word: Option<Word>,
    /// Why, if it does not agree.
    pub reason: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_whole(leg: &Leg) -> bool {
    *leg == Leg::Whole
}

impl FlowVerdict {
    /// Its events, and the moment that its times count from, nanoseconds.
    pub fn part(&self, timeline: &Timeline) -> Option<(Timeline, u64)> {
        let reference_ns = (self.reference_s? * 1e9).round() as i64;
        Some((timeline.about(self.id), timeline.fault_at()?.saturating_add_signed(reference_ns)))
    }

    /// Whether it was established when the fault came, and looked at.
    pub(crate) fn is_open_at_fault(&self) -> bool {
        self.facts.is_some() && self.opened_s.is_none_or(|opened| opened < 0.0)
    }
}

/// What ended a connection for the client's host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndedBy {
    /// Keepalive probes without an answer.
    Keepalive,
    /// Retransmissions without an answer.
    Retransmission,
    /// `TCP_USER_TIMEOUT`.
    UserTimeout,
    /// Zero-window probes without an answer.
    WindowProbe,
    /// An ICMP error.
    Icmp,
    /// A RST from the peer.
    Reset,
    /// A FIN from the peer.
    Fin,
    /// Its own program, which closed it or ended before its kernel knew.
    Program,
}

impl EndedBy {
    /// The written name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keepalive => "keepalive",
            Self::Retransmission => "retransmission",
            Self::UserTimeout => "user-timeout",
            Self::WindowProbe => "window-probe",
            Self::Icmp => "icmp",
            Self::Reset => "reset",
            Self::Fin => "fin",
            Self::Program => "program",
        }
    }
}

/// One requirement, and whether it is met.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Requirement {
    /// Its key.
    pub key: String,
    /// What is wanted, as it is written.
    pub wanted: String,
    /// What was measured, seconds after the fault, where it is a time.
    pub measured_s: Option<f64>,
    /// What was found, a few words.
    pub found: String,
    /// Whether it is met.
    pub met: bool,
}
