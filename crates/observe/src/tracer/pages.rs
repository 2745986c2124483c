//! A page of the kernel's ring buffer, as `per_cpu/cpuN/trace_pipe_raw` gives it
//! (kernel/trace/ring_buffer.c; `events/header_page` and `events/header_event` describe it).

/// Where the commit field says that records were lost before this page, and that their number is
/// stored after its last record.
const MISSED_EVENTS: u64 = 1 << 31;
const MISSED_STORED: u64 = 1 << 30;
const COMMIT_MASK: u64 = MISSED_STORED - 1;

const HEADER_LEN: usize = 16;
const TYPE_PADDING: u32 = 29;
const TYPE_TIME_EXTEND: u32 = 30;
const TYPE_TIME_STAMP: u32 = 31;
const DELTA_BITS: u32 = 27;
/// An absolute time stamp has 59 bits; the others are those of the time before it.
const ABSOLUTE_MASK: u64 = (1 << 59) - 1;

/// Hands over every record of a page with its time, and returns how many were lost before it.
/// What cannot be read ends the page.
pub(super) fn read(page: &[u8], sink: &mut dyn FnMut(u64, &[u8])) -> u64 {
    let word = |offset: usize| {
        page.get(offset..).and_then(|rest| rest.first_chunk()).map_or(0, |n| u64::from_ne_bytes(*n))
    };
    let commit = word(8);
    let len = (commit & COMMIT_MASK) as usize;
    let data = page.get(HEADER_LEN..).unwrap_or_default();
    let lost = match (commit & MISSED_EVENTS, commit & MISSED_STORED) {
        (0, _) => 0,
        (_, 0) => 1, // at least
        _ => word(HEADER_LEN + len),
    };
    read_records(data.get(..len).unwrap_or(data), word(0), sink);
    lost
}

fn read_records(mut rest: &[u8], mut at: u64, sink: &mut dyn FnMut(u64, &[u8])) -> Option<()> {
    loop {
        let header = take_u32(&mut rest)?;
        let (kind, delta) = (header & 0x1f, u64::from(header >> 5));
        match kind {
            TYPE_PADDING if delta == 0 => return None, // up to the end of the page
            TYPE_PADDING => {
                let len = take_u32(&mut rest)? as usize;
                rest = rest.get(len.checked_sub(4)?..)?;
            }
            TYPE_TIME_EXTEND => {
                at = at.wrapping_add(delta + (u64::from(take_u32(&mut rest)?) << DELTA_BITS));
            }
            TYPE_TIME_STAMP => {
                let low = delta + (u64::from(take_u32(&mut rest)?) << DELTA_BITS);
                at = (at & !ABSOLUTE_MASK) | (low & ABSOLUTE_MASK);
            }
            words => {
                let len = match words {
                    0 => (take_u32(&mut rest)? as usize).checked_sub(4)?,
                    words => words as usize * 4,
                };
                let (record, after) = rest.split_at_checked(len)?;
                at = at.wrapping_add(delta);
                sink(at, record);
                rest = after;
            }
        }
    }
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    let (bytes, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page(at: u64, commit_flags: u64, words: &[u32], after: u64) -> Vec<u8> {
        let mut page = at.to_ne_bytes().to_vec();
        page.extend(((words.len() as u64 * 4) | commit_flags).to_ne_bytes());
        page.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        page.extend(after.to_ne_bytes());
        page.resize(4096, 0);
        page
    }

    fn header(kind: u32, delta: u32) -> u32 {
        kind | (delta << 5)
    }

    fn records(page: &[u8]) -> (Vec<(u64, Vec<u8>)>, u64) {
        let mut records = Vec::new();
        let lost = read(page, &mut |at, bytes| records.push((at, bytes.to_vec())));
        (records, lost)
    }

    /// Two records, and everything that is none.
    fn words() -> [u32; 12] {
        [
            header(1, 10), // one word, 10 ns later
            0x1111_1111,
            header(TYPE_PADDING, 1), // discarded: 8 bytes, the length's own word among them
            8,
            0xffff_ffff,
            header(TYPE_TIME_EXTEND, 5), // 2^27 + 5 ns
            1,
            header(0, 20), // any length: 12 bytes, the length's own word among them
            12,
            0x2222_2222,
            0x3333_3333,
            header(TYPE_PADDING, 0), // nothing more
        ]
    }

    #[test]
    fn records_and_their_times() {
        let (records, lost) = records(&page(1_000, 0, &words(), 0));
        assert_eq!(lost, 0);
        let times: Vec<_> = records.iter().map(|(at, bytes)| (*at, bytes.len())).collect();
        assert_eq!(times, [(1_010, 4), (1_010 + (1 << 27) + 25, 8)]);
    }

    #[test]
    fn absolute_time_stamps_keep_the_bits_they_lack() {
        let before = 3_u64 << 59;
        let words = [header(TYPE_TIME_STAMP, 7), 2, header(1, 0), 0];
        let (records, _) = records(&page(before, 0, &words, 0));
        assert_eq!(records[0].0, before + (2 << 27) + 7);
    }

    #[test]
    fn losses_are_told() {
        assert_eq!(records(&page(1, MISSED_EVENTS, &[1, 0], 9)).1, 1, "an unknown number");
        let (found, lost) = records(&page(1, MISSED_EVENTS | MISSED_STORED, &[1, 0], 9));
        assert_eq!((found.len(), lost), (1, 9));
    }

    /// A page's header, records, and the number that were lost.
    fn start() -> Vec<u8> {
        page(1_000, MISSED_EVENTS | MISSED_STORED, &words(), 3)[..72].to_vec()
    }

    proptest! {
        #[test]
        fn foreign_pages_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            records(&bytes);
            let mut page = bytes;
            if let Some(commit) = page.get_mut(8..16) {
                commit.copy_from_slice(&200_u64.to_ne_bytes());
            }
            records(&page);
        }

        #[test]
        fn foreign_records_end_with_their_page(page in damage::bytes(start())) {
            let (records, _) = records(&page);
            let read: usize = records.iter().map(|(_, record)| record.len() + 4).sum();
            prop_assert!(read <= page.len(), "{read} of {}", page.len());
        }
    }
}
