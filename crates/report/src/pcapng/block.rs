//! One block: its fields, then its options, little endian, padded to 32 bits.

/// A block that is being written.
pub(super) struct Block {
    kind: u32,
    body: Vec<u8>,
    has_options: bool,
}

impl Block {
    pub(super) fn new(kind: u32) -> Self {
        Self { kind, body: Vec::new(), has_options: false }
    }

    pub(super) fn u16(&mut self, value: u16) -> &mut Self {
        self.body.extend(value.to_le_bytes());
        self
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.body.extend(value.to_le_bytes());
        self
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.body.extend(value.to_le_bytes());
        self
    }

    /// Bytes, and zeros up to the next multiple of four.
    pub(super) fn padded(&mut self, bytes: &[u8]) -> &mut Self {
        self.body.extend(bytes);
        self.body.resize(self.body.len().next_multiple_of(4), 0);
        self
    }

    /// An option; its length is 16 bits, and a longer value is cut (between characters, if it is
    /// text).
    pub(super) fn option(&mut self, code: u16, value: &[u8]) -> &mut Self {
        let value = match value.get(..usize::from(u16::MAX)) {
            Some(start) if value.len() > start.len() => match std::str::from_utf8(start) {
                Ok(_) => start,
                Err(error) => &start[..error.valid_up_to()],
            },
            _ => value,
        };
        self.has_options = true;
        self.u16(code).u16(value.len() as u16).padded(value)
    }

    /// The whole block: type, length, body, length again.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.has_options {
            self.u32(0); // opt_endofopt
        }
        let length = (self.body.len() as u32 + 12).to_le_bytes();
        [&self.kind.to_le_bytes()[..], &length, &self.body, &length].concat()
    }
}
