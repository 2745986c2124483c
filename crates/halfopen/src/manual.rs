//! What is made from the command line's own description: completions and the manual's pages.

use crate::catalogue;
use crate::cli::Cli;
use crate::output::{self, Exit};
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

/// The guide's reference pages.
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
    for (name, page) in pages {
        let path = directory.join(name);
        fs::write(&path, page).with_context(|| format!("writing {}", path.display()))?;
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
    for command in all.get_subcommands_mut() {
        let name = format!("{NAME} {}", command.get_name());
        help(command, &name);
    }
    page
}

/// The commands that people call.
fn public() -> Command {
    let all = Cli::command();
    let shown = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let text = |text: Option<&clap::builder::StyledStr>| text.cloned().unwrap_or_default();
    Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .about(text(all.get_about()))
        .long_about(text(all.get_long_about()))
        .after_help(text(all.get_after_help()))
        .subcommands(shown.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

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
