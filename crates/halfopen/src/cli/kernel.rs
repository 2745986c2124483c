//! Arguments that choose a clock and a kernel, and those of `kernel`, which builds one.

use super::whole;
use crate::{catalogue, kernels};
use anyhow::anyhow;
use clap::{Args, Subcommand, ValueEnum};
use spec::VirtualKernel;
use spec::file::Override;
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct TimeArgs {
    /// Clock: `real`, or `virtual` (a kernel that skips waiting)
    #[arg(long, value_enum, default_value = "real")]
    pub(crate) clock: ClockName,
    #[command(flatten)]
    pub(super) kernel: KernelArgs,
}

/// The virtual kernel. With several values it is a sweep, as with `--set`.
#[derive(Debug, Default, Args)]
pub(crate) struct KernelArgs {
    /// In virtual time: the kernel's version, such as 6.1; with several, a sweep [default: the one that
    /// was built last]
    #[arg(long, value_name = "VERSION[,VERSION...]", value_delimiter = ',', value_parser = parse_version)]
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

#[derive(Debug, Subcommand)]
pub(crate) enum KernelCommand {
    /// Build it into ~/.cache/halfopen; no root, nothing is installed
    Build(BuildArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  halfopen kernel build
  halfopen kernel build --kernel 6.1 --hz 1000")]
pub(crate) struct BuildArgs {
    /// The version of the distribution's package linux-source-VERSION, such as 6.1 [default: the newest
    /// that is installed]
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    pub(crate) kernel: Option<String>,
    /// Timer interrupts a second: 100, 250, 300 or 1000
    #[arg(long, value_name = "N", default_value_t = kernels::HZ_DEFAULT, allow_negative_numbers = true, value_parser = parse_hz)]
    pub(crate) hz: u32,
    /// A kernel's source instead of the distribution's package
    #[arg(long, value_name = "DIR|TARBALL", conflicts_with = "kernel")]
    pub(crate) source: Option<PathBuf>,
    /// Compile with this many jobs [default: all processors]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole(4000))]
    pub(crate) jobs: Option<u32>,
    /// Build it even if it has been built
    #[arg(long)]
    pub(crate) force: bool,
    /// Build nothing: print where it is
    #[arg(long)]
    pub(crate) print: bool,
}

impl BuildArgs {
    /// The same as the builder's script takes it.
    pub(crate) fn for_script(&self) -> Vec<OsString> {
        let hz = Some(self.hz.to_string().into());
        let jobs = self.jobs.map(|jobs| jobs.to_string().into());
        let given = [
            ("--kernel", self.kernel.clone().map(OsString::from)),
            ("--hz", hz),
            ("--source", self.source.clone().map(OsString::from)),
            ("--jobs", jobs),
        ];
        let given = given.into_iter().filter_map(|(name, value)| Some([name.into(), value?]));
        let switches = [("--force", self.force), ("--print", self.print)];
        let switches = switches.into_iter().filter(|(_, on)| *on).map(|(name, _)| name.into());
        given.flatten().chain(switches).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClockName {
    Real,
    Virtual,
}

impl From<ClockName> for report::Clock {
    fn from(name: ClockName) -> Self {
        match name {
            ClockName::Real => Self::Real,
            ClockName::Virtual => Self::Virtual,
        }
    }
}

pub(super) fn parse_version(text: &str) -> Result<String, String> {
    spec::settings::apply(&mut spec::Parameters::default(), "kernel", text)?;
    Ok(text.into())
}

fn parse_hz(text: &str) -> Result<u32, String> {
    let known = || text.parse().ok().filter(|hz| VirtualKernel::HZ.contains(hz));
    known().ok_or_else(|| "a virtual kernel is built with 100, 250, 300 or 1000".into())
}
