//! Durations for people: `5.091 s`, `200 ms`, `2 h 11 min 15 s`, `45 µs`.

use std::time::Duration;

/// Thin enough for columns, and not mistaken for a minus sign.
const TO: char = '–';

/// How many digits after the second are shown at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Digits(usize);

impl Digits {
    /// Beyond milliseconds the two sources of a time do not agree.
    const MOST: usize = 3;

    /// As many as it takes to tell two ends apart, and to say where between them something lies.
    pub fn between(from: f64, to: f64) -> Self {
        Self::apart((to - from) / 10.0)
    }

    /// As many as it takes to tell two times apart that lie this far from each other.
    fn apart(gap: f64) -> Self {
        let distinct = |digits: &usize| gap.abs() >= 0.1_f64.powi(*digits as i32);
        Self(if gap == 0.0 { 0 } else { (0..Self::MOST).find(distinct).unwrap_or(Self::MOST) })
    }

    /// As many as it takes to compare measured times with windows.
    pub fn comparing(windows: &[(Duration, Duration)], measured: &[f64]) -> Self {
        let ends = || windows.iter().map(|(from, to)| (from.as_secs_f64(), to.as_secs_f64()));
        let between = ends().map(|(from, to)| Self::between(from, to));
        let beside = ends()
            .flat_map(|(from, to)| [from, to])
            .flat_map(|end| measured.iter().map(move |time| Self::apart(time - end)));
        between.chain(beside).max().unwrap_or_default()
    }
}

/// A measured time, to the millisecond where that means something.
pub fn measured(seconds: f64) -> String {
    measured_to(seconds, Digits::default())
}

/// The same with at least these digits after the second, to be compared with others.
pub fn measured_to(seconds: f64, digits: Digits) -> String {
    let sign = if seconds < 0.0 { "−" } else { "" };
    let s = seconds.abs();
    let text = match s {
        0.0 => "0 s".into(),
        s if s < 0.000_999_5 => format!("{:.0} µs", s * 1e6),
        s if s < 0.009_95 => format!("{:.1} ms", s * 1e3),
        s if s < 0.999_5 => format!("{:.0} ms", s * 1e3),
        s if s < 3600.0 => format!("{s:.*} s", decimals(s).max(digits.0)),
        s => hours(s, digits.0),
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
        d => hours(d.as_secs() as f64, 0),
    }
}

/// From one time to another, in one unit, with the digits that tell them apart: `5.000–5.160 s`.
pub fn range(from: Duration, to: Duration) -> String {
    range_to(from, to, Digits::default())
}

/// The same with at least these digits after the second.
pub fn range_to(from: Duration, to: Duration, digits: Digits) -> String {
    let (a, b) = (from.as_secs_f64(), to.as_secs_f64());
    let digits = digits.max(Digits::between(a, b));
    if measured_to(a, digits) == measured_to(b, digits) {
        return measured_to(b, digits);
    }
    match b {
        b if b < 0.000_999_5 => format!("{:.0}{TO}{:.0} µs", a * 1e6, b * 1e6),
        b if b < 0.009_95 => format!("{:.1}{TO}{:.1} ms", a * 1e3, b * 1e3),
        b if b < 0.999_5 => format!("{:.0}{TO}{:.0} ms", a * 1e3, b * 1e3),
        b if b < 3600.0 => {
            let decimals = decimals(b).max(digits.0);
            format!("{a:.decimals$}{TO}{b:.decimals$} s")
        }
        _ => format!("{} {TO} {}", measured_to(a, digits), measured_to(b, digits)),
    }
}

const fn decimals(seconds: f64) -> usize {
    if seconds < 100.0 { 3 } else { 1 }
}

/// Days, hours, minutes, and seconds with so many decimals.
fn hours(seconds: f64, decimals: usize) -> String {
    let unit = 10_u64.pow(decimals as u32);
    // Rounded as a whole: a minute never has 60.0 seconds.
    let units = (seconds * unit as f64).round() as u64;
    let (whole, fraction) = (units / unit, units % unit);
    let mut shown: Vec<_> =
        [(whole / 86_400, "d"), (whole / 3600 % 24, "h"), (whole / 60 % 60, "min")]
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, name)| format!("{count} {name}"))
            .collect();
    match (whole % 60, decimals) {
        (0, 0) => {}
        (rest, 0) => shown.push(format!("{rest} s")),
        (rest, _) => shown.push(format!("{rest}.{fraction:0decimals$} s")),
    }
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
    fn what_is_compared_has_the_digits_to_tell_it_apart() {
        let window = |from, to| (Duration::from_secs_f64(from), Duration::from_secs_f64(to));
        for (windows, measured, expected) in [
            (vec![window(7928.796, 7928.807)], 7928.798, "2 h 12 min 8.798 s"),
            (vec![window(7881.98, 8013.06)], 7928.798, "2 h 12 min 9 s"),
            (vec![window(7881.98, 8013.06)], 7882.4, "2 h 11 min 22.4 s"),
            (vec![window(937.688, 939.747)], 937.709, "937.71 s"),
            (vec![window(937.688, 939.747)], 938.774, "938.8 s"),
            (vec![window(52.868, 55.051), window(106.1, 108.3)], 106.2, "106.2 s"),
            (vec![], 7928.798, "2 h 12 min 9 s"),
        ] {
            let digits = Digits::comparing(&windows, &[measured]);
            assert_eq!(measured_to(measured, digits), expected);
        }
        assert_eq!(measured_to(7199.9996, Digits(3)), "2 h 0.000 s");
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
            (7928.796, 7928.807, "2 h 12 min 8.796 s – 2 h 12 min 8.807 s"),
            (7199.96, 7206.0, "2 h 0.0 s – 2 h 6.0 s"),
            (937.688, 937.701, "937.688–937.701 s"),
            (6.5, 6.5, "6.500 s"),
        ] {
            let shown = range(Duration::from_secs_f64(from), Duration::from_secs_f64(to));
            assert_eq!(shown, expected);
        }
    }
}
