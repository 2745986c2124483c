//! What a client's program does after the fault, call by call.

use crate::{duration, sysctl};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A sequence of calls. After the last one the program waits in `read`, unless the script repeats.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// The calls, in order.
    pub steps: Vec<Step>,
    /// Whether the program starts again after the last step, until a call fails.
    #[serde(default)]
    pub repeats: bool,
}

/// One call, or the time between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// `wait D`: do nothing for so long.
    Wait(Duration),
    /// `write N`: write so many bytes; no answer comes.
    Write(u32),
    /// `request N D`: write so many bytes and wait for as many back. Without all of them within the
    /// deadline the program closes the socket.
    Request(u32, Duration),
    /// `shutdown`: `shutdown(SHUT_WR)`.
    Shutdown,
    /// `close`: the program lets go; its kernel goes on alone.
    Close,
}

impl Script {
    /// What [`Self::from_str`] accepts, for error messages and the manual.
    pub const ACCEPTS: &str = "steps separated by `;`: `wait D`, `write N`, `request N D`, \
        `shutdown`, `close`; N bytes from 1 to 67108864, D a duration, 200 steps at most";
    /// The most steps.
    const STEPS_MOST: usize = 200;

    /// A script of one call.
    pub fn of(step: Step) -> Self {
        Self { steps: vec![step], repeats: false }
    }

    /// Whether the program writes, or waits for an answer.
    pub fn writes(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Write(_) | Step::Request(..)))
    }

    /// Whether an answer is asked for.
    pub fn requests(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Request(..)))
    }

    /// Whether the program may close by itself: where it is told to, or where an answer does not
    /// come in time.
    pub fn may_close(&self) -> bool {
        self.requests() || self.steps.contains(&Step::Close)
    }

    /// How long its steps take at most, where no write waits for room.
    pub fn takes(&self) -> Duration {
        let waits = self.steps.iter().map(|step| match step {
            Step::Wait(time) | Step::Request(_, time) => *time,
            Step::Write(_) | Step::Shutdown | Step::Close => Duration::ZERO,
        });
        waits.fold(Duration::ZERO, Duration::saturating_add)
    }

    /// Checks the order of the steps.
    fn check(&self) -> Result<(), String> {
        let Self { steps, .. } = self;
        if steps.is_empty() {
            return Err(format!("a script has at least one step: {ACCEPTED}"));
        }
        if steps.len() > Self::STEPS_MOST {
            return Err(format!(
                "a script has {} steps at most, not {}",
                Self::STEPS_MOST,
                steps.len()
            ));
        }
        let mut ended: Option<(usize, Step)> = None;
        for (index, step) in steps.iter().enumerate() {
            let sends = match step {
                Step::Write(_) | Step::Request(..) | Step::Shutdown => true,
                Step::Wait(_) | Step::Close => false,
            };
            let refused = sends || matches!(ended, Some((_, Step::Close)));
            if let Some((by, end)) = ended.filter(|_| refused) {
                let after = match end {
                    Step::Close => "nothing comes",
                    _ => "nothing is sent",
                };
                return Err(format!(
                    "step {}, \"{step}\": {after} after `{end}`, step {}",
                    index + 1,
                    by + 1
                ));
            }
            if matches!(step, Step::Shutdown | Step::Close) {
                ended = Some((index, *step));
            }
        }
        if self.takes() > LONGEST_WAIT {
            return Err("its steps wait longer than 365d together".into());
        }
        Ok(())
    }
}

/// The steps, for error messages.
const ACCEPTED: &str = "wait D, write N, request N D, shutdown, close";
/// The most bytes in one call: 64 MiB.
const BYTES_MOST: u32 = 64 << 20;
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(365 * 86_400);

impl FromStr for Script {
    type Err = String;

    /// Reads steps separated by `;`, or by line ends.
    ///
    /// # Errors
    /// A sentence: which step, what is wrong with it, and what is accepted.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim().trim_end_matches(';');
        let steps = text.split([';', '\n']).map(str::trim).enumerate();
        let steps = steps.filter(|_| !text.is_empty()).map(|(index, step)| {
            step.parse().map_err(|problem| format!("step {}, \"{step}\": {problem}", index + 1))
        });
        let script = Self { steps: steps.collect::<Result<_, String>>()?, repeats: false };
        script.check()?;
        Ok(script)
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            ["wait", time] => wait(time).map(Self::Wait),
            ["write", count] => bytes(count).map(Self::Write),
            ["request", count, deadline] => match (bytes(count)?, wait(deadline)?) {
                (_, Duration::ZERO) => Err("no answer comes within 0s".into()),
                (count, deadline) => Ok(Self::Request(count, deadline)),
            },
            ["shutdown"] => Ok(Self::Shutdown),
            ["close"] => Ok(Self::Close),
            [name, ..] => Err(refuse(name, &words)),
            [] => Err(format!("it is empty; accepted: {ACCEPTED}")),
        }
    }
}

