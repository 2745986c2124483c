//! What others than the article say.

use super::exhibit::{Bench, Sound, time, times};
use super::{Finding, Standing};
use spec::{Errno, Outcome, counted};

/// A published time counts as measured again if it is no further off than this part of it: the
/// kernels were others, and so were the phases of their timer wheels (an eighth of a timeout).
const SAME: f64 = 0.125;

pub(super) fn reboot(bench: &Bench<'_>) -> Result<Finding, String> {
    let mut exhibits = vec![("Idle", bench.best("host-reboot-idle-keepalive")?)];
    exhibits.push(("sending", bench.best("host-reboot-sending")?));
    let so = exhibits.iter().all(|(_, e)| {
        e.measured.outcome == Outcome::Errno(Errno::ECONNRESET) && e.measured.rst_from_server
    });
    let seen = exhibits.iter().map(|(what, e)| format!("{what}: {}", e.told()));
    let seen: Vec<_> = seen.collect();
    Ok(Finding::holds_if(
        so,
        format!(
            "{}. The client is not told when the host is back, but when it next sends.",
            seen.join("; ")
        ),
    ))
}

pub(super) fn new_mac(bench: &Bench<'_>) -> Result<Finding, String> {
    let exhibit = bench.best("host-reboot-new-mac")?;
    let same = bench.best("host-reboot-sending")?;
    let (Some(new_s), Some(same_s)) = (exhibit.measured.detected_s, same.measured.detected_s)
    else {
        return Ok(Finding::new(
            Standing::DoesNotHold,
            format!("The client was told {}.", exhibit.told()),
        ));
    };
    let so = exhibit.measured.rst_from_server;
    let text = format!(
        "The client was told {}, against {} with the same MAC address.",
        exhibit.told(),
        time(same_s)
    );
    if !so {
        return Ok(Finding::new(Standing::DoesNotHold, text));
    }
    let late = format!(
        "Until ARP asks again everything goes to the old address: {} later.",
        time(new_s - same_s)
    );
    let conditions: Vec<_> = (new_s > 2.0 * same_s).then_some(late).into_iter().collect();
    Ok(Finding::with_conditions(text, &conditions))
}

pub(super) fn freeze(bench: &Bench<'_>) -> Result<Finding, String> {
    let idle = bench.best("process-freeze-idle-keepalive")?;
    let sending = bench.best("process-freeze-sending")?;
    let text = format!(
        "Idle: {}, {}, told {}. Sending: told {}.",
        counted(idle.probes().len(), "probe"),
        counted(idle.answers(), "answer"),
        idle.told(),
        sending.told()
    );
    let so = [idle, sending].iter().all(|e| e.measured.outcome == Outcome::None);
    Ok(Finding::holds_if(so && idle.answers() > 0, text))
}

pub(super) fn user_timeout(bench: &Bench<'_>) -> Result<Finding, String> {
    let exhibit = bench.best("host-crash-sending-user-timeout")?;
    let timeout_s = exhibit.parameters().client.user_timeout.unwrap_or_default().as_secs_f64();
    let text = format!(
        "With TCP_USER_TIMEOUT {} and tcp_retries2 = {} the client was told {}.",
        time(timeout_s),
        exhibit.sysctl("tcp_retries2").map_or("?".into(), |value| value.to_string()),
        exhibit.told()
    );
    let Some(detected_s) = exhibit.measured.detected_s else {
        return Ok(Finding::new(Standing::DoesNotHold, text));
    };
    let late_s = detected_s - timeout_s;
    if late_s < 0.0 || late_s > timeout_s {
        return Ok(Finding::new(Standing::DoesNotHold, text));
    }
    let tick_s = 1.0 / f64::from(exhibit.facts.hz);
    let condition = format!(
        "Not exactly then, but {} later: it counts from the first retransmission on timeout, and \
         ends with a timer.",
        time(late_s)
    );
    let conditions: Vec<_> = (late_s > tick_s).then_some(condition).into_iter().collect();
    Ok(Finding::with_conditions(text, &conditions))
}

pub(super) fn user_timeout_idle(bench: &Bench<'_>) -> Result<Finding, String> {
    let exhibit = bench.best("host-crash-idle-user-timeout")?;
    let so = exhibit.measured.outcome == Outcome::None;
    Ok(Finding::holds_if(so, format!("The client was told {}.", exhibit.told())))
}

