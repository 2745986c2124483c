//! The courses of the write timer, from every phase of the clock or from a known one.

use super::course::Courses;
use super::sender::{JITTER_NS, Sender};
use crate::kernel::Kernel;
use crate::scene::Scene;

/// The jiffy from which phases are counted: a multiple of every slot, and small enough for
/// nanoseconds.
pub(crate) const EPOCH: u64 = 1 << 24;
/// Into how many parts a jiffy is divided where the phase within it matters.
const PHASES_WITHIN: u64 = 4;

/// The courses of these scenes over every phase of the clock.
///
/// # Errors
/// What cannot be gone through: more retransmissions than anybody waits for.
pub(crate) fn courses(
    kernel: &Kernel,
    scenes: &[Scene],
    courses: &mut Courses,
) -> Result<(), String> {
    for scene in scenes {
        let steps = scene.steps_allowed(kernel)? * scenes.len() as u64;
        // Slots of coarser timers than those that fire make no difference: the phases are gone
        // through up to the coarsest that do.
        let mut period = kernel.wheel.slot(scene.rto);
        if let Some(starts) = scene.starts(kernel) {
            over_phases(kernel, scene, starts, steps, courses);
            continue;
        }
        loop {
            let mut found = courses.clone();
            let longest = over_phases(kernel, scene, (EPOCH, period), steps, &mut found);
            let needed = kernel.wheel.slot(longest);
            if needed <= period {
                *courses = found;
                break;
            }
            period = needed;
        }
    }
    Ok(())
}

/// The courses of this scene over the phases of so many jiffies from the `first` on, and the longest
/// timer that fired.
fn over_phases(
    kernel: &Kernel,
    scene: &Scene,
    (first, period): (u64, u64),
    steps: u64,
    courses: &mut Courses,
) -> u64 {
    let tick_ns = kernel.hz.tick_ns();
    let finer = scene.is_finer_than_jiffies();
    let variants = if finer { PHASES_WITHIN * scene.lates_ns(kernel).len() as u64 } else { 1 };
    let phases = STEPS_IN_ALL / (steps * variants);
    let stride = period.div_ceil(phases.max(PHASES_LEAST));
    let block_ns = (stride - 1) * tick_ns;
    let mut longest = 0;
    for phase in (0..period).step_by(stride as usize) {
        if !finer {
            // Within a jiffy the phase does not matter to a single write: its timers count from
            // the jiffy. An earlier write has a longer course. Only a user timeout of `connect`
            // counts from the call, by its millisecond.
            let counts_from_call = scene.purpose.is_syn() && kernel.user_timeout_ms.is_some();
            let part_ns = match counts_from_call {
                false => tick_ns,
                true if tick_ns.is_multiple_of(1_000_000) => 1_000_000,
                // No more than the jitter that the sender reckons with.
                true => JITTER_NS.min(tick_ns),
            };
            for part in 1..=tick_ns.div_ceil(part_ns) {
                let begins_ns = (first + phase + stride - 1) * tick_ns;
                let start_ns = begins_ns + (part * part_ns).min(tick_ns) - 1;
                let within = (block_ns + part_ns - 1, block_ns);
                longest = longest.max(courses_from(kernel, scene, start_ns, 0, within, courses));
            }
            continue;
        }
        for part in 0..PHASES_WITHIN {
            // The middle of its part: an earlier write has a longer course, a later one a shorter.
            let part_ns = (part * tick_ns + tick_ns / 2) / PHASES_WITHIN;
            let start_ns = (first + phase + stride - 1) * tick_ns + part_ns;
            let half_ns = tick_ns / PHASES_WITHIN / 2;
            let within = (block_ns + half_ns, block_ns + half_ns);
            for late_ns in scene.lates_ns(kernel) {
                let fired = courses_from(kernel, scene, start_ns, *late_ns, within, courses);
                longest = longest.max(fired);
            }
        }
    }
    longest
}

/// How many steps all courses together may have: where there are more, phases are looked at in
/// steps, and the windows widened by those.
const STEPS_IN_ALL: u64 = 1 << 20;
/// But no fewer phases than this.
const PHASES_LEAST: u64 = 16;

/// The courses of these scenes if the first write comes at a known moment: `start_ns` counts from
/// the start of jiffy 0.
///
/// # Errors
/// As [`courses`].
pub(crate) fn courses_at(
    kernel: &Kernel,
    scenes: &[Scene],
    start_ns: u64,
    courses: &mut Courses,
) -> Result<(), String> {
    for scene in scenes {
        scene.steps_allowed(kernel)?;
        for late_ns in scene.lates_ns(kernel) {
            courses_from(kernel, scene, start_ns, *late_ns, (0, 0), courses);
        }
    }
    Ok(())
}

/// The courses that begin at `start_ns`, and the longest timer that fired, jiffies. Where the write timer and a neighbour's timer fire at the
/// same jiffy, either may come first.
fn courses_from(
    kernel: &Kernel,
    scene: &Scene,
    start_ns: u64,
    late_ns: u64,
    within_ns: (u64, u64),
    courses: &mut Courses,
) -> u64 {
    let mut longest = 0;
    let either = scene.has_timer() && !scene.purpose.is_syn();
    let orders: &[bool] = if either { &[false, true] } else { &[false] };
    for hop in scene.hop.hops(kernel, start_ns / kernel.hz.tick_ns()) {
        for hop_first in orders {
            let sender = Sender::new(kernel, scene, hop.clone(), start_ns, late_ns, *hop_first);
            let (done, fired) = sender.run();
            longest = longest.max(fired);
            for course in done {
                courses.add(&course, within_ns);
            }
        }
    }
    longest
}
