//! The least and the most that a retransmission timeout can be, and what HZ has to do with it.

use super::busy::{RTO_MAX_S, RTO_MIN_S, gaps, slot_s};
use super::exhibit::{Bench, Sound, time};
use super::{Finding, Standing, Table};

/// What was done at every HZ.
const SENDING: &str = "host-crash-sending-every-hz";
const IDLE: &str = "host-crash-idle-keepalive-every-hz";
/// The default of `tcp_keepalive_time`, seconds.
const KEEPALIVE_TIME_S: f64 = 7200.0;

/// C4.
pub(super) fn of_the_timeout(bench: &Bench<'_>) -> Result<Finding, String> {
    let near = bench.best("host-crash-sending")?;
    let far = bench.best("host-crash-sending-high-rtt")?;
    let sending = bench.by_hz(SENDING);
    let mut text = vec![format!(
        "The timeout was {} at an RTT of {}, {} at {}.",
        time(near.rto_s()),
        time(near.srtt_s()),
        time(far.rto_s()),
        time(far.srtt_s())
    )];
    let mut capped = true;
    if let Ok(long) = bench.at_defaults("host-crash-sending") {
        capped = is_capped(&long);
        text.push(format!("The longest between two retransmissions was {}.", time(longest(&long))));
    }
    let depends = far.rto_s() >= far.srtt_s() + RTO_MIN_S;
    let holds = depends && capped && is_least(&near);
    let off: Vec<_> = sending.iter().filter(|e| !is_least(e) || !is_capped(e)).collect();
    for exhibit in &off {
        text.push(format!(
            "At HZ {} the first was {}, the longest {}.",
            exhibit.facts.hz,
            time(exhibit.rto_s()),
            time(longest(exhibit))
        ));
    }
    let table = (!sending.is_empty()).then(|| table(&sending, &bench.by_hz(IDLE)));
    if !(holds && off.is_empty()) {
        return Ok(Finding { table, ..Finding::new(Standing::DoesNotHold, text.join(" ")) });
    }
    let mut all = sending;
    if !all.iter().any(|exhibit| exhibit.facts.hz == near.facts.hz) {
        all.push(near);
        all.sort_by_key(|exhibit| exhibit.facts.hz);
    }
    let conditions: Vec<_> = not_from_hz(&all).into_iter().collect();
    Ok(Finding { table, ..Finding::with_conditions(text.join(" "), &conditions) })
}

/// Where HZ is not 1000: what it decides, and what not.
fn not_from_hz(exhibits: &[Sound<'_>]) -> Option<String> {
    if exhibits.iter().all(|exhibit| exhibit.facts.hz == 1000) {
        return None;
    }
    let each = |what: &dyn Fn(&Sound<'_>) -> String| listed(exhibits.iter().map(what).collect());
    let mut text = format!(
        "The bounds do not come from HZ = 1000: they are 200 ms and 120 s at HZ {}. HZ decides \
         how far times are rounded up: the first timeout to a tick ({}), one of 120 s to a slot of \
         the timer wheel ({}).",
        each(&|exhibit| exhibit.facts.hz.to_string()),
        each(&|exhibit| time(exhibit.rto_s())),
        each(&|exhibit| time(slot_s(RTO_MAX_S, exhibit.facts.hz))),
    );
    let defaults: Vec<_> = exhibits.iter().filter(|e| longest(e) >= RTO_MAX_S).collect();
    if defaults.len() > 1 {
        let told = defaults.iter().map(|exhibit| told(exhibit)).collect();
        text +=
            &format!(" With that the end moves too: the client was told after {}.", listed(told));
    }
    Some(text)
}

fn table(sending: &[Sound<'_>], idle: &[Sound<'_>]) -> Table {
    let head = [
        "HZ",
        "first timeout",
        "longest",
        "slot at 120 s",
        "sending: told after (by phase)",
        "slot at 2 h",
        "keepalive: told after (by phase)",
    ];
    let row = |exhibit: &Sound<'_>| {
        let hz = exhibit.facts.hz;
        let keepalive = idle.iter().find(|other| other.facts.hz == hz);
        vec![
            hz.to_string(),
            time(exhibit.rto_s()),
            time(longest(exhibit)),
            time(slot_s(RTO_MAX_S, hz)),
            told_of(exhibit),
            time(slot_s(KEEPALIVE_TIME_S, hz)),
            keepalive.map_or("–".into(), told_of),
        ]
    };
    Table { head: head.map(str::to_owned).into(), rows: sending.iter().map(row).collect() }
}

/// Whether the first timeout is the least, rounded up.
fn is_least(exhibit: &Sound<'_>) -> bool {
    let tick_s = 1.0 / f64::from(exhibit.facts.hz);
    (RTO_MIN_S..=RTO_MIN_S + 2.0 * tick_s).contains(&exhibit.rto_s())
}

/// Whether the longest timeout is the most, rounded up.
fn is_capped(exhibit: &Sound<'_>) -> bool {
    let most = RTO_MAX_S + slot_s(RTO_MAX_S, exhibit.facts.hz);
    (RTO_MAX_S..=most).contains(&longest(exhibit))
}

/// The longest between two retransmissions, seconds.
fn longest(exhibit: &Sound<'_>) -> f64 {
    gaps(exhibit).into_iter().fold(0.0, f64::max)
}

/// `938.8 s`.
fn told(exhibit: &Sound<'_>) -> String {
    exhibit.measured.detected_s.map_or("–".into(), |at_s| format!("{at_s:.1} s"))
}

/// The same among what the wheel's phase leaves: `938.8 s (937.7–939.7)`.
fn told_of(exhibit: &Sound<'_>) -> String {
    let told = told(exhibit);
    match exhibit.whatever_the_phase() {
        Some((earliest, latest)) => format!("{told} ({earliest:.1}–{latest:.1})"),
        None => told,
    }
}

/// `100, 250 and 1000`.
fn listed(mut words: Vec<String>) -> String {
    match (words.pop(), words.is_empty()) {
        (Some(last), false) => format!("{} and {last}", words.join(", ")),
        (last, _) => last.unwrap_or_default(),
    }
}
