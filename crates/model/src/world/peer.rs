//! The peer's kernel and program: what it receives, when it acknowledges (`__tcp_ack_snd_check`,
//! `tcp_data_queue`, net/ipv4/tcp_input.c; `tcp_send_delayed_ack`, net/ipv4/tcp_output.c;
//! `__tcp_cleanup_rbuf`, net/ipv4/tcp.c), and what it answers once the path is back.

use super::{Answer, Arrival, Frame, InFlight, Packet, Recovery, Room, Sent, WayBack, World};
use crate::choices::Choices;
use crate::hop::{Fate, Number};
use crate::kernel::Kernel;
use crate::wheel::Context;

/// `TCP_MSS_DEFAULT` (include/net/tcp.h).
const TCP_MSS_DEFAULT: u32 = 536;
/// A delayed acknowledgement takes 200 ms at most (`TCP_DELACK_MAX`), and the machine its time.
const ACKNOWLEDGED_NS: u64 = 300_000_000;

/// The peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    /// The time of a round trip, nanoseconds.
    pub(crate) rtt_ns: u64,
    /// How long a packet and its answer are within reach of the fault, nanoseconds.
    pub(crate) exposed_ns: u64,
    /// How long it holds an acknowledgement back, jiffies (`tcp_send_delayed_ack`); 0: it does not.
    pub(crate) delayed_ack: u64,
    /// `tcp_invalid_ratelimit`, jiffies: segments outside its window are answered no more often
    /// (`__tcp_oow_rate_limited`).
    pub(crate) invalid_ratelimit: u64,
    /// `last_oow_ack_time`, jiffies.
    pub(crate) last_oow_ack: Option<u64>,
    /// From when on its program reads, and answers requests, nanoseconds; `None`: it does not.
    pub(crate) reads_from_ns: Option<u64>,
    /// Whether it answers all data, and not requests alone.
    pub(crate) answers_data: bool,
    /// `rcv_nxt`: all segments before this one have come.
    pub(crate) next: Number,
    /// Those that have come out of order: the first, and the one after the last.
    pub(crate) ahead: Option<(Number, Number)>,
    /// What its memory makes of its window while its program does not read.
    pub(crate) room: Room,
    /// What has come and is not acknowledged.
    pub(crate) pushed: Option<Pushed>,
    /// `rcv_mss`: the largest segment that has come, bytes.
    pub(crate) rcv_mss: u32,
    /// `inet_csk_in_pingpong_mode`: it has answered what came last.
    pub(crate) pingpong: bool,
}

impl Peer {
    /// A peer that reads nothing, behind a path of this round trip.
    pub(crate) fn new(rtt_ns: u64, exposed_ns: u64) -> Self {
        Self {
            rtt_ns,
            exposed_ns,
            delayed_ack: 0,
            invalid_ratelimit: 0,
            last_oow_ack: None,
            reads_from_ns: None,
            answers_data: false,
            next: 0,
            ahead: None,
            room: Room::default(),
            pushed: None,
            rcv_mss: TCP_MSS_DEFAULT,
            pingpong: true,
        }
    }

    /// Puts all its moments off.
    pub(super) fn put_off(&mut self, jiffies: u64, by_ns: u64) {
        self.last_oow_ack.iter_mut().for_each(|at| *at += jiffies);
        self.reads_from_ns.iter_mut().filter(|from_ns| **from_ns > 0).for_each(|ns| *ns += by_ns);
        if let Some(pushed) = &mut self.pushed {
            pushed.sent_ns += by_ns;
            pushed.due_ns += by_ns;
        }
    }

    /// When its delayed acknowledgement goes, nanoseconds.
    pub(crate) fn acknowledges_ns(&self) -> Option<u64> {
        self.pushed.map(|pushed| pushed.due_ns)
    }

