//! Watches over the kernel's process: its console, its end, and the time that it takes.

use super::console::Console;
use super::{Error, Exchange};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sandbox::{KeeperOrder, Launch, Launcher, Stdio, Word};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::Instant;

/// How much of the end of the console is kept.
const CONSOLE_BYTES_MAX: usize = 256 * 1024;

/// What is known of a guest after its end.
pub(super) struct Finished {
    pub(super) ending: Ending,
    pub(super) console: Vec<u8>,
    pub(super) console_dropped_bytes: u64,
    pub(super) peak_rss_kib: u64,
}

pub(super) enum Ending {
    /// The kernel's process ended, with an exit code or by a signal.
    Kernel { code: Option<i32>, signal: Option<i32> },
    /// The deadline passed.
    Watchdog,
    /// Its keeper went without a word: only a SIGKILL does that.
    Killed,
}

/// Runs a kernel until it ends or the deadline passes, which may move meanwhile.
pub(super) fn run(
    launcher: &Launcher,
    launch: &Launch,
    exchange: &Exchange,
    deadline: impl Fn() -> Instant,
) -> Result<Finished, Error> {
    let (console, theirs) = io::pipe().map_err(Error::of("creating a pipe"))?;
    let null = File::open("/dev/null").map_err(Error::of("opening /dev/null"))?;
    let stdio = Stdio { input: null.as_fd(), output: theirs.as_fd(), error: theirs.as_fd() };
    let mut control = launcher
        .launch(launch, stdio, None, Some(exchange.as_fd()))
        .map_err(Error::of("starting the process"))?;
    drop(theirs);

    let mut listening = Some(console);
    let mut console = Console::new(CONSOLE_BYTES_MAX);
    let mut ending = Ending::Killed;
    let mut peak_rss_kib = 0;
    let mut buffer = [0; 16 * 1024];
    // The console is read to its end: everything that could write to it has ended with the keeper,
    // or soon will have.
    let (mut kept, mut expired) = (true, false);
    while kept || listening.is_some() {
        let left = deadline().saturating_duration_since(Instant::now());
        if left.is_zero() && !expired {
            expired = true;
            // It may have ended already.
            let _ = control.order(KeeperOrder::SignalAll(libc::SIGKILL));
        }
        // A poll lasts at most this long, and is then repeated.
        let left = if expired { u128::from(u16::MAX) } else { left.as_millis() + 1 };
        let timeout = PollTimeout::from(u16::try_from(left).unwrap_or(u16::MAX));
        let mut fds: Vec<_> = kept.then(|| control.as_fd()).into_iter().collect();
        fds.extend(listening.as_ref().map(AsFd::as_fd));
        let mut fds: Vec<_> =
            fds.into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        if matches!(poll(&mut fds, timeout), Err(Errno::EINTR) | Ok(0)) {
            continue;
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        let said = kept && ready[0];
        let printed = listening.is_some() && ready[usize::from(kept)];
        if said {
            match control.word().map_err(Error::of("listening to the keeper"))? {
                None => kept = false,
                Some(word) => {
                    if let Word::Ended { code, signal, peak_rss_kib: peak, .. } = word.checked()? {
                        (ending, peak_rss_kib) = (Ending::Kernel { code, signal }, peak);
                    }
                }
            }
        }
        if printed && let Some(pipe) = &mut listening {
            match pipe.read(&mut buffer) {
                Ok(0) => listening = None,
                Ok(length) => console.push(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => listening = None,
            }
        }
    }
    let (console, console_dropped_bytes) = console.into_parts();
    let ending = if expired { Ending::Watchdog } else { ending };
    Ok(Finished { ending, console, console_dropped_bytes, peak_rss_kib })
}
