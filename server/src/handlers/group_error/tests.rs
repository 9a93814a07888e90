//! The group handlers, with a coordinator in memory: what the versions of the wire make of its answers.

use std::borrow::Cow;
use std::sync::Arc;

use milena_engine::io::simulated::ManualClock;
use milena_engine::units::TimestampMs;

use crate::coordination::Coordination;
use crate::coordination::embedded::EmbeddedTree;
use crate::group::GroupCoordinator;
use crate::group::tests::leading_coordinator;
use crate::handlers::*;
use crate::metadata_cache::MetadataCache;
use crate::protocol::messages::group_membership::*;
use crate::protocol::messages::groups::*;
use crate::protocol::messages::offsets::*;
use crate::protocol::schema::Array;
use crate::protocol::{ErrorCode, Message, Writer};
use crate::test_cluster::{embedded_tree, metadata_of};

const NOW: TimestampMs = TimestampMs(5_000);

/// A coordinator that leads everything, and a cluster in which only `t-0` and `t-1` exist.
struct Bench {
    runtime: tokio::runtime::Runtime,
    groups: Arc<GroupCoordinator>,
    metadata: MetadataCache,
    tree: Arc<dyn Coordination>,
    _embedded: EmbeddedTree,
}

fn bench() -> Bench {
    let embedded = embedded_tree(&Arc::new(ManualClock::new(NOW)));
    Bench {
        runtime: tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime"),
        groups: leading_coordinator(),
        metadata: metadata_of(&[("t", 0), ("t", 1)]),
        tree: embedded.session(),
        _embedded: embedded,
    }
}

/// Encoding refuses what a version cannot say.
fn encodes<'m, M: Message<'m>>(message: &M, version: i16) {
    message
        .encode(&mut Writer::new(), version)
        .expect("encodable in the version of the request");
}

impl Bench {
    fn join(&self, version: i16, request: &JoinGroupRequest<'_>) -> JoinGroupResponse<'static> {
        let response = join_group::handle(&self.groups, version, "client", "/127.0.0.1", request);
        let response = self.runtime.block_on(response);
        encodes(&response, version);
        response
    }

    fn commit(&self, version: i16, request: &OffsetCommitRequest<'_>) -> Vec<(String, i32, i16)> {
        let response = offset_commit::handle(&self.groups, &self.metadata, &self.tree, version, NOW, request);
        let response = self.runtime.block_on(response);
        encodes(&response, version);
        let mut codes = Vec::new();
        for topic in &response.topics {
            for partition in &topic.partitions {
                codes.push((
                    topic.name.to_string(),
                    partition.partition_index,
                    partition.error_code,
                ));
            }
        }
        codes
    }

    fn fetch(&self, version: i16, request: &OffsetFetchRequest<'_>) -> OffsetFetchResponse<'static> {
        let response = offset_fetch::handle(&self.groups, &self.metadata, &self.tree, version, request);
        let response = self.runtime.block_on(response);
        encodes(&response, version);
        response
    }
}

fn join_request<'a>(group_instance_id: Option<&'a str>) -> JoinGroupRequest<'a> {
    let range = JoinGroupRequestProtocol {
        name: "range".into(),
        metadata: Cow::Borrowed(b"subscription"),
    };
    JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        group_instance_id: group_instance_id.map(Cow::Borrowed),
        protocol_type: "consumer".into(),
        protocols: vec![range].into(),
        ..JoinGroupRequest::default()
    }
}

fn commit_request(partitions: &[(&'static str, i32, i64)]) -> OffsetCommitRequest<'static> {
    let topic =
        |(name, partition_index, committed_offset): &(&'static str, i32, i64)| OffsetCommitRequestTopic {
            name: Cow::Borrowed(name),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: *partition_index,
                committed_offset: *committed_offset,
                ..OffsetCommitRequestPartition::default()
            }]
            .into(),
        };
    OffsetCommitRequest {
        group_id: "g".into(),
        topics: partitions.iter().map(topic).collect(),
        ..OffsetCommitRequest::default()
    }
}

fn fetch_request(partitions: Option<&[i32]>) -> OffsetFetchRequest<'static> {
    let topics = partitions.map(|partitions| {
        let partition_indexes = partitions.to_vec().into();
        Array::from(vec![OffsetFetchRequestTopic {
            name: "t".into(),
            partition_indexes,
        }])
    });
    OffsetFetchRequest {
        group_id: "g".into(),
        topics,
        ..OffsetFetchRequest::default()
    }
}

