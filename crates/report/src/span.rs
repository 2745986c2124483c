//! Durations for people: `5.091 s`, `200 ms`, `2 h 11 min 15 s`, `45 µs`.

use std::time::Duration;

/// Thin enough for columns, and not mistaken for a minus sign.
const TO: char = '–';

/// A measured time, to the millisecond where that means something.
pub fn measured(seconds: f64) -> String {
    let sign = if seconds < 0.0 { "−" } else { "" };
    let s = seconds.abs();
    let text = match s {
        0.0 => "0 s".into(),
        s if s < 0.000_999_5 => format!("{:.0} µs", s * 1e6),
        s if s < 0.009_95 => format!("{:.1} ms", s * 1e3),
        s if s < 0.999_5 => format!("{:.0} ms", s * 1e3),
        s if s < 3600.0 => format!("{s:.*} s", decimals(s)),
        s => hours(Duration::from_secs_f64(s.round())),
    };
    format!("{sign}{text}")
}

/// A difference, with its sign.
pub fn signed(seconds: f64) -> String {
    let text = measured(seconds);
    if text.starts_with('−') { text } else { format!("+{text}") }
}

/// A set time, exactly as it was set as far as people count: `75 s`, `1.5 s`, `2 h 11 min 15 s`.
pub fn exact(duration: Duration) -> String {
    let trimmed = |value: f64| {
        let text = format!("{value:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match duration {
        d if d.is_zero() => "0 s".into(),
        d if d < Duration::from_millis(1) => format!("{} µs", trimmed(d.as_secs_f64() * 1e6)),
        d if d < Duration::from_secs(1) => format!("{} ms", trimmed(d.as_secs_f64() * 1e3)),
        d if d < Duration::from_secs(120) => format!("{} s", trimmed(d.as_secs_f64())),
        d => hours(d),
    }
}

/// From one time to another, in one unit: `5.000–5.160 s`.
pub fn range(from: Duration, to: Duration) -> String {
    let (a, b) = (from.as_secs_f64(), to.as_secs_f64());
    if measured(a) == measured(b) {
        return measured(b);
    }
    match b {
        b if b < 0.000_999_5 => format!("{:.0}{TO}{:.0} µs", a * 1e6, b * 1e6),
        b if b < 0.009_95 => format!("{:.1}{TO}{:.1} ms", a * 1e3, b * 1e3),
        b if b < 0.999_5 => format!("{:.0}{TO}{:.0} ms", a * 1e3, b * 1e3),
        b if b < 3600.0 => format!("{a:.*}{TO}{b:.*} s", decimals(b), decimals(b)),
        _ => format!("{} {TO} {}", measured(a), measured(b)),
    }
}

const fn decimals(seconds: f64) -> usize {
    if seconds < 100.0 { 3 } else { 1 }
}

fn hours(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "s"),
    ];
    let shown: Vec<_> = parts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count} {unit}"))
        .collect();
    shown.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_times_keep_the_milliseconds() {
        for (seconds, expected) in [
            (0.0, "0 s"),
            (0.000_045_2, "45 µs"),
            (0.000_999_9, "1.0 ms"),
            (0.0012, "1.2 ms"),
            (0.2041, "204 ms"),
            (0.999_6, "1.000 s"),
            (5.0914, "5.091 s"),
            (939.1, "939.1 s"),
            (7875.2, "2 h 11 min 15 s"),
            (2_592_000.0, "30 d"),
            (-0.5, "−500 ms"),
        ] {
            assert_eq!(measured(seconds), expected);
        }
        assert_eq!(signed(0.091), "+91 ms");
        assert_eq!(signed(-0.091), "−91 ms");
    }

    #[test]
    fn set_times_are_shown_as_they_were_set() {
        for (millis, expected) in [
            (0, "0 s"),
            (200, "200 ms"),
            (1500, "1.5 s"),
            (75_000, "75 s"),
            (7_200_000, "2 h"),
            (7_875_000, "2 h 11 min 15 s"),
        ] {
            assert_eq!(exact(Duration::from_millis(millis)), expected);
        }
        assert_eq!(exact(Duration::from_micros(45)), "45 µs");
    }

    #[test]
    fn a_range_has_one_unit() {
        for (from, to, expected) in [
            (0.000_045, 0.000_345, "45–345 µs"),
            (0.000_3, 0.002, "0.3–2.0 ms"),
            (0.0, 0.012, "0–12 ms"),
            (5.0, 5.16, "5.000–5.160 s"),
            (0.9, 1.2, "0.900–1.200 s"),
            (924.6, 939.12, "924.6–939.1 s"),
            (7875.0, 8006.0, "2 h 11 min 15 s – 2 h 13 min 26 s"),
            (6.5, 6.5, "6.500 s"),
        ] {
            let shown = range(Duration::from_secs_f64(from), Duration::from_secs_f64(to));
            assert_eq!(shown, expected);
        }
    }
}