    /// `tcp_delack_timer_handler`, if it is due by now: what is held back is acknowledged.
    fn tcp_delack_timer(&mut self, now_ns: u64) {
        if let Some(pushed) = self.pushed.take_if(|pushed| pushed.due_ns <= now_ns) {
            self.room.tell(pushed.bytes);
            self.pingpong = false;
        }
    }

    /// Forgets what cannot matter to what is sent at this jiffy or later: what it has acknowledged, when it
    /// last acknowledged a probe, and that its program did not read once.
    pub(crate) fn forget(&mut self, jiffy: u64, tick_ns: u64) {
        self.tcp_delack_timer(jiffy * tick_ns);
        if self.reads_from_ns.is_some_and(|from_ns| from_ns <= jiffy * tick_ns) {
            (self.reads_from_ns, self.room) = (Some(0), Room::default());
        }
        let limit = self.invalid_ratelimit;
        self.last_oow_ack = self.last_oow_ack.filter(|last| jiffy < last.saturating_add(limit));
    }
}

impl Peer {
    /// `tcp_event_data_recv`, `__tcp_ack_snd_check`, `__tcp_cleanup_rbuf`.
    fn is_acknowledged_at_once(
        &mut self,
        cfg: &Kernel,
        (packet, is_new): (Packet, bool),
        frame: Frame,
        arrives_ns: u64,
        choices: &mut Choices,
    ) -> bool {
        if !is_new {
            // What comes again is acknowledged at once (`tcp_enter_quickack_mode`).
            self.pingpong = false;
            return true;
        }
        // `tcp_measure_rcv_mss`: of a frame of several segments, the size of each.
        let segment = packet.bytes.min(cfg.mss);
        if frame.before == 0 && packet.bytes > 0 {
            let bytes = packet.bytes.max(frame.bytes);
            self.room.queue(cfg, bytes, segment > self.rcv_mss, self.pushed.is_none());
        }
        self.rcv_mss = self.rcv_mss.max(segment);
        self.pingpong |= packet.fin;
        let before = self.pushed.map_or(0, |pushed| pushed.bytes);
        let reads = self.reads_from_ns.is_some_and(|from_ns| from_ns <= arrives_ns);
        // A second small segment, once the program has read it (`ICSK_ACK_PUSHED2`).
        let second = reads && before > 0 && packet.bytes > 0;
        let held = before.max(frame.before);
        let full = held + packet.bytes + u32::from(packet.fin) > self.rcv_mss;
        let full = full && (reads || self.room.keeps(choices));
        // Any, after a long time without one.
        full || second || !self.pingpong
    }
}

/// Segments whose acknowledgement is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Pushed {
    /// The first of them, and when it was sent, nanoseconds: its time stamp is echoed.
    first: Number,
    sent_ns: u64,
    /// How much data (`ICSK_ACK_PUSHED`).
    bytes: u32,
    /// When it goes.
    due_ns: u64,
}

/// A segment on its way to the peer.
#[derive(Debug, Clone, Copy)]
struct Segment {
    packet: Packet,
    sent_ns: u64,
    /// When it arrives.
    arrives_ns: u64,
    /// What an acknowledgement takes to come back, nanoseconds.
    back_ns: u64,
    /// By how much sooner that may come than a timer.
    sooner_ns: u64,
}

impl World {
    /// Whether a packet that is sent now reaches the peer, and its answer comes back.
    pub(crate) fn is_answered(&self, now_ns: u64) -> bool {
        !self.lost.is_past(now_ns.saturating_add(self.peer.exposed_ns))
    }

    /// The peer's kernel lives and can be reached.
    pub(super) fn reach_peer(&mut self, cfg: &Kernel, sent: Sent, now_ns: u64) {
        let answered = self.is_answered(now_ns);
        match sent {
            Sent::KeepaliveProbe | Sent::WindowProbe => {
                self.seen += 1;
                if answered {
                    self.draw_probe_ack(now_ns, self.peer.rtt_ns, (0, 0));
                }
            }
            Sent::Ack => {}
            Sent::Segment(packet) => {
                let half_ns = self.peer.rtt_ns / 2;
                let arrives_ns = now_ns.saturating_add(half_ns);
                if answered || !self.lost.is_past(arrives_ns) {
                    let segment = Segment {
                        packet,
                        sent_ns: now_ns,
                        arrives_ns,
                        back_ns: self.peer.rtt_ns - half_ns,
                        sooner_ns: 0,
                    };
                    self.receive(cfg, segment);
                }
            }
        }
    }

