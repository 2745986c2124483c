//! Arguments of the commands for sockets that live: `audit` and `setsockopt`.

use super::{OutputArgs, port, some_time, whole};
use clap::{Args, ValueEnum};
use std::time::Duration;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  halfopen audit --port 5432
  halfopen audit --over 60s --format csv")]
pub(crate) struct AuditArgs {
    /// Only connections of this process
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole(u32::MAX))]
    pub(crate) pid: Option<u32>,
    /// Only connections with this port at either end
    #[arg(long, value_name = "N", value_parser = port)]
    pub(crate) port: Option<u16>,
    /// Every network namespace of the machine that a process is in; needs root
    #[arg(long)]
    pub(crate) all: bool,
    /// Exit with 1 if a connection would take longer than this to find out, idle or writing
    #[arg(long, value_name = "D", value_parser = spec::duration::parse)]
    pub(crate) over: Option<Duration>,
    /// Look again every so long, and say what has changed
    #[arg(long, value_name = "D", num_args = 0..=1, default_missing_value = "2s", require_equals = true)]
    #[arg(value_parser = some_time)]
    pub(crate) watch: Option<Duration>,
    /// For people, one JSON document, a line a connection, or metrics for a node exporter's textfile
    /// directory
    #[arg(long, value_enum, default_value = "human")]
    pub(crate) format: AuditFormat,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  halfopen setsockopt --pid 812 keepalive=30/5/3 user_timeout=30s")]
pub(crate) struct SetsockoptArgs {
    /// The process whose connections are to change
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole(u32::MAX))]
    pub(crate) pid: u32,
    /// Only connections with this port at either end
    #[arg(long, value_name = "N", value_parser = port)]
    pub(crate) port: Option<u16>,
    /// Change them; without it, only what would change is shown
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// keepalive=on|off|IDLE/INTERVAL/COUNT (seconds), keepidle=D, keepintvl=D, keepcnt=N,
    /// user_timeout=D|off, rto_max=D
    #[arg(required = true, value_name = "OPTION=VALUE")]
    pub(crate) options: Vec<String>,
}

/// What `audit` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AuditFormat {
    /// Text for people.
    Human,
    /// One JSON document.
    Json,
    /// Comma-separated values.
    Csv,
    /// OpenMetrics text.
    Openmetrics,
}
