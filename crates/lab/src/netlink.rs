//! Netlink beside rtnetlink ([`crate::rtnl`]), which speaks of nothing but links, addresses, routes
//! and the like: for nf_tables ([`crate::reject`]).
//!
//! netlink-packet-core lays out the messages and their attributes. The kernel carries a request out
//! inside `send`, so there is nothing to wait for asynchronously, and a socket lives no longer than
//! its owner's scope: an open one pins its network namespace.

use crate::error::Error;
use crate::rtnl::{errno, words};
use netlink_sys::{Socket as RawSocket, SocketAddr};
use netns::Namespace;
use rtnetlink::packet_core::{
    DefaultNla, Emitable, ErrorBuffer, ErrorMessage, NLA_F_NESTED, NLM_F_ACK, NLM_F_REQUEST,
    NLMSG_ALIGNTO, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader, Parseable,
};
use std::fmt;
use std::io;

/// A netlink request: what goes into its header, a fixed part, attributes.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    /// A request of this type (`NFT_MSG_NEWTABLE`), with its fixed part and these flags beside
    /// `NLM_F_REQUEST`.
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut body = fixed.to_vec();
        body.resize(body.len().next_multiple_of(usize::from(NLMSG_ALIGNTO)), 0);
        Self { kind, flags: flags | NLM_F_REQUEST, body }
    }

    /// Adds an attribute.
    pub(crate) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let attribute = DefaultNla::new(kind, value.to_vec());
        let start = self.body.len();
        self.body.resize(start + attribute.buffer_len(), 0);
        attribute.emit(&mut self.body[start..]);
        self
    }

    /// Adds a string attribute, terminated.
    pub(crate) fn with_text(self, kind: u16, text: &str) -> Self {
        self.with(kind, &[text.as_bytes(), &[0]].concat())
    }

    /// Adds an attribute of attributes.
    pub(crate) fn with_nested(self, kind: u16, inner: impl FnOnce(Self) -> Self) -> Self {
        let inner = inner(Self { body: Vec::new(), ..self });
        self.with(kind | NLA_F_NESTED, &inner.body)
    }

    fn sealed(&self, sequence: u32) -> Vec<u8> {
        let mut header = NetlinkHeader::default();
        header.message_type = self.kind;
        header.flags = self.flags;
        header.sequence_number = sequence;
        let start = header.buffer_len();
        header.length = (start + self.body.len()) as u32;
        let mut bytes = vec![0; start];
        header.emit(&mut bytes);
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// One answer: its type and what follows the header.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    kind: u16,
    body: Vec<u8>,
}

/// A socket of one netlink family in one namespace.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: RawSocket,
    sequence: u32,
}