fn fetched(response: &OffsetFetchResponse<'_>) -> Vec<(i32, i64, i16)> {
    let mut offsets = Vec::new();
    for topic in &response.topics {
        for partition in &topic.partitions {
            offsets.push((
                partition.partition_index,
                partition.committed_offset,
                partition.error_code,
            ));
        }
    }
    offsets
}

#[test]
fn a_new_member_is_let_in_at_once_before_version_4_and_sent_away_with_its_id_from_then_on() {
    for version in 0..=7 {
        let bench = bench();
        let response = bench.join(version, &join_request(None));
        if version < 4 {
            assert_eq!(
                (response.error_code, response.generation_id),
                (0, 1),
                "version {version}"
            );
            assert_eq!(response.members.len(), 1);
            assert_eq!(response.protocol_name.as_deref(), Some("range"));
        } else {
            assert_eq!(
                response.error_code,
                ErrorCode::MemberIdRequired.code(),
                "version {version}"
            );
            assert!(response.member_id.starts_with("client-"));
            assert_eq!(response.generation_id, -1);
            assert_eq!(
                response.protocol_name.as_deref(),
                if version < 7 { Some("") } else { None }
            );
        }
    }
    let response = bench().join(7, &join_request(Some("i")));
    assert_eq!(response.error_code, 0);
    assert!(response.member_id.starts_with("i-"));
}

#[test]
fn an_old_leader_can_be_told_of_static_members() {
    let bench = bench();
    let leader = bench.join(4, &join_request(None)).member_id;
    let leader = JoinGroupRequest {
        member_id: leader,
        ..join_request(None)
    };
    assert_eq!(bench.join(4, &leader).members.len(), 1);
    bench.runtime.block_on(async {
        let request = join_request(Some("i"));
        let newcomer = join_group::handle(&bench.groups, 5, "c", "/h", &request);
        let old = join_group::handle(&bench.groups, 4, "c", "/h", &leader);
        let (_, old) = tokio::join!(newcomer, old);
        assert_eq!(old.members.len(), 2);
        encodes(&old, 4);
    });
}

#[test]
fn a_sync_of_version_5_must_name_the_protocol() {
    let bench = bench();
    let joined = bench.join(3, &join_request(None));
    let assignment = SyncGroupRequestAssignment {
        member_id: joined.member_id.clone(),
        assignment: Cow::Borrowed(b"all"),
    };
    let request = SyncGroupRequest {
        group_id: "g".into(),
        generation_id: 1,
        member_id: joined.member_id,
        assignments: vec![assignment].into(),
        ..SyncGroupRequest::default()
    };
    let sync = |version, request: &SyncGroupRequest<'_>| {
        let response = bench
            .runtime
            .block_on(sync_group::handle(&bench.groups, version, request));
        encodes(&response, version);
        response
    };
    assert_eq!(
        sync(5, &request).error_code,
        ErrorCode::InconsistentGroupProtocol.code()
    );
    let named = SyncGroupRequest {
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        ..request.clone()
    };
    let response = sync(5, &named);
    assert_eq!((response.error_code, &*response.assignment), (0, &b"all"[..]));
    assert_eq!(response.protocol_name.as_deref(), Some("range"));
    assert_eq!(&*sync(0, &request).assignment, b"all");

    let request = HeartbeatRequest {
        group_id: "g".into(),
        generation_id: 2,
        member_id: request.member_id,
        ..HeartbeatRequest::default()
    };
    let response = bench.runtime.block_on(heartbeat::handle(&bench.groups, &request));
    assert_eq!(response.error_code, ErrorCode::IllegalGeneration.code());
}

