//! Every served message by its API: read, walked, written and read again.

use milena_server::protocol::messages::*;
use milena_server::protocol::schema::MessageSchema;
use milena_server::protocol::{ApiKey, Message, Reader, Writer};

use crate::walk;

/// Which of the two messages of an API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Request,
    Response,
}

/// Both directions of one message.
#[derive(Clone, Copy, Debug)]
pub struct Codec {
    /// Reads and walks; says whether the bytes are such a message.
    read: fn(&[u8], i16) -> bool,
    /// Reads, writes, reads that and compares.
    read_again: fn(&[u8], i16),
    /// Reads and prints; an error is the text of the refusal.
    pub print: fn(&[u8], i16) -> Result<String, String>,
    pub schema: MessageSchema,
}

const fn schema_of<'a, M: Message<'a>>() -> MessageSchema {
    M::SCHEMA
}

const fn key_of<'a, M: Message<'a>>() -> ApiKey {
    M::KEY
}

macro_rules! rows {
    ($($request:ident $response:ident),* $(,)?) => {
        [$((key_of::<$request>(), codec!($request), codec!($response))),*]
    };
}

macro_rules! codec {
    ($message:ident) => {
        Codec {
            read: |body, version| {
                let value = $message::decode(&mut Reader::new(body), version);
                value.iter().for_each(|value| walk(value));
                value.is_ok()
            },
            read_again: |body, version| {
                let value = $message::decode(&mut Reader::new(body), version).expect("what was read before");
                let mut writer = Writer::new();
                // a text that is not UTF-8 grows when it is read, and may then be too long to be written
                if value.encode(&mut writer, version).is_ok() {
                    let mut reader = Reader::new(writer.as_slice());
                    let again = $message::decode(&mut reader, version).expect("what was written can be read");
                    assert_eq!(again, value);
                    assert_eq!(reader.remaining(), 0);
                }
            },
            print: |body, version| {
                let value = $message::decode(&mut Reader::new(body), version);
                value
                    .map(|value| format!("{value:?}"))
                    .map_err(|error| error.to_string())
            },
            schema: schema_of::<$message>(),
        }
    };
}

const MESSAGES: [(ApiKey, Codec, Codec); 40] = rows![
    ProduceRequest ProduceResponse,
    FetchRequest FetchResponse,
    ListOffsetRequest ListOffsetResponse,
    MetadataRequest MetadataResponse,
    LeaderAndIsrRequest LeaderAndIsrResponse,
    StopReplicaRequest StopReplicaResponse,
    UpdateMetadataRequest UpdateMetadataResponse,
    ControlledShutdownRequest ControlledShutdownResponse,
    OffsetCommitRequest OffsetCommitResponse,
    OffsetFetchRequest OffsetFetchResponse,
    FindCoordinatorRequest FindCoordinatorResponse,
    JoinGroupRequest JoinGroupResponse,
    HeartbeatRequest HeartbeatResponse,
    LeaveGroupRequest LeaveGroupResponse,
    SyncGroupRequest SyncGroupResponse,
    DescribeGroupsRequest DescribeGroupsResponse,
    ListGroupsRequest ListGroupsResponse,
    ApiVersionsRequest ApiVersionsResponse,
    CreateTopicsRequest CreateTopicsResponse,
    DeleteTopicsRequest DeleteTopicsResponse,
    DeleteRecordsRequest DeleteRecordsResponse,
    InitProducerIdRequest InitProducerIdResponse,
    OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse,
    WriteTxnMarkersRequest WriteTxnMarkersResponse,
    DescribeAclsRequest DescribeAclsResponse,
    CreateAclsRequest CreateAclsResponse,
    DeleteAclsRequest DeleteAclsResponse,
    DescribeConfigsRequest DescribeConfigsResponse,
    AlterConfigsRequest AlterConfigsResponse,
    AlterReplicaLogDirsRequest AlterReplicaLogDirsResponse,
    DescribeLogDirsRequest DescribeLogDirsResponse,
    CreatePartitionsRequest CreatePartitionsResponse,
    DeleteGroupsRequest DeleteGroupsResponse,
    ElectLeadersRequest ElectLeadersResponse,
    IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse,
    AlterPartitionReassignmentsRequest AlterPartitionReassignmentsResponse,
    ListPartitionReassignmentsRequest ListPartitionReassignmentsResponse,
    OffsetDeleteRequest OffsetDeleteResponse,
    AlterIsrRequest AlterIsrResponse,
    UpdateFeaturesRequest UpdateFeaturesResponse,
];

/// Of a served API.
pub fn codec(key: ApiKey, side: Side) -> Codec {
    let row = MESSAGES.iter().find(|(row, ..)| *row == key);
    let (_, request, response) = row.expect("every served message has a row");
    match side {
        Side::Request => *request,
        Side::Response => *response,
    }
}

/// Reads a message and walks all of it.
pub(crate) fn read(key: ApiKey, version: i16, body: &[u8], side: Side) {
    (codec(key, side).read)(body, version);
}

/// What is read is written and read again the same: nothing is lost or made up.
pub(crate) fn read_again(key: ApiKey, version: i16, body: &[u8], side: Side) {
    let codec = codec(key, side);
    if (codec.read)(body, version) {
        (codec.read_again)(body, version);
    }
}
