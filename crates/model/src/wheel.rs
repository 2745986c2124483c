//! The timer wheel: when a timer that is armed at one jiffy for some jiffies really fires.
//!
//! The wheel keeps far timers in coarse slots and never moves them to finer ones: a timer for two
//! hours fires up to two minutes late at HZ=250, and never early. Source: kernel/time/timer.c,
//! `calc_wheel_index`, `calc_index`, `__run_timers`.

use crate::tick::Hz;

/// `LVL_CLK_SHIFT`: each level is eight times as coarse as the one before.
const LEVEL_SHIFT: u32 = 3;
/// `LVL_SIZE - 1`: the slots of a level that can be used.
const LEVEL_SLOTS: u64 = 63;

/// Where a timer is armed: it decides how far the wheel's own clock is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Context {
    /// By a system call or an arriving packet: `forward_timer_base` has set the wheel's clock to
    /// `jiffies`.
    Call,
    /// By a timer's own handler: `__run_timers` has set the wheel's clock one jiffy ahead.
    Handler,
}

/// The timer wheel of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wheel {
    /// `LVL_DEPTH`.
    levels: u32,
}

impl Wheel {
    /// The wheel of a kernel with this tick rate: eight levels, nine above HZ 100.
    pub fn new(hz: Hz) -> Self {
        Self { levels: if hz.get() > 100 { 9 } else { 8 } }
    }

    /// The jiffy at which a timer fires that is armed at jiffy `now` for `delay` jiffies
    /// (`calc_wheel_index`). Never before `now + delay`, unless that is past the wheel's capacity
    /// (`WHEEL_TIMEOUT_CUTOFF`, 12 days at HZ=1000).
    pub fn fires_at(self, now: u64, delay: u64, context: Context) -> u64 {
        let clock = match context {
            Context::Call => now,
            Context::Handler => now + 1,
        };
        let Some(delta) = (now + delay).checked_sub(clock) else { return clock };
        let cutoff = LEVEL_SLOTS << (LEVEL_SHIFT * (self.levels - 1));
        if delta >= cutoff {
            let slot = 1 << (LEVEL_SHIFT * (self.levels - 1));
            return bucket_expiry(clock + cutoff - slot, slot);
        }
        bucket_expiry(now + delay, slot_for(delta))
    }

    /// The jiffy at which such a timer fires; where the phase of the clock is known up to so many jiffies, and
    /// not up to its slot, the first at which it may.
    pub(crate) fn fires_from(self, now: u64, delay: u64, context: Context, phase: u64) -> u64 {
        if self.slot(delay) > phase { now + delay + 1 } else { self.fires_at(now, delay, context) }
    }

    /// The earliest and the latest jiffy at which a timer fires that is armed by a call, where the phase of
    /// the clock is known up to so many jiffies.
    pub(crate) fn fires_within(self, now: u64, delay: u64, phase: u64) -> (u64, u64) {
        let slot = self.slot(delay);
        if slot <= phase {
            let fires = self.fires_at(now, delay, Context::Call);
            return (fires, fires);
        }
        let since = (now + delay) / phase * phase;
        (since + phase, since + slot)
    }

    /// How long a slot is, in jiffies, that holds a timer of this delay: the most by which it can
    /// be late (`LVL_GRAN`). For a delay at the edge of two levels, the coarser one.
    pub fn slot(self, delay: u64) -> u64 {
        let last = 1 << (LEVEL_SHIFT * (self.levels - 1));
        slot_for(delay).min(last)
    }

    /// Whether it matters for a timer of this delay where it is armed: it stands at the edge of two
    /// levels (`LVL_START`).
    pub fn is_edge(self, delay: u64) -> bool {
        delay > 0 && slot_for(delay) != slot_for(delay - 1)
    }
}

/// `LVL_GRAN` of the level that takes a timer `delta` jiffies away (`LVL_START`).
fn slot_for(delta: u64) -> u64 {
    let mut slot = 1_u64;
    while delta / slot >= LEVEL_SLOTS && slot < 1 << 30 {
        slot <<= LEVEL_SHIFT;
    }
    slot
}

