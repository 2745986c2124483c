//! Arguments of what the model answers: `predict` and `advise`.

use super::kernel::parse_version;
use super::trials::SettingsArgs;
use super::{OutputArgs, some_time, whole};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  halfopen predict host-crash-sending --defaults
  halfopen predict host-crash-sending --set client.user_timeout=10s,30s,60s --hz 250")]
pub(crate) struct PredictArgs {
    /// The experiment's name or file
    #[arg(default_value = "host-crash-sending", value_name = "NAME|FILE")]
    pub(crate) experiment: String,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// The version of the kernel to predict, such as 6.1; with several, a sweep [default: 6.18]
    #[arg(long, value_name = "VERSION[,VERSION...]", value_delimiter = ',', value_parser = parse_version)]
    pub(crate) kernel: Vec<String>,
    /// Timer interrupts a second of the kernel to predict; with several, a sweep [default: this
    /// machine's]
    #[arg(long, value_name = "N[,N...]", value_delimiter = ',', allow_negative_numbers = true, value_parser = whole(10_000))]
    pub(crate) hz: Vec<u32>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  halfopen advise --detect 10s --survive 3s --for libpq --no-prove
  halfopen advise --explain keepalive=60/10/6,user_timeout=30s
  halfopen advise --review 'postgres://db/x?keepalives_idle=60&tcp_user_timeout=5000'")]
pub(crate) struct AdviseArgs {
    /// A dead peer must be found within this: from the last segment received where the connection is
    /// idle, from the first write that is not acknowledged where it writes
    #[arg(long, value_name = "D", value_parser = some_time)]
    pub(crate) detect: Option<Duration>,
    /// An outage that must be survived, wherever it falls
    #[arg(long, value_name = "D", default_value = "0s", value_parser = spec::duration::parse)]
    pub(crate) survive: Duration,
    /// What the connection does meanwhile
    #[arg(long, value_enum, default_value = "any")]
    pub(crate) traffic: TrafficName,
    /// A middlebox on the way forgets a flow that was idle for so long: a duration, or aws-nlb,
    /// aws-network-firewall, azure, ipvs, conntrack
    #[arg(long, value_name = "D|NAME")]
    pub(crate) behind: Option<String>,
    /// The path's round-trip time
    #[arg(long, value_name = "D", default_value = "0s", value_parser = spec::duration::parse)]
    pub(crate) rtt: Duration,
    /// The kernel's version, such as 6.12 [default: this machine's]
    #[arg(long, value_name = "VERSION")]
    pub(crate) kernel: Option<String>,
    /// The kernel's timer interrupts a second [default: this machine's]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole(10_000))]
    pub(crate) hz: Option<u32>,
    /// Print the setting as these write it, such as c,python,libpq; or all
    #[arg(long = "for", value_name = "LIST")]
    pub(crate) ecosystems: Option<String>,
    /// Only ask the model: no trials
    #[arg(long)]
    pub(crate) no_prove: bool,
    /// Say what options do, such as keepalive=60/10/6,user_timeout=30s
    #[arg(long, value_name = "SETTINGS", conflicts_with_all = ["detect", "review"])]
    pub(crate) explain: Option<String>,
    /// Read a connection string or lines of a configuration, and say what in it does not do what it
    /// seems to
    #[arg(long, value_name = "TEXT", conflicts_with = "detect")]
    pub(crate) review: Option<String>,
    /// Put results of the trials here; the directory may exist and hold other files
    #[arg(long, value_name = "DIR", default_value = "results/runs")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// What a connection does while its peer is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TrafficName {
    /// It waits.
    Idle,
    /// It has written, and waits for the acknowledgement.
    Sending,
    /// Either.
    Any,
}
