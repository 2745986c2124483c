//! What the keeper tells the launcher, through a pipe.

/// A fixed-size message from the keeper (or from the kernel's process, before
/// it is one). Small enough that a pipe never splits it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub(super) tag: i64,
    pub(super) values: [i64; 3],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i64)]
pub(super) enum Tag {
    /// A step failed: step, errno.
    Failure = 1,
    /// A fresh /proc was refused.
    ProcHidden = 2,
    /// The kernel ended: wait status, exit code or -1, peak RSS in KiB.
    Ended = 3,
}

impl Record {
    const BYTES: usize = 32;

    pub(super) fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let words = [self.tag, self.values[0], self.values[1], self.values[2]];
        for (slot, word) in bytes.chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Self {
        let word = |index: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[8 * index..8 * index + 8]);
            i64::from_ne_bytes(word)
        };
        Self { tag: word(0), values: [word(1), word(2), word(3)] }
    }
}

#[derive(Debug, Default)]
pub(super) struct Records {
    bytes: Vec<u8>,
}

impl Records {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The first record of a kind.
    pub(super) fn take(&mut self, tag: Tag) -> Option<Record> {
        self.bytes
            .chunks_exact(Record::BYTES)
            .map(Record::decode)
            .find(|record| record.tag == tag as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_pipe() {
        let mut records = Records::default();
        let record = Record { tag: Tag::Ended as i64, values: [134 << 8, -1, 51_200] };
        let bytes = record.encode();
        records.push(&bytes[..5]);
        assert!(records.take(Tag::Ended).is_none());
        records.push(&bytes[5..]);
        assert_eq!(records.take(Tag::Ended).unwrap().values, record.values);
        assert!(records.take(Tag::Failure).is_none());
    }
}
