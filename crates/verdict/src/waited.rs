//! ICMP errors that waited, where time is virtual.
//!
//! There nothing takes any time, unless a program has been woken in the same jiffy: softirqs then go no
//! further round (`handle_softirqs`, kernel/softirq.c, asks `need_resched`), what is left waits for
//! `ksoftirqd`, and each look of a program at the clock takes 256 ns. An error that comes a microsecond
//! after its segment takes a jiffy off the timeout that it has begin anew (`tcp_ld_RTO_revert`,
//! net/ipv4/tcp_ipv4.c). Which of them wait the model cannot know.

use model::Prediction;
use model::tick::Hz;
use model::wheel::Wheel;
use spec::Facts;
use timeline::event::{Frame, FrameKind};
use timeline::{Event, Source, Timeline, What};

/// How many ICMP errors since the fault came later than the segment that drew them, but in its jiffy, and
/// by how much the end can have moved by that, seconds: a timeout and its slot. `None`: none did.
pub(crate) fn waited(
    facts: &Facts,
    prediction: &Prediction,
    timeline: &Timeline,
) -> Option<(usize, f64)> {
    let last = prediction.schedule.last().filter(|_| facts.virtual_time)?;
    let hz = Hz::new(facts.hz);
    let fault_at = timeline.fault_at()?;
    let mut sent_ns = 0;
    let mut count = 0;
    let seen = timeline.events().iter();
    for event in seen.filter(|event| event.source == Source::ClientWire && event.at_ns >= fault_at)
    {
        match &event.what {
            What::Segment(segment) if segment.sent => sent_ns = event.at_ns,
            _ if is_error(event) => {
                let same_jiffy = event.at_ns - sent_ns < hz.tick_ns();
                // The kernel takes times in whole microseconds.
                count += usize::from(same_jiffy && event.at_ns / 1000 > sent_ns / 1000);
            }
            _ => {}
        }
    }
    let timeout_s = last.timeout.as_secs_f64();
    let slot = Wheel::new(hz).slot(hz.from_usecs(last.timeout.as_micros() as u64));
    (count > 0).then(|| (count, timeout_s + hz.duration(slot).as_secs_f64()))
}

fn is_error(event: &Event) -> bool {
    let about = |frame: &Frame| {
        !frame.sent && matches!(frame.kind, FrameKind::Icmp { about_connection: true, .. })
    };
    matches!(&event.what, What::Frame(frame) if about(frame))
}
