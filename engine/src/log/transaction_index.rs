//! `.txnindex`: the aborted transactions whose markers lie in a segment, so that a `read_committed` consumer
//! can skip them.
//!
//! 34 bytes an entry, big-endian, in order of the markers: version i16 (0), producer id i64, first offset i64, last
//! offset i64 (the marker), last stable offset i64. The file appears with the first abort. Source:
//! `TransactionIndex.scala`; KIP-98.

use std::io::IoSlice;

use crate::error::IoError;
use crate::io::OpenMode;
use crate::log::names;
use crate::log::place::Place;
use crate::log::producer_state::AbortedTransaction;
use crate::units::{Offset, ProducerId};

const ENTRY_SIZE_BYTES: usize = 2 + 8 + 8 + 8 + 8;
const VERSION: i16 = 0;

/// One segment's index of aborted transactions.
#[derive(Debug, Default)]
pub(crate) struct TransactionIndex {
    /// Entries in the file; `None` until it was looked at.
    count: Option<u32>,
}

impl TransactionIndex {
    /// Of a new segment: there is no file.
    pub(crate) fn new_empty() -> TransactionIndex {
        TransactionIndex { count: Some(0) }
    }

    /// Of a segment found on disk, `exists` telling whether there is a file.
    pub(crate) fn on_disk(exists: bool) -> TransactionIndex {
        TransactionIndex {
            count: (!exists).then_some(0),
        }
    }

    pub(crate) fn is_known_empty(&self) -> bool {
        self.count == Some(0)
    }

    /// All entries; `Err(reason)` inside if the file is not what it must be and the segment's is to be
    /// rebuilt.
    pub(crate) fn entries(
        &mut self,
        place: &Place,
        base: Offset,
    ) -> Result<Result<Vec<AbortedTransaction>, String>, IoError> {
        if self.is_known_empty() {
            return Ok(Ok(Vec::new()));
        }
        let name = names::file_name(base, names::TRANSACTION_INDEX);
        let bytes = place.read_small(&name, usize::MAX)?.unwrap_or_default();
        let entries = decode(&bytes, base);
        self.count = entries.as_ref().ok().map(|entries| entries.len() as u32);
        Ok(entries)
    }

    /// Appends an entry. A failure is final for the directory.
    pub(crate) fn append(
        &mut self,
        place: &Place,
        base: Offset,
        transaction: &AbortedTransaction,
    ) -> Result<(), IoError> {
        let name = names::file_name(base, names::TRANSACTION_INDEX);
        let file = place.open_to_write(&name, OpenMode::ReadWriteCreate)?;
        let count = match self.count {
            Some(count) => count,
            None => (file.size_bytes()? / ENTRY_SIZE_BYTES as u64) as u32,
        };
        let mut bytes = Vec::with_capacity(ENTRY_SIZE_BYTES);
        encode(transaction, &mut bytes);
        file.write_vectored_at(
            u64::from(count) * ENTRY_SIZE_BYTES as u64,
            &[IoSlice::new(&bytes)],
        )
        .map_err(|error| place.fatal(error))?;
        self.count = Some(count + 1);
        Ok(())
    }

    /// Replaces the content: the file is removed if there is nothing to keep.
    pub(crate) fn replace(
        &mut self,
        place: &Place,
        base: Offset,
        entries: &[AbortedTransaction],
    ) -> Result<(), IoError> {
        let name = names::file_name(base, names::TRANSACTION_INDEX);
        if entries.is_empty() {
            if !self.is_known_empty() {
                place.remove(&name)?;
            }
        } else {
            let mut bytes = Vec::with_capacity(entries.len() * ENTRY_SIZE_BYTES);
            for entry in entries {
                encode(entry, &mut bytes);
            }
            let file = place.open_to_write(&name, OpenMode::Truncate)?;
            file.write_vectored_at(0, &[IoSlice::new(&bytes)])
                .map_err(|error| place.fatal(error))?;
        }
        self.count = Some(entries.len() as u32);
        Ok(())
    }

    /// Removes the entries whose marker is at or above `offset`.
    pub(crate) fn truncate_to(&mut self, place: &Place, base: Offset, offset: Offset) -> Result<(), IoError> {
        if self.is_known_empty() {
            return Ok(());
        }
        let mut entries = self.entries(place, base)?.unwrap_or_default();
        entries.retain(|entry| entry.last_offset < offset);
        if self.count == Some(entries.len() as u32) {
            Ok(())
        } else {
            self.replace(place, base, &entries)
        }
    }
}

