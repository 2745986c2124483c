//! Netlink over a blocking socket: for rtnetlink, nfnetlink and socket diagnostics alike.
//!
//! The kernel carries a netlink request out inside `send`, so there is nothing to wait for
//! asynchronously. A socket lives no longer than its owner's scope: an open one pins its network
//! namespace, and a connection driven by a task of its own would outlive the call that made it.

use crate::network::Error;
use netlink_sys::{Socket as RawSocket, SocketAddr};
use netns::Namespace;
use std::fmt;
use std::io;

/// `struct nlmsghdr`, include/uapi/linux/netlink.h.
const HEADER_LEN: usize = 16;
/// Attributes and messages start at multiples of this.
const ALIGN: usize = 4;
/// `NLA_F_NESTED`, and the mask that takes the flags off an attribute's type.
const NESTED: u16 = 1 << 15;
const TYPE_MASK: u16 = 0x3fff;
/// The text of a refusal among an acknowledgement's attributes.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A netlink request being written: a header, a fixed part, attributes.
#[derive(Debug, Clone)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// A request of this type (`RTM_NEWLINK`), with its fixed part and these flags beside
    /// `NLM_F_REQUEST`.
    pub(crate) fn new(kind: u16, flags: i32, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER_LEN];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&((flags | libc::NLM_F_REQUEST) as u16).to_ne_bytes());
        let mut message = Self(bytes);
        message.append(fixed);
        message
    }

    /// Adds an attribute.
    pub(crate) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let len = (ALIGN + value.len()) as u16;
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.append(value);
        self
    }

    /// Adds a string attribute, terminated.
    pub(crate) fn with_text(self, kind: u16, text: &str) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.with(kind, &bytes)
    }

    /// Adds an attribute of attributes. `fixed` precedes them, for those that have such a part.
    pub(crate) fn with_nested(
        mut self,
        kind: u16,
        fixed: &[u8],
        inner: impl FnOnce(Self) -> Self,
    ) -> Self {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; ALIGN]);
        self.append(fixed);
        let mut message = inner(self);
        let len = (message.0.len() - start) as u16;
        message.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        message.0[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
        message
    }

    fn append(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(ALIGN), 0);
    }

    fn seal(&mut self, sequence: u32) {
        let len = self.0.len() as u32;
        self.0[0..4].copy_from_slice(&len.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
    }
}

/// One answer: its type and what follows the header.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) kind: u16,
    pub(crate) body: Vec<u8>,
}

/// Attributes, as `(type, value)`.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (len, kind) = (u16_at(bytes, 0)?, u16_at(bytes, 2)?);
        let value = bytes.get(ALIGN..usize::from(len))?;
        bytes = bytes.get(usize::from(len).next_multiple_of(ALIGN)..).unwrap_or_default();
        Some((kind & TYPE_MASK, value))
    })
}

/// The value of the first attribute of this type.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A socket of one netlink family in one namespace.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: RawSocket,
    sequence: u32,
}

impl Socket {
    /// Opens a socket (`NETLINK_ROUTE`) inside `namespace`.
    pub(crate) fn open(namespace: &Namespace, protocol: i32) -> Result<Self, Error> {
        namespace
            .run(|| Self::open_here(protocol))
            .map_err(|source| Error::Namespace { doing: "opening a netlink socket", source })?
    }

