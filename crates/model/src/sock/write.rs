//! What leaves the socket for the first time: `tcp_write_xmit`, `tcp_event_new_data_sent`, `tcp_connect`
//! (net/ipv4/tcp_output.c).

use super::{Carries, Pending, Segment, Sock};
use crate::hop::Fate;
use crate::hop::Number;
use crate::kernel::Kernel;
use crate::step::{Progress, Stamp, Step};
use crate::world::Frame;
use spec::experiment::BLOCK;

/// Calls that follow one another at once may take so long.
const CALLS_NS: u64 = 100_000;

impl Sock {
    /// `tcp_write_xmit`, for a write of the program: as many segments as the congestion window lets leave;
    /// the rest waits. `asks`: the peer's program answers it.
    pub(crate) fn write(&mut self, step: &mut Step<'_>, bytes: u32, asks: bool) -> Progress {
        // Where acknowledgements come within the call, the congestion window is never full.
        let at_once = step.world.is_reached(step.now_ns)
            && step.world.losses.is_none()
            && step.world.peer.rtt_ns < step.tick_ns();
        let most = self.cwnd.max(1) + u32::from(!at_once);
        let (bytes, asks) = self.with_deferred(bytes, asks);
        let packets = bytes.div_ceil(step.cfg.mss).clamp(1, most);
        for packet in 1..=packets {
            let is_last = packet == packets;
            let rest = bytes.saturating_sub((packet - 1) * step.cfg.mss);
            let most = self.tcp_tso_autosize(step);
            let before = (packet - 1) % most;
            if before == 0 {
                if self.tcp_tso_should_defer(step, most, rest) {
                    (self.waiting, self.unsent, self.asks) = (true, rest, asks);
                    break;
                }
                step.world.frame.bytes = rest.min(most.min(self.free()) * step.cfg.mss);
            }
            self.unsent += if is_last { rest } else { step.cfg.mss };
            self.asks |= asks && is_last;
            step.world.frame.before = before * step.cfg.mss;
            self.write_packet(step, packet == 1)?;
        }
        step.world.frame = Frame::default();
        Ok(())
    }

    /// The program has gone on writing while that was held back.
    pub(crate) fn writes_on(&mut self, writes: u64) {
        let bytes = u32::try_from(writes).unwrap_or(u32::MAX).saturating_mul(BLOCK);
        self.unsent = self.unsent.saturating_add(bytes);
    }

    /// How many segments the congestion window takes; one at least, for a probe.
    pub(super) fn free(&self) -> u32 {
        self.cwnd.saturating_sub(self.packets_out() as u32).max(1)
    }

    /// What is written now, with what was deferred before it: the same segment takes both.
    fn with_deferred(&mut self, bytes: u32, asks: bool) -> (u32, bool) {
        if !self.is_deferred() {
            return (bytes, asks);
        }
        self.waiting = false;
        (std::mem::take(&mut self.unsent) + bytes, std::mem::take(&mut self.asks) | asks)
    }

    /// Whether what waits does so for `tcp_tso_should_defer` alone.
    pub(super) fn is_deferred(&self) -> bool {
        self.waiting && self.corked == 0 && !self.window_closed && !self.is_held_back()
    }