/// Adds to `found` the transactions that touch `[from, upper_bound)`. Returns whether no later segment can
/// hold more.
pub(crate) fn collect(
    entries: &[AbortedTransaction],
    from: Offset,
    upper_bound: Offset,
    found: &mut impl Extend<(ProducerId, Offset)>,
) -> bool {
    for entry in entries {
        if entry.last_offset >= from && entry.first_offset < upper_bound {
            found.extend([(entry.producer_id, entry.first_offset)]);
        }
        if entry.last_stable_offset >= upper_bound {
            return true;
        }
    }
    false
}

pub(super) fn encode(transaction: &AbortedTransaction, out: &mut Vec<u8>) {
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&transaction.producer_id.get().to_be_bytes());
    out.extend_from_slice(&transaction.first_offset.get().to_be_bytes());
    out.extend_from_slice(&transaction.last_offset.get().to_be_bytes());
    out.extend_from_slice(&transaction.last_stable_offset.get().to_be_bytes());
}

fn long(entry: &[u8], at: usize) -> i64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&entry[at..at + 8]);
    i64::from_be_bytes(bytes)
}

/// Whose transactions a file tells of, whatever else is wrong with it.
pub(crate) fn producer_ids(bytes: &[u8]) -> impl Iterator<Item = ProducerId> {
    let entries = bytes.chunks_exact(ENTRY_SIZE_BYTES);
    entries.map(|entry| ProducerId(long(entry, 2)))
}

/// The entries of a file, of which every marker must lie at or above `base`.
///
/// # Errors
/// What is wrong with the file.
pub fn decode(bytes: &[u8], base: Offset) -> Result<Vec<AbortedTransaction>, String> {
    let mut entries = Vec::with_capacity(bytes.len() / ENTRY_SIZE_BYTES);
    for (index, entry) in bytes.chunks_exact(ENTRY_SIZE_BYTES).enumerate() {
        let version = i16::from_be_bytes([entry[0], entry[1]]);
        if version > VERSION {
            return Err(format!("entry {index} has version {version}, expected {VERSION}"));
        }
        let transaction = AbortedTransaction {
            producer_id: ProducerId(long(entry, 2)),
            first_offset: Offset(long(entry, 10)),
            last_offset: Offset(long(entry, 18)),
            last_stable_offset: Offset(long(entry, 26)),
        };
        if transaction.last_offset < base {
            return Err(format!(
                "entry {index} ends at offset {}, before the segment's base offset {base}",
                transaction.last_offset
            ));
        }
        entries.push(transaction);
    }
    match bytes.len() % ENTRY_SIZE_BYTES {
        0 => Ok(entries),
        _ => Err(format!("it ends within entry {}", entries.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aborted(first: i64, last: i64, stable: i64) -> AbortedTransaction {
        AbortedTransaction {
            producer_id: ProducerId(first),
            first_offset: Offset(first),
            last_offset: Offset(last),
            last_stable_offset: Offset(stable),
        }
    }

    #[test]
    fn an_entry_has_34_bytes_and_survives_the_trip() {
        let mut bytes = Vec::new();
        encode(&aborted(3, 9, 10), &mut bytes);
        assert_eq!(bytes.len(), ENTRY_SIZE_BYTES);
        assert_eq!(decode(&bytes, Offset(0)), Ok(vec![aborted(3, 9, 10)]));
        assert!(
            decode(&bytes, Offset(10)).is_err(),
            "the marker must lie in the segment"
        );
        bytes[1] = 1;
        assert!(decode(&bytes, Offset(0)).is_err(), "a later version is unknown");
        assert!(decode(&bytes[..33], Offset(0)).is_err(), "an entry is whole");
    }

    #[test]
    fn a_search_ends_where_the_last_stable_offset_passes_the_range() {
        let entries = [aborted(0, 5, 2), aborted(2, 8, 9), aborted(20, 25, 26)];
        let mut found = Vec::new();
        assert!(collect(&entries, Offset(6), Offset(9), &mut found));
        assert_eq!(found, [(ProducerId(2), Offset(2))]);
        let mut found = Vec::new();
        assert!(!collect(&entries, Offset(0), Offset(100), &mut found));
        assert_eq!(found.len(), 3);
    }
}
