//! What is made from the command line's own description: completions and the manual's pages.

use crate::catalogue;
use crate::cli::Cli;
use crate::output::{self, Exit};
use crate::pictures;
use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use std::fs;
use std::path::Path;

const NAME: &str = "halfopen";

/// `halfopen completions`.
pub(crate) fn completions(shell: Shell) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut public(), NAME, &mut script);
    output::print(&script)
}

/// The manual's pages, one for each command, for a package.
pub(crate) fn pages(directory: &Path) -> Exit {
    write_pages(directory)
        .map_or_else(|error| output::fail(Exit::INTERNAL, &error), |()| Exit::AGREES)
}

fn write_pages(directory: &Path) -> Result<()> {
    clap_mangen::generate_to(public().disable_help_subcommand(true), directory)
        .with_context(|| format!("writing the manual's pages into {}", directory.display()))
}

/// The guide's reference pages and pictures.
pub(crate) fn reference(directory: &Path) -> Exit {
    write_reference(directory)
        .map_or_else(|error| output::fail(Exit::INTERNAL, &error), |()| Exit::AGREES)
}

fn write_reference(directory: &Path) -> Result<()> {
    let pages = [
        ("keys.md", report::reference::keys(&report::keys::all())),
        ("faults.md", report::reference::faults()),
        ("experiments.md", report::reference::experiments(&catalogue::all()?)),
        ("commands.md", commands()),
    ];
    let pages = pages.map(|(name, page)| (format!("reference/{name}"), page.into_bytes()));
    let pictures = pictures::all()?;
    let pictures = pictures.into_iter().map(|(name, svg)| (format!("pictures/{name}"), svg));
    for (name, bytes) in pages.into_iter().chain(pictures) {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap_or(directory))
            .and_then(|()| fs::write(&path, bytes))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// The page of commands: what `--help` prints of each.
fn commands() -> String {
    let mut page = String::from(
        "<!-- Made by `just reference` from the program: change it there. -->\n\n# Commands\n\n\
         Each command with what its `--help` prints. `halfopen completions bash|zsh|fish` prints a \
         shell's completions.\n",
    );
    let mut all = public().disable_help_subcommand(true).term_width(100);
    all.build();
    let mut help = |command: &mut Command, name: &str| {
        let help = command.render_long_help().to_string();
        let lines = help.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
        page += &format!("\n## {name}\n\n```text\n{}\n```\n", lines.trim());
    };
    help(&mut all, NAME);
    // What every command has is said once, above.
    let own = |command: &Command| {
        command.clone().mut_args(|argument| {
            let is_hidden = argument.is_hide_set() || argument.is_global_set();
            argument.hide(is_hidden)
        })
    };
    for command in all.get_subcommands() {
        let name = format!("{NAME} {}", command.get_name());
        help(&mut own(command), &name);
        for command in command.get_subcommands() {
            help(&mut own(command), &format!("{name} {}", command.get_name()));
        }
    }
    page
}

/// The commands that people call.
fn public() -> Command {
    let all = Cli::command();
    let shown = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let text = |text: Option<&clap::builder::StyledStr>| text.cloned().unwrap_or_default();
    Command::new(NAME)
        .subcommand_required(true)
        .version(env!("CARGO_PKG_VERSION"))
        .about(text(all.get_about()))
        .long_about(text(all.get_long_about()))
        .after_help(text(all.get_after_help()))
        .args(all.get_arguments().cloned().collect::<Vec<_>>())
        .subcommands(shown.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples in the help are command lines.
    #[test]
    fn every_example_in_the_help_is_understood() {
        let mut examples = 0;
        let root = Cli::command();
        for command in std::iter::once(&root).chain(root.get_subcommands()) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().filter_map(|line| line.strip_prefix("  halfopen ")) {
                // A comment and what a shell does are not halfopen's.
                let own = line.split(['#', '>']).next().unwrap();
                let words = spec::command::split(&format!("halfopen {own}"));
                let parsed = Cli::command().try_get_matches_from(words.unwrap());
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
                examples += 1;
            }
        }
        assert!(examples > 15, "{examples}");
    }

    #[test]
    fn what_is_hidden_is_in_no_completion_and_no_page() {
        let names: Vec<_> = public().get_subcommands().map(|c| c.get_name().to_owned()).collect();
        assert!(
            names.contains(&"run".into()) && names.contains(&"completions".into()),
            "{names:?}"
        );
        assert!(
            !names
                .iter()
                .any(|name| name.starts_with('_') || ["man", "reference"].contains(&name.as_str())),
            "{names:?}"
        );
        let mut script = Vec::new();
        clap_complete::generate(Shell::Bash, &mut public(), NAME, &mut script);
        let script = String::from_utf8(script).unwrap();
        assert!(script.contains("--repeat") && !script.contains(crate::hidden::WORKER));
    }
}
