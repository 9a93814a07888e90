//! FindCoordinator (key 10): which broker coordinates a group, or a transactional producer.
//!
//! The coordinator is the leader of the group's partition of `__consumer_offsets`, which is created when first asked for, or of the
//! producer's partition of `__transaction_state` (`KafkaApis.handleFindCoordinatorRequest`).
//!
//! **Deviation:** transactions are not built. In a cluster another broker may coordinate them, an Apache one; where that is this
//! broker, or the topic is not there yet, the answer is COORDINATOR_NOT_AVAILABLE, and the topic is not created. A broker that
//! stands alone answers TRANSACTIONAL_ID_AUTHORIZATION_FAILED, which ends a producer with a clear error: the other would let it
//! retry for ever.

use std::borrow::Cow;

use super::RequestContext;
use crate::broker::{Broker, TRANSACTION_STATE_TOPIC_NAME};
use crate::group::GROUP_METADATA_TOPIC_NAME;
use crate::group::records::partition_for;
use crate::metadata_cache::MetadataSnapshot;
use crate::protocol::ErrorCode;
use crate::protocol::messages::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};

const KEY_TYPE_GROUP: i8 = 0;
const KEY_TYPE_TRANSACTION: i8 = 1;
const NO_TRANSACTIONS: &str =
    "This broker has no transaction coordinator: transactions are not supported yet.";

pub async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: &FindCoordinatorRequest<'_>,
) -> FindCoordinatorResponse<'static> {
    match request.key_type {
        KEY_TYPE_GROUP => {}
        KEY_TYPE_TRANSACTION if !broker.stands_alone() => {
            let snapshot = broker.metadata.snapshot();
            let count = snapshot.partition_count(TRANSACTION_STATE_TOPIC_NAME);
            let partition = partition_for(
                &request.key,
                count.and_then(|count| i32::try_from(count).ok()).unwrap_or(0),
            );
            let coordinator = leader_of(&snapshot, TRANSACTION_STATE_TOPIC_NAME, partition);
            let elsewhere = coordinator.filter(|leader| *leader != broker.id);
            return answer(&snapshot, elsewhere, context);
        }
        KEY_TYPE_TRANSACTION => {
            return refusal(
                ErrorCode::TransactionalIdAuthorizationFailed,
                NO_TRANSACTIONS.to_owned(),
            );
        }
        _ => return refused(ErrorCode::InvalidRequest),
    }
    let partition = broker.groups.partition_for(&request.key);
    let snapshot = broker.metadata.snapshot();
    if !snapshot.contains_topic(GROUP_METADATA_TOPIC_NAME) {
        // Whether or not it could be created, its leader is not known yet: the client asks again.
        if let Err(error) = broker.topics.auto_create_topic(GROUP_METADATA_TOPIC_NAME).await {
            tracing::error!(
                target: "kafka.server.KafkaApis",
                "cannot create {GROUP_METADATA_TOPIC_NAME}: {error}"
            );
        }
        return refused(ErrorCode::CoordinatorNotAvailable);
    }
    answer(
        &snapshot,
        leader_of(&snapshot, GROUP_METADATA_TOPIC_NAME, partition),
        context,
    )
}

fn leader_of(snapshot: &MetadataSnapshot, topic: &str, partition: i32) -> Option<i32> {
    snapshot.partition(topic, partition)?.leader
}

fn answer(
    snapshot: &MetadataSnapshot,
    coordinator: Option<i32>,
    context: &RequestContext,
) -> FindCoordinatorResponse<'static> {
    let endpoint = coordinator
        .and_then(|id| snapshot.broker(id))
        .and_then(|broker| Some((broker.id, broker.endpoint(&context.peer.listener)?)));
    match endpoint {
        None => refused(ErrorCode::CoordinatorNotAvailable),
        Some((id, endpoint)) => FindCoordinatorResponse {
            error_message: Some(Cow::Borrowed(ErrorCode::None.name())),
            node_id: id,
            host: Cow::Owned(endpoint.host.to_string()),
            port: endpoint.port,
            ..FindCoordinatorResponse::default()
        },
    }
}

fn refused(error: ErrorCode) -> FindCoordinatorResponse<'static> {
    refusal(error, error.message().unwrap_or_default().to_owned())
}

fn refusal(error: ErrorCode, message: String) -> FindCoordinatorResponse<'static> {
    FindCoordinatorResponse {
        error_code: error.code(),
        error_message: Some(Cow::Owned(message)),
        node_id: -1,
        port: -1,
        ..FindCoordinatorResponse::default()
    }
}
