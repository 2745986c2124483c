//! Arguments of the commands that run trials: `run` and `exec`.

use super::kernel::TimeArgs;
use super::{StreamedArgs, port, whole};
use crate::part::Partition;
use clap::Args;
use spec::file::{Override, parse_override};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  halfopen run host-crash-sending
  halfopen run host-crash-sending --set sysctl.tcp_retries2=3..8 --out results
  halfopen run host-crash-idle-keepalive --defaults --clock virtual
  halfopen run my-service.toml --repeat 30 --format json")]
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
    /// Begin the fault at the moments at which, by the model, a requirement (require.*) is the most
    /// likely to fail, instead of fault.after
    #[arg(long)]
    pub(crate) worst: bool,
    #[command(flatten)]
    pub(crate) parts: PartsArgs,
}

/// Which trials of a sweep are run.
#[derive(Debug, Default, Args)]
pub(crate) struct PartsArgs {
    /// Continue the sweep in --out: trials that have ended are not repeated
    #[arg(long, conflicts_with = "no_save")]
    pub(crate) resume: bool,
    /// Run part I of N parts, such as 2/5; `halfopen merge` joins them
    #[arg(long, value_name = "I/N", conflicts_with = "no_save")]
    pub(crate) partition: Option<Partition>,
    /// Also write the table of all trials, small enough to keep, below this directory, under the name
    /// of kernel and clock
    #[arg(long, value_name = "DIR", conflicts_with = "no_save")]
    pub(crate) reference: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  halfopen exec --listen 7000 --fault power-off -- ./my-client
  halfopen exec --server 'nc -lk 7000' --fault power-off --after 2s -- nc server 7000
  halfopen exec --listen 7000 -- pytest")]
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
    #[arg(long, value_name = "PORT", value_parser = port)]
    pub(crate) listen: Option<u16>,
    /// A command in the middle: the client connects to the host `proxy`, and this to `server`. Without
    /// one, `--set topology=proxy` uses halfopen's own proxy
    #[arg(long, value_name = "CMD")]
    pub(crate) proxy: Option<String>,
    /// What breaks (see `halfopen explain fault.kind`); with several, each in a trial of its own
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
    /// Write no files: what is printed is all
    #[arg(long, conflicts_with = "out")]
    pub(crate) no_save: bool,
    #[command(flatten)]
    pub(crate) output: StreamedArgs,
}

impl TrialsArgs {
    /// Where results go, if anywhere.
    pub(crate) fn place(&self) -> Option<&Path> {
        (!self.no_save).then_some(self.out.as_path())
    }
}

impl TrialsArgs {
    /// Everything that changes a setting.
    pub(crate) fn overrides(&self) -> Vec<Override> {
        [self.settings.overrides.clone(), self.time.kernel.overrides()].concat()
    }
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
