//! Arguments of the commands that check the model, and what is said of TCP, against kernels: `article`,
//! `validate` and `clocks`.

use super::kernel::{KernelArgs, TimeArgs};
use super::{ResultsArgs, whole};
use clap::{Args, ValueEnum};
use spec::file::{Override, parse_override};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct ClocksArgs {
    /// Names of experiments, or TOML files [default: all experiments]
    #[arg(value_name = "NAME|FILE")]
    pub(crate) experiments: Vec<String>,
    /// Change a setting, such as `client.keepalive.idle=5s` or `sysctl.tcp_retries2=8`; several values are a
    /// sweep, as of `run`
    #[arg(long = "set", value_name = "KEY=VALUE[,VALUE...]", value_parser = parse_override)]
    pub(crate) overrides: Vec<Override>,
    #[command(flatten)]
    pub(crate) kernel: KernelArgs,
    /// Also write the table below this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) reference: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) results: ResultsArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ArticleArgs {
    /// Short settings on this machine's clock, the Linux defaults in virtual time, or both
    #[arg(long, value_enum, default_value = "both")]
    pub(crate) clock: ArticleClock,
    /// Also write the findings, small enough to keep, below this directory, under the name of kernel and
    /// clock
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
    /// Also write the table, small enough to keep, below this directory, under the name of kernel and
    /// clock
    #[arg(long, value_name = "DIR")]
    pub(crate) reference: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) results: ResultsArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ArticleClock {
    Real,
    Virtual,
    Both,
}
