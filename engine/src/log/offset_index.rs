//! Entries of `.index`: the last offset of a batch and the file position where the batch begins.
//!
//! 8 bytes, big-endian: `offset − base` i32, position i32. Offsets and positions strictly increase. Not every batch
//! has one: a lookup takes the last entry at or below the target and scans on from its position. There is no
//! checksum: an entry is a hint that is compared with the batch it names, and an index is rebuilt from the
//! segment. Source: `OffsetIndex.scala`.

use crate::log::names;
use crate::log::sparse_index::Entry;
use crate::units::Offset;

/// Where a batch begins, found under its last offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetPosition {
    pub(crate) offset: Offset,
    pub(crate) position: u32,
}

impl Entry for OffsetPosition {
    const SIZE_BYTES: usize = 8;
    const SUFFIX: &'static str = names::OFFSET_INDEX;

    fn encode(&self, base: Offset, out: &mut Vec<u8>) {
        out.extend_from_slice(&relative(self.offset, base).to_be_bytes());
        out.extend_from_slice(&(self.position as i32).to_be_bytes());
    }

    fn decode(base: Offset, bytes: &[u8]) -> OffsetPosition {
        let relative = i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let position = i32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        OffsetPosition {
            offset: absolute(base, relative),
            position: position.max(0) as u32,
        }
    }
}

/// `offset − base` as it is stored. The log rolls before an offset is reached that does not fit.
pub(crate) fn relative(offset: Offset, base: Offset) -> i32 {
    i32::try_from(offset.since(base)).expect("the log rolls before an offset is out of its segment's reach")
}

/// The offset that is stored as `relative`; of nonsense, something that no lookup takes for more than a hint.
pub(crate) fn absolute(base: Offset, relative: i32) -> Offset {
    Offset(base.get().saturating_add(i64::from(relative)))
}

/// Whether `offset` can be stored relative to `base`.
pub(crate) fn is_in_reach(offset: Offset, base: Offset) -> bool {
    offset
        .get()
        .checked_sub(base.get())
        .is_some_and(|distance| (0..=i64::from(i32::MAX)).contains(&distance))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_the_bytes_of_kafkas() {
        let mut bytes = Vec::new();
        let entry = OffsetPosition {
            offset: Offset(1_000_257),
            position: 65_538,
        };
        entry.encode(Offset(1_000_000), &mut bytes);
        assert_eq!(bytes, [0, 0, 1, 1, 0, 1, 0, 2]);
        assert_eq!(OffsetPosition::decode(Offset(1_000_000), &bytes), entry);
    }

    #[test]
    fn a_segment_reaches_two_to_the_31_offsets() {
        assert!(is_in_reach(Offset(5 + i64::from(i32::MAX)), Offset(5)));
        assert!(!is_in_reach(Offset(6 + i64::from(i32::MAX)), Offset(5)));
        assert!(!is_in_reach(Offset(4), Offset(5)));
    }
}
