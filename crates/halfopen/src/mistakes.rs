//! Mistakes on the command line that its grammar alone explains badly: an experiment where a command
//! belongs, and an option of another command.

use crate::catalogue;
use crate::cli::Cli;
use crate::output::{self, Exit};
use anyhow::anyhow;
use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::ffi::OsString;
use std::path::Path;

/// Tells a person what is wrong and what is accepted, or shows the help that was asked for.
pub(crate) fn tell(error: &clap::Error) -> Exit {
    let lossy = |argument: OsString| argument.to_string_lossy().into_owned();
    let arguments: Vec<_> = std::env::args_os().skip(1).map(lossy).collect();
    if let Some(text) = explain(error, &arguments) {
        return output::fail(Exit::USAGE, &anyhow!(text));
    }
    // Help goes to standard output; if that is closed, there is nothing more to do.
    let _ = error.print();
    Exit(u8::try_from(error.exit_code()).unwrap_or(Exit::USAGE.0))
}

/// A better sentence than the grammar's own, if there is one.
fn explain(error: &clap::Error, arguments: &[String]) -> Option<String> {
    let given = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            experiment_as_command(given(ContextKind::InvalidSubcommand)?)
        }
        ErrorKind::UnknownArgument => {
            let option = given(ContextKind::InvalidArg)?.split('=').next()?;
            option.starts_with("--").then(|| foreign_option(option, arguments))
        }
        ErrorKind::InvalidUtf8 => {
            let broken = std::env::args_os().skip(1).find(|argument| argument.to_str().is_none());
            broken.map(|argument| format!("the argument `{}` is not UTF-8", argument.display()))
        }
        ErrorKind::MissingRequiredArgument if arguments.first()? == "run" => {
            Some("`halfopen run NAME|FILE`: which experiment? `halfopen list` shows them all, `halfopen init FILE` \
                  writes a file to start from".into())
        }
        _ => None,
    }
}

fn experiment_as_command(given: &str) -> Option<String> {
    let is_one = catalogue::BUILT_IN.iter().any(|(name, _)| *name == given)
        || Path::new(given).extension().is_some_and(|extension| extension == "toml");
    is_one.then(|| format!("there is no command `{given}`: is it `halfopen run {given}`?"))
}

/// Which options the command has, and which command has this one.
fn foreign_option(option: &str, arguments: &[String]) -> String {
    let root = Cli::command();
    let commands = || root.get_subcommands().filter(|command| !command.is_hide_set());
    let having: Vec<_> = commands()
        .filter(|command| options(command).any(|other| other == option))
        .map(|command| format!("`{}`", command.get_name()))
        .collect();
    let having = match having.as_slice() {
        [] => String::new(),
        [one] => format!("; {one} has it"),
        several => format!("; {} have it", several.join(", ")),
    };
    let first = arguments.first().map_or("", String::as_str);
    let Some(command) = commands().find(|command| command.get_name() == first) else {
        return format!("`{option}` must come after the command{having}");
    };
    let own: Vec<_> = options(command).collect();
    let own = if own.is_empty() { "no options".into() } else { own.join(", ") };
    format!("`halfopen {first}` has no `{option}`: it takes {own}{having}")
}

fn options(command: &clap::Command) -> impl Iterator<Item = String> {
    let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
    shown.filter_map(|argument| Some(format!("--{}", argument.get_long()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn explained(arguments: &[&str]) -> Option<String> {
        let all = [&["halfopen"], arguments].concat();
        let error = Cli::try_parse_from(all).unwrap_err();
        explain(&error, &arguments.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn mistakes_are_explained_by_what_is_accepted() {
        for (arguments, expected) in [
            (
                &["host-crash-sending"][..],
                "there is no command `host-crash-sending`: is it `halfopen run host-crash-sending`?",
            ),
            (
                &["run"],
                "`halfopen run NAME|FILE`: which experiment? `halfopen list` shows them all, `halfopen init FILE` \
                 writes a file to start from",
            ),
            (&["mine.toml"], "there is no command `mine.toml`: is it `halfopen run mine.toml`?"),
            (
                &["predict", "--clock", "virtual"],
                "`halfopen predict` has no `--clock`: it takes --set, --defaults, --kernel, --hz, --format; \
                 `run`, `exec`, `article`, `validate` have it",
            ),
            (
                &["predict", "--repeat=3"],
                "`halfopen predict` has no `--repeat`: it takes --set, --defaults, --kernel, --hz, --format; \
                 `run`, `exec`, `validate` have it",
            ),
            (&["doctor", "--mine"], "`halfopen doctor` has no `--mine`: it takes --format"),
            (
                &["--phases", "3", "run", "host-crash-sending"],
                "`--phases` must come after the command; `run` has it",
            ),
        ] {
            assert_eq!(explained(arguments).as_deref(), Some(expected), "{arguments:?}");
        }
    }

    #[test]
    fn what_the_grammar_explains_well_is_left_to_it() {
        for arguments in [&["lst"][..], &["predict", "a", "b"], &["judge"], &["run", "x", "-x"]] {
            assert_eq!(explained(arguments), None, "{arguments:?}");
        }
    }
}
