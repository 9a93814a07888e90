//! Errors of the engine, cut by what the caller does next: answer the client, take the directory offline, or stop.
//!
//! Each carries its place. A broken invariant is not an error but a bug: it is asserted where it is relied upon.

use std::path::PathBuf;

use crate::units::{Offset, ProducerEpoch, ProducerId, Sequence, TopicPartition};

/// A disk operation that failed: which, where, and what the system said. Final for the directory if it was a
/// write or sync.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}: {source}", path.display())]
pub struct IoError {
    /// The call, as a person would look it up: `pwritev`, `fdatasync`, `rename`.
    pub operation: &'static str,
    pub path: PathBuf,
    pub source: std::io::Error,
}

impl IoError {
    /// `operation` is the name of the call.
    pub fn new(operation: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> IoError {
        IoError {
            operation,
            path: path.into(),
            source,
        }
    }

    /// That of the system's answer.
    pub fn kind(&self) -> std::io::ErrorKind {
        self.source.kind()
    }

    /// No space is left, or a quota says so: it may pass.
    pub fn lacks_space(&self) -> bool {
        matches!(
            self.kind(),
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
        )
    }
}

/// Why records sent by a producer are refused. Nothing of the request's partition was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRecords {
    /// CRC, size or structure is broken (CORRUPT_MESSAGE).
    #[error("corrupt batch at byte {position}: {found}, expected {expected}")]
    Corrupt {
        position: usize,
        expected: String,
        found: String,
    },
    /// Well-formed but against the rules (INVALID_RECORD); `records` names the offenders by index in the batch.
    #[error("{message}")]
    Invalid {
        message: String,
        records: Vec<RecordRefusal>,
    },
    /// A timestamp outside `message.timestamp.difference.max.ms` (INVALID_TIMESTAMP).
    #[error("{message}")]
    Timestamp {
        message: String,
        records: Vec<RecordRefusal>,
    },
    /// One batch is larger than `max.message.bytes` (MESSAGE_TOO_LARGE).
    #[error("the batch has {size_bytes} bytes, more than max.message.bytes={limit_bytes}")]
    TooLarge { size_bytes: usize, limit_bytes: usize },
    /// The whole set is larger than a segment may be (RECORD_LIST_TOO_LARGE).
    #[error("the record set has {size_bytes} bytes, more than segment.bytes={limit_bytes}")]
    SetTooLarge { size_bytes: usize, limit_bytes: usize },
    /// zstd below its version (UNSUPPORTED_COMPRESSION_TYPE).
    #[error("{message}")]
    UnsupportedCompression { message: String },
    /// Idempotence or transactions on an old message format (UNSUPPORTED_FOR_MESSAGE_FORMAT).
    #[error("{message}")]
    UnsupportedForFormat { message: String },
}

/// One refused record of a batch (KIP-467).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordRefusal {
    /// From 0, in the batch.
    pub batch_index: i32,
    pub message: Option<String>,
}

/// Why the producer state machine refuses a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProducerRefusal {
    /// OUT_OF_ORDER_SEQUENCE_NUMBER
    #[error(
        "out of order sequence number for producer {producer_id} at offset {offset} in partition {partition}: \
         {found} (incoming), {last} (current end)"
    )]
    OutOfOrderSequence {
        producer_id: ProducerId,
        offset: Offset,
        partition: TopicPartition,
        found: Sequence,
        last: Sequence,
    },
    /// OUT_OF_ORDER_SEQUENCE_NUMBER: the first batch of a new epoch does not start at 0.
    #[error(
        "invalid sequence number for new epoch of producer {producer_id} at offset {offset} in partition \
         {partition}: {epoch} (request epoch), {found} (sequence number)"
    )]
    NewEpochSequence {
        producer_id: ProducerId,
        offset: Offset,
        partition: TopicPartition,
        epoch: ProducerEpoch,
        found: Sequence,
    },
    /// INVALID_PRODUCER_EPOCH
    #[error(
        "producer {producer_id} of {partition} sent epoch {found}, older than the last seen {current} (offset {offset})"
    )]
    StaleEpoch {
        producer_id: ProducerId,
        offset: Offset,
        partition: TopicPartition,
        found: ProducerEpoch,
        current: ProducerEpoch,
    },
    /// TRANSACTION_COORDINATOR_FENCED
    #[error("coordinator epoch {found} of producer {producer_id} in {partition} is older than {current}")]
    CoordinatorFenced {
        producer_id: ProducerId,
        partition: TopicPartition,
        found: i32,
        current: i32,
    },
    /// INVALID_TXN_STATE
    #[error("producer {producer_id} of {partition} sent non-transactional records inside a transaction")]
    InvalidTransactionState {
        producer_id: ProducerId,
        partition: TopicPartition,
    },
}

/// The disk or the directory cannot serve. Everything maps to KAFKA_STORAGE_ERROR; the difference is for the log line.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error(transparent)]
    Io(#[from] IoError),
    /// The directory was taken offline before; nothing was tried.
    #[error("log directory {} is offline: {reason}", directory.display())]
    Offline { directory: PathBuf, reason: String },
    /// Less than `milena.disk.reserve.bytes` is free; appends resume by themselves once space is back.
    #[error(
        "log directory {} has {available_bytes} bytes free, less than the reserve of {reserve_bytes}",
        directory.display()
    )]
    ReserveReached {
        directory: PathBuf,
        available_bytes: u64,
        reserve_bytes: u64,
    },
    /// This partition was taken out of service because its bytes are not what they must be.
    #[error("{partition} is out of service: {reason}")]
    OutOfService {
        partition: TopicPartition,
        reason: String,
    },
    /// Bytes on disk are not what they must be.
    #[error(transparent)]
    Corrupt(#[from] CorruptFile),
}

impl StorageError {
    /// Room is all that is lacking: it may pass.
    pub fn lacks_space(&self) -> bool {
        match self {
            StorageError::Io(error) => error.lacks_space(),
            StorageError::ReserveReached { .. } => true,
            _ => false,
        }
    }
}

/// Damage found in a file: where, what was expected, what was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: byte {position}: {found}, expected {expected}", path.display())]
pub struct CorruptFile {
    pub path: PathBuf,
    pub position: u64,
    pub expected: String,
    pub found: String,
}

/// Why an append did not happen.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error(transparent)]
    Invalid(#[from] InvalidRecords),
    #[error(transparent)]
    Producer(#[from] ProducerRefusal),
    /// A follower's chunk does not continue the log.
    #[error("{partition}: unexpected offset {found}, the log ends at {log_end_offset}")]
    UnexpectedOffset {
        partition: TopicPartition,
        found: Offset,
        log_end_offset: Offset,
    },
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a read did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The offset lies outside the log; both ends tell the client where it may go (OFFSET_OUT_OF_RANGE).
    #[error(
        "{partition}: offset {found} is out of range, the log has [{log_start_offset}, {upper_bound}] to read"
    )]
    OffsetOutOfRange {
        partition: TopicPartition,
        found: Offset,
        log_start_offset: Offset,
        upper_bound: Offset,
    },
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<IoError> for AppendError {
    fn from(error: IoError) -> Self {
        AppendError::Storage(error.into())
    }
}

impl From<IoError> for ReadError {
    fn from(error: IoError) -> Self {
        ReadError::Storage(error.into())
    }
}
