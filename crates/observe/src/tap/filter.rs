//! What a tap leaves out where programs exchange without a pause: no tap can keep up with that.

use crate::Error;
use libc::{
    BPF_ABS, BPF_B, BPF_H, BPF_IND, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_LDX, BPF_MSH,
    BPF_RET, sock_filter,
};
use netns::packet::PacketSocket;

/// Tells a tap what to leave out, whoever has the tap. It holds the tap's socket, and so its namespace.
#[derive(Debug)]
pub struct TapFilter {
    socket: PacketSocket,
}

impl TapFilter {
    pub(super) const fn new(socket: PacketSocket) -> Self {
        Self { socket }
    }

    /// From now on the tap leaves out the segments that an exchange of data consists of, or takes
    /// everything again. SYN, FIN, RST, segments that close the window and all that is not TCP it
    /// always takes.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn leave_out_exchanges(&self, leave_out: bool) -> Result<(), Error> {
        let program: &[sock_filter] = if leave_out { &WITHOUT_EXCHANGES } else { &[] };
        self.socket.filter(program).map_err(|errno| Error::system("setting a tap's filter", errno))
    }
}

const fn load(size: u32, mode: u32, at: u32) -> sock_filter {
    sock_filter { code: (BPF_LD | size | mode) as u16, jt: 0, jf: 0, k: at }
}

const fn jump(test: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: (BPF_JMP | test | BPF_K) as u16, jt, jf, k }
}

const fn accept(bytes: u32) -> sock_filter {
    sock_filter { code: (BPF_RET | BPF_K) as u16, jt: 0, jf: 0, k: bytes }
}

const ETHERNET: u32 = 14;
const IPV6: u32 = 40;
const TCP: u32 = 6;
/// In a TCP header (RFC 9293 3.1), bytes: where the flags and the window are.
const FLAGS: u32 = 13;
const WINDOW: u32 = 14;
const FIN_SYN_RST: u32 = 0x07;
/// More bytes than any frame has.
const ALL: u32 = 0x4_0000;

/// The first bytes of a frame are those of its Ethernet header. Of IPv6, headers that come between are
/// not looked through: such segments are taken.
const WITHOUT_EXCHANGES: [sock_filter; 18] = [
    load(BPF_H, BPF_ABS, 12),
    jump(BPF_JEQ, 0x86dd, 8, 0),
    jump(BPF_JEQ, 0x0800, 0, 13),
    // IPv4
    load(BPF_B, BPF_ABS, ETHERNET + 9),
    jump(BPF_JEQ, TCP, 0, 11),
    sock_filter { code: (BPF_LDX | BPF_B | BPF_MSH) as u16, jt: 0, jf: 0, k: ETHERNET },
    load(BPF_B, BPF_IND, ETHERNET + FLAGS),
    jump(BPF_JSET, FIN_SYN_RST, 8, 0),
    load(BPF_H, BPF_IND, ETHERNET + WINDOW),
    jump(BPF_JEQ, 0, 6, 7),
    // IPv6
    load(BPF_B, BPF_ABS, ETHERNET + 6),
    jump(BPF_JEQ, TCP, 0, 4),
    load(BPF_B, BPF_ABS, ETHERNET + IPV6 + FLAGS),
    jump(BPF_JSET, FIN_SYN_RST, 2, 0),
    load(BPF_H, BPF_ABS, ETHERNET + IPV6 + WINDOW),
    jump(BPF_JEQ, 0, 0, 1),
    accept(ALL),
    accept(0),
];
