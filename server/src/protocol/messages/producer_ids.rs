//! `InitProducerId` (key 22): an identity for an idempotent producer.
//!
//! Versions of the request: 1 changes nothing; 2 is flexible; 3 lets a producer name the id and epoch it has,
//! to have the epoch raised (KIP-360); 4 says that it knows PRODUCER_FENCED. The response only becomes
//! flexible in 2.
//!
//! Sources: `InitProducerIdRequest.json`, `InitProducerIdResponse.json`.

use std::borrow::Cow;

use crate::protocol::schema::message;

message! {
    /// Asks for a producer id and epoch.
    pub struct InitProducerIdRequest<'a> (InitProducerId, versions 0..=4, flexible 2..) {
        /// Null for a producer that is idempotent only.
        transactional_id: Option<Cow<'a, str>> [0..],
        /// How long a transaction may stay idle, in milliseconds; without meaning when there is no
        /// transactional id.
        transaction_timeout_ms: i32 [0..],
        /// The id it has; −1 for a new one.
        producer_id: i64 [3..] = -1,
        /// The epoch it has; −1 for a new one.
        producer_epoch: i16 [3..] = -1,
    }
}

message! {
    /// Brings them.
    pub struct InitProducerIdResponse (InitProducerId, versions 0..=4, flexible 2..) {
        throttle_time_ms: i32 [0.., ignorable],
        error_code: i16 [0..],
        /// −1 after an error.
        producer_id: i64 [0..] = -1,
        /// −1 after an error, which has to be set: Kafka's default is 0.
        producer_epoch: i16 [0..],
    }
}
