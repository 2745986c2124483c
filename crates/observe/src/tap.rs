//! A tap on one interface: every frame that its host sends or receives, as `packet(7)` shows it.

mod decode;
mod filter;
mod socket;

use crate::{Error, clock};
pub use filter::TapFilter;
use nix::errno::Errno;
use socket::Received;
use spec::Addresses;
use std::os::fd::{AsFd, BorrowedFd};
use timeline::{Ends, Event, Source, What};

/// Bytes of a frame that are kept. Headers with every option, and the packet quoted by an ICMP
/// error, fit; the length on the wire is kept beside it.
pub const SNAP_LEN: usize = 256;

/// A packet socket bound to one interface of a namespace.
///
/// It sees frames where the interface hands them over: a frame sent is one that the host's
/// interface really took, after its routing, neighbour and queueing; a frame received is one
/// before its firewall. With segmentation offload one frame can stand for several.
#[derive(Debug)]
pub struct Tap {
    socket: socket::Receiver,
    source: Source,
    addresses: Addresses,
    wall: WallClock,
}

/// A frame, and what it means.
#[derive(Debug, Clone, PartialEq)]
pub struct Captured {
    /// What it is: a segment, another frame, [`What::Lost`] or [`What::WallClockSet`].
    pub event: Event,
    /// The ends of the connection that it is about.
    pub ends: Option<Ends>,
    /// The kernel's stamp, as it gave it: nanoseconds of wall time.
    pub wall_ns: u64,
    /// The first [`SNAP_LEN`] bytes from the Ethernet header on; empty where it is no frame.
    pub frame: Vec<u8>,
    /// The length on the wire, bytes.
    pub wire_len: u32,
}

impl Tap {
    /// Taps `interface` of the namespace. Events carry `source`. Segments between the two hosts of
    /// `addresses`, whatever their ports, are told from all other frames.
    ///
    /// The tap survives its interface going down and up again. `wall_is_set` says whether somebody may
    /// set the wall clock meanwhile.
    ///
    /// # Errors
    /// [`Error::Namespace`], [`Error::NoInterface`], [`Error::PacketSocket`] without
    /// `CAP_NET_RAW`, and [`Error::System`] for anything else.
    pub fn open(
        namespace: &netns::Namespace,
        interface: &str,
        source: Source,
        addresses: &Addresses,
        wall_is_set: bool,
    ) -> Result<Self, Error> {
        let socket = namespace
            .run(|| socket::Receiver::open(interface))
            .map_err(|source| Error::Namespace { instrument: "a tap", source })??;
        let wall = WallClock::new(wall_is_set);
        Ok(Self { socket, source, addresses: addresses.clone(), wall })
    }

    /// By which the tap is told what to leave out.
    ///
    /// # Errors
    /// [`Error::System`] without descriptors.
    pub fn filter(&self) -> Result<TapFilter, Error> {
        self.socket.filter()
    }

    /// Takes every frame that is waiting, and never blocks.
    ///
    /// # Errors
    /// [`Error::System`] if receiving fails; an interface that went down is not an error.
    pub fn drain(&mut self, captured: &mut Vec<Captured>) -> Result<(), Error> {
        if let Some(by_ns) = self.wall.read() {
            captured.push(self.without_frame(What::WallClockSet { by_ns }));
        }
        let Self { socket, source, addresses, wall } = self;
        let mut take = |frame: Received, bytes: &[u8]| {
            let bytes = &bytes[..SNAP_LEN.min(frame.wire_len as usize)];
            let (what, ends) = decode::decode(bytes, frame.wire_len, frame.sent, addresses);
            captured.push(Captured {
                event: Event::new(wall.monotonic_ns(frame.wall_ns), *source, what),
                ends,
                wall_ns: frame.wall_ns,
                frame: bytes.to_vec(),
                wire_len: frame.wire_len,
            });
        };
        loop {
            match socket.receive(&mut take) {
                Ok(false) | Err(Errno::EAGAIN) => return Ok(()),
                // ENETDOWN is told once when the interface goes down or is removed.
                Ok(true) | Err(Errno::EINTR | Errno::ENETDOWN) => {}
                Err(errno) => return Err(Error::system("receiving from a tap", errno)),
            }
        }
    }

