//! A host without power, and a client that sends.

use super::exhibit::{Bench, Sound, time, times};
use super::{Finding, Standing};
use model::tick::Hz;
use model::wheel::Wheel;
use spec::{Outcome, counted};

/// The time that `tcp_retries2` = 15 is said to amount to, seconds.
const SAID_S: f64 = 924.6;
pub(super) const RTO_MIN_S: f64 = 0.2;
pub(super) const RTO_MAX_S: f64 = 120.0;

/// B1.
pub(super) fn silence(bench: &Bench<'_>) -> Result<Finding, String> {
    let mut exhibits = bench.all("host-crash-idle-no-keepalive")?;
    let idle = exhibits[0].told();
    exhibits.extend(bench.all("host-crash-sending")?);
    exhibits.extend(bench.all("host-crash-idle-keepalive").unwrap_or_default());
    let ends = exhibits.iter().filter(|e| e.measured.fin_from_server || e.measured.rst_from_server);
    let ends = ends.count();
    let soonest = exhibits.iter().filter_map(|e| e.measured.detected_s).fold(f64::MAX, f64::min);
    let at_once = exhibits.iter().any(|e| e.measured.detected_s.is_some_and(|s| s < e.rto_s()));
    Ok(Finding::holds_if(
        ends == 0 && !at_once,
        format!(
            "In {} {ends} FIN or RST came from the dead host. The client that knew first \
             knew after {}; an idle one was told {idle}.",
            counted(exhibits.len(), "trial"),
            time(soonest),
        ),
    ))
}

/// B2.
pub(super) fn retransmits_and_tells(bench: &Bench<'_>) -> Result<Finding, String> {
    let exhibit = bench.best("host-crash-sending")?;
    let resends = counted(exhibit.resends().len(), "retransmission");
    let (outcome, Some(noticed_s)) = (exhibit.measured.outcome, exhibit.measured.noticed_s) else {
        return Ok(Finding::new(
            Standing::DoesNotHold,
            format!("{resends}, and the client was told {}.", exhibit.told()),
        ));
    };
    let base = format!(
        "{resends}, then {}; the program saw it {} later.",
        exhibit.told(),
        time(noticed_s - exhibit.measured.detected_s.unwrap_or(noticed_s))
    );
    let mut conditions = Vec::new();
    for (label, whence) in [
        ("host-crash-sending-behind-router", "behind a router that answers for the dead host"),
        ("host-crash-sending-lan", "on a LAN where ARP gives the dead host up"),
    ] {
        let Ok(other) = bench.best(label) else { continue };
        if other.measured.outcome != outcome {
            conditions.push(format!("The error is another {whence}: {}.", other.told()));
        }
    }
    Ok(Finding::with_conditions(base, &conditions))
}

/// C1.
pub(super) fn retries2_is_15(bench: &Bench<'_>) -> Result<Finding, String> {
    let exhibits = bench.all("host-crash-idle-no-keepalive")?;
    let found = |e: &Sound<'_>| match e.sysctl("tcp_retries2") {
        Some(value) => format!("{value} in a fresh namespace of {}", e.kernel()),
        None => format!("unknown on {}", e.kernel()),
    };
    let text: Vec<_> = exhibits.iter().map(found).collect();
    let so = exhibits.iter().all(|e| e.sysctl("tcp_retries2") == Some(15));
    Ok(Finding::holds_if(so, text.join(", ") + "."))
}

/// C2.
pub(super) fn a_time_not_a_count(bench: &Bench<'_>) -> Result<Finding, String> {
    let exhibit = bench.at_defaults("host-crash-sending")?;
    let (Some(first), Some(last), Some(end)) = ends(&exhibit) else {
        return Err("no retransmission on timeout was seen".into());
    };
    let bracketed = last - first < SAID_S && end - first >= SAID_S;
    let mut text = vec![format!(
        "The last timeout that did not end it came {} after the first, the one that did {} after \
         it: {SAID_S} s lies between, is a lower bound, and counts from the first retransmission \
         on timeout.",
        time(last - first),
        time(end - first)
    )];
    let counts = bench.at_defaults("host-crash-sending-rtt-800ms");
    let mut same_count = false;
    if let Ok(slow) = counts {
        let (few, many) = (slow.resends_on_timeout().len(), exhibit.resends_on_timeout().len());
        same_count = few == many;
        text.push(format!(
            "With the same setting {many} retransmissions on timeout fit at a first timeout of \
             {}, {few} at {}.",
            time(exhibit.rto_s()),
            time(slow.rto_s())
        ));
    }
    Ok(Finding::holds_if(bracketed && !same_count, text.join(" ")))
}

