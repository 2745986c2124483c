//! What the client sends and receives: blocks that come back, or requests to a web server.

use crate::exchange::Pattern;
use crate::http::Requests;
use spec::Parameters;
use std::io::{self, Write};
use std::net::SocketAddr;

/// Both directions of the client's exchange, and whether every byte was as it should be.
pub(crate) struct Dialogue {
    protocol: Protocol,
    intact: bool,
}

enum Protocol {
    /// `unanswered`: how many bytes of `answered` have no answer, since none was asked for.
    Blocks {
        sent: Pattern,
        answered: Pattern,
        unanswered: u64,
    },
    Http(Requests),
}

/// Bytes of one call that the socket has not taken.
pub(crate) struct Unsent {
    bytes: Vec<u8>,
    taken: usize,
}

impl Unsent {
    /// What to hand to the next `write`.
    pub(crate) fn chunk(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// So many bytes of it were taken.
    pub(crate) fn took(&mut self, count: usize) {
        self.taken += count;
    }
}

impl Dialogue {
    pub(crate) fn new(parameters: &Parameters, server: SocketAddr) -> Self {
        let protocol = if parameters.has_web_server() {
            Protocol::Http(Requests::new(server.to_string()))
        } else {
            let (sent, answered) = (Pattern::default(), Pattern::default());
            Protocol::Blocks { sent, answered, unanswered: 0 }
        };
        Self { protocol, intact: true }
    }

    /// What to send next.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        match &mut self.protocol {
            Protocol::Blocks { sent, .. } => sent.next().to_vec(),
            Protocol::Http(requests) => requests.next(),
        }
    }

    /// So many bytes that the server takes and does not answer.
    pub(crate) fn unanswered(&mut self, count: u32) -> Unsent {
        let bytes = self.request(count).bytes.into_iter().map(Pattern::unanswered).collect();
        if let Protocol::Blocks { answered, unanswered, .. } = &mut self.protocol {
            answered.skip(count);
            *unanswered += u64::from(count);
        }
        Unsent { bytes, taken: 0 }
    }

    /// So many bytes that the server sends back.
    pub(crate) fn request(&mut self, count: u32) -> Unsent {
        let bytes = match &mut self.protocol {
            Protocol::Blocks { sent, .. } => sent.bytes_of(count),
            Protocol::Http(requests) => requests.next(),
        };
        Unsent { bytes, taken: 0 }
    }

    /// So many bytes of it were not sent.
    pub(crate) fn back(&mut self, bytes: usize) {
        match &mut self.protocol {
            Protocol::Blocks { sent, .. } => sent.back(bytes),
            Protocol::Http(requests) if bytes > 0 => requests.back(),
            Protocol::Http(_) => {}
        }
    }

    /// Takes what came.
    pub(crate) fn take(&mut self, received: &[u8]) {
        self.intact &= match &mut self.protocol {
            Protocol::Blocks { answered, .. } => answered.check(received).is_ok(),
            Protocol::Http(requests) => requests.take(received).is_ok(),
        };
    }

    /// Whether everything that was sent is answered.
    pub(crate) fn all_answered(&self) -> bool {
        match &self.protocol {
            Protocol::Blocks { sent, answered, .. } => sent.bytes() == answered.bytes(),
            Protocol::Http(requests) => requests.all_answered(),
        }
    }

    /// How many bytes came; `None` if they were not what they should be.
    pub(crate) fn checked(&self) -> Option<u64> {
        self.intact.then(|| match &self.protocol {
            Protocol::Blocks { answered, unanswered, .. } => answered.bytes() - unanswered,
            Protocol::Http(requests) => requests.bytes(),
        })
    }

    /// Writes until the socket, which must not block, takes no more, or so often.
    pub(crate) fn fill(&mut self, socket: impl Write, writes_most: usize) -> io::Result<()> {
        match &mut self.protocol {
            Protocol::Blocks { sent, .. } => sent.fill(socket, writes_most),
            Protocol::Http(_) => Ok(()),
        }
    }

    /// Whether it makes no more sense to wait for answers.
    pub(crate) fn is_broken(&self) -> bool {
        !self.intact
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_is_to_answer_does_not_count_as_answered() {
        let mut dialogue = Dialogue::new(&Parameters::default(), ([127, 0, 0, 1], 1).into());
        let answer = dialogue.request(150);
        assert!(!dialogue.all_answered());
        dialogue.take(answer.chunk());
        assert!(dialogue.all_answered());
        let mut unsent = dialogue.unanswered(1000);
        unsent.took(999);
        assert_eq!(unsent.chunk().len(), 1);
        assert!(dialogue.all_answered());
        let answer = dialogue.request(7);
        dialogue.take(answer.chunk());
        assert_eq!((dialogue.all_answered(), dialogue.checked()), (true, Some(157)));
    }
}