/// A published trace of keepalive: so many probes, and the end.
pub(super) fn keepalive_trace(
    bench: &Bench<'_>,
    label: &str,
    probes: usize,
    end_s: f64,
) -> Result<Finding, String> {
    let exhibit = bench.best(label)?;
    Ok(Finding::holds_if(is_trace(&exhibit, probes, end_s), trace(&exhibit)))
}

/// The trace for 30 s needs six probes and 67 s, which 30 s cannot give.
pub(super) fn user_timeout_30s(bench: &Bench<'_>) -> Result<Finding, String> {
    const PROBES: usize = 6;
    const END_S: f64 = 67.235;
    let exhibit = bench.best("host-crash-idle-keepalive-user-timeout-30s")?;
    if is_trace(&exhibit, PROBES, END_S) {
        return Ok(Finding::new(Standing::Holds, trace(&exhibit)));
    }
    let mut text = vec![trace(&exhibit)];
    if let Ok(minute) = bench.best("host-crash-idle-keepalive-user-timeout-60s") {
        let timeout = minute.parameters().client.user_timeout.unwrap_or_default();
        if is_trace(&minute, PROBES, END_S) {
            text.push(format!(
                "The published trace contradicts its stated setting; it is what {} gives: {}",
                time(timeout.as_secs_f64()),
                trace(&minute)
            ));
        }
    }
    Ok(Finding::new(Standing::DoesNotHold, text.join(" ")))
}

pub(super) fn busy_15(bench: &Bench<'_>) -> Result<Finding, String> {
    // 15:39.500 for the end, 0.206 s for the write.
    const END_S: f64 = 939.294;
    let exhibit = bench.at_defaults("host-crash-sending")?;
    let on_timeout = exhibit.resends_on_timeout().len();
    let text = format!(
        "{}, {on_timeout} of them on timeout, and {}; published: {}.",
        counted(exhibit.resends().len(), "retransmission"),
        exhibit.told(),
        time(END_S)
    );
    // The published time must be one that this kernel could have given too.
    let phases = exhibit.whatever_the_phase();
    let within = phases.is_some_and(|(earliest, latest)| (earliest..=latest).contains(&END_S));
    Ok(Finding::holds_if(within && on_timeout == 15, text))
}

pub(super) fn silenced(bench: &Bench<'_>) -> Result<Finding, String> {
    let exhibit = bench.best("host-crash-sending-keepalive")?;
    let plain = bench.best("host-crash-sending").ok();
    let probes = exhibit.probes().len();
    let text = format!(
        "With keepalive 1 s / 1 s / 3 on: {}, {}, and {}.",
        counted(probes, "probe"),
        counted(exhibit.resends().len(), "retransmission"),
        exhibit.told()
    );
    let same = plain.is_none_or(|plain| plain.measured.outcome == exhibit.measured.outcome);
    Ok(Finding::holds_if(probes == 0 && same && exhibit.measured.detected_s.is_some(), text))
}

pub(super) fn flap(bench: &Bench<'_>) -> Result<Finding, String> {
    let short = bench.best("path-flap-sending")?;
    let long = bench.all("path-flap-too-long")?;
    // At the defaults the threshold is far beyond this flap: the short settings are the question.
    let long = *long.last().ok_or("path-flap-too-long was not run")?;
    let lasting =
        |e: &Sound<'_>| time(e.parameters().fault_duration().unwrap_or_default().as_secs_f64());
    let text = format!(
        "{} without a path: told {}. {} with tcp_retries2 = {}: told {}.",
        lasting(&short),
        short.told(),
        lasting(&long),
        long.sysctl("tcp_retries2").map_or("?".into(), |value| value.to_string()),
        long.told()
    );
    let saved = short.measured.outcome == Outcome::None;
    let lost = matches!(long.measured.outcome, Outcome::Errno(_));
    Ok(Finding::holds_if(saved && lost, text))
}

pub(super) fn firewall_drop(bench: &Bench<'_>) -> Result<Finding, String> {
    let drop = bench.best("firewall-drop-sending")?;
    let dead = bench.best("host-crash-sending")?;
    let text = format!(
        "{} with {}, against {} with {}.",
        drop.told(),
        counted(drop.resends().len(), "retransmission"),
        dead.told(),
        dead.resends().len()
    );
    Ok(Finding::holds_if(
        drop.measured.outcome == dead.measured.outcome
            && drop.resends().len() == dead.resends().len(),
        text,
    ))
}

