//! A web server's own timer.

use super::exhibit::{Bench, Sound, time};
use super::{Finding, Standing};
use spec::{Outcome, counted};

/// F2.
pub(super) fn closes_in_time(bench: &Bench<'_>) -> Result<Finding, String> {
    let idle = bench.best("web-server-idle")?;
    let again = bench.best("web-server-new-request")?;
    let (Some(closed_s), Some(again_s)) = (closed(&idle), closed(&again)) else {
        return Ok(Finding::new(
            Standing::DoesNotHold,
            format!(
                "the web server did not close: {}; with a new request {}.",
                idle.told(),
                again.told()
            ),
        ));
    };
    let keeps_for_s = keeps_for(&idle);
    let mut text = format!(
        "With keepalive_timeout {} the web server closed {} after the last answer; after another request, \
         made {} after the one before, {} after that.",
        time(keeps_for_s),
        time(closed_s),
        time(again.parameters().fault.after.as_secs_f64()),
        time(again_s)
    );
    let early = closed_s + CLOCKS_S < keeps_for_s || again_s + CLOCKS_S < keeps_for(&again);
    if early {
        return Ok(Finding::new(Standing::DoesNotHold, text));
    }
    let mut conditions = Vec::new();
    let lost = bench.best("web-server-client-lost")?;
    let (Some(let_go_s), Some(forgotten_s)) = (lost.measured.noticed_s, lost.measured.detected_s)
    else {
        text.push_str(" With its client's host gone, its kernel kept the connection.");
        return Ok(Finding::new(Standing::HoldsWithACondition, text));
    };
    if lost.measured.outcome == Outcome::Released && forgotten_s > let_go_s {
        conditions.push(format!(
            "It is the program's timer: with the client's host gone it ended after {} all the \
             same, and the web server closed its socket; but the kernel kept the connection for another \
             {}, sent its FIN again {}, and told nobody (tcp_orphan_retries).",
            time(let_go_s),
            time(forgotten_s - let_go_s),
            counted(lost.measured.retransmits_on_wire.unwrap_or(0), "time")
        ));
    }
    Ok(Finding::with_conditions(text, &conditions))
}

/// What the clocks of wire and tracepoints may differ by.
const CLOCKS_S: f64 = 0.0005;

/// When the client was told of its FIN.
fn closed(exhibit: &Sound<'_>) -> Option<f64> {
    exhibit.measured.detected_s.filter(|_| exhibit.measured.outcome == Outcome::Eof)
}

fn keeps_for(exhibit: &Sound<'_>) -> f64 {
    exhibit.parameters().nginx.keeps_for().as_secs_f64()
}
