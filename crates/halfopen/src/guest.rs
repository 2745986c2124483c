//! Virtual time: the same worker inside a kernel whose clock jumps to the next timer.
//!
//! On the host the worker of the sandbox boots the guest and passes on what it reports; in the
//! guest the same executable runs the trials. Orders and reports go through files on a tmpfs that
//! only the sandbox sees, and that ends with it.

mod wall;

use crate::channel::{Ending, Message, Orders};
use anyhow::{Context, Result, bail};
use lab::guest::{End, Guest, built_kernel, init};
use nix::mount::{MsFlags, mount};
use nix::unistd::{Uid, User};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use wall::WallTime;

/// The hidden subcommand that runs the trials inside the guest.
pub(crate) const GUEST: &str = "__guest";

const ORDERS: &str = "orders.json";
const MESSAGES: &str = "messages.jsonl";
/// Timer interrupts a second of the kernels that `just kernel` builds.
pub(crate) const HZ: [u32; 4] = [100, 250, 300, 1000];
/// What most distributions have, and what is taken unless something else is asked for.
pub(crate) const HZ_DEFAULT: u32 = 250;
/// Wall time after which a guest is taken for hung. Thirty days take some seconds.
const WATCHDOG: Duration = Duration::from_secs(300);
/// Memory for the two peers of a trial and their network; the host pays for what is touched.
const MIB_A_TRIAL: u32 = 8;
/// What the guest's wall clock says at boot: the same in every run, so that runs can be compared.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);
const SEED: u64 = 1;

/// Inside a guest this does everything and never returns; outside it does nothing.
pub(crate) fn take_over_if_guest() {
    if !init::is_guest() {
        return;
    }
    let code = match init::enter() {
        Ok(entry) => entry.run_self(),
        Err(error) => {
            eprintln!("error: {error}");
            5
        }
    };
    init::power_off(code)
}

/// The virtual kernel with this HZ, if it was built, or the one of unknown HZ that the environment
/// names, which comes before any other.
///
/// # Errors
/// What to do to have one.
pub(crate) fn find_kernel(hz: u32) -> Result<PathBuf, String> {
    if let Some(path) = ready_kernel() {
        let problem = format!("HALFOPEN_UML is {}, which is not a file", path.display());
        return if path.is_file() { Ok(path) } else { Err(problem) };
    }
    let candidates: Vec<PathBuf> =
        cache_homes().iter().map(|cache| built_kernel(cache, hz)).collect();
    candidates.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
        let looked: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
        format!(
            "there is no virtual kernel with HZ {hz} ({}): build it with `{}`, or name one in \
             HALFOPEN_UML",
            looked.join(", "),
            how_to_build(hz)
        )
    })
}

/// Whether the HZ that was asked for can be chosen.
///
/// # Errors
/// For a person: the environment has named a kernel already.
pub(crate) fn check_hz(asked: Option<u32>) -> Result<()> {
    if asked.is_some() && ready_kernel().is_some() {
        bail!(
            "--hz chooses between the kernels that `just kernel` builds, and HALFOPEN_UML names one \
             already: leave one of the two out"
        );
    }
    Ok(())
}

/// The kernel that the environment names.
pub(crate) fn ready_kernel() -> Option<PathBuf> {
    std::env::var_os("HALFOPEN_UML").map(PathBuf::from)
}

/// The command that builds a kernel.
pub(crate) fn how_to_build(hz: u32) -> String {
    if hz == HZ_DEFAULT { "just kernel".into() } else { format!("just kernel --hz {hz}") }
}

