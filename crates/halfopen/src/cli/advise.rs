//! Arguments of `advise`.

use super::{OutputArgs, some_time, whole};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
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
