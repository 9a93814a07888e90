//! The API keys of the protocol: Kafka 2.7.2's numbers, names, version ranges and header versions.
//!
//! Everything here is a fact of 2.7.2, also for the APIs that this broker does not serve; what it serves is
//! said in `protocol.rs`. Sources: `ApiKeys.java`, the `validVersions` and `flexibleVersions` of the message
//! definitions, and `ApiMessageTypeGenerator.java` for the header versions.

use std::fmt;
use std::ops::RangeInclusive;

macro_rules! api_keys {
    (@flexible never) => { None };
    (@flexible $from:literal ..) => { Some($from) };
    ($( $variant:ident = $key:literal, $min:literal ..= $max:literal, [$($flexible:tt)+]; )*) => {
        /// One kind of request, under Kafka's name.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(i16)]
        pub enum ApiKey {
            $(
                #[doc = concat!("Key ", $key, ", versions ", $min, " to ", $max, ".")]
                $variant = $key,
            )*
        }

        impl ApiKey {
            /// All keys of 2.7.2, ascending, the four Raft keys (52 to 55) that its brokers never enable
            /// included.
            pub const ALL: &'static [ApiKey] = &[$(ApiKey::$variant),*];

            /// The key of a number on the wire; `None` for a number that 2.7.2 does not know.
            pub const fn from_id(id: i16) -> Option<ApiKey> {
                match id { $($key => Some(ApiKey::$variant),)* _ => None }
            }

            /// Kafka's name: `ListOffsets`.
            pub const fn name(self) -> &'static str {
                match self { $(ApiKey::$variant => stringify!($variant),)* }
            }

            /// The versions that the messages of 2.7.2 define, inclusive.
            pub const fn defined_versions(self) -> RangeInclusive<i16> {
                match self { $(ApiKey::$variant => $min..=$max,)* }
            }

            /// The first version with compact lengths and tagged fields; `None` when there is none yet.
            pub const fn flexible_from(self) -> Option<i16> {
                match self { $(ApiKey::$variant => api_keys!(@flexible $($flexible)+),)* }
            }
        }
    };
}

api_keys! {
    Produce = 0, 0..=8, [never];
    Fetch = 1, 0..=12, [12..];
    ListOffsets = 2, 0..=5, [never];
    Metadata = 3, 0..=9, [9..];
    LeaderAndIsr = 4, 0..=4, [4..];
    StopReplica = 5, 0..=3, [2..];
    UpdateMetadata = 6, 0..=6, [6..];
    ControlledShutdown = 7, 0..=3, [3..];
    OffsetCommit = 8, 0..=8, [8..];
    OffsetFetch = 9, 0..=7, [6..];
    FindCoordinator = 10, 0..=3, [3..];
    JoinGroup = 11, 0..=7, [6..];
    Heartbeat = 12, 0..=4, [4..];
    LeaveGroup = 13, 0..=4, [4..];
    SyncGroup = 14, 0..=5, [4..];
    DescribeGroups = 15, 0..=5, [5..];
    ListGroups = 16, 0..=4, [3..];
    SaslHandshake = 17, 0..=1, [never];
    ApiVersions = 18, 0..=3, [3..];
    CreateTopics = 19, 0..=6, [5..];
    DeleteTopics = 20, 0..=5, [4..];
    DeleteRecords = 21, 0..=2, [2..];
    InitProducerId = 22, 0..=4, [2..];
    OffsetForLeaderEpoch = 23, 0..=3, [never];
    AddPartitionsToTxn = 24, 0..=2, [never];
    AddOffsetsToTxn = 25, 0..=2, [never];
    EndTxn = 26, 0..=2, [never];
    WriteTxnMarkers = 27, 0..=0, [never];
    TxnOffsetCommit = 28, 0..=3, [3..];
    DescribeAcls = 29, 0..=2, [2..];
    CreateAcls = 30, 0..=2, [2..];
    DeleteAcls = 31, 0..=2, [2..];
    DescribeConfigs = 32, 0..=3, [never];
    AlterConfigs = 33, 0..=1, [never];
    AlterReplicaLogDirs = 34, 0..=1, [never];
    DescribeLogDirs = 35, 0..=2, [2..];
    SaslAuthenticate = 36, 0..=2, [2..];
    CreatePartitions = 37, 0..=3, [2..];
    CreateDelegationToken = 38, 0..=2, [2..];
    RenewDelegationToken = 39, 0..=2, [2..];
    ExpireDelegationToken = 40, 0..=2, [2..];
    DescribeDelegationToken = 41, 0..=2, [2..];
    DeleteGroups = 42, 0..=2, [2..];
    ElectLeaders = 43, 0..=2, [2..];
    IncrementalAlterConfigs = 44, 0..=1, [1..];
    AlterPartitionReassignments = 45, 0..=0, [0..];
    ListPartitionReassignments = 46, 0..=0, [0..];
    OffsetDelete = 47, 0..=0, [never];
    DescribeClientQuotas = 48, 0..=0, [never];
    AlterClientQuotas = 49, 0..=0, [never];
    DescribeUserScramCredentials = 50, 0..=0, [0..];
    AlterUserScramCredentials = 51, 0..=0, [0..];
    Vote = 52, 0..=0, [0..];
    BeginQuorumEpoch = 53, 0..=0, [never];
    EndQuorumEpoch = 54, 0..=0, [never];
    DescribeQuorum = 55, 0..=0, [0..];
    AlterIsr = 56, 0..=0, [0..];
    UpdateFeatures = 57, 0..=0, [0..];
}

