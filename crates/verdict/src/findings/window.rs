//! Closed windows, and what a full send buffer still holds.

use super::Finding;
use super::exhibit::{Bench, Sound, lasting, time};
use spec::{Outcome, counted};

pub(super) fn alive(bench: &Bench<'_>) -> Result<Finding, String> {
    let exhibit = bench.best("zero-window-alive")?;
    let once = bench.best("zero-window-alive-one-probe")?;
    let so = exhibit.measured.outcome == Outcome::None;
    let text = format!(
        "{} window probes in {}; told {}.",
        exhibit.window_probes(),
        lasting(exhibit.watched_s()),
        exhibit.told()
    );
    if !so {
        return Ok(Finding::holds_if(false, text));
    }
    let condition = format!(
        "Not with tcp_retries2 = {}: the client gave a living peer up, told {}, since the peer's \
         kernel answers a probe once in tcp_invalid_ratelimit ({} ms) and the next probe came \
         sooner.",
        number(once.sysctl("tcp_retries2")),
        once.told(),
        once.facts.server_sysctl.get("tcp_invalid_ratelimit").map_or("500", String::as_str)
    );
    let given_up = once.measured.outcome == Outcome::TIMED_OUT;
    let conditions: Vec<_> = given_up.then_some(condition).into_iter().collect();
    Ok(Finding::with_conditions(text, &conditions))
}

pub(super) fn dead(bench: &Bench<'_>) -> Result<Finding, String> {
    let plain = bench.best("zero-window-host-crash")?;
    let limited = bench.best("zero-window-host-crash-user-timeout")?;
    let kept = bench.best("zero-window-host-crash-keepalive")?;
    let text = format!(
        "tcp_retries2 = {}: {} unanswered probes, told {}. TCP_USER_TIMEOUT {}: told {}. With \
         keepalive: {} keepalive probes, told {}.",
        number(plain.sysctl("tcp_retries2")),
        plain.window_probes(),
        plain.told(),
        time(limited.parameters().client.user_timeout.unwrap_or_default().as_secs_f64()),
        limited.told(),
        kept.probes().len(),
        kept.told()
    );
    let ended = |e: &Sound<'_>| e.measured.outcome == Outcome::TIMED_OUT;
    let so = [&plain, &limited, &kept].into_iter().all(ended) && kept.probes().is_empty();
    if !so {
        return Ok(Finding::holds_if(false, text));
    }
    let counted = plain.sysctl("tcp_retries2") == plain.measured.window_probes_on_wire;
    let condition = "Here tcp_retries2 is what its name says, a number, and not a time.".to_owned();
    let conditions: Vec<_> = counted.then_some(condition).into_iter().collect();
    Ok(Finding::with_conditions(text, &conditions))
}

pub(super) fn user_timeout(bench: &Bench<'_>) -> Result<Finding, String> {
    let exhibit = bench.best("zero-window-user-timeout")?;
    let so = exhibit.measured.outcome == Outcome::TIMED_OUT;
    Ok(Finding::holds_if(
        so,
        format!(
            "TCP_USER_TIMEOUT {}: told {}, though the peer answered {}.",
            time(exhibit.parameters().client.user_timeout.unwrap_or_default().as_secs_f64()),
            exhibit.told(),
            counted(exhibit.answers(), "probe")
        ),
    ))
}

pub(super) fn unsent(bench: &Bench<'_>) -> Result<Finding, String> {
    let exhibit = bench.best("process-crash-unsent")?;
    let after: u32 = exhibit
        .after_fault()
        .filter(|(_, segment)| !segment.sent)
        .map(|(_, segment)| segment.len)
        .sum();
    Ok(Finding::holds_if(
        exhibit.measured.outcome == Outcome::Eof && after > 0,
        format!(
            "{after} bytes came from the dead process's kernel; then the client was told {}.",
            exhibit.told()
        ),
    ))
}

fn number(value: Option<u32>) -> String {
    value.map_or("?".into(), |value| value.to_string())
}