impl Socket {
    /// Opens a socket (`NETLINK_NETFILTER`) inside `namespace`.
    pub(crate) fn open(namespace: &Namespace, protocol: isize) -> Result<Self, Error> {
        let open = || -> io::Result<RawSocket> {
            let mut socket = RawSocket::new(protocol)?;
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            socket.bind_auto()?;
            Ok(socket)
        };
        let socket = namespace
            .run(open)
            .map_err(|source| Error::Namespace { doing: "opening a netlink socket", source })?
            .map_err(|source| Error::kernel("opening a netlink socket", source))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Has requests carried out that the kernel takes as one (nf_tables' batches): only those
    /// with `NLM_F_ACK` are waited for.
    pub(crate) fn ask_all(
        &mut self,
        doing: fmt::Arguments<'_>,
        messages: &[Message],
    ) -> Result<(), Error> {
        let mut bytes = Vec::new();
        let mut waiting = Vec::new();
        for message in messages {
            self.sequence += 1;
            if message.flags & NLM_F_ACK != 0 {
                waiting.push(self.sequence);
            }
            bytes.extend_from_slice(&message.sealed(self.sequence));
        }
        let failed = |refusal: Refusal| refusal.into_error(doing.to_string());
        self.send(&bytes).map_err(failed)?;
        while !waiting.is_empty() {
            for (sequence, answer) in self.receive().map_err(failed)? {
                if answer.kind == NLMSG_ERROR {
                    acknowledged(&answer.body).map_err(failed)?;
                    waiting.retain(|waiting| *waiting != sequence);
                }
            }
        }
        Ok(())
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let kernel = SocketAddr::new(0, 0);
        self.socket.send_to(bytes, &kernel, 0).map(drop).map_err(Refusal::from)
    }

    fn receive(&self) -> Result<Vec<(u32, Answer)>, Refusal> {
        let (bytes, _) = self.socket.recv_from_full().map_err(Refusal::from)?;
        Ok(answers(&bytes))
    }
}

/// The answers of one datagram.
fn answers(mut rest: &[u8]) -> Vec<(u32, Answer)> {
    let mut answers = Vec::new();
    while let Ok(message) = NetlinkBuffer::new_checked(rest) {
        let (kind, body) = (message.message_type(), message.payload().to_vec());
        answers.push((message.sequence_number(), Answer { kind, body }));
        let len = (message.length() as usize).next_multiple_of(usize::from(NLMSG_ALIGNTO));
        rest = rest.get(len..).unwrap_or_default();
    }
    answers
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

/// Reads an acknowledgement.
fn acknowledged(body: &[u8]) -> Result<(), Refusal> {
    let message = ErrorBuffer::new_checked(body)
        .and_then(|buffer| ErrorMessage::parse(&ErrorBuffer::new(&buffer.into_inner())))
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    match message.code {
        None => Ok(()),
        Some(_) => Err(Refusal { source: errno(&message), says: words(&message) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rtnetlink::packet_core::NlasIterator;

    #[test]
    fn attributes_are_aligned_and_nested() {
        let message = Message::new(16, NLM_F_ACK, &[1, 2, 3])
            .with_text(3, "eth0")
            .with_nested(18, |inner| inner.with(1, &7u32.to_ne_bytes()));
        let bytes = message.sealed(5);
        let header = NetlinkBuffer::new_checked(bytes.as_slice()).unwrap();
        assert_eq!((header.message_type(), header.sequence_number()), (16, 5));
        let attributes: Vec<_> =
            NlasIterator::new(&header.payload()[4..]).collect::<Result<_, _>>().unwrap();
        let [name, nested] = attributes.as_slice() else { panic!("{attributes:?}") };
        assert_eq!((name.kind(), name.value()), (3, &b"eth0\0"[..]));
        assert!(nested.nested_flag());
        let inner = NlasIterator::new(nested.value()).next().unwrap().unwrap();
        assert_eq!((inner.kind(), inner.value()), (1, &7u32.to_ne_bytes()[..]));
        assert_eq!(bytes.len(), header.length() as usize);
    }

    /// The body of a refusal in the kernel's own words.
    fn refusal() -> Vec<u8> {
        let mut body = (-libc::EINVAL).to_ne_bytes().to_vec();
        body.extend_from_slice(&[0; 16]);
        body.extend_from_slice(&Message::new(0, 0, &[]).with_text(1, "no such mode").body);
        body
    }

    #[test]
    fn a_refusal_carries_the_kernels_own_words() {
        let refusal = acknowledged(&refusal()).unwrap_err();
        assert_eq!(refusal.source.raw_os_error(), Some(libc::EINVAL));
        assert_eq!(refusal.says.as_deref(), Some("no such mode"));
    }

    #[test]
    fn an_acknowledgement_cut_short_is_none() {
        assert!(acknowledged(&[0; 4]).is_ok());
        assert!(acknowledged(&[0; 3]).is_err());
    }

    #[test]
    fn the_lowest_number_is_a_refusal_too() {
        let body = [&i32::MIN.to_ne_bytes()[..], &[0; 16]].concat();
        assert!(acknowledged(&body).is_err());
    }

    /// A refusal and what is no refusal, as one datagram.
    fn datagram() -> Vec<u8> {
        let refused = Message::new(NLMSG_ERROR, 0, &refusal()).sealed(7);
        [refused, Message::new(16, 2, &[1; 8]).with_text(3, "eth0").sealed(7)].concat()
    }

    proptest! {
        #[test]
        fn foreign_answers_are_read_to_their_end(
            datagram in prop_oneof![
                damage::bytes(datagram()),
                prop::collection::vec(any::<u8>(), 0..100),
            ],
        ) {
            let found = answers(&datagram);
            prop_assert!(found.len() <= datagram.len() / 16, "{found:?}");
            for (_, answer) in found {
                if let Err(refusal) = acknowledged(&answer.body) {
                    prop_assert!(!refusal.into_error("asking".into()).to_string().is_empty());
                }
            }
            crate::rtnl::is_last(&datagram);
        }
    }
}
