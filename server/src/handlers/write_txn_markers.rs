//! WriteTxnMarkers (key 27): a transaction coordinator has the end of transactions written into the partitions that they touched, which
//! this broker leads (`KafkaApis.handleWriteTxnMarkersRequest`).
//!
//! A marker is acknowledged as `acks=all` is. Its coordinator epoch guards against a coordinator that was replaced. Offsets that were
//! committed with the transaction count once it is (`GroupCoordinator.scheduleHandleTxnCompletion`).

use std::borrow::Cow;

use milena_engine::config::Magic;
use milena_engine::error::AppendError;
use milena_engine::record_batch::{
    AppendOrigin, ControlKind, ControlRecord, Level, RecordBatchBuilder, RequestRules, ValidationRules,
    validate,
};
use milena_engine::units::{ProducerEpoch, ProducerId};
use tokio::time::{Duration, Instant};

use super::produce::Acknowledging;
use crate::broker::Broker;
use crate::error::append_error_code;
use crate::group::GROUP_METADATA_TOPIC_NAME;
use crate::protocol::ErrorCode;
use crate::protocol::messages::transaction_markers::{
    WritableTxnMarker, WritableTxnMarkerPartitionResult, WritableTxnMarkerResult,
    WritableTxnMarkerTopicResult, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};

/// For `acks=all`.
const ALL: i16 = -1;

pub async fn handle(
    broker: &Broker,
    request: &WriteTxnMarkersRequest<'_>,
) -> WriteTxnMarkersResponse<'static> {
    let limit = u64::try_from(broker.config().network.request_timeout_ms).unwrap_or(0);
    let deadline = Instant::now() + Duration::from_millis(limit);
    // All are written before the first is waited for.
    let mut written = Vec::new();
    for marker in request.markers.iter() {
        for topic in marker.topics.iter() {
            for partition in topic.partition_indexes.iter() {
                written.push(write(broker, &marker, &topic.name, partition));
            }
        }
    }
    let mut written = written.into_iter();
    let mut markers = Vec::with_capacity(request.markers.len());
    for marker in request.markers.iter() {
        let mut topics = Vec::with_capacity(marker.topics.len());
        for topic in marker.topics.iter() {
            let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
            for partition_index in topic.partition_indexes.iter() {
                let result = match written.next().expect("one for each partition") {
                    Ok(Some(waiting)) => waiting.settled(deadline).await,
                    Ok(None) => Ok(()),
                    Err(error) => Err(error),
                };
                if result.is_ok() && topic.name == GROUP_METADATA_TOPIC_NAME {
                    let (id, committed) = (ProducerId(marker.producer_id), marker.transaction_result);
                    broker
                        .groups
                        .on_transaction_completed(partition_index, id, committed);
                }
                partitions.push(WritableTxnMarkerPartitionResult {
                    partition_index,
                    error_code: result.err().unwrap_or(ErrorCode::None).code(),
                });
            }
            topics.push(WritableTxnMarkerTopicResult {
                name: Cow::Owned(topic.name.to_string()),
                partitions: partitions.into(),
            });
        }
        markers.push(WritableTxnMarkerResult {
            producer_id: marker.producer_id,
            topics: topics.into(),
        });
    }
    WriteTxnMarkersResponse {
        markers: markers.into(),
    }
}

/// Appends one marker; the answer is what it still waits for.
fn write(
    broker: &Broker,
    marker: &WritableTxnMarker<'_>,
    topic: &str,
    index: i32,
) -> Result<Option<Acknowledging>, ErrorCode> {
    let partition = broker.replicas.partition(topic, index)?;
    let config = partition.log().config();
    if config.message_format < Magic::V2 {
        return Err(ErrorCode::UnsupportedForMessageFormat);
    }
    partition.check_leader(-1)?;
    if !partition.has_enough_replicas() {
        return Err(ErrorCode::NotEnoughReplicas);
    }
    let now = broker.clock.wall();
    let end = ControlRecord {
        kind: match marker.transaction_result {
            true => ControlKind::Commit,
            false => ControlKind::Abort,
        },
        coordinator_epoch: marker.coordinator_epoch,
    };
    let (id, epoch) = (
        ProducerId(marker.producer_id),
        ProducerEpoch(marker.producer_epoch),
    );
    let batch = RecordBatchBuilder::end_transaction_marker(end, id, epoch, now);
    let origin = AppendOrigin::Coordinator;
    let rules = ValidationRules::new(partition.name().clone(), &config, origin, RequestRules::NONE);
    let batches = validate(&batch, &rules, now, Level::Strict)
        .map_err(|error| append_error_code(&AppendError::Invalid(error)))?;
    let mut appended = partition.append(&mut [batches], origin)?;
    let info = appended.results.pop().expect("one set gives one result");
    let info = info.map_err(|error| append_error_code(&error))?;
    Acknowledging::after(&partition, appended.leader_epoch, &info, ALL)
}
