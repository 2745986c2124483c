//! Which packets a path drops, where it does not drop all of them.

use crate::choice::{Direction, FaultKind, LostHost};
use crate::experiment::Fault;

/// What a path drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sieve {
    /// Whether it drops what goes to the lost host.
    pub to_lost: bool,
    /// Whether it drops what goes to the survivor.
    pub to_survivor: bool,
    /// Which of that.
    pub drops: Drops,
}

/// Which packets are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drops {
    /// Every frame.
    All,
    /// The next TCP packets of each flow, so many.
    Next(u32),
    /// TCP packets by chance: so many of [`EVERY_PACKET`], in the order that this seed gives.
    Share(u16, u64),
    /// IP packets of more bytes than this.
    Longer(u32),
}

/// The share that is all packets.
pub const EVERY_PACKET: u16 = 10_000;

impl Fault {
    /// What the path drops, if it is one that does not drop everything.
    pub fn sieve(&self) -> Option<Sieve> {
        let drops = match (self.kind, self.packets, self.loss) {
            (FaultKind::Mtu, ..) => Drops::Longer(self.mtu?),
            (FaultKind::Blackhole, Some(packets), _) => Drops::Next(packets),
            (FaultKind::Blackhole, None, Some(loss)) => Drops::Share(loss, self.seed),
            (FaultKind::Blackhole, None, None) => Drops::All,
            (
                FaultKind::None
                | FaultKind::ProcessCrash
                | FaultKind::ProcessFreeze
                | FaultKind::PowerOff
                | FaultKind::Reboot
                | FaultKind::Takeover
                | FaultKind::Reject
                | FaultKind::Forget
                | FaultKind::Unplug
                | FaultKind::Flap,
                ..,
            ) => return None,
        };
        let (to_lost, to_survivor) = match (self.direction, self.host) {
            (Direction::Both, _) => (true, true),
            (Direction::ToServer, LostHost::Server | LostHost::Proxy)
            | (Direction::ToClient, LostHost::Client) => (true, false),
            (Direction::ToClient, LostHost::Server | LostHost::Proxy)
            | (Direction::ToServer, LostHost::Client) => (false, true),
        };
        let sieve = Sieve { to_lost, to_survivor, drops };
        (sieve != Sieve { to_lost: true, to_survivor: true, drops: Drops::All }).then_some(sieve)
    }
}

/// Whether chance takes the packet of this number, counted from 0 in each flow and each direction.
/// The same seed gives the same losses (`SplitMix64`, Steele, Lea and Flood 2014).
pub fn is_lost(loss: u16, seed: u64, to_lost: bool, number: u64) -> bool {
    let way = if to_lost { 0 } else { 1 << 63 };
    let mut x = (seed ^ way).wrapping_add((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    x % u64::from(EVERY_PACKET) < u64::from(loss)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Parameters;

    #[test]
    fn a_seed_loses_the_same_packets_again_and_about_as_many_as_asked_for() {
        let lost = |seed, way| (0..10_000).filter(move |n| is_lost(2_000, seed, way, *n));
        assert!(lost(1, true).eq(lost(1, true)));
        assert!(!lost(1, true).eq(lost(2, true)) && !lost(1, true).eq(lost(1, false)));
        for seed in 1..20 {
            assert!((1_800..2_200).contains(&lost(seed, true).count()), "seed {seed}");
        }
        assert!((0..1000).all(|n| is_lost(EVERY_PACKET, 7, true, n)));
    }

    #[test]
    fn a_direction_is_said_of_client_and_server_whichever_breaks() {
        let mut fault = Parameters::default().fault;
        fault.kind = FaultKind::Blackhole;
        assert_eq!(fault.sieve(), None, "everything is dropped");
        fault.direction = Direction::ToClient;
        let ways = |fault: &Fault| fault.sieve().map(|s| (s.to_lost, s.to_survivor));
        assert_eq!(ways(&fault), Some((false, true)));
        fault.host = LostHost::Client;
        assert_eq!(ways(&fault), Some((true, false)));
    }
}
