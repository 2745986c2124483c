//! What documents say of a measurement.

use super::prediction::micros;
use serde::Serialize;
use spec::{Outcome, Reference};
use verdict::{DetectedBy, Measured};

#[derive(Serialize)]
pub(super) struct Measurement<'a> {
    outcome: Option<Outcome>,
    detected_s: Option<f64>,
    noticed_s: Option<f64>,
    reference: Option<Reference>,
    detected_by: Option<DetectedBy>,
    retransmits_on_wire: Option<u32>,
    keepalive_probes_on_wire: Option<u32>,
    window_probes_on_wire: Option<u32>,
    fin_from_server: Option<bool>,
    rst_from_server: Option<bool>,
    client_state: Option<&'a str>,
    server_state: Option<&'a str>,
    rto_ms_at_fault: Option<u32>,
    resolution_s: Option<f64>,
}

pub(super) fn measurement(measured: Option<&Measured>) -> Measurement<'_> {
    Measurement {
        outcome: measured.map(|m| m.outcome),
        detected_s: measured.and_then(|m| m.detected_s).map(micros),
        noticed_s: measured.and_then(|m| m.noticed_s).map(micros),
        reference: measured.map(|m| m.reference),
        detected_by: measured.and_then(|m| m.detected_by),
        retransmits_on_wire: measured.and_then(|m| m.retransmits_on_wire),
        keepalive_probes_on_wire: measured.and_then(|m| m.keepalive_probes_on_wire),
        window_probes_on_wire: measured.and_then(|m| m.window_probes_on_wire),
        fin_from_server: measured.map(|m| m.fin_from_server),
        rst_from_server: measured.map(|m| m.rst_from_server),
        client_state: measured.map(|m| m.client_state.as_str()),
        server_state: measured.map(|m| m.server_state.as_str()),
        rto_ms_at_fault: measured.and_then(|m| m.rto_ms_at_fault),
        resolution_s: measured.map(|m| micros(m.resolution_s)),
    }
}
