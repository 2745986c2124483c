//! The end of a console's output, kept within bounds.

use std::collections::VecDeque;

/// Keeps the last bytes that were written, and counts those it let go.
#[derive(Debug)]
pub(super) struct Console {
    kept: VecDeque<u8>,
    capacity_bytes: usize,
    dropped_bytes: u64,
}

impl Console {
    pub(super) fn new(capacity_bytes: usize) -> Self {
        Self { kept: VecDeque::new(), capacity_bytes, dropped_bytes: 0 }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.kept.extend(bytes);
        let excess = self.kept.len().saturating_sub(self.capacity_bytes);
        self.kept.drain(..excess);
        self.dropped_bytes += excess as u64;
    }

    /// The bytes kept, and how many came before them.
    pub(super) fn into_parts(self) -> (Vec<u8>, u64) {
        (self.kept.into(), self.dropped_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_are_kept() {
        let mut console = Console::new(4);
        console.push(b"ab");
        console.push(b"cdefg");
        assert_eq!(console.into_parts(), (b"defg".to_vec(), 3));
    }
}
