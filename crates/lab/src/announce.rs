//! Says to everybody on a link who has an address: by gratuitous ARP (RFC 5227, 3), or an unsolicited
//! neighbour advertisement (RFC 4861, 7.2.6).

use crate::error::Error;
use crate::link::{Index, Mac};
use netns::Namespace;
use netns::packet::PacketSocket;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

/// Sends one announcement from an interface of a host.
pub(crate) fn announce(
    host: &Namespace,
    interface: Index,
    mac: Mac,
    address: IpAddr,
) -> Result<(), Error> {
    let frame = match address {
        IpAddr::V4(address) => gratuitous_arp(mac, address),
        IpAddr::V6(address) => unsolicited_advertisement(mac, address),
    };
    let sent = || -> Result<(), Errno> {
        let socket = PacketSocket::open()?;
        socket.bind(interface)?;
        send(socket.as_raw_fd(), &frame, MsgFlags::empty()).map(drop)
    };
    host.run(sent)
        .map_err(|source| Error::Namespace { doing: "announcing an address", source })?
        .map_err(|errno| Error::kernel(format!("announcing the address {address}"), errno.into()))
}

/// A request for the sender's own address.
fn gratuitous_arp(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    let request = [0, 1, 8, 0, 6, 4, 0, 1];
    let own = address.octets();
    [&[0xff; 6][..], &mac, &[8, 6], &request, &mac, &own, &[0; 6], &own].concat()
}

/// An advertisement to all nodes that overrides what they knew.
fn unsolicited_advertisement(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    const ICMPV6: u8 = 58;
    const OVERRIDE: u8 = 0x20;
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets();
    let own = address.octets();
    let mut message = [&[136, 0, 0, 0, OVERRIDE, 0, 0, 0][..], &own, &[2, 1], &mac].concat();
    let len = (message.len() as u16).to_be_bytes();
    let pseudo = [&own[..], &all_nodes, &[0, 0], &len, &[0, 0, 0, ICMPV6], &message].concat();
    message[2..4].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    let header = [&[0x60, 0, 0, 0][..], &len, &[ICMPV6, 255], &own, &all_nodes].concat();
    [&[0x33, 0x33, 0, 0, 0, 1][..], &mac, &[0x86, 0xdd], &header, &message].concat()
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_the_rfcs_have_them() {
        let mac = [2, 0x41, 198, 18, 0, 2];
        let arp = gratuitous_arp(mac, Ipv4Addr::new(198, 18, 0, 2));
        assert_eq!(arp.len(), 42);
        assert_eq!(arp[28..32], arp[38..42], "the sender asks for its own address");
        let frame = unsolicited_advertisement(mac, "2001:2::2".parse().unwrap());
        assert_eq!(frame.len(), 14 + 40 + 32);
        let pseudo = [&frame[22..54], &[0, 0, 0, 32, 0, 0, 0, 58], &frame[54..]].concat();
        assert_eq!(checksum(&pseudo), 0, "the checksum covers itself");
    }
}
