//! What was measured.

use serde::{Deserialize, Serialize};
use spec::{Outcome, Reference};

/// What the client was told, when, and what was on the wire. Times are seconds after `reference`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// What the client was told.
    pub outcome: Outcome,
    /// When the client's kernel reported it.
    pub detected_s: Option<f64>,
    /// How much earlier that may really have been: the resolution of the source.
    pub resolution_s: f64,
    /// When the client program saw it.
    pub noticed_s: Option<f64>,
    /// What times count from.
    pub reference: Reference,
    /// Which source told `detected_s`.
    pub detected_by: Option<DetectedBy>,
    /// Data segments sent again, as captured at the client; `None`: nothing was written.
    pub retransmits_on_wire: Option<u32>,
    /// Keepalive probes, as captured at the client; `None`: keepalive is off.
    pub keepalive_probes_on_wire: Option<u32>,
    /// Whether a FIN from the server reached the client.
    pub fin_from_server: bool,
    /// Whether a RST from the server's address reached the client.
    pub rst_from_server: bool,
    /// The client socket's last state.
    pub client_state: String,
    /// The server socket's last state; `gone` with its namespace.
    pub server_state: String,
    /// `tcpi_rto` before the fault, milliseconds.
    pub rto_ms_at_fault: Option<u32>,
}

/// A source that can tell when the client's kernel reported the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DetectedBy {
    /// The kernel's tracepoints: exact.
    Tracepoint,
    /// Socket diagnostics: within their polling interval.
    SockDiag,
    /// The client program.
    Peer,
}

/// Reads the measurement off a timeline; `None` if the fault was never injected.
pub fn measure(_parameters: &spec::Parameters, _facts: &spec::Facts, _timeline: &timeline::Timeline) -> Option<Measured> {
    None
}