    /// `tcp_tso_should_defer`: what is left of the congestion window is too small for a frame of `most`
    /// segments, and waits for the next acknowledgement, or the loss probe. Not where acknowledgements
    /// come: they soon push it. How far a round trip within a jiffy has gone is not known.
    fn tcp_tso_should_defer(&self, step: &mut Step<'_>, most: u32, rest: u32) -> bool {
        /// `tcp_tso_win_divisor`.
        const WIN_DIVISOR: u32 = 3;
        const MSEC_NS: u64 = 1_000_000;
        let (mss, free) = (step.cfg.mss, self.free());
        let is_small = free < most && free * mss < self.cwnd * mss / WIN_DIVISOR;
        let waits = self.waiting || self.window_closed || self.is_held_back();
        if rest <= mss || !is_small || waits || step.world.is_reached(step.now_ns) {
            return false;
        }
        let Some(head) = self.queue.first() else { return false };
        let last_ns = self.queue.iter().map(|segment| segment.sent_ns).max().unwrap_or(0);
        // The last write was longer ago: what was sent was so before the call that came after it.
        let quiet_ns = step.now_ns - last_ns;
        if quiet_ns >= MSEC_NS || (quiet_ns + CALLS_NS > MSEC_NS && step.either()) {
            return false;
        }
        let srtt_ns = self.srtt_us * 1_000;
        let due_ns = srtt_ns - (srtt_ns / 2).min(MSEC_NS);
        let since_ns = step.now_ns - head.sent_ns;
        since_ns >= due_ns || (since_ns + CALLS_NS >= due_ns && step.either())
    }

    /// Whether a write may wait until something is acknowledged, since what was written takes all of the send
    /// buffer (`sk_stream_memory_free`; `tcp_sndbuf_expand`, net/ipv4/tcp_input.c).
    pub(crate) fn may_block(&self, cfg: &Kernel) -> bool {
        /// What a segment takes beside its data, and how much room there is for each of twice as many as the
        /// congestion window has, bytes.
        const HEADER: u32 = 1_280;
        const PER_MSS: u32 = 2_304;
        let bytes = self.unsent + self.queue.iter().map(|segment| segment.bytes).sum::<u32>();
        let headers = (bytes.div_ceil(2 * cfg.mss) + 1) * HEADER;
        bytes + headers > 2 * self.cwnd.max(10) * PER_MSS
    }

    /// `tcp_tso_autosize` and `tcp_cwnd_test` (net/ipv4/tcp_output.c): so many segments leave as one frame,
    /// half a congestion window at most. The rate is that of `tcp_update_pacing_rate`
    /// (net/ipv4/tcp_input.c) beyond slow start.
    pub(super) fn tcp_tso_autosize(&self, step: &Step<'_>) -> u32 {
        const GSO_MAX_SIZE: u64 = 65_536;
        let mss = u64::from(step.cfg.mss);
        let rate = mss * u64::from(self.cwnd) * 1_200_000 / self.srtt_us.max(1);
        let more = GSO_MAX_SIZE.checked_shr((step.cfg.min_rtt_us >> 9) as u32).unwrap_or(0);
        let bytes = ((rate >> 10) + more).min(GSO_MAX_SIZE);
        ((bytes / mss).max(2) as u32).min((self.cwnd / 2).max(1))
    }

    /// A segment of a write. `begins`: the first, with which the kernel decides whether the call's data waits for
    /// more (`tcp_push`, net/ipv4/tcp.c).
    fn write_packet(&mut self, step: &mut Step<'_>, begins: bool) -> Progress {
        if self.window_closed && self.queue.is_empty() {
            self.waiting = true;
            self.tcp_check_probe_timer(step);
            return Ok(());
        }
        if self.is_held_back() {
            self.waiting = true;
            return Ok(());
        }
        self.corked += 1;
        if (begins || self.waiting) && self.is_corked(step) {
            self.waiting = true;
            self.throttled = true;
            return Ok(());
        }
        self.send_new(step, Carries::Data)
    }

    /// Whether the congestion window takes no more: after a timeout it is one.
    pub(crate) fn is_held_back(&self) -> bool {
        self.timeouts > 0 || self.packets_out() >= self.cwnd.max(1) as usize
    }

    /// `tcp_write_xmit` and `tcp_event_new_data_sent`, of one new segment.
    pub(crate) fn send_new(&mut self, step: &mut Step<'_>, carries: Carries) -> Progress {
        let (number, fate) = self.send_head(step, carries);
        self.event_new_data_sent(step);
        self.tcp_schedule_loss_probe(step);
        self.after_sending(step, number, fate)
    }

