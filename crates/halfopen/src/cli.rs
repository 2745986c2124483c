//! The command line: a contract, see the guide's docs/src/reference/commands.md.

mod advise;
mod sockets;

use crate::output::{Colour, Format};
use crate::part::Partition;
use crate::{catalogue, kernels};
use anyhow::anyhow;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use spec::VirtualKernel;
use spec::file::{Override, parse_override};
use std::ffi::OsString;
use std::path::PathBuf;

pub(crate) use advise::{AdviseArgs, TrafficName};
pub(crate) use sockets::{AuditArgs, AuditFormat, SetsockoptArgs};

/// The server is gone; when does the client find out, and what is it told?
///
/// halfopen builds small networks out of namespaces, runs a real TCP client and server in them,
/// breaks one thing, watches every layer, and holds what it measured against what a model of the
/// kernel's timers predicted before the fault.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print verdicts alone: no timelines, no tables, no hints
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// When to print colours; `auto`: on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, default_value = "auto", global = true)]
    pub(crate) color: Colour,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  every trial agrees
  1  a trial disagrees; `audit --over`: a connection would take longer
  2  bad usage, or a bad experiment file
  3  a trial is inconclusive
  4  a trial is skipped: this machine cannot run it
  5  internal failure, such as an output that cannot be written
  6  a requirement (require.*) is not met
