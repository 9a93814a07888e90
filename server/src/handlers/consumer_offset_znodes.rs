//! Offsets of consumers of the ZooKeeper age: version 0 of OffsetCommit and OffsetFetch keeps them in the coordination tree,
//! under `/consumers/GROUP/offsets/TOPIC/PARTITION`, as a decimal number. Source: `ConsumerOffset` in `ZkData.scala`.

use std::sync::Arc;

use bytes::Bytes;
use milena_engine::units::{Offset, TopicPartition};

use crate::coordination::{Coordination, CoordinationError};
use crate::protocol::ErrorCode;

/// `None` for a group id that is no single name in the tree.
fn path(group_id: &str, partition: &TopicPartition) -> Option<String> {
    let is_name = !group_id.is_empty() && !matches!(group_id, "." | "..") && !group_id.contains(['/', '\0']);
    is_name.then(|| {
        format!(
            "/consumers/{group_id}/offsets/{}/{}",
            partition.topic, partition.partition
        )
    })
}

/// Stores an offset; it is durable then.
pub(super) async fn store(
    tree: &Arc<dyn Coordination>,
    group_id: &str,
    partition: &TopicPartition,
    offset: Offset,
) -> ErrorCode {
    let Some(path) = path(group_id, partition) else {
        return ErrorCode::InvalidGroupId;
    };
    match tree.set_or_create(&path, Bytes::from(offset.to_string())).await {
        Ok(()) => ErrorCode::None,
        Err(error) => refused(&error, &path),
    }
}

/// Reads an offset, `None` if there is none.
pub(super) async fn load(
    tree: &Arc<dyn Coordination>,
    group_id: &str,
    partition: &TopicPartition,
) -> Result<Option<Offset>, ErrorCode> {
    let Some(path) = path(group_id, partition) else {
        return Err(ErrorCode::InvalidGroupId);
    };
    let node = tree
        .get(&path, None)
        .await
        .map_err(|error| refused(&error, &path))?;
    let Some(data) = node.and_then(|node| node.data) else {
        return Ok(None);
    };
    let number = std::str::from_utf8(&data)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    number.map(|number| Some(Offset(number))).ok_or_else(|| {
        tracing::error!(target: "kafka.server.KafkaApis", "{path} holds {data:?}, expected a decimal number");
        ErrorCode::UnknownServerError
    })
}

fn refused(error: &CoordinationError, path: &str) -> ErrorCode {
    tracing::error!(target: "kafka.server.KafkaApis", "{path} cannot be read or written: {error}");
    match error.is_passing() {
        true => ErrorCode::RequestTimedOut,
        false => ErrorCode::UnknownServerError,
    }
}
