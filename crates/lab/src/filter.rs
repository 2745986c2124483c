//! Drops some of the frames that pass: what a [`Sieve`] says.

use spec::sieve::{Drops, Sieve, is_lost};
use std::collections::HashMap;

/// One of the two ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    /// Towards the client or the router.
    Near = 0,
    /// Towards the server.
    Server = 1,
}

/// A sieve, and what has passed it so far.
#[derive(Debug)]
pub(crate) struct Filter {
    sieve: Sieve,
    /// How many TCP packets of each flow have come, by the port that they came to.
    passed: HashMap<Flow, [u64; 2]>,
}

/// Both ends of a connection, the lower one first.
type Flow = [Vec<u8>; 2];

impl Filter {
    /// A filter that nothing has passed.
    pub(crate) fn new(sieve: Sieve) -> Self {
        Self { sieve, passed: HashMap::new() }
    }

    /// Whether a frame that has come to a port is dropped.
    pub(crate) fn drops(&mut self, port: Port, frame: &[u8]) -> bool {
        let Sieve { to_lost, to_survivor, drops } = self.sieve;
        let applies = match port {
            Port::Near => to_lost,
            Port::Server => to_survivor,
        };
        if !applies {
            return false;
        }
        let flow = match (drops, flow_of(frame)) {
            (Drops::All, _) => return true,
            (Drops::Longer(mtu), _) => return frame.len() > ETHERNET + mtu as usize,
            (_, None) => return false,
            (_, Some(flow)) => flow,
        };
        let passed = self.passed.entry(flow).or_default();
        let before = *passed;
        passed[port as usize] += 1;
        match drops {
            Drops::All | Drops::Longer(_) => true,
            Drops::Next(packets) => before[0] + before[1] < packets.into(),
            Drops::Share(loss, seed) => {
                is_lost(loss, seed, port == Port::Near, before[port as usize])
            }
        }
    }
}

/// The connection that a frame is of; `None`: it is not TCP, or has extension headers or fragments,
/// which no trial makes.
fn flow_of(frame: &[u8]) -> Option<Flow> {
    let packet = frame.get(ETHERNET..)?;
    let (addresses, header) = match frame.get(12..ETHERNET)? {
        [0x08, 0x00] if *packet.get(9)? == TCP => (12..20, usize::from(packet[0] & 0xf) * 4),
        [0x86, 0xdd] if *packet.get(6)? == TCP => (8..40, 40),
        _ => return None,
    };
    let addresses = packet.get(addresses)?;
    let ports = packet.get(header..header + 4)?;
    let (source, destination) = addresses.split_at(addresses.len() / 2);
    let mut flow = [[source, &ports[..2]].concat(), [destination, &ports[2..]].concat()];
    flow.sort();
    Some(flow)
}

/// `ETH_HLEN`.
const ETHERNET: usize = 14;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    /// The beginning of an Ethernet frame with IPv4 and TCP.
    fn frame(ports: [u8; 2], kind: [u8; 2]) -> Vec<u8> {
        let mut frame = vec![0; 54];
        frame[12..14].copy_from_slice(&kind);
        (frame[14], frame[23]) = (0x45, TCP);
        let turned = ports[0] > ports[1];
        (frame[29], frame[33]) = if turned { (2, 1) } else { (1, 2) };
        (frame[35], frame[37]) = (ports[0], ports[1]);
        frame
    }

    fn filter(to_survivor: bool, drops: Drops) -> Filter {
        Filter::new(Sieve { to_lost: true, to_survivor, drops })
    }

    #[test]
    fn the_next_packets_are_counted_for_each_flow_both_ways_and_arp_never() {
        let mut filter = filter(true, Drops::Next(2));
        let (there, back) = (frame([7, 9], [8, 0]), frame([9, 7], [8, 0]));
        assert!(!filter.drops(Port::Near, &frame([7, 9], [8, 6])), "ARP");
        assert!(filter.drops(Port::Near, &there) && filter.drops(Port::Server, &back));
        assert!(!filter.drops(Port::Near, &there) && !filter.drops(Port::Server, &back));
        assert!(filter.drops(Port::Near, &frame([8, 9], [8, 0])), "another flow");
    }

    #[test]
    fn one_way_lets_the_other_pass() {
        let mut filter = filter(false, Drops::All);
        assert!(filter.drops(Port::Near, &frame([7, 9], [8, 6])), "every frame");
        assert!(!filter.drops(Port::Server, &frame([9, 7], [8, 0])));
    }

    #[test]
    fn only_packets_longer_than_the_mtu_are_dropped_without_the_ethernet_header() {
        let mut filter = filter(true, Drops::Longer(1400));
        let mut long = frame([7, 9], [8, 0]);
        assert!(!filter.drops(Port::Near, &long));
        long.resize(14 + 1400, 0);
        assert!(!filter.drops(Port::Near, &long));
        long.push(0);
        assert!(filter.drops(Port::Near, &long) && filter.drops(Port::Server, &long));
    }

    #[test]
    fn chance_is_that_of_the_seed_in_each_direction() {
        let mut filter = filter(true, Drops::Share(2_000, 3));
        for number in 0..100 {
            for (port, ports) in [(Port::Near, [7, 9]), (Port::Server, [9, 7])] {
                let lost = filter.drops(port, &frame(ports, [8, 0]));
                assert_eq!(lost, is_lost(2_000, 3, port == Port::Near, number), "{number}");
            }
        }
    }
}
