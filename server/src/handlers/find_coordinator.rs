//! FindCoordinator (key 10): which broker coordinates a group.
//!
//! The coordinator is the leader of the group's partition of `__consumer_offsets`, which is created when first asked for
//! (`KafkaApis.handleFindCoordinatorRequest`).
//!
//! **Deviation:** for a transactional id the answer is TRANSACTIONAL_ID_AUTHORIZATION_FAILED, which ends a producer with a clear
//! error: transactions are not built, and COORDINATOR_NOT_AVAILABLE would let it retry for ever.

use std::borrow::Cow;

use super::RequestContext;
use crate::broker::Broker;
use crate::group::GROUP_METADATA_TOPIC_NAME;
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
    let endpoint = snapshot
        .partition(GROUP_METADATA_TOPIC_NAME, partition)
        .and_then(|partition| partition.leader)
        .and_then(|leader| snapshot.broker(leader))
        .and_then(|leader| Some((leader.id, leader.endpoint(&context.peer.listener)?)));
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
