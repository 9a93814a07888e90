//! The narrow door from the group coordinator to `__consumer_offsets`.
//!
//! The coordinator keeps what it knows in memory and in this topic, and changes memory only after the topic has accepted the
//! change. Replication implements [`CoordinatorLog`]; tests use a Vec. The door knows bytes and offsets, no groups. Source:
//! the use of `ReplicaManager` in `GroupMetadataManager.scala`.

use bytes::Bytes;
use milena_engine::units::Offset;

/// Why an append to or a read of `__consumer_offsets` failed, by what the coordinator answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendFailure {
    #[error("the partition does not exist here")]
    UnknownTopicOrPartition,
    #[error("this broker does not lead the partition")]
    NotLeader,
    /// Fewer in-sync replicas than `min.insync.replicas`; nothing was written.
    #[error("too few replicas are in sync")]
    NotEnoughReplicas,
    /// Written here, but the in-sync replicas became too few before they had it.
    #[error("too few replicas are in sync since the append")]
    NotEnoughReplicasAfterAppend,
    #[error("the log directory is offline")]
    Storage,
    /// Written here, but not replicated in time.
    #[error("the in-sync replicas did not take the records in time")]
    TimedOut,
    /// Larger than `max.message.bytes` or a segment.
    #[error("the batch is too large")]
    TooLarge,
    #[error("the producer epoch is old")]
    InvalidProducerEpoch,
    #[error("{0}")]
    Other(String),
}

/// Called exactly once with the offset of the batch's first record, or why it failed; perhaps while the caller holds locks of the
/// log, so nothing is appended in it.
pub type AppendDone = Box<dyn FnOnce(Result<Offset, AppendFailure>) + Send>;

/// Whole batches as they lie in the log.
#[derive(Debug, Clone)]
pub struct ReadChunk {
    /// Empty at the end of the log. May end with a part of a batch, which is then read again.
    pub bytes: Bytes,
    /// Exclusive; where loading ends.
    pub log_end_offset: Offset,
}

/// `__consumer_offsets` as the coordinator sees it.
pub trait CoordinatorLog: Send + Sync {
    /// Appends one encoded v2 batch whose offsets are not assigned yet, with acks=all. Calls for one partition are appended
    /// in the order of the calls. `done` may be called on any thread, also before this returns; the coordinator holds no
    /// lock during the call.
    fn append(&self, partition: i32, batch: Bytes, done: AppendDone);

    /// Reads whole batches from the one that holds `from`, or from the log's start if `from` lies before it: at most
    /// `max_bytes`, but at least one batch if there is one. Blocks; called on the coordinator's own loading thread only.
    ///
    /// # Errors
    /// [`AppendFailure::NotLeader`] if the partition is not led here, [`AppendFailure::Storage`] if it cannot be read.
    fn read(&self, partition: i32, from: Offset, max_bytes: usize) -> Result<ReadChunk, AppendFailure>;
}
