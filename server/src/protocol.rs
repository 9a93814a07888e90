//! Kafka's wire protocol: the table of APIs and versions that are served, and the codec of their messages.
//!
//! The codec knows bytes and fields and nothing of the broker: no handler, socket or topic. Record data
//! passes through it as opaque bytes. It stands on a listening socket, so what it reads is taken for hostile:
//! see `primitives`.
//!
//! - `primitives`: integers, lengths, the reader, the writer and their errors
//! - `schema`: one declaration per message, from which struct, defaults, codec and descriptions follow
//! - `api_key`, `error_code`: Kafka's numbers and names
//! - `header`: what stands before every body
//! - `messages`: the messages, one file per family of APIs
//!
//! What is served is served in all versions that 2.7.2 has, no more and no fewer, so that every client that
//! speaks with a 2.7.2 broker speaks with this one. **Deviation:** not served, and so not advertised:
//! - `SaslHandshake`, `SaslAuthenticate` and the delegation tokens (17, 36, 38 to 41),
//!   `DescribeUserScramCredentials` and `AlterUserScramCredentials` (50, 51): there is no SASL listener;
//! - the transactions (24 to 26, 28): there is no transaction coordinator; `InitProducerId` serves idempotent
//!   producers, `WriteTxnMarkers` the coordinators of other brokers;
//! - the client quotas (48, 49): there are none;
//! - `Vote` to `DescribeQuorum` (52 to 55): no 2.7.2 broker serves them either.

pub mod api_key;
pub mod error_code;
pub mod header;
pub mod messages;
pub mod primitives;
pub mod schema;

use std::ops::RangeInclusive;

pub use api_key::ApiKey;
pub use error_code::ErrorCode;
pub use header::{HeaderError, RequestHeader, ResponseHeader};
pub use primitives::{DecodeError, EncodeError, Reader, Writer};
pub use schema::{Array, Message, Payload};

/// The APIs that are served, ascending.
pub const SERVED: &[ApiKey] = &[
    ApiKey::Produce,
    ApiKey::Fetch,
    ApiKey::ListOffsets,
    ApiKey::Metadata,
    ApiKey::LeaderAndIsr,
    ApiKey::StopReplica,
    ApiKey::UpdateMetadata,
    ApiKey::ControlledShutdown,
    ApiKey::OffsetCommit,
    ApiKey::OffsetFetch,
    ApiKey::FindCoordinator,
    ApiKey::JoinGroup,
    ApiKey::Heartbeat,
    ApiKey::LeaveGroup,
    ApiKey::SyncGroup,
    ApiKey::DescribeGroups,
    ApiKey::ListGroups,
    ApiKey::ApiVersions,
    ApiKey::CreateTopics,
    ApiKey::DeleteTopics,
    ApiKey::DeleteRecords,
    ApiKey::InitProducerId,
    ApiKey::OffsetForLeaderEpoch,
    ApiKey::WriteTxnMarkers,
    ApiKey::DescribeAcls,
    ApiKey::CreateAcls,
    ApiKey::DeleteAcls,
    ApiKey::DescribeConfigs,
    ApiKey::AlterConfigs,
    ApiKey::AlterReplicaLogDirs,
    ApiKey::DescribeLogDirs,
    ApiKey::CreatePartitions,
    ApiKey::DeleteGroups,
    ApiKey::ElectLeaders,
    ApiKey::IncrementalAlterConfigs,
    ApiKey::AlterPartitionReassignments,
    ApiKey::ListPartitionReassignments,
    ApiKey::OffsetDelete,
    ApiKey::AlterIsr,
    ApiKey::UpdateFeatures,
];

/// The versions of an API that are served, inclusive; `None` when it is not served at all.
pub fn supported_versions(api_key: ApiKey) -> Option<RangeInclusive<i16>> {
    SERVED.contains(&api_key).then(|| api_key.defined_versions())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_has_full_ranges() {
        assert!(SERVED.is_sorted_by(|a, b| a < b));
        let ids: Vec<i16> = SERVED.iter().map(|key| key.id()).collect();
        let expected: Vec<i16> = [0..=16, 18..=23, 27..=27, 29..=35, 37..=37, 42..=47, 56..=57]
            .into_iter()
            .flatten()
            .collect();
        assert_eq!(ids, expected);
        assert_eq!(supported_versions(ApiKey::Fetch), Some(0..=12));
        assert_eq!(supported_versions(ApiKey::SaslHandshake), None);
    }
}
