//! Entries of `.timeindex`: the largest timestamp so far and the last offset of the batch that has it.
//!
//! 12 bytes, big-endian: timestamp i64 (milliseconds), `offset − base` i32. Timestamps strictly increase, offsets do not decrease: all
//! records with a larger timestamp come after the offset. One slot is kept for the entry that is appended
//! when the segment becomes inactive or is closed, which holds its largest timestamp. Source:
//! `TimeIndex.scala`.
//!
//! **Deviation:** 2.7.2 stores for uncompressed sets the offset of the very record with the largest
//! timestamp, which its own `kafka-dump-log` then reports as not found, and for rebuilt indexes the last
//! offset of the batch. Here it is always the latter: equally right for a search, and an index equals its
//! rebuild.

use crate::log::names;
use crate::log::offset_index::{absolute, relative};
use crate::log::sparse_index::Entry;
use crate::units::{Offset, TimestampMs};

/// The largest timestamp up to an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimestampOffset {
    pub(crate) timestamp: TimestampMs,
    pub(crate) offset: Offset,
}

impl Entry for TimestampOffset {
    const SIZE_BYTES: usize = 12;
    const SUFFIX: &'static str = names::TIME_INDEX;

    fn encode(&self, base: Offset, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.timestamp.get().to_be_bytes());
        out.extend_from_slice(&relative(self.offset, base).to_be_bytes());
    }

    fn decode(base: Offset, bytes: &[u8]) -> TimestampOffset {
        let timestamp = i64::from_be_bytes([
            bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
        ]);
        let relative = i32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        TimestampOffset {
            timestamp: TimestampMs(timestamp),
            offset: absolute(base, relative),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_the_bytes_of_kafkas() {
        let mut bytes = Vec::new();
        let entry = TimestampOffset {
            timestamp: TimestampMs(0x0102),
            offset: Offset(9),
        };
        entry.encode(Offset(4), &mut bytes);
        assert_eq!(bytes, [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 5]);
        assert_eq!(TimestampOffset::decode(Offset(4), &bytes), entry);
    }
}
