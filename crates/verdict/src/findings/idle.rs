//! An idle connection, keepalive, and a probe of the application's own.

use super::exhibit::{Bench, Sound, lasting, time, times};
use super::{Finding, Standing};
use spec::{Outcome, counted};
use std::time::Duration;

/// 2 h 11 min 15 s: 7200 s and nine times 75 s.
const SAID_S: f64 = 7875.0;

/// D1.
pub(super) fn established_for_ever(bench: &Bench<'_>) -> Result<Finding, String> {
    let exhibits = bench.all("host-crash-idle-no-keepalive")?;
    let open = |e: &Sound<'_>| {
        e.measured.outcome == Outcome::None && e.measured.client_state == "ESTABLISHED"
    };
    let seen = exhibits.iter().map(|e| {
        format!("{} after {} ({})", e.measured.client_state, lasting(e.watched_s()), e.kernel())
    });
    let seen: Vec<_> = seen.collect();
    let text = format!("With its server's host gone: {}.", seen.join(", "));
    Ok(Finding::holds_if(exhibits.iter().all(open), text))
}

/// D2.
pub(super) fn established_says_nothing(bench: &Bench<'_>) -> Result<Finding, String> {
    let exhibit = bench.best("host-crash-idle-no-keepalive")?;
    let measured = exhibit.measured;
    let so = measured.client_state == "ESTABLISHED" && measured.server_state != "ESTABLISHED";
    let text = format!(
        "The client was {} while the server's socket was {}.",
        measured.client_state, measured.server_state
    );
    Ok(Finding::holds_if(so, text))
}

/// E1.
pub(super) fn a_live_peer_answers(bench: &Bench<'_>) -> Result<Finding, String> {
    let exhibit = bench.best("host-alive-keepalive")?;
    let (probes, answers) = (exhibit.probes(), exhibit.answers());
    let gaps: Vec<f64> = probes.windows(2).map(|pair| pair[1].at_s - pair[0].at_s).collect();
    let idle_s = idle(&exhibit);
    let text = format!(
        "{} in {}, {answers} of them answered, {} apart; the client was told {}.",
        counted(probes.len(), "probe"),
        lasting(exhibit.watched_s()),
        spread(&gaps),
        exhibit.told()
    );
    // The last may have been sent just before the trial ended.
    let answered = !probes.is_empty() && answers + 1 >= probes.len() && answers > 0;
    let again = gaps.iter().all(|gap| *gap >= idle_s);
    Ok(Finding::holds_if(answered && again && exhibit.measured.outcome == Outcome::None, text))
}

/// E2.
pub(super) fn reported_dead(bench: &Bench<'_>) -> Result<Finding, String> {
    let mut exhibits = bench.all("host-crash-idle-keepalive")?;
    let gone = exhibits.len();
    exhibits.extend(bench.all("firewall-drop-idle-keepalive").unwrap_or_default());
    let so = exhibits.iter().all(|e| {
        matches!(e.measured.outcome, Outcome::Errno(_)) && Some(e.probes().len()) == asked(e)
    });
    let seen = exhibits.iter().enumerate().map(|(index, e)| {
        let what = if index < gone { "gone" } else { "unreachable" };
        format!("{what}: {}, {}", counted(e.probes().len(), "probe"), e.told())
    });
    let seen: Vec<_> = seen.collect();
    Ok(Finding::holds_if(so, capital(&seen.join("; ")) + "."))
}

/// E3.
pub(super) fn keepalive_defaults(bench: &Bench<'_>) -> Result<Finding, String> {
    let exhibits = bench.all("host-crash-idle-no-keepalive")?;
    let names = ["tcp_keepalive_time", "tcp_keepalive_intvl", "tcp_keepalive_probes"];
    let values = |e: &Sound<'_>| names.map(|name| e.sysctl(name));
    let so = exhibits.iter().all(|e| values(e) == [Some(7200), Some(75), Some(9)]);
    let seen = exhibits.iter().map(|e| {
        let shown = values(e).map(|v| v.map_or("unknown".into(), |v| v.to_string()));
        format!("{} in a fresh namespace of {}", shown.join(", "), e.kernel())
    });
    let seen: Vec<_> = seen.collect();
    Ok(Finding::holds_if(so, seen.join("; ") + "."))
}

/// E4.
pub(super) fn two_hours_eleven(bench: &Bench<'_>) -> Result<Finding, String> {
    let exhibit = bench.at_defaults("host-crash-idle-keepalive")?;
    let Some(detected_s) = exhibit.measured.detected_s else {
        return Ok(Finding::new(Standing::DoesNotHold, format!("Told {}.", exhibit.told())));
    };
    let mut text = vec![format!(
        "Told {}: {} past the sum, since the timer wheel fires long timers up to a slot late.",
        exhibit.told(),
        time(detected_s - SAID_S)
    )];
    if let Some((earliest, latest)) = exhibit.whatever_the_phase() {
        text.push(format!(
            "By the phase of the wheel it can be anything from {} to {}.",
            time(earliest),
            time(latest)
        ));
    }
    Ok(Finding::holds_if(detected_s >= SAID_S, text.join(" ")))
}

