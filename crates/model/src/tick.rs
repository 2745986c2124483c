//! Jiffies, and the kernel's conversions to and from them.

use spec::facts::JiffyClock;
use std::time::Duration;

/// Timer interrupts a second: `CONFIG_HZ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hz(u32);

impl Hz {
    /// `hz`, or the nearest rate that this model knows: 1 to 10,000.
    pub fn new(hz: u32) -> Self {
        Self(hz.clamp(1, 10_000))
    }

    /// Ticks a second.
    pub fn get(self) -> u32 {
        self.0
    }

    /// A jiffy, nanoseconds: `TICK_NSEC` (include/linux/jiffies.h).
    pub fn tick_ns(self) -> u64 {
        let hz = u64::from(self.0);
        (1_000_000_000 + hz / 2) / hz
    }

    /// `usecs_to_jiffies` (kernel/time/time.c): rounds up.
    pub fn from_usecs(self, usecs: u64) -> u64 {
        ceil(usecs, u64::from(self.0), 1_000_000)
    }

    /// `msecs_to_jiffies` (include/linux/jiffies.h): rounds up.
    pub fn from_msecs(self, msecs: u64) -> u64 {
        ceil(msecs, u64::from(self.0), 1_000)
    }

    /// Whole seconds as `value * HZ`, no more than the `int` the kernel keeps it in.
    pub fn from_secs(self, secs: u64) -> u64 {
        secs.saturating_mul(u64::from(self.0)).min(i32::MAX as u64)
    }

    /// `jiffies_to_usecs` (kernel/time/time.c): rounds down.
    pub fn to_usecs(self, jiffies: u64) -> u64 {
        narrow(u128::from(jiffies) * 1_000_000 / u128::from(self.0))
    }

    /// `jiffies_to_msecs` (kernel/time/time.c): exact where HZ divides 1000, otherwise rounds up.
    pub fn to_msecs(self, jiffies: u64) -> u64 {
        ceil(jiffies, 1_000, u64::from(self.0))
    }

    /// The whole jiffies in so many milliseconds: what `jiffies_to_msecs` was given.
    pub fn whole_in_msecs(self, msecs: u64) -> u64 {
        narrow(u128::from(msecs) * u128::from(self.0) / 1_000)
    }

    /// How long so many jiffies take.
    pub fn duration(self, jiffies: u64) -> Duration {
        Duration::from_nanos(jiffies.saturating_mul(self.tick_ns()))
    }

    /// `TCP_RTO_MIN` (include/net/tcp.h): 200 ms, HZ/5; at least one jiffy here.
    pub fn tcp_rto_min(self) -> u64 {
        u64::from(self.0 / 5).max(1)
    }

    /// `TCP_RTO_MAX` (include/net/tcp.h): 120 s.
    pub fn tcp_rto_max(self) -> u64 {
        u64::from(self.0) * 120
    }
}

/// The jiffy from which phases are counted: a multiple of every slot, and small enough for
/// nanoseconds.
pub(crate) const EPOCH: u64 = 1 << 24;

/// A known jiffy clock, cut down to numbers that times in nanoseconds fit into: its phase within
/// every slot of the wheel is the true one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JiffyPhase {
    clock: JiffyClock,
    tick_ns: u64,
}

impl JiffyPhase {
    pub(crate) fn new(hz: Hz, clock: JiffyClock) -> Self {
        Self { clock, tick_ns: hz.tick_ns() }
    }

    /// The time of `CLOCK_MONOTONIC` as nanoseconds since the start of jiffy 0 of the cut clock;
    /// `None` for times that are too far from where the clock was read.
    pub(crate) fn of(self, at_ns: u64) -> Option<u64> {
        let start_ns = (EPOCH + self.clock.jiffies % EPOCH) * self.tick_ns;
        let after_ns = i128::from(at_ns) - i128::from(self.clock.at_ns);
        let since_ns = u64::try_from(i128::from(start_ns) + after_ns).ok()?;
        (after_ns.abs() < i128::from(u32::MAX) * 1_000_000).then_some(since_ns)
    }
}

/// `value * times / by`, rounded up.
fn ceil(value: u64, times: u64, by: u64) -> u64 {
    narrow((u128::from(value) * u128::from(times)).div_ceil(u128::from(by)))
}

fn narrow(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_round_as_the_kernel_does() {
        for (hz, usecs, jiffies) in [
            (250, 200_100, 51),
            (250, 200_000, 50),
            (1000, 200_001, 201),
            (300, 200_100, 61),
            (100, 200_100, 21),
        ] {
            assert_eq!(Hz::new(hz).from_usecs(usecs), jiffies, "{usecs} us at HZ={hz}");
        }
        assert_eq!(Hz::new(300).to_usecs(61), 203_333);
        assert_eq!(Hz::new(300).to_msecs(61), 204);
        assert_eq!(Hz::new(250).to_msecs(231_150), 924_600);
        assert_eq!(Hz::new(300).tick_ns(), 3_333_333);
        assert_eq!(Hz::new(0).get(), 1);
    }

    proptest::proptest! {
        #[test]
        fn no_conversion_overflows(hz: u32, value: u64) {
            let hz = Hz::new(hz);
            let _ = (hz.from_usecs(value), hz.from_msecs(value), hz.from_secs(value));
            let _ = (hz.to_usecs(value), hz.to_msecs(value), hz.duration(value));
        }
    }
}
