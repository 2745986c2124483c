//! The command line: a contract, see the guide's docs/src/reference/commands.md.

mod advise;
mod checks;
mod kernel;
mod sockets;
mod trials;

use crate::output::{Colour, Format};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use spec::file::{Override, parse_override};
use std::ffi::OsString;
use std::path::PathBuf;

pub(crate) use advise::{AdviseArgs, PredictArgs, TrafficName};
pub(crate) use checks::{ArticleArgs, ArticleClock, ClocksArgs, ValidateArgs};
pub(crate) use kernel::{ClockName, KernelCommand};
pub(crate) use sockets::{AuditArgs, AuditFormat, SetsockoptArgs};
pub(crate) use trials::{ExecArgs, PartsArgs, RunArgs, TrialsArgs};

/// The server is gone; when does the client find out, and what is it told?
///
/// halfopen builds small networks out of namespaces, runs a real TCP client and server in them,
/// breaks one thing, watches every layer, and compares what it measured with what a model of the
/// kernel's timers predicted before the fault.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print verdicts alone: no timelines, no tables, no hints
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// When to print colours: auto (on a terminal, unless NO_COLOR is set or TERM is dumb), always or
    /// never
    #[arg(long, value_enum, default_value = "auto", hide_possible_values = true, global = true)]
    pub(crate) color: Colour,
}

const EXAMPLES: &str = "\
Start here:
  halfopen run host-crash-idle-keepalive         # break something, and see
  halfopen predict host-crash-sending --defaults # know it beforehand
  halfopen advise --detect 10s --survive 3s      # choose settings
  halfopen audit                                 # the connections of this machine
  halfopen doctor                                # what this machine can do

Exit codes:
  0  every trial agrees
  1  a trial disagrees; `audit --over`: a connection would take longer
  2  bad usage, or a bad experiment file
  3  a trial is inconclusive
  4  a trial is skipped: this machine cannot run it; `advise`: no option can do it
  5  internal failure, such as an output that cannot be written
  6  a requirement (require.*) is not met
