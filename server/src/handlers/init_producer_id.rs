//! InitProducerId (key 22): an identity for an idempotent producer, unique in the cluster
//! (`TransactionCoordinator.handleInitProducerId`).
//!
//! **Deviation:** transactions are not built. With a transactional id the answer is COORDINATOR_NOT_AVAILABLE in a cluster, where
//! another broker may take over, and TRANSACTIONAL_ID_AUTHORIZATION_FAILED, a fatal error, of a broker that stands alone. An empty
//! transactional id is INVALID_REQUEST, as in Kafka.

use crate::broker::Broker;
use crate::protocol::ErrorCode;
use crate::protocol::messages::producer_ids::{InitProducerIdRequest, InitProducerIdResponse};

const NO_PRODUCER_ID: i64 = -1;
const NO_PRODUCER_EPOCH: i16 = -1;

pub async fn handle(broker: &Broker, request: &InitProducerIdRequest<'_>) -> InitProducerIdResponse {
    let half_set = (request.producer_id == NO_PRODUCER_ID) != (request.producer_epoch == NO_PRODUCER_EPOCH);
    match request.transactional_id.as_deref() {
        _ if half_set => refusal(ErrorCode::InvalidRequest),
        Some("") => refusal(ErrorCode::InvalidRequest),
        Some(_) if !broker.stands_alone() => refusal(ErrorCode::CoordinatorNotAvailable),
        Some(_) => refusal(ErrorCode::TransactionalIdAuthorizationFailed),
        None => match broker.producer_ids.generate().await {
            Ok(producer_id) => InitProducerIdResponse {
                producer_id: producer_id.get(),
                producer_epoch: 0,
                ..InitProducerIdResponse::default()
            },
            Err(error) => {
                tracing::error!(
                    target: "kafka.coordinator.transaction.ProducerIdManager",
                    "no producer id can be given: {error}"
                );
                refusal(ErrorCode::CoordinatorNotAvailable)
            }
        },
    }
}

fn refusal(error: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse {
        error_code: error.code(),
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        ..InitProducerIdResponse::default()
    }
}