/// E5.
pub(super) fn not_without_the_option(bench: &Bench<'_>) -> Result<Finding, String> {
    let exhibit = bench.all("host-crash-idle-keepalive-sysctl-only")?;
    // Short settings are those with the sysctls set.
    let exhibit = exhibit.last().copied().ok_or("there is no trial with the sysctls set")?;
    let probes = exhibit.probes().len();
    let sysctl = |name| exhibit.sysctl(name).map_or("?".into(), |value| value.to_string());
    let text = format!(
        "With tcp_keepalive_time = {}, _intvl = {} and _probes = {}: {}, and the client \
         was told {}.",
        sysctl("tcp_keepalive_time"),
        sysctl("tcp_keepalive_intvl"),
        sysctl("tcp_keepalive_probes"),
        counted(probes, "probe"),
        exhibit.told()
    );
    Ok(Finding::holds_if(probes == 0 && exhibit.measured.outcome == Outcome::None, text))
}

/// E6.
pub(super) fn a_probe_is_empty(bench: &Bench<'_>) -> Result<Finding, String> {
    let mut probes = Vec::new();
    for label in ["host-crash-idle-keepalive", "host-alive-keepalive"] {
        probes.extend(bench.all(label)?.iter().flat_map(Sound::probes));
    }
    let (Some(least), Some(most)) =
        (probes.iter().map(|p| p.len).min(), probes.iter().map(|p| p.len).max())
    else {
        return Err("no keepalive probe was captured".into());
    };
    let repeats = probes.iter().all(|probe| probe.before_next == -1);
    let bytes = if least == most { most.to_string() } else { format!("{least} to {most}") };
    let mut text = format!("{} carried {bytes} bytes each", counted(probes.len(), "probe"));
    if repeats {
        text += ", with the sequence number just before the next one (snd_nxt − 1): one that the \
                 peer has acknowledged, so that it must answer";
    }
    text.push('.');
    if most == 0 {
        let condition = "So it carries no data at all on Linux.".to_owned();
        return Ok(Finding::with_conditions(text, &[condition]));
    }
    Ok(Finding::holds_if(most <= 1, text))
}

/// F1.
pub(super) fn a_probe_of_its_own(bench: &Bench<'_>) -> Result<Finding, String> {
    let dead = bench.best("heartbeat-host-crash")?;
    let alive = bench.best("heartbeat-host-alive")?;
    let kernel = bench.best("host-crash-sending")?;
    let Some(noticed_s) = dead.measured.noticed_s else {
        return Ok(Finding::new(
            Standing::DoesNotHold,
            format!("The program did not notice within {}.", lasting(dead.watched_s())),
        ));
    };
    let kernel_s = kernel.measured.detected_s.unwrap_or(f64::INFINITY);
    let false_alarm = alive.measured.noticed_s.is_some();
    let text = format!(
        "The program gave the dead host up after {}, its kernel after {}. A live server was {} in \
         {}.",
        time(noticed_s),
        time(kernel_s),
        if false_alarm { "given up too" } else { "never given up" },
        lasting(alive.watched_s())
    );
    if noticed_s >= kernel_s || false_alarm {
        return Ok(Finding::new(Standing::DoesNotHold, text));
    }
    let mut conditions = Vec::new();
    if dead.measured.client_state == "ESTABLISHED" {
        conditions.push(
            "The kernel still had the connection as ESTABLISHED: the program must close it.".into(),
        );
    }
    Ok(Finding::with_conditions(text, &conditions))
}

/// How long the connection was to be idle before a probe, seconds.
fn idle(exhibit: &Sound<'_>) -> f64 {
    let set = exhibit.parameters().client.keepalive.idle;
    let sysctl = || exhibit.sysctl("tcp_keepalive_time").map_or(0.0, f64::from);
    set.as_ref().map_or_else(sysctl, Duration::as_secs_f64)
}

/// How many probes were asked for.
fn asked(exhibit: &Sound<'_>) -> Option<usize> {
    let set = exhibit.parameters().client.keepalive.probes;
    set.or(exhibit.sysctl("tcp_keepalive_probes")).map(|count| count as usize)
}

/// The times, or from the least to the most where there are many.
fn spread(all: &[f64]) -> String {
    let least = all.iter().copied().fold(f64::INFINITY, f64::min);
    let most = all.iter().copied().fold(0.0, f64::max);
    match all.len() {
        0 => "–".into(),
        _ if time(least) == time(most) => time(most),
        1..=3 => times(all.iter().copied()),
        _ => format!("{} to {}", time(least), time(most)),
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
