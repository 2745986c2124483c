//! Durations as people write them: `5s`, `200ms`, `2h11m15s`.

use std::time::Duration;

/// The longest duration any setting accepts: ten years. Longer ones are mistakes.
pub const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// What [`parse`] accepts, for error messages.
pub const ACCEPTED: &str = "a duration with a unit, such as `5s`, `200ms` or `2h11m15s`";

/// Reads a duration. Units: `d`, `h`, `m`, `s`, `ms`, `us`/`µs`, `ns`; the last may have a fraction.
///
/// # Errors
/// A sentence that says what is wrong with `text`: no unit, an unknown unit, a negative duration,
/// one above [`LONGEST`].
pub fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("an empty text is not a duration".into());
    }
    if text.parse::<f64>().is_ok() {
        return Err(format!("`{text}` has no unit: is it `{text}s` or `{text}ms`?"));
    }
    if text.starts_with('-') || text.ends_with("ago") {
        return Err(format!("`{text}` is negative: a duration must not be"));
    }
    // jiff reads days only in calendar spans, where they need a reference date; here a day is 24 h.
    let (days, rest) = match text.split_once('d') {
        Some((days, rest))
            if days.bytes().all(|byte| byte.is_ascii_digit()) && !days.is_empty() =>
        {
            (days.parse::<u32>().map_err(|_| format!("`{text}` is longer than ten years"))?, rest)
        }
        _ => (0, text),
    };
    let rest = if rest.trim().is_empty() {
        Duration::ZERO
    } else {
        let signed: jiff::SignedDuration = rest.parse().map_err(|_| match rest {
            _ if is_huge(rest) => format!("`{text}` is longer than ten years"),
            _ => format!("`{text}` is not a duration such as `5s`, `200ms` or `2h11m15s`"),
        })?;
        Duration::try_from(signed)
            .map_err(|_| format!("`{text}` is negative: a duration must not be"))?
    };
    let total = Duration::from_secs(u64::from(days) * 86_400).checked_add(rest);
    match total {
        Some(total) if total <= LONGEST => Ok(total),
        _ => Err(format!("`{text}` is longer than ten years")),
    }
}

/// Whether a text has a number that no unit of time fits under [`LONGEST`] but nanoseconds.
fn is_huge(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > 18)
        && text
            .trim_matches(|c: char| c.is_ascii_digit() || c == '.')
            .chars()
            .all(char::is_alphabetic)
}

/// Writes a duration so that [`parse`] reads it back exactly: `2h11m15s`, `1.5s` as `1s500ms`.
pub fn show(duration: Duration) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    let seconds = duration.as_secs();
    let nanos = duration.subsec_nanos();
    let parts = [
        (seconds / 3600, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (u64::from(nanos / 1_000_000), "ms"),
        (u64::from(nanos / 1_000 % 1_000), "us"),
        (u64::from(nanos % 1_000), "ns"),
    ];
    for (count, unit) in parts.into_iter().filter(|(count, _)| *count > 0) {
        write!(text, "{count}{unit}").expect("writing to a String cannot fail");
    }
    if text.is_empty() { "0s".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, expected) in [
            ("5s", Duration::from_secs(5)),
            ("200ms", Duration::from_millis(200)),
            ("2h11m15s", Duration::from_secs(7875)),
            ("1.5s", Duration::from_millis(1500)),
            ("30d", Duration::from_secs(30 * 86_400)),
            ("1d2h", Duration::from_secs(26 * 3600)),
            ("0s", Duration::ZERO),
            ("250us", Duration::from_micros(250)),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_duration() {
        for (text, complaint) in [
            ("5", "no unit"),
            ("5.5", "no unit"),
            ("-5s", "negative"),
            ("5s ago", "negative"),
            ("", "empty"),
            ("5 parsecs", "not a duration"),
            ("99999999h", "ten years"),
            ("9999999999d", "ten years"),
            ("99999999999999999999s", "ten years"),
            ("99999999999999999999 apples pies", "not a duration"),
            ("inf", "no unit"),
            ("s", "not a duration"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_back(seconds in 0..LONGEST.as_secs(), nanos in 0..1_000_000_000_u32) {
            let duration = Duration::new(seconds, nanos);
            proptest::prop_assert_eq!(parse(&show(duration)), Ok(duration));
        }
    }
}
