//! [`Log`]: one partition's records on disk, in a directory exactly as Kafka 2.7.2 writes it.
//!
//! A log is a list of segments in offset order; the last one is active and takes the appends. What it promises:
//! - **Order.** Offsets are assigned under one lock in the order of the calls; a reader sees a prefix of them.
//! - **Bytes.** What was validated is written as it is, several produced sets by one vectored write per segment; index,
//!   time-index and roll decisions are taken per produced set as though each had been written alone.
//! - **Durability.** A record is in the page cache when `append` returns, and on the medium when `Log::synced_end` has
//!   passed it; `Log::when_synced` tells. Syncs are shared: one is in flight per log, and all that is appended meanwhile
//!   shares the next. With `flush.messages=1` no reader sees a record before it is synced.
//! - **Finality.** The first failed write or sync takes the log directory offline in the same step ([`LogDirectory::fail`]);
//!   nothing is acknowledged afterwards.
//! - **Derived files** (indexes, producer snapshots, the epoch list) are hints: absent or wrong, they are rebuilt, and a wrong
//!   index entry is noticed when the batch header at its position is read.
//!
//! Locks, in the order in which they may be taken: the append lock (`State`), a segment's own, the offsets. Readers take the
//! last two only, each for moments, and none of them over a wait. Nothing is called back under a lock.
//!
//! What it leaves to others: validation of a producer's records ([`crate::record_batch`]), which logs there are and when
//! retention, flushes and deletions run ([`crate::log_manager`]), who may read how far (the replica manager sets the high
//! watermark). Matches `Log.scala` of 2.7.2.
//!
//! The parts: [`directory`], `place` (where a log's files are), `names`, `segment`, `scan`, `sparse_index` with
//! `offset_index`, `time_index` and `transaction_index`, [`producer_state`], [`leader_epoch_cache`], and the operations:
//! `recovery` (open), `appender`, `reader`, `durability`, `retention`, `truncation`, `scrub`.

pub mod directory;
pub mod leader_epoch_cache;
pub mod producer_state;

use std::fmt;

use crate::error::{IoError, StorageError};
use crate::io::FileHandle;
use crate::units::{LeaderEpoch, Offset, ProducerId, TimestampMs, TopicPartition};

pub use directory::LogDirectory;

/// What is known of the machine since the log was last open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootEvidence {
    /// The kernel has been running all along, so that everything ever written is in the files.
    SameBoot,
    /// The machine was restarted: what was not synced may be missing or torn.
    OtherBoot,
    /// Nothing of ours is there to tell (Kafka wrote the directory last): treated as `OtherBoot`.
    Unknown,
}

/// What the log manager knows of a log that it opens.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// From `recovery-point-offset-checkpoint`: everything below is on the medium. 0 if unknown.
    pub recovery_point: Offset,
    /// From `log-start-offset-checkpoint`; `None` if the first segment tells.
    pub log_start_offset: Option<Offset>,
    /// The high watermark to begin with, bounded by the log; `None` = log start offset, as in Kafka.
    pub high_watermark: Option<Offset>,
    /// Whether `.kafka_cleanshutdown` was there: nothing needs recovery.
    pub clean_shutdown: bool,
    pub boot: BootEvidence,
    /// From our own state file: the log was synced up to here (exclusive).
    pub synced_end: Option<Offset>,
    /// `transactional.id.expiration.ms`
    pub producer_id_expiration_ms: i64,
}

impl Default for OpenOptions {
    /// For a new log: nothing is known, nothing needs recovery.
    fn default() -> Self {
        OpenOptions {
            recovery_point: Offset::ZERO,
            log_start_offset: None,
            high_watermark: None,
            clean_shutdown: true,
            boot: BootEvidence::SameBoot,
            synced_end: None,
            producer_id_expiration_ms: 7 * 24 * 3_600_000,
        }
    }
}

/// Why a log cannot be opened. Its files are as they were found, up to the completion of interrupted renames.
#[derive(Debug, thiserror::Error)]
pub enum LogOpenError {
    /// Bytes that must be whole are not. The partition stays offline, its directory untouched; the others go on.
    #[error("{partition} is out of service: {reason}")]
    OutOfService {
        partition: TopicPartition,
        reason: String,
    },
    /// The log directory is offline, or went offline by this.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<IoError> for LogOpenError {
    fn from(error: IoError) -> Self {
        LogOpenError::Storage(error.into())
    }
}

/// How far a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpperBound {
    /// Followers.
    LogEnd,
    /// Consumers with `read_uncommitted`.
    HighWatermark,
    /// Consumers with `read_committed`; aborted transactions are listed.
    LastStable,
}

