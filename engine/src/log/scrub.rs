//! The background scrub: reads sealed and active segments at leisure and checks every batch's CRC and its place in the order.
//!
//! It is driven from outside in steps of bounded size and keeps its place in a [`ScrubCursor`]. A bad batch
//! takes the partition out of service with a message; it is never served on. What is being appended is not
//! looked at.

use std::sync::atomic::Ordering;

use crate::error::StorageError;
use crate::log::Log;
use crate::log::scan::{BatchScanner, SCAN_WINDOW_SIZE_BYTES, Step};
use crate::units::Offset;

/// Where a scrub goes on. The default begins at the log start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubCursor {
    segment_base_offset: Option<Offset>,
    position: u64,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubProgress {
    pub checked_bytes: u64,
    /// The log end of when the step began was reached; the cursor is back at the start.
    pub is_complete: bool,
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
        let mut checked_bytes = 0;
        let from = cursor.segment_base_offset.unwrap_or(Offset::ZERO);
        let first = segments.partition_point(|segment| segment.base_offset < from);
        for (index, segment) in segments.iter().enumerate().skip(first) {
            let start = if Some(segment.base_offset) == cursor.segment_base_offset {
                cursor.position
            } else {
                0
            };
            let is_active = segment.base_offset == end.segment_base_offset;
            let size = if is_active {
                end.position
            } else {
                segment.size_bytes()
            };
            if start < size {
                let file = segment.file(&self.place)?;
                let mut scanner = BatchScanner::new(file.as_ref(), start, size, SCAN_WINDOW_SIZE_BYTES);
                // The CRC does not cover a batch's base offset: its place among the others tells.
                let mut due = segment.base_offset;
                let beyond = segments
                    .get(index + 1)
                    .map_or(end.offset, |next| next.base_offset);
                loop {
                    let damage = match scanner.step()? {
                        Step::End => break,
                        Step::Bad { position, error } => Some((position, error.to_string())),
                        Step::Batch { position, header } => {
                            let sound = scanner
                                .batch(position, &header)?
                                .and_then(|batch| batch.verify_crc());
                            checked_bytes += header.size_bytes as u64;
                            *cursor = ScrubCursor {
                                segment_base_offset: Some(segment.base_offset),
                                position: position + header.size_bytes as u64,
                            };
                            let is_in_place = header.base_offset >= due && header.last_offset < beyond;
                            due = header.next_offset();
                            let found = match sound {
                                Err(error) => Some(error.to_string()),
                                Ok(()) if is_in_place => None,
                                Ok(()) => Some(format!(
                                    "offsets {} to {}, outside of the log's order",
                                    header.base_offset, header.last_offset
                                )),
                            };
                            found.map(|found| (position, found))
                        }
                    };
                    if let Some((position, found)) = damage {
                        if self.truncations.load(Ordering::Acquire) != truncations || segment.is_deleted() {
                            *cursor = ScrubCursor::default();
                            return Ok(ScrubProgress {
                                checked_bytes,
                                is_complete: false,
                            });
                        }
                        let damage = segment.corrupt(&self.place, position, "a sound batch", found);
                        return Err(self.take_out_of_service(&damage));
                    }
                    if checked_bytes >= budget_bytes {
                        return Ok(ScrubProgress {
                            checked_bytes,
                            is_complete: false,
                        });
                    }
                }
            }
            if is_active {
                break;
            }
        }
        *cursor = ScrubCursor::default();
        Ok(ScrubProgress {
            checked_bytes,
            is_complete: true,
        })
    }
}
