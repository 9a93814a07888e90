//! Judging the first bad batch of a log, and keeping aside what is cut.
//!
//! The rule is the table in [`super`]. A *torn tail* is bad bytes up to the end of the log; a *hole* has a
//! sound batch, with a later offset, somewhere behind the bad one.

use std::io::IoSlice;
use std::sync::Arc;

use crate::error::IoError;
use crate::io::{File, OpenMode};
use crate::log::names;
use crate::log::scan;
use crate::log::segment::LogSegment;
use crate::record_batch::{Batch, BatchHeader};
use crate::units::Offset;

use super::rebuild::{Bad, Rebuilt};
use super::{Loader, LogOpenError, may_have_lost_writes};

/// How far behind a bad batch a sound one is looked for.
const HOLE_SEARCH_SIZE_BYTES: u64 = 64 << 20;
/// A copy is made in pieces of so many bytes.
const COPY_SIZE_BYTES: usize = 1 << 20;

/// Where the log is cut: in this segment at this position; later segments go as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) segment_index: usize,
    position: u64,
}

impl Cut {
    /// Behind the last sound batch of the segment at `segment_index`, which was the last to be rebuilt.
    fn at_end_of(segment_index: usize, segment: &LogSegment, rebuilt: &[Rebuilt]) -> Cut {
        let position = rebuilt
            .last()
            .map_or(segment.size_bytes(), |rebuilt| rebuilt.size_bytes);
        Cut {
            segment_index,
            position,
        }
    }
}

