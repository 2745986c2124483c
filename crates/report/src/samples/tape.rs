//! A timeline, event by event.

use super::*;

pub(super) const SYN: u8 = 0x02;
pub(super) const ACK: u8 = 0x10;
pub(super) const FIN: u8 = 0x11;
pub(super) const RST: u8 = 0x14;
pub(super) const DATA: u8 = 0x18;

/// Events as two taps, a poller and two programs would record them.
pub(super) struct Tape {
    pub(super) events: Vec<Event>,
    pub(super) client_next: u32,
    pub(super) server_next: u32,
    pub(super) cut: bool,
}

impl Tape {
    /// A connection that has settled after six exchanges, 240 ms before 450 ms.
    pub(super) fn connected(keepalive: bool) -> Self {
        let mut tape =
            Self { events: vec![], client_next: 0xffff_ff00, server_next: 4_000_000, cut: false };
        tape.phase(0, Phase::Building);
        tape.phase(5_200, Phase::Connecting);
        tape.client_sends(6_000, SYN, tape.client_next, 0);
        tape.client_next = tape.client_next.wrapping_add(1);
        tape.server_sends(6_050, SYN | ACK, tape.server_next, 0);
        tape.server_next += 1;
        tape.client_sends(6_070, ACK, tape.client_next, 0);
        tape.call(6_080, Source::ClientProgram, CallName::Connect, "198.18.0.2:7", Ok(0));
        tape.phase(6_100, Phase::Settling);
        for exchange in 0..6 {
            if exchange == 5 && keepalive {
                tape.call(
                    200_000,
                    Source::ClientProgram,
                    CallName::SetSockOpt,
                    "SO_KEEPALIVE=1",
                    Ok(0),
                );
            }
            tape.exchange(10_000 + 40_000 * exchange);
        }
        tape.phase(215_000, Phase::Connected);
        let timer = if keepalive { 2 } else { 0 };
        tape.socket(216_000, Source::ClientSocket, "ESTABLISHED", timer, 0);
        tape.socket(216_400, Source::ServerSocket, "ESTABLISHED", 0, 0);
        tape
    }

    pub(super) fn exchange(&mut self, at_us: u64) {
        self.client_sends(at_us, DATA, self.client_next, 100);
        self.client_next = self.client_next.wrapping_add(100);
        self.server_sends(at_us + 60, DATA, self.server_next, 100);
        self.server_next += 100;
        self.client_sends(at_us + 90, ACK, self.client_next, 0);
    }

    pub(super) fn client_sends(&mut self, at_us: u64, bits: u8, seq: u32, len: u32) {
        let ack = self.server_next;
        let segment = segment(true, bits, seq, ack, len);
        self.push(at_us, Source::ClientWire, What::Segment(segment));
        if !self.cut {
            let segment = Segment { sent: false, ..segment };
            self.push(at_us + TRANSIT_US, Source::ServerWire, What::Segment(segment));
        }
    }

    pub(super) fn server_sends(&mut self, at_us: u64, bits: u8, seq: u32, len: u32) {
        let ack = self.client_next;
        let segment = segment(false, bits, seq, ack, len);
        self.push(at_us, Source::ClientWire, What::Segment(segment));
        let segment = Segment { sent: true, ..segment };
        self.push(at_us - TRANSIT_US, Source::ServerWire, What::Segment(segment));
    }

    pub(super) fn fault(&mut self, at_us: u64, acts: &[FaultAct]) {
        self.push(at_us, Source::Lab, What::Fault(FaultStep::Begin));
        for (after, act) in [180, 2_400].into_iter().zip(acts) {
            self.push(at_us + after, Source::Lab, What::Fault(FaultStep::Done(*act)));
        }
        self.push(at_us + 2_410, Source::Lab, What::Fault(FaultStep::Complete));
        self.phase(at_us + 2_420, Phase::Watching);
        self.cut = true;
    }

    pub(super) fn socket(
        &mut self,
        at_us: u64,
        source: Source,
        state: &str,
        timer: u8,
        timer_count: u8,
    ) {
        let sample = SocketSample {
            state: state.into(),
            timer,
            timer_count,
            info: Some(TcpInfo { rto_us: 204_000, ..Default::default() }),
            ..Default::default()
        };
        self.push(at_us, source, What::Socket(Box::new(sample)));
    }

    pub(super) fn told(&mut self, at_us: u64, error: Errno) {
        self.trace(at_us, Trace::ErrorReport { side: Side::Client, error });
        self.trace(
            at_us + 4,
            Trace::SetState { side: Side::Client, old: "ESTABLISHED".into(), new: "CLOSE".into() },
        );
        self.call(
            at_us + 45,
            Source::ClientProgram,
            CallName::Read,
            "POLLIN POLLERR POLLHUP",
            Err(error),
        );
    }

    pub(super) fn call(
        &mut self,
        at_us: u64,
        source: Source,
        name: CallName,
        detail: &str,
        result: Result<i64, Errno>,
    ) {
        let began_ns = START_NS + (at_us - 3) * 1000;
        let call = Call { name, detail: detail.into(), result, began_ns };
        self.push(at_us, source, What::Call(call));
    }

    pub(super) fn trace(&mut self, at_us: u64, trace: Trace) {
        self.push(at_us, Source::Tracepoint, What::Trace(trace));
    }

    pub(super) fn phase(&mut self, at_us: u64, phase: Phase) {
        self.push(at_us, Source::Lab, What::Phase(phase));
    }

    pub(super) fn push(&mut self, at_us: u64, source: Source, what: What) {
        self.events.push(Event::new(START_NS + at_us * 1000, source, what));
    }
}

fn segment(sent: bool, bits: u8, seq: u32, ack: u32, len: u32) -> Segment {
    let (source_port, destination_port) = if sent { (40_000, 7) } else { (7, 40_000) };
    let flags = Flags::from_bits(bits);
    Segment { sent, source_port, destination_port, seq, ack, flags, window: 502, len }
}
