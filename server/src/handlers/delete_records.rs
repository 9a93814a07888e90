//! DeleteRecords (key 21): moves the log start offset forward; what lies before it is gone for readers at once, and its files go
//! with the next round of retention (KIP-107, `ReplicaManager.deleteRecords`). Offset −1 means the high watermark.
//!
//! The answer waits until the logs of all live replicas start there, or the request's time is over (`DelayedDeleteRecords.scala`).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use milena_engine::units::Offset;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::broker::Broker;
use crate::error::read_error_code;
use crate::protocol::ErrorCode;
use crate::protocol::messages::delete_records::{
    DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopicResult,
};
use crate::replication::Partition;
use crate::replication::purgatory::End;

const HIGH_WATERMARK: i64 = -1;
const INVALID_LOW_WATERMARK: i64 = -1;

pub async fn handle(broker: &Broker, request: &DeleteRecordsRequest<'_>) -> DeleteRecordsResponse<'static> {
    let limit = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let deadline = Instant::now() + limit;
    // All are begun before the first is waited for.
    let mut begun = Vec::new();
    for topic in request.topics.iter() {
        let partitions = topic.partitions.iter();
        let partitions = partitions.map(|asked| {
            let index = asked.partition_index;
            (index, Deletion::begin(broker, &topic.name, index, asked.offset))
        });
        begun.push((topic.name.to_string(), partitions.collect::<Vec<_>>()));
    }
    let mut topics = Vec::with_capacity(begun.len());
    for (name, deletions) in begun {
        let mut partitions = Vec::with_capacity(deletions.len());
        for (partition_index, deletion) in deletions {
            let (low_watermark, error) = match deletion {
                Ok(deletion) => deletion.replicated(deadline).await,
                Err(error) => (Offset(INVALID_LOW_WATERMARK), error),
            };
            partitions.push(DeleteRecordsPartitionResult {
                partition_index,
                low_watermark: low_watermark.get(),
                error_code: error.code(),
            });
        }
        topics.push(DeleteRecordsTopicResult {
            name: Cow::Owned(name),
            partitions: partitions.into(),
        });
    }
    DeleteRecordsResponse {
        topics: topics.into(),
        ..DeleteRecordsResponse::default()
    }
}

/// Records that are gone here.
struct Deletion {
    partition: Arc<Partition>,
    /// What lies below is deleted.
    offset: Offset,
}

impl Deletion {
    fn begin(broker: &Broker, topic: &str, index: i32, offset: i64) -> Result<Deletion, ErrorCode> {
        if broker.is_internal_topic(topic) {
            return Err(ErrorCode::InvalidTopicException);
        }
        let partition = broker.leader_partition(topic, index)?;
        partition.check_leader(-1)?;
        let log = partition.log();
        if !log.config().cleanup_policy.delete {
            return Err(ErrorCode::PolicyViolation);
        }
        let offset = if offset == HIGH_WATERMARK {
            log.high_watermark()
        } else {
            Offset(offset)
        };
        if offset < Offset::ZERO {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        partition
            .delete_records(offset)
            .map_err(|error| read_error_code(&error))?;
        Ok(Deletion { partition, offset })
    }

    /// Waits for the other replicas; the low watermark, and what is wrong.
    async fn replicated(self, deadline: Instant) -> (Offset, ErrorCode) {
        let watch = LowWatermarkWatch {
            partition: &self.partition,
            wake: Arc::new(Notify::new()),
        };
        loop {
            watch.register();
            if let Err(refusal) = self.partition.check_leader(-1) {
                return (Offset(INVALID_LOW_WATERMARK), refusal.into());
            }
            let low_watermark = self.partition.low_watermark();
            if low_watermark >= self.offset {
                return (low_watermark, ErrorCode::None);
            }
            if timeout_at(deadline, watch.wake.notified()).await.is_err() {
                return (low_watermark, ErrorCode::RequestTimedOut);
            }
        }
    }
}

/// A registration, taken back when the wait ends, however it ends.
struct LowWatermarkWatch<'p> {
    partition: &'p Partition,
    wake: Arc<Notify>,
}

impl LowWatermarkWatch<'_> {
    fn register(&self) {
        let purgatory = self.partition.purgatory();
        purgatory.unwatch(&self.wake);
        purgatory.watch(End::LowWatermark, Offset::ZERO, &self.wake);
    }
}

impl Drop for LowWatermarkWatch<'_> {
    fn drop(&mut self) {
        self.partition.purgatory().unwatch(&self.wake);
    }
}