    /// Sends a frame of so many segments of what waits, at most. Says its first, and what became of it.
    pub(super) fn send_frame(&mut self, step: &mut Step<'_>, most: u32) -> (Number, Fate) {
        let mss = step.cfg.mss;
        let (all, asks) = (std::mem::take(&mut self.unsent), std::mem::take(&mut self.asks));
        let bytes = all.min(most * mss);
        step.world.frame.bytes = if bytes > mss { bytes } else { 0 };
        let mut first = None;
        for before in (0..bytes.max(1)).step_by(mss as usize) {
            step.world.frame.before = before;
            self.unsent = (bytes - before).min(mss);
            self.asks = asks && before + self.unsent == all;
            let sent = self.send_head(step, Carries::Data);
            first.get_or_insert(sent);
        }
        step.world.frame = Frame::default();
        (self.waiting, self.unsent) = (all > bytes, all - bytes);
        self.asks = asks && self.waiting;
        first.unwrap_or((self.first, Fate::OnWire))
    }

    /// A FIN goes with what was deferred, which gets no more data: in one frame.
    pub(super) fn send_deferred_fin(&mut self, step: &mut Step<'_>) -> Progress {
        let bytes = self.unsent;
        let (number, fate) = self.send_frame(step, self.free());
        step.world.frame = Frame { before: bytes, bytes };
        self.send_head(step, Carries::Fin);
        step.world.frame = Frame::default();
        self.event_new_data_sent(step);
        self.tcp_schedule_loss_probe(step);
        self.after_sending(step, number, fate)
    }

    /// Takes what was written into a segment of its own, and sends it.
    pub(crate) fn send_head(&mut self, step: &mut Step<'_>, carries: Carries) -> (Number, Fate) {
        self.waiting = false;
        let asks = std::mem::take(&mut self.asks);
        let carries = if asks && carries == Carries::Data { Carries::Request } else { carries };
        let writes = std::mem::take(&mut self.corked).max(1);
        let bytes = if carries == Carries::Fin { 0 } else { std::mem::take(&mut self.unsent) };
        let sent_ns = step.now_ns;
        let first_sent_ns = if step.world.writes_on { sent_ns } else { 0 };
        let (resent, merged) = (false, false);
        let segment = Segment { carries, sent_ns, first_sent_ns, resent, bytes, writes, merged };
        self.queue.push(segment);
        let number = self.next_number() - 1;
        let fate = self.transmit(step, number);
        (number, fate)
    }

    /// `tcp_event_new_data_sent`.
    fn event_new_data_sent(&mut self, step: &mut Step<'_>) {
        if self.queue.len() == 1 {
            self.reset_xmit_timer(step, Pending::Retransmission, self.rto);
        } else if matches!(self.write_timer, Some((Pending::LossProbe, _))) {
            self.tcp_rearm_rto(step);
        }
    }

    /// `tcp_should_autocork` (net/ipv4/tcp.c): what is written waits for more as long as segments
    /// that wait in the host's own queue take more memory (`sk_wmem_alloc`).
    fn is_corked(&self, step: &Step<'_>) -> bool {
        let held = |number: &Number| {
            let segment = number.checked_sub(self.first).and_then(|index| self.queue.get(index));
            segment.map_or(1, |segment| segment.writes)
        };
        step.cfg.autocorks
            && match step.world.hop.held() {
                [] => false,
                [one] => held(one) >= self.corked,
                _ => true,
            }
    }

    /// `tcp_connect`: the SYN. It stamps itself.
    pub(crate) fn connect(&mut self, step: &mut Step<'_>) -> Progress {
        self.stamp(step, Stamp::Retransmission(Some(step.now_ns)));
        let (number, fate) = self.send_head(step, Carries::Syn);
        self.reset_xmit_timer(step, Pending::Retransmission, self.rto);
        self.after_sending(step, number, fate)
    }
}
