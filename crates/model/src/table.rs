//! The article's table: each retransmission with its timeout, by the textbook and by this kernel.

use crate::kernel::Kernel;
use crate::prediction::{Prediction, StepKind};
use crate::rto;
use serde::{Deserialize, Serialize};
use spec::{Facts, Parameters};
use std::time::Duration;

/// The timeouts of unacknowledged data, and what they are measured against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// One row a timer: the tail loss probe, each retransmission, the end.
    pub rows: Vec<Row>,
    /// What `tcp_retries2`, or `TCP_USER_TIMEOUT`, amounts to. It counts from the first
    /// retransmission on timeout, and ends the connection at the next timeout, not by itself.
    pub threshold: Duration,
    /// Whether the threshold is `TCP_USER_TIMEOUT`'s.
    pub by_user_timeout: bool,
}

/// One timer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its number among those of its kind, from 1.
    pub n: u32,
    /// What it leads to.
    pub kind: StepKind,
    /// The timeout that was waited for.
    pub timeout: Duration,
    /// The sum of all timeouts so far: the textbook's time since the first send.
    pub total: Duration,
    /// The earliest time since the first send, by the timer wheel.
    pub earliest: Duration,
    /// The latest.
    pub latest: Duration,
    /// The latest time since the first retransmission on timeout; `None` before that.
    pub since_first: Option<Duration>,
}

/// The table of this experiment and what is predicted for it; empty if it has no unacknowledged data.
pub fn table(prediction: &Prediction, parameters: &Parameters, facts: &Facts) -> Table {
    let kernel = Kernel::new(parameters, facts);
    let threshold_ms =
        kernel.user_timeout_ms.unwrap_or_else(|| rto::model_timeout_ms(&kernel, kernel.retries2));
    let steps = prediction.schedule.iter().filter(|step| {
        matches!(step.kind, StepKind::TailLossProbe | StepKind::Retransmission | StepKind::GiveUp)
    });
    let mut first = None;
    let rows = steps
        .map(|step| {
            if step.kind == StepKind::Retransmission {
                first.get_or_insert(step.earliest);
            }
            Row {
                n: step.n,
                kind: step.kind,
                timeout: step.timeout,
                total: step.nominal,
                earliest: step.earliest,
                latest: step.latest,
                since_first: first.map(|first| step.latest.saturating_sub(first)),
            }
        })
        .collect();
    Table {
        rows,
        threshold: Duration::from_millis(threshold_ms),
        by_user_timeout: kernel.user_timeout_ms.is_some(),
    }
}
