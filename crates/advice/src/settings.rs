//! Options in the short form of the command line: `keepalive=60/10/6,user_timeout=30s`.

use crate::{Keepalive, Options};
use spec::duration;
use std::time::Duration;

/// What is accepted.
const ACCEPTED: &str = "keepalive=IDLE/INTERVAL/PROBES (seconds; or `on`: the Linux defaults), \
    user_timeout=D, rto_max=D, retries2=N, joined by commas, such as keepalive=60/10/6,user_timeout=30s";

impl std::str::FromStr for Options {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut options = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = |why: &str| format!("`{part}`: {why}; accepted is {ACCEPTED}");
            let (key, value) = part.split_once('=').ok_or_else(|| wrong("there is no `=`"))?;
            let duration = || duration::parse(value).map_err(|why| wrong(&why));
            let is_twice = match key {
                "keepalive" => options
                    .keepalive
                    .replace(keepalive(value).map_err(|why| wrong(&why))?)
                    .is_some(),
                "user_timeout" => options.user_timeout.replace(duration()?).is_some(),
                "rto_max" => options.rto_max.replace(duration()?).is_some(),
                "retries2" => {
                    let number = value.parse().map_err(|_| wrong("it is a whole number"))?;
                    options.retries2.replace(number).is_some()
                }
                _ => return Err(wrong("there is no such option")),
            };
            if is_twice {
                return Err(wrong("it is given twice"));
            }
        }
        Ok(options)
    }
}

fn keepalive(text: &str) -> Result<Keepalive, String> {
    if text == "on" {
        return Ok(Keepalive::DEFAULT);
    }
    let numbers: Result<Vec<u32>, _> =
        text.split('/').map(|part| part.trim_end_matches('s').parse()).collect();
    let numbers = numbers.ok().and_then(|numbers| <[u32; 3]>::try_from(numbers).ok());
    let Some([idle_s, interval_s, probes]) = numbers else {
        return Err("it is three whole numbers, IDLE/INTERVAL/PROBES".into());
    };
    Keepalive { idle_s, interval_s, probes }.checked()
}

impl Keepalive {
    /// The same, if the kernel takes it (`MAX_TCP_KEEPIDLE`, `MAX_TCP_KEEPINTVL`, `MAX_TCP_KEEPCNT`,
    /// include/net/tcp.h).
    ///
    /// # Errors
    /// Which number it refuses.
    pub(crate) fn checked(self) -> Result<Self, String> {
        let seconds = 1..=32_767;
        if !seconds.contains(&self.idle_s) || !seconds.contains(&self.interval_s) {
            return Err("idle time and interval are 1 to 32767 seconds".into());
        }
        if !(1..=127).contains(&self.probes) {
            return Err("there are 1 to 127 probes".into());
        }
        Ok(self)
    }
}

/// Seconds and milliseconds as ecosystems count them: a number in a unit, or with its own.
pub(crate) fn in_unit(text: &str, unit: &str) -> Result<Duration, String> {
    if let Ok(number) = text.parse::<u64>() {
        return Ok(if unit == "ms" {
            Duration::from_millis(number)
        } else {
            Duration::from_secs(number)
        });
    }
    duration::parse(text)
}
