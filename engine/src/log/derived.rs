//! [`Derivation`]: what the batches of a log say that its derived files must hold, for tools that look at a log or put
//! one in order while no broker has it open.
//!
//! It is fed the batches in offset order, segment after segment, and gives the bytes of the offset, time and
//! transaction index of each segment and of a producer snapshot at the end. The decisions are those of an append: an
//! index equals the one that recovery builds.
//!
//! Left to the caller: reading and writing files, which batches are sound and which snapshot to begin with.

use crate::log::appender::producer_batch;
use crate::log::offset_index::is_in_reach;
use crate::log::producer_state::ProducerStateManager;
use crate::log::segment::AppendCursor;
use crate::log::sparse_index::Entry;
use crate::log::transaction_index;
use crate::record_batch::{BatchHeader, ControlRecord};
use crate::units::{Offset, TimestampMs, TopicPartition};

pub use crate::log::producer_state::{
    AbortedTransaction, BatchMetadata, CorruptSnapshot, SnapshotEntry, decode_snapshot,
};
pub use crate::log::transaction_index::decode as decode_transaction_index;

/// `index.interval.bytes` of a topic of which it is not known.
const INDEX_INTERVAL_BYTES: u32 = 4096;

/// The bytes of a segment's derived files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentFiles {
    pub offset_index: Vec<u8>,
    pub time_index: Vec<u8>,
    /// Empty if no transaction was aborted: then there is no file.
    pub transaction_index: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub struct Derivation {
    producers: ProducerStateManager,
    cursor: AppendCursor,
    aborted: Vec<AbortedTransaction>,
}

impl Derivation {
    /// Knows of no producers; the log starts at `log_start`.
    pub fn new(partition: TopicPartition, log_start: Offset) -> Derivation {
        // Nobody is forgotten: whoever loads the snapshot decides that by its own clock.
        let mut producers = ProducerStateManager::new(partition, i64::MAX);
        producers.clear_and_start_at(log_start);
        Derivation {
            producers,
            cursor: AppendCursor::at(log_start, 0, None, (0, 0), TimestampMs::NONE),
            aborted: Vec::new(),
        }
    }

    /// Knows the producers of a snapshot that was taken at `offset`, to go on with the batch at that offset.
    ///
    /// # Errors
    /// The bytes are no snapshot; nothing has changed.
    pub fn load_snapshot(&mut self, offset: Offset, bytes: &[u8]) -> Result<(), CorruptSnapshot> {
        self.producers.load_snapshot(offset, bytes, TimestampMs(0))
    }

    /// Begins the segment with this base offset.
    pub fn begin_segment(&mut self, base: Offset) {
        self.cursor = AppendCursor::at(base, 0, None, (0, 0), TimestampMs::NONE);
        self.aborted.clear();
    }

    /// Takes the next batch of the segment, and the marker in it if it is a control batch that has one. Batches that a
    /// loaded snapshot covers are taken into the indexes alone.
    pub fn add(&mut self, header: &BatchHeader, control: Option<ControlRecord>) {
        if header.last_offset >= self.producers.map_end_offset()
            && let Some(batch) = producer_batch(header, control)
        {
            self.aborted.extend(self.producers.apply(&batch));
        }
        if header.next_offset() > self.producers.map_end_offset() {
            self.producers.set_map_end_offset(header.next_offset());
        }
        // What an index cannot name is not in a segment.
        if is_in_reach(header.last_offset, self.cursor.base_offset())
            && i32::try_from(self.cursor.position).is_ok()
        {
            let (size, last) = (header.size_bytes as u64, header.last_offset);
            self.cursor
                .add(size, last, header.max_timestamp, INDEX_INTERVAL_BYTES);
        }
    }

    /// The derived files of the segment as though it were closed here.
    pub fn segment_files(&self) -> SegmentFiles {
        let base = self.cursor.base_offset();
        let mut files = SegmentFiles::default();
        for entry in &self.cursor.new_offsets {
            entry.encode(base, &mut files.offset_index);
        }
        for entry in self
            .cursor
            .new_times
            .iter()
            .chain(self.cursor.closing_time().as_ref())
        {
            entry.encode(base, &mut files.time_index);
        }
        for transaction in &self.aborted {
            transaction_index::encode(transaction, &mut files.transaction_index);
        }
        files
    }

    /// The bytes of a producer snapshot behind the last batch.
    pub fn snapshot(&self) -> Vec<u8> {
        self.producers.encode()
    }
}
