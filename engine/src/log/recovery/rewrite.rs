//! Writing back in place what may be in memory alone.
//!
//! After a failed sync Linux takes the pages for clean: readers see them until they are dropped, and the next sync
//! succeeds without having written them. A start on the same boot would find records there, take them for durable and
//! acknowledge their repetition. So where acknowledgements are synced, whatever lies above what is known to be on the
//! medium is written again, the same bytes in the same place, before the sync of the opening. Which boot it is does
//! not matter: a power cut leaves little of it, and not every start of one boot is known for one.

use std::io::IoSlice;

use crate::error::StorageError;
use crate::log::scan::{BatchScanner, Step};
use crate::log::segment::LogSegment;
use crate::units::Offset;

use super::rebuild::Rebuilt;
use super::{CHECK_WINDOW_SIZE_BYTES, Loader, LogOpenError};

/// Written at once, unless a batch is larger.
const REWRITE_SIZE_BYTES: usize = 1 << 20;

impl Loader<'_> {
    /// Writes the batches of a segment that reach beyond `synced_end` where they are. Each is checked once more: the
    /// kernel may have dropped its pages since.
    pub(super) fn rewrite(
        &self,
        segment: &LogSegment,
        rebuilt: &Rebuilt,
        synced_end: Offset,
    ) -> Result<(), LogOpenError> {
        if rebuilt.next_offset <= synced_end {
            return Ok(());
        }
        self.try_rewrite(segment, rebuilt.size_bytes, synced_end)
            .map_err(|error| self.must_be_whole(error, "it was sound a moment before"))
    }

    fn try_rewrite(&self, segment: &LogSegment, end: u64, synced_end: Offset) -> Result<(), StorageError> {
        let place = self.place;
        let from = match segment.base_offset < synced_end {
            true => segment
                .locate(place, synced_end, end)?
                .map(|located| located.position),
            false => Some(0),
        };
        let Some(mut written_to) = from else {
            return Ok(());
        };
        let file = segment.file(place)?;
        let write = |position, bytes: &[u8]| {
            file.write_vectored_at(position, &[IoSlice::new(bytes)])
                .map_err(|error| place.fatal(error))
        };
        let mut scanner = BatchScanner::new(file.as_ref(), written_to, end, CHECK_WINDOW_SIZE_BYTES);
        let mut bytes = Vec::new();
        loop {
            let (position, header) = match scanner.step()? {
                Step::End => break,
                Step::Bad { position, error } => {
                    let found = error.to_string();
                    return Err(segment.corrupt(place, position, "a batch header", found).into());
                }
                Step::Batch { position, header } => (position, header),
            };
            let damage = |error: crate::record_batch::BatchError| {
                segment.corrupt(place, position, "a sound batch", error.to_string())
            };
            let batch = scanner.batch(position, &header)?.map_err(damage)?;
            batch.verify_crc().map_err(damage)?;
            bytes.extend_from_slice(batch.bytes());
            if bytes.len() >= REWRITE_SIZE_BYTES {
                write(written_to, &bytes)?;
                written_to += bytes.len() as u64;
                bytes.clear();
            }
        }
        if !bytes.is_empty() {
            write(written_to, &bytes)?;
        }
        Ok(())
    }
}
