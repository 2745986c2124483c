//! What an acknowledgement makes of the queue: `tcp_ack`, `tcp_clean_rtx_queue`
//! (net/ipv4/tcp_input.c), and what is sent again after it (`tcp_xmit_retransmit_queue`).

use super::{Carries, Pending, Segment, Sock, State};
use crate::hop::Number;
use crate::prediction::COUNTED_MOST;
use crate::step::{Progress, Stamp, Step};
use spec::Outcome;

const COMES_AGAIN: &str = "several segments were lost, and how many round trips it takes until they have come \
                           again, which something waits for, is up to congestion control";
const ANSWERED_IN_PARTS: &str = "the first part of a request comes again alone, and the server's program answers \
                                 as much as it reads";

impl Sock {
    /// An acknowledgement of all segments before `next` arrives: `tcp_ack`, `tcp_clean_rtx_queue`,
    /// `tcp_process_tlp_ack`. `came_twice`: it says that the last came twice (DSACK).
    pub(crate) fn acknowledged(
        &mut self,
        step: &mut Step<'_>,
        next: Number,
        echoed_ns: u64,
        came_twice: bool,
    ) -> Progress {
        self.received(step);
        let count = next.saturating_sub(self.first).min(self.queue.len());
        if count == 0 {
            return Ok(());
        }
        let lost = std::mem::take(&mut self.timeouts) > 0;
        self.first += count;
        let acked: Vec<Segment> = self.queue.drain(..count).collect();
        // Of small segments that were gathered, the rest stays as it was sent.
        let head = acked.iter().rfind(|segment| !segment.merged);
        if let Some((rest, head)) = self.queue.first_mut().filter(|rest| rest.merged).zip(head) {
            *rest = Segment { carries: rest.carries, ..*head };
        }
        self.write_timer = None;
        self.err_soft = None;
        self.stamp(step, Stamp::Retransmission(None));
        self.probes_out = 0;
        self.tlp_out.take_if(|high| lost || came_twice || next > *high);
        (self.retrans_out, self.fin_out) = (false, false);
        self.tcp_ack_update_rtt(step, &acked, echoed_ns);
        if acked.iter().any(|segment| segment.carries == Carries::Fin) {
            self.state = State::FinWait2;
            return if self.closed { self.fin_wait2(step) } else { Ok(()) };
        }
        if self.state == State::SynSent {
            return step.told(Outcome::None);
        }
        if !self.queue.is_empty() {
            if lost {
                // What left in one frame may come again as one.
                let in_frames = self.queue.windows(2).any(|both| both[0].bytes >= step.cfg.mss);
                if self.waiting || in_frames {
                    // F-RTO (`tcp_process_loss`, net/ipv4/tcp_input.c) sends what is new first, and asks what
                    // comes back how much is lost.
                    self.comes_again_slowly(step);
                }
                let in_parts = acked.last().is_some_and(|last| last.bytes >= step.cfg.mss);
                if in_parts && self.rest_asks(step.cfg.mss) {
                    step.world.unknown = Some(ANSWERED_IN_PARTS);
                }
                return self.resend(step, self.next_number());
            }
            self.rearm(step);
            if self.is_held_back() {
                return Ok(());
            }
        }
        if self.waiting {
            self.send_new(step, Carries::Data)?;
        }
        if self.fin_waits && !self.is_held_back() {
            self.fin_waits = false;
            return self.send_new(step, Carries::Fin);
        }
        Ok(())
    }

    /// Congestion control decides how many come again, and how many round trips that takes: they are not
    /// counted, and what waits for the last of them is not known.
    pub(super) fn comes_again_slowly(&self, step: &mut Step<'_>) {
        step.effects.resent += COUNTED_MOST + 1;
        let takes_time = step.world.peer.rtt_ns >= step.tick_ns();
        let is_waited_for = self.fin_waits || self.state != State::Open || self.asks_now();
        if takes_time && is_waited_for {
            step.world.unknown = Some(COMES_AGAIN);
        }
    }

    /// Whether the peer's program is to answer something that is out or waits.
    fn asks_now(&self) -> bool {
        self.asks || self.queue.iter().any(|segment| segment.carries == Carries::Request)
    }

    /// Whether what is out begins with the rest of a request of several segments.
    fn rest_asks(&self, mss: u32) -> bool {
        let ends = self
            .queue
            .iter()
            .find(|segment| segment.bytes < mss || segment.carries != Carries::Data);
        ends.is_some_and(|segment| segment.carries == Carries::Request)
    }

    /// All segments before `until` are sent again.
    pub(super) fn resend(&mut self, step: &mut Step<'_>, until: Number) -> Progress {
        if until <= self.first {
            return Ok(());
        }
        if self.stamps.retrans_stamp.is_none() {
            self.stamp(step, Stamp::Retransmission(Some(self.queue[0].sent_ns)));
        }
        self.reset_xmit_timer(step, Pending::Retransmission, self.rto);
        for number in self.first..until {
            if self.queue[number - self.first].merged {
                continue;
            }
            self.tcp_retrans_try_collapse(step, number);
            let fate = self.transmit(step, number);
            self.stamp_sent(step, number, fate);
            self.after_sending(step, number, fate)?;
        }
        Ok(())
    }
}