With several trials, the most severe code is returned: 5, 1, 6, 3, 4, 0.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the experiments, with their questions
    List {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print an experiment's file
    Show {
        /// The experiment's name
        #[arg(value_name = "NAME")]
        experiment: String,
    },
    /// Write an experiment file to start from, with comments
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
    /// Explain a key (what it accepts, its default, an example) or a claim's id
    Explain {
        /// The key, such as `client.user_timeout` or `sysctl.tcp_retries2`; or a claim's id, such
        /// as `B1`
        #[arg(value_name = "KEY")]
        key: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Run experiments
    Run(RunArgs),
    /// Run a client and a server of your own, break something, and see what they do
    Exec(ExecArgs),
    /// Run experiments on both clocks, or on several kernels, with the same settings, and compare
    Clocks(ClocksArgs),
    /// Check every claim of the article against the kernel, on both clocks
    Article(ArticleArgs),
    /// Predict when each TCP connection of this machine would find out that its peer is gone;
    /// changes nothing
    Audit(AuditArgs),
    /// Change options of a process's live connections, by a duplicate of its descriptors; asks first
    Setsockopt(SetsockoptArgs),
    /// Check the model against this kernel, on many settings
    Validate(ValidateArgs),
    /// From inside a program of `exec`: break something in its trial
    Fault {
        /// What breaks (see `fault.kind`)
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
    /// Predict what should happen; needs no kernel and no privileges
    Predict(PredictArgs),
    /// Say which socket options find a dead peer in time and survive an outage, and prove it
    Advise(AdviseArgs),
    /// Judge recorded trials again, without privileges
    Judge {
        /// Directories of trials, or directories that hold them
        #[arg(required = true, value_name = "DIR")]
        directories: Vec<PathBuf>,
        #[command(flatten)]
        output: StreamedArgs,
    },
    /// Print a recorded trial for another tool: a picture (SVG), or a trace for ui.perfetto.dev
    Export {
        /// What to print
        form: ExportForm,
        /// The trial's directory
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Join the parts of a sweep: judge their trials again, and list what is missing
    Merge {
        /// Directories of results (--out)
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
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual's pages into a directory
    #[command(hide = true)]
    Man {
        /// The directory, which must be there
        directory: PathBuf,
    },
    /// Write the guide's reference pages into a directory
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
pub(crate) struct RunArgs {
    /// Names of experiments (see `halfopen list`), or TOML files
    #[arg(required = true, value_name = "NAME|FILE")]
    pub(crate) experiments: Vec<String>,
    #[command(flatten)]
    pub(crate) trials: TrialsArgs,
    /// In virtual time: run each experiment at N start phases of the timer wheel, to show the whole
    /// range of times that it can take
    #[arg(long, value_name = "N", conflicts_with = "repeat", allow_negative_numbers = true, value_parser = whole(4000))]
    pub(crate) phases: Option<u32>,
    /// Run each at the moments of its fault at which the model finds what it requires (require.*) in
    /// the most danger, instead of fault.after
    #[arg(long)]
    pub(crate) worst: bool,
    #[command(flatten)]
    pub(crate) parts: PartsArgs,
}

/// Which trials of a sweep are run.
#[derive(Debug, Default, Args)]
pub(crate) struct PartsArgs {
    /// Continue the sweep in --out: trials that have ended are not repeated
    #[arg(long)]
    pub(crate) resume: bool,
    /// Run part I of N parts, such as 2/5; `halfopen merge` joins them
    #[arg(long, value_name = "I/N")]
    pub(crate) partition: Option<Partition>,
    /// Also write the table of all trials into a directory for this kernel and clock here, to be kept
    #[arg(long, value_name = "DIR")]
    pub(crate) reference: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// The server's command, a line as for a shell; `{client}` and `{server}` stand for addresses.
    /// It is ready when it listens
    #[arg(long, value_name = "CMD")]
    pub(crate) server: Option<String>,
    /// A command on the client's host that succeeds once the server is ready
    #[arg(long, value_name = "CMD", requires = "server")]
    pub(crate) ready: Option<String>,
    /// Without --server: the port of halfopen's own server, which sends back what it gets. Without a
    /// client: the port that halfopen's own client connects to [default: where the server listens]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) listen: Option<u16>,
    /// A command in the middle: the client connects to the host `proxy`, and this to `server`. Without
    /// one, `--set topology=proxy` has halfopen's own forward
    #[arg(long, value_name = "CMD")]
    pub(crate) proxy: Option<String>,
    /// What breaks (see `fault.kind`); with several, each in a trial of its own
    #[arg(long, value_name = "KIND[,KIND...]", default_value = "none")]
    pub(crate) fault: String,
    /// The time from the first data that the client receives to the fault
    #[arg(long, value_name = "D")]
    pub(crate) after: Option<String>,
    /// Count --after from the first line of a program's output that matches this
    #[arg(long, value_name = "REGEX")]
    pub(crate) on_output: Option<String>,
    /// The host that breaks [default: server; without a client, client]
    #[arg(long, value_name = "client|server|proxy")]
    pub(crate) fault_host: Option<String>,
    /// The time from the fault to the end of the trial [default: from the prediction]
    #[arg(long, value_name = "D")]
    pub(crate) deadline: Option<String>,
    /// Give the client a terminal as its standard streams
    #[arg(long)]
    pub(crate) tty: bool,
    #[command(flatten)]
    pub(crate) trials: TrialsArgs,
    /// The client's command; without it halfopen's own client connects, says nothing and reads
    #[arg(last = true, value_name = "CLIENT")]
    pub(crate) client: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ClocksArgs {
    /// Names of experiments, or TOML files [default: all experiments]
    #[arg(value_name = "NAME|FILE")]
    pub(crate) experiments: Vec<String>,
    /// Change a setting, such as `client.keepalive.idle=5s` or `sysctl.tcp_retries2=8`
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_override)]
    pub(crate) overrides: Vec<Override>,
    #[command(flatten)]
    pub(crate) kernel: KernelArgs,
    #[command(flatten)]
    pub(crate) results: ResultsArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ArticleArgs {
    /// Short settings on this machine's clock, the Linux defaults in virtual time, or both
    #[arg(long, value_enum, default_value = "both")]
    pub(crate) clock: ArticleClock,
    /// Also write what is small enough to be kept, a directory for each kernel and clock, here
    #[arg(long, value_name = "DIR")]
    pub(crate) reference: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) results: ResultsArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    #[command(flatten)]
    pub(crate) time: TimeArgs,
    /// Try each setting this many times
    #[arg(long, default_value_t = 3, value_name = "N", allow_negative_numbers = true, value_parser = whole(20))]
    pub(crate) repeat: u32,
    /// Run at most this many trials side by side
    #[arg(long, default_value_t = 64, value_name = "N", allow_negative_numbers = true, value_parser = whole(4000))]
    pub(crate) jobs: u32,
    /// Predict from single samples of the client's socket too, drawn at random, and compare
    #[arg(long)]
    pub(crate) samples: bool,
    /// Also write the table into a directory for this kernel and clock here, to be kept
    #[arg(long, value_name = "DIR")]
    pub(crate) reference: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) results: ResultsArgs,
}

/// A duration above zero.
fn some_time(text: &str) -> Result<std::time::Duration, String> {
    let duration = spec::duration::parse(text)?;
    if duration.is_zero() {
        return Err("it must be longer than 0 s".into());
    }
    Ok(duration)
}

#[derive(Debug, Args)]
pub(crate) struct PredictArgs {
    /// The experiment's name or file
    #[arg(default_value = "host-crash-sending", value_name = "NAME|FILE")]
    pub(crate) experiment: String,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// The version of the kernel to predict, such as 6.1; with several, a sweep [default: a recent one]
    #[arg(long, value_name = "VERSION[,VERSION...]", value_delimiter = ',')]
    pub(crate) kernel: Vec<String>,
    /// Timer interrupts a second of the kernel to predict; with several, a sweep [default: this
    /// machine's]
    #[arg(long, value_name = "N[,N...]", value_delimiter = ',', allow_negative_numbers = true, value_parser = whole(10_000))]
    pub(crate) hz: Vec<u32>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
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

/// A whole number from 1 to `most`.
fn whole(most: u32) -> impl Fn(&str) -> Result<u32, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| (1..=most).contains(number));
        number.ok_or_else(|| format!("it is a whole number from 1 to {most}"))
    }
}

fn parse_hz(text: &str) -> Result<u32, String> {
    let known = || text.parse().ok().filter(|hz| VirtualKernel::HZ.contains(hz));
    known().ok_or_else(|| "a virtual kernel is built with 100, 250, 300 or 1000".into())
}

/// How trials are run, whatever they are.
#[derive(Debug, Args)]
pub(crate) struct TrialsArgs {
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    #[command(flatten)]
    pub(crate) time: TimeArgs,
    /// Run each this many times
    #[arg(long, default_value_t = 1, value_name = "N", allow_negative_numbers = true, value_parser = whole(4000))]
    pub(crate) repeat: u32,
    /// Run at most this many trials side by side [default: all, up to 32]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole(4000))]
    pub(crate) jobs: Option<u32>,
    /// The directory for results; it may exist and hold other files
    #[arg(long, value_name = "DIR", default_value = "results/runs")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) output: StreamedArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TimeArgs {
    /// Clock: `real`, or `virtual` (a kernel that skips waiting)
    #[arg(long, value_enum, default_value = "real")]
    pub(crate) clock: ClockName,
    #[command(flatten)]
    kernel: KernelArgs,
}

/// The virtual kernel. With several values it is a sweep, as with `--set`.
#[derive(Debug, Default, Args)]
pub(crate) struct KernelArgs {
    /// In virtual time: the kernel's version, such as 6.1; with several, a sweep [default: the one that
    /// was built last]
    #[arg(long, value_name = "VERSION[,VERSION...]", value_delimiter = ',')]
    kernel: Vec<String>,
    /// In virtual time: timer interrupts a second of the kernel, which decide how late its timers
    /// fire: 100, 250, 300 or 1000; with several, a sweep [default: 250]
    #[arg(long, value_name = "N[,N...]", value_delimiter = ',', allow_negative_numbers = true, value_parser = parse_hz)]
    hz: Vec<u32>,
}

impl KernelArgs {
    /// The same as `--set` says it.
    pub(crate) fn overrides(&self) -> Vec<Override> {
        let given =
            |key: &str, values: String| (!values.is_empty()).then(|| (key.to_owned(), values));
        let hz: Vec<_> = self.hz.iter().map(u32::to_string).collect();
        [given("kernel", self.kernel.join(",")), given("hz", hz.join(","))]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Every kernel that is asked for.
    ///
    /// # Errors
    /// For a person: a version that is none.
    pub(crate) fn all(&self) -> anyhow::Result<Vec<VirtualKernel>> {
        let points = catalogue::points(&self.overrides())?.into_iter();
        let kernel = |point: Vec<Override>| {
            let mut parameters = spec::Parameters::default();
            for (key, value) in point {
                spec::settings::apply(&mut parameters, &key, &value)
                    .map_err(|why| anyhow!("--{key} {value}: {why}"))?;
            }
            Ok(parameters.kernel)
        };
        points.map(kernel).collect()
    }
}

impl TimeArgs {
    /// The clock and its only kernel.
    ///
    /// # Errors
    /// For a person: the kernel cannot be chosen, or there are several.
    pub(crate) fn chosen(&self) -> anyhow::Result<(report::Clock, VirtualKernel)> {
        let [kernel] = <[_; 1]>::try_from(self.kernel.all()?).map_err(|all| {
            anyhow!("{} kernels are asked for: give one --kernel and one --hz", all.len())
        })?;
        kernels::check(self.clock.into(), &kernel)?;
        Ok((self.clock.into(), kernel))
    }
}

impl TrialsArgs {
    /// Everything that changes a setting.
    pub(crate) fn overrides(&self) -> Vec<Override> {
        [self.settings.overrides.clone(), self.time.kernel.overrides()].concat()
    }
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
pub(crate) struct SettingsArgs {
    /// Change a setting, such as `client.keepalive.idle=5s`. Several values, `3,5,8`, or a range,
    /// `1..15` or `200ms..3s/200ms`, are a sweep: every combination of all such settings
    #[arg(long = "set", value_name = "KEY=VALUE[,VALUE...]", value_parser = parse_override)]
    pub(crate) overrides: Vec<Override>,
    /// Put sysctls and keepalive times at the Linux defaults
    #[arg(long)]
    pub(crate) defaults: bool,
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

#[derive(Debug, Subcommand)]
pub(crate) enum KernelCommand {
    /// Build it into ~/.cache/halfopen; no root, nothing is installed
    Build {
        /// Arguments of the build: --kernel VERSION, --hz 100|250|300|1000, --source DIR|TARBALL,
        /// --jobs N, --force, --print
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<String>,
    },
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClockName {
    Real,
    Virtual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ArticleClock {
    Real,
    Virtual,
    Both,
}

impl From<ClockName> for report::Clock {
    fn from(name: ClockName) -> Self {
        match name {
            ClockName::Real => Self::Real,
            ClockName::Virtual => Self::Virtual,
        }
    }
}