/// Where users keep what can be built again: this user's, and under sudo the caller's.
fn cache_homes() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let caller = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok());
    let caller = caller.and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok().flatten());
    [
        variable("XDG_CACHE_HOME").map(PathBuf::from),
        variable("HOME").map(|home| Path::new(&home).join(".cache")),
        caller.map(|user| user.dir.join(".cache")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// On the host, in the sandbox: boots the guest, and passes on everything that it reports.
pub(crate) fn run(
    orders: &Orders,
    kernel: &Path,
    stop: impl FnOnce() + Send + 'static,
) -> Result<i32> {
    let executable = std::fs::read_link("/proc/self/exe").context("finding this executable")?;
    let exchange = exchange_directory(&[kernel, &executable])?;
    let text = serde_json::to_vec(orders).context("writing the guest's orders")?;
    std::fs::write(exchange.join(ORDERS), text).context("writing the guest's orders")?;
    let mut messages = File::create_new(exchange.join(MESSAGES))
        .and_then(|_| File::open(exchange.join(MESSAGES)))
        .context("making the file for the guest's reports")?;

    let stopped = Arc::new(AtomicBool::new(false));
    let flag = stopped.clone();
    std::thread::Builder::new().name("stop".into()).spawn(move || {
        stop();
        flag.store(true, Ordering::Relaxed);
    })?;
    let guest = Guest::new(kernel, executable, &exchange)
        .arg(GUEST)
        .env("HALFOPEN_LOG", std::env::var("HALFOPEN_LOG").unwrap_or_else(|_| "warn".into()))
        .watchdog(WATCHDOG)
        .memory_mib(Guest::DEFAULT_MEMORY_MIB + MIB_A_TRIAL * orders.jobs as u32)
        .epoch(EPOCH)
        .seed(SEED);
    let end = Arc::new(OnceLock::new());
    let ended = end.clone();
    std::thread::Builder::new().name("guest".into()).spawn(move || {
        let _ = ended.set(guest.run());
    })?;

    let mut relay = Relay {
        missing: orders.plans.iter().map(|plan| plan.number).collect(),
        pending: Vec::new(),
        finished: false,
        wall_time: WallTime::is_wanted().then(WallTime::start),
    };
    loop {
        let over = end.get().is_some() || stopped.load(Ordering::Relaxed);
        relay.pass_on(&mut messages)?;
        if over {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    match end.get() {
        None => relay.conclude(&Ending::Interrupted),
        Some(Err(error @ lab::guest::Error::Namespaces { .. })) => {
            relay.conclude(&Ending::Skipped(error.to_string()))
        }
        Some(Err(error)) => bail!("starting the virtual kernel: {error}"),
        Some(Ok(report)) => {
            if let Some(wall_time) = &relay.wall_time {
                wall_time.tell(report.peak_rss_kib);
            }
            let why = match &report.end {
                End::PoweredOff(0) if relay.finished && relay.wall_time.is_none() => return Ok(0),
                End::PoweredOff(0) if relay.finished => return relay.conclude(&Ending::Complete),
                End::PoweredOff(code) => format!("the guest's worker ended early with code {code}"),
                End::NoCode => "the guest ended without a word".into(),
                End::Panicked { reason } => format!("the guest's kernel panicked: {reason}"),
                End::Died(how) => format!("the guest's kernel died: {how}"),
                End::Hung { watchdog } => {
                    format!("the guest did nothing for {} s of wall time", watchdog.as_secs())
                }
                End::Killed => "the guest was killed".into(),
            };
            eprintln!("{why}; its console:\n{}", report.console_text());
            relay.conclude(&Ending::Disturbed(why))
        }
    }
}

/// Passes on the guest's messages, line by line.
struct Relay {
    /// The trials that have not ended.
    missing: BTreeSet<usize>,
    pending: Vec<u8>,
    finished: bool,
    wall_time: Option<WallTime>,
}

impl Relay {
    fn pass_on(&mut self, messages: &mut File) -> Result<()> {
        messages.read_to_end(&mut self.pending).context("reading the guest's reports")?;
        let Some(last) = self.pending.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(());
        };
        let rest = self.pending.split_off(last + 1);
        let whole = std::mem::replace(&mut self.pending, rest);
        for line in whole.split(|byte| *byte == b'\n') {
            // Only the ends of trials matter here; everything else goes by unread.
            if line.starts_with(b"{\"Ended\"")
                && let Ok(Message::Ended(number, _)) = serde_json::from_slice(line)
            {
                self.missing.remove(&number);
            }
            self.finished |= line == b"\"Finished\"";
            if let Some(wall_time) = &mut self.wall_time {
                wall_time.take(line);
            }
        }
        let now = match &self.wall_time {
            // Said when the guest has ended, which nobody waits for otherwise.
            Some(_) if self.finished => whole.strip_suffix(b"\"Finished\"\n").unwrap_or(&whole),
            _ => &whole,
        };
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(now).and_then(|()| stdout.flush()).context("reporting")
    }

    /// Ends every trial that the guest did not, and the run.
    fn conclude(self, ending: &Ending) -> Result<i32> {
        let mut stdout = std::io::stdout().lock();
        let ends = self.missing.iter().map(|number| Message::Ended(*number, ending.clone()));
        for message in ends.chain([Message::Finished]) {
            serde_json::to_writer(&mut stdout, &message).context("reporting")?;
            stdout.write_all(b"\n").context("reporting")?;
        }
        stdout.flush().context("reporting")?;
        Ok(0)
    }
}

/// In the guest: runs the trials.
pub(crate) fn work() -> Result<i32> {
    let text = std::fs::read(ORDERS).context("reading the orders")?;
    let orders: Orders = serde_json::from_slice(&text).context("understanding the orders")?;
    let messages = File::options().append(true).open(MESSAGES).context("opening the reports")?;
    // Nobody stops a guest in good order: it ends with its host.
    crate::worker::work(orders, messages, || {
        loop {
            std::thread::park();
        }
    })
}

/// A directory that only this sandbox sees: a tmpfs over one that is empty on most machines and
/// holds nothing that is needed here.
fn exchange_directory(needed: &[&Path]) -> Result<PathBuf> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    for directory in ["/mnt", "/media", "/srv", "/opt"].map(PathBuf::from) {
        let hides = needed.iter().any(|path| path.starts_with(&directory));
        if directory.is_dir() && !hides {
            mount(Some("exchange"), &directory, Some("tmpfs"), flags, Some("mode=700"))
                .with_context(|| format!("mounting a private tmpfs on {}", directory.display()))?;
            return Ok(directory);
        }
    }
    bail!("none of /mnt, /media, /srv and /opt can be covered by a private tmpfs")
}
