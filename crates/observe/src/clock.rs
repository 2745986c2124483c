//! The clocks of the machine: monotonic time, wall time against it, HZ, jiffies.

use nix::time::{ClockId, clock_getres, clock_gettime};
use spec::facts::JiffyClock;
use std::io::Read;
use std::sync::{Mutex, PoisonError};

const NS_PER_S: u64 = 1_000_000_000;

pub use netns::monotonic_ns;

/// For how long the machine has been suspended since it booted: `CLOCK_BOOTTIME` less
/// `CLOCK_MONOTONIC`, nanoseconds, to within the time between two readings.
pub fn suspended_ns() -> u64 {
    let monotonic = monotonic_ns();
    read(ClockId::CLOCK_BOOTTIME).saturating_sub(monotonic)
}

/// Timer interrupts a second. The resolution of the coarse clock is one tick, so that no privilege
/// is needed (`posix_get_coarse_res`, kernel/time/posix-timers.c).
pub fn hz() -> u32 {
    let resolution = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)
        .expect("every Linux since 2.6.32 has the coarse clock");
    hz_of_tick(nanoseconds(resolution))
}

/// The kernel's release, as `uname -r` gives it.
pub fn kernel_release() -> String {
    nix::sys::utsname::uname()
        .map(|names| names.release().to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Which jiffy it is at which moment, from `/proc/timer_list`; `None` where that cannot be read
/// (it takes root) or says nothing. [`crate::Tracer::jiffy_clock`] is the other source.
///
/// `jiffies` can lag behind the grid of ticks for as long as interrupts are late, and never leads
/// it: of all readings of this process the one that lags least is right. The grid itself does not
/// move (`tick_do_update_jiffies64`, kernel/time/tick-sched.c).
pub fn jiffy_clock() -> Option<JiffyClock> {
    static BEST: Mutex<Option<JiffyClock>> = Mutex::new(None);
    let tick_ns = tick_ns(hz());
    let start = |clock: &JiffyClock| {
        i128::from(clock.at_ns) - i128::from(clock.jiffies) * i128::from(tick_ns)
    };
    let mut best = BEST.lock().unwrap_or_else(PoisonError::into_inner);
    // Each takes some milliseconds of a virtual kernel.
    let readings = if best.is_some() { 1 } else { 10 };
    let read = (0..readings).filter_map(|_| read_timer_list(tick_ns));
    // The earliest beginning of jiffy 0 is the reading that lags least.
    *best = read.chain(best.take()).min_by_key(start);
    *best
}

/// The same at this moment, where time is virtual: there a tick that comes before the one before it was handled is
/// lost (`time_travel_periodic_timer`, arch/um/kernel/time.c), so that the grid moves, and earlier readings are
/// of another. Of a few readings, the first at which no tick is waiting.
pub fn jiffy_clock_now() -> Option<JiffyClock> {
    let tick_ns = tick_ns(hz());
    let reading = || {
        let coarse_ns = read(ClockId::CLOCK_MONOTONIC_COARSE);
        Some((coarse_ns, read_timer_list(tick_ns)?))
    };
    let mut readings = (0..10).filter_map(|_| reading()).peekable();
    let first = readings.peek().map(|(_, clock)| *clock);
    let on_time = readings.find(|(coarse_ns, clock)| clock.at_ns < coarse_ns + tick_ns);
    on_time.map(|(_, clock)| clock).or(first)
}

/// The clock, put forward by whole ticks if it lags behind `seen`: a jiffy that had begun by that moment, as
/// a trace record shows it ([`crate::Tracer::jiffy_clock`]). Interrupts may have been late at every reading
/// of the one, and not at every record of the other.
pub fn not_behind(clock: JiffyClock, seen: JiffyClock) -> JiffyClock {
    let tick_ns = i128::from(tick_ns(hz()));
    let start = |clock: JiffyClock| i128::from(clock.at_ns) - i128::from(clock.jiffies) * tick_ns;
    // To the nearest: both are of one grid, and a tick may be counted a moment before it is due.
    let behind = (start(clock) - start(seen) + tick_ns / 2).div_euclid(tick_ns);
    let behind = u64::try_from(behind).unwrap_or(0);
    JiffyClock { jiffies: clock.jiffies + behind, ..clock }
}

/// One reading of `/proc/timer_list`.
fn read_timer_list(tick_ns: u64) -> Option<JiffyClock> {
    let coarse_ns = read(ClockId::CLOCK_MONOTONIC_COARSE);
    // In as few pieces as there can be, between which a tick could come.
    let mut text = String::with_capacity(64 * 1024);
    std::fs::File::open("/proc/timer_list").ok()?.read_to_string(&mut text).ok()?;
    let clock = parse_timer_list(&text, tick_ns, coarse_ns)?;
    // A tick while the file was read could be counted in one of its lines only.
    (monotonic_ns() < clock.at_ns + tick_ns).then_some(clock)
}

/// `TICK_NSEC`: the length of a jiffy on the monotonic clock, nanoseconds.
pub fn tick_ns(hz: u32) -> u64 {
    let hz = u64::from(hz.max(1));
    (NS_PER_S + hz / 2) / hz
}

/// Monotonic time, and wall time minus monotonic time, nanoseconds: from the first of a few paired
/// readings that are close together, or the closest. In a virtual kernel each costs a system call.
pub(crate) fn wall_offset_ns() -> (u64, i64) {
    const PAIRS: usize = 3;
    const CLOSE_NS: u64 = 1_000;
    let mut closest = (u64::MAX, 0, 0);
    for _ in 0..PAIRS {
        let before = monotonic_ns();
        let wall = read(ClockId::CLOCK_REALTIME);
        let after = monotonic_ns();
        let middle = before + (after - before) / 2;
        closest = closest.min((after - before, after, wall.cast_signed() - middle.cast_signed()));
        if closest.0 <= CLOSE_NS {
            break;
        }
    }
    (closest.1, closest.2)
}

fn read(clock: ClockId) -> u64 {
    nanoseconds(clock_gettime(clock).expect("every Linux has this clock"))
}

fn nanoseconds(time: nix::sys::time::TimeSpec) -> u64 {
    time.tv_sec().cast_unsigned() * NS_PER_S + time.tv_nsec().cast_unsigned()
}

/// The nearest whole frequency: a tick of 3 333 333 ns is HZ=300.
fn hz_of_tick(tick_ns: u64) -> u32 {
    let tick_ns = tick_ns.max(1);
    ((NS_PER_S + tick_ns / 2) / tick_ns) as u32
}

/// The file begins with `now at N nsecs`; later, for each CPU, it has `.last_tick : N nsecs`, a
/// point of the tick grid (of the first CPU: `skew_tick` shifts the others), and `jiffies: N`,
/// read a little after `now`. A kernel without high-resolution ticks (the virtual one) has 0 for
/// the last tick; there the coarse clock moves with the ticks.
fn parse_timer_list(text: &str, tick_ns: u64, coarse_ns: u64) -> Option<JiffyClock> {
    let number_after = |marker: &str| -> Option<u64> {
        let rest = text.split_once(marker)?.1;
        let rest = rest.trim_start_matches([' ', ':', '\t']);
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let now = number_after("now at ")?;
    let jiffies = number_after("\njiffies")?;
    let grid = number_after(".last_tick").filter(|last_tick| *last_tick > 0).unwrap_or(coarse_ns);
    let into_tick = (now % tick_ns + tick_ns - grid % tick_ns) % tick_ns;
    Some(JiffyClock { jiffies, at_ns: now.checked_sub(into_tick)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hz_is_rounded_to_whole_numbers() {
        let known = [(10_000_000, 100), (4_000_000, 250), (3_333_333, 300), (1_000_000, 1000)];
        for (tick, hz) in known {
            assert_eq!(hz_of_tick(tick), hz);
            assert_eq!(tick_ns(hz), tick);
        }
        assert!([100, 250, 300, 1000].contains(&hz()), "HZ={}", hz());
    }

    #[test]
    fn a_clock_that_lags_behind_a_record_is_put_right_by_whole_ticks() {
        let tick = tick_ns(hz());
        let clock = JiffyClock { jiffies: 100, at_ns: 50 * tick + 7 };
        let right = |jiffies, at_ns| not_behind(clock, JiffyClock { jiffies, at_ns }).jiffies;
        assert_eq!(right(100, 50 * tick + 7), 100);
        assert_eq!(right(110, 60 * tick + 9), 100, "seen later than its jiffy began");
        assert_eq!(right(110, 60 * tick + 6), 100, "counted a moment before it was due");
        assert_eq!(right(111, 60 * tick + 8), 101);
        assert_eq!(right(112, 60 * tick + 8), 102);
    }

    #[test]
    fn the_wall_offset_is_stable() {
        let ((_, a), (_, b)) = (wall_offset_ns(), wall_offset_ns());
        assert!((a - b).abs() < 1_000_000, "{a} {b}");
    }

    #[test]
    fn timer_list_of_a_real_kernel() {
        let text = "Timer List Version: v0.10\nHRTIMER_MAX_CLOCK_BASES: 8\n\
                    now at 1398691064441 nsecs\n\ncpu: 0\n\
                    .last_tick      : 1398688000000 nsecs\n  .tick_stopped   : 1\n\
                    .idle_jiffies   : 4295241906\n  .last_jiffies   : 4295241906\n\
                    jiffies: 4295241906\n";
        let clock = parse_timer_list(text, 4_000_000, 1).unwrap();
        assert_eq!(clock, JiffyClock { jiffies: 4_295_241_906, at_ns: 1_398_688_000_000 });
        assert_eq!(parse_timer_list("", 4_000_000, 0), None);
        assert_eq!(parse_timer_list("now at x\n.last_tick\njiffies: ", 4_000_000, 0), None);
    }

    #[test]
    fn timer_list_of_the_virtual_kernel() {
        let text = "now at 20144128 nsecs\n  .last_tick      : 0 nsecs\n  .idle_jiffies   : 0\n\
                    .last_jiffies   : 0\njiffies: 4294892301\n";
        let clock = parse_timer_list(text, 4_000_000, 16_000_000).unwrap();
        assert_eq!(clock, JiffyClock { jiffies: 4_294_892_301, at_ns: 20_000_000 });
    }
}
