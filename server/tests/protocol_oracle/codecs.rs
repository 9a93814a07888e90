//! Every message with both codecs: bytes in, the printed value and the bytes written again out.

use std::fmt;
use std::ops::RangeInclusive;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as oracle;
use kafka_protocol::protocol::{Decodable, Encodable};
use milena_server::protocol::messages as ours;
use milena_server::protocol::schema::StructSchema;
use milena_server::protocol::{Message, Reader, Writer};

/// What a codec made of bytes: how it prints the value, and the bytes it writes for it.
pub(super) type Verdict = Result<(String, Vec<u8>), String>;

/// One message with both codecs.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) body: StructSchema,
    pub(super) versions: RangeInclusive<i16>,
    pub(super) flexible_from: i16,
    pub(super) ours: fn(&[u8], i16) -> Verdict,
    pub(super) oracle: fn(&[u8], i16) -> Verdict,
}

pub(super) fn by_ours<'a, M: Message<'a>>(bytes: &'a [u8], version: i16) -> Verdict {
    let mut reader = Reader::new(bytes);
    let value = M::decode(&mut reader, version).map_err(|e| e.to_string())?;
    if reader.remaining() != 0 {
        return Err(format!("{} bytes left", reader.remaining()));
    }
    let mut writer = Writer::new();
    value.encode(&mut writer, version).map_err(|e| e.to_string())?;
    Ok((format!("{value:?}"), writer.as_slice().to_vec()))
}

fn by_oracle<M: Decodable + Encodable + fmt::Debug>(bytes: &[u8], version: i16) -> Verdict {
    let mut input = Bytes::copy_from_slice(bytes);
    let value = M::decode(&mut input, version).map_err(|e| format!("{e:#}"))?;
    if !input.is_empty() {
        return Err(format!("{} bytes left", input.len()));
    }
    let mut output = BytesMut::new();
    value.encode(&mut output, version).map_err(|e| format!("{e:#}"))?;
    Ok((format!("{value:?}"), output.to_vec()))
}

macro_rules! cases {
    ($($ours:ident = $oracle:ident),* $(,)?) => {
        vec![$(Case {
            name: stringify!($ours),
            body: ours::$ours::SCHEMA,
            versions: <ours::$ours as Message>::VERSIONS,
            flexible_from: <ours::$ours as Message>::SCHEMA.flexible_from,
            ours: |bytes, version| by_ours::<ours::$ours>(bytes, version),
            oracle: by_oracle::<oracle::$oracle>,
        }),*]
    };
}

macro_rules! same {
    ($($name:ident),* $(,)?) => { cases![$($name = $name),*] };
}

pub(super) fn messages() -> Vec<Case> {
    let mut cases = same![
        ProduceRequest,
        ProduceResponse,
        FetchRequest,
        FetchResponse,
        MetadataRequest,
        MetadataResponse,
        OffsetCommitRequest,
        OffsetCommitResponse,
        OffsetFetchRequest,
        OffsetFetchResponse,
        FindCoordinatorRequest,
        FindCoordinatorResponse,
        JoinGroupRequest,
        JoinGroupResponse,
        HeartbeatRequest,
        HeartbeatResponse,
        LeaveGroupRequest,
        LeaveGroupResponse,
        SyncGroupRequest,
        SyncGroupResponse,
        DescribeGroupsRequest,
        DescribeGroupsResponse,
        ListGroupsRequest,
        ListGroupsResponse,
        ApiVersionsRequest,
        ApiVersionsResponse,
        CreateTopicsRequest,
        CreateTopicsResponse,
        DeleteTopicsRequest,
        DeleteTopicsResponse,
        DeleteRecordsRequest,
        DeleteRecordsResponse,
        InitProducerIdRequest,
        InitProducerIdResponse,
        OffsetForLeaderEpochRequest,
        OffsetForLeaderEpochResponse,
        DescribeAclsRequest,
        DescribeAclsResponse,
        CreateAclsRequest,
        CreateAclsResponse,
        DeleteAclsRequest,
        DeleteAclsResponse,
        DescribeConfigsRequest,
        DescribeConfigsResponse,
        AlterConfigsRequest,
        AlterConfigsResponse,
        DescribeLogDirsRequest,
        DescribeLogDirsResponse,
        CreatePartitionsRequest,
        CreatePartitionsResponse,
        DeleteGroupsRequest,
        DeleteGroupsResponse,
        IncrementalAlterConfigsRequest,
        IncrementalAlterConfigsResponse,
        OffsetDeleteRequest,
        OffsetDeleteResponse,
        LeaderAndIsrRequest,
        LeaderAndIsrResponse,
        StopReplicaRequest,
        StopReplicaResponse,
        UpdateMetadataRequest,
        UpdateMetadataResponse,
        ControlledShutdownRequest,
        ControlledShutdownResponse,
        WriteTxnMarkersRequest,
        WriteTxnMarkersResponse,
        AlterReplicaLogDirsRequest,
        AlterReplicaLogDirsResponse,
        ElectLeadersRequest,
        ElectLeadersResponse,
        AlterPartitionReassignmentsRequest,
        AlterPartitionReassignmentsResponse,
        ListPartitionReassignmentsRequest,
        ListPartitionReassignmentsResponse,
        UpdateFeaturesRequest,
        UpdateFeaturesResponse,
    ];
    cases.extend(cases![
        ListOffsetRequest = ListOffsetsRequest,
        ListOffsetResponse = ListOffsetsResponse,
        AlterIsrRequest = AlterPartitionRequest,
        AlterIsrResponse = AlterPartitionResponse,
    ]);
    cases
}

macro_rules! consumer_protocol_case {
    ($name:ident) => {
        Case {
            name: stringify!($name),
            body: ours::$name::SCHEMA,
            versions: 0..=1,
            flexible_from: i16::MAX,
            ours: |bytes, version| {
                let prefixed = [&version.to_be_bytes(), bytes].concat();
                let value = ours::$name::decode(&prefixed).map_err(|e| e.to_string())?;
                let mut writer = Writer::new();
                value.encode(&mut writer, version).map_err(|e| e.to_string())?;
                Ok((format!("{value:?}"), writer.as_slice()[2..].to_vec()))
            },
            oracle: by_oracle::<oracle::$name>,
        }
    };
}

pub(super) fn all_cases() -> Vec<Case> {
    let mut cases = messages();
    cases.push(consumer_protocol_case!(ConsumerProtocolSubscription));
    cases.push(consumer_protocol_case!(ConsumerProtocolAssignment));
    cases
}
