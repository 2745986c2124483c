//! TCP segments as captured.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One TCP segment seen by a tap. With segmentation offload it may stand for several on a wire:
/// count ranges of sequence numbers, not segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Whether the host whose interface is tapped sent it (true) or received it.
    pub sent: bool,
    /// The source port.
    pub source_port: u16,
    /// The destination port.
    pub destination_port: u16,
    /// The sequence number of the first byte.
    pub seq: u32,
    /// The acknowledgement number.
    pub ack: u32,
    /// The flags.
    pub flags: Flags,
    /// The window as on the wire, not scaled.
    pub window: u16,
    /// Bytes of data.
    pub len: u32,
}

impl Segment {
    /// The sequence number after this segment: data, SYN and FIN count.
    pub fn end(&self) -> u32 {
        let control = u32::from(self.flags.syn) + u32::from(self.flags.fin);
        self.seq.wrapping_add(self.len).wrapping_add(control)
    }
}

/// RFC 9293 control bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Flags {
    /// No more data from the sender.
    pub fin: bool,
    /// Synchronise sequence numbers.
    pub syn: bool,
    /// Reset the connection.
    pub rst: bool,
    /// Push.
    pub psh: bool,
    /// The acknowledgement number counts.
    pub ack: bool,
}

impl Flags {
    /// From byte 13 of the TCP header.
    pub fn from_bits(bits: u8) -> Self {
        let bit = |n: u8| bits & (1 << n) != 0;
        Self { fin: bit(0), syn: bit(1), rst: bit(2), psh: bit(3), ack: bit(4) }
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = [
            (self.syn, "SYN"),
            (self.fin, "FIN"),
            (self.rst, "RST"),
            (self.psh, "PSH"),
            (self.ack, "ACK"),
        ]
        .into_iter()
        .filter_map(|(set, name)| set.then_some(name))
        .collect();
        formatter.pad(&names.join(" "))
    }
}

impl From<Flags> for String {
    fn from(flags: Flags) -> Self {
        flags.to_string()
    }
}

impl TryFrom<String> for Flags {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut flags = Self::default();
        for name in text.split_whitespace() {
            match name {
                "SYN" => flags.syn = true,
                "FIN" => flags.fin = true,
                "RST" => flags.rst = true,
                "PSH" => flags.psh = true,
                "ACK" => flags.ack = true,
                _ => return Err(format!("unknown TCP flag `{name}`")),
            }
        }
        Ok(flags)
    }
}
