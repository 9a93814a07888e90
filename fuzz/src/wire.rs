//! Every served message by its API: read, walked, written and read again.

use milena_server::protocol::messages::*;
use milena_server::protocol::{ApiKey, Message, Reader, Writer};

/// Which of the two messages of an API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Request,
    Response,
}

/// Reads a message and writes it, which walks its lazy arrays; `None` if the bytes are no such message.
type Rewrite = fn(&[u8], i16) -> Option<Vec<u8>>;

macro_rules! rows {
    ($($request:ident $response:ident),* $(,)?) => {
        [$((<$request<'_> as Message<'_>>::KEY, rewrite!($request), rewrite!($response))),*]
    };
}

macro_rules! rewrite {
    ($message:ident) => {
        |body, version| {
            let value = $message::decode(&mut Reader::new(body), version).ok()?;
            std::hint::black_box(format!("{value:?}"));
            let mut writer = Writer::new();
            value
                .encode(&mut writer, version)
                .expect("what was read can be written");
            Some(writer.as_slice().to_vec())
        }
    };
}

const MESSAGES: [(ApiKey, Rewrite, Rewrite); 29] = rows![
    ProduceRequest ProduceResponse,
    FetchRequest FetchResponse,
    ListOffsetRequest ListOffsetResponse,
    MetadataRequest MetadataResponse,
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
    DescribeAclsRequest DescribeAclsResponse,
    CreateAclsRequest CreateAclsResponse,
    DeleteAclsRequest DeleteAclsResponse,
    DescribeConfigsRequest DescribeConfigsResponse,
    AlterConfigsRequest AlterConfigsResponse,
    DescribeLogDirsRequest DescribeLogDirsResponse,
    CreatePartitionsRequest CreatePartitionsResponse,
    DeleteGroupsRequest DeleteGroupsResponse,
    IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse,
    OffsetDeleteRequest OffsetDeleteResponse,
];

/// The second writing must give the bytes of the first: nothing was lost or made up.
pub(crate) fn round_trip(key: ApiKey, version: i16, body: &[u8], side: Side) {
    let row = MESSAGES.iter().find(|(row, ..)| *row == key);
    let (_, request, response) = row.expect("every served message has a row");
    let rewrite = match side {
        Side::Request => request,
        Side::Response => response,
    };
    let Some(first) = rewrite(body, version) else {
        return;
    };
    let second = rewrite(&first, version).expect("what was written can be read");
    assert_eq!(first, second, "{key} {side:?} version {version}");
}
