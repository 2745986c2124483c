//! Sweeps: settings with several values each, and every combination of these.

use crate::{Parameters, duration, settings};
use std::time::Duration;

/// One combination: keys and values.
pub type Point = Vec<(String, String)>;

/// A setting, and the values that it takes one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axis {
    /// The dotted key.
    pub key: String,
    /// Its values; there is at least one.
    pub values: Vec<String>,
}

/// The most values of one range, and the most combinations.
const MOST: usize = 100_000;

impl Axis {
    /// Reads what is given for a key: one value; several, `a,b,c`; or a range with both ends,
    /// `1..15`, `2..16/2` or `200ms..3s/200ms`. What the setting takes as it stands is one value,
    /// whatever is in it: a script, a command.
    ///
    /// # Errors
    /// A sentence: a range that cannot be gone through, an empty value.
    pub fn read(key: &str, text: &str) -> Result<Self, String> {
        let values = if is_one(key, text) { vec![text.to_owned()] } else { several(text)? };
        Ok(Self { key: key.to_owned(), values })
    }
}

/// Whether the setting takes the whole text. Of no sysctl is there a value with a comma or two dots.
fn is_one(key: &str, text: &str) -> bool {
    let is_sysctl = key.contains("sysctl.");
    let is_plain = !text.contains(',') && !text.contains("..");
    is_plain || !is_sysctl && settings::apply(&mut Parameters::default(), key, text).is_ok()
}

fn several(text: &str) -> Result<Vec<String>, String> {
    let mut values = Vec::new();
    for part in text.split(',').map(str::trim) {
        match part.split_once("..") {
            None if part.is_empty() => return Err(format!("`{text}` has an empty value")),
            None => values.push(part.to_owned()),
            Some((first, last)) => values.extend(range(part, first.trim(), last.trim())?),
        }
    }
    Ok(values)
}

fn range(text: &str, first: &str, last: &str) -> Result<Vec<String>, String> {
    let (last, step) = match last.split_once('/') {
        Some((last, step)) => (last.trim(), Some(step.trim())),
        None => (last, None),
    };
    let numbers = (first.parse::<i64>(), last.parse::<i64>(), step.unwrap_or("1").parse::<i64>());
    if let (Ok(first), Ok(last), Ok(step)) = numbers {
        let steps = u64::try_from(step).ok().filter(|step| *step > 0);
        let span = last.checked_sub(first).and_then(|span| u64::try_from(span).ok());
        let (Some(steps), Some(span)) = (steps, span) else { return Err(backwards(text)) };
        let count = few(text, u128::from(span / steps) + 1)?;
        return Ok((0..count as i64).map(|n| (first + n * step).to_string()).collect());
    }
    let times = duration::parse(first).and_then(|first| Ok((first, duration::parse(last)?)));
    let (first, last) = times.map_err(|_| {
        format!(
            "`{text}` is not a range: whole numbers, as `1..15`, or durations, as `1s..3s/500ms`"
        )
    })?;
    let step = step.ok_or_else(|| format!("`{text}` has no step: `{text}/100ms`, for example"))?;
    let step = duration::parse(step)?;
    let span = last.checked_sub(first).filter(|_| !step.is_zero());
    let span = span.ok_or_else(|| backwards(text))?;
    let count = few(text, span.as_nanos() / step.as_nanos() + 1)?;
    let at = |n: usize| first + step * u32::try_from(n).unwrap_or(u32::MAX);
    let shown = |time: Duration| duration::show(time);
    Ok((0..count).map(|n| shown(at(n))).collect())
}

fn backwards(text: &str) -> String {
    format!(
        "`{text}` is an empty range: the first value must be the least, and the step more than \
    0"
    )
}

fn few(what: &str, count: u128) -> Result<usize, String> {
    usize::try_from(count)
        .ok()
        .filter(|count| *count <= MOST)
        .ok_or_else(|| format!("`{what}` has {count} values, and {MOST} is the most"))
}

/// Every combination of the axes' values, the last axis changing fastest.
///
/// # Errors
/// A sentence: there are too many.
pub fn product(axes: &[Axis]) -> Result<Vec<Point>, String> {
    let count = axes.iter().fold(1_u128, |count, axis| count * axis.values.len() as u128);
    few("the sweep", count)?;
    let mut points = vec![Point::new()];
    for Axis { key, values } in axes {
        points = points
            .iter()
            .flat_map(|point: &Point| {
                values.iter().map(|value| {
                    let mut point = point.clone();
                    point.push((key.clone(), value.clone()));
                    point
                })
            })
            .collect();
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(key: &str, text: &str) -> Vec<String> {
        Axis::read(key, text).unwrap().values
    }

    #[test]
    fn a_list_and_a_range_have_several_values() {
        assert_eq!(values("sysctl.tcp_retries2", "3, 5,8"), ["3", "5", "8"]);
        assert_eq!(values("sysctl.tcp_retries2", "1..4"), ["1", "2", "3", "4"]);
        assert_eq!(values("client.keepalive.probes", "2..9/3,20"), ["2", "5", "8", "20"]);
        assert_eq!(values("fault.after", "200ms..1s/300ms"), ["200ms", "500ms", "800ms"]);
        assert_eq!(values("fault.after", "1s..2s/500ms"), ["1s", "1s500ms", "2s"]);
    }

    #[test]
    fn what_a_setting_takes_as_it_stands_is_one_value() {
        for (key, text) in [
            ("client.command", "sh -c 'echo a,b 1..3'"),
            ("client.env.LIST", "a,b,c"),
            ("fault.on_output", "a{1,3}"),
            ("fault.kind", "power-off"),
            ("sysctl.tcp_rmem", "4096 131072 6291456"),
        ] {
            assert_eq!(values(key, text), [text], "{key}");
        }
    }

    #[test]
    fn a_range_that_cannot_be_gone_through_is_refused() {
        for (text, expected) in [
            ("5..1", "is an empty range"),
            ("1..5/0", "is an empty range"),
            ("1s..2s", "has no step"),
            ("2s..1s/1s", "is an empty range"),
            ("1..x", "is not a range"),
            ("1,,2", "empty value"),
            ("1..9999999", "is the most"),
        ] {
            let error = Axis::read("sysctl.tcp_retries2", text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn every_combination_comes_once_and_in_order() {
        let axes = [
            Axis::read("a", "1,2").unwrap(),
            Axis::read("b", "x").unwrap(),
            Axis::read("c", "3..5").unwrap(),
        ];
        let points = product(&axes).unwrap();
        let of = |point: &Point| point.iter().map(|(_, value)| &**value).collect::<String>();
        let all: Vec<_> = points.iter().map(of).collect();
        assert_eq!(all, ["1x3", "1x4", "1x5", "2x3", "2x4", "2x5"]);
        assert_eq!(product(&[]).unwrap(), [Vec::new()]);
        let many = vec![Axis { key: "a".into(), values: vec!["1".into(); 1000] }; 2];
        assert!(product(&many).unwrap_err().contains("1000000 values"));
    }
}