/// C3.
pub(super) fn timeouts_double(bench: &Bench<'_>) -> Result<Finding, String> {
    let exhibit = bench.best("host-crash-sending")?;
    let gaps = gaps(&exhibit);
    let jiffy = 1.0 / f64::from(exhibit.facts.hz);
    let doubles = gaps.iter().zip(0..).all(|(gap, n)| {
        let nominal = (exhibit.rto_s() * f64::from(1_u32 << n)).min(RTO_MAX_S);
        (nominal..=nominal + slot_s(nominal, exhibit.facts.hz) + jiffy).contains(gap)
    });
    let base = format!("The timeouts came {} apart.", times(gaps.iter().copied()));
    if !doubles {
        return Ok(Finding::new(Standing::DoesNotHold, base));
    }
    let mut conditions = Vec::new();
    if exhibit.rto_s() > RTO_MIN_S {
        conditions.push(format!(
            "The first is {} and not 200 ms (HZ {} rounds up to its ticks), and each is up to a \
             slot of the timer wheel late.",
            time(exhibit.rto_s()),
            exhibit.facts.hz
        ));
    }
    if gaps.iter().filter(|gap| **gap >= RTO_MAX_S).count() > 1 {
        conditions.push("Doubling ends at 120 s.".into());
    }
    if exhibit.has_tail_loss_probe() {
        let at_s = exhibit.resends().first().copied().unwrap_or_default();
        conditions.push(format!(
            "A tail loss probe comes before them all, {} after the write.",
            time(at_s)
        ));
    }
    Ok(Finding::with_conditions(base, &conditions))
}

/// C5.
pub(super) fn fifteen_fit(bench: &Bench<'_>) -> Result<Finding, String> {
    let exhibit = bench.at_defaults("host-crash-sending")?;
    let (on_timeout, all) = (exhibit.resends_on_timeout().len(), exhibit.resends().len());
    let mut text = vec![format!(
        "{} on timeout before {}, at an RTT of {}.",
        counted(on_timeout, "retransmission"),
        exhibit.told(),
        time(exhibit.srtt_s())
    )];
    if on_timeout != 15 {
        return Ok(Finding::new(Standing::DoesNotHold, text.join(" ")));
    }
    let mut conditions = Vec::new();
    if all != on_timeout {
        conditions.push(format!(
            "The wire shows {all}: the tail loss probe sends the data once more before them."
        ));
    }
    if let Ok(without) = bench.at_defaults("host-crash-sending-without-tail-loss-probe") {
        text.push(format!(
            "With tcp_early_retrans = 0 the wire shows {}, and the end comes after {}.",
            without.resends().len(),
            time(without.measured.detected_s.unwrap_or_default())
        ));
    }
    Ok(Finding::with_conditions(text.join(" "), &conditions))
}

/// C6.
pub(super) fn fewer_fit(bench: &Bench<'_>) -> Result<Finding, String> {
    let slow = bench.at_defaults("host-crash-sending-rtt-800ms")?;
    let quick = bench.at_defaults("host-crash-sending")?;
    let (few, many) = (slow.resends_on_timeout().len(), quick.resends_on_timeout().len());
    let text = format!(
        "At a first timeout of {} {few} retransmissions on timeout fit, against {many} at {}.",
        time(slow.rto_s()),
        time(quick.rto_s())
    );
    if few >= many {
        return Ok(Finding::new(Standing::DoesNotHold, text));
    }
    let mut conditions = Vec::new();
    if few * 3 > many * 2 {
        conditions.push(format!(
            "That is fewer, not far fewer: most of the time goes by in timeouts of 120 s either \
             way. The end came after {} instead of {}.",
            time(slow.measured.detected_s.unwrap_or_default()),
            time(quick.measured.detected_s.unwrap_or_default())
        ));
    }
    Ok(Finding::with_conditions(text, &conditions))
}

/// C7.
pub(super) fn told_at_the_threshold(bench: &Bench<'_>) -> Result<Finding, String> {
    let exhibit = bench.at_defaults("host-crash-sending")?;
    let (Outcome::Errno(_), Some(detected_s)) =
        (exhibit.measured.outcome, exhibit.measured.detected_s)
    else {
        return Ok(Finding::new(
            Standing::DoesNotHold,
            format!("The program was told {}.", exhibit.told()),
        ));
    };
    let slot_s = slot_s(RTO_MAX_S, exhibit.facts.hz);
    let text = format!(
        "The program was told {}, from the write on. {SAID_S} s is a lower bound: the error comes at the \
         first timeout past it, and timeouts are 120 s apart by then.",
        exhibit.told()
    );
    Ok(Finding::holds_if((detected_s - SAID_S).abs() <= slot_s, text))
}

/// The first and the last retransmission on timeout, and the end.
fn ends(exhibit: &Sound<'_>) -> (Option<f64>, Option<f64>, Option<f64>) {
    let resends = exhibit.resends_on_timeout();
    (resends.first().copied(), resends.last().copied(), exhibit.measured.detected_s)
}

/// The time between each two timeouts, the first counted from what was sent last before it.
pub(super) fn gaps(exhibit: &Sound<'_>) -> Vec<f64> {
    let mut at: Vec<f64> = vec![0.0];
    at.extend(exhibit.resends());
    at.extend(exhibit.measured.detected_s);
    let skip = usize::from(exhibit.has_tail_loss_probe());
    at.windows(2).skip(skip).map(|pair| pair[1] - pair[0]).collect()
}

/// How much later than asked for a timer can fire.
pub(super) fn slot_s(timeout_s: f64, hz: u32) -> f64 {
    let jiffies = (timeout_s * f64::from(hz)).ceil() as u64;
    Wheel::new(Hz::new(hz)).slot(jiffies) as f64 / f64::from(hz)
}