/// `calc_index`: the slot after the one that `expires` falls into.
fn bucket_expiry(expires: u64, slot: u64) -> u64 {
    (expires / slot + 1) * slot
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slots_by_delay() {
        let wheel = Wheel::new(Hz::new(250));
        for (delay, slot) in [
            (0, 1),
            (62, 1),
            (63, 8),
            (503, 8),
            (504, 64),
            (4031, 64),
            (4032, 512),
            (32_255, 512),
            (32_256, 4096),
            (258_048, 32_768),
            (1_800_000, 32_768),
        ] {
            assert_eq!(wheel.slot(delay), slot, "{delay}");
        }
    }

    /// Timers of TCP sockets as `timer:timer_start` showed them on Linux 6.18 at HZ=250: `expires`,
    /// the delay, `bucket_expiry`. They are 6 of 2,595, all of which fell into the slot that
    /// [`Wheel::fires_at`] says.
    #[test]
    fn fires_when_the_kernel_said() {
        let wheel = Wheel::new(Hz::new(250));
        for (expires, delay, bucket) in [
            (4_295_642_855_u64, 51, 4_295_642_856),
            (4_295_642_981, 125, 4_295_642_984),
            (4_295_986_833, 408, 4_295_986_840),
            (4_295_987_656, 816, 4_295_987_712),
            (4_295_904_288, 1632, 4_295_904_320),
            (4_295_914_508, 15_000, 4_295_915_008),
        ] {
            assert_eq!(wheel.fires_at(expires - delay, delay, Context::Call), bucket);
            assert_eq!(wheel.fires_at(expires - delay, delay, Context::Handler), bucket);
        }
    }

    #[test]
    fn at_the_edge_of_two_levels_a_handler_gets_the_finer_slot() {
        let wheel = Wheel::new(Hz::new(250));
        assert_eq!(wheel.fires_at(1003, 63, Context::Call), 1072);
        assert_eq!(wheel.fires_at(1003, 63, Context::Handler), 1067);
        assert_eq!(wheel.fires_at(1000, 0, Context::Call), 1001);
        assert_eq!(wheel.fires_at(1000, 0, Context::Handler), 1001);
    }

    #[test]
    fn long_timers_are_late_by_up_to_a_slot() {
        // The default keepalive time, two hours.
        for (hz, late_s) in [(100, 328), (250, 131), (300, 874), (1000, 262)] {
            let hz = Hz::new(hz);
            let delay = hz.from_secs(7200);
            assert_eq!(
                hz.duration(Wheel::new(hz).slot(delay)).as_secs_f64().round() as u64,
                late_s
            );
        }
    }

    proptest! {
        #[test]
        fn never_early_and_at_most_a_slot_late(
            hz in 1_u32..=10_000, now in 0_u64..1 << 48, delay in 0_u64..100_000_000, handler: bool,
        ) {
            let wheel = Wheel::new(Hz::new(hz));
            let context = if handler { Context::Handler } else { Context::Call };
            let fires = wheel.fires_at(now, delay, context);
            prop_assert!(fires > now);
            prop_assert!(fires > now + delay || (delay == 0 && fires == now + 1));
            prop_assert!(fires <= now + delay + wheel.slot(delay).max(1));
        }

        #[test]
        fn monotonic(
            hz in 1_u32..=10_000, now in 0_u64..1 << 48, delay in 0_u64..100_000_000, later in 0_u64..5000,
        ) {
            let wheel = Wheel::new(Hz::new(hz));
            let fires = wheel.fires_at(now, delay, Context::Call);
            prop_assert!(wheel.fires_at(now + later, delay, Context::Call) >= fires);
            prop_assert!(wheel.fires_at(now, delay + later, Context::Call) >= fires);
        }

        #[test]
        fn no_delay_overflows(hz: u32, now in 0_u64..1 << 62, delay in 0_u64..1 << 62) {
            Wheel::new(Hz::new(hz)).fires_at(now, delay, Context::Handler);
        }

        #[test]
        fn where_it_is_armed_matters_only_at_an_edge(now in 0_u64..1 << 40, delay in 1_u64..100_000_000) {
            let wheel = Wheel::new(Hz::new(1000));
            let same = wheel.fires_at(now, delay, Context::Call) == wheel.fires_at(now, delay, Context::Handler);
            prop_assert!(same || wheel.is_edge(delay));
        }
    }
}