impl Loader<'_> {
    /// What to do about `bad`, found in the segment at `index` where offset `next_offset` was due: `None` if
    /// it is merely the end of the log in preallocated space, else where to cut.
    pub(super) fn judge(
        &self,
        segments: &[Arc<LogSegment>],
        index: usize,
        bad: &Bad,
        next_offset: Offset,
        whole_until: Offset,
    ) -> Result<Option<Cut>, LogOpenError> {
        let segment = &segments[index];
        let damage = self.damage(segment, bad);
        let is_given_up = self.options.given_up_from == Some(next_offset);
        if next_offset < whole_until && !is_given_up {
            let because = format!("everything below offset {whole_until} was synced");
            return Err(self.out_of_service(&damage, &because, Some(next_offset)));
        }
        let file = segment.file(self.place)?;
        let end = segment.size_bytes();
        let later = &segments[index + 1..];
        let is_last = later.iter().all(|later| later.is_empty());
        let is_missing = later.iter().any(|later| later.base_offset > next_offset);
        if is_last && !is_missing && scan::is_zero(file.as_ref(), bad.position, end)? {
            return Ok(None);
        }
        let cut = Cut {
            segment_index: index,
            position: bad.position,
        };
        if is_given_up {
            return Ok(Some(cut));
        }
        let is_torn_write =
            is_last && (bad.is_partial || self.is_torn_in_preallocation(file.as_ref(), bad, end)?);
        if !may_have_lost_writes(self.options.boot) {
            if is_torn_write {
                return Ok(Some(cut));
            }
            return Err(self.out_of_service(
                &damage,
                "the machine was not restarted, so that nothing can be missing",
                Some(next_offset),
            ));
        }
        let is_hole = self.config.flush_messages == Some(1)
            && (!is_last || has_sound_batch_behind(file.as_ref(), bad.position + 1, end, next_offset)?);
        if is_hole && !self.options.cuts_holes {
            let because = "records are synced before they are acknowledged, and sound batches follow";
            return Err(self.out_of_service(&damage, because, Some(next_offset)));
        }
        if is_hole {
            self.note_hole()?;
        }
        Ok(Some(cut))
    }

    /// Where to cut a log in which offsets are missing before the segment at `index`, the one before which was the last to be rebuilt.
    pub(super) fn judge_gap(
        &self,
        segments: &[Arc<LogSegment>],
        index: usize,
        rebuilt: &[Rebuilt],
    ) -> Result<Cut, LogOpenError> {
        let has_records_behind = segments[index..].iter().any(|segment| !segment.is_empty());
        if self.config.flush_messages == Some(1) && self.options.cuts_holes && has_records_behind {
            self.note_hole()?;
        }
        Ok(Cut::at_end_of(index - 1, &segments[index - 1], rebuilt))
    }

    /// Durable before the hole, which tells the next start as much, is gone.
    fn note_hole(&self) -> Result<(), IoError> {
        self.has_cut_hole.set(true);
        self.place.open_to_write(names::HOLE_CUT, OpenMode::Truncate)?;
        self.place.sync_dir()
    }

    /// An interrupted write into preallocated space: from some byte of the batch on, the file holds only
    /// zeros.
    fn is_torn_in_preallocation(&self, file: &dyn File, bad: &Bad, end: u64) -> Result<bool, IoError> {
        let Some(size) = bad.size_bytes.filter(|_| self.config.preallocate) else {
            return Ok(false);
        };
        let batch_end = bad.position + size;
        Ok(batch_end < end && scan::is_zero(file, batch_end - 1, end)?)
    }

    /// Copies what is to be cut into files of its own, durably, and renames later segments out of the log.
    pub(super) fn keep_aside(&self, segments: &[Arc<LogSegment>], cut: &Cut) -> Result<(), LogOpenError> {
        let place = self.place;
        let segment = &segments[cut.segment_index];
        let source = segment.file(place)?;
        let end = segment.size_bytes();
        let name = names::cut_name(segment.base_offset, cut.position, self.now);
        tracing::warn!(
            "{}: cutting segment {} at byte {} of {end}, where the first batch is not sound; {} later \
             segments go with it. What is cut is kept in {} and beside it",
            self.partition,
            segment.base_offset,
            cut.position,
            segments.len() - cut.segment_index - 1,
            place.file(&name).display()
        );
        if cut.position < end {
            let aside = place.open_to_write(&name, OpenMode::Truncate)?;
            let mut buffer = vec![0; COPY_SIZE_BYTES];
            let mut position = cut.position;
            while position < end {
                let size = usize::try_from(end - position)
                    .unwrap_or(usize::MAX)
                    .min(COPY_SIZE_BYTES);
                let read = source.read_at(position, &mut buffer[..size])?;
                if read == 0 {
                    break;
                }
                aside
                    .write_vectored_at(position - cut.position, &[IoSlice::new(&buffer[..read])])
                    .map_err(|error| place.fatal(error))?;
                position += read as u64;
            }
            aside.sync().map_err(|error| place.fatal(error))?;
        }
        // The newest first, each durable before the next: what a crash leaves of them has no gap.
        for later in segments[cut.segment_index + 1..].iter().rev() {
            let name = names::file_name(later.base_offset, names::LOG);
            if later.is_empty() {
                place.remove(&name)?;
            } else {
                place.rename_file(&name, &names::cut_name(later.base_offset, 0, self.now))?;
            }
            for suffix in [names::OFFSET_INDEX, names::TIME_INDEX, names::TRANSACTION_INDEX] {
                place.remove(&names::file_name(later.base_offset, suffix))?;
            }
            place.sync_dir()?;
        }
        Ok(place.sync_dir()?)
    }
}

/// Whether a sound batch with an offset above `after` begins in `position..end`.
fn has_sound_batch_behind(file: &dyn File, position: u64, end: u64, after: Offset) -> Result<bool, IoError> {
    let end = end.min(position + HOLE_SEARCH_SIZE_BYTES);
    let mut bytes = vec![0; usize::try_from(end.saturating_sub(position)).unwrap_or(0)];
    let read = file.read_at(position, &mut bytes)?;
    bytes.truncate(read);
    Ok((0..bytes.len()).any(|start| {
        let bytes = &bytes[start..];
        // Nearly every place fails at the offset, before anything is parsed.
        let Some(offset) = bytes.first_chunk::<8>().map(|bytes| i64::from_be_bytes(*bytes)) else {
            return false;
        };
        offset >= after.get()
            && offset <= after.get().saturating_add(i64::from(i32::MAX))
            && BatchHeader::size_of(bytes).is_ok_and(|size| size <= bytes.len())
            && Batch::parse(bytes).is_ok_and(|batch| batch.verify_crc().is_ok())
    }))
}
