//! The application's protocol: requests of 100 bytes, each answered by the same 100 bytes, so that
//! both sides can tell whether a byte was lost or came twice. Bytes that are not to be answered are
//! the complement of those that are.

use std::io::{self, Write};

/// Bytes in a request and in its answer.
pub(crate) const SIZE: usize = 100;

/// Blocks in one write that fills a window: some segments at a time.
const FILL_BLOCKS: usize = 640;

/// A stream of numbered blocks; each block differs from its neighbours in every byte.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pattern {
    at: u64,
}

impl Pattern {
    /// The next block.
    pub(crate) fn next(&mut self) -> [u8; SIZE] {
        let mut block = [0; SIZE];
        for byte in &mut block {
            *byte = Self::byte(self.at);
            self.at += 1;
        }
        block
    }

    /// The next so many bytes.
    pub(crate) fn bytes_of(&mut self, count: u32) -> Vec<u8> {
        let from = self.at;
        self.skip(count);
        (from..self.at).map(Self::byte).collect()
    }

    /// Passes over so many bytes.
    pub(crate) fn skip(&mut self, count: u32) {
        self.at += u64::from(count);
    }

    /// How a byte is sent that is not to be answered.
    pub(crate) const fn unanswered(byte: u8) -> u8 {
        !byte
    }

    /// Goes on by what was received, and says what of it is to be answered.
    ///
    /// # Errors
    /// As for [`Self::check`].
    pub(crate) fn answer(&mut self, received: &[u8]) -> Result<Vec<u8>, u64> {
        let mut answer = Vec::with_capacity(received.len());
        for byte in received {
            let own = Self::byte(self.at);
            if *byte == own {
                answer.push(own);
            } else if *byte != Self::unanswered(own) {
                return Err(self.at);
            }
            self.at += 1;
        }
        Ok(answer)
    }

    /// Writes blocks until the socket takes no more, which must not block, or so often.
    ///
    /// # Errors
    /// What `write` fails with, but for a full send buffer.
    pub(crate) fn fill(&mut self, mut socket: impl Write, writes_most: usize) -> io::Result<()> {
        for _ in 0..writes_most {
            let chunk: Vec<u8> = (0..FILL_BLOCKS).flat_map(|_| self.next()).collect();
            let taken = match socket.write(&chunk) {
                Ok(taken) => taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            self.back(chunk.len() - taken);
            if taken == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Goes on by what was received.
    ///
    /// # Errors
    /// The offset of the first byte that is not the one that was sent there.
    pub(crate) fn check(&mut self, received: &[u8]) -> Result<(), u64> {
        for byte in received {
            if *byte != Self::byte(self.at) {
                return Err(self.at);
            }
            self.at += 1;
        }
        Ok(())
    }

    /// Takes the last bytes back: they were not sent.
    pub(crate) fn back(&mut self, bytes: usize) {
        self.at -= bytes as u64;
    }

    /// How many bytes have passed.
    pub(crate) fn bytes(&self) -> u64 {
        self.at
    }

    fn byte(at: u64) -> u8 {
        // The block's number mixed with the place in it: a block that is missing or comes twice
        // shows in its first byte, whatever the block size.
        let (block, place) = (at / SIZE as u64, at % SIZE as u64);
        (block.wrapping_mul(151).wrapping_add(block >> 8).wrapping_add(place * 7)) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_to_be_answered_is_told_byte_by_byte() {
        let mut sent = Pattern::default();
        let mut bytes = sent.bytes_of(150);
        let unanswered: Vec<_> = sent.bytes_of(77).into_iter().map(Pattern::unanswered).collect();
        bytes.extend(unanswered);
        bytes.extend(sent.bytes_of(30));
        let mut received = Pattern::default();
        let answer = received.answer(&bytes).unwrap();
        assert_eq!(answer.len(), 180);
        assert_eq!(answer[150..], bytes[227..]);
        assert_eq!(Pattern::default().answer(&bytes[1..]), Err(0));
    }

    #[test]
    fn a_lost_or_repeated_block_is_noticed_at_its_first_byte() {
        let mut sent = Pattern::default();
        let blocks: Vec<_> = (0..1000).map(|_| sent.next()).collect();
        let mut received = Pattern::default();
        for block in &blocks {
            assert_eq!(received.check(block), Ok(()));
        }
        for (order, offset) in [([0, 2], 100), ([0, 0], 100), ([1, 2], 0)] {
            let mut received = Pattern::default();
            let result = order.iter().try_for_each(|i| received.check(&blocks[*i]));
            assert_eq!(result, Err(offset), "{order:?}");
        }
    }
}