    /// The peer's kernel receives a segment, acknowledges it now or later, and its program may answer.
    fn receive(&mut self, cfg: &Kernel, segment: Segment) {
        let Segment { packet, sent_ns, arrives_ns, .. } = segment;
        let peer = &mut self.peer;
        peer.tcp_delack_timer(arrives_ns);
        if packet.first > peer.next {
            let (first, _) = *peer.ahead.get_or_insert((packet.first, packet.next));
            peer.ahead = Some((first, packet.next));
            let missing = Arrival::Missing { seen: first, came: packet.first };
            self.acknowledge(segment, arrives_ns, missing);
            return;
        }
        let is_new = packet.next > peer.next;
        peer.next = peer.next.max(packet.next);
        let fills = peer.ahead.take_if(|(first, _)| *first <= peer.next);
        peer.next = peer.next.max(fills.map_or(0, |(_, after)| after));
        let fills = fills.is_some() || peer.ahead.is_some();
        let before = peer.pushed;
        let earlier = before.filter(|pushed| pushed.first < packet.first);
        let echoed_ns = earlier.map_or(sent_ns, |pushed| pushed.sent_ns);
        let at_once = packet.syn
            || peer.delayed_ack == 0
            || fills
            || peer.is_acknowledged_at_once(
                cfg,
                (packet, is_new),
                self.frame,
                arrives_ns,
                &mut self.choices,
            );
        let due_ns = match before {
            _ if at_once => arrives_ns,
            Some(pushed) => pushed.due_ns,
            None => {
                let jiffy = arrives_ns / self.tick_ns;
                cfg.wheel.fires_at(jiffy, peer.delayed_ack, Context::Call) * self.tick_ns
            }
        };
        let first = before.map_or(packet.first, |pushed| pushed.first);
        let bytes = packet.bytes + before.map_or(0, |pushed| pushed.bytes);
        let held = Pushed { first, sent_ns: echoed_ns, bytes, due_ns };
        peer.pushed = (!at_once).then_some(held);
        if at_once {
            peer.room.tell(bytes);
        }
        let next = peer.next;
        let came_twice = !is_new && packet.bytes > 0;
        let asks = packet.asks || (peer.answers_data && packet.bytes > 0);
        let answers_from_ns = peer.reads_from_ns.filter(|_| asks && is_new);
        if answers_from_ns.is_none_or(|from_ns| from_ns > due_ns) {
            let ack = Arrival::Ack { next, echoed_ns, answers: false, came_twice };
            self.acknowledge(segment, due_ns, ack);
        }
        if let Some(from_ns) = answers_from_ns {
            self.peer.pingpong = true;
            self.peer.pushed.take_if(|pushed| pushed.due_ns >= from_ns);
            let answer = Arrival::Ack { next, echoed_ns, answers: true, came_twice };
            self.acknowledge(segment, arrives_ns.max(from_ns), answer);
            if !self.outages.is_empty() {
                let comes_ns = arrives_ns.max(from_ns).saturating_add(self.peer.rtt_ns);
                self.answer_is_out_ns = comes_ns.saturating_add(ACKNOWLEDGED_NS);
            }
        }
    }

    /// An acknowledgement goes at `due_ns`: one that was held back until then goes with it.
    fn acknowledge(&mut self, segment: Segment, due_ns: u64, what: Arrival) {
        let at_ns = due_ns.saturating_add(segment.back_ns);
        self.in_flight.retain(|other| {
            other.at_ns < at_ns || !matches!(other.what, Arrival::Ack { answers: false, .. })
        });
        self.push_answer(segment, due_ns, what);
    }