pub(super) fn reject(bench: &Bench<'_>) -> Result<Finding, String> {
    let reset = bench.best("firewall-reject-sending-tcp-reset")?;
    let mut conditions = Vec::new();
    for label in [
        "firewall-reject-sending",
        "firewall-reject-sending-port-unreachable",
        "firewall-reject-sending-admin-prohibited",
    ] {
        let Ok(exhibit) = bench.best(label) else { continue };
        if exhibit.measured.detected_s.is_none_or(|s| s > 1.0) {
            let kind = exhibit.parameters().fault.reject;
            conditions.push(format!("Not so with ICMP {kind}: {}.", exhibit.told()));
        }
    }
    let text = format!("With a TCP reset: {}.", reset.told());
    if reset.measured.detected_s.is_none_or(|s| s > 1.0) {
        return Ok(Finding::new(Standing::DoesNotHold, text));
    }
    if !conditions.is_empty() {
        conditions.push(
            "An ICMP error is only remembered, and given when the retransmissions have failed too."
                .into(),
        );
    }
    Ok(Finding::with_conditions(text, &conditions))
}

pub(super) fn router(bench: &Bench<'_>) -> Result<Finding, String> {
    let exhibit = bench.best("host-crash-sending-behind-router")?;
    let resends = exhibit.resends();
    let gaps: Vec<f64> = resends.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let longest = gaps.iter().copied().fold(0.0, f64::max);
    let text = format!(
        "{}, {} at most between two of them, and {}.",
        counted(resends.len(), "retransmission"),
        time(longest),
        exhibit.told()
    );
    let errno = exhibit.measured.outcome == Outcome::Errno(Errno::EHOSTUNREACH);
    if !errno {
        return Ok(Finding::new(Standing::DoesNotHold, text));
    }
    let backs_off = longest >= 4.0 * exhibit.rto_s();
    let condition =
        "It backs off all the same while the router still asks for the host by ARP, or \
                     keeps to its rate limit: only an ICMP message undoes a doubling."
            .to_owned();
    let conditions: Vec<_> = backs_off.then_some(condition).into_iter().collect();
    Ok(Finding::with_conditions(text, &conditions))
}

pub(super) fn neighbour(bench: &Bench<'_>) -> Result<Finding, String> {
    let exhibit = bench.best("host-crash-sending-lan")?;
    let so = exhibit.measured.outcome == Outcome::Errno(Errno::EHOSTUNREACH);
    let text = format!(
        "{}, with {} on the wire.",
        exhibit.told(),
        counted(exhibit.resends().len(), "retransmission")
    );
    Ok(Finding::holds_if(so, text))
}

pub(super) fn unplug(bench: &Bench<'_>) -> Result<Finding, String> {
    let cable = bench.best("unplug-sending")?;
    let dead = bench.best("host-crash-sending")?;
    let text = format!(
        "{} with {} on the wire, against {} with {}.",
        cable.told(),
        counted(cable.resends().len(), "retransmission"),
        dead.told(),
        dead.resends().len()
    );
    Ok(Finding::holds_if(cable.resends().len() != dead.resends().len(), text))
}

pub(super) fn rto_max(bench: &Bench<'_>) -> Result<Finding, String> {
    let exhibit = bench.best("host-crash-sending-rto-max")?;
    let most = exhibit.parameters().client.rto_max.unwrap_or_default();
    let Some(detected_s) = exhibit.measured.detected_s else {
        return Ok(Finding::new(Standing::DoesNotHold, format!("Told {}.", exhibit.told())));
    };
    let retries = exhibit.sysctl("tcp_retries2").unwrap_or(15);
    let without = threshold_s(retries);
    let text = format!(
        "With {} at most and tcp_retries2 = {retries} the client was told {}, with {} \
         retransmissions; with 120 s it takes more than {}.",
        time(most.as_secs_f64()),
        exhibit.told(),
        exhibit.resends().len(),
        time(without)
    );
    Ok(Finding::holds_if(detected_s < without, text))
}

/// The documented lower bound for `tcp_retries2`, with timeouts of 200 ms to 120 s.
fn threshold_s(retries: u32) -> f64 {
    (0..=retries).map(|n| (0.2 * f64::from(1_u32 << n.min(20))).min(120.0)).sum()
}

fn is_trace(exhibit: &Sound<'_>, probes: usize, end_s: f64) -> bool {
    exhibit.probes().len() == probes
        && exhibit.measured.detected_s.is_some_and(|s| (s - end_s).abs() <= SAME * end_s)
}

fn trace(exhibit: &Sound<'_>) -> String {
    let probes = exhibit.probes();
    let at = times(probes.iter().map(|probe| probe.at_s));
    let count = counted(probes.len(), "probe");
    format!("{count}, at {at}; {}.", exhibit.told())
}