With several trials, the most severe code is returned: 5, 1, 6, 3, 4, 0.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run experiments
    Run(RunArgs),
    /// Run a client and a server of your own, break something, and see what they do
    Exec(ExecArgs),
    /// Predict what should happen; needs no kernel and no privileges
    Predict(PredictArgs),
    /// Say which socket options find a dead peer in time and survive an outage, and prove it
    Advise(AdviseArgs),
    /// Predict when each TCP connection of this machine would find out that its peer is gone;
    /// changes nothing
    Audit(AuditArgs),
    /// Change options of a process's live connections; without --yes, only show what would change
    Setsockopt(SetsockoptArgs),
    /// List the experiments, with their questions
    List {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print an experiment's file
    #[command(after_help = "\
Example:
  halfopen show host-crash-sending > mine.toml")]
    Show {
        /// The experiment's name
        #[arg(value_name = "NAME")]
        experiment: String,
    },
    /// Write an experiment file to start from, with comments
    #[command(after_help = "\
Example:
  halfopen init mine.toml")]
    Init {
        /// The file, which must not be there yet
        #[arg(value_name = "FILE", default_value = "experiment.toml")]
        file: PathBuf,
    },
    /// List the keys of settings, with their defaults
    Keys {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Explain a key (what it accepts, its default, an example), or a claim that experiments test
    #[command(after_help = "\
Examples:
  halfopen explain sysctl.tcp_retries2
  halfopen explain B1")]
    Explain {
        /// The key, such as `client.user_timeout` or `sysctl.tcp_retries2`; or a claim's id, such
        /// as `B1`
        #[arg(value_name = "KEY")]
        key: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Judge recorded trials again, without privileges
    #[command(after_help = "\
Example:
  halfopen judge results/runs/*")]
    Judge {
        /// Directories of trials, or directories that hold them
        #[arg(required = true, value_name = "DIR")]
        directories: Vec<PathBuf>,
        #[command(flatten)]
        output: StreamedArgs,
    },
    /// Print a recorded trial for another tool: a picture (SVG), or a trace for ui.perfetto.dev
    #[command(after_help = "\
Example:
  halfopen export svg results/runs/host-crash-sending > picture.svg")]
    Export {
        /// What to print
        form: ExportForm,
        /// The trial's directory
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Join the parts of a sweep: judge their trials again, and list what is missing
    #[command(after_help = "\
Example:
  halfopen merge part-1 part-2")]
    Merge {
        /// Directories of results, what each part's `run` had as --out
        #[arg(required = true, value_name = "DIR")]
        directories: Vec<PathBuf>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Check what this machine can do, with a remedy for what it cannot
    Doctor {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Build the kernel of `--clock virtual` from the distribution's kernel source package (minutes, once)
    Kernel {
        #[command(subcommand)]
        command: KernelCommand,
    },
    /// Print a shell's completions
    #[command(after_help = "\
Example:
  halfopen completions bash > ~/.local/share/bash-completion/completions/halfopen")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// From inside a program of `exec`: break something in its trial
    #[command(after_help = "\
Examples:
  halfopen fault flap --for 5s
  halfopen fault reject --set reject=tcp-reset")]
    Fault {
        /// What breaks (see `halfopen explain fault.kind`)
        #[arg(value_name = "KIND")]
        kind: String,
        /// For how long; without it, until `halfopen heal`
        #[arg(long = "for", value_name = "D")]
        lasts: Option<String>,
        /// Another setting of the fault, such as `reject=tcp-reset`
        #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_override)]
        settings: Vec<Override>,
    },
    /// From inside a program of `exec`: undo what it broke
    Heal,
    /// Check what a well-known article says of lost peers against the kernel, on both clocks
    Article(ArticleArgs),
    /// Check the model against this kernel, on many settings
    Validate(ValidateArgs),
    /// Run experiments on both clocks, or on several kernels, with the same settings, and compare
    Clocks(ClocksArgs),
    /// Write the manual's pages into a directory
    #[command(hide = true)]
    Man {
        /// The directory, which must be there
        directory: PathBuf,
    },
    /// Write the guide's reference pages and pictures into its directory
    #[command(hide = true)]
    Reference {
        /// The directory, which must be there
        directory: PathBuf,
    },
    /// A peer of a trial: talks to the laboratory on standard input and output
    #[command(hide = true)]
    Peer {
        /// Only hold standard input, a connection, open
        #[arg(long)]
        hold: bool,
        /// Only connect as standard input says, and read
        #[arg(long, conflicts_with = "hold")]
        passive: bool,
        /// Only pass connections on as standard input says
        #[arg(long, conflicts_with_all = ["hold", "passive"])]
        forward: bool,
    },
    #[command(hide = true, name = crate::hidden::SANDBOX)]
    Sandbox,
    #[command(hide = true, name = crate::hidden::INIT)]
    FirstProcess,
    #[command(hide = true, name = crate::hidden::WORKER)]
    Worker,
    #[command(hide = true, name = crate::hidden::PROGRAM)]
    Program(ProgramArgs),
    #[command(hide = true, name = crate::hidden::LAUNCHER)]
    Launcher,
    #[command(hide = true, name = crate::hidden::GUEST)]
    Guest,
}

#[derive(Debug, Args)]
pub(crate) struct ProgramArgs {
    /// Clock: `real`, or `virtual` (a kernel that skips waiting)
    #[arg(long, value_enum, default_value = "real")]
    pub(crate) clock: ClockName,
    /// What to run as the program of a host
    #[arg(required = true, last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct ResultsArgs {
    /// Put results into a new directory below this one, which may exist and hold other files
    #[arg(long, value_name = "DIR", default_value = "results/runs")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// For people, or one JSON document for programs
    #[arg(long, default_value = "human", value_parser = human_or_json())]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct StreamedArgs {
    /// Text for people, one JSON document, or one JSON line for each trial as it ends
    #[arg(long, value_enum, default_value = "human")]
    pub(crate) format: Format,
}

fn human_or_json() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(["human", "json"])
        .map(|name| if name == "json" { Format::Json } else { Format::Human })
}

/// What a trial is printed as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportForm {
    /// The sequence diagram, for a light page
    Svg,
    /// The sequence diagram, for a dark page
    SvgDark,
    /// A trace of events, states and timers, in JSON
    Perfetto,
}

/// A duration above zero.
fn some_time(text: &str) -> Result<std::time::Duration, String> {
    let duration = spec::duration::parse(text)?;
    if duration.is_zero() {
        return Err("it must be longer than 0 s".into());
    }
    Ok(duration)
}

/// A whole number from 1 to `most`.
fn whole(most: u32) -> impl Fn(&str) -> Result<u32, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| (1..=most).contains(number));
        number.ok_or_else(|| format!("it is a whole number from 1 to {most}"))
    }
}

/// A port.
fn port(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "a port is a whole number from 1 to 65535".into())
}