    fn push_answer(&mut self, segment: Segment, due_ns: u64, what: Arrival) {
        // Where the fault lies behind the peer's half of the path, the answer meets it too.
        let half_ns = self.peer.rtt_ns / 2;
        let exposed_ns = self.peer.exposed_ns.saturating_sub(half_ns);
        let exposed_until_ns = due_ns.saturating_add(exposed_ns);
        let is_lost = matches!(self.lost, super::Moment::At(at_ns) if exposed_until_ns >= at_ns);
        if is_lost || self.is_away_again(exposed_until_ns) {
            return;
        }
        self.push(InFlight {
            at_ns: due_ns.saturating_add(segment.back_ns),
            what,
            open_ns: (segment.sooner_ns, 0),
            sooner_ns: segment.sooner_ns,
            late_ns: self.late.0,
            also_on_time: self.late.1,
        });
    }

    /// When the program of the peer answers a request that has reached it, nanoseconds.
    pub(crate) fn answer_comes_ns(&self) -> Option<u64> {
        self.in_flight.iter().find(|packet| packet.answers()).map(|packet| packet.at_ns)
    }

    /// A probe was sent at this time, before the sample: its answer is still on its way, if it drew
    /// one.
    pub(crate) fn draws_before(&mut self, sent_ns: u64, sampled_ns: u64) {
        if self.is_answered(sent_ns) {
            self.draw_probe_ack(sent_ns, self.peer.rtt_ns, (0, 0));
            for packet in &mut self.in_flight {
                packet.at_ns = packet.at_ns.max(sampled_ns);
            }
        }
    }

    /// The peer acknowledges a probe, which lies outside its window, if it has not done that just now
    /// (`__tcp_oow_rate_limited`).
    fn draw_probe_ack(&mut self, now_ns: u64, after_ns: u64, open_ns: (u64, u64)) {
        let there_ns = (now_ns + after_ns).saturating_sub(self.peer.rtt_ns / 2);
        let there = there_ns / self.tick_ns;
        let limit = self.peer.invalid_ratelimit;
        if self.peer.last_oow_ack.is_none_or(|last| there.saturating_sub(last) >= limit) {
            self.peer.last_oow_ack = Some(there);
            self.push(InFlight {
                at_ns: now_ns.saturating_add(after_ns),
                what: Arrival::ProbeAck,
                open_ns,
                sooner_ns: 0,
                late_ns: self.late.0,
                also_on_time: self.late.1,
            });
        }
    }

    pub(super) fn push(&mut self, packet: InFlight) {
        let at = self.in_flight.partition_point(|other| other.at_ns <= packet.at_ns);
        self.in_flight.insert(at, packet);
    }

    /// What a probe draws that is sent after the fault.
    pub(super) fn answer_probe(&mut self, sent: Sent, fate: Fate, now_ns: u64) {
        let Some(recovery) = self.recovery.clone().filter(|r| r.at.is_past(now_ns)) else { return };
        if !self.hop.passes(fate, recovery.moved) {
            return;
        }
        let asked = self.hop.asked_now();
        if asked {
            self.gets_through(now_ns);
        }
        self.reply(&recovery, sent, asked, now_ns);
    }

    /// The address that was asked for is told, and what waits for it goes on.
    pub(super) fn gets_through(&mut self, now_ns: u64) {
        if self.hop.is_local() {
            self.seen += self.hop.waiting() as u32;
        }
        self.hop.resolve(now_ns / self.tick_ns);
    }