/// What is wrong with a step that is none.
fn refuse(name: &str, words: &[&str]) -> String {
    const FORMS: [(&str, &str); 5] = [
        ("wait", "wait 5s"),
        ("write", "write 100"),
        ("request", "request 100 2s"),
        ("shutdown", "shutdown"),
        ("close", "close"),
    ];
    if let Some((_, form)) = FORMS.iter().find(|(known, _)| *known == name) {
        return format!("it is written like \"{form}\"; accepted: {ACCEPTED}");
    }
    let near = sysctl::nearest(name, FORMS.iter().map(|(known, _)| *known));
    let hint = near.map_or_else(String::new, |near| {
        let meant = [&[near], &words[1..]].concat().join(" ");
        format!("is it \"{meant}\"? ")
    });
    format!("{hint}accepted: {ACCEPTED}")
}

fn bytes(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count @ 1..=BYTES_MOST) => Ok(count),
        _ => Err(format!("`{text}` is not a number of bytes from 1 to {BYTES_MOST} (64 MiB)")),
    }
}

fn wait(text: &str) -> Result<Duration, String> {
    let time = duration::parse(text)?;
    if time <= LONGEST_WAIT { Ok(time) } else { Err(format!("`{text}` is longer than 365d")) }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wait(time) => write!(formatter, "wait {}", duration::show(*time)),
            Self::Write(bytes) => write!(formatter, "write {bytes}"),
            Self::Request(bytes, deadline) => {
                write!(formatter, "request {bytes} {}", duration::show(*deadline))
            }
            Self::Shutdown => formatter.write_str("shutdown"),
            Self::Close => formatter.write_str("close"),
        }
    }
}

impl fmt::Display for Script {
    /// As it is written: steps separated by `;`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<_> = self.steps.iter().map(Step::to_string).collect();
        formatter.write_str(&steps.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in [
            "wait 45s; write 100",
            "write 1; wait 1h30m; write 67108864; shutdown; wait 5s; close",
            "request 100 2s; wait 0s; request 1 1h",
            "close",
        ] {
            let script: Script = text.parse().unwrap();
            assert_eq!(script.to_string(), text);
        }
        let same = "write 100; wait 5s".parse::<Script>();
        assert_eq!(" write  100 ;\n\twait 5000ms; ".replace(";\n", ";").parse(), same);
        assert_eq!("write 100\nwait 5s".parse(), same);
    }

    #[test]
    fn a_bad_script_says_which_step_and_what_is_accepted() {
        let long = vec!["wait 1s"; 201].join("; ");
        for (text, complaint) in [
            (
                "write 1; wait 1s; wrte 5",
                "step 3, \"wrte 5\": is it \"write 5\"? accepted: wait D, write N, request N D, \
                 shutdown, close",
            ),
            ("send 5", "step 1, \"send 5\": accepted: wait D"),
            ("write", "it is written like \"write 100\"; accepted"),
            ("write 5 2s", "it is written like \"write 100\""),
            ("request 5", "it is written like \"request 100 2s\""),
            ("write 0", "step 1, \"write 0\": `0` is not a number of bytes from 1 to 67108864"),
            ("write 67108865", "64 MiB"),
            ("write -1", "not a number of bytes"),
            ("wait 5", "step 1, \"wait 5\": `5` has no unit"),
            ("wait 366d", "`366d` is longer than 365d"),
            ("wait 365d; wait 1s", "longer than 365d together"),
            ("request 5 0s", "no answer comes within 0s"),
            ("write 1;; close", "step 2, \"\": it is empty"),
            ("", "at least one step"),
            (";", "at least one step"),
            (&long, "200 steps at most, not 201"),
            ("close; wait 1s", "step 2, \"wait 1s\": nothing comes after `close`, step 1"),
            ("shutdown; write 5", "step 2, \"write 5\": nothing is sent after `shutdown`, step 1"),
            ("shutdown; wait 1s; shutdown", "step 3, \"shutdown\": nothing is sent after"),
        ] {
            let error = text.parse::<Script>().unwrap_err();
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }
}
