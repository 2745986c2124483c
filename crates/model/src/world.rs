//! What a socket's packets meet: the next hop, and behind it the peer's kernel, which answers, goes
//! away at the fault and may come back.

use crate::hop::{Fate, Hop, Number};
use crate::kernel::Kernel;
use crate::wheel::Context;

/// A hop that has not repeated itself after so many probes does not.
const PROBES_APART: u64 = 64;

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    Syn,
    Data,
    Fin,
    /// An acknowledgement, which draws no answer but a reset.
    Ack,
    KeepaliveProbe,
    WindowProbe,
}

impl Sent {
    fn is_probe(self) -> bool {
        matches!(self, Self::Ack | Self::KeepaliveProbe | Self::WindowProbe)
    }
}

/// A moment of the plan, nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Moment {
    Never,
    At(u64),
    Past,
}

impl Moment {
    pub(crate) fn is_past(self, now_ns: u64) -> bool {
        match self {
            Self::Never => false,
            Self::At(at_ns) => now_ns >= at_ns,
            Self::Past => true,
        }
    }

    /// The same, if it is yet to come.
    pub(crate) fn ahead(self) -> Option<u64> {
        if let Self::At(at_ns) = self { Some(at_ns) } else { None }
    }

    fn age(&mut self, now_ns: u64) {
        if self.is_past(now_ns) {
            *self = Self::Past;
        }
    }
}

/// What arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Arrival {
    /// The acknowledgement of what is out; when the segment was sent that it echoes.
    Ack { echoed_ns: u64 },
    /// The acknowledgement of a probe.
    ProbeAck,
    /// A reset.
    Reset,
}

/// Something on its way to the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct InFlight {
    pub(crate) at_ns: u64,
    pub(crate) what: Arrival,
    /// By how much sooner, and later, it may come, nanoseconds: how that widens an end.
    pub(crate) open_ns: (u64, u64),
    /// By how much sooner it may come than a timer.
    pub(crate) sooner_ns: u64,
    /// By how much late the handler ran that drew it: an end that it makes is allowed to be so late
    /// anyway.
    pub(crate) late_ns: u64,
    /// Whether the same handler would have drawn it on time.
    pub(crate) also_on_time: bool,
}

/// What answers a segment that gets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    /// An acknowledgement: the connection goes on.
    Ack,
    /// A reset.
    Reset,
}

/// Whether a host knows the link-layer address that its answers go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum WayBack {
    /// It does.
    Known,
    /// It must ask, unless the one who sends to it asks first: a question carries the address.
    Asks,
    /// It must ask in any case.
    AlwaysAsks,
    /// It has asked while nothing got through, and asks again a second after that.
    AskedInVain,
}

/// A path that comes back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Recovery {
    pub(crate) at: Moment,
    /// What answers then.
    pub(crate) with: Answer,
    /// Whether the host has another link-layer address now, and must be asked for.
    pub(crate) moved: bool,
    /// Whether the host knows the way back.
    pub(crate) back: WayBack,
    /// A round trip, nanoseconds, at least, and how much longer at most: the smoothed one holds
    /// what the machine took for other segments.
    pub(crate) round_trip_ns: (u64, u64),
    /// Whether an answer to a probe takes as long as it can.
    pub(crate) late: bool,
}

/// The peer's kernel while it can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    /// The time of a round trip, nanoseconds.
    pub(crate) rtt_ns: u64,
    /// How long a packet and its answer are within reach of the fault, nanoseconds.
    pub(crate) exposed_ns: u64,
    /// How long it holds the acknowledgement of a FIN back, jiffies (`tcp_send_delayed_ack`).
    pub(crate) delayed_ack: u64,
    /// `tcp_invalid_ratelimit`, jiffies: segments outside its window are answered no more often
    /// (`__tcp_oow_rate_limited`).
    pub(crate) invalid_ratelimit: u64,
    /// `last_oow_ack_time`, jiffies.
    pub(crate) last_oow_ack: Option<u64>,
    /// Whether its program answers requests.
    pub(crate) replies: bool,
}

