//! What a socket's packets meet: the next hop, and behind it the peer's kernel, which answers, goes
//! away at the fault and may come back.

mod losses;
mod outages;
mod peer;
mod room;

pub(crate) use losses::{Losses, Which};
pub(crate) use outages::{ANSWER_IS_OUT, Away, Sequence};
pub(crate) use peer::Peer;
pub(crate) use room::Room;

use crate::choices::Choices;
use crate::hop::{Fate, Hop, Limit, Number};
use crate::kernel::Kernel;
use crate::tick::EPOCH;
use crate::wheel::Context;
use outages::Outage;

const FORGOTTEN_OR_NOT: &str = "a packet comes to the router when the flow was idle for as long as it \
                                remembers it, to a few jiffies";
const ASKED_FOR: &str = "somebody may be asked for a link-layer address that was learned, while the path is away \
                         once more: that is not followed";
/// A hop that has not repeated itself after so many probes does not.
const PROBES_APART: u64 = 64;

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// A SYN, data, a FIN.
    Segment(Packet),
    /// An acknowledgement, which draws no answer but a reset.
    Ack,
    KeepaliveProbe,
    WindowProbe,
}

/// What takes a number of its own, or several where small segments were gathered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Packet {
    pub(crate) first: Number,
    /// The number after its last.
    pub(crate) next: Number,
    /// Of data.
    pub(crate) bytes: u32,
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    /// Whether the peer's program answers it.
    pub(crate) asks: bool,
}

/// Segments that leave as one: a hop answers a frame once, and the peer receives it as one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Frame {
    /// How much data is before the segment in its frame, bytes.
    pub(crate) before: u32,
    /// How much data it has, bytes; 0: it has one segment.
    pub(crate) bytes: u32,
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

    fn put_off(&mut self, by_ns: u64) {
        if let Self::At(at_ns) = self {
            *at_ns = at_ns.saturating_add(by_ns);
        }
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
    /// The acknowledgement of all segments before `next`; when the segment was sent whose time stamp
    /// it echoes, whether it comes with the answer of the peer's program, and whether the last segment had
    /// come before (DSACK).
    Ack { next: Number, echoed_ns: u64, answers: bool, came_twice: bool },
    /// One that says that segments before `seen` are missing, since `came` has come (SACK).
    Missing { seen: Number, came: Number },
    /// The acknowledgement of a probe.
    ProbeAck,
    /// A reset.
    Reset,
    /// The peer's FIN.
    Fin,
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

impl InFlight {
    /// What comes at that time exactly.
    fn of(what: Arrival, at_ns: u64) -> Self {
        Self { at_ns, what, open_ns: (0, 0), sooner_ns: 0, late_ns: 0, also_on_time: false }
    }

    /// Whether it comes with the answer of the peer's program.
    fn answers(&self) -> bool {
        matches!(self.what, Arrival::Ack { answers: true, .. })
    }
}

/// What answers a segment that gets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    /// An acknowledgement: the connection goes on.
    Ack,
    /// A reset.
    Reset,
    /// That of a socket which no process has, and whose FIN is not acknowledged: new data draws a reset, and all
    /// else an acknowledgement (`tcp_rcv_state_process`, net/ipv4/tcp_input.c).
    Orphan,
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

/// What answers once a path is back, so long after a moment that is yet to be gone through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Healed {
    /// When, nanoseconds; 0: from that moment on.
    pub(crate) at_ns: u64,
    /// As in [`Recovery`].
    pub(crate) with: Answer,
    pub(crate) moved: bool,
    pub(crate) back: WayBack,
    pub(crate) round_trip_ns: (u64, u64),
}

impl Healed {
    /// The same from another moment on.
    pub(crate) fn from(self, at_ns: u64) -> Self {
        Self { at_ns, ..self }
    }

    /// The same, seen from so much later.
    pub(crate) fn earlier(self, by_ns: u64) -> Self {
        self.from(self.at_ns.saturating_sub(by_ns))
    }

    /// Whether a reset may come sooner or later.
    pub(crate) fn is_open(self) -> bool {
        self.with == Answer::Reset && self.round_trip_ns.1 > 0
    }

