//! How values are read and written, and what is said of them.

use crate::choice::Choice;
use crate::{command, duration, sysctl};
use std::time::Duration;

/// The longest a trial can be told to take.
pub(super) const LONGEST_TRIAL: Duration = Duration::from_secs(365 * 86_400);
pub(super) const KEEPALIVE_TIME: &str =
    "whole seconds from `1s` to `32767s`, or `off` for the sysctl's value";
pub(super) const UP_TO_A_YEAR: &str = "a duration up to `365d`";
pub(super) const YES_OR_NO: &str = "`true` or `false`";
pub(super) const COMMAND: &str =
    "a list of words, or a line that is split into words as a shell does";
pub(super) const LINGER: &str = "whole seconds from `0s` to `32767s`, or `off`";

pub(super) fn shown(words: &[String]) -> Option<String> {
    (!words.is_empty()).then(|| command::join(words))
}

pub(super) fn choose<T: Choice>(target: &mut T, text: &str) -> Result<(), String> {
    *target = text.parse().map_err(|_| match sysctl::nearest(text, T::names().into_iter()) {
        Some(near) => format!("`{text}` is unknown: is it `{near}`?"),
        None => format!("`{text}` is unknown"),
    })?;
    Ok(())
}

pub(super) fn flag(target: &mut bool, text: &str) -> Result<(), String> {
    *target = text.parse().map_err(|_| format!("`{text}` is neither"))?;
    Ok(())
}

pub(super) fn time(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let time = duration::parse(text)?;
    if (least..=most).contains(&time) { Ok(time) } else { Err(format!("`{text}` is out of range")) }
}

pub(super) fn whole_seconds(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    match duration::parse(text)? {
        time if time.subsec_nanos() == 0 && (1..=32_767).contains(&time.as_secs()) => {
            Ok(Some(time))
        }
        _ => Err(format!("`{text}` is out of range")),
    }
}

pub(super) fn linger(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    match duration::parse(text)? {
        t if t.subsec_nanos() == 0 && t.as_secs() <= 32_767 => Ok(Some(t)),
        _ => Err(format!("`{text}` is out of range")),
    }
}

pub(super) fn whole_millis(text: &str, least: u64, most: u64) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    let time = duration::parse(text)?;
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    if time.subsec_nanos() % 1_000_000 == 0 && (least..=most).contains(&millis) {
        Ok(Some(time))
    } else {
        Err(format!("`{text}` is out of range"))
    }
}
