//! Truncation: the end of a log is cut off because another replica's log is the right one, or the log starts
//! anew.
//!
//! Log, indexes, leader epochs, producer state and all ends change as one step under the append lock
//! (KAFKA-12153). The recovery point is lowered with the log end; the log manager checkpoints it afterwards.
//!
//! What was cut must not come back after a crash, beside what is written in its place: the shorter file and the
//! renamed segments are durable before records follow, and segments go from the newest on, so that a crash in between
//! leaves no gap.
//!
//! Source: `Log.truncateTo`, `Log.truncateFullyAndStartAt`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::StorageError;
use crate::log::segment::LogSegment;
use crate::log::{Log, LogOffsetMetadata, State, snapshots};
use crate::units::Offset;

impl Log {
    /// Cuts the log so that it ends with the greatest batch that lies wholly below `target`. Returns whether
    /// anything was cut.
    ///
    /// # Errors
    /// A file could not be changed (the directory is offline then) or read.
    pub fn truncate_to(&self, target: Offset) -> Result<bool, StorageError> {
        self.check_serving()?;
        assert!(
            target >= Offset::ZERO,
            "a log is not truncated to a negative offset"
        );
        {
            let mut state = self.state.lock();
            if target >= self.log_end_offset() {
                // An epoch may have been noted at the end without a record following.
                if state.epochs.truncate_from_end(self.log_end_offset()) {
                    self.store_epochs(&state)?;
                }
                return Ok(false);
            }
            let first = self
                .segments
                .load()
                .first()
                .map_or(Offset::ZERO, |segment| segment.base_offset);
            if first > target {
                self.start_at(&mut state, target)?;
            } else {
                self.cut(&mut state, target)?;
            }
        }
        self.truncate_durability(self.log_end_offset());
        self.notify();
        Ok(true)
    }

    fn cut(&self, state: &mut State, target: Offset) -> Result<(), StorageError> {
        let (kept, doomed): (Vec<_>, Vec<_>) = Vec::clone(&self.segments.load())
            .into_iter()
            .partition(|segment| segment.base_offset <= target);
        let last = kept
            .last()
            .cloned()
            .expect("the caller compared with the first segment");
        let position = match last.locate(&self.place, target, last.size_bytes())? {
            Some(located) => located.position,
            None => last.size_bytes(),
        };
        // Readers must not look beyond the new end while the files shrink. The list of segments changes in the same
        // step: a round of syncs that begins from now on does not take the last one for sealed.
        {
            let mut offsets = self.offsets.lock();
            self.truncations.fetch_add(1, Ordering::AcqRel);
            offsets.end = LogOffsetMetadata {
                offset: target,
                segment_base_offset: last.base_offset,
                position,
            };
            offsets.high_watermark = offsets.high_watermark.min(target);
            offsets.synced_end = offsets.synced_end.min(target);
            offsets.recovery_point = offsets.recovery_point.min(target);
            offsets.log_start = offsets.log_start.min(target);
            offsets.known = [None, None];
            self.segments.store(Arc::new(kept));
        }
        // The newest first, each durable before the next: what a crash leaves of them has no gap.
        for segment in doomed.into_iter().rev() {
            self.delete_segments(vec![segment])?;
            self.settle_names()?;
        }
        last.truncate_to(&self.place, position, target, self.clock.wall())?;
        // Durable before records follow, as the rest: one of the branch that was cut must not tell of producers
        // of the next one.
        if snapshots::remove(&self.place, |offset| offset > target)? {
            self.directory_changed();
        }
        self.settle_names()?;
        if state.epochs.truncate_from_end(target) {
            self.store_epochs(state)?;
        }
        self.reload_producers(state)
    }

    /// Drops everything and starts an empty log at `offset`.
    ///
    /// # Errors
    /// A file could not be changed; the directory is offline then.
    pub fn truncate_fully_and_start_at(&self, offset: Offset) -> Result<(), StorageError> {
        self.check_serving()?;
        {
            let mut state = self.state.lock();
            self.start_at(&mut state, offset)?;
        }
        self.truncate_durability(Offset(-1));
        self.notify();
        Ok(())
    }

    fn start_at(&self, state: &mut State, offset: Offset) -> Result<(), StorageError> {
        let doomed = Vec::clone(&self.segments.load());
        {
            let mut offsets = self.offsets.lock();
            self.truncations.fetch_add(1, Ordering::AcqRel);
            offsets.end = LogOffsetMetadata {
                offset,
                segment_base_offset: offset,
                position: 0,
            };
            offsets.log_start = offset;
            offsets.high_watermark = offset;
            offsets.synced_end = offset;
            offsets.recovery_point = offsets.recovery_point.min(offset);
            offsets.first_unstable = None;
            offsets.known = [None, None];
        }
        // The new segment may have the name of an old one: rename first.
        self.delete_segments(doomed)?;
        let config = self.config.load_full();
        LogSegment::remove_leftovers(&self.place, offset)?;
        let segment = LogSegment::create(&self.place, offset, &config, self.clock.wall())?;
        self.segments.store(Arc::new(vec![segment]));
        snapshots::remove(&self.place, |_| true)?;
        self.directory_changed();
        self.settle_names()?;
        self.clear_epochs(state)?;
        state.producers.truncate_fully_and_start_at(offset);
        self.publish_first_unstable(state);
        Ok(())
    }

    /// Brings the producer state to the present log end: from the newest snapshot at or below it, then from
    /// the batches.
    fn reload_producers(&self, state: &mut State) -> Result<(), StorageError> {
        let (log_start, end, high_watermark) = {
            let offsets = self.offsets.lock();
            (offsets.log_start, offsets.end.offset, offsets.high_watermark)
        };
        let had_none = state.producers.is_empty();
        snapshots::remove(&self.place, |offset| offset <= log_start)?;
        if had_none {
            state.producers.clear_and_start_at(end);
        } else {
            let segments = self.segments.load_full();
            let before = state.producers.clone();
            self.rebuild_producers(&mut state.producers, &segments, log_start, end)?;
            state.producers.recall(&before);
        }
        state.producers.on_high_watermark_updated(high_watermark);
        self.write_snapshot(state)?;
        self.publish_first_unstable(state);
        Ok(())
    }
}