    /// Of a run whose moment is this; `late`: an answer to a probe takes as long as it can.
    pub(crate) fn recovery(self, origin_ns: u64, late: bool) -> Recovery {
        let Self { at_ns, with, moved, back, round_trip_ns } = self;
        let at = match at_ns {
            0 => Moment::Past,
            at_ns => Moment::At(origin_ns.saturating_add(at_ns)),
        };
        Recovery { at, with, moved, back, round_trip_ns, late }
    }
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
    /// What the path does from which moment on, the first first.
    pub(crate) outages: Vec<Outage>,
    /// What is left of a router's limit of ICMP errors while none is drawn.
    limit: Option<Limit>,
    /// Until when the peer's kernel may not know that its program's answer has come, nanoseconds.
    answer_is_out_ns: u64,
    /// Whether the program writes on, sooner than keepalive asks: what it is answered twice makes no difference.
    pub(crate) writes_on: bool,
    /// Whether it writes faster than it is answered, so that a congestion window that is small after losses holds
    /// it up.
    pub(crate) congested: bool,
    /// Until when a neighbour entry is believed whose life is not followed.
    believed_until: Moment,
    /// The frame in which what is sent leaves.
    pub(crate) frame: Frame,
    /// What a router on the way knows of the flow, if it may forget it.
    pub(crate) memory: Option<Memory>,
    /// Why what comes next cannot be followed, if it cannot.
    pub(crate) unknown: Option<&'static str>,
    /// Which packets the path drops, if it drops some.
    pub(crate) losses: Option<Losses>,
    /// When other sysctls are in force.
    pub(crate) later: Moment,
    /// Until when what arrives moves the reference of the prediction.
    pub(crate) reference_until: Moment,
    /// What is on its way, in the order of its arrival.
    pub(crate) in_flight: Vec<InFlight>,
    /// The first segments that wait at the hop: what each was as a frame, and when it was sent.
    waiting: Vec<(Packet, Frame, u64)>,
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
    /// Up to which slot of the wheel the phase of the clock is known, jiffies.
    pub(crate) phase: u64,
    /// What cannot be known within a step that is being gone through.
    pub(crate) choices: Choices,
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
            outages: Vec::new(),
            limit: None,
            answer_is_out_ns: 0,
            writes_on: false,
            congested: false,
            believed_until: Moment::Never,
            frame: Frame::default(),
            memory: None,
            unknown: None,
            losses: None,
            later: Moment::Never,
            reference_until: Moment::Never,
            in_flight: Vec::new(),
            waiting: Vec::new(),
            resolved_ns: None,
            late: (0, false),
            heard: 0,
            probe: 0,
            seen: 0,
            tick_ns: cfg.hz.tick_ns(),
            phase: EPOCH,
            choices: Choices::default(),
        }
    }

    /// Forgets which moments of the plan are over when.
    pub(crate) fn age(&mut self, now_ns: u64) {
        self.go_through(now_ns);
        self.lost.age(now_ns);
        self.later.age(now_ns);
        self.reference_until.age(now_ns);
        if let Some(losses) = &mut self.losses {
            // What is on its way has passed, or not, half a round trip ago.
            losses.from.age(now_ns.saturating_sub(self.peer.rtt_ns));
            if let Which::Longer { ends, .. } = &mut losses.which {
                ends.age(now_ns.saturating_sub(self.peer.rtt_ns));
            }
        }
        if let Some(recovery) = &mut self.recovery {
            recovery.at.age(now_ns);
        }
    }

    /// Puts all its moments off by so many jiffies: nothing but the wheel's slots makes a difference then.
    pub(crate) fn put_off(&mut self, jiffies: u64) {
        let by_ns = jiffies * self.tick_ns;
        self.hop = std::mem::replace(&mut self.hop, Hop::Silent).put_off(jiffies);
        self.limit.iter_mut().for_each(|limit| limit.put_off(jiffies));
        let plan =
            [&mut self.lost, &mut self.later, &mut self.reference_until, &mut self.believed_until];
        for moment in plan {
            moment.put_off(by_ns);
        }
        self.recovery.iter_mut().for_each(|recovery| recovery.at.put_off(by_ns));
        self.outages.iter_mut().for_each(|outage| outage.put_off(by_ns));
        self.losses = self.losses.take().map(|losses| losses.later(by_ns));
        if self.answer_is_out_ns > 0 {
            self.answer_is_out_ns += by_ns;
        }
        if let Some(memory) = &mut self.memory {
            memory.passed += jiffies;
        }
        self.resolved_ns.iter_mut().for_each(|at_ns| *at_ns += by_ns);
        for packet in &mut self.in_flight {
            packet.at_ns += by_ns;
            if let Arrival::Ack { echoed_ns, .. } = &mut packet.what {
                *echoed_ns += by_ns;
            }
        }
        self.waiting.iter_mut().for_each(|(.., sent_ns)| *sent_ns += by_ns);
        self.peer.put_off(jiffies, by_ns);
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
        let again = self.outages.first().map(|outage| outage.from_ns);
        [self.lost.ahead(), self.later.ahead(), recovery, again].into_iter().flatten().min()
    }

    /// Whether a packet that is sent now reaches a peer that knows the connection.
    pub(crate) fn is_reached(&self, now_ns: u64) -> bool {
        !self.lost.is_past(now_ns)
    }

    /// Whether the peer answers from now on.
    pub(crate) fn stays(&self, now_ns: u64) -> bool {
        if self.losses.as_ref().is_some_and(Losses::goes_on) || !self.outages.is_empty() {
            return false;
        }
        if let Some(recovery) = &self.recovery {
            return recovery.with == Answer::Ack && recovery.at.is_past(now_ns);
        }
        self.lost == Moment::Never
    }

    /// Whether a peer that stays answers each of probes that are so far apart, jiffies, before the next.
    pub(crate) fn answers_each(&self, apart: u64) -> bool {
        let trip = self.peer.rtt_ns / self.tick_ns + 1;
        apart > trip + self.peer.invalid_ratelimit && self.memory.is_none()
    }

    /// Whether nothing of the peer's comes any more.
    pub(crate) fn never_answers(&self) -> bool {
        self.lost == Moment::Past && self.never_comes_back() && self.in_flight.is_empty()
    }

    /// Whether nothing that is sent once the peer is lost is ever answered.
    fn never_comes_back(&self) -> bool {
        self.recovery.is_none() && self.losses.is_none() && self.outages.is_empty()
    }

    /// What a segment that is sent once the peer is lost may draw an answer after, nanoseconds.
    pub(crate) fn round_trip_ns(&self) -> Option<u64> {
        let never = self.lost != Moment::Never && self.never_comes_back();
        (!never).then_some(self.peer.rtt_ns)
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
        if self.hop.is_open() {
            return None;
        }
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
        if self.loses(sent, now_ns) {
            return Fate::OnWire;
        }
        if self.is_reached(now_ns) {
            self.reach_peer(cfg, sent, now_ns);
            return Fate::OnWire;
        }
        if self.believed_until.is_past(now_ns) && !self.is_back(now_ns) {
            self.unknown = Some(ASKED_FOR);
        }
        let now = now_ns / self.tick_ns;
        let armed = self.hop.fires();
        let fate = if self.frame.before > 0 {
            let before = number.saturating_sub(1);
            if self.hop.held().contains(&before) { Fate::Held } else { Fate::OnWire }
        } else {
            self.hop.send(cfg, number, now, context)
        };
        self.hop_armed_last |= self.hop.fires() != armed;
        if let Sent::Segment(packet) = sent {
            let matters = self.recovery.is_some() && self.is_new_or_first_again(packet);
            if matters && self.hop.is_asking() && fate != Fate::Busy {
                self.waiting.push((packet, self.frame, now_ns));
            }
            let by_asking_only = self.recovery.as_ref().is_some_and(|recovery| recovery.moved);
            // What is sent while the answer to the question is on its way goes once that has come.
            let follows = matters && fate != Fate::Busy && self.resolved_ns.is_some();
            if follows || self.hop.passes(fate, by_asking_only) {
                self.answer_segment(cfg, packet, now_ns);
            }
        } else {
            if sent != Sent::Ack && !self.unseen {
                self.seen += u32::from(matches!(fate, Fate::OnWire | Fate::Answered));
            }
            self.answer_probe(sent, fate, now_ns);
        }
        fate
    }

    /// Of what waits at the hop, those matter that are new, and the first that comes again: it is
    /// acknowledged at once.
    fn is_new_or_first_again(&self, packet: Packet) -> bool {
        let (mut next, mut again) = (0, false);
        for (other, ..) in &self.waiting {
            again |= other.next <= next;
            next = next.max(other.next);
        }
        packet.next > next || !again
    }

    /// A packet comes to the router, which has forgotten the flow or goes on remembering it: from what
    /// answers the packet, if it is answered.
    pub(crate) fn pass_router(&mut self, sent: Sent, now_ns: u64) {
        let now = now_ns / self.tick_ns;
        let Some(memory) = &mut self.memory else { return };
        let idle = now.saturating_sub(memory.passed);
        if idle + memory.open >= memory.idle && idle < memory.idle + memory.open {
            self.unknown = Some(FORGOTTEN_OR_NOT);
        }
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

    /// Whether a router may forget the flow when nothing passes for so long, nanoseconds.
    pub(crate) fn forgets_within(&self, idle_ns: u64) -> bool {
        let idle = idle_ns.div_ceil(self.tick_ns);
        self.memory.as_ref().is_some_and(|memory| idle + memory.open >= memory.idle)
    }

    /// What waited at the hop is thrown away.
    pub(crate) fn forget_waiting(&mut self) {
        self.waiting.clear();
    }

    /// The hop's timer is about to fire: an answer to its question, if the path is back. Says whether
    /// it is a probe that waits for it, and gets through.
    pub(crate) fn hop_asks(&mut self, cfg: &Kernel, waits: Option<Packet>, now_ns: u64) -> bool {
        if !self.hop.asks_again() {
            return false;
        }
        let Some(recovery) = self.recovery.clone().filter(|r| r.at.is_past(now_ns)) else {
            return false;
        };
        if let Some(packet) = waits {
            self.answer_segment(cfg, packet, now_ns);
            return false;
        }
        self.gets_through(now_ns);
        self.reply(&recovery, Sent::KeepaliveProbe, true, now_ns);
        true
    }
}
