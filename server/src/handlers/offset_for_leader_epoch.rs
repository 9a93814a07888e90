//! OffsetForLeaderEpoch (key 23): where the records of a leader epoch end, so that a client notices truncation (KIP-320) and a
//! follower finds where to cut (KIP-101, KIP-279).
//!
//! The answer is the largest epoch not above the asked one and the start of the next, or the log end for the present epoch; −1
//! and −1 where nothing is known (`Partition.lastOffsetForLeaderEpoch`).

use std::borrow::Cow;

use milena_engine::units::LeaderEpoch;

use crate::broker::Broker;
use crate::protocol::ErrorCode;
use crate::protocol::messages::leader_epochs::{
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderPartition,
    OffsetForLeaderPartitionResult, OffsetForLeaderTopicResult,
};

const UNDEFINED_EPOCH: i32 = -1;
const UNDEFINED_OFFSET: i64 = -1;

pub fn handle(
    broker: &Broker,
    request: &OffsetForLeaderEpochRequest<'_>,
) -> OffsetForLeaderEpochResponse<'static> {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let (error, epoch, end_offset) = match end_of_epoch(broker, &topic.name, &asked) {
                Ok((epoch, end_offset)) => (ErrorCode::None, epoch, end_offset),
                Err(error) => (error, UNDEFINED_EPOCH, UNDEFINED_OFFSET),
            };
            OffsetForLeaderPartitionResult {
                error_code: error.code(),
                partition_index: asked.partition_index,
                leader_epoch: epoch,
                end_offset,
            }
        });
        OffsetForLeaderTopicResult {
            name: Cow::Owned(topic.name.to_string()),
            partitions: partitions.collect::<Vec<_>>().into(),
        }
    });
    OffsetForLeaderEpochResponse {
        topics: topics.collect::<Vec<_>>().into(),
        ..OffsetForLeaderEpochResponse::default()
    }
}

fn end_of_epoch(
    broker: &Broker,
    topic: &str,
    asked: &OffsetForLeaderPartition,
) -> Result<(i32, i64), ErrorCode> {
    let partition = broker.leader_partition(topic, asked.partition_index)?;
    partition.check_leader(asked.current_leader_epoch)?;
    let epoch = (asked.leader_epoch >= 0).then_some(LeaderEpoch(asked.leader_epoch));
    let found = partition.log().end_offset_for_epoch(epoch);
    Ok(found.map_or((UNDEFINED_EPOCH, UNDEFINED_OFFSET), |end| {
        (end.epoch.get(), end.end_offset.get())
    }))
}