    /// The last drain: what is still waiting, and how much was lost from the first on, in one
    /// [`What::Lost`].
    ///
    /// # Errors
    /// As for [`Self::drain`].
    pub fn finish(&mut self, captured: &mut Vec<Captured>) -> Result<(), Error> {
        self.drain(captured)?;
        let count = self.socket.take_drops()?;
        if count > 0 {
            captured.push(self.without_frame(What::Lost { count }));
        }
        Ok(())
    }

    fn without_frame(&self, what: What) -> Captured {
        let at_ns = clock::monotonic_ns();
        Captured {
            event: Event::new(at_ns, self.source, what),
            ends: None,
            wall_ns: at_ns.wrapping_add_signed(self.wall.offset_ns),
            frame: Vec::new(),
            wire_len: 0,
        }
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Turns the kernel's wall-clock stamps into monotonic time.
///
/// The offset is read anew at each drain. A slew moves it by at most half a microsecond per
/// millisecond, which does not matter; a step is told apart and reported. After a step a stamp may
/// be of either side of it: the one that lies between the last drain and this one is right, and no
/// time ever falls outside of that span.
#[derive(Debug)]
struct WallClock {
    offset_ns: i64,
    /// The offset before this drain, where the two differ by a step.
    stepped_from_ns: Option<i64>,
    previous_ns: u64,
    now_ns: u64,
    /// Whether somebody may set the clock: else its offset never changes.
    is_set: bool,
}

/// A change of the offset between two drains that is a step.
const STEP_NS: u64 = 1_000_000;
/// Slewing is at most 500 ppm (`MAXFREQ`, include/linux/timex.h).
const SLEW_PPM: u64 = 500;

impl WallClock {
    fn new(is_set: bool) -> Self {
        let (now_ns, offset_ns) = clock::wall_offset_ns();
        Self { offset_ns, stepped_from_ns: None, previous_ns: now_ns, now_ns, is_set }
    }

    /// Reads both clocks; says by how much the wall clock was set since the last time, if it was.
    fn read(&mut self) -> Option<i64> {
        if !self.is_set {
            return None;
        }
        let (now_ns, offset_ns) = clock::wall_offset_ns();
        self.advance(now_ns, offset_ns)
    }

    fn advance(&mut self, now_ns: u64, offset_ns: i64) -> Option<i64> {
        self.previous_ns = self.now_ns;
        self.now_ns = now_ns;
        let slew_ns = now_ns.saturating_sub(self.previous_ns) / 1_000_000 * SLEW_PPM;
        let moved_ns = offset_ns - self.offset_ns;
        let stepped = moved_ns.unsigned_abs() > STEP_NS + slew_ns;
        self.stepped_from_ns = stepped.then_some(self.offset_ns);
        self.offset_ns = offset_ns;
        stepped.then_some(moved_ns)
    }

    fn monotonic_ns(&self, wall_ns: u64) -> u64 {
        let with = |offset_ns: i64| wall_ns.saturating_add_signed(-offset_ns);
        match self.stepped_from_ns {
            None => with(self.offset_ns),
            Some(before) => {
                let span = self.previous_ns..=self.now_ns;
                let candidates = [with(self.offset_ns), with(before)];
                candidates
                    .into_iter()
                    .find(|at| span.contains(at))
                    .unwrap_or_else(|| candidates[0].clamp(self.previous_ns, self.now_ns))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_wall_clock_does_not_move_a_frame() {
        let mut wall = WallClock {
            offset_ns: 1_000,
            stepped_from_ns: None,
            previous_ns: 0,
            now_ns: 100,
            is_set: true,
        };
        assert_eq!(wall.advance(10_000_000, 1_200), None, "a slew");
        assert_eq!(wall.monotonic_ns(9_001_200), 9_000_000);

        let hour = 3_600_000_000_000;
        assert_eq!(wall.advance(20_000_000, hour), Some(hour - 1_200));
        assert_eq!(wall.monotonic_ns(15_001_200), 15_000_000, "stamped before the step");
        let after = 16_000_000 + hour.cast_unsigned();
        assert_eq!(wall.monotonic_ns(after), 16_000_000, "stamped after it");
        assert_eq!(wall.monotonic_ns(u64::MAX), 20_000_000, "never outside of the drain's span");

        assert_eq!(wall.advance(30_000_000, hour), None, "told once");
    }
}
