//! Programs that are commands of the user's, and what the user requires of them.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// A command as the program of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Command {
    /// The executable and its arguments; empty: there is none. `{client}` and `{server}` stand for
    /// the hosts' addresses.
    pub words: Vec<String>,
    /// Added to the caller's environment.
    pub environment: BTreeMap<String, String>,
    /// Its working directory; `None`: the caller's.
    pub directory: Option<String>,
    /// What it reads on standard input, before the end of that.
    pub stdin: String,
    /// The user whose rights it has; `None`: the caller's. Only root may choose.
    pub user: Option<String>,
    /// Its standard streams are a terminal, and not two pipes.
    pub terminal: bool,
    /// A command that succeeds once this one, a server, is ready. It runs on the client's host.
    pub ready: Vec<String>,
    /// After a `reboot`, whether it is not started again.
    pub stays_away: bool,
}

/// What the user needs, whatever is predicted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Requirements {
    /// The longest time from the fault to the moment that the client's program acts on it.
    pub noticed_within: Option<Duration>,
    /// Whether the connection must live at the end, with everything acknowledged that was sent.
    pub survives: Option<bool>,
    /// How the client's program must end: an exit code, or a signal's name.
    pub exits: Option<Exits>,
}

/// How a program ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exits {
    /// By itself, with this code.
    Code(u8),
    /// By this signal.
    Signal(String),
}

impl std::fmt::Display for Exits {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "{code}"),
            Self::Signal(name) => formatter.write_str(name),
        }
    }
}

impl std::str::FromStr for Exits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The last is SIGRTMAX.
        let is_signal = |name: &str| (1..=64).any(|number| signal_name(number) == name);
        match text.parse() {
            Ok(code) => Ok(Self::Code(code)),
            Err(_) if is_signal(text) => Ok(Self::Signal(text.into())),
            Err(_) => Err(format!("`{text}` is neither an exit code nor a signal's name")),
        }
    }
}

/// The name of a signal (asm-generic/signal.h); `SIG` and the number of one without.
pub fn signal_name(number: i32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let name = usize::try_from(number - 1).ok().and_then(|index| NAMES.get(index));
    name.map_or_else(|| format!("SIG{number}"), |name| format!("SIG{name}"))
}

/// Splits a line into words as a POSIX shell does, which knows quotes and backslashes (2.2, Quoting),
/// and expands nothing.
///
/// # Errors
/// If a quote is not closed, or there is no word.
pub fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = line.chars();
    let unclosed = || format!("`{line}` has a quote that is not closed");
    while let Some(next) = rest.next() {
        match next {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next().ok_or_else(unclosed)? {
                        '\'' => break,
                        other => word.push(other),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next().ok_or_else(unclosed)? {
                        '"' => break,
                        '\\' => match rest.next().ok_or_else(unclosed)? {
                            escaped @ ('"' | '\\' | '$' | '`') => word.push(escaped),
                            other => word.extend(['\\', other]),
                        },
                        other => word.push(other),
                    }
                }
            }
            '\\' => word.get_or_insert_default().extend(rest.next()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    if words.is_empty() { Err("it is empty".into()) } else { Ok(words) }
}

/// The line that [`split`] makes these words of.
pub fn join(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=+@%{}".contains(c);
    let quoted = words.iter().map(|word| {
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_as_a_shell_does_and_joined_again() {
        let words = |line: &str| split(line).unwrap();
        assert_eq!(
            words(r#"redis-server --bind {server} --save """#),
            ["redis-server", "--bind", "{server}", "--save", ""]
        );
        assert_eq!(words(r"a\ b 'it'\''s' x"), ["a b", "it's", "x"]);
        assert_eq!(words(r#""a \"b\" \n""#), [r#"a "b" \n"#]);
        for line in [r#"redis-server --save """#, "sh -c 'sleep 1; echo \"it'\\''s\"'"] {
            assert_eq!(words(&join(&words(line))), words(line));
        }
        assert!(split("a 'b").is_err() && split("  ").is_err());
    }
}
