//! Passes on what a guest reports, and sees whether it makes progress.

use super::wall::WallTime;
use super::{FINISHED, say};
use crate::channel::{Ending, Message};
use anyhow::{Context, Result};
use lab::guest::{End, Pulse, Report};
use nix::fcntl::{FallocateFlags, fallocate};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write, stdout};
use std::time::Duration;

/// Passes on a guest's messages, line by line.
pub(super) struct Relay {
    messages: File,
    /// How much of it was read, bytes.
    read: u64,
    /// The trials that have started and not ended.
    running: BTreeSet<usize>,
    pending: Vec<u8>,
    finished: bool,
    wall_time: Option<WallTime>,
    /// It beats as trials begin and end, and as the guest's clock moves.
    pulse: Pulse,
    /// The latest moment that was told, nanoseconds.
    latest_ns: u64,
}

/// How much is read at once, bytes.
const READ_MOST: u64 = 1 << 20;
/// So many times for one guest, then the next.
const TURN: u32 = 16;

impl Relay {
    pub(super) fn new(messages: File, pulse: Pulse) -> Self {
        Self {
            messages,
            read: 0,
            running: BTreeSet::new(),
            pending: Vec::new(),
            finished: false,
            wall_time: WallTime::is_wanted().then(WallTime::start),
            pulse,
            latest_ns: 0,
        }
    }

    /// Everything that there is so far. While a guest goes on telling, others have their turn.
    pub(super) fn pass_on(&mut self) -> Result<()> {
        for _ in 0..TURN {
            if self.pass_on_some()? == 0 {
                break;
            }
        }
        Ok(())
    }

    fn pass_on_some(&mut self) -> Result<usize> {
        let some = (&self.messages).take(READ_MOST).read_to_end(&mut self.pending);
        let some = some.context("reading the guest's reports")?;
        self.forget_what_was_read(some as u64);
        let Some(last) = self.pending.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(some);
        };
        let rest = self.pending.split_off(last + 1);
        let whole = std::mem::replace(&mut self.pending, rest);
        for line in whole.split(|byte| *byte == b'\n') {
            self.look_at(line);
        }
        self.see_progress(&whole);
        // Said once, when every guest has ended.
        let now = match whole.strip_suffix(b"\n") {
            Some(lines) if self.finished => lines.strip_suffix(FINISHED).unwrap_or(&whole),
            _ => &whole,
        };
        let mut stdout = stdout().lock();
        stdout.write_all(now).and_then(|()| stdout.flush()).context("reporting")?;
        Ok(some)
    }

    /// Only beginnings and ends of trials matter here; everything else goes by unread.
    fn look_at(&mut self, line: &[u8]) {
        if line.starts_with(b"{\"Started\"") || line.starts_with(b"{\"Ended\"") {
            self.pulse.beat();
            match serde_json::from_slice(line) {
                Ok(Message::Started(position, _)) => self.running.insert(position),
                Ok(Message::Ended(position, _)) => self.running.remove(&position),
                _ => false,
            };
        }
        self.finished |= line == FINISHED;
        if let Some(wall_time) = &mut self.wall_time {
            wall_time.take(line);
        }
    }

    fn see_progress(&mut self, lines: &[u8]) {
        let latest_ns = lines.rsplit(|byte| *byte == b'\n').find_map(at_ns);
        if latest_ns.is_some_and(|at_ns| at_ns > self.latest_ns) {
            self.latest_ns = latest_ns.unwrap_or_default();
            self.pulse.beat();
        }
    }

    /// Gives the memory of the file's older part back: a tmpfs has no other place for it. The
    /// guest, which writes at its end, may write its last page again.
    fn forget_what_was_read(&mut self, some: u64) {
        const KEPT: u64 = 1 << 20;
        let before = self.read;
        self.read += some;
        if before / READ_MOST < self.read / READ_MOST
            && let Some(old @ 1..) = self.read.checked_sub(KEPT)
        {
            let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            // Without it more memory is needed, and nothing else changes.
            let _ = fallocate(&self.messages, hole, 0, old as i64);
        }
    }

    /// Takes the end of the guest: what it has left undone is said.
    pub(super) fn conclude(&mut self, ended: Result<Report, lab::guest::Error>) -> Result<()> {
        while self.pass_on_some()? > 0 {}
        let report = ended.context("starting the virtual kernel")?;
        if let Some(wall_time) = &self.wall_time {
            wall_time.tell(report.peak_rss_kib);
        }
        let why = match &report.end {
            End::PoweredOff(0) if self.finished => return Ok(()),
            End::PoweredOff(code) => format!(
                "the worker in the virtual kernel ended early with \
            code {code}"
            ),
            End::NoCode => "the virtual kernel ended without a report".into(),
            End::Panicked { reason } => format!("the virtual kernel panicked: {reason}"),
            End::Died(how) => format!("the virtual kernel died: {how}"),
            End::Hung { watchdog } => Self::why_it_hung(*watchdog, &report.console_text()),
            End::Killed => "the virtual kernel was killed".into(),
        };
        eprintln!("{why}; its console:\n{}", report.console_text());
        self.end(&Ending::Disturbed(why))
    }

    fn why_it_hung(watchdog: Duration, console: &str) -> String {
        let why = if console.contains("Out of memory") {
            "the virtual kernel ran out of memory: fewer trials at once (`--jobs`) leave each more"
        } else {
            "a program that never waits stops it, by a busy loop, by output without an end, or by \
             exchanging without a pause, which takes no time there: a delay of the path does \
             (`--set path.rtt=1ms`)"
        };
        format!("the virtual clock stood still for {} s of real time: {why}", watchdog.as_secs())
    }

    /// Ends every trial that the guest started and did not end.
    pub(super) fn end(&mut self, ending: &Ending) -> Result<()> {
        let running = std::mem::take(&mut self.running);
        say(running.into_iter().map(|position| Message::Ended(position, ending.clone())))
    }
}

/// The moment that an event's line tells, nanoseconds.
fn at_ns(line: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b"\"at_ns\":";
    let at = line.windows(KEY.len()).position(|part| part == KEY)? + KEY.len();
    let digits = line[at..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number: u64, digit| {
        number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use timeline::{Event, Source, What};

    #[test]
    fn a_line_tells_its_moment() {
        let event = Event::new(1_234, Source::Lab, What::SocketGone);
        let line = serde_json::to_vec(&Message::Event(0, event)).unwrap();
        assert_eq!(at_ns(&line), Some(1_234));
        assert_eq!(at_ns(FINISHED), None);
    }
}
