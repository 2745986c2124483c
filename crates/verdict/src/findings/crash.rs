//! A process that is killed.

use super::exhibit::{Bench, Sound, time};
use super::{Finding, Standing};

/// A1.
pub(super) fn a_kernel_says_goodbye(bench: &Bench<'_>) -> Result<Finding, String> {
    let plain = bench.all("process-crash-idle")?;
    let best = plain[0];
    let Some(fin_s) = fin_from_server(&best) else {
        return Ok(Finding::new(
            Standing::DoesNotHold,
            format!("No FIN came; the client was told {}.", best.told()),
        ));
    };
    let base = format!(
        "A FIN came {} after the kill, and the client's read gave {}.",
        time(fin_s),
        best.measured.outcome
    );
    let exceptions = [
        ("process-crash-unread", "bytes that the server had not read turn it into a reset"),
        ("process-crash-linger", "SO_LINGER with time 0 turns it into a reset"),
        ("process-crash-inherited-socket", "nothing is sent while a forked child holds the socket"),
    ];
    let mut conditions = Vec::new();
    for (label, what) in exceptions {
        let Ok(exhibit) = bench.best(label) else { continue };
        if !exhibit.measured.fin_from_server {
            conditions.push(format!("But {what}: the client was told {}.", exhibit.told()));
        }
    }
    Ok(Finding::with_conditions(base, &conditions))
}

/// A2.
pub(super) fn four_steps(bench: &Bench<'_>) -> Result<Finding, String> {
    let exhibit = bench.best("process-crash-idle")?;
    let Some(steps) = closing_steps(&exhibit) else {
        return Ok(Finding::new(
            Standing::DoesNotHold,
            "The four segments FIN, ACK, FIN, ACK were not all seen.",
        ));
    };
    let base = format!(
        "FIN, ACK, FIN and ACK passed {}, {}, {} and {} after the kill.",
        time(steps[0]),
        time(steps[1]),
        time(steps[2]),
        time(steps[3])
    );
    let mut conditions = Vec::new();
    if exhibit.measured.client_state == "CLOSE_WAIT" {
        conditions.push(
            "The last two come only when the client closes its side; until then it stays in \
             CLOSE_WAIT."
                .to_owned(),
        );
    }
    if let Ok(sending) = bench.best("process-crash-sending")
        && sending.measured.rst_from_server
    {
        conditions.push("A client that writes instead of closing draws a reset.".to_owned());
    }
    Ok(Finding::with_conditions(base, &conditions))
}

/// When a FIN of the server came, seconds after the fault.
fn fin_from_server(exhibit: &Sound<'_>) -> Option<f64> {
    exhibit.after_fault().find(|(_, s)| !s.sent && s.flags.fin).map(|(at_s, _)| at_s)
}

/// When FIN, its ACK, the other FIN and its ACK passed the client, seconds after the fault.
fn closing_steps(exhibit: &Sound<'_>) -> Option<[f64; 4]> {
    let mut segments = exhibit.after_fault();
    let (first, fin) = segments.find(|(_, s)| !s.sent && s.flags.fin)?;
    let acknowledges = |ack: u32, end: u32| ack.wrapping_sub(end).cast_signed() >= 0;
    let mut second = None;
    let (third, own) = segments.find(|(at_s, s)| {
        if s.sent && s.flags.ack && acknowledges(s.ack, fin.end()) {
            second.get_or_insert(*at_s);
        }
        s.sent && s.flags.fin
    })?;
    let (fourth, _) =
        segments.find(|(_, s)| !s.sent && s.flags.ack && acknowledges(s.ack, own.end()))?;
    Some([first, second?, third, fourth])
}