/// An offset and where its batch begins. Positions count bytes in the segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOffsetMetadata {
    pub offset: Offset,
    pub segment_base_offset: Offset,
    pub position: u64,
}

impl LogOffsetMetadata {
    /// Whether this lies in an earlier segment than `other`.
    pub fn on_older_segment(&self, other: &LogOffsetMetadata) -> bool {
        self.segment_base_offset < other.segment_base_offset
    }

    /// Bytes from `earlier` to here; `None` if they lie in different segments.
    pub fn bytes_since(&self, earlier: &LogOffsetMetadata) -> Option<u64> {
        (self.segment_base_offset == earlier.segment_base_offset)
            .then(|| self.position.saturating_sub(earlier.position))
    }
}

/// The offsets of a log at one moment. All but the first are exclusive ends.
///
/// `log_start_offset <= last_stable_offset <= high_watermark <= log_end_offset`, and `synced_end <= log_end_offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOffsetSnapshot {
    pub log_start_offset: Offset,
    pub last_stable_offset: Offset,
    pub high_watermark: Offset,
    pub log_end_offset: Offset,
    /// On the medium up to here.
    pub synced_end: Offset,
    /// What a follower may read up to: `log_end_offset`, or `synced_end` with `flush.messages=1`. The leader's share of the
    /// high watermark.
    pub replicable_end: Offset,
}

/// Told when an end that readers wait for has moved (log end, high watermark, last stable offset, synced end, log start).
///
/// Called without any lock of the log, on the thread that moved it; it must not block. Calls of different threads may
/// arrive out of order: read the log's present offsets rather than count on the argument being the newest.
pub trait LogListener: Send + Sync {
    fn offsets_moved(&self, partition: &TopicPartition, offsets: &LogOffsetSnapshot);
}

/// A range of a segment file, to be sent by `sendfile` or read. Holding it keeps the file open, also when it is deleted.
#[derive(Clone)]
pub struct FileSlice {
    pub file: FileHandle,
    /// First byte.
    pub position: u64,
    pub size_bytes: usize,
}

impl FileSlice {
    pub fn is_empty(&self) -> bool {
        self.size_bytes == 0
    }

    /// Reads the range, for conversion, TLS or a disk without descriptors.
    ///
    /// # Errors
    /// The failed read; fewer bytes than `size_bytes` if the file was truncated meanwhile.
    pub fn read(&self) -> Result<Vec<u8>, IoError> {
        let mut bytes = vec![0; self.size_bytes];
        let read = self.file.read_at(self.position, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }
}

impl fmt::Debug for FileSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}[{}..+{}]",
            self.file.path().display(),
            self.position,
            self.size_bytes
        )
    }
}

/// An aborted transaction that touches a fetched range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransactionRange {
    pub producer_id: ProducerId,
    /// Of its first batch in this partition.
    pub first_offset: Offset,
}

/// What a read found.
#[derive(Clone, Debug)]
pub struct FetchInfo {
    /// Whole batches from the one that contains the offset asked for, cut anywhere at the end. `None` = nothing to read now.
    pub records: Option<FileSlice>,
    /// Where the read began.
    pub fetch_offset: LogOffsetMetadata,
    pub log_start_offset: Offset,
    pub high_watermark: Offset,
    pub last_stable_offset: Offset,
    pub log_end_offset: Offset,
    /// `Some` for [`UpperBound::LastStable`] only.
    pub aborted_transactions: Option<Vec<AbortedTransactionRange>>,
    /// The first batch is larger than `max_bytes`, so that the range does not hold it whole.
    pub first_entry_incomplete: bool,
}

impl FetchInfo {
    pub fn size_bytes(&self) -> usize {
        self.records.as_ref().map_or(0, |slice| slice.size_bytes)
    }
}

/// What an append did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendInfo {
    /// Of the first record; on followers `None` for formats v0 and v1, which do not say.
    pub first_offset: Option<Offset>,
    /// Inclusive.
    pub last_offset: Offset,
    pub max_timestamp: TimestampMs,
    /// `Some` if the topic stamps records with the time of the append.
    pub log_append_time: Option<TimestampMs>,
    pub log_start_offset: Offset,
    pub size_bytes: usize,
    /// The set had been written before (idempotent producer): these are its first offsets, nothing was written.
    pub is_duplicate: bool,
    /// `flush.messages` asks that the acknowledgement waits for `Log::when_synced` with this offset.
    pub sync_before_ack: Option<Offset>,
}

/// A record found by timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampAndOffset {
    pub timestamp: TimestampMs,
    pub offset: Offset,
    pub leader_epoch: Option<LeaderEpoch>,
}
