//! What documents say of a measurement.

use super::prediction::micros;
use serde::Serialize;
use spec::{Leg, LostHost, Outcome, Parameters, Reference};
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
    /// Of the host that is lost, whatever it is called.
    fin_from_lost: Option<bool>,
    rst_from_lost: Option<bool>,
    survivor_state: Option<&'a str>,
    lost_state: Option<&'a str>,
    client_state: Option<&'a str>,
    server_state: Option<&'a str>,
    rto_ms_at_fault: Option<u32>,
    resolution_s: Option<f64>,
}

/// Of one connection, with its ends by their names. What is not looked for is null: what the survivor sends
/// of its own.
pub(super) fn measurement<'a>(
    measured: Option<&'a Measured>,
    parameters: &Parameters,
    leg: Leg,
) -> Measurement<'a> {
    let accepts = accepts(parameters, leg);
    let survivor_state = measured.map(|m| m.client_state.as_str());
    let lost_state = measured.map(|m| m.server_state.as_str());
    let (client_state, server_state) =
        if accepts { (lost_state, survivor_state) } else { (survivor_state, lost_state) };
    let of_server = |measured: Option<bool>| measured.filter(|_| !accepts);
    let fin_from_lost = measured.map(|m| m.fin_from_server);
    let rst_from_lost = measured.map(|m| m.rst_from_server);
    Measurement {
        outcome: measured.map(|m| m.outcome),
        detected_s: measured.and_then(|m| m.detected_s).map(micros),
        noticed_s: measured.and_then(|m| m.noticed_s).map(micros),
        reference: measured.map(|m| m.reference),
        detected_by: measured.and_then(|m| m.detected_by),
        retransmits_on_wire: measured.and_then(|m| m.retransmits_on_wire),
        keepalive_probes_on_wire: measured.and_then(|m| m.keepalive_probes_on_wire),
        window_probes_on_wire: measured.and_then(|m| m.window_probes_on_wire),
        fin_from_server: of_server(fin_from_lost),
        rst_from_server: of_server(rst_from_lost),
        fin_from_lost,
        rst_from_lost,
        survivor_state,
        lost_state,
        client_state,
        server_state,
        rto_ms_at_fault: measured.and_then(|m| m.rto_ms_at_fault),
        resolution_s: measured.map(|m| micros(m.resolution_s)),
    }
}

/// Whether the host whose kernel is asked has the server's end of a connection.
fn accepts(parameters: &Parameters, leg: Leg) -> bool {
    match leg {
        Leg::Whole => parameters.fault.host == LostHost::Client,
        Leg::Downstream | Leg::Upstream | Leg::Past => parameters.asked_accepts(leg),
    }
}
