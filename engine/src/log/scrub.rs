//! The background scrub: reads sealed and active segments at leisure and checks every batch's CRC and its place in
//! the order.
//!
//! It is driven from outside in steps of bounded size and keeps its place in a [`ScrubCursor`]. A bad batch
//! takes the partition out of service with a message; it is never served on. What is being appended is not
//! looked at.

use std::ops::Range;
use std::sync::Weak;
use std::sync::atomic::Ordering;

use crate::error::{IoError, StorageError};
use crate::log::Log;
use crate::log::scan::{BatchScanner, SCAN_WINDOW_SIZE_BYTES, Step};
use crate::record_batch::BatchHeader;
use crate::units::Offset;

/// Where a scrub goes on. The default begins at the log start, as does one of another log or of before a truncation.
#[derive(Clone, Debug, Default)]
pub struct ScrubCursor {
    /// A log that is deleted and created again is another one.
    log: Weak<Log>,
    /// Of when the step began: what was cut since may be filled again with batches that begin elsewhere.
    truncations: u64,
    segment_base_offset: Option<Offset>,
    position: u64,
}

impl ScrubCursor {
    fn start(log: &Log, truncations: u64) -> ScrubCursor {
        ScrubCursor {
            log: Weak::clone(&log.me),
            truncations,
            ..ScrubCursor::default()
        }
    }
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubProgress {
    pub checked_bytes: u64,
    /// The log end of when the step began was reached; the cursor is back at the start.
    pub is_complete: bool,
}

/// What lies where the scanner stands.
enum Checked {
    End,
    Sound { position: u64, header: BatchHeader },
    Damaged { position: u64, found: String },
}

/// Checks the next batch, whose offsets must lie within `due`: the CRC does not cover its base offset, but its
/// place among the others tells.
fn check_next(scanner: &mut BatchScanner<'_>, due: &Range<Offset>) -> Result<Checked, IoError> {
    let (position, header) = match scanner.step()? {
        Step::End => return Ok(Checked::End),
        Step::Bad { position, error } => {
            let found = error.to_string();
            return Ok(Checked::Damaged { position, found });
        }
        Step::Batch { position, header } => (position, header),
    };
    let batch = scanner.batch(position, &header)?;
    if let Err(error) = batch.and_then(|batch| batch.verify_crc()) {
        let found = error.to_string();
        return Ok(Checked::Damaged { position, found });
    }
    if header.base_offset < due.start || header.last_offset >= due.end {
        let (first, last) = (header.base_offset, header.last_offset);
        let found = format!("offsets {first} to {last}, outside of the log's order");
        return Ok(Checked::Damaged { position, found });
    }
    Ok(Checked::Sound { position, header })
}

impl Log {
    /// Checks at least one batch and at most about `budget_bytes` from `cursor` on, and moves it.
    ///
    /// # Errors
    /// `OutOfService` if a batch is not sound (the log serves no more); `Io` if the file cannot be read.
    pub fn scrub(&self, cursor: &mut ScrubCursor, budget_bytes: u64) -> Result<ScrubProgress, StorageError> {
        self.check_serving()?;
        let truncations = self.truncations.load(Ordering::Acquire);
        let segments = self.segments.load_full();
        let end = self.log_end_metadata();
        if !cursor.log.ptr_eq(&self.me) || cursor.truncations != truncations {
            *cursor = ScrubCursor::start(self, truncations);
        }
        let mut progress = ScrubProgress {
            checked_bytes: 0,
            is_complete: false,
        };
        let from = cursor.segment_base_offset.unwrap_or(Offset::ZERO);
        let first = segments.partition_point(|segment| segment.base_offset < from);
        for (index, segment) in segments.iter().enumerate().skip(first) {
            let base_offset = segment.base_offset;
            let start = match cursor.segment_base_offset {
                Some(at_hand) if at_hand == base_offset => cursor.position,
                _ => 0,
            };
            let is_active = base_offset == end.segment_base_offset;
            let size = if is_active {
                end.position
            } else {
                segment.size_bytes()
            };
            if start < size {
                let file = segment.file(&self.place)?;
                let mut scanner = BatchScanner::new(file.as_ref(), start, size, SCAN_WINDOW_SIZE_BYTES);
                let next = segments.get(index + 1);
                let mut due = base_offset..next.map_or(end.offset, |next| next.base_offset);
                loop {
                    match check_next(&mut scanner, &due)? {
                        Checked::End => break,
                        Checked::Sound { position, header } => {
                            due.start = header.next_offset();
                            progress.checked_bytes += header.size_bytes as u64;
                            cursor.segment_base_offset = Some(base_offset);
                            cursor.position = position + header.size_bytes as u64;
                        }
                        // What was cut or deleted meanwhile may look like anything.
                        Checked::Damaged { .. }
                            if segment.is_deleted()
                                || self.truncations.load(Ordering::Acquire) != truncations =>
                        {
                            *cursor = ScrubCursor::default();
                            return Ok(progress);
                        }
                        Checked::Damaged { position, found } => {
                            let damage = segment.corrupt(&self.place, position, "a sound batch", found);
                            return Err(self.take_out_of_service(&damage));
                        }
                    }
                    if progress.checked_bytes >= budget_bytes {
                        return Ok(progress);
                    }
                }
            }
            if is_active {
                break;
            }
        }
        *cursor = ScrubCursor::default();
        progress.is_complete = true;
        Ok(progress)
    }
}