    /// Opens a socket in the calling thread's own namespace.
    pub(crate) fn open_here(protocol: i32) -> Result<Self, Error> {
        let open = || -> io::Result<RawSocket> {
            let mut socket = RawSocket::new(protocol as isize)?;
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            socket.bind_auto()?;
            Ok(socket)
        };
        let socket = open().map_err(|source| Error::kernel("opening a netlink socket", source))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Has a request carried out. `doing` names it for the error.
    pub(crate) fn ask(&mut self, doing: fmt::Arguments<'_>, message: Message) -> Result<(), Error> {
        self.ask_all(doing, vec![message])
    }

    /// Has requests carried out that the kernel takes as one (nf_tables' batches): only those
    /// with `NLM_F_ACK` are waited for.
    pub(crate) fn ask_all(
        &mut self,
        doing: fmt::Arguments<'_>,
        mut messages: Vec<Message>,
    ) -> Result<(), Error> {
        let single = messages.len() == 1;
        let mut bytes = Vec::new();
        let mut waiting = Vec::new();
        for message in &mut messages {
            self.sequence += 1;
            if single {
                let flags = u16_at(&message.0, 6).unwrap_or(0) | libc::NLM_F_ACK as u16;
                message.0[6..8].copy_from_slice(&flags.to_ne_bytes());
            }
            if u16_at(&message.0, 6).unwrap_or(0) & libc::NLM_F_ACK as u16 != 0 {
                waiting.push(self.sequence);
            }
            message.seal(self.sequence);
            bytes.extend_from_slice(&message.0);
        }
        let failed = |refusal: Refusal| refusal.into_error(doing.to_string());
        self.send(&bytes).map_err(failed)?;
        while !waiting.is_empty() {
            for (sequence, answer) in self.receive().map_err(failed)? {
                if i32::from(answer.kind) == libc::NLMSG_ERROR {
                    acknowledged(&answer.body).map_err(failed)?;
                    waiting.retain(|waiting| *waiting != sequence);
                }
            }
        }
        Ok(())
    }

    /// Has a question answered: every message of the answer, of a dump too.
    pub(crate) fn read(
        &mut self,
        doing: fmt::Arguments<'_>,
        mut message: Message,
    ) -> Result<Vec<Answer>, Error> {
        self.sequence += 1;
        message.seal(self.sequence);
        let dump = u16_at(&message.0, 6).unwrap_or(0) & libc::NLM_F_DUMP as u16 != 0;
        let failed = |refusal: Refusal| refusal.into_error(doing.to_string());
        self.send(&message.0).map_err(failed)?;
        let mut answers = Vec::new();
        loop {
            for (sequence, answer) in self.receive().map_err(failed)? {
                if sequence != self.sequence {
                    continue;
                }
                match i32::from(answer.kind) {
                    libc::NLMSG_DONE => return Ok(answers),
                    libc::NLMSG_ERROR => {
                        acknowledged(&answer.body).map_err(failed)?;
                        return Ok(answers);
                    }
                    _ => answers.push(answer),
                }
            }
            if !dump && !answers.is_empty() {
                return Ok(answers);
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let kernel = SocketAddr::new(0, 0);
        self.socket.send_to(bytes, &kernel, 0).map(drop).map_err(Refusal::from)
    }

    fn receive(&self) -> Result<Vec<(u32, Answer)>, Refusal> {
        let (bytes, _) = self.socket.recv_from_full().map_err(Refusal::from)?;
        let mut answers = Vec::new();
        let mut rest = bytes.as_slice();
        while let (Some(len), Some(kind), Some(sequence)) =
            (u32_at(rest, 0), u16_at(rest, 4), u32_at(rest, 8))
        {
            let Some(body) = rest.get(HEADER_LEN..len as usize) else { break };
            answers.push((sequence, Answer { kind, body: body.to_vec() }));
            rest = rest.get((len as usize).next_multiple_of(ALIGN)..).unwrap_or_default();
        }
        Ok(answers)
    }
}

/// What the kernel said no with.
struct Refusal {
    source: io::Error,
    says: Option<String>,
}

impl Refusal {
    fn into_error(self, doing: String) -> Error {
        Error::Kernel { doing, source: self.source, says: self.says }
    }
}

impl From<io::Error> for Refusal {
    fn from(source: io::Error) -> Self {
        Self { source, says: None }
    }
}

/// Reads an acknowledgement: `struct nlmsgerr`, then, with `NETLINK_EXT_ACK`, attributes.
fn acknowledged(body: &[u8]) -> Result<(), Refusal> {
    match u32_at(body, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(code) => Err(Refusal {
            source: io::Error::from_raw_os_error(-code),
            says: body.get(4 + HEADER_LEN..).and_then(|rest| {
                let text = attribute(rest, NLMSGERR_ATTR_MSG)?;
                Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
            }),
        }),
        None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_aligned_nested_and_read_back() {
        let message = Message::new(16, libc::NLM_F_ACK, &[1, 2, 3])
            .with_text(3, "eth0")
            .with_nested(18, &[], |inner| inner.with(1, &7u32.to_ne_bytes()));
        let bytes = &message.0[HEADER_LEN + 4..];
        assert_eq!(attribute(bytes, 3), Some(&b"eth0\0"[..]));
        let inner = attribute(bytes, 18).unwrap();
        assert_eq!(attribute(inner, 1), Some(&7u32.to_ne_bytes()[..]));
        assert_eq!(message.0.len() % ALIGN, 0);
    }

    #[test]
    fn an_attribute_longer_than_its_message_is_not_read() {
        let cut: Vec<u8> =
            [200u16.to_ne_bytes(), 1u16.to_ne_bytes()].concat().into_iter().chain([0; 8]).collect();
        assert_eq!(attributes(&cut).count(), 0);
        let zero = [0u8; 8];
        assert_eq!(attributes(&zero).count(), 0, "a length of zero ends the list");
    }

    #[test]
    fn a_refusal_carries_the_kernels_own_words() {
        let mut body = (-libc::EINVAL).to_ne_bytes().to_vec();
        body.extend_from_slice(&[0; HEADER_LEN]);
        body.extend_from_slice(
            &Message::new(0, 0, &[]).with_text(1, "no such mode").0[HEADER_LEN..],
        );
        let refusal = acknowledged(&body).unwrap_err();
        assert_eq!(refusal.source.raw_os_error(), Some(libc::EINVAL));
        assert_eq!(refusal.says.as_deref(), Some("no such mode"));
    }
}