impl Peer {
    /// Forgets when it last acknowledged a probe, where that cannot matter to one that is sent at
    /// this jiffy or later.
    pub(crate) fn forget(&mut self, jiffy: u64) {
        let limit = self.invalid_ratelimit;
        self.last_oow_ack = self.last_oow_ack.filter(|last| jiffy < last.saturating_add(limit));
    }
}

/// A router that remembers a flow until it was idle for too long (`nf_ct_refresh_acct`,
/// net/netfilter/nf_conntrack_core.c).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Memory {
    /// For how long it remembers, jiffies.
    pub(crate) idle: u64,
    /// When the last packet passed, jiffies.
    pub(crate) passed: u64,
    /// By how much that may be wrong, jiffies.
    pub(crate) open: u64,
    /// Whether it answers what it has forgotten with a reset.
    pub(crate) resets: bool,
}

/// What packets meet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) peer: Peer,
    /// When the peer can no longer be reached.
    pub(crate) lost: Moment,
    /// Where packets go then.
    pub(crate) hop: Hop,
    /// Whether the hop's timer comes before the socket's where both fire at the same jiffy; of a SYN
    /// that is known.
    pub(crate) hop_first: bool,
    /// Whether the hop's timer was armed after the write timer.
    pub(crate) hop_armed_last: bool,
    /// What an ICMP error from next door takes to come back, nanoseconds.
    pub(crate) icmp_ns: u64,
    /// Whether nothing that is sent passes the client's tap once the peer is lost.
    pub(crate) unseen: bool,
    pub(crate) recovery: Option<Recovery>,
    /// What a router on the way knows of the flow, if it may forget it.
    pub(crate) memory: Option<Memory>,
    /// Whether it has forgotten the flow when this packet came cannot be said.
    pub(crate) undecided: bool,
    /// When other sysctls are in force.
    pub(crate) later: Moment,
    /// Until when what arrives moves the reference of the prediction.
    pub(crate) reference_until: Moment,
    /// What is on its way, in the order of its arrival.
    pub(crate) in_flight: Vec<InFlight>,
    /// When the first FINs were sent that wait at the hop.
    waiting_ns: Vec<u64>,
    /// When a link-layer address comes that was asked for.
    pub(crate) resolved_ns: Option<u64>,
    /// By how much late the handler runs that sends, and whether it also would on time.
    pub(crate) late: (u64, bool),
    /// How many answers of a peer that stays have come.
    pub(crate) heard: u32,
    /// Probes sent so far, by number.
    probe: Number,
    /// Of those, how many passed the tap since this was last taken.
    seen: u32,
    tick_ns: u64,
}

impl World {
    pub(crate) fn new(cfg: &Kernel, peer: Peer, hop: Hop) -> Self {
        Self {
            peer,
            lost: Moment::Never,
            hop,
            hop_first: false,
            hop_armed_last: false,
            icmp_ns: 0,
            unseen: false,
            recovery: None,
            memory: None,
            undecided: false,
            later: Moment::Never,
            reference_until: Moment::Never,
            in_flight: Vec::new(),
            waiting_ns: Vec::new(),
            resolved_ns: None,
            late: (0, false),
            heard: 0,
            probe: 0,
            seen: 0,
            tick_ns: cfg.hz.tick_ns(),
        }
    }

    /// Forgets which moments of the plan are over when.
    pub(crate) fn age(&mut self, now_ns: u64) {
        self.lost.age(now_ns);
        self.later.age(now_ns);
        self.reference_until.age(now_ns);
        if let Some(recovery) = &mut self.recovery {
            recovery.at.age(now_ns);
        }
    }

