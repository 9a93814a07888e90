//! ListOffsets (key 2): the ends of a partition, and the first offset at or after a time.
//!
//! Version 0 gives base offsets of segments, newest first; from 1 on one offset with its timestamp, from 2 on read_committed
//! sees the last stable offset as the end, from 4 on leader epochs are checked and given (`KafkaApis.handleListOffsetRequest`,
//! `Partition.fetchOffsetForTimestamp`). The same partition twice in one request is INVALID_REQUEST for both.

use std::borrow::Cow;
use std::collections::HashSet;

use milena_engine::config::Magic;
use milena_engine::log::UpperBound;
use milena_engine::units::{Offset, TimestampMs};

use super::RequestContext;
use crate::broker::Broker;
use crate::error::read_error_code;
use crate::protocol::ErrorCode;
use crate::protocol::messages::list_offsets::{
    ListOffsetPartition, ListOffsetPartitionResponse, ListOffsetRequest, ListOffsetResponse,
    ListOffsetTopicResponse,
};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const UNKNOWN: i64 = -1;
const READ_COMMITTED: i8 = 1;
const FIRST_VERSION_WITH_EPOCHS: i16 = 4;
const FIRST_VERSION_WITH_OFFSET_NOT_AVAILABLE: i16 = 5;
const CONSUMER_REPLICA_ID: i32 = -1;
const DEBUGGING_REPLICA_ID: i32 = -2;

pub fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: &ListOffsetRequest<'_>,
) -> ListOffsetResponse<'static> {
    let mut seen = HashSet::new();
    let mut twice = HashSet::new();
    for topic in request.topics.iter() {
        for partition in topic.partitions.iter() {
            if !seen.insert((topic.name.clone(), partition.partition_index)) {
                twice.insert((topic.name.clone(), partition.partition_index));
            }
        }
    }
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let is_twice = twice.contains(&(topic.name.clone(), partition.partition_index));
            let found = match context.api_version {
                0 => segments(broker, request, &topic.name, &partition),
                _ if is_twice => Err(ErrorCode::InvalidRequest),
                version => offset(broker, request, version, &topic.name, &partition),
            };
            found.unwrap_or_else(|error| ListOffsetPartitionResponse {
                partition_index: partition.partition_index,
                error_code: error.code(),
                ..ListOffsetPartitionResponse::default()
            })
        });
        ListOffsetTopicResponse {
            name: Cow::Owned(topic.name.to_string()),
            partitions: partitions.collect::<Vec<_>>().into(),
        }
    });
    ListOffsetResponse {
        topics: topics.collect::<Vec<_>>().into(),
        ..ListOffsetResponse::default()
    }
}

fn offset(
    broker: &Broker,
    request: &ListOffsetRequest<'_>,
    version: i16,
    topic: &str,
    asked: &ListOffsetPartition,
) -> Result<ListOffsetPartitionResponse<'static>, ErrorCode> {
    let partition = broker.leader_partition(topic, asked.partition_index)?;
    if request.replica_id == DEBUGGING_REPLICA_ID {
        partition.check_epoch(asked.current_leader_epoch)?;
    } else {
        partition.check_leader(asked.current_leader_epoch)?;
    }
    let log = partition.log();
    let bound = match (request.replica_id, request.isolation_level) {
        (CONSUMER_REPLICA_ID, READ_COMMITTED) => UpperBound::LastStable,
        (CONSUMER_REPLICA_ID, _) => UpperBound::HighWatermark,
        _ => UpperBound::LogEnd,
    };
    let offsets = log.offsets();
    let end = match bound {
        UpperBound::LastStable => offsets.last_stable_offset,
        UpperBound::HighWatermark => offsets.high_watermark,
        UpperBound::LogEnd => offsets.log_end_offset,
    };
    let answer = |timestamp: i64, offset: i64, epoch: Option<i32>| ListOffsetPartitionResponse {
        partition_index: asked.partition_index,
        timestamp,
        offset,
        leader_epoch: epoch
            .filter(|_| version >= FIRST_VERSION_WITH_EPOCHS)
            .unwrap_or(-1),
        ..ListOffsetPartitionResponse::default()
    };
    // A new leader does not know yet where consumers' records end.
    let check_end_known = || match partition.is_reign_start_uncommitted() {
        true if request.replica_id == CONSUMER_REPLICA_ID => {
            Err(match version >= FIRST_VERSION_WITH_OFFSET_NOT_AVAILABLE {
                true => ErrorCode::OffsetNotAvailable,
                false => ErrorCode::LeaderNotAvailable,
            })
        }
        _ => Ok(()),
    };
    match asked.timestamp {
        LATEST => {
            check_end_known()?;
            let epoch = partition.leader_epoch().map(|epoch| epoch.get());
            Ok(answer(UNKNOWN, end.get(), epoch))
        }
        EARLIEST => {
            let start = offsets.log_start_offset;
            let first = log.earliest_epoch().filter(|entry| entry.start_offset <= start);
            Ok(answer(UNKNOWN, start.get(), first.map(|entry| entry.epoch.get())))
        }
        _ if log.config().message_format == Magic::V0 => Err(ErrorCode::UnsupportedForMessageFormat),
        timestamp => {
            let found = log
                .offset_for_timestamp(TimestampMs(timestamp), bound)
                .map_err(|error| read_error_code(&error))?;
            match found {
                Some(found) if found.offset < end => Ok(answer(
                    found.timestamp.get(),
                    found.offset.get(),
                    found.leader_epoch.map(|epoch| epoch.get()),
                )),
                _ => {
                    check_end_known()?;
                    Ok(answer(UNKNOWN, UNKNOWN, None))
                }
            }
        }
    }
}

fn segments(
    broker: &Broker,
    request: &ListOffsetRequest<'_>,
    topic: &str,
    asked: &ListOffsetPartition,
) -> Result<ListOffsetPartitionResponse<'static>, ErrorCode> {
    let partition = broker.leader_partition(topic, asked.partition_index)?;
    if request.replica_id != DEBUGGING_REPLICA_ID {
        partition.check_leader(-1)?;
    }
    let log = partition.log();
    let count_max = usize::try_from(asked.max_num_offsets).unwrap_or(0);
    let mut found = log
        .segment_base_offsets_before(asked.timestamp, count_max)
        .map_err(|error| read_error_code(&error))?;
    let high_watermark = log.high_watermark();
    if request.replica_id == CONSUMER_REPLICA_ID && found.iter().any(|offset| *offset > high_watermark) {
        found.retain(|offset| *offset <= high_watermark);
        found.insert(0, high_watermark);
    }
    Ok(ListOffsetPartitionResponse {
        partition_index: asked.partition_index,
        old_style_offsets: found.into_iter().map(Offset::get).collect::<Vec<_>>().into(),
        ..ListOffsetPartitionResponse::default()
    })
}