#[test]
fn a_leave_has_the_error_of_its_member_up_to_version_2_and_one_for_each_from_then_on() {
    let bench = bench();
    bench.join(3, &join_request(None));
    let leave = |version, request: &LeaveGroupRequest<'_>| {
        let response = bench
            .runtime
            .block_on(leave_group::handle(&bench.groups, version, request));
        encodes(&response, version);
        response
    };
    let old = LeaveGroupRequest {
        group_id: "g".into(),
        member_id: "who".into(),
        ..LeaveGroupRequest::default()
    };
    let response = leave(2, &old);
    assert_eq!(response.error_code, ErrorCode::UnknownMemberId.code());
    assert!(response.members.is_empty());
    let who = MemberIdentity {
        member_id: "who".into(),
        group_instance_id: None,
    };
    let new = LeaveGroupRequest {
        group_id: "g".into(),
        members: vec![who].into(),
        ..LeaveGroupRequest::default()
    };
    let response = leave(3, &new);
    assert_eq!(response.error_code, 0);
    let member = response.members.first().expect("one member");
    assert_eq!(member.error_code, ErrorCode::UnknownMemberId.code());
}

#[test]
fn offsets_of_partitions_that_do_not_exist_are_refused_one_by_one() {
    let bench = bench();
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    for version in 0..=8 {
        let request = commit_request(&[("t", 0, 7), ("t", 2, 8), ("u", 0, 9), ("t", 1, 10)]);
        let codes = bench.commit(version, &request);
        let expected = [("t", 0, 0), ("t", 2, unknown), ("t", 1, 0), ("u", 0, unknown)];
        let expected = expected.map(|(topic, partition, code)| (topic.to_owned(), partition, code));
        assert_eq!(codes, expected, "version {version}");
        let response = bench.fetch(version.min(7), &fetch_request(Some(&[1, 0, 5])));
        let absent = if version == 0 { unknown } else { 0 };
        assert_eq!(
            fetched(&response),
            [(1, 10, 0), (0, 7, 0), (5, -1, absent)],
            "version {version}"
        );
    }
}

#[test]
fn who_does_not_coordinate_the_group_says_so_of_partitions_that_it_does_not_know_too() {
    let bench = bench();
    for partition in 0..bench.groups.partition_count() {
        bench.groups.on_resignation(partition, None);
    }
    let request = commit_request(&[("t", 0, 7), ("u", 0, 9)]);
    let elsewhere = ErrorCode::NotCoordinator.code();
    let told = |code| [("t".to_owned(), 0, code), ("u".to_owned(), 0, code)];
    for version in 1..=8 {
        assert_eq!(
            bench.commit(version, &request),
            told(elsewhere),
            "version {version}"
        );
    }
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(bench.commit(0, &request)[1], ("u".to_owned(), 0, unknown));
}

#[test]
fn offsets_of_version_0_live_in_the_tree_and_no_others() {
    let bench = bench();
    bench.commit(0, &commit_request(&[("t", 0, 7)]));
    assert_eq!(fetched(&bench.fetch(1, &fetch_request(Some(&[0])))), [(0, -1, 0)]);
    let node = bench
        .runtime
        .block_on(bench.tree.get("/consumers/g/offsets/t/0", None));
    let data = node.expect("readable").and_then(|node| node.data);
    assert_eq!(data.as_deref(), Some(&b"7"[..]));
    let mut request = commit_request(&[("t", 0, 7)]);
    request.group_id = "../brokers".into();
    let codes = bench.commit(0, &request);
    assert_eq!(codes[0].2, ErrorCode::InvalidGroupId.code());
}