impl ApiKey {
    /// The number on the wire.
    #[inline]
    pub const fn id(self) -> i16 {
        self as i16
    }

    /// Whether bodies of this version have compact lengths and tagged fields. Versions above the known ones
    /// count as flexible when the latest known one is.
    pub const fn is_flexible(self, version: i16) -> bool {
        match self.flexible_from() {
            Some(from) => version >= from,
            None => false,
        }
    }

    /// Version of the header before a request body: 2 before flexible bodies, 0 (no client id) before
    /// `ControlledShutdown` v0, else 1.
    pub const fn request_header_version(self, version: i16) -> i16 {
        if matches!(self, ApiKey::ControlledShutdown) && version == 0 {
            0
        } else if self.is_flexible(version) {
            2
        } else {
            1
        }
    }

    /// Version of the header before a response body: 1 before flexible bodies, else 0; always 0 before
    /// `ApiVersions`, whose answer a client must be able to read before it knows what the broker speaks
    /// (KIP-511).
    pub const fn response_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) && !matches!(self, ApiKey::ApiVersions) {
            1
        } else {
            0
        }
    }
}

/// Kafka's name.
impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_run_from_zero_to_fifty_seven_without_a_gap() {
        let ids: Vec<i16> = ApiKey::ALL.iter().map(|key| key.id()).collect();
        assert_eq!(ids, (0..=57).collect::<Vec<i16>>());
        for key in ApiKey::ALL {
            assert_eq!(ApiKey::from_id(key.id()), Some(*key));
        }
        assert_eq!(ApiKey::from_id(58), None);
        assert_eq!(ApiKey::from_id(-1), None);
    }

    #[test]
    fn the_header_follows_the_flexible_versions_but_for_two_exceptions() {
        // key, version, request header, response header
        for (key, version, request, response) in [
            (ApiKey::Produce, 8, 1, 0),
            (ApiKey::Fetch, 11, 1, 0),
            (ApiKey::Fetch, 12, 2, 1),
            (ApiKey::ControlledShutdown, 0, 0, 0),
            (ApiKey::ControlledShutdown, 1, 1, 0),
            (ApiKey::ControlledShutdown, 3, 2, 1),
            (ApiKey::ApiVersions, 0, 1, 0),
            (ApiKey::ApiVersions, 3, 2, 0),
            (ApiKey::ApiVersions, 99, 2, 0),
        ] {
            assert_eq!(key.request_header_version(version), request, "{key} v{version}");
            assert_eq!(key.response_header_version(version), response, "{key} v{version}");
        }
    }
}
