//! Programs that are commands of the user's, and what the user requires of them.

use crate::choice::{FaultKind, Program, Traffic};
use crate::experiment::Parameters;
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
        let is_signal = |name: &str| {
            name.strip_prefix("SIG").is_some_and(|rest| {
                !rest.is_empty()
                    && rest.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
            })
        };
        match text.parse() {
            Ok(code) => Ok(Self::Code(code)),
            Err(_) if is_signal(text) => Ok(Self::Signal(text.into())),
            Err(_) => Err(format!("`{text}` is neither an exit code nor a signal's name")),
        }
    }
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
    if words.is_empty() { Err("it has no word".into()) } else { Ok(words) }
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

impl Parameters {
    /// Whether the client's program is a command of the user's.
    pub fn runs_command(&self) -> bool {
        self.client.program == Program::Command
    }

    /// Combinations with a command.
    pub(crate) fn validate_commands(&self) -> Result<(), (&'static str, String)> {
        let Self { client, server, fault, require, .. } = self;
        for (key, command, program) in [
            ("client.command", &client.command, client.program),
            ("server.command", &server.command, server.program),
        ] {
            if (program == Program::Command) == command.words.is_empty() {
                let why = "the program is `command` where a command is given, and only there";
                return Err((key, why.into()));
            }
        }
        if !self.runs_command() {
            if server.program == Program::Command {
                let why = "a command as the server needs one as the client: give `client.command`";
                return Err(("server.command", why.into()));
            }
            let only_with_command = [
                ("server.listen", server.listen.is_some()),
                ("fault.on_output", fault.on_output.is_some()),
                ("require.exits", require.exits.is_some()),
            ];
            return match only_with_command.into_iter().find(|(_, given)| *given) {
                Some((key, _)) => {
                    Err((key, "it is about commands, and there is no `client.command`".into()))
                }
                None => Ok(()),
            };
        }
        match (server.program, server.listen) {
            (Program::Command, None) | (Program::Halfopen, Some(_)) => {}
            (Program::Command, Some(_)) => {
                let why = "`server.command` chooses its port itself: leave one of the two out";
                return Err(("server.listen", why.into()));
            }
            (Program::Halfopen, None) => {
                let why = "halfopen's own server needs a port where the client is a command; or \
                           give `server.command`";
                return Err(("server.listen", why.into()));
            }
            (Program::Nginx, _) => {
                let why = "where the client is a command, give nginx as `server.command`";
                return Err(("server.program", why.into()));
            }
        }
        self.validate_only_commands()
    }

    /// Refuses what is about halfopen's own peers.
    fn validate_only_commands(&self) -> Result<(), (&'static str, String)> {
        let Self { client, server, fault, .. } = self;
        let own = [
            ("client.traffic", client.traffic != Traffic::Idle),
            ("client.keepalive.enabled", client.keepalive.enabled),
            ("client.keepalive.idle", client.keepalive.idle.is_some()),
            ("client.keepalive.interval", client.keepalive.interval.is_some()),
            ("client.keepalive.probes", client.keepalive.probes.is_some()),
            ("client.user_timeout", client.user_timeout.is_some()),
            ("client.rto_max", client.rto_max.is_some()),
            ("client.rto_min", client.rto_min.is_some()),
            ("client.thin_linear_timeouts", client.thin_linear_timeouts),
            ("client.linger", client.linger.is_some()),
            ("client.second_write", client.second_write.is_some()),
            ("client.fills_window", client.fills_window),
            ("server.reads", !server.reads),
            ("server.linger", server.linger.is_some()),
            ("server.inherited", server.inherited),
            ("server.fills_window", server.fills_window),
        ];
        if let Some((key, _)) = own.into_iter().find(|(_, set)| *set) {
            let why = "it is about halfopen's own programs, and a command goes its own way";
            return Err((key, why.into()));
        }
        let is_own_server = server.program == Program::Halfopen;
        if is_own_server && fault.kind == FaultKind::Reboot && server.command.stays_away {
            let why = "it is about `server.command`, and there is none";
            return Err(("server.restart", why.into()));
        }
        Ok(())
    }
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