#[test]
fn all_offsets_are_fetched_with_null_topics_and_errors_of_the_group_stand_where_the_version_has_room() {
    let bench = bench();
    bench.commit(8, &commit_request(&[("t", 0, 7)]));
    assert_eq!(fetched(&bench.fetch(2, &fetch_request(None))), [(0, 7, 0)]);
    assert!(bench.fetch(2, &fetch_request(Some(&[]))).topics.is_empty());
    bench.groups.shutdown();
    let code = ErrorCode::CoordinatorNotAvailable.code();
    let old = bench.fetch(1, &fetch_request(Some(&[0])));
    assert_eq!((old.error_code, fetched(&old)), (0, vec![(0, -1, code)]));
    let new = bench.fetch(2, &fetch_request(Some(&[0])));
    assert_eq!((new.error_code, fetched(&new)), (code, Vec::new()));
}

#[test]
fn groups_are_listed_described_and_deleted() {
    let bench = bench();
    bench.commit(8, &commit_request(&[("t", 0, 7)]));
    let list = |states: &[&'static str]| {
        let states_filter = states.iter().map(|state| Cow::Borrowed(*state)).collect();
        let response = list_groups::handle(&bench.groups, &ListGroupsRequest { states_filter });
        encodes(&response, 0);
        response
            .groups
            .iter()
            .map(|group| (group.group_id.to_string(), group.group_state.to_string()))
            .collect::<Vec<_>>()
    };
    let empty = vec![("g".to_owned(), "Empty".to_owned())];
    assert_eq!(list(&[]), empty);
    assert_eq!(list(&["Stable", "Empty"]), empty);
    assert_eq!(list(&["Stable"]), Vec::new());

    let names = |names: &[&'static str]| {
        names
            .iter()
            .map(|name| Cow::Borrowed(*name))
            .collect::<Array<'_, _>>()
    };
    let request = DescribeGroupsRequest {
        groups: names(&["g", "nobody"]),
        include_authorized_operations: true,
    };
    for version in 0..=5 {
        let response = describe_groups::handle(&bench.groups, version, &request);
        encodes(&response, version);
        let states: Vec<_> = response
            .groups
            .iter()
            .map(|group| (group.error_code, group.group_state))
            .collect();
        assert_eq!(states, [(0, Cow::Borrowed("Empty")), (0, Cow::Borrowed("Dead"))]);
        let operations = response.groups.first().map(|group| group.authorized_operations);
        assert_eq!(operations, Some(if version >= 3 { 328 } else { i32::MIN }));
    }

    let request = DeleteGroupsRequest {
        groups_names: names(&["g", "nobody", "g"]),
    };
    let response = bench
        .runtime
        .block_on(delete_groups::handle(&bench.groups, &request));
    encodes(&response, 2);
    let results: Vec<_> = response
        .results
        .iter()
        .map(|result| (result.group_id.to_string(), result.error_code))
        .collect();
    let not_found = ErrorCode::GroupIdNotFound.code();
    assert_eq!(results, [("g".to_owned(), 0), ("nobody".to_owned(), not_found)]);
}

#[test]
fn offsets_are_deleted_one_by_one_or_the_group_refuses() {
    let bench = bench();
    let partition = |partition_index| OffsetDeleteRequestPartition { partition_index };
    let topic = OffsetDeleteRequestTopic {
        name: "t".into(),
        partitions: vec![partition(0), partition(9)].into(),
    };
    let request = OffsetDeleteRequest {
        group_id: "g".into(),
        topics: vec![topic].into(),
    };
    let delete = || {
        bench
            .runtime
            .block_on(offset_delete::handle(&bench.groups, &bench.metadata, &request))
    };
    let refused = delete();
    assert_eq!(refused.error_code, ErrorCode::GroupIdNotFound.code());
    assert!(refused.topics.is_empty());
    bench.commit(8, &commit_request(&[("t", 0, 7), ("t", 1, 8)]));
    let response = delete();
    encodes(&response, 0);
    assert_eq!(response.error_code, 0);
    let topic = response.topics.first().expect("one topic");
    let mut codes: Vec<_> = topic
        .partitions
        .iter()
        .map(|p| (p.partition_index, p.error_code))
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, [(0, 0), (9, ErrorCode::UnknownTopicOrPartition.code())]);
    assert_eq!(fetched(&bench.fetch(2, &fetch_request(None))), [(1, 8, 0)]);
}