    pub(super) fn reply(&mut self, recovery: &Recovery, sent: Sent, asked: bool, now_ns: u64) {
        // Whoever is asked learns the way back.
        let asks_back = match recovery.back {
            WayBack::Known => false,
            WayBack::Asks => !asked,
            WayBack::AlwaysAsks | WayBack::AskedInVain => true,
        };
        if self.is_away_again(now_ns.saturating_add(self.peer.exposed_ns)) {
            return;
        }
        let times = 1 + u64::from(asked) + u64::from(asks_back);
        let (least, longer) = recovery.round_trip_ns;
        let (soonest, longer) = (least.saturating_mul(times), longer.saturating_mul(times));
        let (after_ns, open_ns) = if recovery.late {
            (soonest.saturating_add(longer), (longer, 0))
        } else {
            (soonest, (0, longer))
        };
        match recovery.with {
            Answer::Ack | Answer::Orphan if sent == Sent::Ack => {}
            Answer::Ack | Answer::Orphan => self.draw_probe_ack(now_ns, after_ns, open_ns),
            Answer::Reset if self.in_flight.iter().any(|p| p.what == Arrival::Reset) => {}
            Answer::Reset => self.push(InFlight {
                at_ns: now_ns.saturating_add(after_ns),
                what: Arrival::Reset,
                open_ns,
                sooner_ns: 0,
                late_ns: self.late.0,
                also_on_time: self.late.1,
            }),
        }
    }

    /// What a SYN, data or a FIN draws that gets through after the fault.
    pub(super) fn answer_segment(&mut self, cfg: &Kernel, packet: Packet, now_ns: u64) {
        let Some(recovery) = self.recovery.clone().filter(|r| r.at.is_past(now_ns)) else { return };
        let (least, longer) = recovery.round_trip_ns;
        let after_ns = least.saturating_add(longer);
        // The question for the server's link-layer address takes a round trip of its own, as does
        // the server's for the way back.
        let asks = self.hop.is_asking();
        let asked_ns = now_ns.saturating_add(if asks { after_ns } else { 0 });
        let goes_ns = self.resolved_ns.unwrap_or(asked_ns);
        self.resolved_ns = Some(goes_ns).filter(|goes_ns| *goes_ns > now_ns);
        let asks_back_ns = match recovery.back {
            WayBack::Asks if !asks => after_ns,
            WayBack::AlwaysAsks => after_ns,
            WayBack::AskedInVain => after_ns.saturating_add(1_000_000_000),
            WayBack::Known | WayBack::Asks => 0,
        };
        let mut segments = std::mem::take(&mut self.waiting);
        if segments.is_empty() {
            segments.push((packet, self.frame, now_ns));
        }
        let half_ns = after_ns / 2;
        let sooner_ns = 3 * longer;
        let with = match recovery.with {
            Answer::Orphan if segments.iter().any(|(new, ..)| new.next > self.peer.next) => {
                Answer::Reset
            }
            with => with,
        };
        match with {
            Answer::Ack | Answer::Orphan => {
                let arrives_ns = goes_ns.saturating_add(half_ns);
                if self.is_away_again(arrives_ns) {
                    return;
                }
                if with == Answer::Orphan {
                    self.peer.reads_from_ns = None;
                }
                let frame = self.frame;
                for (packet, frame, sent_ns) in segments {
                    self.frame = frame;
                    let back_ns = (after_ns - half_ns).saturating_add(asks_back_ns);
                    let segment = Segment { packet, sent_ns, arrives_ns, back_ns, sooner_ns };
                    self.receive(cfg, segment);
                }
                self.frame = frame;
                // What waited comes at once, and the program runs after the kernel has acknowledged it.
                self.in_flight.sort_by_key(|packet| (packet.at_ns, packet.answers()));
            }
            Answer::Reset => {
                let at_ns = goes_ns.saturating_add(after_ns).saturating_add(asks_back_ns);
                if self.in_flight.first().is_some_and(|first| first.at_ns <= at_ns) {
                    return;
                }
                self.in_flight.clear();
                // The question for an address, and the answer to the segment.
                let open_ns = (2 * longer, 0);
                let (late_ns, also_on_time) = self.late;
                let what = Arrival::Reset;
                let reset = InFlight { at_ns, what, open_ns, sooner_ns, late_ns, also_on_time };
                self.push(reset);
            }
        }
    }
}