    /// Timers look at the plan at their jiffies alone.
    pub(crate) fn in_jiffies(&mut self) {
        let recovery = self.recovery.as_mut().map(|recovery| &mut recovery.at);
        for moment in [Some(&mut self.later), recovery].into_iter().flatten() {
            if let Moment::At(at_ns) = moment {
                *at_ns = at_ns.next_multiple_of(self.tick_ns);
            }
        }
    }

    /// The next moment of the plan.
    pub(crate) fn next_change(&self) -> Option<u64> {
        let recovery = self.recovery.as_ref().and_then(|recovery| recovery.at.ahead());
        [self.lost.ahead(), self.later.ahead(), recovery].into_iter().flatten().min()
    }

    /// Whether a packet that is sent now reaches a peer that knows the connection.
    pub(crate) fn is_reached(&self, now_ns: u64) -> bool {
        !self.lost.is_past(now_ns)
    }

    /// Whether the peer answers from now on.
    pub(crate) fn stays(&self, now_ns: u64) -> bool {
        match &self.recovery {
            Some(recovery) => recovery.with == Answer::Ack && recovery.at.is_past(now_ns),
            None => self.lost == Moment::Never,
        }
    }

    /// Whether no ICMP error ever comes.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self.hop, Hop::Silent)
    }

    /// A number for a probe.
    pub(crate) fn next_probe(&mut self) -> Number {
        // Only the host's own queue looks at it.
        self.probe += usize::from(self.hop.is_local());
        self.probe
    }

    /// After how many probes, one each `step` jiffies, the hop is as it is after the one at `jiffy`.
    pub(crate) fn repeats_after(&self, cfg: &Kernel, jiffy: u64, step: u64) -> Option<u64> {
        let mut hop = self.hop.clone();
        (1..=PROBES_APART).find(|count| {
            let at = jiffy + count * step;
            let is_due = |fires: &u64| *fires < at || (*fires == at && self.hop_first);
            while let Some(fires) = hop.fires().filter(is_due) {
                hop.fire(cfg, fires);
            }
            hop.send(cfg, self.probe, at, Context::Handler);
            hop == self.hop.clone().later(count * step)
        })
    }

    /// Goes on by so many jiffies, a multiple of what it repeats itself after.
    pub(crate) fn skip(&mut self, jiffies: u64) {
        self.hop = std::mem::replace(&mut self.hop, Hop::Silent).later(jiffies);
    }

    /// How many probes have passed the tap since the last time.
    pub(crate) fn take_seen(&mut self) -> u32 {
        std::mem::take(&mut self.seen)
    }

    /// A packet is sent.
    pub(crate) fn send(
        &mut self,
        cfg: &Kernel,
        sent: Sent,
        number: Number,
        now_ns: u64,
        context: Context,
    ) -> Fate {
        self.pass_router(sent, now_ns);
        if self.is_reached(now_ns) {
            self.reach_peer(cfg, sent, now_ns);
            return Fate::OnWire;
        }
        let now = now_ns / self.tick_ns;
        let armed = self.hop.fires();
        let fate = self.hop.send(cfg, number, now, context);
        self.hop_armed_last |= self.hop.fires() != armed;
        if sent.is_probe() {
            if sent != Sent::Ack && !self.unseen {
                self.seen += u32::from(matches!(fate, Fate::OnWire | Fate::Answered));
            }
            self.answer_probe(sent, fate, now_ns);
        } else {
            // Of these the first two matter, and only what a FIN's acknowledgement echoes.
            let echoed = sent == Sent::Fin && self.recovery.is_some() && self.waiting_ns.len() < 2;
            if echoed && self.hop.is_asking() && fate != Fate::Busy {
                self.waiting_ns.push(now_ns);
            }
            let by_asking_only = self.recovery.as_ref().is_some_and(|recovery| recovery.moved);
            if self.hop.passes(fate, by_asking_only) {
                self.answer_segment(cfg, sent, now_ns);
            }
        }
        fate
    }

    /// A packet comes to the router, which has forgotten the flow or goes on remembering it: from what
    /// answers the packet, if it is answered.
    fn pass_router(&mut self, sent: Sent, now_ns: u64) {
        let now = now_ns / self.tick_ns;
        let Some(memory) = &mut self.memory else { return };
        let idle = now.saturating_sub(memory.passed);
        self.undecided |= idle + memory.open >= memory.idle && idle < memory.idle + memory.open;
        if idle < memory.idle {
            let answered = if sent == Sent::Ack { 0 } else { self.peer.rtt_ns / self.tick_ns };
            memory.passed = now + answered;
            return;
        }
        let resets = memory.resets;
        self.memory = None;
        self.lost = Moment::Past;
        // The router is next door: what delays the path lies behind it.
        self.recovery = resets.then_some(Recovery {
            at: Moment::Past,
            with: Answer::Reset,
            moved: false,
            back: WayBack::Known,
            round_trip_ns: (0, 0),
            late: false,
        });
    }

    /// The peer's kernel lives and can be reached.
    fn reach_peer(&mut self, cfg: &Kernel, sent: Sent, now_ns: u64) {
        let arrives_ns = now_ns.saturating_add(self.peer.exposed_ns);
        let answered = !self.lost.is_past(arrives_ns);
        match sent {
            Sent::KeepaliveProbe | Sent::WindowProbe => {
                self.seen += 1;
                if answered {
                    self.draw_probe_ack(now_ns, self.peer.rtt_ns, (0, 0));
                }
            }
            Sent::Syn | Sent::Data | Sent::Fin if answered => {
                let at_ns = now_ns.saturating_add(self.peer.rtt_ns);
                let at_ns = if sent == Sent::Fin { self.held_back(cfg, now_ns) } else { at_ns };
                self.push(InFlight {
                    at_ns,
                    what: Arrival::Ack { echoed_ns: now_ns },
                    open_ns: (0, 0),
                    sooner_ns: 0,
                    late_ns: self.late.0,
                    also_on_time: self.late.1,
                });
            }
            Sent::Ack | Sent::Syn | Sent::Data | Sent::Fin => {}
        }
    }

    /// A probe was sent at this time, before the sample: its answer is still on its way, if it drew
    /// one.
    pub(crate) fn draws_before(&mut self, sent_ns: u64, sampled_ns: u64) {
        if !self.lost.is_past(sent_ns.saturating_add(self.peer.exposed_ns)) {
            self.draw_probe_ack(sent_ns, self.peer.rtt_ns, (0, 0));
            for packet in &mut self.in_flight {
                packet.at_ns = packet.at_ns.max(sampled_ns);
            }
        }
    }

    /// When the acknowledgement of a FIN comes that is sent at `sent_ns`: the peer's kernel holds it
    /// back for a number of its own jiffies.
    fn held_back(&self, cfg: &Kernel, sent_ns: u64) -> u64 {
        let half_ns = self.peer.rtt_ns / 2;
        let arrives = sent_ns.saturating_add(half_ns) / self.tick_ns;
        let fires = cfg.wheel.fires_at(arrives, self.peer.delayed_ack, Context::Call);
        (fires * self.tick_ns).saturating_add(half_ns)
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

    fn push(&mut self, packet: InFlight) {
        let at = self.in_flight.partition_point(|other| other.at_ns <= packet.at_ns);
        self.in_flight.insert(at, packet);
    }

    /// What waited at the hop is thrown away.
    pub(crate) fn forget_waiting(&mut self) {
        self.waiting_ns.clear();
    }

    /// What a probe draws that is sent after the fault.
    fn answer_probe(&mut self, sent: Sent, fate: Fate, now_ns: u64) {
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
    fn gets_through(&mut self, now_ns: u64) {
        if self.hop.is_local() {
            self.seen += self.hop.waiting() as u32;
        }
        self.hop.resolve(now_ns / self.tick_ns);
    }

    fn reply(&mut self, recovery: &Recovery, sent: Sent, asked: bool, now_ns: u64) {
        // Whoever is asked learns the way back.
        let asks_back = match recovery.back {
            WayBack::Known => false,
            WayBack::Asks => !asked,
            WayBack::AlwaysAsks | WayBack::AskedInVain => true,
        };
        let times = 1 + u64::from(asked) + u64::from(asks_back);
        let (least, longer) = recovery.round_trip_ns;
        let (soonest, longer) = (least.saturating_mul(times), longer.saturating_mul(times));
        let (after_ns, open_ns) = if recovery.late {
            (soonest.saturating_add(longer), (longer, 0))
        } else {
            (soonest, (0, longer))
        };
        match recovery.with {
            Answer::Ack if sent == Sent::Ack => {}
            Answer::Ack => self.draw_probe_ack(now_ns, after_ns, open_ns),
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
    fn answer_segment(&mut self, cfg: &Kernel, sent: Sent, now_ns: u64) {
        let Some(recovery) = self.recovery.clone().filter(|r| r.at.is_past(now_ns)) else { return };
        let (least, longer) = recovery.round_trip_ns;
        let after_ns = least.saturating_add(longer);
        // The question for the server's link-layer address takes a round trip of its own, as does
        // the server's for the way back.
        let asks = self.hop.is_asking();
        let sent_ns = now_ns.saturating_add(if asks { after_ns } else { 0 });
        let back_ns = match recovery.back {
            WayBack::Asks if !asks => after_ns,
            WayBack::AlwaysAsks => after_ns,
            WayBack::AskedInVain => after_ns.saturating_add(1_000_000_000),
            WayBack::Known | WayBack::Asks => 0,
        };
        self.resolved_ns.get_or_insert(sent_ns);
        let waiting_ns = std::mem::take(&mut self.waiting_ns);
        let is_first = self.in_flight.is_empty();
        let (at_ns, echoed_ns) = match (sent, recovery.with, &waiting_ns[..]) {
            // A FIN that comes again is acknowledged at once (`tcp_data_queue`).
            (_, _, [_, second, ..]) => (sent_ns.saturating_add(after_ns), *second),
            (Sent::Fin, Answer::Ack, _) if is_first => {
                let first_ns = waiting_ns.first().copied().unwrap_or(now_ns);
                let arrives = sent_ns.saturating_add(after_ns / 2) / self.tick_ns;
                let fires = cfg.wheel.fires_at(arrives, self.peer.delayed_ack, Context::Call);
                ((fires * self.tick_ns).saturating_add(after_ns / 2), first_ns)
            }
            _ => (sent_ns.saturating_add(after_ns), now_ns),
        };
        let at_ns = at_ns.saturating_add(back_ns);
        let (what, open_ns) = match recovery.with {
            Answer::Ack => (Arrival::Ack { echoed_ns }, (0, 0)),
            // The question for an address, and the answer to the segment.
            Answer::Reset => (Arrival::Reset, (2 * longer, 0)),
        };
        let sooner_ns = 3 * longer;
        let (late_ns, also_on_time) = self.late;
        let packet = InFlight { at_ns, what, open_ns, sooner_ns, late_ns, also_on_time };
        // The first that comes decides.
        match self.in_flight.first_mut() {
            Some(first) if first.at_ns <= at_ns => {}
            Some(first) => *first = packet,
            None => self.in_flight.push(packet),
        }
    }

    /// The hop's timer is about to fire: an answer to its question, if the path is back. Says whether
    /// it is a probe that waits for it, and gets through.
    pub(crate) fn hop_asks(&mut self, cfg: &Kernel, waits: Sent, now_ns: u64) -> bool {
        if !self.hop.asks_again() {
            return false;
        }
        let Some(recovery) = self.recovery.clone().filter(|r| r.at.is_past(now_ns)) else {
            return false;
        };
        if waits.is_probe() {
            self.gets_through(now_ns);
            self.reply(&recovery, waits, true, now_ns);
            return true;
        }
        self.answer_segment(cfg, waits, now_ns);
        false
    }
}
