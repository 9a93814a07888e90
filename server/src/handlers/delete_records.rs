//! DeleteRecords (key 21): moves the log start offset forward; what lies before it is gone for readers at once, and its files go
//! with the next round of retention (KIP-107, `ReplicaManager.deleteRecords`). Offset −1 means the high watermark.
//!
//! With one replica the low watermark is the leader's own log start offset, so nothing waits.

use std::borrow::Cow;

use milena_engine::log::LogStartOffsetIncrementReason;
use milena_engine::units::Offset;

use crate::broker::Broker;
use crate::error::read_error_code;
use crate::protocol::ErrorCode;
use crate::protocol::messages::delete_records::{
    DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopicResult,
};

const HIGH_WATERMARK: i64 = -1;
const INVALID_LOW_WATERMARK: i64 = -1;

pub fn handle(broker: &Broker, request: &DeleteRecordsRequest<'_>) -> DeleteRecordsResponse<'static> {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let (low_watermark, error) =
                match delete(broker, &topic.name, partition.partition_index, partition.offset) {
                    Ok(low_watermark) => (low_watermark.get(), ErrorCode::None),
                    Err(error) => (INVALID_LOW_WATERMARK, error),
                };
            DeleteRecordsPartitionResult {
                partition_index: partition.partition_index,
                low_watermark,
                error_code: error.code(),
            }
        });
        DeleteRecordsTopicResult {
            name: Cow::Owned(topic.name.to_string()),
            partitions: partitions.collect::<Vec<_>>().into(),
        }
    });
    DeleteRecordsResponse {
        topics: topics.collect::<Vec<_>>().into(),
        ..DeleteRecordsResponse::default()
    }
}

fn delete(broker: &Broker, topic: &str, index: i32, offset: i64) -> Result<Offset, ErrorCode> {
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
    log.advance_log_start_offset(offset, LogStartOffsetIncrementReason::ClientRecordDeletion)
        .map_err(|error| read_error_code(&error))?;
    Ok(log.log_start_offset())
}
