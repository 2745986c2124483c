//! `halfopen`: the server is gone; when does the client find out, and what is it told?

mod advise;
mod article;
mod audit;
mod batch;
mod catalogue;
mod channel;
mod cli;
mod clocks;
mod command;
mod conduct;
mod conducted;
mod control;
mod descriptors;
mod doctor;
mod ended;
mod examine;
mod exec;
mod files;
mod guest;
mod heard;
mod hexadecimal;
mod hidden;
mod instruments;
mod judge;
mod judging;
mod kernels;
mod laboratory;
mod lease;
mod ledger;
mod manual;
mod merge;
mod mistakes;
mod obstacle;
mod output;
mod part;
mod parts;
mod peers;
mod pictures;
mod predict;
mod program;
mod reference;
mod run;
mod screen;
mod session;
mod setsockopt;
mod sole;
mod store;
mod supervisor;
mod trial;
mod validate;
mod worker;

use clap::Parser;
use cli::{Cli, Command, KernelCommand};
use output::Exit;

fn main() -> std::process::ExitCode {
    guest::take_over_if_guest();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("HALFOPEN_LOG")
                .unwrap_or_else(|_| "warn".into()),
        )
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return mistakes::tell(&error).into(),
    };
    output::set(cli.color, cli.quiet);
    let code = match cli.command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Exec(arguments) => exec::run(&arguments),
        Command::Predict(arguments) => predict::run(&arguments),
        Command::Advise(arguments) => advise::run(&arguments),
        Command::Audit(arguments) => audit::run(&arguments),
        Command::Setsockopt(arguments) => setsockopt::run(&arguments),
        Command::List { output } => reference::list(output.format),
        Command::Show { experiment } => reference::show(&experiment),
        Command::Init { file } => reference::init(&file),
        Command::Keys { output } => reference::keys(output.format),
        Command::Explain { key, output } => reference::explain(&key, output.format),
        Command::Judge { directories, output } => judge::run(&directories, output.format),
        Command::Export { form, directory } => judge::export(form, &directory),
        Command::Merge { directories, output } => merge::run(&directories, output.format),
        Command::Doctor { output } => doctor::run(output.format),
        Command::Kernel { command: KernelCommand::Build(arguments) } => {
            kernels::build(&arguments.for_script())
        }
        Command::Completions { shell } => manual::completions(shell),
        Command::Fault { kind, lasts, settings } => control::fault(&kind, lasts, settings),
        Command::Heal => control::heal(),
        Command::Article(arguments) => article::run(&arguments),
        Command::Validate(arguments) => validate::run(&arguments),
        Command::Clocks(arguments) => clocks::run(&arguments),
        Command::Man { directory } => manual::pages(&directory),
        Command::Reference { directory } => manual::reference(&directory),
        Command::Peer { hold: true, .. } => peer::hold(),
        Command::Peer { passive: true, .. } => {
            output::inner(peer::run_passive().map(|()| 0).map_err(Into::into))
        }
        Command::Peer { forward: true, .. } => {
            output::inner(peer::run_forward().map(|()| 0).map_err(Into::into))
        }
        Command::Peer { .. } => Exit(peers::run()),
        Command::Sandbox => output::inner(supervisor::sandbox()),
        Command::FirstProcess => output::inner(supervisor::init()),
        Command::Guest => output::inner(guest::work()),
        Command::Program(arguments) => sole::run(&arguments),
        Command::Launcher => output::inner(supervisor::launcher()),
        Command::Worker => output::inner(laboratory::run()),
    };
    code.into()
}
